"""A vector of several chunks travels in the least ring that holds every sum, without gaps, and opens exactly."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from crypto.backends.masking import MaskingScheme
from crypto.backends.scheme import CHUNK_VALUES, Shape, Units
from crypto.errors import ProtocolError, RangeError, WireError
from crypto.keys import derive
from crypto.rounds.committees import quorum_of
from tests.cases import every

LENGTH = CHUNK_VALUES + 13


def scheme_of(silos: int, limit: int, length: int = LENGTH) -> MaskingScheme:
    return MaskingScheme(Shape(length, silos, quorum_of(silos), limit))


def vectors(scheme: MaskingScheme) -> list[Units]:
    """Return a vector of every silo; at two places all are at the same end of the range, so that sums are extreme."""
    shape, generator = scheme.shape, np.random.default_rng(scheme.shape.limit)
    found = [generator.integers(-shape.limit, shape.limit + 1, shape.length) for _ in range(shape.silos)]
    for vector in found:
        vector[[0, -1]] = shape.limit, -shape.limit
    return found


def seeds(silos: int) -> dict[tuple[int, int], bytes]:
    """Return the pair seeds of all silos, and of each with itself the seed of its self mask."""
    return {pair: derive(bytes(32), f"{pair}") for pair in combinations_with_replacement(range(silos), 2)}


def test_the_ring_is_the_least_that_holds_every_sum() -> None:
    for silos in (3, 4, 10, 100, 1000):
        for limit in (1, 2, 3, 127, 128, 2**15 - 1, 2**20, 2**31 // silos - 1, 2**31 // silos + 1, 2**40):
            bits = scheme_of(silos, limit).ring.bits
            if bits == 64:
                assert silos * limit > 2**31 - 1
            else:
                assert silos * limit <= 2 ** (bits - 1) - 1  # both ends of a sum are in the ring
                assert silos * limit > 2 ** (27 if bits == 32 else bits - 2) - 1  # and in none smaller that is packed
                assert bits <= 28 or bits == 32
    assert scheme_of(10, 127).ring.bits == 12


def test_a_short_vector_keeps_words_of_32_or_64_bits() -> None:
    for length in (1, CHUNK_VALUES):
        assert scheme_of(10, 1, length).ring.bits == 32
        assert scheme_of(10, 2**30, length).ring.bits == 64
        assert scheme_of(10, 1, length).chunk_bytes(0, 0) == 4 * length


@pytest.mark.parametrize("silos", [3, 4])
@every("limit", [1, 5, 40, 127, 4_000, 2**15, 100_000, 2**23, 2**29 - 1, 2**40])
def test_the_sum_of_long_vectors_opens_exactly_with_and_without_a_drop_out(silos: int, limit: int) -> None:
    scheme, of = scheme_of(silos, limit), seeds(silos)
    values = vectors(scheme)
    blinded = [
        [
            chunk
            for (chunk,) in scheme.blind(
                one,
                [of[silo, silo], *(of[silo, other] for other in range(silo + 1, silos))],
                [of[other, silo] for other in range(silo)],
            )
        ]
        for silo, one in enumerate(values)
    ]
    for chunks in blinded:
        assert [len(chunk) for chunk in chunks] == [scheme.chunk_bytes(0, 0), scheme.chunk_bytes(0, 1)]
        if (bits := scheme.ring.bits) <= 32:
            assert list(map(len, chunks)) == [CHUNK_VALUES * bits // 8, -(-13 * bits // 8)]
    for dropped in (None, 0, silos - 1):
        survivors = [silo for silo in range(silos) if silo != dropped]
        total = scheme.accumulator(0)
        for silo in survivors:
            for index, chunk in enumerate(blinded[silo]):
                total.add(index, chunk)
        take, give = [of[silo, silo] for silo in survivors], list[bytes]()
        if dropped is not None:  # the pair masks that its neighbours have added, or subtracted
            take += [of[silo, dropped] for silo in survivors if silo < dropped]
            give += [of[dropped, silo] for silo in survivors if silo > dropped]
        opened = scheme.open({0: total.chunks()}, give, take)
        assert np.array_equal(opened.units, np.sum([values[silo] for silo in survivors], axis=0))
        assert int(opened.units[0]) == limit * len(survivors)


def test_a_chunk_of_another_size_or_with_bits_behind_the_last_value_is_refused() -> None:
    scheme = scheme_of(3, 5)  # 5 bits
    total = scheme.accumulator(0)
    last = bytes(scheme.chunk_bytes(0, 1))
    for index, chunk in ((0, last), (1, last[:-1]), (1, last + b"\0"), (1, bytes(4 * 13))):
        with pytest.raises(WireError, match="bytes, expected"):
            total.check(index, chunk)
    with pytest.raises(RangeError, match="bits are set"):
        total.add(1, last[:-1] + b"\x80")
    total.add(1, last)
    with pytest.raises(ProtocolError, match="no contribution, or holds one in part"):
        total.chunks()
