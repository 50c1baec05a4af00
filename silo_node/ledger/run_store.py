"""Training runs in a silo's ledger: their models, what they have reserved ahead, and which are over.

A part of `silo_node.ledger.store.LedgerStore`, which opens the file.
"""

from contextlib import suppress
from hashlib import sha256

from policies.budget.ledger import KeptState, RunOver, RunReservation
from policies.errors import LedgerError
from silo_node.ledger import reservations, spending
from silo_node.ledger.database import Database
from silo_node.ledger.events import ModelUpdated
from silo_node.ledger.log import Log
from silo_node.ledger.state_files import INLINE_BYTES, LONG_STATES, StateFiles, name_of, names_of

_LOOKS = 5  # at a state whose file another process has just replaced


def stored_state(database: Database, files: StateFiles, run: bytes) -> KeptState | None:
    """Return the state of a run as it is stored; without numbers where their file is gone."""
    state: KeptState | None = None
    for _ in range(_LOOKS):
        with database.reading():
            row = database.execute("SELECT state, numbers FROM runs WHERE run = ?", (run,)).fetchone()
        if row is None:
            return None
        header = bytes(row[0])
        numbers = files.read(name_of(run, header)) if row[1] is None else bytes(row[1])
        state = KeptState(header, numbers or b"")
        if numbers is not None:
            break
    return state


class RunStore:
    """The runs of an open ledger; each change is one transaction."""

    _db: Database
    _log: Log
    _states: StateFiles

    def load_run(self, run: bytes) -> KeptState | None:
        return stored_state(self._db, self._states, run)

    def save_run(self, run: bytes, state: KeptState, done: int = 0, *, is_learned: bool = True) -> None:
        sql = "INSERT INTO runs VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state"
        sql += ", numbers = excluded.numbers" + (", saved_at = excluded.saved_at" if is_learned else "")
        name, is_long = name_of(run, state.header), len(state.numbers) > INLINE_BYTES
        partial = self._states.write(name, state.numbers) if is_long else None
        try:
            with self._db.transaction():
                inline = None if is_long else state.numbers
                self._db.execute(sql, (run, state.header, self._log.now(), inline))
                events = reservations.learned(self._db, run, done)
                self._log.append(ModelUpdated(run=run, state=sha256(state.header).digest()), *events)
                if partial is not None:
                    self._states.take(partial, name)
        finally:
            if partial is not None:
                partial.unlink(missing_ok=True)
        with suppress(LedgerError):  # the state is kept; what is too much goes at the next one, or at a start
            self.sweep_states()

    def sweep_states(self, *, is_start: bool = False) -> None:
        """Remove the files of states that no row names any more."""
        if self._states.is_used:
            with self._db.transaction():
                self._states.keep_only(names_of(self._db.execute(LONG_STATES)), is_start=is_start)

    def runs(self) -> dict[bytes, KeptState]:
        """Return the states of all training runs, by run."""
        with self._db.reading():
            names = [bytes(row[0]) for row in self._db.execute("SELECT run FROM runs").fetchall()]
        return {run: state for run in names if (state := self.load_run(run)) is not None}

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
