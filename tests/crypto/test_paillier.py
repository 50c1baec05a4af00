"""Ciphertexts are Paillier's, as phe opens them; keys, packing and the comb agree with plain integer arithmetic."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.backends.paillier import (
    CIPHERTEXT_BYTES,
    MODULUS_BITS,
    Comb,
    Packing,
    PaillierBackend,
    PaillierScheme,
    primes,
)
from crypto.backends.scheme import KEY_ID_BYTES, RoundKey, Shape
from crypto.errors import CryptoError, RangeError
from crypto.keys import Secret

pytestmark = pytest.mark.he


@cache
def pair() -> RoundKey:
    return PaillierBackend().create_key()


def scheme_of(length: int, silos: int = 3, limit: int = 1000) -> PaillierScheme:
    bound = PaillierBackend().bind(Shape(length, silos, silos, limit), pair().public)
    assert isinstance(bound, PaillierScheme)
    return bound


def phe_key() -> Any:
    from phe import PaillierPrivateKey, PaillierPublicKey

    p, q = primes(pair().secret.raw)
    return PaillierPrivateKey(PaillierPublicKey(p * q), p, q)


def test_the_key_is_one_of_blum_primes_that_the_secret_gives() -> None:
    p, q = primes(pair().secret.raw)
    assert p != q
    assert p % 4 == q % 4 == 3
    assert (p * q).bit_length() == MODULUS_BITS
    assert p.bit_length() == q.bit_length() == MODULUS_BITS // 2
    assert pow(2, p - 1, p) == pow(3, q - 1, q) == 1
    assert math.gcd(p * q, (p - 1) * (q - 1)) == 1
    assert primes(pair().secret.raw) == (p, q)
    assert (p * q).to_bytes(384, "big") == pair().public[:384]


def test_the_fixed_power_is_an_nth_residue_of_a_non_residue() -> None:
    p, q = primes(pair().secret.raw)
    n, base = p * q, int.from_bytes(pair().public[384:], "big")
    assert pow(base, (p - 1) * (q - 1), n * n) == 1  # so it encrypts 0
    assert phe_key().raw_decrypt(base) == 0
    # -x^2 is a non-residue modulo both primes, and n is odd.
    assert pow(base, (p - 1) // 2, p) == p - 1
    assert pow(base, (q - 1) // 2, q) == q - 1


def test_phe_opens_what_is_sent_and_what_is_added() -> None:
    from phe import EncryptedNumber

    scheme = scheme_of(5)
    first, second = np.array([1, -2, 3, -1000, 1000]), np.array([10, 20, -30, 1000, -7])
    accumulator = scheme.accumulator(0)
    for vector in (first, second):
        ((chunk,),) = scheme.blind(vector, [], [])
        accumulator.add(0, chunk)
    (total,) = accumulator.chunks()
    private = phe_key()
    assert len(total) == KEY_ID_BYTES + CIPHERTEXT_BYTES
    number = private.decrypt(EncryptedNumber(private.public_key, int.from_bytes(total[KEY_ID_BYTES:], "big")))
    expected = sum(int(value) << (scheme.packing.bits * lane) for lane, value in enumerate(first + second))
    assert number == expected


def test_ciphertexts_of_phe_can_be_added_too() -> None:
    scheme, private = scheme_of(3), phe_key()
    raw = private.public_key.raw_encrypt(scheme.packing.pack(np.array([4, -5, 6]))[0] % scheme.modulus)
    accumulator = scheme.accumulator(0)
    accumulator.add(0, scheme.key_id + raw.to_bytes(CIPHERTEXT_BYTES, "big"))
    ((chunk,),) = scheme.blind(np.array([1, 1, 1]), [], [])
    accumulator.add(0, chunk)
    assert scheme.open({0: accumulator.chunks()}, [], [], pair().secret).units.tolist() == [5, -4, 7]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**512 - 1) | st.sampled_from([0, 1, 2**511, 2**512 - 1, 2**64, 2**64 - 1]))
def test_the_comb_is_the_power(exponent: int) -> None:
    modulus, base = 2**521 - 1, 3**300
    assert _comb(base, modulus).power(exponent) == pow(base, exponent, modulus)


@cache
def _comb(base: int, modulus: int) -> Comb:
    from gmpy2 import mpz

    return Comb(mpz(base), mpz(modulus))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2**62), st.integers(1, 200), st.data())
def test_packing_survives_a_sum(span: int, length: int, data: st.DataObject) -> None:
    packing = Packing.fit(span)
    assert 2 ** (packing.bits * packing.lanes) <= 2 ** (MODULUS_BITS - 1)
    half = span // 2
    value = st.sampled_from([-half, half, 0]) | st.integers(-half, half)
    vectors = [data.draw(st.lists(value, min_size=length, max_size=length)) for _ in range(2)]
    packed = [packing.pack(np.array(vector, np.int64)) for vector in vectors]
    unpacked = [value for a, b in zip(*packed, strict=True) for value in packing.unpack(a + b)]
    assert unpacked[:length] == [a + b for a, b in zip(*vectors, strict=True)]


def test_78_lanes_of_39_bits() -> None:
    packing = Packing.fit(2**38 - 1)
    assert (packing.bits, packing.lanes) == (39, 78)
    assert Packing.fit(2**38).bits == 40
    with pytest.raises(RangeError, match="outside its packing"):
        packing.unpack(2 ** (39 * 78))


def test_more_than_10000_values_are_refused_with_a_hint() -> None:
    scheme_of(10_000)
    with pytest.raises(RangeError, match="at most 10000 values, the round has 10001") as caught:
        scheme_of(10_001)
    assert "bfv" in caught.value.hint


def test_public_keys_that_are_none() -> None:
    good = pair().public
    n, base = good[:384], good[384:]
    even = n[:-1] + bytes([n[-1] & 0xFE])
    short = b"\x7f" + n[1:]
    for public in (even + base, short + base, n + bytes(768), n + bytes(767) + b"\1", n + b"\xff" * 768):
        with pytest.raises(RangeError, match="no Paillier key"):
            PaillierBackend().bind(Shape(1, 3, 3, 1), public)
    multiple = (5 * int.from_bytes(n, "big")).to_bytes(768, "big")  # shares a factor with n
    with pytest.raises(RangeError, match="no Paillier key"):
        PaillierBackend().bind(Shape(1, 3, 3, 1), n + multiple)


def test_ciphertexts_that_are_none() -> None:
    scheme = scheme_of(3)
    modulus = scheme.modulus**2
    for number in (0, modulus, modulus + 1, 2**6144 - 1):
        with pytest.raises(RangeError, match="no element of the group"):
            scheme.accumulator(0).add(0, scheme.key_id + number.to_bytes(CIPHERTEXT_BYTES, "big"))


def test_a_secret_of_another_key_is_refused() -> None:
    scheme = scheme_of(3)
    ((chunk,),) = scheme.blind(np.array([1, 2, 3]), [], [])
    with pytest.raises(CryptoError, match="not that of this round's public key"):
        scheme.open({0: [chunk]}, [], [], Secret.generate())


def test_an_altered_sum_is_noticed() -> None:
    """Any change of a ciphertext gives a random number, which no sum of these lanes is."""
    scheme = scheme_of(3)
    ((chunk,),) = scheme.blind(np.array([1, 2, 3]), [], [])
    for at in (KEY_ID_BYTES + 5, len(chunk) - 1):
        altered = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
        with pytest.raises(RangeError):
            scheme.open({0: [altered]}, [], [], pair().secret)


def test_secrets_are_not_printed() -> None:
    p, _ = primes(pair().secret.raw)
    for thing in (pair(), scheme_of(3), scheme_of(3).accumulator(0)):
        assert str(p) not in repr(thing)
        assert pair().secret.raw.hex() not in repr(thing)
