"""People see what they sign: every field that a verdict binds is in the words that they are shown, and in the text."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from pydantic import BaseModel

from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import digest_of
from policies.budget.ledger import AnalystSpending, Spending
from policies.decision.approval_rules import approvals_of, counted_since
from policies.decision.approvals import subject_of
from policies.decision.shown import in_words, signed_text, whole_price
from policies.document.load import parse
from policies.document.policy import Policy
from policies.requests.audited import AuditLimit
from policies.requests.cases import Cases
from policies.requests.expressions import Apply, Cell, Choose, Constant, Derived
from policies.requests.held_out import HeldOut
from policies.requests.logistic import LogisticStep
from policies.requests.persons import Inner, InnerColumn
from policies.requests.predicates import Both, Compare, CompareColumns, Either, IsNull, Not, OneOf
from policies.requests.query import Aggregate
from policies.requests.replaces import Replaced, Replaces
from policies.requests.request import Request
from policies.requests.statements import Statements
from policies.units import DAY_S
from tests.harness.example_policy import COLUMNS, KEY, NOW, POLICY, STAY, plan, policy, request, table

TRAINED = parse(
    (POLICY + "\n[training]\nmax_rounds = 50\nclip_norm = 10\nmax_rho_per_run = 0.5\n").encode(), "policy.toml"
)
STEP = LogisticStep(
    run=bytes(range(16)), step=3, steps=20, after=bytes([7]) * 32, release="private", label="smoker",
    features=("age", "ward"), learning_rate="3", momentum="0.5", clip="1", local_steps=1, continues=bytes([9]) * 16,
    held_out=HeldOut(split=bytes([5]) * 16, parts=200),
    released_to=Recipient(name="ana", key=bytes([4]) * PUBLIC_BYTES),
    audit=AuditLimit(groups=("ward",), measure="equalized-odds", max_gap="0.1"),
)  # fmt: skip
KEYS = tuple(Recipient(name=name, key=bytes([index]) * PUBLIC_BYTES) for index, name in enumerate(request().silos))
REPLACED = Replaces(
    requests=(Replaced(nonce=bytes([1]) * 16, request_hash=bytes([2]) * 32),), left_out=("elm",), evidence=(b"proof",)
)
EVERYWHERE = Both(
    operands=(
        Either(operands=(IsNull(column="age"), Compare(column="smoker", op="=", value="true"))),
        Not(operand=OneOf(column="ward", values=("surgery", "medicine"))),
    )
)
OLD = Cases(
    name="old",
    whens=(Compare(column="age", op="<", value="40"), CompareColumns(column="stay", op=">", other="age")),
    labels=("1", None),
    otherwise="2",
    type="int",
)
YOUNG = Cases(name="first", whens=(Compare(column="young", op="<", value="40"),), labels=("1",), otherwise=None)
EVERYWHERE_INSIDE = Both(
    operands=(Compare(column="young", op="<", value="40"), Compare(column="visits", op="<", value="3"))
)
INNER = Inner(
    where=EVERYWHERE,
    columns=(
        InnerColumn(name="visits", function="count", column=None, high=4),
        InnerColumn(name="spent", function="sum", column="cost", low=-5000, high=600_000, where=IsNull(column="age")),
        InnerColumn(name="young", function="min", column="age"),
        InnerColumn(name="first", function="first", column="ward"),
    ),
)
RATIO = Derived(
    name="ratio",
    expression=Choose(
        whens=(IsNull(column="ward"),),
        results=(Apply(function="divide", arguments=(Cell(column="cost"), Constant(value="2.5"))),),
        otherwise=Cell(column="age"),
    ),
)
FIGURES = (*plan().aggregates, Aggregate(function="sum", column="ratio", alias="ratio"))
FULL = request(
    table=table(max_silos=3, max_norm=1),
    plan=plan(
        where=EVERYWHERE, counts_cut=True, group_by=("ward", "old"), cases=(OLD,), aggregates=FIGURES, derived=(RATIO,)
    ),
    backend="masking",
    wait_seconds=90,
    send_seconds=400,
    or_without=2,
    replaces=REPLACED,
)
OF_PERSONS = Request.model_validate(
    dict(FULL)
    | {
        "plan": plan(
            where=EVERYWHERE_INSIDE,
            group_by=("first", "visits"),
            aggregates=(Aggregate(function="avg", column="spent", alias="spent"),),
            inner=INNER,
        )
    }
)
SEVERAL = Request.model_validate(
    dict(FULL) | {"plan": Statements.model_validate({"plans": (FULL.plan, OF_PERSONS.plan), "weights": (2, 3)})}
)
RUN = request(
    plan=STEP, recipients=KEYS, micro_rho=7_000, or_without=2, replaces=REPLACED, wait_seconds=90, send_seconds=400
)
BOUND = [(policy(), FULL), (policy(), OF_PERSONS), (policy(), SEVERAL), (TRAINED, RUN)]
# Of a run these differ from step to step, so a verdict on the run does not bind them.
BY_STEP = {
    "nonce",
    "created_at",
    "expires_at",
    "round_key",
    "sealed_secrets",
    "wait_seconds",
    "send_seconds",
    "plan.step",
    "plan.after",
}
OTHERS = {"masking": "shares", "count": "sum", "avg": "sum", "private": "exact", "int": "decimal", "=": "<>", "<": "<=",
          ">": ">=", "string": "date", "bool": "int", "decimal": "int", "min": "max", "sum": "count",
          "first": "last", "divide": "subtract"}  # fmt: skip


def variants(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every value in a message by its path, and the message in which it is another one."""
    match node:
        case BaseModel():
            for name in set(type(node).model_fields) - {"kind", "version"}:  # which have one value
                for where, other in variants(getattr(node, name), (*path, name)):
                    yield where, node.model_copy(update={name: other})
        case tuple() if node:
            yield ".".join(path), node[:-1]
            for index, value in enumerate(node):
                for where, other in variants(value, (*path, str(index))):
                    yield where, (*node[:index], other, *node[index + 1 :])
        case tuple() if path[-1] in ("cases", "derived"):
            yield ".".join(path), (YOUNG if path[-1] == "cases" else RATIO,)
        case tuple():
            others: dict[str, Any] = {"sealed_secrets": (b"another",), "shape": (8, 8)}
            yield ".".join(path), others.get(path[-1], ("another",))
        case None if path[-1] in ("inner", "where"):
            yield ".".join(path), INNER if path[-1] == "inner" else IsNull(column="age")
        case None:
            yield ".".join(path), 1 if path[-1] in ("low", "high", "max_norm", "width") else "1"
        case bool():
            yield ".".join(path), not node
        case int():
            yield ".".join(path), node + 1
        case bytes():
            yield ".".join(path), node + b"x" if path[-1] != "round_key" else b"another"
        case str():
            yield ".".join(path), OTHERS.get(node, f"{node}1")


