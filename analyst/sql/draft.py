"""A plan while the rules of `analyst.sql.plan` write it."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from analyst.sql.offer import Offer
from policies.requests.predicates import Predicate
from policies.requests.query import Aggregate, Plan
from policies.requests.tables import Table


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """A plan in the making."""

    table: str = ""
    group_by: tuple[str, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()
    where: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A question ready to be signed; `output` is the order of its columns."""

    table: Table
    plan: Plan
    output: tuple[str, ...]
    names: dict[str, str]  # the column of each dimension in the output, by its name there


Rule = Callable[[exp.Select, PlanDraft, Offer], PlanDraft]
