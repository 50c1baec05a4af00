"""One party in a process of its own, under a test's control: `python -m tests.faults.party ROLE HOME NAME PORT`.

A further argument is the address of the second aggregator.

Each line of its input is a command, each line of its output a reply or an event, in JSON. A silo is a `LocalSilo` with
a process that computes, an aggregator a `Gate`, an analyst the command `consilo`; none of them needs Ray.
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, cast

_now = time.time
_ahead = [0.0]
time.time = lambda: _now() + _ahead[0]  # before anything keeps a reference to it

import asyncio  # noqa: E402
import io  # noqa: E402
import re  # noqa: E402
from contextlib import redirect_stderr, redirect_stdout  # noqa: E402
from pathlib import Path  # noqa: E402

import grpc.aio  # noqa: E402

from aggregator.streams import StreamSilo  # noqa: E402
from aggregator.transcripts import Transcripts  # noqa: E402
from analyst.cli.main import main as consilo  # noqa: E402
from tests.faults.disk import Disk  # noqa: E402
from tests.harness.federated import AGGREGATOR, ANALYST, Counted, LocalSilo, Loop, make_gate  # noqa: E402
from tests.harness.inside import ledger_of, rounds_of, silence  # noqa: E402

HOLD_S = 60.0
QUESTION = "SELECT COUNT(*) AS n FROM lung"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Control:
    """The lines to and from the test, and the one point at which this process holds."""

    def __init__(self) -> None:
        self._out, self._writing = sys.stdout, threading.Lock()
        self._armed: tuple[str, str] | None = None
        self._go = threading.Event()
        self.commands: dict[str, Callable[..., Any]] = {"hold": self._arm, "go": self._go.set, "clock": self._set_clock}

    def say(self, **line: Any) -> None:
        with self._writing:
            print(json.dumps(line), file=self._out, flush=True)

    def follow(self) -> None:
        """Obey the commands until the test is gone; then this process ends."""
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            try:
                self.say(to=name, value=self.commands[name](*arguments))
            except Exception as err:
                self.say(to=name, error=f"{type(err).__name__}: {err}")

    def hold(self, step: str, when: str) -> None:
        """Wait here until the test lets this process go on, if this is the point that it named."""
        if self._armed == (step, when):
            self._armed = None
            self.say(event="held")
            self._go.wait(HOLD_S)

    def _arm(self, step: str, when: str) -> None:
        self._go.clear()
        self._armed = (step, when) if step else None

    def _set_clock(self, seconds: float) -> None:
        _ahead[0] = seconds


def dial_through(port: int) -> None:
    """Let what this process dials of the first aggregator go through a port whose link a test can cut."""
    second = sys.argv[5] if len(sys.argv) > 5 else ""
    dial = grpc.aio.secure_channel

    def through(target: str, *arguments: Any, **named: Any) -> Any:
        return dial(target if target == second else f"127.0.0.1:{port}", *arguments, **named)

    grpc.aio.secure_channel = through


def noisy(control: Control, home: Path, name: str, port: int) -> None:
    """Be a silo with its noise."""
    silo(control, home, name, port, is_silent=False)


def silo(control: Control, home: Path, name: str, port: int, *, is_silent: bool = True) -> None:
    dial_through(port)
    runner = Loop()
    one = LocalSilo(home, name, runner, sleep=time.sleep, silos=4)
    disk = Disk(home / name)
    if is_silent:
        silence(one)
    one.before = lambda step: control.hold(step, "before")
    one.after = lambda step: control.hold(step, "after")

    def spent() -> int:
        ledger = ledger_of(one)
        ledger.audit()
        return ledger.spending().lifetime

    control.commands |= {
        "spent": spent,
        "disk": disk.becomes,
        "compared": lambda: one.streams.is_compared,
        "rounds": lambda: len(rounds_of(one)),
    }
    control.say(event="up")
    control.follow()
    one.stop()
    runner.close()


def listen() -> Callable[[], list[list[Any]]]:
    """Note what this aggregator sees of every step of a silo: who, which, seconds, bytes, and how many were before it.

    Return a function that tells what was noted since it was called last.
    """
    seen: list[list[Any]] = []
    call, owner = StreamSilo.call, cast(Any, StreamSilo)
    answered: dict[tuple[str, bytes], int] = {}

    async def noted(silo: StreamSilo, step: str, *arguments: bytes) -> tuple[bytes, ...]:
        began = time.monotonic()
        frames = await call(silo, step, *arguments)
        took, which = time.monotonic() - began, (step, arguments[0])
        order = answered[which] = answered.get(which, 0) + 1
        seen.append([silo.silo, step, took, sum(map(len, frames)), order])
        return frames

    def told() -> list[list[Any]]:
        found = seen.copy()
        seen.clear()
        answered.clear()
        return found

    owner.call = noted
    return told


def aggregator(control: Control, home: Path, name: str, port: int) -> None:
    evidence = Transcripts.evidence

    async def held(kept: Transcripts, report: bytes, index: int) -> tuple[bytes, ...]:
        await asyncio.to_thread(control.hold, "evidence", "before")
        return await evidence(kept, report, index)

    owner: Any = Transcripts
    owner.evidence = held
    seen, runner = listen(), Loop()

    async def begin() -> Any:
        gate = make_gate(home, Counted(), name=name)
        await gate.start(f"127.0.0.1:{port}")
        return gate

    gate = runner.do(begin())
    control.commands |= {"connected": lambda: gate.connected, "disk": Disk(home / name).becomes, "seen": seen}
    control.say(event="up")
    control.follow()
    runner.do(gate.stop(0.0))
    runner.close()


class Told(io.StringIO):
    """What a command writes to its terminal, and when it showed something first, and the longest silence since."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self.first_s = self.longest_s = 0.0
        self._last = 0.0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        at = time.monotonic() - self._began
        self.first_s = self.first_s or at
        self.longest_s, self._last = max(self.longest_s, at - self._last), at
        return super().write(text)


def analyst(control: Control, home: Path, name: str, port: int) -> None:
    dial_through(port)
    asked: queue.Queue[list[str]] = queue.Queue()

    def asks(*arguments: str) -> str:
        asked.put(list(arguments))
        return "asking"

    control.commands |= {"ask": asks, "disk": Disk(home / name).becomes}

    def follow() -> None:
        control.follow()
        asked.put([])

    threading.Thread(target=follow, daemon=True).start()
    control.say(event="up")
    while arguments := asked.get():
        out, notes, began = io.StringIO(), Told(), time.monotonic()
        with redirect_stdout(out), redirect_stderr(notes):
            status = consilo([*arguments, "--federation", str(home / name / "consilo.toml")])
        waited = time.monotonic() - began
        lines = [line.strip() for line in _CONTROL.sub("\n", notes.getvalue()).splitlines()]
        told = list(dict.fromkeys(line for line in lines if len(line) > 1))
        control.say(event="asked", status=status, out=out.getvalue(), told=told, waited_s=waited, first_s=notes.first_s)


def main() -> None:
    role, home, name, port = sys.argv[1:5]
    control = Control()
    sys.stdout = sys.stderr  # logs too
    {"silo": silo, "noisy": noisy, "aggregator": aggregator, "analyst": analyst}[role](
        control, Path(home), name, int(port)
    )


if __name__ == "__main__":
    assert {AGGREGATOR, ANALYST} == {"hub", "ana"}
    main()
