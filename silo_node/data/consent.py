"""The SQL filter that keeps the rows of people who consented to a purpose, or did not object, at one point in time.

It filters the rows of the source itself, before anything is counted or sampled. It reads the decisions anew at every
request, so a withdrawal counts on the very next one. A cell that is no time fails closed: a decision that may have
ended has ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from policies.document.cells import CellRules
from policies.document.policy import IdDifference, Policy
from policies.document.purposes import ConsentColumn, ConsentTable
from silo_node.data.cells import (
    DAY,
    check_readable,
    form,
    id_text,
    loosest,
    person_in,
    present,
    quote,
    text_of,
    time_of,
    time_rules,
    visible,
)
from silo_node.data.locations import (
    LOAD_TIMEOUT_S,
    Location,
    Part,
    Stored,
    check_columns,
    described,
    located,
    location_of,
    misfits_named,
    parts_of,
    prefixed,
    stored_in,
    unreadable,
)
from silo_node.data.postgres import PostgresTable
from silo_node.data.sources import Source, id_rules
from silo_node.errors import SourceError

VIEW = quote("decisions on consent")
_TIME = 'write 2026-10-01T00:00:00Z or nothing, or say how times are written: dates = "%d.%m.%Y" in [consent]'


@dataclass(frozen=True, slots=True)
class ConsentFilter:
    """A condition on the rows of a source, with its parameters."""

    sql: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decisions:
    """A policy's table of decisions on consent as it is read; its view has one row a decision.

    Its columns: person (see `cells.person_of`), purpose, given_at, withdrawn_at and expires_at (seconds since 1970,
    NULL where there is none or no time), is_withdrawn and ends (whether the cell has a text), receipt.
    """

    consent: ConsentTable
    location: Location
    id_form: tuple[IdDifference, ...] | None
    is_strict: bool = True  # a line that does not fit may be an objection

    @property
    def view(self) -> str:
        return VIEW

    @property
    def times(self) -> tuple[str, ...]:
        """The names of the columns with times."""
        found = (self.consent.given_at, self.consent.withdrawn_at, self.consent.expires_at)
        return tuple(name for name in found if name is not None)

    @property
    def required(self) -> frozenset[str]:
        receipts = () if self.consent.receipt_id is None else (self.consent.receipt_id,)
        return frozenset((self.consent.subject, self.consent.purpose, *self.times, *receipts))

    def texts(self, part: Part) -> str:
        """Return the SQL of the texts of the cells of a part, by the names that the policy has for them."""
        formed, kept = [], []
        for name in sorted(self.required):
            rules = self._rules(part, name)
            cell, stored = self.stored(part, name)
            is_id = name == self.consent.subject
            text = id_text(cell, stored, rules) if is_id else text_of(cell, stored, rules)
            formed.append(f"{text} AS {quote(name)}")
            kept.append(f"{present(quote(name), rules)} AS {quote(name)}")
        return f"(SELECT {', '.join(kept)} FROM (SELECT {', '.join(formed)} FROM {part.relation}))"  # noqa: S608

    def stored(self, part: Part, name: str) -> Stored:
        """Return where a column is stored in a part; raises SourceError."""
        found = stored_in(part, name)
        check_readable(f"column {name!r} of {part.name}", found.type)
        return found

    def time(self, part: Part, name: str) -> str:
        """Return the SQL of a time from its text; NULL where the text is no time."""
        return f"epoch({time_of(quote(name), self._rules(part, name))})"

    def person(self, part: Part) -> str:
        """Return the SQL of the person of a decision; NULL where its id can name nobody."""
        subject = self.consent.subject
        return person_in(quote(subject), self.stored(part, subject).type, self.id_form)

    def _rules(self, part: Part, name: str) -> CellRules:
        rules = self.consent.rules
        if name in self.times:
            return time_rules(rules, self.stored(part, name).type)
        return id_rules(rules) if name == self.consent.subject else rules

    def select(self, part: Part) -> str:
        consent = self.consent
        expires, receipt = consent.expires_at, consent.receipt_id
        cells = {
            "person": self.person(part),
            "is_lost": f"{quote(consent.subject)} IS NOT NULL AND {self.person(part)} IS NULL",
            "purpose": visible(quote(consent.purpose)),
            "given_at": self.time(part, consent.given_at),
            "withdrawn_at": self.time(part, consent.withdrawn_at),
            "is_withdrawn": f"{quote(consent.withdrawn_at)} IS NOT NULL",
            "expires_at": "CAST(NULL AS DOUBLE)" if expires is None else self.time(part, expires),
            "ends": "FALSE" if expires is None else f"{quote(expires)} IS NOT NULL",
            "receipt": "CAST(NULL AS VARCHAR)" if receipt is None else quote(receipt),
        }
        listed = ", ".join(f"{sql} AS {name}" for name, sql in cells.items())
        return f"SELECT {listed} FROM {self.texts(part)}"  # noqa: S608

    def written_at(self) -> int | None:
        """Return when they were written, in seconds since 1970; None if nobody can say."""
        return self.location.written_at()


def readings(decisions: Decisions | None) -> tuple[Decisions, ...]:
    """Return what there is to open of a policy's decisions."""
    return () if decisions is None else (decisions,)


