"""A network as data: inputs, weights and a list of calls, checked as a whole before a row is read.

Promise: a graph that decodes has no cycle, no call, input or weight that is unknown, unused or named twice, and every
shape fits. Its SHA-256 names it. Nothing in it is code: no party evaluates, imports or unpickles a part of it.
"""

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Message
from policies.networks.calls import AnyCall, Ref
from policies.networks.values import MAX_AXES, Cost, Tensor, checked

MAX_INPUTS, MAX_WEIGHTS, MAX_CALLS = 16, 2_000, 4_000
MAX_NUMBERS = 2**24  # of all weights
Axis = Annotated[int, Field(ge=1, le=2**32)]
Axes = Annotated[tuple[Axis, ...], Field(max_length=MAX_AXES)]


class Input(Message):
    """What one row gives: a tensor of reals, or of whole numbers, each below `below`, that an embedding looks up."""

    name: Ref
    shape: Axes
    below: Annotated[int | None, Field(default=None, ge=1, le=2**24, exclude_if=lambda below: below is None)] = None


class Weight(Message):
    """A weight: its shape, and what a run begins with where no packed weights are taken.

    `uniform` numbers lie within `bound`, a plain decimal, of 0.
    """

    name: Ref
    shape: Axes
    initial: Literal["zeros", "ones", "uniform"]
    bound: Annotated[str, Field(pattern=r"^0\.[0-9]{1,18}$|^[1-9][0-9]{0,3}(\.[0-9]{1,18})?$")] | None = None

    @property
    def count(self) -> int:
        return prod(self.shape)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.initial == "uniform") != (self.bound is not None):
            raise ValueError(f"the weight {self.name}: uniform numbers have a bound, and no others")
        return self


class Graph(Message):
    """A network. Its result for one row is that of the call named `output`."""

    KIND: ClassVar[str] = "graph"
    MAX_BYTES: ClassVar[int] = 1 << 20
    MAX_COMMAS: ClassVar[int] = 2**17
    version: Literal["graph/1"] = "graph/1"
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=MAX_INPUTS)]
    weights: Annotated[tuple[Weight, ...], Field(max_length=MAX_WEIGHTS)]
    calls: Annotated[tuple[AnyCall, ...], Field(min_length=1, max_length=MAX_CALLS)]
    output: Ref

    @cached_property
    def known(self) -> Mapping[str, Tensor]:
        """What is known of each input, weight and call, by its name."""
        known: dict[str, Tensor] = {}
        for one in self.inputs:
            _put(known, one.name, Tensor(checked(one.shape), is_whole=one.below is not None))
        weights = {one.name for one in self.weights}
        for weight in self.weights:
            _put(known, weight.name, Tensor(checked(weight.shape)))
        for call in self.calls:
            for name in (*call.reads, *call.weights):
                if name not in known or (name in weights) != (name in call.weights):
                    raise ValueError(f"{call.name} reads {name}, which is no {_kind(name in call.weights)} before it")
            _put(known, call.name, call.result(known))
        return known

    @property
    def count(self) -> int:
        """The numbers of all weights."""
        return sum(one.count for one in self.weights)

    @property
    def result(self) -> Tensor:
        """What it computes of one row."""
        return self.known[self.output]

    @property
    def cost(self) -> Cost:
        """What it takes forward for one row."""
        return sum((call.cost(self.known, self.known[call.name]) for call in self.calls), Cost(0, 0))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count > MAX_NUMBERS:
            raise ValueError(f"the weights have {self.count:,} numbers, at most {MAX_NUMBERS:,} are trained")
        known = self.known
        read = {name for call in self.calls for name in (*call.reads, *call.weights)} | {self.output}
        if unused := sorted(known.keys() - read):
            raise ValueError(f"nothing reads {', '.join(unused[:5])}; leave it out")
        if self.output not in {call.name for call in self.calls}:
            raise ValueError(f"the output {self.output} is no call")
        return self


def _kind(is_weight: bool) -> str:
    return "weight" if is_weight else "input or call"


def _put(known: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if name in known:
        raise ValueError(f"{name} is named twice")
    known[name] = tensor
