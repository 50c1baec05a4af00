"""What the interpreter of graphs costs beside the torch modules that were packed: processor time of six epochs.

Both train on the same rows in the same batches, one after the other, with one thread; every run begins at the packed
weights. The CNN is that of the tests, on 1,438 images of 8 x 8 as scikit-learn's digits have, made of noise.
Run: python -m tests.bench.networks
"""

from collections.abc import Callable, Sequence
from time import process_time

import torch
from torch import nn
from torch.nn import functional

from analyst.networks.inputs import input_form
from analyst.networks.loading import made
from analyst.networks.packing import packed_module
from silo_node.training.networks.interpreter import computed
from tests.bench.figures import publish
from tests.networks.test_packing import FILE, PACKED

EPOCHS, BATCH, RUNS = 6, 32, 5
ROWS = {"CNN": 1438, "MLP": 1438, "LSTM": 512, "GRU": 512, "LanguageModel": 256, "Encoder": 256, "Recommender": 4096}
AIMED = "CNN"


def epochs(
    output: Callable[[list[torch.Tensor]], torch.Tensor],
    weights: Sequence[torch.Tensor],
    given: Sequence[torch.Tensor],
    target: torch.Tensor,
) -> float:
    """Train, and return the seconds of processor time."""
    optimiser = torch.optim.SGD(list(weights), 0.01)
    before = process_time()
    for _ in range(EPOCHS):
        for start in range(0, len(target), BATCH):
            found = output([one[start : start + BATCH] for one in given])
            optimiser.zero_grad()
            functional.mse_loss(found, target[start : start + BATCH]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return process_time() - before


def measured(name: str) -> tuple[list[float], list[float]]:
    """Return the seconds of the interpreter and of the module, run by run."""
    torch.manual_seed(1)
    module: nn.Module = made(FILE, name, "")
    forms = [input_form(one) for one in PACKED[name][0]]
    network = packed_module(module, forms, FILE)
    given = [
        torch.randn(ROWS[name], *one.shape)
        if one.below is None
        else torch.randint(0, one.below, (ROWS[name], *one.shape))
        for one in forms
    ]
    target, names = torch.randn_like(module(*given)).detach(), [one.name for one in network.graph.inputs]
    first = {key: value.clone() for key, value in module.state_dict().items()}
    own, theirs = [], []
    for _ in range(RUNS + 1):
        weights = {key: torch.from_numpy(value.copy()) for key, value in network.weights.items()}
        trained = [weights[one.name].requires_grad_() for one in network.graph.trained]
        module.load_state_dict(first)

        def interpreted(rows: list[torch.Tensor], weights: dict[str, torch.Tensor] = weights) -> torch.Tensor:
            return computed(network.graph, weights, dict(zip(names, rows, strict=True)), is_training=True)

        own.append(epochs(interpreted, trained, given, target))
        theirs.append(epochs(lambda rows: module(*rows), list(module.parameters()), given, target))
    return own[1:], theirs[1:]


def main() -> None:
    torch.set_num_threads(1)
    for name in ROWS:
        own, theirs = measured(name)
        aim = "ratio 1.2" if name == AIMED else None
        publish(f"six_epochs_{name.lower()}", own, "s", "the module", theirs, aim)


if __name__ == "__main__":
    main()
