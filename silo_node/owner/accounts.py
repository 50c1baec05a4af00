"""The accounts of a silo's ledger for its owner: spent, reserved and left, by limit and analyst, with a forecast.

Pure: charges, policy and clock in, values out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.budget.accountant import epsilon_of
from policies.budget.ledger import ATTO, RunReservation, Spending, window_start
from policies.budget.sampler import rho_delta, sampler_limit
from policies.document.policy import Policy
from policies.units import DAY_S, MICRO, counted, micro_floor, when
from silo_node.ledger.charges import Row

MAX_DAYS = 1000 * 365  # a later end is not shown, and calendars end
FORECAST_DAYS = 90  # the pace is that of the last 90 days, or since the first charge


@dataclass(frozen=True, slots=True)
class Account:
    """The spending under one limit, in micro-rho; without a limit, what is left is unknown."""

    name: str
    committed: int
    reserved: int
    limit: int | None
    window: str = "lifetime"
    since: str = ""
    parts: tuple["Account", ...] = ()  # of each analyst

    @property
    def spent(self) -> int:
        return self.committed + self.reserved

    @property
    def left(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.spent)

    def summary(self) -> dict[str, object]:
        """Return the account as JSON has it, in rho."""
        found: dict[str, object] = {"name": self.name, "window": self.window}
        if self.since:
            found["since"] = self.since
        found |= {"committed": self.committed / MICRO, "reserved": self.reserved / MICRO}
        if self.limit is not None:
            found |= {"limit": self.limit / MICRO, "left": (self.left or 0) / MICRO}
        return found | ({"analysts": [part.summary() for part in self.parts]} if self.parts else {})


@dataclass(frozen=True, slots=True)
class Forecast:
    """When the lifetime budget ends at the present pace."""

    micro_rho_per_day: float
    over_days: int
    ends_at: int | None  # None: not at this pace, or not in a thousand years

    def worded(self) -> str:
        if self.ends_at is None:
            return "hardly anything was spent lately, so the lifetime budget does not end at this pace"
        pace = f"rho {self.micro_rho_per_day / MICRO:.6f} a day over {self.over_days} days"
        return f"at {pace} the lifetime budget ends on {when(self.ends_at)[:10]}"


@dataclass(frozen=True, slots=True)
class Accounts:
    """All accounts of a silo at one time."""

    at: int
    delta: float
    lifetime: Account
    limits: tuple[Account, ...]  # one for each limit of the policy
    purposes: tuple[Account, ...]  # of the whole life, by purpose
    days: tuple[tuple[int, int], ...]  # (day since 1970, micro-rho spent by the end of it), days with charges only
    forecast: Forecast
    sampler_delta: float  # spent on the noise of long answers
    sampler_limit: float
    runs: tuple[RunReservation, ...] = ()  # what training runs have reserved for steps that have not begun

    def epsilon(self, micro_rho: int) -> float:
        """Return the epsilon of `micro_rho`, at the policy's delta less what the noise of long answers may use."""
        return epsilon_of(micro_rho / MICRO, rho_delta(self.delta)) if micro_rho else 0.0


def run_summary(one: RunReservation) -> dict[str, Any]:
    """Return what a run has reserved as JSON has it, in rho."""
    steps = {"steps": one.steps, "to_come": one.parts}
    about = {"run": one.run.hex(), "analyst": one.analyst, "purpose": one.purpose}
    return {**about, **steps, "rho": one.micro_rho / MICRO, "until": when(one.until)}


def run_worded(found: Mapping[str, Any]) -> str:
    """Return in words which run has reserved what `run_summary` returned."""
    steps = f"{found['to_come']} of {counted(found['steps'], 'step')} of run {found['run'][:16]}"
    return f"{steps}, {found['analyst']} for {found['purpose']}, until {found['until'][:10]}"


