"""The backend `shares`: every silo shares its vector over all silos, each silo adds its column, a quorum opens the sum.

Shamir ("How to share a secret", CACM 1979) value by value over Z_p, p = 2^56 - 5: the share of the silo at position j
of the roster (from 0) is a polynomial of degree t - 1 at x = j + 1; its value at 0 is the secret. Columns 0 to t - 2
are uniform whatever the secret is, so they are expanded from 32-byte seeds, and only the seeds travel
(`crypto.backends.keystream`). The polynomial through them and the secret gives the other columns, by finite
differences. Each column is sealed to its silo. There are no masks. docs/protocol.md section 2.8.

Promise: fewer than t columns reveal nothing about the vector. After all have contributed, any n - t silos may drop out.
Of m sums that arrive, up to (m - t) / 2 wrong ones are found, named and left out, and up to m - t are noticed (a
Reed-Solomon code).
All arithmetic is vectorised in words of 64 bits, a block at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.backends.elements import ElementSum, read_elements
from crypto.backends.keystream import Elements, UniformStream
from crypto.backends.scheme import (
    Accumulator,
    Bytes,
    Opened,
    RoundKey,
    Scheme,
    Shape,
    Units,
    check_capacity,
    check_no_key,
    check_size,
    check_sizes,
    no_key,
)
from crypto.errors import ProtocolError, RangeError, SealError, WireError
from crypto.keys import Secret
from crypto.randomness import token
from crypto.reed_solomon import lagrange, wrong_places
from crypto.sealing import OVERHEAD_BYTES, SealingKey, seal

NAME = "shares"
MAX_VALUES = 100_000
MAX_PARTIES = 100
PRIME = 2**56 - 5
SEED_BYTES = 32
_SHIFT, _LOW, _FOLD = np.uint64(56), np.uint64(2**56 - 1), np.uint64(5)  # 2^56 = 5 modulo p
_LIMB, _LIMB_CUT = np.uint64(28), np.uint64(2**28 - 1)
_P = np.uint64(PRIME)
_STEP = 16384  # values of a block: those of ten silos stay in the second-level cache
_KEY_BYTES, _TAG_BYTES = 32, 16
_INSTEAD = "take the backend 'masking'"


class SharesSum:
    """The accumulator of one silo: its column of every contribution; seeds are expanded on arrival."""

    __slots__ = ("_has_seeds", "_shape", "_sum")

    def __init__(self, shape: Shape, has_seeds: bool) -> None:
        self._shape, self._has_seeds = shape, has_seeds
        self._sum = ElementSum(PRIME, [shape.values(index) for index in range(shape.chunks)], shape.silos)

    def check(self, index: int, chunk: bytes) -> None:
        if self._has_seeds:
            check_size(chunk, SEED_BYTES, index)
        else:
            self._sum.check(index, chunk)

    def add(self, index: int, chunk: bytes) -> None:
        if not self._has_seeds:
            self._sum.add(index, chunk)
            return
        self.check(index, chunk)
        self._sum.add_blocks(index, _blocks(UniformStream(chunk, PRIME, index), self._shape.values(index)))

    def chunk(self, index: int) -> bytes:
        return self._sum.chunk(index)

    def chunks(self) -> list[bytes]:
        return self._sum.chunks()


@dataclass(frozen=True, slots=True)
class SharesScheme:
    """`shares` in one round."""

    shape: Shape
    modulus: int = PRIME
    is_masked: bool = False

    @property
    def columns(self) -> int:
        return self.shape.silos

    def chunk_bytes(self, column: int, index: int) -> int:
        values = self.shape.values(index)
        self._check_column(column)
        return SEED_BYTES if column < self.shape.quorum - 1 else 8 * values

    def sum_bytes(self, index: int) -> int:
        return 8 * self.shape.values(index)

    def blind(
        self, units: Units, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
    ) -> Iterator[tuple[bytes, ...]]:
        return (
            self.deal(index, chunk, [token(SEED_BYTES) for _ in range(self.shape.quorum - 1)])
            for index, chunk in enumerate(self.shape.cut(units))
        )

    def deal(self, index: int, units: Units, seeds: Sequence[bytes]) -> tuple[bytes, ...]:
        """Return the columns of one chunk; `seeds` are the first quorum - 1 of them."""
        quorum, silos = self.shape.quorum, self.shape.silos
        streams = [UniformStream(seed, PRIME, index) for seed in seeds]
        parts: list[list[bytes]] = [[] for _ in range(quorum, silos + 1)]
        values = np.empty((silos + 1, min(_STEP, units.size)), np.uint64)  # the polynomial at 0 .. silos
        scratch = np.empty_like(values[0])
        for start in range(0, units.size, _STEP):
            secret = units[start : start + _STEP].view(np.uint64)
            rows = list(values[:, : secret.size])
            np.minimum(secret, np.add(secret, _P, out=rows[0]), out=rows[0])  # negative words wrap
            for stream, row in zip(streams, rows[1:], strict=False):
                stream.fill(row)
            for place in range(quorum, silos + 1):
                next_by_differences(rows[place - quorum : place], rows[place], scratch[: secret.size])
                parts[place - quorum].append(rows[place].tobytes())
        return (*seeds, *map(b"".join, parts))

    def accumulator(self, column: int) -> Accumulator:
        self._check_column(column)
        return SharesSum(self.shape, column < self.shape.quorum - 1)

    def open(
        self,
        sums: Mapping[int, Sequence[Bytes]],
        added_seeds: Sequence[bytes],
        subtracted_seeds: Sequence[bytes],
        secret: Secret | None = None,
    ) -> Opened:
        """See Scheme. `inconsistent_silos` has positions in the roster, also of sums with a wrong size."""
        left, inconsistent_silos, parts = dict(sums), [], []
        for column in sorted(sums):
            self._check_column(column)
            try:
                check_sizes(self, sums[column])
            except WireError:
                inconsistent_silos.append(column)
                del left[column]
        for index in range(self.shape.chunks):
            read: dict[int, Elements] = {}
            for column, chunks in left.items():
                with suppress(RangeError):
                    read[column] = read_elements(chunks[index], PRIME, self.shape.values(index), index)
            elements, others = reconstruct(read, self.shape.quorum)
            left_out = [column for column in left if column not in read or column in others]
            inconsistent_silos += left_out
            for column in left_out:
                del left[column]
            signed = elements.view(np.int64)
            parts.append(np.subtract(signed, PRIME, out=signed, where=signed > PRIME // 2))
        return Opened(self.shape.check_sum(np.concatenate(parts)), tuple(sorted(inconsistent_silos)))

    def _check_column(self, column: int) -> None:
        if not 0 <= column < self.columns:
            raise ProtocolError(f"column {column} of {self.columns}")


@dataclass(frozen=True, slots=True)
class SharesBackend:
    """Exact sums of at most 100,000 values, up to 2^55 / silos each."""

    name: str = NAME
    has_key: bool = False

    def capacity(self, silos: int) -> int:
        return (PRIME - 1) // 2 // silos

    def create_key(self) -> RoundKey:
        return no_key(NAME)

    def bind(self, shape: Shape, public: bytes = b"") -> Scheme:
        check_no_key(NAME, public)
        if shape.silos > MAX_PARTIES:
            raise RangeError(f"shares deals to at most {MAX_PARTIES} silos, the round has {shape.silos}", _INSTEAD)
        if shape.length > MAX_VALUES:
            raise RangeError(
                f"shares carries at most {MAX_VALUES} values, the round has {shape.length}",
                "ask for fewer groups or statistics, or take the backend 'masking'",
            )
        check_capacity(self, shape)
        return SharesScheme(shape)


def sealed_bytes(scheme: Scheme, column: int) -> int:
    """Return the exact size of one contribution's sealed column."""
    sizes = [scheme.chunk_bytes(column, index) for index in range(scheme.shape.chunks)]
    return OVERHEAD_BYTES + _KEY_BYTES + sum(sizes) + _TAG_BYTES * len(sizes)


