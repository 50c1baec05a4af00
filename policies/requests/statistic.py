"""Which numbers a request asks for: the blocks of its vector, in order."""

from collections.abc import Iterator
from itertools import product
from typing import Literal, NamedTuple

from policies.requests.query import Both, Either, Not, Plan, Predicate
from policies.requests.request import Request
from policies.requests.training import Step
from policies.units import Role


class Statistic(NamedTuple):
    """What one block of the vector holds.

    Of a question, one number per group: the rows, the rows where a column is present, or the centred total of a column.
    Of a step of training: the sum of the persons' clipped gradients and the number of persons, or the sum of the
    silos' weights, each times its rows, and the number of rows.
    """

    kind: Literal["rows", "present", "total", "gradients", "persons", "weights"]
    column: str | None = None


ROWS = Statistic("rows")


def uses(plan: Plan | Step) -> dict[Role, tuple[str, ...]]:
    """Return the columns that a plan uses, by the role it uses them in."""
    if plan.kind != "query":
        return {"feature": plan.features, "label": (plan.label,)}
    filters: list[str] = []
    pending: list[Predicate] = [] if plan.where is None else [plan.where]
    while pending:
        predicate = pending.pop()
        if isinstance(predicate, Both | Either):
            pending += reversed(predicate.operands)
        elif isinstance(predicate, Not):
            pending.append(predicate.operand)
        else:
            filters.append(predicate.column)
    measures = {aggregate.column: None for aggregate in plan.aggregates if aggregate.column is not None}
    return {"dimension": plan.group_by, "filter": tuple(dict.fromkeys(filters)), "measure": tuple(measures)}


def statistics_of(plan: Plan | Step) -> tuple[Statistic, ...]:
    """Return the distinct statistics that a plan needs, in the order of their blocks."""
    if plan.kind != "query":
        return (
            (Statistic("weights"), Statistic("rows"))
            if plan.is_exact
            else (Statistic("gradients"), Statistic("persons"))
        )
    found: dict[Statistic, None] = {}
    for aggregate in plan.aggregates:
        column = aggregate.column
        if column is None:
            found[ROWS] = None
            continue
        found[Statistic("present", column)] = None
        if aggregate.function != "count":
            found[Statistic("total", column)] = None
    return tuple(found)


def price_parts(plan: Plan | Step) -> dict[Statistic, int]:
    """Return the parts into which the price is divided: equal ones, but the number of persons needs little of it."""
    return {statistic: 15 if statistic[0] == "gradients" else 1 for statistic in statistics_of(plan)}


def is_exact(request: Request) -> bool:
    """Tell whether the sum is to have no noise; only a source that its policy declares exact may answer."""
    return request.plan.kind != "query" and request.plan.is_exact


def groups_of(request: Request) -> Iterator[tuple[str, ...]]:
    """Yield every group of the closed domains, in the order of the slots; one without dimensions."""
    dimensions = request.plan.group_by if isinstance(request.plan, Plan) else ()
    return product(*(request.table.column(name).domain for name in dimensions))


def group_count(request: Request) -> int:
    """Return the number of groups; 1 without GROUP BY."""
    count = 1
    if request.plan.kind == "query":
        for name in request.plan.group_by:
            count *= len(request.table.column(name).domain)
    return count


def width(request: Request, step: Step) -> int:
    """Return the number of weights of a model: one for the intercept, one for a number, all but one of a domain."""
    columns = [request.table.column(name) for name in step.features]
    return 1 + sum(len(column.domain) - 1 if column.domain else 1 for column in columns)


def block_length(request: Request, statistic: Statistic) -> int:
    """Return the number of slots of a statistic."""
    if isinstance(request.plan, Step):
        return width(request, request.plan) if statistic.kind in ("gradients", "weights") else 1
    return group_count(request)


def slot_count(request: Request) -> int:
    """Return the length of the vector that each silo submits."""
    return sum(block_length(request, statistic) for statistic in statistics_of(request.plan))
