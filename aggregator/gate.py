"""The aggregator's end of every connection: streams of silos become `SiloHandle`s, analysts' calls reach the server.

Promises: the identity of the other end comes from its TLS certificate, never from a field of a message
(`Membership.peer` checks it). A stream is refused before its first frame is read unless the newest membership lists its
certificate. docs/federated.md, "The stream, byte by byte".
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
import structlog
from cryptography import x509

from aggregator.callers import STREAMS_PER_ANALYST, Callers, Calls, answer_silo
from aggregator.errors import AggregatorError
from aggregator.holders import MAX_CONNECTIONS, Holders
from aggregator.streams import StreamSilo
from crypto.errors import CryptoError, LinkError, MembershipError, WireError
from crypto.randomness import token
from federation.members.certificates import Role, read_certificate
from federation.members.credentials import Credentials, Tls
from federation.members.membership import Member
from federation.operations.allowance import Allowance
from federation.transport.frames import DATA_BYTES, WIRE, Kind, Parts, frame
from federation.transport.handshake import (
    ADMITTED,
    ANALYST_METHOD,
    GREETING_S,
    OPTIONS,
    SILO_METHOD,
    Hello,
    Welcome,
    agree,
    greeting,
)
from federation.transport.session import Limits, Session, pump
from policies.units import when

MAX_STREAMS = 4096
RENEW_S = 60.0  # how long running rounds keep streams of an older membership
LINGER_S = 2.0
ABORT_S = 2.0  # how long a peer may take to read why its stream ends
STREAMS_PER_SILO = 2  # the present one, and its successor during the replacement
OPENED_AT_ONCE, OPENED_PER_DAY = 300, 200_000  # streams of one member: two or three a second without end
SILO_LIMITS = Limits(call_bytes=64 << 10)  # silos only send checkpoints of their ledgers
ANALYST_LIMITS = Limits(call_bytes=4 << 20, reply_bytes=0, buffered_bytes=16 << 20, calls=8)
_log = structlog.get_logger("consilo.aggregator")


class Counts(Protocol):
    """The counts of connections, none of which depend on data."""

    def refused(self, reason: str) -> None: ...
    def connected(self, role: str, number: int) -> None: ...
    def moved(self, role: str, bytes_in: int, bytes_out: int) -> None: ...


class Gate:
    """The server that silos and analysts dial."""

    def __init__(
        self,
        credentials: Credentials,
        serve: Callable[[Mapping[str, StreamSilo]], Calls],
        counts: Counts,
        wire: tuple[int, ...] = WIRE,
    ) -> None:
        """`serve` makes the server for the silos of a membership, again at each change of the membership."""
        self._credentials, self._make, self._counts, self._wire = credentials, serve, counts, wire
        self._instance = token(16)
        self._silos: dict[str, StreamSilo] = {}
        self._streams: dict[str, int] = {}
        self._opened = Allowance[str](OPENED_AT_ONCE, OPENED_PER_DAY, time.time)
        self._known: dict[str, dict[str, object]] = {}  # of each silo's newest stream
        self._sessions: dict[Session, tuple[Role, x509.Certificate]] = {}
        self._server: Calls | None = None
        self._grpc: Any = None
        self._renewing: asyncio.Future[None] | None = None
        self.callers = Callers(credentials, lambda: self._server, self._renewed)
        self._change_server()

    @property
    def connected(self) -> list[str]:
        """Return the silos that are connected now and know the newest membership."""
        return sorted(name for name, silo in self._silos.items() if silo.is_connected)

    @property
    def connections(self) -> dict[str, dict[str, object]]:
        """Return since when each connected silo is connected, with its software and wire version."""
        return {name: dict(self._known[name]) for name in self.connected if name in self._known}

    @property
    def other_versions(self) -> dict[str, str]:
        """Return why the silos are refused that have no version in common with this aggregator."""
        found = {name: one.other_version for name, one in sorted(self._silos.items())}
        return {name: why for name, why in found.items() if why and name not in self.connected}

    async def start(self, address: str) -> int:
        """Listen on `address`, HOST:PORT, and expect the silos; return the port. Raises AggregatorError."""
        self._grpc = grpc.aio.server(
            options=[
                *OPTIONS,
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", 16),
                ("grpc.enable_channelz", 1),  # for `Holders`
                ("grpc.max_allowed_incoming_connections", 2 * MAX_CONNECTIONS),  # between two looks
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.max_connection_idle_ms", 60_000),
            ],
            maximum_concurrent_rpcs=MAX_STREAMS,
        )
        handlers = {
            SILO_METHOD.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(self._silo_stream),
            ANALYST_METHOD.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(self._analyst_stream),
        }
        service = SILO_METHOD.split("/")[1]
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            port: int = self._grpc.add_secure_port(address, self._tls())
        except RuntimeError as err:
            raise AggregatorError(f"cannot listen on {address}", "is another process there? see --listen") from err
        await self._grpc.start()
        self.holders = Holders(port, lambda: self._credentials.membership, self._counts.refused)
        self._watching = asyncio.create_task(self.holders.watch())
        for silo in self._silos.values():
            silo.expect()
        return port

    async def stop(self, drain_s: float) -> None:
        """Accept no new request, let running rounds end for at most `drain_s`, and close every stream.

        After a round its analyst may still fetch the evidence: streams close when analysts have left, or have asked
        nothing for LINGER_S.
        """
        self.callers.is_stopping = True
        self._watching.cancel()
        clock = asyncio.get_running_loop().time
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                while self.callers.under_way.total() or (
                    self._has_analysts and clock() - self.callers.answered_at < LINGER_S
                ):
                    await asyncio.sleep(0.05)
        for session in list(self._sessions):
            session.close(LinkError("the aggregator is stopping"))
        await self._grpc.stop(2.0)

    def refresh(self) -> bool:
        """Apply a newer membership in the directory; return whether there was one, or one not applied yet.

        Streams of members that it no longer lists end at once. The other silos' streams end after the running rounds,
        so that they dial again and learn of it. Raises CryptoError, AggregatorError or OSError; then the next call
        tries again.
        """
        self._credentials.refresh()
        if self.version == self._credentials.membership.version:
            return False
        membership = self._credentials.membership
        for session, (_, certificate) in list(self._sessions.items()):
            try:
                membership.peer(certificate)
            except MembershipError as err:
                session.close(err)
        self.callers.keep_only({member.name for member in membership.of_role("analyst")})
        self._change_server()
        behind = [session for session, (role, _) in self._sessions.items() if role == "silo"]
        self._renewing = asyncio.ensure_future(self._renew(behind))
        return True

    async def _renew(self, behind: Sequence[Session]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S):
                while self.callers.under_way.total():
                    await asyncio.sleep(0.05)
        for session in behind:
            session.close(_GrownError("the membership has grown"))

    async def _renewed(self) -> None:
        while self._renewing is not None and not self._renewing.done():
            await asyncio.shield(self._renewing)

    def _change_server(self) -> None:
        membership = self._credentials.membership
        names = sorted(member.name for member in membership.of_role("silo"))
        silos = {name: self._silos.get(name) or StreamSilo(name) for name in names}
        # Running rounds continue in the server that began them.
        self._server = self._make(silos) if membership.roster else None
        self._silos, self.version = silos, membership.version

    def _tls(self) -> grpc.ServerCredentials:
        known: list[Tls] = [self._credentials.tls()]

        def configuration(tls: Tls) -> Any:
            return grpc.ssl_server_certificate_configuration([(tls.key, tls.chain)], tls.authority)

        def fetch() -> Any:
            """Return a certificate that has replaced the present one, so that a rotation needs no restart."""
            try:
                tls = self._credentials.tls()
            except CryptoError as err:
                _log.error("certificate_not_read", reason=err.message)
                return None
            if tls == known[0]:
                return None
            known[0] = tls
            return configuration(tls)

        return grpc.dynamic_ssl_server_credentials(configuration(known[0]), fetch, require_client_authentication=True)

    async def _silo_stream(self, _: object, context: Any) -> None:
        member, certificate = await self._peer(context, "silo", STREAMS_PER_SILO)
        try:
            handle = self._silos[member.name]
            hello, wire = await self._greet(context, handle)
            await self._check(context, certificate)
            handle = self._silos[member.name]  # the membership may have grown meanwhile

            async def serve(number: int, step: str, arguments: Parts) -> Parts:
                return await answer_silo(self._server, member.name, step, arguments)

            session = Session(context.write, serve, wire, SILO_LIMITS)
            is_behind = hello.membership < len(self._credentials.log)
            if (before := handle.attach(session, hello.instance, is_behind)) is not None:
                before.close(LinkError("the silo opened another stream; if this goes on, it is served twice"))
            self._known[member.name] = {"since": when(int(time.time())), "software": hello.software, "wire": wire}
            _log.info("silo_connected", silo=member.name, wire=wire, software=hello.software)
            reason = "the stream broke"
            try:
                reason = await self._run(session, "silo", certificate, context)
            finally:
                handle.lost(session)
                _log.info("silo_disconnected", silo=member.name, reason=reason)
        finally:
            self._leave(member)

    async def _analyst_stream(self, _: object, context: Any) -> None:
        member, certificate = await self._peer(context, "analyst", STREAMS_PER_ANALYST)
        try:
            hello, wire = await self._greet(context)
            await self._check(context, certificate)
            key = member.name, hello.instance
            process = self.callers.come(*key)
            session = Session(context.write, process.once, wire, ANALYST_LIMITS)
            try:
                await self._run(session, "analyst", certificate, context)
            finally:
                process.streams -= 1
                self.callers.leave(key)
        finally:
            self._leave(member)

    @property
    def _has_analysts(self) -> bool:
        return any(role == "analyst" for role, _ in self._sessions.values())

    async def _peer(self, context: Any, role: Role, most: int) -> tuple[Member, x509.Certificate]:
        """Return the member at the other end; ends the stream if it may not connect."""
        try:
            pem = context.auth_context().get("x509_pem_cert", ())
            if len(pem) != 1:
                raise MembershipError("the connection has no certificate")
            certificate = read_certificate(pem[0])
            member = self._credentials.membership.peer(certificate)
            if member.role != role:
                raise MembershipError(f"{member.name!r} is a member, but no {role}")
            if member.role == "silo" and member.name not in self._silos:
                raise MembershipError(f"{member.name!r} is not in the roster yet")
        except CryptoError as err:
            self._counts.refused("not_a_member")
            _log.warning("refused", reason=err.message[:200])
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, err.message)
        if self.callers.is_stopping:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "the aggregator is stopping")
        if not self._opened.take(member.name):
            self._counts.refused("too_many_streams")
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{member.name!r} opens streams too often")
        if self._streams.get(member.name, 0) >= most:
            self._counts.refused("too_many_streams")
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{member.name!r} has {most} streams already")
        self._streams[member.name] = self._streams.get(member.name, 0) + 1
        try:
            await context.send_initial_metadata((ADMITTED,))  # the dialling end writes nothing before this
        except BaseException:
            self._leave(member)
            raise
        return member, certificate

    async def _check(self, context: Any, certificate: x509.Certificate) -> None:
        """End the stream of a member that was revoked during its greeting; nothing is awaited from here to `_run`."""
        try:
            self._credentials.membership.peer(certificate)
        except MembershipError as err:
            self._counts.refused("not_a_member")
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, err.message)

    def _leave(self, member: Member) -> None:
        self._streams[member.name] -= 1
        if not self._streams[member.name]:
            del self._streams[member.name]

    async def _greet(self, context: Any, silo: StreamSilo | None = None) -> tuple[Hello, int]:
        try:
            async with asyncio.timeout(GREETING_S):
                raw = await context.read()
                if not isinstance(raw, bytes):
                    raise WireError("the stream ended before a greeting")
                hello = Hello.decode(greeting(raw, Kind.HELLO))
                wire = _agree(hello, self._wire, silo)
                await context.write(frame(Kind.WELCOME, 0, self._welcome(hello, wire).encode()))
                return hello, wire
        except TimeoutError:
            self._counts.refused("greeting")
            await _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, f"no greeting within {GREETING_S:g} s")
        except CryptoError as err:
            self._counts.refused("greeting")
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, err.message)

    def _welcome(self, hello: Hello, wire: int) -> Welcome:
        newer: list[bytes] = []
        log, room = self._credentials.log, DATA_BYTES // 2
        for signed in log.versions[hello.membership :]:
            room -= len(signed.envelope) * 4 // 3 + 4
            if room < 0 and newer:
                break
            newer.append(signed.envelope)
        return Welcome(wire=wire, instance=self._instance, newest=len(log), memberships=tuple(newer))

    async def _run(self, session: Session, role: Role, certificate: x509.Certificate, context: Any) -> str:
        """Serve a stream until its peer ends it or breaks a rule, or this end ends it; return why it ended."""
        self._sessions[session] = role, certificate
        self._count(role)
        reason = "the stream ended"
        try:
            await pump(context.read, session)
        except _GrownError:
            reason = "the membership has grown"  # it ends well, so that the silo dials again at once
        except WireError as err:
            session.close(err)
            self._counts.refused("frame")
            _log.warning("frame_refused", role=role, reason=err.message[:200])
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, err.message)
        except CryptoError as err:
            await _abort(context, grpc.StatusCode.ABORTED, err.message)
        except Exception:
            reason = "the stream broke"
        finally:
            session.close(LinkError(reason))
            del self._sessions[session]
            self._counts.moved(role, session.bytes_in, session.bytes_out)
            self._count(role)
        return reason

    def _count(self, role: Role) -> None:
        self._counts.connected(role, sum(one == role for one, _ in self._sessions.values()))


def _agree(hello: Hello, ours: tuple[int, ...], silo: StreamSilo | None) -> int:
    """Return the wire version of a stream; a silo without a common one is remembered for those who miss it."""
    try:
        return agree(hello.wire, ours, hello.software)
    except LinkError as err:
        if silo is not None:
            silo.other_version = err.message[:300]
            _log.warning("other_version", silo=silo.silo, reason=err.message[:300])
        raise


class _GrownError(LinkError):
    """The membership has grown, and a silo must learn of it."""


async def _abort(context: Any, code: grpc.StatusCode, reason: str) -> NoReturn:
    """End a stream with a reason; a peer that does not read only sees the stream end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ABORT_S):
            await context.abort(code, reason[:500])
    raise asyncio.CancelledError  # gRPC reads this as the end of the RPC
