"""What a silo's owner sees of the rows before anybody asks: cells read, missing, unreadable, clamped and unlisted.

Promise: these figures are exact and come from rows, so they are for the owner's eyes alone and never leave the silo.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path

import duckdb

from policies.document.cells import CellRules
from policies.document.columns import Column
from policies.document.policy import Policy
from policies.document.purposes import ConsentTable
from policies.document.sniff import formats_of
from policies.domains import LongDomain
from policies.requests.capacity import rows_of
from silo_node.data import arrays, dialect
from silo_node.data.cells import NUMBER, listing, loosest, quote, same
from silo_node.data.consent import VIEW, load_consent, readings
from silo_node.data.locations import LOAD_TIMEOUT_S, Part, misfits_named, opened, parts_of
from silo_node.data.sources import Source, source_of
from silo_node.errors import SourceError

PLACES = 3  # how many unreadable cells of a column are named


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """How many cells of one column of a source are what."""

    rows: int = 0
    missing: int = 0
    unreadable: int = 0  # neither missing nor of the declared type; counted as missing in every answer
    below: int = 0  # clamped to the lower bound
    above: int = 0
    unlisted: int = 0  # outside the domain, so counted as its `unknown`

    def plus(self, other: "ColumnProfile") -> "ColumnProfile":
        """Return the sum of two."""
        return ColumnProfile(
            self.rows + other.rows,
            self.missing + other.missing,
            self.unreadable + other.unreadable,
            self.below + other.below,
            self.above + other.above,
            self.unlisted + other.unlisted,
        )


@dataclass(frozen=True, slots=True)
class SourceProfile:
    """The rows of one source: its columns, its persons, and how many rows each has."""

    columns: Mapping[str, ColumnProfile]
    rows: int
    persons: int
    nobody: int  # rows without an id, which no answer counts
    kept: int  # rows that enter an answer at most: `max_rows` of each person
    duplicates: int  # rows that are the same as another in every column that is read
    alike: int  # persons whose id differs from another's by case, leading zeros or blanks only
    histogram: Mapping[str, int]  # persons by their number of rows


@dataclass(frozen=True, slots=True)
class DecisionsProfile:
    """The table of decisions on consent, beside the persons of all sources."""

    decisions: int
    naming_nobody: int  # decisions whose person has no row in any source
    without: int  # persons that no decision names
    other_purposes: int  # decisions for what no purpose of the policy is called
    untimed: int  # decisions that were neither given nor withdrawn at a time
    to_come: int  # decisions of a time that has not come
    ambiguous: int  # objections that take out more than one id, as they may mean each


@dataclass(frozen=True, slots=True)
class Profile:
    """What the owner sees of rows and decisions."""

    sources: Mapping[str, SourceProfile]
    decisions: DecisionsProfile | None


BUCKETS = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 1000), (1001, None))


def profile(connection: duckdb.DuckDBPyConnection, policy: Policy, home: Path) -> Profile:
    """Return the profile of every source of a policy and of its decisions; paths are relative to `home`.

    Raises SourceError where `check_source` would, but for cells that cannot be read: these are counted.
    """
    sources = {name: replace(source_of(policy, name, home), is_strict=True) for name in policy.sources}
    decisions = load_consent(connection, policy, home)
    found = {}
    with opened(connection, [*sources.values(), *readings(decisions)], LOAD_TIMEOUT_S):
        for name, source in sources.items():
            columns = profile_columns(connection, source, parts_of(connection, source.location, is_strict=True))
            found[name] = _profile_source(connection, source, columns, policy.privacy_unit.max_rows)
        told = None if decisions is None else _profile_decisions(connection, policy, sources.values())
    return Profile(found, told)


def _profile_source(
    connection: duckdb.DuckDBPyConnection, source: Source, columns: Mapping[str, ColumnProfile], max_rows: int
) -> SourceProfile:
    unit = quote(source.unit)
    buckets = [
        f"count(*) FILTER (n BETWEEN {low} AND {high})" if high is not None else f"count(*) FILTER (n >= {low})"
        for low, high in BUCKETS
    ]
    persons = f"SELECT {unit} AS person, count(*) AS n FROM {source.view} WHERE {unit} IS NOT NULL GROUP BY 1"  # noqa: S608
    counts = f"SELECT count(*), coalesce(sum(least(n, {max_rows})), 0), {', '.join(buckets)} FROM ({persons})"  # noqa: S608
    ((count, kept, *histogram),) = connection.execute(counts).fetchall()
    rows_sql = f"SELECT count(*), count({unit}) FROM {source.view}"  # noqa: S608
    ((rows, named),) = connection.execute(rows_sql).fetchall()
    wide = ", ".join(
        f"hash({quote(key)}) AS {quote(key)}" for key, column in source.columns.items() if column.type == "array"
    )
    cells = f"* REPLACE ({wide})" if wide else "*"
    distinct = f"SELECT count(*) FROM (SELECT DISTINCT {cells} FROM {source.view} WHERE {unit} IS NOT NULL)"  # noqa: S608
    ((different,),) = connection.execute(distinct).fetchall()
    labels = [f"{low}" if low == high else f"{low}-{high}" if high is not None else f"{low}+" for low, high in BUCKETS]
    told = {label: int(number) for label, number in zip(labels, histogram, strict=True) if number}
    key = loosest(unit)
    alike_sql = (
        f"SELECT {key} AS loose, count(DISTINCT {unit}) AS n FROM {source.view} WHERE {unit} IS NOT NULL GROUP BY 1"  # noqa: S608
    )
    alike = 0
    if source.id_form is None:
        ((alike,),) = connection.execute(f"SELECT coalesce(sum(n), 0) FROM ({alike_sql}) WHERE n > 1").fetchall()  # noqa: S608
    return SourceProfile(columns, rows, count, rows - named, int(kept), named - different, int(alike), told)


def _profile_decisions(
    connection: duckdb.DuckDBPyConnection, policy: Policy, sources: Iterable[Source]
) -> DecisionsProfile:
    persons = " UNION ".join(f"SELECT {quote(one.unit)} AS person FROM {one.view}" for one in sources)  # noqa: S608
    rules = policy.consent.rules if isinstance(policy.consent, ConsentTable) else CellRules()
    asked = [one for one in policy.purposes.items() if one[1].consent != "none"]
    names = [same(word, rules) for name, one in asked for word in one.consent_values or (name,)] or ["''"]
    key = loosest("person") if policy.privacy_unit.id_form is None else "person"
    persons = f"(SELECT DISTINCT person, {key} AS loose FROM ({persons}) WHERE person IS NOT NULL)"  # noqa: S608
    decided = f"(SELECT person, {key} AS loose, is_withdrawn FROM {VIEW} WHERE person IS NOT NULL)"  # noqa: S608
    sql = (
        f"WITH persons AS {persons}, decided AS {decided} SELECT (SELECT count(*) FROM {VIEW}),"  # noqa: S608
        " (SELECT count(*) FROM decided WHERE loose NOT IN (SELECT loose FROM persons)),"
        " (SELECT count(*) FROM persons WHERE loose NOT IN (SELECT loose FROM decided)),"
        " (SELECT count(*) FROM (SELECT DISTINCT person, loose FROM decided WHERE is_withdrawn) WHERE loose IN"
        " (SELECT loose FROM persons GROUP BY loose HAVING count(*) > 1)),"
        f" (SELECT count(*) FROM {VIEW} WHERE coalesce(purpose NOT IN ({', '.join(names)}), TRUE)),"
        f" (SELECT count(*) FROM {VIEW} WHERE given_at IS NULL AND NOT is_withdrawn),"
        f" (SELECT count(*) FROM {VIEW} WHERE least(given_at, withdrawn_at) > epoch(now()))"
    )
    ((decisions, nobody, without, ambiguous, other, untimed, to_come),) = connection.execute(sql).fetchall()
    return DecisionsProfile(decisions, nobody, without, other, untimed, to_come, ambiguous)


def above_declared(policy: Policy, rows: Mapping[str, int], decided: int = 0) -> Iterator[str]:
    """Yield each number of rows, or of decisions, above the one that the policy states: nothing is refused."""
    for name, count in rows.items():
        stated = policy.sources[name].rows_up_to
        most = rows_of(stated)
        if count > most:
            declared = f"rows_up_to = {most}" + (", the number where none is stated" if stated is None else "")
            yield _above(f"sources.{name}", count, "rows", declared, "plans may take longer, and figures may be cut")
    consent = policy.consent
    if isinstance(consent, ConsentTable) and consent.decisions_up_to is not None and decided > consent.decisions_up_to:
        declared = f"decisions_up_to = {consent.decisions_up_to}"
        yield _above("consent", decided, "decisions", declared, "plans may take longer than declared")


def _above(what: str, count: int, counted: str, declared: str, then: str) -> str:
    return f"{what}: {count:,} {counted}, above {declared}: {then}; raise it"


def not_there(policy: Policy, source: str, columns: Mapping[str, ColumnProfile]) -> Iterator[str]:
    """Yield each measure that the policy says is never missing, of which cells are missing or unreadable."""
    for key, one in columns.items():
        count = one.missing + one.unreadable
        if count and not policy.sources[source].columns[key].can_be_missing:
            text = "cells missing or unreadable, though can_be_missing = false: each counts as the middle of the bounds"
            yield f"sources.{source}.columns.{key}: {count:,} {text}"


def source_alarms(policy: Policy, source: str, columns: Mapping[str, ColumnProfile]) -> Iterator[str]:
    """Yield what the owner should know of the cells of a source, and no answer depends on."""
    yield from above_declared(policy, {source: max(one.rows for one in columns.values())})
    yield from not_there(policy, source, columns)


def alarms_in(policy: Policy, profile: Profile) -> list[str]:
    """Return what the owner should know of a profile, and no answer depends on."""
    decided = 0 if profile.decisions is None else profile.decisions.decisions
    found = list(above_declared(policy, {name: one.rows for name, one in profile.sources.items()}, decided))
    for name, one in profile.sources.items():
        found += not_there(policy, name, one.columns)
    return found


def profile_columns(
    connection: duckdb.DuckDBPyConnection, source: Source, parts: Sequence[Part]
) -> dict[str, ColumnProfile]:
    """Return the profile of every column of a source over all its parts. Raises SourceError or duckdb.Error."""
    found = dict.fromkeys(source.columns, ColumnProfile())
    for part in parts:
        with misfits_named(part):
            counted = _profile_part(connection, source, part)
        for key, one in counted.items():
            found[key] = found[key].plus(one)
    return found


def _profile_part(connection: duckdb.DuckDBPyConnection, source: Source, part: Part) -> dict[str, ColumnProfile]:
    plain = _without_zeros(source)
    texts = [f"{quote(key)} IS NOT NULL AS {_has(key)}" for key in plain.columns]
    values = [f"{value} AS {quote(key)}" for key, value in plain.values(part).items()]
    counts, parameters = ["count(*)"], dict[str, list[str]]()
    for key, column in plain.columns.items():
        value, long = quote(key), None
        if isinstance(listed := column.listed, LongDomain):
            long = f"d{len(parameters)}"
            parameters[long] = list(listed)
        counts.append(f"count(*) FILTER (NOT {_has(key)})")
        counts.append(f"count(*) FILTER ({_has(key)} AND {value} IS NULL)")
        counts += [f"count(*) FILTER ({condition})" for condition in _limits(value, column, long)]
    sql = f"SELECT {', '.join(counts)} FROM (SELECT {', '.join((*texts, *values))} FROM {plain.texts(part)})"  # noqa: S608
    (figures,) = connection.execute(sql, parameters).fetchall()
    rows, each = figures[0], iter(figures[1:])
    return {key: ColumnProfile(rows, *(int(next(each)) for _ in range(5))) for key in plain.columns}


def _has(key: str) -> str:
    return quote(f"has {key}")


def _without_zeros(source: Source) -> Source:
    """Return the source with no missing cell counted as 0, so that those can be counted."""
    columns = {
        key: column.model_copy(update={"missing": "exclude"}) if column.missing == "zero" else column
        for key, column in source.columns.items()
    }
    return replace(source, columns=columns)


def _limits(value: str, column: Column, long: str | None) -> tuple[str, str, str]:
    """Return the SQL conditions of a cell below the bounds, above them, and outside the domain.

    `long` is the parameter with the values of a long domain.
    """
    below = above = unlisted = "FALSE"
    if column.bounds is not None:
        low, high = (f"CAST('{Decimal(bound):f}' AS {NUMBER})" for bound in column.bounds)
        below, above = f"{value} < {low}", f"{value} > {high}"
        if column.type == "array":
            below, above = arrays.limits(value, low, high)
    if isinstance(column.domain, tuple):
        listed = listing(str(member) for member in column.domain) if long is None else f"SELECT unnest(${long})"
        unlisted = f"CAST({value} AS VARCHAR) NOT IN ({listed})"
    return below, above, unlisted


def check_cells(
    connection: duckdb.DuckDBPyConnection, what: str, source: Source, parts: Sequence[Part], most: float
) -> dict[str, ColumnProfile]:
    """Return the profile of every column.

    Raises SourceError for every column of which more than a share of `most` cells cannot be read as declared.
    """
    found = profile_columns(connection, source, parts)
    if not any(one.rows for one in found.values()):
        raise SourceError(f"{what}: {source.uri} has no rows", "a source must hold data when it is loaded")
    lines, hints = [], []
    for key, one in found.items():
        if one.unreadable > most * one.rows:
            column = source.columns[key]
            places = list(islice((one for part in parts for one in _places(connection, source, part, key)), PLACES))
            count = f"{one.unreadable} of {one.rows} cells cannot be read as {column.type} (max_unreadable = {most:g})"
            kind = column.type if column.shape is None else f"array of shape {list(column.shape)}"
            lines += [f"{what}: {where}: {text[:60]!r} is no {kind}" for where, text in places]
            lines[-1] += f"; {count}"
            hints.append(remedy(f"sources.{source.name}", key, column, [text for _, text in places], source.rules[key]))
    if lines:
        raise SourceError("\n".join(lines), "; ".join(dict.fromkeys(hints)))
    return found


def _places(connection: duckdb.DuckDBPyConnection, source: Source, part: Part, key: str) -> Iterator[tuple[str, str]]:
    """Yield where the first unreadable cells of a column are, and their texts."""
    plain = _without_zeros(source)
    one = replace(plain, columns={key: plain.columns[key]})
    row, value = "row_number() OVER ()", one.values(part)[key]
    text = f"CAST({quote(key)} AS VARCHAR)"
    if source.columns[key].type == "array":  # no long text of a list that nobody is shown
        text = f"CASE WHEN {value} IS NULL THEN {text} END"
    numbered = f"SELECT {row} AS row, {text} AS text, {value} AS value FROM {one.texts(part)}"  # noqa: S608
    sql = f"SELECT row, text FROM ({numbered}) WHERE text IS NOT NULL AND value IS NULL ORDER BY row LIMIT {PLACES}"  # noqa: S608
    for number, text in connection.execute(sql).fetchall():
        line = None if part.file is None else dialect.line_of(part.file, part.dialect, number)
        where = f"{part.name}, row {number}" if line is None else f"{part.name}, line {line}"
        yield f"{where}, column {source.columns[key].from_ or key!r}", str(text)


def remedy(section: str, key: str, column: Column, texts: Sequence[str], rules: CellRules) -> str:
    """Return what to write into which section of the policy, so that cells with these texts can be read."""
    where = f"[{section}.columns.{key}] of the policy"
    if column.type == "array":
        return (
            f"store {arrays.in_words(column)} in each cell that is there, all finite, or mend shape and of in {where}"
        )
    if column.type == "date":
        formats = formats_of(texts) or ("%d/%m/%Y",)
        return f"say how dates are written: dates = {' or '.join(map(quote, formats))} in {where}"
    if column.type in ("int", "decimal") and all(_is_number(text.replace(".", "").replace(",", ".")) for text in texts):
        mark = ', thousands = "."' if any("." in text for text in texts) else ""
        return f'say how numbers are written: decimal = ","{mark} in {where}'
    if column.type == "int" and all(_is_number(text) for text in texts):
        return f"an int is whole: declare {key} as a decimal with a step in {where}"
    listed = ", ".join(map(quote, dict.fromkeys(text[:60] for text in texts)))
    if column.type == "bool":
        return f"say which texts are true and which are false: true = [...] and false = [...] ({listed}) in {where}"
    known = "".join(f"{quote(text)}, " for text in rules.missing)
    return f"say which texts mean a missing cell: missing = [{known}{listed}] in {where}"


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except ArithmeticError:
        return False
