"""The ranges of measures that are expressions hold all values, and what of them a plan and a policy refuse."""

import math
import time
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from analyst.errors import SqlError
from analyst.sql.plan import plan as plan_of
from policies.requests.expressions import Apply, Cell, Choose, Constant, Derived, Expression, worded
from policies.requests.predicates import Compare, IsNull
from policies.requests.query import Aggregate, Plan
from policies.requests.ranges import NoRangeError, Range, applied, constant, range_of, range_of_column, step_of
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from tests.cases import every
from tests.harness.example_policy import AGE, COLUMNS, COST, STAY, Edit, offer, plan, policy, request, table
from tests.policies.test_thresholds import judge

TABLE = table(columns=COLUMNS)
OFFER = offer(policy())
VALUES = {one.name: range_of_column(one) for one in COLUMNS if one.step is not None}
OF_ONE = ("negate", "abs", "sign", "floor", "ceil", "trunc", "round_even", "ln", "log2", "log10", "sqrt", "exp")
OF_TWO = ("add", "subtract", "multiply", "divide", "least", "greatest", "coalesce", "remainder")


def cell(name: str) -> Cell:
    return Cell(column=name)


def number(text: str) -> Constant:
    return Constant(value=text)


def of(function: str, *arguments: Expression) -> Apply:
    return Apply(function=function, arguments=arguments)  # type: ignore[arg-type]


def drawn(random: np.random.Generator, depth: int) -> Expression:
    """Return a random expression."""
    if not depth or random.random() < 0.2:
        leaves: list[Expression] = [
            cell("age"),
            cell("cost"),
            cell("stay"),
            cell("smoker"),
            number("3"),
            number("-0.5"),
            number("40"),
        ]
        return leaves[random.integers(len(leaves))]

    def more() -> Expression:
        return drawn(random, depth - 1)

    kind = random.integers(6)
    if kind == 0:
        return of(OF_ONE[random.integers(len(OF_ONE))], more())
    if kind == 1:
        return of("round", more(), number(str(random.integers(-1, 3))))
    if kind == 2:
        return of("power", more(), number(str(random.integers(1, 4))))
    if kind == 3:
        return of("nullif", more(), number("0"))
    return of(OF_TWO[random.integers(len(OF_TWO))], more(), more())


def value_of(expression: Expression, cells: Mapping[str, Fraction | None]) -> float | None:
    """Return the value of an expression, computed by Python's own numbers; None is missing."""
    match expression:
        case Cell():
            found = cells[expression.column]
            return None if found is None else float(found)
        case Constant():
            return float(expression.value)
        case Choose():
            raise NotImplementedError
    values = [value_of(one, cells) for one in expression.arguments]
    known = [one for one in values if one is not None]
    match expression.function:
        case "least" | "greatest":
            return (min if expression.function == "least" else max)(known, default=None)
        case "coalesce":
            return next(iter(known), None)
    if len(known) < len(values):
        return None
    one, other = known[0], known[-1]
    computed: dict[str, Any] = {
        "add": lambda: one + other, "subtract": lambda: one - other, "multiply": lambda: one * other,
        "divide": lambda: one / other, "negate": lambda: -one, "abs": lambda: abs(one),
        "sign": lambda: (one > 0) - (one < 0), "floor": lambda: math.floor(one), "ceil": lambda: math.ceil(one),
        "trunc": lambda: math.trunc(one), "round_even": lambda: round(one), "ln": lambda: math.log(one),
        "log2": lambda: math.log2(one), "log10": lambda: math.log10(one), "sqrt": lambda: math.sqrt(one),
        "exp": lambda: math.exp(one), "remainder": lambda: math.fmod(one, other), "power": lambda: one**other,
        "nullif": lambda: None if one == other else one,
        "round": lambda: math.copysign(math.floor(abs(one) * 10**other + 0.5) / 10**other, one),
    }  # fmt: skip
    result = computed[expression.function]()
    return None if result is None else float(result)


