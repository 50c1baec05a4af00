"""What a silo keeps itself goes forward only: an older store of rows or list of forgotten persons is put back in vain.

The silo's signed log names the version in force. Whoever puts an older one back can write to the silo's directory, or
means well and has a backup.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from crypto.keys import Secret, SigningKey
from silo_node.data.locations import connect
from silo_node.data.prepared.forgotten import KEY, LIST, Persons, check_forgotten
from silo_node.data.prepared.keeper import Keeper, keeper_of
from silo_node.data.prepared.store import FOLDER, Made
from silo_node.errors import SourceError
from silo_node.ledger.events import KeptInForce
from silo_node.ledger.log import Signer
from silo_node.ledger.retention import Due
from silo_node.ledger.store import LedgerStore
from tests.harness.example_policy import NOW
from tests.harness.inside import ledger_of
from tests.harness.simulator import no_noise, simulate
from tests.silo_node.test_prepared import Bench, ask, count, write

SIGNER = Signer("north", "health", SigningKey(Secret(bytes(32))))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    write(tmp_path / "visits.parquet", ["p1"])
    made = Bench(tmp_path)
    made.prepare()
    yield made
    made.ledger.close()


def older(bench: Bench, tmp_path: Path) -> Path:
    """Return a copy of the store, and let a newer one take its place."""
    copy = Path(shutil.copytree(bench.home / FOLDER, tmp_path / "older"))
    write(bench.home / "visits.parquet", ["p1", "p2", "p3"])
    assert (bench.prepare(), bench.count()) == (1, 3)
    return copy


def put_back(bench: Bench, copy: Path) -> None:
    shutil.rmtree(bench.home / FOLDER)
    shutil.copytree(copy, bench.home / FOLDER)


def kept_entries(ledger: LedgerStore) -> int:
    return sum(isinstance(one.event, KeptInForce) for one in ledger.entries(10**6))


def keeper(bench: Bench) -> Keeper:
    def prepare(_: str) -> Made:
        with connect() as database:
            return bench.store.prepare(database, bench.source, NOW)

    log = logging.getLogger("kept")
    found = keeper_of(
        bench.policy, bench.home, {"visits": bench.source}, lambda: float(NOW), log, prepare, bench.ledger
    )
    assert found is not None
    found.stop()
    return found


def test_an_older_store_is_none_and_is_made_anew(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Hope: questions are answered from rows of last month, in which somebody is who has left since.
    put_back(bench, older(bench, tmp_path))
    assert bench.store.snapshot(bench.source) is None
    assert bench.store.seen_at(bench.source) is None, "so a request is refused with ROWS_STALE"
    assert bench.store.is_lost(bench.source)
    keeper(bench)
    assert "its prepared rows are not those that the log names, so it is prepared anew" in caplog.text
    assert bench.count() == 3


def test_an_older_store_under_the_name_of_the_newest_is_none(bench: Bench, tmp_path: Path) -> None:
    # Hope: only the name is looked at.
    copy = older(bench, tmp_path)
    (newest,) = (bench.home / FOLDER / "visits").glob("*.json")
    put_back(bench, copy)
    (earlier,) = (bench.home / FOLDER / "visits").glob("*.json")
    earlier.rename(earlier.with_name(newest.name))
    assert bench.store.snapshot(bench.source) is None
    assert (bench.prepare(), bench.count()) == (1, 3)


def test_nothing_of_a_store_that_the_log_does_not_name_is_taken_over(bench: Bench, tmp_path: Path) -> None:
    # Hope: the next look finds the stamps of the files as they are, so it makes a forged store the newest one.
    (file,) = (bench.home / FOLDER / "visits").glob("*.json")
    forged = bench.home / FOLDER / "visits" / f"{'0' * 64}.json"
    file.rename(forged)
    assert (bench.prepare(), bench.count()) == (1, 1), "its files are read again"
    assert not forged.exists()


def test_the_log_grows_with_each_new_store_and_not_with_each_look(bench: Bench) -> None:
    for later in range(1, 6):
        assert bench.prepare(NOW + later) == 0
    assert bench.store.seen_at(bench.source) == NOW + 5
    assert kept_entries(bench.ledger) == 1
    write(bench.home / "visits.parquet", ["p1", "p2"])
    bench.prepare()
    assert kept_entries(bench.ledger) == 2


def test_what_the_log_names_outlives_the_entries_that_are_erased(bench: Bench, tmp_path: Path) -> None:
    # Hope: after [retention] nobody knows which store was the last.
    copy = older(bench, tmp_path)
    with closing(LedgerStore(bench.home / "ledger.sqlite", SIGNER, lambda: 2.0**33)) as later:
        later.start(bytes(32), 1)
        assert later.erase(Due(audit=2**33))
    with closing(Bench(bench.home).ledger) as fresh:
        assert fresh.kept() == bench.ledger.kept()
    assert bench.count() == 3
    put_back(bench, copy)
    assert Bench(bench.home).store.snapshot(bench.source) is None


def test_a_silo_that_lost_its_newest_store_answers_from_the_files_again(home: Path, tmp_path: Path) -> None:
    """In a whole round: while the silo is stopped, and while it runs."""
    silo = home / "silos" / "aspen"
    text = (silo / "policy.toml").read_text()
    prepared = text.replace('kind = "parquet"', 'kind = "parquet"\nread = "prepared"\nprepared_for = "4s"', 1)
    (silo / "policy.toml").write_text(prepared)
    with simulate(home, noise=no_noise) as simulation:
        before = count(simulation)
    copy = shutil.copytree(silo / FOLDER, tmp_path / "older")
    rows = pq.read_table(silo / "lung.parquet")
    pq.write_table(rows.slice(0, 10), silo / "lung.parquet")
    with simulate(home, noise=no_noise) as simulation:
        fewer = count(simulation)
        assert fewer < before

    def put_older_back(trash: Path) -> None:
        shutil.copytree(copy, tmp_path / "again", dirs_exist_ok=True)
        (silo / FOLDER).rename(trash)
        (tmp_path / "again").rename(silo / FOLDER)

    put_older_back(tmp_path / "one")
    with simulate(home, noise=no_noise) as simulation:
        assert count(simulation) == fewer
        put_older_back(tmp_path / "two")
        deadline = time.monotonic() + 60
        while (report := ask(simulation)).silos["aspen"].status != "answered":
            assert [one.code for one in report.silos["aspen"].denials] == ["ROWS_STALE"]
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert report.to_records()[0]["n"] == fewer


def forget(bench: Bench, *names: str) -> Persons:
    persons = Persons(bench.policy, bench.home, bench.ledger.kept)
    with connect() as database:
        for name in names:
            persons.forget(database, name)
            listed = persons.in_force()
            assert listed is not None
            bench.ledger.put_in_force(listed)
    return persons


def test_an_older_list_of_forgotten_persons_answers_nothing(bench: Bench) -> None:
    # Hope: who was forgotten is in the answers again.
    forget(bench, "p1")
    earlier = (bench.home / LIST).read_bytes()
    forget(bench, "p2")
    (bench.home / LIST).write_bytes(earlier)
    with pytest.raises(SourceError, match="has not the 2 persons whom the log says are forgotten") as caught:
        check_forgotten(bench.policy, bench.home, bench.ledger.kept)
    assert "put the newest" in caught.value.hint


def test_a_list_of_forgotten_persons_is_not_removed_with_its_key(bench: Bench) -> None:
    # Hope: without list and key, the silo makes a new key, and nobody is forgotten.
    forget(bench, "p1")
    for name in (LIST, KEY):
        (bench.home / name).unlink()
    with pytest.raises(SourceError, match=f"{KEY} is missing"):
        check_forgotten(bench.policy, bench.home, bench.ledger.kept)
    assert not (bench.home / KEY).exists(), "no new key is made"


def test_a_list_that_is_longer_than_the_log_says_holds(bench: Bench) -> None:
    """Somebody was added, and the program ended before the entry of the log."""
    persons = forget(bench, "p1")
    with connect() as database:
        persons.forget(database, "p2")
    check_forgotten(bench.policy, bench.home, bench.ledger.kept)
    forget(bench, "p3")
    assert bench.ledger.kept()[LIST].count == 3


def test_a_silo_refuses_at_no_cost_where_its_list_of_forgotten_persons_is_older(home: Path) -> None:
    silo = home / "silos" / "aspen"
    with simulate(home, noise=no_noise) as simulation:
        ask(simulation)
        aspen = simulation.silos["aspen"]
        paid = simulation.spent("aspen")
        (silo / LIST).write_text("[]")
        ledger_of(aspen).put_in_force(KeptInForce(name=LIST, digest=bytes(32), count=1))
        report = ask(simulation)
        assert report.silos["aspen"].status == "unable"
        assert simulation.spent("aspen") == paid
