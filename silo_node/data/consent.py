"""Who is in: the SQL that leaves out whom a purpose has no consent of, or who objected, at one clock time.

It filters the rows of the source itself, before anything is counted or sampled, and reads the decisions anew at every
request, so a withdrawal counts on the very next one. What cannot be read as a time fails closed: a decision that may
have ended has ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from policies.document.policy import Policy
from policies.document.purposes import ConsentColumn, ConsentTable
from silo_node.data.mapping import DAY, check_ids, person_id, quote
from silo_node.data.sources import LOAD_TIMEOUT_S, Place, Source, Wanted, connect, opened, place_of, types_of
from silo_node.errors import SourceError

_TIME = "write 2026-10-01T00:00:00Z, or nothing where there is none"


@dataclass(frozen=True, slots=True)
class ConsentFilter:
    """A condition on the rows of a source, with its parameters."""

    sql: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decisions:
    """Where a policy's table of decisions stands, and its columns; nothing of both for another mode of consent."""

    place: Place | None = None
    columns: frozenset[str] = frozenset()
    receipts: frozenset[str] = frozenset()

    @property
    def reader(self) -> str:
        """The SQL that reads them, while their place is `opened`."""
        return "" if self.place is None else self.place.relation

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """What a request reads of them."""
        return () if self.place is None else (Wanted(self.place, self.columns),)

    @property
    def wanted_with_receipts(self) -> tuple[Wanted, ...]:
        """What the owner is shown of them."""
        return () if self.place is None else (Wanted(self.place, self.columns | self.receipts),)

    def written_at(self) -> int | None:
        """Return when they were written, in seconds since 1970; None if nobody can say."""
        return None if self.place is None else self.place.written_at()


def load_consent(policy: Policy, home: Path) -> Decisions:
    """Check the table of decisions and return where it stands; nothing for another mode. Raises SourceError."""
    consent = policy.consent
    if not isinstance(consent, ConsentTable):
        return Decisions()
    place = place_of("consent", consent.kind, consent.source, home)
    found = types_of("consent", place, consent.source)
    times = [name for name in (consent.given_at, consent.withdrawn_at, consent.expires_at) if name is not None]
    receipts = frozenset(() if consent.receipt_id is None else (consent.receipt_id,))
    decisions = Decisions(place, frozenset((consent.subject, consent.purpose, *times)), receipts)
    for name in (consent.subject, consent.purpose, *times, *receipts):
        if name not in found:
            listing = ", ".join(found)
            raise SourceError(f"consent: {consent.source} has no column {name!r} (found: {listing})", "mend either")
    check_ids(f"consent: column {consent.subject!r} of {consent.source}", found[consent.subject])
    try:
        with connect() as connection, opened(connection, decisions.wanted_with_receipts, LOAD_TIMEOUT_S):
            for name in times:
                broken = f"{_cell(name)} IS NOT NULL AND {_time(name)} IS NULL"
                counting = f"SELECT count(*) FROM {decisions.reader} AS decision WHERE {broken}"  # noqa: S608
                ((count,),) = connection.execute(counting).fetchall()
                if count:
                    raise SourceError(f"column {name!r} of {consent.source} holds what is no time", _TIME)
    except duckdb.Error as err:
        reason = str(err).splitlines()[0][:200]
        raise SourceError(f"consent: {consent.source} cannot be read ({reason})", "replace the file") from err
    except SourceError as err:
        raise SourceError(f"consent: {err.message}", err.hint) from err
    return decisions


def narrowed(policy: Policy, source: Source, purpose: str, used: Iterable[str] = ()) -> Source:
    """Return a source with the columns that are used for a purpose, with the person's, and with consent where asked."""
    keys = {policy.privacy_unit.id_column, *used}
    if isinstance(policy.consent, ConsentColumn) and policy.purposes[purpose].consent != "none":
        keys.add(policy.consent.column)
    return source.narrowed(keys)


