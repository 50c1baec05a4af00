"""What a silo computes equals a plain computation over the rows, exactly, whatever the cells hold."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Context, Decimal
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.requests.predicates import Both, Compare, Either, IsNull, Not, OneOf, Predicate
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from silo_node.data.query import execute
from silo_node.data.sources import Source, source_of
from silo_node.errors import SourceError
from tests.cases import every
from tests.harness.example_policy import AGE, COLUMNS, COST, SMOKER, STORED, Edit, plan, policy, request, table
from tests.harness.rows import load_sources, opened

Row = dict[str, Any]
SCHEMA = pa.schema(STORED)
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"=": eq, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
SURE_BOOL = 'can_be_missing = false, type = "bool"'
NINTH = Decimal(1).scaleb(-9)


@dataclass
class Bench:
    """The directory of a silo, with one file of rows."""

    home: Path

    def source(self, rows: list[Row], schema: Any = SCHEMA) -> Source:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), self.home / "visits.parquet")
        return source_of(policy(), "visits", self.home)

    def compute(self, rows: list[Row], asked: Request, schema: Any = SCHEMA) -> list[list[int]]:
        return answer(self.source(rows, schema), asked)


def answer(source: Source, asked: Request) -> list[list[int]]:
    """Return what a silo with this source computes."""
    with opened(source) as database:
        return [each.tolist() for each in execute(database, source, "patient_id", asked)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("silo"))


def read(cell: Any) -> Any:
    """Return a cell as its source reads it: text without blanks around it, and none where nothing is left."""
    return (cell.strip() or None) if isinstance(cell, str) else cell


def number(cell: Any) -> Decimal | None:
    """Return the cell as a number of at most nine decimals, or None where there is none."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return None
    return Decimal(str(cell)).quantize(NINTH, ROUND_HALF_UP, Context(prec=60))


def member(cell: Any, column: TableColumn) -> str | None:
    return str(cell) if cell is not None and str(cell) in column.domain else column.unknown


def value(cell: Any, column: TableColumn) -> Any:
    """Return what a filter compares: mapped into the domain first, then read by its type; None if missing."""
    cell = member(cell, column) if column.domain else cell
    if cell is None:
        return None
    if column.type in ("int", "decimal"):
        return number(cell)
    return cell.encode() if column.type == "string" else cell


def literal(text: str, column: TableColumn) -> Any:
    if column.type in ("int", "decimal"):
        return Decimal(text)
    return text.encode() if column.type == "string" else text == "true"


def holds(predicate: Predicate, row: Row) -> bool | None:
    """Judge a row by SQL's three-valued logic; None is unknown."""
    match predicate:
        case Not():
            inner = holds(predicate.operand, row)
            return None if inner is None else not inner
        case Both():
            found = [holds(operand, row) for operand in predicate.operands]
            return False if False in found else None if None in found else True
        case Either():
            found = [holds(operand, row) for operand in predicate.operands]
            return True if True in found else None if None in found else False
    column = next(one for one in COLUMNS if one.name == predicate.column)
    cell = value(row[column.name], column)
    match predicate:
        case IsNull():
            return cell is None
        case Compare():
            return None if cell is None else OPERATORS[predicate.op](cell, literal(predicate.value, column))
        case OneOf():
            return None if cell is None else cell in [literal(text, column) for text in predicate.values]


def steps(cell: Any, column: TableColumn) -> int | None:
    """Return the cell in steps above the lower bound, clamped, rounded half up; None if missing."""
    assert column.low is not None
    assert column.high is not None
    assert column.step is not None
    if column.type == "bool":
        return None if cell is None else int(cell)
    value_read = number(cell)
    if value_read is None:
        return None
    step = Decimal(column.step)
    clamped = min(max(value_read, column.low * step), column.high * step)
    return int(((clamped - column.low * step) / step).to_integral_value(ROUND_HALF_UP))


def is_outside(cell: Any, column: TableColumn) -> bool:
    """Tell whether a number lies so far outside its bounds that its nearest step does."""
    value_read = None if column.type == "bool" else number(cell)
    if value_read is None or column.low is None or column.high is None:
        return False
    nearest = (value_read / Decimal(column.step or 1)).to_integral_value(ROUND_HALF_UP)
    return not column.low <= nearest <= column.high


