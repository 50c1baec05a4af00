"""The silo's end of its connection: it dials out to an aggregator and answers the calls over that one stream.

Nothing here listens. A lost stream is dialled again, after growing waits; a call that arrives again over the new stream
gets its first reply. docs/federated.md, "The stream, byte by byte".
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import grpc
import grpc.aio
import structlog

from crypto.errors import CryptoError, LinkError
from crypto.randomness import token
from crypto.wire import ROUND_ID_BYTES
from federation.members.certificates import host_of
from federation.members.credentials import Credentials
from federation.members.membership import Member
from federation.transport.calls import CallFailedError, Once
from federation.transport.frames import WIRE, Parts
from federation.transport.handshake import (
    KNOCK_S,
    OPTIONS,
    SILO_METHOD,
    SOFTWARE,
    Hello,
    back_off_s,
    greet,
    knock,
)
from federation.transport.session import Limits, Session, pump
from policies.errors import PolicyError
from policies.units import when
from silo_node.errors import SiloError
from silo_node.transport.round_watch import RoundWatch

# The calls of the aggregator; each is a public method of `silo_node.actor.SiloActor`.
STEPS = frozenset(
    (
        "catalogue",
        "domain",
        "take_network",
        "propose",
        "share",
        "ready",
        "contribute",
        "frame",
        "agree",
        "open_shares",
        "products",
        "learn",
        "hand_over",
        "take_over",
        "stop",
        "cancel",
    )
)
ROUND_S = 120.0  # the lifetime of a round, without the computing
STEADY_S = 1.0  # after a stream of this length, the next wait is short again
RETRY_S = 0.1
# The calls are of all analysts' rounds, the replies checkpoints of its own ledger.
LIMITS = Limits(call_bytes=128 << 20, reply_bytes=64 << 10, is_shared=True)
MAX_ROUNDS = 1024  # open rounds for which stopping waits
_log = structlog.get_logger("consilo.silo")

Call = Callable[[str, Parts], Awaitable[Parts]]


class Counts(Protocol):
    """The counts of the connection, none of which depend on data."""

    def connected(self, is_connected: bool) -> None: ...
    def dialled(self, outcome: str) -> None: ...
    def answered(self, step: str) -> None: ...
    def ended(self, outcome: str, seconds: float, codes: tuple[str, ...], /) -> None: ...
    def moved(self, bytes_in: int, bytes_out: int) -> None: ...


class Dialler:
    """Keeps one stream to one aggregator for as long as the silo runs."""

    def __init__(
        self,
        credentials: Credentials,
        aggregator: str,
        call: Call,
        counts: Counts,
        renewed: Callable[[], Awaitable[bool]],
        wire: tuple[int, ...] = WIRE,
        first_wait_s: float = 0.5,
        computing_s: float = 0.0,
        learned_bytes: int = 0,
    ) -> None:
        """`call` executes a step at the silo's actor; `renewed` updates the actor's membership, or returns False.

        `computing_s` is how long the computing of a round may take at this silo, `learned_bytes` how long a sum that it
        learns may be, with what is fetched whole beside it.
        """
        self.limits = replace(LIMITS, call_bytes=LIMITS.call_bytes + learned_bytes)
        self._lifetime_s = ROUND_S + computing_s
        self._credentials, self._aggregator, self._call, self._counts = credentials, aggregator, call, counts
        self._watch = RoundWatch(counts.ended)
        self._renewed, self._wire, self._first_wait_s = renewed, wire, first_wait_s
        self._instance = token(16)
        self._server = b""  # the aggregator's process that makes the calls
        self._once = Once(self._serve)
        self._session: Session | None = None
        self.problem = ""  # why the last attempt was refused
        self._is_met = False  # this attempt has led to a stream
        self._is_silent = False  # the last attempt was neither answered nor refused
        self._since = ""  # when the present stream began
        self._pin = b""  # of the key at the other end of the session
        self._stream: Any = None
        self._rounds: dict[bytes, float] = {}
        self._stopping = asyncio.Event()
        self._up = asyncio.Event()
        self._number = 0  # of this end's calls: small, while the aggregator's are drawn from 2^56

    @property
    def is_connected(self) -> bool:
        return self._session is not None

    @property
    def connected_since(self) -> str | None:
        return self._since if self.is_connected else None

    async def run(self) -> None:
        """Dial, answer, and dial again, until cancelled."""
        attempt = 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began, self._is_met = loop.time(), False
            try:
                if await self._once_through(attempt):
                    continue
                outcome = "ended"
            except CryptoError as err:
                outcome, self.problem = "refused", err.message[:300]
                _log.warning("not_connected", aggregator=self._aggregator, reason=err.message[:300])
            except asyncio.CancelledError:
                if not self._stopping.is_set():
                    raise
                outcome = "ended"
            except grpc.aio.AioRpcError as err:
                outcome, self.problem = err.code().name.lower(), _reason(err)
                _log.warning("not_connected", aggregator=self._aggregator, reason=_reason(err))
            except (SiloError, PolicyError) as err:  # the actor does not start
                outcome, self.problem = "failed", err.message[:300]
                _log.error("not_connected", aggregator=self._aggregator, reason=err.message[:300], hint=err.hint)
            except Exception as err:  # for example a full disk: dial again in any case
                outcome = "failed"
                _log.error("not_connected", aggregator=self._aggregator, reason=type(err).__name__)
            self._counts.dialled(outcome)
            self._is_silent = not self._is_met and loop.time() - began >= KNOCK_S
            # After a stream that ended well or lasted long, dial again at once.
            attempt = 0 if outcome == "ended" or loop.time() - began > STEADY_S else attempt + 1
            if not self._stopping.is_set():
                await asyncio.sleep(back_off_s(attempt, self._first_wait_s))

    async def ask(self, step: str, *arguments: bytes) -> Parts:
        """Make a call to the aggregator, over a new stream if this one is lost; the caller bounds the wait.

        Raises CallFailedError if the aggregator refuses. Only for calls that may be executed twice.
        """
        while True:
            await self._up.wait()
            session = self._session
            if session is not None:
                self._number += 1
                try:
                    return await session.call(self._number, step, arguments)
                except CallFailedError:
                    raise
                except LinkError:
                    await asyncio.sleep(RETRY_S)

    def check(self, pins: Sequence[bytes]) -> None:
        """End the stream if the key at its other end is not in `pins`; then another stream is dialled."""
        if self._session is not None and self._pin not in pins:
            self._session.close(LinkError("the aggregator's key does not stand any more"))

    def leave(self) -> None:
        """End the stream to an aggregator that is no longer a member."""
        self._stopping.set()
        if self._session is not None:
            self._session.close(LinkError("the aggregator is a member no more"))
            _log.info("aggregator_left", aggregator=self._aggregator)

    async def drain(self, most_s: float) -> None:
        """Announce that the silo stops, and wait at most `most_s` for its open rounds."""
        self._stopping.set()
        session = self._session
        if session is None:
            return
        with suppress(CryptoError, TimeoutError):
            async with asyncio.timeout(most_s):
                await session.drain()
                while self._rounds or not self._once.is_idle or not session.is_idle:
                    await asyncio.sleep(0.05)
        session.close(LinkError("the silo is stopping"))
        self._stream.cancel()

    def _target(self, attempt: int) -> tuple[Member, bytes]:
        member = self._credentials.membership.find(self._aggregator)
        return member, member.pins[attempt % len(member.pins)]

    async def _once_through(self, attempt: int) -> bool:
        """Dial and answer until the stream ends; return True if the membership has grown, to dial again at once."""
        member, pin = self._target(attempt)
        tls = self._credentials.tls()
        if self._is_silent:
            await knock(member.address)
        # The expected name is made from the aggregator's key, so another certificate of the authority does not match.
        options = [*OPTIONS, ("grpc.ssl_target_name_override", host_of(pin))]
        credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.chain)
        async with grpc.aio.secure_channel(member.address, credentials, options=options) as channel:
            stream: Any = channel.stream_stream(SILO_METHOD)()
            hello = Hello(
                wire=self._wire,
                instance=self._instance,
                membership=len(self._credentials.log),
                software=SOFTWARE,
            )
            welcome = await _told(stream, greet(stream.read, stream.write, stream.initial_metadata, hello))
            if welcome.newest < len(self._credentials.log):
                raise LinkError(
                    f"the aggregator's membership is version {welcome.newest}, here it is {len(self._credentials.log)}",
                    "give the aggregator the newest membership.log",
                )
            if self._credentials.extend(welcome.memberships):
                _log.info("membership_grown", version=len(self._credentials.log))
            if await self._renewed() or welcome.memberships:  # the aggregator waits for a Hello with the newest
                return True
            if welcome.instance != self._server:
                self._server, self._once = welcome.instance, Once(self._serve)
            session = Session(stream.write, self._once, welcome.wire, self.limits)
            self._session, self._stream, self._pin = session, stream, pin
            self._since = when(int(time.time()))
            self.problem, self._is_met = "", True
            self._up.set()
            self._counts.connected(True)
            _log.info("connected", aggregator=member.name, wire=welcome.wire)
            try:
                await _told(stream, pump(stream.read, session))
            finally:
                session.close(LinkError("the stream ended"))
                self._session = None
                self._up.clear()
                self._counts.connected(False)
                self._counts.moved(session.bytes_in, session.bytes_out)
                stream.cancel()
        return False

    async def _serve(self, number: int, step: str, arguments: Parts) -> Parts:
        """Answer one call; raises CallFailedError, whose message does not depend on data."""
        if step not in STEPS:
            raise CallFailedError(f"a silo has no step {step[:64]!r}")
        clock, reply = asyncio.get_running_loop().time, None
        self._track(step, arguments, clock())
        self._watch.began(step, arguments, clock())
        try:
            reply = await self._call(step, arguments)
            return reply
        except CryptoError:
            raise
        except Exception as err:
            _log.warning("step_failed", step=step, error=type(err).__name__)
            raise CallFailedError("the step failed at the silo") from None
        finally:
            self._counts.answered(step)
            self._watch.saw(step, arguments, reply, clock())
            if step == "propose" and arguments and not self._watch.is_open(arguments[0]):
                self._rounds.pop(arguments[0], None)  # it was refused, and nobody asks for it again

    def _track(self, step: str, arguments: Parts, now: float) -> None:
        """Keep track of open rounds, so that stopping can wait for them; a round is dropped after its lifetime."""
        round_id = arguments[0] if arguments else b""
        if step == "propose" and len(round_id) == ROUND_ID_BYTES:
            self._rounds[round_id] = now
            if len(self._rounds) > MAX_ROUNDS:
                del self._rounds[next(iter(self._rounds))]
        elif step in ("open_shares", "cancel"):
            self._rounds.pop(round_id, None)
        for old in [one for one, since in self._rounds.items() if now - since > self._lifetime_s]:
            del self._rounds[old]


async def _told(stream: Any, waiting: Awaitable[Any]) -> Any:
    """Await `waiting`; if the other side ended the stream, raise its reason."""
    try:
        result = await waiting
    except LinkError:  # the stream has ended, or this end ends it
        await _raise_status(stream)
        raise
    except asyncio.InvalidStateError as err:
        await _raise_status(stream)
        raise LinkError("the stream ended") from err
    if result is None:
        await _raise_status(stream)
    return result


async def _raise_status(stream: Any) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            code, details = await stream.code(), await stream.details()
            if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):  # this end cancelled it
                raise LinkError(f"{code.name.lower()}: {details}"[:500])


def _reason(err: grpc.aio.AioRpcError) -> str:
    return f"{err.code().name.lower()}: {err.details()}"[:300]
