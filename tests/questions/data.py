"""A table with every kind of column at three silos: their rows as silos read them, and as DuckDB has them.

Rows have missing cells, values beyond the bounds, members of no domain, the same row twice, rows of nobody, and persons
who are known to several silos.
"""

import atexit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from analyst.reports.derived import derived_of
from analyst.reports.estimates import Estimate, Threshold, interpret
from analyst.sql.draft import Planned
from analyst.sql.offer import Offer
from analyst.sql.plan import plan
from policies.document.catalogue import catalogue_of
from policies.document.policy import Analyst, Policy
from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.coded import Coding, Rows, coded
from silo_node.data.lots import Lots
from silo_node.data.sources import source_of
from tests.harness.example_policy import KEY, Edit, policy, request
from tests.harness.rows import opened
from tests.harness.sums import opened_as

NOW = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp())
SILOS, ROWS, PERSONS = 3, 160, 45
RULES = (
    Edit("max_rows  = 2", "max_rows  = 10000"),
    Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "seen"\nlookback_days = 200'),
    Edit(
        "diary  =",
        """kind   = { type = "string", class = "internal", roles = ["dimension", "filter"], \
domain = ["a1", "a2", "b1", "b22", "Zoë's", "none"], unknown = "none" }
seen   = { type = "date", class = "internal", roles = ["dimension", "filter"], granularity = "month" }
weight = { type = "decimal", class = "internal", roles = ["measure", "filter"], bounds = [0, 200], step = 0.5 }
visits = { type = "int", class = "internal", roles = ["measure", "filter"], bounds = [0, 40], can_be_missing = false }
score  = { type = "int", class = "internal", roles = ["measure", "filter"], bounds = [-10, 10], missing = "zero" }
died   = { type = "bool", class = "sensitive", roles = ["measure", "filter"] }
diary  =""",
    ),
)
SCHEMA = pa.schema(
    [
        ("patient_id", pa.string()), ("ward", pa.string()), ("grade", pa.int16()), ("kind", pa.string()),
        ("seen", pa.date32()), ("age", pa.int64()), ("cost", pa.float64()), ("weight", pa.float64()),
        ("visits", pa.int32()), ("score", pa.int16()), ("smoker", pa.bool_()), ("died", pa.bool_()),
        ("region", pa.string()), ("stay", pa.int32()),
    ]
)  # fmt: skip
# Each column as conditions see it: what is in no domain is missing.
SEEN = """
    patient_id, silo,
    CASE WHEN ward IN ('medicine', 'surgery') THEN ward END AS ward,
    CASE WHEN grade IN (0, 1, 2) THEN grade END AS grade,
    CASE WHEN kind IN ('a1', 'a2', 'b1', 'b22', 'Zoë''s') THEN kind END AS kind,
    CASE WHEN strftime(seen, '%Y-%m') IN (SELECT month FROM months) THEN strftime(seen, '%Y-%m') END AS seen,
    CASE WHEN strftime(seen, '%Y-%m') IN (SELECT month FROM months) THEN seen END AS day,
    age, cost::DECIMAL(18, 9) AS cost, weight::DECIMAL(18, 9) AS weight, visits, coalesce(score, 0) AS score,
    smoker, died, region, stay
"""
# Each measure within its bounds, a bool as a number: c_age as it is, m_age at the nearest step, which figures are made
# of.
MEASURES = {
    "age": (0, 110, "1"), "cost": (-50, 5000, "0.01"), "weight": (0, 200, "0.5"), "visits": (0, 40, "1"),
    "score": (-10, 10, "1"), "stay": (0, 60, "1"), "smoker": (0, 1, "1"), "died": (0, 1, "1"),
}  # fmt: skip


def _rows(random: np.random.Generator) -> list[dict[str, Any]]:
    """Return the rows of one silo."""

    def some(values: Sequence[Any], missing: float = 0.15) -> Any:
        return None if random.random() < missing else values[int(random.integers(len(values)))]

    found = []
    for _ in range(ROWS):
        age = some(range(-3, 118))
        found.append(
            {
                "patient_id": some([f"p{number}" for number in range(PERSONS)], 0.03),
                "ward": some(["medicine", "surgery", "surgery", "unknown", "cellar"]),
                "grade": some([0, 1, 1, 2, -1, 7]),
                "kind": some(["a1", "a2", "b1", "b22", "Zoë's", "none", "c"]),
                "seen": some([date(2026, 4, 1) + timedelta(days=step) for step in range(0, 260, 3)]),
                "age": age,
                "cost": some([-60.0, 5200.0, 0.0, *np.round(random.normal(20 * (age or 50), 400, 9), 2).tolist()]),
                # Between two steps too, and halfway between them.
                "weight": some([-1.0, 203.7, *np.round(random.uniform(0, 200, 12), 3).tolist(), 70.25, 70.75, 80.0]),
                "visits": some([0, 1, 1, 2, 3, 5, 8, 40, 44], 0.0),
                "score": some(range(-12, 13)),
                "smoker": some([True, False]),
                "died": some([True, False, False]),
                "region": some(["north", "south", "öst"]),
                "stay": some([1, 1, 2, 3, 5, 8, 60, 90]),
            }
        )
    return [*found, *found[:9]]  # the same row twice


