"""A network as data: inputs, weights and a list of calls, checked as a whole before a row is read.

Promise: a graph that decodes has no cycle, no call, input or weight that is unknown, unused or named twice, and every
shape fits. Its SHA-256 names it, and with it the packed weights, whose SHA-256 stands in it. Nothing in it is code: no
party evaluates, imports or unpickles a part of it.
"""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from math import prod
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from crypto.errors import WireError
from crypto.wire import Digest, Message
from policies.networks.calls import LISTED, AnyCall, Call, Ref
from policies.networks.values import MAX_AXES, Cost, Shape, Tensor, checked

# What a call may say of itself.
CALLS = frozenset(name for kind in LISTED for name in get_args(kind.model_fields["call"].annotation))
MAX_INPUTS, MAX_WEIGHTS, MAX_CALLS = 16, 2_000, 4_000
MAX_NUMBERS = 2**24  # of all weights
MAX_FLOPS = 10**10  # forward for one row, whatever a policy allows
Axis = Annotated[int, Field(ge=1, le=2**32)]
Axes = Annotated[tuple[Axis, ...], Field(max_length=MAX_AXES)]


class Input(Message):
    """What one row gives: a tensor of reals, or of whole numbers, each below `below`, that an embedding looks up."""

    name: Ref
    shape: Axes
    below: Annotated[int | None, Field(default=None, ge=1, le=2**24, exclude_if=lambda below: below is None)] = None


class Weight(Message):
    """A weight: its shape, and what a run begins with where no packed weights are taken.

    `uniform` numbers lie within `bound`, a plain decimal, of 0. A `constant` has the packed file's numbers always: no
    training moves it.
    """

    name: Ref
    shape: Axes
    initial: Literal["zeros", "ones", "uniform", "constant"]
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
    """A network. Its result for one row is that of the call named `output`.

    `packed` is the SHA-256 of the weights that a file has beside it; a shipped family has none.
    """

    KIND: ClassVar[str] = "graph"
    MAX_BYTES: ClassVar[int] = 1 << 20
    MAX_COMMAS: ClassVar[int] = 2**17
    version: Literal["graph/1"] = "graph/1"
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=MAX_INPUTS)]
    weights: Annotated[tuple[Weight, ...], Field(max_length=MAX_WEIGHTS)]
    calls: Annotated[tuple[AnyCall, ...], Field(min_length=1, max_length=MAX_CALLS)]
    output: Ref
    packed: Annotated[Digest | None, Field(default=None, exclude_if=lambda packed: packed is None)] = None

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the graph with the encoding `data`; raises WireError, which names the node and the key."""
        try:
            return super().decode(data)
        except WireError as err:
            raise WireError(
                _with_names(err.message, data), "pack the network again with `consilo model pack`"
            ) from None

    @cached_property
    def known(self) -> Mapping[str, Tensor]:
        """What is known of each input, weight and call, by its name."""
        known: dict[str, Tensor] = {}
        for one in self.inputs:
            _put(known, one.name, Tensor(_of(one.name, one.shape), is_whole=one.below is not None))
        weights = {one.name for one in self.weights}
        for weight in self.weights:
            _put(known, weight.name, Tensor(_of(weight.name, weight.shape)))
        for call in self.calls:
            for name in (*call.reads, *call.weights):
                if name not in known or (name in weights) != (name in call.weights):
                    raise ValueError(f"{call.name} reads {name}, which is no {_kind(name in call.weights)} before it")
            try:
                _put(known, call.name, call.result(known))
            except ValueError as err:
                raise ValueError(f"{call.name} ({call.call}): {err}") from None
        return known

    @property
    def count(self) -> int:
        """The numbers of all weights."""
        return sum(one.count for one in self.weights)

    @property
    def trained(self) -> tuple[Weight, ...]:
        """The weights that training may move: all but constants."""
        return tuple(one for one in self.weights if one.initial != "constant")

    @property
    def result(self) -> Tensor:
        """What it computes of one row."""
        return self.known[self.output]

    @cached_property
    def costs(self) -> tuple[Cost, ...]:
        """What each call takes forward for one row."""
        return tuple(call.cost(self.known, self.known[call.name]) for call in self.calls)

    @property
    def cost(self) -> Cost:
        """What it takes forward for one row."""
        return sum(self.costs, Cost(0, 0))

    @property
    def digest(self) -> str:
        """Its name: `sha256:` and 64 digits in hex, of the graph and, by `packed`, of its weights."""
        return f"sha256:{sha256(self.encode()).hexdigest()}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count > MAX_NUMBERS:
            largest = max(self.weights, key=lambda one: one.count)
            raise ValueError(
                f"the weights have {self.count:,} numbers, most of them {largest.name}, "
                f"at most {MAX_NUMBERS:,} are trained"
            )
        known = self.known
        if dearest := self.beyond(MAX_FLOPS):
            raise ValueError(
                f"{dearest.name} ({dearest.call}): a row takes {self.cost.flops:,} operations, most of them there, "
                f"at most {MAX_FLOPS:,} are computed"
            )
        read = {name for call in self.calls for name in (*call.reads, *call.weights)} | {self.output}
        if unused := sorted(known.keys() - read):
            raise ValueError(f"nothing reads {', '.join(unused[:5])}; leave it out")
        if self.output not in {call.name for call in self.calls}:
            raise ValueError(f"the output {self.output} is no call")
        if self.result.is_whole:
            raise ValueError(f"the output {self.output} has whole numbers, which nothing trains")
        if self.packed is None and len(self.trained) < len(self.weights):
            raise ValueError("constants are numbers of a packed file, and packed is left out")
        return self

    def beyond(self, flops: int) -> Call | None:
        """Return the call that takes most, if one row takes more operations forward than `flops`."""
        if self.cost.flops <= flops:
            return None
        return max(zip(self.calls, self.costs, strict=True), key=lambda pair: pair[1].flops)[0]


def _kind(is_weight: bool) -> str:
    return "weight" if is_weight else "input or call"


def _of(name: str, shape: tuple[int, ...]) -> Shape:
    try:
        return checked(shape)
    except ValueError as err:
        raise ValueError(f"{name}: {err}") from None


def _put(known: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if name in known:
        raise ValueError(f"{name} is named twice")
    known[name] = tensor


def _with_names(message: str, data: bytes) -> str:
    """Return what is wrong with a graph with the names of its parts in the place of their numbers."""
    what, _, rest = message.partition(": ")
    rest = rest.replace("the message: Value error, ", "").replace("Value error, ", "")
    found = re.match(r"(input|weight|call)s\.([0-9]{1,5})(?:\.|: )(.*)", rest)
    if found is None:
        return f"{what}: {rest}" if rest else what
    part, number, key = found.groups()
    try:
        named = json.loads(data)[f"{part}s"][int(number)]["name"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"{what}: {rest}"
    if key.startswith("Input tag"):
        key = f"its call is not listed; expected one of {', '.join(sorted(CALLS))}"
    shown = named if isinstance(named, str) and named.isprintable() and len(named) <= 120 else "?"
    return f"{what}: {part} {shown}: {key}"