def test_a_range_holds_every_value() -> None:
    """Of random expressions, on cells at the ends of their bounds, beside them, near 0, missing, and at random."""
    random, ranges, on_grid = np.random.default_rng(7), 0, 0
    for place in range(3000):
        expression = drawn(random, 1 + place % 3)
        try:
            found = range_of(expression, TABLE, VALUES)
        except NoRangeError:
            continue
        ranges += 1
        for _ in range(20):
            cells = {name: some(random, TABLE.column(name)) for name in VALUES}
            value = value_of(expression, cells)
            if value is None:
                assert found.can_be_missing, worded(expression)
                continue
            slack = 1e-9 * (1 + abs(value))
            assert float(found.low) - slack <= value <= float(found.high) + slack, (worded(expression), cells)
            if found.grid is not None and abs(value) < min(1e6, 1e9 * float(found.grid)):
                steps = value / float(found.grid)
                assert abs(steps - round(steps)) < 0.01, worded(expression)
                on_grid += 1
    assert ranges > 1000
    assert on_grid > 5000


def some(random: np.random.Generator, column: TableColumn) -> Fraction | None:
    """Return a cell of a column: missing, at an end of the bounds, beside it, or anywhere."""
    assert column.low is not None
    assert column.high is not None
    near_0 = min(max(0, column.low), column.high)
    ends = [
        column.low,
        column.low + 1,
        near_0,
        column.high - 1,
        column.high,
        int(random.integers(column.low, column.high)),
    ]
    place = random.integers(-1, len(ends))
    return None if place < 0 else ends[place] * Fraction(column.step or 1)


@every(("low", "high", "grid", "step"), [
    (0, 110, 1, 1), (0, Fraction(1, 3), None, Fraction(2, 10**7)), (-5, 5, Fraction(1, 100), Fraction(1, 100)),
    (0, 10**14, Fraction(1, 100), 50_000_000), (0, Fraction(1, 10**8), None, Fraction(1, 10**9)),
    (0, 1, Fraction(1, 3), Fraction(5, 10**7)), (10**14, 10**14 + 1, None, 1),
])  # fmt: skip
def test_a_step_is_the_expressions_own_or_a_millionth_of_its_range(low: Any, high: Any, grid: Any, step: Any) -> None:
    found = Range(Fraction(low), Fraction(high), None if grid is None else Fraction(grid))
    assert step_of(found) == step


def test_a_range_is_narrowed_by_the_condition_on_rows() -> None:
    ratio = of("divide", cell("cost"), cell("age"))
    derived = (Derived(name="m", expression=ratio),)
    for op, value, high in ((">", "0", 5000), (">=", "10", 500), ("=", "50", 100), (">", "9", 500)):
        where = Compare(column="age", op=op, value=value)  # type: ignore[arg-type]
        asked = of_plan(derived, where=where)
        assert isinstance(asked.plan, Plan)
        column = asked.plan.seen(asked.table).column("m")
        assert (column.high or 0) * Fraction(column.step or "1") == high
    for other in (None, Compare(column="age", op="<", value="50"), Compare(column="age", op=">", value="500")):
        with pytest.raises(ValidationError, match="divides by values from 0 to"):
            of_plan(derived, where=other)


def of_plan(derived: tuple[Derived, ...], **changes: Any) -> Request:
    aggregates = tuple(
        Aggregate(function="avg", column=one.name, alias=f"a{place}") for place, one in enumerate(derived)
    )
    fields: dict[str, Any] = {"where": None, "group_by": (), "aggregates": aggregates} | changes
    return request(table=TABLE, plan=plan(derived=derived, **fields))


NESTED: Any = cell("age")
for _ in range(12):
    NESTED = of("abs", NESTED)


