"""The aggregator's end of every connection: streams of silos become `SiloHandle`s, analysts' calls reach the server.

Who is at the other end says the certificate of the TLS connection, never a field of a message. A stream is refused
before its first frame is read unless its certificate is one that the newest membership lists.
docs/federated.md, "The stream, byte by byte".
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
import structlog
from cryptography import x509

from aggregator.errors import AggregatorError
from aggregator.streams import StreamSilo
from crypto.errors import CryptoError, LinkError, MembershipError, WireError
from crypto.keys import VerifyKey
from crypto.randomness import token
from crypto.wire import signer_of, verify
from federation.members.certificates import Role, read_certificate
from federation.members.credentials import Credentials, Tls
from federation.members.membership import Member
from federation.transport.calls import CallFailedError, Once
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
from policies.budget.ledger import Checkpoint
from policies.requests.catalogue import CatalogueRequest
from policies.requests.request import Request

KEPT_S = 60.0  # how long an analyst may come back: a lost stream is noticed up to 30 s later at the other end
KEPT_BYTES = 192 << 20  # of the replies to one process of an analyst
MAX_CONNECTIONS = 512
MAX_STREAMS = 1024
MAX_ASKED = 16  # calls of one analyst
RENEW_S = 60.0  # for which rounds under way keep streams of an older membership
LINGER_S = 2.0
ABORT_S = 2.0  # for which a peer may read why its stream ends
STREAMS_PER_SILO = 2  # the one that is and, while it is being replaced, the one that comes
STREAMS_PER_ANALYST = 4
SILO_LIMITS = Limits(call_bytes=64 << 10)  # what silos call with is the heads of their ledgers
ANALYST_LIMITS = Limits(call_bytes=4 << 20, reply_bytes=0, buffered_bytes=16 << 20, calls=8)
# What analysts may call; what stands beside it is the message whose signer must be who calls. None: the call names a
# report, and who calls must have signed the request that it answers.
ANALYST_STEPS: Mapping[str, type[CatalogueRequest | Request] | None] = {
    "catalogues": CatalogueRequest,
    "submit": Request,
    "teach": None,
    "report": None,
    "evidence": None,
}
_log = structlog.get_logger("consilo.aggregator")


class Calls(Protocol):
    """What a server answers analysts, and silos."""

    async def catalogues(self, request: bytes) -> tuple[bytes, ...]: ...
    async def submit(self, request: bytes) -> bytes: ...
    async def teach(self, name: bytes) -> tuple[bytes, ...]: ...
    def report(self, name: bytes) -> bytes: ...
    async def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]: ...
    async def request_of(self, name: bytes) -> bytes: ...
    async def put_head(self, envelope: bytes) -> bytes: ...
    async def get_head(self, silo: bytes) -> bytes: ...


class Counts(Protocol):
    """What is counted of connections: nothing that depends on data."""

    def refused(self, reason: str) -> None: ...
    def connected(self, role: str, number: int) -> None: ...
    def moved(self, role: str, bytes_in: int, bytes_out: int) -> None: ...


@dataclass(slots=True)
class Asker:
    """One process of an analyst: its streams, and what it is answered."""

    once: Once
    streams: int = 0
    leaving: asyncio.TimerHandle | None = None


class Gate:
    """The server that silos and analysts dial."""

    def __init__(
        self,
        credentials: Credentials,
        serve: Callable[[Mapping[str, StreamSilo]], Calls],
        counts: Counts,
        wire: tuple[int, ...] = WIRE,
    ) -> None:
        """`serve` makes the server for the silos of a membership; it is made anew when the membership changes."""
        self._credentials, self._make, self._counts, self._wire = credentials, serve, counts, wire
        self._instance = token(16)
        self._silos: dict[str, StreamSilo] = {}
        self._askers: dict[tuple[str, bytes], Asker] = {}  # by name and instance, as long as replies are kept
        self._streams: dict[str, int] = {}
        self._sessions: dict[Session, tuple[Role, x509.Certificate]] = {}
        self._server: Calls | None = None
        self._grpc: Any = None
        self._asked: Counter[str] = Counter()  # calls under way, by analyst
        self._waiting: Counter[str] = Counter()  # calls that wait for silos to learn of the membership
        self._is_stopping = False
        self._renewing: asyncio.Future[None] | None = None
        self._answered_at = float("-inf")
        self._change_server()

    @property
    def connected(self) -> list[str]:
        """Return the silos that are connected now."""
        return sorted(name for name, silo in self._silos.items() if silo.is_connected)

    async def start(self, address: str) -> int:
        """Listen on `address`, HOST:PORT; return the port. Raises AggregatorError."""
        self._grpc = grpc.aio.server(
            options=[
                *OPTIONS,
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", 16),
                ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
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
        return port

    async def stop(self, drain_s: float) -> None:
        """Take no new request, let what is under way end for at most `drain_s`, and close every stream.

        An analyst whose round ends may still fetch the evidence of its report: streams close when analysts have left,
        or have asked nothing for LINGER_S.
        """
        self._is_stopping = True
        clock = asyncio.get_running_loop().time
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                while self._asked.total() or (self._has_analysts and clock() - self._answered_at < LINGER_S):
                    await asyncio.sleep(0.05)
        for session in list(self._sessions):
            session.close(LinkError("the aggregator is stopping"))
        await self._grpc.stop(2.0)

    def refresh(self) -> bool:
        """Take up a newer membership that the directory holds: return whether there was one, or one not taken up yet.

        Streams that it no longer lists end at once. The other silos' end when the rounds under way have, so that they
        dial again and learn of it. Raises CryptoError, AggregatorError or OSError; then the next call tries again.
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
        analysts = {member.name for member in membership.of_role("analyst")}
        for key in [key for key in self._askers if key[0] not in analysts]:
            self._drop(key)
        self._change_server()
        behind = [session for session, (role, _) in self._sessions.items() if role == "silo"]
        self._renewing = asyncio.ensure_future(self._renew(behind))
        return True

    async def _renew(self, behind: Sequence[Session]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S):
                while self._asked.total():
                    await asyncio.sleep(0.05)
        for session in behind:
            session.close(_GrownError("the membership has grown"))

    def _change_server(self) -> None:
        membership = self._credentials.membership
        names = sorted(member.name for member in membership.of_role("silo"))
        silos = {name: self._silos.get(name) or StreamSilo(name) for name in names}
        # Rounds under way go on in the server that began them.
        self._server = self._make(silos) if membership.roster else None
        self._silos, self.version = silos, membership.version

    def _tls(self) -> grpc.ServerCredentials:
        known: list[Tls] = [self._credentials.tls()]

        def configuration(tls: Tls) -> Any:
            return grpc.ssl_server_certificate_configuration([(tls.key, tls.chain)], tls.authority)

        def fetch() -> Any:
            """Return a certificate that has replaced the one served so far: rotating needs no restart."""
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
            hello, wire = await self._greet(context)
            await self._check(context, certificate)
            handle = self._silos[member.name]

            async def serve(number: int, step: str, arguments: Parts) -> Parts:
                return await self._keep(member.name, step, arguments)

            session = Session(context.write, serve, wire, SILO_LIMITS)
            if (before := handle.attach(session, hello.instance)) is not None:
                before.close(LinkError("the silo opened another stream"))
            _log.info("silo_connected", silo=member.name, wire=wire, software=hello.software)
            try:
                await self._run(session, "silo", certificate, context)
            finally:
                handle.lost(session)
                _log.info("silo_disconnected", silo=member.name)
        finally:
            self._leave(member)

    async def _analyst_stream(self, _: object, context: Any) -> None:
        member, certificate = await self._peer(context, "analyst", STREAMS_PER_ANALYST)
        try:
            hello, wire = await self._greet(context)
            await self._check(context, certificate)
            key = member.name, hello.instance
            asker = self._come(*key)
            session = Session(context.write, asker.once, wire, ANALYST_LIMITS)
            try:
                await self._run(session, "analyst", certificate, context)
            finally:
                asker.streams -= 1
                self._part(key)
        finally:
            self._leave(member)

    def _come(self, analyst: str, instance: bytes) -> Asker:
        """Return the process of an analyst that has opened a stream, and what it was answered before."""
        asker = self._askers.get((analyst, instance))
        if asker is None:
            kept = [key for key in self._askers if key[0] == analyst]
            if len(kept) >= STREAMS_PER_ANALYST:  # then one has no stream, as this one has one
                gone = [key for key in kept if not self._askers[key].streams]
                self._drop(min(gone, key=lambda key: not self._askers[key].once.is_idle))

            async def serve(number: int, step: str, arguments: Parts) -> Parts:
                return await self._answer(analyst, step, arguments)

            asker = Asker(Once(serve, replies=8, reply_bytes=KEPT_BYTES))
            self._askers[analyst, instance] = asker
        if asker.leaving is not None:
            asker.leaving.cancel()
        asker.streams += 1
        return asker

    def _part(self, key: tuple[str, bytes]) -> None:
        """Keep what a process was answered for KEPT_S after its last stream, and while a call of it is under way."""
        asker = self._askers.get(key)
        if asker is not None and not asker.streams:
            asker.leaving = asyncio.get_running_loop().call_later(KEPT_S, self._forget, key)

    def _forget(self, key: tuple[str, bytes]) -> None:
        if self._askers[key].once.is_idle:
            del self._askers[key]
        else:
            self._part(key)

    def _drop(self, key: tuple[str, bytes]) -> None:
        if (leaving := self._askers.pop(key).leaving) is not None:
            leaving.cancel()

    async def _keep(self, silo: str, step: str, arguments: Parts) -> Parts:
        """Keep the head of a silo's own ledger, or say which one is kept; raises CryptoError, which the silo sees."""
        if self._server is None:
            raise CallFailedError("the federation has no roster yet", "the authority admits silos first")
        try:
            match step, arguments:
                case "put_head", (envelope,):
                    if signer_of(envelope, Checkpoint) != silo:
                        raise MembershipError(
                            f"a head signed by somebody else than {silo!r}, whose certificate this is"
                        )
                    return (await self._server.put_head(envelope),)
                case "get_head", ():
                    return (await self._server.get_head(silo.encode()),)
                case _:
                    raise CallFailedError(f"the aggregator has no call {step!r} for silos that takes these arguments")
        except AggregatorError as err:
            raise CallFailedError(err.message, err.hint) from err

    async def _answer(self, analyst: str, step: str, arguments: Parts) -> Parts:
        """Answer an analyst's call; raises CryptoError, whose message the analyst sees.

        1. The step is one that analysts may call. 2. An analyst has a bounded number of calls under way and waiting,
        over all its processes and those that have gone. 3. Silos are asked once they know the membership. 4. What is
        signed is signed by who calls, who is still a member. 5. While the aggregator stops, only what was answered can
        be fetched. 6. A report answers a request of who calls.
        """
        # 1.
        if step not in ANALYST_STEPS:
            raise CallFailedError(f"the aggregator has no call {step!r} for analysts")
        if not _fits(step, arguments):
            raise CallFailedError(f"{step!r} takes other arguments")
        # 2.
        if (under_way := self._asked[analyst] + self._waiting[analyst]) >= MAX_ASKED:
            raise CallFailedError(f"{under_way} calls of {analyst!r} are under way", "ask again later")
        # 3.
        if step in ("catalogues", "submit"):
            self._waiting[analyst] += 1
            try:
                while self._renewing is not None and not self._renewing.done():
                    await asyncio.shield(self._renewing)
            finally:
                self._waiting[analyst] -= 1
        if self._server is None:
            raise CallFailedError("the federation has no roster yet", "the authority admits silos first")
        # 4.
        kind = ANALYST_STEPS[step]
        if kind is not None:
            self._must_sign(analyst, kind, arguments[0])
        # 5.
        if self._is_stopping and step not in ("report", "evidence"):
            raise CallFailedError("the aggregator is stopping", "ask again in a minute")
        self._asked[analyst] += 1
        self._answered_at = asyncio.get_running_loop().time()
        try:
            # 6.
            if kind is None:
                self._must_sign(analyst, Request, await self._server.request_of(arguments[0]))
            return await self._called(self._server, step, arguments)
        except AggregatorError as err:
            raise CallFailedError(err.message, err.hint) from err
        finally:
            self._asked[analyst] -= 1
            self._answered_at = asyncio.get_running_loop().time()

    def _must_sign(self, analyst: str, kind: type[CatalogueRequest | Request], envelope: bytes) -> None:
        if signer_of(envelope, kind) != analyst:
            raise MembershipError(f"a {kind.KIND} signed by somebody else than {analyst!r}, whose certificate this is")
        verify(envelope, kind, {analyst: VerifyKey.parse(self._credentials.membership.find(analyst).key)})

    @property
    def _has_analysts(self) -> bool:
        return any(role == "analyst" for role, _ in self._sessions.values())

    @staticmethod
    async def _called(server: Calls, step: str, arguments: Parts) -> Parts:
        match step, arguments:
            case "catalogues", (request,):
                return await server.catalogues(request)
            case "submit", (request,):
                return (await server.submit(request),)
            case "teach", (name,):
                return await server.teach(name)
            case "report", (name,):
                return (await asyncio.to_thread(server.report, name),)  # up to 256 MiB from disk
            case _, (name, index):
                return await server.evidence(name, int.from_bytes(index, "big"))
        raise AssertionError

    async def _peer(self, context: Any, role: Role, most: int) -> tuple[Member, x509.Certificate]:
        """Return who is at the other end; ends the stream if it may not be here."""
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
        if self._is_stopping:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "the aggregator is stopping")
        if self._streams.get(member.name, 0) >= most:
            self._counts.refused("too_many_streams")
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{member.name!r} has {most} streams already")
        self._streams[member.name] = self._streams.get(member.name, 0) + 1
        try:
            await context.send_initial_metadata((ADMITTED,))  # who dials writes nothing before
        except BaseException:
            self._leave(member)
            raise
        return member, certificate

    async def _check(self, context: Any, certificate: x509.Certificate) -> None:
        """End the stream of a member that was revoked while it greeted; nothing is awaited from here to `_run`."""
        try:
            self._credentials.membership.peer(certificate)
        except MembershipError as err:
            self._counts.refused("not_a_member")
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, err.message)

    def _leave(self, member: Member) -> None:
        self._streams[member.name] -= 1
        if not self._streams[member.name]:
            del self._streams[member.name]

    async def _greet(self, context: Any) -> tuple[Hello, int]:
        try:
            async with asyncio.timeout(GREETING_S):
                raw = await context.read()
                if not isinstance(raw, bytes):
                    raise WireError("the stream ended before a greeting")
                hello = Hello.decode(greeting(raw, Kind.HELLO))
                wire = agree(hello.wire, self._wire)
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

    async def _run(self, session: Session, role: Role, certificate: x509.Certificate, context: Any) -> None:
        """Serve a stream until its peer ends it, breaks a rule, or it is ended here."""
        self._sessions[session] = role, certificate
        self._count(role)
        reason = "the stream ended"
        try:
            await pump(context.read, session)
        except _GrownError:
            return  # it ends well, so that the silo dials again at once
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

    def _count(self, role: Role) -> None:
        self._counts.connected(role, sum(one == role for one, _ in self._sessions.values()))


class _GrownError(LinkError):
    """The membership has grown, and a silo must learn of it."""


def _fits(step: str, arguments: Parts) -> bool:
    """Whether a step takes these arguments: the index of a piece of evidence has 8 bytes."""
    return [len(one) for one in arguments[1:]] == ([8] if step == "evidence" else []) and len(arguments) > 0


async def _abort(context: Any, code: grpc.StatusCode, reason: str) -> NoReturn:
    """End a stream and say why; for a peer that reads nothing the stream only ends."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ABORT_S):
            await context.abort(code, reason[:500])
    raise asyncio.CancelledError  # which gRPC takes for an RPC that is over
