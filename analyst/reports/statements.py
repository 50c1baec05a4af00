"""The statements of a request, each with its own part of the opened sum, as if it had been asked alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from analyst.reports.estimates import planned_again, planned_plainly
from analyst.sql.draft import Script
from crypto.rounds.opening import OpenedSum
from policies.requests.request import Request
from policies.requests.statements import statistics_of

# How the figures of a statement are shown: the order of columns, the names of dimensions, and the SQL after the answer.
Reading = tuple[tuple[str, ...], dict[str, str], str]


def requests_of(request: Request) -> tuple[Request, ...]:
    """Return for each statement the request that would ask it alone, at the price of all."""
    parts, table = request.plan.alone, request.table
    if len(parts) == 1:
        return (request,)
    names = [dict.fromkeys(name for used in part.uses().values() for name in used) for part in parts]
    tables = [table.model_copy(update={"columns": tuple(map(table.column, own))}) for own in names]
    fields = zip(parts, tables, strict=True)
    return tuple(request.model_copy(update={"plan": part, "table": own}) for part, own in fields)


def portions_of(request: Request) -> tuple[float, ...]:
    """Return the part of the price that bought the figures of each statement."""
    return tuple(part / whole for part, whole in request.plan.portions)


def portion_of(request: Request, places: Sequence[int]) -> float:
    """Return the part of the price that bought the figures of these statements, of which some may share theirs."""
    portions, statistics = request.plan.portions, statistics_of(request.plan, request.table)
    blocks = {next(iter(statistics[place].values())).kind.partition("/")[0]: portions[place] for place in places}
    return float(sum(Fraction(*portion) for portion in blocks.values()))


def opened_of(request: Request, opened: OpenedSum) -> Iterator[OpenedSum]:
    """Yield for each statement the sum of its own statistics."""
    named = statistics_of(request.plan, request.table)
    if len(named) == 1:
        yield opened
        return
    blocks, terms = opened.manifest.terms.blocks, opened.manifest.terms
    ends = np.cumsum([block.length for block in blocks]).tolist()
    place = {statistic: index for index, statistic in enumerate(request.plan.statistics(request.table))}
    for found in named:
        own = [place[statistic] for statistic in found.values()]
        units: Any = np.concatenate([opened.units[ends[index] - blocks[index].length : ends[index]] for index in own])
        manifest = opened.manifest.model_copy(
            update={"terms": terms.model_copy(update={"blocks": tuple(blocks[index] for index in own)})}
        )
        yield replace(opened, manifest=manifest, units=units)


def script_again(request: Request, readings: Sequence[Reading], tables: Sequence[int]) -> Script:
    """Return the plan of a request's statements again, each shown by its reading.

    `tables` has the number of statements of each table; none: each has its own. Raises KeyError unless the request
    asks such questions.
    """
    alone = requests_of(request)
    if len(alone) != len(readings) or (tables and sum(tables) != len(alone)):
        raise KeyError(f"{len(readings)} readings of {len(alone)} statements")
    statements = tuple(planned_again(one, *reading) for one, reading in zip(alone, readings, strict=True))
    return Script(request.table, request.plan, statements, _places(tables or (1,) * len(alone)))


def script_plainly(request: Request) -> Script:
    """Return the plan of a request's statements again, with the names that the request has; raises KeyError."""
    alone = requests_of(request)
    return Script(request.table, request.plan, tuple(map(planned_plainly, alone)), _places((1,) * len(alone)))


def _places(counts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    found, first = list[tuple[int, ...]](), 0
    for count in counts:
        found.append(tuple(range(first, first + count)))
        first += count
    return tuple(found)
