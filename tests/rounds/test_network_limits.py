"""A network that exceeds its limit at a silo: told on exact sources, answered by zeros and noise on private ones."""

from pathlib import Path
from typing import Any

import pytest
import torch

from analyst.errors import AnalystError
from silo_node.data import compute
from silo_node.errors import NetworkError
from silo_node.timed import ANSWERED_BY_NOTHING
from silo_node.training.confined.computing import computed
from silo_node.training.confined.work import Done, Work
from tests.rounds.test_hashed import SILOS, banks, run, the_state, vector
from tests.rounds.test_networks import JOB, OPENED, TRAINED

pytestmark = [pytest.mark.torch, pytest.mark.slow]
SAID = NetworkError(
    "a round of this network takes longer than training.networks.max_seconds = 60 gives it",
    "take fewer epochs or a smaller network, or ask privacy@bank.example for more",
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def failing_at(monkeypatch: pytest.MonkeyPatch, *silos: str) -> None:
    def failing(work: Work) -> Done:
        step = work.request.plan.training
        if work.silo in silos and step is not None and step.step == 1:
            raise SAID
        return computed(work)

    monkeypatch.setattr(compute, "computed", failing)


def test_on_exact_sources_one_line_names_silo_limit_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, *SILOS)
    with banks(tmp_path / "f", f"{JOB}rounds = 3\n", OPENED, TRAINED) as (simulation, file):
        with pytest.raises(AnalystError) as raised:
            run(simulation, file)
        told = f"{raised.value.message} {raised.value.hint}"
        for silo in SILOS:
            assert f"{silo}" in told
        assert SAID.message in told
        assert SAID.hint in told
        assert {silo: simulation.spent(silo) for silo in SILOS} == dict.fromkeys(SILOS, 0)


def test_the_others_go_on_without_a_silo_whose_network_exceeds_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at(monkeypatch, "east")
    with banks(tmp_path / "f", f"{JOB}rounds = 3\n", OPENED, TRAINED) as (simulation, file):
        training = run(simulation, file)
        assert training.steps == 3
        assert len(vector(the_state(simulation), "losses")) == 2


PRIVATE: tuple[tuple[str, str], ...] = (
    ('release = "exact"\n', ""),
    ('dp = "optional"\n', ""),
    ("lifetime = { rho = 1 }", "lifetime = { rho = 4 }"),
    ("max_rho_per_run = 1.0", "max_rho_per_run = 4"),
)


def test_on_private_sources_nothing_is_told_and_the_charge_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = JOB.replace('release = "exact"', 'release = "private"') + "rounds = 5\nepsilon = 4\n"
    spent: list[dict[str, Any]] = []
    for name, silos in (("well", ()), ("fails", ("east",))):
        with monkeypatch.context() as patch:
            failing_at(patch, *silos)
            with banks(tmp_path / name, job, OPENED, TRAINED, *PRIVATE) as (simulation, file):
                training = run(simulation, file)
                assert training.steps == 5
                assert training.holders == SILOS
                spent.append({silo: simulation.spent(silo) for silo in SILOS})
                log = (simulation.silos["east"].policy.parent / "silo.log").read_text()
                assert (ANSWERED_BY_NOTHING in log) == bool(silos)
                replies = [frames for _, frames in simulation.silos["east"].seen]
                assert not any(SAID.message.encode() in one for frames in replies for one in frames)
    assert spent[0] == spent[1]
    assert spent[0]["east"] > 0
