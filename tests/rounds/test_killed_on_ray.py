"""A silo's process is killed in the middle of a training run, on a real Ray cluster, and the run goes on."""

from pathlib import Path

import pytest

from analyst.client import Federation
from analyst.training.job import read_job
from analyst.training.run import train
from silo_node.ledger.store import LedgerStore
from tests.harness.states import states_in
from tests.rounds.test_killed import ROUNDS, SILOS, founded
from tests.rounds.test_ray import actor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.mark.parametrize("max_missing", [1, 0])
def test_a_silo_whose_process_is_killed_is_taught_or_left_out_and_the_run_goes_on(
    tmp_path: Path, max_missing: int
) -> None:
    import ray

    path, killed = founded(tmp_path / "f", max_missing), list[int]()

    def kill(done: int) -> None:
        if done in (1, 2):
            killed.append(done)
            ray.kill(actor("south"), no_restart=False)

    with Federation.open(path / "consilo.toml") as federation:
        training = train(federation, read_job(path / "job.toml"), kill, path / "keep.json")
    assert killed == [1, 2]
    assert (training.ended, training.steps) == ("complete", ROUNDS)
    assert set(SILOS[:3]) <= set(training.holders)
    models = set()
    for silo in training.holders:
        store = LedgerStore(path / "silos" / silo / "ledger.sqlite")
        state = states_in(store)[0]
        assert (state.done, state.exact is not None) == (ROUNDS, True)
        models.add(state.exact.model_dump_json() if state.exact is not None else "")
        assert len(store.history()) <= ROUNDS, "none twice"
        store.close()
    assert len(models) == 1
