"""Pack a torch module: torch.export, each call as a listed one, and the numbers of its weights.

Promise: what is packed computes of each row what the module does, to the last bit where the module keeps the rows of a
batch first. What does not fit is refused here by node and line; silos enforce their list themselves.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind

from analyst.networks.inputs import InputForm
from analyst.networks.layout import ROWS, Laid, LayoutError, fresh
from analyst.networks.loading import line_of
from analyst.networks.reading import READERS
from analyst.networks.refused import PackError, check_kinds, not_listed, place
from analyst.networks.writing import Parts, Places, Trained, Value, Writer, WritingError, Zeros
from crypto.errors import CryptoError
from policies.errors import reason_of
from policies.networks.calls import Call
from policies.networks.graph import Graph
from policies.networks.packed import Numbers, Packed, packed
from policies.networks.values import Tensor

_SAMPLE_ROWS = 3
_BY_ROW = "let each row be computed by itself: the first axis of an input is the batch"
_BY_COUNT = f"{_BY_ROW}; take its size as x.shape[0], not as len(x) or a number"
_BRANCH = "a network takes no branch on its numbers: use products and sums"
_BEGUN = frozenset({"aten.zeros.default", "aten.new_zeros.default"})  # of the size of a batch
_CONSTANT = {"initial": "constant", "bound": None}


class Count:
    """A number that depends on how many rows a batch has; views have it, and nothing else reads it."""


def packed_module(module: nn.Module, inputs: Sequence[InputForm], file: Path) -> Packed:
    """Return a module, packed; raises PackError, which names the node and the line of `file`."""
    for name, weight in module.named_parameters():
        if weight.dtype != torch.float32:
            raise PackError(f"{file.name}: the weight {name} is {weight.dtype}", "call .float() on the module")
    program = _exported(module, inputs, file)
    check_kinds(program.graph, file)
    return _Reading(program, inputs, file).packed()


def _exported(module: nn.Module, inputs: Sequence[InputForm], file: Path) -> ExportedProgram:
    samples = tuple(
        torch.zeros((_SAMPLE_ROWS, *one.shape), dtype=torch.float32 if one.below is None else torch.int64)
        for one in inputs
    )
    rows = Dim("rows", min=2)
    try:
        with _quiet():
            return export(module.train(), samples, dynamic_shapes=tuple({0: rows} for _ in samples), strict=False)
    except Exception as err:
        text = " ".join(str(err).split())
        if "data-dependent" in text or "DataDependent" in type(err).__name__:
            raise PackError(f"{line_of(err, file)}it branches on numbers of a row", _BRANCH) from err
        if "Constraints violated" in text or ("rows" in text and "specialize" in text):
            raise PackError(f"{file.name}: it fixes the number of rows of a batch", _BY_COUNT) from err
        hint = "run the module by itself on a batch of the shape that --input gives"
        raise PackError(f"{line_of(err, file)}torch.export cannot trace it: {text[:300]}", hint) from err


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch says of its own ways to trace; errors are raised as before."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


class _Reading:
    """One exported program, as it becomes a graph."""

    def __init__(self, program: ExportedProgram, inputs: Sequence[InputForm], file: Path) -> None:
        self.program, self.file = program, file
        self.values: dict[fx.Node, Value | Count] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.inputs: dict[str, InputForm] = {}
        forms = iter(inputs)
        kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
        for node in program.graph.find_nodes(op="placeholder"):
            spec = kinds[node.name]
            if spec.kind is InputKind.USER_INPUT:
                form = next(forms)
                self.inputs[node.name] = form
                self.values[node] = fresh(node.name, form.shape, is_whole=form.below is not None)
            elif spec.kind is InputKind.PARAMETER:
                self.weights[spec.target] = weight = program.state_dict[spec.target].detach()
                self.values[node] = Trained(spec.target, tuple(weight.shape))
            else:
                constant = program.state_dict.get(spec.target, program.constants.get(spec.target))
                if not isinstance(constant, torch.Tensor):
                    raise PackError(f"{node.name} is no tensor", "give the module tensors alone as buffers")
                self.values[node] = constant.detach()
        known = {name: Tensor(form.shape, form.below is not None) for name, form in self.inputs.items()}
        known |= {name: Tensor(tuple(weight.shape)) for name, weight in self.weights.items()}
        self.writer = Writer(known)

    def packed(self) -> Packed:
        """Return the graph and its weights; raises PackError."""
        output = ""
        for node in self.program.graph.nodes:
            try:
                if node.op == "call_function":
                    self.values[node] = self._read(node)
                elif node.op == "output":
                    output = self._output(node)
            except (LayoutError, WritingError) as err:
                hint = getattr(err, "hint", "") or _BY_ROW
                raise PackError(f"{place(node, self.file)}: {err}", hint) from err
        return self._graph(output)

    def _read(self, node: fx.Node) -> Value | Count:
        found = node.meta.get("val")
        if isinstance(found, torch.SymInt | int | torch.SymBool | bool):
            return Count()
        given = self._given(node)
        if not any(isinstance(one, Laid | Trained | Zeros | Parts | Places) for one in _all(given)):
            if str(node.target) in _BEGUN and any(isinstance(one, Count) for one in _all(given)):
                return Zeros()
            return self._constant(node)
        if str(node.target) in _BEGUN:
            return Zeros()
        reader = READERS.get(str(node.target))
        if reader is None:
            raise not_listed(node, self.file)
        return reader(self.writer, node, given)

    def _given(self, node: fx.Node) -> Mapping[str, Any]:
        """Return the arguments of a node by their names, with values in the place of nodes."""
        named = node.normalized_arguments(self.program.graph_module, normalize_to_only_use_kwargs=True)
        if named is None or named.args:
            arguments = {str(at): one for at, one in enumerate(node.args)} | dict(node.kwargs)
        else:
            arguments = dict(named.kwargs)
        return {key: self._value(one) for key, one in arguments.items()}

    def _value(self, one: Any) -> Any:
        if isinstance(one, fx.Node):
            return self.values[one]
        return [self._value(part) for part in one] if isinstance(one, list | tuple) else one

    def _constant(self, node: fx.Node) -> Value:
        """Compute what depends on no row and no weight, here and now."""
        target = node.target
        if not str(target).startswith("aten.") or not callable(target):
            raise not_listed(node, self.file)
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise WritingError("it draws numbers", "use nn.Dropout: a network draws nothing else")
        found = target(*[self._value(one) for one in node.args], **{k: self._value(v) for k, v in node.kwargs.items()})
        if not isinstance(found, torch.Tensor):
            raise not_listed(node, self.file)
        return found.detach()

    def _output(self, node: fx.Node) -> str:
        given = node.args[0]
        outputs = list(given) if isinstance(given, list | tuple) else [given]
        value = self._value(outputs[0])
        if len(outputs) != 1 or not isinstance(value, Laid):
            raise WritingError("its result is not one tensor of its rows", "return one tensor")
        if value.axes[0] != (ROWS,):
            raise LayoutError("its result has not the rows of the batch as its first axis")
        return self.writer.in_order(value)

    def _graph(self, output: str) -> Packed:
        calls = _needed(self.writer.calls, output)
        used = {name for call in calls for name in call.weights}
        weights = {name: _numbers(one) for name, one in self.weights.items() if name in used}
        constants = {name: _numbers(one) for name, one in self.writer.constants.items() if name in used}
        inputs = [
            {"name": name, "shape": one.shape, **({} if one.below is None else {"below": one.below})}
            for name, one in self.inputs.items()
        ]
        fields = {
            "inputs": tuple(inputs),
            "weights": (
                *({"name": name, "shape": one.shape, **_begun(one)} for name, one in weights.items()),
                *(
                    {"name": name, "shape": one.shape, "initial": "constant", "bound": None}
                    for name, one in constants.items()
                ),
            ),
            "calls": tuple(calls),
            "output": output,
            "packed": bytes(32),  # until the weights are written
        }
        try:
            return packed(Graph.model_validate(fields), weights | constants)
        except ValidationError as err:
            raise PackError(
                f"{self.file.name}: {reason_of(err)}", "leave out of forward what does not fit, or make it smaller"
            ) from err
        except CryptoError as err:
            raise PackError(f"{self.file.name}: {err}", err.hint) from err


def _needed(calls: Sequence[Call], output: str) -> list[Call]:
    """Return the calls that the output needs, in their order."""
    needed, found = {output}, []
    for call in reversed(calls):
        if call.name in needed:
            needed |= set(call.reads)
            found.append(call)
    return found[::-1]


def _numbers(tensor: torch.Tensor) -> Numbers:
    return np.array(tensor.to(torch.float32).cpu().numpy(), order="C")  # a copy: the module may be trained on


def _begun(weight: Numbers) -> Mapping[str, str | None]:
    """Return with what numbers a run begins that takes none of the packed ones: as widely spread as these."""
    if not weight.size or not np.isfinite(weight).all():
        return {"initial": "zeros", "bound": None}  # refused where the weights are checked
    for value, initial in ((0, "zeros"), (1, "ones")):
        if (weight == value).all():
            return {"initial": initial, "bound": None}
    spread = math.sqrt(3 * float(np.mean(np.square(weight, dtype=np.float64))))  # of uniform numbers
    bound = format(Decimal(repr(min(max(spread, 1e-6), 9999.0))).quantize(Decimal("0.000001")), "f")
    return {"initial": "uniform", "bound": bound}


def _all(given: object) -> list[object]:
    if isinstance(given, Mapping):
        return [part for one in given.values() for part in _all(one)]
    return [part for one in given for part in _all(one)] if isinstance(given, list | tuple) else [given]