def is_bound(asked: Request, other: Request) -> bool:
    """Tell whether a verdict on one request is none on another."""
    return subject_of(asked, digest_of(asked)) != subject_of(other, digest_of(other))


@pytest.mark.parametrize(("by", "asked"), BOUND, ids=["question", "persons", "statements", "run"])
def test_whatever_a_verdict_binds_is_in_its_words(by: Policy, asked: Request) -> None:
    words, text = in_words(by, asked, 0), signed_text(asked)
    unseen, bound = [], 0
    for path, other in variants(asked):
        if is_bound(asked, other):
            bound += 1
            assert signed_text(other) != text
            try:
                if in_words(by, other, 0) == words:
                    unseen.append(path)
            except (KeyError, ValueError):  # no request: an unknown column, or a word where a number stands
                continue
        else:
            assert path in BY_STEP, path
    assert unseen == []
    assert bound > (90 if asked is FULL else 70)


@pytest.mark.parametrize(("by", "asked"), BOUND, ids=["question", "persons", "statements", "run"])
def test_the_signed_text_has_the_hash_that_a_verdict_signs(by: Policy, asked: Request) -> None:
    assert sha256(signed_text(asked).encode()).digest() == subject_of(asked, digest_of(asked))


def test_a_run_is_shown_with_its_whole_price_and_what_repeated_steps_may_add() -> None:
    asked = request(plan=STEP.model_copy(update={"continues": None}), recipients=KEYS, micro_rho=7_000)
    assert whole_price(TRAINED, asked, 0) == 20 * 7_000
    assert whole_price(TRAINED, asked, 139_000) == 146_000, "steps were repeated"
    assert dict(in_words(TRAINED, asked, 0))["price"] == (
        "rho 0.140000, epsilon 2.57 at delta 1e-06, to each patient: 20 steps at rho 0.007000, signed with rho"
        " 0.007000; steps that are repeated add to it, up to rho 0.500000 in all"
    )


def test_what_has_no_noise_is_said_to_have_none() -> None:
    exact = STEP.model_copy(update={"release": "exact", "clip": "0", "momentum": "0", "continues": None})
    asked = request(plan=exact, recipients=KEYS, micro_rho=0)
    assert dict(in_words(TRAINED, asked, 0))["price"].startswith("none: without noise, nothing bounds")


def test_a_narrower_definition_is_shown_beside_the_policys_own() -> None:
    columns = tuple(STAY.model_copy(update={"low": 20, "high": 21}) if one is STAY else one for one in COLUMNS)
    asked = request(
        table=table(columns=columns), plan=plan(aggregates=(Aggregate(function="sum", column="stay", alias="s"),))
    )
    lines = dict(in_words(policy(), asked, 0))
    assert lines["column stay"] == "int, 20 to 21 by 1; the policy has: int, 0 to 60 by 1"
    assert lines["column smoker"] == "bool, 0 to 1 by 1, as the policy defines it"
    assert lines["column cost"].endswith("; it is not used")


