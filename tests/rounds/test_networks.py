"""A perceptron across four silos in memory: from a job to an evaluation by rows that nobody learned from."""

from pathlib import Path

import numpy as np
import pytest
import torch

import silo_node.owner.cli
from analyst.errors import AnalystError
from tests.rounds.test_evaluation import by_name, judged
from tests.rounds.test_hashed import SILOS, banks, run, the_state, vector

pytestmark = [pytest.mark.torch, pytest.mark.slow]

JOB = """\
schema = "consilo-job/1"
model = "mlp"
table = "loans"
purpose = "lending"
label = "ok"
features = ["kind", "debt", "age", "owner"]
release = "exact"
"""
OPENED = ('["hashed-logistic", "logistic-regression", "evaluation"]', '["mlp", "evaluation"]')
TRAINED = ("[training]", "[training.networks]\n[training]")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_perceptron_tells_who_is_held_out_better_than_a_line(tmp_path: Path) -> None:
    job = f'{JOB}rounds = 12\n[options]\nhidden = "16"\nepochs = 3\n[held_out]\nshare = 0.25\n'
    with banks(tmp_path / "f", job, OPENED, TRAINED) as (simulation, file):
        training = run(simulation, file)
        state = the_state(simulation)
        figures = by_name(judged(simulation).judged)
    assert (training.ended, training.steps, training.holders) == (None, 12, SILOS)
    assert len(vector(state, "weights")) == 6 * 16 + 16 + 16 + 1
    losses = vector(state, "losses")
    assert len(losses) == 11
    assert losses[-1] < losses[0] - 0.1
    assert figures["accuracy"] > 0.6
    assert figures["auc"] > 0.7
    assert np.isfinite(vector(state, "weights")).all()


def test_a_training_that_explodes_ends_a_run_at_its_last_good_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with banks(tmp_path / "f", f"{JOB}rounds = 6\n[options]\nrate = 1000\nepochs = 3\n", OPENED, TRAINED) as (
        simulation,
        file,
    ):
        training = run(simulation, file)
        state = the_state(simulation)
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "show", training.run, "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
    assert (training.ended, training.steps) == ("diverged", 2)
    assert vector(state, "weights").tobytes() == vector(state, "good").tobytes()
    assert "take a smaller rate" in shown


def test_an_autoencoder_has_no_label_or_is_judged_by_one(tmp_path: Path) -> None:
    job = JOB.replace('"mlp"', '"autoencoder"') + "rounds = 6\n[options]\nhidden = 8\nlatent = 2\n"
    opened = (OPENED[0], OPENED[1].replace("mlp", "autoencoder"))
    with banks(tmp_path / "f", job + "[held_out]\nshare = 0.25\n", opened, TRAINED) as (simulation, file):
        run(simulation, file)
        assert 0.2 < by_name(judged(simulation).judged)["auc"] < 0.8  # who pays back is no unusual row
    with banks(tmp_path / "g", job.replace('label = "ok"\n', ""), opened, TRAINED) as (simulation, file):
        training = run(simulation, file)
        losses = vector(the_state(simulation), "losses")
        with pytest.raises(AnalystError, match="predicts nothing"):
            judged(simulation)
    assert (training.ended, training.steps) == (None, 6)
    assert losses[-1] < losses[0]
