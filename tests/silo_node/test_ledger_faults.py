"""What befalls a ledger: it is killed at every write, the disk is full, it is altered, rivals share it, it is old."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from policies.budget.ledger import MAX_PROPOSALS, KeptState, Rate, RunStep
from policies.errors import AlreadyChargedError, LedgerError
from policies.units import DAY_S
from silo_node.ledger import events
from silo_node.ledger.audit import check_charges
from silo_node.ledger.retention import Due
from silo_node.ledger.schema import VERSION
from silo_node.ledger.store import LedgerStore
from tests.harness.inside import database_of, log_of
from tests.harness.owner_home import charge, charged
from tests.silo_node.test_ledger_store import SIGNER, nonce, opened

pytestmark = pytest.mark.slow  # seconds in all: `make check` runs it

ROOT = Path(__file__).resolve().parents[2]
AT = 1_800_000_000
LIMIT = 10**6


@pytest.fixture(scope="session")
def kill_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that ends a process at a chosen write."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here, so no process can be ended at a chosen write")
    library = tmp_path_factory.mktemp("kill") / "kill_points.so"
    source = Path(__file__).parent / "kill_points.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def victim(how: str, directory: Path, preload: Path | None = None, of: str = "questions") -> dict[str, object]:
    environment = dict(os.environ) | ({"LD_PRELOAD": str(preload)} if preload else {})
    done = subprocess.run(
        [sys.executable, "-m", "tests.silo_node.ledger_victim", how, str(directory), of],
        cwd=ROOT, env=environment, text=True, capture_output=True, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.process
@pytest.mark.parametrize(("how", "of"), [("write", "questions"), ("torn", "questions"), ("write", "a run")])
def test_killed_at_every_write_and_sync_nothing_acknowledged_is_forgotten(
    kill_points: Path, tmp_path: Path, how: str, of: str
) -> None:
    """After every death the ledger is as the last acknowledged change left it, or the next one, never between."""
    found = victim(how, tmp_path, kill_points, of)
    assert not found["wrong"]
    assert int(str(found["points"])) > 100, "every change makes several writes and a sync"


@pytest.mark.process
@pytest.mark.parametrize("of", ["questions", "a run"])
def test_killed_before_every_statement_nothing_acknowledged_is_forgotten(tmp_path: Path, of: str) -> None:
    found = victim("statement", tmp_path, of=of)
    assert not found["wrong"]
    assert int(str(found["points"])) > 100


@pytest.mark.process
def test_killed_at_any_time_nothing_acknowledged_is_forgotten(tmp_path: Path) -> None:
    found = victim("time", tmp_path)
    assert not found["wrong"]
    assert found["points"] == 24


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def spent_until_full(store: LedgerStore) -> int:
    for number in range(1, 2000):
        try:
            assert store.reserve(charge(number, AT, micro_rho=1), LIMIT)
        except LedgerError:
            return number - 1
    raise AssertionError("the disk never was full")


def test_a_full_disk_refuses_and_forgets_nothing(path: Path) -> None:
    with closing(opened(path)) as store:
        store.reserve(charge(9999, AT, micro_rho=7), LIMIT)
        pages = database_of(store).execute("PRAGMA page_count").fetchone()[0]
        database_of(store).execute(f"PRAGMA max_page_count = {pages + 20}")
        count = spent_until_full(store)
        assert count
        assert store.spending().lifetime == 7 + count
        with pytest.raises(LedgerError, match="full"):
            [store.record_survivors(bytes([n]) * 16, bytes(32)) for n in range(200)]
        store.audit()
        database_of(store).execute(f"PRAGMA max_page_count = {pages + 2000}")  # somebody made room
        assert store.reserve(charge(5000, AT, micro_rho=1), LIMIT)
    with closing(opened(path)) as again:
        assert again.spending().lifetime == 8 + count


def test_a_file_that_may_not_grow_refuses_and_forgets_nothing(path: Path) -> None:
    """The operating system's own limit, so that a write fails in the middle of a change."""
    with closing(opened(path)) as store:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
        try:
            count = spent_until_full(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, kept)
        assert count
        assert store.spending().lifetime == count
        store.audit()
        assert store.reserve(charge(5000, AT, micro_rho=1), LIMIT)
    with closing(opened(path)) as again:
        assert again.spending().lifetime == count + 1


