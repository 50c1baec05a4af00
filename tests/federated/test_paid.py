"""A paid answer outlives its client, a restart of the aggregator and a lost reply; only its analyst finds it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import analyst.client
import analyst.link
from aggregator.gate import Gate
from aggregator.store import Writing
from analyst.client import Federation
from analyst.demo.hospitals import PURPOSE
from analyst.errors import LostError
from analyst.link import RemoteLink
from analyst.reports.report import Report
from crypto.errors import CryptoError
from crypto.rounds.messages import Found
from federation.errors import FederationError
from tests.harness.federated import (
    AGGREGATOR,
    ANALYST,
    Counted,
    Served,
    add_member,
    credentials,
    free_port,
    give_membership,
    make_gate,
    provision,
    served,
)
from tests.harness.inside import call, ledger_of

pytestmark = pytest.mark.server

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"
FOUR = ("aspen", "birch", "cedar", "maple")
# A client that ends itself, as `kill -9` does, when it has come to the point that is its argument.
CLIENT = """
import os, signal, sys
from pathlib import Path
from analyst.client import Federation
from analyst.kept import KeptAnswers
from analyst.link import RemoteLink

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def before(owner, name):
    setattr(owner, name, end)

def after(owner, name):
    call = getattr(owner, name)
    setattr(owner, name, lambda *arguments, **more: end(call(*arguments, **more)))

path, sql, purpose, point = sys.argv[1:]
{"sending": lambda: before(RemoteLink, "submit"), "arriving": lambda: after(RemoteLink, "submit"),
 "keeping": lambda: before(KeptAnswers, "keep"), "showing": lambda: after(KeptAnswers, "keep"),
 "computing": lambda: None}[point]()
with Federation.open(Path(path)) as federation:
    federation.query(sql, purpose=purpose, epsilon=0.3)
"""


@pytest.fixture(scope="module")
def _running(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("paid")
    port = free_port()
    provision(place / "p", founded, f"127.0.0.1:{port}", FOUR)
    add_member(place / "p", "bo", "analyst")
    for name in (AGGREGATOR, ANALYST, "bo"):
        give_membership(place / "p", name)
    with served(place / "p", port, FOUR) as one:
        yield one


@pytest.fixture
def running(_running: Served) -> Iterator[Served]:
    yield _running
    for silo in _running.silos.values():
        silo.before = lambda step: None


def charges(one: Served) -> int:
    (count,) = {len([row for row in ledger_of(silo).history() if row.is_committed]) for silo in one.silos.values()}
    return count


def ask(one: Served, said: list[str] | None = None) -> Report:
    with one.open() as federation:
        return federation.query(QUESTION, purpose=PURPOSE, epsilon=0.3, tell=(said if said is not None else []).append)


@pytest.mark.process
@pytest.mark.parametrize("point", ["sending", "computing", "arriving", "keeping", "showing"])
def test_a_client_that_is_killed_loses_no_answer(running: Served, point: str) -> None:
    before = charges(running)
    command = [sys.executable, "-c", CLIENT, str(running.path / ANALYST / "consilo.toml"), QUESTION, PURPOSE, point]
    with subprocess.Popen(command) as client:
        if point == "computing":
            running.silos["aspen"].before = lambda step: client.kill() if step == "contribute" else None
        assert client.wait(60) == -signal.SIGKILL
    running.silos["aspen"].before = lambda step: None
    said: list[str] = []
    with running.open() as federation:
        (last, *_) = federation.kept.all()
        assert last.state == ("opened" if point == "showing" else "sent")
        if point == "showing":
            report = federation.kept.answer(last)
        else:
            report = federation.query(QUESTION, purpose=PURPOSE, epsilon=0.3, tell=said.append)
            assert [line.endswith("at no second price") for line in said] == [True]
    assert report.request == last.name
    assert {one.status for one in report.silos.values()} == {"answered"}
    assert charges(running) == before + 1


def test_a_reply_that_is_lost_at_the_aggregator_is_found_there(
    running: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = Writing.end

    def lost(self: Writing) -> None:
        end(self)
        raise RuntimeError("it ends here")

    before = charges(running)
    with monkeypatch.context() as patch:
        patch.setattr(Writing, "end", lost)
        with pytest.raises(FederationError, match="RuntimeError") as failed:
            ask(running)
    assert failed.value.hint.endswith("give the same command again: what is paid is not paid twice")
    assert ask(running).rows
    assert charges(running) == before + 1


@pytest.mark.parametrize("step", ["share", "open_shares"])
def test_a_client_waits_through_a_restart_of_the_aggregator(
    running: Served, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before anything is charged the request is answered after all; after that it is said to be charged and lost."""
    monkeypatch.setattr(analyst.link, "PATIENCE_S", 30.0)
    monkeypatch.setattr(analyst.link, "DIAL_EVERY_S", 0.3)
    monkeypatch.setattr(analyst.client, "ASK_EVERY_S", 0.3)
    before, stopped = charges(running), threading.Event()

    async def end() -> None:
        await running.gate.stop(0.0)

    async def begin() -> Gate:
        gate = make_gate(running.path, Counted())
        await gate.start(running.target)
        return gate

    def restart() -> None:
        running.runner.do(end())
        threading.Event().wait(1.0)
        running.gate = running.runner.do(begin())

    def stop(now: str) -> None:
        if now == step and not stopped.is_set():
            stopped.set()
            threading.Thread(target=restart).start()
            threading.Event().wait(0.5)

    running.silos["aspen"].before = stop
    progress: list[str] = []
    with Federation.open(running.path / ANALYST / "consilo.toml", progress=progress.append) as federation:
        if step == "share":
            assert federation.query(QUESTION, purpose=PURPOSE, epsilon=0.3).rows
        else:
            with pytest.raises(LostError, match="charged this request before, and no aggregator has its answer"):
                federation.query(QUESTION, purpose=PURPOSE, epsilon=0.3)
    assert any("the aggregator does not answer; dialling it for" in line for line in progress)
    assert charges(running) == before + 1
    running.wait(FOUR)


