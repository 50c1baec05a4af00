"""Broken input for what reads long vectors: chunks of a sum that is not reduced, and a state with its numbers."""

from collections.abc import Callable, Iterator

import numpy as np

from crypto.backends.scheme import Shape
from crypto.backends.unreduced import Unreduced
from crypto.ring import Ring
from silo_node.training.keeping import packed, unpacked
from tests.harness.states import state_of_run

Read = Callable[[bytes], None]
LENGTH, SILOS = 6, 5
# By name: the bits of the ring; the entries of 24 and 32 bits have 4 and 8 bytes, and one of 64 bits is two of 8.
UNREDUCED = {"Unreduced-24": 24, "Unreduced-32": 32, "Unreduced-64": 64}


def readers() -> Iterator[tuple[str, Read, tuple[bytes, ...]]]:
    """Yield the name of each decoder, what it does, and examples of what it accepts."""
    for name, bits in UNREDUCED.items():
        how = Unreduced(Shape(LENGTH, SILOS, 3, 1), Ring(bits))
        entries = np.arange(how.entries(0), dtype=how.dtype) << 20
        yield name, _read_unreduced(how), (entries.tobytes(), bytes(how.chunk_bytes(0)))
    long = state_of_run({"velocity": np.ones(3), "weights": np.arange(7, dtype=np.int64)})
    yield "state", _read_state, (packed(long), packed(state_of_run({})))


def _read_unreduced(how: Unreduced) -> Read:
    def read(data: bytes) -> None:
        entries = how.read(0, data)
        how.check(0, entries, SILOS)
        assert entries.tobytes() == data
        assert all(entry <= SILOS * (2**how.bits - 1) for entry in entries.tolist())
        values = how.reduced(entries).tolist()
        assert all(0 <= value < 2**how.ring.bits for value in values)
        if how.runs == 2:
            low, high = entries.tolist()[:LENGTH], entries.tolist()[LENGTH:]
            assert values == [(one + (other << 32)) % 2**64 for one, other in zip(low, high, strict=True)]

    return read


def _read_state(data: bytes) -> None:
    state = unpacked(data)
    assert packed(state) == data
    assert all(len(one.values) == one.length for one in state.numbers)
