"""Filters on coded rows, by SQL's three-valued logic: a comparison with a missing cell is neither true nor false."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from operator import eq, ge, gt, le, lt, ne
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from policies.requests.predicates import Both, Compare, CompareColumns, Either, IsNull, Not, OneOf, Predicate
from policies.requests.tables import Table, TableColumn
from silo_node.data.coded import NO_NUMBER, Bools, Integers, Numbers, Rows, placed

_NANOS = 10**9
_MOST = 10**18  # beyond any number that is compared
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType({"<": lt, "<=": le, ">": gt, ">=": ge})
_ALL_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType({**_OPERATORS, "=": eq, "<>": ne})
_MISSING, _NOWHERE = -1, -2  # numbers of no member
Value = str | Decimal | bool | None  # of a member; None compares with nothing


class Truth(NamedTuple):
    """Where a predicate is true, and where it is false; elsewhere it is neither."""

    true: Bools
    false: Bools


def holds(rows: Rows, table: Table, predicate: Predicate) -> Truth:
    """Judge every row; `rows` has the cells of each column that the predicate names.

    A part costs a look at each row, however many values it lists or texts its column has: the members of a column are
    numbered once. One part is judged after the other, so memory grows with the depth of a predicate and not its length.
    """
    return _Judging(rows, table).of(predicate)


def holds_each(rows: Rows, table: Table, predicates: Iterable[Predicate]) -> Iterator[Truth]:
    """Judge every row by each of some predicates, one after the other; the members of a column are numbered once."""
    judging = _Judging(rows, table)
    return (judging.of(one) for one in predicates)


class _Judging:
    """One predicate over the same rows."""

    def __init__(self, rows: Rows, table: Table) -> None:
        self._rows, self._table = rows, table
        self._members: dict[str, _Numbered] = {}
        self._beside: dict[str, _Beside] = {}  # by type, what is compared with another column
        self._numbers: dict[str, Numbers] = {}

    def of(self, predicate: Predicate) -> Truth:
        match predicate:
            case Both():
                return self._together(predicate.operands, np.logical_and, np.logical_or)
            case Either():
                return self._together(predicate.operands, np.logical_or, np.logical_and)
            case Not():
                inner = self.of(predicate.operand)
                return Truth(inner.false, inner.true)
            case IsNull():
                return self._is_null(self._table.column(predicate.column))
            case Compare():
                return self._compared(self._table.column(predicate.column), predicate.op, (predicate.value,))
            case OneOf():
                return self._compared(self._table.column(predicate.column), "=", predicate.values)
            case CompareColumns():
                one, other = self._table.column(predicate.column), self._table.column(predicate.other)
                return self._columns_compared(one, predicate.op, other)

    def _together(self, operands: Sequence[Predicate], of_true: np.ufunc, of_false: np.ufunc) -> Truth:
        found = self.of(operands[0])
        for operand in operands[1:]:
            one = self.of(operand)
            of_true(found.true, one.true, out=found.true)
            of_false(found.false, one.false, out=found.false)
        return found

    def _is_null(self, column: TableColumn) -> Truth:
        if is_number(column):
            missing = self._rows.numbers(column.name).whole == NO_NUMBER
        else:
            missing = self._numbered(column, "=").numbers == _MISSING
        return Truth(missing, ~missing)

    def _compared(self, column: TableColumn, op: str, literals: Sequence[str]) -> Truth:
        """Return where a cell compares so with any of the literals; there is one of them unless `op` is =."""
        if is_number(column):
            return _numbers_compared(self._rows.numbers(column.name), op, literals)
        members, wanted = self._numbered(column, op), [_literal(column, text) for text in literals]
        true = members.equal(wanted) if op == "=" else members.compared(op, wanted[0])
        missing = members.numbers == _MISSING
        if op in ("=", "<>") and column.unknown is not None and _literal(column, column.unknown) in wanted:
            # The one literal that names missing cells: = finds them, and <> finds all others.
            true, missing = (true | missing, missing & False) if op == "=" else (true, missing & False)
        return Truth(true, ~true & ~missing)

    def _columns_compared(self, one: TableColumn, op: str, other: TableColumn) -> Truth:
        if one.type in ("int", "decimal"):
            return _parts_compared(self._parts(one), op, self._parts(other))
        beside = self._beside.setdefault(one.type, _Beside())
        left, right = (beside.numbers(self._rows, column) for column in (one, other))
        is_present = (left != _MISSING) & (right != _MISSING)
        if op in _OPERATORS:
            ranks = beside.ranks
            left, right = ranks[left], ranks[right]
        true = _ALL_OPERATORS[op](left, right)
        return Truth(true & is_present, ~true & is_present)

    def _parts(self, column: TableColumn) -> Numbers:
        """Return the cells of a column of numbers, whether or not it has a closed domain."""
        if is_number(column):
            return self._rows.numbers(column.name)
        if column.name in self._numbers:
            return self._numbers[column.name]
        codes, values = _values(self._rows, column)
        wholes, rests = np.full(len(values), NO_NUMBER, np.int64), np.zeros(len(values), np.int64)
        for place, value in enumerate(values):
            if isinstance(value, Decimal) and abs(value) < _MOST:
                wholes[place], rests[place] = divmod(int(value * _NANOS), _NANOS)
        found = self._numbers[column.name] = Numbers(wholes[codes], rests[codes])
        return found

    def _numbered(self, column: TableColumn, op: str) -> "_Numbered":
        """Return the cells of a column as numbers of members, in their order where `op` asks for it."""
        known, is_ordered = self._members.get(column.name), op not in ("=", "<>")
        if known is None or (is_ordered and not known.is_ordered):
            known = self._members[column.name] = _Numbered(*_values(self._rows, column), is_ordered=is_ordered)
        return known


class _Beside:
    """Columns of one type whose cells are compared with each other: equal values have one number in all of them.

    However many pairs are compared, the values of each column are numbered once, and sorted once for each column.
    """

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}
        self._cells: dict[str, Integers] = {}
        self._ranks: Integers = np.zeros(1, np.int32)

    def numbers(self, rows: Rows, column: TableColumn) -> Integers:
        """Return the number of each cell of a column, _MISSING where it has no value."""
        if column.name not in self._cells:
            codes, values = _values(rows, column)
            known = self._known
            numbers = [_MISSING if one is None else known.setdefault(one, len(known)) for one in values]
            self._cells[column.name] = np.array(numbers, np.int32)[codes]
        return self._cells[column.name]

    @property
    def ranks(self) -> Integers:
        """The rank of each number's value; the last one stands for missing cells."""
        if len(self._ranks) != len(self._known) + 1:
            self._known = dict(sorted(self._known.items()))  # what is sorted already is sorted faster
            self._ranks = np.zeros(len(self._known) + 1, np.int32)
            self._ranks[list(self._known.values())] = np.arange(len(self._known))
        return self._ranks


