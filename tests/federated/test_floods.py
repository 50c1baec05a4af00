"""Members that flood the aggregator, read nothing, or are revoked meanwhile: a real gate ends their streams alone."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from aggregator import callers, gate
from analyst.client import Federation
from crypto.errors import LinkError
from crypto.randomness import token
from crypto.rounds.manifest import Recipient
from crypto.rounds.messages import Failure
from crypto.wire import sign, signer_of, unverified
from federation.authority import opened, revoke
from federation.errors import FederationError
from federation.members.certificates import utc_now
from federation.transport.calls import CallFailedError
from federation.transport.frames import WIRE, Kind, Parts, frame
from federation.transport.handshake import ADMITTED, ANALYST_METHOD, Hello, greet
from federation.transport.session import Session, pump
from policies.requests.catalogue import CatalogueRequest
from silo_node.errors import SiloError
from tests.federated.test_link import PURPOSE, QUESTION, ask, statuses
from tests.harness.federated import (
    AGGREGATOR,
    NAME,
    SILOS,
    LocalSilo,
    Served,
    add_member,
    channel,
    free_port,
    give_membership,
    provision,
    served,
)
from tests.harness.inside import (
    allow_streams,
    allow_unanswered,
    answer_by,
    key_of,
    ledger_of,
    link_of,
    membership_of,
    renew_by,
    sealing_key_of,
    server_of,
    session_of,
    streams_of,
)
from tests.harness.waiting import until

pytestmark = pytest.mark.server

EPSILON = 0.05  # of a question that shows only that the others are answered
FLOODER, REVOKED = "eve", "mallory"  # other analysts than the one who asks


@pytest.fixture(scope="module")
def hub(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = free_port()
    path = provision(tmp_path_factory.mktemp("floods") / "p", founded, f"127.0.0.1:{port}")
    for name in (FLOODER, REVOKED):
        add_member(path, name, "analyst")
    give_membership(path, AGGREGATOR)
    with served(path, port) as one:
        yield one
        until(lambda: not streams_of(one.gate).get(FLOODER))
        assert statuses(ask(one, EPSILON)) == dict.fromkeys(SILOS, "answered"), "no flood left a trace"


# Of a stream that is not read no more than this comes.
UNREAD = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))


async def greeted(connection: Any, instance: bytes | None = None) -> Any:
    """Greet as a new process, or as the one of this instance."""
    stream: Any = connection.stream_stream(ANALYST_METHOD)()
    hello = Hello(wire=WIRE, instance=instance or token(16), membership=1 << 20, software="test")
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
    monkeypatch.setattr(gate, "GREETING_S", 0.5)
    monkeypatch.setattr(gate, "ABORT_S", 0.2)

    async def body() -> None:
        async with channel(hub, FLOODER, *UNREAD) as connection:
            stream: Any = connection.stream_stream(ANALYST_METHOD)()
            await stream.initial_metadata()
            hello = Hello(wire=WIRE, instance=bytes(16), membership=0, software="test")
            await stream.write(frame(Kind.HELLO, 0, hello.encode()))
            await once(lambda: FLOODER in streams_of(hub.gate))
            await once(lambda: FLOODER not in streams_of(hub.gate))
            assert await status(stream) == "DEADLINE_EXCEEDED: no greeting within 0.5 s"

    asyncio.run(body())


def test_a_peer_that_reads_no_reply_frees_its_stream_after_the_stall(
    hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "Session", partial(Session, stall_s=0.5))
    monkeypatch.setattr(gate, "ABORT_S", 0.2)

    async def body() -> None:
        async with channel(hub, FLOODER, *UNREAD) as connection:
            stream = await greeted(connection)
            for number in range(200):
                await stream.write(frame(Kind.CALL, number, b"\x40" + b"x" * 64 + bytes(6)))
            await once(lambda: FLOODER not in streams_of(hub.gate))
            assert await status(stream) == "ABORTED: the other end took nothing for 0.5 s"

    asyncio.run(body())


def test_a_peer_that_grants_no_reply_is_told_why_its_stream_ends(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked_by(hub, FLOODER)
    monkeypatch.setattr(gate, "Session", partial(Session, stall_s=0.5))

    class Large(Counting):
        async def catalogues(self, request: bytes) -> tuple[bytes, ...]:
            return (bytes(9 << 20),)

    answer_by(hub.gate, Large(hub), monkeypatch)

    async def body() -> str:
        async with channel(hub, FLOODER) as connection:
            stream = await greeted(connection)
            header = b"\x0acatalogues" + bytes(4) + b"\x00\x01" + len(request).to_bytes(4, "big")
            await stream.write(frame(Kind.CALL, 1, header + request))
            return await asyncio.wait_for(status(stream), 20)

    assert asyncio.run(body()) == "ABORTED: the other end took nothing for 0.5 s"


def call_of_nothing(number: int) -> bytes:
    return frame(Kind.CALL, number, b"\x01x" + bytes(6))


@pytest.mark.parametrize("made", [lambda number: frame(Kind.REPLY, number), call_of_nothing], ids=["replies", "calls"])
def test_a_flood_of_small_frames_ends_its_stream_alone(hub: Served, made: Callable[[int], bytes]) -> None:
    """Each is answered with a frame, and none of those is read."""
    refused = hub.counts.events.count(("refused", "frame"))

    async def body() -> str:
        async with channel(hub, FLOODER, *UNREAD) as connection:
            stream = await greeted(connection)
            answering = asyncio.create_task(asyncio.to_thread(ask, hub, EPSILON))
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for number in range(20_000):
                    await stream.write(made(number))
            found = await status(stream)
            assert statuses(await answering) == dict.fromkeys(SILOS, "answered")
            return found

    assert asyncio.run(body()) == "INVALID_ARGUMENT: 1024 frames wait for the other end to read"
    assert hub.counts.events.count(("refused", "frame")) == refused + 1


async def nothing(number: int, step: str, arguments: Parts) -> Parts:
    raise LinkError("analysts answer no calls")


class Counting:
    """Stands before an aggregator's server and answers how many catalogues were asked for."""

    def __init__(self, one: Served) -> None:
        self._server: Any = server_of(one.gate)
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        self.asked += 1
        return (b"%d" % self.asked,)


