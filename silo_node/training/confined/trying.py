"""A little of everything that networks compute, once: what a first call imports, reads or starts is then there.

A confined process can open no file and start no thread any more, so it does this before it is confined, and after it.
"""

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from silo_node.training.networks.device import current

Weights = Mapping[str, torch.Tensor]
_ROWS = 4


def _dense(weights: Weights, row: torch.Tensor) -> torch.Tensor:
    found = torch.tanh(functional.linear(row, weights["square"], weights["eight"]))
    found = functional.layer_norm(found, (8,), weights["eight"], weights["eight"])
    return functional.gelu(torch.sigmoid(functional.relu(found)))


def _images(weights: Weights, row: torch.Tensor) -> torch.Tensor:
    found = functional.conv2d(row.reshape(1, 1, 2, 4), weights["image"], padding=1)
    found = functional.group_norm(found, 1, weights["one"], weights["one"])
    found = functional.avg_pool2d(functional.max_pool2d(found, 1), 1)
    return functional.conv1d(found.reshape(1, 1, 8), weights["line"], padding=1).reshape(8)


def _sequences(weights: Weights, row: torch.Tensor) -> torch.Tensor:
    looked_up = functional.embedding((row > 0).long(), weights["square"])
    attended = functional.scaled_dot_product_attention(*(looked_up.reshape(1, 1, 8, 8),) * 3)
    return torch.softmax(torch.cat([attended.reshape(8, 8), looked_up]), 1).sum(0)


_One = Callable[[Weights, torch.Tensor], torch.Tensor]
_ALL: tuple[_One, ...] = (_dense, _images, _sequences)


def tried() -> None:
    """Compute each, forward and back, of a batch and of each row alone, with what is drawn and summed beside it."""
    where, drawn = current(), torch.Generator(device=current()).manual_seed(1)

    def of(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=drawn, device=where)

    weights = {"square": of(8, 8), "eight": of(8), "image": of(1, 1, 3, 3), "line": of(1, 1, 3), "one": of(1)}
    rows, classes = of(_ROWS, 8), torch.arange(_ROWS, device=where)
    for one in _ALL:

        def loss(weights: Weights, row: torch.Tensor, label: torch.Tensor, one: _One = one) -> torch.Tensor:
            scores = one(weights, row)
            named = functional.cross_entropy(scores.unsqueeze(0), label.unsqueeze(0))
            chance = functional.binary_cross_entropy_with_logits(scores[0], (label > 0).to(scores.dtype))
            return named + chance + (functional.dropout(scores, 0.5) ** 2).mean()

        each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0), randomness="different")(
            dict(weights), rows, classes
        )
        norm = torch.sqrt(sum((gradient.reshape(_ROWS, -1) ** 2).sum(1) for gradient in each.values()))
        moved = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
        batch = torch.stack([loss(moved, row, label) for row, label in zip(rows, classes, strict=True)]).mean()
        torch.autograd.grad(batch, list(moved.values()), allow_unused=True)
        norm.cpu().numpy()
    lstm = torch.nn.LSTM(8, 8).to(where)
    lstm(rows)[0].sum().backward()
    # As large as it takes to be divided among threads, which are started here.
    wide = of(512, 512)
    (wide @ wide).sum().item()