def seal_column(public: bytes, chunks: Sequence[bytes], info: bytes) -> bytes:
    """Seal a column to the channel key of its silo in the context `info`; raises SealError on a bad key.

    A fresh key, sealed by HPKE, encrypts the chunks with AES-256-GCM; the number of a chunk is its nonce.
    """
    key = AESGCM.generate_key(8 * _KEY_BYTES)
    cipher = AESGCM(key)
    parts = [cipher.encrypt(index.to_bytes(12, "big"), chunk, info) for index, chunk in enumerate(chunks)]
    return seal(public, key, info) + b"".join(parts)


def open_column(key: SealingKey, scheme: Scheme, column: int, sealed: bytes, info: bytes) -> list[bytes]:
    """Return the chunks of a sealed column; raises WireError on a wrong size, SealError on a wrong key or context."""
    expected = sealed_bytes(scheme, column)
    if len(sealed) != expected:
        raise WireError(f"a sealed column of {len(sealed)} bytes, expected {expected}")
    start = OVERHEAD_BYTES + _KEY_BYTES
    cipher, view, chunks = AESGCM(key.open(sealed[:start], info)), memoryview(sealed), []
    for index in range(scheme.shape.chunks):
        size = scheme.chunk_bytes(column, index) + _TAG_BYTES
        try:
            chunks.append(cipher.decrypt(index.to_bytes(12, "big"), view[start : start + size], info))
        except InvalidTag:
            raise SealError(f"chunk {index} of a sealed column does not open with its key") from None
        start += size
    return chunks


