"""The silo's log: what was decided, charged, signed, opened, approved and erased, for its owner and for an auditor.

Append-only. Each entry's chain hash covers all entries before it, and with each change the silo signs a checkpoint: how
many entries there are, and the chain hash of the last. An entry that is erased in time leaves its chain hash, so that a
checkpoint that was kept elsewhere can be held against the log. The word is that of
C2SP tlog-checkpoint; the hashes here make a chain and no tree.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from crypto.errors import CryptoError
from crypto.keys import SigningKey, VerifyKey
from crypto.wire import sign, verify
from policies.budget.ledger import Checkpoint
from policies.errors import LedgerError
from silo_node.ledger.database import ALTERED, Database
from silo_node.ledger.events import Entry, Event

START = bytes(32)  # the chain before the first entry
_DOMAIN = b"consilo/1 log"


@dataclass(frozen=True, slots=True)
class Signer:
    """The silo that signs the checkpoints of its log."""

    silo: str
    federation: str
    key: SigningKey

    def checkpoint(self, count: int, chain: bytes, at: int) -> bytes:
        """Return the signed checkpoint of a log with this many entries."""
        message = Checkpoint(federation=self.federation, silo=self.silo, count=count, chain=chain, at=at)
        return sign(message, self.silo, self.key)


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is stored: its place, its bytes (none once it was erased) and the chain hash up to it."""

    seq: int
    body: bytes
    chain: bytes


class Log:
    """The log in an open ledger file. Without a signer it can only be read."""

    def __init__(self, database: Database, signer: Signer | None, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        self.signer = signer

    def now(self) -> int:
        return int(self._clock())

    def append(self, *events: Event) -> None:
        """Write entries and the checkpoint that names the last, within the transaction that is open."""
        if self.signer is None:
            message = f"the ledger {self._database.path} was opened for reading"
            raise LedgerError(message, "write it with the silo's identity key")
        if not events:
            return
        (seq, chain), now = self.last(), self.now()
        for event in events:
            seq += 1
            body = Entry(seq=seq, at=now, event=event).encode()
            chain = chained(chain, body)
            self._database.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (seq, now, body, chain))
        signed = self.signer.checkpoint(seq, chain, now)
        self._database.execute("INSERT OR REPLACE INTO head VALUES (1, ?)", (signed,))

    def last(self) -> tuple[int, bytes]:
        """Return the place and the chain hash of the last entry."""
        row = self._database.execute("SELECT seq, chain FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, START) if row is None else (int(row[0]), bytes(row[1]))

    def lines(self) -> Iterator[Line]:
        """Return every entry as it is stored, oldest first, also those that were erased."""
        return (Line(*row) for row in self._database.execute("SELECT seq, body, chain FROM log ORDER BY seq"))

    def last_lines(self, count: int) -> list[Line]:
        """Return the last entries that were not erased, oldest first."""
        sql = "SELECT seq, body, chain FROM log WHERE body <> x'' ORDER BY seq DESC LIMIT ?"
        return [Line(*row) for row in reversed(self._database.execute(sql, (count,)).fetchall())]

    def checkpoint(self) -> bytes | None:
        """Return the signed checkpoint of the last entry, None while nothing was ever logged."""
        row = self._database.execute("SELECT envelope FROM head").fetchone()
        return None if row is None else bytes(row[0])

    def policy_in_force(self) -> Event | None:
        """Return the last event that says which policy is in force."""
        row = self._database.execute(
            "SELECT body FROM log WHERE body <> x'' AND json_extract(CAST(body AS TEXT), '$.event.kind') = 'policy'"
            " ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return None if row is None else Entry.decode(bytes(row[0])).event

    def check_against(self, kept: Checkpoint) -> None:
        """Raise LedgerError unless this log continues the one whose checkpoint was kept elsewhere."""
        count, _ = self.last()
        row = self._database.execute("SELECT chain FROM log WHERE seq = ?", (kept.count,)).fetchone()
        first = self._database.execute("SELECT coalesce(min(seq), 1) FROM log").fetchone()[0]
        path = self._database.path
        if kept.count > count:
            message = f"the ledger {path} is older than its last head: {count} entries, {kept.count} were signed"
            raise LedgerError(message, "put the newest ledger back: what was spent since would be forgotten")
        is_cut = kept.count < first  # by version 3, which left no chain hashes of what it erased
        if kept.count and not is_cut and (row is None or row[0] != kept.chain):
            message = f"the ledger {path} is not the one whose head was kept: they part before {kept.count}"
            raise LedgerError(message, "put the ledger back that this silo has used; two of them forget each other")


def chained(before: bytes, body: bytes) -> bytes:
    """Return the chain hash of an entry that follows the one with the hash `before`."""
    return sha256(_DOMAIN + before + body).digest()


def check_chain(lines: Iterable[Line], checkpoint: Checkpoint | None) -> int:
    """Return how many entries there are if each follows the one before it and the checkpoint names the last.

    The first entries may have been erased in time; of these only the place is looked at. Raises LedgerError.
    """
    last: Line | None = None
    count = 0
    for line in lines:
        _check_follows(last, line)
        last, count = line, count + 1
    if last is None and checkpoint is None:
        return 0
    if last is None or checkpoint is None or not last.body:
        raise broken("its signed head is gone" if checkpoint is None else "the entries are gone")
    if (checkpoint.count, checkpoint.chain) != (last.seq, last.chain):
        raise broken(f"the head names entry {checkpoint.count}, the last is {last.seq}, or is another one")
    return count


def _check_follows(before: Line | None, line: Line) -> None:
    if before is not None and line.seq != before.seq + 1:
        raise broken(f"{line.seq} follows {before.seq}")
    if not line.body and before is not None and before.body:
        raise broken(f"entry {line.seq} is empty, and the one before it is not")
    if line.body and (before is not None or line.seq == 1):
        chain = START if before is None else before.chain
        if chained(chain, line.body) != line.chain:
            raise broken(f"entry {line.seq} does not follow the one before it")


def hash_of_chains(lines: Iterable[Line]) -> bytes:
    """Return the SHA-256 of the places and chain hashes of entries, which stay when these are erased."""
    return sha256(b"".join(line.seq.to_bytes(8, "big") + line.chain for line in lines)).digest()


def entries_of(lines: Iterable[Line]) -> Iterator[Entry]:
    """Yield the decoded entries; raises LedgerError on one that is malformed or stands in another's place."""
    for line in lines:
        try:
            entry = Entry.decode(line.body)
        except CryptoError as err:
            raise broken(f"entry {line.seq} is malformed: {err.message}") from err
        if entry.seq != line.seq:
            raise broken(f"entry {entry.seq} stands in the place of {line.seq}")
        yield entry


def read_checkpoint(envelope: bytes, silo: str, federation: str, key: VerifyKey) -> Checkpoint:
    """Return a signed checkpoint; raises LedgerError unless this silo signed it in this federation."""
    try:
        checkpoint = verify(envelope, Checkpoint, {silo: key}).message
    except CryptoError as err:
        raise broken(f"its head does not verify: {err.message}") from err
    if (checkpoint.silo, checkpoint.federation) != (silo, federation):
        raise broken(f"its head is of {checkpoint.silo!r} in {checkpoint.federation!r}")
    return checkpoint


def broken(what: str) -> LedgerError:
    """Return the error that says why a log is not whole."""
    return LedgerError(f"the log is not whole: {what}", ALTERED)
