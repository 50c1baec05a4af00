"""Whole rounds over long vectors: what they cost a silo, a recipient and the aggregator, in time, memory and bytes.

Real silos, aggregator and recipients in memory, without rows: vectors are given (`tests.harness.long_rounds`), so local
training is left out, and everything from the proposal to what a silo has learned is as it is. CPU time is that of the
steps of one silo; memory is the peak of a process of its own. A vector has 4 bytes a value, as in the ring of
32 bits. `python -m tests.bench.vectors NAME ...` measures the named ones of `FIGURES` alone.
"""

import asyncio
import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.shards import ShardedSums
from crypto.backends.masks import apply_masks
from crypto.ring import Ring
from crypto.rounds.manifest import Manifest
from crypto.rounds.payload import frames, piece_sizes, scheme_of
from tests.bench.figures import publish
from tests.bench.secure_sum import manifest, resident
from tests.harness.inside import computing_of
from tests.harness.long_rounds import LongFederation, Passed, Vector, long_federation
from tests.harness.raylets import two_raylets, used_s
from tests.harness.simulator import KilledError

SILOS, RUNS, MILLION = 4, 5, 10**6
LIMIT = 2**28  # of one silo's value: the sum of four fits the ring of 32 bits
FEW_BITS, FEW_SILOS = 8, 10
FEW_RING_BITS = 12  # the least ring that is exact for ten sums of 8 bits: 2 * 10 * 127 + 1 values


def main() -> None:
    """Publish every figure, or those named."""
    cores = os.sched_getaffinity(0)
    for name in sys.argv[1:] or FIGURES:
        os.sched_setaffinity(0, cores if name == "two_shards" else {min(cores)})
        FIGURES[name]()


def contribute_and_learn() -> None:
    """A silo's contribution beside masking its vector, and what it learns beside the plain sum of all vectors."""
    given = {name: vector(MILLION, number) for number, name in enumerate(names(SILOS))}
    words = [one.astype(np.uint32) for one in given.values()]
    contributed, learned, masked, added = list[float](), list[float](), list[float](), list[float]()
    with federation(SILOS, MILLION) as fed:
        opened, clock = fed.opened, fed.clock()[fed.names[1]]
        for _ in range(RUNS + 1):
            report = answered(fed, given)
            spent = clock.taken()
            contributed.append(1000 * (spent["contribute"] + spent.get("frame", 0.0)))
            masked.append(cpu_ms(partial(mask, given[fed.names[1]])))
            learned_by_all(fed, report)
            learned.append(1000 * sum(clock.taken().values()))
            added.append(cpu_ms(partial(plain, words)))
            if not np.array_equal(opened.pop(), sum(given.values())):
                sys.exit("the sum is wrong")
            opened.clear()
    publish("contribute_1e6_u32", contributed[1:], "ms", "masking the same vector", masked[1:], "ratio 3")
    publish("learn_1e6", learned[1:], "ms", f"plain numpy sum of {SILOS} vectors", added[1:], "ratio 4")