def slots_of_cut(kept: list[Row], asked: Request) -> list[int]:
    """Return how many persons of the kept rows have nothing cut, rows only, values only, and both."""
    assert isinstance(asked.plan, Plan)
    columns = [column for column in COLUMNS if column.name in asked.plan.valued(asked.table)]
    slots = [0, 0, 0, 0]
    for person in {row["patient_id"] for row in kept}:
        own = [row for row in kept if row["patient_id"] == person]
        clamped = any(is_outside(row[column.name], column) for row in own for column in columns)
        slots[(len(own) > asked.table.max_rows) + 2 * clamped] += 1
    return slots


def expected(rows: list[Row], asked: Request) -> list[list[int]]:
    """Compute the plan row by row, with nobody over `max_rows`."""
    plan = asked.plan
    assert isinstance(plan, Plan)
    read_rows = [{name: read(cell) for name, cell in row.items()} for row in rows]
    kept = [row for row in read_rows if row["patient_id"] is not None]
    if plan.where is not None:
        kept = [row for row in kept if holds(plan.where, row) is True]
    columns = {column.name: column for column in COLUMNS}
    vectors = []
    for kind, name in asked.plan.statistics(asked.table):
        if kind == "cut":
            vectors.append(slots_of_cut(kept, asked))
            continue
        vector = []
        for group in plan.groups(asked.table):
            inside = [
                row
                for row in kept
                if all(
                    member(row[key], columns[key]) == wanted for key, wanted in zip(plan.group_by, group, strict=True)
                )
            ]
            if name is None:
                vector.append(len(inside))
                continue
            present = [found for row in inside if (found := steps(row[name], columns[name])) is not None]
            width = columns[name].range_steps
            vector.append(len(present) if kind == "present" else sum(2 * found - width for found in present))
        vectors.append(vector)
    return vectors


TEXTS = ["", "north", "o'hara", "$p0", "%", "NULL", "'; DROP TABLE cells; --", "ærø", "日本", "\\", '"', "true", "12"]
# Off the grid but never half way between two steps: that case has its own test.
COSTS = st.builds(
    lambda cents, mills: (cents * 10 + mills) / 1000, st.integers(-10_000, 600_000), st.sampled_from([0, 0, 1, -2, 4])
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "patient_id": st.none() | st.sampled_from(["p1", "p2", "", "o'hara"]),
            "ward": st.none()
            | st.sampled_from(["medicine", "surgery", "unknown", "cellar", "MEDICINE", "", " surgery"]),
            "grade": st.none() | st.integers(-3, 4),
            "age": st.none() | st.integers(-20, 130) | st.sampled_from([-(2**63), 2**63 - 1, 10**18]),
            "cost": st.none()
            | COSTS
            | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e-12, 1e20, -1e20, 5000.004, -50.004]),
            "smoker": st.none() | st.booleans(),
            "region": st.none() | st.sampled_from(TEXTS),
            "stay": st.none() | st.integers(-5, 70),
        }
    ),
    max_size=12,
)
LITERALS = {
    "ward": st.sampled_from(["medicine", "surgery", "unknown", "cellar", ""]),
    "grade": st.integers(-3, 4).map(str),
    "age": st.sampled_from(["-1", "0", "18", "18.5", "64.999999999", "110", "999999999999999999"]),
    "cost": st.sampled_from(["-50", "-0.01", "0", "0.001", "12.34", "5000", "5000.004", "0.000000001"]),
    "smoker": st.sampled_from(["true", "false"]),
    "region": st.sampled_from([*TEXTS, "south"]),
}


def leaves() -> st.SearchStrategy[Predicate]:
    def of(name: str) -> st.SearchStrategy[Predicate]:
        return st.one_of(
            st.builds(Compare, column=st.just(name), op=st.sampled_from(list(OPERATORS)), value=LITERALS[name]),
            st.builds(OneOf, column=st.just(name), values=st.lists(LITERALS[name], min_size=1, max_size=3).map(tuple)),
            st.builds(IsNull, column=st.just(name)),
        )

    return st.sampled_from(list(LITERALS)).flatmap(of)


PREDICATES = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.builds(Not, operand=inner),
        st.builds(Both, operands=st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Either, operands=st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)
