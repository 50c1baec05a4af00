"""Requests that wait for people's approval, and what people said to them.

Each is written in the transaction of its log entry, which holds the hash of the row: no verdict can be added, altered
or taken away unseen. docs/ledger.md section 4. The caller opens the reading or the transaction.
"""

from dataclasses import astuple, dataclass

from policies.errors import LedgerError
from policies.requests.approval import Approval
from silo_node.ledger.database import Database
from silo_node.ledger.events import Asked, Voted, hash_of_row
from silo_node.ledger.log import Log

MAX_WAITING = 100  # requests that wait for approval, of all analysts of one entry of the policy


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


def await_approval(database: Database, log: Log, waiting: Waiting) -> None:
    """Keep a request until people have said yes or no to it.

    The first one of a subject stays until it expires; then another step of the same run takes its place. Raises
    LedgerError if too many wait.
    """
    known = database.execute("SELECT expires_at FROM requests WHERE subject = ?", (waiting.subject,)).fetchone()
    if known is not None and not known[0] <= waiting.asked_at < waiting.expires_at:
        return
    count = database.execute(
        "SELECT count(*) FROM requests WHERE analyst = ? AND expires_at > ?", (waiting.analyst, log.now())
    ).fetchone()[0]
    if count >= MAX_WAITING:
        raise LedgerError(f"{waiting.analyst!r} has {count} requests waiting for approval", "decide on them")
    row = astuple(waiting)
    database.execute("INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    until = max(waiting.asked_at, waiting.expires_at)
    asked = Asked(subject=waiting.subject, analyst=waiting.analyst, purpose=waiting.purpose, until=until)
    log.append(asked.model_copy(update={"row": hash_of_row(*row)}))


def waiting_of(database: Database) -> list[Waiting]:
    """Return the requests that people were asked about, oldest first, also those that have expired."""
    return [Waiting(*row) for row in database.execute("SELECT * FROM requests ORDER BY asked_at, subject").fetchall()]


def add_verdict(database: Database, log: Log, verdict: Approval) -> None:
    """Keep what a person said to a request that waits here. Raises LedgerError if none of that subject does."""
    if not database.execute("SELECT 1 FROM requests WHERE subject = ?", (verdict.subject,)).fetchone():
        raise LedgerError(f"no request {verdict.subject.hex()[:16]} waits here", "see `consilo-silo requests`")
    row = (verdict.subject, verdict.who, verdict.at, verdict.decision, verdict.envelope)
    if database.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?)", row).rowcount:
        voted = Voted(subject=verdict.subject, who=verdict.who, decision=verdict.decision)
        log.append(voted.model_copy(update={"row": hash_of_row(*row)}))


def verdicts_of(database: Database, subject: bytes) -> tuple[Approval, ...]:
    """Return what people said to a request or training run, as they signed it."""
    sql = "SELECT who, subject, decision, at, envelope FROM verdicts WHERE subject = ? ORDER BY at, who"
    return tuple(Approval(*row) for row in database.execute(sql, (subject,)).fetchall())
