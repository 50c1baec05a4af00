"""The analyst's end of its connection: the calls of `Link`, in federated mode over one stream to a served aggregator.

The calls block; one thread of this process runs the streams of all connections. If a stream is lost, its calls are made
again under the same numbers, so the aggregator executes each once. An aggregator that is away is dialled for
PATIENCE_S, so that its restart ends no call.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cache
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
from federation.transport.calls import STOPPING, CallFailedError
from federation.transport.frames import WIRE, Parts
from federation.transport.handshake import ANALYST_METHOD, OPTIONS, SOFTWARE, Hello, back_off_s, greet
from federation.transport.session import Limits, Session, pump

LIMITS = Limits(call_bytes=0, reply_bytes=272 << 20, buffered_bytes=544 << 20)  # an encrypted report has up to 256 MiB
ATTEMPTS = 4  # of one call, each on another stream
PATIENCE_S = 60.0  # how long an aggregator that is away is dialled
DIAL_EVERY_S = 4.0  # at the least
TELL_AFTER_S = 2.0  # of an attempt that is neither answered nor refused
SETTLING_S = 60.0  # how long silos may need to find an aggregator that was started anew
CALL_TIMEOUT_S = 300.0
T = TypeVar("T")


class Link(Protocol):
    """A way to the aggregator."""

    @property
    def settling_s(self) -> float:
        """How long silos may still be on their way back, as the aggregator was started anew; 0 if it was not."""

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        """Relay a signed CatalogueRequest; return the silos' answers."""

    def domain(self, request: bytes) -> bytes:
        """Relay a signed DomainRequest to the silo that it names; return the silo's answer."""

    def offer(self, offer: bytes, index: bytes, frame: bytes) -> tuple[bytes, ...]:
        """Relay a frame of a packed network to the silos of a signed NetworkOffer; return each one's answer."""

    def submit(self, request: bytes, more_s: float = 0.0) -> bytes:
        """Submit a signed Request; return an EncryptedReport or a signed Failure."""

    def deliver_report(self, name: bytes, more_s: float = 0.0) -> tuple[bytes, ...]:
        """Send the report of a training step to its silos; return each silo's signed `ModelUpdated`."""

    def stop_run(self, stopped: bytes) -> tuple[bytes, ...]:
        """Send the signed Stopped of a training run to its silos; return each silo's signed `ModelUpdated`."""

    def find(self, request_hash: bytes) -> bytes:
        """Return an encoded `Found`: what the aggregator has for this analyst's request."""

    def report(self, name: bytes) -> bytes:
        """Return an encrypted report by its name."""

    def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        """Return one chunk of every masked input in a report's sum, in roster order."""


def dialled(
    config: Config, analyst: str, progress: Callable[[str], None] = lambda _: None, patience_s: float | None = None
) -> "RemoteLink":
    """Connect to the served aggregator of a federation between organisations; raises FederationError or CryptoError.

    An aggregator that is away is dialled for `patience_s`, PATIENCE_S if it is None, and `progress` is told.
    """
    if config.anchor is None:
        raise FederationError(f"{config.path} describes a simulated federation")
    identity = Identity(config.federation, "analyst", analyst)
    credentials = Credentials(config.path.parent, config.anchor, identity)
    return RemoteLink(credentials, config.dialled, progress=progress, patience_s=patience_s)


