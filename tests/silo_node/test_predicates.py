"""What a filter costs, whatever it lists and however many texts its column has; test_execute.py has what it keeps."""

import operator
import time
import tracemalloc

import numpy as np
import pytest

from policies.requests.predicates import Both, Compare, CompareColumns, Either, IsNull, Not, OneOf, Predicate
from policies.requests.tables import Table, TableColumn
from silo_node.data.coded import NO_NUMBER, Integers, Members, Numbers, Rows
from silo_node.data.predicates import holds

TEXTS = tuple(f"t{number:05}" for number in range(20_000))
ROWS = 100_000
COLUMNS = (
    TableColumn(name="int", type="int"),
    TableColumn(name="decimal", type="decimal"),
    TableColumn(name="text", type="string"),
)
TABLE = Table(name="t", max_rows=1, max_silos=1, columns=COLUMNS)
OPERATORS = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def of_rows(whole: Integers, nanos: Integers, codes: Integers) -> Rows:
    cells = {
        ("number", "int"): Numbers(whole),
        ("number", "decimal"): Numbers(whole, nanos),
        ("member", "text"): Members(codes, TEXTS),
    }
    return Rows(np.arange(len(whole)), len(whole), (), cells)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rows() -> Rows:
    numbers = np.random.default_rng(1)
    wholes, nanos = numbers.integers(-500, 500, ROWS), numbers.integers(0, 10**9, ROWS)
    wholes[::7] = NO_NUMBER
    return of_rows(wholes, nanos, numbers.integers(-1, len(TEXTS), ROWS).astype(np.int32))


def seconds(rows: Rows, predicate: Predicate) -> float:
    """Return the processor time of the better of two judgements."""
    found = []
    for _ in range(2):
        began = time.process_time()
        holds(rows, TABLE, predicate)
        found.append(time.process_time() - began)
    return min(found)


def compares(column: str, number: int, op: str = ">") -> Predicate:
    """Return so many comparisons, of which 62 are below one part."""
    each = [
        Compare(column=column, op=op, value=f"{TEXTS[at]}" if column == "text" else f"{at}.5")  # type: ignore[arg-type]
        for at in range(number)
    ]
    parts = [Either(operands=tuple(each[at : at + 62])) for at in range(0, number, 62)]
    return Both(operands=tuple(parts))


@pytest.mark.parametrize("column", ["text", "decimal"])
def test_many_comparisons_cost_as_many_looks_at_the_rows(rows: Rows, column: str) -> None:
    """Hope: each comparison with a column of many texts is one with each text, so a cheap question costs minutes."""
    one = seconds(rows, Compare(column=column, op=">", value="t" if column == "text" else "0.5"))
    assert seconds(rows, compares(column, 186)) < max(1.0, 186 * one)
    assert seconds(rows, compares(column, 186)) < 8


@pytest.mark.parametrize("column", ["int", "decimal", "text"])
def test_a_list_of_values_is_looked_up_and_not_compared_with_each(rows: Rows, column: str) -> None:
    """Hope: sixty lists of many values hold a silo for long, at the price of a count."""
    values = (
        TEXTS[:500] if column == "text" else tuple(f"{at}.5" if column == "decimal" else f"{at}" for at in range(500))
    )
    many = Both(operands=tuple(OneOf(column=column, values=values[: 166 + at % 2]) for at in range(60)))
    assert seconds(rows, many) < 8
    assert (
        seconds(rows, OneOf(column=column, values=values))
        < 20 * seconds(rows, OneOf(column=column, values=values[:2])) + 0.2
    )


def test_the_memory_of_a_filter_does_not_grow_with_its_length(rows: Rows) -> None:
    """Hope: 64 operands a part, each with two truths a row, take the memory of a silo."""

    def peak(predicate: Predicate) -> float:
        tracemalloc.start()
        holds(rows, TABLE, predicate)
        found = tracemalloc.get_traced_memory()[1] / ROWS
        tracemalloc.stop()
        return found

    assert peak(compares("decimal", 186)) < peak(compares("decimal", 62 + 2)) + 8
    assert peak(compares("int", 186)) < 30, "bytes a row"


