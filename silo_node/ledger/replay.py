"""Read the log from its first entry to its last, and derive the charges, rounds and requests that must be stored.

Pure: entries and a checkpoint in, an `Audit` out. This module does not read the tables; `audit` compares them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from policies.budget.ledger import Checkpoint
from silo_node.ledger.events import (
    ApprovalAsked,
    Charging,
    Contributed,
    Erased,
    LogEntry,
    ModelUpdated,
    Recovered,
    Released,
    Replaced,
    Reserved,
    RunReleased,
    RunReserved,
    RunStopped,
    Started,
    StaysCharged,
    SurvivorsSigned,
    Voted,
)
from silo_node.ledger.log import Line, broken, chained, check_chain, entries_of, hash_of_chains

_SIGNED_S = 60  # the most time between a signature in a round and its log entry


@dataclass(frozen=True, slots=True)
class Held:
    """A charge according to the log: its price, its entry, the hash of its row, its round and its state."""

    micro_rho: int
    seq: int
    row: bytes = b""
    round_id: bytes | None = None
    state: Literal["reserved", "charging", "committed"] = "reserved"


@dataclass(frozen=True, slots=True)
class Pending:
    """A request for approval according to the log: its entry, the hash of its row, and its verdicts."""

    seq: int
    until: int
    row: bytes = b""
    verdicts: tuple[Voted, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """The state of a run according to the log: its hash, when it was kept, and whether it may be erased since."""

    state: bytes
    at: int
    may_be_gone: bool = False


@dataclass(frozen=True, slots=True)
class Reserving:
    """What a run has reserved according to the log: the entry, and the hash of the row."""

    seq: int
    row: bytes


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an examination of the whole log."""

    entries: int
    first: int
    last: int
    checkpoint: Checkpoint | None  # it names the last entry; None for an empty log
    charges: Mapping[bytes, Held]  # by nonce, if the log still has the reservation
    anchor: bytes = b""  # the hash of all charges committed before some entry; empty if no entry has one
    since: frozenset[bytes] = frozenset()  # the nonces of those that were committed after that entry
    nonces: Mapping[bytes, bytes] = field(default_factory=dict)  # the request of each reserved nonce
    replaced: Mapping[bytes, bytes] = field(default_factory=dict)  # nonces, and those of the requests in their place
    survivors_hashes: Mapping[bytes, bytes] = field(
        default_factory=dict
    )  # by round, without those that may be erased yet
    asked: Mapping[bytes, bytes] = field(default_factory=dict)  # the hash of a nonce's row
    times: Mapping[bytes, int] = field(default_factory=dict)  # how often a nonce was reserved, at least
    asked_anchor: bytes = b""  # the hash of the rows of all nonces before some entry; empty if no entry has one
    asked_since: frozenset[bytes] = frozenset()  # the nonces that came after that entry
    models: Mapping[bytes, "Model"] = field(default_factory=dict)  # by run
    requests: Mapping[bytes, Pending] = field(default_factory=dict)  # by subject, those that were not erased
    runs_reserved: Mapping[bytes, Reserving] = field(default_factory=dict)  # by run
    runs_over: Mapping[bytes, str] = field(default_factory=dict)  # why no further step of a run is taken
    is_cut: bool = False  # version 3 erased the first entries completely
    doubtful: frozenset[bytes] = frozenset()  # subjects that may have been erased: version 3 logged no expiry


def examine(lines: Iterable[Line], checkpoint: Checkpoint | None) -> Audit:
    """Examine the log: its chain, the form and number of each entry, and the charges in the entries.

    If the first entries are empty or missing, a later entry must record their erasure. Raises LedgerError.
    """
    every = list(lines)
    check_chain(every, checkpoint)
    if not every:
        return Audit(0, 1, 0, checkpoint, {})
    emptied, kept = ([line for line in every if bool(line.body) is is_kept] for is_kept in (False, True))
    charges, rounds, requests, runs = _Charges(), _Rounds(), _Requests(), _Runs()
    erasures: dict[int, Erased] = {}  # of the log, by the last entry that was erased
    for entry in entries_of(kept):
        charges.add(entry)
        rounds.add(entry)
        requests.add(entry)
        runs.add(entry)
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
        replaced=charges.replaced,
        asked=charges.asked,
        times=charges.times,
        asked_anchor=charges.asked_anchor,
        asked_since=frozenset(charges.asked_since),
        models=rounds.models,
        survivors_hashes={
            round_id: survivors_hash for round_id, (survivors_hash, _) in rounds.survivors_hashes.items()
        },
        requests=requests.pending,
        runs_reserved=runs.reserved,
        runs_over=runs.over,
        is_cut=every[0].seq > 1,
        doubtful=frozenset(requests.doubtful),
    )


