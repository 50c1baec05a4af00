"""What an answer of one silo costs beside the engine's own: the same grouped figures of the same Parquet file.

The silo asks who consents, draws rows of persons who have more than `max_rows`, and checks and clamps every cell, when
it prepares a source or at the request; the engine alone does none of this. CPU time of pairs in one run, each with two
threads; of the silo that of its worker too, which computes.

Run: python -m tests.bench.rows
"""

import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb

from policies.document.load import load
from policies.document.policy import Policy
from policies.domains import hash_of
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import Table, TableColumn
from policies.units import MAX_DOMAIN
from silo_node.data.consent import load_consent, narrowed, readings, row_filter
from silo_node.data.locations import connect, opened
from silo_node.data.measure import measure, proposed, questions
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import Store
from silo_node.data.query import execute
from silo_node.data.sources import Source, source_of
from silo_node.killable import ComputeLimits, KillableComputer
from silo_node.timed import TimedComputing
from tests.bench.figures import publish
from tests.harness.example_policy import NOW, request
from tests.harness.rows import NamedHere

PAIRS = 9
LIMITS = ComputeLimits(12_288, 2)
FILE_ROWS = 10_000_000
DECISIONS = 300_000
PURPOSE = "health-research"
POLICY = """
schema = "silo-policy/1"
silo = {{ id = "a", controller = "C", sector = "hospital", jurisdiction = "NO", contact = "c" }}
budget = {{ delta = 1e-6, lifetime = {{ rho = 1 }} }}
[privacy_unit]
entity = "patient"
id_column = "patient_id"
id_form = []
max_rows = {max_rows}
[sources.visits]
kind = "{kind}"
uri = "visits-*.{kind}"
pattern = true
{source}
read = "prepared"
[sources.visits.columns]
patient_id = {{ type = "string", class = "identifier", roles = [] }}
ward = {{ type = "string", class = "internal", roles = ["dimension"], {domain}, unknown = "unknown" }}
age = {{ type = "int", class = "internal", roles = ["measure"], bounds = [0, 110] }}
cost = {{ type = "decimal", class = "internal", roles = ["measure"], bounds = [-50, 5000], step = 0.01 }}
[consent]
mode = "table"
source = "decisions.parquet"
subject = "person"
purpose = "purpose"
given_at = "given_at"
withdrawn_at = "withdrawn_at"
[purposes.health-research]
legal_basis = "consent"
consent = "opt-in"
computations = ["query"]
[purposes.counting]
legal_basis = "public-task"
computations = ["query"]
"""
PLAIN = "SELECT ward, count(*), sum(age), avg(cost) FROM '{}' GROUP BY ward"
TYPED = (
    "CREATE OR REPLACE TEMP TABLE typed AS SELECT patient_id::VARCHAR AS patient_id, ward::VARCHAR AS ward,"
    " age::BIGINT AS age, cost::DECIMAL(18, 9) AS cost FROM '{}'"
)


@dataclass(frozen=True)
class Rows:
    """How many rows, of how many persons, in how many groups."""

    rows: int
    persons: int
    groups: int = 10

    @property
    def wards(self) -> tuple[str, ...]:
        return (*(f"ward {index}" for index in range(self.groups)), "unknown")


MILLION, TEN_MILLIONS = Rows(1_000_000, 100_000), Rows(10_000_000, 1_000_000)


