"""The silo's ledger and log in one SQLite file: write-ahead log, full synchronisation, one transaction per change.

Implements `policies.budget.ledger.Ledger`. Durable before anything leaves, so no crash forgets a spend; every change stands in
the log in the same transaction, and the head that the silo signs then names it. Without a signer a store only reads.
"""

import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from policies.budget.accountant import ORDERS, cover
from policies.budget.ledger import (
    MAX_PROPOSALS,
    Charge,
    LedgerHead,
    Months,
    Rate,
    RunStep,
    Since,
    Spending,
    WindowLimit,
    WindowSpending,
    exceeds,
)
from policies.errors import AlreadyChargedError, LedgerError
from policies.requests.approval import Approval
from silo_node.accounts import Row
from silo_node.ledger import log
from silo_node.ledger.log import Entry, Event, Line, Signer
from silo_node.ledger.schema import CHANGES, DAY_S, VERSION

MAX_WAITING = 100  # requests that wait for approval, of all analysts of one entry of the policy
_BUSY_TIMEOUT_S = 5.0
_CURVE = struct.Struct(f">{len(ORDERS)}q")
_DAMAGED = "restore it; no request is answered before"
_ALTERED = "keep the file as it is, and find out who changed it"
_CHARGE = (  # what never changes of a charge, in the order that its hash is taken of
    "nonce, request_hash, analyst, purpose, micro_rho, policy_hash, charged_at, run, first_month, last_month,"
    " atto_delta, curve"
)
# Each total as the triggers keep it, and as the charges themselves give it.
_TOTALS = (
    (
        "SELECT micro_rho, atto_delta FROM lifetime",
        "SELECT coalesce(sum(micro_rho) FILTER (WHERE curve IS NULL), 0), coalesce(sum(atto_delta), 0) FROM charges",
    ),
    (
        "SELECT purpose, day, analyst, micro_rho FROM by_day WHERE micro_rho <> 0",
        "SELECT purpose, charged_at / 86400, analyst, sum(micro_rho) FROM charges GROUP BY 1, 2, 3"
        " HAVING sum(micro_rho) <> 0",
    ),
    (
        "SELECT purpose, first_month, last_month, analyst, micro_rho FROM by_month WHERE micro_rho <> 0",
        "SELECT purpose, first_month, last_month, analyst, sum(micro_rho) FROM charges GROUP BY 1, 2, 3, 4"
        " HAVING sum(micro_rho) <> 0",
    ),
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that people must approve, as it was first asked."""

    subject: bytes
    envelope: bytes  # the signed request
    analyst: str  # the policy's entry, which may be that of a whole domain
    purpose: str
    micro_rho: int
    asked_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Due:
    """What is erased: whatever is older than these clock times; None keeps it."""

    models: int | None = None
    rounds: int | None = None
    audit: int | None = None


def format_of(path: Path) -> tuple[int, int]:
    """Return the format of a ledger file, 0 if there is none yet, and the one of this version; changes nothing.

    Raises LedgerError if the file is no database.
    """
    if not path.exists():
        return 0, VERSION
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S)) as db:
            return int(db.execute("PRAGMA user_version").fetchone()[0]), VERSION
    except sqlite3.Error as err:
        raise LedgerError(f"the ledger {path} cannot be read ({err})", "restore it or free disk space") from err


class LedgerStore:
    """A ledger file. Threads and processes may share it; each change is one transaction, in a total order."""

    def __init__(self, path: Path, signer: Signer | None = None, clock: Callable[[], float] = time.time) -> None:
        self._path, self._signer, self._clock = path, signer, clock
        self._lock = threading.RLock()
        try:
            # Created for the owner only before SQLite opens it: its -wal and -shm files take the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
            _sync_directory(path.parent)
            self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as err:
            raise LedgerError(f"the ledger {path} cannot be opened ({err})", "restore it or free disk space") from err
        try:
            self._open()
        except (sqlite3.Error, LedgerError) as err:
            self._db.close()
            if isinstance(err, LedgerError):
                raise
            raise LedgerError(f"the ledger {path} cannot be opened ({err})", "restore it or free disk space") from err

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        if self._version() != VERSION:
            self._db.execute("BEGIN IMMEDIATE")
            version = self._version()  # again: another process may have been first
            path = self._path
            if version == 0 and self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise LedgerError(f"{path} is another program's database", "move it away; a silo's ledger stands there")
            if version != VERSION and version not in CHANGES:
                raise LedgerError(f"{path} has format {version}, expected {VERSION}", "use a matching version")
            if version != VERSION:
                for statement in _statements(CHANGES[version]):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.execute("COMMIT")
        if (check := self._db.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise LedgerError(f"the ledger {self._path} is damaged ({check})", _DAMAGED)
        if self._signer is not None:
            self.check()

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def check(self) -> None:
        """Raise LedgerError unless the log is whole, ends with its signed head, and says what the tables hold."""
        self.audit()

    def check_against(self, kept: LedgerHead) -> None:
        """Raise LedgerError unless this ledger continues the one whose head was kept elsewhere."""
        with self._errors():
            count, _ = self._last()
            row = self._db.execute("SELECT chain FROM log WHERE seq = ?", (kept.count,)).fetchone()
            first = self._db.execute("SELECT coalesce(min(seq), 1) FROM log").fetchone()[0]
        if kept.count > count:
            message = f"the ledger {self._path} is older than its last head: {count} entries, {kept.count} were signed"
            raise LedgerError(message, "put the newest ledger back: what was spent since would be forgotten")
        is_cut = kept.count < first  # by version 3, which left no chain hashes of what it erased
        if kept.count and not is_cut and (row is None or row[0] != kept.chain):
            message = f"the ledger {self._path} is not the one whose head was kept: they part before {kept.count}"
            raise LedgerError(message, "put the ledger back that this silo has used; two of them forget each other")

    def start(self, policy_hash: bytes, version: int) -> int:
        """Begin to answer by a policy: release every reservation of rounds that are gone, and say so in the log."""
        with self._transaction():
            released = self._release("")
            held = self._committed(frozenset())
            started = log.Started(micro_rho=self.spending().lifetime, released=len(released), charges=held)
            events: list[Event] = [*released, started]
            last = self._db.execute(
                "SELECT body FROM log WHERE body <> x'' AND json_extract(CAST(body AS TEXT), '$.event.kind') = 'policy'"
                " ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            in_force = log.PolicyInForce(policy_hash=policy_hash, version=version)
            if last is None or Entry.decode(bytes(last[0])).event != in_force:
                events.append(in_force)
            self._append(*events)
        return len(released)

    def spending(
        self,
        besides: bytes = b"",
        purpose: str = "",
        analyst: str = "",
        since: Sequence[Since] = (),
        run: RunStep | None = None,
        requests_since: int | None = None,
    ) -> Spending:
        with self._errors():
            lines, atto_delta = self._db.execute("SELECT micro_rho, atto_delta FROM lifetime").fetchone()
            windows = [self._window(purpose, analyst, start) for start in since]
            of_run = 0
            if run is not None:
                sql = "SELECT coalesce(sum(micro_rho), 0) FROM charges WHERE run = ? AND analyst = ? AND nonce <> ?"
                of_run = self._db.execute(sql, (run.run, analyst, besides)).fetchone()[0]
            requests = 0
            if requests_since is not None:
                sql = "SELECT count(DISTINCT counts_as) FROM nonces WHERE analyst = ? AND first_at >= ?"
                sql += " AND counts_as <> ?"
                own = self._counts_as(besides, run)
                requests = self._db.execute(sql, (analyst, requests_since, own)).fetchone()[0]
            curve = self._curves(besides)
            held = self._charge(besides) if besides else None
        if held is not None:
            lines -= 0 if held.curve else held.micro_rho
            atto_delta -= held.atto_delta
            if held.purpose == purpose:
                for index, start in enumerate(since):
                    windows[index] = self._without(windows[index], held, analyst, start)
        lifetime = lines + (cover(curve) if curve else 0)
        return Spending(lifetime, tuple(windows), of_run, atto_delta, requests, curve)

    def _counts_as(self, nonce: bytes, run: RunStep | None) -> bytes:
        """Return by what a request is counted: all steps of a run by its job, but a step that is asked again by itself.

        Else a run, which may be free of charge, would be asked for without end as one request.
        """
        if run is None:
            return nonce
        row = self._db.execute("SELECT counts_as FROM nonces WHERE nonce = ?", (nonce,)).fetchone()
        if row is not None:
            return bytes(row[0])
        sql = "SELECT 1 FROM nonces WHERE job = ? AND step = ?"
        return run.job if self._db.execute(sql, (run.job, run.number)).fetchone() is None else nonce

    def job_of(self, run: bytes) -> bytes | None:
        with self._errors():
            sql = "SELECT job FROM nonces WHERE run = ? AND job IS NOT NULL LIMIT 1"
            row = self._db.execute(sql, (run,)).fetchone()
        return None if row is None else bytes(row[0])

    def _window(self, purpose: str, analyst: str, since: Since) -> WindowSpending:
        if isinstance(since, Months):
            return self._months(purpose, analyst, since, b"")
        # Calendar windows begin at midnight, so whole days add up; any other time counts the charges themselves.
        where, start = ("by_day WHERE day >= ?", since // DAY_S)
        if since % DAY_S:
            where, start = ("charges WHERE charged_at >= ?", since)
        sums = "coalesce(sum(micro_rho), 0), coalesce(sum(micro_rho) FILTER (WHERE analyst = ?), 0)"
        sql = f"SELECT {sums} FROM {where} AND purpose = ?"  # noqa: S608
        return WindowSpending(*self._db.execute(sql, (analyst, start, purpose)).fetchone())

    def _without(self, spent: WindowSpending, own: Charge, analyst: str, since: Since) -> WindowSpending:
        if isinstance(since, Months):
            return self._months(own.purpose, analyst, since, own.nonce)
        if own.charged_at < since:
            return spent
        of_analyst = own.micro_rho if own.analyst == analyst else 0
        return WindowSpending(spent.everybody - own.micro_rho, spent.analyst - of_analyst)

    def _months(self, purpose: str, analyst: str, asked: Months, besides: bytes) -> WindowSpending:
        """Return the most that was spent on any of the months asked for; each charge counts for all months it read."""
        rows = self._db.execute(
            "SELECT first_month, last_month, sum(micro_rho), sum(micro_rho) FILTER (WHERE analyst = ?) FROM by_month"
            " WHERE purpose = ? AND last_month >= ? AND first_month <= ? GROUP BY 1, 2",
            (analyst, purpose, asked.first, asked.last),
        ).fetchall()
        if besides and (own := self._charge(besides)) is not None:
            of_analyst = own.micro_rho if own.analyst == analyst else 0
            rows.append((own.months.first, own.months.last, -own.micro_rho, -of_analyst))
        # The sum changes only where a charge begins or ends, so the months where one begins, and the first, suffice.
        begins = {asked.first, *(first for first, *_ in rows if asked.first <= first <= asked.last)}
        begins |= {last + 1 for _, last, *_ in rows if asked.first <= last + 1 <= asked.last}
        sums = [
            tuple(sum(row[column] or 0 for row in rows if row[0] <= month <= row[1]) for column in (2, 3))
            for month in begins
        ]
        return WindowSpending(max(one for one, _ in sums), max(own for _, own in sums))

    def _curves(self, besides: bytes) -> tuple[int, ...]:
        sql = "SELECT curve FROM charges WHERE curve IS NOT NULL AND nonce <> ?"
        rows = self._db.execute(sql, (besides,)).fetchall()
        return tuple(map(sum, zip(*(_CURVE.unpack(row[0]) for row in rows), strict=True))) if rows else ()

    def _charge(self, nonce: bytes) -> Charge | None:
        row = self._db.execute(f"SELECT {_CHARGE} FROM charges WHERE nonce = ?", (nonce,)).fetchone()  # noqa: S608
        if row is None:
            return None
        unpacked = _CURVE.unpack(row[11]) if row[11] is not None else ()
        months = Months(row[8], row[9])
        return replace(Charge(*row[:8]), months=months, atto_delta=row[10], curve=unpacked)

    def is_committed(self, nonce: bytes) -> bool:
        with self._errors():
            row = self._db.execute("SELECT state FROM charges WHERE nonce = ?", (nonce,)).fetchone()
        return row is not None and row[0] == "committed"

    def is_exhausted(self, nonce: bytes) -> bool:
        with self._errors():
            row = self._db.execute("SELECT proposals FROM nonces WHERE nonce = ?", (nonce,)).fetchone()
        return row is not None and row[0] >= MAX_PROPOSALS

    def reserve(
        self,
        charge: Charge,
        lifetime_limit: int,
        windows: Sequence[WindowLimit] = (),
        run_limit: int | None = None,
        delta_limit: int = 0,
        rate: Rate | None = None,
    ) -> bool:
        with self._transaction():
            held = self._charge(charge.nonce)
            state = None if held is None else self._state(charge.nonce)
            known = self._db.execute(
                "SELECT request_hash, proposals FROM nonces WHERE nonce = ?", (charge.nonce,)
            ).fetchone()
            if known is not None and (known[0] != charge.request_hash or known[1] >= MAX_PROPOSALS):
                raise AlreadyChargedError(f"this nonce is another request's, or was accepted {MAX_PROPOSALS} times")
            run = charge.run
            if run is not None and self.job_of(run.run) not in (None, run.job):
                raise AlreadyChargedError("this training run began with another request")
            is_held = state == "reserved" and held is not None and held.micro_rho == charge.micro_rho
            if state is not None and not is_held:
                raise AlreadyChargedError("this request was answered before, or its nonce belongs to another price")
            if not is_held:
                since = [limit.since for limit in windows]
                counted = None if rate is None else rate.since
                spent = self.spending(charge.nonce, charge.purpose, charge.analyst, since, charge.run, counted)
                if exceeds(spent, charge, lifetime_limit, windows, run_limit, delta_limit, rate):
                    return False
                self._insert(_row_of(charge))
            of_run = (None, None, None) if run is None else (run.run, run.job, run.number)
            counts_as = self._counts_as(charge.nonce, run)
            self._db.execute(
                "INSERT INTO nonces VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)"
                " ON CONFLICT DO UPDATE SET proposals = proposals + 1",
                (charge.nonce, charge.request_hash, charge.analyst, *of_run, counts_as, charge.charged_at),
            )
            events: list[Event] = [log.decided(charge.request_hash, charge.analyst, charge.purpose, ())]
            if not is_held:
                events.append(
                    log.Reserved(
                        nonce=charge.nonce,
                        request_hash=charge.request_hash,
                        micro_rho=charge.micro_rho,
                        atto_delta=charge.atto_delta,
                        policy_hash=charge.policy_hash,
                        row=log.hash_of(*_row_of(charge)),
                    )
                )
            self._append(*events)
        return True

    def _state(self, nonce: bytes) -> str | None:
        row = self._db.execute("SELECT state FROM charges WHERE nonce = ?", (nonce,)).fetchone()
        return None if row is None else str(row[0])

    def _insert(self, row: Sequence[bytes | str | int | None]) -> None:
        places = ", ".join("?" for _ in row)
        self._db.execute(f"INSERT INTO charges ({_CHARGE}, state) VALUES ({places}, 'reserved')", row)  # noqa: S608

    def commit(self, nonce: bytes, round_id: bytes) -> None:
        with self._transaction():
            changed = self._db.execute(
                "UPDATE charges SET state = 'committed', round_id = ? WHERE nonce = ? AND state = 'reserved'",
                (round_id, nonce),
            ).rowcount
            if changed != 1:
                raise AlreadyChargedError("nothing is reserved for this request, or its contribution has left")
            self._append(log.Contributed(nonce=nonce, round_id=round_id))

    def release(self, nonce: bytes) -> None:
        with self._transaction():
            self._append(*self._release(" AND nonce = ?", nonce))

    def _release(self, where: str, *parameters: bytes) -> list[log.Released]:
        sql = f"SELECT nonce FROM charges WHERE state = 'reserved'{where}"  # noqa: S608
        nonces = [bytes(row[0]) for row in self._db.execute(sql, parameters).fetchall()]
        self._db.executemany("DELETE FROM charges WHERE nonce = ? AND state = 'reserved'", [(one,) for one in nonces])
        return [log.Released(nonce=nonce) for nonce in nonces]

    def record_split(self, round_id: bytes, split_hash: bytes) -> bool:
        with self._transaction():
            noted = self._db.execute("SELECT split_hash FROM splits WHERE round_id = ?", (round_id,)).fetchone()
            if noted is None:
                self._db.execute("INSERT INTO splits VALUES (?, ?, ?)", (round_id, split_hash, self._now()))
                self._append(log.SplitSigned(round_id=round_id, split_hash=split_hash))
        return noted is None or bool(noted[0] == split_hash)

    def record(self, *events: Event) -> None:
        """Write down what happened, durably; for what changes nothing else here."""
        with self._transaction():
            self._append(*events)

    def load_run(self, run: bytes) -> bytes | None:
        with self._errors():
            row = self._db.execute("SELECT state FROM runs WHERE run = ?", (run,)).fetchone()
        return None if row is None else bytes(row[0])

    def save_run(self, run: bytes, state: bytes) -> None:
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (run, state, self._now()))
            self._append(log.Learned(run=run))

    def runs(self) -> list[bytes]:
        """Return the states of all training runs."""
        with self._errors():
            return [bytes(row[0]) for row in self._db.execute("SELECT state FROM runs").fetchall()]

    def history(self) -> list[Row]:
        """Return every charge, oldest first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT charged_at, analyst, purpose, micro_rho, state, first_month, last_month FROM charges"
                " ORDER BY charged_at, nonce"
            ).fetchall()
        return [
            Row(at, analyst, purpose, micro_rho, state == "committed", Months(first, last))
            for at, analyst, purpose, micro_rho, state, first, last in rows
        ]

    def await_approval(self, waiting: Waiting) -> None:
        """Keep a request until people have said yes or no to it.

        The first one of a subject stays until it expires; then another step of the same run takes its place.
        """
        with self._transaction():
            known = self._db.execute("SELECT expires_at FROM requests WHERE subject = ?", (waiting.subject,)).fetchone()
            if known is not None and not known[0] <= waiting.asked_at < waiting.expires_at:
                return
            count = self._db.execute(
                "SELECT count(*) FROM requests WHERE analyst = ? AND expires_at > ?", (waiting.analyst, self._now())
            ).fetchone()[0]
            if count >= MAX_WAITING:
                raise LedgerError(f"{waiting.analyst!r} has {count} requests waiting for approval", "decide on them")
            row = astuple(waiting)
            self._db.execute("INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            until = max(waiting.asked_at, waiting.expires_at)
            asked = log.Asked(subject=waiting.subject, analyst=waiting.analyst, purpose=waiting.purpose, until=until)
            self._append(asked.model_copy(update={"row": log.hash_of(*row)}))

    def waiting(self) -> list[Waiting]:
        """Return the requests that people were asked about, oldest first, also those that have expired."""
        with self._errors():
            rows = self._db.execute("SELECT * FROM requests ORDER BY asked_at, subject").fetchall()
        return [Waiting(*row) for row in rows]

    def add_verdict(self, verdict: Approval) -> None:
        """Keep what a person said to a request that waits here. Raises LedgerError if none of that subject does."""
        with self._transaction():
            if not self._db.execute("SELECT 1 FROM requests WHERE subject = ?", (verdict.subject,)).fetchone():
                raise LedgerError(f"no request {verdict.subject.hex()[:16]} waits here", "see `consilo-silo requests`")
            row = (verdict.subject, verdict.who, verdict.at, verdict.decision, verdict.envelope)
            if self._db.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?)", row).rowcount:
                voted = log.Voted(subject=verdict.subject, who=verdict.who, decision=verdict.decision)
                self._append(voted.model_copy(update={"row": log.hash_of(*row)}))

    def verdicts(self, subject: bytes) -> tuple[Approval, ...]:
        with self._errors():
            rows = self._db.execute(
                "SELECT who, subject, decision, at, envelope FROM verdicts WHERE subject = ? ORDER BY at, who",
                (subject,),
            ).fetchall()
        return tuple(Approval(*row) for row in rows)

    def erase(self, due: Due) -> tuple[log.Erased, ...]:
        """Delete what is older than it may be kept, and say so in the log; return what that was.

        Charges stay: a lifetime is never refreshed. So does the last entry of the log. Raises LedgerError, without
        erasing anything, if the ledger was altered.
        """
        found: list[log.Erased] = []
        with self._transaction():
            audit = self._examined(self._signer)
            if due.models is not None:
                count = self._delete("runs WHERE saved_at < ?", due.models)
                found.append(log.Erased(what="models", count=count, before=due.models))
            if due.rounds is not None:
                count = self._delete("splits WHERE signed_at < ?", due.rounds)
                found.append(log.Erased(what="rounds", count=count, before=due.rounds))
            if due.audit is not None:
                count = self._delete("requests WHERE max(asked_at, expires_at) < ?", due.audit)
                self._db.execute("DELETE FROM verdicts WHERE subject NOT IN (SELECT subject FROM requests)")
                found.append(log.Erased(what="approvals", count=count, before=due.audit))
                found += self._erase_log(due.audit, audit)
            erased = tuple(event for event in found if event.count)
            self._append(*erased)
        if erased:
            with self._errors():  # else what was deleted would stay in the write-ahead log for a while
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return erased

    def _delete(self, what: str, before: int) -> int:
        return self._db.execute(f"DELETE FROM {what}", (before,)).rowcount  # noqa: S608

    def _erase_log(self, before: int, found: log.Audit) -> list[log.Erased]:
        kept = self._db.execute(
            "SELECT coalesce(min(seq) FILTER (WHERE at >= ?), max(seq)) FROM log WHERE body <> x''", (before,)
        ).fetchone()[0]
        # What is kept of requests and of reservations is held against their entries, so these stay as long.
        requests = {row[0] for row in self._db.execute("SELECT subject FROM requests")}
        needed = [one.seq for subject, one in found.requests.items() if subject in requests]
        needed += [held.seq for held in found.charges.values() if held.round_id is None]
        kept = min((kept or 0, *needed))
        if kept <= 1:
            return []
        count = self._db.execute("UPDATE log SET at = 0, body = x'' WHERE seq < ? AND body <> x''", (kept,)).rowcount
        if not count:
            return []
        erased = [line for line in self._lines() if line.seq < kept]
        through, chains = erased[-1], log.hash_of_chains(erased)
        return [
            log.Erased(
                what="log",
                count=count,
                before=before,
                through=through.seq,
                chain=through.chain,
                chains=chains,
                charges=self._committed(frozenset()),
            )
        ]

    def head(self) -> bytes | None:
        """Return the signed head, None while nothing was ever logged."""
        with self._errors():
            row = self._db.execute("SELECT envelope FROM head").fetchone()
        return None if row is None else bytes(row[0])

    def lines(self) -> list[Line]:
        """Return every entry of the log as it is stored, oldest first, also those that were erased."""
        with self._errors():
            return list(self._lines())

    def entries(self, last: int) -> list[Entry]:
        """Return the last entries of the log, oldest first."""
        sql = "SELECT seq, body, chain FROM log WHERE body <> x'' ORDER BY seq DESC LIMIT ?"
        with self._errors():
            rows = self._db.execute(sql, (last,)).fetchall()
        return list(log.entries_of(Line(*row) for row in reversed(rows)))

    def audit(self, signer: Signer | None = None) -> log.Audit:
        """Examine the whole log, whose head the store's signer or this one signed, and hold the tables against it.

        Raises LedgerError.
        """
        with self._errors():
            self._db.execute("BEGIN")  # head, log and tables as they were at one time
            try:
                return self._examined(signer or self._signer)
            finally:
                self._db.execute("ROLLBACK")

    def _examined(self, signer: Signer | None) -> log.Audit:
        found = log.audit(self._lines(), self._own_head(signer))
        self._check_charges(found)
        self._check_requests(found)
        self._check_rounds(found)
        self._check_totals()
        return found

    def _check_charges(self, found: log.Audit) -> None:
        """Raise LedgerError unless the charges are those of the log, and those that it says were there before."""
        rows = {row[0]: row for row in self._db.execute(f"SELECT {_CHARGE}, round_id FROM charges")}  # noqa: S608
        wrong = [nonce for nonce, held in found.charges.items() if not _is_held(held, rows.get(nonce))]
        if found.anchor:
            wrong += [nonce for nonce, row in rows.items() if row[-1] is None and nonce not in found.charges]
        if wrong:
            message = f"the log says what the ledger does not: {len(wrong)} charges, such as {wrong[0].hex()[:16]}"
            raise LedgerError(message, _ALTERED)
        if found.anchor and self._committed(found.since) != found.anchor:
            raise LedgerError("the log says what the ledger does not: charges of before its last start", _ALTERED)

    def _check_requests(self, found: log.Audit) -> None:
        """Raise LedgerError unless the requests for approval, and what people said to them, are those of the log."""
        requests = {row[0]: row for row in self._db.execute("SELECT * FROM requests")}
        said: dict[bytes, list[tuple[bytes, str, int, str, bytes]]] = {}
        for verdict in self._db.execute("SELECT subject, who, at, decision, envelope FROM verdicts"):
            said.setdefault(verdict[0], []).append(verdict)
        wrong = [
            subject
            for subject, one in found.requests.items()
            if subject not in requests
            or (one.row and one.row != log.hash_of(*requests[subject]))
            or not _are_said(one.verdicts, said.get(subject, []))
        ]
        if not found.is_cut:
            wrong += {*requests, *said} - {*found.requests} - found.doubtful
        if wrong:
            message = f"the log says what the ledger does not: {len(wrong)} requests for approval, or what people said"
            raise LedgerError(f"{message} to them, such as {wrong[0].hex()[:16]}", _ALTERED)

    def _check_rounds(self, found: log.Audit) -> None:
        """Raise LedgerError unless the ledger knows each nonce and each split that the log names."""
        nonces = dict(self._db.execute("SELECT nonce, request_hash FROM nonces"))
        splits = dict(self._db.execute("SELECT round_id, split_hash FROM splits"))
        wrong = [one for one, request_hash in found.nonces.items() if nonces.get(one) != request_hash]
        wrong += [one for one, split_hash in found.splits.items() if splits.get(one) != split_hash]
        if wrong:
            message = f"the log says what the ledger does not: {len(wrong)} nonces or splits, such as"
            raise LedgerError(f"{message} {wrong[0].hex()[:16]}", _ALTERED)

    def _committed(self, besides: frozenset[bytes]) -> bytes:
        """Return the hash of all charges that were committed, besides some."""
        sql = f"SELECT {_CHARGE}, round_id FROM charges WHERE state = 'committed' ORDER BY nonce"  # noqa: S608
        return sha256(b"".join(log.hash_of(*row) for row in self._db.execute(sql) if row[0] not in besides)).digest()

    def _check_totals(self) -> None:
        """Raise LedgerError unless the totals are those of the charges, and the triggers that keep them are ours."""
        for kept, added in _TOTALS:
            if set(self._db.execute(kept)) != set(self._db.execute(added)):
                raise LedgerError(f"the ledger {self._path} is damaged: its totals are not its charges'", _DAMAGED)
        triggers = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
        with closing(sqlite3.connect(":memory:")) as new:
            new.executescript(CHANGES[0])
            if set(self._db.execute(triggers)) != set(new.execute(triggers)):
                raise LedgerError(f"the triggers of {self._path} are not those of a ledger", _ALTERED)

    def _lines(self) -> Iterable[Line]:
        return (Line(*row) for row in self._db.execute("SELECT seq, body, chain FROM log ORDER BY seq"))

    def _last(self) -> tuple[int, bytes]:
        row = self._db.execute("SELECT seq, chain FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, log.START) if row is None else (int(row[0]), bytes(row[1]))

    def _own_head(self, signer: Signer | None) -> LedgerHead | None:
        row = self._db.execute("SELECT envelope FROM head").fetchone()
        if row is None or signer is None:
            return None
        return log.read_head(bytes(row[0]), signer.silo, signer.federation, signer.key.public)

    def _append(self, *events: Event) -> None:
        """Write entries and the signed head that names the last, within the transaction that is open."""
        if self._signer is None:
            raise LedgerError(
                f"the ledger {self._path} was opened for reading", "write it with the silo's identity key"
            )
        if not events:
            return
        (seq, chain), now = self._last(), self._now()
        for event in events:
            seq += 1
            body = Entry(seq=seq, at=now, event=event).encode()
            chain = log.chained(chain, body)
            self._db.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (seq, now, body, chain))
        self._db.execute("INSERT OR REPLACE INTO head VALUES (1, ?)", (self._signer.head(seq, chain, now),))

    def _now(self) -> int:
        return int(self._clock())

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
            with self._lock:  # threads share the connection: none reads what another has not committed
                yield
        except sqlite3.Error as err:
            raise LedgerError(f"the ledger {self._path} failed ({err})", "restore it or free disk space") from err


