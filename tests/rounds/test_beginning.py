"""A run that begins with the weights of another's model: from those, at every silo, or refused before anything."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analyst.cli.main import main
from analyst.errors import AnalystError, DeniedError
from analyst.training.beginning import beginning_in_words
from analyst.training.job import read_job
from analyst.training.run import Training, train
from policies.errors import ModelError
from silo_node.training.run import RunState
from tests.harness.simulator import Simulation
from tests.harness.states import states_of
from tests.rounds.test_hashed import banks
from tests.rounds.test_networks import JOB, OPENED, TRAINED

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SIZES = 'rounds = 4\n[options]\nhidden = "8"\nepochs = 3\n'


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(simulation: Simulation, file: Path, begins: str | None = None) -> Training:
    job = read_job(file).model_copy(update={"begins": begins})
    return train(simulation.federation, job, keep=file.with_name("keep.json"), sleep=lambda _: None)


def of(simulation: Simulation, run_name: str) -> RunState:
    """Return the state of a run, which all silos have to the last bit."""
    found = [one for silo in simulation.silos.values() for one in states_of(silo) if one.run.hex() == run_name]
    assert len({one.raw for one in found}) == 1
    return found[0]


def vector(state: RunState, name: str) -> np.ndarray:
    return next(np.array(one.values) for one in state.numbers if one.name == name)


def test_a_run_begins_where_the_other_ended(tmp_path: Path) -> None:
    with banks(tmp_path / "f", JOB + SIZES, OPENED, TRAINED) as (simulation, file):
        first = run(simulation, file)
        before = of(simulation, first.run)
        words = beginning_in_words(simulation.federation, first.run[:8])
        assert words.startswith(
            f"begins with the weights of run {first.run[:12]}, a mlp after 4 rounds; it was trained"
        )
        second = run(simulation, file, first.run[:8])
        after = of(simulation, second.run)
    assert second.run != first.run
    losses = vector(before, "losses"), vector(after, "losses")
    assert losses[1][0] < losses[0][-1], "the first loss is that of the weights that the other run ended with"
    assert len(second.holders) == len(simulation.silos)


def test_a_model_that_cannot_be_begun_with_is_refused_in_one_line(tmp_path: Path) -> None:
    with banks(tmp_path / "f", JOB + SIZES, OPENED, TRAINED) as (simulation, file):
        first = run(simulation, file)
        file.write_text(JOB + SIZES.replace('"8"', '"4"'))
        with pytest.raises(DeniedError, match="has other weights than that of the job"):
            run(simulation, file, first.run)
        file.write_text(JOB.replace('"age", ', "") + SIZES)
        with pytest.raises(DeniedError, match="of another network, label or features"):
            run(simulation, file, first.run)
        file.write_text(JOB + SIZES + 'shared = "layers.0"\n')
        with pytest.raises(AnalystError, match="some weights of the job do not move"):
            run(simulation, file, first.run)
        file.write_text(JOB + SIZES)
        with pytest.raises(ModelError, match="no run of the name"):
            run(simulation, file, "ffffffff")
        assert {simulation.spent(name) for name in simulation.silos} == {0}


def test_the_command_says_what_it_begins_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "job.toml"), "--from", "3fa9", "--federation", str(tmp_path / "no.toml")]) == 1
    assert "there is no" in capsys.readouterr().err
