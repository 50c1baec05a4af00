"""From a parsed question to its core and what is left of it: named stages, each of which rewrites one thing.

    names -> dialect -> totals -> scalars -> joins -> persons -> steps -> present -> histograms -> functions
    -> core -> conditions

The core is a SELECT of dimensions and plain aggregates of one table, which the rules of `analyst.sql.plan` read; what
is computed from its figures is `after`. Every stage is pure, and raises SqlError for what it does not accept.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.adding import added
from analyst.sql.beside import with_joined_figures
from analyst.sql.bools import without_casts
from analyst.sql.conditions import conditions_of
from analyst.sql.histogram import by_buckets
from analyst.sql.inlined import can_be_added, inlined
from analyst.sql.joins import joined
from analyst.sql.offer import Offer
from analyst.sql.parse import sql_position
from analyst.sql.persons import ByPerson, by_person
from analyst.sql.present import with_present
from analyst.sql.quantiles import ordered
from analyst.sql.refusals import check_functions, check_where, refused_rows
from analyst.sql.scalars import with_scalars
from analyst.sql.spelled import spelled
from analyst.sql.split import NoFigureError, split
from analyst.sql.stepped import by_steps
from analyst.sql.survival import check_stands_alone, with_curves
from analyst.sql.totals import with_totals


@dataclass(frozen=True, slots=True)
class Question:
    """A question on its way to a plan."""

    query: exp.Query
    offer: Offer  # of the tables that silos have
    seen: Offer  # of what the core reads: these, or the rows that an inner question makes
    beside: tuple[str, ...] = ()  # tables that are joined
    persons: ByPerson | None = None  # an inner question
    after: exp.Query | None = None  # what is computed from the core's figures


def names(question: Question) -> Question:
    """Write tables and columns as they are defined."""
    return replace(question, query=spelled(question.query, question.offer))


def dialect(question: Question) -> Question:
    """Write curves, quantiles and sums of bools in one way; refuse aggregates in WHERE."""
    check_where(question.query)
    return replace(question, query=without_casts(ordered(with_curves(question.query)), question.offer))


def totals(question: Question) -> Question:
    """Add up what ROLLUP, CUBE and GROUPING SETS ask from the finest groups."""
    return replace(question, query=with_totals(question.query))


def scalars(question: Question) -> Question:
    """Write figures of several readings of one table as those of one reading."""
    query = with_joined_figures(question.query, question.offer)
    return replace(question, query=with_scalars(query, question.offer))


def joins(question: Question) -> Question:
    """Read tables that are joined on the person as one table."""
    found = joined(question.query, question.offer)
    return replace(question, query=found.query, offer=found.offer, seen=found.offer, beside=found.beside)


def persons(question: Question) -> Question:
    """Take an inner question out, and put a table of its rows in its place."""
    found = by_person(question.query, question.offer)
    return question if found is None else replace(question, query=found.outer, seen=found.offer, persons=found)


def steps(question: Question) -> Question:
    """Group by every value of a number that has few."""
    return replace(question, query=by_steps(question.query, question.seen))


def present(question: Question) -> Question:
    """Count the cells of a column with a domain by a condition on it."""
    return replace(question, query=with_present(question.query, question.seen))


def histograms(question: Question) -> Question:
    """Write HISTOGRAM as counts by buckets."""
    return replace(question, query=by_buckets(question.query, question.seen))


def functions(question: Question) -> Question:
    """Refuse what nobody computes, each with its own hint."""
    check_functions(question.query, question.seen)
    return question


def core(question: Question) -> Question:
    """Take apart what silos compute, and what is computed from their figures."""
    limit = question.query.args.get("limit")
    if isinstance(limit, exp.Limit) and limit.expression.name == "0":
        place = sql_position(limit)
        raise SqlError(f"LIMIT 0 shows no row, and all are paid{place}", "leave it out, or give a limit above 0")
    try:
        parts = split(question.query)
    except NoFigureError as found:
        raise refused_rows(found.select, question.seen, found.message) from found
    check_stands_alone(parts.core, parts.after)
    return replace(question, query=parts.core, after=parts.after)


def conditions(question: Question) -> Question:
    """Group by the conditions of aggregates, and add the groups up afterwards; else compute them in each row.

    They are computed in each row where a figure does not add up, and where silos allow no more dimensions.
    """
    statement, after = select_of(question), question.after
    own = inlined(statement)
    found = conditions_of(own) if after is not None and can_be_added(statement) else None
    if found is None or after is None:
        return replace(question, query=own)
    if len(_grouped_by(found.core)) > question.offer.most_dimensions:
        return replace(question, query=inlined(statement, has_to=True))
    return replace(question, query=found.core, after=added(found, after))


def _grouped_by(statement: exp.Select) -> set[str]:
    """Return the columns that a statement groups by, also in expressions."""
    named = {one.alias: one.this for one in statement.expressions if one.alias}
    group = statement.args.get("group")
    keys = (
        [named.get(one.name, one) if isinstance(one, exp.Column) else one for one in group.expressions] if group else []
    )
    return {column.name for key in keys for column in key.find_all(exp.Column)}


Stage = Callable[[Question], Question]
STAGES: tuple[Stage, ...] = (
    names,
    dialect,
    totals,
    scalars,
    joins,
    persons,
    steps,
    present,
    histograms,
    functions,
    core,
    conditions,
)


def staged(query: exp.Query, offer: Offer) -> Question:
    """Return a parsed question after all stages; raises SqlError."""
    question = Question(query, offer, offer)
    for stage in STAGES:
        question = stage(question)
    return question


def select_of(question: Question) -> exp.Select:
    """Return the core of a question that was taken apart."""
    if not isinstance(question.query, exp.Select):
        raise TypeError("the question was not taken apart yet")
    return question.query
