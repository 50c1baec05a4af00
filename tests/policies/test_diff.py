"""What the comparison of two versions calls closing never allows what was refused, whatever the policy and request."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from crypto.keys import Secret, SigningKey
from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import digest_of
from policies.budget.ledger import Months, Spending, WindowSpending
from policies.decision.approvals import subject_of
from policies.decision.budget_rules import limits_of, months_of
from policies.decision.case import Jurisdictions
from policies.decision.decide import decide
from policies.document.catalogue import published
from policies.document.consistency import problems
from policies.document.diff import PolicyChange, compare, loosens
from policies.document.load import parse
from policies.document.policy import Aggregators, Policy
from policies.requests.approval import StoredVerdict
from policies.requests.logistic import LogisticStep
from policies.requests.predicates import Compare
from policies.requests.request import Request
from policies.requests.training import START as START_OF_RUN
from tests.harness.example_policy import AGE, COLUMNS, NOW, POLICY, SMOKER, Edit, edited, plan, policy, request, table
from tests.policies.test_decide import BORDERLINE, as_defined_by

KEYS = {name: SigningKey(Secret(bytes([number]) * 32)) for number, name in enumerate(("dpo", "ciso", "clerk"))}
PEOPLE = {name: f'[people.{name}]\nkey = "{key.public}"\n' for name, key in KEYS.items()}
RICH = (
    POLICY.replace(
        'computations = ["query"]',
        'consent = "opt-out"\ncomputations = ["query", "logistic-regression"]\nrecipients_in = ["NO", "EU"]',
        1,
    )
    .replace("max_rows  = 2", "max_rows  = 2\nmax_groups = 2", 1)
    .replace("max_groups     = 12", "max_groups     = 40", 1)
    .replace("until    = 2036-01-01T00:00:00Z", 'until    = 2036-01-01T00:00:00Z\njurisdiction = "EU-DE"', 1)
    .replace('unknown = "unknown" }', 'unknown = "unknown", sole_dimension = true }', 1)
    .replace('unit = "day" }', 'unit = "day", can_be_missing = false }', 1)
    .replace('"filter"], bounds = [0, 110]', '"filter", "feature"], bounds = [0, 110]')
    .replace('"sensitive", roles = ["measure", "filter"]', '"sensitive", roles = ["measure", "filter", "label"]')
    .replace('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "day"\nlookback_days = 60', 1)
    .replace("lookback_days = 60", "lookback_days = 60\nrows_up_to = 1048576", 1)
    .replace(
        "diary  =",
        'day = { type = "date", class = "internal", roles = ["dimension", "filter"], granularity = "week" }\ndiary  =',
        1,
    )
    .replace(
        "[purposes.health-research]",
        """[sources.registry]
release = "exact"
kind = "parquet"
uri = "registry.parquet"
rows_up_to = 1024
[sources.registry.columns]
patient_id = { type = "string", class = "identifier", roles = [] }
age = { type = "int", class = "internal", roles = ["feature"], bounds = [0, 110] }
smoker = { type = "bool", class = "sensitive", roles = ["label"] }
[purposes.health-research]""",
        1,
    )
    + """