@every(("expression", "why"), [
    (of("divide", cell("age"), cell("stay")), "may be 0"),
    (of("ln", cell("age")), "values above 0"),
    (of("sqrt", cell("cost")), "values of 0 and more"),
    (of("exp", cell("age")), "out of reach"),
    (of("add", cell("age"), cell("nothing")), "not in the table definition"),
    (of("add", cell("age"), cell("ward")), "no bounds"),
    (number("3"), "reads no column"),
    (NESTED, "nested more than 12 deep"),
    (of("add", *[of("add", *[cell("age")] * 32)] * 3), "more than 64 parts"),
    (of("multiply", *[cell("cost")] * 6), "beyond 1e15"),
])  # fmt: skip
def test_an_expression_without_bounds_is_no_request(expression: Expression, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        of_plan((Derived(name="m", expression=expression),))


def test_a_derived_measure_has_a_name_of_its_own_and_is_asked() -> None:
    one = Derived(name="m", expression=of("negate", cell("age")))
    assert of_plan((one,)).plan.uses()["measure"] == ("age",)
    for derived, changes in (
        ((one, one), {}),
        ((one.model_copy(update={"name": "stay"}),), {}),
        ((one,), {"aggregates": (Aggregate(function="count", column=None, alias="n"),)}),
    ):
        with pytest.raises(ValidationError, match="computed measure"):
            of_plan(derived, **changes)


@every("make", [
    lambda: of("round", cell("age"), cell("stay")), lambda: of("divide", cell("age")),
    lambda: of("abs", cell("age"), cell("age")),
    lambda: number("1e3"), lambda: number("0.0000000001"),
    lambda: Choose(whens=(IsNull(column="age"),), results=(cell("age"), cell("age")), otherwise=None),
])  # fmt: skip
def test_what_is_no_expression_is_no_message(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()


# What an expression tells of a column: sums and products of two do no more than variances; whatever cuts or bends does.
STEEP = (
    ("stay * 2 + age", ()),
    ("stay * age", ()),
    ("stay * stay", ()),
    ("stay * stay * stay", ("stay",)),
    ("POWER(stay, 3)", ("stay",)),
    ("cost / (age + 1)", ("age",)),
    ("age / (stay + 1)", ("stay",)),
    ("age / (stay + 20)", ()),
    ("age * stay / (stay + 20)", ("age", "stay")),
    ("SQRT(stay)", ()),
    ("SQRT(SQRT(stay))", ("stay",)),
    ("LN(stay + 0.001)", ("stay",)),
    ("LN(stay + 1) * age", ()),
    ("LN(LN(stay + 2))", ("stay",)),
    ("EXP(stay / 2)", ("stay",)),
    ("EXP(-stay / 100)", ()),
    ("LN(stay + age + 1)", ("age", "stay")),
    ("LEAST(stay, 20)", ("stay",)),
    ("LEAST(COALESCE(stay, 0), 60)", ()),
    ("GREATEST(stay, age)", ("age", "stay")),
    ("ABS(stay - 20)", ("stay",)),
    ("ROUND(stay, -1)", ("stay",)),
    ("ROUND(stay, 1)", ()),
    ("FLOOR(stay / 10)", ("stay",)),
    ("SIGN(stay)", ("stay",)),
    ("LN(stay + 10)", ()),
    ("EXP(stay / 10)", ()),
    ("NULLIF(stay, 3)", ("stay",)),
    ("NULLIF(stay, 1000)", ()),
    ("COALESCE(stay, 0)", ()),
    ("stay % 7", ("stay",)),
)


@every(("text", "steep"), STEEP)
def test_what_cuts_or_bends_a_column_sets_a_threshold(text: str, steep: tuple[str, ...]) -> None:
    planned = plan_of(f"SELECT AVG({text}) AS a FROM visits", OFFER)
    assert tuple(sorted(dict(planned.plan.thresholds(planned.table)))) == steep
    denied = judge(policy(), request(table=planned.table, plan=planned.plan))
    assert ("COLUMN_ROLE" in [one.code for one in denied]) == ("stay" in steep), "stay is a measure, and no filter"


def test_a_condition_inside_a_measure_is_a_filter() -> None:
    planned = plan_of("SELECT AVG(CASE WHEN stay > 20 THEN age ELSE 0 END) AS a FROM visits", OFFER)
    (denied,) = judge(policy(), request(table=planned.table, plan=planned.plan))
    assert (denied.code, "not as filter" in denied.message) == ("COLUMN_ROLE", True)


def test_columns_of_one_expression_are_crossed() -> None:
    """Of two conditions of one measure too, as of two in WHERE."""
    alone = policy(
        Edit("domain = [-1, 0, 1, 2], unknown = -1", "sole_dimension = true, domain = [-1, 0, 1, 2], unknown = -1")
    )
    for text, is_refused in (
        ("CASE WHEN grade = 1 THEN age END", False),
        ("CASE WHEN grade = 1 AND smoker THEN age END", True),
        ("CASE WHEN grade = 1 THEN age * stay END", True),
    ):
        planned = plan_of(f"SELECT AVG({text}), COUNT(*) AS a FROM visits", offer(alone))
        denied = judge(alone, request(table=planned.table, plan=planned.plan))
        assert ("SOLE_DIMENSION" in [one.code for one in denied]) == is_refused, text


def test_every_field_of_an_expression_changes_its_words() -> None:
    base = of("divide", cell("cost"), of("greatest", cell("age"), number("1")))
    others: list[Expression] = [
        of("multiply", cell("cost"), of("greatest", cell("age"), number("1"))),
        of("divide", cell("stay"), of("greatest", cell("age"), number("1"))),
        of("divide", cell("cost"), of("least", cell("age"), number("1"))),
        of("divide", cell("cost"), of("greatest", cell("age"), number("2"))),
        of("divide", of("greatest", cell("age"), number("1")), cell("cost")),
        of("subtract", of("subtract", cell("age"), cell("stay")), cell("cost")),
        of("subtract", cell("age"), of("subtract", cell("stay"), cell("cost"))),
        Choose(whens=(IsNull(column="age"),), results=(cell("cost"),), otherwise=None),
        Choose(whens=(IsNull(column="age"),), results=(cell("cost"),), otherwise=number("0")),
        Choose(whens=(IsNull(column="stay"),), results=(cell("cost"),), otherwise=None),
    ]
    assert len({worded(one) for one in (base, *others)}) == 1 + len(others)
    assert "m = cost / GREATEST(age, 1)" in of_plan((Derived(name="m", expression=base),)).plan.in_words("visits")


@every(("text", "most"), [
    ("AVG(" + "(" * 200 + "age" + ")" * 200 + ")", 1.0),
    ("AVG(" + " + ".join(["age"] * 3000) + ")", 3.0),
    ("AVG(" + "ABS(" * 150 + "age" + ")" * 150 + ")", 1.0),
    ("AVG(" + "POWER(" * 11 + "age / 100" + ", 8)" * 11 + ")", 1.0),
    ("AVG(" + " * ".join(["(cost / 3 / 7 / 11 / 13)"] * 12) + ")", 1.0),
    ("AVG(CASE " + "WHEN age > 3 THEN stay " * 500 + "END)", 3.0),
    ("AVG(age * 1e999999999)", 1.0),
])  # fmt: skip
def test_planning_an_expression_is_bounded(text: str, most: float) -> None:
    started, found = time.process_time(), None
    try:
        plan_of(f"SELECT {text} AS a FROM visits", OFFER)
    except SqlError as err:
        found = err
    assert found is None or found.hint
    assert time.process_time() - started < most


def test_ends_of_logarithms_are_the_same_on_any_machine() -> None:
    """They come from decimals that are rounded correctly, and not from a library of floats."""
    found = applied("ln", [Range(Fraction(1, 3), Fraction(7))])
    assert found.low < Fraction(math.log(1 / 3)) < Fraction(math.log(7)) < found.high
    assert float(found.high - found.low) == pytest.approx(math.log(21), rel=1e-12)
    assert applied("exp", [constant("0")]).high == 1
    assert applied("sqrt", [constant("49")]) == Range(Fraction(7), Fraction(7))


def test_exact_products_are_as_precise_as_their_factors() -> None:
    planned = plan_of("SELECT SUM(cost * age) AS s FROM visits", OFFER)
    column = planned.plan.seen(planned.table).column("measure_1")
    assert (column.low, column.high, column.step) == (-550_000, 55_000_000, "0.01")
    assert isinstance(planned.plan, Plan)
    assert {AGE.name, COST.name} == set(planned.plan.valued(planned.table))
    assert STAY.name not in planned.plan.uses()["measure"]
