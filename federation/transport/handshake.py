"""How a stream begins: one member dials, both agree on a wire version, and a lost stream is dialled again.

Assumes: a stream whose other end is authenticated (mutual TLS; `aggregator.gate` and `silo_node.transport.dialler`
ask `Membership.peer` which member it is). Promises: nothing is written to a stream before the other end has admitted
it, both sides know the version in use, and every wait for a greeting is bounded.
docs/federated.md, "The stream, byte by byte".

    the dialling end                            the dialled end
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

# gRPC settings of both ends of a stream; this package does not import gRPC.
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # for the answer to a ping; the default is a minute
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
)
SILO_METHOD = "/consilo.v1.Federation/Silo"
ANALYST_METHOD = "/consilo.v1.Federation/Analyst"
GREETING_S = 10.0
SOFTWARE = "consilo/0.1.0"  # as this end names itself
BACK_OFF_S = 4.0  # the longest wait before another attempt to dial; with a knock, less than 5 s
KNOCK_S = 1.0  # for a port to take a connection, where the last attempt was met by silence
UPDATE = "update the older side"
ADMITTED = ("consilo-admitted", "1")  # HTTP/2 header of an admitted stream


class Hello(Message):
    """The first frame of the dialling end. Its format is the same in every version, so that both can agree on one."""

    KIND: ClassVar[str] = "hello"
    wire: Annotated[tuple[int, ...], Field(min_length=1, max_length=16)]
    instance: RoundId  # drawn when the process started
    membership: Annotated[int, Field(ge=0, le=2**31)]  # the newest version that the sender knows
    software: Annotated[str, Field(max_length=64)]


class Welcome(Message):
    """The first frame of the dialled end: the wire version of the stream, and the new versions of the membership."""

    KIND: ClassVar[str] = "welcome"
    MAX_BYTES: ClassVar[int] = DATA_BYTES
    wire: int
    instance: RoundId
    newest: Annotated[int, Field(ge=0, le=2**31)]
    memberships: tuple[bytes, ...]  # the versions after the one in Hello, in order, as many as fit


def agree(theirs: Sequence[int], ours: Sequence[int] = WIRE, software: str = "") -> int:
    """Return the newest wire version that both know; raises LinkError. `software` is what the other end runs."""
    common = set(theirs) & set(ours)
    if not common:
        there = f" ({_plain(software)})" if software else ""
        message = f"no common wire version: here {_versions(ours)} ({SOFTWARE}), there {_versions(theirs)}{there}"
        raise LinkError(message, UPDATE)
    return max(common)


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


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
    """Greet as the dialling end; return the answer. Raises LinkError or WireError.

    `metadata` returns once the other end has admitted the stream (the header ADMITTED) or ended it. Nothing is written
    before that, as a stream that ends during a write loses the other end's reason.
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


async def knock(address: str) -> None:
    """Return once the port at HOST:PORT takes a connection; raises LinkError if it is silent for KNOCK_S.

    If a machine is off or its link is cut, an attempt to dial waits for the whole time of a greeting, and misses that
    the machine is back. An open port takes a connection at once, even if its program is busy.
    """
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(KNOCK_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError as err:
        raise LinkError(f"{address} does not answer", "is the machine on, and the link up?") from err
    except OSError:
        return  # dialling says why
    writer.transport.abort()


def back_off_s(attempt: int, first_s: float = 0.5) -> float:
    """Return the wait before the next attempt to dial: it doubles each time, and half of it is random."""
    whole = min(BACK_OFF_S, first_s * float(1 << min(attempt, 20)))
    return whole / 2 + whole / 2 * below(1 << 20) / (1 << 20)
