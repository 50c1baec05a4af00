"""Calls over sequences: recurrent layers and attention. A row is a sequence, so none of them sees another row."""

from math import prod
from typing import Annotated, Literal

from pydantic import Field

from policies.networks.calls.call import Call, Known, Number, Ref, Size, fitting, reals, sizes
from policies.networks.calls.norms import Below1
from policies.networks.values import FLOAT_BYTES, Cost, Tensor, checked

MAX_LAYERS = 16
_BLOCK = 16  # numbers that a kernel lays out together
_GATES = {"lstm": 4, "gru": 3}


class Recurrent(Call):
    """An LSTM or a GRU over the first axis of a row, from states of zeros.

    Weights are in torch's order: for each layer, and in it for each direction, `weight_ih` and `weight_hh`, and where
    `has_bias` then `bias_ih` and `bias_hh`. It gives the last layer's state at each place, or each layer's last one.
    """

    call: Literal["lstm", "gru"]
    gives: Literal["sequence", "last"]
    size: Size  # of a state
    layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    is_bidirectional: bool
    has_bias: bool
    parts: Annotated[tuple[Ref, ...], Field(min_length=2, max_length=8 * MAX_LAYERS)]

    @property
    def directions(self) -> int:
        return 2 if self.is_bidirectional else 1

    @property
    def weights(self) -> tuple[str, ...]:
        return self.parts

    def result(self, known: Known) -> Tensor:
        found, each = reals(known, self.of), 4 if self.has_bias else 2
        if len(found.shape) != 2:
            raise ValueError(f"{self.of} of {list(found.shape)}, expected places and the numbers of each")
        if len(self.parts) != each * self.layers * self.directions:
            raise ValueError(f"parts has {len(self.parts)} weights, expected {each * self.layers * self.directions}")
        gates = _GATES[self.call] * self.size
        for at in range(self.layers * self.directions):
            read = found.shape[1] if at < self.directions else self.directions * self.size
            shapes = (gates, read), (gates, self.size), (gates,), (gates,)
            for name, shape in zip(self.parts[each * at : each * (at + 1)], shapes, strict=False):
                fitting(known, name, shape)
        if self.gives == "last":
            return Tensor(checked((self.layers * self.directions, self.size)))
        return Tensor(checked((found.shape[0], self.directions * self.size)))

    def cost(self, known: Known, result: Tensor) -> Cost:
        places, gates = known[self.of].shape[0], _GATES[self.call] * self.size
        products = sum(2 * prod(known[name].shape) for name in self.parts if len(known[name].shape) == 2)
        cells = self.layers * self.directions
        # Of each place and cell: gates before and after, both products, the states, in blocks, and what it reads.
        wide = -(-self.size // _BLOCK) * _BLOCK
        held = places * cells * (6 * _GATES[self.call] + 8) * wide + places * (
            known[self.of].shape[1] + 2 * self.size * cells
        )
        return Cost(places * (products + 64 * gates * cells), FLOAT_BYTES * held)

    def in_words(self, known: Known, result: Tensor) -> str:
        ways = "in both directions" if self.is_bidirectional else "in one direction"
        what = f"{self.call} of {self.layers} layers {ways} over {known[self.of].shape[0]:,} places"
        gives = "the state at each place" if self.gives == "sequence" else "the last state of each layer"
        return f"{what}, {self.size:,} numbers a state; it gives {gives}"


class Attention(Call):
    """softmax(of key / root of the width) value, over the last two axes of a row: places and the numbers of each."""

    call: Literal["attention"] = "attention"
    key: Ref
    value: Ref
    is_causal: bool  # whether a place sees none behind it
    drop: Below1  # the share of weights that are 0 in training
    scale: Number | None  # in the place of 1 / root of the width

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of, self.key, self.value)

    def result(self, known: Known) -> Tensor:
        query, key, value = (reals(known, name).shape for name in self.reads)
        fits = 2 <= len(query) == len(key) == len(value) and query[:-2] == key[:-2] == value[:-2]
        if not fits or query[-1] != key[-1] or key[-2] != value[-2]:
            raise ValueError(f"of {list(query)}, key {list(key)} and value {list(value)} do not fit each other")
        return Tensor(checked((*query[:-1], value[-1])))

    def cost(self, known: Known, result: Tensor) -> Cost:
        query, key = known[self.of].shape, known[self.key].shape
        scores = prod(query[:-1]) * key[-2]
        flops = scores * (2 * query[-1] + 64 + 2 * result.shape[-1])
        copies = sum(known[name].elements for name in self.reads)
        return Cost(flops, FLOAT_BYTES * (result.elements + 2 * copies + 5 * scores))

    def in_words(self, known: Known, result: Tensor) -> str:
        behind = ", none sees one behind it" if self.is_causal else ""
        return f"attention between {sizes(known[self.of].shape)} and {sizes(known[self.key].shape)}{behind}"
