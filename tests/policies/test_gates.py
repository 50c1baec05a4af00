"""People, hours, places, names, what is not built yet: each gate has its smallest cause, and nothing else opens it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from crypto.errors import CryptoError
from crypto.keys import Secret, SigningKey, VerifyKey
from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import digest_of
from policies.budget.ledger import ALL_MONTHS, Months, Spending, WindowSpending
from policies.decision.approval_rules import approvals_of
from policies.decision.approvals import subject_of
from policies.decision.budget_rules import limits_of, months_of, rate_of
from policies.decision.case import Jurisdictions
from policies.decision.decide import decide
from policies.decision.shown import in_words
from policies.document.catalogue import catalogue_of
from policies.document.consistency import BUILT_AGGREGATES, BUILT_COMPUTATIONS, warnings
from policies.document.describe import worded_policy
from policies.document.diff import loosens
from policies.document.load import parse
from policies.document.policy import Policy
from policies.document.purposes import contains
from policies.errors import PolicyFileError
from policies.requests.approval import StoredVerdict
from policies.requests.audit import AuditStep
from policies.requests.denials import Denial
from policies.requests.evaluation import Evaluation
from policies.requests.judged import JudgedModel
from policies.requests.logistic import LogisticStep
from policies.requests.predicates import Both, Compare, Either, OneOf
from policies.requests.query import Plan
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.requests.training import START
from tests.harness.example_policy import COLUMNS, CREATED_AT, NOW, POLICY, Edit, edited, plan, policy, request, table

KEYS = {name: SigningKey(Secret(bytes([index]) * 32)) for index, name in enumerate(["dpo", "ciso", "owner", "eve"])}
PEOPLE = "".join(f'[people.{name}]\nkey = "{key.public}"\n' for name, key in KEYS.items())
RULE = """
[[approvals]]
when = {when}
need = {need}
of = {of}
expires_hours = 24
"""
TRAINING = (
    POLICY.replace('computations = ["query"]', 'computations = ["query", "logistic-regression"]')
    .replace('"filter"], bounds = [0, 110]', '"filter", "feature"], bounds = [0, 110]')
    .replace('"sensitive", roles = ["measure", "filter"]', '"sensitive", roles = ["measure", "filter", "label"]')
    + "\n[training]\nmax_rounds = 5\nclip_norm = 10\nmax_rho_per_run = 0.5\n"
)
HOUR = 3600
DAY = 24 * HOUR


def with_rule(when: str = "{}", need: int = 1, of: str = '["dpo", "ciso"]') -> Policy:
    text = POLICY + RULE.replace("{when}", when).replace("{need}", str(need)).replace("{of}", of) + PEOPLE
    return parse(text.encode(), "policy.toml")


def judge(
    by: Policy, verdicts: Sequence[StoredVerdict] = (), asked: Request | None = None, now: int = NOW
) -> tuple[Denial, ...]:
    asked = asked or request()
    windows = tuple(WindowSpending(0, 0) for _ in limits_of(by, asked.purpose, now))
    return decide(by, asked, digest_of(asked), Spending(0, windows), now, now, verdicts)


def says(who: str, decision: str = "approve", at: int = NOW, silo: str = "north", key: str = "") -> StoredVerdict:
    subject = digest_of(request())
    signing = KEYS[key or who]
    return StoredVerdict.signed(who, signing, silo, subject, decision, at)  # type: ignore[arg-type]


def codes(denials: Sequence[Denial]) -> list[str]:
    return [denial.code for denial in denials]


def test_approvals_are_awaited_by_name_until_enough_people_gave_them() -> None:
    by = with_rule(need=2)
    (denial,) = judge(by)
    assert (denial.code, denial.rule) == ("APPROVAL_AWAITED", "approvals.0")
    assert "2 of dpo, ciso must approve it" in denial.message
    (denial,) = judge(by, [says("dpo")])
    assert "given by dpo" in denial.message
    assert judge(by, [says("dpo"), says("ciso")]) == ()


@pytest.mark.parametrize(
    "verdicts",
    [
        [says("eve")],
        [says("dpo", at=NOW + 1)],
        [says("dpo", at=NOW - DAY)],
        [replace(says("dpo"), subject=bytes(32))],
    ],
    ids=["not named", "of the future", "lapsed", "another request"],
)  # fmt: skip
def test_a_verdict_that_does_not_count_is_no_approval(verdicts: list[StoredVerdict]) -> None:
    assert codes(judge(with_rule(), verdicts)) == ["APPROVAL_AWAITED"]


@pytest.mark.parametrize(
    "stored",
    [
        says("ciso", key="eve"),
        says("ciso", silo="south"),
        replace(says("ciso", "reject", NOW - 1), decision="approve"),
        replace(says("ciso", "reject", NOW - 1), decision="approve", at=NOW + DAY),
        replace(says("ciso", "reject"), at=NOW - DAY),
        replace(says("ciso", at=NOW - 2 * DAY), at=NOW),
        replace(says("eve"), who="ciso"),
        replace(says("ciso", "reject"), who="eve"),
        replace(says("ciso"), envelope=b""),
    ],
    ids=["another's key", "another silo", "turned round", "turned round and put off", "made older", "made young",
         "renamed", "put in another's mouth", "without a signature"],
)  # fmt: skip
def test_what_is_stored_and_is_no_genuine_verdict_counts_as_a_rejection(stored: StoredVerdict) -> None:
    by = with_rule()
    for verdicts in ([stored], [stored, says("dpo")], [says("dpo"), says("ciso", at=NOW - 5), stored]):
        (denial,) = judge(by, verdicts)
        assert (denial.code, "ciso" in denial.message) == ("APPROVAL_REJECTED", True)


def test_a_clock_that_is_put_back_takes_no_rejection_away() -> None:
    verdicts = [says("dpo", at=NOW - 10), says("ciso", at=NOW - 10), says("ciso", "reject", NOW)]
    assert codes(judge(with_rule(), verdicts, now=NOW - 5)) == ["APPROVAL_REJECTED"]


def test_an_approval_lasts_as_long_as_the_rule_says() -> None:
    assert judge(with_rule(), [says("dpo", at=NOW - DAY + 1)]) == ()


def test_one_rejection_refuses_until_its_author_says_otherwise() -> None:
    by = with_rule()
    no = says("ciso", "reject", NOW - 10)
    (denial,) = judge(by, [says("dpo"), no])
    assert (denial.code, "ciso" in denial.message) == ("APPROVAL_REJECTED", True)
    old = says("ciso", "reject", NOW - 30 * DAY)
    assert codes(judge(by, [says("dpo"), old])) == ["APPROVAL_REJECTED"]
    assert judge(by, [says("dpo"), no, says("ciso", "approve", NOW - 5)]) == ()
    same = says("ciso", "approve", NOW - 10)
    for both in ([no, same], [same, no]):
        assert codes(judge(by, [says("dpo"), *both])) == ["APPROVAL_REJECTED"]


def test_the_same_person_counts_once() -> None:
    by = with_rule(need=2)
    assert codes(judge(by, [says("dpo"), says("dpo", at=NOW - 1)])) == ["APPROVAL_AWAITED"]


def test_one_key_under_two_names_is_one_person() -> None:
    one = PEOPLE.replace(str(KEYS["ciso"].public), str(KEYS["dpo"].public))
    text = POLICY + RULE.replace("{when}", "{}").replace("{need}", "2").replace("{of}", '["dpo", "ciso"]') + one
    file = parse(text.encode(), "x")
    both = [says("dpo"), says("ciso", key="dpo")]
    (denial,) = judge(file, both)
    assert denial.code == "APPROVAL_AWAITED"
    no = [says("dpo", "reject", NOW - 1), *both[1:]]
    assert codes(judge(file, no)) == ["APPROVAL_REJECTED"]
    (warned,) = [one.text for one in warnings(file) if one.path == ("approvals", "0", "of")]
    assert warned == "one key is one person, whatever names it has: dpo and ciso; so 2 of them can never approve"


def test_a_person_without_a_key_cannot_approve() -> None:
    text = POLICY + RULE.replace("{when}", "{}").replace("{need}", "1").replace("{of}", '["dpo"]')
    assert codes(judge(parse(text.encode(), "x"), [says("dpo")])) == ["APPROVAL_AWAITED"]


@pytest.mark.parametrize(
    ("when", "is_awaited"),
    [
        ("{}", True),
        ('{ kind = "query" }', True),
        ('{ kind = "training" }', False),
        ('{ purpose = "health-research" }', True),
        ('{ purpose = "billing" }', False),
        ("{ rho_at_least = 0.01 }", True),
        ("{ rho_at_least = 0.010001 }", False),
        ('{ purpose = "health-research", rho_at_least = 1 }', False),
    ],
)
def test_when_tells_which_requests_need_an_approval(when: str, is_awaited: bool) -> None:
    assert bool(judge(with_rule(when))) == is_awaited


@pytest.mark.parametrize(("spent_of_run", "is_awaited"), [(0, False), (20_000, False), (20_001, True), (90_000, True)])
def test_what_the_steps_of_a_run_have_cost_counts_for_its_approval(spent_of_run: int, is_awaited: bool) -> None:
    """Steps that are repeated, or cost more than the first, are a price too, as they are for max_rho_per_run."""
    text = TRAINING + RULE.replace("{when}", "{ rho_at_least = 0.030001 }").replace("{need}", "1")
    by = parse((text.replace("{of}", '["dpo"]') + PEOPLE).encode(), "x")
    step = LogisticStep(run=bytes(16), step=2, steps=3, after=bytes([7]) * 32, release="private", label="smoker",
                features=("age",), learning_rate="1", clip="1")  # fmt: skip
    silos = request().silos
    recipients = tuple(Recipient(name=name, key=bytes(PUBLIC_BYTES)) for name in silos)
    asked = request(plan=step, recipients=recipients)
    denials = decide(by, asked, digest_of(asked), Spending(0, run=spent_of_run), NOW, NOW)
    assert codes(denials) == (["APPROVAL_AWAITED"] if is_awaited else [])
    assert bool(approvals_of(by, asked, Spending(0, run=spent_of_run))) == is_awaited


def test_several_rules_must_all_be_met() -> None:
    text = POLICY + PEOPLE
    for name in ("dpo", "ciso"):
        text += RULE.replace("{when}", "{}").replace("{need}", "1").replace("{of}", f'["{name}"]')
    by = parse(text.encode(), "x")
    assert codes(judge(by)) == ["APPROVAL_AWAITED"] * 2
    assert [one.rule for one in judge(by, [says("dpo")])] == ["approvals.1"]


def test_people_are_not_asked_about_what_would_be_refused_anyway() -> None:
    asked = request(micro_rho=100_002)
    assert codes(judge(with_rule(), asked=asked)) == ["RHO_PER_REQUEST"]


def test_all_steps_of_a_training_run_are_one_thing_to_approve() -> None:
    def step(number: int, after: bytes) -> Request:
        plan = LogisticStep(run=bytes(16), step=number, steps=3, after=after, release="private", label="smoker",
                    features=("age",), learning_rate="1", clip="1")  # fmt: skip
        return request(plan=plan, nonce=bytes([number]) * 16, created_at=CREATED_AT + number)

    first, second = step(0, START), step(1, bytes([7]) * 32)
    assert subject_of(first, digest_of(first)) == subject_of(second, digest_of(second))
    assert subject_of(request(), digest_of(request())) == digest_of(request())


def test_a_verdict_is_read_back_as_it_was_signed() -> None:
    keys: dict[str, VerifyKey] = {name: key.public for name, key in KEYS.items()}
    assert StoredVerdict.read(says("dpo").envelope, "north", keys) == says("dpo")
    with pytest.raises(CryptoError, match="for the silo"):
        StoredVerdict.read(says("dpo").envelope, "south", keys)


def limited(text: str) -> Policy:
    return parse(f"{POLICY}\n[limits]\n{text}\n".encode(), "policy.toml")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("limits", "when", "code"),
    [
        ('hours_utc = "06:00-20:00"', "2027-01-15T06:00:00", ""),
        ('hours_utc = "06:00-20:00"', "2027-01-15T05:59:59", "HOURS"),
        ('hours_utc = "06:00-20:00"', "2027-01-15T19:59:59", ""),
        ('hours_utc = "06:00-20:00"', "2027-01-15T20:00:00", "HOURS"),
        ('hours_utc = "06:00-24:00"', "2027-01-15T23:59:59", ""),
        ('hours_utc = "22:00-04:00"', "2027-01-15T23:00:00", ""),
        ('hours_utc = "22:00-04:00"', "2027-01-15T03:59:00", ""),
        ('hours_utc = "22:00-04:00"', "2027-01-15T12:00:00", "HOURS"),
        ('days = ["fri"]', "2027-01-15T12:00:00", ""),
        ('days = ["mon", "sat"]', "2027-01-15T12:00:00", "DAYS"),
        ("days = []", "2027-01-15T12:00:00", "DAYS"),
    ],
)
def test_requests_are_answered_in_the_hours_and_days_of_the_policy(limits: str, when: str, code: str) -> None:
    now = at(when)
    asked = request(created_at=now - 5, expires_at=now + 60)
    assert codes(judge(limited(limits), asked=asked, now=now)) == ([code] if code else [])


def test_an_analyst_may_ask_so_often_a_day_and_is_told_its_own_number_only() -> None:
    by = limited("requests_per_day = 3")
    rate = rate_of(by, NOW)
    assert rate is not None
    assert (rate.most, rate.since) == (3, NOW - NOW % DAY)
    assert rate_of(policy(), NOW) is None
    for asked, expected in ((2, []), (3, ["REQUESTS_PER_DAY"]), (4, ["REQUESTS_PER_DAY"])):
        denials = decide(by, request(), bytes(32), Spending(0, requests=asked), NOW)
        assert codes(denials) == expected
    assert "you have asked 4 requests today" in denials[0].message


@pytest.mark.parametrize("bad", ['hours_utc = "6-20"', 'hours_utc = "06:00-06:00"', 'hours_utc = "24:00-06:00"',
                                 'days = ["monday"]', "requests_per_day = 0"])  # fmt: skip
def test_limits_that_mean_nothing_are_refused(bad: str) -> None:
    with pytest.raises(PolicyFileError, match="limits"):
        limited(bad)


STAYS = (
    Edit('computations = ["query"]', 'computations = ["query"]\nrecipients_in = ["EU", "NO"]'),
    Edit("until    = 2036-01-01T00:00:00Z", 'until    = 2036-01-01T00:00:00Z\njurisdiction = "EU-DE"'),
)
HERE = Jurisdictions({"east": "EU-SE", "north": "NO", "south": "NO", "west": "NO-03"}, {"hub": "EU-DE"})


def away(places: Jurisdictions, *edits: Edit) -> str:
    """Return why a request is refused where the parties are there; nothing if it is not."""
    denials = decide(policy(*STAYS, *edits), request(), bytes(32), Spending(0), NOW, jurisdictions=places)
    assert codes(denials) in ([], ["JURISDICTION"])
    return denials[0].message if denials else ""


def test_a_purpose_stays_in_its_places() -> None:
    assert away(HERE) == ""
    assert "'east' (in US)" in away(replace(HERE, silos=HERE.silos | {"east": "US"}))  # type: ignore[operator]
    unknown = {name: place for name, place in HERE.silos.items() if name != "west"}
    assert "'west' (nobody knows where)" in away(replace(HERE, silos=unknown))
    assert "the aggregator 'hub' (in US)" in away(replace(HERE, aggregators={"hub": "US"}))
    assert "the aggregator 'hub' (nobody knows where)" in away(replace(HERE, aggregators={"hub": None}))
    assert "the aggregator (nobody knows where)" in away(replace(HERE, aggregators={}))
    assert "the analyst 'ana' (in US)" in away(HERE, Edit('jurisdiction = "EU-DE"', 'jurisdiction = "US"'))
    assert "the analyst 'ana' (nobody knows where)" in away(HERE, Edit('jurisdiction = "EU-DE"', ""))
    assert "no place" in away(HERE, Edit('recipients_in = ["EU", "NO"]', "recipients_in = []"))


def test_the_silo_itself_is_where_its_policy_says() -> None:
    assert away(replace(HERE, silos={name: place for name, place in HERE.silos.items() if name != "north"})) == ""


@pytest.mark.parametrize(
    ("region", "place", "is_inside"),
    [("EU", "EU-DE", True), ("EU", "EU", True), ("NO", "NO-03", True), ("EU-DE", "EU", False), ("E", "EU", False),
     ("EU", "EUX", False), ("DE", "EU-DE", False), ("NO", None, False), ("NO", "SE", False)],
)  # fmt: skip
def test_a_region_holds_its_parts_and_nothing_unknown(region: str, place: str | None, is_inside: bool) -> None:
    assert contains(region, place) == is_inside


WILD = Edit("[analysts.ana]", '[analysts."*@lab.example"]')


def test_whoever_of_a_domain_holds_its_key_is_one_analyst() -> None:
    by = policy(WILD)
    assert by.analyst_entry("bo@lab.example") == by.analyst_entry("al@lab.example") == "*@lab.example"
    for stranger in ("ana", "bo@other.example", "bo@sub.lab.example", "*@lab.example@lab.example"):
        assert by.analyst(stranger) is None
    asked = request(analyst="bo@lab.example", recipients=request().recipients)
    assert codes(decide(by, asked, bytes(32), Spending(0), NOW)) == ["RECIPIENT_CLOSED"]
    own = request(
        analyst="bo@lab.example",
        recipients=tuple(one.model_copy(update={"name": "bo@lab.example"}) for one in request().recipients),
    )
    assert decide(by, own, bytes(32), Spending(0), NOW) == ()


def test_a_name_beside_its_domain_is_refused_as_taking_it_out_would_open() -> None:
    both = POLICY + POLICY[POLICY.index("[analysts.ana]") :].replace("ana]", '"*@lab.example"]')
    both += both[both.rindex("[analysts") :].replace('"*@lab', '"ana@lab')
    with pytest.raises(PolicyFileError, match="names this analyst too; remove one of the two"):
        parse(both.encode(), "x")


def test_a_sole_dimension_is_grouped_by_alone() -> None:
    by = policy(Edit("unknown = -1 }", "unknown = -1, sole_dimension = true }"))
    (denial,) = judge(by, asked=request(plan=plan(where=None, group_by=("ward", "grade"))))
    assert (denial.code, denial.rule) == ("SOLE_DIMENSION", "sources.visits.columns.grade.sole_dimension")
    assert judge(by, asked=request(plan=plan(where=None, group_by=("grade",)))) == ()
    assert judge(by, asked=request(plan=plan(where=None, group_by=("ward",)))) == ()


@pytest.mark.parametrize(
    ("edits", "rule"),
    [
        ([Edit("max_colluding = 1", "max_colluding = 1\nsecurity_bits = 256")], "protection.security_bits"),
        ([Edit("max_colluding = 1", 'max_colluding = 1\nnoise = "local-full"')], "protection.noise"),
    ],
    ids=["more bits", "local noise"],
)  # fmt: skip
def test_what_is_not_built_loads_and_denies_every_request(edits: list[Edit], rule: str) -> None:
    (denial,) = judge(policy(*edits))
    assert (denial.code, denial.rule) == ("NOT_BUILT", rule)
    said = {".".join(warning.path): warning.text for warning in warnings(policy(*edits))}
    assert "every request is denied" in said[rule]


def test_what_would_have_to_be_discovered_is_denied_in_every_role() -> None:
    text = edited(
        Edit('domain = ["medicine", "surgery", "unknown"], unknown = "unknown"', 'domain = "discover"'),
    )
    by = parse(text.encode(), "x")
    for asked in (plan(), plan(where=Compare(column="ward", op="=", value="surgery"), group_by=())):
        denial = next(one for one in judge(by, asked=request(plan=asked)) if one.rule.endswith("ward.domain"))
        assert (denial.code, denial.message) == ("COLUMN_ROLE", "the values of column 'ward' are not listed yet")
    analyst = by.analysts["ana"]
    names = [one.column.name for one in catalogue_of(by, analyst, "fed", bytes(32), bytes(16)).tables[0].columns]
    assert "ward" not in names
    assert "age" in names


def test_names_of_later_computations_load_and_are_never_offered() -> None:
    by = policy(
        Edit('computations = ["query"]', 'computations = ["query", "gradient-boosting", "k-means", "neural-network"]'),
        Edit('["count", "sum", "avg"]', '["count", "quantile", "histogram", "var"]'),
        Edit('accept        = ["masking"]', 'accept        = ["paillier", "ckks", "masking"]'),
    )
    offered = catalogue_of(by, by.analysts["ana"], "fed", bytes(32), bytes(16))
    assert set(offered.aggregates) == {"count", "quantile", "histogram", "var"} & BUILT_AGGREGATES
    assert set(offered.backends) == {"paillier", "ckks", "masking"}
    assert {"query", "logistic-regression"} <= BUILT_COMPUTATIONS
    assert "gradient-boosting" not in BUILT_COMPUTATIONS  # so no request can name it


@pytest.mark.parametrize("result", ["query-result", "model"])
def test_release_says_what_may_leave(result: str) -> None:
    by = policy(Edit("min_cohort     = 25", f'min_cohort     = 25\nrelease = ["{result}"]'))
    expected = [] if result == "query-result" else [("RELEASE", "disclosure.release")]
    assert [(one.code, one.rule) for one in judge(by)] == expected


def _released(to: str = "ana") -> LogisticStep:
    receiver = Recipient(name=to, key=bytes(PUBLIC_BYTES))
    return LogisticStep(run=bytes(16), step=0, steps=3, after=START, release="private", label="smoker",
                features=("age",), learning_rate="1", clip="1", released_to=receiver)  # fmt: skip


def _of_a_model(to: str = "ana") -> Request:
    recipients = tuple(Recipient(name=name, key=bytes(PUBLIC_BYTES)) for name in request().silos)
    return request(plan=_released(to), recipients=recipients)


def test_a_model_leaves_to_the_analyst_where_the_policy_says_so() -> None:
    asked, least = _of_a_model(), "min_cohort     = 25"
    assert "whose model ana receives too" in asked.plan.in_words("visits")
    for listed, expected in (
        ('["model"]', ["RELEASE"]),
        ('["model", "model-to-analyst"]', []),
        ('["model-to-analyst"]', ["RELEASE"]),
    ):
        by = parse(TRAINING.replace(least, f"{least}\nrelease = {listed}").encode(), "x")
        denials = decide(by, asked, digest_of(asked), Spending(0), NOW, NOW)
        assert codes(denials) == expected, listed
        assert all(one.rule == "disclosure.release" for one in denials)
    opened = parse(TRAINING.replace(least, f'{least}\nrelease = ["model", "model-to-analyst"]').encode(), "x")
    assert "model-to-analyst (the analyst receives the model" in str(worded_policy(opened))
    closed = parse(TRAINING.replace(least, f'{least}\nrelease = ["model"]').encode(), "x")
    assert loosens(closed, opened)
    assert not loosens(opened, closed)
    assert any("ana (key" in text for _, text in in_words(opened, asked, 0))
    alone = parse(TRAINING.replace(least, f'{least}\nrelease = ["model-to-analyst"]').encode(), "x")
    assert any("no model leaves" in one.text for one in warnings(alone))
    assert not any("no model leaves" in one.text for one in warnings(opened))
    with pytest.raises(ValidationError, match="released to the analyst who asks"):
        _of_a_model("eve")


def test_a_model_that_leaves_to_the_analyst_stays_in_the_purposes_places() -> None:
    """The analyst receives no round of it, but the model, and so is judged as for a question."""
    asked = _of_a_model()
    text = TRAINING.replace("min_cohort     = 25", 'min_cohort     = 25\nrelease = ["model", "model-to-analyst"]')
    place = 'computations = ["query", "logistic-regression"]'
    for analyst, expected in (("US", ["JURISDICTION"]), ("EU-DE", [])):
        own = text.replace(place, f'{place}\nrecipients_in = ["EU", "NO"]').replace(
            "until    = 2036-01-01T00:00:00Z", f'until    = 2036-01-01T00:00:00Z\njurisdiction = "{analyst}"'
        )
        by = parse(own.encode(), "x")
        denials = decide(by, asked, digest_of(asked), Spending(0), NOW, NOW, jurisdictions=HERE)
        assert codes(denials) == expected
        stays = request(plan=_released().model_copy(update={"released_to": None}), recipients=asked.recipients)
        assert codes(decide(by, stays, digest_of(stays), Spending(0), NOW, NOW, jurisdictions=HERE)) == []


def test_figures_of_some_silos_alone_tell_none_of_few_others() -> None:
    """The common sum less the figures that silos have of their own is that of the others."""
    asked = request()
    names = tuple(sorted(asked.silos))
    text = TRAINING.replace("min_cohort     = 25", 'min_cohort     = 25\nrelease = ["metrics"]')
    by = parse(text.replace('["query", "logistic-regression"]', '["query", "evaluation"]').encode(), "x")
    here = by.silo.id
    apart = [name for name in names if name != here]
    step = _released().model_copy(update={"released_to": None})
    least = by.disclosure.min_silos + by.protection.max_missing
    refused = []
    for count in range(len(apart) + 1):
        model = JudgedModel(position=bytes([1] * 32), step=step, own=tuple(apart[:count]))
        plan = Evaluation(release="private", model=model, metrics=("accuracy",))
        denials = decide(by, request(plan=plan), bytes(32), Spending(0), NOW, NOW)
        refused.append(any(one.rule == "disclosure.min_silos" for one in denials))
        assert refused[-1] is (count > 0 and len(names) - count < least), (count, denials)
    assert refused[-1]


def test_an_audit_merges_no_groups_where_its_column_may_be_narrowed_as_a_filter() -> None:
    """Groups that differ would become one, and a limit on their gap would be met."""
    text = TRAINING.replace('["query", "logistic-regression"]', '["query", "logistic-regression", "audit"]')
    by = parse(
        text.replace('roles = ["dimension", "filter"]', 'roles = ["dimension", "filter", "audit"]').encode(), "x"
    )
    step = _released().model_copy(update={"released_to": None})
    audit = AuditStep(
        run=bytes(16), step=0, after=START, release="private", groups=("ward",), min_cohort=25,
        model=JudgedModel(position=bytes([1] * 32), step=step),
    )  # fmt: skip
    for domain, is_refused in ((None, False), (("surgery", "unknown"), True)):
        columns = [one if one.name != "ward" or domain is None else one.model_copy(update={"domain": domain})
                   for one in COLUMNS]  # fmt: skip
        asked = request(plan=audit, table=table(columns=tuple(columns)), recipients=_of_a_model().recipients)
        rules = [(one.code, one.rule) for one in decide(by, asked, digest_of(asked), Spending(0), NOW, NOW)]
        assert (("COLUMN_ROLE", "sources.visits.columns.ward.narrow") in rules) is is_refused, rules
        assert len(rules) <= 1, rules


TABLE = """
[consent]
mode = "table"
source = "decisions.csv"
subject = "person"
purpose = "purpose"
given_at = "given_at"
withdrawn_at = "withdrawn_at"
stale_after_hours = 2
"""


@pytest.mark.parametrize(("age_s", "is_fresh"), [(0, True), (2 * HOUR, True), (2 * HOUR + 1, False), (None, False)])
def test_a_stale_table_of_decisions_refuses(age_s: int | None, is_fresh: bool) -> None:
    text = edited(Edit('legal_basis  = "public-task"', 'legal_basis  = "consent"\nconsent = "opt-in"')) + TABLE
    by = parse(text.encode(), "x")
    feed_at = None if age_s is None else NOW - age_s
    found = codes(decide(by, request(), bytes(32), Spending(0), NOW, feed_at))
    assert found == ([] if is_fresh else ["CONSENT_STALE"])


DATED = (
    Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "month"\nlookback_days = 400'),
    Edit("diary  =", 'month = { type = "date", class = "internal", roles = ["dimension", "filter"], '
                     'granularity = "month" }\ndiary  ='),
)  # fmt: skip
MONTHS = tuple(f"{year}-{month:02}" for year in (2025, 2026, 2027) for month in range(1, 13))
JANUARY = MONTHS.index("2027-01")  # NOW


def dated(*domain: str, where: object = None) -> Request:
    column = TableColumn(name="month", type="date", domain=(*domain, "unknown"), unknown="unknown")
    asked = table(columns=(*COLUMNS, column))
    return request(table=asked, plan=plan(group_by=() if where else ("month",), where=where))


def test_the_periods_of_a_date_are_those_that_the_source_reads() -> None:
    by = policy(*DATED, Edit("max_groups     = 12", "max_groups     = 20"))
    catalogue = catalogue_of(by, by.analysts["ana"], "fed", bytes(32), bytes(16), NOW)
    (column,) = [one.column for one in catalogue.tables[0].columns if one.column.name == "month"]
    assert column.domain == (*MONTHS[JANUARY - 13 : JANUARY + 1], "unknown")
    assert judge(by, asked=dated(*column.domain[:-1])) == ()
    assert judge(by, asked=dated(*MONTHS[JANUARY - 14 : JANUARY + 1])) == ()  # a month later the request still holds
    assert codes(judge(by, asked=dated(*MONTHS[JANUARY - 16 : JANUARY]))) == ["DEFINITION"]
    assert codes(judge(by, asked=dated("2026-W05"))) == ["DEFINITION"]
    assert codes(judge(by, asked=dated("2027-02"))) == ["DEFINITION"]


def test_months_of_the_data_are_those_that_no_condition_rules_out() -> None:
    by, window = policy(*DATED), MONTHS[JANUARY - 13 : JANUARY + 1]
    whole = months_of(by, request(), NOW)
    assert whole.first == 12 * 2025 + 11
    assert whole.last > 12 * 9000
    march = Compare(column="month", op="=", value="2026-03")
    smoker = Compare(column="smoker", op="=", value="true")
    for where in (march, Both(operands=(smoker, march)), OneOf(column="month", values=("2026-03",))):
        assert months_of(by, dated(*window, where=where), NOW) == Months(12 * 2026 + 2, 12 * 2026 + 2)
    from_june = Compare(column="month", op=">=", value="2026-06")
    assert months_of(by, dated(*window, where=from_june), NOW) == Months(12 * 2026 + 5, 12 * 2027)
    assert months_of(by, dated(*window, where=Either(operands=(march, smoker))), NOW) == whole
    assert months_of(by, dated(*window, where=smoker), NOW) == whole
    assert months_of(policy(), request(), NOW) == ALL_MONTHS


def test_a_data_month_window_limits_what_is_asked_of_those_months() -> None:
    limit = '[[budget.limits]]\npurpose = "health-research"\nwindow = "data-month"\nrho = 0.02\n'
    by = parse((edited(*DATED) + limit).encode(), "x")
    asked = dated(*MONTHS[JANUARY - 13 : JANUARY + 1], where=Compare(column="month", op="=", value="2026-03"))
    (window,) = limits_of(by, "health-research", NOW, months_of(by, asked, NOW))
    assert (window.since, window.rho) == (Months(12 * 2026 + 2, 12 * 2026 + 2), 20_000)
    for spent, expected in ((10_000, []), (10_001, ["BUDGET_WINDOW"])):
        used = Spending(0, (WindowSpending(spent, 0),))
        denials = decide(by, asked, digest_of(asked), used, NOW)
        assert codes(denials) == expected
    words = "what is left for 'health-research' for these months of the data does not cover this request"
    assert denials[0].message == words
    assert denials[0].remedy == "ask with a smaller epsilon, or about other months"


def test_a_request_cannot_name_a_period_that_its_domain_lacks() -> None:
    with pytest.raises(ValueError, match="is no period of column 'month'"):
        dated("2026-01", where=Compare(column="month", op="=", value="2026-02"))
    assert isinstance(dated("2026-01").plan, Plan)
