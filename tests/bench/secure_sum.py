"""The secure sum beside the plain numpy sum of the same vectors, on one core; and what the aggregator holds in memory.

CPU seconds of this process, pinned to one core, in pairs with the baseline: wall time on a shared machine says less.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aggregator.store import ReportStore
from aggregator.sums import SumShard
from crypto.backends.masks import apply_masks, blind
from crypto.backends.scheme import CHUNK_VALUES
from crypto.keys import Secret, SigningKey
from crypto.ring import Ring, Words
from crypto.rounds.manifest import Block, Manifest, Recipient, Terms
from crypto.rounds.messages import Contribution
from crypto.rounds.payload import digests as digests_of
from crypto.rounds.payload import frames
from crypto.rounds.report import EncryptedReport
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import sign
from tests.bench.figures import publish

SILOS, RUNS, SCALE_BITS = 10, 5, 16
PLAIN = f"plain numpy sum of {SILOS} vectors"
Work = Callable[[], object]


def main() -> None:
    """Print every figure; `--memory` is the child process that measures one of them."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for length, label in ((10**6, "1e6"), (10**7, "1e7")):
        masking(length, f"masking_u32_{label}_n{SILOS}")
    for bits in (32, 64):
        publish(f"masking_u{bits}_upload", [upload(bits, 10**6)], "B/value", aim=f"{bits // 8}.01")
    for silos in (10, 50):
        with get_context("spawn").Pool(1) as pool:
            peak = pool.apply(memory, (silos, 10**7))
        publish(f"masking_memory_n{silos}_1e7", [peak], "vectors", aim="3")


def masking(length: int, name: str) -> None:
    """Publish what a silo and a recipient do for one vector, each beside the plain sum of all of them."""
    ring, key = Ring(32), SigningKey(Secret.generate())
    seeds = [os.urandom(32) for _ in range(2 * SILOS)]
    values = np.frombuffer(os.urandom(length), np.int8).astype(np.float64) / 1000
    vectors = [np.frombuffer(os.urandom(4 * length), ring.dtype) for _ in range(SILOS)]
    payloads = [vector.data.cast("B") for vector in vectors]
    digests = [chunk_digests(payload) for payload in payloads]

    def quantised(block: npt.NDArray[np.float64]) -> Words:
        return np.rint(block * 2.0**SCALE_BITS).astype(np.int32).view(ring.dtype)

    def read(total: Words) -> npt.NDArray[np.float64]:
        decoded: npt.NDArray[np.float64] = np.multiply(ring.signed(total), 2.0**-SCALE_BITS, dtype=np.float64)
        return decoded

    def plain(count: int = SILOS) -> npt.NDArray[Any]:
        total = ring.zeros(length)
        for vector in vectors[:count]:
            np.add(total, vector, out=total)
        return total

    def protect() -> npt.NDArray[Any]:
        return blind(values, quantised, ring, seeds[:5], seeds[5:SILOS])

    def protect_signed() -> bytes:
        words = protect()
        chunks = chunk_digests(words.data.cast("B"))
        return sign(Contribution(manifest_hash=bytes(32), length=length, chunks=chunks), "silo", key)

    def sum_open() -> npt.NDArray[np.float64]:
        total = plain()
        apply_masks(total, ring, [], seeds[:SILOS])
        return read(total)

    def sum_open_one_dropped() -> npt.NDArray[np.float64]:
        total = plain(SILOS - 1)
        apply_masks(total, ring, seeds[:5], seeds[5 : 2 * (SILOS - 1)])
        return read(total)

    def sum_open_verified() -> npt.NDArray[np.float64]:
        if any(chunk_digests(payload) != known for payload, known in zip(payloads, digests, strict=True)):
            sys.exit("a chunk is not the one that was signed")
        return sum_open()

    # What is measured is right: masks that are put on and taken off leave the quantised values.
    blinded = protect()
    apply_masks(blinded, ring, seeds[5:SILOS], seeds[:5])
    if not np.allclose(read(blinded), values, atol=2.0 ** -(SCALE_BITS + 1)):
        sys.exit("the masks do not cancel")
    works: dict[str, tuple[Work, str]] = {
        "protect": (protect, "2.5"),
        "protect_signed": (protect_signed, "3.5"),
        "sum_open": (sum_open, "3.5"),
        "sum_open_one_dropped": (sum_open_one_dropped, "5"),
        "sum_open_verified": (sum_open_verified, "6"),
    }
    for figure, (work, aim) in works.items():
        taken, base = in_pairs(work, plain)
        publish(f"{name}_{figure}", taken, "ms", PLAIN, base, aim=f"ratio {aim}")


