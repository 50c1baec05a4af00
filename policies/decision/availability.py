"""The rules of time: opening hours, requests a day, and the age of the decisions on consent."""

from collections.abc import Sequence

from policies.decision.case import Case
from policies.decision.denial_codes import CLOCK_SKEW_S, deny
from policies.requests.denials import Denial
from policies.units import DAY_S, HOUR_S, MINUTE_S, Number, counted

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def is_stale_feed(feed_at: int | None, hours: Number, now: int) -> bool:
    """Return whether decisions written at `feed_at` are too old at `now`; an unknown or future time is too old."""
    return feed_at is None or not -CLOCK_SKEW_S <= now - feed_at <= hours * HOUR_S


def consent_feed(case: Case) -> Sequence[Denial]:
    """Are the decisions on consent fresh enough to answer by?"""
    policy, consent = case.policy, case.policy.consent
    if policy.purposes[case.request.purpose].consent == "none" or consent is None:
        return ()
    hours = consent.stale_after_hours
    if hours is None or not is_stale_feed(case.feed_at, hours, case.now):
        return ()
    message = f"the consent feed is older than {hours} hours"
    remedy = f"{case.compiled.ask_contact} to refresh the feed"
    return (deny("CONSENT_STALE", "consent.stale_after_hours", message, remedy),)


def prepared_rows(case: Case) -> Sequence[Denial]:
    """Were the files of a prepared source seen unchanged lately enough to answer from it?"""
    source = case.source.source
    if source.read != "prepared":
        return ()
    if case.rows_at is not None and -CLOCK_SKEW_S <= case.now - case.rows_at <= source.prepared_s:
        return ()
    rule = f"sources.{case.request.table.name}.prepared_for"
    message = f"the rows were prepared longer ago than {source.prepared_for or '1h'}"
    remedy = f"ask again in some minutes; if that does not help, {case.compiled.ask_contact} to see silo.log"
    return (deny("ROWS_STALE", rule, message, remedy),)


def pace(case: Case) -> Sequence[Denial]:
    """Is the silo open now, and is this analyst within the limit of requests a day?"""
    limits, now, asked_today = case.policy.limits, case.now, case.spent.requests
    reasons: list[Denial] = []
    if limits is None:
        return reasons
    if not limits.is_open_at(now % DAY_S // MINUTE_S):
        message = f"requests are answered from {(limits.hours_utc or '').replace('-', ' to ')} UTC"
        reasons.append(deny("HOURS", "limits.hours_utc", message, "ask again within these hours"))
    if limits.days is not None and _DAYS[(now // DAY_S + 3) % 7] not in limits.days:
        message = f"requests are answered on {', '.join(limits.days) or 'no day'} (UTC)"
        reasons.append(deny("DAYS", "limits.days", message, "ask again on one of these days"))
    more = len(case.request.plan.alone)  # each statement is a request of the day
    if limits.requests_per_day is not None and asked_today + more > limits.requests_per_day:
        message = f"you have asked {counted(asked_today, 'request')} today, {limits.requests_per_day} are answered"
        message += f", and {more} more are asked at once" if more > 1 else ""
        reasons.append(deny("REQUESTS_PER_DAY", "limits.requests_per_day", message, "ask again tomorrow (UTC)"))
    return reasons
