"""The analyst's end of its connection: the calls of `Link`, in federated mode over one stream to a served aggregator.

The calls block; a thread of its own runs the stream. A call whose stream is lost is made again under
the same number, so the aggregator executes it once.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol, Self, TypeVar

import grpc
import grpc.aio

from crypto.errors import CryptoError, LinkError
from crypto.randomness import token
from federation.config import Config
from federation.errors import FederationError
from federation.members.certificates import Identity, host_of
from federation.members.credentials import Credentials
from federation.members.membership import Member
from federation.transport.calls import CallFailedError
from federation.transport.frames import RESUMES, WIRE, Parts
from federation.transport.handshake import ANALYST_METHOD, OPTIONS, Hello, back_off_s, greet
from federation.transport.session import Limits, Session, pump

SOFTWARE = "consilo/0.1"
LIMITS = Limits(call_bytes=0, reply_bytes=272 << 20, buffered_bytes=544 << 20)  # an encrypted report has up to 256 MiB
ATTEMPTS = 4
T = TypeVar("T")


class Link(Protocol):
    """A way to the aggregator."""

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        """Relay a signed CatalogueRequest; return what the silos answered."""

    def submit(self, request: bytes) -> bytes:
        """Submit a signed Request; return an EncryptedReport or a signed Failure."""

    def teach(self, name: bytes) -> tuple[bytes, ...]:
        """Hand the report of a training step to its silos; return what each signed of how far it is."""

    def report(self, name: bytes) -> bytes:
        """Return an encrypted report by its name."""

    def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        """Return one chunk of every contribution in a report's sum, in roster order."""


def dialled(config: Config, analyst: str) -> "RemoteLink":
    """Connect to the served aggregator of a federation between organisations; raises FederationError or CryptoError."""
    if config.anchor is None:
        raise FederationError(f"{config.path} describes a simulated federation")
    identity = Identity(config.federation, "analyst", analyst)
    return RemoteLink(Credentials(config.path.parent, config.anchor, identity), config.dialled)


