"""The silo's dialler: what it goes on after, and what it keeps of rounds that are open."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from crypto.errors import LinkError, MembershipError
from policies.decision.computing import longest_seconds
from silo_node.errors import SiloError
from silo_node.serve import drain_seconds
from silo_node.transport.dialler import MAX_ROUNDS, Dialler
from tests.cases import every
from tests.harness.example_policy import Edit, policy
from tests.harness.federated import Counted
from tests.harness.inside import dial_by, open_rounds, track


async def nothing(*_: Any) -> Any:
    raise AssertionError


def dialler(counts: Counted) -> Dialler:
    return Dialler(None, "hub", nothing, counts, nothing, first_wait_s=0.01)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("err", "outcome"),
    [
        (OSError(28, "No space left on device"), "failed"),
        (SiloError("the policy does not hold"), "failed"),
        (TimeoutError(), "failed"),
        (ZeroDivisionError(), "failed"),
        (LinkError("lost"), "refused"),
        (MembershipError("another history"), "refused"),
    ],
)
def test_a_dialler_goes_on_whatever_one_stream_ended_with(err: Exception, outcome: str) -> None:
    async def body() -> list[tuple[str, object]]:
        counts, third = Counted(), asyncio.Event()
        one = dialler(counts)

        async def once_through(attempt: int) -> bool:
            if attempt >= 2:
                third.set()
                await asyncio.sleep(60)
            raise err

        dial_by(one, once_through)
        running = asyncio.create_task(one.run())
        await asyncio.wait_for(third.wait(), 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return counts.events

    assert asyncio.run(body()) == [("dialled", outcome)] * 2


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        (lambda number: number.to_bytes(16, "big"), MAX_ROUNDS),
        (lambda number: number.to_bytes(17, "big"), 0),
        (lambda number: bytes(number), 1),
    ],
)
def test_the_ids_of_open_rounds_are_kept_within_bounds(made: Callable[[int], bytes], kept: int) -> None:
    one = dialler(Counted())
    for number in range(3 * MAX_ROUNDS):
        track(one, "propose", (made(number),), 1.0)
    assert len(open_rounds(one)) == kept
    newest = list(open_rounds(one))[-1:]
    for round_id in newest:
        track(one, "cancel", (round_id, b"signed"), 2.0)
        assert round_id not in open_rounds(one)
    track(one, "share", (bytes(16),), 200.0)
    assert not open_rounds(one), "none outlives its lifetime"


def test_a_round_lives_longer_where_computing_takes_longer() -> None:
    one = Dialler(None, "hub", nothing, Counted(), nothing, computing_s=300)  # type: ignore[arg-type]
    track(one, "propose", (bytes(16),), 1.0)
    track(one, "share", (bytes(16),), 420.0)
    assert open_rounds(one)
    track(one, "share", (bytes(16),), 422.0)
    assert not open_rounds(one)


def test_a_call_may_be_as_long_as_what_a_silo_learns() -> None:
    assert dialler(Counted()).limits.call_bytes == 128 << 20
    one = Dialler(None, "hub", nothing, Counted(), nothing, learned_bytes=10**9)  # type: ignore[arg-type]
    assert one.limits.call_bytes == (128 << 20) + 10**9
    assert one.limits.is_shared, "what is longer ends nobody else's call"


@every(
    ("compute", "seconds"),
    [
        ("", 50),  # 30 s and the 20 s of a computation
        ("[compute]\nseconds = 300\n", 330),
        ("[compute]\nseconds = 300\nfixed_seconds = 2\n", 330),
        ("[compute]\nfixed_seconds = 2\n", 44),  # of 50 statements it is seven times that
        ("[compute]\nseconds = 3600\n", 3600),
    ],
)
def test_a_stop_waits_as_long_as_a_computation_may_take(compute: str, seconds: float) -> None:
    of = policy(Edit("[disclosure]", f"{compute}[disclosure]"))
    assert drain_seconds(longest_seconds(of)) == seconds
