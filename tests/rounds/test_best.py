"""The model after the round that the metric liked best stands at every silo beside the last one."""

from pathlib import Path

import numpy as np
import pytest
import torch

import silo_node.owner.cli
from analyst.training.job import RoundMetric, read_job
from analyst.training.patience import MetricSoFar
from analyst.training.run import train
from analyst.training.told import show_training
from policies.requests.metrics import MetricName
from silo_node.errors import SiloError
from silo_node.training.best import at_best, best_round
from tests.harness.states import states_of
from tests.rounds.test_beginning import vector
from tests.rounds.test_hashed import banks
from tests.rounds.test_networks import JOB, OPENED, TRAINED

pytestmark = [pytest.mark.torch, pytest.mark.slow]

METRIC = """\
rounds = 9
[options]
hidden = "32"
rate = 2
epochs = 6
batch = 8
[held_out]
share = 0.4
[metric]
name = "log-loss"
patience = 3
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_silos_keep_the_weights_of_the_best_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with banks(tmp_path / "f", JOB + METRIC, OPENED, TRAINED) as (simulation, file):
        silos, seen = simulation.silos, dict[int, np.ndarray]()

        def look(done: int) -> None:
            (state,) = (one for one in states_of(silos["east"]) if one.exact is not None)
            seen[done] = vector(state, "weights") if done > 1 else np.zeros(0)

        job = read_job(file)
        training = train(simulation.federation, job, look, file.with_name("keep.json"), sleep=lambda _: None)
        held = [one for silo in silos.values() for one in states_of(silo) if one.exact is not None]
        assert len({one.raw for one in held}) == 1
        best = best_round(held[0])
        assert training.best_round is not None
        said = show_training(training, job, {})
        if training.best_round == training.steps:  # of the last one no step follows
            assert "best by log-loss: the last round" in said
            return
        assert best == training.best_round
        assert f"best by log-loss: round {best} of {training.steps}" in said
        if best > 1:
            assert (vector(at_best(held[0]), "weights") == seen[best]).all()
        command = ["models", "export", training.run[:8], "--policy", str(silos["east"].policy)]
        for more, out in (([], "last.json"), (["--best"], "best.json")):
            assert silo_node.owner.cli.main([*command, *more, "--out", str(tmp_path / out)]) == 0
        capsys.readouterr()
        assert (tmp_path / "last.json").read_bytes() != (tmp_path / "best.json").read_bytes()


def test_a_run_without_a_metric_has_no_best_model(tmp_path: Path) -> None:
    with banks(tmp_path / "f", JOB + 'rounds = 3\n[options]\nhidden = "4"\n', OPENED, TRAINED) as (simulation, file):
        training = train(simulation.federation, read_job(file), keep=file.with_name("keep.json"), sleep=lambda _: None)
        assert training.best_round is None
        (state,) = (one for one in states_of(simulation.silos["east"]) if one.exact is not None)
    assert best_round(state) is None
    with pytest.raises(SiloError, match="no other model than its last"):
        at_best(state)


def test_which_round_was_best_follows_from_how_many_came_after() -> None:
    of = read_metric("accuracy", every=2)
    so_far = MetricSoFar()
    for done, value in ((2, 0.5), (4, 0.7), (6, 0.6), (8, 0.7)):
        so_far = so_far.after(value, of).model_copy(update={"done": done})
    assert so_far.best_round(of) == 4
    assert so_far.best_round(None) is None
    assert MetricSoFar().best_round(of) is None


def read_metric(name: MetricName, every: int) -> RoundMetric:

    return RoundMetric(name=name, every=every)
