"""Calls over one stream of frames, in both directions at once, with flow control and bounds.

`federation.transport.handshake` begins a stream; then each end has a `Session` and passes it every arriving frame.
Assumes: a stream that keeps frames whole and in order, with an authenticated other end (mutual TLS).
Promises: no message or set of messages exceeds the receiver's limits, at most WINDOW_BYTES of a message are sent
without new credit, and every wait is bounded. A sender may send INLINE_BYTES of a message at once, and the rest as the
receiver grants credit, as in HTTP/2 (RFC 9113, section 5.2); but credit is per message, and the receiver grants it only
after it has reserved memory for the whole message. docs/federated.md, "The stream, byte by byte".

    session = Session(stream.write, serve, wire=2)
    reading = asyncio.create_task(pump(stream.read, session))
    parts = await session.call(7, "propose", (manifest,))
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import NoReturn

from crypto.errors import CryptoError, LinkError, WireError
from federation.transport.calls import CallFailedError, Serve
from federation.transport.frames import (
    DATA_BYTES,
    INLINE_BYTES,
    MAX_PARTS,
    REPLY_CREDIT_BYTES,
    WINDOW_BYTES,
    Kind,
    Parts,
    frame,
    parse,
    read_call,
    read_grant,
    read_lengths,
    write_call,
    write_grant,
    write_lengths,
)

MAX_LATER = 1024  # small frames that wait to be sent
MAX_REASON_BYTES = 2000
STALL_S = 30.0
ENDED_S = 2.0  # after a failed write, the time to wait for the reader to learn why the stream ended


@dataclass(frozen=True, slots=True)
class Limits:
    """What one end of a stream accepts from the other."""

    call_bytes: int = 192 << 20  # the largest call
    reply_bytes: int = 192 << 20  # the largest reply to a call from here
    buffered_bytes: int = 256 << 20  # of all incomplete messages
    calls: int = 64  # at a time
    is_shared: bool = False  # calls of many travel on it, so one that is too long fails alone and does not end it

    def why_not(self, size: int, under_way: int) -> str:
        """Return why a call of this size is not taken, beside so many under way; empty if it is."""
        if size > self.call_bytes:
            return f"a call of {size} bytes, at most {self.call_bytes} are taken"
        return "too many calls at a time" if under_way >= self.calls else ""


async def pump(read: Callable[[], Awaitable[object]], session: "Session") -> None:
    """Pass every frame to the session until the stream ends; raises WireError on one that breaks the rules.

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


def _pieces(parts: Parts, headers: Callable[[], bytes], first: int) -> Iterator[tuple[int, bytes]]:
    """Cut the concatenated parts into frames: `first` bytes, then DATA_BYTES at a time, each after its header.

    Each result is a length and a frame. A frame is joined once, as copying dominates the cost of large messages.
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
                yield held, b"".join([headers(), *views])
                wanted, held, views = DATA_BYTES, 0, []
    if held:
        yield held, b"".join([headers(), *views])


def _printable(reason: memoryview) -> str:
    """Return the other end's reason for a failure, without control characters."""
    text = bytes(reason[:MAX_REASON_BYTES]).decode(errors="replace")
    return "".join(one if one.isprintable() else "?" for one in text)


