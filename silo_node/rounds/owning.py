"""What a silo keeps for itself of a run, as a round makes it, uses it and puts it in force: `silo_node.training.own`.

Promise: what was made from rows that are others now is dropped, durably, before what was computed from the new ones
leaves; what a round made is durable before its contribution leaves, and in force only once the round is learned with
this silo in its sum.
"""

from collections.abc import Callable

from crypto.errors import CryptoError
from crypto.rounds.opening import CheckedReport
from policies.budget.ledger import Ledger
from policies.requests.request import Request
from policies.requests.training import TrainingStep
from silo_node.data.figures import Computed
from silo_node.rounds.proposal import load_run
from silo_node.rounds.states import Silo
from silo_node.training.own import KeptOwn, kept, lost, made, read_kept

DROPPED = "what this silo kept for itself of run {} was dropped: the rows behind it, or a consent, have changed"


def load_own(silo: Silo, ledger: Ledger, request: Request) -> KeptOwn | None:
    """Return what is in force of the run that a request trains or judges; None where the silo keeps nothing of it.

    A file that is damaged counts as dropped.
    """
    if (step := _keeping(request)) is None:
        return None
    run, done = _at(silo, ledger, request, step)
    found = ledger.load_own(run, done)
    if found is None and step.continues is not None:
        run = step.continues
        found = ledger.load_own(run, done)
    if found is None:
        return None
    number, data = found
    try:
        own = read_kept(data, silo.name, silo.signing.public) if data else lost(run, number)
    except CryptoError:
        return lost(run, number)
    return own if (own.state.run, own.state.step) == (run, number) else lost(run, number)


def settle(
    silo: Silo, ledger: Ledger, request: Request, round_id: bytes, computed: Computed, tell: Callable[[str], None]
) -> None:
    """Drop what was made from other rows, and keep what this round made until it is known whether it counts."""
    step, before = _keeping(request), load_own(silo, ledger, request)
    if step is None:
        return
    if before is not None and before.state.numbers and before.state.rows != computed.rows:
        _, done = _at(silo, ledger, request, step)
        ledger.drop_own(before.state.run, done)
        tell(DROPPED.format(before.state.run.hex()))
    if computed.own and computed.rows is not None:
        own = made(request, round_id, computed.rows, computed.own)
        ledger.keep_own(step.run, step.step, round_id, kept(own, silo.name, silo.signing))


def learn_own(silo: Silo, ledger: Ledger, request: Request, checked: CheckedReport) -> None:
    """Put in force what the round of a report made, for when the state after it is saved."""
    step = request.plan.training
    if step is not None and request.plan.judged is None and step.owns(request.table):
        took_part = silo.name in checked.survivors
        ledger.learn_own(step.run, step.step, checked.manifest.round_id, took_part=took_part)


def _keeping(request: Request) -> TrainingStep | None:
    """Return the step of the run whose silos keep something for themselves that a request trains or judges."""
    judged = request.plan.judged
    step = request.plan.training if judged is None else judged.step
    if step is None:
        return None
    rounds = (step.model_copy(update={"step": number}) for number in (step.step, max(0, step.steps - 1)))
    return step if any(one.owns(request.table) for one in rounds) else None


def _at(silo: Silo, ledger: Ledger, request: Request, step: TrainingStep) -> tuple[bytes, int]:
    """Return the run that a request is about, and how many steps of it are learned."""
    judged = request.plan.judged
    if judged is None:
        return step.run, step.step
    state = load_run(silo, ledger, judged.run)
    return judged.run, 0 if state is None else state.done
