"""The rates of each step of a long round, from which docs/scale.md computes what saturates in a large federation.

CPU time of one core on vectors beyond its caches, but for the disk and the stream, whose wall time counts. The stream
is that of `tests.bench.federated`: frames of a reply between two processes over loopback, with mutual TLS. A rate is in
bytes of masked input, with 4 bytes a value, but for those of the sum and of a model's state, with 8 bytes a value.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from aggregator.sums import SumShard
from analyst.demo.hospitals import found_hospitals
from crypto.backends.masks import apply_masks
from crypto.keys import Secret, SigningKey
from crypto.ring import Ring
from crypto.rounds.opening import open_report
from crypto.rounds.payload import frames
from crypto.sealing import SealingKey
from policies.budget.ledger import KeptState
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore
from silo_node.training.keeping import kept, read_state
from tests.bench.federated import streams
from tests.bench.figures import publish
from tests.bench.secure_sum import chunk_digests, manifest
from tests.bench.vectors import answered, federation, learned_by_all, vector
from tests.harness.states import state_of_run

VALUES, SILOS, RUNS = 10**7, 4, 5
MASKED, WHOLE = 4 * VALUES, 8 * VALUES  # bytes of a masked input, and of a sum or a model's state
DISK_BYTES = 256 << 20


def main() -> None:
    """Publish every rate; the place of docs/scale.md names what each is of."""
    with tempfile.TemporaryDirectory() as folder:
        found_hospitals(Path(folder) / "demo")
        pulled = asyncio.run(streams(Path(folder)))[1]
    publish("rate_stream", pulled, "MB/s")
    publish("rate_disk", [written() for _ in range(RUNS)], "MB/s")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    words = np.frombuffer(os.urandom(MASKED), np.uint32).copy()
    seeds = [bytes([number]) * 32 for number in range(SILOS)]
    keystream = [spent(lambda: apply_masks(words, Ring(32), seeds, [])) / SILOS for _ in range(RUNS)]
    shown("keystream", MASKED, keystream)
    payload = words.data.cast("B")
    shown("digest", MASKED, [spent(lambda: chunk_digests(payload)) for _ in range(RUNS)])
    for step, seconds in shard_steps(payload).items():
        shown(step, MASKED, seconds)
    contributed, checked, opened = silo_steps()
    own = SILOS * statistics.median(keystream)
    shown("contribute", MASKED, [seconds - own for seconds in contributed])
    shown("check", WHOLE, checked)
    shown("open", WHOLE, [seconds - own for seconds in opened])
    for step, seconds in state_steps().items():
        shown(step, WHOLE, seconds)


def shown(step: str, size: int, seconds: list[float]) -> None:
    """Publish the rate of a step that took so long for each of these many bytes."""
    publish(f"rate_{step}", [size / one / 1e6 for one in seconds], "MB/s")


def spent(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def written() -> float:
    """Return the MB/s of a file that is written and synchronised."""
    block = os.urandom(4 << 20)
    with tempfile.NamedTemporaryFile() as file:
        began = time.perf_counter()
        for _ in range(DISK_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return DISK_BYTES / (time.perf_counter() - began) / 1e6


def shard_steps(payload: memoryview) -> dict[str, list[float]]:
    """Return the CPU seconds of a shard that stages, that keeps a whole masked input, and that adds them all."""
    names = [f"silo-{number:02}" for number in range(SILOS)]
    headers = tuple(place.to_bytes(32, "big") for place in range(SILOS))
    found: dict[str, list[float]] = {"stage": [], "add": []}
    sent = list(frames_of(payload))
    with tempfile.TemporaryDirectory() as folder:
        shard = SumShard(Path(folder))
        for number in range(RUNS):
            round_id = number.to_bytes(16, "big")
            shard.start(round_id, manifest(names, VALUES, 2**28), b"")
            for name, header in zip(names, headers, strict=True):
                parts = zip(cuts(), sent, strict=True)
                staged = sum(
                    spent(partial(shard.stage, round_id, name, pieces.start, pieces.stop, one)) for pieces, one in parts
                )
                found["stage"].append(staged + spent(partial(shard.keep, round_id, name, header)))
            found["add"].append(spent(partial(shard.close, round_id, headers)) / SILOS)
            shard.discard(round_id)
    return found


def cuts() -> list[range]:
    """Return the pieces of every frame."""
    return frames([min(1 << 18, MASKED - start) for start in range(0, MASKED, 1 << 18)])


def frames_of(payload: memoryview) -> Iterator[bytes]:
    """Yield what a silo sends of a masked input, frame by frame."""
    for pieces in cuts():
        yield bytes(payload[pieces.start << 18 : pieces.stop << 18])


def silo_steps() -> tuple[list[float], list[float], list[float]]:
    """Return the CPU seconds of a silo that contributes, that checks a sum and that opens it, in some rounds."""
    given, contributed, learned, opened = vector(VALUES) // 4, list[float](), list[float](), list[float]()

    def timed(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return open_report(*arguments)
        finally:
            opened.append(time.process_time() - began)

    with federation(SILOS, VALUES) as fed, patch("silo_node.rounds.learning.open_report", timed):
        fed.count()
        clock, place = fed.clock()[fed.names[1]], 1
        for _ in range(RUNS + 1):
            report = answered(fed, dict.fromkeys(fed.names, given))
            steps = clock.taken()
            contributed.append(sum(steps.get(step, 0.0) for step in ("contribute", "frame", "products")))
            learned_by_all(fed, report)
            learned.append(sum(clock.taken().values()))
            fed.opened.clear()
    own = opened[place::SILOS][1:]
    return contributed[1:], [whole - one for whole, one in zip(learned[1:], own, strict=True)], own


def state_steps() -> dict[str, list[float]]:
    """Return the CPU seconds of keeping and of reading a model's state: its numbers are a file."""
    name, key, found = "ward", SigningKey(Secret.generate()), dict[str, list[float]](save=[], load=[])
    state = state_of_run({"weights": np.random.default_rng(1).random(VALUES)})

    def load() -> None:
        read_state(state.run, ledger.load_run(state.run) or KeptState(b""), name, key.public)

    with tempfile.TemporaryDirectory() as folder:
        signer = Signer(name, "bench", key, SealingKey(Secret.generate()))
        ledger = LedgerStore(Path(folder) / "ledger.sqlite", signer, time.time)
        for _ in range(RUNS):
            found["save"].append(spent(lambda: ledger.save_run(state.run, kept(state, name, key))))
            found["load"].append(spent(load))
        ledger.close()
    return found


if __name__ == "__main__":
    main()
