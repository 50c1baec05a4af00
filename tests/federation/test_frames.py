"""Calls over a stream of frames: cut, bounded, resumed, and refused where the other end breaks the rules."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import CryptoError, LinkError, WireError
from federation.transport.calls import CallFailedError, Once, Serve
from federation.transport.frames import (
    DATA_BYTES,
    INLINE_BYTES,
    MAX_FRAME_BYTES,
    WINDOW_BYTES,
    Kind,
    Parts,
    frame,
    parse,
)
from federation.transport.session import Limits, Session, pump
from tests.harness.inside import reserved_in

T = TypeVar("T")
LIMITS, REPLIES = Limits(), Limits(reply_bytes=64 << 20)


async def echo(number: int, step: str, arguments: Parts) -> Parts:
    return (step.encode(), *arguments)


class Wire:
    """Two sessions joined by queues; `sent` is what each end wrote, as (end, frame)."""

    def __init__(
        self, serve: Serve = echo, limits: Limits = LIMITS, stall_s: float = 5.0, replies: Limits = REPLIES
    ) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.queues: dict[str, asyncio.Queue[bytes]] = {"caller": asyncio.Queue(4), "server": asyncio.Queue(4)}
        self.caller = Session(self._writer("server"), echo, 2, replies, stall_s)
        self.server = Session(self._writer("caller"), serve, 2, limits, stall_s)
        self.errors: list[CryptoError] = []
        self.is_cut = False

    def _writer(self, to: str) -> Callable[[bytes], Awaitable[None]]:
        async def write(raw: bytes) -> None:
            self.sent.append((to, raw))
            if not self.is_cut:
                await self.queues[to].put(raw)

        return write

    async def pump(self, end: str, session: Session) -> None:
        while True:
            try:
                await session.receive(await self.queues[end].get())
            except WireError as err:
                self.errors.append(err)
                self.caller.close(err)
                self.server.close(err)
                return

    async def __aenter__(self) -> "Wire":
        self._tasks = [
            asyncio.create_task(self.pump("caller", self.caller)),
            asyncio.create_task(self.pump("server", self.server)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()


def run(
    body: Callable[[Wire], Awaitable[T]],
    serve: Serve = echo,
    limits: Limits = LIMITS,
    stall_s: float = 5.0,
    replies: Limits = REPLIES,
) -> T:
    async def whole() -> T:
        async with Wire(serve, limits, stall_s, replies) as wire, asyncio.timeout(20):
            return await body(wire)

    return asyncio.run(whole())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from([0, 1, 5, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, DATA_BYTES, DATA_BYTES + 7]),
        max_size=5,
    )
)
def test_what_is_called_comes_back_whole_whatever_its_parts(sizes: list[int]) -> None:
    parts = tuple(bytes([index + 1]) * size for index, size in enumerate(sizes))

    async def body(wire: Wire) -> Parts:
        return await wire.caller.call(7, "echo", parts)

    assert run(body) == (b"echo", *parts)


def test_no_frame_is_larger_than_the_transport_lets_through() -> None:
    async def body(wire: Wire) -> list[bytes]:
        await wire.caller.call(1, "echo", (bytes(9 << 20), b"", bytes(3)))
        return [raw for _, raw in wire.sent]

    sent = run(body)
    assert max(map(len, sent)) <= DATA_BYTES + 9
    assert sum(parse(raw)[0] is Kind.DATA for raw in sent) == 10, "five frames there and five back"


def test_a_sender_waits_for_credit_and_never_has_more_than_a_window_under_way() -> None:
    async def body(wire: Wire) -> tuple[int, int]:
        under_way = most = 0
        receive, put = wire.server.receive, wire.queues["server"].put

        async def received(raw: bytes) -> None:
            nonlocal under_way
            if parse(raw)[0] is Kind.DATA:
                under_way -= len(raw) - 9
            await receive(raw)

        async def counted(raw: bytes) -> None:
            nonlocal under_way, most
            if parse(raw)[0] is Kind.DATA:
                under_way += len(raw) - 9
                most = max(most, under_way)
            await put(raw)

        wire.server.receive = received  # type: ignore[method-assign]
        wire.queues["server"].put = counted  # type: ignore[assignment,method-assign]
        reply = await wire.caller.call(1, "echo", (bytes(40 << 20),))
        return most, len(reply[1])

    most, length = run(body)
    assert length == 40 << 20
    assert 0 < most <= WINDOW_BYTES


def test_two_large_messages_are_taken_one_after_the_other_where_memory_is_for_one() -> None:
    running = most = 0

    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        return (len(arguments[0]).to_bytes(4, "big"),)

    async def body(wire: Wire) -> list[Parts]:
        return await asyncio.gather(*(wire.caller.call(one, "take", (bytes(5 << 20),)) for one in range(4)))

    replies = run(body, serve, Limits(call_bytes=8 << 20, buffered_bytes=8 << 20))
    assert [int.from_bytes(reply[0], "big") for reply in replies] == [5 << 20] * 4
    assert most == 1


@pytest.mark.parametrize(
    ("raws", "reason"),
    [
        ([b""], "a frame of 0 bytes"),
        ([bytes(9)], "unknown type 0"),
        ([b"\x63" + bytes(8)], "unknown type 99"),
        ([bytes([Kind.DATA]) + bytes(8) + bytes(MAX_FRAME_BYTES)], "a frame of"),
        ([frame(Kind.HELLO, 0)], "a second greeting"),
        ([frame(Kind.CALL, 1, b"")], "without the name of its step"),
        ([frame(Kind.CALL, 1, b"\x03abc\x00\x40\x00\x00\x00")], "header of a message is malformed"),
        ([frame(Kind.CALL, 1, b"\x03\xff\xff\xff\x00\x40\x00\x00\x00\x00")], "not ASCII"),
        ([frame(Kind.CALL, 1, b"\x03abc\x00\x40\x00\x00\xff\xff")], "header of a message is malformed"),
        ([frame(Kind.CALL, 1, b"\x03abc\x00\x40\x00\x00\x00\x01\xff\xff\xff\xff" + bytes(INLINE_BYTES))], "at most"),
        (
            [frame(Kind.CALL, 1, b"\x03abc\x00\x40\x00\x00\x00\x01\x00\x00\x00\x05")],
            "does not begin with its first bytes",
        ),
        (
            [frame(Kind.CALL, 1, b"\x03abc\x00\x40\x00\x00\x00\x01\x00\x00\x00\x01xy")],
            "does not begin with its first bytes",
        ),
        (
            [
                frame(
                    Kind.CALL,
                    1,
                    b"\x03abc\x00\x40\x00\x00\x00\x01" + (1 << 20).to_bytes(4, "big") + bytes(INLINE_BYTES),
                )
            ]
            * 2,
            "used twice",
        ),
        (
            [
                frame(
                    Kind.CALL,
                    1,
                    b"\x03abc\x00\x40\x00\x00\x00\x01" + (1 << 20).to_bytes(4, "big") + bytes(INLINE_BYTES),
                ),
                frame(Kind.DATA, 1, bytes(1 << 20)),
            ],
            "beyond the credit",
        ),
        ([frame(Kind.GRANT, 1, bytes(4))], "a grant of nothing"),
        ([frame(Kind.GRANT, 1, b"\x00\x40\x00")], "a grant of nothing"),
        ([frame(Kind.GRANT, 1, b"\x00\x40\x00\x00\x00")], "a grant of nothing"),
    ],
)
def test_frames_that_break_the_rules_are_refused(raws: list[bytes], reason: str) -> None:
    async def body() -> None:
        async def send(raw: bytes) -> None:
            return None

        session = Session(send, echo, 2, Limits(call_bytes=2 << 20))
        *before, last = raws
        for raw in before:
            await session.receive(raw)
        with pytest.raises(WireError, match=reason):
            await session.receive(last)
        session.close(LinkError("refused"))

    asyncio.run(body())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.binary(max_size=80)
        | st.builds(frame, st.sampled_from(list(Kind)), st.integers(0, 3), st.binary(max_size=60)),
        max_size=6,
    )
)
def test_garbage_is_refused_or_ignored_and_never_anything_else(raws: list[bytes]) -> None:
    async def body() -> None:
        async def send(raw: bytes) -> None:
            return None

        session = Session(send, echo, 2)
        try:
            for raw in raws:
                await session.receive(raw)
        except WireError:
            pass
        session.close(LinkError("done"))
        await asyncio.sleep(0)

    asyncio.run(body())


@pytest.mark.parametrize("size", [1000, INLINE_BYTES + 1000, 3 * DATA_BYTES])
def test_calls_and_replies_have_limits_of_their_own(size: int) -> None:
    goes_on = asyncio.Event()

    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        if step == "waits":
            await goes_on.wait()
        return (bytes(size),)

    async def body(wire: Wire) -> None:
        assert await wire.caller.call(1, "x", (bytes(9),)) == (bytes(size),)
        other = asyncio.create_task(wire.caller.call(3, "waits", ()))
        await asyncio.sleep(0)
        for number in (4, 5):
            with pytest.raises(CallFailedError, match=f"a call of {size + 1} bytes, at most {size} are taken"):
                await wire.caller.call(number, "x", (bytes(size + 1),))
        goes_on.set()
        assert await other == (bytes(size),), "nobody else's call is broken off by one that is too long"
        assert await wire.caller.call(6, "x", (bytes(size),)) == (bytes(size),)
        assert not wire.errors

    run(body, serve, Limits(call_bytes=size, reply_bytes=0, is_shared=True))

    async def alone(wire: Wire) -> None:
        with pytest.raises(LinkError, match=f"a call of {size + 1} bytes, at most {size} are taken"):
            await wire.caller.call(1, "x", (bytes(size + 1),))
        assert wire.errors

    run(alone, serve, Limits(call_bytes=size, reply_bytes=0))

    async def answer(wire: Wire) -> None:
        with pytest.raises(LinkError, match=f"a reply of {size} bytes, at most {size - 1} are taken"):
            await wire.caller.call(1, "x", (bytes(9),))

    run(answer, serve, replies=Limits(reply_bytes=size - 1))


def test_a_receiver_that_takes_nothing_ends_the_wait() -> None:
    async def body(wire: Wire) -> None:
        wire.is_cut = True
        with pytest.raises(LinkError, match=r"took nothing for 0\.2 s"):
            await wire.caller.call(1, "echo", (bytes(1 << 20),))

    run(body, stall_s=0.2)


def test_a_receiver_that_grants_a_few_bytes_at_a_time_ends_the_wait_too() -> None:
    """A grant holds off the end only where it lets a piece leave."""

    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        return (bytes(8 << 20),)

    async def body() -> tuple[int, str]:
        sent: list[bytes] = []

        async def send(raw: bytes) -> None:
            sent.append(raw)

        session = Session(send, serve, 2, stall_s=0.4)
        await session.receive(frame(Kind.CALL, 1, b"\x01x" + bytes(6)))
        async with asyncio.timeout(10):
            await asyncio.sleep(0.2)
            await session.receive(frame(Kind.GRANT, 1, DATA_BYTES.to_bytes(4, "big")))
            while session.error is None:
                await asyncio.sleep(0.05)
                await session.receive(frame(Kind.GRANT, 1, (1).to_bytes(4, "big")))
        return len(sent), session.error.message

    assert asyncio.run(body()) == (2, "the other end took nothing for 0.4 s")


@pytest.mark.parametrize("err", [asyncio.InvalidStateError("RPC already finished."), asyncio.CancelledError()])
def test_a_stream_that_has_ended_is_an_error_with_its_reason_and_no_traceback(err: BaseException) -> None:
    """What gRPC raises where a frame is written to such a stream, per frame, and what its other end said."""
    unhandled: list[dict[str, object]] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))

        async def send(raw: bytes) -> None:
            raise err

        session = Session(send, echo, 2)
        for number in range(100):
            await session.receive(frame(Kind.REPLY, number))
            await session.receive(frame(Kind.CALL, number, b"\x01x" + bytes(6)))
        call = asyncio.create_task(session.call(1, "x", ()))
        await asyncio.sleep(0.05)
        assert not session.closed.is_set(), "who reads the stream says why it ended"
        session.close(LinkError("aborted: the silo opened another stream"))
        with pytest.raises(LinkError, match="the silo opened another stream"):
            await call
        await asyncio.sleep(0.05)

    asyncio.run(body())
    gc.collect()
    assert not unhandled


@pytest.mark.parametrize(("flood", "error"), [(True, WireError), (False, LinkError)])
def test_a_stream_ends_with_the_error_for_which_its_session_was_closed(flood: bool, error: type[CryptoError]) -> None:
    """Where the other end takes nothing: 1,024 small frames wait for it, or one for too long."""

    async def body() -> None:
        async def send(raw: bytes) -> None:
            await asyncio.sleep(60)

        async def read() -> bytes:
            await asyncio.sleep(0 if flood or not session.bytes_in else 60)
            return frame(Kind.REPLY, 7)

        session = Session(send, echo, 2, stall_s=5.0 if flood else 0.05)
        with pytest.raises(error, match="1024 frames wait for the other end" if flood else "took nothing for"):
            await pump(read, session)
        await asyncio.sleep(0)
        assert reserved_in(session)[2] == 0

    asyncio.run(body())


def test_a_stream_that_takes_no_frame_is_closed_also_where_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.transport.session.ENDED_S", 0.05)

    async def body() -> None:
        async def send(raw: bytes) -> None:
            raise OSError("gone")

        session = Session(send, echo, 2)
        with pytest.raises(LinkError, match="the stream broke"):
            await session.call(1, "x", ())
        assert session.closed.is_set()

    asyncio.run(body())


def test_a_call_that_is_given_up_ends_at_the_other_side_and_frees_its_memory() -> None:
    cancelled = asyncio.Event()

    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return ()

    async def body(wire: Wire) -> tuple[int, int]:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.caller.call(1, "slow", (bytes(3 << 20),)), 0.3)
        await asyncio.wait_for(cancelled.wait(), 5)
        await asyncio.sleep(0.05)
        return reserved_in(wire.server)[0], reserved_in(wire.caller)[1]

    assert run(body, serve) == (0, 0)


def test_a_message_of_too_many_parts_is_an_error_at_once_there_and_back() -> None:
    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        return (b"",) * 4097

    async def body(wire: Wire) -> None:
        for arguments in ((), (b"",) * 4097):
            with pytest.raises(CallFailedError, match="a message of 4097 parts, at most 4096 can be sent"):
                await asyncio.wait_for(wire.caller.call(1, "x", arguments), 2)
        assert not wire.errors

    run(body, serve)


def test_more_calls_at_a_time_than_are_taken_fail_at_once() -> None:
    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        await asyncio.sleep(0.2)
        return ()

    async def body(wire: Wire) -> list[object]:
        return await asyncio.gather(*(wire.caller.call(one, "x", ()) for one in range(6)), return_exceptions=True)

    results = run(body, serve, Limits(calls=4))
    assert sum(result == () for result in results) == 4
    assert sum(isinstance(result, CallFailedError) and "too many calls" in str(result) for result in results) == 2


def test_what_fails_at_the_other_end_says_its_reason_or_only_its_kind() -> None:
    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        if step == "rule":
            raise LinkError("a rule was broken\x1b[31m")
        raise ValueError("secret 12345")

    async def body(wire: Wire) -> tuple[str, str]:
        found = []
        for number, step in enumerate(("rule", "bug")):
            with pytest.raises(CallFailedError) as caught:
                await wire.caller.call(number, step, ())
            found.append(caught.value.message)
        return found[0], found[1]

    assert run(body, serve) == ("a rule was broken?[31m", "the step failed (ValueError)")


def test_a_call_arrives_twice_and_is_executed_once_while_it_runs_and_after() -> None:
    ran = 0

    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        nonlocal ran
        ran += 1
        await asyncio.sleep(0.05)
        return (b"%d" % ran,)

    async def body() -> None:
        once = Once(serve, replies=2)
        first = asyncio.create_task(once(1, "x", ()))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(once(1, "x", ()))
        await asyncio.sleep(0.01)
        first.cancel()  # its stream was lost
        assert await second == (b"1",)
        assert await once(1, "x", ()) == (b"1",)
        assert (await once(2, "x", ()), await once(3, "x", ())) == ((b"2",), (b"3",))
        with pytest.raises(CallFailedError, match="no longer kept"):
            await once(1, "x", ())

    asyncio.run(body())
    assert ran == 3


def test_replies_are_kept_within_bounds_of_count_and_bytes() -> None:
    served = 0

    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        nonlocal served
        served += 1
        return (bytes(1000),)

    async def body() -> None:
        once = Once(serve, replies=8, reply_bytes=3500)
        for number in range(2000):
            await once(number, "x", ())
        for number in (1997, 1998, 1999):  # 3000 bytes: their replies are kept
            assert await once(number, "x", ()) == (bytes(1000),)
        for number in range(1997 - 64 * 8, 1997):
            with pytest.raises(CallFailedError, match="no longer kept"):
                await once(number, "x", ())
        assert served == 2000
        await once(1997 - 64 * 8 - 1, "x", ())  # of older ones nothing is kept, not even that they were there
        assert served == 2001

    asyncio.run(body())


def test_a_failed_call_that_arrives_again_is_not_executed_again() -> None:
    ran = 0

    async def serve(number: int, step: str, arguments: Parts) -> Parts:
        nonlocal ran
        ran += 1
        raise LinkError("no")

    async def body() -> None:
        once = Once(serve)
        for _ in range(3):
            with pytest.raises(LinkError):
                await once(1, "x", ())

    asyncio.run(body())
    assert ran == 1
