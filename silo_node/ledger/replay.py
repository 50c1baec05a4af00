"""What the log says, read from its first entry to its last: charges, rounds and requests for approval as they must be.

Pure: entries and a checkpoint in, an `Audit` out. Nothing here looks at the tables beside the log; `audit` does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from policies.budget.ledger import Checkpoint
from silo_node.ledger.events import (
    Asked,
    Contributed,
    Entry,
    Erased,
    Released,
    Reserved,
    Started,
    SurvivorsSigned,
    Voted,
)
from silo_node.ledger.log import Line, broken, chained, check_chain, entries_of, hash_of_chains

_SIGNED_S = 60  # the clock may have moved so much between what was signed in a round and its entry


@dataclass(frozen=True, slots=True)
class Held:
    """A charge as the log tells it: its price, its entry, the hash of its row, and the round it was committed to."""

    micro_rho: int
    seq: int
    row: bytes = b""
    round_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A request for approval as the log tells it: its entry, the hash of its row, and what people said to it."""

    seq: int
    until: int
    row: bytes = b""
    verdicts: tuple[Voted, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """What an examination of the whole log came to."""

    entries: int
    first: int
    last: int
    checkpoint: Checkpoint | None  # what names the last entry; None while nothing was ever logged
    charges: Mapping[bytes, Held]  # by nonce, those of which the log still has the reservation
    anchor: bytes = b""  # the hash of all charges that were committed at some entry; empty if none says so
    since: frozenset[bytes] = frozenset()  # the nonces of those that were committed after that entry
    nonces: Mapping[bytes, bytes] = field(default_factory=dict)  # the request of each that was ever reserved
    splits: Mapping[bytes, bytes] = field(default_factory=dict)  # by round, those that cannot have been erased
    requests: Mapping[bytes, Pending] = field(default_factory=dict)  # by subject, those that were not erased
    is_cut: bool = False  # the first entries are no longer there, as version 3 erased them
    doubtful: frozenset[bytes] = frozenset()  # subjects that may have been erased: version 3 did not say until when


def examine(lines: Iterable[Line], checkpoint: Checkpoint | None) -> Audit:
    """Examine the log: its chain, each entry's form and place, and what the entries say was charged.

    A log whose first entries are empty or gone must hold the entry that says they were erased. Raises LedgerError.
    """
    every = list(lines)
    check_chain(every, checkpoint)
    if not every:
        return Audit(0, 1, 0, checkpoint, {})
    emptied, kept = ([line for line in every if bool(line.body) is is_kept] for is_kept in (False, True))
    charges, rounds, requests = _Charges(), _Rounds(), _Requests()
    erasures: dict[int, Erased] = {}  # of the log, by the last entry that was erased
    for entry in entries_of(kept):
        charges.add(entry)
        rounds.add(entry)
        requests.add(entry)
        if isinstance(entry.event, Erased) and entry.event.what == "log":
            erasures[entry.event.through] = entry.event
    _check_beginning(emptied, kept[0], erasures)
    return Audit(
        entries=len(kept),
        first=kept[0].seq,
        last=kept[-1].seq,
        checkpoint=checkpoint,
        charges=charges.held,
        anchor=charges.anchor,
        since=frozenset(charges.since),
        nonces=charges.nonces,
        splits={round_id: split_hash for round_id, (split_hash, _) in rounds.splits.items()},
        requests=requests.pending,
        is_cut=every[0].seq > 1,
        doubtful=frozenset(requests.doubtful),
    )


def _check_beginning(emptied: list[Line], first: Line, erasures: Mapping[int, Erased]) -> None:
    """Raise LedgerError unless an entry says that all entries before the first one were erased."""
    if first.seq == 1:
        return
    erased = erasures.get(first.seq - 1)
    if erased is None or chained(erased.chain, first.body) != first.chain:
        raise broken(f"it begins with entry {first.seq}, and no entry says that those before it were erased")
    if (emptied or erased.chains) and erased.chains != hash_of_chains(emptied):
        raise broken("the hashes of the entries that were erased are not those that were there")


@dataclass(slots=True)
class _Charges:
    """The charges, while the entries are read."""

    held: dict[bytes, Held] = field(default_factory=dict)
    anchor: bytes = b""
    since: set[bytes] = field(default_factory=set)
    nonces: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        match entry.event:
            case Reserved() as event:
                self.held[event.nonce] = Held(event.micro_rho, entry.seq, event.row)
                self.nonces[event.nonce] = event.request_hash
            case Released() as event:
                self.held.pop(event.nonce, None)
            case Contributed() as event:
                self.since.add(event.nonce)
                if event.nonce in self.held:
                    self.held[event.nonce] = replace(self.held[event.nonce], round_id=event.round_id)
            case Started() | Erased(what="log") as event if event.charges:
                self.anchor, self.since = event.charges, set()
            case _:
                pass


@dataclass(slots=True)
class _Rounds:
    """What was signed in rounds, while the entries are read."""

    splits: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        match entry.event:
            case SurvivorsSigned() as event:
                self.splits[event.round_id] = (event.split_hash, entry.at)
            case Erased(what="rounds") as event:
                self.splits = {name: one for name, one in self.splits.items() if one[1] >= event.before + _SIGNED_S}
            case _:
                pass


@dataclass(slots=True)
class _Requests:
    """The requests for approval, while the entries are read."""

    pending: dict[bytes, Pending] = field(default_factory=dict)
    doubtful: set[bytes] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        match entry.event:
            case Asked() as event:
                asked = Pending(entry.seq, event.until or entry.at, event.row)
                if (one := self.pending.get(event.subject)) is not None:  # asked again: what people said stays
                    asked = replace(asked, seq=one.seq, verdicts=one.verdicts)
                self.pending[event.subject] = asked
                self.doubtful.discard(event.subject)
            case Voted() as event if (one := self.pending.get(event.subject)) is not None:
                self.pending[event.subject] = replace(one, verdicts=(*one.verdicts, event))
            case Erased(what="approvals") as event:
                gone = {subject: one for subject, one in self.pending.items() if one.until < event.before}
                self.pending = {subject: one for subject, one in self.pending.items() if subject not in gone}
                self.doubtful |= {subject for subject, one in gone.items() if not one.row}
            case _:
                pass
