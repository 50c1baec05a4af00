"""A model of the linear families as a graph of ONNX: terms, weights, the offset and what their sum means."""

from collections.abc import Iterator, Mapping

import numpy as np

from policies.models.onnx_graph import Graph, as_column, as_doubles, is_member, scaled
from policies.models.portable import Portable, Term, middle_and_half
from policies.requests.families import kind_of


def add_linear(graph: Graph, model: Portable) -> None:
    """Add the nodes from the cells of a row to its score."""
    inner = {column.name: scaled(graph, column) for column in model.columns if kind_of(column) != "text"}
    terms = [as_column(graph, one) for one in _terms(graph, model, inner)]
    weights = np.array([own[1:] for own in model.weights], np.float64).T
    summed = graph.node("MatMul", graph.node("Concat", *terms, axis=1), graph.doubles(weights)) if terms else ""
    found = graph.node("Add", summed, graph.doubles([own[0] for own in model.weights]))
    if model.offset is not None:
        column = next(one for one in model.columns if one.name == model.offset)
        middle, half = middle_and_half(column)
        own = graph.node("Mul", inner[model.offset], graph.doubles(half))
        found = graph.node("Add", found, as_column(graph, graph.node("Add", own, graph.doubles(middle))))
    _linked(graph, model, found)


def _terms(graph: Graph, model: Portable, inner: Mapping[str, str]) -> Iterator[str]:
    """Yield each standardised term as a vector over rows; one whose deviation is 0 is 0 everywhere."""
    for term, mean, deviation in zip(model.terms, model.mean, model.deviation, strict=True):
        value = _value(graph, term, inner)
        factor = 1 / deviation if deviation else 0.0
        own = graph.node("Mul", graph.node("Sub", value, graph.doubles(mean)), graph.doubles(factor))
        has_cells = term.factors or (term.member is None and not term.is_indicator)
        if has_cells and model.missing != "drop":
            own = graph.node("Where", graph.node("IsNaN", value), graph.doubles(0), own)
        yield own


def _value(graph: Graph, term: Term, inner: Mapping[str, str]) -> str:
    column = term.column
    if term.factors:
        return graph.node("Mul", *(_value(graph, factor, inner) for factor in term.factors))
    if term.is_indicator:
        return as_doubles(graph, graph.node("IsNaN", column.name))
    if term.member is None:
        return inner[column.name]
    return is_member(graph, column, term.member)


def _linked(graph: Graph, model: Portable, found: str) -> None:
    """Add what makes the score of the linear predictors, of shape (rows, outputs)."""
    if model.link == "softmax":
        first = graph.node("Mul", graph.node("Slice", found, *map(graph.whole, ([0], [1], [1]))), graph.doubles(0))
        shares = graph.node("Concat", first, found, axis=1)
        graph.score("Softmax", shares, axis=1)
        return
    flat = graph.node("Squeeze", found, graph.whole([1]))
    match model.link:
        case "logistic":
            last, inputs = "Sigmoid", [flat]
        case "log":
            last, inputs = "Exp", [flat]
        case "identity":
            last, inputs = "Add", [graph.node("Mul", flat, graph.doubles(model.scale)), graph.doubles(model.shift)]
        case _:
            last, inputs = "Identity", [flat]
    graph.score(last, *inputs)
