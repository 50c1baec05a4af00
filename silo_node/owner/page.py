"""The owner's page: policy in words, ledger as charts, requests to approve, the log. Pure: values in, HTML out.

Promises: no script, nothing from other servers, and every value escaped, since other parties write names and questions.
`templates/` has the layout; this module computes the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment

from federation.web.markup import templates
from policies.document.describe import worded_policy
from policies.document.load import printable
from policies.document.policy import Policy
from policies.units import DAY_S, MICRO, when
from silo_node.ledger.events import LogEntry, worded
from silo_node.owner.accounts import Account, Accounts
from silo_node.owner.pending import PendingRequest
from silo_node.profiles import NOTE

_WIDTH, _HEIGHT = 1000, 240
_MIN_DAYS = 7
_DECIDED = 10


@dataclass(frozen=True, slots=True)
class View:
    """The contents of one page."""

    policy: Policy
    accounts: Accounts
    requests: Sequence[PendingRequest]
    rows: Sequence[str]  # the last profile of the rows, in words
    entries: Sequence[LogEntry]  # the last ones, oldest first
    log: str  # the result of an examination of the whole log
    is_log_whole: bool
    visitor: str | None  # who may decide on this page


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the spent, reserved and remaining parts of a limit, as widths; an empty text draws nothing."""

    label: str
    committed: str
    reserved: str  # of both together; the bar of the spent part covers it


@dataclass(frozen=True, slots=True)
class Chart:
    """The spending over time as a step line, its limit, and the forecast at the present pace: SVG paths."""

    box: str
    label: str
    limit: str
    area: str
    line: str
    ahead: str  # empty if the budget does not end at this pace
    axis: str
    limit_rho: str
    first_day: str
    last_day: str


def render(view: View, base: str, csrf: str, nonce: str) -> str:
    """Return the whole page; forms post below `base`, styles carry the nonce of the content security policy."""
    return (
        _templates()
        .get_template("page.html")
        .render(
            view=view,
            base=base,
            csrf=csrf,
            nonce=nonce,
            waiting=[one for one in view.requests if one.status == "waiting"],
            decided=[one for one in view.requests if one.status != "waiting"][-_DECIDED:],
            spendings=[(account.name, part) for account in view.accounts.purposes for part in account.parts],
            policy_in_words=worded_policy(view.policy),
            note=NOTE,
        )
    )


@cache
def _templates() -> Environment:
    return templates(
        "silo_node.owner",
        {
            "bar": _bar,
            "chart": _chart,
            "event": worded,
            "moment": lambda at: when(at).replace("T", " ").removesuffix("Z"),
            "period": _period,
            "printable": printable,
            "rho": _rho,
            "sentence": lambda text: f"{text.capitalize()}.",
            "when": when,
        },
    )


def _period(account: Account) -> str:
    if account.window.startswith("calendar-"):
        return f"this {account.window.removeprefix('calendar-')} since {account.since}"
    return f"{account.window} {account.since}"


def _bar(account: Account) -> Bar:
    limit = max(account.limit or account.spent or 1, account.spent, 1)
    return Bar(
        f"{_rho(account.committed)} spent, {_rho(account.reserved)} set aside, of {_rho(account.limit or 0)}",
        committed=f"{100 * account.committed / limit:.3f}%" if account.committed else "",
        reserved=f"{100 * account.spent / limit:.3f}%" if account.reserved else "",
    )


def _chart(accounts: Accounts) -> Chart:
    limit, now = max(accounts.lifetime.limit or 1, 1), accounts.at / DAY_S
    first = min([day for day, _ in accounts.days] + [now - _MIN_DAYS])
    ends = accounts.forecast.ends_at
    last = max(now, min(ends / DAY_S, now + (now - first)) if ends is not None else now) + (now - first) * 0.02
    top = max(limit, accounts.lifetime.spent) * 1.08

    def x(day: float) -> float:
        return round(_WIDTH * (day - first) / (last - first), 2)

    def y(micro_rho: float) -> float:
        return round(_HEIGHT * (1 - micro_rho / top), 2)

    steps = [f"M0 {y(0)}", *(f"H{x(day)}V{y(spent)}" for day, spent in accounts.days), f"H{x(now)}"]
    before = accounts.days[-1][1] if accounts.days else 0
    ahead = ""
    if ends is not None:
        share = min(1.0, (last - now) / max(ends / DAY_S - now, 1e-9))
        end = before + (limit - before) * share
        ahead = f"M{x(now)} {y(before)}L{x(min(last, ends / DAY_S))} {y(end)}"
    line = "".join(steps)
    return Chart(
        box=f"0 0 {_WIDTH} {_HEIGHT}",
        label=f"spending over time: {_rho(before)} of {_rho(limit)}",
        limit=f"M0 {y(limit)}H{_WIDTH}",
        area=f"{line}V{y(0)}H0Z",
        line=line,
        ahead=ahead,
        axis=f"M0 {y(0)}H{_WIDTH}",
        limit_rho=_rho(limit),
        first_day=when(int(first * DAY_S))[:10],
        last_day=when(int(last * DAY_S))[:10],
    )


def _rho(micro_rho: int) -> str:
    return f"{micro_rho / MICRO:.6f}".rstrip("0").rstrip(".")