def accounts_of(
    policy: Policy, rows: Sequence[Row], spent: Spending, now: int, runs: Sequence[RunReservation] = ()
) -> Accounts:
    """Return the accounts at `now`; `spent` has the ledger's own totals, with curves and what `runs` have reserved."""
    limit, lifetime = policy.budget.lifetime_micro, spent.lifetime
    held = [Row(one.until, one.analyst, one.purpose, one.micro_rho, False, one.months) for one in runs]
    counted = [*rows, *held]
    reserved = sum(row.micro_rho for row in counted if not row.is_committed)
    total = Account("all", max(0, lifetime - reserved), reserved, limit)
    names = [*policy.purposes, *(name for name in dict.fromkeys(row.purpose for row in counted))]
    purposes = tuple(
        _account(name, [row for row in counted if row.purpose == name], None, None) for name in dict.fromkeys(names)
    )
    days: dict[int, int] = {}
    for row in sorted(rows, key=lambda one: one.at):
        days[row.at // DAY_S] = days.get(row.at // DAY_S, 0) + row.micro_rho
    running, curve = 0, []
    for day, of_day in days.items():
        running += of_day
        curve.append((day, running))
    return Accounts(
        at=now,
        delta=float(policy.budget.delta),
        lifetime=total,
        limits=tuple(_limits(policy, counted, now)),
        purposes=purposes,
        days=tuple(curve),
        forecast=_forecast(rows, total, now),
        sampler_delta=spent.atto_delta / ATTO,
        sampler_limit=sampler_limit(policy.budget.delta, limit) / ATTO,
        runs=tuple(one for one in runs if one.parts),
    )


def _limits(policy: Policy, rows: Sequence[Row], now: int) -> Iterable[Account]:
    for limit in policy.budget.limits:
        of_purpose = [row for row in rows if row.purpose == limit.purpose]
        most = micro_floor(limit.rho)
        own = None if limit.per_analyst_rho is None else micro_floor(limit.per_analyst_rho)
        if limit.window == "data-month":
            month, within = _fullest_month(of_purpose)
            since = "" if month is None else f"{month // 12:04}-{month % 12 + 1:02}"
            yield _account(limit.purpose, within, most, own, "the fullest data-month", since)
        else:
            start = window_start(limit.window, now)
            within = [row for row in of_purpose if row.at >= start]
            yield _account(limit.purpose, within, most, own, limit.window, when(start)[:10])


def _fullest_month(rows: Sequence[Row]) -> tuple[int | None, list[Row]]:
    """Return the month of data with the highest spending and its charges; None if no charge names a month."""
    begins = {row.months.first for row in rows}
    found = {month: [row for row in rows if row.months.first <= month <= row.months.last] for month in begins}
    if not found:
        return None, []
    month = max(found, key=lambda one: sum(row.micro_rho for row in found[one]))
    return (month or None), found[month]


def _account(
    name: str, rows: Sequence[Row], limit: int | None, own: int | None, window: str = "lifetime", since: str = ""
) -> Account:
    def of(title: str, charges: Sequence[Row], most: int | None) -> Account:
        committed = sum(row.micro_rho for row in charges if row.is_committed)
        reserved = sum(row.micro_rho for row in charges if not row.is_committed)
        return Account(title, committed, reserved, most, window, since)

    analysts = sorted({row.analyst for row in rows})
    parts = tuple(of(analyst, [row for row in rows if row.analyst == analyst], own) for analyst in analysts)
    whole = of(name, rows, limit)
    return Account(whole.name, whole.committed, whole.reserved, limit, window, since, parts)


def _forecast(rows: Sequence[Row], lifetime: Account, now: int) -> Forecast:
    first = min((row.at for row in rows), default=now)
    days = max(1, min(FORECAST_DAYS, math.ceil((now - first) / DAY_S)))
    pace = sum(row.micro_rho for row in rows if row.at >= now - days * DAY_S) / days
    left_days = (lifetime.left or 0) / pace if pace else math.inf
    return Forecast(pace, days, int(now + left_days * DAY_S) if left_days <= MAX_DAYS else None)
