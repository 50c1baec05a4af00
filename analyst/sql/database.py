"""A database in memory that is opened once in a process and reused, since opening one takes longer than most questions.

Promise: one user at a time, each for so many seconds at most; whatever fails in it closes it, and the next one opens
anew. Nothing that one leaves there is read by another: users run SELECT, or replace the tables that they read.
"""

import atexit
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb


class _Watch:
    """One thread that interrupts what takes too long; it ends when it finds nothing to watch.

    A thread for each of many short computations would take longer than they do.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[int, tuple[float, duckdb.DuckDBPyConnection]] = {}  # until when, on the monotonic clock
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, database: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
        until = time.monotonic() + seconds
        with self._changed:
            self._watched[id(database)] = until, database
            if self._thread is None or not self._thread.is_alive():  # in a process that was forked it is not
                self._wakes_at = until
                self._thread = threading.Thread(target=self._run, name="interrupts databases", daemon=True)
                self._thread.start()
            elif until < self._wakes_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._watched.pop(id(database), None)

    def _run(self) -> None:
        with self._changed:
            while self._watched:
                now = time.monotonic()
                for key in [key for key, (until, _) in self._watched.items() if until <= now]:
                    self._watched.pop(key)[1].interrupt()
                if self._watched:
                    self._wakes_at = min(until for until, _ in self._watched.values())
                    self._changed.wait(max(0.0, self._wakes_at - now))
            self._thread = None

    def end(self) -> None:
        """Watch nothing any more."""
        with self._changed:
            self._watched.clear()
            thread = self._thread
            self._changed.notify()
        if thread is not None and thread.is_alive():
            thread.join()


_WATCH = _Watch()


@contextmanager
def interrupted_after(database: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt whatever a database still computes after so many seconds."""
    with _WATCH.over(database, seconds):
        yield


class KeptDatabase:
    """One database of a configuration; `settings` are set after it is opened, in their order."""

    def __init__(self, config: Mapping[str, Any], settings: Sequence[str] = ()) -> None:
        self._config, self._settings, self._lock = dict(config), tuple(settings), threading.Lock()
        self._opened: tuple[int, duckdb.DuckDBPyConnection] | None = None
        atexit.register(self.close)

    @contextmanager
    def used(self, seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield the database to one user at a time; raises duckdb.InterruptException after so many seconds."""
        with self._lock:
            database = self._database()
            is_well = False
            try:
                with interrupted_after(database, seconds):
                    yield database
                is_well = True
            finally:
                if not is_well:
                    self._opened = None
                    database.close()

    def close(self) -> None:
        """Close it; whoever uses it next opens it anew."""
        _WATCH.end()
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None

    def _database(self) -> duckdb.DuckDBPyConnection:
        """Return the database, opened anew in a process that was forked."""
        if self._opened is None or self._opened[0] != os.getpid():
            database = duckdb.connect(config=self._config)
            for setting in self._settings:
                database.execute(f"SET {setting}")
            self._opened = os.getpid(), database
        return self._opened[1]
