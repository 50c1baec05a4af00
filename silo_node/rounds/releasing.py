"""Seal the model of a finished run to the analyst whose signed request asked for it: docs/protocol.md section 11.4.

Promise: nothing is sealed before the run is over, nor under a policy that does not open it. An update of a round
goes to nobody but the silos. What was computed with noise costs nothing more, as the model follows from opened sums.
"""

from contextlib import suppress

from crypto.errors import CryptoError
from crypto.sealing import seal
from crypto.wire import sign
from policies.budget.ledger import Ledger
from policies.models.forms import Form
from policies.models.released import ReleasedModel, sealing_context
from policies.requests.request import Request
from silo_node.errors import SiloError
from silo_node.rounds.states import Silo
from silo_node.training.leaving import may_leave
from silo_node.training.networks.form import with_packed
from silo_node.training.portable import family_of, fitted_of, portable_of
from silo_node.training.run import RunState


def released(silo: Silo, ledger: Ledger, request: Request, state: RunState, *, is_new: bool) -> tuple[bytes, ...]:
    """Return the silo's model, signed and sealed to the analyst, as one frame; none where it stays here.

    `request` is of the step that was learned last, just now if it `is_new`. A run is over with its last step, with an
    end before it, or once the silo takes no further step of it. One without noise also is where its analyst asks for no
    further step and hands the same report over again: a run of fewer steps would have ended there. A model that is too
    large to be a message stays here too.
    """
    step = request.plan.training
    receiver = None if step is None else step.released_to
    if step is None or receiver is None:
        return ()
    is_left = step.release == "exact" and not is_new
    if not (state.is_final or is_left or ledger.why_over(step.run) is not None):
        return ()
    with suppress(SiloError, CryptoError):
        may_leave(silo.policy, state, "release")
        known = state if silo.graphs is None else with_packed(state, silo.graphs.find)
        signed = sign(model_of(silo.federation, known), silo.name, silo.signing)
        context = sealing_context(silo.federation, state.run, request.analyst)
        return (seal(receiver.key, signed, context),)
    return ()


def model_of(federation: str, state: RunState) -> ReleasedModel:
    """Return what is released of a model, which is the same at every silo at its position of the run."""
    form: Form | None = None
    with suppress(SiloError):
        form = portable_of(state)
    return ReleasedModel(
        federation=federation,
        run=state.run,
        position=state.position,
        job=state.job,
        family=family_of(state),
        done=state.done,
        ended=state.ended,
        fitted=fitted_of(state),
        portable=form,
    )
