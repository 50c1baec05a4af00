"""Training runs in a silo's ledger: their models, what they have reserved ahead, and which are over.

A part of `silo_node.ledger.store.LedgerStore`, which opens the file.
"""

from hashlib import sha256

from policies.budget.ledger import RunOver, RunReservation
from silo_node.ledger import reservations, spending
from silo_node.ledger.database import Database
from silo_node.ledger.events import ModelUpdated
from silo_node.ledger.log import Log


class RunStore:
    """The runs of an open ledger; each change is one transaction."""

    _db: Database
    _log: Log

    def load_run(self, run: bytes) -> bytes | None:
        with self._db.reading():
            row = self._db.execute("SELECT state FROM runs WHERE run = ?", (run,)).fetchone()
        return None if row is None else bytes(row[0])

    def save_run(self, run: bytes, state: bytes, done: int = 0, *, is_learned: bool = True) -> None:
        sql = "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state"
        sql += ", saved_at = excluded.saved_at" if is_learned else ""
        with self._db.transaction():
            self._db.execute(sql, (run, state, self._log.now()))
            events = reservations.learned(self._db, run, done)
            self._log.append(ModelUpdated(run=run, state=sha256(state).digest()), *events)

    def runs(self) -> list[bytes]:
        """Return the states of all training runs."""
        with self._db.reading():
            return [bytes(row[0]) for row in self._db.execute("SELECT state FROM runs").fetchall()]

    def reservation_of(self, run: bytes) -> RunReservation | None:
        with self._db.reading():
            return reservations.reservation_of(self._db, run)

    def reservations(self) -> list[RunReservation]:
        """Return what runs have reserved, by when it ends."""
        with self._db.reading():
            return list(reservations.all_reservations(self._db))

    def why_over(self, run: bytes) -> RunOver | None:
        with self._db.reading():
            return reservations.why_over(self._db, run, self._log.now())

    def stop_run(self, run: bytes, why: RunOver, releases: bool) -> None:
        with self._db.transaction():
            spending.stop_run(self._db, self._log, run, why, releases)

    def expire_runs(self) -> None:
        """End the reservations that have lain too long, and the runs with them."""
        with self._db.reading():
            is_due = reservations.is_due(self._db, self._log.now())
        if is_due:
            with self._db.transaction():
                self._log.append(*reservations.expire(self._db, self._log.now()))
