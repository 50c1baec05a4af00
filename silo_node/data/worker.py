"""The process that computes for a silo: `python -m silo_node.data.worker MEMORY CPU`, started by `silo_node.killable`.

It reads the silo's directory by itself, gets one request at a time over a pipe, and answers with whole numbers. It has
no key of the silo and does not touch the ledger: what the log names comes with each request. It may be killed at any
time: nothing is lost by that.
"""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crypto.backends.sandbox import Parts, serve
from policies.decision.compiled import compiled
from policies.decision.computing import limit_seconds
from policies.document.load import load
from policies.requests.network_steps import LOADED_AS as NETWORK
from policies.requests.request import Request, resolved
from silo_node.data.compute import (
    Computer,
    has_private_training,
    keeps_of,
    load_kind,
    to_load,
    trains_networks,
)
from silo_node.data.consent import decisions_of
from silo_node.data.figures import Computed, Vectors, sent_as
from silo_node.data.loading import LOADED, UNCONFINED, Loading
from silo_node.data.locations import connect
from silo_node.data.prepared.forgotten import forgotten_among
from silo_node.data.prepared.reader import prepared_reader
from silo_node.data.run_rows import KEPT_BYTES
from silo_node.data.sources import source_of
from silo_node.errors import NetworkError, SiloError, SourceError
from silo_node.graphs.kept import KeptNetworks
from silo_node.graphs.resolving import with_kept
from silo_node.ledger.events import KeptInForce
from silo_node.training.confined.apart import Apart, told
from silo_node.training.keeping import packed, unpacked
from silo_node.training.own import KeptOwn
from silo_node.training.own import packed as packed_own
from silo_node.training.own import unpacked as unpacked_own
from silo_node.training.run import RunState

SETUP, COMPUTE, PREPARE, JUDGE, REFRESH, LOAD, AHEAD = range(7)
ROWS_BYTES = 32  # of a digest of rows
KEPT_SHARE = 8  # of a worker's memory, that rows of runs may take: 1 in so many


class PrepareError(Exception):
    """Why a source cannot be prepared, with the hint for its owner: one text, as it leaves this process."""


