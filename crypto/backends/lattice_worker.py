"""SEAL's side of the `bfv` and `ckks` backends: the only module that loads TenSEAL, run by `crypto.backends.sandbox`.

SEAL objects become words, and words SEAL objects, through SEAL's own file format, in memory (memfd). This module writes
the header of everything that SEAL loads, with sizes that it computed, around words that were checked against their
modulus. SEAL 4.1, which TenSEAL 0.3.18 contains, has the header `<HBBBBHQ` (magic, its size, version, compression,
reserved, total size).

The private key comes from a 32-byte secret (the seed of SEAL's generator), the public key also from the operating
system's generator, so the secret alone rebuilds the private key.
"""

import math
import os
import struct
import sys
from typing import Any

from crypto.backends.sandbox import limit_this_process, serve

if __name__ == "__main__":
    limit_this_process(sys.argv[1:])

import numpy as np
import numpy.typing as npt
import pyarrow
import tenseal.sealapi as seal

from crypto.backends.lattice_parameters import (
    BATCHING_PRIME,
    BFV,
    CIPHERTEXT_BYTES,
    CIPHERTEXT_WORDS,
    CKKS,
    DECRYPT,
    DEGREE,
    ENCRYPT,
    KEY_MODULUS,
    KEYGEN,
    MODULUS,
    PUBLIC_BYTES,
    SETUP,
)
from crypto.keys import derive

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _NONE, _ZSTD = 0xA15E, 0, 2
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")  # parms id, NTT form, polynomials, degree, primes, scale, correction factor
_ARRAY_HEAD = _HEADER.size + 8
_MAX_SAVED = 1 << 20


class _File:
    """A file without a name that SEAL saves to and loads from."""

    def __init__(self) -> None:
        self._handle = os.memfd_create("seal")
        self._path = f"/proc/self/fd/{self._handle}"

    def saved(self, thing: Any, size: int) -> bytes:
        """Save an object and return its body, which must have `size` bytes."""
        os.ftruncate(self._handle, 0)
        thing.save(self._path)
        blob = os.pread(self._handle, _MAX_SAVED, 0)
        _, _, _, _, compression, _, total = _HEADER.unpack_from(blob)
        body = blob[_HEADER.size : total]
        if compression == _ZSTD:
            body = pyarrow.decompress(body, decompressed_size=size, codec="zstd", asbytes=True)
        if len(body) != size:
            raise ValueError(f"SEAL saved {len(body)} bytes, expected {size}")
        return body

    def load(self, thing: Any, context: Any, body: bytes) -> Any:
        """Load an object from its body, behind a header that this module writes."""
        blob = _framed(body)
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, blob, 0)
        thing.load(context, self._path)
        return thing


def _framed(body: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, 4, 3, _NONE, 0, _HEADER.size + len(body)) + body


def _words_framed(words: npt.NDArray[np.uint64]) -> bytes:
    return _framed(struct.pack("<Q", words.size) + words.astype("<u8").tobytes())


def _context(scheme: int, seed: bytes | None = None) -> Any:
    kind = seal.SCHEME_TYPE.BFV if scheme == BFV else seal.SCHEME_TYPE.CKKS
    parameters = seal.EncryptionParameters(kind)
    parameters.set_poly_modulus_degree(DEGREE)
    primes = seal.CoeffModulus.Create(DEGREE, [MODULUS.bit_length(), KEY_MODULUS.bit_length()])
    if [prime.value() for prime in primes] != [MODULUS, KEY_MODULUS]:
        raise ValueError("this SEAL makes other primes")
    parameters.set_coeff_modulus(primes)
    if scheme == BFV:
        parameters.set_plain_modulus(seal.Modulus(BATCHING_PRIME))
    if seed is not None:
        parameters.set_random_generator(seal.Blake2xbPRNGFactory(list(struct.unpack("<8Q", seed))))
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise ValueError(context.parameters_error_message())
    return context


