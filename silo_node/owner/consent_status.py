"""Who is in by consent right now, told to the owner only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from policies.decision.availability import is_stale_feed
from policies.document.policy import Policy
from policies.document.purposes import ConsentColumn, ConsentTable
from silo_node.data.consent import ConsentFilter, _cell, _decisions, consent_filter, row_filter
from silo_node.data.mapping import person_id, quote
from silo_node.data.sources import Source

Reason = Literal[
    "not asked", "column", "given", "no objection",  # who is in
    "no row", "no decision", "not given yet", "no time", "expired", "withdrawn", "objected",  # who is not
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    """How many persons of a source are in for a purpose, and when the feed of decisions was written."""

    purpose: str
    source: str
    persons: int
    persons_in: int
    feed_at: int | None = None  # seconds since 1970; of a column of decisions only
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class PersonStanding:
    """How many rows of one person are in, and why, and since when."""

    rows: int
    rows_in: int
    reason: Reason
    at: int | None = None  # seconds since 1970
    receipts: tuple[str, ...] = ()  # of all decisions of this person for the purpose


def standings(
    connection: duckdb.DuckDBPyConnection,
    policy: Policy,
    purposes: Iterable[str],
    sources: Mapping[str, Source],
    reader: str,
    now: int,
    decided_at: int | None = None,
) -> list[Standing]:
    """Return who is in at `now`, by purpose and source, through the filter of a request. Raises duckdb.Error.

    `decided_at` is when a table of decisions was written.
    """
    found = []
    unit = quote(policy.privacy_unit.id_column)
    for purpose in purposes:
        for name, source in sources.items():
            among = row_filter(policy, source, purpose, reader, now) or ConsentFilter("TRUE", {})
            persons, persons_in = _count(connection, f"DISTINCT {unit}", among, source.reader, "TRUE", {})
            feed_at, is_stale = None, False
            if policy.purposes[purpose].consent != "none" and policy.consent is not None:
                is_column, hours = isinstance(policy.consent, ConsentColumn), policy.consent.stale_after_hours
                feed_at = source.place.written_at() if is_column else decided_at
                is_stale = hours is not None and is_stale_feed(feed_at, hours, now)
            found.append(Standing(purpose, name, persons, persons_in, feed_at, is_stale))
    return found


def standing_of(
    connection: duckdb.DuckDBPyConnection,
    policy: Policy,
    purpose: str,
    source: Source,
    reader: str,
    now: int,
    person: str,
) -> PersonStanding:
    """Return whether one person is in for a purpose at `now`, through the filter of a request, and why."""
    unit = person_id(quote(policy.privacy_unit.id_column))
    among = consent_filter(policy, purpose, reader, now) or ConsentFilter("TRUE", {})
    whose = {"consent_person": person}
    rows, rows_in = _count(connection, "*", among, source.reader, f"{unit} = $consent_person", whose)
    rule = policy.purposes[purpose].consent
    if not rows:
        return PersonStanding(rows, rows_in, "no row")
    if rule == "none":
        return PersonStanding(rows, rows_in, "not asked")
    if not isinstance(policy.consent, ConsentTable):
        return PersonStanding(rows, rows_in, "column")
    ends = "NULL" if policy.consent.expires_at is None else "expires_at"
    name = policy.consent.receipt_id
    receipt = "NULL" if name is None else f"CAST({_cell(name)} AS VARCHAR)"
    decisions = connection.execute(
        f"SELECT given_at, withdrawn_at, {ends}, is_valid, receipt"  # noqa: S608
        f" FROM {_decisions(policy.consent, reader, among.parameters, receipt)}"
        " WHERE person = $consent_person",
        among.parameters | whose,
    ).fetchall()
    reason, at = _why(rule == "opt-in", rows_in > 0, [one[:4] for one in decisions], now)
    receipts = tuple(sorted({str(one[4]) for one in decisions if one[4] is not None}))
    return PersonStanding(rows, rows_in, reason, None if at is None else int(at), receipts)


def _count(
    connection: duckdb.DuckDBPyConnection,
    what: str,
    among: ConsentFilter,
    reader: str,
    where: str,
    whose: dict[str, Any],
) -> tuple[int, int]:
    sql = f"SELECT count({what}), count({what}) FILTER (WHERE {among.sql}) FROM {reader} WHERE {where}"  # noqa: S608
    ((all_of_them, those_in),) = connection.execute(sql, among.parameters | whose).fetchall()
    return int(all_of_them), int(those_in)


def _why(is_opt_in: bool, is_in: bool, decisions: Sequence[tuple[Any, ...]], now: int) -> tuple[Reason, float | None]:
    """Return the reason of a verdict from all decisions of one person: given, withdrawn, ends, is_valid."""
    withdrawn = max((one for _, one, _, _ in decisions if one is not None), default=None)
    if is_in and is_opt_in:
        return "given", max((given for given, _, _, is_valid in decisions if is_valid), default=None)
    if not is_opt_in:
        return ("no objection", None) if is_in else ("objected", withdrawn)
    if not decisions:
        return "no decision", None
    since = [
        (given, ends)
        for given, _, ends, _ in decisions
        if given is not None and (withdrawn is None or given > withdrawn)
    ]
    ended = max((ends for _, ends in since if ends is not None and ends <= now), default=None)
    if ended is not None:
        return "expired", ended
    if withdrawn is not None:
        return "withdrawn", withdrawn
    coming = min((given for given, _ in since if given > now), default=None)
    return ("no time", None) if coming is None else ("not given yet", coming)