def load_consent(connection: duckdb.DuckDBPyConnection, policy: Policy, home: Path) -> Decisions | None:
    """Check the table of decisions and return it; None for another mode. Raises SourceError."""
    decisions = decisions_of(policy, home)
    if decisions is not None:
        check_decisions(connection, decisions)
    return decisions


def decisions_of(policy: Policy, home: Path) -> Decisions | None:
    """Return the table of decisions, of which no row was looked at; None for another mode. Raises SourceError."""
    consent = policy.consent
    if not isinstance(consent, ConsentTable):
        return None
    location = location_of("consent", consent.kind, consent.source, home, consent.csv, consent.pattern, is_whole=True)
    return Decisions(consent, location, policy.privacy_unit.id_form)


def check_decisions(connection: duckdb.DuckDBPyConnection, decisions: Decisions) -> None:
    """Read every cell of the decisions as requests will; raises SourceError."""
    try:
        if isinstance(decisions.location, PostgresTable):
            check_columns([described(decisions.location)], sorted(decisions.required), decisions.stored)
        with located(connection, [decisions], LOAD_TIMEOUT_S):
            parts = parts_of(connection, decisions.location, is_strict=True)
            check_columns(parts, sorted(decisions.required), decisions.stored)
            for part in parts:
                _check_part(connection, decisions, part)
    except duckdb.Error as err:
        raise unreadable("consent", decisions.location, decisions.consent.source, err) from err
    except SourceError as err:
        raise SourceError(prefixed("consent", err.message), err.hint) from err


def _check_part(connection: duckdb.DuckDBPyConnection, decisions: Decisions, part: Part) -> None:
    counts = [f"count({quote(name)}) - count({decisions.time(part, name)})" for name in decisions.times]
    counts.append(f"count({quote(decisions.consent.subject)}) - count({decisions.person(part)})")
    with misfits_named(part):
        (broken,) = connection.execute(f"SELECT {', '.join(counts)} FROM {decisions.texts(part)}").fetchall()  # noqa: S608
    *times, nobody = broken
    for name, count in zip(decisions.times, times, strict=True):
        if count:
            raise SourceError(f"column {name!r} of {part.name} has {count} cells that are no time", _TIME)
    if nobody:
        what = f"column {decisions.consent.subject!r} of {part.name} has {nobody} cells that name nobody"
        raise SourceError(what, "store ids as text or as whole numbers: a float keeps 15 digits only")


def narrowed(policy: Policy, source: Source, purpose: str, columns: Iterable[str] = ()) -> Source:
    """Return a source with these columns, the id column, and the column of consent where the purpose needs one."""
    keys = {policy.privacy_unit.id_column, *columns}
    if policy.consent_column is not None and policy.purposes[purpose].consent != "none":
        keys.add(policy.consent_column)
    return source.narrowed(keys)