def _row_of(charge: Charge) -> tuple[bytes | str | int | None, ...]:
    """Return what the ledger keeps of a charge, in the order of `_CHARGE`."""
    run = None if charge.run is None else charge.run.run
    curve = _CURVE.pack(*charge.curve) if charge.curve else None
    asked = (charge.nonce, charge.request_hash, charge.analyst, charge.purpose)
    price = (charge.micro_rho, charge.policy_hash, charge.charged_at, run)
    return (*asked, *price, charge.months.first, charge.months.last, charge.atto_delta, curve)


def _is_held(held: log.Held, row: Sequence[bytes | str | int | None] | None) -> bool:
    """Tell whether a stored charge is the one that the log tells of; an entry of version 3 names its price only."""
    if row is None or (row[4], row[-1]) != (held.micro_rho, held.round_id):
        return False
    return not held.row or held.row == log.hash_of(*row[:-1])


def _are_said(logged: Sequence[log.Voted], stored: Sequence[tuple[bytes, str, int, str, bytes]]) -> bool:
    """Tell whether the stored verdicts are those of the log, none more and none less."""
    left = list(stored)
    for event in logged:
        same = [row for row in left if (row[1], row[3]) == (event.who, event.decision)]
        match = next((row for row in same if not event.row or event.row == log.hash_of(*row)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _statements(script: str) -> Iterator[str]:
    """Split a script so that it can run in a transaction that is open; `executescript` would commit that first."""
    pending = ""
    for part in script.split(";"):
        pending += part + ";"
        if sqlite3.complete_statement(pending):
            if pending.strip(" \n;"):
                yield pending
            pending = ""


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
