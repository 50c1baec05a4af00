"""Requests that wait for people's approval, and the verdicts on them.

Promise: a row is written in the transaction of its log entry, which has the hash of the row, so that an added, altered
or removed verdict is noticed. docs/ledger.md section 4. The caller opens the reading or the transaction.
"""

from dataclasses import astuple, dataclass

from policies.errors import LedgerError, WaitingFullError
from policies.requests.approval import StoredVerdict
from policies.units import counted
from silo_node.ledger.database import Database
from silo_node.ledger.events import ApprovalAsked, Voted, hash_of_row
from silo_node.ledger.log import Log

MAX_WAITING = 100  # waiting requests of all analysts of one entry of the policy


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that people must approve, in its first form."""

    subject: bytes
    envelope: bytes  # the signed request
    analyst: str  # the policy's entry, which may be that of a whole domain
    purpose: str
    micro_rho: int
    asked_at: int
    expires_at: int


def await_approval(database: Database, log: Log, waiting: Waiting) -> None:
    """Keep a request until people have approved or rejected it.

    The first request of a subject stays until it expires; then another step of the same run takes its place. Raises
    WaitingFullError if too many requests wait.
    """
    known = database.execute("SELECT expires_at FROM requests WHERE subject = ?", (waiting.subject,)).fetchone()
    if known is not None and not known[0] <= waiting.asked_at < waiting.expires_at:
        return
    count = database.execute(
        "SELECT count(*) FROM requests WHERE analyst = ? AND expires_at > ?", (waiting.analyst, log.now())
    ).fetchone()[0]
    if count >= MAX_WAITING:
        raise WaitingFullError(
            f"{waiting.analyst!r} has {counted(count, 'request')} waiting for approval", "decide on them"
        )
    row = astuple(waiting)
    database.execute("INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    until = max(waiting.asked_at, waiting.expires_at)
    asked = ApprovalAsked(subject=waiting.subject, analyst=waiting.analyst, purpose=waiting.purpose, until=until)
    log.append(asked.model_copy(update={"row": hash_of_row(*row)}))


def waiting_of(database: Database) -> list[Waiting]:
    """Return the requests that people were asked about, oldest first, also those that have expired."""
    return [Waiting(*row) for row in database.execute("SELECT * FROM requests ORDER BY asked_at, subject").fetchall()]


def envelope_of(database: Database, subject: bytes) -> bytes | None:
    """Return the signed request that people were asked about; None if there is none of that subject."""
    row = database.execute("SELECT envelope FROM requests WHERE subject = ?", (subject,)).fetchone()
    return None if row is None else bytes(row[0])


def add_verdict(database: Database, log: Log, verdict: StoredVerdict) -> None:
    """Store a person's verdict on a waiting request. Raises LedgerError if no request of that subject waits."""
    if not database.execute("SELECT 1 FROM requests WHERE subject = ?", (verdict.subject,)).fetchone():
        raise LedgerError(f"no request {verdict.subject.hex()[:16]} waits here", "see `consilo-silo requests`")
    row = (verdict.subject, verdict.who, verdict.at, verdict.decision, verdict.envelope)
    if database.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?)", row).rowcount:
        voted = Voted(subject=verdict.subject, who=verdict.who, decision=verdict.decision)
        log.append(voted.model_copy(update={"row": hash_of_row(*row)}))


def verdicts_of(database: Database, subject: bytes) -> tuple[StoredVerdict, ...]:
    """Return the signed verdicts on a request or training run."""
    sql = "SELECT who, subject, decision, at, envelope FROM verdicts WHERE subject = ? ORDER BY at, who"
    return tuple(StoredVerdict(*row) for row in database.execute(sql, (subject,)).fetchall())