def filled(path: Path) -> None:
    with closing(opened(path)) as store:
        store.start(bytes(32), 1)
        for number in range(1, 30):
            store.reserve(charge(number, AT + number), LIMIT)
            charged(store, nonce(number), bytes(16))
        store.record_survivors(bytes(16), bytes(32))
        step = RunStep(nonce(60), bytes(32), 1)
        store.reserve(charge(60, AT + 60, run=step), LIMIT)
        charged(store, nonce(60), bytes(16))
        for state in (b"a model", b"a model of one more step"):
            store.save_run(nonce(60), KeptState(state))


STEP = f"WHERE nonce = x'{nonce(60).hex()}'"
NONCE = f"x'{nonce(3).hex()}'"
ALTERED = {
    "a total": "UPDATE lifetime SET micro_rho = 0",
    "a day": "UPDATE by_day SET micro_rho = 1",
    "a day for another": "UPDATE by_day SET day = day - 1",
    "a month": "DELETE FROM by_month",
    "an analyst's month": "UPDATE by_month SET analyst = 'bo'",
    "the head": "DELETE FROM head",
    "the last entry": "DELETE FROM log WHERE seq = (SELECT max(seq) FROM log)",
    "an entry": "UPDATE log SET body = CAST('{}' AS BLOB) WHERE seq = 5",
    "all entries": "DELETE FROM log",
    "a nonce": f"DELETE FROM nonces WHERE nonce = {NONCE}",
    "a nonce's request": f"UPDATE nonces SET request_hash = zeroblob(32) WHERE nonce = {NONCE}",
    "when a nonce came": f"UPDATE nonces SET first_at = 0 WHERE nonce = {NONCE}",
    "whose a nonce is": f"UPDATE nonces SET analyst = 'bo' WHERE nonce = {NONCE}",
    "how often a nonce came": f"UPDATE nonces SET proposals = 0 WHERE nonce = {NONCE}",
    "the step of a run": f"UPDATE nonces SET step = 2 {STEP}",
    "the run of a step": f"UPDATE nonces SET run = zeroblob(16) {STEP}",
    "the job of a run": f"UPDATE nonces SET job = zeroblob(31) {STEP}",
    "as what a step counts": f"UPDATE nonces SET counts_as = zeroblob(16) {STEP}",
    "an older model": "UPDATE runs SET state = CAST('a model' AS BLOB)",
    "a model that is gone": "DELETE FROM runs",
    "a split that is gone": "DELETE FROM splits",
    "a split for another": "UPDATE splits SET split_hash = zeroblob(31)",
    "a trigger": "DROP TRIGGER IF EXISTS charge_added",
    "a charge that is gone": f"DELETE FROM charges WHERE nonce = {NONCE}",
    "a charge that was never made": f"INSERT INTO charges SELECT zeroblob(16), request_hash, analyst, purpose,"
    " micro_rho, policy_hash, state, round_id, charged_at, run, first_month, last_month, atto_delta, curve"
    f" FROM charges WHERE nonce = {NONCE}",
    "a charge's price": f"UPDATE charges SET micro_rho = 1 WHERE nonce = {NONCE}",
    "a charge's day": f"UPDATE charges SET charged_at = charged_at - 86400 WHERE nonce = {NONCE}",
    "a charge's purpose": f"UPDATE charges SET purpose = 'billing' WHERE nonce = {NONCE}",
    "a charge's analyst": f"UPDATE charges SET analyst = 'bo' WHERE nonce = {NONCE}",
    "a charge's months": f"UPDATE charges SET first_month = 5 WHERE nonce = {NONCE}",
    "a charge's round": f"UPDATE charges SET round_id = zeroblob(15) WHERE nonce = {NONCE}",
    "a charge's state": f"UPDATE charges SET state = 'reserved', round_id = NULL WHERE nonce = {NONCE}",
}


