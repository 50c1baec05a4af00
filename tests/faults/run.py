"""One case: hold a round at a state, inflict the fault, let it go on, and judge."""

import queue
import signal
import time
from collections.abc import Mapping
from dataclasses import replace

from tests.faults.inflict import WITHDRAWN, inflict
from tests.faults.judge import STANDS, Seen, Verdict, judge
from tests.faults.lane import Lane, Said
from tests.faults.table import CEDAR, Case
from tests.harness.federated import ANALYST

LIMIT_S = 330.0  # of a command, beyond all that is right
HELD_S = 60.0


def price_of(lane: Lane) -> int:
    """Ask once without a fault; return what it cost each silo."""
    before = lane.spent()
    said = lane.ask()
    assert said.count is not None, said
    assert abs(said.count - sum(lane.truth.values())) <= lane.slack, said
    (price,) = {after - before[name] for name, after in lane.spent().items()}
    return price


def run(lane: Lane, case: Case, price: int) -> Verdict:
    """Return what became of a case; the lane is settled afterwards, or this raises."""
    lane.rest()
    before, log = lane.spent(), len(lane.owner_log())
    party = lane.hold(case.state)
    lane.begin()
    try:
        held = party.event(HELD_S)
    except queue.Empty:
        held = {"event": "never"}
    assert held["event"] == "held", f"{case}: the round never came to this state"
    began = time.monotonic()
    inflict(lane, case.fault)
    party.tell("go")
    try:
        said = lane.end(LIMIT_S)
    except queue.Empty:
        lane.parties[ANALYST].signal(signal.SIGKILL)
        said = Said(time.monotonic() - began, error=f"nothing within {LIMIT_S:g} s", status=1)
    lane.settle()
    charged = _times(lane, before, price)
    again = lane.ask()
    if again.count is None and STANDS.search(again.text):  # it is said to be lost: the next is a new request
        lost, again = again, lane.ask()
        again = replace(again, notes=(lost.error, lost.hint, *again.notes))
    counts = dict(lane.truth)
    if case.fault.kind == "consent file replaced" and case.state.step not in ("agree", "open_shares"):
        counts[CEDAR] -= WITHDRAWN  # decisions are read at contribute
    charged_again, truth = _times(lane, before, price), sum(lane.truth.values())
    return judge(Seen(case, said, again, charged, charged_again, counts, truth, lane.owner_log()[log:], lane.slack))


def _times(lane: Lane, before: Mapping[str, int], price: int) -> dict[str, float]:
    """Return how many prices each silo has spent, once its rounds are over."""
    lane.rest()
    return {name: (after - before[name]) / price for name, after in lane.spent().items()}
