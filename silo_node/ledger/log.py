"""The silo's log: what was decided, charged, signed, opened, approved and erased, for its owner and for an auditor.

Append-only. Each entry's chain hash covers all entries before it, and after each change the silo signs how many entries
there are and the hash of the last: `policies.budget.ledger.LedgerHead`. An entry that is erased in time leaves its chain hash,
so that a head that was kept elsewhere can be held against it. An entry holds names, hashes, prices, codes and clock
times only, nothing that was computed from a row. `silo_node.ledger.store` keeps the log in the file of the ledger.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.errors import CryptoError
from crypto.keys import SigningKey, VerifyKey
from crypto.wire import Count, Digest, Message, RoundId, Seconds, sign, verify
from policies.budget.ledger import LedgerHead
from policies.errors import LedgerError
from policies.units import MICRO

START = bytes(32)  # the chain before the first entry
_DOMAIN = b"consilo/1 log"
_SPLIT_S = 60

Who = Annotated[str, Field(max_length=255)]  # as a stranger may have written it
Amount = Annotated[int, Field(ge=0)]
# The hash of what the ledger keeps beside the log, which cannot be altered unseen then. Version 3 wrote none.
Kept = Annotated[bytes, Field(max_length=32, exclude_if=lambda kept: not kept)]


class Started(Message):
    """The silo started: what it had spent by then, and the hash of the charges that this was."""

    kind: Literal["started"] = "started"
    micro_rho: Amount
    released: Count
    charges: Kept = b""


class PolicyInForce(Message):
    """From here on the silo decides by this policy."""

    kind: Literal["policy"] = "policy"
    policy_hash: Digest
    version: Count


class Decided(Message):
    """A request was judged; no code means yes."""

    kind: Literal["decision"] = "decision"
    request_hash: Digest
    analyst: Who
    purpose: Who
    codes: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=64)]


class Reserved(Message):
    """The whole price of a request was set aside."""

    kind: Literal["reservation"] = "reservation"
    nonce: RoundId
    request_hash: Digest
    micro_rho: Amount
    atto_delta: Amount
    policy_hash: Digest
    row: Kept = b""


class Released(Message):
    """A reservation was given back, since nothing of its round had left."""

    kind: Literal["release"] = "release"
    nonce: RoundId


class Contributed(Message):
    """The price was spent: a contribution to this round leaves next."""

    kind: Literal["contribution"] = "contribution"
    nonce: RoundId
    round_id: RoundId


class ConsentRead(Message):
    """Decisions on consent were read for a contribution, as they stood at a clock time."""

    kind: Literal["consent"] = "consent"
    nonce: RoundId
    purpose: Who
    as_of: Seconds
    feed_at: Seconds | None


class SplitSigned(Message):
    """The silo signed which contributions of a round are opened."""

    kind: Literal["split"] = "split"
    round_id: Annotated[bytes, Field(max_length=64)]
    split_hash: Annotated[bytes, Field(max_length=64)]


class Opened(Message):
    """The silo sealed its shares of a round to the recipients."""

    kind: Literal["opening"] = "opening"
    round_id: RoundId
    split_hash: Digest


class Learned(Message):
    """A report moved a model that the silo holds."""

    kind: Literal["model"] = "model"
    run: RoundId


class Asked(Message):
    """A request waits for people to approve it."""

    kind: Literal["request"] = "request"
    subject: Digest
    analyst: Who
    purpose: Who
    until: Annotated[Seconds, Field(exclude_if=lambda until: not until)] = 0  # it is kept at least so long
    row: Kept = b""


class Voted(Message):
    """A person approved or rejected what waited; the signed verdict is stored beside the log."""

    kind: Literal["verdict"] = "verdict"
    subject: Digest
    who: Who
    decision: Literal["approve", "reject"]
    row: Kept = b""


class Erased(Message):
    """What was due was deleted: models, traces of rounds, requests for approval, or the oldest entries of this log."""

    kind: Literal["erased"] = "erased"
    what: Literal["models", "rounds", "approvals", "log"]
    count: Count
    before: Seconds
    through: Count = 0  # of the log: the last entry that is erased, and its chain hash
    chain: Annotated[bytes, Field(max_length=32)] = b""
    chains: Kept = b""  # `hash_of_chains` of all entries that are erased
    charges: Kept = b""  # as of `Started`, since entries of charges may be among those that are gone


Event = (
    Started
    | PolicyInForce
    | Decided
    | Reserved
    | Released
    | Contributed
    | ConsentRead
    | SplitSigned
    | Opened
    | Learned
    | Asked
    | Voted
    | Erased
)


class Entry(Message):
    """One entry: its place, the silo's clock, and what happened."""

    KIND: ClassVar[str] = "log-entry"
    MAX_BYTES: ClassVar[int] = 16 * 1024
    seq: Annotated[int, Field(ge=1)]
    at: Seconds
    event: Annotated[Event, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs the head of a log."""

    silo: str
    federation: str
    key: SigningKey

    def head(self, count: int, chain: bytes, at: int) -> bytes:
        """Return the signed head of a log with this many entries."""
        head = LedgerHead(federation=self.federation, silo=self.silo, count=count, chain=chain, at=at)
        return sign(head, self.silo, self.key)


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is stored: its place, its bytes (none once it was erased) and the chain hash up to it."""

    seq: int
    body: bytes
    chain: bytes


def decided(request_hash: bytes, analyst: str, purpose: str, codes: Iterable[str]) -> Decided:
    """Return the entry of a decision; names that a stranger wrote are cut to what the log can hold."""
    return Decided(request_hash=request_hash, analyst=analyst[:255], purpose=purpose[:255], codes=tuple(codes))


def chained(before: bytes, body: bytes) -> bytes:
    """Return the chain hash of an entry that follows the one with the hash `before`."""
    return sha256(_DOMAIN + before + body).digest()


def check_chain(lines: Iterable[Line], head: LedgerHead | None) -> int:
    """Return how many entries there are if each follows the one before it and the head names the last.

    The first entries may have been erased in time; of these only the place is looked at. Raises LedgerError.
    """
    last: Line | None = None
    count = 0
    for line in lines:
        if last is not None and line.seq != last.seq + 1:
            raise _broken(f"{line.seq} follows {last.seq}")
        if not line.body and last is not None and last.body:
            raise _broken(f"entry {line.seq} is empty, and the one before it is not")
        if line.body and (last is not None or line.seq == 1):
            before = START if last is None else last.chain
            if chained(before, line.body) != line.chain:
                raise _broken(f"entry {line.seq} does not follow the one before it")
        last, count = line, count + 1
    if last is None and head is None:
        return 0
    if last is None or head is None or not last.body:
        raise _broken("its signed head is gone" if head is None else "the entries are gone")
    if (head.count, head.chain) != (last.seq, last.chain):
        raise _broken(f"the head names entry {head.count}, the last is {last.seq}, or is another one")
    return count


def read_head(envelope: bytes, silo: str, federation: str, key: VerifyKey) -> LedgerHead:
    """Return a signed head; raises LedgerError unless this silo signed it in this federation."""
    try:
        head = verify(envelope, LedgerHead, {silo: key}).message
    except CryptoError as err:
        raise _broken(f"its head does not verify: {err.message}") from err
    if (head.silo, head.federation) != (silo, federation):
        raise _broken(f"its head is of {head.silo!r} in {head.federation!r}")
    return head


def hash_of(*values: bytes | str | int | None) -> bytes:
    """Return the SHA-256 of a row that the ledger keeps beside the log."""
    return sha256(json.dumps([one.hex() if isinstance(one, bytes) else one for one in values]).encode()).digest()


def hash_of_chains(lines: Iterable[Line]) -> bytes:
    """Return the SHA-256 of the places and chain hashes of entries, which stay when these are erased."""
    return sha256(b"".join(line.seq.to_bytes(8, "big") + line.chain for line in lines)).digest()


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
    head: LedgerHead | None  # what names the last entry; None while nothing was ever logged
    charges: Mapping[bytes, Held]  # by nonce, those of which the log still has the reservation
    anchor: bytes = b""  # the hash of all charges that were committed at some entry; empty if none says so
    since: frozenset[bytes] = frozenset()  # the nonces of those that were committed after that entry
    nonces: Mapping[bytes, bytes] = field(default_factory=dict)  # the request of each that was ever reserved
    splits: Mapping[bytes, bytes] = field(default_factory=dict)  # by round, those that cannot have been erased
    requests: Mapping[bytes, Pending] = field(default_factory=dict)  # by subject, those that were not erased
    is_cut: bool = False  # the first entries are no longer there, as version 3 erased them
    doubtful: frozenset[bytes] = frozenset()  # subjects that may have been erased: version 3 did not say until when


def audit(lines: Iterable[Line], head: LedgerHead | None) -> Audit:
    """Examine the log: its chain, each entry's form and place, and what the entries say was charged.

    A log whose first entries are empty or gone must hold the entry that says they were erased. Raises LedgerError.
    """
    every = list(lines)
    check_chain(every, head)
    if not every:
        return Audit(0, 1, 0, head, {})
    emptied, kept = ([line for line in every if bool(line.body) is is_kept] for is_kept in (False, True))
    found = _Found()
    for entry in entries_of(kept):
        found.add(entry)
    first = kept[0]
    if first.seq > 1:
        cut = found.cuts.get(first.seq - 1)
        if cut is None or chained(cut.chain, first.body) != first.chain:
            raise _broken(f"it begins with entry {first.seq}, and no entry says that those before it were erased")
        if (emptied or cut.chains) and cut.chains != hash_of_chains(emptied):
            raise _broken("the hashes of the entries that were erased are not those that were there")
    return Audit(
        entries=len(kept),
        first=first.seq,
        last=kept[-1].seq,
        head=head,
        charges=found.charges,
        anchor=found.anchor,
        since=frozenset(found.since),
        nonces=found.nonces,
        splits={round_id: split_hash for round_id, (split_hash, _) in found.splits.items()},
        requests=found.requests,
        is_cut=every[0].seq > 1,
        doubtful=frozenset(found.doubtful),
    )


@dataclass(slots=True)
class _Found:
    """What the entries say, while they are read."""

    cuts: dict[int, Erased] = field(default_factory=dict)  # of the log, by the last entry that was erased
    charges: dict[bytes, Held] = field(default_factory=dict)
    anchor: bytes = b""
    since: set[bytes] = field(default_factory=set)
    nonces: dict[bytes, bytes] = field(default_factory=dict)
    splits: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    requests: dict[bytes, Pending] = field(default_factory=dict)
    doubtful: set[bytes] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        match entry.event:
            case Started() as event if event.charges:
                self.anchor, self.since = event.charges, set()
            case Reserved() as event:
                self.charges[event.nonce] = Held(event.micro_rho, entry.seq, event.row)
                self.nonces[event.nonce] = event.request_hash
            case Released() as event:
                self.charges.pop(event.nonce, None)
            case Contributed() as event:
                self.since.add(event.nonce)
                if event.nonce in self.charges:
                    self.charges[event.nonce] = replace(self.charges[event.nonce], round_id=event.round_id)
            case SplitSigned() as event:
                self.splits[event.round_id] = (event.split_hash, entry.at)
            case Asked() as event:
                asked = Pending(entry.seq, event.until or entry.at, event.row)
                if (one := self.requests.get(event.subject)) is not None:  # asked again: what people said stays
                    asked = replace(asked, seq=one.seq, verdicts=one.verdicts)
                self.requests[event.subject] = asked
                self.doubtful.discard(event.subject)
            case Voted() as event if (one := self.requests.get(event.subject)) is not None:
                self.requests[event.subject] = replace(one, verdicts=(*one.verdicts, event))
            case Erased(what="rounds") as event:
                # The clock may have moved between the split and its entry.
                self.splits = {name: one for name, one in self.splits.items() if one[1] >= event.before + _SPLIT_S}
            case Erased(what="approvals") as event:
                gone = {subject: one for subject, one in self.requests.items() if one.until < event.before}
                self.requests = {subject: one for subject, one in self.requests.items() if subject not in gone}
                self.doubtful |= {subject for subject, one in gone.items() if not one.row}
            case Erased(what="log") as event:
                self.cuts[event.through] = event
                if event.charges:
                    self.anchor, self.since = event.charges, set()
            case _:
                pass


def entries_of(lines: Iterable[Line]) -> Iterator[Entry]:
    """Yield the decoded entries; raises LedgerError on one that is malformed or stands in another's place."""
    for line in lines:
        try:
            entry = Entry.decode(line.body)
        except CryptoError as err:
            raise _broken(f"entry {line.seq} is malformed: {err.message}") from err
        if entry.seq != line.seq:
            raise _broken(f"entry {entry.seq} stands in the place of {line.seq}")
        yield entry


def _broken(what: str) -> LedgerError:
    return LedgerError(f"the log is not whole: {what}", "keep the file as it is, and find out who changed it")


_ERASED = {
    "models": "models",
    "rounds": "splits of rounds",
    "approvals": "requests for approval",
    "log": "entries of the log",
}


def worded(event: Event) -> str:
    """Return an event in words, for people."""
    match event:
        case Started():
            released = f", {event.released} reservations released" if event.released else ""
            return f"started with rho {event.micro_rho / MICRO:g} spent{released}"
        case PolicyInForce():
            return f"policy version {event.version} in force ({event.policy_hash.hex()[:16]})"
        case Decided():
            verdict = f"no: {', '.join(event.codes)}" if event.codes else "yes"
            return f"{_shown(event.analyst)} for {_shown(event.purpose)}: {verdict}"
        case Reserved():
            return f"rho {event.micro_rho / MICRO:g} set aside for request {event.request_hash.hex()[:16]}"
        case Released():
            return f"reservation of {event.nonce.hex()[:16]} given back, nothing had left"
        case Contributed():
            return f"contribution to round {event.round_id.hex()[:16]}"
        case ConsentRead():
            return f"consent read for {_shown(event.purpose)} as of {when(event.as_of)}"
        case SplitSigned():
            return f"split {event.split_hash.hex()[:16]} signed in round {event.round_id.hex()[:16]}"
        case Opened():
            return f"shares of round {event.round_id.hex()[:16]} sealed to its recipients"
        case Learned():
            return f"model of run {event.run.hex()[:16]} moved"
        case Asked():
            return f"{_shown(event.analyst)} waits for approval of {event.subject.hex()[:16]}"
        case Voted():
            return f"{_shown(event.who)}: {event.decision} {event.subject.hex()[:16]}"
        case Erased():
            return f"{event.count} {_ERASED[event.what]} from before {when(event.before)} erased"


def when(seconds: int) -> str:
    """Return a clock time as people and machines read it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:120]) or "nobody"