def main() -> None:
    baseline = "the same figures by DuckDB alone, without consent or limits"
    with written(MILLION) as home:
        for figure, max_rows, aim in (("group_by_1e6", 20, "ratio 8"), ("group_by_1e6_one_row", 1, "ratio 14")):
            with bench_of(home, MILLION, max_rows) as bench:
                answered, plain = bench.pairs(partial(bench.answer, PURPOSE))
                publish(figure, answered, "ms", baseline, plain, aim)
        with bench_of(home, MILLION, 20) as bench:
            everybody = bench.timed(partial(bench.answer, "counting"))
            consented = bench.timed(partial(bench.answer, PURPOSE))
            publish(
                "consent_semi_join_prepared", consented, "ms", "the same question of everybody", everybody, "ratio 4"
            )
            read, plain = bench.pairs(bench.read_at_request, 3)
            publish("group_by_1e6_every_request", read, "ms", baseline, plain)
        _leaving(home)
    with written(TEN_MILLIONS) as home:
        with bench_of(home, TEN_MILLIONS, 20) as bench:
            answered, plain = bench.pairs(partial(bench.answer, PURPOSE))
            publish("group_by_1e7", answered, "ms", baseline, plain, "ratio 6.5")
        mine, engine = (_peak(home, TEN_MILLIONS, what) for what in ("silo", "engine"))
        publish("group_by_1e7_peak_memory", [mine], "MiB", "DuckDB's", [engine], "ratio 2, and 200 MiB")
        for kind in ("parquet", "csv"):
            made, typed = _prepared(home, TEN_MILLIONS, kind)
            what = f"DuckDB's CREATE TABLE AS of the typed columns of the {kind}"
            publish(f"prepare_1e7_{kind}", made, "ms", what, typed, "ratio 4")
    many = Rows(1_000_000, 100_000, 100_000)
    with written(many) as home, bench_of(home, many, 20) as bench:
        figures = (_figure("count", None), _figure("sum", "age"))
        plain_sql = "SELECT ward, count(*), sum(age) FROM '{}' GROUP BY ward"
        answered, plain = bench.pairs(lambda: bench.answer("counting", figures), PAIRS, plain_sql)
        publish("group_by_1e5_groups", answered, "ms", "the same figures by DuckDB alone", plain, "ratio 3")


@contextmanager
def written(size: Rows) -> Iterator[Path]:
    """Write visits, in Parquet and in CSV, and 300,000 consents; one person in ten has more than 20 visits."""
    person = f"floor({size.persons} * pow(random(), 1.6))::INT"
    with tempfile.TemporaryDirectory() as directory, duckdb.connect() as connection:
        home = Path(directory)
        connection.execute("SELECT setseed(0.5)")
        for number, first in enumerate(range(0, size.rows, FILE_ROWS)):
            file = home / f"visits-{number}.parquet"
            end = min(first + FILE_ROWS, size.rows)
            connection.execute(
                f"COPY (SELECT 'P' || lpad(CAST({person} AS VARCHAR), 8, '0') AS patient_id,"
                f" 'ward ' || (i % {size.groups}) AS ward, i % 111 AS age,"
                f" CAST((i % 505000) / 100.0 - 50 AS DECIMAL(18, 2)) AS cost FROM range({first}, {end}) t(i))"
                f" TO '{file}'"
            )
            if size.rows <= FILE_ROWS:
                connection.execute(f"COPY (FROM '{file}') TO '{file.with_suffix('.csv')}'")
        connection.execute(
            "COPY (SELECT 'P' || lpad(CAST(i AS VARCHAR), 8, '0') AS person, 'health-research' AS purpose,"
            " '2026-01-01T00:00:00Z' AS given_at, NULL::VARCHAR AS withdrawn_at"
            f" FROM range({DECISIONS}) t(i)) TO '{home / 'decisions.parquet'}'"
        )
        yield home


