"""The SQLite file of a silo's ledger: opening, updating its format, reading and changing it.

Promise: a change is one transaction, on disk when `transaction` returns (write-ahead log, full synchronisation), and
all changes by threads and processes are in one total order. SQLite's errors are raised as LedgerError.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from federation.files import sync_directory
from policies.errors import LedgerError, LedgerFullError
from silo_node.ledger.schema import CHANGES, VERSION

Value = bytes | str | int | None  # the value of a column
DAMAGED = "restore it; no request is answered before"  # the hint where a ledger is broken
ALTERED = "keep the file as it is, and find out who changed it"  # the hint where somebody changed it
_BUSY_TIMEOUT_S = 5.0


def format_of(path: Path) -> tuple[int, int]:
    """Return the format of a ledger file (0 without a file) and the format of this version; changes nothing.

    Raises LedgerError if the file is not a database.
    """
    if not path.exists():
        return 0, VERSION
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S)) as db:
            return int(db.execute("PRAGMA user_version").fetchone()[0]), VERSION
    except sqlite3.Error as err:
        raise LedgerError(f"the ledger {path} cannot be read ({err})", "restore it or free disk space") from err


class Database:
    """An open ledger file. `execute` belongs inside `reading`, `snapshot` or `transaction`."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; raises LedgerError if it is damaged, or this version cannot read it."""
        self.path = path
        self._lock = threading.RLock()
        try:
            # Created for the owner only before SQLite opens it: its -wal and -shm files take the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
            sync_directory(path.parent)
            self.connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as err:
            raise LedgerError(f"the ledger {path} cannot be opened ({err})", "restore it or free disk space") from err
        try:
            self._open()
        except (sqlite3.Error, LedgerError) as err:
            self.connection.close()
            if isinstance(err, LedgerError):
                raise
            raise LedgerError(f"the ledger {path} cannot be opened ({err})", "restore it or free disk space") from err

    def _open(self) -> None:
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = FULL")
        self.execute("PRAGMA secure_delete = ON")
        if self.version != VERSION:
            self._migrate()
        if (check := self.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise LedgerError(f"the ledger {self.path} is damaged ({check})", DAMAGED)

    def _migrate(self) -> None:
        self.execute("BEGIN IMMEDIATE")
        version = self.version  # again: another process may have been first
        if version == 0 and self.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            message = f"{self.path} is another program's database"
            raise LedgerError(message, "move it away; this is the path of a silo's ledger")
        if version != VERSION and version not in CHANGES:
            raise LedgerError(f"{self.path} has format {version}, expected {VERSION}", "use a matching version")
        if version != VERSION:
            for statement in _statements(CHANGES[version]):
                self.execute(statement)
            self.execute(f"PRAGMA user_version = {VERSION}")
        self.execute("COMMIT")

    @property
    def version(self) -> int:
        """The format that the file states."""
        return int(self.execute("PRAGMA user_version").fetchone()[0])

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> sqlite3.Cursor:
        return self.connection.execute(sql, parameters)

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read without another thread's unfinished changes; raises LedgerError for SQLite's errors."""
        try:
            with self._lock:  # threads share the connection: none reads what another has not committed
                yield
        except sqlite3.Error as err:
            if getattr(err, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise LedgerFullError(f"no room for the ledger {self.path} ({err})", "free disk space") from err
            raise LedgerError(f"the ledger {self.path} failed ({err})", "restore it or free disk space") from err

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read all tables as of one moment, even if other processes write meanwhile."""
        with self.reading():
            self.execute("BEGIN")
            try:
                yield
            finally:
                self.execute("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes of the block durable together when it ends, or none of them if it raises."""
        with self.reading():
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.execute("ROLLBACK")
                raise


def _statements(script: str) -> Iterator[str]:
    """Split a script so that it can run in an open transaction; `executescript` would commit that first."""
    pending = ""
    for part in script.split(";"):
        pending += part + ";"
        if sqlite3.complete_statement(pending):
            if pending.strip(" \n;"):
                yield pending
            pending = ""
