"""A sum that is not the sum of what the silos signed is found, whoever says that it is."""

from statistics import NormalDist

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
from crypto.rounds.recount import COMPLETE_UP_TO, SAMPLED, check_chunk, choose_chunks
from crypto.rounds.report import EncryptedReport, StoredReport
from crypto.sealing import PUBLIC_BYTES
from tests.harness.inside import checked_report
from tests.harness.many_silos import checked_with, chunk_digests

ALPHA = 1e-6

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


def _round(bits: int) -> tuple[Ring, list[Words], CheckedReport]:
    """Return a ring, three vectors, and what was signed of them, with their sum."""
    ring = Ring(bits)
    vectors = [_vector(ring, name) for name in NAMES]
    modulus = 2**bits
    columns = zip(*(words.tolist() for words in vectors), strict=True)
    width = ring.word_bytes
    total = b"".join((sum(column) % modulus).to_bytes(width, "little") for column in columns)
    return ring, vectors, _checked(tuple(_header(ring, words) for words in vectors), bits, total)


def _of_chunks(count: int) -> CheckedReport:
    """Return a checked report of so many chunks."""
    digests = tuple(derive(HASH, str(number)) for number in range(count))
    return _checked((Contribution(manifest_hash=HASH, length=count * CHUNK_VALUES, chunks=digests),), 64)


# Which chunks


@pytest.mark.parametrize("count", [1, 2, 15, COMPLETE_UP_TO])
def test_every_chunk_of_a_short_vector_is_added_once_more(count: int) -> None:
    assert choose_chunks(_of_chunks(count)) == tuple(range(count))


@pytest.mark.parametrize("count", [COMPLETE_UP_TO + 1, 40, 256])
def test_chunks_of_a_long_vector_are_distinct(count: int) -> None:
    checked = _of_chunks(count)
    for _ in range(100):
        chosen = choose_chunks(checked)
        assert len(set(chosen)) == len(chosen) == SAMPLED
        assert chosen == tuple(sorted(chosen))
        assert 0 <= chosen[0] <= chosen[-1] < count


def test_chunks_of_a_long_vector_are_chosen_uniformly() -> None:
    count, draws = 32, 4000
    checked = _of_chunks(count)
    alone, together = [0] * count, 0
    for _ in range(draws):
        chosen = choose_chunks(checked)
        for index in chosen:
            alone[index] += 1
        together += {0, 1} <= set(chosen)
    # 1. Each chunk in SAMPLED / count of the draws. 2. Two of them together no more often than they should be.
    quantile = NormalDist().inv_cdf(1 - ALPHA / (2 * (count + 1)))
    share = SAMPLED / count
    assert all(abs(found - draws * share) <= quantile * (draws * share * (1 - share)) ** 0.5 for found in alone)
    share *= (SAMPLED - 1) / (count - 1)
    assert abs(together - draws * share) <= quantile * (draws * share * (1 - share)) ** 0.5


def test_wrong_chunk_is_found_as_often_as_stated() -> None:
    # Of 32 chunks one is wrong: 16 miss it with probability at most (1 - 1/32)^16, here 1/2.
    checked, draws = _of_chunks(32), 4000
    missed = sum(5 not in choose_chunks(checked) for _ in range(draws))
    most = (1 - 1 / 32) ** SAMPLED
    assert missed <= draws * most + NormalDist().inv_cdf(1 - ALPHA) * (draws * most * (1 - most)) ** 0.5


# One chunk


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("index", [0, 1])
def test_right_sum_passes(bits: int, index: int) -> None:
    ring, vectors, checked = _round(bits)
    check_chunk(checked, index, _chunks(ring, vectors, index))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("index", "place"), [(0, 0), (0, CHUNK_VALUES - 1), (1, CHUNK_VALUES), (1, LENGTH - 1)])
def test_wrong_sum_is_found_in_its_chunk(bits: int, index: int, place: int) -> None:
    ring, vectors, checked = _round(bits)
    words = ring.from_bytes(checked.stored.blinded_sum)
    words[place] ^= ring.dtype.type(1)
    wrong = _stored(ring.to_bytes(words))
    check_chunk(checked_with(checked, stored=wrong), 1 - index, _chunks(ring, vectors, 1 - index))
    with pytest.raises(ProtocolError, match=f"the sum is wrong: chunk {index} "):
        check_chunk(checked_with(checked, stored=wrong), index, _chunks(ring, vectors, index))


@pytest.mark.parametrize("bits", [32, 64])
def test_sum_without_one_contribution_is_wrong(bits: int) -> None:
    ring, vectors, checked = _round(bits)
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
