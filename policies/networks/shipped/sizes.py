"""What shipped networks share: options that are lists of sizes, and layers whose weights begin as suits them."""

import math
from collections.abc import Callable
from decimal import Decimal

from policies.networks.calls import AnyCall, Dropout, Elementwise, Flatten, GroupNorm, LayerNorm, Linear
from policies.networks.graph import Graph, Input, Weight
from policies.options import Option, choice_option, number_option

MOST_LAYERS, MOST_SIZE = 32, 65_536
ACTIVATION = choice_option("relu", "relu", "tanh", "sigmoid", "gelu")
DROPOUT = number_option("0", "0", "0.9")
RELU_GAIN = math.sqrt(2)
_EPS = "0.00001"


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


def drawn(name: str, shape: tuple[int, ...], inputs: int, gain: float = 1.0) -> Weight:
    """Return a weight whose first numbers have a variance of gain^2 / inputs: He et al., ICCV 2015, for `RELU_GAIN`."""
    return Weight(name=name, shape=shape, initial="uniform", bound=f"{gain * math.sqrt(3 / inputs):.9f}")


def zeros(name: str, *shape: int) -> Weight:
    """Return a weight that begins with zeros."""
    return Weight(name=name, shape=shape, initial="zeros")


class Layers:
    """Weights and calls of layers that follow one another, as a shipped network is put together."""

    def __init__(self, of: Input) -> None:
        """`of` is the input that the first layer reads."""
        self.at, self.shape = of.name, of.shape
        self.weights: list[Weight] = []
        self.calls: list[AnyCall] = []

    def add(self, make: Callable[[str], AnyCall], shape: tuple[int, ...], *weights: Weight) -> None:
        """Add a call of what was added last, and its weights; a row of it has a shape."""
        self.calls.append(made := make(self.at))
        self.weights += weights
        self.at, self.shape = made.name, shape

    def linear(self, name: str, out: int, gain: float = 1.0) -> None:
        """Add a linear layer, whose weights are `name.weight` and `name.bias`."""
        width = self.shape[-1]
        weight, bias = drawn(f"{name}.weight", (out, width), width, gain), zeros(f"{name}.bias", out)
        self.add(lambda of: Linear(name=name, of=of, weight=weight.name, bias=bias.name), (out,), weight, bias)

    def activation(self, name: str, kind: str) -> None:
        """Add a function of each number."""
        self.add(lambda of: Elementwise(call=kind, name=name, of=of), self.shape)  # type: ignore[arg-type]

    def norm(self, name: str, groups: int | None = None) -> None:
        """Add a norm of all numbers of a row, or of its channels in so many groups."""
        size = self.shape[0]
        weight, bias = Weight(name=f"{name}.weight", shape=(size,), initial="ones"), zeros(f"{name}.bias", size)

        def made(of: str) -> AnyCall:
            if groups is None:
                return LayerNorm(name=name, of=of, axes=1, eps=_EPS, weight=weight.name, bias=bias.name)
            return GroupNorm(name=name, of=of, groups=groups, eps=_EPS, weight=weight.name, bias=bias.name)

        self.add(made, self.shape, weight, bias)

    def dropout(self, name: str, share: str) -> None:
        """Add a dropout; none of a share of 0."""
        if Decimal(share):
            plain = f"{Decimal(share).normalize():f}"
            self.add(lambda of: Dropout(name=name, of=of, share=plain), self.shape)

    def flat(self, name: str) -> None:
        """Add all axes as one, where there are several."""
        if len(self.shape) != 1:
            self.add(lambda of: Flatten(name=name, of=of), (math.prod(self.shape),))

    def hidden(self, widths: tuple[int, ...], kind: str, out: int, *, prefix: str = "layers", drop: str = "0") -> None:
        """Add hidden layers of these widths with an activation after each, and a last one without."""
        for place, width in enumerate(widths):
            self.linear(f"{prefix}.{place}", width, RELU_GAIN)
            self.activation(f"{prefix}.{place}.{kind}", kind)
            self.dropout(f"{prefix}.{place}.dropout", drop)
        self.linear(f"{prefix}.{len(widths)}", out)

    def graph(self, inputs: tuple[Input, ...]) -> Graph:
        """Return the graph of these layers."""
        return Graph(inputs=inputs, weights=tuple(self.weights), calls=tuple(self.calls), output=self.at)
