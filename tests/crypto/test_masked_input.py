"""A masked input gives the same bytes whenever a part of it is asked for, and they are those of blinding it at once."""

import pickle

import numpy as np
import pytest

from crypto.backends.masking import MaskingScheme
from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import CHUNK_VALUES, Scheme, Shape, Units
from crypto.errors import CryptoError, ProtocolError, RangeError
from crypto.keys import derive
from crypto.rounds import payload
from crypto.rounds.committees import quorum_of
from crypto.rounds.payload import (
    BlindedPieces,
    BlindedWords,
    MaskedInput,
    UnitVector,
    blinded_pieces,
    digests,
    frames,
    masked_input,
    piece_sizes,
)
from tests.cases import every

SEEDS = [derive(bytes(32), str(number)) for number in range(4)]
ADDED, SUBTRACTED = SEEDS[:3], SEEDS[3:]


def scheme_of(limit: int, length: int, silos: int = 4) -> MaskingScheme:
    return MaskingScheme(Shape(length, silos, quorum_of(silos), limit))


def values(scheme: Scheme) -> Units:
    shape = scheme.shape
    return np.random.default_rng(shape.length).integers(-shape.limit, shape.limit + 1, shape.length)


def filled(scheme: Scheme, units: Units) -> UnitVector:
    """Return the vector of these numbers, added in two parts and at odd places."""
    vector, cut = UnitVector(scheme), scheme.shape.length // 3
    noise = np.minimum(units, 3)
    vector.add(0, noise)
    vector.add(0, (units - noise)[:cut])
    vector.add(cut, (units - noise)[cut:])
    return vector


def of(scheme: Scheme, units: Units) -> MaskedInput:
    return masked_input(scheme, filled(scheme, units), ADDED, SUBTRACTED, [])


@every("length", [1, 300, CHUNK_VALUES, CHUNK_VALUES + 1, 3 * CHUNK_VALUES, 20 * CHUNK_VALUES + 7])
@every("limit", [1, 100, 3_000, 100_000, 2**28, 2**40])
def test_pieces_and_frames_are_those_of_blinding_at_once(limit: int, length: int) -> None:
    scheme = scheme_of(limit, length)
    units = values(scheme)
    pieces = [chunk for (chunk,) in scheme.blind(units, ADDED, SUBTRACTED)]
    cut = frames(piece_sizes(scheme))
    masked = of(scheme, units)
    assert masked.piece(len(pieces) - 1) == pieces[-1]
    for index in reversed(range(len(cut))):
        assert masked.frame(index) == b"".join(pieces[number] for number in cut[index])
    assert masked.digests() == digests(pieces)
    assert [masked.piece(number) for number in range(len(pieces))] == pieces
    assert of(scheme, units).digests() == digests(pieces)  # also where nothing was asked for before


def test_what_was_asked_for_is_the_same_when_it_is_asked_for_again() -> None:
    scheme = scheme_of(100, 20 * CHUNK_VALUES + 7)
    masked = of(scheme, values(scheme))
    first = masked.frame(0), masked.piece(3), masked.digests()
    assert (masked.frame(0), masked.piece(3), masked.digests()) == first


@pytest.mark.parametrize("number", [-1, 2, 2**63])
def test_there_is_no_other_frame_or_piece(number: int) -> None:
    scheme = scheme_of(2**28, CHUNK_VALUES + 1)
    for masked in (of(scheme, values(scheme)), BlindedPieces([bytes(4 << 20), bytes(8)])):
        with pytest.raises(ProtocolError, match="no frame"):
            masked.frame(number)
        with pytest.raises(ProtocolError, match="no piece"):
            masked.piece(number)


def test_the_other_backends_blind_at_once() -> None:
    scheme = BACKENDS["shares"].bind(Shape(70, 4, quorum_of(4), 1000))
    vector = filled(scheme, values(scheme))
    assert vector.words.dtype == np.int64
    assert np.array_equal(vector.words, values(scheme))
    vector.add(0, np.array([10**6]))
    with pytest.raises(RangeError, match="beyond"):
        masked_input(scheme, vector, [], [], [])
    pieces = [b"first", b"second", bytes(4 << 20)]
    masked = BlindedPieces(pieces)
    assert masked.digests() == digests(pieces)
    assert [masked.piece(number) for number in range(3)] == pieces
    assert [masked.frame(0), masked.frame(1)] == [b"firstsecond", bytes(4 << 20)]


def test_words_of_another_ring_or_length_are_refused() -> None:
    scheme = scheme_of(100, CHUNK_VALUES + 1)
    for words in (np.zeros(CHUNK_VALUES, np.uint16), np.zeros(CHUNK_VALUES + 1, np.uint32)):
        with pytest.raises(RangeError, match="words of"):
            BlindedWords(scheme, words, ADDED, SUBTRACTED)


def test_the_seeds_of_a_masked_input_are_not_carried_away() -> None:
    scheme = scheme_of(100, 10)
    masked = of(scheme, values(scheme))
    with pytest.raises(CryptoError, match="cannot be pickled"):
        pickle.dumps(masked)
    assert SEEDS[0].hex() not in repr(masked)
    assert repr(SEEDS[0]) not in repr(masked)


def test_a_vector_takes_numbers_of_32_bits_as_those_of_64() -> None:
    for limit in (3, 100, 40_000, 2**29, 2**40):
        scheme = scheme_of(limit, CHUNK_VALUES + 1)
        units = np.clip(values(scheme), -(2**31) + 1, 2**31 - 1)
        both = [UnitVector(scheme), UnitVector(scheme)]
        for vector, dtype in zip(both, (np.int32, np.int64), strict=True):
            vector.add(0, units.astype(dtype))
        assert np.array_equal(both[0].words, both[1].words)
        assert np.array_equal(scheme.ring.signed(both[0].words), units)


def test_the_pieces_of_a_column_are_sealed_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = BACKENDS["shares"].bind(Shape(70, 4, quorum_of(4), 1000))
    monkeypatch.setattr(payload, "seal_column", lambda key, column, info: key + info + b"".join(column))
    seals = [(b"key", str(number).encode()) for number in range(4)]
    pieces = blinded_pieces(scheme, values(scheme), [], [], seals)
    assert [piece[:4] for piece in pieces] == [b"key0", b"key1", b"key2", b"key3"]
