"""How a stream begins: one member dials, both agree on a wire version, and a lost stream is dialled again.

Assumes: a stream whose other end is authenticated (mutual TLS; `Membership.peer` decides who it is, and
`aggregator.gate` and `silo_node.transport.dialler` ask it). Promises: nothing is written to a stream before the
other end has let it in, no version is spoken that only one side knows, and every wait for a greeting has an end.
docs/federated.md, "The stream, byte by byte".

    who dials                                   who is dialled
              -- TLS, certificate -->
              <-- header consilo-admitted: 1 --
              -- HELLO: versions (1, 2) -->
              <-- WELCOME: version 2, new versions of the membership --
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from crypto.errors import LinkError, WireError
from crypto.randomness import below
from crypto.wire import Message, RoundId
from federation.transport.frames import DATA_BYTES, MAX_FRAME_BYTES, WIRE, Kind, frame, parse

# What both ends of a stream set in gRPC, which this package does not import.
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # the answer to a ping: without it the wait is a minute
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
)
SILO_METHOD = "/consilo.v1.Federation/Silo"
ANALYST_METHOD = "/consilo.v1.Federation/Analyst"
GREETING_S = 10.0
ADMITTED = ("consilo-admitted", "1")  # HTTP/2 header of a stream that was let in


class Hello(Message):
    """The first frame of who dials. Its own format is that of every version, so that versions can be agreed on."""

    KIND: ClassVar[str] = "hello"
    wire: Annotated[tuple[int, ...], Field(min_length=1, max_length=16)]
    instance: RoundId  # drawn when the process started
    membership: Annotated[int, Field(ge=0, le=2**31)]  # the newest version that it knows
    software: Annotated[str, Field(max_length=64)]


class Welcome(Message):
    """The first frame of who was dialled: the wire version from here on, and what is new in the membership."""

    KIND: ClassVar[str] = "welcome"
    MAX_BYTES: ClassVar[int] = DATA_BYTES
    wire: int
    instance: RoundId
    newest: Annotated[int, Field(ge=0, le=2**31)]
    memberships: tuple[bytes, ...]  # the versions after the one in Hello, in order, as many as fit


def agree(theirs: Sequence[int], ours: Sequence[int] = WIRE) -> int:
    """Return the newest wire version that both know; raises LinkError."""
    common = set(theirs) & set(ours)
    if not common:
        raise LinkError(
            f"no common wire version: here {_versions(ours)}, there {_versions(theirs)}", "update the older side"
        )
    return max(common)


def _versions(versions: Sequence[int]) -> str:
    return ", ".join(str(one) for one in sorted(set(versions))[:16])


def greeting(raw: bytes, kind: Kind) -> bytes:
    """Return the body of the first frame, which must be of `kind`; raises WireError."""
    found, call, body = parse(raw)
    if (found, call) != (kind, 0):
        raise WireError("the first frame is not a greeting")
    return bytes(body)


async def greet(
    read: Callable[[], Awaitable[object]],
    write: Callable[[bytes], Awaitable[None]],
    metadata: Callable[[], Awaitable[Iterable[object]]],
    hello: Hello,
) -> Welcome:
    """Greet as the side that dials; return the answer. Raises LinkError or WireError.

    `metadata` returns when the other end has let the stream in, which it says by ADMITTED, or has ended it. A stream
    that is ended while a frame is written loses what the other end said, so nothing is written before.
    """
    try:
        async with asyncio.timeout(GREETING_S):
            if ADMITTED not in tuple(await metadata()):
                raise LinkError("the stream ended before a greeting")
            await write(frame(Kind.HELLO, 0, hello.encode()))
            raw = await read()
    except TimeoutError as err:
        raise LinkError(f"no greeting within {GREETING_S:g} s", "the aggregator may be overloaded") from err
    if not isinstance(raw, bytes):
        raise LinkError("the stream ended before a greeting")
    welcome = Welcome.decode(greeting(raw, Kind.WELCOME))
    if welcome.wire not in hello.wire:
        raise LinkError(f"the other end chose wire version {welcome.wire}, which was not offered")
    return welcome


def back_off_s(attempt: int, first_s: float = 0.5, most_s: float = 60.0) -> float:
    """Return how long to wait before dialling again: doubled each time, and half of it by chance."""
    whole = min(most_s, first_s * float(1 << min(attempt, 20)))
    return whole / 2 + whole / 2 * below(1 << 20) / (1 << 20)
