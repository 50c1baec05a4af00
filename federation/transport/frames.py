"""The bytes of a stream: frames, and the first frame of a message.

A frame is one type byte, the number of a call in eight bytes and a body. A message is the parts of a call or of a
reply. Its first frame has the length of each part and the first INLINE_BYTES; DATA frames have the rest. Promise: a
frame above MAX_FRAME_BYTES or a message of more than MAX_PARTS raises WireError. docs/federated.md, "The stream, byte
by byte". The call "echo" of one part, `hi`, with 4 MiB of credit for its reply:

    03 | 0000000000000007 | 04 "echo" 00400000 | 0001 00000002 | "hi"
"""

import struct
from enum import IntEnum

from crypto.errors import WireError

WIRE = (3,)  # 3: a round's members stand under a root, charges in the checkpoint; its messages are no older version's
DATA_BYTES = 2 << 20  # of a message in one DATA frame
INLINE_BYTES = 64 * 1024  # of a message travel in its first frame, before the receiver grants credit
WINDOW_BYTES = 8 << 20  # of a message, the most that is granted and has not arrived
REPLY_CREDIT_BYTES = 4 << 20  # of the reply, granted with the call: as much as one frame of a contribution
MAX_FRAME_BYTES = DATA_BYTES + 64 * 1024  # what the transport must let through
MAX_PARTS = 4096

Parts = tuple[bytes, ...]  # of a message


class Kind(IntEnum):
    """The first byte of a frame."""

    HELLO = 1
    WELCOME = 2
    CALL = 3
    REPLY = 4
    FAILED = 5
    DATA = 6
    GRANT = 7
    CANCEL = 8
    DRAIN = 9


_HEADER = struct.Struct(">BQ")  # type, number of the call
_COUNT = struct.Struct(">H")
_LENGTH = struct.Struct(">I")
_MAX_STEP_BYTES = 64


def frame(kind: Kind, call: int, body: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEADER.pack(kind, call) + body


def parse(raw: bytes) -> tuple[Kind, int, memoryview]:
    """Return type, call number and body of a frame; raises WireError."""
    if not _HEADER.size <= len(raw) <= MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(raw)} bytes, expected {_HEADER.size} to {MAX_FRAME_BYTES}")
    kind, call = _HEADER.unpack_from(raw)
    if not Kind.HELLO <= kind <= Kind.DRAIN:
        raise WireError(f"a frame of unknown type {kind}")
    return Kind(kind), call, memoryview(raw)[_HEADER.size :]


def write_call(step: str, credit: int) -> bytes:
    """Return the first bytes of a CALL: the name of its step, and the credit for its reply in bytes."""
    name = step.encode()
    return len(name).to_bytes(1, "big") + name + _LENGTH.pack(credit)


def read_call(body: memoryview) -> tuple[str, int, memoryview]:
    """Return the step of a CALL, the credit for its reply and its message; raises WireError."""
    size = body[0] if len(body) else 0
    start = 1 + size + _LENGTH.size
    if not 1 <= size <= _MAX_STEP_BYTES or len(body) < start:
        raise WireError("a call without the name of its step")
    try:
        step = bytes(body[1 : 1 + size]).decode("ascii")
    except UnicodeDecodeError:
        raise WireError("the name of a step is not ASCII") from None
    return step, _LENGTH.unpack(body[1 + size : start])[0], body[start:]


def write_lengths(parts: Parts) -> bytes:
    """Return the first bytes of a message: the number of its parts, and the length of each."""
    return _COUNT.pack(len(parts)) + b"".join(_LENGTH.pack(len(part)) for part in parts)


def read_lengths(message: memoryview) -> tuple[tuple[int, ...], memoryview]:
    """Return the lengths of a message's parts, and its first bytes; raises WireError."""
    count = _COUNT.unpack_from(message)[0] if len(message) >= _COUNT.size else MAX_PARTS + 1
    start = _COUNT.size + count * _LENGTH.size
    if count > MAX_PARTS or len(message) < start:
        raise WireError("the header of a message is malformed")
    lengths = tuple(one[0] for one in _LENGTH.iter_unpack(message[_COUNT.size : start]))
    inline = message[start:]
    if len(inline) != min(sum(lengths), INLINE_BYTES):
        raise WireError("a message does not begin with its first bytes")
    return lengths, inline


def write_grant(credit: int) -> bytes:
    """Return the body of a GRANT: how many more bytes of a message may be sent."""
    return _LENGTH.pack(credit)


def read_grant(body: memoryview) -> int:
    """Return how many more bytes a GRANT lets the sender send; raises WireError unless it is at least one."""
    if len(body) != _LENGTH.size or not any(body):
        raise WireError("a grant of nothing")
    return int(_LENGTH.unpack(body)[0])
