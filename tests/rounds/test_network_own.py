"""What silos keep for themselves in whole runs in memory: in force once learned, and dropped by consent."""

from pathlib import Path

import pytest
import torch

from analyst.training.federation import Rounds
from analyst.training.job import read_job
from policies.units import SEND_S
from silo_node.training.run import RunState
from tests.harness.inside import ledger_of
from tests.harness.simulator import Simulation, simulate
from tests.harness.states import states_of
from tests.rounds.test_evaluation import by_name, judged
from tests.rounds.test_hashed import SILOS, banks, vector
from tests.rounds.test_networks import JOB, OPENED, TRAINED

pytestmark = [pytest.mark.torch, pytest.mark.slow]

# Whoever of them is held out is not behind what is kept; that all are has the chance 4^-20.
WITHDRAWN = tuple(f"east-{n},lending,2020-01-01T00:00:00Z,2021-01-01T00:00:00Z" for n in range(20))
DECIDED = '[consent]\nmode = "table"\nsource = "../../../consent.csv"\nsubject = "id"\npurpose = "purpose"\n'
DECIDED += 'given_at = "given_at"\nwithdrawn_at = "withdrawn_at"\n[purposes.lending]\nconsent = "opt-out"\n'
BY_CONSENT = ("[purposes.lending]\n", DECIDED)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def job(algorithm: str, rounds: int = 5, more: str = "") -> str:
    return (
        f'{JOB}rounds = {rounds}\n[options]\nhidden = "8"\nalgorithm = "{algorithm}"\n{more}[held_out]\nshare = 0.25\n'
    )


def rounds_of(simulation: Simulation, file: Path) -> Rounds:
    return Rounds(simulation.federation, read_job(file), file.with_name("keep.json"), None, SEND_S)


def own_files(path: Path, silo: str) -> dict[str, int]:
    """Return the files of what a silo keeps, as step and kind, with their bytes."""
    folder = path / "silos" / silo / "ledger.own"
    return {f"{int(one.name[33:39])}{one.suffix}": one.stat().st_size for one in folder.glob("*")}


def state_at(simulation: Simulation, silo: str) -> RunState:
    """Return the model that a silo has, beside the split that says who is held out."""
    (found,) = (one for one in states_of(simulation.silos[silo]) if one.exact is not None)
    return found


def decide(path: Path, *lines: str) -> None:
    """Write who has withdrawn, into the file that all silos read."""
    (path.parent / "consent.csv").write_text("\n".join(("id,purpose,given_at,withdrawn_at", *lines, "")))


def test_what_is_kept_is_of_the_last_round_and_in_no_state(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with banks(path, job("ditto", more="epochs = 5\n"), OPENED, TRAINED) as (simulation, file):
        seen = []
        for done in rounds_of(simulation, file):
            seen.append(done.number)
            expected = {f"{done.number - 1}.own"} if done.number > 1 else set()
            assert all(set(own_files(path, silo)) == expected for silo in SILOS)
        assert seen == [1, 2, 3, 4, 5]
        held = [state_at(simulation, silo) for silo in SILOS]
        assert len({one.raw for one in held}) == 1, "all silos have the same"
        assert len(vector(held[0], "weights")) * 8 < min(own_files(path, "east").values())
        own = {ledger_of(silo).load_own(held[0].run, 5) for silo in simulation.silos.values()}
        assert len(own) == len(SILOS), "each has its own"
        assert by_name(judged(simulation).judged)["accuracy"] > 0.5


def test_it_is_in_force_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with banks(path, job("scaffold", 6), OPENED, TRAINED) as (simulation, file):
        for done in rounds_of(simulation, file):
            if done.number == 3:
                break
    kept = {silo: own_files(path, silo) for silo in SILOS}
    assert {tuple(one) for one in kept.values()} == {("2.own",)}
    with simulate(path) as simulation:
        assert {silo: own_files(path, silo) for silo in SILOS} == kept
        again = list(rounds_of(simulation, path / "job.toml"))
        assert [one.number for one in again] == [4, 5, 6]
        state = state_at(simulation, "east")
        assert "restarted" not in {one.name for one in state.numbers}, "no control was lost"
        assert vector(state, "server_control").any()


def test_it_is_dropped_when_a_consent_behind_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    decide(path)
    with banks(path, job("scaffold", 5), OPENED, TRAINED, BY_CONSENT) as (simulation, file):
        for done in rounds_of(simulation, file):
            if done.number == 3:
                decide(path, *WITHDRAWN)
        state = state_at(simulation, "east")
        assert vector(state, "restarted").tolist() == [3]
        assert "was dropped: the rows behind it" in (path / "silos" / "east" / "silo.log").read_text()
        assert "was dropped" not in (path / "silos" / "north" / "silo.log").read_text()


def test_an_evaluation_finds_that_a_consent_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    decide(path)
    with banks(path, job("fedper", 4, 'personal = "layers.1"\n'), OPENED, TRAINED, BY_CONSENT) as (simulation, file):
        assert len(list(rounds_of(simulation, file))) == 4
        assert own_files(path, "east")["3.own"] > 0
        judged(simulation)
        assert own_files(path, "east")["3.own"] > 0
        decide(path, *WITHDRAWN)
        judged(simulation)
        assert own_files(path, "east") == {"3.own": 0}
        assert own_files(path, "north")["3.own"] > 0