def reconstruct(sums: Mapping[int, Elements], quorum: int) -> tuple[Elements, tuple[int, ...]]:
    """Return the secret vector and the positions of the silos whose columns are inconsistent with the others.

    Raises ProtocolError if there are fewer than `quorum` columns, or if they contradict each other and the wrong ones
    cannot be identified.
    """
    left, inconsistent_silos = dict(sums), []
    while True:
        places = tuple(sorted(left))
        if len(places) < quorum:
            raise ProtocolError(f"{len(places)} sums of columns, {quorum} are needed")
        at = _contradiction(left, places, quorum)
        if at is None:
            break
        wrong = wrong_places({place: int(left[place][at]) for place in places}, quorum, PRIME)
        if wrong is None:
            raise ProtocolError(
                "the silos' sums contradict each other and too few are there to tell which are wrong",
                "ask again: the more silos open, the more wrong sums can be told from right ones",
            )
        for place in wrong:
            inconsistent_silos.append(place)
            del left[place]
    chosen = places[:quorum]
    weights = _lagrange(tuple(place + 1 for place in chosen), 0)
    return _blockwise(weights, [left[place] for place in chosen]), tuple(sorted(inconsistent_silos))


def _contradiction(sums: Mapping[int, Elements], places: tuple[int, ...], quorum: int) -> int | None:
    """Return an index at which no polynomial of degree below `quorum` fits the columns, or None."""
    for first in range(len(places) - quorum):
        run = places[first : first + quorum + 1]
        expected = _blockwise(
            _lagrange(tuple(place + 1 for place in run[:-1]), run[-1] + 1), [sums[p] for p in run[:-1]]
        )
        differs = expected != sums[run[-1]]
        if differs.any():
            return int(np.argmax(differs))
    return None


