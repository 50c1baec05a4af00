"""Slots that analysts share: nobody takes them all, nobody waits for ever, and none is lost."""

import asyncio
import contextlib

import pytest

from aggregator.errors import AggregatorError
from aggregator.slots import Seconds, Slots


async def taken(slots: Slots, who: str, number: int, amount: int = 1) -> list[asyncio.Task[None]]:
    """Let an analyst ask for so many at once; return the tasks that ask."""
    tasks = [asyncio.create_task(slots.take(who, amount)) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


def test_one_analyst_takes_half_and_whoever_comes_finds_one_at_once() -> None:
    async def body() -> None:
        slots = Slots(16, 60, "slots")
        await taken(slots, "mallory", 100)
        assert slots.held == {"mallory": 8}
        for who, gets in (("eve", 4), ("trudy", 2), ("ana", 1), ("bob", 1)):
            await taken(slots, who, 100)
            assert slots.held[who] == gets
        assert slots.held.total() == 16

    asyncio.run(body())


def test_a_free_slot_goes_to_the_one_who_holds_the_fewest_and_then_to_the_first() -> None:
    async def body() -> None:
        slots = Slots(4, 60, "slots")
        for who in ("mallory", "eve", "bob"):
            await taken(slots, who, 20)
        assert slots.held == {"mallory": 2, "eve": 1, "bob": 1}
        first, second = await taken(slots, "ana", 2)
        slots.give_back("mallory")
        await asyncio.sleep(0)
        assert (first.done(), second.done()) == (True, False), "ahead of 56 who came before it"
        assert slots.held == {"mallory": 1, "eve": 1, "bob": 1, "ana": 1}
        slots.give_back("eve")
        await asyncio.sleep(0)
        assert slots.held["eve"] == 1, "of those who hold none, eve has waited longest"

    asyncio.run(body())


def test_a_wait_ends_with_what_to_do_and_leaves_nothing_behind() -> None:
    async def body() -> None:
        slots = Slots(2, 0.01, "slots")
        await slots.take("mallory")
        with pytest.raises(AggregatorError, match=r"slots: none free within 0.01 s, 1 of them are yours") as caught:
            await slots.take("mallory")
        assert caught.value.hint == "ask again later, with fewer questions at a time"
        assert not slots.waiting
        slots.give_back("mallory")
        assert slots.held == {}

    asyncio.run(body())


@pytest.mark.parametrize("is_given", [False, True], ids=["before a slot is given", "in the moment it is given"])
def test_whoever_leaves_while_it_waits_takes_no_slot_along(is_given: bool) -> None:
    async def body() -> None:
        slots = Slots(2, 60, "slots")
        await slots.take("ana")
        (gone,) = await taken(slots, "ana", 1)
        if is_given:
            slots.give_back("ana")
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        assert gone.cancelled()
        if not is_given:
            slots.give_back("ana")
        assert slots.held == {}
        assert not slots.waiting

    asyncio.run(body())


def test_seconds_of_computing_leave_room_for_another_analyst_whatever_one_asks() -> None:
    seconds = Seconds(240, 60, "seconds")
    assert [seconds.take_now("mallory", 60) for _ in range(4)] == [True, True, False, False]
    assert seconds.take_now("eve", 3600), "a long one goes alone"
    assert not seconds.take_now("ana", 1), "others would be waited for longer than anybody waits"
    seconds.give_back("eve", 3600)
    assert seconds.take_now("ana", 20)
