"""Stored reports: found by the request that they answer, of bounded age and size, with the dates of what was erased."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.errors import StoreError
from aggregator.keeping import DATES, Erased, ErasureDates, owner_hash
from aggregator.store import REPORTS, Filed, ReportStore
from crypto.rounds.report import EncryptedReport
from policies.units import DAY_S
from tests.harness.clock import Clock
from tests.vectors import messages

REPORT = EncryptedReport.decode(
    next(case["body"].encode() for case in messages.vectors()["cases"] if case["type"] == "EncryptedReport")
)
HASH, OTHER = b"\1" * 32, b"\2" * 32
KEEPING = replace(REPORTS, age_s=30 * DAY_S)


def put(path: Path, clock: Clock, request_hash: bytes = HASH, number: int = 0) -> bytes:
    """Store a report of its own as of the clock's time; return its name."""
    report = REPORT.model_copy(update={"length": number})
    name = ReportStore(path, clock, KEEPING).put(report, (b"a sum",), request_hash, "ana")
    for file in (path / f"{name.hex()}.report", path / f"{request_hash.hex()}.request"):
        os.utime(file, (clock.now, clock.now))
    return name


def erased(store: ReportStore, request_hash: bytes) -> Erased:
    """Return when the report of a request was erased."""
    found = store.find(request_hash)
    assert isinstance(found, Erased)
    return found


def test_a_report_is_found_by_its_request_until_its_retention_ends(tmp_path: Path) -> None:
    clock = Clock()
    name = put(tmp_path, clock)
    store = ReportStore(tmp_path, clock, KEEPING)
    filed = store.find(HASH)
    assert filed == Filed(report=name, analyst="ana")
    assert store.get(name).endswith(b"a sum")
    assert store.find(OTHER) is None
    clock.now += 30 * DAY_S - 1
    store.erase()
    assert store.find(HASH) == filed
    clock.now += 1
    store.erase()
    gone = erased(store, HASH)
    assert (gone.at, gone.is_of("ana"), gone.is_of("bo")) == (int(clock.now), True, False)
    with pytest.raises(StoreError, match=rf"the report {name.hex()[:16]} was erased here on 2027-02-14"):
        store.get(name)
    with pytest.raises(StoreError, match="there is no report"):
        store.get(OTHER)
    (entry,) = tmp_path.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert erased(ReportStore(tmp_path, clock, KEEPING), HASH) == gone, "the date outlives a restart"


def test_storing_erases_what_is_due_once_an_hour(tmp_path: Path) -> None:
    clock = Clock()
    put(tmp_path, clock)
    store = ReportStore(tmp_path, clock, KEEPING)
    clock.now += 30 * DAY_S
    store.put(REPORT, (), OTHER, "ana")
    erased(store, HASH)


def test_reports_of_many_questions_stay_within_the_limit_and_the_oldest_go_first(tmp_path: Path) -> None:
    clock = Clock()
    size = (tmp_path / f"{put(tmp_path, clock).hex()}.report").stat().st_size
    keeping = replace(KEEPING, max_bytes=20 * (size + 200) + 8192)
    store = ReportStore(tmp_path, clock, keeping)
    names = {}
    for number in range(200):
        clock.now += DAY_S / 4
        request_hash = number.to_bytes(32, "big")
        store.take_room(request_hash, size)
        names[request_hash] = put_in(store, tmp_path, clock, request_hash, number)
        kept = sum(path.stat().st_size for path in tmp_path.iterdir() if path.name != DATES)
        assert kept <= keeping.max_bytes
    found = [isinstance(store.find(one), Filed) for one in names]
    assert found == sorted(found), "the oldest were erased"
    assert 10 <= sum(found) <= 30
    gone = [one for one, is_kept in zip(names, found, strict=True) if not is_kept]
    for one in gone:
        assert erased(store, one).is_of("ana")
        with pytest.raises(StoreError, match="was erased here on 20"):
            store.get(names[one])
    for one in names.keys() - gone:
        assert store.get(names[one])


def put_in(store: ReportStore, path: Path, clock: Clock, request_hash: bytes, number: int) -> bytes:
    """Store a report in the room that was taken for it, as of the clock's time."""
    report = REPORT.model_copy(update={"length": number})
    name = store.put(report, (b"a sum",), request_hash, "ana", request_hash)
    for file in (path / f"{name.hex()}.report", path / f"{request_hash.hex()}.request"):
        os.utime(file, (clock.now, clock.now))
    return name


def test_no_round_erases_a_report_of_the_last_day(tmp_path: Path) -> None:
    """Its analyst may not have fetched it: the new round is refused instead, before anything is charged."""
    clock = Clock()
    size = (tmp_path / f"{put(tmp_path, clock).hex()}.report").stat().st_size
    store = ReportStore(tmp_path, clock, replace(KEEPING, max_bytes=2 * size + 4200))
    clock.now += DAY_S - 1
    for number in range(100):
        with pytest.raises(StoreError, match="no room for a report, as those of the last day"):
            store.take_room(bytes([number]) * 16, 2 * size)
    assert isinstance(store.find(HASH), Filed)
    clock.now += 1
    store.take_room(OTHER[:16], 2 * size)
    erased(store, HASH)


def test_the_room_of_rounds_under_way_is_part_of_the_limit(tmp_path: Path) -> None:
    store = ReportStore(tmp_path, Clock(), replace(KEEPING, max_bytes=100_000))
    store.take_room(HASH[:16], 60_000)
    with pytest.raises(StoreError, match="no room"):
        store.take_room(OTHER[:16], 60_000)
    store.give_back(HASH[:16])
    store.take_room(OTHER[:16], 60_000)


def test_the_dates_of_erasures_are_bounded_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    dates = ErasureDates(tmp_path, most=3)
    size = (tmp_path / DATES).stat().st_size
    for number in range(5):
        dates.note([(bytes([number]) * 32, owner_hash("ana"))], number)
    assert (tmp_path / DATES).stat().st_size == size
    assert [dates.find(bytes([number]) * 32) is not None for number in range(5)] == [False, False, True, True, True]
    assert dates.find(owner_hash("ana")) is None, "an owner is no name"
    dates.note([(b"short", owner_hash(""))], 9)
    assert ErasureDates(tmp_path, most=3).find(b"\4" * 32) == Erased(4, owner_hash("ana"))


def test_dates_that_a_crash_has_torn_are_no_error(tmp_path: Path) -> None:
    (tmp_path / DATES).write_bytes(b"CSE1" + os.urandom(40))
    dates = ErasureDates(tmp_path, most=3)
    assert dates.find(HASH) is None
    dates.note([(HASH, owner_hash(""))], 7)
    assert dates.find(HASH) == Erased(7, bytes(32))


def test_what_is_filed_without_a_report_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    """A process that ends between the two writes leaves no report that nobody finds, nor the word that there is one."""
    clock = Clock()
    name = put(tmp_path, clock)
    (tmp_path / f"{name.hex()}.report").unlink()
    assert ReportStore(tmp_path, clock).find(HASH) is None
    (tmp_path / f"{HASH.hex()}.request").write_bytes(b"{}")
    with pytest.raises(StoreError, match="cannot be looked up"):
        ReportStore(tmp_path, clock).find(HASH)


def test_a_full_disk_keeps_no_report_beyond_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    put(tmp_path, clock)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", full)
    clock.now += 30 * DAY_S
    store = ReportStore(tmp_path, clock, KEEPING)
    assert not list(tmp_path.glob("*.report"))
    assert not isinstance(store.find(HASH), Filed)
