"""Calls with tables and products: linear layers, embeddings, positions, and products of two nodes."""

from typing import Annotated, Literal

from pydantic import Field

from policies.networks.calls.call import Call, Known, Ref, each, fitting, has_axis, named, reals, sizes, weight_of
from policies.networks.values import FLOAT_BYTES, Cost, Tensor, checked

_INDEX_BYTES = 8


class Linear(Call):
    """A product with a weight of the shape (out, in) over the last axis, and a bias."""

    call: Literal["linear"] = "linear"
    weight: Ref
    bias: Ref | None

    @property
    def weights(self) -> tuple[str, ...]:
        return named(self.weight, self.bias)

    def result(self, known: Known) -> Tensor:
        found, weight = reals(known, self.of), weight_of(known, self.weight, 2)
        if not found.shape or found.shape[-1] != weight.shape[1]:
            raise ValueError(f"{self.of} of {list(found.shape)} does not fit {self.weight} of {list(weight.shape)}")
        fitting(known, self.bias, weight.shape[:1])
        return Tensor(checked((*found.shape[:-1], weight.shape[0])))

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 2 * known[self.weight].shape[1] + 1)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"linear, {known[self.weight].shape[1]:,} to {known[self.weight].shape[0]:,} numbers"


class Embedding(Call):
    """For each whole number its row of a table of the shape (numbers, size); beyond the table, its last row."""

    call: Literal["embedding"] = "embedding"
    weight: Ref
    padding: Annotated[int, Field(ge=0, lt=2**24)] | None  # the number whose row no training moves

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.weight,)

    def result(self, known: Known) -> Tensor:
        found, weight = known[self.of], weight_of(known, self.weight, 2)
        if not found.is_whole:
            raise ValueError(f"{self.of} has reals, and an embedding takes whole numbers: an input with `below`")
        if self.padding is not None and self.padding >= weight.shape[0]:
            raise ValueError(f"padding {self.padding}, and {self.weight} has {weight.shape[0]:,} rows")
        return Tensor(checked((*found.shape, weight.shape[1])))

    def cost(self, known: Known, result: Tensor) -> Cost:
        clamped = 2 * known[self.of].elements
        return Cost(clamped + result.elements, FLOAT_BYTES * result.elements + _INDEX_BYTES * clamped)

    def in_words(self, known: Known, result: Tensor) -> str:
        count, size = known[self.weight].shape
        return f"for each of {known[self.of].elements:,} whole numbers, its {size:,} numbers of a table of {count:,}"


class Positions(Call):
    """The first rows of a table of the shape (places, size): one for each place of the first axis of a row."""

    call: Literal["positions"] = "positions"
    weight: Ref

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.weight,)

    def result(self, known: Known) -> Tensor:
        places, weight = has_axis(known[self.of], 0), weight_of(known, self.weight, 2)
        if places > weight.shape[0]:
            raise ValueError(f"{self.of} has {places:,} places, and {self.weight} has {weight.shape[0]:,} rows")
        return Tensor(checked((places, weight.shape[1])))

    def cost(self, known: Known, result: Tensor) -> Cost:
        return each(result, 1)

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"for each of {result.shape[0]:,} places, its {result.shape[1]:,} numbers of a table"


class MatMul(Call):
    """Products of matrices of two nodes with as many axes: (..., m, k) and (..., k, n) give (..., m, n)."""

    call: Literal["matmul"] = "matmul"
    other: Ref

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of, self.other)

    def result(self, known: Known) -> Tensor:
        left, right = reals(known, self.of).shape, reals(known, self.other).shape
        if len(left) < 2 or len(left) != len(right) or left[:-2] != right[:-2] or left[-1] != right[-2]:
            raise ValueError(f"{self.of} of {list(left)} and {self.other} of {list(right)} have no product")
        return Tensor(checked((*left[:-1], right[-1])))

    def cost(self, known: Known, result: Tensor) -> Cost:
        copies = known[self.of].elements + known[self.other].elements  # torch may lay both out anew
        return Cost(2 * result.elements * known[self.of].shape[-1], FLOAT_BYTES * (result.elements + copies))

    def in_words(self, known: Known, result: Tensor) -> str:
        return f"the product of {sizes(known[self.of].shape)} and {sizes(known[self.other].shape)}"
