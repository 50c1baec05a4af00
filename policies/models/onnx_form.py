"""A model as ONNX, for programs that know nothing of Consilo: bounds, steps, members and gaps are in the graph.

There is one input for each column: of a number or a bool doubles (NaN where a cell is missing, 1 and 0 for true and
false), of a text strings, of an array its numbers. `/score` has the shares, means or log-hazards of
`policies.models.forms`. Nothing is returned that does not agree with those: `to_onnx` runs the graph on rows over all
bounds and domains. onnx.ai
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from math import prod
from typing import Any

import numpy as np

from policies.errors import ModelError
from policies.models.bayes import SCHEMA as BAYES
from policies.models.bayes import Bayes
from policies.models.forms import Form, scores_of
from policies.models.network import SCHEMA as NETWORK
from policies.models.network import Network
from policies.models.onnx_bayes import add_bayes
from policies.models.onnx_graph import SCORE, Graph
from policies.models.onnx_linear import add_linear
from policies.models.onnx_scaled import add_scaled_network
from policies.models.portable import SCHEMA, Portable, range_of
from policies.models.scores import Bools, Integers, RowCells, Vector
from policies.requests.families import kind_of
from policies.requests.tables import TableColumn

TOLERANCE = 1e-5  # relative above 1, and of a network's number above half the label's bounds
OPSET, IR_VERSION = 21, 10  # that runtimes of 2024 read
_ROWS = 257  # that the graph is compared on; a prime, so that columns move through their values apart


def to_onnx(model: Form, score: Callable[[RowCells], Vector] | None = None) -> bytes:
    """Return the bytes of an ONNX file; raises ModelError without the package, or if the graph scores otherwise.

    It is compared with `score`, where there is another way to score rows than by the form.
    """
    try:
        import onnx  # an optional dependency: consilo[export]
        from onnx.reference import ReferenceEvaluator
    except ImportError as err:
        raise ModelError("onnx is not installed", 'pip install "consilo[export]"') from err
    made = _model(onnx, model)
    onnx.checker.check_model(made, full_check=True)
    cells, inputs = _samples(model)
    ran: Any = ReferenceEvaluator(made).run([SCORE], dict(inputs))
    found = np.asarray(ran[0])
    expected = scores_of(model, cells) if score is None else score(cells)
    gap = cells_missing(model, cells)
    expected = np.where(gap[:, None] if expected.ndim > 1 else gap, np.nan, expected)
    half = model.scale if isinstance(model, Network) and model.link == "identity" else 1.0  # 32-bit floats go so far
    away = np.abs(found - expected) / np.maximum(max(1.0, half), np.abs(expected))
    if found.shape != expected.shape or (np.isnan(found) != np.isnan(expected)).any() or (away > TOLERANCE).any():
        raise ModelError(
            f"the ONNX form scores {np.nanmax(away):.1e} away from the model, at most {TOLERANCE:g} is allowed",
            'export it as JSON, or of a network as "safetensors", and report this',
        )
    data: bytes = made.SerializeToString()
    return data


def cells_missing(model: Form, rows: RowCells) -> Bools:
    """Return which rows have no score, as they lack a cell that is not filled."""
    found = np.zeros(rows.rows, np.bool_)
    for column in model.columns:
        gap = rows.missing.get(column.name)
        if gap is not None and column.name not in model.filled:
            found |= gap
    return found


def _samples(model: Form) -> tuple[RowCells, Mapping[str, np.ndarray[Any, Any]]]:
    """Return rows that go through the values of every column, as cells and as inputs of the graph."""
    cells, missing, inputs = dict[str, Integers](), dict[str, Bools](), dict[str, np.ndarray[Any, Any]]()
    rows, arrays = np.arange(_ROWS), dict[str, Any]()
    for place, column in enumerate(model.columns):
        stride = 7 * place + 3
        if kind_of(column) == "text":
            cells[column.name] = (rows * stride) % len(column.domain)
            inputs[column.name] = np.array([column.domain[code] for code in cells[column.name]], np.object_)
            continue
        if column.type == "array":
            arrays[column.name], inputs[column.name] = _array(column, rows, stride)
            continue
        width = range_of(column)
        steps = (rows * stride % _ROWS * width) // (_ROWS - 1)
        gap = rows % 29 == place % 29
        low = 0 if column.type == "bool" else column.low or 0
        values = (low + steps) * float(Decimal(column.step or "1"))
        cells[column.name], missing[column.name] = 2 * steps - width, gap
        inputs[column.name] = np.where(gap, np.nan, values)
    return RowCells(cells, missing, arrays), inputs


def _array(column: TableColumn, rows: Integers, stride: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return an array of each row, in steps and in its own units."""
    numbers = (rows[:, None] * stride + 31 * np.arange(prod(column.shape))) % _ROWS
    steps = (numbers * column.range_steps // (_ROWS - 1)).reshape(-1, *column.shape)
    values = (steps + (column.low or 0)) * float(Decimal(column.step or "1"))
    return steps.astype(np.uint64), values.astype(np.int64) if column.of == "int" else values


def _model(onnx: Any, model: Form) -> Any:
    graph, helper, kinds = Graph(onnx), onnx.helper, onnx.TensorProto
    match model:
        case Portable():
            add_linear(graph, model)
            told = {"schema": SCHEMA, "link": model.link, "positive": model.positive}
        case Bayes():
            add_bayes(graph, model)
            told = {"schema": BAYES}
        case Network():
            add_scaled_network(graph, model)
            told = {"schema": NETWORK, "link": model.link, "graph": model.graph.digest}
    inputs = [helper.make_tensor_value_info(one.name, *_type_of(one, kinds)) for one in model.columns]
    shape = ["rows", len(model.classes)] if model.classes else ["rows"]
    output = helper.make_tensor_value_info(SCORE, kinds.DOUBLE, shape)
    made = helper.make_model(
        helper.make_graph(graph.nodes, model.model, inputs, [output], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="consilo",
    )
    told |= {"model": model.model, "label": model.label or "", "classes": "\n".join(model.classes)}
    helper.set_model_props(made, told)
    return made


def _type_of(column: TableColumn, kinds: Any) -> tuple[Any, list[str | int]]:
    """Return the type and the shape of a column's input."""
    if column.type == "array":
        return kinds.INT64 if column.of == "int" else kinds.DOUBLE, ["rows", *column.shape]
    return kinds.STRING if kind_of(column) == "text" else kinds.DOUBLE, ["rows"]
