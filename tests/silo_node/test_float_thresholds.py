"""No rounding, of floats or to steps, makes a threshold inside the values of a column that may be measured only.

In the example policy `stay` is a measure of 0 to 60, and nothing else.
"""

from collections.abc import Iterator, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from analyst.errors import SqlError
from analyst.sql.plan import plan as plan_of
from policies.requests.expressions import Apply, Cell, Constant, Derived, Expression
from policies.requests.query import Aggregate, Plan
from policies.requests.ranges import derived_range
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from silo_node.data.coded import NO_STEPS, Rows, Run, Steps
from silo_node.data.expressions import with_derived
from tests.cases import every
from tests.harness.example_policy import offer, plan, policy, request
from tests.policies.test_thresholds import judge

POLICY = policy()
OFFER = offer(POLICY)
STAY = Cell(column="stay")
HUGE = "999999999999999"
STAYS = np.arange(61)
ROWS = Rows(STAYS, 61, (Run(0, 0, 61),), {("steps", "stay"): Steps(STAYS, 0, 60)})
EXACT = Context(prec=80)


def of(function: str, *arguments: Expression | str) -> Apply:
    parts = tuple(Constant(value=one) if isinstance(one, str) else one for one in arguments)
    return Apply(function=function, arguments=parts)  # type: ignore[arg-type]


def asked(expression: Expression) -> Request:
    figures = (Aggregate(function="sum", column="m", alias="s"),)
    derived = (Derived(name="m", expression=expression),)
    return request(plan=plan(where=None, group_by=(), aggregates=figures, derived=derived))


def computed(by: Request) -> tuple[TableColumn, np.ndarray]:
    """Return the definition of the measure, and its steps above the lower bound for each stay; -2 is missing."""
    assert isinstance(by.plan, Plan)
    seen = by.plan.seen(by.table)
    rows = with_derived(ROWS, by.plan.derived, None, seen, by.table, STAYS)
    found = rows.cells["steps", "m"]
    assert isinstance(found, Steps)
    column = seen.column("m")
    return column, np.clip(found.cells, -2, column.range_steps)


def lost(inner: Expression, by: str = HUGE) -> Apply:
    """Return an expression that floats lose the digits of."""
    return of("subtract", of("add", inner, by), by)


# Each of these made one jump among the 60 steps of a stay, wherever a constant put it, and no policy refused it.
FORGED = (
    (lost(of("multiply", STAY, "0.002")), "computed to within 0.6 only, and have steps of 0.002"),
    (lost(of("add", of("multiply", STAY, "0.002"), "-0.02")), "computed to within"),
    (of("multiply", lost(of("multiply", STAY, "0.001")), "1000"), "computed to within"),
    (
        of("round", lost(of("multiply", STAY, "0.01")), "1"),
        "it rounds values from 0 to 0.6 that are computed to within",
    ),
    (of("floor", lost(of("multiply", STAY, "0.01"))), "it rounds values"),
    (of("ln", of("add", lost(of("multiply", STAY, "0.001")), "0.01")), "computed to within"),
    (of("divide", "1", of("add", lost(of("multiply", STAY, "0.001")), "0.1")), "computed to within"),
    (of("exp", lost(of("multiply", STAY, "0.01"))), "are lost in the rounding"),
    (of("divide", of("multiply", of("add", STAY, "-42.5"), "0.000000001"), "60"), "the finest step is 1e-9"),
    (of("divide", of("multiply", STAY, "0.0001"), "7000"), "the finest step is 1e-9"),
    (of("add", of("divide", STAY, "10"), "999999999999990"), "numbers so large have steps of 10"),
    (of("add", STAY, "999999999999900"), "numbers so large have steps of 10"),
    (of("subtract", of("divide", STAY, "7"), "999999999999990"), "numbers so large have steps of 10"),
)


