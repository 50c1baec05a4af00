"""Training with noise while parties are killed: the same command goes on, and what is printed is what was paid."""

from pathlib import Path

import pytest

from analyst.errors import RoundError
from tests.harness.inside import ledger_of
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_fewer_silos import paid
from tests.rounds.test_killed import KilledError, killed_at
from tests.rounds.test_training import PRIVATE, SILOS, STEPS, found_banks, run

pytestmark = pytest.mark.torch


def charges(simulation: Simulation) -> dict[str, int]:
    return {name: len(ledger_of(silo).history()) for name, silo in simulation.silos.items()}


def test_the_analyst_killed_at_any_call_of_a_run_with_noise_pays_no_step_twice(tmp_path: Path) -> None:
    path = found_banks(tmp_path / "f", PRIVATE.replace("epsilon = 10", "epsilon = 2"))
    with simulate(path, noise=no_noise) as simulation:
        file = path / "job.toml"
        with killed_at(simulation, 0, "after") as calls:
            price = run(simulation, file).rho
        assert price is not None
        for number in range(1, len(calls) + 1):
            before, spent = charges(simulation), paid(simulation, "east")
            with killed_at(simulation, number, "after"), pytest.raises(KilledError):
                run(simulation, file)
            training = run(simulation, file)
            assert (training.steps, training.lost, training.holders) == (STEPS, 0, SILOS), number
            assert training.rho == pytest.approx(price)
            assert charges(simulation) == {silo: count + STEPS for silo, count in before.items()}
            assert paid(simulation, "east") - spent == pytest.approx(price, rel=0.01)


def test_a_step_that_was_charged_and_lost_is_paid_once_more_by_the_same_command(tmp_path: Path) -> None:
    path = found_banks(tmp_path / "f")
    for policy in path.glob("silos/*/policy.toml"):  # of whom nobody may be missing, and nobody left out
        text = policy.read_text().replace("max_missing = 1", "max_missing = 0")
        policy.write_text(text.replace("[disclosure]", "[disclosure]\nmin_silos = 5"))
    with simulate(path, noise=no_noise) as simulation:
        file, west = path / "job.toml", simulation.silos["west"]
        west.restarts = True

        def kill(done: int) -> None:
            if done == 2:
                west.dies_before = "contribute"

        with pytest.raises(RoundError, match="step 3 of 4: ") as caught:
            run(simulation, file, kill)
        assert "ask again when west is back" in caught.value.hint
        assert caught.value.hint.endswith(
            "the same command goes on with step 3 of 4, and its price is paid once more where it was charged"
        )
        training = run(simulation, file)
        assert (training.steps, training.lost, training.holders) == (STEPS, 1, SILOS)
        assert training.rho == pytest.approx(paid(simulation, "east"), rel=0.01)
        assert set(charges(simulation).values()) == {STEPS + 1}


@pytest.mark.parametrize("step", ["share", "ready"])
def test_a_step_that_nobody_was_charged_for_is_asked_again_by_the_same_request(tmp_path: Path, step: str) -> None:
    path = found_banks(tmp_path / "f")
    for policy in path.glob("silos/*/policy.toml"):
        policy.write_text(policy.read_text().replace("max_missing = 1", "max_missing = 0"))
    with simulate(path, noise=no_noise) as simulation:
        west = simulation.silos["west"]
        west.restarts = True

        def kill(done: int) -> None:
            if done == 2:
                west.dies_before = step

        training = run(simulation, path / "job.toml", kill)
        assert (training.steps, training.lost, training.holders) == (STEPS, 0, SILOS)
        assert training.rho == pytest.approx(paid(simulation, "east"), rel=0.01)
        assert set(charges(simulation).values()) == {STEPS}
