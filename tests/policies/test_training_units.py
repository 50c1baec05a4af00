"""Whose change noise may hide, and of whom the noise is: what a policy, the terms of a sum and a charge make of it."""

import pytest

from crypto.rounds.manifest import Recipient, Terms
from crypto.sealing import PUBLIC_BYTES
from policies.budget.accountant import charge
from policies.document.diff import compare
from policies.document.load import parse
from policies.requests.calibration import spreads_of
from policies.requests.limit import limit_of
from policies.requests.request import Request
from policies.requests.terms import terms_of
from tests.policies.test_gates import TRAINING, judge
from tests.rounds.computation_examples import noised

BY_PERSON = noised("mlp", "smoker", "age", hidden="3")
BY_SILO = noised("mlp", "smoker", "age", hidden="3", unit="silo", silos="4")
OWN = noised("mlp", "smoker", "age", hidden="3", noise="own")


def to_silos(of: Request) -> Request:
    """Return a request whose result goes to the silos that are asked, as a model does."""
    recipients = tuple(Recipient(name=name, key=bytes(PUBLIC_BYTES)) for name in of.silos)
    return of.model_copy(update={"recipients": recipients})


def opening(units: str = "") -> str:
    text = TRAINING.replace('"logistic-regression"]', '"logistic-regression", "mlp"]')
    return text.replace("clip_norm = 10\n", f"clip_norm = 10\n{units}")


@pytest.mark.parametrize(("units", "is_open"), [("", False), ('units = ["person", "silo"]\n', True)])
def test_a_run_by_silo_needs_a_policy_that_allows_it(units: str, is_open: bool) -> None:
    by = parse(opening(units).encode(), "policy.toml")
    denials = {one.code: one for one in judge(by, asked=to_silos(BY_SILO))}
    assert ("TRAINING_UNIT" not in denials) == is_open
    assert "TRAINING_UNIT" not in {one.code for one in judge(by, asked=to_silos(BY_PERSON))}
    if not is_open:
        assert denials["TRAINING_UNIT"].remedy == 'train with unit = "person"'
        assert denials["TRAINING_UNIT"].rule == "training.units"


def test_own_noise_is_whole_at_each_silo_and_costs_the_same() -> None:
    shared, own = (terms_of(one, bytes(32)) for one in (BY_PERSON, OWN))
    assert (shared.own_noise, own.own_noise) == (False, True)
    assert b"own_noise" not in shared.encode()
    assert Terms.decode(own.encode()) == own
    assert shared.blocks == own.blocks
    assert charge(BY_PERSON, 1) == charge(OWN, 1)
    assert spreads_of(OWN.table, OWN.plan, OWN.micro_rho) == spreads_of(OWN.table, BY_PERSON.plan, OWN.micro_rho)

    def limit(of: Request) -> int:
        return limit_of(of.table, of.plan, of.micro_rho, "masking", len(of.silos))

    assert limit(OWN) > limit(BY_PERSON)


def test_a_unit_more_loosens_a_policy() -> None:
    before, after = (parse(opening(one).encode(), "p") for one in ("", 'units = ["person", "silo"]\n'))
    assert [one.effect for one in compare(before, after) if "units" in str(one)] == ["loosens"]
    assert [one.effect for one in compare(after, before) if "units" in str(one)] == ["tightens"]
