"""The backend `bfv`: exact sums under homomorphic encryption, with the masks inside the encrypted slots.

Brakerski-Fan-Vercauteren (Fan and Vercauteren, ePrint 2012/144) by TenSEAL, degree 4,096, moduli of 60 and 49 bits,
4,096 slots of Z_t with t the largest batching prime below 2^42. Values are packed into lanes where the range allows,
masked modulo t, then encrypted. A party with the private key alone sees uniform noise in one masked input, and a party
with the masks alone sees a ciphertext that it cannot decrypt.

Promise: the sum is exact. A fresh ciphertext has a noise budget of over 10 bits, and the noise of a sum of 400 is at
most 400 times that of one, which uses less than 9 bits. A sum without a budget left is refused at decryption.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crypto.backends import lattice
from crypto.backends.elements import ElementSum, read_elements
from crypto.backends.keystream import apply_modular
from crypto.backends.lanes import Lanes
from crypto.backends.lattice_parameters import BATCHING_PRIME, BFV, CIPHERTEXT_WORDS, MODULUS
from crypto.backends.scheme import (
    Accumulator,
    Bytes,
    Opened,
    RoundKey,
    Scheme,
    Shape,
    Units,
    check_capacity,
    key_id,
    only_column,
)
from crypto.errors import RangeError
from crypto.keys import Secret

NAME = "bfv"


@dataclass(frozen=True, slots=True)
class BfvScheme:
    """`bfv` in one round."""

    shape: Shape
    public: bytes
    lanes: Lanes
    key_id: bytes
    modulus: int = BATCHING_PRIME
    columns: int = 1
    is_masked: bool = True

    def slots(self, index: int) -> int:
        return self.lanes.slots(self.shape.values(index))

    def chunk_bytes(self, column: int, index: int) -> int:
        return self.sum_bytes(index)

    def sum_bytes(self, index: int) -> int:
        return lattice.chunk_bytes(self.slots(index))

    def blind(
        self, units: Units, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
    ) -> Iterator[tuple[bytes, ...]]:
        chunks = self.shape.cut(units)

        def masked() -> Iterator[Units]:
            for index, chunk in enumerate(chunks):
                slots = self.lanes.pack(chunk)
                apply_modular(slots, self.modulus, index, added_seeds, subtracted_seeds)
                yield slots.view(np.int64)

        counts = [self.slots(index) for index in range(self.shape.chunks)]
        encrypted = lattice.encrypt(BFV, self.public, 0, counts, masked())
        return ((self.key_id + ciphertexts,) for ciphertexts in encrypted)

    def accumulator(self, column: int) -> Accumulator:
        lengths = [lattice.ciphertexts(self.slots(index)) * CIPHERTEXT_WORDS for index in range(self.shape.chunks)]
        return ElementSum(MODULUS, lengths, self.shape.silos, self.key_id)

    def open(
        self,
        sums: Mapping[int, Sequence[Bytes]],
        added_seeds: Sequence[bytes],
        subtracted_seeds: Sequence[bytes],
        secret: Secret | None = None,
    ) -> Opened:
        chunks = only_column(self, sums)
        words = [
            read_elements(chunk, MODULUS, (len(chunk) - len(self.key_id)) // 8, index, self.key_id)
            for index, chunk in enumerate(chunks)
        ]
        parts = []
        for index, found in enumerate(lattice.decrypt(BFV, self.public, 0, secret, words)):
            if found[self.slots(index) :].any():
                raise RangeError(f"chunk {index} of the sum has values beyond its length: it was altered")
            slots = found[: self.slots(index)].astype(np.uint64)
            apply_modular(slots, self.modulus, index, added_seeds, subtracted_seeds)
            parts.append(self.lanes.unpack(slots, self.shape.values(index)))
        return Opened(self.shape.check_sum(np.concatenate(parts)))


@dataclass(frozen=True, slots=True)
class BfvBackend:
    """Exact sums of values up to 2^41 / silos."""

    name: str = NAME
    has_key: bool = True

    def capacity(self, silos: int) -> int:
        return (BATCHING_PRIME - 1) // 2 // silos

    def create_key(self) -> RoundKey:
        return lattice.create_key(BFV)

    def bind(self, shape: Shape, public: bytes = b"") -> Scheme:
        check_capacity(self, shape)
        lattice.check_public(public)
        return BfvScheme(shape, public, Lanes.fit(BATCHING_PRIME, shape), key_id(NAME, public))