[consent]
mode = "table"
source = "decisions.csv"
subject = "person"
purpose = "purpose"
given_at = "given"
withdrawn_at = "withdrawn"
expires_at = "ends"
stale_after_hours = 24
decisions_up_to = 1048576
[compute]
seconds = 100
fixed_seconds = 10
row_nanoseconds = 3000
decision_nanoseconds = 1000
[training]
max_rounds = 5
clip_norm = 10
dp = "optional"
max_rho_per_run = 0.1
[[budget.limits]]
purpose = "health-research"
window = "calendar-week"
rho = 0.5
per_analyst_rho = 0.2
[[budget.limits]]
purpose = "health-research"
window = "data-month"
rho = 0.3
[limits]
hours_utc = "06:00-20:00"
days = ["mon", "tue", "wed", "thu", "fri"]
requests_per_day = 5
[[approvals]]
when = { purpose = "health-research", rho_at_least = 0.05 }
need = 1
of = ["dpo", "ciso"]
expires_hours = 24
[[approvals]]
when = { kind = "training" }
need = 2
of = ["dpo", "ciso", "clerk"]
expires_hours = 24
[retention]
results_days = 30
"""
    + "".join(PEOPLE.values())
)  # fmt: skip
START = parse(RICH.encode(), "rich.toml")
PLACES = Jurisdictions(dict.fromkeys(("s0", "s1", "s2", "s3"), "NO"), {"hub": "EU-SE"})  # s4 is nowhere
NAMING = [("sources",), ("columns",), ("purposes",), ("analysts",), ("people",)]
REGION = '"internal", roles = ["filter"]'
OTHERS: dict[str, tuple[str | None, ...]] = {  # what a choice could be instead
    "06:00-20:00": ("07:00-09:00", "20:00-06:00", None),
    "week": ("day", "month", "quarter", None),
    "opt-out": ("opt-in", "none"),
    "optional": ("required",),
    "private": ("exact",),
    "exact": ("private",),
    "parquet": ("csv", "duckdb"),
    "data-month": ("calendar-month",),
    "table": ("column",),
    "ends": (None,),
    "distributed": ("local-full",),
    "training": ("query", None),
}


def candidates(value: Any) -> Iterator[Any]:
    """Yield other values that a value could have."""
    match value:
        case bool():
            yield not value
        case int() | Decimal():
            yield from (value + 1, value * 2, value - 1, value / 2 if isinstance(value, Decimal) else value // 2, None)
        case datetime():
            yield from (value - timedelta(days=5000), value + timedelta(days=400))
        case tuple():
            yield from (value[:index] + value[index + 1 :] for index in range(len(value)))
            yield from (
                (*value, more) for more in ("count", "sum", "query", "NO", "SE", "sat", "model", "label", "dpo")
            )
            yield None
            if len(value) == 2 and all(isinstance(one, int) for one in value):
                yield from ((value[0] + 1, value[1] - 1), (value[0] - 1, value[1]))
        case str() if value in OTHERS:
            yield from OTHERS[value]
        case None:
            yield from (1, 30, ("NO",), "NO", ("a", "b"))


def steps(document: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every change of one place in a document."""
    if isinstance(document, dict):
        for key, value in document.items():
            if path[-1:] in NAMING or value is None or path == ():
                yield (*path, key), KeyError  # gone
            yield from steps(value, (*path, key))
    elif isinstance(document, tuple) and document and all(isinstance(one, dict) for one in document):
        for index, one in enumerate(document):
            yield (*path, str(index)), KeyError
            yield from steps(one, (*path, str(index)))
    else:
        for other in candidates(document):
            yield path, other


