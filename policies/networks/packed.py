"""The file of a packed network: its graph, and the numbers of its weights.

    "CSN1" | length of graph.json (4, big-endian) | graph.json | weights.safetensors

The graph has the SHA-256 of the weights, so its own SHA-256 names both: whoever holds the graph alone can check the
name, and whoever fetches the weights, the weights. Promise: there is one file for each network. Nothing stands before,
between or behind the two parts; both have one encoding; no weight is missing, too much, of another shape, NaN or
infinite. Nothing is computed, imported or unpickled: neither torch nor sympy is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from crypto.errors import WireError
from policies.networks.graph import MAX_NUMBERS, MAX_WEIGHTS, Graph
from policies.networks.values import FLOAT_BYTES

Numbers = npt.NDArray[np.float32]
MAGIC = b"CSN1"
_LENGTH = 4
_HEADER_LENGTH = 8  # of a safetensors file
_MAX_HEADER_BYTES = MAX_WEIGHTS * 400
MAX_BYTES = len(MAGIC) + _LENGTH + Graph.MAX_BYTES + _HEADER_LENGTH + _MAX_HEADER_BYTES + FLOAT_BYTES * MAX_NUMBERS
_AGAIN = "pack the network again with `consilo model pack`"
_MISSING = "safetensors is not installed"
_INSTALL = "install consilo[train]"


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A network and the numbers of its weights, each by its name, of its shape."""

    graph: Graph
    weights: Mapping[str, Numbers] = field(repr=False)

    @property
    def name(self) -> str:
        """What a job and an approval call it: `sha256:` and 64 digits in hex, of the graph and its weights."""
        return self.graph.digest


def packed(graph: Graph, weights: Mapping[str, Numbers]) -> Packed:
    """Return a network with these weights; raises WireError if they are not those of the graph."""
    _check(graph, weights)
    return Packed(graph.model_copy(update={"packed": sha256(_weights_file(weights)).digest()}), weights)


def encoded(network: Packed) -> bytes:
    """Return the file of a network."""
    graph = network.graph.encode()
    return MAGIC + len(graph).to_bytes(_LENGTH, "big") + graph + _weights_file(network.weights)


def decoded(data: bytes) -> Packed:
    """Return the network of a file; raises WireError, which names what is wrong."""
    if len(data) > MAX_BYTES:
        raise WireError(f"a packed network of {len(data):,} bytes, at most {MAX_BYTES:,} are read", _AGAIN)
    start = len(MAGIC) + _LENGTH
    length = int.from_bytes(data[len(MAGIC) : start], "big")
    if not data.startswith(MAGIC) or length > len(data) - start:
        raise WireError("not a packed network: it does not begin like one, or is cut short", _AGAIN)
    graph, file = Graph.decode(data[start : start + length]), data[start + length :]
    return Packed(graph, weights_of(graph, file))


def weights_of(graph: Graph, file: bytes) -> Mapping[str, Numbers]:
    """Return the weights of a safetensors file; raises WireError unless they are those that the graph names."""
    if graph.packed is None:
        raise WireError("not a packed network: its graph names no weights, packed is left out", _AGAIN)
    if sha256(file).digest() != graph.packed:
        raise WireError("the weights are not those of the graph: their SHA-256 is another one than packed", _AGAIN)
    weights = _read(file)
    _check(graph, weights)
    if _weights_file(weights) != file:
        raise WireError("the weights are not in their one encoding", _AGAIN)
    return weights


def _read(file: bytes) -> Mapping[str, Numbers]:
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as err:
        raise WireError(_MISSING, _INSTALL) from err
    if int.from_bytes(file[:_HEADER_LENGTH], "little") > _MAX_HEADER_BYTES:
        raise WireError(f"the weights have a header of more than {_MAX_HEADER_BYTES:,} bytes", _AGAIN)
    try:
        found = deserialize(file)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as err:  # a ValueError of a header that is not UTF-8
        raise WireError(f"the weights are no safetensors file: {_printable(str(err))}", _AGAIN) from None
    weights = {}
    for name, one in found:
        if one["dtype"] != "F32":
            raise WireError(f"the weight {_printable(name)} is of {_printable(one['dtype'])}, expected F32", _AGAIN)
        weights[name] = np.frombuffer(bytes(one["data"]), "<f4").reshape(one["shape"]).astype(np.float32, copy=False)
    return weights


def _check(graph: Graph, weights: Mapping[str, Numbers]) -> None:
    expected = {one.name: one for one in graph.weights}
    if missing := sorted(expected.keys() - weights.keys()):
        raise WireError(f"the weight {missing[0]} is missing from the weights", _AGAIN)
    if more := sorted(weights.keys() - expected.keys()):
        raise WireError(f"the weight {_printable(more[0])} is none of the graph's", _AGAIN)
    for name, one in expected.items():
        found = weights[name]
        if found.shape != one.shape:
            raise WireError(f"the weight {name} has the shape {list(found.shape)}, expected {list(one.shape)}", _AGAIN)
        if not np.isfinite(found).all():
            remedy = "train it anew: these weights predict nothing"
            raise WireError(f"the weight {name} has a number that is NaN or infinite", remedy)


def _weights_file(weights: Mapping[str, Numbers]) -> bytes:
    try:
        from safetensors.numpy import save
    except ImportError as err:
        raise WireError(_MISSING, _INSTALL) from err
    return save({name: np.ascontiguousarray(one, np.float32) for name, one in weights.items()})


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