@dataclass
class Bench:
    """A silo's prepared visits, and DuckDB alone."""

    home: Path
    size: Rows
    policy: Policy
    connection: duckdb.DuckDBPyConnection
    source: Source
    reader: Reader
    worker: KillableComputer
    max_rows: int
    log: NamedHere

    def answer(self, purpose: str, figures: Any = None) -> None:
        self.worker.contribution(self.asked(purpose, figures), NOW)

    def read_at_request(self) -> None:
        decisions = load_consent(self.connection, self.policy, self.home)
        read = narrowed(self.policy, self.source, PURPOSE, ("ward", "age", "cost"))
        with opened(self.connection, (read, *readings(decisions)), 60):
            asked = self.asked(PURPOSE)
            execute(self.connection, read, "patient_id", asked, row_filter(self.policy, read, PURPOSE, NOW))

    def asked(self, purpose: str, figures: Any = None) -> Request:
        ward = TableColumn(
            name="ward", type="string", domain=self.policy.sources["visits"].columns["ward"].listed, unknown="unknown"
        )
        age = TableColumn(name="age", type="int", low=0, high=110, step="1")
        cost = TableColumn(name="cost", type="decimal", low=-5000, high=500_000, step="0.01")
        chosen = figures or (_figure("count", None), _figure("sum", "age"), _figure("avg", "cost"))
        return request(
            purpose=purpose,
            micro_rho=90_000,
            table=Table(name="visits", max_rows=self.max_rows, max_silos=1, columns=(ward, age, cost)),
            plan=Plan(where=None, group_by=("ward",), aggregates=chosen),
        )

    def pairs(
        self, run: Callable[[], object], pairs: int = PAIRS, plain: str = PLAIN
    ) -> tuple[list[float], list[float]]:
        """Return milliseconds of CPU of the silo's answer and of the engine's, in turn, after one of each."""
        sql = plain.format(self.home / "visits-*.parquet")
        run()
        self.connection.execute(sql).fetchall()
        found = [(cpu_ms(run), cpu_ms(lambda: self.connection.execute(sql).fetchall())) for _ in range(pairs)]
        return [one for one, _ in found], [other for _, other in found]

    def timed(self, run: Callable[[], object]) -> list[float]:
        run()
        return [cpu_ms(run) for _ in range(PAIRS)]


def _figure(function: Any, column: str | None) -> Aggregate:
    return Aggregate(function=function, column=column, alias=f"{function}_{column or 'rows'}")


def _policy(home: Path, size: Rows, max_rows: int, kind: str = "parquet") -> Policy:
    dialect = 'csv = { delimiter = ",", quote = "\\"" }' if kind == "csv" else ""
    domain = f"domain = {list(size.wards)}"
    if size.groups > MAX_DOMAIN:
        (home / "wards.txt").write_text("\n".join(size.wards))
        domain = f'domain_file = "wards.txt", domain_hash = "{hash_of(size.wards)}"'
    text = POLICY.format(max_rows=max_rows, kind=kind, source=dialect, domain=domain)
    (home / "policy.toml").write_text(text)
    return load(home / "policy.toml").policy


@contextmanager
def bench_of(home: Path, size: Rows, max_rows: int) -> Iterator[Bench]:
    policy = _policy(home, size, max_rows)
    with connect() as connection:
        source, decisions = source_of(policy, "visits", home), load_consent(connection, policy, home)
        log = NamedHere()
        store = Store(policy, home, log.kept)
        log.prepare(store, connection, source, NOW)
        reader = Reader(policy, store, connection, {"visits": source}, decisions)
        worker = KillableComputer(load(home / "policy.toml"), home / "policy.toml", LIMITS, lambda _: None, log.kept)
        try:
            worker.wait()
            yield Bench(home, size, policy, connection, source, reader, worker, max_rows, log)
        finally:
            worker.close()


def _prepared(home: Path, size: Rows, kind: str) -> tuple[list[float], list[float]]:
    """Return milliseconds of CPU of preparing a file, and of reading it into a table of DuckDB, in turn."""
    policy, made, typed = _policy(home, size, 20, kind), [], []
    source = source_of(policy, "visits", home)
    for _ in range(3):
        with connect() as connection:
            log = NamedHere()
            store = Store(policy, home, log.kept)
            store.keep_only(())
            made.append(cpu_ms(partial(log.prepare, store, connection, source, NOW)))
        with connect() as connection:
            typed.append(cpu_ms(partial(connection.execute, TYPED.format(home / f"visits-*.{kind}"))))
    return made, typed


