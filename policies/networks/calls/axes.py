"""Calls that order, take and join the numbers of a row and compute nothing. They take whole numbers as well."""

from math import prod
from typing import Annotated, Literal

from pydantic import Field

from policies.networks.calls.call import Axis, Call, Known, Ref, Size, each, has_axis, sizes
from policies.networks.values import MAX_AXES, Cost, Tensor, checked

_At = Annotated[int, Field(ge=0, lt=2**32)]
MAX_PARTS = 256


class Flatten(Call):
    """All axes of a row as one."""

    call: Literal["flatten"] = "flatten"

    def result(self, known: Known) -> Tensor:
        found = known[self.of]
        return Tensor((prod(found.shape),), found.is_whole)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 0, 2)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"the same {result.elements:,} numbers in one row"


class Reshape(Call):
    """The same numbers in the same order, with other axes."""

    call: Literal["reshape"] = "reshape"
    shape: Annotated[tuple[Size, ...], Field(max_length=MAX_AXES)]

    def result(self, known: Known) -> Tensor:
        found = known[self.of]
        if prod(self.shape) != found.elements:
            raise ValueError(f"shape {list(self.shape)} does not hold the {found.elements:,} numbers of {self.of}")
        return Tensor(self.shape, found.is_whole)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 0, 2)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"the same {result.elements:,} numbers as {sizes(result.shape)}"


class Permute(Call):
    """The axes of a row in another order."""

    call: Literal["permute"] = "permute"
    axes: Annotated[tuple[Axis, ...], Field(min_length=2, max_length=MAX_AXES)]

    def result(self, known: Known) -> Tensor:
        found = known[self.of]
        if sorted(self.axes) != list(range(len(found.shape))):
            raise ValueError(f"axes {list(self.axes)}, expected each of the {len(found.shape)} axes of {self.of} once")
        return Tensor(tuple(found.shape[axis] for axis in self.axes), found.is_whole)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 0, 2)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"the same {result.elements:,} numbers with axes in another order, {sizes(result.shape)}"


class Select(Call):
    """One place of an axis, which goes away."""

    call: Literal["select"] = "select"
    axis: Axis
    at: _At

    def result(self, known: Known) -> Tensor:
        found = known[self.of]
        if self.at >= has_axis(found, self.axis):
            raise ValueError(f"at {self.at:,} of axis {self.axis}, which has {found.shape[self.axis]:,} places from 0")
        return Tensor((*found.shape[: self.axis], *found.shape[self.axis + 1 :]), found.is_whole)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(known[self.of], 0)  # its gradient is that of the whole

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"place {self.at:,} of {known[self.of].shape[self.axis]:,}: {result.elements:,} numbers"


class Slice(Call):
    """The places of an axis from `start` up to, and without, `stop`."""

    call: Literal["slice"] = "slice"
    axis: Axis
    start: _At
    stop: _At

    def result(self, known: Known) -> Tensor:
        found = known[self.of]
        places = has_axis(found, self.axis)
        if not self.start < self.stop <= places:
            raise ValueError(f"start {self.start:,} to stop {self.stop:,} of axis {self.axis} of {places:,} places")
        shape = (*found.shape[: self.axis], self.stop - self.start, *found.shape[self.axis + 1 :])
        return Tensor(shape, found.is_whole)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(known[self.of], 0)  # its gradient is that of the whole

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"{self.stop - self.start:,} of {known[self.of].shape[self.axis]:,} places"


class Cat(Call):
    """Several nodes one after the other along an axis: `of`, then `others`."""

    call: Literal["cat"] = "cat"
    others: Annotated[tuple[Ref, ...], Field(min_length=1, max_length=MAX_PARTS)]
    axis: Axis

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of, *self.others)

    def result(self, known: Known) -> Tensor:
        parts = [known[name] for name in self.reads]
        total, first = sum(has_axis(part, self.axis) for part in parts), parts[0]
        for name, part in zip(self.reads, parts, strict=True):
            if _without(part, self.axis) != _without(first, self.axis) or part.is_whole != first.is_whole:
                raise ValueError(f"{name} of {list(part.shape)} does not fit {self.of} of {list(first.shape)}")
        return Tensor(checked((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])), first.is_whole)

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 0, 2)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"{len(self.reads)} nodes one after the other, {sizes(result.shape)}"


def _without(tensor: Tensor, axis: int) -> tuple[int, ...]:
    return (*tensor.shape[:axis], *tensor.shape[axis + 1 :])
