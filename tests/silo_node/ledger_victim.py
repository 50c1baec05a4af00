"""Runs a ledger in child processes that die at chosen points, and says what was found after each.

`python -m tests.silo_node.ledger_victim HOW DIRECTORY [OF]` with HOW one of write, torn, statement, time, and OF one of
`CHANGES`. Prints one JSON line: {"points": how many deaths, "wrong": [what did not hold]}.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from policies.budget.ledger import Consulted, KeptState, RunStep
from policies.requests.approval import StoredVerdict
from silo_node.ledger import events
from silo_node.ledger.approvals import Waiting
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from tests.harness.inside import database_of
from tests.harness.owner_home import charge, charged
from tests.silo_node.test_ledger_store import SIGNER

LIMIT = 10**6
MAX_POINTS = 1000


RUN = b"run-------------"


def step(number: int) -> RunStep:
    return RunStep(RUN, bytes(32), number, steps=4, each=5_000, silos=("north", "south"))


def steps() -> list[Callable[[LedgerStore], object]]:
    """Return one change of every kind, in an order in which each does something."""
    one, two, three, four = (charge(number, 1_800_000_000) for number in (1, 2, 3, 4))
    subject = bytes(range(32))
    waiting = Waiting(subject, b"request", "ana", "research", 5, 1_800_000_000, 1_900_000_000)
    return [
        lambda store: store.start(bytes(32), 1),
        lambda store: store.reserve(one, LIMIT),
        lambda store: store.begin_charge(one.nonce, bytes(16)),
        lambda store: store.commit(one.nonce, bytes(16), Consulted("research", 5, None)),
        lambda store: store.record_survivors(bytes(16), bytes(32)),
        lambda store: store.reserve(two, LIMIT),
        lambda store: store.release(two.nonce),
        lambda store: store.reserve(three, LIMIT),
        lambda store: store.save_run(bytes(16), KeptState(b"state" * 2000)),
        lambda store: store.await_approval(waiting),
        lambda store: store.add_verdict(StoredVerdict("dpo", subject, "approve", 5, b"signed")),
        lambda store: store.record(events.Opened(round_id=bytes(16), split_hash=bytes(32))),
        lambda store: store.erase(Due(models=2_000_000_000, rounds=2_000_000_000)),
        lambda store: store.begin_charge(three.nonce, bytes(16)),
        lambda store: store.start(bytes(32), 2),
        lambda store: store.reserve(four, LIMIT),
        lambda store: store.begin_charge(four.nonce, bytes(16)),
        lambda store: store.release(four.nonce),
    ]


def steps_of_a_run() -> list[Callable[[LedgerStore], object]]:
    """Return the changes of a run that reserves ahead, goes on after a restart and is given up."""
    first, second, third = (charge(10 + number, 1_800_000_000, run=step(number)) for number in range(3))
    return [
        lambda store: store.start(bytes(32), 1),
        lambda store: store.reserve(first, LIMIT),
        lambda store: store.release(first.nonce),
        lambda store: store.reserve(first, LIMIT),
        lambda store: store.begin_charge(first.nonce, bytes(16)),
        lambda store: store.commit(first.nonce, bytes(16)),
        lambda store: store.reserve(second, LIMIT),
        lambda store: store.release(second.nonce),
        lambda store: store.reserve(second, LIMIT),
        lambda store: store.begin_charge(second.nonce, bytes(16)),
        lambda store: store.start(bytes(32), 2),
        lambda store: store.reserve(third, LIMIT),
        lambda store: store.stop_run(RUN, "abandoned", releases=False),
        lambda store: store.stop_run(RUN, "abandoned", releases=True),
    ]


CHANGES = {"questions": steps, "a run": steps_of_a_run}


def state_of(store: LedgerStore) -> list[object]:
    """Return all that a ledger holds, apart from clock times and signatures; raises LedgerError if it is not whole."""
    store.audit()
    return [
        store.spending().lifetime,
        [[row.analyst, row.purpose, row.micro_rho, row.is_committed] for row in store.history()],
        [entry.event.kind for entry in store.entries(1000)],
        len(store.runs()),
        [[one.next_step, one.micro_rho] for one in store.reservations()],
        store.why_over(RUN),
        len(store.waiting()),
        len(store.verdicts(bytes(range(32)))),
        database_of(store).execute("SELECT count(*) FROM splits").fetchone()[0],
    ]


def run(path: Path, acknowledged: int, arm: Callable[[LedgerStore], None], of: str) -> None:
    """Open the ledger and take every step; write one byte after each that has returned."""
    store = LedgerStore(path, SIGNER)
    arm(store)
    for step in CHANGES[of]():
        step(store)
        os.write(acknowledged, b".")
    store.close()


def child(work: Callable[[int], None]) -> tuple[int, int, bool]:
    """Run `work` in a child; return its pid, where its acknowledgements can be read, and that it is the parent."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            work(writing)
            os._exit(0)
        except BaseException as err:
            sys.stderr.write(f"{type(err).__name__}: {err}\n")
            os._exit(1)
    os.close(writing)
    return pid, reading, True


