"""Before a model is judged: the price, what is left, who would refuse, and how far noise moves each metric."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyst.training.evaluation import evaluation_of, judged_of
from analyst.training.judging_preview import JudgingPreview, judging_lines, preview_evaluation
from analyst.training.metrics import opened_of
from analyst.widths import deviations_of
from crypto.noise import discrete_gaussian
from policies.requests.evaluation import Evaluation
from policies.requests.metrics import MetricName
from policies.requests.statistic import Statistic
from tests.harness.simulator import Simulation
from tests.rounds import test_noised_families as with_noise
from tests.rounds.test_evaluation import entry_of
from tests.rounds.test_exact_families import SILOS, run
from tests.rounds.test_round_metric import OPENED, PRIVATE

pytestmark = pytest.mark.slow
OPEN = 'release = ["model"]', 'release = ["model", "metrics"]'
Z = 1.96


def foreseen(simulation: Simulation, **options: Any) -> JudgingPreview:
    entry = entry_of(simulation)
    return preview_evaluation(simulation.federation, entry, evaluation_of(simulation.federation, entry, **options))


def test_a_private_evaluation_is_foreseen_with_the_error_that_noise_makes(tmp_path: Path) -> None:
    job = with_noise.job_of("logistic-regression", "ok", f"{PRIVATE}rounds = 10\n")
    with with_noise.banks(tmp_path / "f", job, discrete_gaussian, times=1, computations=OPENED, change=OPEN) as (
        simulation,
        file,
    ):
        run(simulation, file)
        spent, sent = simulation.spent("east"), len(simulation.silos["east"].seen)
        found = foreseen(simulation, epsilon=1.0)
        assert found.epsilon == pytest.approx(1, rel=0.01)
        assert set(found.silos) == set(SILOS)
        assert not found.refusals
        assert not found.is_under_way
        for silo, one in found.silos.items():
            assert one.rho == pytest.approx(found.rho, rel=1e-5)
            least = min(min(left.everybody, left.analyst or left.everybody) for left in one.left) / 1e6
            assert found.rho_left[silo] == pytest.approx(least - one.rho)
        told = "\n".join(judging_lines(found))
        for part in (
            "price: epsilon 1 at delta",
            "after it",
            "nobody would refuse it now",
            "by the noise alone",
            "auc",
        ):
            assert part in told, told
        assert json.loads(json.dumps(found.to_dict()))["errors"]["accuracy"]["1000"] == found.errors["accuracy"][1000]
        assert set(foreseen(simulation, epsilon=90.0).refusals) == set(SILOS)
        assert simulation.spent("east") == spent
        assert all(step.endswith(" catalogue") for step, _ in simulation.silos["east"].seen[sent:])
        # More rows, or a higher price, and noise matters less.
        for halves in found.errors.values():
            assert (halves[100] or math.inf) >= (halves[1000] or math.inf) > (halves[100_000] or math.inf)
        fewer = foreseen(simulation, epsilon=1.0, metrics=("auc",)).errors["auc"][10_000]
        assert fewer is not None
        assert fewer < (found.errors["auc"][10_000] or 0)
        covers(simulation, found, "accuracy")
        covers(simulation, found, "auc")


def covers(simulation: Simulation, found: JudgingPreview, metric: MetricName) -> None:
    """Check that noise moves a metric of 10,000 rows as far as it was foreseen: 1.96 deviations of 400 draws."""
    entry = entry_of(simulation)
    request = evaluation_of(simulation.federation, entry, epsilon=1.0)
    assert isinstance(request.plan, Evaluation)
    plan, table = request.plan, request.table
    offer = simulation.federation.offer_of(request.silos)
    deviations = deviations_of(table, plan, request.micro_rho, [offer.silos[silo] for silo in request.silos])
    sums, drawn, rng = plan.sums(table), [], np.random.default_rng(7)
    for _ in range(400):
        blocks = {name: rng.normal(0, deviations[Statistic(name)], one.length) for name, one in sums.items()}
        blocks["rows"] += 5_000
        blocks["right"] += 8_000
        bins = sums["scores"].length // 2
        rising = np.arange(1, bins + 1) / (bins * (bins + 1) / 2) * 5_000
        blocks["scores"] += np.concatenate([rising[::-1], rising])
        opened = opened_of(sums, blocks, {name: deviations[Statistic(name)] ** 2 for name in sums}, 1)
        by_name = {one.name: one.value for one in judged_of(plan.model.task(table), plan, opened).metrics}
        drawn.append(by_name[metric])
    half = found.errors[metric][10_000]
    assert half is not None
    assert half == pytest.approx(Z * float(np.std(np.array(drawn, float))), rel=0.15)


def test_who_would_not_open_metrics_is_foreseen(tmp_path: Path) -> None:
    job = with_noise.job_of("logistic-regression", "ok", f"{PRIVATE}rounds = 10\n")
    with with_noise.banks(tmp_path / "f", job, times=1, computations=OPENED) as (simulation, file):
        run(simulation, file)
        found = foreseen(simulation, epsilon=1.0)
        assert {one.code for denials in found.refusals.values() for one in denials} == {"RELEASE"}
        assert "east would refuse: RELEASE" in "\n".join(judging_lines(found))
