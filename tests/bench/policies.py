"""What a policy costs: to read one, to judge by it, to reserve in a full ledger, and to join decisions on consent.

Run: python -m tests.bench.policies
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import policies.decision.decide
from crypto.keys import Secret, SigningKey
from crypto.wire import digest_of
from policies.budget.ledger import Charge, Months, Rate, Spending, WindowLimit
from policies.decision.decide import decide
from policies.document.load import parse
from policies.units import DAY_S
from silo_node.data.consent import consent_filter
from silo_node.data.locations import connect
from silo_node.data.sources import source_of
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore
from tests.bench.figures import publish
from tests.harness.example_policy import NOW, Edit, edited, policy, request
from tests.harness.inside import database_of
from tests.harness.owner_home import charged
from tests.harness.rows import load_consent, opened

EXAMPLES = Path(policies.__file__).parent / "examples"
RUNS = 15
LEDGER_ROWS, RESERVATIONS = 10_000, 300
PERSON_ROWS, RECORDS, QUERIES = 1_000_000, 300_000, 9
AT = 1_800_000_000
CONSENT = (
    Edit('legal_basis  = "public-task"\nvocabulary   = "DUO:0000006"', 'legal_basis = "consent"\nconsent = "opt-in"'),
    Edit(
        "[budget]",
        '[consent]\nmode = "table"\nsource = "consent.parquet"\nsubject = "person"\npurpose = "purpose"\n'
        'given_at = "given_at"\nwithdrawn_at = "withdrawn_at"\n\n[budget]',
    ),
)


def main() -> None:
    load_validate()
    decide_again()
    decide_new()
    with tempfile.TemporaryDirectory() as directory:
        reserved, bare = check_and_reserve(Path(directory))
        publish("check_and_reserve", reserved, "ms", "a bare SQLite commit, write-ahead log, FULL", bare, "ratio 3")
        joined, plain = consent_semi_join(Path(directory))
        publish("consent_semi_join", joined, "ms", "the same query of everybody, with ids as text", plain, "ratio 6")


def load_validate() -> None:
    """Read and check the longest of the three examples, from its bytes."""
    raw = max((path.read_bytes() for path in EXAMPLES.glob("*.toml")), key=len)
    publish("load_validate", _timed(lambda: parse(raw, "policy.toml"), 50, 1e3), "ms", aim="2")


def decide_again() -> None:
    """Judge a request by a policy that was used before: the figure of the requirement, in decisions a second."""
    by, asked = policy(), request()
    digest = digest_of(asked)
    spending = [Spending(spent) for spent in range(0, 900_000, 9_000)]  # the ledger differs every time
    turns = iter(range(1 << 40))
    seconds = _timed(lambda: decide(by, asked, digest, spending[next(turns) % 100], NOW), 5_000, 1.0)
    publish("decide", [1 / one for one in seconds], "1/s", aim="at least 50,000")


def decide_new() -> None:
    """Judge requests that were never seen before, so that nothing that follows from a request is at hand."""
    by, spent = policy(), Spending(0)
    found = []
    for _ in range(RUNS):
        asked = [request(nonce=number.to_bytes(16, "big")) for number in range(1_000)]
        began = time.perf_counter()
        for one in asked:
            decide(by, one, bytes(32), spent, NOW)
        found.append(1_000 / (time.perf_counter() - began))
    publish("decide_new_requests", found, "1/s")


def _timed(step: Callable[[], object], times: int, scale: float) -> list[float]:
    """Return how long one step takes, in seconds times `scale`, once for each run."""
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        for _ in range(times):
            step()
        found.append((time.perf_counter() - began) / times * scale)
    return found


def timed(work: Callable[[], Any]) -> float:
    """Return how long one call took, in milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def charge(number: int, at: int) -> Charge:
    """Return one of many charges: seven analysts, three purposes, two years of data."""
    return Charge(
        nonce=number.to_bytes(16, "big"),
        request_hash=number.to_bytes(32, "big"),
        analyst=f"analyst-{number % 7}@uni.example",
        purpose=f"purpose-{number % 3}",
        micro_rho=1,
        policy_hash=bytes(32),
        charged_at=at,
        months=Months(24_300 + number % 24, 24_300 + number % 24 + 1),
    )


