"""One graph for each call, made by hand: what tests and fuzzing of graphs stand on."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from policies.networks.graph import Graph

Fields = Mapping[str, Any]
REAL = "x"  # the input of reals
WHOLE = "i"  # the input of whole numbers


def graph(inputs: Fields, weights: Fields, *calls: Fields, below: int = 10) -> Graph:
    """Return a graph of the calls: inputs and weights by their shapes; the input `i` has whole numbers."""
    return Graph.model_validate_json(_json(inputs, weights, calls, below))


def _json(inputs: Fields, weights: Fields, calls: Sequence[Fields], below: int) -> str:
    whole = {"below": below}
    return json.dumps(
        {
            "inputs": [
                {"name": name, "shape": shape} | (whole if name == WHOLE else {}) for name, shape in inputs.items()
            ],
            "weights": [
                {"name": name, "shape": shape, "initial": "uniform", "bound": "0.5"} for name, shape in weights.items()
            ],
            "calls": calls,
            "output": calls[-1]["name"],
        }
    )


def one(call: str, shape: Sequence[int], weights: Fields | None = None, /, **arguments: Any) -> Graph:
    """Return a graph of one call of the input of reals."""
    return graph({REAL: shape}, weights or {}, {"call": call, "name": "y", "of": REAL} | arguments)


def recurrent(call: str, gives: str, read: int, size: int, layers: int, directions: int, *, bias: bool = True) -> Graph:
    """Return a graph of one recurrent call over five places."""
    gates = {"lstm": 4, "gru": 3}[call] * size
    weights: dict[str, list[int]] = {}
    for at in range(layers * directions):
        width = read if at < directions else directions * size
        weights |= {f"r.ih{at}": [gates, width], f"r.hh{at}": [gates, size]}
        weights |= {f"r.bi{at}": [gates], f"r.bh{at}": [gates]} if bias else {}
    arguments = {"gives": gives, "size": size, "layers": layers, "is_bidirectional": directions == 2, "has_bias": bias}
    return one(call, [5, read], weights, parts=list(weights), **arguments)


def _window(axes: int, window: int | None = None, **more: int) -> Fields:
    found = {key: [value] * axes for key, value in more.items()}
    return found if window is None else {"window": [window] * axes} | found


def samples() -> dict[str, Graph]:
    """Return a graph for each call and each of its ways, by a name for it."""
    plain = ("relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "softplus")
    found = {name: one(name, [3, 4]) for name in plain}
    found |= {name: one(name, [3, 4], slope="0.1") for name in ("leaky_relu", "elu")}
    found["scale"] = one("scale", [3], times="-2.5", over="3", plus="0.125")
    found["linear"] = one("linear", [3, 4], {"w": [5, 4], "b": [5]}, weight="w", bias="b")
    found["embedding"] = graph(
        {WHOLE: [6]}, {"w": [7, 4]}, {"call": "embedding", "name": "y", "of": WHOLE, "weight": "w", "padding": 2}
    )
    for name in ("add", "sub", "mul"):
        found[f"{name} weight"] = one(name, [3, 4], {"w": [1, 3, 4]}, other=None, weight="w")
        halves = (
            {"call": "select", "name": "a", "of": REAL, "axis": 0, "at": 1},
            {"call": name, "name": "y", "of": REAL, "other": "a", "weight": None},
        )
        found[f"{name} nodes"] = graph({REAL: [3, 4]}, {}, *halves)
    for name in ("mean", "sum", "amax"):
        found[name] = one(name, [2, 3, 4], axes=[0, 2], keep=name == "sum")
    found["positions"] = graph(
        {REAL: [3, 4]},
        {"w": [5, 4]},
        {"call": "positions", "name": "p", "of": REAL, "weight": "w"},
        {"call": "add", "name": "y", "of": REAL, "other": "p", "weight": None},
    )
    found["matmul"] = graph(
        {REAL: [2, 3, 4], "z": [2, 4, 5]}, {}, {"call": "matmul", "name": "y", "of": REAL, "other": "z"}
    )
    strided, plain_window = _window(1, stride=2, padding=1, dilation=2), _window(2, stride=1, padding=1, dilation=1)
    halves_of = {"w": [6, 2, 3], "b": [6]}
    found["conv1d"] = one("conv1d", [4, 9], halves_of, weight="w", bias="b", groups=2, **strided)
    found["conv2d"] = one("conv2d", [2, 8, 7], {"w": [3, 2, 3, 3]}, weight="w", bias=None, groups=1, **plain_window)
    for axes, shape in ((1, [2, 9]), (2, [2, 9, 6])):
        for name in ("max", "avg"):
            found[f"{name}_pool{axes}d"] = one(f"{name}_pool{axes}d", shape, **_window(axes, 3, stride=2, padding=1))
    norm = {"weight": "w", "bias": "b", "eps": "0.00001"}
    found["layer_norm"] = one("layer_norm", [3, 4], {"w": [4], "b": [4]}, axes=1, **norm)
    found["group_norm"] = one("group_norm", [4, 3, 3], {"w": [4], "b": [4]}, groups=2, **norm)
    found |= {name: one(name, [3, 4], axis=1) for name in ("softmax", "log_softmax")}
    found["dropout"] = one("dropout", [30], share="0.5")
    found["flatten"] = one("flatten", [3, 4])
    found["reshape"] = one("reshape", [3, 4], shape=[2, 2, 3])
    found["permute"] = one("permute", [3, 4, 5], axes=[2, 0, 1])
    found["select"] = one("select", [3, 4], axis=1, at=3)
    found["slice"] = one("slice", [3, 4], axis=1, start=1, stop=3)
    found["cat"] = graph(
        {REAL: [3, 4], "z": [2, 4]}, {}, {"call": "cat", "name": "y", "of": REAL, "others": ["z", REAL], "axis": 0}
    )
    for name in ("lstm", "gru"):
        for gives in ("sequence", "last"):
            found[f"{name} {gives}"] = recurrent(name, gives, 4, 6, 1, 1)
            found[f"{name} {gives} both"] = recurrent(name, gives, 4, 6, 2, 2, bias=gives == "last")
    for is_causal in (False, True):
        found[f"attention {is_causal}"] = graph(
            {REAL: [2, 5, 4], "z": [2, 5, 4]},
            {},
            {"call": "attention", "name": "y", "of": REAL, "key": "z", "value": "z", "is_causal": is_causal}
            | {"drop": "0", "scale": "0.3" if is_causal else None},
        )
    return found