def consent_filter(policy: Policy, purpose_name: str, reader: str, now: int) -> ConsentFilter | None:
    """Return the filter of a purpose at `now` (seconds since 1970); None if it needs neither consent nor objection."""
    purpose = policy.purposes[purpose_name]
    if purpose.consent == "none":
        return None
    match policy.consent:
        case ConsentColumn():
            return ConsentFilter(f"TRY_CAST({quote(policy.consent.column)} AS BOOLEAN) IS TRUE", {})
        case ConsentTable():
            values = list(purpose.consent_values or (purpose_name,))
            named = {f"consent_value{index}": value for index, value in enumerate(values)}
            decisions = _decisions(policy.consent, reader, named)
            unit = person_id(quote(policy.privacy_unit.id_column))
            given = "coalesce(max(given_at) FILTER (WHERE is_valid), '-infinity'::DOUBLE)"
            withdrawn = "coalesce(max(withdrawn_at), '-infinity'::DOUBLE)"
            if purpose.consent == "opt-in":
                sql = f"{unit} IN (SELECT person FROM {decisions} GROUP BY person HAVING {given} > {withdrawn})"  # noqa: S608
            else:
                objected = f"SELECT person FROM {decisions} GROUP BY person HAVING {withdrawn} > {given}"  # noqa: S608
                sql = f"{unit} NOT IN ({objected})"
            return ConsentFilter(sql, named | {"consent_now": now})
        case None:
            return ConsentFilter("FALSE", {})  # the policy's own check excludes this


def row_filter(policy: Policy, source: Source, purpose: str, reader: str, now: int) -> ConsentFilter | None:
    """Return which rows of a source a purpose may use at `now`: of persons who are in, and not too old."""
    among = consent_filter(policy, purpose, reader, now)
    if source.lookback_days is None:
        return among
    since = {"since_day": datetime.fromtimestamp(now, UTC).date() - timedelta(days=source.lookback_days)}
    recent = f"{quote(DAY)} >= $since_day"
    if among is None:
        return ConsentFilter(recent, since)
    return ConsentFilter(f"({among.sql}) AND {recent}", among.parameters | since)


def _decisions(consent: ConsentTable, reader: str, parameters: Iterable[str], receipt: str = "NULL") -> str:
    """Return the decisions of the purpose so far: person, receipt, given_at, withdrawn_at (if it happened), is_valid.

    And expires_at, where the table has it.
    """
    values = ", ".join(f"${name}" for name in parameters if name.startswith("consent_value"))
    given, withdrawn = _time(consent.given_at), _time(consent.withdrawn_at)
    withdrawal = f"CASE WHEN {_cell(consent.withdrawn_at)} IS NOT NULL THEN coalesce({withdrawn}, $consent_now) END"
    running, expires = "TRUE", ""
    if consent.expires_at is not None:
        expires = f" {_time(consent.expires_at)} AS expires_at,"
        ends = f"coalesce({_time(consent.expires_at)} > $consent_now, FALSE)"
        running = f"({_cell(consent.expires_at)} IS NULL OR {ends})"
    return (
        f"(SELECT {person_id(_cell(consent.subject))} AS person, {given} AS given_at,{expires}"  # noqa: S608
        f" {receipt} AS receipt,"
        f" CASE WHEN {withdrawal} <= $consent_now THEN {withdrawal} END AS withdrawn_at,"
        f" coalesce({given} <= $consent_now, FALSE) AND {running}"
        f" AND coalesce({withdrawal} > $consent_now, TRUE) AS is_valid"
        f" FROM {reader} AS decision WHERE CAST({_cell(consent.purpose)} AS VARCHAR) IN ({values})"
        f" AND {_cell(consent.subject)} IS NOT NULL)"
    )


def _cell(name: str) -> str:
    """Return a column of the decisions: of them alone, or what they lack would be read from the row of the source."""
    return f"decision.{quote(name)}"


def _time(name: str) -> str:
    return f"epoch(TRY_CAST({_cell(name)} AS TIMESTAMPTZ))"
