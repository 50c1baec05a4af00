"""Members that flood the aggregator, read nothing, or are revoked meanwhile: a real gate ends their streams alone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from aggregator import link
from crypto.certificates import host_of, pin_of, read_transport_key
from crypto.frames import ANALYST_METHOD, OPTIONS, WIRE, Hello, Kind, Session, frame, greet
from tests.federated import AGGREGATOR, SILOS, Served, add_member, free_port, provision, served, until

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"
FLOODER = "eve"  # another analyst than the one who asks


@pytest.fixture(scope="module")
def hub(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = free_port()
    path = provision(tmp_path_factory.mktemp("floods") / "p", founded, f"127.0.0.1:{port}")
    add_member(path, FLOODER, "analyst")
    (path / AGGREGATOR / "membership.log").write_bytes((path / "authority" / "membership.log").read_bytes())
    with served(path, port) as one:
        yield one
        until(lambda: not one.gate._streams.get(FLOODER))
        assert answered(one) == dict.fromkeys(SILOS, "answered"), "no flood left a trace"


def answered(one: Served) -> dict[str, str]:
    with one.open() as federation:
        report = federation.query(QUESTION, purpose="health-research", epsilon=0.05)
    return {silo: outcome.status for silo, outcome in report.silos.items()}


@asynccontextmanager
async def channel(one: Served, name: str, *options: tuple[str, Any]) -> AsyncIterator[Any]:
    """A connection of its own, with a member's key and certificate."""
    home = one.path / name
    pin = pin_of(read_transport_key(one.path / AGGREGATOR / "transport.key").public_key())
    credentials = grpc.ssl_channel_credentials(
        *((home / file).read_bytes() for file in ("authority.pem", "transport.key", "transport.pem"))
    )
    own = ("grpc.use_local_subchannel_pool", 1)
    every = [*OPTIONS, ("grpc.ssl_target_name_override", host_of(pin)), own, *options]
    async with grpc.aio.secure_channel(one.target, credentials, options=every) as opened:
        yield opened


# Of a stream that is not read no more than this comes.
UNREAD = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))


async def greeted(opened: Any, instance: bytes = bytes(16), membership: int = 1 << 20) -> Any:
    stream: Any = opened.stream_stream(ANALYST_METHOD)()
    hello = Hello(wire=WIRE, instance=instance, membership=membership, software="test")
    await greet(stream.read, stream.write, stream.initial_metadata, hello)
    return stream


async def status(stream: Any) -> str:
    """Read what is there; return why the stream ended."""
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while await stream.read() is not grpc.aio.EOF:
            pass
    return f"{(await stream.code()).name}: {await stream.details()}"


async def once(is_so: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, is_so)


def test_a_peer_that_does_not_read_its_greeting_holds_no_stream(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "GREETING_S", 0.5)
    monkeypatch.setattr(link, "ABORT_S", 0.2)

    async def body() -> None:
        async with channel(hub, FLOODER, *UNREAD) as opened:
            stream: Any = opened.stream_stream(ANALYST_METHOD)()
            await stream.initial_metadata()
            hello = Hello(wire=WIRE, instance=bytes(16), membership=0, software="test")
            await stream.write(frame(Kind.HELLO, 0, hello.encode()))
            await once(lambda: FLOODER in hub.gate._streams)
            await once(lambda: FLOODER not in hub.gate._streams)
            assert await status(stream) == "DEADLINE_EXCEEDED: no greeting within 0.5 s"

    asyncio.run(body())


def test_a_peer_that_reads_no_reply_frees_its_stream_after_the_stall(
    hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "Session", partial(Session, stall_s=0.5))
    monkeypatch.setattr(link, "ABORT_S", 0.2)

    async def body() -> None:
        async with channel(hub, FLOODER, *UNREAD) as opened:
            stream = await greeted(opened)
            for number in range(200):
                await stream.write(frame(Kind.CALL, number, b"\x40" + b"x" * 64 + bytes(6)))
            await once(lambda: FLOODER not in hub.gate._streams)
            assert await status(stream) == "ABORTED: the other end took nothing for 0.5 s"

    asyncio.run(body())


def call_of_nothing(number: int) -> bytes:
    return frame(Kind.CALL, number, b"\x01x" + bytes(6))


@pytest.mark.parametrize("made", [lambda number: frame(Kind.REPLY, number), call_of_nothing], ids=["replies", "calls"])
def test_a_flood_of_small_frames_ends_its_stream_alone(hub: Served, made: Callable[[int], bytes]) -> None:
    """Each is answered with a frame, and none of those is read."""
    refused = hub.counts.events.count(("refused", "frame"))

    async def body() -> str:
        async with channel(hub, FLOODER, *UNREAD) as opened:
            stream = await greeted(opened)
            answering = asyncio.create_task(asyncio.to_thread(answered, hub))
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for number in range(20_000):
                    await stream.write(made(number))
            found = await status(stream)
            assert await answering == dict.fromkeys(SILOS, "answered")
            return found

    assert asyncio.run(body()) == "INVALID_ARGUMENT: 1024 frames wait for the other end to read"
    assert hub.counts.events.count(("refused", "frame")) == refused + 1