def test_decimals_of_a_list_are_found_to_the_last_digit() -> None:
    whole = np.array([-2, -1, 0, 1, 1, 2, NO_NUMBER])
    nanos = np.array([750_000_000, 250_000_000, 0, 5, 6, 999_999_999, 0])
    rows = of_rows(whole, nanos, np.zeros(7, np.int32))
    wanted = OneOf(column="decimal", values=("-1.25", "0.000", "1.000000005", "2.999999998", "7"))
    found = holds(rows, TABLE, wanted)
    assert found.true.tolist() == [True, False, True, True, False, False, False]
    assert (found.true | found.false).tolist() == [True] * 6 + [False], "a missing cell is neither"
    whole_only = OneOf(column="int", values=("1", "2.5", "-2.0"))
    assert holds(rows, TABLE, whole_only).true.tolist() == [True, False, False, True, True, False, False]


def test_texts_are_compared_by_their_order_and_a_missing_one_is_neither() -> None:
    codes = np.array([0, 1, 2, 3, -1], np.int32)
    rows = of_rows(np.zeros(5, np.int64), np.zeros(5, np.int64), codes)

    def true(op: str, value: str) -> list[bool]:
        truth = holds(rows, TABLE, Compare(column="text", op=op, value=value))  # type: ignore[arg-type]
        assert not (truth.true & truth.false).any()
        assert (truth.true | truth.false).tolist() == [True] * 4 + [False]
        return [bool(one) for one in truth.true[:4]]

    for value in ("t00001", "t000015", "", "z"):
        for op, compare in OPERATORS.items():
            assert true(op, value) == [bool(compare(text, value)) for text in TEXTS[:4]], (op, value)
    missing = holds(rows, TABLE, Not(operand=IsNull(column="text")))
    assert missing.true.tolist() == [True] * 4 + [False]


def test_comparing_texts_of_columns_costs_no_more_for_each_further_pair() -> None:
    names = tuple(f"text{number}" for number in range(8))
    texts = tuple(f"t{number:06}" for number in range(ROWS))
    table = Table(
        name="t", max_rows=1, max_silos=1, columns=tuple(TableColumn(name=name, type="string") for name in names)
    )
    codes = np.arange(ROWS)
    cells = {("member", name): Members(np.roll(codes, place), texts) for place, name in enumerate(names)}
    rows = Rows(codes, ROWS, (), cells)  # type: ignore[arg-type]

    def taken(pairs: int) -> float:
        listed = [(one, other) for one in names for other in names if one != other] * 2
        parts = tuple(CompareColumns(column=one, op="<", other=other) for one, other in listed[:pairs])
        began = time.monotonic()
        holds(rows, table, Both(operands=(Either(operands=parts[:56]), Either(operands=parts[56:]))))
        return time.monotonic() - began

    first = taken(58)
    assert taken(112) < 1.5 * first + 0.2
    assert first < 8, "each column is read once"


@pytest.mark.parametrize("op", list(OPERATORS))
def test_columns_of_texts_compare_as_their_texts_do(op: str) -> None:
    one, other, third = ("b", "a", "c"), ("c", "a", "0"), ("zz", "b", "b")
    texts = {"x": one, "y": other, "z": third}
    table = Table(name="t", max_rows=1, max_silos=1, columns=tuple(TableColumn(name=n, type="string") for n in texts))
    codes = np.array([0, 1, 2, -1])
    rows = Rows(codes, 4, (), {("member", name): Members(codes, found) for name, found in texts.items()})
    for first, second in (("x", "y"), ("y", "z"), ("z", "x"), ("x", "y")):
        compared = CompareColumns(column=first, op=op, other=second)  # type: ignore[arg-type]
        both = Both(operands=(CompareColumns(column="x", op="<=", other="x"), compared))
        true, false = holds(rows, table, both)
        wanted = [OPERATORS[op](a, b) for a, b in zip(texts[first], texts[second], strict=True)]
        assert true.tolist() == [*wanted, False]
        assert false.tolist() == [*(not one for one in wanted), False]
