"""An answer with long blocks: its noise comes from tables, each silo charges its delta, and the share of delta ends."""

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError
from crypto.noise import TABLE_SLOTS, discrete_gaussian
from policies.budget.accountant import epsilon_of
from policies.budget.ledger import ATTO, Charge
from policies.budget.sampler import rho_delta, sampler_delta
from policies.requests.query import CUT_SLOTS
from tests.harness.inside import ledger_of
from tests.harness.simulator import Simulation, no_noise, simulate

pytestmark = pytest.mark.slow  # seconds in all: `make check` runs it

LONG = "SELECT sex, ecog, COUNT(*) AS n FROM lung GROUP BY sex, ecog"
SHORT = "SELECT ecog, COUNT(*) AS n FROM lung GROUP BY ecog"
LIMIT = ATTO // 10**6 // 1024
Z = NormalDist().inv_cdf(1 - 1e-8 / 2)


@pytest.fixture
def wide(home: Path) -> Path:
    """A federation whose dimensions have 64 values each, so that one question has 4,096 groups."""
    sexes = ", ".join(f'"{sex}"' for sex in ["female", "male", *(f"other-{number}" for number in range(61)), "unknown"])
    changes = {
        '["female", "male", "unknown"]': f"[{sexes}]",
        "domain = [-1, 0, 1, 2, 3]": f"domain = {list(range(-1, 63))}",
        "max_groups     = 100": "max_groups     = 5000",
        "lifetime    = { rho = 1.0 }": "lifetime    = { rho = 3.0 }",
    }
    for policy in home.glob("silos/*/policy.toml"):
        text = policy.read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        policy.write_text(text)
    return home


def spent(simulation: Simulation) -> set[int]:
    """Return what samplers have cost, by the ledgers of all silos."""
    return {ledger_of(silo).spending().atto_delta for silo in simulation.silos.values()}


def test_a_long_answer_is_noised_from_tables_and_charged_to_delta(wide: Path) -> None:
    drawn: list[tuple[int, float]] = []

    def noted(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
        samples = discrete_gaussian(length, variance, shares)
        drawn.append((length, float((samples.astype(np.float64) ** 2).mean()) * shares / variance))
        return samples

    with simulate(wide, noise=noted) as simulation:
        planned, request = simulation.federation.prepare(LONG, purpose=PURPOSE, epsilon=1.0)
        report = simulation.federation.open_answer(planned, request, simulation.federation.submit(request))
        assert len(report.rows) + len(report.withheld_groups) == TABLE_SLOTS
        assert [length for length, _ in drawn] == [TABLE_SLOTS, CUT_SLOTS] * len(simulation.silos)
        assert all(abs(ratio - 1) <= Z * math.sqrt(2 / TABLE_SLOTS) for length, ratio in drawn if length == TABLE_SLOTS)
        assert spent(simulation) == {sampler_delta(request)} == {1}
        assert report.epsilon == epsilon_of(report.rho, rho_delta(1e-6)) <= 1.0
        assert report.delta == 1e-6


def test_a_short_answer_spends_no_delta_and_its_price_is_as_before(wide: Path) -> None:
    with simulate(wide, noise=no_noise) as simulation:
        report = simulation.federation.query(SHORT, purpose=PURPOSE, epsilon=1.0)
        assert spent(simulation) == {0}
        assert report.rho == 0.024355


def test_long_answers_end_with_their_share_of_delta(wide: Path) -> None:
    with simulate(wide, noise=no_noise) as simulation:
        for silo in simulation.silos.values():
            before = Charge(bytes(16), bytes(32), "ana", PURPOSE, 1, bytes(32), 1_800_000_000, atto_delta=LIMIT - 1)
            assert ledger_of(silo).reserve(before, 10**6, delta_limit=LIMIT)
        simulation.federation.query(LONG, purpose=PURPOSE, epsilon=1.0)
        assert spent(simulation) == {LIMIT}
        with pytest.raises(DeniedError) as caught:
            simulation.federation.query(LONG, purpose=PURPOSE, epsilon=1.0)
        assert [denial.code for denial in caught.value.denials["aspen"]] == ["BUDGET_DELTA"]
        simulation.federation.query(SHORT, purpose=PURPOSE, epsilon=1.0)
        assert spent(simulation) == {LIMIT}


def test_a_reservation_that_is_released_gives_its_delta_back(wide: Path) -> None:
    with simulate(wide, noise=no_noise) as simulation:
        for silo in simulation.silos.values():
            silo.dies_before = "ready"
            silo.restarts = True
        with pytest.raises(Exception, match="no answer"):
            simulation.federation.query(LONG, purpose=PURPOSE, epsilon=1.0)
        assert spent(simulation) == {0}
