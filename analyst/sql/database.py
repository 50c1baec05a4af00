"""A database in memory that is opened once in a process and reused, since opening one takes longer than most questions.

Promise: one user at a time, each for so many seconds at most; whatever fails in it closes it, and the next one opens
anew. Nothing that one leaves there is read by another: users run SELECT, or replace the tables that they read.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb


@contextmanager
def interrupted_after(database: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt whatever a database still computes after so many seconds."""
    timer = threading.Timer(seconds, database.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # or it might interrupt what comes next


class KeptDatabase:
    """One database of a configuration; `settings` are set after it is opened, in their order."""

    def __init__(self, config: Mapping[str, Any], settings: Sequence[str] = ()) -> None:
        self._config, self._settings, self._lock = dict(config), tuple(settings), threading.Lock()
        self._opened: tuple[int, duckdb.DuckDBPyConnection] | None = None

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

    def _database(self) -> duckdb.DuckDBPyConnection:
        """Return the database, opened anew in a process that was forked."""
        if self._opened is None or self._opened[0] != os.getpid():
            database = duckdb.connect(config=self._config)
            for setting in self._settings:
                database.execute(f"SET {setting}")
            self._opened = os.getpid(), database
        return self._opened[1]