class _Numbered:
    """Cells as numbers of their members' different values, _MISSING where a cell has none."""

    def __init__(self, codes: Integers, values: Sequence[Value], *, is_ordered: bool) -> None:
        present: Any = dict.fromkeys(value for value in values if value is not None)
        self.is_ordered, self._different = is_ordered, sorted(present) if is_ordered else list(present)
        self._places = {value: place for place, value in enumerate(self._different)}
        self.numbers = np.array([self._places.get(value, _MISSING) for value in values], np.int32)[codes]

    def equal(self, wanted: Sequence[Value]) -> Bools:
        """Return where a cell is one of these values."""
        return np.isin(self.numbers, [self._places[one] for one in wanted if one in self._places])

    def compared(self, op: str, wanted: Any) -> Bools:
        """Return where a cell compares so with a value; never where it is missing."""
        found: Bools
        if op == "<>":
            found = (self.numbers != self._places.get(wanted, _NOWHERE)) & (self.numbers != _MISSING)
            return found
        first = bisect_left(self._different, wanted) if op in ("<", ">=") else bisect_right(self._different, wanted)
        found = (self.numbers < first) & (self.numbers != _MISSING) if op in ("<", "<=") else self.numbers >= first
        return found


def is_number(column: TableColumn) -> bool:
    """Tell whether a filter compares a column's numbers, instead of members of a closed domain."""
    return column.type in ("int", "decimal") and not column.domain


