"""The form of a network, to score rows with: its graph, its weights and what its columns and output mean.

Schema "consilo-network/1". A graph with one input of as many numbers as the columns have terms takes the dense design:
a number or bool, and each number of an array, in [-1, 1] by its bounds; a text as a 0 or 1 for each of its values but
the first; with missing "indicator" also whether a cell is missing, whose number is 0 then. Any other graph takes each
column as an input of its own, in order: a text as its place in the domain. What comes out is computed in doubles.
docs/networks.md, "Models leave".
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from crypto.wire import Message, Name
from policies.domains import LongDomain
from policies.models.portable import Finite, Text, range_of
from policies.models.scores import RowCells, Vector
from policies.networks.by_numpy import computed, sigmoid, softmax
from policies.networks.graph import MAX_NUMBERS, Graph
from policies.networks.values import FLOAT_BYTES
from policies.requests.shapes import kind_of
from policies.requests.tables import TableColumn

SCHEMA = "consilo-network/1"
SCORED_ROWS = 4096  # at once, so that no file of rows needs more memory than that
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Term:
    """Some numbers of the dense design: of a column, one value of its domain, or whether its cell is missing."""

    column: TableColumn
    member: int | None = None
    is_indicator: bool = False

    @property
    def width(self) -> int:
        return prod(self.column.shape) if self.column.type == "array" else 1


class Network(Message):
    """A network, to score rows with. `weights` are those of the graph, in its order, as little-endian 32-bit floats.

    `link` says what its output means: a number as a share of half the label's bounds, log-odds, scores of classes, or
    its own inputs again, whose mean squared error e gives the score e / (e + scale): a half is as usual.
    """

    MAX_BYTES: ClassVar[int] = 96 << 20
    MAX_COMMAS: ClassVar[int] = 2**18
    version: Literal["consilo-network/1"] = "consilo-network/1"
    model: Name
    label: Name | None
    classes: Annotated[tuple[Text, ...], Field(max_length=100_000)] = ()
    columns: Annotated[tuple[TableColumn, ...], Field(min_length=1, max_length=64)]
    missing: Literal["drop", "indicator"] = "drop"
    link: Literal["identity", "logistic", "softmax", "reconstruction"]
    scale: Finite = 1.0  # of an identity: the label is shift + scale * output
    shift: Finite = 0.0
    graph: Graph
    weights: Annotated[bytes, Field(repr=False, max_length=FLOAT_BYTES * MAX_NUMBERS)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(isinstance(column.domain, LongDomain) for column in self.columns):
            raise ValueError("a column has a long domain, which no form lists")
        if len(self.weights) != FLOAT_BYTES * self.graph.count:
            raise ValueError(f"{len(self.weights):,} bytes of weights, the graph has {self.graph.count:,} numbers")
        if (self.link == "softmax") != bool(self.classes):
            raise ValueError("a softmax has classes, and nothing else has")
        inputs = sum(prod(one.shape) for one in self.graph.inputs)
        expected = inputs if self.link == "reconstruction" else max(1, len(self.classes))
        if self.graph.result.elements != expected or (self.link == "reconstruction" and len(self.graph.inputs) > 1):
            raise ValueError(f"the graph gives {self.graph.result.elements:,} numbers, expected {expected:,}")
        if not self.is_dense and len(self.graph.inputs) != len(self.columns):
            raise ValueError(f"the graph has {len(self.graph.inputs)} inputs, for {len(self.columns)} columns")
        return self

    @property
    def filled(self) -> tuple[str, ...]:
        """The columns that may lack a cell; a domain has its own value for that."""
        numbers = (column.name for column in self.columns if kind_of(column) in ("number", "bool"))
        return () if self.missing == "drop" else tuple(numbers)

    @property
    def is_dense(self) -> bool:
        """Whether all columns are one row of numbers."""
        (first, *more) = self.graph.inputs
        return not more and first.below is None and first.shape == (sum(one.width for one in self.terms()),)

    def terms(self) -> Iterator[Term]:
        """Yield the terms of the dense design, in order."""
        for column in self.columns:
            if column.domain:
                yield from (Term(column, member) for member in range(1, len(column.domain)))
                continue
            yield Term(column)
            if self.missing == "indicator" and column.type != "array":
                yield Term(column, is_indicator=True)

    def tensors(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return the weights by the names of the graph."""
        numbers, found, start = np.frombuffer(self.weights, "<f4"), {}, 0
        for one in self.graph.weights:
            found[one.name] = numbers[start : start + one.count].reshape(one.shape)
            start += one.count
        return found

    def exported(self) -> str:
        """Return the form as a JSON file, with its weights in base64."""
        fields = self.model_dump(mode="json", exclude={"version"})
        return json.dumps({"schema": SCHEMA, **fields}, indent=1, ensure_ascii=False) + "\n"


