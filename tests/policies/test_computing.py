"""The declared time of a plan: by policy and request alone, refused where the request does not wait as long."""

from typing import Any

import pytest

from crypto.rounds.manifest import MAX_COMPUTE_S
from policies.budget.ledger import Spending
from policies.decision.computing import (
    BLINDING_MS,
    declared_ms,
    limit_seconds,
    longest_seconds,
    plan_size,
    stated_ms,
)
from policies.decision.decide import decide
from policies.document.catalogue import open_tables
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.policy import Policy
from policies.errors import PolicyFileError
from policies.requests.denials import Denial
from policies.requests.logistic import LogisticStep
from policies.requests.predicates import Both, Compare, IsNull, Not, OneOf
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.training import START
from policies.units import MAX_WAIT_S, UNDECLARED_S, WAIT_S
from tests.harness.example_policy import AGE, NOW, SMOKER, WARD, Edit, decided_in, plan, policy, request, table

SPENT = Spending(0, (), 0)
ROWS_UP_TO = Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\nrows_up_to = 1048576')
COUNT = (Aggregate(function="count", column=None, alias="n"),)
CONSENT = decided_in("decisions.csv") + "decisions_up_to = 16777216\n"


def compute(*lines: str, rest: str = "") -> Edit:
    return Edit("[disclosure]", "\n".join(("[compute]", *lines, rest, "[disclosure]")))


def declaring(row_nanoseconds: float, *lines: str) -> Policy:
    return policy(ROWS_UP_TO, compute("fixed_seconds = 1.5", f"row_nanoseconds = {row_nanoseconds}", *lines))


def denials(of: Policy, asked: Request) -> tuple[Denial, ...]:
    return decide(of, asked, bytes(32), SPENT, NOW)


def test_the_size_of_a_plan_is_computed_by_hand() -> None:
    a_filter = Compare(column="smoker", op="=", value="true")
    listed = OneOf(column="region", values=tuple(f"r{number}" for number in range(100)))
    sizes = {
        # id, no column, one statistic, no filter, one slot
        plan(where=None, group_by=(), aggregates=COUNT): 1 + 0 + 1 + 0 + 1,
        # id, three columns, rows and two of age, one part, nine slots
        plan(): 1 + 3 + 3 + 1 + 4,
        # a not and what it negates, a list of a hundred, and the two together
        plan(where=Both(operands=(Not(operand=IsNull(column="smoker")), listed)), group_by=(), aggregates=COUNT): (
            1 + 2 + 1 + (1 + 2 + 7) + 1
        ),
        plan(where=a_filter, group_by=("ward", "grade"), aggregates=COUNT): 1 + 3 + 1 + 1 + 4,
    }
    for asked, size in sizes.items():
        assert plan_size(request(plan=asked)) == size, asked
    step: dict[str, Any] = {"run": bytes(16), "step": 0, "steps": 2, "after": START, "learning_rate": "1", "clip": "0"}
    trained = LogisticStep(**step, release="exact", label="smoker", features=("age", "ward"), local_steps=5)
    assert trained.size(table(columns=(AGE, SMOKER, WARD))) == 5 * (1 + 1 + 3 + 1)


def test_the_declared_time_is_computed_by_hand() -> None:
    asked = request()  # of size 12
    assert declared_ms(declaring(2000), asked) == 26_675  # 1.5 + 12 * 2000e-9 * 2^20 = 26.666
    assert declared_ms(policy(compute("fixed_seconds = 1.5")), asked) == 1500
    assert declared_ms(policy(compute("fixed_seconds = 0.001")), asked) == 25
    asks = Edit('computations = ["query"]', 'consent = "opt-in"\ncomputations = ["query"]')
    rates = "fixed_seconds = 1.5", "decision_nanoseconds = 1000", "row_nanoseconds = 2000"
    of = policy(ROWS_UP_TO, asks, compute(*rates, rest=CONSENT))
    assert declared_ms(of, asked) == 43_450  # and 1000e-9 * 2^24 = 16.777
    unasked = policy(ROWS_UP_TO, compute(*rates, rest=CONSENT))
    assert declared_ms(unasked, asked) == 26_675, "a purpose that asks for no consent reads no decision"


def test_a_request_that_does_not_wait_as_long_is_refused_and_the_remedy_works() -> None:
    of = declaring(8000)  # 1.5 + 100.66 s
    (denial,) = denials(of, request())
    assert (denial.code, denial.rule) == ("TOO_SLOW", "compute")
    assert denial.message == "this plan may take 102.175 s here, and the request waits 60 s"
    assert denial.remedy == "ask with --deadline 103, or with fewer columns, figures, groups and conditions"
    assert denials(of, request(wait_seconds=102))
    assert not denials(of, request(wait_seconds=103))
    assert not denials(of, request(plan=plan(where=None, group_by=(), aggregates=COUNT)))


