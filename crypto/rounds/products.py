"""Prove a long sum by inner products, for the price of the sum alone: docs/protocol.md section 7.8.

The survivor set names the digest of the sum before anybody tells a nonce. The coefficients follow from all nonces, to
which the manifest holds commitments. Each survivor signs two inner products modulo 2^64 of its own blinded vector, and
a recipient compares their sums with those of the sum that it was given.

Promise: if one honest silo's nonce is among those told, a sum that is not that of the blinded vectors passes with a
probability of at most 2^-40, whichever nonces are withheld. A vector without products is added itself; if so many
nonces are missing that their choice could help, all are. The rows of coefficients are those of a Toeplitz matrix:
Krawczyk, CRYPTO 1994; RFC 4418 (UMAC), section 5.4.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from math import comb

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.backends.masking import MaskingScheme
from crypto.backends.scheme import Scheme
from crypto.backends.unreduced import BLOCK
from crypto.errors import ProtocolError
from crypto.keys import derive
from crypto.ring import Words
from crypto.rounds.manifest import Manifest
from crypto.rounds.messages import Challenge, Products, SurvivorSet
from crypto.wire import Signed, digest_of

WORD_BITS = 64
ERROR_LOG2 = 40  # a wrong sum passes with a probability of at most 2^-40
_AES_BYTES, _WORD_BYTES = 16, 8
_ZEROS = memoryview(bytes(_WORD_BYTES * BLOCK))


class InnerProducts:
    """Two inner products modulo 2^64 of a vector that is given coordinate after coordinate; memory is that of a block.

    With c = c0, c1, ... from the seed, they are those of the coordinates with c0, c1, ... and with c1, c2, ...
    """

    __slots__ = ("_block", "_coefficients", "_stream", "_values")

    def __init__(self, seed: bytes) -> None:
        self._stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(_AES_BYTES))).encryptor()
        self._block, self._coefficients = np.empty(BLOCK, np.uint64), np.empty(BLOCK + 1, np.uint64)
        self._fill(0, 1)
        self._values = (0, 0)

    def add(self, coordinates: Words) -> None:
        """Go on with the next coordinates, in words of 32 or 64 bits."""
        for start in range(0, coordinates.size, BLOCK):
            block = coordinates[start : start + BLOCK]
            if block.dtype != np.uint64 or not block.flags.aligned:  # those of received bytes are not
                np.copyto(self._block[: block.size], block)
                block = self._block[: block.size]
            self._fill(1, block.size)
            first, second = self._coefficients[: block.size], self._coefficients[1 : 1 + block.size]
            found = int(np.einsum("i,i", block, first)), int(np.einsum("i,i", block, second))  # modulo 2^64
            self._values = added((self._values, found))
            self._coefficients[0] = self._coefficients[block.size]

    @property
    def values(self) -> tuple[int, int]:
        return self._values

    def _fill(self, start: int, count: int) -> None:
        part = self._coefficients[start : start + count]
        self._stream.update_into(_ZEROS[: part.nbytes], part.data.cast("B"))


def added(values: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Return the sums of pairs of inner products."""
    first, second = (sum(one[place] for one in values) % (1 << WORD_BITS) for place in (0, 1))
    return first, second


def encode(values: tuple[int, int]) -> bytes:
    """Return two inner products as they stand in `Products`."""
    return b"".join(value.to_bytes(_WORD_BYTES, "little") for value in values)


def decode(values: bytes) -> tuple[int, int]:
    """Return the two inner products of a `Products`."""
    return int.from_bytes(values[:_WORD_BYTES], "little"), int.from_bytes(values[_WORD_BYTES:], "little")


def long_scheme(scheme: Scheme) -> MaskingScheme | None:
    """Return the scheme of a long round; None of another one."""
    return scheme if isinstance(scheme, MaskingScheme) and scheme.shape.is_long else None