def network_scores(model: Network, rows: RowCells) -> Vector:
    """Return what a network says of each row: a number, the share of true, or (rows, classes) shares."""
    weights, found = model.tensors(), [np.zeros((0, len(model.classes)) if model.classes else 0)]
    for first in range(0, rows.rows, SCORED_ROWS):
        inputs = inputs_of(model, rows, slice(first, first + SCORED_ROWS))
        output = computed(model.graph, weights, inputs)
        found.append(linked(model, output.reshape(len(output), model.graph.result.elements), inputs))
    return np.concatenate(found)


def linked(model: Network, output: Array, inputs: Mapping[str, Array]) -> Vector:
    """Return the scores that an output of the shape (rows, numbers) stands for."""
    match model.link:
        case "softmax":
            return softmax(output, 1)
        case "logistic":
            return sigmoid(output[:, 0])
        case "identity":
            return np.asarray(np.clip(output[:, 0], -1.0, 1.0) * model.scale + model.shift)
        case "reconstruction":
            (given,) = inputs.values()
            error = np.square(output - given.reshape(output.shape)).mean(1)
            return np.asarray(error / (error + model.scale))


def inputs_of(model: Network, rows: RowCells, block: slice) -> dict[str, Array]:
    """Return the inputs of some rows by their names: float32 numbers, or whole ones that an embedding looks up."""
    if model.is_dense:
        parts = [_numbers(term, rows, block) for term in model.terms()]
        return {model.graph.inputs[0].name: np.concatenate(parts, 1)}
    found = {}
    for one, column in zip(model.graph.inputs, model.columns, strict=True):
        if one.below is None:
            found[one.name] = _numbers(Term(column), rows, block).reshape(-1, *one.shape)
        else:
            found[one.name] = np.minimum(_whole(column, rows, block), one.below - 1).reshape(-1, *one.shape)
    return found


def _numbers(term: Term, rows: RowCells, block: slice) -> npt.NDArray[np.float32]:
    """Return a term of some rows, of shape (rows, its width)."""
    column = term.column
    if column.type == "array":
        steps = rows.arrays[column.name][block].astype(np.float64)
        return (2.0 * steps / column.range_steps - 1.0).reshape(len(steps), term.width).astype(np.float32)
    cells, gap = rows.cells[column.name][block], rows.missing.get(column.name)
    if term.is_indicator:
        found = np.zeros(len(cells)) if gap is None else gap[block].astype(np.float64)
    elif term.member is not None:
        found = (cells == term.member).astype(np.float64)
    else:
        found = cells / float(range_of(column))
        found = found if gap is None else np.where(gap[block], 0.0, found)
    return found[:, None].astype(np.float32)


def _whole(column: TableColumn, rows: RowCells, block: slice) -> npt.NDArray[np.int64]:
    """Return a text's places in its domain, or the whole numbers of an array or a number, none below 0."""
    if column.type == "array":
        found = (rows.arrays[column.name][block].astype(np.int64) + (column.low or 0)) * int(column.step or "1")
    elif column.domain:
        return rows.cells[column.name][block]
    else:
        found = (rows.cells[column.name][block] + range_of(column)) // 2 + (column.low or 0)
    return np.maximum(found, 0)
