"""Imports beside other work: a computation that needs what is slow to import finds it there.

A question waits for no import. An import fails where a package is missing or damaged, or memory is short; that follows
from the machine, never from a row.
"""

import threading
from collections.abc import Callable

from silo_node.data.compute import load_kind

LOADING, LOADED, FAILED = range(3)
UNCONFINED = 3  # loaded: and the process of networks has limits, but no filter of the kernel


class Loading:
    """What kinds of computations need, as far as this process has imported it."""

    def __init__(self, load: Callable[[str], None] = load_kind) -> None:
        """`load` imports what a kind needs."""
        self._import = load
        self._threads: dict[str, threading.Thread] = {}
        self._failed: set[str] = set()

    def begin(self, kind: str) -> None:
        """Import what a kind needs in a thread, unless that has begun."""
        if kind not in self._threads:
            self._threads[kind] = threading.Thread(target=self._load, args=[kind], daemon=True)
            self._threads[kind].start()

    def wait(self) -> None:
        """Return once all that has begun is over."""
        for thread in self._threads.values():
            thread.join()

    def state(self, kind: str) -> int:
        """Return how far the import of a kind is, which begins if it has not; one that failed begins anew."""
        self.begin(kind)
        if self._threads[kind].is_alive():
            return LOADING
        if kind not in self._failed:
            return LOADED
        self._failed.discard(kind)
        del self._threads[kind]
        return FAILED

    def _load(self, kind: str) -> None:
        try:
            self._import(kind)
        except Exception:  # whatever an import raises: the owner is told when a step needs it
            self._failed.add(kind)