@asynccontextmanager
async def process(connection: Any, instance: bytes) -> AsyncIterator[Session]:
    """A stream of one process, which is lost in the end."""
    stream = await greeted(connection, instance)
    session = Session(stream.write, nothing, WIRE[-1])
    pumping = asyncio.create_task(pump(stream.read, session))
    try:
        yield session
    finally:
        pumping.cancel()
        stream.cancel()


async def called(connection: Any, instance: bytes, number: int, request: bytes) -> Parts:
    async with process(connection, instance) as session:
        return await session.call(number, "catalogues", (request,))


def asked_by(one: Served, analyst: str) -> bytes:
    """Return what this analyst signs to ask for catalogues."""
    with Federation.open(one.path / analyst / "consilo.toml") as federation:
        message = CatalogueRequest(federation=NAME, analyst=analyst, nonce=bytes(16), created_at=int(time.time()))
        return sign(message, analyst, key_of(federation))


def test_processes_of_one_analyst_come_back_to_their_own_replies(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked_by(hub, FLOODER)
    counting = Counting(hub)
    answer_by(hub.gate, counting, monkeypatch)

    async def body() -> None:
        async with channel(hub, FLOODER) as connection:
            for _ in range(3):
                for process in (1, 2, 3):
                    assert await called(connection, bytes([process]) * 16, 1, request) == (b"%d" % process,)
            for process in range(4, 12):  # more than may have a stream at a time: the oldest is forgotten
                await called(connection, bytes([process]) * 16, 1, request)
                await once(lambda: FLOODER not in streams_of(hub.gate))
            assert await called(connection, bytes([11]) * 16, 1, request) == (b"11",)
            assert await called(connection, bytes([1]) * 16, 1, request) == (b"12",)

    asyncio.run(body())
    assert sum(name == FLOODER for name, _ in hub.gate.callers.processes) == callers.STREAMS_PER_ANALYST


def test_replies_are_released_when_an_analyst_does_not_come_back(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked_by(hub, FLOODER)
    monkeypatch.setattr(callers, "KEPT_S", 0.3)
    going = threading.Event()

    class Slow(Counting):
        async def catalogues(self, request: bytes) -> tuple[bytes, ...]:
            while not going.is_set():
                await asyncio.sleep(0.01)
            return await super().catalogues(request)

    slow = Slow(hub)
    answer_by(hub.gate, slow, monkeypatch)

    async def body() -> None:
        async with channel(hub, FLOODER) as connection:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(called(connection, b"a process...... ", 1, request), 1)
            await asyncio.sleep(1)
            going.set()  # the call is under way still, so it is not executed again
            assert await called(connection, b"a process...... ", 1, request) == (b"1",)
            await once(lambda: (FLOODER, b"a process...... ") not in hub.gate.callers.processes)
            assert await called(connection, b"a process...... ", 1, request) == (b"2",)

    asyncio.run(body())


def test_what_belongs_to_a_report_is_for_the_analyst_who_asked_for_it_alone(hub: Served) -> None:
    """Also if another one knows its name: the question in it is for nobody else, and delivering makes silos work."""
    with hub.open() as federation:
        report = federation.query(QUESTION, purpose=PURPOSE, epsilon=EPSILON)
        name = bytes.fromhex(report.transcript)
        assert federation.stored_report(name)[0].name == name
    seen = {silo.name: list(silo.seen) for silo in hub.silos.values()}
    with Federation.open(hub.path / FLOODER / "consilo.toml") as other:
        for call in (
            link_of(other).report,
            link_of(other).deliver_report,
            lambda name: link_of(other).evidence(name, 0),
        ):
            with pytest.raises(FederationError, match="a request signed by somebody else than 'eve'"):
                call(name)
            with pytest.raises(FederationError, match="there is no report"):
                call(bytes(32))
    assert seen == {silo.name: silo.seen for silo in hub.silos.values()}


def test_an_analyst_s_calls_are_bounded_over_its_processes_and_others_are_answered(
    hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them makes every silo work."""
    request, going = asked_by(hub, FLOODER), threading.Event()

    class Held(Counting):
        async def catalogues(self, request: bytes) -> tuple[bytes, ...]:
            while signer_of(request, CatalogueRequest) == FLOODER and not going.is_set():
                await asyncio.sleep(0.01)
            return tuple(await self._server.catalogues(request))

    answer_by(hub.gate, Held(hub), monkeypatch)

    async def body() -> None:
        async with channel(hub, FLOODER) as connection, AsyncExitStack() as streams:
            flood = []
            for _ in range(callers.STREAMS_PER_ANALYST):
                session = await streams.enter_async_context(process(connection, token(16)))
                flood += [asyncio.create_task(session.call(two, "catalogues", (request,))) for two in range(8)]
            await once(lambda: sum(one.done() for one in flood) == len(flood) - callers.MAX_ASKED)
            assert statuses(await asyncio.to_thread(ask, hub, EPSILON)) == dict.fromkeys(SILOS, "answered")
            going.set()
            found = await asyncio.gather(*flood, return_exceptions=True)
        refused = [str(one) for one in found if isinstance(one, BaseException)]
        assert refused == [f"{callers.MAX_ASKED} calls of 'eve' are under way"] * (len(flood) - callers.MAX_ASKED)
        assert [len(one) for one in found if not isinstance(one, BaseException)] == [len(SILOS)] * callers.MAX_ASKED

    asyncio.run(body())


def test_whom_no_policy_names_asks_so_often_and_leaves_one_entry_at_each_silo(
    hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: one envelope, replayed over an honest aggregator, fills the log of every silo, and costs nothing."""
    allow_unanswered(hub.gate, 20, monkeypatch)
    with hub.open() as federation:
        _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=EPSILON)
    before = {name: last_entry(silo) for name, silo in hub.silos.items()}
    with Federation.open(hub.path / FLOODER / "consilo.toml") as other:
        mine = Recipient(name=FLOODER, key=sealing_key_of(other).public)
        envelope = sign(request.model_copy(update={"analyst": FLOODER, "recipients": (mine,)}), FLOODER, key_of(other))
        for _ in range(20):
            assert unverified(link_of(other).submit(envelope), Failure).reason
        for _ in range(20):
            with pytest.raises(FederationError, match="too many requests of 'eve' had no answer lately"):
                link_of(other).submit(envelope)
    grown = {name: last_entry(silo) - before[name] for name, silo in hub.silos.items()}
    # One entry of the refusal, and one that tells how many had none.
    assert max(grown.values()) <= 2, grown
    assert statuses(ask(hub, EPSILON)) == dict.fromkeys(SILOS, "answered"), "others ask as before"


def test_a_member_that_opens_streams_without_end_is_refused_and_the_others_connect(
    hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: streams that come and go over one connection keep the aggregator from everything else."""
    allow_streams(hub.gate, 10, monkeypatch)

    async def body() -> list[str]:
        found = []
        async with channel(hub, FLOODER) as connection:
            for _ in range(30):
                stream: Any = connection.stream_stream(ANALYST_METHOD)()
                if (await stream.initial_metadata()) is None or ADMITTED not in tuple(await stream.initial_metadata()):
                    found.append(await status(stream))
                else:
                    stream.cancel()
                    await once(lambda: FLOODER not in streams_of(hub.gate))
        return found

    assert asyncio.run(body()) == ["RESOURCE_EXHAUSTED: 'eve' opens streams too often"] * 20
    hub.lose("birch")
    assert statuses(ask(hub, EPSILON)) == dict.fromkeys(SILOS, "answered")


def last_entry(silo: LocalSilo) -> int:
    return ledger_of(silo).entries(1)[-1].seq


def failing(silo: LocalSilo, err: Exception, seen: list[str]) -> None:
    """Let the actor refuse a newer membership the first time."""

    async def renewed(renew: Callable[[], Awaitable[bool]]) -> bool:
        if silo.name not in seen:
            seen.append(silo.name)
            raise err
        return await renew()

    renew_by(silo.dialler, renewed)


def test_a_silo_sends_calls_of_64_kib_at_most_and_larger_ones_end_its_stream(hub: Served) -> None:
    async def body() -> None:
        session = session_of(hub.silos["cedar"].dialler)
        assert session is not None
        with pytest.raises(CallFailedError, match="signed by somebody else"):
            await session.call(1 << 40, "put_head", (hub.silos["aspen"].actor.guarding().checkpoint,))
        with pytest.raises(CallFailedError, match="too large"):
            await session.call(1 << 40, "put_head", (bytes(64 << 10),))
        with pytest.raises(LinkError, match="the stream ended"):
            await session.call(1 << 40, "put_head", (bytes((64 << 10) + 1),))

    refused = hub.counts.events.count(("refused", "frame"))
    hub.runner.do(body())
    assert hub.counts.events.count(("refused", "frame")) == refused + 1
    hub.wait(SILOS)


def test_a_member_that_is_revoked_while_it_greets_is_not_served_and_nothing_is_kept_of_it(hub: Served) -> None:
    request = asked_by(hub, REVOKED)

    def revoked() -> None:
        with opened(hub.path / "authority" / "consilo.toml") as authority:
            revoke(authority, REVOKED, "member", utc_now())
        give_membership(hub.path, AGGREGATOR)

        async def refresh() -> None:
            assert hub.gate.refresh()
            assert not [name for name, _ in hub.gate.callers.processes if name == REVOKED]

        hub.runner.do(refresh())

    async def body() -> None:
        async with channel(hub, REVOKED) as connection:
            await called(connection, b"another process.", 1, request)
            stream: Any = connection.stream_stream(ANALYST_METHOD)()
            assert ADMITTED in tuple(await stream.initial_metadata())
            greeted_before = await greeted(connection)
            await asyncio.to_thread(revoked)
            assert "is revoked" in await status(greeted_before)
            hello = Hello(wire=WIRE, instance=bytes(16), membership=1 << 20, software="test")
            await stream.write(frame(Kind.HELLO, 0, hello.encode()))
            await stream.read()  # the aggregator's greeting
            assert (await status(stream)).startswith("PERMISSION_DENIED: the certificate of ")
            await once(lambda: REVOKED not in streams_of(hub.gate))

    failed: list[str] = []
    for name, err in (("aspen", SiloError("the actor does not start")), ("birch", OSError("the disk is full"))):
        failing(hub.silos[name], err, failed)
    starts = {name: one.starts for name, one in hub.silos.items()}
    asyncio.run(body())
    renewed = {name: before + 1 for name, before in starts.items()}
    until(lambda: {name: one.starts for name, one in hub.silos.items()} == renewed)
    assert sorted(failed) == ["aspen", "birch"], "a silo whose renewal fails does it again"
    newest_version = len(membership_of(hub.gate))
    until(lambda: all(len(membership_of(one.dialler)) == newest_version for one in hub.silos.values()))
    hub.wait(SILOS)
