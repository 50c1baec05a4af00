"""What shipped networks share: options that are lists of sizes, and weights that begin as suits their layer."""

import math
from collections.abc import Callable

from policies.networks.calls import AnyCall, Elementwise, Linear
from policies.networks.graph import Weight
from policies.options import Option, choice_option

MOST_LAYERS, MOST_SIZE = 32, 65_536
ACTIVATION = choice_option("relu", "relu", "tanh", "sigmoid", "gelu")


def sizes(text: str) -> tuple[int, ...]:
    """Return the whole numbers of a list such as "64,32"; none of an empty one. Raises ValueError."""
    found = [one.strip() for one in text.split(",")] if text else []
    if len(found) > MOST_LAYERS or not all(one.isascii() and one.isdigit() and len(one) <= 6 for one in found):
        raise ValueError(f'expected at most {MOST_LAYERS} whole numbers, such as "64,32", found {text[:40]!r}')
    if any(not 1 <= int(one) <= MOST_SIZE for one in found):
        raise ValueError(f"a size is from 1 to {MOST_SIZE:,}, found {text[:40]!r}")
    return tuple(map(int, found))


def sizes_option(default: str) -> Option:
    """Return an option that is a list of sizes."""
    return Option(default, lambda text: (sizes(text), None)[1])


def decimal(number: float) -> str:
    """Return a bound of first weights as a graph has it."""
    return f"{number:.9f}"


def drawn(name: str, shape: tuple[int, ...], inputs: int, gain: float = 1.0) -> Weight:
    """Return a weight whose first numbers have a variance of gain^2 / inputs: He et al., ICCV 2015, for `gain` 2^.5."""
    return Weight(name=name, shape=shape, initial="uniform", bound=decimal(gain * math.sqrt(3 / inputs)))


def zeros(name: str, *shape: int) -> Weight:
    """Return a weight that begins with zeros."""
    return Weight(name=name, shape=shape, initial="zeros")


class Layers:
    """Weights and calls of layers that follow one another, as a shipped network is put together."""

    def __init__(self, of: str, width: int) -> None:
        """`of` is the input or call that the first layer reads, `width` how many numbers a row of it has."""
        self.at, self.width = of, width
        self.weights: list[Weight] = []
        self.calls: list[AnyCall] = []

    def add(self, make: Callable[[str], AnyCall], width: int, *weights: Weight) -> None:
        """Add a call of what was added last, and its weights; its rows have `width` numbers."""
        self.calls.append(made := make(self.at))
        self.weights += weights
        self.at, self.width = made.name, width

    def linear(self, name: str, out: int, gain: float = 1.0) -> None:
        """Add a linear layer, whose weights are `name.weight` and `name.bias`."""
        weight = drawn(f"{name}.weight", (out, self.width), self.width, gain)
        bias = zeros(f"{name}.bias", out)
        self.add(lambda of: Linear(name=name, of=of, weight=weight.name, bias=bias.name), out, weight, bias)

    def activation(self, name: str, kind: str) -> None:
        """Add a function of each number."""
        self.add(lambda of: Elementwise(call=kind, name=name, of=of), self.width)  # type: ignore[arg-type]

    def hidden(self, widths: tuple[int, ...], kind: str, out: int, prefix: str = "layers") -> None:
        """Add hidden layers of these widths with an activation after each, and a last one without."""
        for place, width in enumerate(widths):
            self.linear(f"{prefix}.{2 * place}", width, math.sqrt(2))
            self.activation(f"{prefix}.{2 * place + 1}", kind)
        self.linear(f"{prefix}.{2 * len(widths)}", out)
