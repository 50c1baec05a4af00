"""A disk of this process that is full or read-only, at the two places by which Consilo writes: SQLite and `open`."""

import builtins
import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from silo_node.ledger.database import Database

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ERRORS = {
    "disk full": (errno.ENOSPC, sqlite3.SQLITE_FULL, "database or disk is full"),
    "disk read-only": (errno.EROFS, sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
}


class Disk:
    """What is under `home`; a full disk takes no new file, a read-only one no write at all."""

    def __init__(self, home: Path) -> None:
        self._home, self._state = str(home.resolve()), ""
        self._transaction = Database.transaction
        self._put_between(os, "open", lambda flags, *_: bool(flags & self._refused()))
        for owner in (builtins, io):
            self._put_between(owner, "open", self._is_write_mode)
        for name in ("posix_fallocate", "mkdir"):
            self._put_between(os, name, lambda *_: True, is_named=name == "mkdir")
        for name in ("replace", "rename", "unlink", "remove"):
            self._put_between(os, name, lambda *_: self._state == "disk read-only")

    def becomes(self, state: str) -> None:
        """Become "disk full", "disk read-only" or, with "", well again."""
        self._state = state

        @contextmanager
        def transaction(database: Database) -> Iterator[None]:
            with database.reading():
                self._fail()
                yield

        owner: Any = Database
        owner.transaction = transaction if state else self._transaction

    def _fail(self) -> None:
        _, code, words = _ERRORS[self._state]
        error = sqlite3.OperationalError(words)
        error.sqlite_errorcode = code
        raise error

    def _refused(self) -> int:
        return os.O_CREAT if self._state == "disk full" else _WRITES

    def _is_write_mode(self, mode: str = "r", *_: Any) -> bool:
        return any(one in mode for one in ("wxa" if self._state == "disk full" else "wxa+"))

    def _put_between(self, owner: Any, name: str, writes: Callable[..., bool], *, is_named: bool = True) -> None:
        call = getattr(owner, name)

        def between(place: Any, *arguments: Any, **named: Any) -> Any:
            if self._state and (not is_named or self._has(place)) and writes(*arguments, *named.values()):
                number = _ERRORS[self._state][0]
                raise OSError(number, os.strerror(number), str(place))
            return call(place, *arguments, **named)

        setattr(owner, name, between)

    def _has(self, place: Any) -> bool:
        return isinstance(place, str | os.PathLike) and os.path.abspath(os.fspath(place)).startswith(self._home)
