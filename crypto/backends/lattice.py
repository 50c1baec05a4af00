"""The common part of `bfv` and `ckks`: ciphertexts as plain words, added without SEAL, encrypted in other processes.

Ring learning with errors over Z_q[x]/(x^4096 + 1), encryption by TenSEAL's SEAL at 128 bits of security (moduli of 60
and 49 bits, the second for the key only). A ciphertext is two polynomials of 4,096 words below q, and nothing else
travels: 65,536 bytes, and one 32-byte key id before each chunk. A ciphertext states neither its length nor its type, so
it cannot misstate them. Adding ciphertexts is adding words modulo q, so the aggregator needs neither SEAL nor a key.

SEAL reads bytes of another party in two places: a public key at a silo and a sum at a recipient. The sizes and words of
both are checked here, and SEAL runs in a disposable worker only (`crypto.backends.sandbox`,
`crypto.backends.lattice_worker`).
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from crypto.backends.lattice_parameters import (
    CIPHERTEXT_BYTES,
    DECRYPT,
    DEGREE,
    ENCRYPT,
    KEY_MODULUS,
    KEYGEN,
    MODULUS,
    PUBLIC_BYTES,
    SETUP,
)
from crypto.backends.sandbox import MAX_WORKERS, Job, Sandbox
from crypto.backends.scheme import KEY_ID_BYTES, RoundKey
from crypto.errors import CryptoError, RangeError, WireError
from crypto.keys import Secret

_MODULE = "crypto.backends.lattice_worker"


def ciphertexts(slots: int) -> int:
    """Return the number of ciphertexts for this number of slots."""
    return -(-slots // DEGREE)


def create_key(scheme: int) -> RoundKey:
    """Return a fresh key pair, made in a worker."""
    secret = Secret.generate()
    with Sandbox(_MODULE, SETUP.pack(scheme, 0, False)) as sandbox:
        public = sandbox.run(Job("a round key", KEYGEN, secret.raw, PUBLIC_BYTES))
    return RoundKey(public, secret)


def check_public(public: bytes) -> None:
    """Raise WireError or RangeError unless `public` has the size and the words of a public key."""
    if len(public) != PUBLIC_BYTES:
        raise WireError(f"a public key of {len(public)} bytes, expected {PUBLIC_BYTES}")
    rows = np.frombuffer(public, np.dtype("<u8")).reshape(2, 2, DEGREE)
    if int(rows[:, 0].max()) >= MODULUS or int(rows[:, 1].max()) >= KEY_MODULUS:
        raise RangeError("a public key with a word outside its modulus")
    if not rows[1].any():
        raise RangeError("a public key that encrypts nothing")


def encrypt(
    scheme: int, public: bytes, scale_bits: int, chunks: Sequence[int], slots: Iterator[npt.NDArray[np.int64]]
) -> Iterator[bytes]:
    """Yield the ciphertexts of each chunk; `chunks` are the chunks' numbers of slots, `slots` is read lazily.

    Raises a CryptoError that names the chunk.
    """
    jobs = (
        Job(f"encrypting chunk {index}", ENCRYPT, _padded(part), ciphertexts(count) * CIPHERTEXT_BYTES)
        for index, (count, part) in enumerate(zip(chunks, slots, strict=True))
    )
    with Sandbox(_MODULE, SETUP.pack(scheme, scale_bits, False) + public, _workers(len(chunks))) as sandbox:
        yield from sandbox.map(jobs)


def decrypt(
    scheme: int, public: bytes, scale_bits: int, secret: Secret | None, sums: Sequence[npt.NDArray[np.uint64]]
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the slots of each chunk of a sum with checked words; raises a CryptoError that names the chunk."""
    if secret is None:
        raise CryptoError("the sum is encrypted and this recipient has no secret of the round's key")
    jobs = (Job(f"decrypting chunk {index}", DECRYPT, part.tobytes(), part.size * 4) for index, part in enumerate(sums))
    setup = SETUP.pack(scheme, scale_bits, True) + public + secret.raw
    with Sandbox(_MODULE, setup, _workers(len(sums))) as sandbox:
        for reply in sandbox.map(jobs):
            yield np.frombuffer(reply, np.dtype("<i8"))


def chunk_bytes(slots: int) -> int:
    """Return the size of a chunk with this number of slots: key id and ciphertexts."""
    return KEY_ID_BYTES + ciphertexts(slots) * CIPHERTEXT_BYTES


def _padded(slots: npt.NDArray[np.int64]) -> bytes:
    whole = np.zeros(ciphertexts(slots.size) * DEGREE, np.dtype("<i8"))
    whole[: slots.size] = slots
    return whole.tobytes()


def _workers(chunks: int) -> int:
    return max(1, min(MAX_WORKERS, os.cpu_count() or 1, chunks))
