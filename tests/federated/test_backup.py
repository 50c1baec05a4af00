"""Members that lost their machine come back from a backup: no charge is forgotten, and no round goes on twice."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import crypto.archive
from aggregator.backup import main as aggregator_main
from aggregator.home import read_home
from aggregator.round_journal import RoundJournal
from aggregator.rounds import read_request
from aggregator.store import FORMER, CheckpointStore
from analyst.reports.report import Report
from crypto.rounds.messages import Failure
from crypto.wire import unverified
from federation.joining import MEMBER_SETTINGS
from policies.budget.ledger import UNKNOWN, Checkpoint
from silo_node.owner.cli import main
from silo_node.owner.silo_status import silo_status
from tests.harness.archives import words_in
from tests.harness.federated import AGGREGATOR, SILOS, Served, free_port, make_gate, provision, served
from tests.harness.inside import ledger_of, link_of
from tests.harness.waiting import until

pytestmark = pytest.mark.server

QUESTION = "SELECT COUNT(*) AS n FROM lung"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto.archive, "SCRYPT_N", 2**4)


@pytest.fixture
def running(founded: Path, tmp_path: Path) -> Iterator[Served]:
    port = free_port()
    with served(provision(tmp_path / "p", founded, f"127.0.0.1:{port}"), port) as one:
        yield one


@pytest.fixture
def words(tmp_path: Path) -> str:
    return str(words_in(tmp_path))


def ask(one: Served) -> Report:
    with one.open() as federation:
        return federation.query(QUESTION, purpose="health-research", epsilon=0.3)


def spent(one: Served, silo: str) -> int:
    return ledger_of(one.silos[silo]).spending().lifetime


def lose_and_restore(one: Served, silo: str, archive: Path, words: str) -> Path:
    """Let a silo's machine burn, and make its directory anew from a backup, with the rows that its owner has."""
    one.silos.pop(silo).stop()
    until(lambda: silo not in one.gate.connected)
    home = one.path / silo
    lost = home.rename(one.path / f"{silo}.lost")
    assert main(["restore", str(archive), "--out", str(home), "--passphrase-file", words]) == 0
    for name in ("lung.parquet", "consent.csv"):
        shutil.copy(lost / name, home)
    return lost


def test_a_silo_from_a_backup_of_before_a_charge_books_it_and_answers(
    running: Served, words: str, tmp_path: Path
) -> None:
    archive, policy = tmp_path / "birch.backup", running.path / "birch" / "policy.toml"
    ask(running)
    assert main(["backup", "--policy", str(policy), "--out", str(archive), "--passphrase-file", words]) == 0
    ask(running)
    ask(running)
    before = spent(running, "birch")
    lose_and_restore(running, "birch", archive, words)
    assert "put back" in silo_status(policy, 0.0)["ledger"]
    running.start_silo("birch")
    running.wait(SILOS)
    store = ledger_of(running.silos["birch"])
    until(lambda: not store.is_put_back and running.silos["birch"].streams.is_compared)
    assert spent(running, "birch") == before
    assert [row.analyst for row in store.history()][-1] == UNKNOWN
    assert ask(running).silos["birch"].status == "answered"
    assert spent(running, "birch") == spent(running, "aspen")
    assert silo_status(policy, 0.0)["ledger"] == ""
    running.silos.pop("birch").stop()  # and once more, as every restart does
    running.start_silo("birch")
    running.wait(SILOS)
    assert ask(running).silos["birch"].status == "answered"


