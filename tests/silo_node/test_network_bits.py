"""Changes of few bits: what leaves a silo is bounded by the request, the range follows opened sums, little is lost."""

import numpy as np
import pytest
import torch

from policies.requests.families import SHAPES
from policies.requests.hashed import levels
from policies.requests.networks import REACHES
from silo_node.training.family import Own
from silo_node.training.networks import travelling
from silo_node.training.networks.owning import SERVER_CONTROL
from silo_node.training.registry import FAMILIES
from tests.harness import families
from tests.harness.networks import Run, alike, by_label, digits

pytestmark = pytest.mark.torch
SMALL = {"hidden": "16", "rounds": "16", "rate": "0.2"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run_of(**options: str) -> Run:
    task, rows, _, labels = digits(1, **(SMALL | options))
    return Run(task, by_label(rows, labels) if options.get("algorithm") else alike(rows))


@pytest.mark.parametrize("bits", ["8", "12", "16", "24"])
def test_no_number_of_a_silo_is_beyond_what_its_request_says(bits: str) -> None:
    run = run_of(value_bits=bits)
    for _ in range(4):
        own = families.numbered(run.task, run.number)
        extents = SHAPES["mlp"].extents(own).values()
        keeping = FAMILIES["mlp"].keeping
        assert keeping is not None
        found = keeping.contribution(own, run.state, run.silos[0], Own())
        if run.number:
            assert {extent.most for extent in extents} == {levels(int(bits))}
            assert max(int(np.abs(block).max()) for block in found.blocks) <= levels(int(bits))
        run.round()


def test_without_few_bits_a_round_is_as_it_was() -> None:
    own = families.numbered(run_of().task, 1)
    assert dict(SHAPES["mlp"].blocks(own)) == {"rows": 1, "loss": 1, "outside": 1, "update": 61 * 16 + 16 + 170}
    assert {extent.most for extent in SHAPES["mlp"].extents(own).values()} == {None}


def test_the_range_is_the_greatest_of_all_silos_in_the_round_before() -> None:
    run = run_of(value_bits="24")
    run.round()
    assert travelling.reach_of(run.task, run.state, "update") == 0.2
    for _ in range(5):
        before = travelling.reach_of(run.task, run.state, "update")
        opened = run.round()
        where = opened["update-reach"]
        assert (len(where), where.sum()) == (REACHES, len(run.silos))
        after = travelling.reach_of(run.task, run.state, "update")
        assert after == travelling.reach_at(int(np.flatnonzero(where)[-1]))
        assert np.abs(opened["update"]).max() <= len(run.silos) * levels(24)
        assert after < before * 1.5


def test_a_range_that_is_too_small_grows_at_once() -> None:
    run = run_of(value_bits="8")
    run.round()
    run.round()
    reach = travelling.reach_of(run.task, run.state, "update")
    run.state = run.state.with_(update_reach=reach / 64)
    opened = run.round()
    assert np.abs(opened["update"]).max() > 0.9 * levels(8)
    assert travelling.reach_of(run.task, run.state, "update") > reach / 2


def test_ranges_are_powers_of_the_root_of_two() -> None:
    ranges = np.array([travelling.reach_at(place) for place in range(REACHES)])
    np.testing.assert_allclose(ranges[1:] / ranges[:-1], np.sqrt(2), rtol=1e-15)
    assert ranges[80] == 1.0


def test_levels_are_right_in_the_mean() -> None:
    run = run_of(value_bits="8")
    run.round()
    part = np.linspace(-0.19, 0.19, 41)
    sent = [travelling.sent(families.numbered(run.task, 1), run.state, {"update": part}) for _ in range(2_000)]
    found = [travelling.real(run.task, run.state, "update", one["update"]) for one in sent if one is not None]
    # A level is 0.2 / 127; the mean of 2,000 deviates by less than a half of it over their root.
    np.testing.assert_allclose(np.mean(found, axis=0), part, atol=6 * 0.5 * 0.2 / 127 / np.sqrt(2_000))


def test_controls_that_are_rounded_are_kept_as_they_are_counted() -> None:
    run = run_of(value_bits="8", algorithm="scaffold", rate="0.05")
    for _ in range(6):
        run.round()
    held = sum(own.vectors["control"] for own in run.owns)
    np.testing.assert_allclose(run.state[SERVER_CONTROL], held, atol=1e-12)


def test_eight_bits_lose_little() -> None:
    """The aim is half a point, in the mean of ten seeds; docs/networks.md has the figure."""
    found = []
    for bits in ("", "8"):
        own = {"value_bits": bits} if bits else {}
        accuracies = []
        for seed in (1, 2, 3):
            task, rows, judged, _ = digits(seed, **(SMALL | own))
            accuracies.append(Run(task, alike(rows)).to_end().accuracy(judged))
        found.append(np.mean(accuracies))
    assert found[1] > found[0] - 0.01


def test_a_change_that_is_not_finite_does_not_leave() -> None:
    run = run_of(value_bits="8", rate="1000", most_change="16384")
    run.to_end()
    assert run.state.ended == "diverged"
    assert np.isfinite(run.state["weights"]).all()
