"""What silos keep for themselves of a network, and what each algorithm makes of unlike silos: digits, two at a silo."""

import numpy as np
import pytest
import torch

from policies.networks import parts
from policies.networks.algorithms.registry import ALGORITHMS
from policies.requests.families import check_task
from policies.requests.networks import shared_of
from silo_node.training.networks.owning import RESTARTED, SERVER_CONTROL
from tests.harness import families
from tests.harness.networks import Run, alike, by_label, digits

pytestmark = pytest.mark.torch
SMALL = {"hidden": "16", "rounds": "7", "rate": "0.05"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def unlike(algorithm: str, **options: str) -> Run:
    task, rows, _, labels = digits(1, algorithm=algorithm, **(SMALL | options))
    return Run(task, by_label(rows, labels))


def held_control(run: Run) -> np.ndarray:
    return np.asarray(sum(own.vectors["control"] for own in run.owns if "control" in own.vectors))


def test_what_recipients_hold_is_the_sum_of_what_silos_keep() -> None:
    """Whatever was rounded and whoever was absent."""
    run = unlike("scaffold")
    run.round()
    for present in ([0, 1, 2, 3, 4], [0, 2, 4], [1, 2], [0, 1, 2, 3, 4]):
        run.round(present)
        np.testing.assert_allclose(run.state[SERVER_CONTROL], held_control(run), atol=1e-14)
    assert np.abs(run.state[SERVER_CONTROL]).max() > 0


def test_all_controls_begin_anew_when_one_is_lost() -> None:
    run = unlike("scaffold")
    for _ in range(3):
        run.round()
    run.lose(2)
    opened = run.round()
    assert opened["lost"].tolist() == [1]
    assert run.state.one(RESTARTED) == 3
    assert not run.state[SERVER_CONTROL].any()
    assert run.round()["lost"].tolist() == [0]
    np.testing.assert_allclose(run.state[SERVER_CONTROL], held_control(run), atol=1e-14)


def test_a_silo_that_was_never_there_has_lost_nothing() -> None:
    run = unlike("scaffold")
    run.round()
    run.round([0, 1])
    assert run.round()["lost"].tolist() == [0]


def test_the_control_of_a_run_that_goes_on_with_fewer_silos_begins_anew() -> None:
    from dataclasses import replace

    run = unlike("scaffold")
    for _ in range(3):
        run.round()
    run.task = replace(run.task, run=bytes([9]) * 16)
    assert run.round([0, 1, 2])["lost"].tolist() == [3]
    assert not run.state[SERVER_CONTROL].any()


def test_layers_that_stay_are_in_no_sum_and_differ_at_silos() -> None:
    run = unlike("fedper", personal="layers.1")
    run.to_end()
    staying = 16 * 10 + 10
    assert len(run.state["weights"]) == 61 * 16 + 16
    assert parts.count(shared_of(run.task)) == len(run.state["weights"])
    assert {len(own.vectors["layers"]) for own in run.owns} == {staying}
    assert not np.array_equal(run.owns[0].vectors["layers"], run.owns[1].vectors["layers"])
    assert min(run.accuracy(rows, place) for place, rows in enumerate(run.silos)) > 0.7


def test_a_model_of_its_own_fits_its_silo_better_than_the_shared_one() -> None:
    for algorithm, more in (("ditto", {"mu": "0.1"}), ("fine-tuning", {"own_epochs": "2"})):
        run = unlike(algorithm, **more).to_end()
        for place, rows in enumerate(run.silos):
            assert run.accuracy(rows, place) > run.accuracy(rows) + 0.05


def test_the_last_round_of_fine_tuning_moves_no_shared_weight() -> None:
    run, before = unlike("fine-tuning"), np.zeros(0)
    while run.number < run.task.rounds:
        before = run.state.numbers.get("weights", before)
        opened = run.round()
    assert "update" not in opened
    np.testing.assert_array_equal(run.state["weights"], before)
    assert all(own.vectors for own in run.owns)


def test_a_silo_without_rows_keeps_what_its_algorithm_begins_with() -> None:
    for algorithm, more in (("scaffold", {}), ("ditto", {}), ("fedper", {"personal": "layers.1"})):
        run = unlike(algorithm, **more)
        run.silos = [*run.silos, families.part(run.silos[0], np.zeros(0, np.int64))]
        run.owns.append(type(run.owns[0])())
        run.to_end()
        assert run.state.ended is None
        assert all(np.isfinite(vector).all() for vector in run.owns[-1].vectors.values())


def test_steps_with_a_pull_go_less_far() -> None:
    near, far = unlike("fedprox", mu="5"), unlike("fedavg")
    for run in (near, far):
        run.round()
    assert np.abs(near.round()["update"]).sum() < 0.8 * np.abs(far.round()["update"]).sum()


def test_without_unlike_silos_every_algorithm_learns() -> None:
    more = {"fedper": {"personal": "layers.1"}, "fedadam": {"server_rate": "0.03"}, "fedyogi": {"server_rate": "0.03"}}
    for algorithm in sorted(ALGORITHMS.keys() - {"adapters", "fedbn"}):
        task, rows, judged, _ = digits(2, algorithm=algorithm, **(SMALL | {"rounds": "12"} | more.get(algorithm, {})))
        run = Run(task, alike(rows)).to_end()
        assert run.accuracy(judged, 0) > 0.75, algorithm


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"algorithm": "fedper"}, "fedper keeps layers at each silo: name them"),
        ({"algorithm": "fedper", "personal": "head"}, "no weight's name begins with 'head'"),
        ({"algorithm": "fedper", "personal": "layers"}, "every weight stays at its silo"),
        ({"algorithm": "fedbn"}, "this network has none"),
        ({"algorithm": "fedavg", "mu": "1"}, "mu: fedavg has no such option; remove it"),
        ({"algorithm": "scaffold", "momentum": "0.9"}, "momentum: scaffold corrects plain steps"),
        ({"algorithm": "fine-tuning", "rounds": "2"}, "ask for 3 rounds or more"),
        ({"algorithm": "krum"}, "expected one of"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(options: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_task(digits(1, **(SMALL | options))[0])