def check_and_reserve(directory: Path) -> tuple[list[float], list[float]]:
    """Return milliseconds of reservations in a ledger of many rows, and of bare commits, in turn.

    Each reservation checks a lifetime, a calendar window, a window over months of data and a daily rate, and writes the
    charge, its totals, two entries of the log and the signed checkpoint.
    """
    signer = Signer("north", "fed", SigningKey(Secret(bytes(32))))
    now = AT + LEDGER_ROWS * 600
    windows = [
        WindowLimit(now - now % DAY_S - 20 * DAY_S, 10**9, 10**9),
        WindowLimit(Months(24_303, 24_305), 10**9, 10**9),
    ]
    reserved, bare = [], []
    with closing(LedgerStore(directory / "ledger.sqlite", signer)) as store:
        database_of(store).execute("PRAGMA synchronous = OFF")  # while it is filled
        for number in range(LEDGER_ROWS):
            one = charge(number, AT + number * 600)
            store.reserve(one, 10**9)
            charged(store, one.nonce, bytes(16))
        database_of(store).execute("PRAGMA synchronous = FULL")
        database_of(store).execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with closing(sqlite3.connect(directory / "bare.sqlite", isolation_level=None)) as other:
            other.execute("PRAGMA journal_mode = WAL")
            other.execute("PRAGMA synchronous = FULL")
            other.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, value BLOB)")

            def commit(number: int) -> None:
                other.execute("BEGIN IMMEDIATE")
                other.execute("INSERT INTO rows VALUES (?, ?)", (number, bytes(100)))
                other.execute("COMMIT")

            for number in range(RESERVATIONS):
                one = charge(LEDGER_ROWS + number, now)
                bare.append(timed(lambda number=number: commit(number)))  # type: ignore[misc]
                rate = Rate(now - now % DAY_S, 10**6)
                reserved.append(timed(lambda one=one, rate=rate: store.reserve(one, 10**9, windows, rate=rate)))  # type: ignore[misc]
        assert store.spending().lifetime == LEDGER_ROWS + RESERVATIONS
    return reserved, bare


def consent_semi_join(directory: Path) -> tuple[list[float], list[float]]:
    """Return milliseconds of one grouped query of those who are in, and of the same query of everybody, in turn."""
    consenting = parse(edited(*CONSENT).encode(), "policy.toml")
    rows, decisions = directory / "visits.parquet", directory / "consent.parquet"
    with connect() as connection:
        connection.execute(
            f"COPY (SELECT 'P' || lpad(CAST((i * 7919) % {RECORDS} AS VARCHAR), 7, '0') AS patient_id, i % 100 AS age,"
            f" CASE i % 3 WHEN 0 THEN 'medicine' ELSE 'surgery' END AS ward FROM range({PERSON_ROWS}) t(i)) TO '{rows}'"
        )
        connection.execute(
            "COPY (SELECT 'P' || lpad(CAST(i AS VARCHAR), 7, '0') AS person, 'health-research' AS purpose,"
            " '2026-01-01T00:00:00Z' AS given_at,"
            " CASE WHEN i % 10 = 0 THEN '2026-05-01T00:00:00Z' END AS withdrawn_at"
            f" FROM range({RECORDS}) t(i)) TO '{decisions}'"
        )
    source = source_of(consenting, "visits", directory).narrowed(["patient_id", "age", "ward"])
    among = consent_filter(consenting, "health-research", AT)
    assert among is not None
    query = f"SELECT ward, count(*), count(patient_id), sum(age) FROM {source.view} WHERE patient_id > ''"
    with opened(source, load_consent(consenting, directory)) as connection:
        joined, plain = [], []
        for _ in range(QUERIES):
            plain.append(timed(lambda: connection.execute(f"{query} GROUP BY ward").fetchall()))
            sql = f"{query} AND {among.sql} GROUP BY ward"
            joined.append(timed(lambda sql=sql: connection.execute(sql, among.parameters).fetchall()))  # type: ignore[misc]
        people = connection.execute(f"{query} AND {among.sql} GROUP BY ward", among.parameters).fetchall()
    assert sum(row[1] for row in people) == PERSON_ROWS * 9 // 10
    return joined, plain


if __name__ == "__main__":
    main()