def test_a_client_gives_up_an_aggregator_that_is_gone_while_catalogues_are_asked_for(running: Served) -> None:
    gone = threading.Event()

    async def end() -> None:
        await running.gate.stop(0.0)

    async def begin() -> Gate:
        gate = make_gate(running.path, Counted())
        await gate.start(running.target)
        return gate

    def stop(step: str) -> None:
        if step == "catalogue" and not gone.is_set():
            gone.set()
            threading.Thread(target=lambda: running.runner.do(end())).start()
            threading.Event().wait(0.5)

    running.silos["aspen"].before = stop
    try:
        with running.open() as federation:
            began = time.monotonic()
            with pytest.raises(FederationError, match="no connection to the aggregator"):
                federation.query(QUESTION, purpose=PURPOSE, epsilon=0.3)
            assert time.monotonic() - began < analyst.link.SETTLING_S / 2
    finally:
        running.gate = running.runner.do(begin())
        running.wait(FOUR)


def test_nobody_else_is_told_whether_there_is_a_report(running: Served) -> None:
    report = ask(running)
    request_hash, unknown = bytes.fromhex(report.request), bytes(32)
    with running.open() as federation:
        whole = federation.aggregators.find(request_hash)
        assert (whole.state, whole.report.hex()) == ("kept", report.transcript)
    with RemoteLink(credentials(running.path, "bo", "analyst"), AGGREGATOR) as bo:
        assert bo.find(request_hash) == bo.find(unknown) == Found(state="none").encode()
        with pytest.raises(FederationError, match="signed by somebody else"):
            bo.report(bytes.fromhex(report.transcript))
        for arguments in ((), (b"short",), (request_hash, unknown)):
            with pytest.raises((FederationError, CryptoError), match="takes other arguments"):
                call(bo, "find", *arguments)
    assert os.listdir(running.path / ANALYST / "answers")
