"""The backend `ckks`: sums under approximate homomorphic encryption, rounded back to the grid they came from.

Cheon, Kim, Kim and Song (ASIACRYPT 2017) by TenSEAL, degree 4,096, moduli of 60 and 49 bits: 2,048 complex slots, hence
4,096 values in one ciphertext. The masks are uniform words modulo q, added to the first polynomial of a ciphertext
after encryption: with any one mask missing that polynomial is uniform, and the second does not depend on the values.

The scale is the largest power of two that the round's range leaves room for: with sums within ±span, a coefficient is
at most sqrt(2) * span * scale, below q / 2. Rounding gives the exact sum while the error of every value is below half a
step. Measured in the largest round (400 silos, the smallest scale, 2^20): the error deviates by 0.013 of a step, so
half a step is about 38 deviations away; the largest error seen was 0.115 of a step (tests/crypto/test_lattice.py). Only
rounded values leave this module: a raw decryption would show the noise, and with it the private key (Li and Micciancio,
EUROCRYPT 2021).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crypto.backends import lattice
from crypto.backends.elements import ElementSum, read_elements
from crypto.backends.keystream import Elements, apply_modular
from crypto.backends.lattice_parameters import CKKS, DEGREE, MODULUS
from crypto.backends.scheme import (
    KEY_ID_BYTES,
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
from crypto.keys import Secret

NAME = "ckks"
MIN_SCALE_BITS = 20
MAX_SCALE_BITS = 50  # above this, encoded values no longer fit a double
_COEFFICIENT_BITS = 58  # times sqrt(2) it stays below q / 2
MAX_SPAN: int = 2 ** (_COEFFICIENT_BITS - MIN_SCALE_BITS)


@dataclass(frozen=True, slots=True)
class CkksScheme:
    """`ckks` in one round."""

    shape: Shape
    public: bytes
    scale_bits: int
    key_id: bytes
    modulus: int = MODULUS
    columns: int = 1
    is_masked: bool = True

    def chunk_bytes(self, column: int, index: int) -> int:
        return self.sum_bytes(index)

    def sum_bytes(self, index: int) -> int:
        return lattice.chunk_bytes(self.shape.values(index))

    def blind(
        self, units: Units, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
    ) -> Iterator[tuple[bytes, ...]]:
        chunks = self.shape.cut(units)
        counts = [self.shape.values(index) for index in range(self.shape.chunks)]

        def masked() -> Iterator[tuple[bytes, ...]]:
            encrypted = lattice.encrypt(CKKS, self.public, self.scale_bits, counts, chunks)
            for index, ciphertexts in enumerate(encrypted):
                words = np.frombuffer(ciphertexts, np.dtype("<u8")).copy()
                _mask_first_polynomials(words, index, added_seeds, subtracted_seeds)
                yield (self.key_id + words.tobytes(),)

        return masked()

    def accumulator(self, column: int) -> Accumulator:
        lengths = [(self.sum_bytes(index) - KEY_ID_BYTES) // 8 for index in range(self.shape.chunks)]
        return ElementSum(MODULUS, lengths, self.shape.silos, self.key_id)

    def open(
        self,
        sums: Mapping[int, Sequence[Bytes]],
        added_seeds: Sequence[bytes],
        subtracted_seeds: Sequence[bytes],
        secret: Secret | None = None,
    ) -> Opened:
        words = []
        for index, chunk in enumerate(only_column(self, sums)):
            count = (len(chunk) - KEY_ID_BYTES) // 8
            words.append(read_elements(chunk, MODULUS, count, index, self.key_id).copy())
            _mask_first_polynomials(words[-1], index, added_seeds, subtracted_seeds)
        opened = lattice.decrypt(CKKS, self.public, self.scale_bits, secret, words)
        parts = [part[: self.shape.values(index)] for index, part in enumerate(opened)]
        return Opened(self.shape.check_sum(np.concatenate(parts)))


@dataclass(frozen=True, slots=True)
class CkksBackend:
    """Sums of values up to 2^38 / silos."""

    name: str = NAME
    has_key: bool = True

    def capacity(self, silos: int) -> int:
        return MAX_SPAN // silos

    def create_key(self) -> RoundKey:
        return lattice.create_key(CKKS)

    def bind(self, shape: Shape, public: bytes = b"") -> Scheme:
        check_capacity(self, shape)
        lattice.check_public(public)
        scale_bits = min(MAX_SCALE_BITS, _COEFFICIENT_BITS - (shape.span - 1).bit_length())
        return CkksScheme(shape, public, scale_bits, key_id(NAME, public))


def _mask_first_polynomials(
    words: Elements, index: int, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
) -> None:
    pairs = words.reshape(-1, 2, DEGREE)
    first = pairs[:, 0].flatten()
    apply_modular(first, MODULUS, index, added_seeds, subtracted_seeds)
    pairs[:, 0] = first.reshape(-1, DEGREE)