def acknowledgements(reading: int) -> int:
    with os.fdopen(reading, "rb") as pipe:
        return len(pipe.read())


def main(how: str, directory: Path, of: str = "questions") -> dict[str, object]:
    clean = directory / "clean.sqlite"
    states: list[list[object]] = []
    with closing(LedgerStore(clean, SIGNER)) as store:
        states.append(state_of(store))
        for step in CHANGES[of]():
            step(store)
            states.append(state_of(store))
    wrong: list[str] = []
    if how == "time":
        return {"points": by_time(directory, wrong), "wrong": wrong}
    for point in range(1, MAX_POINTS):
        path = directory / f"{how}-{point}.sqlite"
        pid, reading, _ = child(lambda pipe, path=path, point=point: run(path, pipe, armed(how, point), of))  # type: ignore[misc]
        done = acknowledgements(reading)
        status = os.waitpid(pid, 0)[1]
        if status == 0:
            return {"points": point - 1, "wrong": wrong}
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            wrong.append(f"point {point}: status {status}")
            continue
        try:
            with closing(LedgerStore(path, SIGNER)) as store:
                found = state_of(store)
        except Exception as err:
            wrong.append(f"point {point}: {type(err).__name__}: {err}")
            continue
        if found not in states[done : done + 2]:
            wrong.append(f"point {point}: after {done} acknowledged steps the ledger holds {found}")
    return {"points": MAX_POINTS, "wrong": [*wrong, "it never came to an end"]}


def armed(how: str, point: int) -> Callable[[LedgerStore], None]:
    """Return what makes a process die at the n-th point after its ledger was opened."""
    if how == "statement":

        def count(store: LedgerStore) -> None:
            left = [point]

            def traced(_: str) -> None:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

            database_of(store).connection.set_trace_callback(traced)

        return count

    def arm(_: LedgerStore) -> None:
        ctypes.CDLL(None).arm(ctypes.c_long(point), ctypes.c_int(how == "torn"), b".sqlite")

    return arm


def by_time(directory: Path, wrong: list[str]) -> int:
    """Kill a process that spends without end after ever other times; what it acknowledged must be there."""

    def spend(path: Path) -> Callable[[int], None]:
        def work(pipe: int) -> None:
            store = LedgerStore(path, SIGNER)
            for number in range(1, 10_000):
                one = charge(number, 1_800_000_000, micro_rho=1)
                store.reserve(one, LIMIT)
                charged(store, one.nonce, bytes(16))
                os.write(pipe, b".")

        return work

    deaths = 0
    for index in range(24):
        path = directory / f"time-{index}.sqlite"
        pid, reading, _ = child(spend(path))
        time.sleep(0.02 + 0.0037 * index)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        done = acknowledgements(reading)
        deaths += 1
        with closing(LedgerStore(path, SIGNER)) as store:
            spent = store.spending().lifetime
            store.audit()
            committed = sum(row.is_committed for row in store.history())
        if not done <= committed <= spent <= done + 1:
            wrong.append(f"killed in time: {done} acknowledged, {committed} committed, {spent} spent")
    return deaths


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])))
