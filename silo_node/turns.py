"""Turns to compute, where no policy states times: one at a time, shared fairly over analysts.

Promise: whoever waits is behind one computing of each other analyst at most, however many questions these have.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from silo_node.errors import SiloError


class Turns:
    """One turn at a time. Of those who wait it goes to the analyst whose last turn is longest ago."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._given = 0
        self._last: dict[str, int] = {}  # the number of each analyst's last turn; policies name few analysts
        self._waiting: list[tuple[str, threading.Event]] = []  # first come first

    @contextmanager
    def taken(self, who: str, wait_s: float) -> Iterator[None]:
        """Have a turn; raises SiloError if there is none in time."""
        self._take(who, wait_s)
        try:
            yield
        finally:
            self._give_back()

    def _take(self, who: str, wait_s: float) -> None:
        mine = who, threading.Event()
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                self._count(who)
                return
            self._waiting.append(mine)
        if mine[1].wait(wait_s):
            return
        with self._lock:
            if mine[1].is_set():  # given at the moment when the wait ended
                return
            self._waiting.remove(mine)
        raise SiloError(f"others computed for {wait_s:g} s", "see [compute] in policy-keys.md")

    def _give_back(self) -> None:
        with self._lock:
            if not self._waiting:
                self._is_taken = False
                return
            following = min(self._waiting, key=lambda one: self._last.get(one[0], 0))  # the first of equals
            self._waiting.remove(following)
            self._count(following[0])
            following[1].set()

    def _count(self, who: str) -> None:
        self._given += 1
        self._last[who] = self._given
