"""Waiting in a test for what comes at its own time: as long as a busy machine needs, and not for ever."""

import time
from collections.abc import Callable


def until(is_so: Callable[[], bool], timeout_s: float = 20.0, what: Callable[[], str] = str) -> None:
    """Return once something is so; raises AssertionError with `what` if it is not in time."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)
