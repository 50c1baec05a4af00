"""Mutated graphs, and what becomes of each: refused, too dear to compute, or computed there and back. Nothing else.

An input is a sample with one to three of its parts changed: numbers, names, kinds of calls, whole calls. It depends on
the number of its batch only. While one is read and computed, an audit hook of Python notes whatever imports, compiles,
opens, connects, or starts: a graph must cause none of it. A hook stays for the life of its process.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from random import Random
from time import perf_counter
from typing import Any

import numpy as np

from crypto.errors import CryptoError
from crypto.wire import Message
from policies.networks.bounds import trained
from policies.networks.graph import CALLS, Graph
from policies.networks.packed import decoded, encoded, packed
from tests.networks.samples import WHOLE, samples

BATCH = 500
ROWS = 3
MAX_FLOPS, MAX_MEMORY = 2 * 10**7, 64 << 20  # of what is computed here
# What a graph must never cause. Python raises these for whatever runs in its process, in C as well.
FORBIDDEN = (
    *("compile", "exec", "import", "open", "marshal.", "pickle.", "code.__new__", "socket.", "subprocess."),
    *("ctypes.", "os.", "shutil.", "urllib.", "ftplib.", "glob.", "tempfile.", "webbrowser.", "winreg."),
)
_STRANGE: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 5, 8, 4096, 4097, 2**16, 2**31, 2**53, 10**12, 10**30, 1.5, True, False, None, [], {}, ""),
    *(
        "eval",
        "os.system",
        "__import__",
        "torch.load",
        "__reduce__",
        "../x",
        "x",
        WHOLE,
        "w",
        "y",
        "b",
        "0",
        "1",
        "-2.5",
    ),
    *(
        "0.5",
        "1e999",
        "NaN",
        "-0",
        "0.50",
        "9" * 400,
        "é",
        "\0",
        [1],
        [2, 2],
        [0, 1],
        [1, 1, 1],
        ["x"],
        {"call": "relu"},
    ),
)
_noted: list[str] = []
_is_noting = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch."""

    refused: int
    too_dear: int
    computed: int
    slowest_s: float
    problems: tuple[str, ...]


def readers() -> Iterator[tuple[str, Callable[[bytes], None], tuple[bytes, ...], type[Message] | None]]:
    """Yield the name of each decoder, what it does, examples of what it accepts, and the message that it reads."""
    known = samples()
    whole = [known[name] for name in ("positions", "conv2d", "lstm last", "attention True", "embedding")]
    yield "graph", _read_graph, tuple(one.encode() for one in whole), Graph
    files = [encoded(packed(one, {w.name: np.full(w.shape, 0.5, np.float32) for w in one.weights})) for one in whole]
    yield "packed-network", _read_packed, tuple(files), None


def _read_graph(data: bytes) -> None:
    assert Graph.decode(data).encode() == data


def _read_packed(data: bytes) -> None:
    network = decoded(data)
    assert encoded(network) == data
    assert all(np.isfinite(one).all() for one in network.weights.values())


def watch() -> None:
    """Begin to note, in this process and until it ends, what a graph must not cause."""
    import torch

    torch.set_num_threads(1)
    for graph in samples().values():
        compute(graph)  # torch reads some of its own files where it is used for the first time
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _is_noting and event.startswith(FORBIDDEN):
        _noted.append(f"{event} {arguments!r:.200}")


def noted_of(action: Callable[[], object]) -> list[str]:
    """Return what an action causes of what a graph must not; whether the hook notes anything at all."""
    global _is_noting
    _noted.clear()
    _is_noting = True
    try:
        with suppress(Exception):
            action()
    finally:
        _is_noting = False
    return list(_noted)


def run(batch: int) -> Outcome:
    """Read and compute a batch."""
    global _is_noting
    counts, slowest_s, problems = {"refused": 0, "too dear": 0, "computed": 0}, 0.0, []
    for at, data in enumerate(inputs(batch)):
        _noted.clear()
        before = perf_counter()
        _is_noting = True
        try:
            what = _tried(data)
        except Exception as err:
            what = "problem"
            problems.append(f"input {at} of batch {batch}: {type(err).__name__}: {err}: {data[:1000]!r}")
        finally:
            _is_noting = False
        slowest_s = max(slowest_s, perf_counter() - before)
        if what in counts:
            counts[what] += 1
        problems += [f"input {at} of batch {batch} caused {one}: {data[:1000]!r}" for one in _noted]
    return Outcome(counts["refused"], counts["too dear"], counts["computed"], slowest_s, tuple(problems[:5]))


