"""Ring elements survive the trip to bytes, and no sum that a codec admits can wrap."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import RangeError
from crypto.ring import Codec, Ring
from tests.cases import every

ALL_BITS = range(1, 65)
INT64 = st.integers(-(2**63), 2**63 - 1)


def _int64(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


@st.composite
def _codecs(draw: st.DrawFn) -> Codec:
    bits = draw(st.integers(2, 64))
    terms = draw(st.integers(1, min(2 ** (bits - 1) - 1, 1000)))
    return Codec(Ring(bits), draw(st.integers(0, 40)), terms)


def _sum_of(codec: Codec, units: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Add `units` to itself in the ring as often as the codec has terms, and read the sum."""
    total = codec.ring.zeros(units.size)
    for _ in range(codec.terms):
        total += codec.ring.from_signed(units)
    return codec.ring.signed(codec.ring.reduce(total))


@pytest.mark.parametrize("bits", [-1, 0, 65, 128])
def test_ring_of_another_width_is_refused(bits: int) -> None:
    with pytest.raises(RangeError):
        Ring(bits)


@every("bits", ALL_BITS)
def test_words_are_as_narrow_as_the_ring_allows(bits: int) -> None:
    ring = Ring(bits)
    assert ring.word_bytes == next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    assert ring.to_bytes(ring.zeros(3)) == bytes(3 * ring.word_bytes)


@every("bits", ALL_BITS)
def test_extreme_elements_survive_bytes(bits: int) -> None:
    ring = Ring(bits)
    elements = [0, 1, 2 ** (bits - 1), 2**bits - 1]
    raw = b"".join((element % 2**bits).to_bytes(ring.word_bytes, "little") for element in elements)
    words = ring.from_bytes(raw)
    assert [int(word) for word in words] == [element % 2**bits for element in elements]
    assert words.dtype == ring.dtype
    assert ring.to_bytes(words) == raw
    words += words.dtype.type(1)  # writable, and no view of the bytes it came from
    assert [int(word) for word in ring.from_bytes(raw)] == [element % 2**bits for element in elements]


@given(st.data())
def test_bytes_are_read_as_little_endian_integers(data: st.DataObject) -> None:
    ring = Ring(data.draw(st.integers(1, 64)))
    elements = data.draw(st.lists(st.integers(0, 2**ring.bits - 1), max_size=20))
    raw = b"".join(element.to_bytes(ring.word_bytes, "little") for element in elements)
    assert [int(word) for word in ring.from_bytes(raw)] == elements
    assert ring.to_bytes(ring.from_bytes(raw)) == raw


@every("bits", [bits for bits in ALL_BITS if bits not in (8, 16, 32, 64)])
def test_element_outside_the_ring_is_refused(bits: int) -> None:
    ring = Ring(bits)
    inside = bytes(ring.word_bytes)
    outside = (2**bits).to_bytes(ring.word_bytes, "little")
    for raw in (outside, inside + outside + inside, b"\xff" * ring.word_bytes):
        with pytest.raises(RangeError, match="outside the ring"):
            ring.from_bytes(raw)


@pytest.mark.parametrize("bits", [1, 31, 32, 33, 64])
def test_partial_word_is_refused(bits: int) -> None:
    ring = Ring(bits)
    for length in range(1, 3 * ring.word_bytes):  # with words of one byte there is no partial one
        if length % ring.word_bytes:
            with pytest.raises(RangeError, match="no whole number"):
                ring.from_bytes(bytes(length))
    assert ring.from_bytes(b"").size == 0


@every("bits", ALL_BITS)
def test_signed_takes_the_representative_nearest_zero(bits: int) -> None:
    ring = Ring(bits)
    half = 2 ** (bits - 1)
    elements = [0, half - 1, half, 2**bits - 1]
    words = np.array(elements, ring.dtype)
    assert ring.signed(words).tolist() == [0, half - 1, -half, -1]
    assert ring.signed(words).dtype == np.dtype(f"i{ring.word_bytes}")
    assert words.tolist() == elements  # its argument stays as it was


