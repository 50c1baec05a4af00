"""What a round of a network is computed from, and what comes of it, as bytes between two processes of one silo.

One value has all that the computation reads: the request, the rows, the state of the run, what the silo keeps for
itself, and the packed file. Promise: nothing is pickled; what is read back is what was written, to the last bit, and
the length of what comes back follows from the request alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from crypto.backends.sandbox import Parts
from crypto.errors import ProtocolError
from policies.domains import LongDomain, text_of, with_text
from policies.networks.packed import decoded, encoded
from policies.requests.network_steps import network_of, with_network
from policies.requests.request import Request, resolved
from silo_node.training.family import Examples, Own
from silo_node.training.grid import Integers
from silo_node.training.keeping import packed, unpacked
from silo_node.training.run import RunState, Vector

Vectors = Sequence[Integers]  # of each statistic of the request, exact, before noise
_LENGTH_BYTES = 8
_KINDS = "biuf"  # bools, whole numbers and floats: what an array of rows has


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What one contribution of a network is computed from."""

    request: Request
    examples: Examples
    state: RunState | None  # of the run, or of the model that is judged
    silo: str
    own: Own = field(default_factory=Own)  # what the silo kept for itself before
    keeps: Mapping[str, int] = field(default_factory=dict)  # what comes back of it to be kept, with its length
    graph: bytes = b""  # the packed file; empty of a family that is shipped


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What comes of it: the silo's blocks, and what it keeps for itself."""

    vectors: Vectors
    own: Mapping[str, Vector] = field(default_factory=dict)


def packed_bytes(request: Request) -> bytes:
    """Return the file of the packed network of a request; nothing where it needs none."""
    step = network_of(request)
    return b"" if step is None or step.graph is None else encoded(step.graph)


def written(work: Work) -> bytes:
    """Return the work as bytes, each part after its length."""
    domains = [one.domain for one in work.request.table.columns if isinstance(one.domain, LongDomain)]
    head = {"silo": work.silo, "keeps": dict(work.keeps), "has_state": work.state is not None, "texts": len(domains)}
    rows, arrays = _of_examples(work.examples)
    own = {name: np.asarray(values, np.float64) for name, values in work.own.vectors.items()}
    head |= {"own_run": work.own.run.hex(), "own_step": work.own.step}
    return _joined(
        json.dumps(head | {"rows": rows, "own": list(own)}).encode(),
        work.request.encode(),
        b"" if work.state is None else packed(work.state),
        work.graph,
        *(text_of(one.known) for one in domains),
        *(values.tobytes() for values in own.values()),
        *arrays,
    )


def read(data: bytes) -> Work:
    """Return what `written` wrote; raises CryptoError on anything else."""
    parts = _parted(data)
    head: dict[str, Any] = json.loads(bytes(parts[0]))
    request, texts = Request.decode(bytes(parts[1])), parts[4 : 4 + head["texts"]]
    long = [one.domain for one in request.table.columns if isinstance(one.domain, LongDomain)]
    found = {one.digest: with_text(one, bytes(text)) for one, text in zip(long, texts, strict=True)}
    start = 4 + len(texts)
    own = {name: np.frombuffer(part, np.float64) for name, part in zip(head["own"], parts[start:], strict=False)}
    graph = bytes(parts[3])
    return Work(
        request=with_network(resolved(request, found), decoded(graph) if graph else None),
        examples=_examples(head["rows"], parts[start + len(own) :]),
        state=unpacked(bytes(parts[2])) if head["has_state"] else None,
        silo=head["silo"],
        own=Own(bytes.fromhex(head["own_run"]), head["own_step"], own),
        keeps=head["keeps"],
        graph=graph,
    )


def reply_bytes(work: Work) -> int:
    """Return how long what comes of a work is: 8 bytes a number."""
    return 8 * (sum(_lengths(work.request)) + sum(work.keeps.values()))


def sent(work: Work, done: Done) -> Parts:
    """Return what came of a work as bytes; raises ProtocolError if it has other lengths than the request says."""
    if [vector.size for vector in done.vectors] != _lengths(work.request):
        raise ProtocolError("the computation has blocks of other lengths than its request")
    if {name: values.size for name, values in done.own.items()} != dict(work.keeps):
        raise ProtocolError("the computation keeps other vectors than its algorithm says")
    blocks = [np.ascontiguousarray(vector, "<i8").data.cast("B") for vector in done.vectors]
    kept = [np.ascontiguousarray(done.own[name], "<f8").data.cast("B") for name in sorted(work.keeps)]
    return Parts(reply_bytes(work), [*blocks, *kept])


def received(work: Work, reply: bytes) -> Done:
    """Return what `sent` sent, on the bytes themselves."""
    start, vectors, own = 0, list[Integers](), dict[str, Vector]()
    for length in _lengths(work.request):
        vectors.append(np.frombuffer(reply, "<i8", length, start))
        start += 8 * length
    for name in sorted(work.keeps):
        own[name] = np.frombuffer(reply, "<f8", work.keeps[name], start)
        start += 8 * work.keeps[name]
    return Done(vectors, own)


def _lengths(request: Request) -> list[int]:
    return [extent.length for extent in request.plan.statistics(request.table).values()]


def _of_examples(examples: Examples) -> tuple[dict[str, Any], list[bytes]]:
    """Return what `Examples` has, each field a number, an array or arrays by name, and the bytes of these arrays."""
    found, arrays = dict[str, Any](), list[bytes]()

    def shown(array: npt.NDArray[Any]) -> list[Any]:
        if array.dtype.kind not in _KINDS:
            raise ProtocolError(f"rows have bools and numbers, found an array of {array.dtype}")
        arrays.append(np.ascontiguousarray(array).tobytes())
        return [array.dtype.str, *array.shape]

    for one in fields(examples):
        value: Any = getattr(examples, one.name)
        if isinstance(value, Mapping):
            found[one.name] = {name: shown(array) for name, array in value.items()}
        else:
            found[one.name] = value if isinstance(value, int) else shown(value)
    return found, arrays


def _examples(found: Mapping[str, Any], parts: Sequence[memoryview]) -> Examples:
    left = iter(parts)

    def array(said: Sequence[Any]) -> npt.NDArray[Any]:
        return np.frombuffer(next(left), said[0]).reshape(said[1:])

    read: dict[str, Any] = {}
    for name, said in found.items():
        if isinstance(said, Mapping):
            read[name] = {key: array(one) for key, one in said.items()}
        else:
            read[name] = array(said) if isinstance(said, list) else said
    return Examples(**read)


def _joined(*parts: bytes) -> bytes:
    return b"".join(piece for part in parts for piece in (len(part).to_bytes(_LENGTH_BYTES, "big"), part))


def _parted(data: bytes) -> list[memoryview]:
    view, start, found = memoryview(data), 0, list[memoryview]()
    while start < len(view):
        end = start + _LENGTH_BYTES + int.from_bytes(view[start : start + _LENGTH_BYTES], "big")
        if end > len(view):
            raise ProtocolError(f"a part that ends at {end:,} of {len(view):,} bytes")
        found.append(view[start + _LENGTH_BYTES : end])
        start = end
    return found
