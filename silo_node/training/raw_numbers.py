"""A vector of a silo's state as it is kept: what it is stands in a message, and its numbers beside it as raw bytes.

Promise: what is read back is what was written, to the last bit, or it is refused by its digest. No list of Python
numbers is made: 8 bytes a number on disk and in memory, whatever the length.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from crypto.errors import ProtocolError
from crypto.wire import Digest, Message, Name

MAX_STATE_VALUES = 2**30  # of one vector of a state: as many as a policy lets a request have
MAX_STATE_BYTES = 2**34  # of all its vectors together
MAX_VECTORS = 64
Dtype = Literal["float64", "float32", "int64"]
Array = npt.NDArray[Any]  # of one of these kinds
_LITTLE_ENDIAN: Mapping[Dtype, str] = MappingProxyType({"float64": "<f8", "float32": "<f4", "int64": "<i8"})
_KINDS: Mapping[str, Dtype] = MappingProxyType({np.dtype(code).str: name for name, code in _LITTLE_ENDIAN.items()})


class Numbers(Message):
    """A vector of a state: its name, of what kind its numbers are and how many, and the BLAKE3 digest of their bytes.

    The bytes, little-endian, travel and lie beside the message; without them it has no values.
    """

    name: Name
    dtype: Dtype
    length: Annotated[int, Field(ge=0, le=MAX_STATE_VALUES)]
    digest: Digest
    held: SkipJsonSchema[bytes | None] = Field(default=None, exclude=True, repr=False)  # the bytes, in no encoding

    @classmethod
    def of(cls, name: str, values: npt.ArrayLike) -> Self:
        """Return a vector with its numbers; what is neither float64, float32 nor int64 becomes float64.

        Raises ProtocolError if a number is not finite, or if there are too many.
        """
        array = np.asarray(values).reshape(-1)
        dtype = _KINDS.get(array.dtype.newbyteorder("<").str, "float64")
        if len(array) > MAX_STATE_VALUES:
            raise ProtocolError(
                f"the vector {name} has {len(array)} numbers, a state has at most {MAX_STATE_VALUES} in one",
                "ask with fewer features, or a shorter option",
            )
        raw = array.astype(_LITTLE_ENDIAN[dtype], copy=False).tobytes()
        return cls(name=name, dtype=dtype, length=len(array), digest=blake3(raw).digest()).having(raw)

    @property
    def size(self) -> int:
        """How many bytes its numbers take."""
        return self.length * np.dtype(_LITTLE_ENDIAN[self.dtype]).itemsize

    @property
    def raw(self) -> bytes:
        """The bytes of the numbers; raises ProtocolError where only the message is here."""
        if self.held is None:
            raise ProtocolError(f"the numbers of {self.name} are not here")
        return self.held

    @property
    def values(self) -> Array:
        """The numbers, on the bytes themselves: nobody can change them."""
        return np.frombuffer(self.raw, _LITTLE_ENDIAN[self.dtype])

    def with_raw(self, raw: bytes) -> Self:
        """Return the vector with its numbers; raises ProtocolError if they are others, or not finite."""
        if len(raw) != self.size:
            raise ProtocolError(f"{len(raw)} bytes for {self.name}, expected {self.size}")
        if blake3(raw).digest() != self.digest:
            raise ProtocolError(f"the numbers of {self.name} are not those of its digest")
        return self.having(raw)

    def having(self, raw: bytes) -> Self:
        """Return the vector with bytes that are its own; raises ProtocolError if one of the numbers is not finite."""
        if self.dtype != "int64" and not np.isfinite(np.frombuffer(raw, _LITTLE_ENDIAN[self.dtype])).all():
            raise ProtocolError(f"a number of {self.name} is not finite")
        return self.model_copy(update={"held": raw})


def size_of(vectors: Sequence[Numbers]) -> int:
    """Return how many bytes the numbers of all vectors take; raises ProtocolError if no state has so many."""
    if (size := sum(one.size for one in vectors)) > MAX_STATE_BYTES:
        raise ProtocolError(f"the numbers of a state take {size} bytes, at most {MAX_STATE_BYTES} are kept")
    return size


def joined(vectors: Sequence[Numbers]) -> bytes:
    """Return the numbers of vectors as bytes, one vector after another."""
    size_of(vectors)
    return b"".join(one.raw for one in vectors)


def parted(vectors: Sequence[Numbers], raw: bytes) -> tuple[Numbers, ...]:
    """Return vectors with their numbers, from what `joined` returned; raises ProtocolError if it is not theirs."""
    if len(raw) != (size := size_of(vectors)):
        raise ProtocolError(f"{len(raw)} bytes of numbers, expected {size}")
    found, start = list[Numbers](), 0
    for one in vectors:
        found.append(one.with_raw(raw[start : start + one.size]))
        start += one.size
    return tuple(found)
