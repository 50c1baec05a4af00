"""The price of a whole run: what its first step reserves, what a later one does, and which limits hold for both."""

from fractions import Fraction
from typing import Any

import pytest

from policies.budget.accountant import charge
from policies.budget.ledger import Charge, RunStep, Spending, WindowLimit, WindowSpending, exceeds
from policies.budget.sampler import sampler_delta
from policies.decision.budget_rules import price
from policies.decision.case import NO_JURISDICTIONS, Case
from policies.decision.compiled import compiled, facts_of
from policies.decision.run_price import announced, announced_part, reserved_part, run_price
from policies.document.load import parse
from policies.document.policy import Policy
from policies.requests.key_search import FIRST
from policies.requests.logistic import LogisticStep
from policies.requests.request import Request
from policies.requests.training import START
from tests.harness.example_policy import NOW, POLICY, request
from tests.policies.test_key_search import asked, search

LIFETIME, STEPS, MICRO_RHO = 1_000_000, 20, 7_000
SECTIONS = """
[[budget.limits]]
purpose = "health-research"
window = "calendar-month"
rho = 0.3
per_analyst_rho = 0.2
[training]
max_rounds = 50
clip_norm = 10
max_rho_per_run = 0.5
"""
TRAINED = parse((POLICY + SECTIONS).encode(), "policy.toml")


def step(number: int = 0, micro_rho: int = MICRO_RHO, steps: int = STEPS) -> Request:
    plan = LogisticStep(
        run=bytes(range(16)),
        step=number,
        steps=steps,
        after=bytes([7]) * 32 if number else START,
        release="private",
        label="smoker",
        features=("age", "ward"),
        learning_rate="3",
        momentum="0.5",
        clip="1",
        local_steps=1,
    )
    return request(plan=plan, micro_rho=micro_rho)


def denials(of: Request, spent: Spending, policy: Policy = TRAINED) -> dict[str, str]:
    """Return what the rules of the budget say to a request."""
    rules = compiled(policy)
    facts = facts_of(of, policy.privacy_unit.max_silos)
    source: Any = None
    about = (policy, rules, of, bytes(32), facts, source, spent, NOW, None, None, (), NO_JURISDICTIONS)
    return {one.code: f"{one.message}; {one.remedy}" for one in price(Case(*about))}


def spending(lifetime: int = 0, everybody: int = 0, analyst: int = 0, **more: Any) -> Spending:
    return Spending(lifetime, (WindowSpending(everybody, analyst),), **more)


def test_the_first_step_costs_the_run_and_a_later_one_what_is_left() -> None:
    for number in range(STEPS):
        for next_step in range(STEPS + 1):
            found = run_price(step(number), 2, next_step)
            left = max(0, STEPS - max(next_step, number + 1))
            assert found.parts == 1 + left
            assert found.micro_rho == charge(step(number), 2) + left * announced_part(step(number), 2)
            assert found.atto_delta == (1 + left) * sampler_delta(step(number))
            assert found.is_ahead == bool(left)


@pytest.mark.parametrize("max_silos", [1, 2, 5])
@pytest.mark.parametrize("micro_rho", [1_001, MICRO_RHO, 99_999])
def test_no_charge_of_a_run_is_more_than_was_reserved_for_it(max_silos: int, micro_rho: int) -> None:
    first = step(micro_rho=micro_rho)
    each = announced_part(first, max_silos)
    assert each == -(-Fraction(micro_rho * max_silos**2, first.table.max_silos**2) // 1)
    charges = [charge(step(number, micro_rho), max_silos) for number in range(STEPS)]
    assert max(charges) <= each
    assert (
        sum(charges)
        <= run_price(first, max_silos).micro_rho
        <= announced(first.plan.training or search(*FIRST), first, max_silos)
    )


def test_a_question_and_a_round_of_a_search_reserve_themselves_alone() -> None:
    for alone in (request(), asked(search(*FIRST), micro_rho=10_000)):
        assert reserved_part(alone, 2) == 0
        found = run_price(alone, 2)
        assert (found.parts, found.micro_rho, found.is_ahead) == (1, charge(alone, 2), False)


@pytest.mark.parametrize("number", [0, 5])
def test_every_limit_is_that_of_the_whole_run(number: int) -> None:
    """So for a silo's first step, whichever it is; what the run itself has reserved is not in the spending."""
    silos = TRAINED.privacy_unit.max_silos
    whole = run_price(step(number), silos).micro_rho
    assert 0 < whole < 200_000
    for code, short, rest in (
        ("BUDGET_LIFETIME", spending(LIFETIME - whole + 1), spending(LIFETIME - whole)),
        ("BUDGET_WINDOW", spending(0, 300_000 - whole + 1), spending(0, 300_000 - whole)),
        ("BUDGET_ANALYST", spending(0, 0, 200_000 - whole + 1), spending(0, 0, 200_000 - whole)),
    ):
        said = denials(step(number), short)
        assert set(said) == {code}
        assert "this run" in said[code]
        assert denials(step(number), rest) == {}
    said = denials(step(number), spending(LIFETIME - whole + 1))
    assert f"whose {STEPS - number} steps cost rho {whole / 1e6:g}" in said["BUDGET_LIFETIME"]


def test_a_later_step_of_a_run_that_has_reserved_is_denied_for_nothing_that_others_spent() -> None:
    """The spending that counts is without the run's own; what others can have spent beside it leaves room for it."""
    silos = TRAINED.privacy_unit.max_silos
    whole = run_price(step(0), silos).micro_rho
    others = LIFETIME - whole
    for number in range(1, STEPS):
        before = sum(charge(step(one), silos) for one in range(number))
        spent = spending(others + before, next_step=number, run=before)
        assert denials(step(number), spent) == {}
        repeated = denials(step(number - 1), spent)
        assert set(repeated) == {"BUDGET_LIFETIME"}, "a repeated step is beyond what was reserved"


def test_too_dear_a_run_is_told_how_many_steps_it_could_have() -> None:
    said = denials(step(micro_rho=30_000), spending())["RHO_PER_RUN"]
    fits = 500_000 // charge(step(micro_rho=30_000), TRAINED.privacy_unit.max_silos)
    assert f"at most {fits} steps at this price of each" in said
    assert "RHO_PER_RUN" not in denials(step(micro_rho=30_000, steps=fits), spending())
    assert "RHO_PER_RUN" in denials(step(micro_rho=30_000, steps=fits + 1), spending())


def test_the_ledger_holds_the_same_price_against_the_same_limits() -> None:
    """`exceeds`, in the transaction, and the rule before it agree at every edge."""
    silos = TRAINED.privacy_unit.max_silos
    for number in (0, 3, STEPS - 1):
        asked_for = step(number)
        each = reserved_part(asked_for, silos)
        of_run = RunStep(bytes(16), bytes(32), number, b"", STEPS, each, ("a",))
        entry = Charge(bytes(16), bytes(32), "ana", "health-research", charge(asked_for, silos), bytes(32), NOW, of_run)
        for next_step in (0, 3, number, STEPS):
            whole = run_price(asked_for, silos, next_step).micro_rho
            for short in (0, 1):
                spent = spending(LIFETIME - whole + short, 300_000 - whole, 200_000 - whole, next_step=next_step)
                limits = (WindowLimit(0, 300_000, 200_000),)
                assert exceeds(spent, entry, LIFETIME, limits, None, 0) == bool(short)
                assert bool(denials(asked_for, spent)) == bool(short)