def alter(path: Path, change: str) -> None:
    """Change a ledger as somebody can who knows its format but has no key: no trigger is left to say so."""
    triggers = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        kept = database.execute(triggers).fetchall()
        database.executescript("".join(f"DROP TRIGGER {name};" for name, _ in kept) + change)
        if "charges" in change:
            database.executescript(
                "DELETE FROM by_day; DELETE FROM by_month; UPDATE lifetime SET micro_rho = (SELECT sum(micro_rho) FROM"
                " charges); INSERT INTO by_day SELECT purpose, charged_at / 86400, analyst, sum(micro_rho) FROM charges"
                " GROUP BY 1, 2, 3; INSERT INTO by_month SELECT purpose, first_month, last_month, analyst,"
                " sum(micro_rho) FROM charges GROUP BY 1, 2, 3, 4"
            )
        for name, sql in kept:
            if name not in change:
                database.execute(sql)


@pytest.mark.parametrize("change", ALTERED)
def test_an_altered_ledger_is_refused_at_the_start(path: Path, change: str) -> None:
    filled(path)
    alter(path, ALTERED[change])
    with pytest.raises(LedgerError) as caught:
        opened(path)
    assert caught.value.hint


@pytest.mark.parametrize("change", ["when a nonce came", "whose a nonce is", "the step of a run", "a nonce"])
def test_a_nonce_whose_entry_is_erased_is_held_against_the_log_too(path: Path, change: str) -> None:
    """What was asked before counts on when its entry is gone: also a request that is accepted a second time."""
    filled(path)
    with closing(opened(path)) as store:
        store.reserve(charge(70, AT), LIMIT)
        store.release(nonce(70))
    with closing(LedgerStore(path, SIGNER, lambda: AT + 100 * DAY_S)) as store:
        later = AT + 90 * DAY_S
        assert store.erase(Due(models=later, rounds=later, audit=later))
        assert store.runs() == {}
        assert store.reserve(charge(70, AT), LIMIT)
        assert store.reserve(charge(71, AT), LIMIT)
        assert not store.audit().asked.keys() & {nonce(3), nonce(60), nonce(70)}, "nothing but the hash of all is left"
    opened(path).close()
    alter(path, ALTERED[change])
    with pytest.raises(LedgerError, match="the log says what the ledger does not"):
        opened(path)


@pytest.mark.parametrize("change", [name for name in ALTERED if name.startswith("a charge")])
def test_a_charge_of_before_the_last_start_is_held_against_the_log_too(path: Path, change: str) -> None:
    """As in a ledger whose log does not reach back to the charge, but to a start of the silo after it."""
    filled(path)
    with closing(opened(path)) as store:
        store.start(bytes(32), 1)
        found = store.audit()
        check_charges(database_of(store), replace(found, charges={}))
    alter(path, ALTERED[change])
    with closing(LedgerStore(path)) as store, pytest.raises(LedgerError, match="says what the ledger does not"):
        check_charges(database_of(store), replace(found, charges={}))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE charges SET micro_rho = 0",
        "UPDATE charges SET state = 'reserved', round_id = NULL",
        "DELETE FROM charges",
        "UPDATE log SET at = 0",
        "DELETE FROM log",
    ],
)
def test_the_file_itself_refuses_to_take_back_a_spend_or_an_entry(path: Path, statement: str) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.IntegrityError):
        database.execute(statement)