def put(node: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(node, tuple):
        index = int(path[0])
        changed = () if value is KeyError and len(path) == 1 else (put(node[index], path[1:], value),)
        return (*node[:index], *changed, *node[index + 1 :])
    if value is KeyError and len(path) == 1:
        return {key: one for key, one in node.items() if key != path[0]}
    return {**node, path[0]: put(node[path[0]], path[1:], value)}


def dump(of: Policy) -> dict[str, Any]:
    found: dict[str, Any] = of.model_dump(by_alias=True)
    return found


def changed(document: dict[str, Any], path: tuple[str, ...], value: Any) -> Policy | None:
    """Return the policy with one place changed; None if it could not stand."""
    try:
        found = put(document, path, value)
        return None if list(problems(found)) else Policy.model_validate(found)
    except (ValidationError, TypeError):
        return None


@cache
def neighbours() -> list[Policy]:
    document = dump(START)
    found = (changed(document, path, value) for path, value in steps(document))
    return [one for one in found if one is not None]


@cache
def neighbours_of_another_day() -> list[Policy]:
    day = START.sources["visits"].columns["day"]
    sources = ((one, one.sources.get("visits")) for one in neighbours())
    return [one for one, source in sources if source and "day" in source.columns and source.columns["day"] != day]


class Moment(NamedTuple):
    """What a silo judges by beside policy and request."""

    spent: int
    hour: int
    feed_hours: int | None  # how old the decisions on consent are
    said: tuple[tuple[str, str, int], ...]  # who said what, hours ago

    @property
    def now(self) -> int:
        return NOW + 3600 * self.hour


MOMENTS = st.builds(
    Moment,
    spent=st.sampled_from([0, 0, 0, 0, 0, 3, 100_000, 190_000, 299_000, 490_000, 990_000]),
    hour=st.sampled_from([0, 0, 0, 0, 0, 3, 12]),
    feed_hours=st.sampled_from([1, 1, 1, 1, 1, 25, None]),
    said=st.just((("dpo", "approve", 1), ("clerk", "approve", 0)))
    | st.lists(st.tuples(st.sampled_from(list(KEYS)), st.sampled_from(["approve", "approve", "reject"]),
                         st.sampled_from([0, 1, 25])), max_size=4).map(tuple),
)  # fmt: skip
OLD_DATA_S = 50 * 24 * 3600  # so old is the month of which much was spent


def judged(by: Policy, asked: Request, moment: Moment) -> bool:
    """Tell whether a policy allows a request."""
    now, spent, subject = moment.now, moment.spent, subject_of(asked, digest_of(asked))
    day = datetime.fromtimestamp(now - OLD_DATA_S, UTC).date()
    used = [
        0 if isinstance(one.since, Months) and one.since.first > Months.between(day, day).first else spent
        for one in limits_of(by, asked.purpose, now, months_of(by, asked, now))
    ]
    spending = Spending(
        spent, tuple(WindowSpending(one, one // 2) for one in used), spent % 3 * 9_000, requests=spent % 7
    )
    verdicts = [
        StoredVerdict.signed(
            who, KEYS[who], "north", subject, "approve" if said == "approve" else "reject", now - 3600 * ago
        )
        for who, said, ago in moment.said
    ]
    feed_at = None if moment.feed_hours is None else now - 3600 * moment.feed_hours
    return not decide(by, asked, digest_of(asked), spending, now, feed_at, verdicts, PLACES)


def test_there_is_much_to_close_and_to_open() -> None:
    effects = [{change.effect for change in compare(START, one)} for one in neighbours()]
    assert sum(one == {"tightens"} for one in effects) > 80
    assert sum("loosens" in one for one in effects) > 80


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A question by definitions that one of the policies publishes or that are near them, or a step of training."""
    borderline = draw(BORDERLINE)
    varied = draw(st.lists(st.sampled_from(sorted(borderline)), max_size=2))  # or hardly one were allowed
    changes: dict[str, Any] = {"table": table(), "silos": tuple(PLACES.silos)} | {
        key: borderline[key] for key in varied
    }
    kind = draw(st.sampled_from(["question", "question", "by day", "step", "step"]))
    if kind == "by day":
        source = draw(st.sampled_from([START, *neighbours_of_another_day()])).sources["visits"]
        day = published("day", source.columns["day"], source, NOW)
        changes["table"] = changes["table"].model_copy(update={"columns": (*COLUMNS, day)})
        where = Compare(
            column="day", op=draw(st.sampled_from(["=", ">=", "<"])), value=draw(st.sampled_from(day.domain))
        )
        changes["plan"] = plan(
            where=draw(st.sampled_from([None, where])), group_by=draw(st.sampled_from([(), ("day",)]))
        )
    if kind == "step":
        fits = [("visits", False), ("registry", True)]
        name, is_exact = draw(st.sampled_from([*fits, *fits, ("visits", True), ("registry", False)]))
        number = draw(st.sampled_from([1, 1, 3, 3, 5, 6]))
        changes["plan"] = LogisticStep(
            run=bytes(16), step=0, steps=number, after=START_OF_RUN, release="exact" if is_exact else "private",
            label="smoker", features=("age",), learning_rate="1",
            clip="0" if is_exact else draw(st.sampled_from(["1", "1", "10", "11"])),
        )  # fmt: skip
        changes["table"] = changes["table"].model_copy(update={"name": name, "columns": (AGE, SMOKER)})
        changes["recipients"] = tuple(Recipient(name=one, key=bytes(PUBLIC_BYTES)) for one in changes["silos"])
        changes["micro_rho"] = 0 if is_exact else draw(st.sampled_from([1_000, 5_000, 10_000, 20_000]))
    changes["wait_seconds"] = draw(st.sampled_from([None, None, None, 11, 30, 1000]))
    try:
        return request(**changes)
    except ValidationError:  # not even a request
        assume(False)
        raise


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(data=st.data(), asked=requests(), moment=MOMENTS)
def test_what_only_tightens_never_allows_what_was_refused(data: st.DataObject, asked: Request, moment: Moment) -> None:
    first = data.draw(st.sampled_from(neighbours()))
    document = dump(first)
    second = changed(document, *data.draw(st.sampled_from(list(steps(document)))))
    before, after = (START, first) if second is None else (first, second)
    if loosens(before, after):
        before, after = after, before  # what one way loosens may only tighten the other way
    if loosens(before, after):
        return
    asked = asked.model_copy(update={"created_at": moment.now - 5, "expires_at": moment.now + 600})
    assert judged(before, as_defined_by(before, after, asked), moment) or not judged(after, asked, moment)


class Case(NamedTuple):
    """One change, and what it does."""

    old: str
    new: str
    effect: str
    path: str


CASES = [
    Case('mode   = "trial"', 'mode   = "production"', "tightens", "mode"),
    Case("valid_until = 2036", "valid_until = 2035", "tightens", "policy.valid_until"),
    Case("valid_from  = 2026-01", "valid_from  = 2025-01", "loosens", "policy.valid_from"),
    Case("version     = 3", "version     = 4", "neither", "policy.version"),
    Case('"North Hospital"', '"Northern Hospital"', "neither", "silo.controller"),
    Case('jurisdiction = "NO"', 'jurisdiction = "SE"', "loosens", "silo.jurisdiction"),
    Case("max_rows  = 2", "max_rows  = 1", "tightens", "privacy_unit.max_rows"),
    Case("max_silos = 2", "max_silos = 1", "loosens", "privacy_unit.max_silos"),
    Case('uri  = "visits.parquet"', 'uri  = "other.parquet"', "loosens", "sources.visits.uri"),
    Case("bounds = [0, 110]", "bounds = [18, 90]", "tightens", "sources.visits.columns.age.bounds"),
    Case("bounds = [0, 110]", "bounds = [18, 120]", "loosens", "sources.visits.columns.age.bounds"),
    Case('["medicine", "surgery", "unknown"]', '["surgery", "unknown"]', "tightens",
         "sources.visits.columns.ward.domain"),
    Case('"internal", roles = ["filter"]', '"internal", roles = []', "tightens", "sources.visits.columns.region.roles"),
    Case('class = "sensitive", roles = ["measure"', 'class = "public", roles = ["measure"', "loosens",
         "sources.visits.columns.smoker.class"),
    Case("step = 0.01", "step = 0.02", "loosens", "sources.visits.columns.cost.step"),
    Case('legal_basis  = "contract"', 'legal_basis  = "public-task"', "loosens", "purposes.billing.legal_basis"),
    Case("rho = 1.0", "rho = 0.9", "tightens", "budget.lifetime.rho"),
    Case("min_rho = 0.001", "min_rho = 0.0001", "loosens", "budget.per_request.min_rho"),
    Case("per_request = { min_rho = 0.001, max_rho = 0.1 }\n", "", "loosens", "budget.per_request"),
    Case("min_cohort     = 25", "min_cohort     = 24", "loosens", "disclosure.min_cohort"),
    Case('aggregates     = ["count", "sum", "avg"]', 'aggregates     = ["count"]', "tightens",
         "disclosure.aggregates"),
    Case("max_colluding = 1", "max_colluding = 2", "tightens", "protection.max_colluding"),
    Case("max_colluding = 1", 'max_colluding = 1\nmust_include = ["east"]', "tightens", "protection.must_include"),
    Case('purposes = ["health-research", "billing"]', 'purposes = ["billing"]', "tightens", "analysts.ana.purposes"),
    Case("until    = 2036-01-01", "until    = 2037-01-01", "loosens", "analysts.ana.until"),
]  # fmt: skip


def test_a_silo_that_must_be_in_no_more_loosens_and_another_one_too() -> None:
    def effect(before: str, after: str) -> str:
        texts = (
            edited(Edit("max_colluding = 1", f"max_colluding = 1\nmust_include = {names}")) for names in (before, after)
        )
        old, new = (parse(text.encode(), "policy.toml") for text in texts)
        return ", ".join(change.effect for change in compare(old, new))

    assert effect('["east", "south"]', '["east"]') == "loosens"
    assert effect('["east"]', '["south"]') == "loosens"
    assert effect('["east"]', '["south", "east"]') == "tightens"
    assert effect('["east", "south"]', '["south", "east"]') in ("neither", "")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.path} {case.effect}")
def test_each_change_is_found_with_its_path_and_effect(case: Case) -> None:
    text = edited(Edit(case.old, case.new))
    if 'mode   = "production"' in text:
        text = text.replace("version     = 3", "version     = 1\nsigned_by = { need = 1, of = ['dpo'] }")
    changes = compare(policy(), parse(text.encode(), "new.toml"))
    assert (case.effect, case.path) in [(change.effect, str(change).split()[1].rstrip(":")) for change in changes]


def test_what_comes_and_what_goes() -> None:
    head = POLICY.rpartition("[analysts.ana]")[0]
    without = parse(head.encode(), "x")
    (gone,) = compare(policy(), without)
    (come,) = compare(without, policy())
    assert (gone.effect, gone.path, gone.new) == ("tightens", ("analysts", "ana"), None)
    assert (come.effect, come.path, come.old) == ("loosens", ("analysts", "ana"), None)
    limits = "\n[limits]\nrequests_per_day = 4\n"
    assert [change.effect for change in compare(policy(), parse((POLICY + limits).encode(), "x"))] == ["tightens"]
    training = "\n[training]\nmax_rounds = 4\nclip_norm = 1\nmax_rho_per_run = 0.1\n"
    assert [change.effect for change in compare(policy(), parse((POLICY + training).encode(), "x"))] == ["loosens"]


def dated(granularity: str, days: int, limit: str = "") -> Policy:
    """Return the example policy with a date, the days that are read, and a limit."""
    text = POLICY.replace(
        'uri  = "visits.parquet"', f'uri  = "visits.parquet"\ntime_column = "day"\nlookback_days = {days}'
    ).replace(
        "diary  =",
        f'day = {{ type = "date", class = "internal", roles = ["dimension"], granularity = "{granularity}" }}\n'
        "diary  =",
    )
    return parse((text + limit).encode(), "dated.toml")


DATA_MONTH = '[[budget.limits]]\npurpose = "health-research"\nwindow = "data-month"\nrho = 0.3\n'


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        (dated("week", 60), dated("month", 60), "loosens"),
        (dated("day", 60), dated("year", 60), "loosens"),
        (dated("month", 60), dated("week", 60), "loosens"),
        (dated("week", 60), dated("week", 30), "loosens"),
        (dated("week", 60, DATA_MONTH), dated("week", 30, DATA_MONTH), "loosens"),
        (dated("week", 30, DATA_MONTH), dated("week", 60, DATA_MONTH), "loosens"),
        (policy(), policy(Edit(REGION, f'{REGION}, domain = ["n", "u"], unknown = "u"')), "loosens"),
        (policy(Edit(REGION, f'{REGION}, domain = ["n", "u"], unknown = "u"')), policy(), "loosens"),
    ],
    ids=["months for weeks", "years for days", "weeks for months", "fewer days of a dimension",
         "fewer months are charged", "more days", "a domain comes", "a domain goes"],
)  # fmt: skip
def test_what_opens_other_questions_loosens_though_it_looks_smaller(old: Policy, new: Policy, effect: str) -> None:
    assert effect in {change.effect for change in compare(old, new)}
    assert loosens(old, new) == (effect == "loosens")


def test_closing_a_column_opens_no_question_that_only_mentions_it() -> None:
    """A definition beyond the policy's was refused where nothing used the column, and not once it was closed."""
    wide = tuple(AGE.model_copy(update={"high": 120}) if one is AGE else one for one in COLUMNS)
    of_age = request(table=table(columns=wide))
    only_named = request(table=table(columns=wide), plan=plan(aggregates=plan().aggregates[:1]))
    closed = policy(Edit('["measure", "filter"], bounds = [0, 110]', "[], bounds = [0, 110]"))
    assert not loosens(policy(), closed)
    moment = Moment(0, 0, 1, ())
    assert [judged(by, only_named, moment) for by in (policy(), closed)] == [True, True]
    assert [judged(by, of_age, moment) for by in (policy(), closed)] == [False, False]


RULE = """
[[approvals]]
when = {}
need = 1
of = ["dpo", "ciso"]
expires_hours = 24
"""


OTHER = PEOPLE["clerk"].replace("clerk", "ciso")


def with_people(rule: str = RULE, **people: str) -> Policy:
    return parse((POLICY + rule + "".join(people.values())).encode(), "people.toml")


@pytest.mark.parametrize(
    ("new", "effect", "path"),
    [
        (with_people(RULE.replace(', "ciso"', ""), **PEOPLE), "loosens", ("approvals", "{  }", "of")),
        (with_people(RULE.replace('"ciso"]', '"ciso", "clerk"]'), **PEOPLE), "loosens", ("approvals", "{  }", "of")),
        (with_people(RULE.replace('"dpo", "ciso"', '"ciso", "dpo"'), **PEOPLE), "neither", ("approvals", "{  }", "of")),
        (with_people(dpo=PEOPLE["dpo"], clerk=PEOPLE["clerk"]), "loosens", ("people", "ciso")),
        (with_people(**PEOPLE | {"ciso": OTHER}), "loosens", ("people", "ciso", "key")),
        (with_people(dpo=PEOPLE["dpo"], ciso=PEOPLE["ciso"]), "tightens", ("people", "clerk")),
    ],
    ids=["one less may reject", "one more may approve", "another order", "a rejecter's key goes",
         "a rejecter's key is another", "who decides on nothing goes"],
)  # fmt: skip
def test_whoever_may_approve_may_reject_so_both_loosen(new: Policy, effect: str, path: tuple[str, ...]) -> None:
    """A request that one person rejected is refused until that person approves, so leaving the person out allows it."""
    assert [(change.effect, change.path) for change in compare(with_people(**PEOPLE), new)] == [(effect, path)]


def test_the_order_of_limits_and_approvals_is_no_change() -> None:
    one, other = (f'[[budget.limits]]\npurpose = "{name}"\nwindow = "calendar-day"\nrho = 0.1\n'
                  for name in ("billing", "health-research"))  # fmt: skip
    first, second = (parse((POLICY + both).encode(), "x") for both in (one + other, other + one))
    assert compare(first, second) == ()
    assert [change.effect for change in compare(first, parse((POLICY + one).encode(), "x"))] == ["loosens"]


def test_a_list_shows_its_members_that_come_and_go_however_long_it_is() -> None:
    many = ", ".join(f'"value {number}"' for number in range(200))
    wide, wider = (
        policy(Edit('["medicine", "surgery", "unknown"]', f'[{many}, "unknown"{more}]')) for more in ("", ', "hidden"')
    )
    (change,) = compare(wide, wider)
    assert str(change) == 'loosens   sources.visits.columns.ward.domain: adds "hidden"'
    other = policy(Edit('["count", "sum", "avg"]', '["var", "count"]'))
    (change,) = compare(policy(), other)
    assert str(change) == 'loosens   disclosure.aggregates: adds "var"; removes "sum", "avg"'
    (change,) = compare(policy(), policy(Edit('["count", "sum", "avg"]', '["avg", "sum", "count"]')))
    assert str(change) == "neither   disclosure.aggregates: the same members in another order"


def test_what_a_new_section_opens_is_shown_whole() -> None:
    purposes = ["billing", "health-research"]
    key = SigningKey(Secret(bytes(32))).public
    eve = f'[analysts.eve]\nkey = "{key}"\npurposes = {json.dumps(purposes)}\nuntil = 2030-01-01T00:00:00Z\n'
    (change,) = compare(policy(), parse((POLICY + eve).encode(), "x"))
    assert str(change).endswith('purposes = ["billing", "health-research"], until = 2030-01-01T00:00:00Z }')


def test_no_value_commands_the_terminal() -> None:
    silo = policy().silo.model_copy(update={"controller": "North\x1b[3A\x1b[0J"})
    (change,) = compare(policy(), policy().model_copy(update={"silo": silo}))
    assert str(change) == r'neither   silo.controller: "North Hospital" -> "North\u001b[3A\u001b[0J"'


def test_a_key_without_a_rule_loosens() -> None:
    change = next(iter(compare(policy(), policy(Edit('id_column = "patient_id"', 'id_column = "diary"'),
                                                Edit('class = "special-category", roles = []',
                                                     'class = "identifier", roles = []')))))  # fmt: skip
    assert change == PolicyChange(("privacy_unit", "id_column"), "loosens", "patient_id", "diary")


@pytest.mark.parametrize(
    ("old", "new", "effects"),
    [
        ("", "max_unreachable = 1", ["loosens"]),
        ("", "max_dishonest = 1", ["loosens"]),
        ("max_dishonest = 1", "", ["tightens"]),
        ("max_dishonest = 1", "max_dishonest = 2", ["tightens"]),
        ("max_dishonest = 1", "max_dishonest = 0", ["loosens"]),
        ("max_unreachable = 2\nmax_dishonest = 1", "max_unreachable = 1\nmax_dishonest = 2", ["tightens", "tightens"]),
    ],
)
def test_fewer_aggregators_that_must_keep_or_answer_loosen(old: str, new: str, effects: list[str]) -> None:
    before, after = (parse(f"{POLICY}\n[aggregators]\n{text}\n".encode(), "x") for text in (old, new))
    assert [change.effect for change in compare(before, after)] == effects


def test_how_many_aggregators_must_answer() -> None:
    """As docs/ledger.md, section 3, has it: u + b + 1, and without a number all."""
    default, away = Aggregators(), Aggregators(max_unreachable=1)
    assert [default.must_answer(count) for count in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert [away.must_answer(count) for count in (1, 2, 3)] == [2, 2, 3]
    assert Aggregators(max_unreachable=1, max_dishonest=0).must_answer(3) == 2
    assert Aggregators(max_unreachable=1, max_dishonest=1).must_answer(4) == 3