@dataclass(frozen=True, slots=True, eq=False)
class Federation:
    """Three silos without a network: what they offer, their rows as numbers, and all rows in one database.

    In the table `visits` of the database a person who is known to two silos is two persons.
    """

    offer: Offer
    rows: Sequence[Rows]
    database: duckdb.DuckDBPyConnection

    def planned(self, sql: str) -> Planned:
        """Return the plan of a question, as a client makes it; raises SqlError."""
        return plan(sql, self.offer)

    def sums(self, asked: Request) -> answer.Vectors:
        """Return what the silos contribute together, without noise."""
        return answer.added(answer.question(rows, asked, None, Lots(), None) for rows in self.rows)

    def answer(self, sql: str, least: float) -> list[dict[str, Any]]:
        """Return the rows of an answer without noise, in order; groups with fewer rows than `least` are withheld."""
        planned = self.planned(sql)
        asked = request(table=planned.table, plan=planned.plan, micro_rho=100_000)
        summed, threshold = opened_as(asked, self.sums(asked)), Threshold(0, False, least)
        if planned.after:
            rows: Any = derived_of(planned, asked, summed, threshold).rows
        else:
            rows, _ = interpret(planned, asked, summed, threshold)
        return [{name: one.value if isinstance(one, Estimate) else one for name, one in row.items()} for row in rows]

    def truth(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of DuckDB's answer."""
        return list(self.database.sql(sql).to_arrow_table().to_pylist())


def codings(offer: Offer) -> list[Coding]:
    """Return every way in which a question may read a column."""
    found = []
    for name in offer.columns("visits"):
        column = offer.column("visits", name)
        is_number = column.type in ("int", "decimal") and not column.domain
        found += [Coding("number" if is_number else "member", column)]
        found += [Coding("steps", column)] if column.step is not None and column.type != "bool" else []
    return found


@cache
def federation(home: Path) -> Federation:
    """Return the silos, whose rows are the same each time; `home` is a directory for their files."""
    atexit.register(federation.cache_clear)  # before DuckDB's module is gone, which would report it as leaked
    return of_silos(home, [_rows(np.random.default_rng([18, silo])) for silo in range(SILOS)])


def of_silos(home: Path, silos: Sequence[Sequence[Mapping[str, Any]]]) -> Federation:
    """Return silos with these rows."""
    tables, rows = list[pa.Table](), list[Rows]()
    for silo, own in enumerate(silos):
        rows.append(rows_in(home, own)[0])
        tables.append(_stored(own).append_column("silo", pa.array([silo] * len(own))))
    return Federation(offer(), rows, _database(offer(), pa.concat_tables(tables)))


@cache
def _rules() -> Policy:
    return policy(*RULES)


@cache
def offer() -> Offer:
    """Return what the silos offer."""
    rules = _rules()
    analyst = Analyst(key=KEY, purposes=tuple(rules.purposes), until=datetime(2100, 1, 1, tzinfo=UTC))
    return Offer({"north": catalogue_of(rules, analyst, "fed", bytes(32), bytes(16), NOW)})


def rows_in(home: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[Rows, list[str]]:
    """Return rows as a silo reads them, every column in every way, and their persons by place."""
    pa.parquet.write_table(_stored(rows), home / "visits.parquet")
    source = source_of(_rules(), "visits", home)
    with opened(source) as database:
        found, persons = coded(database, source.view, "patient_id", codings(offer()))
    return found, persons.to_pylist()


def _stored(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(SCHEMA.names) | dict(row) for row in rows], schema=SCHEMA)


def _database(offer: Offer, stored: pa.Table) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect()
    months = [one for one in offer.column("visits", "seen").domain if one != "unknown"]
    database.execute("CREATE TABLE months AS SELECT unnest(?) AS month", [months])
    database.register("stored", stored)
    database.execute(f"CREATE TABLE cells AS SELECT {SEEN} FROM stored WHERE patient_id IS NOT NULL")
    measures = []
    for name, (low, high, step) in MEASURES.items():
        cell = f"{name}::INT" if name in ("smoker", "died") else name
        clamped = f"CASE WHEN {name} IS NOT NULL THEN least(greatest({cell}, {low}), {high}) END::DECIMAL(18, 9)"
        kind = "BIGINT" if step == "1" else "DECIMAL(18, 2)"
        measures += [
            f"{clamped}{'::BIGINT' if step == '1' else ''} AS c_{name}",
            f"(floor({clamped} / {step}::DOUBLE + 0.5) * {step})::{kind} AS m_{name}",
        ]
    database.execute(
        f"CREATE TABLE visits AS SELECT * REPLACE (silo || '/' || patient_id AS patient_id), {', '.join(measures)}"
        " FROM cells"
    )
    return database