@given(st.integers(1, 64), st.lists(INT64, max_size=20))
def test_ring_arithmetic_is_arithmetic_modulo_a_power_of_two(bits: int, values: list[int]) -> None:
    ring = Ring(bits)
    words = np.array([value % 2 ** (8 * ring.word_bytes) for value in values], ring.dtype)
    assert ring.reduce(words).tolist() == [value % 2**bits for value in values]


@pytest.mark.parametrize(
    ("bits", "scale_bits", "terms"),
    [(1, 0, 1), (2, 0, 2), (8, 0, 128), (64, -1, 1), (64, 0, 0), (64, 0, -3), (64, 0, 2**63)],
)
def test_codec_without_headroom_is_refused(bits: int, scale_bits: int, terms: int) -> None:
    with pytest.raises(RangeError, match="no headroom"):
        Codec(Ring(bits), scale_bits, terms)


@given(_codecs())
def test_limit_is_the_largest_that_cannot_wrap(codec: Codec) -> None:
    largest = 2 ** (codec.ring.bits - 1) - 1
    assert codec.limit * codec.terms <= largest < (codec.limit + 1) * codec.terms


@given(_codecs())
def test_sum_of_extreme_terms_never_wraps(codec: Codec) -> None:
    units = _int64(-codec.limit, codec.limit)
    assert _sum_of(codec, units).tolist() == [-codec.limit * codec.terms, codec.limit * codec.terms]


@every("terms", [1, 2, 3, 5, 10, 100])
@every("bits", [8, 32, 54, 60, 62, 63, 64])
def test_sum_of_extreme_reals_never_wraps(bits: int, terms: int) -> None:
    # A limit beyond 2^53 may have no float of its own: the nearest one can lie above it.
    codec = Codec(Ring(bits), 0, terms)
    for value in (float(codec.limit), np.nextafter(float(codec.limit), 0), float(2 ** (codec.limit.bit_length()))):
        try:
            units = codec.encode_reals(np.array([-value, value]))
        except RangeError:
            continue
        assert np.abs(units).max() <= codec.limit
        assert _sum_of(codec, units).tolist() == [int(units[0]) * terms, int(units[1]) * terms]


@given(st.integers(1, 64), st.data())
def test_whole_numbers_come_back(bits: int, data: st.DataObject) -> None:
    ring = Ring(bits)
    values = data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), max_size=20))
    both: list[npt.NDArray[Any]] = [_int64(*values)]
    both += [np.array(values, np.int32)] if bits <= 32 else []
    for units in both:
        words = ring.from_signed(units)
        assert words.dtype == ring.dtype
        assert words.tolist() == [value % 2**bits for value in values]
        assert ring.signed(words).tolist() == values
        assert units.tolist() == values  # its argument stays as it was


@given(_codecs(), st.data())
def test_reals_come_back_within_half_a_step(codec: Codec, data: st.DataObject) -> None:
    bound = min(codec.limit, 2**52) / 2**codec.scale_bits
    values = data.draw(st.lists(st.floats(-bound, bound), max_size=20))
    words = codec.ring.from_signed(codec.encode_reals(np.array(values, np.float64)))
    decoded = codec.ring.signed(words) * 2.0**-codec.scale_bits
    assert all(abs(a - b) <= 2.0 ** -(codec.scale_bits + 1) for a, b in zip(decoded, values, strict=True))


def test_reals_are_rounded_half_to_even() -> None:
    codec = Codec(Ring(32), 1, 1)
    assert codec.encode_reals(np.array([0.25, 0.75, -0.25, -0.75, 1.3])).tolist() == [0, 2, 0, -2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308, -1e308, 2.0**31])