def passing_log2(survivors: int, bits: int) -> int:
    """Return how unlikely a wrong sum passes under one challenge, as -log2; `bits` are those of a coordinate of one.

    An error is smaller than 2^(v + 1) with v as below, so it is divisible by no higher power of two than 2^v.
    """
    highest = (survivors * ((1 << bits) - 1)).bit_length() - 1
    return 2 * (WORD_BITS - highest)


def most_absent(survivors: int, bits: int) -> int:
    """Return how many survivors' nonces may be missing before contributions are fetched whole.

    The aggregator chooses whose nonces it passes on, and so among as many challenges as there are such choices.
    """
    choices, spare = 1, 1 << max(0, passing_log2(survivors, bits) - ERROR_LOG2)
    for absent in range(1, survivors + 1):
        choices += comb(survivors, absent)
        if choices > spare:
            return absent - 1
    return survivors


def fetched_whole(
    scheme: Scheme, survivors: Sequence[str], opened: Collection[str], proven: Collection[str]
) -> tuple[str, ...]:
    """Return the survivors whose contributions a recipient adds itself, of those that told nonces and gave products.

    There are all of them in a round that is not long, and none in `shares`, where the silos add.
    """
    if scheme.columns > 1:
        return ()
    long = long_scheme(scheme)
    absent = len(set(survivors).difference(opened))
    if long is None or absent > most_absent(len(survivors), long.unreduced.bits):
        return tuple(survivors)
    return tuple(silo for silo in survivors if silo not in proven)


def challenge_of(
    manifest: Manifest, manifest_hash: bytes, split: SurvivorSet, split_hash: bytes, nonces: Mapping[str, bytes]
) -> Challenge:
    """Return the challenge of these nonces, by silo; raises ProtocolError on one that its silo did not commit to."""
    survivors = {survivor.silo for survivor in split.survivors}
    if strangers := set(nonces) - survivors:
        raise ProtocolError(f"{', '.join(sorted(strangers))} told a nonce, and is not among the survivors")
    for silo, expected in zip(manifest.silos, manifest.nonces or (), strict=True):
        if silo in nonces and sha256(nonces[silo]).digest() != expected:
            raise ProtocolError(f"the nonce of {silo!r} is not the one that it committed to")
    told = tuple(nonces.get(silo, b"") for silo in manifest.silos)
    return Challenge(manifest_hash=manifest_hash, split_hash=split_hash, nonces=told)


def check_challenge(
    manifest: Manifest, manifest_hash: bytes, split: SurvivorSet, split_hash: bytes, challenge: Challenge
) -> None:
    """Raise ProtocolError unless a challenge is of this round and split, and of nonces that were committed to."""
    if len(challenge.nonces) != len(manifest.silos):
        raise ProtocolError("the challenge does not have a place for the nonce of each member")
    told = {silo: nonce for silo, nonce in zip(manifest.silos, challenge.nonces, strict=True) if nonce}
    if challenge != challenge_of(manifest, manifest_hash, split, split_hash, told):
        raise ProtocolError("the challenge belongs to another round or survivor set")


def coefficients_of(challenge: Challenge) -> InnerProducts:
    """Return the inner products of a challenge, of no coordinate yet."""
    return InnerProducts(derive(digest_of(challenge), "products"))


def products_of(scheme: MaskingScheme, challenge: Challenge, pieces: Callable[[int], bytes]) -> tuple[int, int]:
    """Return the inner products of a blinded vector; `pieces` returns a chunk of it, by its number."""
    found = coefficients_of(challenge)
    for index in range(scheme.shape.chunks):
        found.add(scheme.coordinates(index, pieces(index)))
    return found.values


def check_bound(signed: Signed[Products], challenge: Challenge) -> None:
    """Raise ProtocolError unless products are of this challenge, and so of its round and survivor set."""
    message = signed.message
    expected = challenge.manifest_hash, challenge.split_hash, digest_of(challenge)
    if (message.manifest_hash, message.split_hash, message.challenge) != expected:
        raise ProtocolError(f"the products of {signed.signer!r} belong to another round, survivor set or challenge")
