"""A perceptron across four silos in memory: from a job to an evaluation by rows that nobody learned from."""

from pathlib import Path

import numpy as np
import pytest
import torch

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