def test_every_silo_is_named_however_many_there_are() -> None:
    silos = ("north", *(f"silo-{index:03}" for index in range(99)))
    lines = dict(in_words(policy(), request(silos=silos), 0))
    assert all(name in lines["silos"] for name in silos)


@pytest.mark.parametrize(
    "hostile", ["x\x1b[2K", "\u202egnirts", "a, price rho 0.000001", 'a" as b', "\n  price: rho 0"]
)
def test_what_an_analyst_chose_cannot_pass_for_what_it_is_not(hostile: str) -> None:
    named = request(plan=plan(aggregates=(Aggregate(function="count", column=None, alias=hostile),)))
    text = dict(in_words(policy(), named, 0))["figures"]
    assert text.isprintable()
    assert text.startswith('COUNT(*) as "')
    domain = (hostile, "unknown")
    columns = tuple(one.model_copy(update={"domain": domain}) if one.name == "ward" else one for one in COLUMNS)
    text = dict(in_words(policy(), request(table=table(columns=columns)), 0))["column ward"]
    assert text.isprintable()
    assert text.isascii()


# Thresholds of approvals hold over the analyst's window.

RULE = '\n[[approvals]]\nwhen = {{ {when} }}\nneed = 1\nof = ["dpo"]\nexpires_hours = 24\n'
PERSON = f'\n[people.dpo]\nkey = "{KEY}"\n'
WINDOW = '\n[[budget.limits]]\npurpose = "health-research"\nwindow = "{window}"\nrho = 0.9\n'


def with_rule(when: str, *windows: str) -> Policy:
    from tests.policies.test_gates import PEOPLE

    text = POLICY + "".join(WINDOW.replace("{window}", window) for window in windows)
    return parse((text + PEOPLE + RULE.format(when=when)).encode(), "policy.toml")


def spent(purpose: int = 0, all_purposes: int | None = None, run: int = 0) -> Spending:
    everything = purpose if all_purposes is None else all_purposes
    return Spending(0, run=run, by_analyst=AnalystSpending(purpose, everything))


@pytest.mark.parametrize(("before", "is_needed"), [(0, False), (9_999, False), (10_000, True), (500_000, True)])
def test_a_threshold_is_not_passed_by_many_requests_below_it(before: int, is_needed: bool) -> None:
    by = with_rule("rho_at_least = 0.02")
    assert bool(approvals_of(by, request(micro_rho=10_000), spent(before))) == is_needed


def test_a_threshold_is_not_passed_by_asking_for_another_purpose() -> None:
    everywhere, one = with_rule("rho_at_least = 0.02"), with_rule('purpose = "health-research", rho_at_least = 0.02')
    elsewhere = spent(0, 15_000)
    assert approvals_of(everywhere, request(), elsewhere)
    assert not approvals_of(one, request(), elsewhere)
    assert approvals_of(one, request(), spent(15_000))


def test_a_threshold_is_not_passed_by_splitting_a_run() -> None:
    by = parse((TRAINED_TEXT + RULE.format(when='kind = "training", rho_at_least = 0.2')).encode(), "policy.toml")
    step = STEP.model_copy(update={"continues": None})
    asked = request(plan=step, recipients=KEYS, micro_rho=7_000)
    assert not approvals_of(by, asked, spent())
    assert not approvals_of(by, asked, spent(21_000, run=21_000)), "its own steps count once"
    assert not approvals_of(by, asked, spent(21_000 + 59_999, run=21_000))
    assert approvals_of(by, asked, spent(21_000 + 60_000, run=21_000)), "a run before it counts"


TRAINED_TEXT = POLICY + "\n[training]\nmax_rounds = 50\nclip_norm = 10\nmax_rho_per_run = 0.5\n" + PERSON


def test_what_has_no_noise_reaches_every_threshold() -> None:
    by = parse((TRAINED_TEXT + RULE.format(when="rho_at_least = 100")).encode(), "policy.toml")
    exact = STEP.model_copy(update={"release": "exact", "clip": "0", "momentum": "0", "continues": None})
    assert approvals_of(by, request(plan=exact, recipients=KEYS, micro_rho=0), spent())
    assert not approvals_of(by, request(), spent())


@pytest.mark.parametrize(
    ("windows", "days"),
    [((), None), (("calendar-day",), 0), (("calendar-day", "calendar-month"), 14), (("data-month",), None)],
)
def test_the_window_is_the_longest_of_the_purpose_or_all_time(windows: tuple[str, ...], days: int | None) -> None:
    by = with_rule("rho_at_least = 0.02", *windows)
    today = NOW - NOW % DAY_S
    assert counted_since(by, "health-research", NOW) == (0 if days is None else today - days * DAY_S)
    assert counted_since(policy(), "health-research", NOW) is None, "no rule has a threshold"