ALL = (
    Aggregate(function="count", column=None, alias="n"),
    Aggregate(function="sum", column="age", alias="ages"),
    Aggregate(function="avg", column="cost", alias="mean_cost"),
    Aggregate(function="sum", column="smoker", alias="smokers"),
    Aggregate(function="count", column="stay", alias="stays"),
)
PLANS = st.builds(
    Plan,
    where=st.none() | PREDICATES,
    group_by=st.sampled_from([(), ("ward",), ("grade",), ("grade", "ward")]),
    aggregates=st.just(ALL),
    counts_cut=st.booleans(),
)
UNBOUNDED = table(max_rows=10_000)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(rows=ROWS, used=PLANS)
def test_answer_equals_a_plain_computation(bench: Bench, rows: list[Row], used: Plan) -> None:
    asked = request(plan=used, table=UNBOUNDED)
    assert bench.compute(rows, asked) == expected(rows, asked)


@pytest.mark.parametrize("group_by", [(), ("ward",), ("grade", "ward")], ids=["no group", "three groups", "12 groups"])
def test_no_rows_are_zeros_in_every_group(bench: Bench, group_by: tuple[str, ...]) -> None:
    asked = request(plan=plan(group_by=group_by, aggregates=ALL))
    answer = bench.compute([], asked)
    assert answer == expected([], asked)
    assert {count for vector in answer for count in vector} == {0}


def row(person: str | None = "p1", **cells: Any) -> Row:
    return dict.fromkeys(SCHEMA.names) | {"patient_id": person} | cells


def ask(column: TableColumn, where: Predicate | None = None, max_rows: int = 10_000) -> Request:
    """Return a request for the present rows and the total of one column."""
    total = (Aggregate(function="sum", column=column.name, alias="total"),)
    columns = tuple(column if one.name == column.name else one for one in COLUMNS)
    if column.name not in {one.name for one in columns}:
        columns = (*columns, column)
    return request(
        table=table(max_rows=max_rows, columns=columns), plan=plan(where=where, group_by=(), aggregates=total)
    )


@pytest.mark.parametrize(
    ("cost", "hundredths"),
    [
        (-50.0, -5000),
        (0.0, 0),
        (0.01, 1),
        (12.344, 1234),
        (12.346, 1235),
        (5000.0, 500_000),
        (5000.01, 500_000),
        (1e20, 500_000),
        (-50.01, -5000),
        (-1e20, -5000),
    ],
)
def test_a_cell_is_clamped_and_rounded_to_its_step(bench: Bench, cost: float, hundredths: int) -> None:
    present, total = bench.compute([row(cost=cost)], ask(COST))
    assert present == [1]
    assert total == [2 * (hundredths + 5000) - 505_000]


@every("cost", [0.005, 0.125, 0.285, 1.005, 2.675, 8.495, 1024.005])
@every("low", [-5000, 0])
def test_half_a_step_is_rounded_up(bench: Bench, low: int, cost: float) -> None:
    upward = int((Decimal(str(cost)) * 100).to_integral_value(ROUND_HALF_UP))
    asked = ask(COST.model_copy(update={"low": low}))
    assert bench.compute([row(cost=cost)], asked)[1] == [2 * (upward - low) - (500_000 - low)]