def test_every_byte_that_is_flipped_is_found_or_harmless(path: Path) -> None:
    """A byte in use is found by SQLite, the chain, the totals or the signature; else the ledger says what it said."""
    filled(path)
    with closing(opened(path)) as store:
        database_of(store).execute("PRAGMA wal_checkpoint(TRUNCATE)")
        whole, spent = path.read_bytes(), store.spending().lifetime
    refused = 0
    for place in range(100, len(whole), len(whole) // 150):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        for beside in ("-wal", "-shm"):
            path.with_name(path.name + beside).unlink(missing_ok=True)
        try:
            with closing(opened(path)) as store:
                assert store.spending().lifetime == spent, place
        except LedgerError:
            refused += 1
    assert refused > 10


@pytest.mark.process
def test_processes_together_never_exceed_the_limit(path: Path) -> None:
    opened(path).close()
    script = """
import sys
from pathlib import Path
from tests.harness.owner_home import charge
from tests.silo_node.test_ledger_store import opened
store, worker = opened(Path(sys.argv[1])), int(sys.argv[2])
print(sum(store.reserve(charge(1000 * worker + n, 1_800_000_000, micro_rho=50), 1000) for n in range(1, 30)))
"""
    command = [sys.executable, "-c", script, str(path)]
    workers = [
        subprocess.Popen([*command, str(worker)], cwd=ROOT, text=True, stdout=subprocess.PIPE) for worker in (1, 2, 3)
    ]
    granted = [int(worker.communicate(timeout=120)[0]) for worker in workers]
    assert sum(granted) == 1000 // 50
    with closing(opened(path)) as store:
        assert store.spending().lifetime == 1000
        found = store.audit()
    assert len(found.charges) == 20


def test_threads_share_one_store(path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with closing(opened(path)) as store, ThreadPoolExecutor(4) as pool:
        granted = list(pool.map(lambda n: store.reserve(charge(n, AT, micro_rho=50), 1000), range(1, 81)))
        assert sum(granted) == 20
        assert store.spending().lifetime == 1000
        store.audit()


def test_a_request_is_accepted_only_so_often(path: Path) -> None:
    with closing(opened(path)) as store:
        for _ in range(MAX_PROPOSALS):
            assert not store.is_exhausted(nonce(1))
            assert store.reserve(charge(1, AT), LIMIT)
            store.release(nonce(1))
        assert store.is_exhausted(nonce(1))
        with pytest.raises(AlreadyChargedError):
            store.reserve(charge(1, AT), LIMIT)
        assert store.spending().lifetime == 0


def test_a_nonce_that_was_released_stays_its_request_s(path: Path) -> None:
    with closing(opened(path)) as store:
        store.reserve(charge(1, AT), LIMIT)
        store.release(nonce(1))
        with pytest.raises(AlreadyChargedError):
            store.reserve(charge(1, AT, request_hash=b"x" * 32), LIMIT)


def test_requests_of_a_day_are_counted_by_analyst_and_a_run_once(path: Path) -> None:
    rate = Rate(AT - 100, 3)
    with closing(opened(path)) as store:
        assert store.reserve(charge(1, AT - 200), LIMIT, rate=rate)  # yesterday's
        for number in range(2, 12):
            assert store.reserve(charge(number, AT, run=step(number)), LIMIT, rate=rate)
        assert store.reserve(charge(20, AT), LIMIT, rate=rate)
        store.release(nonce(20))  # what was granted counts, also if nothing came of it
        assert store.reserve(charge(21, AT), LIMIT, rate=rate)
        assert not store.reserve(charge(22, AT), LIMIT, rate=rate)
        assert store.reserve(charge(12, AT, run=step(12)), LIMIT, rate=rate), "the run was counted already"
        assert store.reserve(charge(11, AT, run=step(11)), LIMIT, rate=rate), "the same request again"
        assert not store.reserve(charge(13, AT, run=step(12)), LIMIT, rate=rate), "a step that is asked again"
        assert not store.reserve(charge(13, AT, run=step(0, run=8)), LIMIT, rate=rate), "another run"
        assert store.reserve(charge(23, AT, analyst="bo"), LIMIT, rate=rate)
        assert store.spending(analyst="ana", requests_since=AT - 100).requests == 3
        assert store.spending(analyst="ana", requests_since=AT - 100, excluding_nonce=nonce(21)).requests == 2


def step(number: int, run: int = 7, job: int | None = None) -> RunStep:
    return RunStep(bytes([run]) * 16, bytes([run if job is None else job]) * 32, number)


def test_one_step_that_is_asked_again_and_again_is_as_many_requests(path: Path) -> None:
    """Steps without noise cost nothing, so that nothing else would bound them."""
    with closing(opened(path)) as store:
        granted = []
        for number in range(1, 40):
            one = charge(number, AT, micro_rho=0, run=step(0))
            granted.append(store.reserve(one, LIMIT, rate=Rate(AT - 100, 3)))
            if granted[-1]:
                charged(store, one.nonce, bytes(16))
        assert sum(granted) == 3


def test_a_run_id_is_bound_to_what_it_was_first_used_for(path: Path) -> None:
    with closing(opened(path)) as store:
        assert store.job_of(step(0).run) is None
        assert store.reserve(charge(1, AT, run=step(0)), LIMIT)
        store.release(nonce(1))
        assert store.job_of(step(0).run) == step(0).job
        assert store.reserve(charge(2, AT, run=step(1)), LIMIT)
        with pytest.raises(AlreadyChargedError, match="another request"):
            store.reserve(charge(3, AT, run=step(0, job=8)), LIMIT)


def test_requests_that_the_third_format_counted_count_on(path: Path) -> None:
    """It knew neither the job nor the step, so a run that goes on is counted once more."""
    third = (
        "ALTER TABLE runs DROP COLUMN numbers; DROP TABLE replaced; DROP TABLE run_reservations; DROP TABLE ended_runs;"
        "DROP TABLE nonces; CREATE TABLE nonces (nonce BLOB PRIMARY KEY, request_hash BLOB NOT NULL, analyst TEXT NOT"
        " NULL, run BLOB, first_at INTEGER NOT NULL, proposals INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
        "CREATE INDEX nonces_first ON nonces (analyst, first_at, run);"
        f"INSERT INTO nonces VALUES (x'{nonce(1).hex()}', zeroblob(32), 'ana', NULL, {AT}, 31),"
        f" (x'{nonce(2).hex()}', zeroblob(32), 'ana', x'07', {AT}, 1),"
        f" (x'{nonce(3).hex()}', zeroblob(32), 'ana', x'07', {AT}, 1); PRAGMA user_version = 3"
    )
    opened(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(third)
    for _ in range(2):
        with closing(opened(path)) as store:
            assert store.spending(analyst="ana", requests_since=AT).requests == 2
            assert store.job_of(b"\x07") is None
            assert not store.is_exhausted(nonce(1))
    with closing(opened(path)) as store:
        assert store.reserve(charge(1, AT, request_hash=bytes(32)), LIMIT)
        assert store.is_exhausted(nonce(1))


def test_nothing_is_written_without_the_silo_s_key(path: Path) -> None:
    filled(path)
    with closing(LedgerStore(path)) as store:
        for write in (
            lambda: store.reserve(charge(99, AT), LIMIT),
            lambda: store.start(bytes(32), 2),
            lambda: store.save_run(bytes(16), KeptState(b"state")),
        ):
            with pytest.raises(LedgerError, match="for reading"):
                write()
        assert store.spending().lifetime == 30 * 5000


def test_a_ledger_of_the_third_format_is_held_against_its_log_as_far_as_that_tells(path: Path) -> None:
    """Its entries hold no hash of a charge; the next start writes one over all of them."""
    with closing(opened(path)) as store:
        log_of(store).append = unhashed(store)  # type: ignore[method-assign]
        with database_of(store).transaction():
            log_of(store).append(events.Started(micro_rho=0, released=0))
        for number in range(1, 30):
            store.reserve(charge(number, AT + number), LIMIT)
            charged(store, nonce(number), bytes(16))
        assert b"row" not in b"".join(line.body for line in store.lines())
        for table in ("replaced", "run_reservations", "ended_runs"):
            database_of(store).execute(f"DROP TABLE {table}")
        database_of(store).execute("ALTER TABLE runs DROP COLUMN numbers")
        database_of(store).execute("PRAGMA user_version = 3")
    with closing(opened(path)) as store:
        assert database_of(store).version == VERSION
        found = store.audit()
        assert (len(found.charges), found.anchor) == (29, b"")
    shutil.copy(path, older := path.with_name("older.sqlite"))
    alter(older, ALTERED["a charge that is gone"])
    with pytest.raises(LedgerError, match="says what the ledger does not"):
        opened(older)
    with closing(opened(path)) as store:
        store.start(bytes(32), 1)
        assert store.audit().anchor
    alter(path, ALTERED["a charge's purpose"])
    with pytest.raises(LedgerError, match="says what the ledger does not"):
        opened(path)


def unhashed(store: LedgerStore) -> Callable[..., None]:
    """Return what appends entries as version 3 did."""
    append = log_of(store).append
    bare = {"row": b"", "charges": b"", "until": 0}

    def appended(*entered: events.Event) -> None:
        append(*(event.model_copy(update={key: bare[key] for key in bare if hasattr(event, key)}) for event in entered))

    return appended


_OLD = {
    1: "CREATE TABLE charges (nonce BLOB PRIMARY KEY CHECK (length(nonce) = 16), request_hash BLOB NOT NULL,"
    " analyst TEXT NOT NULL, purpose TEXT NOT NULL, micro_rho INTEGER NOT NULL CHECK (micro_rho > 0),"
    " policy_hash BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')),"
    " round_id BLOB, charged_at INTEGER NOT NULL, CHECK ((state = 'committed') = (round_id IS NOT NULL))"
    ") STRICT, WITHOUT ROWID;",
    2: "CREATE TABLE charges (nonce BLOB PRIMARY KEY CHECK (length(nonce) = 16), request_hash BLOB NOT NULL,"
    " analyst TEXT NOT NULL, purpose TEXT NOT NULL, micro_rho INTEGER NOT NULL CHECK (micro_rho >= 0),"
    " policy_hash BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')),"
    " round_id BLOB, charged_at INTEGER NOT NULL, run BLOB, CHECK ((state = 'committed') = (round_id IS NOT NULL))"
    ") STRICT, WITHOUT ROWID;"
    "CREATE TABLE runs (run BLOB PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;"
    "INSERT INTO runs VALUES (x'09', x'0a');",
}


@pytest.fixture(params=[1, 2])
def old(request: pytest.FixtureRequest, path: Path) -> Path:
    run = ", NULL" if request.param == 2 else ""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            f"PRAGMA journal_mode = WAL;{_OLD[request.param]}"
            "CREATE TABLE splits (round_id BLOB PRIMARY KEY, split_hash BLOB NOT NULL) STRICT, WITHOUT ROWID;"
            f"INSERT INTO charges VALUES (zeroblob(16), x'01', 'ana', 'p', 70, x'02', 'committed', x'03', {AT}{run});"
            f"INSERT INTO charges VALUES ({'x' + repr('01' * 16)}, x'01', 'bo', 'p', 5, x'02', 'reserved', NULL,"
            f" {AT}{run});"
            f"INSERT INTO splits VALUES (x'03', x'04'); PRAGMA user_version = {request.param};"
        )
    return path


def test_a_ledger_of_an_older_format_is_kept_whole(old: Path) -> None:
    for _ in range(2):
        with closing(opened(old)) as store:
            assert database_of(store).version == VERSION
            assert store.spending(purpose="p", analyst="ana", since=[AT - AT % 86_400]).windows[0].analyst == 70
            assert store.spending().lifetime == 75
            assert store.is_charged(bytes(16))
            assert not store.record_survivors(b"\x03", b"\x05")
            store.audit()
    with closing(opened(old)) as store:
        assert store.start(bytes(32), 1) == 1, "a reservation of the older version is released like any other"
        assert store.spending().lifetime == 70
        assert store.entries(10)[-2].event.kind == "started"
        with pytest.raises(AlreadyChargedError):
            store.reserve(charge(0, AT), LIMIT)


def test_a_reader_migrates_a_ledger_too_and_writes_nothing_else(old: Path) -> None:
    with closing(LedgerStore(old)) as store:
        assert store.spending().lifetime == 75
        assert store.checkpoint() is None


def test_a_change_of_format_that_is_killed_leaves_the_old_one(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from silo_node.ledger.schema import CHANGES

    with closing(sqlite3.connect(old)) as reader:
        (version,) = reader.execute("PRAGMA user_version").fetchone()
    before = old.read_bytes()
    with monkeypatch.context() as patched:
        broken = CHANGES[version] + "; SELECT the_process_ends_here();"
        patched.setattr("silo_node.ledger.database.CHANGES", {**CHANGES, version: broken})
        with pytest.raises(LedgerError, match="the_process_ends_here"):
            opened(old)
    assert before
    with closing(opened(old)) as store:
        assert store.spending().lifetime == 75


def test_a_signer_of_another_silo_cannot_take_the_ledger_over(path: Path) -> None:
    filled(path)
    with pytest.raises(LedgerError, match="checkpoint"):
        LedgerStore(path, replace(SIGNER, silo="south"))
    with pytest.raises(LedgerError, match="checkpoint"):
        LedgerStore(path, replace(SIGNER, federation="other"))
