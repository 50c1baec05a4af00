"""The same rows in CSV, Parquet, a DuckDB file and PostgreSQL give the same answers, to the last unit."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from policies.document.load import parse
from policies.document.policy import Policy
from policies.periods import UNKNOWN, periods
from policies.requests.predicates import Both, Compare, Either, IsNull, Not, OneOf, Predicate
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from silo_node.data.consent import narrowed, row_filter
from silo_node.data.locations import connect
from silo_node.data.prepared import reader as prepared
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import Store
from silo_node.data.query import execute
from silo_node.data.sources import Source
from tests.cases import every
from tests.harness.example_policy import COLUMNS, NOW, STORED, Edit, edited, plan, request, table
from tests.harness.rows import NamedHere, load_sources, opened

if TYPE_CHECKING:
    from tests.harness.postgres import Server

MIDNIGHT = datetime.fromtimestamp(NOW, UTC).replace(hour=0, minute=0, second=0, tzinfo=None)
KINDS = ["csv", "duckdb", pytest.param("postgres", marks=pytest.mark.postgres)]
BACK = 400
GRANULARITIES = ("day", "week", "month", "quarter", "year")
SCHEMA = pa.schema(
    [
        *STORED,
        ("seen", pa.timestamp("us")),
        ("grams", pa.decimal128(20, 4)),
        ("Ünits \"of\" 'x' %s", pa.float32()),
    ]
)
POSTGRES = (
    "patient_id text, ward varchar(40), grade smallint, age bigint, cost double precision, smoker boolean, region text,"
    ' stay integer, seen timestamp, grams numeric(20, 4), "Ünits ""of"" \'x\' %s" real'
)
WARDS = ("medicine", "surgery", "cellar", None)
GRADES = (-1, 0, 1, 2, 7, -(2**15), None)
AGES = (0, 30, 110, 111, -5, 2**63 - 1, -(2**63), None, 47)
COSTS = (
    1.0, -0.12, 0.005, 0.015, 12.345, 5000.0, 5000.01, -50.0, 99999.5, 1e15, 1e300, -1e300, 5e-324, 0.1, -0.0,
    math.nan, math.inf, -math.inf, None,
)  # fmt: skip
SMOKERS = (True, False, None)
REGIONS = ("north", "o'hara, jr", 'quote " inside', "NULL", "\\N", "new\nline", "ærø", None, " padded ")
STAYS = (0, 1, 59, 60, 61, -1, 2**31 - 1, None)
SEEN = (0, 1, 6, 7, 30, 31, 90, 365, BACK, BACK + 1, -1, None)
GRAMS = ("0", "0.0001", "1234.5678", "-0.5", "45360", "9999999999999999.9999", "-9999999999999999.9999", None)


def rows() -> list[dict[str, Any]]:
    """Return rows in which every odd value meets many others, as the columns repeat at different lengths."""
    made = []
    for index in range(500):
        back = SEEN[index % len(SEEN)]
        grams = GRAMS[index % len(GRAMS)]
        made.append(
            {
                "patient_id": None if index % 17 == 16 else f"p{index % 90}",
                "ward": WARDS[index % len(WARDS)],
                "grade": GRADES[index // 2 % len(GRADES)],
                "age": AGES[index // 3 % len(AGES)],
                "cost": COSTS[index // 5 % len(COSTS)],
                "smoker": SMOKERS[index // 2 % len(SMOKERS)],
                "region": REGIONS[index % len(REGIONS)],
                "stay": STAYS[index // 7 % len(STAYS)],
                "seen": None if back is None else MIDNIGHT - timedelta(days=back, hours=-3, microseconds=-index),
                "grams": None if grams is None else Decimal(grams),
                SCHEMA.names[-1]: None if index % 3 == 0 else index / 8,
            }
        )
    return made


def policy(kind: str, uri: str, granularity: str = "month") -> Policy:
    text = edited(
        Edit('kind = "parquet"', f'kind = "{kind}"\ntime_column = "seen"\nlookback_days = {BACK}\nmax_unreadable = 1'),
        Edit('"visits.parquet"', json.dumps(uri)),
        Edit("max_rows  = 2", "max_rows  = 1000"),
        Edit('bounds = [0, 60], unit = "day"', 'bounds = [0, 60], missing = "zero"'),
        Edit(
            "diary  =",
            'seen = { type = "date", class = "internal", roles = ["dimension", "filter"], '
            f'granularity = "{granularity}" }}\n'
            'kg = { type = "decimal", class = "internal", roles = ["measure", "filter"], bounds = [-10, 100], '
            'step = 0.001, from = "grams", scale = 0.001 }\n'
            'odd = { type = "decimal", class = "internal", roles = ["measure"], bounds = [0, 50], step = 0.5, '
            "from = '''Ünits \"of\" 'x' %s''', scale = 3 }\ndiary  =",
        ),
    )
    return parse(text.encode(), "policy.toml")


def write(kind: str, home: Path, server: "Server | None") -> str:
    """Store the rows; return the uri under which a policy in `home` finds them."""
    stored = pa.Table.from_pylist(rows(), schema=SCHEMA)
    if kind == "csv":
        pyarrow.csv.write_csv(stored, home / "visits.csv")
        return "visits.csv"
    if kind == "parquet":
        pyarrow.parquet.write_table(stored, home / "visits.parquet")
        return "visits.parquet"
    if kind == "duckdb":
        with duckdb.connect(str(home / "it's.duckdb")) as database:
            database.register("stored", stored)
            database.execute("CREATE SCHEMA clinical; CREATE TABLE clinical.visits AS FROM stored")
        return "it's.duckdb#clinical.visits"
    assert server is not None
    server.fill("clinical.kinds", POSTGRES, (tuple(row[name] for name in SCHEMA.names) for row in rows()))
    return "env:CONSILO_TEST_DSN#clinical.kinds"


@dataclass
class Bench:
    """The rows in one kind of place."""

    kind: str
    home: Path
    uri: str
    loaded: dict[str, tuple[Policy, Source]] = field(default_factory=dict)  # by granularity
    answered: dict[bytes, list[list[int]]] = field(default_factory=dict)
    log: NamedHere = field(default_factory=NamedHere)

    def remembered(self, asked: Request) -> list[list[int]]:
        """Return what `ask` does, computed once for all kinds that are held against it."""
        body = asked.encode()
        if body not in self.answered:
            self.answered[body] = self.ask(asked)
        return self.answered[body]

    def ask_prepared(self, asked: Request, granularity: str = "month") -> list[list[int]]:
        """Return the answer from a store of the rows, in partitions of a few persons."""
        by, source = self.read_by(granularity)
        store = Store(by, self.home, self.log.kept)
        with connect() as database:
            self.log.prepare(store, database, source, NOW)
            reader = Reader(by, store, database, {"visits": source}, None)
            return [vector.tolist() for vector in reader.vectors(asked, NOW, 20)]

    def read_by(self, granularity: str) -> tuple[Policy, Source]:
        if granularity not in self.loaded:
            by = policy(self.kind, self.uri, granularity)
            self.loaded[granularity] = by, load_sources(by, self.home)["visits"]
        return self.loaded[granularity]

    def ask(self, asked: Request, granularity: str = "month") -> list[list[int]]:
        loaded, source = self.read_by(granularity)
        used = (name for names in asked.plan.uses().values() for name in names)
        source = narrowed(loaded, source, "health-research", used)
        among = row_filter(loaded, source, "health-research", NOW)
        with opened(source) as database:
            return [vector.tolist() for vector in execute(database, source, "patient_id", asked, among)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    home = tmp_path_factory.mktemp("reference")
    return Bench("parquet", home, write("parquet", home, None))


@pytest.fixture(scope="module", autouse=True)
def partitions() -> Iterator[None]:
    """Partitions of a few persons each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "PARTITION_ROWS", 100)
        yield