def received() -> None:
    """The bytes that a recipient receives of a million values, as the federation grows."""
    one = vector(MILLION)
    for silos in (4, 10, 40):
        with federation(silos, MILLION, 2**31 // (2 * silos)) as fed:
            passed = fed.count()[fed.names[1]]
            report = answered(fed, dict.fromkeys(fed.names, one // 8))
            passed.bytes.clear()
            learned_by_all(fed, report)
            publish(f"received_1e6_n{silos}", [incoming(passed) / (4 * MILLION)], "vectors", aim="2.1")


def ten_million() -> None:
    """Rounds of ten million values: that they end, what they cost a silo beside a million, and its memory."""
    one = vector(10 * MILLION)
    for silos in (4, 10):
        small, large = (costs(silos, one[:length]) for length in (MILLION, 10 * MILLION))
        base = "the same of 1e6 values"
        publish(
            f"silo_cpu_1e7_n{silos}",
            [1000 * cost for cost in large],
            "ms",
            base,
            [1000 * one for one in small],
            "ratio 12",
        )
        for what in ("contributing", "learning"):
            with get_context("spawn").Pool(1) as pool:
                peak = pool.apply(memory, (what, silos, 10 * MILLION))
            publish(f"silo_memory_{what}_1e7_n{silos}", [peak], "vectors", aim="3")


def sent() -> None:
    """The bytes that a silo sends of a million values of 8 bits."""
    most = 2 ** (FEW_BITS - 1) - 1
    one = np.random.default_rng(3).integers(-(most // 2), most // 2, MILLION, np.int64)
    with federation(FEW_SILOS, MILLION, most) as fed:
        passed = fed.count()[fed.names[1]]
        answered(fed, dict.fromkeys(fed.names, one))
        masked = passed.bytes["< contribute"] + passed.bytes["< frame"]
        whole = sum(size for step, size in passed.bytes.items() if step.startswith("<"))
    least = FEW_RING_BITS * MILLION // 8
    publish(f"sent_8bit_1e6_n{FEW_SILOS}", [masked], "B", aim=str(least + 4096))
    publish(f"sent_8bit_1e6_n{FEW_SILOS}_beside", [whole - masked], "B")


def two_shards() -> None:
    """The same sum by two shards and by one: each on a raylet of its own, between them and the silos this process."""
    with two_raylets() as (cluster, nodes), tempfile.TemporaryDirectory() as folder:
        of_one, of_two = (
            asyncio.run(sharded(Path(folder) / str(count), count, [[cluster.head_node], nodes])) for count in (1, 2)
        )
    for place, (what, unit) in enumerate((("wall", "s"), ("greatest_cpu", "s"))):
        taken, base = ([one[place] for one in found] for found in (of_two, of_one))
        publish(f"two_shards_1e7_{what}", taken, unit, "one shard", base, "ratio 0.67")


async def sharded(home: Path, count: int, machines: list[list[Any]]) -> list[tuple[float, float]]:
    """Return the seconds of some sums by so many shards, and of the processors of that which is busier."""
    from aggregator.ray_actors import RayShards

    silos, encoded = names(SILOS), manifest(names(SILOS), 10 * MILLION, LIMIT)
    sizes = piece_sizes(scheme_of(Manifest.decode(encoded), b""))
    sent = [os.urandom(sum(sizes[piece] for piece in pieces)) for pieces in frames(sizes)]
    sums, found = ShardedSums(RayShards(home, shards=count)), list[tuple[float, float]]()

    async def one(round_id: bytes, silo: str) -> None:
        for number, frame in enumerate(sent):
            await sums.stage(round_id, silo, number, frame)
        await sums.keep(round_id, silo, silo.encode().ljust(32) + round_id)

    for number in range(RUNS + 1):
        round_id = number.to_bytes(16, "big")
        await sums.start(round_id, encoded, b"")
        used, began = [sum(map(used_s, nodes)) for nodes in machines], time.perf_counter()
        await asyncio.gather(*(one(round_id, silo) for silo in silos))
        await sums.close(round_id, tuple(silos))
        wall = time.perf_counter() - began
        found.append((wall, max(sum(map(used_s, nodes)) - one for nodes, one in zip(machines, used, strict=True))))
        await sums.discard(round_id)
    return found[1:]


FIGURES: dict[str, Callable[[], None]] = {
    "contribute_and_learn": contribute_and_learn,
    "received": received,
    "ten_million": ten_million,
    "sent": sent,
    "two_shards": two_shards,
}


@contextmanager
def federation(silos: int, length: int, limit: int = LIMIT) -> Iterator[LongFederation]:
    with tempfile.TemporaryDirectory() as folder, long_federation(Path(folder) / "f", silos, length, limit) as fed:
        yield fed


def names(silos: int) -> list[str]:
    return [f"silo-{number:02}" for number in range(silos)]


def vector(length: int, seed: int = 0) -> Vector:
    """Return whole numbers within half of the limit, as a silo computes them."""
    return np.random.default_rng(seed).integers(-(LIMIT // 2), LIMIT // 2, length, np.int64)


def answered(fed: LongFederation, given: dict[str, Vector]) -> bytes:
    """Run a round; ends the program if there is no report."""
    answer = fed.ask(given.__getitem__)
    if not isinstance(answer, bytes):
        sys.exit(f"no report: {answer.message.reason}")
    return answer


def learned_by_all(fed: LongFederation, report: bytes) -> None:
    """Deliver a report; ends the program unless all silos learn it."""
    if len(fed.learn(report)) < len(fed.names):
        sys.exit("a silo has not learned the report; see its silo.log")


def mask(values: Vector) -> None:
    """Mask a vector as one of four silos: three pair masks and its own."""
    ring = Ring(32)
    words = values.astype(np.uint32)
    apply_masks(words, ring, SEEDS[:2], SEEDS[2:])


def plain(vectors: list[Vector]) -> None:
    """Add vectors of 32-bit words."""
    total = np.zeros(vectors[0].size, np.uint32)
    for one in vectors:
        np.add(total, one, out=total)


SEEDS = [bytes([number]) * 32 for number in range(SILOS)]


def cpu_ms(work: Callable[[], object], repeat: int = 5) -> float:
    """Return the CPU milliseconds of one call."""
    began = time.process_time()
    for _ in range(repeat):
        work()
    return (time.process_time() - began) * 1000 / repeat


def costs(silos: int, values: Vector) -> list[float]:
    """Return the CPU seconds of one silo in some rounds, from the proposal to what it learns."""
    with federation(silos, values.size, 2**31 // (2 * silos)) as fed:
        fed.count()
        clocks, found = fed.clock(), list[float]()
        given = dict.fromkeys(fed.names, values // 8)
        for _ in range(2 if values.size > MILLION else RUNS + 1):
            learned_by_all(fed, answered(fed, given))
            fed.opened.clear()
            found += [sum(spent.values()) for spent in (clocks[name].taken() for name in fed.names)]
    return found[silos:]  # the first round loads what the next ones have


def incoming(passed: Passed) -> int:
    return sum(size for step, size in passed.bytes.items() if step.startswith(">"))


def memory(what: str, silos: int, length: int) -> float:
    """Return by how much contributing, or learning, raises a silo's memory at most, in vectors; its input counts."""
    with federation(silos, length, 2**31 // (2 * silos)) as fed:
        fed.count()
        subject, found = fed.simulation.silos[fed.names[1]], list[float]()
        take, computing = subject.actor, computing_of(subject)

        def measured(step: str, arguments: tuple[bytes, ...]) -> None:
            if what == "contributing" and step == "contribute":
                computing.contribution = lambda *_: [vector(length) // 8]
                base = rest()
                take.contribute(*arguments)
                for index in range(1, -(-4 * length // (4 << 20)) + 2):  # one too many is refused
                    take.frame(arguments[0], index.to_bytes(8, "big"))
                found.append((resident("VmHWM") - base) / (4 * length))
                raise KilledError(step)
            if what == "learning" and step == "learn":
                base = rest() - sum(map(len, arguments))
                take.learn(*arguments)
                found.append((resident("VmHWM") - base) / (4 * length))

        subject.before = measured
        zeros = np.zeros(length, np.int64)  # of the others, in whose pages nothing is written
        answer = fed.ask(lambda _: zeros)
        if isinstance(answer, bytes):
            learned_by_all(fed, answer)
    return found[0]


def rest() -> int:
    """Give back what is free, let the peak begin anew, and return what this process holds."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


if __name__ == "__main__":
    main()