class RemoteLink:
    """A way to a served aggregator."""

    def __init__(
        self,
        credentials: Credentials,
        aggregator: str,
        wire: tuple[int, ...] = WIRE,
        progress: Callable[[str], None] = lambda _: None,
        patience_s: float | None = None,
    ) -> None:
        """Connect; raises FederationError if the aggregator cannot be reached or refuses."""
        self._credentials, self._aggregator, self._wire = credentials, aggregator, wire
        self._progress, self._patience_s = progress, PATIENCE_S if patience_s is None else patience_s
        self._other_end = b""  # the instance of the aggregator's process
        self._settled_at = 0.0  # of time.monotonic
        self._dialling = asyncio.Lock()
        self._instance, self._number = token(16), 0
        self._session: Session | None = None
        self._channel: Any = None
        self._pumping: asyncio.Task[None] | None = None
        self._loop, self._is_closed = _running_loop(), False
        try:
            self._wait(self._connected(), self._patience_s + 60.0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the aggregator continues the analyst's running requests."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(FederationError):
            self._wait(self._disconnect(), 10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        return self._call("catalogues", request)

    def domain(self, request: bytes) -> bytes:
        return self._only(self._call("domain", request))

    def offer(self, offer: bytes, index: bytes, frame: bytes) -> tuple[bytes, ...]:
        return self._call("offer", offer, index, frame)

    def submit(self, request: bytes, more_s: float = 0.0) -> bytes:
        return self._only(self._wait(self._called("submit", (request,)), CALL_TIMEOUT_S + more_s))

    def deliver_report(self, name: bytes, more_s: float = 0.0) -> tuple[bytes, ...]:
        return self._wait(self._called("teach", (name,)), CALL_TIMEOUT_S + more_s)

    def stop_run(self, stopped: bytes) -> tuple[bytes, ...]:
        return self._call("stop", stopped)

    @property
    def settling_s(self) -> float:
        return max(0.0, self._settled_at - time.monotonic())

    def find(self, request_hash: bytes) -> bytes:
        return self._only(self._call("find", request_hash))

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
        return self._wait(self._called(step, arguments), CALL_TIMEOUT_S)

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
        number, attempt = self._number, 0
        deadline = time.monotonic() + self._patience_s
        while True:
            session = await self._connected()
            try:
                return await session.call(number, step, arguments)
            except CallFailedError as err:
                if not err.message.startswith(STOPPING) or time.monotonic() > deadline:
                    raise
                self._progress("the aggregator is stopping; waiting for it to come back")
                await asyncio.sleep(DIAL_EVERY_S)  # its end of the stream follows, and then it is dialled again
            except LinkError:
                attempt += 1
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(back_off_s(attempt - 1))

    async def _connected(self) -> Session:
        """Return the stream, dialled again for as long as `patience_s` if it is lost; raises LinkError."""
        async with self._dialling:  # one at a time, or each would end the stream of the other
            if self._session is not None and self._pumping is not None and not self._pumping.done():
                return self._session
            deadline, attempt, grown = time.monotonic() + self._patience_s, 0, 0
            while True:
                await self._disconnect()
                left_s = deadline - time.monotonic()
                said = f"the aggregator has not answered yet; dialling it for {max(0.0, left_s):.0f} s more"
                telling = asyncio.get_running_loop().call_later(TELL_AFTER_S, self._progress, said)
                try:
                    return await self._dial(attempt)
                except _GrownError as err:  # the membership has grown, and may name another aggregator
                    grown += 1
                    if grown == ATTEMPTS:
                        raise LinkError("the membership kept growing while dialling", "try again") from err
                except LinkError as err:
                    is_final = err.message.startswith(("permission_denied", "failed_precondition"))
                    wait_s = min(back_off_s(attempt), DIAL_EVERY_S)
                    left_s = deadline - time.monotonic() - wait_s
                    if is_final or left_s < 0:
                        self._settled_at = 0.0  # nobody is on the way back to an aggregator that is not there
                        raise
                    self._settled_at = time.monotonic() + SETTLING_S
                    self._progress(f"the aggregator does not answer; dialling it for {left_s:.0f} s more")
                    await asyncio.sleep(wait_s)
                    attempt += 1
                finally:
                    telling.cancel()

    def _target(self, attempt: int) -> tuple[Member, bytes]:
        member = self._credentials.membership.find(self._aggregator)
        return member, member.pins[attempt % len(member.pins)]

    async def _dial(self, attempt: int) -> Session:
        member, pin = self._target(attempt)
        tls = self._credentials.tls()
        # The expected name is made from the aggregator's key, so another certificate of the authority does not match.
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
        if self._other_end not in (b"", welcome.instance) or time.monotonic() < self._settled_at:
            self._settled_at = time.monotonic() + SETTLING_S
        self._other_end = welcome.instance
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


@cache
def _running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of every connection of this process; gRPC reports events to loops that were closed as errors."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="consilo-link", daemon=True).start()
    return loop


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