def next_by_differences(values: Sequence[Elements], out: Elements, scratch: Elements) -> None:
    """Write the value at the next point over `out`, from a quorum of values at consecutive points.

    The difference of order t of a polynomial of degree t - 1 is 0, so value_t = sum (-1)^(t-1-k) C(t, k) value_k.
    """
    quorum = len(values)
    if 2**quorum * PRIME >= 2**64:
        np.copyto(out, combined(tuple((-1) ** (quorum - 1 - k) * comb(quorum, k) for k in range(quorum)), values))
        return
    # With small weights words may wrap; adding a multiple of p brings the result back into [0, 2^64).
    lift = np.uint64(2 ** (quorum - 1) * PRIME)
    (np.add if quorum % 2 else np.subtract)(lift, values[0], out=out)
    for k in range(1, quorum // 2 + 1):
        mirror, weight = quorum - k, np.uint64(comb(quorum, k))
        if mirror == k:
            np.multiply(values[k], weight, out=scratch)
        else:
            (np.subtract if quorum % 2 else np.add)(values[mirror], values[k], out=scratch)
            np.multiply(scratch, weight, out=scratch)
        (np.add if (mirror - quorum + 1) % 2 == 0 else np.subtract)(out, scratch, out=out)
    _reduced(out, scratch)


@lru_cache(maxsize=4096)
def _lagrange(points: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Return the weights with which the values at `points` give the value at `at`, each within ±p / 2."""
    return tuple(map(_centred, lagrange(points, at, PRIME)))


def _centred(value: int) -> int:
    return value if value <= PRIME // 2 else value - PRIME


def _blocks(stream: UniformStream, values: int) -> Iterator[Elements]:
    """Yield a mask's values in blocks, each of which is overwritten by the next."""
    scratch = np.empty(min(_STEP, values), np.uint64)
    for start in range(0, values, _STEP):
        block = scratch[: values - start]
        stream.fill(block)
        yield block


def _blockwise(weights: tuple[int, ...], vectors: Sequence[Elements]) -> Elements:
    size = vectors[0].size
    result = np.empty(size, np.uint64)
    for start in range(0, size, _STEP):
        result[start : start + _STEP] = combined(weights, [vector[start : start + _STEP] for vector in vectors])
    return result


def combined(weights: tuple[int, ...], vectors: Sequence[Elements]) -> Elements:
    """Return the sum of weight times vector modulo p, for weights within ±p / 2 and vectors over [0, p)."""
    positive = sum(weight for weight in weights if weight > 0)
    negative = sum(-weight for weight in weights if weight < 0)
    # Small weights: a multiple of p makes the negative part positive, and the total stays below 2^64.
    if (positive + negative + 1) * PRIME < 2**64:
        total = np.full(vectors[0].shape, np.uint64(negative * PRIME))
        scratch = np.empty_like(total)
        for weight, vector in zip(weights, vectors, strict=True):
            operation = np.add if weight > 0 else np.subtract
            operation(total, np.multiply(vector, np.uint64(abs(weight)), out=scratch), out=total)
        return _reduced(total, scratch)
    # Any weights, in limbs of 28 bits: two times 100 products of two limbs stay below 2^64.
    high = np.zeros(vectors[0].shape, np.uint64)
    middle, low = high.copy(), high.copy()
    for weight, vector in zip(weights, vectors, strict=True):
        upper, lower = (np.uint64(part) for part in divmod(weight % PRIME, 2**28))
        vector_upper, vector_lower = vector >> _LIMB, vector & _LIMB_CUT
        high += vector_upper * upper
        middle += vector_upper * lower
        middle += vector_lower * upper
        low += vector_lower * lower
    # high * 2^56 + middle * 2^28 + low, with 2^56 = 5; each part is brought below 2^57 before they are added.
    middle = _reduced(middle, np.empty_like(high))
    shifted = ((middle & _LIMB_CUT) << _LIMB) + (middle >> _LIMB) * _FOLD
    total = _reduced(high, np.empty_like(high)) * _FOLD + shifted + _reduced(low, np.empty_like(high))
    return _reduced(total, np.empty_like(high))


def _reduced(words: Elements, scratch: Elements) -> Elements:
    """Reduce words of up to 64 bits modulo p in place and return them."""
    np.right_shift(words, _SHIFT, out=scratch)
    np.multiply(scratch, _FOLD, out=scratch)
    np.bitwise_and(words, _LOW, out=words)
    np.add(words, scratch, out=words)  # at most 2^56 + 1274, and hardly ever beyond p
    if words.size and words.max() >= _P:
        np.minimum(words, np.subtract(words, _P, out=scratch), out=words)  # the smaller lies below p
    return words
