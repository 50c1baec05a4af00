"""SEAL's own objects of a lattice worker, to hold what the worker does with words against what SEAL does.

tenseal, which the worker imports, is imported only where it is used.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crypto.backends.lattice_parameters import CIPHERTEXT_BYTES, DEGREE

if TYPE_CHECKING:
    from crypto.backends.lattice_worker import Seal


def words_of(ciphertexts: bytes) -> npt.NDArray[np.uint64]:
    return np.frombuffer(ciphertexts, np.dtype("<u8"))


def context_of(worker: "Seal") -> Any:
    """The parameters, as SEAL's classes take them."""
    return worker._context


def loaded(worker: "Seal", ciphertext: bytes, scale: float = 1.0) -> Any:
    """Make a ciphertext of SEAL from the words of one."""
    import tenseal.sealapi as seal

    header = worker._header(worker._context.first_parms_id(), not worker._is_bfv, 1, scale)
    return worker._file.load(seal.Ciphertext(), worker._context, header + _framed(words_of(ciphertext)))


def plaintext(worker: "Seal", words: npt.NDArray[np.uint64], scale: float) -> Any:
    """Make a plaintext of SEAL in NTT form from its words."""
    import tenseal.sealapi as seal

    identity = b"".join(int(word).to_bytes(8, "little") for word in worker._context.first_parms_id())
    header = identity + DEGREE.to_bytes(8, "little") + np.float64(scale).tobytes()
    return worker._file.load(seal.Plaintext(), worker._context, header + _framed(words))


def saved_by(worker: "Seal", ciphertext: Any) -> bytes:
    """Return the words of a ciphertext of SEAL."""
    return worker._file.saved(ciphertext, 73 + 24 + CIPHERTEXT_BYTES)[-CIPHERTEXT_BYTES:]


def noise_budget(worker: "Seal", ciphertext: bytes) -> int:
    """Return how many bits of noise a BFV ciphertext could still take."""
    return int(worker._decryptor.invariant_noise_budget(loaded(worker, ciphertext)))


def decoded(worker: "Seal", ciphertext: bytes, scale: float) -> npt.NDArray[np.complex128]:
    """Open a CKKS ciphertext without rounding."""
    worker._decryptor.decrypt(loaded(worker, ciphertext, scale), worker._plain)
    return np.array(worker._encoder.decode_complex(worker._plain))


def _framed(words: npt.NDArray[np.uint64]) -> bytes:
    from crypto.backends import lattice_worker

    return lattice_worker._words_framed(words)
