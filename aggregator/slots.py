"""Room for work that other parties do, shared fairly over analysts: rounds, calls to silos, and the silos' computing.

Whoever comes finds room at once while others leave some. Of those who wait and may have what is free, it goes to the
one who holds the least, and among these to the one who has waited longest. Every wait is bounded.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aggregator.errors import AggregatorError


class Slots:
    """A number of slots. An analyst may take one while it holds fewer than are free.

    So one alone gets half of them, the next one half of the rest, and so on.
    """

    def __init__(self, number: int, wait_s: float, what: str) -> None:
        """`wait_s` is how long anybody waits, and `what` names the room in an error."""
        self._number, self._wait_s, self._what = number, wait_s, what
        self.held: Counter[str] = Counter()  # by analyst
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []  # with the amount; first come first

    @property
    def waiting(self) -> Counter[str]:
        """Return how many wait, by analyst."""
        return Counter(who for who, _, _ in self._waiting)

    @asynccontextmanager
    async def taken(self, who: str, amount: int = 1) -> AsyncIterator[None]:
        """Hold some of the room; raises AggregatorError if none gets free for `who` in time."""
        await self.take(who, amount)
        try:
            yield
        finally:
            self.give_back(who, amount)

    def may(self, who: str, amount: int) -> bool:
        """Whether an analyst may have so much now."""
        return self.held[who] + amount <= self._number - self.held.total()

    def take_now(self, who: str, amount: int = 1) -> bool:
        """Take so much without waiting; return whether that may be."""
        is_free = self.may(who, amount)
        if is_free:
            self.held[who] += amount
        return is_free

    async def take(self, who: str, amount: int = 1) -> None:
        """Wait for so much; raises AggregatorError."""
        if self.take_now(who, amount):
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        one = who, amount, given
        self._waiting.append(one)
        try:
            async with asyncio.timeout(self._wait_s):
                await given
        except BaseException as err:
            if given.done() and not given.cancelled():  # at the moment when this waiting ended
                self.give_back(who, amount)
            else:
                self._waiting.remove(one)
            if isinstance(err, TimeoutError):
                message = f"{self._what}: none free within {self._wait_s:g} s, {self.held[who]} of them are yours"
                raise AggregatorError(message, "ask again later, with fewer questions at a time") from err
            raise

    def give_back(self, who: str, amount: int = 1) -> None:
        """Free so much, and give it to those who wait."""
        self.held[who] -= amount
        self.held += Counter()  # only who holds something stays
        while ready := [one for one in self._waiting if not one[2].done() and self.may(*one[:2])]:
            one = min(ready, key=lambda each: self.held[each[0]])  # the first of equals
            self._waiting.remove(one)
            self.held[one[0]] += one[1]
            one[2].set_result(None)


class Seconds(Slots):
    """The seconds for which silos compute, one round after the other.

    A round may begin while those under way need no more than `number`, as whoever waits for a silo waits no longer; and
    while all rounds of its analyst together need no more than half of that, or it is the only one.
    """

    def may(self, who: str, amount: int) -> bool:
        own = self.held[who]
        return self.held.total() <= self._number and (not own or own + amount <= self._number // 2)
