"""Whether an answer depends on a threshold inside a column's values: what makes any field of a request a filter.

A measure asked within 20 to 21 of its 0 to 90 counts who is above 20: the question `WHERE measure > 20`, in other
words. Promise: whatever sets such a threshold needs the role `filter`, or `narrow = true` at the column, whichever
field it stands in. `thresholds_of` names all of them; a computation that cuts values anew (a bucket, a histogram, a
quantile, a CASE) says so in its `thresholds`, and no rule of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal

from policies.decision.case import Case
from policies.decision.compiled import RequestFacts, SourceColumns
from policies.decision.denial_codes import deny
from policies.requests.denials import Denial
from policies.requests.query import RANKED
from policies.requests.request import Request
from policies.requests.tables import TableColumn

Threshold = tuple[str, str]  # a column, and what of it is asked, in words
_AS_IT_IS = "ask SUM, AVG or VAR_POP of the column as it is, or of products of two columns"


def thresholds_of(request: Request, facts: RequestFacts, source: SourceColumns) -> Mapping[str, str]:
    """Return every column inside whose values a request sets a threshold, and how; conditions have the role filter."""
    return dict(found for kind in _KINDS for found in kind(request, facts, source))


def _narrowed(request: Request, facts: RequestFacts, source: SourceColumns) -> Iterator[Threshold]:
    """Yield the columns that are defined more narrowly than by the policy: what lies outside becomes one with the rest.

    That is clamped to a bound, or counted as `unknown`.
    """
    for asked in request.table.columns:
        own = source.definition(asked.name, request.created_at) if asked.name in facts.read else None
        if own is None or asked.__dict__ == own.__dict__:
            continue
        if (asked.low, asked.high) != (own.low, own.high) and asked.low is not None:
            yield asked.name, f"within {bounds_of(asked)}, of {bounds_of(own)}"
        elif source.lacks(asked, own, request.created_at):
            what = "periods" if own.type == "date" else "values"
            yield asked.name, f"by {len(asked.domain)} of its {len(own.domain)} {what}"


def _cased(request: Request, facts: RequestFacts, source: SourceColumns) -> Iterator[Threshold]:
    """Yield the columns by whose values conditions make groups, but those of which they only merge groups."""
    plan = request.plan
    for one in plan.cases if plan.inner is None else ():  # those of an inner question: `_computed`
        for name in one.columns:
            if name not in plan.coarsened or name not in source.unconditional["dimension"]:
                yield name, f"by the groups of {one.name!r}"


def _computed(request: Request, facts: RequestFacts, source: SourceColumns) -> Iterator[Threshold]:
    """Yield the columns of quantiles, and those of which a computation cuts or bends what it adds."""
    yield from request.plan.thresholds(request.table)


_KINDS: tuple[Callable[[Request, RequestFacts, SourceColumns], Iterator[Threshold]], ...] = (
    _narrowed,
    _cased,
    _computed,
)


def bounds_of(column: TableColumn) -> str:
    """Return the bounds of a column in its own units."""
    step = Decimal(column.step or 1)
    return f"{(column.low or 0) * step:f} to {(column.high or 0) * step:f}" if column.low is not None else "no bounds"


def thresholds(case: Case) -> Sequence[Denial]:
    """May each column inside whose values a threshold is set be used so, and is no column that stands alone crossed?"""
    table, reasons = case.request.table, list[Denial]()
    found = thresholds_of(case.request, case.facts, case.source)
    computed = dict(_computed(case.request, case.facts, case.source))
    # The groups of an audit are the policy's own: merging those that differ would hide a gap from its limit.
    narrowable = case.source.narrowable - {*case.facts.used.get("audit", ())}
    for name, asked in found.items():
        if name in case.source.roles and name not in narrowable:
            roles = " or ".join(case.source.roles[name])
            message = f"column {name!r} may be used as {roles}, and not be narrowed: asked {asked}"
            remedy = _AS_IT_IS if name in computed else "take the table definition from the catalogue"
            if asked == RANKED:
                open_here = ", ".join(sorted(case.source.unconditional["measure"] & case.source.narrowable)) or "none"
                remedy = f"ask its average; columns whose quantiles may be asked: {open_here}"
            reasons.append(deny("COLUMN_ROLE", f"{table.rule(name)}.narrow", message, remedy))
    return [*reasons, *_crossings(case, found)]


def _crossings(case: Case, found: Mapping[str, str]) -> Iterator[Denial]:
    """Yield the columns that may be grouped by alone only, and are crossed with others by whatever field.

    A measure is crossed with what groups or cuts it, and with another only if a figure is of both: a covariance of two
    bools counts who has both. In a job all columns are crossed.
    """
    crossed = {*found, *(name for role, names in case.facts.used.items() if role != "measure" for name in names)}
    crossed.update(case.request.plan.paired)
    crossed.update(case.request.table.beside)  # whether a person has a row there
    for name in sorted(crossed.union(case.facts.used.get("measure", ()))):
        if name in case.source.alone and case.request.plan.inner is not None:
            message = (
                f"column {name!r} may be grouped by alone only, and an inner question crosses the rows of a person"
            )
            rule = f"{case.request.table.rule(name)}.sole_dimension"
            yield deny("SOLE_DIMENSION", rule, message, "group rows by it, without an inner question")
        elif name in case.source.alone and crossed - {name}:
            others = ", ".join(sorted(crossed - {name}))
            message = f"column {name!r} may be grouped by alone only, and is crossed with {others}"
            rule = f"{case.request.table.rule(name)}.sole_dimension"
            yield deny("SOLE_DIMENSION", rule, message, "use this column, or the others, in one question")
