"""The silo's log: what was decided, charged, signed, opened, approved and erased, for its owner and for an auditor.

Promises: the log is append-only, and each entry's chain hash covers all entries before it. With each change the silo
signs a checkpoint: the number of entries and the last chain hash. An erased entry keeps its chain hash, so that a
checkpoint kept elsewhere can still be compared with the log. The term checkpoint is from C2SP tlog-checkpoint; the
hashes here form a chain, not a tree.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from crypto.errors import CryptoError
from crypto.keys import SigningKey, VerifyKey
from crypto.sealing import SealingKey
from crypto.wire import sign, unverified, verify
from policies.budget.ledger import Checkpoint, Continued
from policies.errors import LedgerError
from silo_node.ledger.database import ALTERED, Database
from silo_node.ledger.events import Event, LogEntry, Recovered
from silo_node.ledger.witness import KIND, InForce, named_after

START = bytes(32)  # the chain before the first entry
_DOMAIN = b"consilo/1 log"
_AGGREGATOR = "json_extract(CAST(body AS TEXT), '$.event.aggregator')"
NEWEST = "put the newest ledger back, or a backup with `consilo-silo restore`"


@dataclass(frozen=True, slots=True)
class Signer:
    """The silo that signs the checkpoints of its log."""

    silo: str
    federation: str
    key: SigningKey
    sealing: SealingKey | None = None  # for the ledger's totals

    def checkpoint(self, count: int, chain: bytes, at: int, continued: Continued | None = None) -> bytes:
        """Return the signed checkpoint of a log with this many entries."""
        message = Checkpoint(
            federation=self.federation, silo=self.silo, count=count, chain=chain, at=at, continued=continued
        )
        return sign(message, self.silo, self.key)


@dataclass(frozen=True, slots=True)
class Line:
    """A stored entry: its number, its bytes (none once erased) and the chain hash up to it."""

    seq: int
    body: bytes
    chain: bytes


class Log:
    """The log in an open ledger file. Without a signer it can only be read."""

    def __init__(self, database: Database, signer: Signer | None, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        self.signer = signer
        self._seen_at: int | None = None
        self._named: tuple[int, dict[tuple[str, str], InForce]] = 0, {}  # up to which entry it was read

    def now(self) -> int:
        return int(self._clock())

    def append(self, *events: Event) -> None:
        """Write entries, and the checkpoint that names the last one, in the open transaction."""
        self._append(events, 0, None)

    def go_on(self, event: Recovered, continued: Continued) -> None:
        """Go on after the entries that a checkpoint kept elsewhere names, which this log does not have."""
        self._append((event,), event.count, continued)

    def _append(self, events: Sequence[Event], after: int, continued: Continued | None) -> None:
        if self.signer is None:
            message = f"the ledger {self._database.path} was opened for reading"
            raise LedgerError(message, "write it with the silo's identity key")
        if not events:
            return
        continued = continued or self.continued
        (seq, chain), now = self.last(), self.now()
        seq = max(seq, after)
        for event in events:
            seq += 1
            body = LogEntry(seq=seq, at=now, event=event).encode()
            chain = chained(chain, body)
            self._database.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (seq, now, body, chain))
        self._seen_at = None if self._seen_at is None else max(self._seen_at, now)
        signed = self.signer.checkpoint(seq, chain, now, continued)
        self._database.execute("INSERT OR REPLACE INTO head VALUES (1, ?)", (signed,))

    @property
    def seen_at(self) -> int:
        """The latest clock time of any entry."""
        if self._seen_at is None:
            (seen,) = self._database.execute("SELECT max(at) FROM log").fetchone()
        else:  # another process may have written the last ones
            (seen,) = self._database.execute("SELECT at FROM log ORDER BY seq DESC LIMIT 1").fetchone() or (0,)
        self._seen_at = max(self._seen_at or 0, seen or 0)
        return self._seen_at

    def last(self) -> tuple[int, bytes]:
        """Return the place and the chain hash of the last entry."""
        row = self._database.execute("SELECT seq, chain FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, START) if row is None else (int(row[0]), bytes(row[1]))

    def lines(self) -> Iterator[Line]:
        """Yield every stored entry, oldest first, also erased ones."""
        return (Line(*row) for row in self._database.execute("SELECT seq, body, chain FROM log ORDER BY seq"))

    def last_lines(self, count: int) -> list[Line]:
        """Return the last entries that were not erased, oldest first."""
        sql = "SELECT seq, body, chain FROM log WHERE body <> x'' ORDER BY seq DESC LIMIT ?"
        return [Line(*row) for row in reversed(self._database.execute(sql, (count,)).fetchall())]

    def checkpoint(self) -> bytes | None:
        """Return the signed checkpoint of the last entry; None for an empty log."""
        row = self._database.execute("SELECT envelope FROM head").fetchone()
        return None if row is None else bytes(row[0])

    @property
    def continued(self) -> Continued | None:
        """Where the log went on after it was put back from a backup; None if it never was."""
        envelope = self.checkpoint()
        if envelope is None or b'"continued":' not in envelope:  # seldom, and decoding costs
            return None
        return unverified(envelope, Checkpoint).continued

    @property
    def line(self) -> bytes:
        """Which copy of the log it is, see `Checkpoint.line`."""
        continued = self.continued
        return b"" if continued is None else continued.line

    def has(self, kept: Checkpoint) -> bool:
        """Tell whether a checkpoint is one of this log."""
        row = self._database.execute("SELECT chain FROM log WHERE seq = ?", (kept.count,)).fetchone()
        return row is not None and bool(row[0] == kept.chain)

    def is_put_back(self) -> bool:
        """Tell whether the log was put back from a backup, and has not gone on after it."""
        sql = (
            f"SELECT {KIND} AS kind FROM log WHERE body <> x''"  # noqa: S608
            " AND kind IN ('put-back', 'recovered') ORDER BY seq DESC LIMIT 1"
        )
        return bool(self._database.execute(sql).fetchone() == ("put-back",))

    @property
    def recovered_at(self) -> int:
        """When the log last went on after it was put back from a backup; 0 if it never was."""
        if self.continued is None:
            return 0
        sql = f"SELECT max(at) FROM log WHERE body <> x'' AND {KIND} = 'recovered'"  # noqa: S608
        return int(self._database.execute(sql).fetchone()[0] or 0)

    def in_force(self) -> tuple[InForce, ...]:
        """Return the last entries that name the policy, the roster and what the silo keeps, as far as there are any."""
        return tuple(named_after(self._database.execute, 0).values())

    def in_force_as_read(self) -> tuple[InForce, ...]:
        """Return what `in_force` does, and entries that were erased since; only where nothing is being changed."""
        after, known = self._named
        (last, _) = self.last()
        if last != after:
            self._named = last, {**known, **named_after(self._database.execute, after if after < last else 0)}
        return tuple(self._named[1].values())

    def excuses(self, aggregator: str) -> bool:
        """Tell whether an entry excuses an aggregator for keeping no checkpoint, and nothing was charged after it."""
        sql = (
            f"SELECT {KIND} AS kind FROM log WHERE body <> x''"  # noqa: S608
            f" AND (kind IN ('charging', 'put-back') OR kind = 'excused' AND {_AGGREGATOR} = ?)"
            " ORDER BY seq DESC LIMIT 1"
        )
        return bool(self._database.execute(sql, (aggregator,)).fetchone() == ("excused",))

    def check_against(self, kept: Checkpoint) -> None:
        """Raise LedgerError unless this log continues the log of a checkpoint kept elsewhere."""
        if kept.line != self.line:
            if self.continued is not None and self.continued.knows(kept.line):
                return  # `recovery` makes it go on after that one too
            message = "another copy of this silo's ledger goes on, from a backup that was put back elsewhere"
            raise LedgerError(message, f"end this one: use that copy, or put {self._database.path} back anew")
        count, _ = self.last()
        first = self._database.execute("SELECT coalesce(min(seq), 1) FROM log").fetchone()[0]
        path = self._database.path
        if kept.count > count:
            message = f"the ledger {path} is older than its last checkpoint: {count} entries, {kept.count} were signed"
            raise LedgerError(message, f"{NEWEST}: what was spent since would be forgotten")
        is_cut = kept.count < first  # by version 3, which erased chain hashes too
        if kept.count and not is_cut and not self.has(kept):
            message = f"the ledger {path} is not the one whose checkpoint was kept: they part before {kept.count}"
            raise LedgerError(message, "put the ledger back that this silo has used; two of them forget each other")


def chained(before: bytes, body: bytes) -> bytes:
    """Return the chain hash of an entry that follows the one with the hash `before`."""
    return sha256(_DOMAIN + before + body).digest()


def check_chain(lines: Iterable[Line], checkpoint: Checkpoint | None) -> int:
    """Return how many entries there are if each follows the one before it and the checkpoint names the last.

    The first entries may have been erased; only their numbers are checked. Raises LedgerError.
    """
    last: Line | None = None
    count = 0
    for line in lines:
        _check_follows(last, line)
        last, count = line, count + 1
    if last is None and checkpoint is None:
        return 0
    if last is None or checkpoint is None or not last.body:
        raise broken("its signed checkpoint is gone" if checkpoint is None else "the entries are gone")
    if (checkpoint.count, checkpoint.chain) != (last.seq, last.chain):
        raise broken(f"the checkpoint names entry {checkpoint.count}, the last is {last.seq}, or is another one")
    return count


def _check_follows(before: Line | None, line: Line) -> None:
    if before is not None and line.seq != before.seq + 1 and not _goes_on(before, line):
        raise broken(f"{line.seq} follows {before.seq}")
    if not line.body and before is not None and before.body:
        raise broken(f"entry {line.seq} is empty, and the one before it is not")
    if line.body and (before is not None or line.seq == 1):
        chain = START if before is None else before.chain
        if chained(chain, line.body) != line.chain:
            raise broken(f"entry {line.seq} does not follow the one before it")


def _goes_on(before: Line, line: Line) -> bool:
    """Tell whether entries are left out as the log was put back; of erased ones, the erasure has all numbers."""
    if line.seq <= before.seq or not line.body:
        return line.seq > before.seq
    (entry,) = entries_of((line,))
    return isinstance(entry.event, Recovered) and entry.event.count + 1 == line.seq


def hash_of_chains(lines: Iterable[Line]) -> bytes:
    """Return the SHA-256 of the numbers and chain hashes of entries, which an erasure leaves."""
    return sha256(b"".join(line.seq.to_bytes(8, "big") + line.chain for line in lines)).digest()


def entries_of(lines: Iterable[Line]) -> Iterator[LogEntry]:
    """Yield the decoded entries; raises LedgerError on one that is malformed or has a wrong number."""
    for line in lines:
        try:
            entry = LogEntry.decode(line.body)
        except CryptoError as err:
            raise broken(f"entry {line.seq} is malformed: {err.message}") from err
        if entry.seq != line.seq:
            raise broken(f"entry {entry.seq} is at the position of entry {line.seq}")
        yield entry


def read_checkpoint(envelope: bytes, silo: str, federation: str, key: VerifyKey) -> Checkpoint:
    """Return a signed checkpoint; raises LedgerError unless this silo signed it in this federation."""
    try:
        checkpoint = verify(envelope, Checkpoint, {silo: key}).message
    except CryptoError as err:
        raise broken(f"its checkpoint does not verify: {err.message}") from err
    if (checkpoint.silo, checkpoint.federation) != (silo, federation):
        raise broken(f"its checkpoint is of {checkpoint.silo!r} in {checkpoint.federation!r}")
    return checkpoint


def broken(what: str) -> LedgerError:
    """Return the error for an incomplete or altered log."""
    return LedgerError(f"the log is not whole: {what}", ALTERED)
