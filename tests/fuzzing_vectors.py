"""Broken input for what reads long vectors: chunks of a sum that is not reduced, and a state with its numbers."""

from collections.abc import Callable, Iterator

import numpy as np

from crypto.backends.scheme import Shape
from crypto.backends.unreduced import Unreduced, UnreducedSum
from crypto.ring import Ring
from silo_node.training.keeping import packed, unpacked
from tests.harness.states import state_of_run

Read = Callable[[bytes], None]
LENGTH, SILOS = 6, 5
# By name: the bits of the ring; an entry has 4 bytes up to 29 bits, and 5 above, and a value of 64 bits has two.
UNREDUCED = {"Unreduced-24": 24, "Unreduced-32": 32, "Unreduced-64": 64}


def readers() -> Iterator[tuple[str, Read, tuple[bytes, ...]]]:
    """Yield the name of each decoder, what it does, and examples of what it accepts."""
    for name, bits in UNREDUCED.items():
        how = Unreduced(Shape(LENGTH, SILOS, 3, 1), Ring(bits))
        total = UnreducedSum(how)
        total.add(0, how.ring.pack((np.arange(LENGTH) << 20).astype(how.ring.dtype)))
        total.add(0, bytes(how.ring.packed_bytes(LENGTH)))
        yield name, _read_unreduced(how), (total.chunk(0), bytes(how.chunk_bytes(0)))
    long = state_of_run({"velocity": np.ones(3), "weights": np.arange(7, dtype=np.int64)})
    yield "state", _read_state, (packed(long), packed(state_of_run({})))


def _read_unreduced(how: Unreduced) -> Read:
    def read(data: bytes) -> None:
        entries = how.read(0, data)
        how.check(0, entries, SILOS)
        assert all(entry <= SILOS * (2**how.bits - 1) for entry in entries.tolist())
        high = b"" if how.above is None else (entries >> np.uint64(32)).astype(how.above).tobytes()
        assert entries.astype("<u4").tobytes() + high == data
        words = how.ring.zeros(LENGTH)
        how.reduced(0, data, words)
        low, upper = entries.tolist()[:LENGTH], entries.tolist()[LENGTH:]
        whole = low if how.runs == 1 else [one + (other << 32) for one, other in zip(low, upper, strict=True)]
        assert words.tolist() == [one % 2**how.ring.bits for one in whole]

    return read


def _read_state(data: bytes) -> None:
    state = unpacked(data)
    assert packed(state) == data
    assert all(len(one.values) == one.length for one in state.numbers)
