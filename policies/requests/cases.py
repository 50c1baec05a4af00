"""A case dimension: groups of a question that conditions on a row make, as SQL's `CASE WHEN ... THEN ... END` does.

A row is in the group of the first condition that is true of it, else in that of `otherwise`; so each row is in exactly
one group, and a person's rows change the figures by no more than in a grouping by a column. Which columns a case may
read is judged in `policies/decision/`: one whose values it orders sets a threshold, one of which it asks only which
member of a closed domain it is coarsens the grouping by that column.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Message, Name
from policies.requests.predicates import Predicate, check_predicates, columns_of, cost_of, in_words, ordered_in
from policies.requests.tables import Table, Text, is_number

MAX_CASES = 8
MAX_WHENS = 200  # of one case
_MAX_PARTS = 2_000  # of all cases together
NULL = "NULL"  # how the group without a label is written where people read it
Group = str | None  # the label of a group; None is SQL's NULL


class Cases(Message):
    """A dimension of groups by conditions; a label may be that of several, and null is SQL's NULL."""

    name: Name
    whens: Annotated[tuple[Predicate, ...], Field(min_length=1, max_length=MAX_WHENS)]
    labels: Annotated[tuple[Text | None, ...], Field(min_length=1, max_length=MAX_WHENS)]
    otherwise: Text | None
    # What the labels are: as text they stand in every answer, but numbers are sorted and written as numbers.
    type: Annotated[
        Literal["string", "int", "decimal", "bool"], Field(default="string", exclude_if=lambda kind: kind == "string")
    ] = "string"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.labels) != len(self.whens):
            raise ValueError("each condition of a case has one label")
        for one in self.groups:
            if one is not None and not _is_a(self.type, one):
                raise ValueError(f"the label {one!r} of a case is no {self.type}")
        return self

    @property
    def groups(self) -> tuple[Group, ...]:
        """The labels in order, each once."""
        return tuple(dict.fromkeys((*self.labels, self.otherwise)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return tuple(dict.fromkeys(name for when in self.whens for name in columns_of(when)))

    @property
    def ordered(self) -> frozenset[str]:
        """The columns that it asks for more than which member of a closed domain they are."""
        return frozenset(name for when in self.whens for name in ordered_in(when))

    @property
    def cost(self) -> int:
        """How much each row costs, in looks at a cell."""
        return sum(map(cost_of, self.whens))

    def shown(self, group: Group) -> str | int | float | bool | None:
        """Return the label of a group as answers have it."""
        if group is None:
            return None
        match self.type:
            case "int":
                return int(group)
            case "decimal":
                return float(group)
            case "bool":
                return group == "true"
        return group

    def in_words(self) -> str:
        """Return the conditions and labels in words; every field of it changes them."""
        said = "; ".join(
            f"{worded(label)} where {in_words(when)}" for when, label in zip(self.whens, self.labels, strict=True)
        )
        return f"{self.type}: {said}; else {worded(self.otherwise)}"


def _is_a(kind: str, label: str) -> bool:
    match kind:
        case "int":
            return is_number(label) and "." not in label and label == str(int(label))
        case "decimal":
            return is_number(label)
        case "bool":
            return label in ("true", "false")
    return label.isprintable()


def worded(group: Group) -> str:
    """Return a label as it is shown to people who decide: in quotes, or NULL."""
    return NULL if group is None else json.dumps(group)


def check_cases(cases: Iterable[Cases], group_by: Iterable[str], table: Table) -> None:
    """Raise ValueError unless each case is grouped by, has a name of its own, and fits the table."""
    cases, grouped = tuple(cases), set(group_by)
    names = [one.name for one in cases]
    if len(set(names)) != len(names) or not grouped.issuperset(names):
        raise ValueError("each case is a dimension that the question is grouped by, once")
    for name in names:
        if any(column.name == name for column in table.columns):
            raise ValueError(f"the case {name!r} has the name of a column")
    check_predicates((when for one in cases for when in one.whens), table, _MAX_PARTS)


def by_name(cases: Iterable[Cases]) -> Mapping[str, Cases]:
    """Return cases by the names by which a question is grouped by them."""
    return {one.name: one for one in cases}


def columns_in(cases: Iterable[Cases]) -> Iterator[str]:
    """Yield the columns that cases read."""
    for one in cases:
        yield from one.columns
