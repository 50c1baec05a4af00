"""A metric after each round of a run: told to the analyst, paid for with noise, and the end of a run that waits."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from analyst.errors import AnalystError, DeniedError
from analyst.training.evaluation import evaluate, evaluation_of
from analyst.training.job import RoundMetric, read_job
from analyst.training.patience import MetricSoFar
from analyst.training.preview import preview_run, run_lines
from analyst.training.progress import Progress
from analyst.training.run import Training, train
from analyst.training.told import show_training, to_json
from crypto.noise import discrete_gaussian
from policies.units import MICRO
from silo_node.data.sides import held_out_of
from tests.cases import every
from tests.harness.simulator import Simulation, no_noise
from tests.rounds import test_noised_families as with_noise
from tests.rounds.test_evaluation import METRICS, by_name, entry_of, judged
from tests.rounds.test_exact_families import ALL, SILOS, TIGHT, banks, job_of, pooled, run
from tests.rounds.test_held_out import WITH_EVALUATION, secret_of

pytestmark = pytest.mark.slow

HELD = "[held_out]\nshare = 0.3\n"
PRIVATE = "epsilon = 8\n"
OPENED = (*with_noise.FAMILIES, "evaluation")


def test_each_round_tells_its_metric_and_patience_ends_the_run(tmp_path: Path) -> None:
    metric = f'{HELD}[metric]\nname = "log-loss"\ntolerance = 0.005\npatience = 2\n'
    job = job_of("logistic-regression", "ok", TIGHT) + metric
    with banks(tmp_path / "f", job, computations=WITH_EVALUATION, change=METRICS) as (simulation, file):
        training = run(simulation, file)
        told = [one.figures["log-loss"] for one in training.rounds]
        assert len(told) == training.steps < 8
        assert training.ended == "patience"
        best = min(told[:-2])
        assert told[-3] == best
        assert all(best - one <= 0.005 for one in told[-2:])
        assert "log-loss 0." in training.rounds[-1].in_words
        assert training.metric_rho is None
        assert "ended by patience" in show_training(training, read_job(file), {})
        assert '"ended": "patience"' in to_json(training)
        # The model of the last round stands at every silo, and is judged.
        assert training.holders == SILOS
        assert by_name(judged(simulation).judged)["log-loss"] == pytest.approx(told[-1], abs=1e-12)
        foreseen = preview_run(simulation.federation, read_job(file), file.with_name("keep.json"))
        assert "metric: log-loss" in "\n".join(run_lines(foreseen))


def killed_after_each_request(patch: pytest.MonkeyPatch, simulation: Simulation, file: Path) -> tuple[Training, int]:
    """Return a run whose command is killed whenever silos have answered, before it notes that, and how often it was."""
    submit, kills = Simulation.submit, 0

    def killed(self: Simulation, request: bytes, more_s: float = 0.0) -> bytes:
        submit(self, request, more_s)
        raise KeyboardInterrupt

    patch.setattr(Simulation, "submit", killed)
    while kills < 100:
        try:
            return run(simulation, file), kills
        except KeyboardInterrupt:
            kills += 1
    raise AssertionError("the run is at no end")


def test_a_run_that_is_killed_at_any_point_waits_as_long_as_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = f'{HELD}[metric]\nname = "log-loss"\ntolerance = 0.005\npatience = 2\n'
    job = job_of("logistic-regression", "ok", TIGHT) + metric
    with banks(tmp_path / "f", job, computations=WITH_EVALUATION, change=METRICS) as (simulation, file):
        whole = run(simulation, file)
        rows = entry_of(simulation).metrics
        training, kills = killed_after_each_request(monkeypatch, simulation, file)
        assert kills == 2 * whole.steps  # each round, and its metric
        assert (training.steps, training.ended) == (whole.steps, "patience") == (whole.steps, whole.ended)
        assert entry_of(simulation).metrics == rows
        assert not file.with_name("keep.json").exists()


def test_no_metric_is_paid_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = f'rounds = 10\n{HELD}[metric]\nname = "accuracy"\nevery = 5\nepsilon = 2\n'
    job = with_noise.job_of("logistic-regression", "ok", PRIVATE + metric)
    change = 'release = ["model"]', 'release = ["model", "metrics"]'
    with with_noise.banks(tmp_path / "f", job, no_noise, times=1, computations=OPENED, change=change) as made:
        simulation, file = made
        whole = run(simulation, file)
        spent = simulation.spent("north")
        training, kills = killed_after_each_request(monkeypatch, simulation, file)
        assert kills == 12
        assert training.metric_rho == whole.metric_rho
        assert simulation.spent("north") == 2 * spent


def test_a_metric_that_is_denied_in_mid_run_for_budget_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    metric = f'rounds = 10\n{HELD}[metric]\nname = "accuracy"\nevery = 3\nepsilon = 45\npatience = 2\ntolerance = 2\n'
    job = with_noise.job_of("logistic-regression", "ok", PRIVATE + metric)
    change = 'release = ["model"]', 'release = ["model", "metrics"]'
    with with_noise.banks(tmp_path / "f", job, no_noise, times=1, computations=OPENED, change=change) as made:
        simulation, file = made
        foreseen = preview_run(simulation.federation, read_job(file))
        assert not foreseen.refusals
        assert all((one.rho_after or 0) < 0 < one.rho_beside for one in foreseen.silos.values())
        text = "\n".join(run_lines(foreseen))
        assert "north would refuse a part of what is asked beside: after the rounds, which are reserved, rho" in text
        assert "nobody would refuse it now" not in text
        training = run(simulation, file)
        assert [one.number for one in training.rounds if one.figures] == [3]
        assert (training.steps, training.ended) == (10, None)
        assert training.why_no_metric.startswith("after round 6: ")
        assert "BUDGET_LIFETIME" in training.why_no_metric
        assert "its metric was not told, and the run went on without: after round 6" in show_training(
            training, read_job(file), {}
        )
        assert training.metric_rho == pytest.approx(foreseen.silos["north"].rho_beside / 3)
        north = foreseen.silos["north"]
        assert simulation.spent("north") / MICRO == pytest.approx(north.rho_of_run + north.rho_beside / 3, rel=1e-5)


def test_a_file_of_an_earlier_version_asks_for_no_metric_that_it_may_have(tmp_path: Path) -> None:
    job = job_of("logistic-regression", "ok", TIGHT) + f'{HELD}[metric]\nname = "log-loss"\n'

    def stopped(done: int) -> None:
        raise KeyboardInterrupt

    with banks(tmp_path / "f", job, computations=WITH_EVALUATION, change=METRICS) as (simulation, file):
        keep = file.with_name("keep.json")
        with pytest.raises(KeyboardInterrupt):
            train(simulation.federation, read_job(file), stopped, keep)
        state = Progress.decode(keep.read_bytes())
        assert state.metric is not None
        assert (state.metric.done, state.metric.since, state.metric.asked) == (1, 0, b"")
        keep.write_bytes(state.model_copy(update={"metric": None}).encode())
        assert b"metric" not in keep.read_bytes()
        training = run(simulation, file)
        assert [one.number for one in training.rounds if one.figures] == [*range(2, training.steps + 1)]


def test_a_metric_that_does_not_fit_is_told_before_the_first_round(tmp_path: Path) -> None:
    job = job_of("logistic-regression", "ok", TIGHT) + f'{HELD}[metric]\nname = "rmse"\n'
    with banks(tmp_path / "f", job, computations=WITH_EVALUATION, change=METRICS) as (simulation, file):
        with pytest.raises(AnalystError, match="has no rmse"):
            run(simulation, file)
        assert not file.with_name("keep.json").exists()


def test_an_improvement_is_more_than_the_tolerance() -> None:
    of = RoundMetric(name="auc", tolerance=Decimal("0.01"), patience=2)
    so_far = MetricSoFar()
    for value, since in ((0.5, 0), (0.505, 1), (0.52, 0), (0.52, 1), (0.1, 2)):
        so_far = so_far.after(value, of)
        assert so_far.since == since, value
    assert so_far.best == 0.52
    assert so_far.is_over(of)
    falling = RoundMetric(name="rmse", patience=1)
    assert MetricSoFar().after(2.0, falling).after(1.9, falling).since == 0
    assert not so_far.is_over(None)


def test_without_open_metrics_a_run_that_asks_for_them_is_refused(tmp_path: Path) -> None:
    job = job_of("logistic-regression", "ok", TIGHT) + f'{HELD}[metric]\nname = "auc"\n'
    with (
        banks(tmp_path / "f", job, computations=WITH_EVALUATION) as (simulation, file),
        pytest.raises(DeniedError, match="metrics of a model may not leave"),
    ):
        run(simulation, file)


def test_a_private_model_is_judged_at_a_price_and_without_its_noise_exactly(tmp_path: Path) -> None:
    job = with_noise.job_of("logistic-regression", "ok", PRIVATE + HELD)
    change = 'release = ["model"]', 'release = ["model", "metrics"]'
    with with_noise.banks(tmp_path / "f", job, no_noise, computations=OPENED, change=change) as (simulation, file):
        run(simulation, file)
        before = simulation.spent("north")
        with pytest.raises(AnalystError, match="the sources are private"):
            judged(simulation)
        found = judged(simulation, epsilon=1.0, metrics=("accuracy", "auc", "log-loss"))
        assert found.epsilon == pytest.approx(1, rel=0.01)
        assert simulation.spent("north") > before
        is_out = held_out_of(secret_of(simulation), [f"{row['id']}-{one}" for one in range(4) for row in pooled()], 300)
        assert found.judged.rows == is_out.sum()
        own = by_name(found.judged)
        assert 0.6 < own["accuracy"] < 1
        assert 0.6 < own["auc"] < 1
        assert all(one.low is not None and one.low < (one.value or 0) for one in found.judged.metrics)


def test_noise_is_within_the_interval_that_is_told(tmp_path: Path) -> None:
    metric = '[metric]\nname = "accuracy"\nevery = 25\nepsilon = 2\n'
    job = with_noise.job_of("logistic-regression", "ok", PRIVATE + HELD + metric)
    change = 'release = ["model"]', 'release = ["model", "metrics"]'
    with with_noise.banks(tmp_path / "f", job, discrete_gaussian, computations=OPENED, change=change) as made:
        simulation, file = made
        training = run(simulation, file)
        assert [one.number for one in training.rounds if one.figures] == [25, 50]
        assert training.metric_rho is not None
        assert 0 < training.metric_rho < 0.3
        assert "its metrics cost rho" in show_training(training, read_job(file), {})
        entry = entry_of(simulation)
        found = evaluate(simulation.federation, entry, evaluation_of(simulation.federation, entry, epsilon=4.0))
        rows = held_out_of(secret_of(simulation), [f"{row['id']}-{one}" for one in range(4) for row in pooled()], 300)
        assert abs(found.judged.rows - rows.sum()) < 60
        for one in found.judged.metrics:
            assert one.value is not None
            assert one.low is not None
            assert one.high is not None
            assert one.low <= one.value <= one.high
        assert np.isfinite(list(by_name(found.judged).values())).all()
        assert any("every figure has noise" in note for note in found.notes)


@every(
    ("opened", "what", "section"),
    [
        (ALL, "the split of persons would be refused by east: COMPUTATION_CLOSED", "[held_out]"),
        (WITH_EVALUATION, "its log-loss would be refused by east: RELEASE", "[metric]"),
    ],
)
def test_a_run_whose_split_or_metric_would_be_refused_does_not_begin(
    tmp_path_factory: pytest.TempPathFactory, opened: tuple[str, ...], what: str, section: str
) -> None:
    path = tmp_path_factory.mktemp("closed") / "f"
    job = job_of("logistic-regression", "ok", TIGHT) + f'{HELD}[metric]\nname = "log-loss"\n'
    with banks(path, job, computations=opened) as (simulation, file):
        with pytest.raises(DeniedError, match=what) as denied:
            run(simulation, file)
        assert f"leave {section} out of the job" in denied.value.hint
        steps = {step for silo in simulation.silos.values() for step, _ in silo.seen}
        assert steps <= {"> catalogue", "< catalogue"}
        assert not (path / "splits.json").exists()
        assert not file.with_name("keep.json").exists()
