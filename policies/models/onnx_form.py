"""A model as ONNX, for programs that know nothing of Consilo: bounds, steps, members and gaps are in the graph.

There is one input for each column: of a number or a bool doubles (NaN where a cell is missing, 1 and 0 for true and
false), of a text strings. `/score` has the shares, means or log-hazards of `policies.models.scores`. Nothing is
returned that does not agree with those: `to_onnx` runs the graph on rows over all bounds and domains. onnx.ai
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from policies.errors import ModelError
from policies.models.portable import SCHEMA, Portable, Term, middle_and_half, range_of
from policies.models.scores import Bools, Integers, RowCells, scores
from policies.requests.families import kind_of
from policies.requests.tables import TableColumn

TOLERANCE = 1e-5  # relative above 1
OPSET, IR_VERSION = 21, 10  # that runtimes of 2024 read
_ROWS = 257  # that the graph is compared on; a prime, so that columns move through their values apart
_SCORE = "/score"  # no column's name begins so


def to_onnx(model: Portable) -> bytes:
    """Return the bytes of an ONNX file; raises ModelError without the package, or if the graph scores otherwise."""
    try:
        import onnx  # an optional dependency: consilo[export]
        from onnx.reference import ReferenceEvaluator
    except ImportError as err:
        raise ModelError("onnx is not installed", 'pip install "consilo[export]"') from err
    made = _model(onnx, model)
    onnx.checker.check_model(made, full_check=True)
    cells, inputs = _samples(model)
    ran: Any = ReferenceEvaluator(made).run([_SCORE], dict(inputs))
    found = np.asarray(ran[0])
    expected = scores(model, cells)
    gap = cells_missing(model, cells)
    expected = np.where(gap[:, None] if expected.ndim > 1 else gap, np.nan, expected)
    away = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    if found.shape != expected.shape or (np.isnan(found) != np.isnan(expected)).any() or (away > TOLERANCE).any():
        raise ModelError(
            f"the ONNX form scores {np.nanmax(away):.1e} away from the model, at most {TOLERANCE:g} is allowed",
            "export it as JSON, and report this",
        )
    data: bytes = made.SerializeToString()
    return data


def cells_missing(model: Portable, rows: RowCells) -> Bools:
    """Return which rows have no score, as they lack a cell that is not filled."""
    found = np.zeros(rows.rows, np.bool_)
    for column in model.columns:
        is_filled = model.missing != "drop" and column.name != model.offset
        gap = rows.missing.get(column.name)
        if gap is not None and not is_filled:
            found |= gap
    return found


def _samples(model: Portable) -> tuple[RowCells, Mapping[str, np.ndarray[Any, Any]]]:
    """Return rows that go through the values of every column, as cells and as inputs of the graph."""
    cells, missing, inputs = dict[str, Integers](), dict[str, Bools](), dict[str, np.ndarray[Any, Any]]()
    rows = np.arange(_ROWS)
    for place, column in enumerate(model.columns):
        stride = 7 * place + 3
        if kind_of(column) == "text":
            cells[column.name] = (rows * stride) % len(column.domain)
            inputs[column.name] = np.array([column.domain[code] for code in cells[column.name]], np.object_)
            continue
        width = range_of(column)
        steps = (rows * stride % _ROWS * width) // (_ROWS - 1)
        gap = rows % 29 == place % 29
        low = 0 if column.type == "bool" else column.low or 0
        values = (low + steps) * float(Decimal(column.step or "1"))
        cells[column.name], missing[column.name] = 2 * steps - width, gap
        inputs[column.name] = np.where(gap, np.nan, values)
    return RowCells(cells, missing), inputs


@dataclass(slots=True)
class _Graph:
    """A graph in the making: its nodes and constants, each with a name of its own."""

    onnx: Any
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        name = f"/{kind.lower()}/{len(self.nodes)}"  # no column's name begins so
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def doubles(self, values: Any) -> str:
        return self._constant(np.asarray(values, np.float64))

    def whole(self, values: Any) -> str:
        return self._constant(np.asarray(values, np.int64))

    def texts(self, *values: str) -> str:
        return self._constant(np.array(values, np.object_))

    def _constant(self, array: np.ndarray[Any, Any]) -> str:
        name = f"/constant/{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name


def _model(onnx: Any, model: Portable) -> Any:
    graph, helper, kinds = _Graph(onnx), onnx.helper, onnx.TensorProto
    scaled = {column.name: _scaled(graph, column) for column in model.columns if kind_of(column) != "text"}
    terms = [_column(graph, one) for one in _terms(graph, model, scaled)]
    weights = np.array([own[1:] for own in model.weights], np.float64).T
    summed = graph.node("MatMul", graph.node("Concat", *terms, axis=1), graph.doubles(weights)) if terms else ""
    start = graph.doubles([own[0] for own in model.weights])
    found = graph.node("Add", summed, start)
    if model.offset is not None:
        column = next(one for one in model.columns if one.name == model.offset)
        middle, half = middle_and_half(column)
        own = graph.node("Mul", scaled[model.offset], graph.doubles(half))
        found = graph.node("Add", found, _column(graph, graph.node("Add", own, graph.doubles(middle))))
    _linked(graph, model, found)
    inputs = [
        helper.make_tensor_value_info(
            column.name, kinds.STRING if kind_of(column) == "text" else kinds.DOUBLE, ["rows"]
        )
        for column in model.columns
    ]
    shape = ["rows", len(model.classes)] if model.classes else ["rows"]
    output = helper.make_tensor_value_info(_SCORE, kinds.DOUBLE, shape)
    made = helper.make_model(
        helper.make_graph(graph.nodes, model.model, inputs, [output], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="consilo",
    )
    told = {"schema": SCHEMA, "model": model.model, "label": model.label or "", "link": model.link}
    helper.set_model_props(made, told | {"classes": "\n".join(model.classes), "positive": model.positive})
    return made


def _column(graph: _Graph, name: str) -> str:
    """Return a vector over rows as a matrix of one column."""
    return graph.node("Unsqueeze", name, graph.whole([1]))


def _scaled(graph: _Graph, column: TableColumn) -> str:
    """Return a number in [-1, 1]: clamped to its bounds, in whole steps, halves up; NaN where it is missing."""
    width, low = range_of(column), 0 if column.type == "bool" else column.low or 0
    steps = graph.node("Div", column.name, graph.doubles(float(Decimal(column.step or "1"))))
    above = graph.node("Sub", steps, graph.doubles(low))
    whole = graph.node("Floor", graph.node("Add", above, graph.doubles(0.5)))
    # Below and above by comparison, as Clip need not keep a NaN.
    bottom = graph.node("Where", graph.node("Less", whole, graph.doubles(0)), graph.doubles(0), whole)
    top = graph.node("Where", graph.node("Greater", bottom, graph.doubles(width)), graph.doubles(width), bottom)
    return graph.node("Sub", graph.node("Mul", top, graph.doubles(2 / width)), graph.doubles(1))


def _terms(graph: _Graph, model: Portable, scaled: Mapping[str, str]) -> Iterator[str]:
    """Yield each standardised term as a vector over rows; one whose deviation is 0 is 0 everywhere."""
    for term, mean, deviation in zip(model.terms, model.mean, model.deviation, strict=True):
        value = _value(graph, term, scaled)
        factor = 1 / deviation if deviation else 0.0
        own = graph.node("Mul", graph.node("Sub", value, graph.doubles(mean)), graph.doubles(factor))
        has_cells = term.factors or (term.member is None and not term.is_indicator)
        if has_cells and model.missing != "drop":
            own = graph.node("Where", graph.node("IsNaN", value), graph.doubles(0), own)
        yield own


def _value(graph: _Graph, term: Term, scaled: Mapping[str, str]) -> str:
    column = term.column
    if term.factors:
        return graph.node("Mul", *(_value(graph, factor, scaled) for factor in term.factors))
    if term.is_indicator:
        return _as_doubles(graph, graph.node("IsNaN", column.name))
    if term.member is None:
        return scaled[column.name]
    value = column.domain[term.member]
    if value != column.unknown:
        return _as_doubles(graph, graph.node("Equal", column.name, graph.texts(value)))
    # Whatever is none of the other values counts as the unknown one.
    found = graph.node("Equal", column.name, graph.texts(column.domain[0]))
    for other in column.domain[1:]:
        if other != value:
            found = graph.node("Or", found, graph.node("Equal", column.name, graph.texts(other)))
    return _as_doubles(graph, graph.node("Not", found))


def _as_doubles(graph: _Graph, name: str) -> str:
    return graph.node("Cast", name, to=graph.onnx.TensorProto.DOUBLE)


def _linked(graph: _Graph, model: Portable, found: str) -> None:
    """Add what makes the score of the linear predictors, of shape (rows, outputs)."""
    if model.link == "softmax":
        first = graph.node("Mul", graph.node("Slice", found, *map(graph.whole, ([0], [1], [1]))), graph.doubles(0))
        shares = graph.node("Concat", first, found, axis=1)
        graph.nodes.append(graph.onnx.helper.make_node("Softmax", [shares], [_SCORE], axis=1))
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
    graph.nodes.append(graph.onnx.helper.make_node(last, inputs, [_SCORE]))
