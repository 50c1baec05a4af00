"""A naive Bayes model as a graph of ONNX: densities and shares of values by class, and the shares of the classes."""

import numpy as np

from policies.models.bayes import Bayes, Normal, Values
from policies.models.onnx_graph import Graph, as_column, as_doubles, is_member, scaled
from policies.models.portable import middle_and_half


def add_bayes(graph: Graph, model: Bayes) -> None:
    """Add the nodes from the cells of a row to its score."""
    found = graph.doubles([[prior for prior in model.priors if prior is not None]])
    for number in model.numbers:
        found = graph.node("Add", found, _density(graph, number, is_filled=number.column.name in model.filled))
    for one in model.values:
        found = graph.node("Add", found, _shares(graph, one, is_filled=one.column.name in model.filled))
    shares = graph.node("Softmax", found, axis=1)
    chosen = range(len(model.priors)) if model.classes else (1,)  # of a bool the share of true
    picked = np.array([[float(place == shown) for place in chosen] for shown in model.shown])
    both = shares, graph.doubles(picked)
    if model.classes:
        graph.score("MatMul", *both)
    else:
        graph.score("Squeeze", graph.node("MatMul", *both), graph.whole([1]))


def _density(graph: Graph, number: Normal, *, is_filled: bool) -> str:
    """Return the logarithms of a number's densities, of shape (rows, classes); 0 in a class without variance."""
    middle, half = middle_and_half(number.column)
    cells = graph.node("Mul", scaled(graph, number.column), graph.doubles(half))
    value = as_column(graph, graph.node("Add", cells, graph.doubles(middle)))
    variance = np.array([number.variance])
    is_told = variance > 0
    safe = np.where(is_told, variance, 1.0)
    distance = graph.node("Sub", value, graph.doubles([number.mean]))
    square = graph.node("Mul", graph.node("Mul", distance, distance), graph.doubles(np.where(is_told, -0.5 / safe, 0)))
    part = graph.node("Add", square, graph.doubles(np.where(is_told, -0.5 * np.log(2 * np.pi * safe), 0)))
    return _without_gaps(graph, part, value) if is_filled else part


def _shares(graph: Graph, one: Values, *, is_filled: bool) -> str:
    """Return the logarithms of the shares of a column's values, of shape (rows, classes)."""
    logs = graph.doubles(np.array(one.logs).T)
    if one.column.domain:
        members = [as_column(graph, is_member(graph, one.column, place)) for place in range(len(one.column.domain))]
        return graph.node("MatMul", graph.node("Concat", *members, axis=1), logs)
    cell = as_column(graph, scaled(graph, one.column))
    is_true = as_doubles(graph, graph.node("Greater", cell, graph.doubles(0)))
    is_false = graph.node("Sub", graph.doubles(1), is_true)
    part = graph.node("MatMul", graph.node("Concat", is_false, is_true, axis=1), logs)
    if is_filled:
        return _without_gaps(graph, part, cell)
    return graph.node("Add", part, graph.node("Mul", cell, graph.doubles(0)))  # NaN where the cell is missing


def _without_gaps(graph: Graph, part: str, cell: str) -> str:
    return graph.node("Where", graph.node("IsNaN", cell), graph.doubles(0), part)
