"""Convolutions and pooling over one or two axes. The first axis of a row is its channels."""

from abc import abstractmethod
from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.networks.calls.call import Call, Known, Ref, Size, fitting, named, reals, sizes, weight_of
from policies.networks.values import FLOAT_BYTES, Cost, Shape, Tensor, checked

_Window = Annotated[int, Field(ge=1, le=4096)]
_Padding = Annotated[int, Field(ge=0, le=4096)]
_INDEX_BYTES = 8


class _Convolution(Call):
    """A product with a weight of the shape (out, in / groups, window...) at each place, and a bias."""

    weight: Ref
    bias: Ref | None
    groups: Size

    @property
    @abstractmethod
    def places(self) -> tuple[tuple[int, int, int], ...]:
        """The stride, the padding at each side and the dilation of each axis."""

    @property
    def weights(self) -> tuple[str, ...]:
        return named(self.weight, self.bias)

    def result(self, known: Known) -> Tensor:
        found, weight = reals(known, self.of), weight_of(known, self.weight, len(self.places) + 2)
        channels = weight.shape[1] * self.groups
        if len(found.shape) != len(self.places) + 1 or found.shape[0] != channels or weight.shape[0] % self.groups:
            shown = f"{self.weight} of {list(weight.shape)} in {self.groups:,} groups"
            raise ValueError(f"{self.of} of {list(found.shape)} does not fit {shown}")
        fitting(known, self.bias, weight.shape[:1])
        return Tensor(checked((weight.shape[0], *_moved(found.shape[1:], weight.shape[2:], self.places))))

    def cost(self, known: Known, result: Tensor) -> Cost:
        weight, found = known[self.weight].shape, known[self.of].shape
        padded = found[0] * prod(
            size + 2 * padding for size, (_, padding, _) in zip(found[1:], self.places, strict=True)
        )
        # Torch may lay out each window by itself, and copies what it reads into its own order.
        windows = found[0] * prod(weight[2:]) * prod(result.shape[1:])
        flops = result.elements * (2 * prod(weight[1:]) + 1)
        return Cost(flops, FLOAT_BYTES * (2 * result.elements + windows + padded))

    def in_words(self, known: Known, result: Tensor) -> str:
        window = sizes(known[self.weight].shape[2:])
        return f"convolution by windows of {window}, {known[self.of].shape[0]:,} to {result.shape[0]:,} channels, " + (
            f"{sizes(result.shape[1:])} places"
        )


class Conv1d(_Convolution):
    """Over the second axis of a row."""

    call: Literal["conv1d"] = "conv1d"
    stride: tuple[_Window]
    padding: tuple[_Padding]
    dilation: tuple[_Window]

    @property
    def places(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(zip(self.stride, self.padding, self.dilation, strict=True))


class Conv2d(_Convolution):
    """Over the second and third axes of a row."""

    call: Literal["conv2d"] = "conv2d"
    stride: tuple[_Window, _Window]
    padding: tuple[_Padding, _Padding]
    dilation: tuple[_Window, _Window]

    @property
    def places(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(zip(self.stride, self.padding, self.dilation, strict=True))


class _Pooling(Call):
    """The largest or the mean of each window, padded by nothing or, for a mean, by zeros that count."""

    @property
    @abstractmethod
    def windows(self) -> Shape:
        """Their sizes."""

    @property
    @abstractmethod
    def places(self) -> tuple[tuple[int, int, int], ...]:
        """The stride, the padding at each side and 1 of each axis."""

    def result(self, known: Known) -> Tensor:
        found = reals(known, self.of)
        if len(found.shape) != len(self.windows) + 1:
            raise ValueError(f"{self.of} of {list(found.shape)}, expected channels and {len(self.windows)} axes more")
        return Tensor(checked((found.shape[0], *_moved(found.shape[1:], self.windows, self.places))))

    def cost(self, known: Known, result: Tensor) -> Cost:
        held = FLOAT_BYTES * (result.elements + known[self.of].elements) + _INDEX_BYTES * result.elements
        return Cost(result.elements * prod(self.windows), held)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"{self.call} of windows of {sizes(self.windows)}, to {sizes(result.shape)}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        for window, (_, padding, _) in zip(self.windows, self.places, strict=True):
            if 2 * padding > window:
                raise ValueError(f"{self.name}: padding {padding:,} is more than half of a window of {window:,}")
        return self


class Pool1d(_Pooling):
    """Over the second axis of a row."""

    call: Literal["max_pool1d", "avg_pool1d"]
    window: tuple[_Window]
    stride: tuple[_Window]
    padding: tuple[_Padding]

    @property
    def windows(self) -> Shape:
        return self.window

    @property
    def places(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((stride, padding, 1) for stride, padding in zip(self.stride, self.padding, strict=True))


class Pool2d(_Pooling):
    """Over the second and third axes of a row."""

    call: Literal["max_pool2d", "avg_pool2d"]
    window: tuple[_Window, _Window]
    stride: tuple[_Window, _Window]
    padding: tuple[_Padding, _Padding]

    @property
    def windows(self) -> Shape:
        return self.window

    @property
    def places(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((stride, padding, 1) for stride, padding in zip(self.stride, self.padding, strict=True))


def _moved(found: Shape, windows: Shape, places: tuple[tuple[int, int, int], ...]) -> Shape:
    """Return at how many places a window stands; raises ValueError where it is larger than what it stands in."""
    counts = []
    for size, window, (stride, padding, dilation) in zip(found, windows, places, strict=True):
        left = size + 2 * padding - dilation * (window - 1) - 1
        if left < 0:
            raise ValueError(f"a window of {dilation * (window - 1) + 1:,} in {size + 2 * padding:,} places")
        counts.append(left // stride + 1)
    return tuple(counts)
