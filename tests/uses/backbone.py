"""A network that has learned the digits 0 to 4 at one place: its lower layers are the backbone of others."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from analyst.networks.inputs import input_form
from analyst.networks.packing import packed_module
from policies.networks.packed import Packed
from tests.uses.digits import images

_EPOCHS, _ROWS = 12, 32


class Backbone(nn.Module):
    """Two convolutions, and what they see as 64 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.seen = nn.Linear(32 * 4, 64)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found = torch.max_pool2d(torch.relu(self.first(pixels)), 2)
        found = torch.max_pool2d(torch.relu(self.second(found)), 2)
        return torch.relu(self.seen(found.flatten(1)))


class Net(nn.Module):
    """A backbone, and a head with a score for each digit."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(64, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.backbone(pixels.unsqueeze(1)))
        return scores


def packed_backbone(*, has_learned: bool) -> Packed:
    """Return the network, packed; one that has learned nothing has the weights of torch's seed 1."""
    torch.manual_seed(1)
    net, (pixels, labels) = Net(), images()
    known = np.flatnonzero(labels < 5)
    rows, truth = torch.from_numpy(pixels[known] / 8.0 - 1.0).float(), torch.from_numpy(labels[known])
    moves = torch.optim.SGD(net.parameters(), 0.05, 0.9)
    for _ in range(_EPOCHS if has_learned else 0):
        for batch in torch.split(torch.randperm(len(rows)), _ROWS):
            moves.zero_grad()
            nn.functional.cross_entropy(net(rows[batch]), truth[batch]).backward()  # type: ignore[no-untyped-call]
            moves.step()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
    return packed_module(net, [input_form("8x8")], Path(__file__))
