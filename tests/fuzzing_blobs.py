"""Broken keys, ciphertexts and jobs of the homomorphic backends, read as a round reads them: by the real sandbox.

SEAL reads bytes of a stranger in two places: the public key that an analyst signs, at a silo, and the sum of what silos
send, at a recipient. Both are tried here behind their checks, and once more without these: what nobody let through
still has to end in a refusal. Paillier's numbers have a fixed size and need no sandbox. As in `tests.fuzzing`, an input
depends on the name and its number only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from random import Random

import numpy as np

from crypto.backends.lattice_parameters import (
    BFV,
    CIPHERTEXT_BYTES,
    CKKS,
    DECRYPT,
    DEGREE,
    ENCRYPT,
    KEY_MODULUS,
    MODULUS,
    SETUP,
)
from crypto.backends.registry import BACKENDS
from crypto.backends.sandbox import Job, Sandbox
from crypto.backends.scheme import KEY_ID_BYTES, RoundKey, Scheme, Shape
from crypto.errors import CryptoError

SHAPE = Shape(40, 3, 3, 1000)
VECTOR = np.arange(-20, 20)
WORKER = "crypto.backends.lattice_worker"
SCALE_BITS = 40
SCHEMES = {"bfv": BFV, "ckks": CKKS}
_WORDS = tuple(one.to_bytes(8, "little") for one in (0, 1, KEY_MODULUS, MODULUS - 1, MODULUS, 1 << 63, (1 << 64) - 1))
_NUMBERS = tuple(one.to_bytes(384, "big") for one in (0, 1, 2, (1 << 3071) + 1, (1 << 3072) - 1))


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes of a stranger that native code reads: a valid one, what it is made of, and how a round reads it.

    `read` raises CryptoError on what is refused, and AssertionError on what should have been.
    """

    sample: bytes
    words: tuple[bytes, ...]  # that stand in the place of its own
    read: Callable[[bytes], None]


@cache
def key(name: str) -> RoundKey:
    """Return a key of a backend, made once in a process."""
    return BACKENDS[name].create_key()


def scheme(name: str) -> Scheme:
    """Return a backend, bound to the shape and the key of these inputs."""
    return BACKENDS[name].bind(SHAPE, key(name).public)


@cache
def chunk(name: str) -> bytes:
    """Return what a silo sends."""
    ((one,),) = scheme(name).blind(VECTOR, [], [])
    return one


@cache
def strangers() -> tuple[bytes, ...]:
    """Return what TenSEAL itself would send: vectors and contexts, also of other parameters."""
    import tenseal as ts

    small = ts.context(ts.SCHEME_TYPE.BFV, 4096, 1032193, [60, 49])
    large = ts.context(ts.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 60])
    large.global_scale = 2**40
    vectors = ts.bfv_vector(small, [1, 2, 3]), ts.ckks_vector(large, [1.0, 2.0])
    contexts = small.serialize(save_secret_key=True), large.serialize()
    return (*(one.serialize() for one in vectors), *contexts)


def _read_key(name: str, public: bytes) -> None:
    """Encrypt by a key of an analyst, at a silo, and open it by hers."""
    bound = BACKENDS[name].bind(SHAPE, public)
    ((one,),) = bound.blind(VECTOR, [], [])
    assert len(one) == bound.chunk_bytes(0, 0)
    opened = bound.open({0: [one]}, [], [], key(name).secret).units
    assert public == key(name).public or np.abs(opened).max() <= SHAPE.span


def _read_chunk(name: str, one: bytes) -> None:
    """Add what a silo sent, at an aggregator, which has no native code, and open the sum at a recipient."""
    bound = scheme(name)
    total = bound.accumulator(0)
    total.check(0, one)
    total.add(0, one)
    opened = bound.open({0: total.chunks()}, [], [], key(name).secret).units
    assert np.abs(opened).max() <= SHAPE.span
    assert one != chunk(name) or opened.tolist() == VECTOR.tolist()


