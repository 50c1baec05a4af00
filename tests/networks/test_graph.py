"""Graphs that cannot stand, each refused in one line that names the node and the key; and what graphs take at most."""

import json
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save

from crypto.errors import WireError
from policies.networks.bounds import by_row, dearest, forward, largest, trained
from policies.networks.graph import MAX_FLOPS, Graph
from policies.networks.packed import MAGIC, MAX_BYTES, Numbers, Packed, decoded, encoded, packed
from policies.networks.words import described
from tests.cases import every
from tests.networks.samples import graph, one, samples

Fields = dict[str, Any]


def fields() -> Fields:
    """Return a graph of two layers, as JSON has it."""
    found: Fields = json.loads(two_layers().encode())
    return found


def two_layers() -> Graph:
    return graph(
        {"x": [4]},
        {"first.weight": [3, 4], "first.bias": [3], "second.weight": [2, 3]},
        {"call": "linear", "name": "first", "of": "x", "weight": "first.weight", "bias": "first.bias"},
        {"call": "relu", "name": "bent", "of": "first"},
        {"call": "linear", "name": "second", "of": "bent", "weight": "second.weight", "bias": None},
    )


def numbers(of: Graph) -> dict[str, Numbers]:
    rng = np.random.default_rng(1)
    return {each.name: rng.standard_normal(each.shape).astype(np.float32) for each in of.weights}


def refusal(changed: Mapping[str, Any]) -> str:
    """Return why a graph is refused, in one line with a remedy."""
    with pytest.raises(WireError) as caught:
        Graph.decode(json.dumps(changed, separators=(",", ":")).encode())
    assert caught.value.hint == "pack the network again with `consilo model pack`"
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 600
    return caught.value.message


def changed(part: str, at: int, **values: Any) -> Fields:
    found = fields()
    found[part][at] |= values
    return found


def test_a_graph_says_what_it_is() -> None:
    found = two_layers()
    assert found.count == 12 + 3 + 6
    assert found.result.shape == (2,)
    assert found.digest.startswith("sha256:")
    assert len(found.digest) == 7 + 64
    assert [one.name for one in found.trained] == ["first.weight", "first.bias", "second.weight"]
    assert described(found)[-3:] == [
        "it gives 2 a row, by second",
        "21 numbers in 3 weights are trained",
        described(found)[-1],
    ]