def test_real_beyond_the_headroom_is_refused(value: float) -> None:
    codec = Codec(Ring(32), 20, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would tell the data from other data
        with pytest.raises(RangeError, match="headroom"):
            codec.encode_reals(np.array([0.0, value]))


@given(_codecs(), st.lists(INT64, min_size=2, max_size=20))
def test_sum_of_terms_is_the_sum_in_the_ring(codec: Codec, values: list[int]) -> None:
    units = np.clip(_int64(*values), -codec.limit, codec.limit)[: codec.terms]
    total = codec.ring.zeros(1)
    for unit in units:
        total += codec.ring.from_signed(unit.reshape(1))
    decoded: Any = codec.ring.signed(codec.ring.reduce(total))[0]
    assert int(decoded) == sum(int(unit) for unit in units)


# Without gaps


def _whole(elements: list[int], width: int) -> bytes:
    """Return elements as the one little-endian number that they are without gaps."""
    whole = sum(element << place * width for place, element in enumerate(elements))
    return whole.to_bytes(-(-len(elements) * width // 8), "little")


@given(st.integers(1, 64), st.data())
def test_packed_elements_are_one_number_and_come_back(bits: int, data: st.DataObject) -> None:
    ring = Ring(bits)
    elements = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=70))
    words = np.array(elements, ring.dtype)
    raw = ring.pack(words)
    assert raw == _whole(elements, bits if bits <= 32 else 64)
    assert len(raw) == ring.packed_bytes(len(elements))
    found = ring.unpack(memoryview(raw), len(elements))
    assert found.dtype == ring.dtype
    assert found.tolist() == elements
    assert words.tolist() == elements  # its argument stays as it was


@every("bits", range(1, 33))
def test_eight_elements_are_exactly_as_many_bytes_as_an_element_has_bits(bits: int) -> None:
    ring, rng = Ring(bits), np.random.default_rng(bits)
    assert ring.packed_bytes(8) == bits
    for length in (0, 1, 7, 8, 9, 2**16 - 1, 2**16, 2**16 + 1, 2**17 + 13):
        words = rng.integers(0, 2**bits, length, np.uint64).astype(ring.dtype)
        assert np.array_equal(ring.unpack(ring.pack(words), length), words)
    words = rng.integers(0, 2**bits, 2**17, np.uint64).astype(ring.dtype)
    whole = ring.pack(words)  # whole chunks may be packed each for itself
    assert whole == ring.pack(words[: 2**16]) + ring.pack(words[2**16 :])


@every("bits", range(1, 33))
def test_bytes_that_nothing_packs_are_refused(bits: int) -> None:
    ring = Ring(bits)
    for length in range(1, 10):
        raw = ring.pack(np.full(length, 2**bits - 1, ring.dtype))
        for wrong in (raw[:-1], raw + bytes(1), b""):
            with pytest.raises(RangeError, match=f"{len(wrong)} bytes, expected {len(raw)}"):
                ring.unpack(wrong, length)
        if length * bits % 8:
            with pytest.raises(RangeError, match="bits are set"):
                ring.unpack(raw[:-1] + b"\xff", length)


@given(st.integers(1, 32), st.integers(1, 40), st.data())
def test_packed_bytes_are_read_or_refused_and_no_two_are_the_same_elements(
    bits: int, length: int, data: st.DataObject
) -> None:
    ring = Ring(bits)
    size = ring.packed_bytes(length)
    raw = data.draw(st.binary(min_size=size, max_size=size))
    try:
        words = ring.unpack(raw, length)
    except RangeError:
        assert length * bits % 8
        return
    assert ring.pack(words) == raw


@pytest.mark.parametrize(("bits", "word"), [(1, 8), (2, 8), (3, 8), (8, 8), (5, 16), (12, 16), (16, 16)])
def test_a_word_cut_to_the_ring_is_uniform_if_the_word_is(bits: int, word: int) -> None:
    """By counting all words: each element of the ring comes from equally many."""
    ring = Ring(bits)
    words = np.arange(2**word, dtype=np.uint64).astype(f"<u{word // 8}").astype(ring.dtype)
    counts = np.bincount(ring.reduce(words), minlength=2**bits)
    assert counts.tolist() == [2 ** (word - bits)] * 2**bits
