"""Calls between two processes over one stream of frames: cut, bounded, resumable. `crypto.greeting` begins it.

Assumes: a stream that keeps frames whole and in order and whose other end is authenticated (mutual TLS).
Promises: no frame above FRAME_BYTES, at most WINDOW_BYTES of a message under way without the receiver's consent, no
message or set of messages larger than the receiver's limits, and no wait without a bound. A call that arrives again
over another stream is not executed again (`Once`). docs/federated.md, "The stream, byte by byte".
"""

import asyncio
import struct
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from io import BytesIO
from typing import NoReturn

from crypto.errors import CryptoError, LinkError, WireError

WIRE = (1, 2)  # from 2 on calls of a lost stream are resumed, and a silo says that it is going
RESUMES = 2
FRAME_BYTES = 2 << 20
INLINE_BYTES = 64 * 1024  # of a message travel with its head, before the receiver consents
WINDOW_BYTES = 8 << 20
REPLY_BYTES = 4 << 20  # of a reply who calls consents to with the call: as much as one frame of a contribution
MAX_FRAME_BYTES = FRAME_BYTES + 64 * 1024  # what the transport must let through
MAX_LATER = 1024  # small frames that wait to be sent
MAX_PARTS = 4096
MAX_REASON_BYTES = 2000
STALL_S = 30.0
ENDED_S = 2.0  # within which who reads a stream that takes no frame knows why it has ended


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

