"""Adapters beside a frozen backbone: another graph that computes the same at first, and of which B alone is summed."""

import numpy as np
import pytest
import torch

from policies.networks.adapted import adapted, learned
from policies.networks.initial import initial
from policies.requests.families import check_task
from policies.requests.networks import base_of, graph_of, shared_of
from silo_node.training.networks.interpreter import computed
from tests.harness.networks import Run, alike, by_label, digits

pytestmark = pytest.mark.torch
SMALL = {"algorithm": "adapters", "hidden": "16", "rounds": "8", "rate": "0.2", "rank": "3"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_network_with_adapters_computes_what_it_did_until_they_are_trained() -> None:
    task = digits(1, **SMALL)[0]
    base, graph = base_of(task), graph_of(task)
    weights = {one.name: torch.from_numpy(initial(task.run, (one,)).reshape(one.shape)) for one in graph.weights}
    inputs = {base.inputs[0].name: torch.from_numpy(np.random.default_rng(1).normal(size=(5, *base.inputs[0].shape)))}
    own = {one.name: weights[one.name] for one in base.weights}
    torch.testing.assert_close(computed(graph, weights, inputs), computed(base, own, inputs), rtol=0, atol=0)
    trained = weights | {name: torch.ones_like(weights[name]) for name in learned(graph)}
    # W + B A, by the same numbers
    whole = own | {
        one.name: own[one.name] + trained[f"{one.name}.lora_b"] @ trained[f"{one.name}.lora_a"]
        for one in base.weights
        if f"{one.name}.lora_b" in weights
    }
    torch.testing.assert_close(computed(graph, trained, inputs), computed(base, whole, inputs))


def test_b_alone_is_summed_and_all_else_stays_as_it_was_drawn() -> None:
    task, rows, _, _ = digits(1, **(SMALL | {"rate": "0.5"}))
    assert [one.name for one in shared_of(task)] == ["layers.0.weight.lora_b", "layers.1.weight.lora_b"]
    run = Run(task, alike(rows))
    run.round()
    assert len(run.state["weights"]) == 3 * 16 + 3 * 10
    assert not run.state["weights"].any()
    losses = run.to_end().state["losses"]
    assert losses[-1] < losses[0] - 0.2


def test_a_head_may_be_trained_whole_beside_adapters() -> None:
    task, rows, judged, _ = digits(1, **(SMALL | {"shared": "layers.1"}))
    assert "layers.1.bias" in [one.name for one in shared_of(task)]
    assert Run(task, alike(rows)).to_end().accuracy(judged) > 0.5


def test_ranks_that_are_no_less_than_a_layer_are_refused() -> None:
    with pytest.raises(ValueError, match="no linear layer has more than 16 numbers on both sides; take less than 16"):
        check_task(digits(1, **(SMALL | {"rank": "16"}))[0])
    assert len(adapted(base_of(digits(1, **SMALL)[0]), 12).weights) == 4 + 2, "the other layer is too thin"


def test_norms_stay_at_their_silo() -> None:
    options = {"algorithm": "fedbn", "norm": "layer", "hidden": "16", "rounds": "5", "rate": "0.1"}
    task, rows, _, labels = digits(1, **options)
    assert not [one.name for one in shared_of(task) if one.name.startswith("norms")]
    run = Run(task, by_label(rows, labels)).to_end()
    assert {len(own.vectors["layers"]) for own in run.owns} == {32}
    assert not np.array_equal(run.owns[0].vectors["layers"], run.owns[1].vectors["layers"])
