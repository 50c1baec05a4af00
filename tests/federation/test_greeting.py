"""The first frames of a stream, the version that both sides agree on, and the wait before dialling again."""

import asyncio

import pytest

from crypto.errors import LinkError
from federation.transport.frames import WIRE, Kind, frame
from federation.transport.handshake import ADMITTED, KNOCK_S, Hello, Welcome, agree, back_off_s, greet, greeting


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"), [((1,), (1, 2), 1), ((1, 2), (1, 2), 2), ((2, 3), (1, 2), 2), ((1, 2, 9), (2,), 2)]
)
def test_the_newest_version_that_both_know_is_agreed_on(
    theirs: tuple[int, ...], ours: tuple[int, ...], expected: int
) -> None:
    assert agree(theirs, ours) == expected


def test_sides_without_a_common_version_say_so() -> None:
    with pytest.raises(LinkError, match=r"no common wire version: here 1, 2 \(consilo.*\), there 3, 4"):
        agree((3, 4), (1, 2))


async def admitted() -> tuple[object, ...]:
    return (ADMITTED,)


def test_nothing_is_written_to_a_stream_that_was_not_let_in() -> None:
    async def body() -> None:
        async def write(raw: bytes) -> None:
            raise AssertionError

        async def read() -> object:
            raise AssertionError

        async def ended() -> tuple[object, ...]:
            return ()

        with pytest.raises(LinkError, match="the stream ended before a greeting"):
            await greet(read, write, ended, Hello(wire=WIRE, instance=bytes(16), membership=0, software="t"))

    asyncio.run(body())


def test_a_version_that_was_not_offered_is_refused_by_who_dials() -> None:
    async def body() -> None:
        hello = Hello(wire=WIRE, instance=bytes(16), membership=0, software="t")

        async def write(raw: bytes) -> None:
            assert Hello.decode(greeting(raw, Kind.HELLO)) == hello

        async def read() -> object:
            answer = Welcome(wire=9, instance=bytes(16), newest=0, memberships=())
            return frame(Kind.WELCOME, 0, answer.encode())

        with pytest.raises(LinkError, match="which was not offered"):
            await greet(read, write, admitted, hello)

    asyncio.run(body())


def test_silence_instead_of_a_greeting_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.transport.handshake.GREETING_S", 0.05)

    async def body() -> None:
        async def write(raw: bytes) -> None:
            return None

        async def read() -> object:
            await asyncio.sleep(5)
            return b""

        with pytest.raises(LinkError, match="no greeting within"):
            await greet(read, write, admitted, Hello(wire=WIRE, instance=bytes(16), membership=0, software="t"))

    asyncio.run(body())


def test_the_wait_before_dialling_again_doubles_up_to_four_seconds_and_is_left_to_chance() -> None:
    waits = [back_off_s(attempt) for attempt in range(12)]
    for attempt, wait in enumerate(waits):
        whole = min(4.0, 0.5 * 2**attempt)
        assert whole / 2 <= wait <= whole
    assert back_off_s(10**6) + KNOCK_S <= 5, "so a silo is back within 5 s"
    assert len({back_off_s(9) for _ in range(20)}) > 10
