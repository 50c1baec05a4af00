"""The silo's ledger and log in one SQLite file: one transaction for both, durable before anything leaves.

`LedgerStore` implements `policies.budget.ledger.Ledger`. It opens the transactions; what happens in them stands in
`spending`, `approvals`, `retention` and `audit`. No crash forgets a spend: every change stands in the log in the same
transaction, and the checkpoint that the silo signs then names it. Without a signer a store only reads.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from policies.budget.ledger import Charge, Checkpoint, Rate, RunStep, Since, Spending, WindowLimit
from policies.requests.approval import Approval
from silo_node.ledger import approvals, retention, spending
from silo_node.ledger.approvals import Waiting
from silo_node.ledger.audit import examine_ledger
from silo_node.ledger.charges import Row, hash_of_committed, history, state_of
from silo_node.ledger.database import Database
from silo_node.ledger.events import Entry, Erased, Event, Learned, PolicyInForce, Started, SurvivorsSigned
from silo_node.ledger.log import Line, Log, Signer, entries_of
from silo_node.ledger.replay import Audit
from silo_node.ledger.retention import Due


class LedgerStore:
    """A ledger file. Threads and processes may share it; each change is one transaction, in a total order."""

    def __init__(self, path: Path, signer: Signer | None = None, clock: Callable[[], float] = time.time) -> None:
        """Open the ledger, or make it; raises LedgerError, with a signer also if the log is not whole."""
        self._db = Database(path)
        self._log = Log(self._db, signer, clock)
        if signer is not None:
            try:
                self.audit()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        self._db.close()

    # Spending

    def start(self, policy_hash: bytes, version: int) -> int:
        """Begin to answer by a policy: release every reservation of rounds that are gone, and say so in the log."""
        with self._db.transaction():
            released = spending.release_all(self._db)
            spent, charges = spending.spending(self._db).lifetime, hash_of_committed(self._db)
            events: list[Event] = [*released, Started(micro_rho=spent, released=len(released), charges=charges)]
            in_force = PolicyInForce(policy_hash=policy_hash, version=version)
            if self._log.policy_in_force() != in_force:
                events.append(in_force)
            self._log.append(*events)
        return len(released)

    def spending(
        self,
        excluding_nonce: bytes = b"",
        purpose: str = "",
        analyst: str = "",
        since: Sequence[Since] = (),
        run: RunStep | None = None,
        requests_since: int | None = None,
    ) -> Spending:
        with self._db.reading():
            return spending.spending(self._db, excluding_nonce, purpose, analyst, since, run, requests_since)

    def job_of(self, run: bytes) -> bytes | None:
        with self._db.reading():
            return spending.job_of(self._db, run)

    def is_committed(self, nonce: bytes) -> bool:
        with self._db.reading():
            return state_of(self._db, nonce) == "committed"

    def is_exhausted(self, nonce: bytes) -> bool:
        with self._db.reading():
            return spending.is_exhausted(self._db, nonce)

    def reserve(
        self,
        charge: Charge,
        lifetime_limit: int,
        windows: Sequence[WindowLimit] = (),
        run_limit: int | None = None,
        delta_limit: int = 0,
        rate: Rate | None = None,
    ) -> bool:
        with self._db.transaction():
            limits = (lifetime_limit, windows, run_limit, delta_limit, rate)
            return spending.reserve(self._db, self._log, charge, *limits)

    def commit(self, nonce: bytes, round_id: bytes) -> None:
        with self._db.transaction():
            spending.commit(self._db, self._log, nonce, round_id)

    def release(self, nonce: bytes) -> None:
        with self._db.transaction():
            self._log.append(*spending.release(self._db, nonce))

    def history(self) -> list[Row]:
        """Return every charge, oldest first."""
        with self._db.reading():
            return history(self._db)

    # Rounds and training runs

    def record_split(self, round_id: bytes, split_hash: bytes) -> bool:
        with self._db.transaction():
            noted = self._db.execute("SELECT split_hash FROM splits WHERE round_id = ?", (round_id,)).fetchone()
            if noted is None:
                self._db.execute("INSERT INTO splits VALUES (?, ?, ?)", (round_id, split_hash, self._log.now()))
                self._log.append(SurvivorsSigned(round_id=round_id, split_hash=split_hash))
        return noted is None or bool(noted[0] == split_hash)

    def load_run(self, run: bytes) -> bytes | None:
        with self._db.reading():
            row = self._db.execute("SELECT state FROM runs WHERE run = ?", (run,)).fetchone()
        return None if row is None else bytes(row[0])

    def save_run(self, run: bytes, state: bytes) -> None:
        with self._db.transaction():
            self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (run, state, self._log.now()))
            self._log.append(Learned(run=run))

    def runs(self) -> list[bytes]:
        """Return the states of all training runs."""
        with self._db.reading():
            return [bytes(row[0]) for row in self._db.execute("SELECT state FROM runs").fetchall()]

    # Approvals

    def await_approval(self, waiting: Waiting) -> None:
        """Keep a request until people have said yes or no to it; raises LedgerError if too many wait."""
        with self._db.transaction():
            approvals.await_approval(self._db, self._log, waiting)

    def waiting(self) -> list[Waiting]:
        """Return the requests that people were asked about, oldest first, also those that have expired."""
        with self._db.reading():
            return approvals.waiting_of(self._db)

    def add_verdict(self, verdict: Approval) -> None:
        """Keep what a person said to a request that waits here. Raises LedgerError if none of that subject does."""
        with self._db.transaction():
            approvals.add_verdict(self._db, self._log, verdict)

    def verdicts(self, subject: bytes) -> tuple[Approval, ...]:
        with self._db.reading():
            return approvals.verdicts_of(self._db, subject)

    # The log

    def record(self, *events: Event) -> None:
        """Write down what happened, durably; for what changes nothing else here."""
        with self._db.transaction():
            self._log.append(*events)

    def checkpoint(self) -> bytes | None:
        """Return the signed checkpoint, None while nothing was ever logged."""
        with self._db.reading():
            return self._log.checkpoint()

    def lines(self) -> list[Line]:
        """Return every entry of the log as it is stored, oldest first, also those that were erased."""
        with self._db.reading():
            return list(self._log.lines())

    def entries(self, last: int) -> list[Entry]:
        """Return the last entries of the log, oldest first."""
        with self._db.reading():
            lines = self._log.last_lines(last)
        return list(entries_of(lines))

    def audit(self, signer: Signer | None = None) -> Audit:
        """Examine the whole log, whose checkpoint the store's signer or this one signed, and the tables against it.

        Raises LedgerError unless the log is whole, ends with its checkpoint, and says what the tables hold.
        """
        with self._db.snapshot():
            return examine_ledger(self._db, self._log, signer or self._log.signer)

    def check_against(self, kept: Checkpoint) -> None:
        """Raise LedgerError unless this ledger continues the one whose checkpoint was kept elsewhere."""
        with self._db.reading():
            self._log.check_against(kept)

    def erase(self, due: Due) -> tuple[Erased, ...]:
        """Delete what is older than it may be kept, and say so in the log; return what that was.

        Raises LedgerError, without erasing anything, if the ledger was altered.
        """
        if due == Due():
            return ()
        with self._db.transaction():
            found = examine_ledger(self._db, self._log, self._log.signer)
            erased = retention.erase(self._db, self._log, due, found)
        if erased:
            with self._db.reading():  # else what was deleted would stay in the write-ahead log for a while
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return erased