def _read_sum(name: str, words: bytes) -> None:
    """Let a worker open what nobody has checked."""
    setup = SETUP.pack(SCHEMES[name], SCALE_BITS, True) + key(name).public + key(name).secret.raw
    with Sandbox(WORKER, setup) as sandbox:
        sandbox.run(Job("a sum", DECRYPT, words, len(words) // 2))


def _read_setup(name: str, setup: bytes) -> None:
    """Let a worker begin with what nobody has checked."""
    with Sandbox(WORKER, setup) as sandbox:
        sandbox.run(Job("a chunk", ENCRYPT, bytes(8 * DEGREE), CIPHERTEXT_BYTES))


@cache
def blobs() -> dict[str, Blob]:
    """Return everything that native code reads of a stranger, by its name; it makes keys, in workers."""
    found = {}
    for name in ("bfv", "ckks", "paillier"):
        words = _WORDS if name in SCHEMES else _NUMBERS
        found[f"{name}-key"] = Blob(key(name).public, words, partial(_read_key, name))
        found[f"{name}-chunk"] = Blob(chunk(name), words, partial(_read_chunk, name))
        if name in SCHEMES:
            setup = SETUP.pack(SCHEMES[name], SCALE_BITS, False) + key(name).public
            found[f"{name}-sum"] = Blob(chunk(name)[KEY_ID_BYTES:], words, partial(_read_sum, name))
            found[f"{name}-setup"] = Blob(setup, words, partial(_read_setup, name))
    return found


NAMES = (
    *("bfv-key", "bfv-chunk", "bfv-sum", "bfv-setup", "ckks-key", "ckks-chunk", "ckks-sum", "ckks-setup"),
    *("paillier-key", "paillier-chunk"),
)


def broken(name: str, blob: Blob, number: int) -> bytes:
    """Return a broken form of a blob: the same one whenever it is asked for, of one key."""
    random = Random(f"{name} {number}")  # noqa: S311
    data, width = blob.sample, len(blob.words[0])
    count, word = len(data) // width, random.choice(blob.words)
    at = random.randrange(count) * width + len(data) % width  # words stand behind a header, if there is one
    match number % 10:
        case 0:  # a bit is flipped
            bit = random.randrange(8 * len(data))
            return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        case 1:  # a word becomes another
            return data[:at] + word + data[at + width :]
        case 2:  # so do all from there
            return data[:at] + word * ((len(data) - at) // width)
        case 3:  # words of the right size that are nothing
            below = [random.randrange(MODULUS).to_bytes(8, "little") for _ in range(len(data) // 8)]
            return data[: len(data) % width] + b"".join(below)[: len(data) - len(data) % width]
        case 4:  # any bytes
            return random.randbytes(len(data))
        case 5:  # cut short
            return data[: random.randrange(len(data))]
        case 6:  # grown
            return data + word * random.choice((1, DEGREE, 1 << 16))
        case 7:  # its parts stand in another order
            return data[: len(data) % width] + data[at:] + data[len(data) % width : at]
        case 8:  # what TenSEAL would send
            return random.choice(strangers())
        case _:  # the same in the size that is expected, behind the right header
            head = data[: len(data) % width]
            return (head + random.choice(strangers()))[: len(data)].ljust(len(data), word[:1])


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of some broken blobs."""

    refused: int
    read: int
    problem: str  # the first that neither was refused nor stood as it was; empty if there was none


def read(name: str, numbers: range) -> Reading:
    """Read broken blobs, then the valid one: whatever died was replaced."""
    blob, refused = blobs()[name], 0
    for number in numbers:
        data = broken(name, blob, number)
        try:
            blob.read(data)
        except CryptoError as err:
            refused += 1
            if not err.message:
                return Reading(refused, 0, f"{name} {number}: a refusal without a reason")
        except Exception as err:
            return Reading(refused, 0, f"{name} {number}: {type(err).__name__}: {err}")
    blob.read(blob.sample)
    return Reading(refused, len(numbers) - refused, "")
