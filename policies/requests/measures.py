"""The computed measures of a plan: which columns they read, how they are defined, and what thresholds they set."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from policies.requests.expressions import Derived, check_size, worded
from policies.requests.predicates import Predicate, check_predicates
from policies.requests.ranges import NoRangeError, defined, derived_range
from policies.requests.tables import Table, check_role


class _Figure(Protocol):
    @property
    def columns(self) -> tuple[str, ...]: ...


class _Figures(Protocol):
    """What of a plan is read here."""

    @property
    def where(self) -> Predicate | None: ...

    @property
    def aggregates(self) -> tuple[_Figure, ...]: ...

    @property
    def derived(self) -> tuple[Derived, ...]: ...


def base_columns(names: Iterable[str], derived: tuple[Derived, ...]) -> tuple[str, ...]:
    """Return names of measures with the columns that the derived ones are computed of in their places."""
    known = {one.name: one.columns for one in derived}
    return tuple(dict.fromkeys(column for name in names for column in known.get(name, (name,))))


def compared_by(derived: tuple[Derived, ...]) -> tuple[str, ...]:
    """Return the columns that the conditions of computed measures read."""
    return tuple(dict.fromkeys(name for one in derived for name in one.compared))


def crossed_by(derived: tuple[Derived, ...]) -> tuple[str, ...]:
    """Return the columns of which values enter one computed measure with those of another one."""
    several = (one.columns for one in derived if len(one.columns) > 1)
    return tuple(dict.fromkeys(name for names in several for name in names))


def with_derived(table: Table, derived: tuple[Derived, ...], where: Predicate | None) -> Table:
    """Return a table with the computed measures as columns, in rows that meet a condition; raises NoRangeError."""
    if not derived:
        return table
    more = tuple(defined(one, table, where) for one in derived)
    return table.model_copy(update={"columns": (*table.columns, *more)})


def thresholds_of(derived: tuple[Derived, ...], table: Table, where: Predicate | None) -> Iterator[tuple[str, str]]:
    """Yield the columns inside whose values computed measures set a threshold, or tell as much as one, and how."""
    for one in derived:
        for name in sorted(derived_range(one, table, where).steep):
            yield name, f"in {worded(one.expression)}"


def check_derived(plan: _Figures, table: Table) -> None:
    """Raise ValueError unless each computed measure is one that is asked, of measures of a table, with bounds."""
    names = [one.name for one in plan.derived]
    asked = {name for figure in plan.aggregates for name in figure.columns}
    if len(set(names)) != len(names) or not asked.issuperset(names):
        raise ValueError("each computed measure is that of a figure, and named once")
    if taken := sorted({column.name for column in table.columns}.intersection(names)):
        raise ValueError(f"the computed measure {taken[0]!r} has the name of a column")
    check_size(one.expression for one in plan.derived)
    for one in plan.derived:
        for name in one.columns:
            check_role(table, "measure", name)
        if not one.columns and not one.compared:
            raise ValueError(f"the computed measure {one.name!r} reads no column")
        for name in one.compared:
            check_role(table, "filter", name)
    check_predicates((when for one in plan.derived for when in one.conditions), table)
    for one in plan.derived:
        try:
            defined(one, table, plan.where)
        except NoRangeError as err:
            lacks = "step" if err.lacks in ("step", "error") else "bounds"
            raise ValueError(f"the computed measure {worded(one.expression)} has no {lacks}: {err}") from err
