"""The owner's page: policy in words, ledger as charts, requests to approve, the log. Pure: values in, HTML out.

No script, nothing from elsewhere, and every string escaped, since names and questions come from strangers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from policies.document.describe import worded_policy, worded_request
from policies.document.policy import Policy
from policies.units import MICRO
from silo_node.accounts import DAY_S, Account, Accounts
from silo_node.log import Entry, when, worded
from silo_node.markup import Html, tag
from silo_node.owner.pending import PendingRequest

_WIDTH, _HEIGHT = 1000, 240
_MIN_DAYS = 7


@dataclass(frozen=True, slots=True)
class View:
    """What one page shows."""

    policy: Policy
    accounts: Accounts
    requests: Sequence[PendingRequest]
    entries: Sequence[Entry]  # the last ones, oldest first
    log: str  # what an examination of the whole log came to
    is_log_whole: bool
    visitor: str | None  # who may decide on this page


def render(view: View, base: str, csrf: str, nonce: str) -> Html:
    """Return the whole page; forms post below `base`, styles carry the nonce of the content security policy."""
    title = f"{view.policy.silo.id} · Consilo"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(_style()), nonce=nonce),
    )
    body = tag(
        "body",
        _header(view),
        tag(
            "main",
            _ledger(view.accounts),
            _requests(view, base, csrf),
            _policy(view.policy),
            _log(view),
        ),
    )
    return Html("<!doctype html>" + tag("html", head, body, lang="en"))


def _style() -> str:
    return files("silo_node").joinpath("console.css").read_text()


def _header(view: View) -> Html:
    policy = view.policy
    version = f"policy version {policy.policy.version}" if policy.policy else "policy without a version"
    waiting = sum(one.status == "waiting" for one in view.requests)
    links = (("ledger", "Ledger"), ("requests", f"Requests ({waiting})"), ("policy", "Policy"), ("log", "Log"))
    return tag(
        "header",
        tag(
            "div", tag("h1", policy.silo.controller), tag("p", f"silo {policy.silo.id}, {version}, {policy.mode} mode")
        ),
        tag("nav", [tag("a", text, href=f"#{name}") for name, text in links]),
        tag("p", f"as of {when(view.accounts.at)}", class_="quiet"),
    )


def _ledger(accounts: Accounts) -> Html:
    lifetime, limit = accounts.lifetime, accounts.lifetime.limit or 0
    figures = (
        ("spent for ever", _rho(lifetime.committed), f"epsilon {accounts.epsilon(lifetime.committed):.2f}"),
        ("set aside", _rho(lifetime.reserved), "for rounds that are running"),
        ("left", _rho(lifetime.left or 0), f"of {_rho(limit)}, epsilon {accounts.epsilon(limit):.2f}"),
    )
    return tag(
        "section",
        tag("h2", "Ledger"),
        tag("p", f"In rho, for one person over the whole life of the silo; epsilon at delta {accounts.delta:g}."),
        tag("div", [_figure(*figure) for figure in figures], class_="figures"),
        _bar(lifetime),
        _chart(accounts),
        tag("p", accounts.forecast.worded().capitalize() + "."),
        tag("div", [_limit(one) for one in accounts.limits], class_="cards") if accounts.limits else "",
        tag("h3", "By purpose and analyst, over the whole life"),
        _shares(accounts),
        id="ledger",
    )


def _figure(name: str, value: str, note: str) -> Html:
    return tag("div", tag("p", name), tag("strong", value), tag("p", note, class_="quiet"), class_="figure")


def _limit(account: Account) -> Html:
    since = (
        f" since {account.since}" if account.since and account.window.startswith("calendar") else f" {account.since}"
    )
    window = account.window.removeprefix("calendar-")
    return tag(
        "div",
        tag("h3", account.name),
        tag(
            "p",
            f"this {window}{since}" if account.window.startswith("calendar") else f"{window}{since}",
            class_="quiet",
        ),
        _bar(account),
        tag("p", f"{_rho(account.spent)} of {_rho(account.limit or 0)}, {_rho(account.left or 0)} left"),
        [_part(part) for part in account.parts],
        class_="card",
    )


def _part(part: Account) -> Html:
    text = f"{part.name}: {_rho(part.spent)}"
    if part.limit is not None:
        text += f" of {_rho(part.limit)}, {_rho(part.left or 0)} left"
    return tag("div", tag("p", text, class_="small"), _bar(part) if part.limit is not None else "", class_="part")


def _shares(accounts: Accounts) -> Html:
    rows = [(account.name, part) for account in accounts.purposes for part in account.parts]
    if not rows:
        return tag("p", "Nothing was spent yet.", class_="quiet")
    names = [tag("th", text, scope="col") for text in ("purpose", "analyst")]
    figures = [tag("th", text, scope="col", class_="number") for text in ("spent", "set aside")]
    head = tag("tr", names, figures)
    body = [
        tag(
            "tr",
            tag("td", purpose),
            tag("td", part.name),
            tag("td", _rho(part.committed), class_="number"),
            tag("td", _rho(part.reserved), class_="number"),
        )
        for purpose, part in rows
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="scroll")


def _bar(account: Account) -> Html:
    """Return a bar of what is spent, set aside and left of a limit."""
    limit = max(account.limit or account.spent or 1, account.spent, 1)
    committed, reserved = 100 * account.committed / limit, 100 * account.reserved / limit
    label = f"{_rho(account.committed)} spent, {_rho(account.reserved)} set aside, of {_rho(account.limit or 0)}"
    return tag(
        "svg",
        tag("title", label),
        tag("rect", width="100%", height="12", rx="3", class_="left"),
        tag("rect", width=f"{committed + reserved:.3f}%", height="12", rx="3", class_="reserved") if reserved else "",
        tag("rect", width=f"{committed:.3f}%", height="12", rx="3", class_="spent") if committed else "",
        class_="bar",
        height="12",
        role="img",
    )


def _chart(accounts: Accounts) -> Html:
    """Return the spending over time as a line of steps, its limit, and how it goes on at the present pace."""
    limit, now = max(accounts.lifetime.limit or 1, 1), accounts.at / DAY_S
    first = min([day for day, _ in accounts.days] + [now - _MIN_DAYS])
    ends = accounts.forecast.ends_at
    last = max(now, min(ends / DAY_S, now + (now - first)) if ends is not None else now) + (now - first) * 0.02
    top = max(limit, accounts.lifetime.spent) * 1.08

    def x(day: float) -> float:
        return round(_WIDTH * (day - first) / (last - first), 2)

    def y(micro_rho: float) -> float:
        return round(_HEIGHT * (1 - micro_rho / top), 2)

    steps, before = [f"M0 {y(0)}"], 0
    for day, spent in accounts.days:
        steps.append(f"H{x(day)}V{y(spent)}")
        before = spent
    steps.append(f"H{x(now)}")
    ahead = ""
    if ends is not None:
        share = min(1.0, (last - now) / max(ends / DAY_S - now, 1e-9))
        end = before + (limit - before) * share
        ahead = tag("path", d=f"M{x(now)} {y(before)}L{x(min(last, ends / DAY_S))} {y(end)}", class_="ahead")
    drawing = tag(
        "svg",
        tag("title", f"spending over time: {_rho(before)} of {_rho(limit)}"),
        tag("path", d=f"M0 {y(limit)}H{_WIDTH}", class_="limit"),
        tag("path", d="".join(steps) + f"V{y(0)}H0Z", class_="area"),
        tag("path", d="".join(steps), class_="line"),
        ahead,
        tag("path", d=f"M0 {y(0)}H{_WIDTH}", class_="axis"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        class_="chart",
        role="img",
    )
    dates = tag(
        "div",
        tag("span", when(int(first * DAY_S))[:10]),
        tag("span", f"limit {_rho(limit)}", class_="key limit"),
        tag("span", "spent", class_="key spent"),
        tag("span", "at this pace", class_="key ahead") if ahead else "",
        tag("span", when(int(last * DAY_S))[:10]),
        class_="dates",
    )
    return tag("figure", drawing, dates)


def _requests(view: View, base: str, csrf: str) -> Html:
    waiting = [one for one in view.requests if one.status == "waiting"]
    decided = [one for one in view.requests if one.status != "waiting"][-10:]
    note = f"You decide as {view.visitor}." if view.visitor else "Start the page with --as and --key to decide here."
    return tag(
        "section",
        tag("h2", "Requests to approve"),
        tag("p", note if waiting else "No request waits."),
        [_card(one, view.visitor, base, csrf) for one in waiting],
        tag(
            "details",
            tag("summary", f"Decided or expired ({len(decided)})"),
            [_card(one, None, "", "") for one in decided],
        )
        if decided
        else "",
        id="requests",
    )


def _card(one: PendingRequest, visitor: str | None, base: str, csrf: str) -> Html:
    facts = (
        ("price", f"rho {_rho(one.micro_rho)}"),
        ("asked", when(one.asked_at)),
        ("expires", when(one.request.expires_at)),
        ("may decide", ", ".join(one.people) or "nobody"),
        ("standing", one.worded()),
        ("name", one.name),
    )
    form: Html | str = ""
    if visitor in one.people:
        fields = (
            tag("input", type="hidden", name=name, value=value)
            for name, value in (("request", one.subject.hex()), ("csrf", csrf))
        )
        buttons = (
            tag("button", "Approve", name="decision", value="approve", class_="yes"),
            tag("button", "Reject", name="decision", value="reject", class_="no"),
        )
        form = tag("form", fields, buttons, method="post", action=f"{base}decide")
    return tag(
        "article",
        tag("h3", f"{one.request.analyst} for {one.request.purpose}"),
        tag("p", worded_request(one.request), class_="question"),
        tag("dl", [(tag("dt", name), tag("dd", value)) for name, value in facts]),
        form,
        class_=f"card {one.status}",
    )


def _policy(policy: Policy) -> Html:
    parts = [
        tag("div", tag("h3", heading), tag("ul", [tag("li", sentence) for sentence in sentences]), class_="card")
        for heading, sentences in worded_policy(policy)
    ]
    return tag("section", tag("h2", "Policy in words"), tag("div", parts, class_="cards"), id="policy")


def _log(view: View) -> Html:
    rows = [
        tag(
            "tr",
            tag("td", str(entry.seq), class_="number"),
            tag("td", when(entry.at).replace("T", " ").removesuffix("Z")),
            tag("td", entry.event.kind),
            tag("td", worded(entry.event)),
        )
        for entry in reversed(view.entries)
    ]
    head = tag(
        "tr",
        tag("th", "entry", scope="col", class_="number"),
        [tag("th", text, scope="col") for text in ("when (UTC)", "kind", "what")],
    )
    return tag(
        "section",
        tag("h2", "Log"),
        tag("p", view.log, class_="good" if view.is_log_whole else "bad"),
        tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="scroll log", tabindex="0"),
        id="log",
    )


def _rho(micro_rho: int) -> str:
    return f"{micro_rho / MICRO:.6f}".rstrip("0").rstrip(".")