class RemoteLink:
    """A way to a served aggregator."""

    def __init__(
        self, credentials: Credentials, aggregator: str, timeout_s: float = 300.0, wire: tuple[int, ...] = WIRE
    ) -> None:
        """Connect; raises FederationError if the aggregator cannot be reached or refuses."""
        self._credentials, self._aggregator, self._timeout_s, self._wire = credentials, aggregator, timeout_s, wire
        self._instance, self._number = token(16), 0
        self._session: Session | None = None
        self._channel: Any = None
        self._pumping: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="consilo-link", daemon=True)
        self._thread.start()
        try:
            self._wait(self._connected(), 60.0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave; what the aggregator is doing for this analyst goes on without it."""
        if self._loop.is_closed():
            return
        with suppress(FederationError):
            self._wait(self._disconnect(), 10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        return self._call("catalogues", request)

    def submit(self, request: bytes) -> bytes:
        return self._only(self._call("submit", request))

    def teach(self, name: bytes) -> tuple[bytes, ...]:
        return self._call("teach", name)

    def report(self, name: bytes) -> bytes:
        return self._only(self._call("report", name))

    def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        return self._call("evidence", name, index.to_bytes(8, "big"))

    @staticmethod
    def _only(parts: Parts) -> bytes:
        if len(parts) != 1:
            raise FederationError("the aggregator answered in another form", "update the older side")
        return parts[0]

    def _call(self, step: str, *arguments: bytes) -> Parts:
        return self._wait(self._called(step, arguments), self._timeout_s)

    def _wait(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError as err:
            future.cancel()
            raise FederationError(f"the aggregator did not answer within {timeout_s:g} s", "try again") from err
        except CallFailedError as err:
            raise FederationError(f"the aggregator refused: {err.message}", err.hint or "see `consilo silos`") from err
        except LinkError as err:
            hint = err.hint or "see `consilo doctor`, or ask the aggregator's operator"
            raise FederationError(f"no connection to the aggregator: {err.message}", hint) from err
        except BaseException:
            future.cancel()
            raise

    async def _called(self, step: str, arguments: Parts) -> Parts:
        self._number += 1
        number = self._number
        for attempt in range(ATTEMPTS):
            session = await self._connected()
            try:
                return await session.call(number, step, arguments)
            except CallFailedError:
                raise
            except LinkError:
                if session.wire < RESUMES or attempt + 1 == ATTEMPTS:
                    raise
                await asyncio.sleep(back_off_s(attempt))
        raise AssertionError

    async def _connected(self) -> Session:
        """Return the stream, dialled anew if it is lost; raises LinkError."""
        if self._session is not None and self._pumping is not None and not self._pumping.done():
            return self._session
        for attempt in range(ATTEMPTS):
            await self._disconnect()
            try:
                return await self._dial(attempt)
            except _GrownError:
                continue  # the membership has grown: under the newest, the aggregator may be another
            except LinkError as err:
                is_final = err.message.startswith(("permission_denied", "failed_precondition"))
                if is_final or attempt + 1 == ATTEMPTS:
                    raise
                await asyncio.sleep(back_off_s(attempt))
        raise LinkError("the membership kept growing while dialling", "try again")

    def _target(self, attempt: int) -> tuple[Member, bytes]:
        member = self._credentials.membership.find(self._aggregator)
        return member, member.pins[attempt % len(member.pins)]

    async def _dial(self, attempt: int) -> Session:
        member, pin = self._target(attempt)
        tls = self._credentials.tls()
        # The expected name is made from the aggregator's key: no other certificate of the same authority will do.
        options = [*OPTIONS, ("grpc.ssl_target_name_override", host_of(pin))]
        credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.chain)
        self._channel = grpc.aio.secure_channel(member.address, credentials, options=options)
        stream: Any = self._channel.stream_stream(ANALYST_METHOD)()
        hello = Hello(
            wire=self._wire, instance=self._instance, membership=len(self._credentials.log), software=SOFTWARE
        )
        try:
            welcome = await greet(stream.read, stream.write, stream.initial_metadata, hello)
        except (LinkError, asyncio.InvalidStateError, grpc.aio.AioRpcError) as err:
            raise await _said(stream, err) from err
        if welcome.newest < len(self._credentials.log):
            message = (
                f"the aggregator's membership is version {welcome.newest}, here it is {len(self._credentials.log)}"
            )
            raise LinkError(message, "its operator must install the newest membership.log")
        if self._credentials.extend(welcome.memberships):
            raise _GrownError("the membership has grown")
        session = Session(stream.write, _serves_nothing, welcome.wire, LIMITS)

        async def pumping() -> None:
            error: CryptoError = LinkError("the stream ended")
            try:
                await pump(stream.read, session)
                error = await _said(stream, error)
            except CryptoError as err:
                error = err
            except (asyncio.InvalidStateError, grpc.aio.AioRpcError) as err:
                error = await _said(stream, err)
            finally:
                session.close(error)
                stream.cancel()

        self._session, self._pumping = session, asyncio.get_running_loop().create_task(pumping())
        return session

    async def _disconnect(self) -> None:
        if self._pumping is not None:
            self._pumping.cancel()
            with suppress(asyncio.CancelledError):
                await self._pumping
        if self._channel is not None:
            await self._channel.close()
        self._session = self._pumping = self._channel = None


class _GrownError(LinkError):
    pass


async def _said(stream: Any, err: Exception) -> LinkError:
    """Return why the other side ended the stream."""
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            code, details = await stream.code(), await stream.details()
            if code is not grpc.StatusCode.OK:
                return LinkError(f"{code.name.lower()}: {details}"[:500])
    return LinkError(str(err)[:300] or "the stream ended")


async def _serves_nothing(number: int, step: str, arguments: Parts) -> Parts:
    raise CallFailedError("analysts answer no calls")
