"""The silo's dialler: what it goes on after, and what it keeps of rounds that are open."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from crypto.errors import LinkError, MembershipError
from silo_node.errors import SiloError
from silo_node.transport.dialler import MAX_ROUNDS, Dialler
from tests.harness.federated import Counted


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

        one._once_through = once_through  # type: ignore[method-assign]
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
        one._track("propose", (made(number),), 1.0)
    assert len(one._rounds) == kept
    newest = list(one._rounds)[-1:]
    for round_id in newest:
        one._track("cancel", (round_id, b"signed"), 2.0)
        assert round_id not in one._rounds
    one._track("share", (bytes(16),), 200.0)
    assert not one._rounds, "none outlives its lifetime"