class Worker:
    """A silo's sources, opened for computing."""

    def __init__(self, setup: dict[str, Any]) -> None:
        """`setup` names the policy file, its digest, and how many threads to use."""
        path = Path(setup["policy"])
        file = load(path)
        if file.digest.hex() != setup["digest"]:
            raise SiloError("the policy has changed since the silo started", "restart the silo")
        policy, home, connection = file.policy, path.parent, connect(setup["threads"], setup["memory_mb"])
        sources = {name: source_of(policy, name, home) for name in policy.sources}
        decisions = decisions_of(policy, home)
        self._kept: dict[str, KeptInForce] = {}
        reader = prepared_reader(policy, home, connection, sources, decisions, self.kept)
        self._policy, self._reader = policy, reader
        self._states: dict[bytes, RunState] = {}
        self._own: KeptOwn | None = None
        self._domains, self._graphs = compiled(policy).domains, KeptNetworks(home)
        self._apart = Apart(policy, setup["threads"]) if trains_networks(policy) else None
        self._is_confined = True  # where networks are computed
        self._loading = Loading(self._load)
        states_time = policy.compute is not None and policy.compute.states_time
        for kind in to_load(policy) if states_time or has_private_training(policy) else ():
            self._loading.begin(kind)
        if states_time:
            self._loading.wait()  # for seconds, which no stated time of a step has
        self._computer = Computer(
            policy,
            connection,
            sources,
            decisions,
            lambda run: self._states.get(run),
            reader,
            forgotten=partial(forgotten_among, policy, home, self.kept),
            kept_bytes=min(KEPT_BYTES, (setup["memory_mb"] << 20) // KEPT_SHARE),
            apart=self._apart,
            load_own=lambda request: self._own,
        )

    def _resolved(self, body: bytes) -> Request:
        """Return an encoded request with its domains, and with its packed network as that lies here now."""
        return with_kept(self._graphs, resolved(Request.decode(body), self._domains))

    def _load(self, kind: str) -> None:
        if kind == NETWORK and self._apart is not None:
            self._is_confined = self._apart.load()
        else:
            load_kind(kind)

    def kept(self) -> Mapping[str, KeptInForce]:
        """Return what the log says is in force, as it came with the request."""
        return self._kept

    def learn(self, payload: bytes) -> bytes:
        """Learn what the log names, which each payload begins with; return the rest of it."""
        kept, rest = read_kept(payload)
        self._kept = kept
        return rest

    def compute(self, payload: bytes) -> Parts:
        """Return the vectors of a request, one after another, as little-endian words of 4 or 8 bytes.

        What the silo keeps for itself of it follows, with the digest of the rows behind that.
        """
        now = int.from_bytes(payload[:8], "big")
        self._states, rest = read_states(payload[8:])
        self._own, body = read_own(rest)
        request = self._resolved(body)
        words = [extent.word_bytes for extent in request.plan.statistics(request.table).values()]
        try:
            found = self._computer.computed(request, now)
        except NetworkError as err:
            raise told(err) from err
        finally:
            self._own = None
        if not has_own(request, is_kept=found.rows is not None):
            return sent_as(found.vectors, words)
        return with_own(sent_as(found.vectors, words), found, keeps_of(request))

    def judge(self, payload: bytes) -> bytes:
        """Return which persons of a snapshot, named by its digest, are in for a request: a bit each."""
        if self._reader is None:
            raise SiloError("no source is prepared", 'write read = "prepared" into the policy')
        now, digest, request = int.from_bytes(payload[:8], "big"), payload[8:40], Request.decode(payload[40:])
        snapshot = self._reader.snapshot(request.table.name)
        if sha256(snapshot.manifest).digest() != digest:
            raise SiloError("the rows were prepared anew meanwhile", "ask again")
        is_in = self._reader.judged(
            snapshot, request.table.name, request.purpose, now, limit_seconds(self._policy, request)
        )
        return np.packbits(np.ones(len(snapshot.persons), np.bool_) if is_in is None else is_in).tobytes()

    def refresh(self, payload: bytes) -> bytes:
        """Do before a request what needs not be done again before the rows or the decisions change."""
        self._computer.refresh()
        return b""

    def load(self, payload: bytes) -> bytes:
        """Return how far the import of what a kind of computation needs is; it goes on beside other jobs."""
        state = self._loading.state(payload.decode())
        return bytes([state if state != LOADED or self._is_confined else UNCONFINED])

    def ahead(self, payload: bytes) -> bytes:
        """Read the rows of a run before its first round; what fails here, the round finds again."""
        now = int.from_bytes(payload[:8], "big")
        with suppress(Exception):
            self._states, body = read_states(payload[8:])
            self._computer.read_ahead(self._resolved(body), now)
        return b""

    def prepare(self, payload: bytes) -> bytes:
        """Make the store of a source as its files are now; return how many files were read, and its digest."""
        try:
            made = self._computer.prepare(payload.decode())
            return made.read.to_bytes(8, "big") + made.store.digest
        except SourceError as err:
            raise PrepareError(f"{err.message} ({err.hint})") from err


def write_states(states: Iterable[RunState]) -> bytes:
    """Return the states of runs as a job has them: their number, and each after its length."""
    bodies = [packed(state) for state in states]
    return bytes([len(bodies)]) + b"".join(len(body).to_bytes(8, "big") + body for body in bodies)


def read_states(payload: bytes) -> tuple[dict[bytes, RunState], bytes]:
    """Return what `write_states` wrote, by run, and the rest of a payload."""
    found, rest = dict[bytes, RunState](), payload[1:]
    for _ in range(payload[0]):
        end = 8 + int.from_bytes(rest[:8], "big")
        state, rest = unpacked(rest[8:end]), rest[end:]
        found[state.run] = state
    return found, rest


def write_own(own: KeptOwn | None) -> bytes:
    """Return what a silo keeps for itself as a job has it: after its length, which is 0 where there is nothing."""
    body = b"" if own is None else packed_own(own)
    return len(body).to_bytes(8, "big") + body


def read_own(payload: bytes) -> tuple[KeptOwn | None, bytes]:
    """Return what `write_own` wrote, and the rest of a payload."""
    end = 8 + int.from_bytes(payload[:8], "big")
    return (unpacked_own(payload[8:end]) if end > 8 else None), payload[end:]


def has_own(request: Request, *, is_kept: bool) -> bool:
    """Tell whether a reply says of what rows the things are that a silo keeps for itself."""
    return is_kept or bool(keeps_of(request))


def own_bytes(keeps: Mapping[str, int]) -> int:
    """Return how long that is what follows the vectors in such a reply."""
    return 8 * sum(keeps.values()) + ROWS_BYTES


def with_own(vectors: Parts, found: Computed, keeps: Mapping[str, int]) -> Parts:
    """Return a reply with what a silo keeps behind the vectors; raises SiloError if it has other lengths."""
    if {name: len(values) for name, values in found.own.items()} != dict(keeps):
        raise SiloError("what a silo keeps has other lengths than its request says", "tell the developers")
    kept = [np.ascontiguousarray(found.own[name], "<f8").data.cast("B") for name in sorted(keeps)]
    rows = memoryview((found.rows or b"").ljust(ROWS_BYTES, b"\0"))
    return Parts(vectors.length + own_bytes(keeps), chain(vectors.parts, kept, [rows]))


def own_from(reply: bytes, vectors: Vectors, keeps: Mapping[str, int]) -> Computed:
    """Return what `with_own` sent; `vectors` are those of the reply."""
    start, own = len(reply) - own_bytes(keeps), dict[str, npt.NDArray[np.float64]]()
    for name in sorted(keeps):
        own[name] = np.frombuffer(reply, "<f8", keeps[name], start)
        start += 8 * keeps[name]
    return Computed(vectors, own, reply[start:])


def write_kept(kept: Mapping[str, KeptInForce]) -> bytes:
    """Return what the log names, as every payload to a worker begins with it."""
    body = json.dumps([[one.name, one.digest.hex(), one.count] for one in kept.values()]).encode()
    return len(body).to_bytes(4, "big") + body


def read_kept(payload: bytes) -> tuple[dict[str, KeptInForce], bytes]:
    """Return what `write_kept` wrote, and the rest of a payload."""
    end = 4 + int.from_bytes(payload[:4], "big")
    listed = json.loads(payload[4:end])
    found = [KeptInForce(name=name, digest=bytes.fromhex(digest), count=count) for name, digest, count in listed]
    return {one.name: one for one in found}, payload[end:]


def main() -> None:
    """Answer jobs until the pipe closes."""
    memory_bytes = int(sys.argv[1])
    # Of private memory: a prepared source is mapped, and shared with every process that maps it.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    worker: Worker | None = None
    jobs: dict[int, Callable[[Worker, bytes], bytes | Parts]] = {
        COMPUTE: Worker.compute,
        PREPARE: Worker.prepare,
        JUDGE: Worker.judge,
        REFRESH: Worker.refresh,
        LOAD: Worker.load,
        AHEAD: Worker.ahead,
    }

    def handle(code: int, payload: bytes) -> bytes | Parts:
        nonlocal worker
        if code == SETUP:
            worker = Worker(json.loads(payload))
            return b""
        if worker is None:
            raise SiloError("the worker was not set up", "start it through silo_node.killable")
        return jobs[code](worker, worker.learn(payload))

    serve(handle)


def _end_with(parent: int) -> None:
    """End when the process that started this one has ended, though a computation is under way."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
