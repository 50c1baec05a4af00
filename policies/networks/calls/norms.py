"""Calls that scale the numbers of one row by each other, and dropout. None of them sees another row."""

from math import prod
from typing import Annotated, Literal

from pydantic import Field

from policies.networks.calls.call import Axis, Call, Known, Ref, Size, each, fitting, has_axis, named, reals
from policies.networks.values import FLOAT_BYTES, MAX_AXES, Cost, Tensor

# A share or a small number: a plain decimal below 1 in its one spelling.
Below1 = Annotated[str, Field(pattern=r"^0\.[0-9]{0,23}[1-9]$|^0$")]
Above0 = Annotated[str, Field(pattern=r"^0\.[0-9]{0,23}[1-9]$|^1$")]


class LayerNorm(Call):
    """Numbers over the last `axes` axes with the mean 0 and the variance 1, times a weight, plus a bias."""

    call: Literal["layer_norm"] = "layer_norm"
    axes: Annotated[int, Field(ge=1, le=MAX_AXES)]
    eps: Above0
    weight: Ref | None
    bias: Ref | None

    @property
    def weights(self) -> tuple[str, ...]:
        return named(self.weight, self.bias)

    def result(self, known: Known) -> Tensor:
        found = reals(known, self.of)
        has_axis(found, self.axes - 1)
        for name in self.weights:
            fitting(known, name, found.shape[len(found.shape) - self.axes :])
        return found

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 12, 4)

    def in_words(self, known: Known, result: Tensor) -> str:
        over = prod(result.shape[len(result.shape) - self.axes :])
        return f"layer norm over {over:,} numbers"


class GroupNorm(Call):
    """Channels, which are the first axis of a row, in groups, each with the mean 0 and the variance 1."""

    call: Literal["group_norm"] = "group_norm"
    groups: Size
    eps: Above0
    weight: Ref | None
    bias: Ref | None

    @property
    def weights(self) -> tuple[str, ...]:
        return named(self.weight, self.bias)

    def result(self, known: Known) -> Tensor:
        found = reals(known, self.of)
        channels = has_axis(found, 0)
        if channels % self.groups:
            raise ValueError(f"groups {self.groups:,} do not divide the {channels:,} channels of {self.of}")
        if found.elements == self.groups:
            raise ValueError(f"groups {self.groups:,} of one number each, which has no variance")
        for name in self.weights:
            fitting(known, name, (channels,))
        return found

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 12, 4)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"group norm of {result.shape[0]:,} channels in groups of {result.shape[0] // self.groups:,}"


class Softmax(Call):
    """Numbers over one axis as shares of 1, or the logarithms of these."""

    call: Literal["softmax", "log_softmax"]
    axis: Axis

    def result(self, known: Known) -> Tensor:
        found = reals(known, self.of)
        has_axis(found, self.axis)
        return found

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 40, 2)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"{self.call} over {result.shape[self.axis]:,} numbers"


class Dropout(Call):
    """In training, numbers are 0 with the chance `share`, and the others grow so that the mean stays."""

    call: Literal["dropout"] = "dropout"
    share: Below1

    def result(self, known: Known) -> Tensor:
        return reals(known, self.of)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return Cost(32 * result.elements, FLOAT_BYTES * 3 * result.elements)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"dropout of a share of {self.share} of {result.elements:,} numbers, in training alone"
