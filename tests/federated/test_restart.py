"""An aggregator that is killed, or whose machine is away, comes back: silos and clients are there again in time."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import analyst.link
from analyst.client import Federation
from federation.transport.handshake import BACK_OFF_S, KNOCK_S
from tests.harness.federated import (
    ANALYST,
    SILOS,
    LocalSilo,
    Loop,
    free_port,
    provision,
)
from tests.harness.waiting import until

pytestmark = [pytest.mark.server, pytest.mark.process]

BACK_S = 5.0  # within which every silo is connected again
GATE = """
import asyncio, sys
from pathlib import Path
from tests.harness.federated import Counted, make_gate

async def run():
    gate = make_gate(Path(sys.argv[1]), Counted())
    await gate.start(sys.argv[2])
    print("listens", flush=True)
    await asyncio.Event().wait()

asyncio.run(run())
"""


class Aggregator:
    """An aggregator in a process of its own, without a Ray cluster."""

    def __init__(self, path: Path, target: str) -> None:
        self._command = [sys.executable, "-c", GATE, str(path), target]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """Return when it listens, of time.monotonic."""
        around = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=around)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listens\n"
        return time.monotonic()

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None


class Away:
    """A port that takes no connection and refuses none, as that of a machine that is off."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(0)
        self._filling = [socket.socket() for _ in range(3)]
        for one in self._filling:
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", port))

    def end(self) -> None:
        for one in (*self._filling, self._socket):
            one.close()


@pytest.fixture
def federation(founded: Path, tmp_path: Path) -> Iterator[tuple[Path, int, Aggregator, list[LocalSilo]]]:
    port, loop = free_port(), Loop()
    path = provision(tmp_path / "p", founded, f"127.0.0.1:{port}")
    aggregator, silos = Aggregator(path, f"127.0.0.1:{port}"), list[LocalSilo]()
    try:
        aggregator.start()
        silos += [LocalSilo(path, name, loop) for name in SILOS]
        until(lambda: all(one.dialler.is_connected for one in silos), 60)
        yield path, port, aggregator, silos
    finally:
        for one in silos:
            one.stop()
        aggregator.kill()
        loop.close()


def back_s(silos: list[LocalSilo], since: float) -> list[float]:
    """Return how long each silo took to be connected again."""
    found: dict[str, float] = {}
    while len(found) < len(silos):
        assert time.monotonic() - since < 60, f"only {sorted(found)} are back"
        for one in silos:
            if one.dialler.is_connected:
                found.setdefault(one.name, time.monotonic() - since)
        time.sleep(0.01)
    return sorted(found.values())


def test_silos_are_back_soon_after_an_aggregator_that_was_killed(
    federation: tuple[Path, int, Aggregator, list[LocalSilo]],
) -> None:
    _, _, aggregator, silos = federation
    for away_s in (0.5, 12.0):
        aggregator.kill()
        until(lambda: not any(one.dialler.is_connected for one in silos))
        time.sleep(away_s)
        took = back_s(silos, aggregator.start())
        print(f"away for {away_s} s, back within {took[-1]:.2f} s ({', '.join(f'{one:.2f}' for one in took)})")
        assert took[-1] < BACK_S


@pytest.mark.slow
def test_silos_are_back_soon_after_a_machine_that_was_off(
    federation: tuple[Path, int, Aggregator, list[LocalSilo]],
) -> None:
    """Its port neither answers nor refuses: an attempt that waits for a greeting would miss that it is back."""
    _, port, aggregator, silos = federation
    aggregator.kill()
    away = Away(port)
    try:
        until(
            lambda: all("does not answer" in one.dialler.problem for one in silos),
            60,
            lambda: str([one.dialler.problem for one in silos]),
        )
    finally:
        away.end()
    took = back_s(silos, aggregator.start())
    print(f"back within {took[-1]:.2f} s ({', '.join(f'{one:.2f}' for one in took)})")
    assert took[-1] < BACK_S


def test_a_knock_and_a_wait_fit_into_the_time() -> None:
    assert KNOCK_S + BACK_OFF_S <= BACK_S


def test_a_client_waits_for_an_aggregator_that_is_killed_and_says_so(
    federation: tuple[Path, int, Aggregator, list[LocalSilo]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, port, aggregator, _ = federation
    monkeypatch.setattr(analyst.link, "PATIENCE_S", 60.0)  # as it is outside of tests
    aggregator.kill()
    away = Away(port)
    said: list[tuple[float, str]] = []
    began = time.monotonic()

    def back() -> None:
        time.sleep(5)
        away.end()
        aggregator.start()

    thread = threading.Thread(target=back)
    thread.start()
    config = path / ANALYST / "consilo.toml"
    with Federation.open(config, progress=lambda line: said.append((time.monotonic() - began, line))) as one:
        assert one.query("SELECT COUNT(*) AS n FROM lung", purpose="health-research", epsilon=1).rows
    thread.join()
    waiting = [(at, line) for at, line in said if "answer" in line and "dialling" in line]
    assert waiting[0][0] < 3.5, said
    assert max(later - at for (at, _), (later, _) in pairwise(waiting)) < 15
