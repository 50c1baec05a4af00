"""The backend `paillier`: exact sums of small vectors, encrypted under the recipients' key.

Paillier (EUROCRYPT 1999) with a modulus n of 3,072 bits; `phe` decrypts, gmpy2 multiplies. Values are packed as
balanced digits to a power of two, as many as the round's range leaves room for (78 of 39 bits), and the masks are
uniform modulo n on the packed number. Ciphertexts are added by multiplying them modulo n^2.

Encryption is (1 + n * m) * hs^r mod n^2. As in Damgard, Jurik and Nielsen (Int. J. Inf. Sec. 9, 2010), hs is one n-th
power in the public key, hs = (-x^2)^n, so its powers come from tables (Lim and Lee, CRYPTO 1994), and r is short.
Assumptions: decisional composite residuosity, and that hs^r with r of 512 bits is indistinguishable from hs^r with r of
full length. For exponents of half the length of n this follows from the hardness of factoring (Goldreich and Rosen,
J. Cryptology 16, 2003). For 512 bits it is the assumption of short discrete exponents (Koshiba and Kurosawa, PKC 2004);
the known attacks on it take the square root of the number of exponents, 2^256 steps. Neither assumption protects one
contribution from the aggregator or from a party with the private key: the masks inside the plaintext do.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crypto.backends.keystream import integers
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
    check_size,
    key_id,
    only_column,
)
from crypto.errors import CryptoError, ProtocolError, RangeError, WireError
from crypto.keys import Secret, derive
from crypto.randomness import token

NAME = "paillier"
MAX_VALUES = 10_000
MODULUS_BITS = 3072
_N_BYTES = MODULUS_BITS // 8
CIPHERTEXT_BYTES = 2 * _N_BYTES
PUBLIC_BYTES = _N_BYTES + CIPHERTEXT_BYTES
_EXPONENT_BITS = 512
_TEETH, _TABLES = 8, 4  # of the comb: bits looked up at once, tables for parts of the exponent
_ROW = _EXPONENT_BITS // _TEETH
_PART = _ROW // _TABLES
_PRIME_ROUNDS = 40  # Miller-Rabin: a composite passes with at most 2^-80


def _gmpy2() -> Any:
    try:
        import gmpy2
    except ImportError as err:
        raise CryptoError("the backend 'paillier' needs gmpy2 and phe", "pip install 'consilo[he]'") from err
    return gmpy2


@dataclass(frozen=True, slots=True)
class _Public:
    """A public key that was read, and its modulus n^2."""

    n: Any
    n_squared: Any
    base: Any

    @classmethod
    def read(cls, public: bytes) -> "_Public":
        """Parse and check a public key; raises WireError or RangeError if it is not valid."""
        if len(public) != PUBLIC_BYTES:
            raise WireError(f"a public key of {len(public)} bytes, expected {PUBLIC_BYTES}")
        mpz = _gmpy2().mpz
        n, base = (mpz(int.from_bytes(part, "big")) for part in (public[:_N_BYTES], public[_N_BYTES:]))
        if n.bit_length() != MODULUS_BITS or not n % 2 or not 1 < base < n * n or math.gcd(int(base), int(n)) != 1:
            raise RangeError("no Paillier key of 3,072 bits with an n-th power coprime to it")
        return cls(n, n * n, base)


@dataclass(frozen=True, slots=True)
class Packing:
    """Balanced digits to the base 2^bits, `lanes` of them in one number."""

    bits: int
    lanes: int

    @classmethod
    def fit(cls, span: int) -> "Packing":
        bits = (2 * span).bit_length()  # 2^bits >= 2 * span + 1
        return cls(bits, (MODULUS_BITS - 1) // bits)

    @property
    def offset(self) -> int:
        """Half a digit in every lane; adding it makes all digits of a sum non-negative."""
        return sum(1 << (self.bits * lane + self.bits - 1) for lane in range(self.lanes))

    def pack(self, units: Units) -> list[int]:
        """Return one signed number for every run of `lanes` values."""
        numbers = []
        for start in range(0, units.size, self.lanes):
            number = 0
            for value in reversed(units[start : start + self.lanes].tolist()):
                number = (number << self.bits) + value
            numbers.append(number)
        return numbers

    def unpack(self, number: int) -> list[int]:
        """Return the values in a signed number; raises RangeError if the number is too large for its lanes."""
        raised, half, cut = number + self.offset, 1 << (self.bits - 1), (1 << self.bits) - 1
        if not 0 <= raised < 1 << (self.bits * self.lanes):
            raise RangeError("a sum outside its packing: it was altered, or masks are left in it")
        return [(raised >> (self.bits * lane) & cut) - half for lane in range(self.lanes)]


class Comb:
    """Powers of one base with short exponents, from tables (Lim and Lee): 64 products and 15 squares each."""

    __slots__ = ("_modulus", "_tables")

    def __init__(self, base: Any, modulus: Any) -> None:
        powers = [base]  # base^(2^k), then every _PART-th of them is used
        for _ in range(_EXPONENT_BITS - _PART):
            powers.append(powers[-1] * powers[-1] % modulus)
        self._modulus, self._tables = modulus, []
        for part in range(_TABLES):
            table = [_gmpy2().mpz(1)]
            for tooth in range(_TEETH):
                power = powers[_ROW * tooth + _PART * part]
                table += [entry * power % modulus for entry in table]
            self._tables.append(table)

    def power(self, exponent: int) -> Any:
        bits = np.unpackbits(
            np.frombuffer(exponent.to_bytes(_EXPONENT_BITS // 8, "little"), np.uint8), bitorder="little"
        )
        lookups = np.packbits(bits.reshape(_TEETH, _TABLES, _PART), axis=0, bitorder="little")[0]
        result = _gmpy2().mpz(1)
        for column in reversed(range(_PART)):
            result = result * result % self._modulus
            for table, lookup in zip(self._tables, lookups[:, column].tolist(), strict=True):
                result = result * table[lookup] % self._modulus
        return result


class PaillierSum:
    """An accumulator of ciphertexts: products modulo n^2."""

    __slots__ = ("_added", "_scheme", "_sum")

    def __init__(self, scheme: "PaillierScheme") -> None:
        self._scheme, self._added = scheme, 0
        self._sum = [_gmpy2().mpz(1)] * scheme.ciphertexts

    def check(self, index: int, chunk: bytes) -> None:
        self._scheme.read(chunk, index)

    def chunk(self, index: int) -> bytes:
        return self._scheme.write(self._sum)

    def add(self, index: int, chunk: bytes) -> None:
        found = self._scheme.read(chunk, index)
        if self._added == self._scheme.shape.silos:
            raise ProtocolError(f"more than {self._added} contributions to chunk {index}")
        modulus = self._scheme.key.n_squared
        self._sum = [total * one % modulus for total, one in zip(self._sum, found, strict=True)]
        self._added += 1

    def chunks(self) -> list[bytes]:
        if not self._added:
            raise ProtocolError("the sum holds no contribution, or holds one in part")
        return [self._scheme.write(self._sum)]


@dataclass(frozen=True, slots=True)
class PaillierScheme:
    """`paillier` in one round; a vector of at most 10,000 values is one chunk."""

    shape: Shape
    public: bytes
    key: _Public
    packing: Packing
    key_id: bytes
    columns: int = 1
    is_masked: bool = True

    @property
    def modulus(self) -> int:
        return int(self.key.n)

    @property
    def ciphertexts(self) -> int:
        return -(-self.shape.length // self.packing.lanes)

    def chunk_bytes(self, column: int, index: int) -> int:
        return self.sum_bytes(index)

    def sum_bytes(self, index: int) -> int:
        return KEY_ID_BYTES + -(-self.shape.values(index) // self.packing.lanes) * CIPHERTEXT_BYTES

    def blind(
        self, units: Units, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
    ) -> Iterator[tuple[bytes, ...]]:
        chunks = self.shape.cut(units)

        def encrypted() -> Iterator[tuple[bytes, ...]]:
            comb, key = Comb(self.key.base, self.key.n_squared), self.key
            for index, chunk in enumerate(chunks):
                numbers = self._masked(self.packing.pack(chunk), index, added_seeds, subtracted_seeds)
                yield (
                    self.write(
                        [
                            (1 + key.n * number)
                            * comb.power(int.from_bytes(token(_EXPONENT_BITS // 8), "big"))
                            % key.n_squared
                            for number in numbers
                        ]
                    ),
                )

        return encrypted()

    def accumulator(self, column: int) -> Accumulator:
        return PaillierSum(self)

    def open(
        self,
        sums: Mapping[int, Sequence[Bytes]],
        added_seeds: Sequence[bytes],
        subtracted_seeds: Sequence[bytes],
        secret: Secret | None = None,
    ) -> Opened:
        private = private_key(self.public, secret)
        values: list[int] = []
        for index, chunk in enumerate(only_column(self, sums)):
            numbers = [private.raw_decrypt(int(one)) for one in self.read(chunk, index)]
            for number in self._masked(numbers, index, added_seeds, subtracted_seeds):
                values += self.packing.unpack(number if number <= self.modulus // 2 else number - self.modulus)
        if any(values[self.shape.length :]):
            raise RangeError("a sum with values beyond its length: it was altered, or masks are left in it")
        units = np.array(values[: self.shape.length], np.int64)
        return Opened(self.shape.check_sum(units))

    def read(self, chunk: Bytes, index: int) -> list[Any]:
        """Return a chunk's ciphertexts; raises WireError, ProtocolError or RangeError."""
        check_size(chunk, self.sum_bytes(index), index)
        if chunk[:KEY_ID_BYTES] != self.key_id:
            raise ProtocolError(f"chunk {index} was encrypted under another key than this round's")
        mpz = _gmpy2().mpz
        found = [
            mpz(int.from_bytes(chunk[start : start + CIPHERTEXT_BYTES], "big"))
            for start in range(KEY_ID_BYTES, len(chunk), CIPHERTEXT_BYTES)
        ]
        if any(not 0 < one < self.key.n_squared for one in found):
            raise RangeError(f"chunk {index} holds a number that is no element of the group")
        return found

    def write(self, ciphertexts: Sequence[Any]) -> bytes:
        return self.key_id + b"".join(int(one).to_bytes(CIPHERTEXT_BYTES, "big") for one in ciphertexts)

    def _masked(
        self, numbers: list[int], index: int, added_seeds: Sequence[bytes], subtracted_seeds: Sequence[bytes]
    ) -> list[int]:
        modulus = self.modulus
        for sign, seeds in ((1, added_seeds), (-1, subtracted_seeds)):
            for seed in seeds:
                mask = integers(seed, modulus, index, len(numbers))
                numbers = [number + sign * value for number, value in zip(numbers, mask, strict=True)]
        return [number % modulus for number in numbers]


