"""What the encrypting and sharing backends cost: `python -m tests.bench.he`.

Ratios are to the plain numpy sum of the same ten vectors of whole numbers, measured in turn with what is compared. Both
run on one core, and times are processor time of this process (its children's, where workers do the work), which other
processes on the machine disturb least. Every result is checked before it is timed.
"""

import resource
import time
from collections.abc import Callable, Sequence

import numpy as np

from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import RoundKey, Scheme, Shape, Units
from crypto.backends.shares import open_column, seal_column
from crypto.keys import Secret, derive
from crypto.rounds.committees import quorum_of
from crypto.sealing import SealingKey
from tests.bench.figures import publish

SILOS = 10
RUNS = 5
LONG, MIDDLE, SHORT = 10**6, 10**5, 10**4
LIMITS = {"bfv": 2**37, "ckks": 2**34, "paillier": (2**38 - 1) // SILOS, "shares": 2**50}
PLAIN = f"plain numpy sum of {SILOS} vectors"
AIMS = {
    "bfv_1e6_n10_upload": "16.1",
    "bfv_1e6_n10_sum": "ratio 25",
    "ckks_1e6_n10_upload": "32.2",
    "ckks_1e6_n10_sum": "ratio 50",
    "paillier_3072_encrypt": "30",
    "shares_1e5_n10_total": "ratio 120",
}
Line = dict[str, object]


def main() -> None:
    for name in ("bfv", "ckks"):
        upload(name)
        encryption(name)
        addition(name)
    paillier_3072_encrypt()
    shares_1e5_n10_total()
    shares_1e5_n10_path()
    shares_1e5_n10_sealing()


def bfv_1e6_n10_upload() -> Line:
    return upload("bfv")


def ckks_1e6_n10_upload() -> Line:
    return upload("ckks")


def bfv_1e6_n10_sum() -> Line:
    return addition("bfv")


def ckks_1e6_n10_sum() -> Line:
    return addition("ckks")


def upload(name: str) -> Line:
    """Publish the bytes that a value costs, counted on chunks that were really made."""
    scheme, _ = prepared(name, LONG)
    size = sum(len(pieces[0]) for pieces in scheme.blind(vectors(scheme, 1)[0], *seeds(0)))
    return record(f"{name}_1e6_n10_upload", [size / LONG], "B/value")


def encryption(name: str) -> Line:
    """Publish the processor time, workers included, in which one silo masks and encrypts its vector."""
    scheme, _ = prepared(name, LONG)
    (vector,) = vectors(scheme, 1)
    times = []
    for _ in range(RUNS):
        began = time.process_time() + children_s()
        for _ in scheme.blind(vector, *seeds(0)):
            pass
        times.append((time.process_time() + children_s() - began) * 1000)
    return record(f"{name}_1e6_encrypt", times, "ms")


def addition(name: str) -> Line:
    """Publish the time in which the aggregator reads and adds ten contributions, digests excluded."""
    scheme, key = prepared(name, LONG)
    found = vectors(scheme, SILOS)
    contributions = [[pieces[0] for pieces in scheme.blind(one, *seeds(silo))] for silo, one in enumerate(found)]

    def add() -> list[bytes]:
        accumulator = scheme.accumulator(0)
        for contribution in contributions:
            for index, chunk in enumerate(contribution):
                accumulator.add(index, chunk)
        return accumulator.chunks()

    minus = [derive(bytes(32), "self", str(silo)) for silo in range(SILOS)]
    opened = scheme.open({0: add()}, [], minus, None if key is None else key.secret).units
    if opened.tolist() != plain_sum(found).tolist():
        raise AssertionError("the sum is wrong")
    return compared(f"{name}_1e6_n10_sum", add, lambda: plain_sum(found))


def paillier_3072_encrypt() -> Line:
    """Publish the time a value costs one silo, with its tables, its ten masks and packing, over 10,000 values."""
    scheme, _ = prepared("paillier", SHORT)
    (vector,) = vectors(scheme, 1)
    times = [timed(lambda: list(scheme.blind(vector, *seeds(0)))) * 1e6 / SHORT for _ in range(RUNS)]
    return record("paillier_3072_encrypt", times, "us/value")


def shares_1e5_n10_total() -> Line:
    """Publish the time in which ten silos deal, ten silos add what they were dealt, and a recipient reconstructs."""
    scheme, _ = prepared("shares", MIDDLE)
    found = vectors(scheme, SILOS)

    def total() -> Units:
        accumulators = [scheme.accumulator(column) for column in range(SILOS)]
        for vector in found:
            for index, pieces in enumerate(scheme.blind(vector, [], [])):
                for accumulator, piece in zip(accumulators, pieces, strict=True):
                    accumulator.add(index, piece)
        sums = {column: accumulator.chunks() for column, accumulator in enumerate(accumulators)}
        return scheme.open(sums, [], []).units

    if total().tolist() != plain_sum(found).tolist():
        raise AssertionError("the sum is wrong")
    return compared("shares_1e5_n10_total", total, lambda: plain_sum(found))


def shares_1e5_n10_path() -> Line:
    """Publish the same for those who wait for each other: one silo deals, one adds, the recipient reconstructs."""
    scheme, _ = prepared("shares", MIDDLE)
    found = vectors(scheme, SILOS)
    contributions = [list(scheme.blind(vector, [], [])) for vector in found]

    def added(column: int) -> list[bytes]:
        accumulator = scheme.accumulator(column)
        for contribution in contributions:
            for index, pieces in enumerate(contribution):
                accumulator.add(index, pieces[column])
        return accumulator.chunks()

    sums = {column: added(column) for column in range(SILOS)}

    def path() -> Units:
        list(scheme.blind(found[0], [], []))
        added(0)  # from seeds: the dearer kind of column
        return scheme.open(sums, [], []).units

    if path().tolist() != plain_sum(found).tolist():
        raise AssertionError("the sum is wrong")
    return compared("shares_1e5_n10_path", path, lambda: plain_sum(found))


def shares_1e5_n10_sealing() -> Line:
    """Publish what sealing adds to that at one silo: ten columns sealed, ten opened."""
    scheme, _ = prepared("shares", MIDDLE)
    dealt, info = list(scheme.blind(vectors(scheme, 1)[0], [], [])), derive(bytes(32), "info")
    columns = [[pieces[column] for pieces in dealt] for column in range(SILOS)]
    key = SealingKey(Secret.generate())

    def seal_and_open() -> None:
        for column, chunks in enumerate(columns):
            sealed = seal_column(key.public, chunks, info)
            if open_column(key, scheme, column, sealed, info) != chunks:
                raise AssertionError("a column did not open")

    return record("shares_1e5_n10_sealing", [timed(seal_and_open) * 1000 for _ in range(RUNS)], "ms")


def record(
    figure: str, values: Sequence[float], unit: str, baseline: str | None = None, base: Sequence[float] | None = None
) -> Line:
    """Publish a figure beside what it must not exceed."""
    return publish(figure, values, unit, baseline, base, AIMS.get(figure))


def prepared(name: str, length: int) -> tuple[Scheme, RoundKey | None]:
    key = BACKENDS[name].create_key() if BACKENDS[name].has_key else None
    shape = Shape(length, SILOS, quorum_of(SILOS), LIMITS[name])
    return BACKENDS[name].bind(shape, b"" if key is None else key.public), key


def vectors(scheme: Scheme, count: int) -> list[Units]:
    generator, shape = np.random.default_rng(1), scheme.shape
    return [generator.integers(-shape.limit, shape.limit + 1, shape.length) for _ in range(count)]


def seeds(silo: int) -> tuple[list[bytes], list[bytes]]:
    """Return a silo's self seed and the nine pair seeds that it adds or subtracts."""
    pairs = [(min(silo, other), max(silo, other)) for other in range(SILOS) if other != silo]
    plus = [derive(bytes(32), "self", str(silo))]
    plus += [derive(bytes(32), f"pair {first} {second}") for first, second in pairs if first == silo]
    return plus, [derive(bytes(32), f"pair {first} {second}") for first, second in pairs if second == silo]


def plain_sum(found: list[Units]) -> Units:
    total = np.zeros_like(found[0])
    for vector in found:
        np.add(total, vector, out=total)
    return total


def compared(figure: str, ours: Callable[[], object], plain: Callable[[], object]) -> Line:
    """Publish the median time of `ours` with its ratio to `plain`, which is measured before and after each run."""
    times, base = [], []
    for _ in range(RUNS):
        base.append(repeated(plain))
        times.append(timed(ours) * 1000)
        base.append(repeated(plain))
    return record(figure, times, "ms", PLAIN, base)


def repeated(action: Callable[[], object], times: int = 5) -> float:
    """Return milliseconds of one of several runs in a row, as one alone is too short to time."""

    def many() -> None:
        for _ in range(times):
            action()

    return timed(many) * 1000 / times


def timed(action: Callable[[], object]) -> float:
    """Return the processor time of this process, in seconds."""
    began = time.process_time()
    action()
    return time.process_time() - began


def children_s() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
