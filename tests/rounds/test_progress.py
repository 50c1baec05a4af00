"""A run that yields its rounds: what each tells, how many bytes it took, and how one that was left goes on."""

import json
from pathlib import Path

import pytest

from analyst.errors import AnalystError
from analyst.training.federation import Rounds
from analyst.training.job import read_job
from analyst.training.preview import preview_run
from analyst.training.told import show_training, to_json
from policies.units import SEND_S
from tests.harness.simulator import Simulation
from tests.rounds.test_killed import ROUNDS, SILOS, banks, charges, keep_of, models

pytestmark = pytest.mark.slow


def rounds_of(simulation: Simulation, file: Path) -> Rounds:
    return Rounds(simulation.federation, read_job(file), keep_of(file), None, SEND_S)


def test_a_run_yields_each_round_when_it_is_kept_and_then_what_it_was(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        expected = preview_run(simulation.federation, read_job(file))
        training, seen = rounds_of(simulation, file), []
        with pytest.raises(AnalystError, match="under way"):
            _ = training.finished
        for done in training:
            assert keep_of(file).exists(), "it is kept before it is told"
            seen.append(done)
        assert [one.number for one in seen] == [1, 2, 3]
        assert training.finished.rounds == tuple(seen)
        assert training.finished.holders == SILOS
        assert not list(training), "it is over"
        assert training.finished.steps == ROUNDS
        of_rounds = {number: size for size in expected.sizes for number in range(size.first, size.last + 1)}
        for one in seen:  # as the preview said, but for the length of names and numbers in signed messages
            said = of_rounds[one.number]
            assert one.volume.up == pytest.approx(said.up_bytes, rel=0.01)
            assert one.volume.down == pytest.approx(said.down_bytes, rel=0.01)
            assert f"{len(SILOS)} of 4 silos, each sent " in one.in_words
        told = json.loads(to_json(training.finished))
        assert told["sent_bytes"] == sum(one["sent_bytes"] for one in told["rounds"]) > 0
        assert told["received_bytes"] == sum(one.volume.down for one in seen) > told["sent_bytes"]
        assert all(one["seconds"] > 0 for one in told["rounds"])
        assert "3 rounds in " in show_training(training.finished, read_job(file), {})


def test_whoever_stops_iterating_goes_on_with_the_same_call_and_pays_nothing_twice(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        before = charges(simulation)
        for done in rounds_of(simulation, file):
            if done.number == 1:
                break
        assert keep_of(file).exists()
        again = rounds_of(simulation, file)
        assert [one.number for one in again] == [2, 3]
        assert len(models(simulation, again.finished)) == 1
        assert charges(simulation) == {silo: count + ROUNDS for silo, count in before.items()}
