"""The silo's ledger and log in one SQLite file: one transaction for both, durable before anything leaves.

`LedgerStore` implements `policies.budget.ledger.Ledger`. It opens the transactions; `spending`, `approvals`,
`retention` and `audit` read and write in them. Promise: no crash loses a charge. Every change is logged in the same
transaction, and the silo's next checkpoint covers it. Without a signer a store only reads.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from crypto.wire import sign, unverified
from policies.budget.ledger import Charge, Checkpoint, Consulted, Rate, RunStep, Since, Spending, WindowLimit
from policies.requests.approval import StoredVerdict
from silo_node.ledger import approvals, recovery, retention, spending
from silo_node.ledger.approvals import Waiting
from silo_node.ledger.audit import examine_ledger
from silo_node.ledger.charges import Row, hash_of_committed, hash_of_nonces, history, state_of
from silo_node.ledger.database import Database
from silo_node.ledger.events import (
    Erased,
    Event,
    KeptInForce,
    LogEntry,
    PolicyInForce,
    PutBack,
    Recovered,
    Released,
    RosterInForce,
    Started,
    SurvivorsSigned,
)
from silo_node.ledger.log import Line, Log, Signer, entries_of
from silo_node.ledger.own_files import OwnFiles
from silo_node.ledger.own_store import OwnStore
from silo_node.ledger.replay import Audit
from silo_node.ledger.repricing import reprice
from silo_node.ledger.reservations import expire
from silo_node.ledger.retention import Due
from silo_node.ledger.run_store import RunStore
from silo_node.ledger.state_files import StateFiles
from silo_node.ledger.totals import sealed, totals_of
from silo_node.ledger.witness import kept_among


class LedgerStore(RunStore, OwnStore):
    """A ledger file. Threads and processes may share it; each change is one transaction, in a total order."""

    def __init__(self, path: Path, signer: Signer | None = None, clock: Callable[[], float] = time.time) -> None:
        """Open the ledger, or make it; raises LedgerError, with a signer also if the log is incomplete."""
        self._db = Database(path)
        self._log = Log(self._db, signer, clock)
        self._states, self._own = StateFiles(path), OwnFiles(path)
        self._handed = b"", b""  # the newest checkpoint that was handed out: as it is stored, and with the totals
        self._is_put_back: bool | None = None
        if signer is not None:
            try:
                self.audit()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        self._db.close()

    # Spending

    def start(
        self,
        policy_hash: bytes,
        version: int,
        is_signed: bool = False,
        roster: RosterInForce | None = None,
        max_silos: int = 0,
    ) -> int:
        """Begin to answer by a policy: release the reservations of earlier rounds, and log that.

        A charge that an earlier process had begun, and did not give back, is spent.
        """
        with self._db.transaction():
            expired = expire(self._db, self._log.now())
            released, stays = spending.release_all(self._db), spending.spend_begun(self._db)
            count = sum(isinstance(one, Released) for one in released)
            repriced = reprice(self._db, policy_hash, max_silos)
            spent, charges = spending.spending(self._db).lifetime, hash_of_committed(self._db)
            asked = hash_of_nonces(self._db)
            started = Started(micro_rho=spent, released=count, charges=charges, asked=asked)
            events: list[Event] = [*expired, *released, *stays, *repriced, started]
            head = {"policy_hash": policy_hash, "version": version, "is_signed": is_signed, "max_silos": max_silos}
            policy = PolicyInForce.model_validate(head)
            known, in_force = self._log.in_force(), (policy, roster)
            self._log.append(*events, *(one for one in in_force if one is not None and one not in known))
        self.sweep_states(is_start=True)
        self.sweep_own()
        return count

    def spending(
        self,
        excluding_nonce: bytes = b"",
        purpose: str = "",
        analyst: str = "",
        since: Sequence[Since] = (),
        run: RunStep | None = None,
        requests_since: int | None = None,
        analyst_since: int | None = None,
    ) -> Spending:
        with self._db.reading():
            return spending.spending(
                self._db, excluding_nonce, purpose, analyst, since, run, requests_since, analyst_since
            )

    def job_of(self, run: bytes) -> bytes | None:
        with self._db.reading():
            return spending.job_of(self._db, run)

    def is_charged(self, nonce: bytes) -> bool:
        with self._db.reading():
            return state_of(self._db, nonce) in ("charging", "committed")

    def has_contributed(self, runs: Sequence[bytes], step: int, nonce: bytes) -> bool:
        with self._db.reading():
            return spending.has_contributed(self._db, runs, step, nonce, self._log.recovered_at)

    def is_replaced(self, name: bytes, but: Collection[bytes] = ()) -> bool:
        with self._db.reading():
            return spending.is_replaced(self._db, name, but)

    def request_asked(self, subject: bytes) -> bytes | None:
        with self._db.reading():
            return approvals.envelope_of(self._db, subject)

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

    def begin_charge(self, nonce: bytes, round_id: bytes) -> None:
        with self._db.transaction():
            spending.begin_charge(self._db, self._log, nonce, round_id)

    def commit(self, nonce: bytes, round_id: bytes, consulted: Consulted | None = None) -> None:
        with self._db.transaction():
            spending.commit(self._db, self._log, nonce, round_id, consulted)

    def release(self, nonce: bytes) -> None:
        with self._db.transaction():
            self._log.append(*spending.release(self._db, nonce))

    def history(self) -> list[Row]:
        """Return every charge, oldest first."""
        with self._db.reading():
            return history(self._db)

    # Rounds

    def record_survivors(self, round_id: bytes, survivors_hash: bytes) -> bool:
        with self._db.transaction():
            noted = self._db.execute("SELECT split_hash FROM splits WHERE round_id = ?", (round_id,)).fetchone()
            if noted is None:
                self._db.execute("INSERT INTO splits VALUES (?, ?, ?)", (round_id, survivors_hash, self._log.now()))
                self._log.append(SurvivorsSigned(round_id=round_id, split_hash=survivors_hash))
        return noted is None or bool(noted[0] == survivors_hash)

    # Approvals

    def await_approval(self, waiting: Waiting) -> None:
        """Keep a request until people have approved or rejected it; raises LedgerError if too many wait."""
        with self._db.transaction():
            approvals.await_approval(self._db, self._log, waiting)

    def waiting(self) -> list[Waiting]:
        """Return the requests that people were asked about, oldest first, also those that have expired."""
        with self._db.reading():
            return approvals.waiting_of(self._db)

    def add_verdict(self, verdict: StoredVerdict) -> None:
        """Store a person's verdict on a waiting request. Raises LedgerError if no request of that subject waits."""
        with self._db.transaction():
            approvals.add_verdict(self._db, self._log, verdict)

    def verdicts(self, subject: bytes) -> tuple[StoredVerdict, ...]:
        with self._db.reading():
            return approvals.verdicts_of(self._db, subject)

    # The log

    def record(self, *events: Event) -> None:
        """Log events durably, if they change nothing else in the ledger."""
        with self._db.transaction():
            self._log.append(*events)

    def kept(self) -> Mapping[str, KeptInForce]:
        """Return the version in force of everything that the silo keeps itself, by name."""
        with self._db.reading():
            return kept_among(self._log.in_force_as_read())

    def put_in_force(self, new: KeptInForce) -> None:
        """Log that the silo answers by this version from now on, unless it does already."""
        with self._db.transaction():
            if new not in self._log.in_force():
                self._log.append(new)

    def checkpoint(self) -> bytes | None:
        """Return the signed checkpoint, with the sealed totals if this store can seal; None for an empty log."""
        signer = self._log.signer
        with self._db.snapshot():
            envelope = self._log.checkpoint()
            if envelope is None or signer is None or signer.sealing is None:
                return envelope
            if envelope == self._handed[0]:
                return self._handed[1]
            totals = totals_of(self._db, self._log.now(), self._log.in_force_as_read())
        message = unverified(envelope, Checkpoint)
        whole = message.model_copy(update={"sealed": sealed(totals, signer.sealing.public, message)})
        self._handed = envelope, sign(whole, signer.silo, signer.key)
        return self._handed[1]

    @property
    def is_put_back(self) -> bool:
        """Whether the ledger was put back from a backup, and nobody has said yet what was spent since."""
        if self._is_put_back is None:
            with self._db.reading():
                self._is_put_back = self._log.is_put_back()
        return self._is_put_back

    @property
    def line(self) -> bytes:
        """Which copy of the log it is of, see `Checkpoint.line`."""
        with self._db.reading():
            return self._log.line

    def follows(self, kept: Checkpoint) -> bool:
        """Tell whether this ledger, which was put back, goes on after a checkpoint of another line."""
        with self._db.reading():
            continued = self._log.continued
        return continued is not None and continued.follows(kept)

    @property
    def signed_after(self) -> int:
        with self._db.reading():
            continued = self._log.continued
        return 0 if continued is None else continued.signed_after

    @property
    def recovered_at(self) -> int:
        with self._db.reading():
            return self._log.recovered_at

    @property
    def seen_at(self) -> int:
        with self._db.reading():
            return self._log.seen_at

    def put_back(self, made_at: int) -> None:
        """Log that the owner put this ledger back from a backup of that time: it answers nothing until `recover`."""
        with self._db.transaction():
            self._log.append(PutBack(made_at=made_at))
        self._is_put_back = None

    def recover(self, given: Sequence[Checkpoint]) -> Recovered:
        """Book what was spent since the backup, by the checkpoints that enough aggregators gave; see `recovery`."""
        with self._db.transaction():
            event = recovery.recover(self._db, self._log, given)
        self._is_put_back = None
        return event

    def lines(self) -> list[Line]:
        """Return every stored entry of the log, oldest first, also erased ones."""
        with self._db.reading():
            return list(self._log.lines())

    def entries(self, last: int) -> list[LogEntry]:
        """Return the last entries of the log, oldest first."""
        with self._db.reading():
            lines = self._log.last_lines(last)
        return list(entries_of(lines))

    def audit(self, signer: Signer | None = None) -> Audit:
        """Examine the whole log, with the checkpoint of the store's signer or of `signer`, and compare the tables.

        Raises LedgerError unless the log is complete, ends with its checkpoint, and agrees with the tables.
        """
        with self._db.snapshot():
            return examine_ledger(self._db, self._log, signer or self._log.signer)

    def is_new_to(self, aggregator: str) -> bool:
        """Tell whether an aggregator may know nothing of this ledger: nothing was charged, or the log excuses it."""
        with self._db.reading():
            is_unused = self._db.execute("SELECT 1 FROM charges WHERE state <> 'reserved' LIMIT 1").fetchone() is None
            return is_unused or self._log.excuses(aggregator)

    def is_excused(self, aggregator: str) -> bool:
        """Tell whether the owner has excused an aggregator since the last charge, or since a backup was put back."""
        with self._db.reading():
            return self._log.excuses(aggregator)

    def check_against(self, kept: Checkpoint) -> None:
        """Raise LedgerError unless this ledger continues the ledger of a checkpoint kept elsewhere."""
        with self._db.reading():
            self._log.check_against(kept)

    def erase(self, due: Due) -> tuple[Erased, ...]:
        """Erase due data and log it; return the logged erasures.

        Raises LedgerError, without erasing anything, if the ledger was altered.
        """
        if due == Due():
            return ()
        with self._db.transaction():
            found = examine_ledger(self._db, self._log, self._log.signer)
            erased = retention.erase(self._db, self._log, due, found)
        if erased:
            self.sweep_states()
            self.sweep_own()
            with self._db.reading():  # otherwise deleted rows would stay in the write-ahead log for a while
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return erased