@pytest.fixture(scope="module", params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("silo")
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None
    with pytest.MonkeyPatch.context() as patch:
        if server is not None:
            patch.setenv("CONSILO_TEST_DSN", server.dsn)
        yield Bench(request.param, home, write(request.param, home, server))


def asked(where: Predicate | None, group_by: tuple[str, ...], granularity: str = "month") -> Request:
    seen = TableColumn(name="seen", type="date", domain=(*periods(granularity, BACK, NOW), UNKNOWN), unknown=UNKNOWN)
    kg = TableColumn(name="kg", type="decimal", low=-10_000, high=100_000, step="0.001")
    odd = TableColumn(name="odd", type="decimal", low=0, high=100, step="0.5")
    aggregates = [Aggregate(function="count", column=None, alias="n")]
    for column in ("age", "cost", "smoker", "stay", "kg", "odd"):
        aggregates.append(Aggregate(function="count", column=column, alias=f"present_{column}"))
        aggregates.append(Aggregate(function="sum", column=column, alias=f"sum_{column}"))
    return request(
        table=table(max_rows=1000, columns=(*COLUMNS, seen, kg, odd)),
        plan=plan(where=where, group_by=group_by, aggregates=tuple(aggregates)),
    )


FILTERS: dict[str, Predicate | None] = {
    "none": None,
    "bool": Compare(column="smoker", op="=", value="true"),
    "not bool": Not(operand=Compare(column="smoker", op="=", value="true")),
    "no bool": IsNull(column="smoker"),
    "int": Compare(column="age", op=">=", value="111"),
    "huge int": Compare(column="age", op=">", value="999999999999999999"),
    "decimal": Compare(column="cost", op="<=", value="0.01"),
    "a number that is none": IsNull(column="cost"),
    "scaled": Both(
        operands=(Compare(column="kg", op=">", value="-0.001"), Compare(column="kg", op="<", value="45.3601"))
    ),
    "text": OneOf(column="region", values=("o'hara, jr", 'quote " inside', "new\nline", "ærø", "padded")),
    "text that looks like none": OneOf(column="region", values=("NULL", "\\N")),
    "no text": IsNull(column="region"),
    "text in order": Compare(column="region", op=">", value="north"),
    "domain": Either(
        operands=(Compare(column="ward", op="=", value="unknown"), Compare(column="grade", op="=", value="-1"))
    ),
    "period": Compare(column="seen", op=">=", value="2026-12"),
}


@pytest.mark.slow
@every("where", FILTERS)
@every("group_by", [(), ("ward",), ("grade", "ward"), ("seen",)])
def test_a_question_has_the_same_answer(bench: Bench, reference: Bench, where: str, group_by: tuple[str, ...]) -> None:
    question = asked(FILTERS[where], group_by)
    found = bench.ask(question)
    assert found == reference.remembered(question)
    assert sum(found[0]) > 0, "a filter that nothing passes shows nothing"
    assert bench.ask_prepared(question) == found


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_period_holds_the_same_rows(bench: Bench, reference: Bench, granularity: str) -> None:
    question = asked(None, ("seen",), granularity)
    assert bench.ask(question, granularity) == reference.ask(question, granularity)
    assert bench.ask_prepared(question, granularity) == reference.ask(question, granularity)


def test_the_answer_is_that_of_plain_arithmetic(reference: Bench) -> None:
    """All could be wrong alike."""
    kept = [
        row
        for row in rows()
        if row["patient_id"] is not None and row["seen"] is not None and row["seen"] >= MIDNIGHT - timedelta(days=BACK)
    ]
    found = dict(zip(["n", "ages", "age", "costs"], reference.ask(asked(None, ()))[:4], strict=True))
    ages = [row["age"] for row in kept if row["age"] is not None]
    finite = [row["cost"] for row in kept if row["cost"] is not None and abs(row["cost"]) < 1e28]
    assert found["n"] == [len(kept)]
    assert found["ages"] == [len(ages)]
    assert found["age"] == [sum(2 * min(max(age, 0), 110) - 110 for age in ages)]
    assert found["costs"] == [len(finite)]