def consent_filter(policy: Policy, purpose_name: str, now: int) -> ConsentFilter | None:
    """Return the filter of a purpose at `now` (seconds since 1970); None if it needs neither consent nor objection.

    Its SQL reads the view of the decisions. A consent counts only for the person who is spelled the same. Where the
    policy has no `id_form`, an objection and a withdrawal count for everybody whose id is the same in the loosest form,
    so whether one person is in never depends on the rows of another.
    """
    purpose = policy.purposes[purpose_name]
    if purpose.consent == "none":
        return None
    match policy.consent:
        case ConsentColumn():
            return ConsentFilter(f"{quote(policy.consent.column)} IS TRUE", {})
        case ConsentTable():
            values = [form(value, policy.consent.rules) for value in purpose.consent_values or (purpose_name,)]
            named = {f"consent_value{index}": value for index, value in enumerate(values)}
            unit, decisions = quote(policy.privacy_unit.id_column), decisions_sql(policy.consent, named)
            given = "coalesce(max(given_at) FILTER (WHERE is_valid), '-infinity'::DOUBLE)"
            withdrawn = "coalesce(max(withdrawn_at), '-infinity'::DOUBLE)"
            objected = f"SELECT person FROM {decisions} GROUP BY person HAVING {withdrawn} > {given}"  # noqa: S608
            sql = f"{unit} NOT IN ({objected})"
            if policy.privacy_unit.id_form is None:
                sql = f"{loosest(unit)} NOT IN (SELECT {loosest('person')} FROM ({objected}))"  # noqa: S608
            # A decision whose id can name nobody may be anybody's.
            sql += f" AND NOT EXISTS (SELECT 1 FROM {VIEW} WHERE is_lost)"  # noqa: S608
            if purpose.consent == "opt-in":
                agreed = f"SELECT person FROM {decisions} GROUP BY person HAVING {given} > {withdrawn}"  # noqa: S608
                sql = f"{unit} IN ({agreed}) AND {sql}"
            return ConsentFilter(sql, named | {"consent_now": now})
        case None:
            return ConsentFilter("FALSE", {})  # the policy's own check excludes this


def row_filter(policy: Policy, source: Source, purpose: str, now: int) -> ConsentFilter | None:
    """Return which rows of a source a purpose may use at `now`: of persons who are in, and not too old."""
    return together(consent_filter(policy, purpose, now), recent_filter(source, now))


def recent_filter(source: Source, now: int) -> ConsentFilter | None:
    """Return which rows of a source are not too old at `now`; None if all may be used however old."""
    if source.lookback_days is None:
        return None
    since = {"since_day": datetime.fromtimestamp(now, UTC).date() - timedelta(days=source.lookback_days)}
    return ConsentFilter(f"{quote(DAY)} >= $since_day", since)


def together(one: ConsentFilter | None, other: ConsentFilter | None) -> ConsentFilter | None:
    """Return the condition that both hold; None is that of all rows."""
    if one is None or other is None:
        return one or other
    return ConsentFilter(f"({one.sql}) AND {other.sql}", one.parameters | other.parameters)


def decisions_sql(consent: ConsentTable, parameters: Iterable[str]) -> str:
    """Return the SQL of the decisions for a purpose so far: person, given_at, withdrawn_at (if it happened), is_valid.

    And expires_at and receipt, where the table has them. A time that cannot be read fails closed.
    """
    fold = "lower({})" if consent.rules.case == "ignore" else "{}"
    values = ", ".join(fold.format(f"${name}") for name in parameters if name.startswith("consent_value"))
    withdrawal = "CASE WHEN is_withdrawn THEN coalesce(withdrawn_at, $consent_now) END"
    return (
        f"(SELECT person, given_at, expires_at, receipt,"  # noqa: S608
        f" CASE WHEN {withdrawal} <= $consent_now THEN {withdrawal} END AS withdrawn_at,"
        f" coalesce(given_at <= $consent_now, FALSE) AND (NOT ends OR coalesce(expires_at > $consent_now, FALSE))"
        f" AND coalesce({withdrawal} > $consent_now, TRUE) AS is_valid"
        f" FROM {VIEW} WHERE purpose IN ({values}) AND person IS NOT NULL)"
    )
