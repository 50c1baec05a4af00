"""The silo's ledger in SQLite: write-ahead log, full synchronisation, one transaction per change.

Implements `policies.ledger.Ledger`. Durable before anything leaves, so no crash forgets a spend.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from policies.errors import AlreadyChargedError, LedgerError
from policies.ledger import Charge, Spending, WindowLimit, WindowSpending, exceeds

_SCHEMA_VERSION = 2
_CHARGES = """
CREATE TABLE charges (
    nonce BLOB PRIMARY KEY CHECK (length(nonce) = 16),
    request_hash BLOB NOT NULL,
    analyst TEXT NOT NULL,
    purpose TEXT NOT NULL,
    micro_rho INTEGER NOT NULL CHECK (micro_rho >= 0),
    policy_hash BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')),
    round_id BLOB,
    charged_at INTEGER NOT NULL,
    run BLOB,
    CHECK ((state = 'committed') = (round_id IS NOT NULL))
) STRICT, WITHOUT ROWID;
"""
_SPLITS = "CREATE TABLE splits (round_id BLOB PRIMARY KEY, split_hash BLOB NOT NULL) STRICT, WITHOUT ROWID;"
_RUNS = "CREATE TABLE runs (run BLOB PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;"
_KEEP = "INSERT INTO charges SELECT *, NULL FROM old; DROP TABLE old;"
_CHANGES = {  # from the format before
    0: f"{_CHARGES}{_SPLITS}{_RUNS}",
    1: f"ALTER TABLE charges RENAME TO old;{_CHARGES}{_KEEP}{_RUNS}",
}
_BUSY_TIMEOUT_S = 5.0


def format_of(path: Path) -> tuple[int, int]:
    """Return the format of a ledger file, 0 if there is none yet, and the one of this version; changes nothing.

    Raises LedgerError if the file is no database.
    """
    if not path.exists():
        return 0, _SCHEMA_VERSION
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S)) as db:
            return int(db.execute("PRAGMA user_version").fetchone()[0]), _SCHEMA_VERSION
    except sqlite3.Error as err:
        raise LedgerError(f"the ledger {path} cannot be read ({err})", "restore it or free disk space") from err


class LedgerStore:
    """A ledger file. One process writes it; reading from another (`consilo-silo ledger`) is safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Created for the owner only before SQLite opens it: its -wal and -shm files take the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
            self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise LedgerError(f"{path} is another program's database", "move it away; a silo's ledger stands there")
            if version != _SCHEMA_VERSION and version not in _CHANGES:
                raise LedgerError(f"{path} has format {version}, expected {_SCHEMA_VERSION}", "use a matching version")
            if version != _SCHEMA_VERSION:
                script = _CHANGES[version]
                self._db.executescript(f"BEGIN;{script}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT")
            if (check := self._db.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise LedgerError(
                    f"the ledger {path} is damaged ({check})", "restore it; no request is answered before"
                )
        except (sqlite3.Error, OSError) as err:
            raise LedgerError(f"the ledger {path} cannot be opened ({err})", "restore it or free disk space") from err

    def close(self) -> None:
        self._db.close()

    def spending(
        self,
        besides: bytes = b"",
        purpose: str = "",
        analyst: str = "",
        since: Sequence[int] = (),
        run: bytes | None = None,
    ) -> Spending:
        with self._errors():
            total, of_run = self._db.execute(
                "SELECT coalesce(sum(micro_rho), 0), coalesce(sum(micro_rho) FILTER (WHERE run = ? AND analyst = ?), 0)"
                " FROM charges WHERE nonce <> ?",
                (run, analyst, besides),
            ).fetchone()
            windows = [
                self._db.execute(
                    "SELECT coalesce(sum(micro_rho), 0), coalesce(sum(micro_rho) FILTER (WHERE analyst = ?), 0)"
                    " FROM charges WHERE purpose = ? AND charged_at >= ? AND nonce <> ?",
                    (analyst, purpose, start, besides),
                ).fetchone()
                for start in since
            ]
        return Spending(int(total), tuple(WindowSpending(everybody, own) for everybody, own in windows), int(of_run))

    def is_committed(self, nonce: bytes) -> bool:
        with self._errors():
            row = self._db.execute("SELECT state FROM charges WHERE nonce = ?", (nonce,)).fetchone()
        return row is not None and row[0] == "committed"

    def reserve(
        self, charge: Charge, lifetime_limit: int, windows: Sequence[WindowLimit] = (), run_limit: int | None = None
    ) -> bool:
        with self._transaction():
            held = self._db.execute(
                "SELECT state, request_hash, micro_rho FROM charges WHERE nonce = ?", (charge.nonce,)
            ).fetchone()
            if held == ("reserved", charge.request_hash, charge.micro_rho):
                return True
            if held is not None:
                raise AlreadyChargedError("this request was answered before, or its nonce belongs to another request")
            since = [limit.since for limit in windows]
            spent = self.spending(charge.nonce, charge.purpose, charge.analyst, since, charge.run)
            if exceeds(spent, charge.micro_rho, lifetime_limit, windows, run_limit):
                return False
            self._db.execute(
                "INSERT INTO charges"
                " (nonce, request_hash, analyst, purpose, micro_rho, policy_hash, charged_at, run, state) VALUES"
                " (:nonce, :request_hash, :analyst, :purpose, :micro_rho, :policy_hash, :charged_at, :run, 'reserved')",
                asdict(charge),
            )
        return True

    def commit(self, nonce: bytes, round_id: bytes) -> None:
        with self._transaction():
            changed = self._db.execute(
                "UPDATE charges SET state = 'committed', round_id = ? WHERE nonce = ? AND state = 'reserved'",
                (round_id, nonce),
            ).rowcount
            if changed != 1:
                raise AlreadyChargedError("nothing is reserved for this request, or its contribution has left")

    def release(self, nonce: bytes) -> None:
        with self._transaction():
            self._db.execute("DELETE FROM charges WHERE nonce = ? AND state = 'reserved'", (nonce,))

    def release_all(self) -> int:
        """Release every reservation, at start: the rounds they were for are gone and none of them contributed."""
        with self._transaction():
            return self._db.execute("DELETE FROM charges WHERE state = 'reserved'").rowcount

    def record_split(self, round_id: bytes, split_hash: bytes) -> bool:
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO splits VALUES (?, ?)", (round_id, split_hash))
            noted = self._db.execute("SELECT split_hash FROM splits WHERE round_id = ?", (round_id,)).fetchone()
        return bool(noted[0] == split_hash)

    def load_run(self, run: bytes) -> bytes | None:
        with self._errors():
            row = self._db.execute("SELECT state FROM runs WHERE run = ?", (run,)).fetchone()
        return None if row is None else bytes(row[0])

    def save_run(self, run: bytes, state: bytes) -> None:
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (run, state))

    def runs(self) -> list[bytes]:
        """Return the states of all training runs."""
        with self._errors():
            return [bytes(row[0]) for row in self._db.execute("SELECT state FROM runs").fetchall()]

    def charges(self) -> list[tuple[str, str, str, int, str]]:
        """Return (when, analyst, purpose, micro_rho, state) of every charge, oldest first."""
        with self._errors():
            return self._db.execute(
                "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', charged_at, 'unixepoch'), analyst, purpose, micro_rho, state"
                " FROM charges ORDER BY charged_at, nonce"
            ).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            raise LedgerError(f"the ledger {self._path} failed ({err})", "restore it or free disk space") from err