@every(
    ("broken", "message"),
    [
        (changed("calls", 1, call="eval"), "call bent: its call is not listed; expected one of add, amax, attention,"),
        (changed("calls", 1, of="second"), "bent reads second, which is no input or call before it"),  # a circle
        (changed("calls", 1, of="first.weight"), "bent reads first.weight, which is no input or call before it"),
        (changed("calls", 0, weight="x"), "first reads x, which is no weight before it"),
        (changed("calls", 0, weight="other"), "first reads other, which is no weight before it"),
        (changed("calls", 0, weight="first.bias"), "first (linear): the weight first.bias has 1 axes, expected 2"),
        (changed("inputs", 0, shape=[5]), "first (linear): x of [5] does not fit first.weight of [3, 4]"),
        (changed("calls", 0, bias=None), "nothing reads first.bias; leave it out"),
        (changed("calls", 2, name="bent"), "bent is named twice"),
        (changed("calls", 0, name="x"), "x is named twice"),
        (changed("calls", 2, of="first"), "nothing reads bent; leave it out"),
        (changed("calls", 2, bias="first.bias"), "the weight first.bias has the shape [3], expected [2]"),
        (changed("calls", 0, more=1), "call first: linear.more: Extra inputs are not permitted"),
        (changed("calls", 0, name="a b"), "call a b: linear.name: String should match pattern"),
        (changed("inputs", 0, shape=[0]), "input x: shape.0: Input should be greater than or equal to 1"),
        (changed("inputs", 0, shape=[1.5]), "input x: shape.0: Input should be a valid integer"),
        (changed("inputs", 0, shape=["4"]), "input x: shape.0: Input should be a valid integer"),
        (changed("inputs", 0, below=3), "first (linear): x has whole numbers, which an embedding alone takes"),
        (changed("inputs", 0, below=2**25), "input x: below: Input should be less than or equal to 16777216"),
        (changed("weights", 0, bound=None), "weight first.weight: uniform numbers have a bound"),
        (changed("weights", 0, bound="1e9"), "weight first.weight: bound: String should match pattern"),
        (changed("weights", 0, initial="constant", bound=None), "constants are numbers of a packed file"),
        (changed("weights", 0, shape=[31_250, 32_000]), "1,000,000,009 numbers, most of them first.weight"),
        (fields() | {"output": "bent"}, "nothing reads second; leave it out"),
        (fields() | {"output": "x"}, "nothing reads second"),
        (fields() | {"calls": []}, "calls: Tuple should have at least 1 item"),
        (fields() | {"version": "graph/2"}, "version: Input should be 'graph/1'"),
        (fields() | {"__reduce__": "os.system"}, "__reduce__: Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_stand_is_refused_by_node_and_key(broken: Fields, message: str) -> None:
    assert message in refusal(broken)


def written(call: str, shape: list[int], weights: Mapping[str, list[int]] | None = None, /, **arguments: Any) -> Fields:
    """Return one call as JSON has it, unchecked."""
    return {
        "version": "graph/1",
        "inputs": [{"name": "x", "shape": shape}],
        "weights": [{"name": n, "shape": s, "initial": "zeros", "bound": None} for n, s in (weights or {}).items()],
        "calls": [{"call": call, "name": "y", "of": "x"} | arguments],
        "output": "y",
    }


CONV = {"weight": "w", "bias": None, "groups": 1, "stride": [1, 1], "dilation": [1, 1]}


@every(
    ("broken", "message"),
    [
        # Few weights, and 10^11 operations a row.
        (
            written("conv2d", [64, 63, 63], {"w": [64, 64, 63, 63]}, **CONV, padding=[31, 31]),
            "y (conv2d): a row takes 129,048,510,528 operations, most of them there",
        ),
        (written("conv2d", [1, 8, 8], {"w": [1, 1, 1, 1]}, **CONV, padding=[4 * 10**12] * 2), "y: conv2d.padding.0"),
        (
            written("conv2d", [64, 8, 8], {"w": [64, 64, 1, 1]}, **CONV, padding=[4096, 4096]),
            "y (conv2d): a tensor of 4,303,360,000 elements a row",
        ),
        (written("conv2d", [1, 8, 8], {"w": [1, 1, 9, 9]}, **CONV, padding=[0, 0]), "a window of 9 in 8 places"),
        (written("conv2d", [3, 8, 8], {"w": [4, 2, 3, 3]}, **CONV, padding=[0, 0]), "does not fit w of [4, 2, 3, 3]"),
        (written("group_norm", [3, 4], groups=2, eps="0.1", weight=None, bias=None), "groups 2 do not divide the 3"),
        (written("group_norm", [4], groups=4, eps="0.1", weight=None, bias=None), "which has no variance"),
        (written("layer_norm", [3, 4], axes=3, eps="0.1", weight=None, bias=None), "axis 2 of a row of the shape"),
        (written("layer_norm", [3, 4], axes=1, eps="1e-5", weight=None, bias=None), "call y: layer_norm.eps"),
        (written("softmax", [3], axis=1), "axis 1 of a row of the shape [3]"),
        (written("dropout", [3], share="1"), "call y: dropout.share"),
        (written("dropout", [3], share="0.50"), "call y: dropout.share"),  # one spelling alone
        (written("scale", [3], times="1", over="0", plus="0"), "over 0, and nothing is divided by 0"),
        (written("scale", [3], times="NaN", over="1", plus="0"), "call y: scale.times"),
        (written("scale", [3], times="-0", over="1", plus="0"), "call y: scale.times"),
        (written("reshape", [3, 4], shape=[5, 2]), "shape [5, 2] does not hold the 12 numbers of x"),
        (written("permute", [3, 4], axes=[0, 0]), "expected each of the 2 axes of x once"),
        (written("select", [3], axis=0, at=3), "at 3 of axis 0, which has 3 places from 0"),
        (written("slice", [3], axis=0, start=2, stop=2), "start 2 to stop 2 of axis 0 of 3 places"),
        (written("mean", [3, 4], axes=[1, 0], keep=True), "axes [1, 0], expected each once and in order"),
        (written("max_pool1d", [3, 4], window=[2], stride=[1], padding=[2]), "padding 2 is more than half of a window"),
        (written("add", [3], other=None, weight=None), "add takes a node as other or a weight, and not both"),
        (written("add", [3], {"w": [2]}, other=None, weight="w"), "shapes [3] and [2] do not fit each other"),
        (written("add", [3], {"w": [2, 3]}, other=None, weight="w"), "has an axis that a row of [3] lacks"),
        (written("matmul", [3, 4], other="x"), "x of [3, 4] and x of [3, 4] have no product"),
        (
            written("embedding", [3], {"w": [5, 2]}, weight="w", padding=None),
            "x has reals, and an embedding takes whole numbers",
        ),
        (
            written("lstm", [5, 4], {"a": [8, 4], "b": [8, 2]}, gives="last", size=2, layers=2, is_bidirectional=False)
            | {},
            "call y: lstm.has_bias: Field required",
        ),
        (
            written("attention", [5, 4], key="x", value="x", is_causal=True, drop="0", scale="x"),
            "call y: attention.scale",
        ),
    ],
)  # fmt: skip
def test_a_call_that_does_not_fit_is_refused_by_node_and_key(broken: Fields, message: str) -> None:
    assert message in refusal(broken)


def test_fifty_cats_are_refused_at_the_one_that_is_too_much() -> None:
    found = written("cat", [4], others=["x"], axis=0)
    for at in range(1, 50):
        before = found["calls"][-1]["name"]
        found["calls"].append({"call": "cat", "name": f"y{at}", "of": before, "others": [before], "axis": 0})
    found["output"] = found["calls"][-1]["name"]
    assert "y30 (cat): a tensor of 8,589,934,592 elements a row" in refusal(found)


def test_the_encoding_of_a_graph_stays_as_it_is() -> None:
    """A network is named by its encoding: whatever changes one takes every approval and job of it away."""
    found = sha256(b"\n".join(graph.encode() for _, graph in sorted(samples().items()))).hexdigest()
    assert found == "c4da335396da3ec6eb08773caaff019f14b0840fddd928378baf5daeb7d6f629"


def test_nothing_is_read_beyond_its_bounds() -> None:
    long = fields() | {
        "calls": [{"call": "relu", "name": f"c{at}", "of": "x"} for at in range(4001)],
        "output": "c4000",
    }
    assert "calls: Tuple should have at most 4000 items" in refusal(long)
    with pytest.raises(WireError, match="at most"):
        Graph.decode(b" " * (Graph.MAX_BYTES + 1))
    with pytest.raises(WireError, match="one encoding"):
        Graph.decode(json.dumps(fields()).encode())


def test_bounds_grow_with_rows_and_name_the_call_that_takes_most() -> None:
    found = samples()["conv2d"]
    for bound in (forward, trained):
        assert bound(found, 200).flops > 150 * bound(found, 1).flops
        assert bound(found, 200).memory > bound(found, 1).memory
    assert forward(found, 8).flops < trained(found, 8).flops < by_row(found, 8, 8).flops
    assert by_row(found, 64, 8).memory < by_row(found, 64, 64).memory
    assert by_row(found, 8, 64) == by_row(found, 8, 8)
    assert (dearest(convolution()), largest(convolution())) == ("wide (conv2d)", "joined (cat)")


def convolution() -> Graph:
    """Return a graph whose dearest call and whose largest one are two."""
    plain = {"weight": "w", "bias": None, "groups": 1, "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1]}
    return graph(
        {"x": [1, 9, 9]},
        {"w": [40, 1, 9, 9]},
        {"call": "conv2d", "name": "wide", "of": "x"} | plain,
        {"call": "flatten", "name": "flat", "of": "x"},
        {"call": "cat", "name": "joined", "of": "flat", "others": ["flat"] * 20, "axis": 0},
        {"call": "mean", "name": "one", "of": "joined", "axes": [0], "keep": True},
        {"call": "flatten", "name": "four", "of": "wide"},
        {"call": "add", "name": "y", "of": "four", "other": "one", "weight": None},
    )


def test_a_graph_of_many_calls_is_checked_in_little_time() -> None:
    calls = [{"call": "relu", "name": f"c{at}", "of": f"c{at - 1}" if at else "x"} for at in range(4000)]
    found = written("relu", [10]) | {"calls": calls, "output": "c3999"}
    assert Graph.decode(json.dumps(found, separators=(",", ":")).encode()).cost.flops == 40_000 < MAX_FLOPS


def file() -> bytes:
    found = two_layers()
    return encoded(packed(found, numbers(found)))


def test_a_packed_file_is_read_as_it_was_written() -> None:
    network = decoded(file())
    assert encoded(network) == file()
    assert network.name == network.graph.digest != two_layers().digest
    for name, value in numbers(two_layers()).items():
        assert np.array_equal(network.weights[name], value)


def repacked(weights: Mapping[str, npt.NDArray[Any]], of: Graph | None = None) -> bytes:
    """Return a file whose weights are not checked."""
    raw = save(dict(weights))
    shown = (of or two_layers()).model_copy(update={"packed": sha256(raw).digest()}).encode()
    return MAGIC + len(shown).to_bytes(4, "big") + shown + raw


def without(name: str) -> dict[str, Numbers]:
    return {key: value for key, value in numbers(two_layers()).items() if key != name}


@every(
    ("data", "message"),
    [
        (b"", "does not begin like one"),
        (file()[:-1], "the weights are not those of the graph"),
        (file() + b"\0", "the weights are not those of the graph"),
        (b"PK" + file(), "does not begin like one"),
        (MAGIC + b"\xff\xff\xff\xff" + file()[8:], "cut short"),
        (repacked(without("first.bias")), "the weight first.bias is missing from the weights"),
        (repacked(numbers(two_layers()) | {"more": np.ones(2, np.float32)}), "the weight more is none of the graph's"),
        (repacked(numbers(two_layers()) | {"first.bias": np.ones(4, np.float32)}), "has the shape [4], expected [3]"),
        (repacked(numbers(two_layers()) | {"first.bias": np.full(3, np.nan, np.float32)}), "NaN or infinite"),
        (repacked(numbers(two_layers()) | {"first.bias": np.full(3, np.inf, np.float32)}), "NaN or infinite"),
        (repacked({**numbers(two_layers()), "first.bias": np.ones(3)}), "first.bias is of F64, expected F32"),
        (MAGIC + len(two_layers().encode()).to_bytes(4, "big") + two_layers().encode(), "packed is left out"),
    ],
)  # fmt: skip
def test_a_packed_file_that_is_not_whole_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(WireError) as caught:
        decoded(data)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_weights_in_another_order_are_another_file_and_refused() -> None:
    whole = file()
    length = int.from_bytes(whole[4:8], "big")
    raw = whole[8 + length :]
    header = int.from_bytes(raw[:8], "little")
    text = json.loads(raw[8 : 8 + header])
    shuffled = json.dumps(dict(reversed(text.items())), separators=(",", ":")).encode()
    other = (len(shuffled)).to_bytes(8, "little") + shuffled + raw[8 + header :]
    shown = two_layers().model_copy(update={"packed": sha256(other).digest()}).encode()
    with pytest.raises(WireError, match="one encoding"):
        decoded(MAGIC + len(shown).to_bytes(4, "big") + shown + other)


def test_a_file_is_read_up_to_a_bound() -> None:
    with pytest.raises(WireError, match="at most"):
        decoded(bytes(MAX_BYTES + 1))
    huge = (2**40).to_bytes(8, "little") + b"{}"
    shown = two_layers().model_copy(update={"packed": sha256(huge).digest()}).encode()
    with pytest.raises(WireError, match="a header of more than"):
        decoded(MAGIC + len(shown).to_bytes(4, "big") + shown + huge)


def test_weights_that_are_not_of_the_graph_are_not_packed() -> None:
    with pytest.raises(WireError, match=r"first\.bias is missing"):
        packed(two_layers(), without("first.bias"))
    assert isinstance(packed(two_layers(), numbers(two_layers())), Packed)
    assert one("relu", [3]).count == 0


@pytest.mark.process
def test_reading_a_packed_network_loads_neither_torch_nor_sympy(tmp_path: Any) -> None:
    (tmp_path / "net.consilo").write_bytes(file())
    program = (
        "import sys; from pathlib import Path; from policies.networks.packed import decoded;"
        "from policies.networks.words import described; found = decoded(Path(sys.argv[1]).read_bytes());"
        "print(found.name, len(described(found.graph))); print({'torch', 'sympy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "net.consilo")]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[0].startswith(decoded(file()).name)
    assert found.stdout.splitlines()[1] == "set()"
