"""A network's columns as the inputs of its graph in ONNX, and its output as scores: bounds and domains are in the file.

Cells are scaled in doubles, as of every other model, and the graph is computed in 32-bit floats.
"""

from collections.abc import Mapping
from decimal import Decimal
from math import prod

import numpy as np

from policies.models.network import Network, Term
from policies.models.onnx_graph import Graph, as_column, as_doubles, is_member, scaled
from policies.models.onnx_network import add_network
from policies.networks.graph import Input
from policies.requests.families import kind_of
from policies.requests.tables import TableColumn


def add_scaled_network(made: Graph, model: Network) -> None:
    """Add the nodes from the cells of a row to its score; a row that lacks a needed cell has NaN."""
    if model.is_dense:
        terms = [_flat(made, term) for term in model.terms()]
        inputs = {model.graph.inputs[0].name: _floats(made, made.node("Concat", *terms, axis=1))}
    else:
        pairs = zip(model.graph.inputs, model.columns, strict=True)
        inputs = {one.name: _own(made, one, column) for one, column in pairs}
    output = add_network(made, model.graph, model.tensors(), inputs)
    flat = made.node("Reshape", output, made.whole([-1, model.graph.result.elements]))
    found = _linked(made, model, _doubles(made, flat), inputs)
    needed = [column.name for column in model.columns if _may_lack(column) and column.name not in model.filled]
    if not needed:
        made.score("Identity", found)
        return
    gap = made.node("IsNaN", needed[0])
    for name in needed[1:]:
        gap = made.node("Or", gap, made.node("IsNaN", name))
    made.score("Where", as_column(made, gap) if model.classes else gap, made.doubles(np.nan), found)


def _may_lack(column: TableColumn) -> bool:
    return kind_of(column) in ("number", "bool")


def _floats(made: Graph, name: str) -> str:
    return made.node("Cast", name, to=made.onnx.TensorProto.FLOAT)


def _without_gaps(made: Graph, column: TableColumn) -> str:
    """Return a number or bool in [-1, 1], 0 where its cell is missing."""
    return made.node("Where", made.node("IsNaN", column.name), made.doubles(0), scaled(made, column))


def _flat(made: Graph, term: Term) -> str:
    """Return a term of the dense design, of shape (rows, its width)."""
    column = term.column
    if column.type == "array":
        return made.node("Reshape", _scaled_array(made, column), made.whole([-1, prod(column.shape)]))
    if term.is_indicator:
        return as_column(made, as_doubles(made, made.node("IsNaN", column.name)))
    if term.member is not None:
        return as_column(made, is_member(made, column, term.member))
    return as_column(made, _without_gaps(made, column))


def _own(made: Graph, one: Input, column: TableColumn) -> str:
    """Return a column as an input of its own."""
    shape = made.whole([-1, *one.shape])
    if one.below is None:
        found = _scaled_array(made, column) if column.type == "array" else _without_gaps(made, column)
        return made.node("Reshape", _floats(made, found), shape)
    if column.domain:
        found = _place(made, column)
    else:
        known = column.name
        if column.type != "array":
            known = made.node("Where", made.node("IsNaN", known), made.doubles(0), known)
        found = _in_bounds(made, column, known)
        found = made.node("Cast", found, to=made.onnx.TensorProto.INT64)
    inside = made.node("Clip", found, made.whole(0), made.whole(one.below - 1))
    return made.node("Reshape", inside, shape)


def _place(made: Graph, column: TableColumn) -> str:
    """Return a text's place in its domain; that of the unknown value, or else the first, of any other text."""
    is_it = made.node("Equal", as_column(made, column.name), made.texts(*column.domain))
    found = made.node("Cast", is_it, to=made.onnx.TensorProto.INT64)
    at = made.node("ArgMax", found, axis=1, keepdims=0)
    is_known = made.node("Cast", made.node("ReduceMax", found, made.whole([1]), keepdims=0), to=_bool(made))
    other = 0 if column.unknown is None else column.domain.index(column.unknown)
    return made.node("Where", is_known, at, made.whole(other))


def _bool(made: Graph) -> int:
    return int(made.onnx.TensorProto.BOOL)


def _in_bounds(made: Graph, column: TableColumn, name: str) -> str:
    """Return numbers in whole steps within their bounds, halves up, in doubles and in their own units."""
    step = float(Decimal(column.step or "1"))
    numbers = made.node("Cast", name, to=made.onnx.TensorProto.DOUBLE)
    above = made.node("Add", made.node("Div", numbers, made.doubles(step)), made.doubles(0.5))
    low, high = (made.doubles(float(bound or 0)) for bound in (column.low, column.high))
    return made.node("Mul", made.node("Clip", made.node("Floor", above), low, high), made.doubles(step))


def _scaled_array(made: Graph, column: TableColumn) -> str:
    """Return the numbers of an array in [-1, 1]."""
    step, low, width = float(Decimal(column.step or "1")), column.low or 0, column.range_steps
    steps = made.node("Div", _in_bounds(made, column, column.name), made.doubles(step))
    above = made.node("Sub", steps, made.doubles(float(low)))
    return made.node("Sub", made.node("Mul", above, made.doubles(2 / width)), made.doubles(1))


def _doubles(made: Graph, name: str) -> str:
    return made.node("Cast", name, to=made.onnx.TensorProto.DOUBLE)


def _linked(made: Graph, model: Network, output: str, inputs: Mapping[str, str]) -> str:
    """Return the scores that an output of the shape (rows, numbers) stands for."""
    if model.link == "reconstruction":
        given = made.node("Reshape", _doubles(made, *inputs.values()), made.whole([-1, model.graph.result.elements]))
        apart = made.node("Sub", output, given)
        error = made.node("ReduceMean", made.node("Mul", apart, apart), made.whole([1]), keepdims=0)
        return made.node("Div", error, made.node("Add", error, made.doubles(model.scale)))
    if model.link == "softmax":
        return made.node("Softmax", output, axis=1)
    flat = made.node("Squeeze", output, made.whole([1]))
    if model.link == "logistic":
        return made.node("Sigmoid", flat)
    inside = made.node("Clip", flat, made.doubles(-1), made.doubles(1))
    return made.node("Add", made.node("Mul", inside, made.doubles(model.scale)), made.doubles(model.shift))
