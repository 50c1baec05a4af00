"""The groups of an audit: the values of a column with the role `audit`, or the pairs of values of two; and its limit.

A limit is the largest gap with which a model may leave its silos, be used there or be exported. It fails closed: a
model without an audit by these groups may not.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import product
from typing import Annotated, Self

from pydantic import Field, model_validator

from crypto.wire import Message, Name
from policies.fairness.gaps import MEASURES
from policies.fairness.limit import GapLimit
from policies.requests.tables import TableColumn

MAX_AUDITED = 1_000  # groups of an audit
THRESHOLD = r"^0\.[0-9]{1,9}$"
USUAL_THRESHOLD = "0.5"


def members_of(column: TableColumn) -> tuple[str, ...]:
    """Return the groups that a bool or a text divides rows into; the text's `unknown` is one of them."""
    return ("false", "true") if column.type == "bool" else tuple(column.domain)


def groups_of(columns: Sequence[TableColumn]) -> tuple[str, ...]:
    """Return the names of the groups of one or two columns, in order."""
    return tuple(" and ".join(one) for one in product(*map(members_of, columns)))


def count_of(columns: Sequence[TableColumn]) -> int:
    """Return how many groups there are."""
    return math.prod(len(members_of(column)) for column in columns)


def blocks(columns: Sequence[TableColumn], has_truth: bool) -> Mapping[str, int]:
    """Return the blocks of an audit: rows by group, truth (where it is known) and decision; and persons by group."""
    groups = count_of(columns)
    return {"rows": groups * (4 if has_truth else 2), "persons": groups, "left-out": 1}


def check(columns: Sequence[TableColumn]) -> None:
    """Raise ValueError for more groups than an audit has."""
    if (groups := count_of(columns)) > MAX_AUDITED:
        raise ValueError(f"an audit of {groups:,} groups, at most {MAX_AUDITED:,}; take columns of fewer values")


class AuditLimit(Message):
    """The largest gap of a model, as the request of its run states it: between these groups, by this measure."""

    groups: Annotated[tuple[Name, ...], Field(min_length=1, max_length=2)]
    measure: Annotated[str, Field(max_length=40)]
    max_gap: Annotated[str, Field(pattern=r"^0(\.[0-9]{1,9})?$")]
    # The least score that is decided for, at which the gap is taken; left out where it is 0.5.
    threshold: Annotated[
        str, Field(default=USUAL_THRESHOLD, pattern=THRESHOLD, exclude_if=lambda text: text == USUAL_THRESHOLD)
    ] = USUAL_THRESHOLD

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.measure not in MEASURES or len(set(self.groups)) < len(self.groups):
            raise ValueError(f"a limit has one or two columns of groups, and one of {', '.join(MEASURES)}")
        return self

    @property
    def limit(self) -> GapLimit:
        return GapLimit(self.measure, float(self.max_gap), "audit.max_gap of the job", Decimal(self.threshold))

    def __str__(self) -> str:
        at = f"at a threshold of {self.threshold}"
        return f"{self.measure} by {' and '.join(self.groups)} of at most {self.max_gap}, {at}"