@every(("expression", "why"), FORGED)
def test_rounding_that_would_be_a_threshold_is_no_request(expression: Expression, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        asked(expression)


@every(("text", "why", "hint"), [
    ("stay * 0.002 + 999999999999999 - 999999999999999", "computed to within 0.4 only", "AVG(x) + 1"),
    ("stay / 10 + 999999999999990", "numbers so large have steps of 10", "AVG(x) + 1"),
    ("(stay - 42.5) * 0.000000001 / 60", "the finest step is 1e-9", "1000000 * x"),
    ("ROUND(stay * 0.1 + 999999999999999 - 999999999999999, 1)", "has no digits left", "AVG(x) + 1"),
    ("stay + 999999999999900", "numbers so large have steps of 10", "AVG(x) + 1"),
])  # fmt: skip
def test_the_client_refuses_the_same_and_says_what_to_write(text: str, why: str, hint: str) -> None:
    with pytest.raises(SqlError, match=why) as refused:
        plan_of(f"SELECT SUM({text}) AS s FROM visits", OFFER)
    assert hint in (refused.value.hint or "")


@every("text", [
    "stay * 0.002", "stay / 10", "(stay - 42.5) / 60", "AVG(stay) + 1000000000000000", "1000000 * (stay / 7)",
    "stay + 999999999999999 - 999999999999999", "stay / 7 + 1000000 - 1000000", "stay * 0.123456789",
])  # fmt: skip
def test_what_the_hints_name_and_whole_numbers_are_asked(text: str) -> None:
    found = plan_of(f"SELECT {text if text.startswith('AVG') else f'SUM({text})'} AS s FROM visits", OFFER)
    assert judge(POLICY, request(table=found.table, plan=found.plan)) == ()


# The exact values leave out 0, and the floats do not: all of it is times 0, so only what is missing could tell.
@every("inner", [
    of("nullif", lost(of("add", of("multiply", STAY, "0.000000001"), "0.00000001")), "0"),
    of("sign", lost(of("add", of("multiply", STAY, "0.000000001"), "0.00000001"))),
    of("ln", lost(of("add", of("multiply", STAY, "0.001"), "0.01"))),
    of("log2", lost(of("add", of("multiply", STAY, "0.001"), "0.01"))),
    of("sqrt", lost(of("multiply", of("add", STAY, "30"), "0.001"), "-999999999999999")),
    of("divide", "1", lost(of("add", of("multiply", STAY, "0.001"), "0.03"))),
])  # fmt: skip
def test_floats_that_leave_their_range_make_nothing_missing(inner: Expression) -> None:
    by = asked(of("add", STAY, of("multiply", inner, "0")))
    assert judge(POLICY, by) == ()
    _, steps = computed(by)
    assert len(set(np.diff(steps).tolist())) == 1, "a straight line"
    assert steps.min() >= 0


def test_a_sign_of_what_cannot_be_0_is_one_value() -> None:
    _, steps = computed(asked(of("sign", lost(of("add", of("multiply", STAY, "0.002"), "0.01")))))
    assert len(set(steps.tolist())) == 1


@every("function", ["floor", "ceil", "trunc", "round_even", "sign"])
def test_a_grid_beyond_all_floats_is_none(function: str) -> None:
    """Twenty factors of 1e18 and one of 0 have the grid 1e360: a silo that computes with it fails."""
    by = asked(of(function, of("multiply", STAY, "0", *["999999999999999999"] * 20)))
    _, steps = computed(Request.decode(by.encode()))
    assert len(set(steps.tolist())) == 1


NUMBERS = (
    "0", "1", "-3", "0.5", "7", "60", "1000", "0.002", "0.01", "0.000000001", "-0.02", "123456.789", "1000000",
    "68719476736.1", HUGE, "-" + HUGE, "1000000000000000", "999999999999990.3",
)  # fmt: skip
OF_ONE = ("negate", "abs", "sign", "floor", "round_even", "ln", "log2", "log10", "sqrt", "exp")
OF_TWO = ("add", "subtract", "multiply", "divide", "least", "greatest", "coalesce")
PARTS = st.just(STAY) | st.sampled_from(NUMBERS).map(lambda text: Constant(value=text))


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    number = st.sampled_from(NUMBERS).map(lambda text: Constant(value=text))
    return st.one_of(
        st.builds(of, st.sampled_from(OF_ONE), inner),
        st.builds(of, st.sampled_from(OF_TWO), inner, inner),
        st.builds(of, st.sampled_from(("add", "multiply", "divide")), inner, number),
        st.builds(lambda one, by: lost(one, by), inner, st.sampled_from(NUMBERS[-7:])),
        st.builds(lambda one, digits: of("round", one, digits), inner, st.sampled_from(("0", "1", "3", "9"))),
        st.builds(lambda one, value: of("nullif", one, value), inner, number),
        st.builds(lambda one: of("power", one, "2"), inner),
    )


@given(st.recursive(PARTS, _larger, max_leaves=6))
@settings(max_examples=300, deadline=None)
def test_what_a_silo_computes_of_a_measure_has_no_jump(expression: Expression) -> None:
    assert_is_smooth(expression)


def assert_is_smooth(expression: Expression) -> None:
    """Check of an accepted expression that what is computed is the exact value, and that no step of a stay is a cut."""
    try:
        by = asked(expression)
    except ValidationError:
        return
    if judge(POLICY, by):
        return
    column, steps = computed(by)
    if (steps == NO_STEPS).any():
        assert (steps == NO_STEPS).all(), "a measure that is missing for some stays is a condition on them"
        return
    step, low = Fraction(column.step or 1), column.low or 0
    try:
        exact = [Fraction(value_of(expression, Decimal(int(stay)))) / step - low for stay in STAYS]
    except MissingError:  # of constants alone: NULLIF(0, 0)
        return
    off = max(abs(Fraction(int(found)) - true) for found, true in zip(steps, exact, strict=True))
    assert off <= Fraction(4, 5), "half a step to round, a quarter by floats, and what steps cost"
    if all(abs(true - round(true)) < Fraction(1, 10**9) for true in exact):
        assert off < Fraction(1, 10**9)
    assert int(np.abs(np.diff(steps)).max()) <= column.range_steps / 2 + 1, "a slight bend makes less than half"
    assert_has_steps(by, column)


def assert_has_steps(by: Request, column: TableColumn) -> None:
    """Check that rounding to steps is no cut: they are the values' own, or many."""
    found = derived_range(by.plan.derived[0], by.table, None)
    is_own = found.grid is not None and found.grid == Fraction(column.step or 1)
    assert is_own or found.low == found.high or column.range_steps >= 2**16


class MissingError(Exception):
    """A part of an expression has no value."""


def value_of(expression: Expression, stay: Decimal) -> Decimal:
    """Return the value of an expression to 80 digits; nothing in it is missing where the policy lets it pass."""
    match expression:
        case Cell():
            return stay
        case Constant():
            return Decimal(expression.value)
    assert isinstance(expression, Apply)
    return next(_applied(expression.function, [value_of(one, stay) for one in expression.arguments]))


def _applied(function: str, values: Sequence[Decimal]) -> Iterator[Decimal]:
    one, other = values[0], values[-1]
    match function:
        case "add":
            yield reduce(EXACT.add, values)
        case "subtract":
            yield EXACT.subtract(one, other)
        case "multiply":
            yield reduce(EXACT.multiply, values)
        case "divide":
            yield EXACT.divide(one, other)
        case "power":
            yield EXACT.power(one, 2)
        case "sqrt" | "exp" | "ln" | "log10":
            yield getattr(EXACT, function)(one)
        case "log2":
            yield EXACT.divide(EXACT.ln(one), EXACT.ln(Decimal(2)))
        case "least" | "greatest":
            yield (min if function == "least" else max)(values)
        case "negate" | "abs":
            yield EXACT.minus(one) if function == "negate" else abs(one)
        case "sign":
            yield Decimal((one > 0) - (one < 0))
        case "coalesce" | "nullif":
            if function == "nullif" and one == other:
                raise MissingError
            yield one
        case "floor" | "round_even":
            yield one.to_integral_value("ROUND_FLOOR" if function == "floor" else "ROUND_HALF_EVEN", EXACT)
        case "round":
            yield one.quantize(Decimal(1).scaleb(-int(other)), "ROUND_HALF_UP", EXACT)