Parts = tuple[bytes, ...]
Serve = Callable[[int, str, Parts], Awaitable[Parts]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one end of a stream takes from the other."""

    call_bytes: int = 192 << 20  # the largest call
    reply_bytes: int = 192 << 20  # the largest reply to a call from here
    buffered_bytes: int = 256 << 20  # of all that is not handed on yet
    calls: int = 64  # at a time


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


async def pump(read: Callable[[], Awaitable[object]], session: "Session") -> None:
    """Hand every frame to the session until the stream ends; raises WireError on one that breaks the rules.

    Raises the session's own error once it is closed, so that no stream outlives its session.
    """
    closed = asyncio.ensure_future(session.closed.wait())
    try:
        while True:
            reading = asyncio.ensure_future(read())
            try:
                await asyncio.wait({reading, closed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not reading.done():
                    reading.cancel()
                elif not reading.cancelled():
                    reading.exception()  # seen
            if session.error is not None:
                raise session.error
            if not isinstance(raw := reading.result(), bytes):
                return
            await session.receive(raw)
    finally:
        closed.cancel()


def _check_parts(parts: Parts) -> None:
    if len(parts) > MAX_PARTS:
        raise CallFailedError(f"a message of {len(parts)} parts, at most {MAX_PARTS} can be sent")


def _pieces(parts: Parts, heads: Callable[[], bytes], first: int) -> Iterator[tuple[int, bytes]]:
    """Cut the bytes of all parts together: `first` bytes, then FRAME_BYTES at a time, each behind its head.

    Each piece is its length and the frame: joined once, as copying is what a stream of large messages costs.
    """
    wanted, held, views = first, 0, list[bytes | memoryview]()
    for part in parts:
        view = memoryview(part)
        while len(view):
            taken = view[: wanted - held]
            views.append(taken)
            held += len(taken)
            view = view[len(taken) :]
            if held == wanted:
                yield held, b"".join([heads(), *views])
                wanted, held, views = FRAME_BYTES, 0, []
    if held:
        yield held, b"".join([heads(), *views])


@dataclass(slots=True)
class _Incoming:
    """A message that is not complete yet."""

    step: str | None  # None: it is a reply
    lengths: tuple[int, ...]
    total: int
    granted: int = 0  # bytes beyond the inline ones that may have been sent
    received: int = 0
    parts: list[bytes] = field(default_factory=list)
    _part: BytesIO = field(default_factory=BytesIO)

    def take(self, body: memoryview) -> None:
        """Add the next bytes: copied as they come, so that no frame is kept and no part is copied once more."""
        while len(self.parts) < len(self.lengths):
            taken = body[: self.lengths[len(self.parts)] - self._part.tell()]
            self._part.write(taken)
            body = body[len(taken) :]
            if self._part.tell() < self.lengths[len(self.parts)]:
                return
            self.parts.append(self._part.getvalue())
            self._part = BytesIO()


@dataclass(slots=True)
class _Credit:
    """How much of an outgoing message may leave."""

    bytes_left: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Session:
    """One end of a stream: makes calls and serves them, in turn with the other end."""

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        serve: Serve,
        wire: int,
        limits: Limits = Limits(),
        stall_s: float = STALL_S,
    ) -> None:
        self.wire, self.is_draining = wire, False
        self._send, self._serve, self._limits, self._stall_s = send, serve, limits, stall_s
        self._lock = asyncio.Lock()  # a gRPC stream takes one write at a time
        self._calls: dict[int, asyncio.Future[Parts]] = {}
        self._served: dict[int, asyncio.Task[None]] = {}
        self._incoming: dict[int, _Incoming] = {}
        self._consented: dict[int, int] = {}  # of the reply to a call that is served, by who called
        self._credit: dict[int, _Credit] = {}
        self._waiting: deque[int] = deque()  # messages whose memory is not reserved yet, first come first served
        self._reserved: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.error: CryptoError | None = None
        self.closed = asyncio.Event()
        self.bytes_in = self.bytes_out = 0

    async def call(self, number: int, step: str, arguments: Parts) -> Parts:
        """Return the other end's reply; raises LinkError if it fails there or the stream is lost."""
        if self.error is not None:
            raise LinkError(self.error.message) from self.error
        if len(self._calls) >= self._limits.calls:
            raise CallFailedError(f"{len(self._calls)} calls are under way on this stream already", "ask again later")
        _check_parts(arguments)
        future: asyncio.Future[Parts] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        try:
            name = step.encode()
            head = len(name).to_bytes(1, "big") + name + _LENGTH.pack(REPLY_BYTES)
            await self._message(Kind.CALL, number, head, arguments)
            return await future
        except asyncio.CancelledError:
            self._later(frame(Kind.CANCEL, number))
            raise
        finally:
            self._calls.pop(number, None)
            self._forget(number)
            if future.done() and not future.cancelled():
                future.exception()  # seen

    @property
    def is_idle(self) -> bool:
        """Whether every call that came has its reply on the wire."""
        return not self._served and not any(one.step is not None for one in self._incoming.values())

    async def drain(self) -> None:
        """Tell the other end to begin nothing new; what is under way goes on."""
        if self.wire >= RESUMES:
            await self._write(frame(Kind.DRAIN, 0))

    async def receive(self, raw: bytes) -> None:
        """Take one frame; raises WireError on one that breaks the rules: then the stream must be closed."""
        kind, number, body = parse(raw)
        self.bytes_in += len(raw)
        match kind:
            case Kind.CALL:
                if number in self._served or number in self._incoming:
                    raise WireError("a call number is used twice at a time")
                size = body[0] if len(body) else 0
                start = 1 + size + _LENGTH.size
                if not 1 <= size <= 64 or len(body) < start:
                    raise WireError("a call without the name of its step")
                try:
                    step = bytes(body[1 : 1 + size]).decode("ascii")
                except UnicodeDecodeError:
                    raise WireError("the name of a step is not ASCII") from None
                self._consented[number] = min(_LENGTH.unpack(body[1 + size : start])[0], WINDOW_BYTES)
                await self._begin(number, step, body[start:])
            case Kind.REPLY:
                if number not in self._calls:  # given up here; its sender must not wait for consent
                    self._later(frame(Kind.CANCEL, number))
                else:
                    await self._begin(number, None, body)
            case Kind.FAILED:
                future = self._calls.get(number)
                if future is not None and not future.done():
                    text = bytes(body[:MAX_REASON_BYTES]).decode(errors="replace")
                    future.set_exception(CallFailedError("".join(one if one.isprintable() else "?" for one in text)))
            case Kind.DATA:
                self._add(number, body)
            case Kind.GRANT:
                if len(body) != _LENGTH.size or not any(body):
                    raise WireError("consent to nothing")
                if (credit := self._credit.get(number)) is not None:
                    credit.bytes_left = min(credit.bytes_left + _LENGTH.unpack(body)[0], WINDOW_BYTES)
                    credit.changed.set()
            case Kind.CANCEL:
                if number in self._served:
                    self._served[number].cancel()
                elif self._incoming.get(number) is not None and number not in self._calls:
                    self._forget(number)
            case Kind.DRAIN:
                self.is_draining = True
            case Kind.HELLO | Kind.WELCOME:
                raise WireError("a second greeting")

    def close(self, error: CryptoError) -> None:
        """End every call with `error`; what this end serves is cancelled, unless `Once` shields it."""
        if self.error is not None:
            return
        self.error = error
        self.closed.set()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(LinkError(error.message))
        for task in (*self._served.values(), *self._tasks):
            task.cancel()
        self._incoming.clear()
        self._waiting.clear()
        self._reserved.clear()
        for credit in self._credit.values():
            credit.changed.set()

    async def _message(self, kind: Kind, number: int, head: bytes, parts: Parts) -> None:
        """Send a whole message: its head with the first bytes, the rest as the receiver consents."""
        lengths = b"".join(_LENGTH.pack(len(part)) for part in parts)
        heads = iter([frame(kind, number, head + _COUNT.pack(len(parts)) + lengths)])
        pieces = _pieces(parts, lambda: next(heads, frame(Kind.DATA, number)), INLINE_BYTES)
        credit = self._credit[number] = _Credit(self._consented.pop(number, 0) if kind is Kind.REPLY else 0)
        try:
            _, first = next(pieces, (0, b""))
            await self._write(first or next(heads))
            for length, piece in pieces:
                await self._bounded(self._consent(credit, length))
                credit.bytes_left -= length
                await self._write(piece)
        finally:
            if self._credit.get(number) is credit:
                del self._credit[number]

    async def _consent(self, credit: _Credit, length: int) -> None:
        """Wait until so many bytes may leave; raises LinkError once the session is closed."""
        while credit.bytes_left < length:
            if self.error is not None:
                raise LinkError(self.error.message)
            credit.changed.clear()
            await credit.changed.wait()

    async def _write(self, raw: bytes) -> None:
        """Send one frame; raises LinkError, with the reason for which the stream has ended."""
        async with self._lock:
            if self.error is not None:
                raise LinkError(self.error.message)
            try:
                await self._bounded(self._send(raw))
            except asyncio.CancelledError as err:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                await self._broken(err)  # the stream was cancelled, not who writes to it
            except LinkError:
                raise
            except Exception as err:  # the transport's own
                await self._broken(err)
            self.bytes_out += len(raw)

    async def _broken(self, err: BaseException) -> NoReturn:
        """Leave it to who reads the stream to close the session: there stands why it ended. Raises LinkError."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDED_S):
                await self.closed.wait()
        lost = self.error or LinkError("the stream broke")
        self.close(lost)
        raise LinkError(lost.message) from err

    async def _bounded(self, wait: Awaitable[object]) -> None:
        """Wait for the other end to take something; where it takes nothing, close the session and raise LinkError."""
        try:
            async with asyncio.timeout(self._stall_s):
                await wait
        except TimeoutError as err:
            lost = LinkError(f"the other end took nothing for {self._stall_s:g} s")
            self.close(lost)
            raise lost from err

    def _later(self, raw: bytes) -> None:
        """Send a small frame without waiting for it: a loop that reads must never wait for one that writes."""

        async def send() -> None:
            with suppress(CryptoError, asyncio.CancelledError):
                await self._write(raw)

        if len(self._tasks) >= MAX_LATER:
            self.close(WireError(f"{MAX_LATER} frames wait for the other end to read"))
        if self.error is None:
            task = asyncio.get_running_loop().create_task(send())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _begin(self, number: int, step: str | None, body: memoryview) -> None:
        if number in self._incoming:
            raise WireError("a message begins twice")
        count = _COUNT.unpack_from(body)[0] if len(body) >= _COUNT.size else MAX_PARTS + 1
        start = _COUNT.size + count * _LENGTH.size
        if count > MAX_PARTS or len(body) < start:
            raise WireError("the head of a message is malformed")
        lengths = tuple(one[0] for one in _LENGTH.iter_unpack(body[_COUNT.size : start]))
        total, inline = sum(lengths), body[start:]
        if len(inline) != min(total, INLINE_BYTES):
            raise WireError("a message does not begin with its first bytes")
        most = self._limits.reply_bytes if step is None else self._limits.call_bytes
        if total > most:
            raise WireError(f"a {'reply' if step is None else 'call'} of {total} bytes, at most {most} are taken")
        if step is not None and len(self._served) + sum(one.step is not None for one in self._incoming.values()) >= (
            self._limits.calls
        ):
            self._consented.pop(number, None)
            self._later(frame(Kind.FAILED, number, b"too many calls at a time"))
            return
        message = self._incoming[number] = _Incoming(step, lengths, total)
        message.take(inline)
        if step is None:
            message.granted = min(REPLY_BYTES, total - len(inline))  # with the call
        if total == len(inline):
            self._complete(number, message)
        else:
            self._waiting.append(number)
            self._reserve()

    def _reserve(self) -> None:
        """Consent to messages in the order they came, as far as there is memory for all of each."""
        while self._waiting:
            number = self._waiting[0]
            message = self._incoming.get(number)
            if message is not None:
                held = sum(self._reserved.values())
                if held and held + message.total > self._limits.buffered_bytes:
                    return
                self._reserved[number] = message.total
                self._grant(number, message)
            self._waiting.popleft()

    def _grant(self, number: int, message: _Incoming) -> None:
        rest = message.total - min(message.total, INLINE_BYTES)
        most = min(rest, message.received + WINDOW_BYTES)
        # In halves of the window, so that consent costs little and the sender never stands still.
        if most - message.granted >= min(WINDOW_BYTES // 2, rest - message.granted) and most > message.granted:
            self._later(frame(Kind.GRANT, number, _LENGTH.pack(most - message.granted)))
            message.granted = most

    def _add(self, number: int, body: memoryview) -> None:
        message = self._incoming.get(number)
        if message is None:
            return  # given up here while it was under way
        message.received += len(body)
        if message.received > message.granted or not len(body):
            raise WireError("data that nobody consented to")
        message.take(body)
        if message.received + INLINE_BYTES == message.total:
            self._complete(number, message)
        else:
            self._grant(number, message)

    def _complete(self, number: int, message: _Incoming) -> None:
        del self._incoming[number]
        parts = tuple(message.parts)
        if message.step is None:
            future = self._calls.get(number)
            if future is not None and not future.done():
                future.set_result(parts)
            self._forget(number)
            return
        task = asyncio.get_running_loop().create_task(self._answer(number, message.step, parts))
        self._served[number] = task
        task.add_done_callback(lambda _: self._done(number))

    async def _answer(self, number: int, step: str, arguments: Parts) -> None:
        try:
            try:
                reply = await self._serve(number, step, arguments)
                _check_parts(reply)  # here, so that who called is told
            except CryptoError as err:
                reason = err.message.encode()[:MAX_REASON_BYTES]
                await self._write(frame(Kind.FAILED, number, reason))
            except Exception as err:
                await self._write(frame(Kind.FAILED, number, f"the step failed ({type(err).__name__})".encode()))
            else:
                await self._message(Kind.REPLY, number, b"", reply)
        except CryptoError:
            return  # the stream is gone; `Once` keeps the reply

    def _done(self, number: int) -> None:
        self._served.pop(number, None)
        self._consented.pop(number, None)
        self._reserved.pop(number, None)
        self._reserve()

    def _forget(self, number: int) -> None:
        self._incoming.pop(number, None)
        if number not in self._served:
            self._consented.pop(number, None)
            self._reserved.pop(number, None)
        self._reserve()


class CallFailedError(LinkError):
    """The other end executed the call and says that it failed: not to be tried again."""


class Once:
    """Executes each call once, however often it arrives, and keeps the latest replies for who asks again.

    Serves the calls of one process at the other end: numbers are unique there, over all of its streams.
    """

    def __init__(self, serve: Serve, replies: int = 64, reply_bytes: int = 64 << 20) -> None:
        self._serve, self._most, self._most_bytes = serve, replies, reply_bytes
        self._running: dict[int, asyncio.Task[Parts]] = {}
        self._kept: OrderedDict[int, Parts] = OrderedDict()
        self._gone: OrderedDict[int, None] = OrderedDict()
        self._bytes = 0

    async def __call__(self, number: int, step: str, arguments: Parts) -> Parts:
        """Return the reply to a call: raises what it raised, or CallFailedError if its reply is no longer kept."""
        if number in self._kept:
            return self._kept[number]
        if number in self._gone:
            raise CallFailedError("this call was answered before, and its reply is no longer kept")
        task = self._running.get(number)
        if task is None:
            if len(self._running) >= self._most:
                raise CallFailedError(f"{self._most} calls are under way already")
            task = asyncio.get_running_loop().create_task(self._run(number, step, arguments))
            self._running[number] = task
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception() and None)
        return await asyncio.shield(task)

    @property
    def is_idle(self) -> bool:
        return not self._running

    async def _run(self, number: int, step: str, arguments: Parts) -> Parts:
        try:
            reply = await self._serve(number, step, arguments)
        except BaseException:
            self._mark(number)
            raise
        finally:
            del self._running[number]
        self._kept[number] = reply
        self._bytes += sum(map(len, reply))
        while self._kept and (len(self._kept) > self._most or self._bytes > self._most_bytes):
            oldest, old = self._kept.popitem(last=False)
            self._bytes -= sum(map(len, old))
            self._mark(oldest)
        return reply

    def _mark(self, number: int) -> None:
        self._gone[number] = None
        while len(self._gone) > 64 * self._most:
            self._gone.popitem(last=False)