def _leaving(home: Path) -> None:
    """Publish when answers leave, where the owner has declared what doctor proposes."""
    with bench_of(home, MILLION, 20) as bench:
        policy, sources = bench.policy, {"visits": bench.source}
        decisions = load_consent(bench.connection, policy, home)
        given = policy, bench.connection, sources, decisions, {"visits": MILLION.rows}, DECISIONS, NOW
        fit = proposed(measure(*given, reader_of=lambda of: _reader(of, bench)), {"visits": MILLION.rows}, DECISIONS)
    compute, rows_up_to, decisions_up_to = (line.partition("] ")[2] for line in fit.lines)
    text = (home / "policy.toml").read_text().replace('read = "prepared"', f'read = "prepared"\n{rows_up_to}')
    text = text.replace('mode = "table"', f'mode = "table"\n{decisions_up_to}')
    (home / "policy.toml").write_text(f"{text}\n[compute]\n{compute.replace(', ', chr(10))}\n")
    file = load(home / "policy.toml")
    worker = KillableComputer(file, home / "policy.toml", LIMITS, lambda _: None, bench.log.kept)
    timed = TimedComputing(file.policy, worker, 0.01, time.sleep, logging.getLogger("bench"))
    asked = list(questions(file.policy, "visits", 20, NOW))
    worker.wait()
    try:
        for figure, request, aim in (
            ("count_1e6_leaves", asked[0], "0.5"),
            ("median_question_1e6_leaves", asked[10], "ratio 3"),
        ):
            worker.contribution(request, NOW)
            computing, leaving = [], []
            for _ in range(PAIRS):
                began = time.perf_counter()
                worker.contribution(request, NOW)
                computing.append(time.perf_counter() - began)
                one = timed.leaving()
                timed.take(request, one.started, 0, one)
                timed.contribution(_committed(request), NOW, one.started, one)
                one.wait()
                leaving.append(time.monotonic() - one.started)
            publish(figure, leaving, "s", "its computing, in the worker", computing, aim)
    finally:
        worker.close()


def _reader(policy: Policy, bench: Bench) -> Reader:
    decisions = load_consent(bench.connection, policy, bench.home)
    return Reader(
        policy, Store(policy, bench.home, bench.log.kept), bench.connection, {"visits": bench.source}, decisions
    )


def _committed(request: Request) -> Any:
    """Return what a round has of a request, as far as computing reads it."""
    return SimpleNamespace(before=SimpleNamespace(before=SimpleNamespace(before=SimpleNamespace(request=request))))


def _peak(home: Path, size: Rows, what: str) -> float:
    """Return the greatest memory of a process that answers once, in MiB."""
    command = [sys.executable, "-c", _PEAK, str(home), what, str(size.rows), str(size.persons)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600).stdout) / 1024


_PEAK = """
import os, sys
from pathlib import Path
from tests.bench import rows
home, what = Path(sys.argv[1]), sys.argv[2]
size = rows.Rows(int(sys.argv[3]), int(sys.argv[4]))
with rows.bench_of(home, size, 20) as bench:
    if what == "silo":
        bench.answer(rows.PURPOSE)
        print(max(map(rows.peak_kib, rows.children())))
    else:
        bench.connection.execute(rows.PLAIN.format(home / "visits-*.parquet")).fetchall()
        print(rows.peak_kib(os.getpid()))
"""


def peak_kib(process: int) -> int:
    """Return the greatest memory that a process has had."""
    found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) if found else 0


def children() -> list[int]:
    """Return the processes that this one has started, and that run."""
    return [int(one) for text in _texts(Path("/proc/self/task").glob("*/children")) for one in text.split()]


def _texts(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        with suppress(OSError):  # of a thread that has ended
            yield path.read_text()


def cpu_ms(run: Callable[[], object]) -> float:
    """Return the processor time of this process and of its workers, in milliseconds."""
    began = _used_ns()
    run()
    return (_used_ns() - began) / 1e6


def _used_ns() -> int:
    paths = (path for process in children() for path in Path(f"/proc/{process}/task").glob("*/schedstat"))
    return time.process_time_ns() + sum(int(text.split()[0]) for text in _texts(paths))


if __name__ == "__main__":
    main()
