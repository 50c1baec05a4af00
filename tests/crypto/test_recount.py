"""A sum that is not the sum of what the silos signed is found, whoever says that it is."""

import pytest

from crypto.backends.masks import apply_masks
from crypto.backends.scheme import CHUNK_VALUES
from crypto.errors import ProtocolError
from crypto.keys import derive
from crypto.ring import Ring, Words
from crypto.rounds.manifest import Block, Manifest, Recipient, Terms
from crypto.rounds.messages import Contribution, Survivor, SurvivorSet
from crypto.rounds.opening import CheckedReport
from crypto.rounds.payload import scheme_of
from crypto.rounds.recount import check_chunk, check_sum
from crypto.rounds.report import EncryptedReport, StoredReport
from crypto.sealing import PUBLIC_BYTES
from tests.harness.inside import checked_report
from tests.harness.many_silos import checked_with, chunk_digests

NAMES = ("bank", "clinic", "ward")
HASH = bytes(32)
LENGTH = CHUNK_VALUES + 5  # two chunks, the last one short


def _vector(ring: Ring, label: str, length: int = LENGTH) -> Words:
    words = ring.zeros(length)
    apply_masks(words, ring, [derive(HASH, label)], [])
    return words


LIMITS = {32: (2**31 - 1) // 3, 64: 2**60}  # which make `masking` take words of 4 and of 8 bytes


def _checked(headers: tuple[Contribution, ...], bits: int, blinded_sum: bytes = b"") -> CheckedReport:
    """Return what `check_report` would say of a report over these contributions."""
    blocks = (Block(name="rows", length=headers[0].length, scale_bits=0, variance="4"),)
    recipient = Recipient(name="ann", key=bytes(PUBLIC_BYTES))
    manifest = Manifest(
        federation="hospitals",
        round_id=bytes(16),
        expires_at=1,
        terms=Terms(
            request_hash=HASH,
            recipients=(recipient,),
            backend="masking",
            asked=3,
            key_id=b"",
            limit=LIMITS[bits],
            blocks=blocks,
        ),
        silos=NAMES,
        members=HASH,
        quorum=3,
        degree=2,
        min_silos=3,
        max_colluding=1,
        max_missing=0,
    )
    survivors = tuple(Survivor(silo=name, contribution=HASH) for name in NAMES)
    survivor_set = SurvivorSet(manifest_hash=HASH, survivors=survivors, dropped=())
    stored, scheme = _stored(blinded_sum), scheme_of(manifest, b"")
    return checked_report(stored, scheme, manifest, HASH, survivor_set, HASH, headers, {}, {})


def _header(ring: Ring, words: Words) -> Contribution:
    chunks = chunk_digests(ring.to_bytes(words), ring.word_bytes)
    return Contribution(manifest_hash=HASH, length=words.size, chunks=chunks)


def _stored(blinded_sum: bytes) -> StoredReport:
    message = EncryptedReport(
        propose=b"",
        manifest=b"",
        accepts=(),
        bundles=(),
        contributions=(),
        split=b"",
        signatures=(),
        openings=(),
        dropped=(),
        refusals=(),
        missing=(),
        testimonies=(),
        length=LENGTH,
        chunks=(),
    )
    return StoredReport(message, HASH, memoryview(blinded_sum))


def _chunks(ring: Ring, vectors: list[Words], index: int) -> list[bytes]:
    return [ring.to_bytes(words[index * CHUNK_VALUES : (index + 1) * CHUNK_VALUES]) for words in vectors]


def _round(bits: int, length: int = LENGTH) -> tuple[Ring, list[Words], CheckedReport]:
    """Return a ring, three vectors, and what was signed of them, with their sum: unreduced where there are chunks."""
    ring = Ring(bits)
    vectors = [_vector(ring, name, length) for name in NAMES]
    headers = tuple(_header(ring, words) for words in vectors)
    columns = [list(one) for one in zip(*(words.tolist() for words in vectors), strict=True)]
    if length <= CHUNK_VALUES:
        total = b"".join((sum(column) % 2**bits).to_bytes(ring.word_bytes, "little") for column in columns)
        return ring, vectors, _checked(headers, bits, total)
    total = b""
    for start in range(0, length, CHUNK_VALUES):
        part = columns[start : start + CHUNK_VALUES]
        entries = [sum(one >> shift & 2**32 - 1 for one in column) for shift in range(0, bits, 32) for column in part]
        total += b"".join((entry % 2**32).to_bytes(4, "little") for entry in entries)
        total += bytes(entry >> 32 for entry in entries)
    return ring, vectors, _checked(headers, bits, total)


# One chunk


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("index", [0, 1])
def test_right_sum_passes(bits: int, index: int) -> None:
    ring, vectors, checked = _round(bits)
    check_chunk(checked, index, _chunks(ring, vectors, index))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("length", [1, 70, CHUNK_VALUES])
def test_sum_of_a_short_vector_is_added_once_more(bits: int, length: int) -> None:
    ring, vectors, checked = _round(bits, length)
    check_sum(checked, lambda index: _chunks(ring, vectors, index))
    words = ring.from_bytes(checked.stored.blinded_sum)
    words[length // 2] ^= ring.dtype.type(2 ** (bits - 1))
    wrong = checked_with(checked, stored=_stored(ring.to_bytes(words)))
    with pytest.raises(ProtocolError, match="the sum is wrong: chunk 0 "):
        check_sum(wrong, lambda index: _chunks(ring, vectors, index))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("index", "place"), [(0, 0), (0, CHUNK_VALUES - 1), (1, CHUNK_VALUES), (1, LENGTH - 1)])
def test_wrong_sum_is_found_in_its_chunk(bits: int, index: int, place: int) -> None:
    ring, vectors, checked = _round(bits)
    changed = bytearray(checked.stored.blinded_sum)
    start = sum(checked.scheme.sum_bytes(number) for number in range(index))
    changed[start + 4 * (place - index * CHUNK_VALUES)] ^= 1
    wrong = _stored(bytes(changed))
    check_chunk(checked_with(checked, stored=wrong), 1 - index, _chunks(ring, vectors, 1 - index))
    with pytest.raises(ProtocolError, match=f"the sum is wrong: chunk {index} "):
        check_chunk(checked_with(checked, stored=wrong), index, _chunks(ring, vectors, index))


@pytest.mark.parametrize("bits", [32, 64])
def test_sum_without_one_contribution_is_wrong(bits: int) -> None:
    ring, vectors, checked = _round(bits, 70)
    partial = _stored(ring.to_bytes(ring.reduce(vectors[0] + vectors[1])))
    with pytest.raises(ProtocolError, match="the sum is wrong"):
        check_chunk(checked_with(checked, stored=partial), 0, _chunks(ring, vectors, 0))


@pytest.mark.parametrize("silo", [0, 1, 2])
def test_chunk_that_was_not_signed_is_found(silo: int) -> None:
    ring, vectors, checked = _round(64)
    chunks = _chunks(ring, vectors, 0)
    for other in (b"", chunks[silo][:-8], chunks[silo] + bytes(8), bytes(len(chunks[silo])), chunks[silo - 1]):
        changed = [other if place == silo else chunk for place, chunk in enumerate(chunks)]
        with pytest.raises(ProtocolError, match=f"chunk 0 of '{NAMES[silo]}' is not the one that it signed"):
            check_chunk(checked, 0, changed)


def test_two_shifts_that_cancel_are_found() -> None:
    ring, vectors, checked = _round(64)
    vectors[0][0] += ring.dtype.type(1)
    vectors[1][0] -= ring.dtype.type(1)
    with pytest.raises(ProtocolError, match="is not the one that it signed"):
        check_chunk(checked, 0, _chunks(ring, vectors, 0))


def test_chunk_of_another_place_is_found() -> None:
    ring, vectors, checked = _round(64)
    with pytest.raises(ProtocolError, match="is not the one that it signed"):
        check_chunk(checked, 1, _chunks(ring, vectors, 0))


@pytest.mark.parametrize("count", [0, 2, 4])
def test_every_survivor_is_added_exactly_once(count: int) -> None:
    ring, vectors, checked = _round(64)
    chunks = (_chunks(ring, vectors, 0) * 2)[:count]
    with pytest.raises(ProtocolError, match=f"{count} contributions to add once more, expected 3"):
        check_chunk(checked, 0, chunks)
