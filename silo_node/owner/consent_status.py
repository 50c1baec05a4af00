"""How many persons' rows count by consent at one moment, and why, for the owner only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from policies.decision.availability import is_stale_feed
from policies.document.policy import Policy
from policies.document.purposes import ConsentColumn, ConsentTable
from silo_node.data.cells import loosest, person_named, quote
from silo_node.data.consent import ConsentFilter, consent_filter, decisions_sql, row_filter
from silo_node.data.sources import Source

Reason = Literal[
    "not asked", "column", "given", "no objection",  # the person's rows count
    "no row", "no decision", "not given yet", "no time", "expired", "withdrawn", "objected",  # they do not count
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ConsentCounts:
    """How many persons of a source count for a purpose, and when the feed of decisions was written."""

    purpose: str
    source: str
    persons: int
    persons_in: int
    feed_at: int | None = None  # seconds since 1970; of a column of decisions only
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class PersonConsent:
    """How many rows of one person count, why, and since when."""

    rows: int
    rows_in: int
    reason: Reason
    at: int | None = None  # seconds since 1970
    receipts: tuple[str, ...] = ()  # of all decisions of this person for the purpose


def consent_counts(
    connection: duckdb.DuckDBPyConnection,
    policy: Policy,
    purposes: Iterable[str],
    sources: Mapping[str, Source],
    now: int,
    decided_at: int | None = None,
) -> list[ConsentCounts]:
    """Return how many persons count at `now`, by purpose and source, with the filter of requests. Raises duckdb.Error.

    `decided_at` is when a table of decisions was written.
    """
    found = []
    unit = quote(policy.privacy_unit.id_column)
    for purpose in purposes:
        for name, source in sources.items():
            condition = row_filter(policy, source, purpose, now) or ConsentFilter("TRUE", {})
            persons, persons_in = _count(connection, f"DISTINCT {unit}", condition, source.view, "TRUE", {})
            feed_at, is_stale = None, False
            if policy.purposes[purpose].consent != "none" and policy.consent is not None:
                is_column, hours = isinstance(policy.consent, ConsentColumn), policy.consent.stale_after_hours
                feed_at = source.location.written_at() if is_column else decided_at
                is_stale = hours is not None and is_stale_feed(feed_at, hours, now)
            found.append(ConsentCounts(purpose, name, persons, persons_in, feed_at, is_stale))
    return found


def status_of_person(
    connection: duckdb.DuckDBPyConnection,
    policy: Policy,
    purpose: str,
    source: Source,
    now: int,
    person: str,
) -> PersonConsent:
    """Return whether one person's rows count for a purpose at `now`, with the filter of requests, and why."""
    unit = quote(policy.privacy_unit.id_column)
    condition = consent_filter(policy, purpose, now) or ConsentFilter("TRUE", {})
    whose, form = {"consent_person": person}, policy.privacy_unit.id_form
    asked = person_named("$consent_person", form)
    rows, rows_in = _count(connection, "*", condition, source.view, f"{unit} = {asked}", whose)
    rule = policy.purposes[purpose].consent
    if not rows:
        return PersonConsent(rows, rows_in, "no row")
    if rule == "none":
        return PersonConsent(rows, rows_in, "not asked")
    if not isinstance(policy.consent, ConsentTable):
        return PersonConsent(rows, rows_in, "column")
    # Where no form is set, an objection under another spelling counts too.
    is_theirs = f"person = {asked}" if form is not None else f"{loosest('person')} = {loosest(asked)}"
    decisions = connection.execute(
        "SELECT given_at, withdrawn_at, expires_at, is_valid, receipt"  # noqa: S608
        f" FROM {decisions_sql(policy.consent, condition.parameters)} WHERE {is_theirs}",
        condition.parameters | whose,
    ).fetchall()
    reason, at = _why(rule == "opt-in", rows_in > 0, [one[:4] for one in decisions], now)
    receipts = tuple(sorted({str(one[4]) for one in decisions if one[4] is not None}))
    return PersonConsent(rows, rows_in, reason, None if at is None else int(at), receipts)


def _count(
    connection: duckdb.DuckDBPyConnection,
    what: str,
    condition: ConsentFilter,
    reader: str,
    where: str,
    whose: dict[str, Any],
) -> tuple[int, int]:
    sql = f"SELECT count({what}), count({what}) FILTER (WHERE {condition.sql}) FROM {reader} WHERE {where}"  # noqa: S608
    ((all_of_them, those_in),) = connection.execute(sql, condition.parameters | whose).fetchall()
    return int(all_of_them), int(those_in)


def _why(is_opt_in: bool, is_in: bool, decisions: Sequence[tuple[Any, ...]], now: int) -> tuple[Reason, float | None]:
    """Return why a person's rows count or not, from all decisions of that person: given, withdrawn, ends, is_valid."""
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