def test_without_its_checkpoint_a_silo_from_a_backup_only_refuses(
    running: Served, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, policy = tmp_path / "birch.backup", running.path / "birch" / "policy.toml"
    assert main(["backup", "--policy", str(policy), "--out", str(archive), "--passphrase-file", words]) == 0
    ask(running)
    lose_and_restore(running, "birch", archive, words)
    kept = CheckpointStore.get
    monkeypatch.setattr(CheckpointStore, "get", lambda store, silo: b"" if silo == "birch" else kept(store, silo))
    running.start_silo("birch")
    running.wait(SILOS)
    birch = ask(running).silos["birch"]
    assert (birch.status, birch.denials[0].code) == ("unable", "LEDGER")
    assert ledger_of(running.silos["birch"]).is_put_back
    monkeypatch.setattr(CheckpointStore, "get", kept)
    store = ledger_of(running.silos["birch"])
    until(lambda: not store.is_put_back and running.silos["birch"].streams.is_compared)
    assert ask(running).silos["birch"].status == "answered"


def test_the_old_machine_stops_when_the_new_one_is_there(running: Served, words: str, tmp_path: Path) -> None:
    archive, policy = tmp_path / "birch.backup", running.path / "birch" / "policy.toml"
    ask(running)
    assert main(["backup", "--policy", str(policy), "--out", str(archive), "--passphrase-file", words]) == 0
    lost = lose_and_restore(running, "birch", archive, words)
    running.start_silo("birch")
    running.wait(SILOS)
    store = ledger_of(running.silos["birch"])
    until(lambda: not store.is_put_back and running.silos["birch"].streams.is_compared)
    running.silos.pop("birch").stop()
    (running.path / "birch").rename(tmp_path / "new")
    lost.rename(running.path / "birch")
    old = running.start_silo("birch")
    until(old.relay.refused.done)
    assert "another copy of this silo's ledger goes on" in old.relay.refused.result().message


def test_an_aggregator_from_a_backup_makes_no_round_go_on(running: Served, words: str, tmp_path: Path) -> None:
    home, archive = running.path / AGGREGATOR, tmp_path / "hub.backup"
    first = ask(running)
    command = ["backup", str(home), "--out", str(archive), "--passphrase-file", words]
    journal = home / "rounds" / f"{'ab' * 16}.round"
    journal.write_bytes(b"CSJ1")  # a round is under way
    assert aggregator_main(command) == 0
    assert archive.stat().st_mode & 0o777 == 0o600
    second = ask(running)
    charged = {silo: spent(running, silo) for silo in SILOS}
    running.runner.do(running.gate.stop(0.0))
    home.rename(tmp_path / "lost")
    assert aggregator_main(["restore", str(archive), "--out", str(home), "--passphrase-file", words]) == 0
    assert (home / MEMBER_SETTINGS).exists()
    assert RoundJournal(home / "rounds").left("hub", read_home(home).signing.public) == []
    assert {path.suffix for path in (home / "heads").iterdir()} == {f".{FORMER}"}

    async def begin() -> object:
        running.gate = make_gate(running.path, running.counts)
        return await running.gate.start(running.target)

    running.runner.do(begin())
    running.wait(SILOS, 60)
    with running.open() as federation:
        assert federation.aggregators.find(bytes.fromhex(first.request)).state == "kept"
        assert federation.aggregators.find(bytes.fromhex(second.request)).state == "none"
        kept = {one.name: one for one in federation.kept.all()}
        request = kept[second.request].question.request
        assert read_request(request).digest.hex() == second.request
        refusals = unverified(link_of(federation).submit(request), Failure).refusals
        assert [b"ALREADY_ANSWERED" in one for one in refusals] == [True] * len(SILOS)
    assert {silo: spent(running, silo) for silo in SILOS} == charged, "nothing was charged for it again"
    assert ask(running).rows
    until(lambda: {path.suffix for path in (home / "heads").iterdir()} == {".head"})


def test_checkpoints_from_a_backup_are_none_until_their_silo_sends_a_later_one(running: Served, tmp_path: Path) -> None:
    ask(running)
    with running.open() as federation:
        silos, name = federation.config.roster.silo_keys, federation.config.federation
    store = CheckpointStore(running.path / AGGREGATOR / "heads", name, silos)
    checkpoints = {silo: store.get(silo) for silo in SILOS}
    old = CheckpointStore(tmp_path / "heads", name, silos)
    for envelope in checkpoints.values():
        old.put(envelope)
    for path in (tmp_path / "heads").iterdir():
        path.rename(path.with_suffix(f".{FORMER}"))
    assert old.get("aspen") == b""
    assert old.put(checkpoints["aspen"]) == old.get("aspen") == checkpoints["aspen"]
    ask(running)
    later = ledger_of(running.silos["birch"]).checkpoint() or b""
    assert unverified(later, Checkpoint).count > unverified(checkpoints["birch"], Checkpoint).count
    assert old.put(later) == old.get("birch") == later
    ahead = CheckpointStore(tmp_path / "ahead", name, silos)
    ahead.put(later)
    for path in (tmp_path / "ahead").iterdir():
        path.rename(path.with_suffix(f".{FORMER}"))
    assert ahead.put(checkpoints["birch"]) == later, "an older ledger is found all the same"
    assert ahead.get("birch") == b""