def chunk_digests(payload: memoryview, word_bytes: int = 4) -> tuple[bytes, ...]:
    """Return the digests that a silo signs."""
    step = CHUNK_VALUES * word_bytes
    return digests_of([payload[start : start + step] for start in range(0, len(payload), step)])


def in_pairs(work: Work, baseline: Work) -> tuple[list[float], list[float]]:
    """Return CPU milliseconds of both, measured in turn after a warm-up; short work is repeated within a run."""
    repeat = max(1, round(0.1 / max(1e-6, cpu_ms(baseline) / 1000)))
    pairs = [(cpu_ms(work, repeat), cpu_ms(baseline, repeat)) for _ in range(RUNS + 1)][1:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def cpu_ms(work: Work, repeat: int = 1) -> float:
    """Return the CPU milliseconds of one call."""
    began = time.process_time()
    for _ in range(repeat):
        work()
    return (time.process_time() - began) * 1000 / repeat


def upload(bits: int, length: int) -> float:
    """Return the bytes that a silo sends for one value: its signed header and its frames."""
    ring = Ring(bits)
    payload = ring.zeros(length).data.cast("B")
    header = Contribution(manifest_hash=bytes(32), length=length, chunks=chunk_digests(payload, ring.word_bytes))
    return (len(sign(header, "silo", SigningKey(Secret.generate()))) + len(payload)) / length


def memory(silos: int, length: int) -> float:
    """Return the peak memory of adding, storing and returning a sum over that at the start, in vectors of 4 bytes."""
    sizes = [4 * min(CHUNK_VALUES, length - start) for start in range(0, length, CHUNK_VALUES)]
    names = [f"silo{number:02}" for number in range(silos)]

    async def story(path: Path) -> None:
        shard, store = SumShard(path / "contributions"), ReportStore(path / "reports")
        shard.start(b"round", manifest(names, length), b"")
        for number, name in enumerate(names):  # one value over and over: neither the vector nor its frames are kept
            for pieces in frames(sizes):
                data = bytes([number]) * sum(sizes[piece] for piece in pieces)
                shard.stage(b"round", name, pieces.start, pieces.stop, data)
            shard.keep(b"round", name, number.to_bytes(32, "big"))
        digests = shard.close(b"round", tuple(number.to_bytes(32, "big") for number in range(silos)))
        first = (sum(number * 0x01010101 for number in range(silos)) % 2**32).to_bytes(4, "little")
        if shard.sum_chunk(b"round", 0)[:4] != first:
            sys.exit("the sum is wrong")
        fields: dict[str, Any] = dict.fromkeys(EncryptedReport.model_fields, ())
        fields |= {"propose": b"", "manifest": b"", "split": b"", "length": length, "chunks": digests}
        total = (shard.sum_chunk(b"round", index) for index in range(len(digests)))
        name_of_report = store.put(EncryptedReport(**fields), total, bytes(32), "ana")
        store.get(name_of_report)

    with tempfile.TemporaryDirectory() as directory:
        before = resident("VmRSS")
        asyncio.run(story(Path(directory)))
        return (resident("VmHWM") - before) / (4 * length)


def manifest(names: list[str], length: int, limit: int = 2**20) -> bytes:
    """Return a round of `masking`; with the usual limit, its values fit words of 4 bytes."""
    key, zeros = bytes(PUBLIC_BYTES), bytes(32)
    terms = Terms(
        request_hash=zeros,
        recipients=(Recipient(name="analyst", key=key),),
        backend="masking",
        asked=len(names),
        key_id=b"",
        limit=limit,
        blocks=(Block(name="weights", length=length, scale_bits=0, variance="0"),),
    )
    return Manifest(
        federation="bench",
        round_id=bytes(16),
        expires_at=0,
        terms=terms,
        silos=tuple(names),
        members=zeros,
        quorum=2 * len(names) // 3 + 1,
        degree=len(names) - 1,
        min_silos=3,
        max_colluding=1,
        max_missing=0,
    ).encode()


def resident(field: str) -> int:
    """Return a line of this process's memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