@pytest.mark.parametrize("cost", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_missing(bench: Bench, cost: float | None) -> None:
    assert bench.compute([row(cost=cost), row(cost=-50.0)], ask(COST)) == [[1], [-505_000]]


def test_decimal_cells_are_as_exact_as_float_cells(bench: Bench) -> None:
    schema = SCHEMA.set(4, pa.field("cost", pa.decimal128(18, 4)))
    rows = [row(cost=Decimal("12.3449")), row(cost=Decimal("0.0100")), row(cost=Decimal("-99.0000"))]
    assert bench.compute(rows, ask(COST), schema) == expected(rows, ask(COST))


@pytest.mark.parametrize("step", ["1", "0.5", "7", "0.000000001", "100000000"])
def test_steps_of_any_size(bench: Bench, step: str) -> None:
    column = COST.model_copy(update={"low": -3, "high": 2**32 - 3, "step": step})
    width = 2**32
    cells = [float(Decimal(step) * count) for count in (-4, -3, 0, 1, 1000)]
    source = bench.source([row(cost=cell) for cell in cells])
    bounds = tuple(count * Decimal(step) for count in (column.low or 0, column.high or 0))
    declared = source.columns["cost"].model_copy(update={"bounds": bounds, "step": Decimal(step)})
    total = sum(2 * count - width for count in (0, 0, 3, 4, 1003))
    assert answer(replace(source, columns={**source.columns, "cost": declared}), ask(column)) == [[5], [total]]


def test_rows_without_a_person_are_left_out(bench: Bench) -> None:
    rows = [row(None, age=40), row(" ", age=70), row("o", age=50), row("p", age=60)]
    assert bench.compute(rows, ask(AGE)) == [[2], [2 * 110 - 2 * 110]]


@pytest.mark.parametrize(
    "people", [[1, 2, 2], [1.0, 2.0, 2.0], [1.0, 2.5, 2.5], [True, False, False]], ids=["int", "whole", "float", "bool"]
)
def test_a_person_may_be_named_by_any_type(bench: Bench, people: list[Any]) -> None:
    schema = SCHEMA.set(0, pa.field("patient_id", pa.array(people).type))
    rows = [row(person, age=10) for person in people]
    # A float that is not whole names nobody: what it was before a program rounded it cannot be told.
    assert bench.compute(rows, ask(AGE, max_rows=1), schema)[0] == [1 if 2.5 in people else 2]


@settings(max_examples=60, deadline=None)
@given(
    people=st.lists(st.sampled_from(["p1", "p2", "p3", "p1:1", "p1:"]), max_size=25),
    max_rows=st.integers(1, 6),
)
def test_at_most_max_rows_of_a_person_enter(bench: Bench, people: list[str], max_rows: int) -> None:
    asked = request(
        table=table(max_rows=max_rows),
        plan=plan(where=None, group_by=(), aggregates=(Aggregate(function="count", column=None, alias="n"),)),
    )
    rows = [row(person) for person in people]
    assert bench.compute(rows, asked) == [[sum(min(people.count(person), max_rows) for person in set(people))]]


BINARY = TableColumn(name="age", type="int", low=0, high=2**16, step="1")


def sampled(source: Source, max_rows: int) -> frozenset[int]:
    """Return which rows entered, of rows whose ages are distinct powers of two."""
    (present,), (total,) = answer(source, ask(BINARY, max_rows=max_rows))
    ages = (total + present * 2**16) // 2
    chosen = frozenset(bit for bit in range(17) if ages >> bit & 1)
    assert len(chosen) == present == max_rows
    return chosen


def test_which_rows_enter_is_drawn_anew_each_time(bench: Bench) -> None:
    """A fixed choice would differ from the next with probability 0; equal draws 20 times have one below 1e-40."""
    source = bench.source([row(age=2**bit) for bit in range(12)])
    assert len({sampled(source, 3) for _ in range(20)}) > 1


@pytest.mark.slow
def test_every_row_can_enter(bench: Bench) -> None:
    """Each row is missed by one draw with 3/4, by 200 draws with probability below 1e-24."""
    source = bench.source([row(age=2**bit) for bit in range(4)])
    assert frozenset().union(*(sampled(source, 1) for _ in range(200))) == frozenset(range(4))


def test_rows_are_drawn_among_those_that_the_filter_keeps(bench: Bench) -> None:
    rows = [row(age=age) for age in (1, 2, 3, 4, 70)]
    asked = ask(AGE, Compare(column="age", op=">", value="60"), max_rows=1)
    source = bench.source(rows)
    assert [answer(source, asked) for _ in range(20)] == [[[1], [2 * 70 - 110]]] * 20


NAMES = [
    "unit",
    "row",
    "f0",
    "g0",
    "m0",
    "p0",
    "cells",
    "kept",
    "Select",
    "a.b",
    "a-b",
    "a/b",
    "a@b",
    "a+b",
    "9",
    "UNIT",
]


@every("name", NAMES)
def test_columns_may_have_any_name_that_a_policy_allows(bench: Bench, name: str) -> None:
    column = TableColumn(name=name, type="int", low=0, high=10, step="1", domain=("1", "2", "9"), unknown="9")
    asked = request(
        table=table(max_rows=2, columns=(column,)),
        plan=Plan(
            where=Compare(column=name, op=">", value="0"),
            group_by=(name,),
            aggregates=(
                Aggregate(function="sum", column=name, alias="total"),
                Aggregate(function="count", column=None, alias="n"),
            ),
        ),
    )
    pyarrow.parquet.write_table(
        pa.table({"patient_id": list("ppqq"), "age": [1, 2, 2, 3]}), bench.home / "visits.parquet"
    )
    whole = source_of(policy(), "visits", bench.home)
    named = whole.columns["grade"].model_copy(update={"from_": "age", "domain": (1, 2, 9), "unknown": 9})
    source = replace(
        whole,
        columns={"patient_id": whole.columns["patient_id"], name: named},
        rules={"patient_id": whole.rules["patient_id"], name: whole.rules["age"]},
    )
    present, total, rows = answer(source, asked)
    assert present == rows == [1, 2, 1]
    assert total == [2 * 1 - 10, 2 * (2 * 2 - 10), 2 * 3 - 10]


@pytest.mark.parametrize(
    "text",
    ["'; DROP TABLE cells; --", "$p0", "' OR '1'='1", '"', "\\'", "%", "_", "NULL", "')", "?", "a\nb"],
)
def test_text_that_looks_like_sql_is_only_text(bench: Bench, text: str) -> None:
    counting = (Aggregate(function="count", column=None, alias="n"),)
    rows = [row(region=text), row("p2", region="other"), row("p3")]
    for where, count in [
        (Compare(column="region", op="=", value=text), 1),
        (OneOf(column="region", values=(text, "nobody")), 1),
        (Not(operand=Compare(column="region", op="=", value=text)), 1),
        (Compare(column="region", op="=", value=text + "x"), 0),
    ]:
        asked = request(plan=plan(where=where, group_by=(), aggregates=counting))
        assert bench.compute(rows, asked) == [[count]]
    domain = TableColumn(name="region", type="string", domain=(text, "u"), unknown="u")
    grouped = request(table=table(columns=(domain,)), plan=plan(where=None, group_by=("region",), aggregates=counting))
    assert bench.compute(rows, grouped) == [[1, 2]]


def test_where_none_can_be_missing_a_missing_cell_counts_as_the_middle_of_the_bounds(tmp_path: Path) -> None:
    """The rows are the only count then: SUM and AVG are those of the cells that are there, and of middles."""
    edits = [Edit('unit = "year"', 'unit = "year", can_be_missing = false'), Edit('type = "bool"', SURE_BOOL)]
    cells = [row("p1", age=110, smoker=True), row("p2", age=None, smoker=None), row("p3", age=0), row("p4", age=110)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(cells, schema=SCHEMA), tmp_path / "visits.parquet")
    source = source_of(policy(*edits), "visits", tmp_path)
    sure = [one.model_copy(update={"can_be_missing": False}) for one in (AGE, SMOKER)]
    for column, function, found in [
        (sure[0], "avg", [[4], [110 - 110 + 110]]),
        (sure[0], "count", [[4]]),
        (sure[1], "sum", [[4], [1]]),
        (AGE, "avg", [[3], [110]]),  # as an analyst asks where other silos have missing cells
    ]:
        asked = Aggregate(function=function, column=column.name, alias="a")  # type: ignore[arg-type]
        figures = plan(where=None, group_by=(), aggregates=(asked,))
        assert answer(source, request(table=table(columns=(column,)), plan=figures)) == found


def test_a_person_is_in_one_slot_by_rows_and_values_after_the_filter(bench: Bench) -> None:
    """Of two rows of a person that may enter, whichever the lot picks, what is beyond the bounds is cut."""
    rows = [row("one", age=30), *[row("three", age=age) for age in (10, 20, 30)], row("high", age=111)]
    rows += [row("low", age=-1), row("low", age=5), *[row("both", age=age) for age in (5, 6, 200)], row("none")]
    for where, slots in [
        (None, [2, 1, 2, 1]),  # nothing: one, none; rows: three; values: high and low; both
        (Compare(column="age", op="<", value="100"), [2, 1, 1, 0]),  # nothing: one, both; none has no age
        (Compare(column="age", op=">", value="110"), [0, 0, 2, 0]),
        (Compare(column="age", op=">", value="300"), [0, 0, 0, 0]),
    ]:
        for figure, found in (("sum", slots), ("count", [slots[0] + slots[2], slots[1] + slots[3], 0, 0])):
            aggregate = Aggregate(function=figure, column="age", alias="a")  # type: ignore[arg-type]
            asked = request(plan=plan(where=where, group_by=("ward",), aggregates=(aggregate,), counts_cut=True))
            assert bench.compute(rows, asked)[-1] == found, (where, figure)


def test_rows_beyond_max_groups_are_left_out_too(bench: Bench) -> None:
    rows = [row("p1", ward="medicine", age=5), row("p1", ward="surgery", age=5), row("p2", ward="surgery", age=5)]
    asked = request(plan=plan(where=None, group_by=("ward",), counts_cut=True))
    for most, slots in ((1, [1, 1, 0, 0]), (2, [2, 0, 0, 0]), (None, [2, 0, 0, 0])):
        source = bench.source(rows)
        with opened(source) as database:
            assert execute(database, source, "patient_id", asked, None, most)[-1].tolist() == slots


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_narrower_bounds_and_fewer_rows_are_cut_as_a_plain_computation_cuts(bench: Bench, rows: list[Row]) -> None:
    figures = plan(where=None, group_by=(), aggregates=ALL, counts_cut=True)
    asked = request(plan=figures, table=table(max_rows=1))
    assert bench.compute(rows, asked)[-1] == expected(rows, asked)[-1]


CSV = """\
patient_id,ward,grade,age,cost,smoker,region,stay
p1,medicine,1,30,12.34,true,north,3
p2,surgery,2,,99999.5,false,"o'hara, jr",4
p3,cellar,7,130,-0.12,,,5
,medicine,1,40,1.00,true,south,6
p4,,,-5,,true,"quote "" inside",
"""


def test_csv_is_read_like_parquet(tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text(CSV)
    edits = Edit('kind = "parquet"', 'kind = "csv"'), Edit("visits.parquet", "visits.csv")
    source = load_sources(policy(*edits), tmp_path)["visits"]
    cells: list[Row] = [
        row("p1", ward="medicine", grade=1, age=30, cost=12.34, smoker=True, region="north", stay=3),
        row("p2", ward="surgery", grade=2, cost=99999.5, smoker=False, region="o'hara, jr", stay=4),
        row("p3", ward="cellar", grade=7, age=130, cost=-0.12, stay=5),
        row(None, ward="medicine", grade=1, age=40, cost=1.0, smoker=True, region="south", stay=6),
        row("p4", age=-5, smoker=True, region='quote " inside'),
    ]
    for where in (
        None,
        Compare(column="smoker", op="=", value="true"),
        Compare(column="region", op="=", value="o'hara, jr"),
        IsNull(column="age"),
    ):
        asked = request(plan=plan(where=where, group_by=("grade",), aggregates=ALL))
        assert answer(source, asked) == expected(cells, asked)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("late,medicine,1,abc,1,true,x,1", ""),
        ("late,medicine,1", "line 50002: 3 cells, expected 8"),
        ("late,medicine,1,3,1,true,x,1,9,9", "line 50002: [0-9]+ cells, expected 8"),
    ],
)
def test_a_bad_line_deep_in_a_csv_file_fails_a_start_and_no_request(tmp_path: Path, bad: str, said: str) -> None:
    """A request must never fail by what a row holds: a cell counts as missing, and a line is left out."""
    lines = [CSV.split("\n")[0], *(f"p{index},medicine,1,30,1.5,true,north,3" for index in range(50_000)), bad]
    (tmp_path / "visits.csv").write_text("\n".join(lines) + "\n")
    of = policy(Edit('kind = "parquet"', 'kind = "csv"'), Edit("visits.parquet", "visits.csv"))
    if said:
        with pytest.raises(SourceError, match=said):
            load_sources(of, tmp_path)
    else:
        assert load_sources(of, tmp_path), "one cell of 50,001 is not too many"
    assert answer(source_of(of, "visits", tmp_path), ask(AGE)) == [[50_000], [-50 * 50_000]]