def _tried(data: bytes) -> str:
    try:
        graph = Graph.decode(data)
    except CryptoError as err:
        if not err.message.isprintable():
            raise ValueError("a refusal that no line can show") from err
        return "refused"
    assert graph.encode() == data
    work = trained(graph, ROWS)
    if work.flops > MAX_FLOPS or work.memory > MAX_MEMORY:
        return "too dear"
    compute(graph)
    return "computed"


def compute(graph: Graph) -> None:
    """Compute a graph there and back; its result has the shape that it says, whatever the indices."""
    import torch

    from silo_node.training.networks.interpreter import computed

    weights = {one.name: torch.full(one.shape, 0.25, requires_grad=True) for one in graph.weights}
    given = {
        one.name: torch.full((ROWS, *one.shape), 0.5 if one.below is None else 2**40).to(
            torch.float32 if one.below is None else torch.int64
        )
        for one in graph.inputs
    }
    found = computed(graph, weights, given, is_training=True)
    assert found.shape == (ROWS, *graph.result.shape), graph
    if found.requires_grad:
        torch.autograd.grad(found.sum(), list(weights.values()), allow_unused=True)


def inputs(batch: int) -> Iterator[bytes]:
    """Yield the inputs of a batch: the same ones whenever it is asked for."""
    random = Random(f"graphs {batch}")  # noqa: S311
    known = _documents()
    for _ in range(BATCH):
        document = deepcopy(known[random.randrange(len(known))])
        for _ in range(random.choice((1, 1, 2, 3))):
            random.choice(_CHANGES)(document, random)
        yield json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


@cache
def _documents() -> list[dict[str, Any]]:
    return [json.loads(graph.encode()) for graph in samples().values()]


def _leaves(document: Any) -> list[tuple[Any, Any]]:
    """Return each value that has no parts, as what it is in and where."""
    found: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        one = pending.pop()
        places = list(one.items()) if isinstance(one, dict) else list(enumerate(one))
        for place, value in places:
            if isinstance(value, dict | list):
                pending.append(value)
            else:
                found.append((one, place))
    return found


def _strange(document: dict[str, Any], random: Random) -> None:
    if leaves := _leaves(document):
        inside, place = random.choice(leaves)
        inside[place] = deepcopy(random.choice(_STRANGE))


def _near(document: dict[str, Any], random: Random) -> None:
    """Change one number by one, double it, or make it large."""
    numbers = [(one, at) for one, at in _leaves(document) if type(one[at]) is int]
    if numbers:
        inside, place = random.choice(numbers)
        inside[place] = random.choice((inside[place] + 1, inside[place] - 1, inside[place] * 2, inside[place] * 1000))


def _everywhere(document: dict[str, Any], random: Random) -> None:
    """Put another value in the place of one, wherever it stands: shapes and names that fit go on to fit."""
    if leaves := _leaves(document):
        inside, place = random.choice(leaves)
        old = inside[place]
        new = random.randrange(1, 12) if type(old) is int else random.choice(("renamed", "a.b.c", *sorted(CALLS)))
        for one, at in leaves:
            if type(one[at]) is type(old) and one[at] == old:
                one[at] = new


def _kind(document: dict[str, Any], random: Random) -> None:
    """Change what a call says that it is."""
    calls = document.get("calls")
    if isinstance(calls, list) and calls and isinstance(calls[-1], dict):
        random.choice(calls)["call"] = random.choice(sorted(CALLS))


def _list(document: dict[str, Any], random: Random) -> None:
    """Take out, repeat, or move parts of a list."""
    lists = [one for one in document.values() if isinstance(one, list) and one]
    if lists:
        found = random.choice(lists)
        at = random.randrange(len(found))
        match random.randrange(3):
            case 0:
                found.pop(at)
            case 1:
                found.append(deepcopy(found[at]))
            case _:
                random.shuffle(found)


def _more(document: dict[str, Any], random: Random) -> None:
    """Go on from the output, with a call of another graph that reads one node."""
    other = random.choice(_documents())
    call = deepcopy(other["calls"][-1])
    call |= {"name": f"more{random.randrange(5)}", "of": document.get("output")}
    if isinstance(document.get("calls"), list) and isinstance(document.get("weights"), list):
        document["calls"].append(call)
        document["weights"] += deepcopy(other["weights"]) if random.random() < 0.5 else []
        document["output"] = call["name"]


_CHANGES: tuple[Callable[[dict[str, Any], Random], None], ...] = (_strange, _near, _everywhere, _kind, _list, _more)
