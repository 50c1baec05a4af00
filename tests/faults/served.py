"""A lane whose silo and aggregator are the commands, each with its Ray cluster: for what only these can lose."""

import contextlib
import http.client
import io
import json
import os
import queue
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from federation.operations.running import NOTE
from silo_node.home import LEDGER
from silo_node.owner.cli import main as consilo_silo
from tests.faults.lane import ROOT, Lane, PartyProcess
from tests.faults.table import CEDAR, SILOS, State
from tests.harness.federated import AGGREGATOR, ANALYST

HELD_AT = "aspen"  # in this process
HOLD_S = 60.0
NOTICE_S = 8.0  # until `serve` knows of an actor that has ended
START_S = 180.0


class ServedProcess:
    """A `serve` command. It obeys no test; what it says of itself is its health."""

    def __init__(self, home: Path, name: str, port: int) -> None:
        self.home, self._log = home / name, (home / f"{name}.err").open("ab")
        command = [sys.executable, "-m", "aggregator", "serve", str(self.home), "--listen", f"127.0.0.1:{port}"]
        if name == CEDAR:
            policy = str(self.home / "policy.toml")
            command = [sys.executable, "-m", "silo_node.owner.cli", "serve", "--policy", policy]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [*command, "--monitor-port", "0"], stdout=subprocess.PIPE, stderr=self._log, env=environment, text=True
        )

        assert self.process.stdout is not None
        self._reading = threading.Thread(target=self.process.stdout.read, daemon=True)

    def wait_up(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "health and metrics" in line, line
        self._reading.start()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def do(self, *_: Any) -> None:
        """Nothing is to be mended in it."""

    def health(self) -> dict[str, Any]:
        """Return what it says of itself, well or not; nothing if it does not answer."""
        with suppress(OSError, ValueError, http.client.HTTPException):
            port = json.loads((self.home / NOTE).read_text())["port"]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
            with contextlib.closing(connection):
                connection.request("GET", "/health")
                found: dict[str, Any] = json.loads(connection.getresponse().read())
                return found
        return {}

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self, what: bytes) -> None:
        """Kill the processes of its cluster whose command begins with, or runs, `what`."""
        mine = {self.process.pid}
        for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
            with suppress(OSError):
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) in mine:
                    mine.add(int(path.name))
                    if what in (path / "cmdline").read_bytes().split(b"\0")[0]:
                        os.kill(int(path.name), signal.SIGKILL)

    def close(self) -> None:
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
        if self._reading.is_alive():
            self._reading.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


class HeldHere:
    """The point at which a silo of this process holds."""

    def __init__(self) -> None:
        self._held: queue.Queue[dict[str, Any]] = queue.Queue()
        self._go = threading.Event()

    def hold(self) -> None:
        self._held.put({"event": "held"})
        self._go.wait(HOLD_S)

    def event(self, timeout_s: float) -> dict[str, Any]:
        return self._held.get(timeout=timeout_s)

    def tell(self, _: str) -> None:
        self._go.set()


class ServedLane(Lane):
    """The round is held at a silo beside; so the one that faults befall is just before, in or after the same step."""

    epsilon, slack = "2", 12.0  # cedar adds its noise, of a deviation below 2

    def start_party(self, name: str) -> None:
        if name == ANALYST:
            super().start_party(name)
            return
        if name in self.parties:
            self.parties[name].close()
        started: Any = ServedProcess(self.path, name, self.back)
        self.parties[name] = started
        started.wait_up()

    def is_whole(self) -> bool:
        hub, cedar = self.status(AGGREGATOR), self.status(CEDAR)
        return hub.get("connected") == sorted(SILOS) and bool(cedar.get("compared")) and not cedar["problem"]

    def status(self, name: str) -> dict[str, Any]:
        served: Any = self.parties[name]
        found: dict[str, Any] = served.health()
        return found

    def settle(self) -> None:
        time.sleep(NOTICE_S)
        super().settle()

    def spent_at_cedar(self) -> int:
        lifetime = self._lifetime()
        return round(1e6 * float(lifetime["committed"] + lifetime["reserved"]))

    def rounds_at_cedar(self) -> int:
        """Return how many charges may still be given back."""
        ledger = f"file:{self.path / CEDAR / LEDGER}?mode=ro"
        with contextlib.closing(sqlite3.connect(ledger, uri=True, timeout=5.0)) as database:
            return int(database.execute("SELECT count(*) FROM charges WHERE state != 'committed'").fetchone()[0])

    def _lifetime(self) -> dict[str, float]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert consilo_silo(["ledger", "--policy", str(self.path / CEDAR / "policy.toml"), "--format", "json"]) == 0
        lifetime: dict[str, float] = json.loads(out.getvalue())["lifetime"]
        return lifetime

    def hold(self, state: State) -> PartyProcess:
        here, silo = HeldHere(), self.silos[HELD_AT]

        def before(step: str) -> None:
            if step == state.step:
                silo.before = lambda step: None
                here.hold()

        silo.before = before
        held: Any = here
        return held  # type: ignore[no-any-return]


@contextmanager
def served_lane(path: Path, founded: Path, aggregators: str = "") -> Iterator[Lane]:
    """Run a federation of the commands, of a copy of a founded one."""
    one = ServedLane(path / "federation", Path(shutil.copytree(founded, path / "founded")), aggregators)
    try:
        one.start()
        yield one
    finally:
        one.close()