class Seal:
    """What a worker knows after its setup: scheme, scale, public key and, at a recipient, the private key."""

    def __init__(self, setup: bytes) -> None:
        scheme, scale_bits, has_secret = SETUP.unpack_from(setup)
        if scheme not in (BFV, CKKS):
            raise ValueError(f"unknown scheme {scheme}")
        public, secret = setup[SETUP.size : SETUP.size + PUBLIC_BYTES], setup[SETUP.size + PUBLIC_BYTES :]
        self._is_bfv, self._scale = scheme == BFV, math.ldexp(1, scale_bits)
        self._file, self._context = _File(), _context(scheme)
        self._scheme = scheme
        self._plain, self._cipher = seal.Plaintext(), seal.Ciphertext()
        if public:
            self._encoder = (seal.BatchEncoder if self._is_bfv else seal.CKKSEncoder)(self._context)
            self._encryptor = seal.Encryptor(self._context, self._public_key(public))
        if has_secret:
            self._decryptor = seal.Decryptor(self._context, self._secret_key(secret))
            self._check_pair()

    def create_public(self, secret: bytes) -> bytes:
        """Return the words of a fresh public key to a secret."""
        public = seal.PublicKey()
        seal.KeyGenerator(self._context, self._secret_key(secret)).create_public_key(public)
        return self._file.saved(public, _CIPHERTEXT.size + _ARRAY_HEAD + PUBLIC_BYTES)[-PUBLIC_BYTES:]

    def encrypt(self, slots: bytes) -> bytes:
        parts = []
        for values in np.frombuffer(slots, np.dtype("<i8")).reshape(-1, DEGREE):
            if self._is_bfv:
                if values.min() < 0 or values.max() >= BATCHING_PRIME:
                    raise ValueError("a slot outside the plaintext modulus")
                self._encoder.encode(values.tolist(), self._plain)
            else:
                halves = values.astype(np.float64)
                packed = halves[: DEGREE // 2] + 1j * halves[DEGREE // 2 :]
                self._encoder.encode(packed.tolist(), self._scale, self._plain)
            self._encryptor.encrypt(self._plain, self._cipher)
            saved = self._file.saved(self._cipher, _CIPHERTEXT.size + _ARRAY_HEAD + CIPHERTEXT_BYTES)
            parts.append(saved[-CIPHERTEXT_BYTES:])
        return b"".join(parts)

    def decrypt(self, ciphertexts: bytes) -> bytes:
        parts = []
        for words in np.frombuffer(ciphertexts, np.dtype("<u8")).reshape(-1, CIPHERTEXT_WORDS):
            if words.max() >= MODULUS:
                raise ValueError("a word outside the ciphertext modulus")
            header = self._header(self._context.first_parms_id(), not self._is_bfv, 1, self._scale)
            cipher = self._file.load(seal.Ciphertext(), self._context, header + _words_framed(words))
            if self._is_bfv and self._decryptor.invariant_noise_budget(cipher) <= 0:
                raise ValueError("no noise budget is left: not a sum of ciphertexts under this key")
            self._decryptor.decrypt(cipher, self._plain)
            if self._is_bfv:
                parts.append(np.array(self._encoder.decode_uint64(self._plain), np.dtype("<u8")).tobytes())
            else:
                values = np.array(self._encoder.decode_complex(self._plain))
                rounded = np.rint(np.concatenate([values.real, values.imag]))
                if not np.all(np.abs(rounded) < 2.0**62):
                    raise ValueError("a value far outside the range: not a sum of ciphertexts under this key")
                parts.append(rounded.astype("<i8").tobytes())
        return b"".join(parts)

    def _header(self, parameters: list[int], is_ntt: bool, primes: int, scale: float) -> bytes:
        identity = struct.pack("<4Q", *parameters)
        return _CIPHERTEXT.pack(identity, is_ntt, 2, DEGREE, primes, 1.0 if self._is_bfv else scale, 1)

    def _public_key(self, public: bytes) -> Any:
        words = np.frombuffer(public, np.dtype("<u8"))
        if words.nbytes != PUBLIC_BYTES:
            raise ValueError(f"a public key of {words.nbytes} bytes, expected {PUBLIC_BYTES}")
        rows = words.reshape(2, 2, DEGREE)
        if rows[:, 0].max() >= MODULUS or rows[:, 1].max() >= KEY_MODULUS:
            raise ValueError("the public key is no vector over its moduli")
        identity = struct.pack("<4Q", *self._context.key_parms_id())
        header = _CIPHERTEXT.pack(identity, True, 2, DEGREE, 2, 1.0, 1)
        return self._file.load(seal.PublicKey(), self._context, header + _words_framed(words))

    def _secret_key(self, secret: bytes) -> Any:
        seeded = _context(self._scheme, derive(secret, "lattice secret key", length=64))
        return seal.KeyGenerator(seeded).secret_key()

    def _check_pair(self) -> None:
        """Raise ValueError unless the private key opens what the public key encrypts."""
        slots = np.arange(DEGREE, dtype=np.dtype("<i8")) ** 2 // 7 % 2  # small enough for every scale
        # A wrong key may also be refused on the way: no noise budget, or a value out of range.
        if self.decrypt(self.encrypt(slots.tobytes())) != slots.tobytes():
            raise ValueError("the secret is not that of this round's public key")


def main() -> None:
    """Serve jobs; the first is the setup."""
    state: list[Seal] = []

    def handle(code: int, payload: bytes) -> bytes:
        if code == ENCRYPT:
            return state[0].encrypt(payload)
        if code == DECRYPT:
            return state[0].decrypt(payload)
        if code == KEYGEN:
            return state[0].create_public(payload)
        if code:
            raise ValueError(f"unknown job {code}")
        state[:] = [Seal(payload)]
        return b""

    serve(handle)


if __name__ == "__main__":
    main()
