"""Open the report of a training step at a silo, which is its recipient, and move the model: docs/protocol.md 11."""

from collections.abc import Collection, Sequence
from functools import partial

from crypto.errors import ProtocolError
from crypto.keys import VerifyKey
from crypto.rounds.bounds import why_infeasible, why_too_few
from crypto.rounds.manifest import Propose
from crypto.rounds.messages import ModelUpdated
from crypto.rounds.opening import CheckedReport, check_report, open_report
from crypto.rounds.recount import check_sum
from crypto.rounds.report import StoredReport
from crypto.wire import sign, signer_of, verify
from policies.budget.ledger import Ledger
from policies.decision.compiled import compiled
from policies.models.record import recorded
from policies.requests.network_steps import network_of, packed_name
from policies.requests.request import Request, resolved
from policies.requests.round_key import round_secret
from policies.requests.terms import terms_of
from policies.requests.training import TrainingStep
from silo_node.graphs.resolving import with_kept
from silo_node.rounds.owning import learn_own
from silo_node.rounds.proposal import keep_run, load_run, state_of
from silo_node.rounds.releasing import released
from silo_node.rounds.states import Silo
from silo_node.training.auditing import beside
from silo_node.training.beginning import with_begun
from silo_node.training.models import MODELS
from silo_node.training.run import Opened, RunState, check_position, position_of


def learn(silo: Silo, ledger: Ledger, now: int, data: bytes, evidence: Sequence[bytes]) -> tuple[bytes, ...]:
    """Open the report of a training step, move the model by it, and return the signed ModelUpdated.

    At the end of a run whose model its analyst may have, that model follows, sealed to the analyst.

    `evidence` has the masked inputs of the survivors, chunk by chunk: the sum is added once more before it is used. Of
    a long sum it has those alone that no products prove.

    The new state is durable before this returns. A report that is not the next one of its run changes nothing; the
    returned ModelUpdated then names the last report that this silo learned.
    """
    stored = StoredReport.decode(data)
    proposed = verify(stored.message.propose, Propose, silo.aggregators).message
    request, step, request_hash = step_request(silo, proposed.request)
    state = state_of(silo, ledger, request)
    is_new = state is None or state.position != stored.name
    if state is None or is_new:
        try:
            check_position(state, request)
        except ProtocolError:
            return (signed_position(silo, ledger, step.run, state),)
        check_domains(request)
        terms = terms_of(request, request_hash)
        checked = check_report(stored, terms, silo.silos, silo.aggregators, request.round_key)
        check_conditions(silo, checked)
        members = len(evidence) // checked.scheme.shape.chunks
        check_sum(checked, lambda index: evidence[index * members : (index + 1) * members])
        opened = open_report(checked, silo.name, silo.sealing, round_secret(request, silo.name, silo.sealing))
        record = recorded(None if state is None else state.record, request, step, checked)
        begun = with_begun(request, partial(load_run, silo, ledger))
        state = MODELS[request.plan.kind](state, begun, stored.name, opened, now)
        state = state.model_copy(update={"record": record})
        if (model := audited_model(silo, ledger, request, state, opened)) is not None:
            keep_run(silo, ledger, model, is_learned=False)  # an audit keeps a model no longer
        learn_own(silo, ledger, request, checked)
        keep_run(silo, ledger, state, state.done)
        ledger.tidy_own(step.run, state.done)
    return (signed_position(silo, ledger, step.run, state), *released(silo, ledger, request, state, is_new=is_new))


def check_domains(request: Request) -> None:
    """Raise ProtocolError if a long domain, or a packed network, that a model needs is not here any more."""
    if unknown := request.table.unresolved:
        raise ProtocolError(f"the model has a feature with the domain {unknown[0].name}, which this policy lacks")
    step = network_of(request)
    if step is not None and (name := packed_name(request)) is not None and step.graph is None:
        raise ProtocolError(f"the packed network {name} is not at this silo any more", "send it again, or add it")


def step_request(silo: Silo, envelope: bytes) -> tuple[Request, TrainingStep, bytes]:
    """Return the signed request of a training step, the step, and the hash of the request; raises CryptoError."""
    name = signer_of(envelope, Request)
    analyst = silo.policy.analyst(name)
    if analyst is None:
        raise ProtocolError("the report belongs to a request of somebody who is not an analyst here")
    signed = verify(envelope, Request, {name: VerifyKey.parse(analyst.key)})
    request = with_kept(silo.graphs, resolved(signed.message, compiled(silo.policy).domains))
    step = request.plan.training
    if request.analyst != name or request.federation != silo.federation or step is None:
        raise ProtocolError("the report is not that of a training step of this federation")
    return request, step, signed.digest


def audited_model(silo: Silo, ledger: Ledger, request: Request, audit: RunState, opened: Opened) -> RunState | None:
    """Return the state of the model that an audit is of, with it; None if no audited model stands here."""
    judged = request.plan.judged
    if judged is None or (model := load_run(silo, ledger, judged.run)) is None:
        return None
    return beside(model, request, audit, opened) if model.position == judged.position else None


def signed_position(silo: Silo, ledger: Ledger, run: bytes, state: RunState | None) -> bytes:
    """Return the signed ModelUpdated: what this silo has learned of a run, and why it takes no further step of it."""
    ended = None if state is None else state.ended
    if ended is None and (why := ledger.why_over(run)) is not None:
        ended = "abandoned" if why == "expired" else why
    learned = ModelUpdated(federation=silo.federation, run=run, position=position_of(state), ended=ended)
    return sign(learned, silo.name, silo.signing)


def check_conditions(silo: Silo, checked: CheckedReport) -> None:
    """Raise ProtocolError unless a report meets this silo's own conditions; it may have been made without this silo."""
    manifest = checked.manifest
    if reason := why_unmet(silo, manifest.terms.asked, checked.survivors, manifest.noise_shares):
        raise ProtocolError(f"the report does not meet this silo's own policy: {reason}")


def why_unmet(silo: Silo, asked: int, survivors: Collection[str], noise_shares: int) -> str:
    """Return why the sum of these survivors does not meet this silo's own conditions; empty if it does.

    `noise_shares` is of how many silos the noise alone is enough.
    """
    protection, least = silo.policy.protection, silo.policy.disclosure.min_silos
    conditions = asked, least, protection.max_colluding, protection.max_missing
    reason = why_infeasible(*conditions) or why_too_few(len(survivors), *conditions)
    if not reason and len(survivors) - protection.max_colluding < noise_shares:
        reason = f"its noise is not enough if {protection.max_colluding} silos collude"
    if not reason and (without := set(protection.must_include) - set(survivors)):
        reason = f"it was made without {', '.join(sorted(without))}"
    return reason
