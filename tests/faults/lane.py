"""A federation of which three parties are processes that a test can kill: cedar, the aggregator and the analyst.

The other four silos are in this process. Everybody dials through a link of its own: cedar, the analyst, the others.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet

from analyst.demo.hospitals import PURPOSE
from tests.faults.link import Link
from tests.faults.party import QUESTION
from tests.faults.table import CEDAR, SILOS, State
from tests.harness.federated import (
    AGGREGATOR,
    ANALYST,
    LocalSilo,
    Loop,
    add_member,
    free_port,
    give_membership,
    provision,
)
from tests.harness.inside import ledger_of, rounds_of, silence

ROOT = Path(__file__).resolve().parents[2]
SECOND = "second"
ROUND_S = 150.0  # more than a round lasts
START_S = 240.0
REPLY_S = 120.0
BACK_S = 180.0  # until everybody is back, on a busy machine
ASK = ("query", QUESTION, "--purpose", PURPOSE, "--no-cut", "--format", "json", "--epsilon")
ROLES = {CEDAR: "silo", AGGREGATOR: "aggregator", SECOND: "aggregator", ANALYST: "analyst"}


class GoneError(Exception):
    """The process of a party has ended."""


class PartyProcess:
    """The process of one party, and the lines to and from it."""

    def __init__(self, home: Path, name: str, port: int, second: str, role: str = "") -> None:
        self._log = (home / f"{name}.err").open("ab")
        command = [sys.executable, "-m", "tests.faults.party", role or ROLES[name], str(home), name, str(port), second]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "200"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, env=environment, text=True)
        self._replies: queue.Queue[dict[str, Any]] = queue.Queue()
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._asking = threading.Lock()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(json.JSONDecodeError):
                found = json.loads(line)
                (self._events if "event" in found else self._replies).put(found)
        for one in (self._events, self._replies):
            one.put({"event": "gone", "error": "gone"})

    def tell(self, name: str, *arguments: Any) -> None:
        """Send a command without waiting for its reply; a stopped process reads it later."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
            self.process.stdin.flush()

    def do(self, name: str, *arguments: Any) -> Any:
        """Return the reply to a command; raises GoneError."""
        with self._asking:
            self.tell(name, *arguments)
            while True:
                reply = self._replies.get(timeout=REPLY_S)
                if reply.get("event") == "gone":
                    self._replies.put(reply)
                    raise GoneError(name)
                if reply["to"] == name:  # not the one to an earlier `tell`
                    if "error" in reply:
                        raise AssertionError(f"{name}: {reply['error']}")
                    return reply["value"]

    def event(self, timeout_s: float) -> dict[str, Any]:
        """Return the next event; one is "gone" when the process has ended. Raises queue.Empty."""
        found = self._events.get(timeout=timeout_s)
        if found["event"] == "gone":
            self._events.put(found)
        return found

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(30)

    def workers(self) -> list[int]:
        """Return the processes that compute for a silo."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.process.pid and b"silo_node.data.worker" in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
        return found

    def close(self) -> None:
        self.signal(signal.SIGCONT)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
        self._reading.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@dataclass(frozen=True, slots=True)
class Said:
    """What the analyst was told: an answer, an error, or nothing, as its process was killed."""

    waited_s: float
    count: int | None = None
    silos: dict[str, str] = field(default_factory=dict)  # what became of each
    error: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()
    progress_s: float = 0.0  # until something was shown
    status: int | None = None  # of the command's exit; None: killed

    @property
    def text(self) -> str:
        return " / ".join(filter(None, (self.error, self.hint, *self.notes)))


def said_of(event: dict[str, Any]) -> Said:
    """Read what a command printed."""
    told: list[str] = event["told"]
    error, hint = (
        next((line.split(f"consilo: {one}: ", 1)[1] for line in told if f"consilo: {one}: " in line), "")
        for one in ("error", "hint")
    )
    notes = tuple(line for line in told if "consilo: " not in line and len(line) > 25)
    common = {"waited_s": event["waited_s"], "progress_s": event["first_s"], "status": event["status"]}
    if event["status"]:
        return Said(**common, error=error, hint=hint, notes=notes)
    answer = json.loads(event["out"])
    (row,) = answer["rows"]
    silos = {name: one["status"] for name, one in answer["silos"].items()}
    return Said(**common, count=row["n"]["value"] if isinstance(row["n"], dict) else row["n"], silos=silos, notes=notes)


class Lane:
    """One federation, in which one case follows the other."""

    epsilon, slack = "0.3", 0.0

    def __init__(self, path: Path, founded: Path, aggregators: str = "") -> None:
        """With `aggregators`, the lines of that section of every policy, there are two."""
        self.path, self.has_second = path, bool(aggregators)
        front, self.back = free_port(), free_port()
        for policy in founded.glob("silos/*/policy.toml"):
            text = re_budget(policy.read_text())
            policy.write_text(f"{text}\n[aggregators]\n{aggregators}\n" if aggregators else text)
        provision(path, founded, f"127.0.0.1:{front}", SILOS)
        self.second_port = free_port()
        if self.has_second:
            add_member(path, SECOND, "aggregator", f"127.0.0.1:{self.second_port}")
            for name in (AGGREGATOR, SECOND, ANALYST, *SILOS):
                give_membership(path, name)
        self.truth = {name: pyarrow.parquet.read_metadata(path / name / "lung.parquet").num_rows for name in SILOS}
        self.links = {name: Link(self.back) for name in (CEDAR, ANALYST)} | {"others": Link(self.back, front)}
        self.runner = Loop()
        self.parties: dict[str, PartyProcess] = {}
        self.silos: dict[str, LocalSilo] = {}
        self.undo: list[Callable[[], object]] = []
        self._timers: list[threading.Timer] = []

    def start(self) -> None:
        self.start_party(AGGREGATOR)
        if self.has_second:
            self.start_party(SECOND)
        for name in (CEDAR, ANALYST):
            self.start_party(name)
        for name in SILOS:
            if name != CEDAR:
                self.silos[name] = LocalSilo(self.path, name, self.runner)
                silence(self.silos[name])
        self.settle()

    def start_party(self, name: str) -> None:
        """Start the process of a party, anew if it has ended."""
        if name in self.parties:
            self.parties[name].close()
        link = {AGGREGATOR: self.back, SECOND: self.second_port}
        port = link.get(name) or self.links[name].port
        self.parties[name] = PartyProcess(self.path, name, port, f"127.0.0.1:{self.second_port}")
        up = self.parties[name].event(START_S)
        assert up["event"] == "up", (self.path / f"{name}.err").read_text()[-2000:]

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, do)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def settle(self) -> None:
        """Let every process live and everybody be connected; raises AssertionError if that takes too long."""
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._timers.clear()
        while self.undo:
            self.undo.pop()()
        for link in self.links.values():
            link.mend()
        for name, party in list(self.parties.items()):
            party.signal(signal.SIGCONT)
            if not party.is_alive:
                self.start_party(name)
            for command in (("clock", 0), ("disk", ""), ("hold", "", ""), ("go",)):
                self.parties[name].do(*command)
        deadline = time.monotonic() + BACK_S
        while not self.is_whole():
            assert time.monotonic() < deadline, "not everybody came back"
            time.sleep(0.1)

    def is_whole(self) -> bool:
        hubs = [name for name in (AGGREGATOR, SECOND) if name in self.parties]
        if any(tuple(self.parties[hub].do("connected")) != tuple(sorted(SILOS)) for hub in hubs):
            return False
        return bool(self.parties[CEDAR].do("compared")) and all(one.streams.is_compared for one in self.silos.values())

    def spent(self) -> dict[str, int]:
        """Return what every silo has spent; each ledger agrees with its log."""
        found = {CEDAR: self.spent_at_cedar()}
        for name, silo in self.silos.items():
            ledger_of(silo).audit()
            found[name] = ledger_of(silo).spending().lifetime
        return found

    def rest(self) -> None:
        """Wait until every round is over at every silo: until then a charge that began may be given back."""
        deadline = time.monotonic() + ROUND_S
        while self.rounds_at_cedar() + sum(len(rounds_of(silo)) for silo in self.silos.values()):
            assert time.monotonic() < deadline, "a round is not over, though it has expired"
            time.sleep(0.2)

    def rounds_at_cedar(self) -> int:
        return int(self.parties[CEDAR].do("rounds"))

    def spent_at_cedar(self) -> int:
        return int(self.parties[CEDAR].do("spent"))

    def begin(self) -> None:
        """Give the analyst's command."""
        analyst = self.parties[ANALYST]
        with suppress(queue.Empty):
            while analyst.event(0.0)["event"] != "gone":
                pass
        analyst.do("ask", *ASK, self.epsilon)

    def end(self, timeout_s: float) -> Said:
        """Return what it said."""
        began = time.monotonic()
        while True:
            event = self.parties[ANALYST].event(max(0.1, timeout_s - (time.monotonic() - began)))
            if event["event"] == "gone":
                return Said(time.monotonic() - began)
            if event["event"] == "asked":
                return said_of(event)

    def ask(self, timeout_s: float = 300.0) -> Said:
        self.begin()
        return self.end(timeout_s)

    def hold(self, state: State) -> PartyProcess:
        """Arm the point at which the next question holds; return the process that will say so."""
        party = self.parties[AGGREGATOR if state.step == "evidence" else CEDAR]
        with suppress(queue.Empty):
            while party.event(0.0)["event"] != "gone":
                pass
        party.do("hold", state.step, state.when)
        return party

    def owner_log(self) -> str:
        path = self.path / CEDAR / "silo.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for link in self.links.values():
            link.mend()
        for silo in self.silos.values():
            silo.stop()
        for party in self.parties.values():
            party.close()
        self.runner.close()
        for link in self.links.values():
            link.close()


def re_budget(policy: str) -> str:
    """Return a policy with a budget for many questions."""
    assert "{ rho = 1.0 }" in policy
    return policy.replace("{ rho = 1.0 }", "{ rho = 100 }")


@contextmanager
def lane(path: Path, founded: Path, aggregators: str = "") -> Iterator[Lane]:
    """Run a federation of a copy of a founded one."""
    source = Path(shutil.copytree(founded, path / "founded"))
    one = Lane(path / "federation", source, aggregators)
    try:
        one.start()
        yield one
    finally:
        one.close()