@dataclass(frozen=True, slots=True)
class PaillierBackend:
    """Exact sums of at most 10,000 values of up to 64 bits."""

    name: str = NAME
    has_key: bool = True

    def capacity(self, silos: int) -> int:
        return (2**63 - 1) // silos

    def create_key(self) -> RoundKey:
        secret = Secret.generate()
        return RoundKey(_public_key(*primes(secret.raw)), secret)

    def bind(self, shape: Shape, public: bytes = b"") -> Scheme:
        if shape.length > MAX_VALUES:
            raise RangeError(
                f"paillier carries at most {MAX_VALUES} values, the round has {shape.length}",
                "ask for fewer groups or statistics, or take the backend 'bfv' or 'masking'",
            )
        check_capacity(self, shape)
        return PaillierScheme(shape, public, _Public.read(public), Packing.fit(shape.span), key_id(NAME, public))


def primes(secret: bytes) -> tuple[int, int]:
    """Derive two primes from a secret: each of 1,536 bits and 3 modulo 4, their product of 3,072 bits."""
    found: list[int] = []
    counter = 0
    while len(found) < 2:
        raw = derive(secret, "paillier prime", str(counter), length=MODULUS_BITS // 16)
        candidate = int.from_bytes(raw, "big") | 3 << (MODULUS_BITS // 2 - 2) | 3
        counter += 1
        if _gmpy2().is_prime(candidate, _PRIME_ROUNDS) and candidate not in found:
            found.append(candidate)
    return found[0], found[1]


def _public_key(p: int, q: int) -> bytes:
    n = p * q
    root = int.from_bytes(token(_N_BYTES + 8), "big") % n
    base = _gmpy2().powmod(-root * root, n, n * n)
    return n.to_bytes(_N_BYTES, "big") + int(base).to_bytes(CIPHERTEXT_BYTES, "big")


def private_key(public: bytes, secret: Secret | None) -> Any:
    """Return phe's private key; raises CryptoError if the secret does not belong to the public key."""
    if secret is None:
        raise CryptoError("the sum is encrypted and this recipient has no secret of the round's key")
    try:
        from phe import PaillierPrivateKey, PaillierPublicKey
    except ImportError as err:
        raise CryptoError("the backend 'paillier' needs gmpy2 and phe", "pip install 'consilo[he]'") from err
    p, q = primes(secret.raw)
    if (p * q).to_bytes(_N_BYTES, "big") != public[:_N_BYTES]:
        raise CryptoError("the secret is not that of this round's public key")
    return PaillierPrivateKey(PaillierPublicKey(p * q), p, q)
