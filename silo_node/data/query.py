"""Compute a plan on a silo's rows: the silo's own SQL, written from the typed plan, run in DuckDB.

The query is total: a cell that cannot be read as its declared type counts as missing, a value outside the bounds is
clamped, one outside a domain becomes its `unknown`, and a row without a person is left out. At most `max_rows` rows of
a person enter, a random sample under a secret drawn for this request. Every literal is a bound parameter.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from crypto.randomness import token
from policies.requests.query import Both, Compare, Either, IsNull, Not, OneOf, Plan, Predicate
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.requests.training import TrainingStep
from silo_node.data.consent import ConsentFilter
from silo_node.data.mapping import quote
from silo_node.data.sources import Source


def execute(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    unit: str,
    request: Request,
    consent: ConsentFilter | None = None,
    max_groups: int | None = None,
) -> list[npt.NDArray[np.int64]]:
    """Return one vector per statistic of a question, a whole number per group, exact and without noise.

    `unit` is the policy's id column, `consent` says which rows may be used, and of one person rows of at most
    `max_groups` groups enter, a random choice. A total is the sum of 2 * (steps above low) - (range in steps).
    """
    plan = request.plan
    if not isinstance(plan, Plan):
        raise TypeError(f"a question is computed here, not {plan.kind}")
    writer = _Writer(request)
    sql = writer.question(plan, source.reader, unit, consent, max_groups)
    width = len(plan.group_by)
    answer = {row[:width]: row[width:] for row in connection.execute(sql, writer.parameters).fetchall()}
    count = len(plan.statistics(request.table))
    rows = [answer.get(group, (0,) * count) for group in plan.groups(request.table)]
    # A figure beyond 64 bits stays at their end: it is clipped further, and no error may depend on rows.
    cells = ([max(-_MOST, min(_MOST, int(row[index] or 0))) for row in rows] for index in range(count))
    return [np.array(figures, np.int64) for figures in cells]


def examples(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    unit: str,
    request: Request,
    consent: ConsentFilter | None = None,
) -> list[npt.NDArray[np.int64]]:
    """Return the rows that a step of training learns from, by column: the person, the label, every feature in order.

    Persons are numbered from 0. A label is 0 or 1; a feature with a domain is the place of its value in it, any other
    2 * (steps above low) - (range in steps). A row where one of them is missing is left out.
    """
    step = request.plan.training
    if step is None:
        raise TypeError(f"examples are for training, not for a {request.plan.kind}")
    writer = _Writer(request)
    found = connection.execute(writer.examples(step, source.reader, unit, consent), writer.parameters).fetchnumpy()
    return [np.asarray(column).astype(np.int64) for column in found.values()]


class _Writer:
    """Writes one query and collects its parameters."""

    def __init__(self, request: Request) -> None:
        self.table = request.table
        self.parameters: dict[str, Any] = {}

    def question(
        self, plan: Plan, reader: str, unit: str, consent: ConsentFilter | None, max_groups: int | None
    ) -> str:
        used = plan.uses()
        filters = {name: f"f{index}" for index, name in enumerate(used["filter"])}
        groups = {name: f"g{index}" for index, name in enumerate(plan.group_by)}
        measures = {name: f"m{index}" for index, name in enumerate(used["measure"])}
        cells = {alias: self._value(self.table.column(name)) for name, alias in filters.items()}
        cells |= {alias: self._member(self.table.column(name)) for name, alias in groups.items()}
        cells |= {alias: self._steps(self.table.column(name)) for name, alias in measures.items()}
        where = f"({self._predicate(plan.where, filters)})" if plan.where is not None else "TRUE"
        outputs = [*groups.values()]
        for kind, column in plan.statistics(self.table):
            if column is None:
                outputs.append("count(*)")
            else:
                outputs.append(_FIGURES[kind](self, self.table.column(column), measures[column]))
        grouping = f" GROUP BY {', '.join(groups.values())}" if groups else ""
        bounded = self._bounded(reader, unit, consent, cells, where, tuple(groups.values()), max_groups)
        return f"{bounded} SELECT {', '.join(outputs)} FROM bounded{grouping}"  # noqa: S608

    def examples(self, step: TrainingStep, reader: str, unit: str, consent: ConsentFilter | None) -> str:
        columns = [self.table.column(name) for name in step.features]
        cells = {"y": f"CAST({self._value(self.table.column(step.label))} AS BIGINT)"}
        for index, column in enumerate(columns):
            if column.domain:
                cells[f"x{index}"] = f"list_position({self._bind(list(column.domain))}, {self._member(column)}) - 1"
            else:
                cells[f"x{index}"] = self.centred(column, f"({self._steps(column)})")
        where = " AND ".join(f"{alias} IS NOT NULL" for alias in cells)
        outputs = ["dense_rank() OVER (ORDER BY unit) - 1 AS person", *cells]
        return f"{self._bounded(reader, unit, consent, cells, where)} SELECT {', '.join(outputs)} FROM bounded"  # noqa: S608

    def _bounded(
        self,
        reader: str,
        unit: str,
        consent: ConsentFilter | None,
        cells: dict[str, str],
        where: str,
        groups: tuple[str, ...] = (),
        max_groups: int | None = None,
    ) -> str:
        """Return the definition of `bounded`: of every person in, at most `max_rows` rows that hold, with the cells.

        And rows of at most `max_groups` groups, chosen before the rows are.
        """
        selected = [f"CAST({quote(unit)} AS VARCHAR) AS unit", "row_number() OVER () AS row"]
        selected += [f"{sql} AS {alias}" for alias, sql in cells.items()]
        among = ""
        if consent is not None:
            self.parameters |= consent.parameters
            among = f" WHERE {consent.sql}"
        sample = f"sha256({self._bind(token(32).hex())} || unit || ':' || row)"
        chosen = ""
        if groups and max_groups is not None:
            of_group = " || ':' || ".join(f"length({group}) || ':' || {group}" for group in groups)
            lot = f"sha256({self._bind(token(32).hex())} || unit || ':' || {of_group})"
            chosen = f" QUALIFY dense_rank() OVER (PARTITION BY unit ORDER BY {lot}) <= {self._bind(max_groups)}"
        return (
            f"WITH cells AS (SELECT {', '.join(selected)} FROM {reader}{among}),"  # noqa: S608
            f" kept AS (SELECT * FROM cells WHERE unit IS NOT NULL AND {where}{chosen}),"
            f" bounded AS (SELECT * FROM kept QUALIFY"
            f" row_number() OVER (PARTITION BY unit ORDER BY {sample}) <= {self._bind(self.table.max_rows)})"
        )

    def centred(self, column: TableColumn, steps: str) -> str:
        """Return twice the distance of a cell, in `steps`, from the middle of its bounds."""
        return f"2 * {steps} - {self._bind(column.range_steps)}"

    def _bind(self, value: Any) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def _member(self, column: TableColumn) -> str:
        """Return the cell as a member of its closed domain, in text."""
        text = f"CAST({quote(column.name)} AS VARCHAR)"
        listed = f"list_contains({self._bind(list(column.domain))}, {text})"
        return f"CASE WHEN {listed} THEN {text} ELSE {self._bind(column.unknown)} END"

    def _value(self, column: TableColumn) -> str:
        """Return the typed cell to filter by; one with a closed domain is mapped into it first.

        A date is filtered by its period, and one outside the list is neither before nor after another.
        """
        if column.type == "date":
            return f"nullif({self._member(column)}, {self._bind(column.unknown)})"
        cell = self._member(column) if column.domain else quote(column.name)
        return f"TRY_CAST({cell} AS {_SQL_TYPES[column.type]})"

    def _steps(self, column: TableColumn) -> str:
        """Return the measure as whole steps above its lower bound, clamped; NULL where it is missing."""
        cell = quote(column.name)
        if column.type == "bool":
            return f"CAST(TRY_CAST({cell} AS BOOLEAN) AS BIGINT)"
        step = Decimal(column.step or "1")
        low, high = (column.low or 0) * step, (column.high or 0) * step
        number = f"TRY_CAST({cell} AS {_NUMBER})"
        clamped = f"least(greatest({number}, {self._number(low)}), {self._number(high)})"
        # Exact, in units of 1e-9: a division of decimals would pass through floating point. Halves round up.
        units = f"CAST(CAST({clamped} - {self._number(low)} AS DECIMAL(28, 9)) * {10**9}::DECIMAL(10, 0) AS HUGEINT)"
        width = int(step * 10**9)
        steps = f"CAST((2 * {units} + {width}) // {2 * width} AS BIGINT)"
        # least and greatest skip NULL, so a missing cell must be asked for.
        return f"CASE WHEN {number} IS NOT NULL THEN {steps} END"

    def _number(self, value: Decimal | str) -> str:
        return f"CAST({self._bind(str(value))} AS {_NUMBER})"

    def _predicate(self, predicate: Predicate, aliases: dict[str, str]) -> str:
        match predicate:
            case Both():
                return " AND ".join(f"({self._predicate(operand, aliases)})" for operand in predicate.operands)
            case Either():
                return " OR ".join(f"({self._predicate(operand, aliases)})" for operand in predicate.operands)
            case Not():
                return f"NOT ({self._predicate(predicate.operand, aliases)})"
            case IsNull():
                return f"{aliases[predicate.column]} IS NULL"
            case Compare():
                literal = self._literal(predicate.column, predicate.value)
                return f"{aliases[predicate.column]} {predicate.op} {literal}"
            case OneOf():
                values = ", ".join(self._literal(predicate.column, value) for value in predicate.values)
                return f"{aliases[predicate.column]} IN ({values})"

    def _literal(self, name: str, value: str) -> str:
        column = self.table.column(name)
        if column.type in ("string", "date"):
            return self._bind(value)
        return f"CAST({self._bind(value)} AS {_SQL_TYPES[column.type]})"


# The SQL of each kind of statistic of a column whose cells have the given alias.
_FIGURES: Mapping[str, Callable[[_Writer, TableColumn, str], str]] = MappingProxyType(
    {
        "present": lambda writer, column, cell: f"count({cell})",
        "total": lambda writer, column, cell: f"sum({writer.centred(column, cell)})",
    }
)
_MOST = 2**63 - 1
_NUMBER = "DECIMAL(38, 9)"
_SQL_TYPES = {"int": _NUMBER, "decimal": _NUMBER, "bool": "BOOLEAN", "string": "VARCHAR"}