def _check_beginning(emptied: list[Line], first: Line, erasures: Mapping[int, Erased]) -> None:
    """Raise LedgerError unless an entry records the erasure of all entries before the first one."""
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
    replaced: dict[bytes, bytes] = field(default_factory=dict)
    asked: dict[bytes, bytes] = field(default_factory=dict)
    times: Counter[bytes] = field(default_factory=Counter)
    asked_anchor: bytes = b""
    asked_since: set[bytes] = field(default_factory=set)

    def add(self, entry: LogEntry) -> None:
        if isinstance(entry.event, Started | Erased | Recovered) and entry.event.asked:
            self.asked_anchor, self.asked_since = entry.event.asked, set()
        match entry.event:
            case Reserved() as event:
                self.held[event.nonce] = Held(event.micro_rho, entry.seq, event.row)
                self.nonces[event.nonce] = event.request_hash
                self.times[event.nonce] += 1
                if event.asked:
                    self.asked[event.nonce] = event.asked
                    self.asked_since.add(event.nonce)
            case Replaced() as event:
                self.replaced[event.nonce] = event.by
            case Released() as event:
                self.held.pop(event.nonce, None)
            case Charging() as event if event.nonce in self.held:
                held = self.held[event.nonce]
                if held.micro_rho != event.micro_rho:
                    raise broken(f"entry {entry.seq} has another price than its reservation")
                self.held[event.nonce] = replace(held, round_id=event.round_id, state="charging")
            case Contributed() | StaysCharged() as event:
                self.since.add(event.nonce)
                if (begun := self.held.get(event.nonce)) is not None:
                    if begun.round_id not in (None, event.round_id):  # the formats before 5 did not log the beginning
                        raise broken(f"entry {entry.seq} is of another round than the beginning of its charge")
                    self.held[event.nonce] = replace(begun, round_id=event.round_id, state="committed")
            case Started() | Erased(what="log") as event if event.charges:
                self.anchor, self.since = event.charges, set()
            case _:
                pass


@dataclass(slots=True)
class _Rounds:
    """What was signed in rounds, and the models that were learned in them, while the entries are read."""

    survivors_hashes: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    models: dict[bytes, Model] = field(default_factory=dict)

    def add(self, entry: LogEntry) -> None:
        match entry.event:
            case ModelUpdated() as event:
                self.models[event.run] = Model(event.state, entry.at)
            case Erased(what="models") as event:
                for run, model in self.models.items():
                    if model.at < event.before + _SIGNED_S:
                        self.models[run] = replace(model, may_be_gone=True)
            case SurvivorsSigned() as event:
                self.survivors_hashes[event.round_id] = (event.split_hash, entry.at)
            case Erased(what="rounds") as event:
                self.survivors_hashes = {
                    name: one for name, one in self.survivors_hashes.items() if one[1] >= event.before + _SIGNED_S
                }
            case _:
                pass


@dataclass(slots=True)
class _Runs:
    """What runs have reserved, and which are over, while the entries are read."""

    reserved: dict[bytes, Reserving] = field(default_factory=dict)
    over: dict[bytes, str] = field(default_factory=dict)

    def add(self, entry: LogEntry) -> None:
        match entry.event:
            case RunReserved() as event:
                self.reserved[event.run] = Reserving(entry.seq, event.row)
            case RunReleased() as event:
                self.reserved.pop(event.run, None)
            case RunStopped() as event:
                self.over[event.run] = event.why
            case _:
                pass


@dataclass(slots=True)
class _Requests:
    """The requests for approval, while the entries are read."""

    pending: dict[bytes, Pending] = field(default_factory=dict)
    doubtful: set[bytes] = field(default_factory=set)

    def add(self, entry: LogEntry) -> None:
        match entry.event:
            case ApprovalAsked() as event:
                asked = Pending(entry.seq, event.until or entry.at, event.row)
                if (one := self.pending.get(event.subject)) is not None:  # a repeated request keeps its verdicts
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