def test_a_plan_above_the_owner_s_limit_is_refused_however_long_it_waits() -> None:
    for of, rule, limit in (
        (declaring(8000, "seconds = 100"), "compute.seconds", 100),
        (declaring(800_000), "compute", MAX_WAIT_S),
    ):
        (denial,) = denials(of, request(wait_seconds=MAX_WAIT_S))
        assert (denial.code, denial.rule) == ("TOO_SLOW", rule)
        assert denial.message.endswith(f"at most {limit} s are computed")
        assert "--deadline" not in denial.remedy


def test_without_a_declared_time_nothing_is_refused_for_it() -> None:
    plain, bounded = policy(), policy(compute("seconds = 100", "memory_mb = 512", "threads = 2"))
    for waits in (1, None, MAX_WAIT_S):
        assert not denials(plain, request(wait_seconds=waits))
        assert not denials(bounded, request(wait_seconds=waits))
    assert (stated_ms(plain, request()), limit_seconds(plain, request())) == (None, UNDECLARED_S)
    assert longest_seconds(plain) == UNDECLARED_S
    # Then a computation takes no longer than the request waits, and no longer than the owner allows.
    for waits, seconds in ((30, 30), (None, 60), (200, 100)):
        asked = request(wait_seconds=waits)
        assert stated_ms(bounded, asked) == 1000 * seconds
        assert limit_seconds(bounded, asked) == seconds - BLINDING_MS / 1000
    assert longest_seconds(bounded) == 100
    assert longest_seconds(policy(compute("fixed_seconds = 1.5"))) == 11, "seven times: of 50 statements"
    assert longest_seconds(declaring(1)) == MAX_WAIT_S == MAX_COMPUTE_S


def test_a_request_that_waits_as_usual_has_the_bytes_that_it_had() -> None:
    assert b"wait_seconds" not in request().encode()
    assert request().waits_s == WAIT_S
    other = request(wait_seconds=300)
    assert Request.decode(other.encode()) == other
    for wrong in (0, MAX_WAIT_S + 1):
        with pytest.raises(ValueError, match="wait_seconds"):
            request(wait_seconds=wrong)


def test_a_number_of_rows_is_a_power_of_two_as_it_is_public() -> None:
    (published,) = open_tables(policy(ROWS_UP_TO))
    assert published.rows_up_to == 1048576
    assert b"rows_up_to" not in open_tables(policy())[0].encode()
    for wrong, after in ((1_000_000, 1_048_576), (3, 4)):
        with pytest.raises(PolicyFileError) as caught:
            policy(Edit(ROWS_UP_TO.old, f"{ROWS_UP_TO.old}\nrows_up_to = {wrong}"))
        expected = f"sources.visits.rows_up_to: it is public, so it is a power of two; the next is {after}"
        assert expected in caught.value.message


def test_a_rate_without_what_it_is_multiplied_by_is_named() -> None:
    for edit, problem in (
        (compute("row_nanoseconds = 2"), "row_nanoseconds needs fixed_seconds"),
        (
            compute("fixed_seconds = 1", "row_nanoseconds = 2"),
            "sources.visits: compute.row_nanoseconds needs rows_up_to",
        ),
        (
            compute("fixed_seconds = 1", "decision_nanoseconds = 2", rest=CONSENT.replace("decisions_up_to", "# ")),
            "consent: compute.decision_nanoseconds needs decisions_up_to",
        ),
        (compute("fixed_seconds = 1", "decision_nanoseconds = 2"), "compute.decision_nanoseconds: there is no table"),
    ):
        with pytest.raises(PolicyFileError) as caught:
            policy(edit)
        assert problem in caught.value.message


def test_what_lets_more_be_asked_loosens() -> None:
    before = declaring(2000, "seconds = 100")
    for after, effect in (
        (declaring(1000, "seconds = 100"), "loosens"),
        (declaring(3000, "seconds = 100"), "tightens"),
        (declaring(2000, "seconds = 200"), "loosens"),
        (declaring(2000, "seconds = 100", "threads = 4"), "neither"),
        (policy(ROWS_UP_TO), "loosens"),
    ):
        assert [change.effect for change in compare(before, after)] == [effect]


def test_the_section_is_told_in_words() -> None:
    told = dict(worded_policy(declaring(2000, "seconds = 100", "memory_mb = 512", "threads = 1")))
    assert told["How long it computes"] == (
        "One computation may take 100 s.",
        "It may use 512 MB of memory.",
        "It runs on 1 thread.",
        "The declared time of a plan is 1.5 s, 2000 ns a row and part of it.",
        "A request that does not wait as long is refused before a row is read.",
        "visits: the declared time is for 1,048,576 rows; analysts see this number.",
    )
    assert "How long it computes" not in dict(worded_policy(policy()))


def test_all_lists_of_a_filter_together_are_bounded() -> None:
    values = tuple(f"r{number}" for number in range(1000))
    lists = [OneOf(column="region", values=values) for _ in range(11)]
    request(plan=plan(where=Both(operands=tuple(lists[:10]))))
    with pytest.raises(ValueError, match="the filter lists more than 10,000 values"):
        request(plan=plan(where=Both(operands=tuple(lists))))
