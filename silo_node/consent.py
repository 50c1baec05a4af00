"""Who is in: the SQL that leaves out whom a purpose has no consent of, or who objected, at one clock time.

It filters the rows of the source itself, before anything is counted or sampled, and reads the decisions anew at every
request, so a withdrawal counts on the very next one. What cannot be read as a time fails closed: a decision that may
have ended has ended.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from policies.model import ConsentColumn, ConsentTable, Policy
from silo_node.errors import SourceError
from silo_node.sources import connect, find_files, quote, reader_of


@dataclass(frozen=True, slots=True)
class ConsentFilter:
    """A condition on the rows of a source, with its parameters."""

    sql: str
    parameters: dict[str, Any]


def load_consent(policy: Policy, home: Path) -> str:
    """Check the file of decisions and return the SQL that reads it; nothing for another mode. Raises SourceError."""
    consent = policy.consent
    if not isinstance(consent, ConsentTable):
        return ""
    reader = reader_of(consent.source.rsplit(".", 1)[1], find_files("consent", consent.source, home))
    times = [name for name in (consent.given_at, consent.withdrawn_at, consent.expires_at) if name is not None]
    try:
        with connect() as connection:
            found = [row[0] for row in connection.execute(f"DESCRIBE FROM {reader}").fetchall()]
            for name in (consent.subject, consent.purpose, *times):
                if name not in found:
                    listing = ", ".join(found)
                    raise SourceError(
                        f"consent: {consent.source} has no column {name!r} (found: {listing})", "mend either"
                    )
            for name in times:
                cell = quote(name)
                broken = f"SELECT count(*) FROM {reader} WHERE {cell} IS NOT NULL AND {_time(name)} IS NULL"  # noqa: S608
                row = connection.execute(broken).fetchone()
                if row is None or row[0]:
                    raise SourceError(
                        f"consent: column {name!r} of {consent.source} holds what is no time",
                        "write 2026-10-01T00:00:00Z",
                    )
    except duckdb.Error as err:
        reason = str(err).splitlines()[0][:200]
        raise SourceError(f"consent: {consent.source} cannot be read ({reason})", "replace the file") from err
    return reader


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
            decisions = _decisions(policy.consent, reader)
            unit = f"CAST({quote(policy.privacy_unit.id_column)} AS VARCHAR)"
            given = "coalesce(max(given_at) FILTER (WHERE is_valid), '-infinity'::DOUBLE)"
            withdrawn = "coalesce(max(withdrawn_at), '-infinity'::DOUBLE)"
            if purpose.consent == "opt-in":
                sql = f"{unit} IN (SELECT person FROM {decisions} GROUP BY person HAVING {given} > {withdrawn})"  # noqa: S608
            else:
                objected = f"SELECT person FROM {decisions} GROUP BY person HAVING {withdrawn} > {given}"  # noqa: S608
                sql = f"{unit} NOT IN ({objected})"
            return ConsentFilter(sql, {"consent_values": values, "consent_now": now})
        case None:
            return ConsentFilter("FALSE", {})  # the policy's own check excludes this


def _decisions(consent: ConsentTable, reader: str) -> str:
    """Return the decisions of the purpose so far: person, given_at, withdrawn_at (if it has happened), is_valid."""
    given, withdrawn = _time(consent.given_at), _time(consent.withdrawn_at)
    raw_withdrawn = quote(consent.withdrawn_at)
    withdrawal = f"CASE WHEN {raw_withdrawn} IS NOT NULL THEN coalesce({withdrawn}, $consent_now) END"
    running = "TRUE"
    if consent.expires_at is not None:
        raw_expires = quote(consent.expires_at)
        running = f"({raw_expires} IS NULL OR coalesce({_time(consent.expires_at)} > $consent_now, FALSE))"
    return (
        f"(SELECT CAST({quote(consent.subject)} AS VARCHAR) AS person, {given} AS given_at,"  # noqa: S608
        f" CASE WHEN {withdrawal} <= $consent_now THEN {withdrawal} END AS withdrawn_at,"
        f" coalesce({given} <= $consent_now, FALSE) AND {running}"
        f" AND coalesce({withdrawal} > $consent_now, TRUE) AS is_valid"
        f" FROM {reader} WHERE list_contains($consent_values, CAST({quote(consent.purpose)} AS VARCHAR))"
        f" AND {quote(consent.subject)} IS NOT NULL)"
    )


def _time(name: str) -> str:
    return f"epoch(TRY_CAST({quote(name)} AS TIMESTAMPTZ))"
