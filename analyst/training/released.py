"""Take the model of a finished run that the silos seal to this analyst: docs/protocol.md section 11.4.

Promise: a model is taken only as a quorum of the run's silos signed it, all to the same bytes.
"""

from collections import defaultdict
from contextlib import suppress

from analyst.client import Federation
from analyst.errors import AnalystError
from crypto.errors import CryptoError
from crypto.rounds.committees import quorum_of
from crypto.wire import is_envelope, verify
from federation.errors import FederationError
from policies.models.released import ReleasedModel, sealing_context
from policies.requests.request import Request, job_of
from policies.requests.sending import learned_s
from policies.units import counted

REFUSED = (
    'silos release a model where disclosure.release has "model-to-analyst" still; it stays at the silos, and the same'
    " command fetches it once they do, while the aggregator keeps the last report; a model that is too large to be sent"
    " stays there for good, and `consilo-silo models show` says so"
)


def taken(federation: Federation, request: Request, name: bytes) -> ReleasedModel | str:
    """Return what `fetch_model` does, or why there is no model, with what to do."""
    try:
        return fetch_model(federation, request, name)
    except (AnalystError, FederationError) as err:
        return f"{err.message}; {err.hint}"


def fetch_model(federation: Federation, request: Request, name: bytes) -> ReleasedModel:
    """Return the model after the report `name`, which was the last of the run of a request of that run.

    Raises AnalystError if fewer silos than a quorum signed the same one.
    """
    step = request.plan.training
    if step is None or step.released_to is None:
        hint = 'train with recipients = ["silos", "analyst"]'
        raise AnalystError("the run's requests name no model for the analyst", hint)
    job, context = job_of(request, step), sealing_context(federation.config.federation, step.run, federation.analyst)
    found: dict[ReleasedModel, set[str]] = defaultdict(set)
    for part in federation.aggregators.holder(name).deliver_report(name, learned_s(request))[: 2 * len(request.silos)]:
        if is_envelope(part):
            continue  # what a silo says of its own progress
        with suppress(CryptoError):
            signed = verify(federation.opened(part, context), ReleasedModel, federation.config.roster.silo_keys)
            model = signed.message
            of = (model.federation, model.run, model.position, model.job)
            if of == (federation.config.federation, step.run, name, job) and signed.signer in request.silos:
                found[model].add(signed.signer)
    needed = quorum_of(len(request.silos))
    for model, signers in found.items():
        if len(signers) >= needed:
            return model
    most = max(map(len, found.values()), default=0)
    raise AnalystError(
        f"{counted(most, 'silo')} released the same model, {needed} of {len(request.silos)} must", REFUSED
    )