@dataclass(slots=True)
class _Incoming:
    """A message that is not complete yet."""

    step: str | None  # None: it is a reply
    lengths: tuple[int, ...]
    granted: int = 0  # bytes beyond the inline ones for which credit was granted
    received: int = 0  # of these
    parts: list[bytes] = field(default_factory=list)
    total: int = field(init=False)
    rest: int = field(init=False)  # bytes that follow the inline ones
    _part: BytesIO = field(default_factory=BytesIO)

    def __post_init__(self) -> None:
        self.total = sum(self.lengths)
        self.rest = self.total - min(self.total, INLINE_BYTES)

    @property
    def grant_due(self) -> int:
        """The credit to grant now: half a window at a time, so that grants are few and the sender never waits."""
        most = min(self.rest, self.received + WINDOW_BYTES) - self.granted
        return most if most >= min(WINDOW_BYTES // 2, self.rest - self.granted) and most > 0 else 0

    def take(self, body: memoryview) -> None:
        """Append the next bytes; they are copied once, on arrival, and no frame is kept."""
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
    """The unused credit of an outgoing message."""

    bytes_left: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    failed: LinkError | None = None  # why no more is granted

    def fail(self, error: LinkError) -> None:
        """End the wait for more."""
        self.failed = error
        self.changed.set()

    async def until(self, length: int) -> None:
        """Wait until `length` bytes may be sent; raises LinkError once no more is granted."""
        while self.bytes_left < length:
            if self.failed is not None:
                raise self.failed
            self.changed.clear()
            await self.changed.wait()


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
        self._reply_credit: dict[int, int] = {}  # by call being served; it came with the call
        self._credit: dict[int, _Credit] = {}  # of messages that are being sent
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
            with suppress(CallFailedError):  # then its reason is in the future
                await self._message(Kind.CALL, number, write_call(step, REPLY_CREDIT_BYTES), arguments)
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
        """Whether every received call has been answered."""
        return not self._served and not self._calls_incoming

    @property
    def _calls_incoming(self) -> int:
        """The number of calls that have arrived in part."""
        return sum(one.step is not None for one in self._incoming.values())

    async def drain(self) -> None:
        """Tell the other end to begin nothing new; running calls continue."""
        await self._write(frame(Kind.DRAIN, 0))

    async def receive(self, raw: bytes) -> None:
        """Process one frame; raises WireError if it breaks the rules, and then the stream must be closed."""
        kind, number, body = parse(raw)
        self.bytes_in += len(raw)
        match kind:
            case Kind.CALL:
                self._receive_call(number, body)
            case Kind.REPLY:
                self._receive_reply(number, body)
            case Kind.FAILED:
                self._receive_failure(number, body)
            case Kind.DATA:
                self._receive_data(number, body)
            case Kind.GRANT:
                self._receive_grant(number, body)
            case Kind.CANCEL:
                self._receive_cancel(number)
            case Kind.DRAIN:
                self.is_draining = True
            case Kind.HELLO | Kind.WELCOME:
                raise WireError("a second greeting")

    def close(self, error: CryptoError) -> None:
        """End every call with `error`; calls that this end is serving are cancelled, unless `Once` shields them."""
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
            credit.fail(LinkError(error.message))

    async def _message(self, kind: Kind, number: int, header: bytes, parts: Parts) -> None:
        """Send a whole message: its header with the first bytes, the rest as the receiver grants credit."""
        headers = iter([frame(kind, number, header + write_lengths(parts))])
        pieces = _pieces(parts, lambda: next(headers, frame(Kind.DATA, number)), INLINE_BYTES)
        credit = self._credit[number] = _Credit(self._reply_credit.pop(number, 0) if kind is Kind.REPLY else 0)
        try:
            _, first = next(pieces, (0, b""))
            await self._write(first or next(headers))
            for length, piece in pieces:
                await self._bounded(credit.until(length))
                credit.bytes_left -= length
                await self._write(piece)
        finally:
            if self._credit.get(number) is credit:
                del self._credit[number]

    async def _write(self, raw: bytes) -> None:
        """Send one frame; raises LinkError with the reason why the stream has ended."""
        async with self._lock:
            if self.error is not None:
                raise LinkError(self.error.message)
            try:
                await self._bounded(self._send(raw))
            except asyncio.CancelledError as err:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                await self._broken(err)  # the stream was cancelled, not this task
            except LinkError:
                raise
            except Exception as err:  # the transport's own
                await self._broken(err)
            self.bytes_out += len(raw)

    async def _broken(self, err: BaseException) -> NoReturn:
        """Let the reader of the stream close the session, as it learns why the stream ended. Raises LinkError."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDED_S):
                await self.closed.wait()
        lost = self.error or LinkError("the stream broke")
        self.close(lost)
        raise LinkError(lost.message) from err

    async def _bounded(self, wait: Awaitable[object]) -> None:
        """Wait for the other end to accept data; if it accepts none, close the session and raise LinkError."""
        try:
            async with asyncio.timeout(self._stall_s):
                await wait
        except TimeoutError as err:
            lost = LinkError(f"the other end took nothing for {self._stall_s:g} s")
            self.close(lost)
            raise lost from err

    def _later(self, raw: bytes) -> None:
        """Queue a small frame without waiting for it, as a reading loop must never wait for a writing one."""

        async def send() -> None:
            with suppress(CryptoError, asyncio.CancelledError):
                await self._write(raw)

        if len(self._tasks) >= MAX_LATER:
            self.close(WireError(f"{MAX_LATER} frames wait for the other end to read"))
        if self.error is None:
            task = asyncio.get_running_loop().create_task(send())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _receive_call(self, number: int, body: memoryview) -> None:
        if number in self._served or number in self._incoming:
            raise WireError("a call number is used twice at a time")
        step, credit, message = read_call(body)
        self._reply_credit[number] = min(credit, WINDOW_BYTES)
        self._begin(number, step, message)

    def _receive_reply(self, number: int, body: memoryview) -> None:
        if number in self._calls:
            self._begin(number, None, body)
        else:  # given up here; its sender must not wait for credit
            self._later(frame(Kind.CANCEL, number))

    def _receive_failure(self, number: int, body: memoryview) -> None:
        future = self._calls.get(number)
        if future is None or future.done():
            return
        future.set_exception(CallFailedError(_printable(body)))
        if (credit := self._credit.get(number)) is not None:  # no more is granted for what was refused
            credit.fail(CallFailedError("the other end has refused the call"))

    def _receive_data(self, number: int, body: memoryview) -> None:
        message = self._incoming.get(number)
        if message is None:
            return  # given up here while it was under way
        message.received += len(body)
        if message.received > message.granted or not len(body):
            raise WireError("data beyond the credit that was granted")
        message.take(body)
        if message.received == message.rest:
            self._complete(number, message)
        else:
            self._grant(number, message)

    def _receive_grant(self, number: int, body: memoryview) -> None:
        granted = read_grant(body)
        if (credit := self._credit.get(number)) is not None:
            credit.bytes_left = min(credit.bytes_left + granted, WINDOW_BYTES)
            credit.changed.set()

    def _receive_cancel(self, number: int) -> None:
        if number in self._served:
            self._served[number].cancel()
        elif number in self._incoming and number not in self._calls:
            self._forget(number)

    def _begin(self, number: int, step: str | None, message: memoryview) -> None:
        """Process the first frame of a message."""
        if number in self._incoming:
            raise WireError("a message begins twice")
        lengths, inline = read_lengths(message)
        found = _Incoming(step, lengths)
        what, most = ("reply", self._limits.reply_bytes) if step is None else ("call", self._limits.call_bytes)
        if found.total > most and (step is None or not self._limits.is_shared):
            raise WireError(f"a {what} of {found.total} bytes, at most {most} are taken")
        under_way = len(self._served) + self._calls_incoming
        if step is not None and (refused := self._limits.why_not(found.total, under_way)):
            # The call alone fails: its sender has no credit for the rest, and others' calls go on.
            self._reply_credit.pop(number, None)
            self._later(frame(Kind.FAILED, number, refused.encode()))
            return
        self._incoming[number] = found
        found.take(inline)
        if step is None:
            found.granted = min(REPLY_CREDIT_BYTES, found.rest)  # with the call
        if not found.rest:
            self._complete(number, found)
        else:
            self._waiting.append(number)
            self._reserve()

    def _reserve(self) -> None:
        """Grant credit to messages in order of arrival, as long as there is memory for the whole message."""
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
        if due := message.grant_due:
            self._later(frame(Kind.GRANT, number, write_grant(due)))
            message.granted += due

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
                _check_parts(reply)  # here, so that the caller gets the error
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
        self._reply_credit.pop(number, None)
        self._reserved.pop(number, None)
        self._reserve()

    def _forget(self, number: int) -> None:
        self._incoming.pop(number, None)
        if number not in self._served:
            self._reply_credit.pop(number, None)
            self._reserved.pop(number, None)
        self._reserve()
