"""What a silo keeps for itself of its training runs, by what its ledger has learned of them.

A part of `silo_node.ledger.store.LedgerStore`, which opens the ledger.
"""

from silo_node.ledger.database import Database
from silo_node.ledger.log import Log
from silo_node.ledger.own_files import OwnFiles


class OwnStore:
    """The files of an open ledger that are in no backup and no message."""

    _db: Database
    _log: Log
    _own: OwnFiles

    def load_own(self, run: bytes, done: int) -> tuple[int, bytes] | None:
        """Return the step that made what is in force after `done` steps, and its bytes, empty where it was dropped."""
        found = self._own.load(run, done)
        if found is None and done > 1:
            with self._db.reading():
                is_put_back = self._log.recovered_at > 0
            return (done - 1, b"") if is_put_back else None  # the backup had none, whatever there was before
        return found

    def keep_own(self, run: bytes, step: int, round_id: bytes, data: bytes) -> None:
        self._own.keep(run, step, round_id, data)

    def learn_own(self, run: bytes, step: int, round_id: bytes, *, took_part: bool) -> None:
        self._own.learned(run, step, round_id, took_part=took_part)

    def miss_own(self, run: bytes, first: int, done: int) -> None:
        self._own.missed(run, first, done)

    def drop_own(self, run: bytes, done: int) -> None:
        self._own.drop(run, done)

    def tidy_own(self, run: bytes, done: int) -> None:
        self._own.tidy(run, done)

    def sweep_own(self) -> None:
        """Remove what is of runs that the ledger has no state of any more."""
        with self._db.reading():
            runs = {bytes(row[0]) for row in self._db.execute("SELECT run FROM runs").fetchall()}
        self._own.keep_only(runs)
