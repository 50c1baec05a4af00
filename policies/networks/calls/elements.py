"""Calls on numbers one by one, on pairs of them, and sums of them over axes."""

from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.networks.calls.call import Axis, Call, Known, Number, Ref, each, has_axis, named, reals, sizes
from policies.networks.values import FLOAT_BYTES, MAX_AXES, Cost, Shape, Tensor, checked

_DEAREST = 32  # operations of an exponential or a root, which no machine counts as one


class Elementwise(Call):
    """An activation: a function of each number."""

    call: Literal["relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "softplus"]

    def result(self, known: Known) -> Tensor:
        return reals(known, self.of)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 1 if self.call == "relu" else _DEAREST)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"{self.call} of each of {result.elements:,} numbers"


class Sloped(Call):
    """An activation with a number of its own: the slope of leaky_relu below 0, or the depth of elu."""

    call: Literal["leaky_relu", "elu"]
    slope: Number

    def result(self, known: Known) -> Tensor:
        return reals(known, self.of)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 2 if self.call == "leaky_relu" else _DEAREST)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"{self.call} with {self.slope} of each of {result.elements:,} numbers"


class Scale(Call):
    """Each number times `times`, then over `over`, then plus `plus`."""

    call: Literal["scale"] = "scale"
    times: Number
    over: Number
    plus: Number

    def result(self, known: Known) -> Tensor:
        return reals(known, self.of)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 3, 3)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"each of {result.elements:,} numbers times {self.times}, over {self.over}, plus {self.plus}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.over == "0":
            raise ValueError(f"{self.name}: over 0, and nothing is divided by 0")
        return self


class Pairwise(Call):
    """A sum, difference or product of each number with that of another node or a weight, which broadcasts as in NumPy.

    A weight may have a first axis of 1 for the rows of a batch.
    """

    call: Literal["add", "sub", "mul"]
    other: Ref | None
    weight: Ref | None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of, *named(self.other))

    @property
    def weights(self) -> tuple[str, ...]:
        return named(self.weight)

    def result(self, known: Known) -> Tensor:
        found = reals(known, self.of).shape
        if self.weight is None:
            return Tensor(checked(_broadcast(found, reals(known, self.other or "").shape)))
        weight = known[self.weight].shape
        if len(weight) > len(found):
            if len(weight) > len(found) + 1 or weight[0] != 1:
                raise ValueError(
                    f"the weight {self.weight} of {list(weight)} has an axis that a row of {list(found)} lacks"
                )
            weight = weight[1:]
        return Tensor(checked(_broadcast(found, weight)))

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 2, 3)

    def in_words(self, known: Known, result: Tensor) -> str:
        what = {"add": "the sum", "sub": "the difference", "mul": "the product"}[self.call]
        return f"{what} of each of {result.elements:,} numbers and {self.other or self.weight}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.other is None) == (self.weight is None):
            raise ValueError(f"{self.name}: {self.call} takes a node as other or a weight, and not both")
        return self


class Reduce(Call):
    """The mean, the sum or the largest number over axes of a row."""

    call: Literal["mean", "sum", "amax"]
    axes: Annotated[tuple[Axis, ...], Field(min_length=1, max_length=MAX_AXES)]
    keep: bool  # the axes, with one number each

    def result(self, known: Known) -> Tensor:
        found = reals(known, self.of)
        if list(self.axes) != sorted(set(self.axes)):
            raise ValueError(f"axes {list(self.axes)}, expected each once and in order")
        for axis in self.axes:
            has_axis(found, axis)
        kept = [
            (1 if at in self.axes else size) for at, size in enumerate(found.shape) if self.keep or at not in self.axes
        ]
        return Tensor(tuple(kept))

    def cost(self, known: Known, result: Tensor) -> Cost:
        return Cost(2 * known[self.of].elements, FLOAT_BYTES * (result.elements + known[self.of].elements))

    def in_words(self, known: Known, result: Tensor) -> str:
        what = {"mean": "the mean", "sum": "the sum", "amax": "the largest"}[self.call]
        over = prod(known[self.of].shape[axis] for axis in self.axes)
        return f"{what} of {over:,} numbers, to {sizes(result.shape)}"


def _broadcast(left: Shape, right: Shape) -> Shape:
    axes = max(len(left), len(right))
    pairs = zip((1,) * (axes - len(left)) + left, (1,) * (axes - len(right)) + right, strict=True)
    found = []
    for one, other in pairs:
        if one != other and 1 not in (one, other):
            raise ValueError(f"shapes {list(left)} and {list(right)} do not fit each other")
        found.append(max(one, other))
    return tuple(found)
