"""A graph of ONNX in the making: its nodes and constants, and how a cell becomes a number in it."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from policies.models.portable import range_of
from policies.requests.tables import TableColumn

SCORE = "/score"  # the output; no column's name begins so


@dataclass(slots=True)
class Graph:
    """A graph of which each node and constant has a name of its own."""

    onnx: Any
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        name = f"/{kind.lower()}/{len(self.nodes)}"  # no column's name begins so
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def several(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node of several outputs, and return their names."""
        names = [f"/{kind.lower()}/{len(self.nodes)}/{place}" for place in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def floats(self, values: Any) -> str:
        """Add a constant of 32-bit floats."""
        return self._constant(np.asarray(values, np.float32))

    def doubles(self, values: Any) -> str:
        return self._constant(np.asarray(values, np.float64))

    def whole(self, values: Any) -> str:
        return self._constant(np.asarray(values, np.int64))

    def texts(self, *values: str) -> str:
        return self._constant(np.array(values, np.object_))

    def score(self, kind: str, *inputs: str, **attributes: Any) -> None:
        """Add the last node, whose output is the score."""
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [SCORE], **attributes))

    def _constant(self, array: np.ndarray[Any, Any]) -> str:
        name = f"/constant/{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name


def as_column(graph: Graph, name: str) -> str:
    """Return a vector over rows as a matrix of one column."""
    return graph.node("Unsqueeze", name, graph.whole([1]))


def scaled(graph: Graph, column: TableColumn) -> str:
    """Return a number in [-1, 1]: clamped to its bounds, in whole steps, halves up; NaN where it is missing."""
    width, low = range_of(column), 0 if column.type == "bool" else column.low or 0
    steps = graph.node("Div", column.name, graph.doubles(float(Decimal(column.step or "1"))))
    above = graph.node("Sub", steps, graph.doubles(low))
    whole = graph.node("Floor", graph.node("Add", above, graph.doubles(0.5)))
    # Below and above by comparison, as Clip need not keep a NaN.
    bottom = graph.node("Where", graph.node("Less", whole, graph.doubles(0)), graph.doubles(0), whole)
    top = graph.node("Where", graph.node("Greater", bottom, graph.doubles(width)), graph.doubles(width), bottom)
    return graph.node("Sub", graph.node("Mul", top, graph.doubles(2 / width)), graph.doubles(1))


def is_member(graph: Graph, column: TableColumn, place: int) -> str:
    """Return whether each row's text is a value of its domain, as 1 or 0."""
    value = column.domain[place]
    if value != column.unknown:
        return as_doubles(graph, graph.node("Equal", column.name, graph.texts(value)))
    # Whatever is none of the other values counts as the unknown one.
    found = graph.node("Equal", column.name, graph.texts(column.domain[0]))
    for other in column.domain[1:]:
        if other != value:
            found = graph.node("Or", found, graph.node("Equal", column.name, graph.texts(other)))
    return as_doubles(graph, graph.node("Not", found))


def as_doubles(graph: Graph, name: str) -> str:
    """Return truth values as 1 and 0."""
    return graph.node("Cast", name, to=graph.onnx.TensorProto.DOUBLE)