def _values(rows: Rows, column: TableColumn) -> tuple[Integers, list[Value]]:
    """Return the codes of a column's cells, and the value of each member; the last one is that of a missing cell.

    A cell is mapped into the request's domain first, and one that is its `unknown` is missing. A date is compared by
    its period.
    """
    members = rows.members(column.name)
    texts: list[str | None] = [*members.texts, None]
    if column.domain:
        found = (None if at < 0 else column.domain[at] for at in placed(members.texts, column.domain, column.unknown))
        texts = [None if text == column.unknown else text for text in found]
    if column.type == "bool":
        return members.codes, [{"true": True, "false": False}.get(text or "") for text in texts]
    if column.type in ("int", "decimal"):
        return members.codes, [None if text is None else _number(text) for text in texts]
    return members.codes, list(texts)


def _number(text: str) -> Decimal | None:
    try:
        found = Decimal(text)
    except ArithmeticError:
        return None
    return found if found.is_finite() else None


def _literal(column: TableColumn, text: str) -> Value:
    if column.type in ("int", "decimal"):
        return Decimal(text)
    return text == "true" if column.type == "bool" else text


def _numbers_compared(numbers: Numbers, op: str, literals: Sequence[str]) -> Truth:
    present = numbers.whole != NO_NUMBER
    if op == "=":
        true = _one_of(numbers, [divmod(int(Decimal(text) * _NANOS), _NANOS) for text in literals])
    else:
        true = _number_compared(numbers, op, Decimal(literals[0]))
    return Truth(true & present, ~true & present)


def _parts_compared(one: Numbers, op: str, other: Numbers) -> Truth:
    present = (one.whole != NO_NUMBER) & (other.whole != NO_NUMBER)
    rest, other_rest = (0 if numbers.nanos is None else numbers.nanos for numbers in (one, other))
    same: Any = one.whole == other.whole
    if op in ("=", "<>"):
        true = same & (rest == other_rest)
        true = true if op == "=" else ~true
    else:
        true = _OPERATORS[op[0]](one.whole, other.whole) | (same & _OPERATORS[op](rest, other_rest))
    return Truth(true & present, ~true & present)


def _one_of(numbers: Numbers, wanted: Sequence[tuple[int, int]]) -> Bools:
    """Return where a number is one of many, given as whole part and rest."""
    if numbers.nanos is None:
        return np.isin(numbers.whole, np.array([whole for whole, rest in wanted if not rest], np.int64))
    wholes = np.unique(np.array([whole for whole, _ in wanted], np.int64))
    found = np.isin(numbers.whole, wholes)
    # Which of the wanted whole parts it has, and the rest, in one number.
    keys = np.searchsorted(wholes, numbers.whole[found]) * _NANOS + numbers.nanos[found]
    places = np.searchsorted(wholes, [whole for whole, _ in wanted]) * _NANOS
    found[found] = np.isin(keys, places + np.array([rest for _, rest in wanted], np.int64))
    return found


def _number_compared(numbers: Numbers, op: str, literal: Decimal) -> Bools:
    whole, rest = divmod(int(literal * _NANOS), _NANOS)
    nanos: Any = 0 if numbers.nanos is None else numbers.nanos
    same = numbers.whole == whole
    found: Bools
    match op:
        case "<>":
            found = ~(same & (nanos == rest))
        case _:
            found = _OPERATORS[op[0]](numbers.whole, whole) | (same & _OPERATORS[op](nanos, rest))
    return found
