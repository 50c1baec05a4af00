"""What the log can say: one class for each event, the entry that holds it, and its words for people.

An event holds names, hashes, prices, codes and clock times only, nothing that was computed from a row. Class names may
change; the `kind` of an event and its fields are what stands in the files of every silo, and stay.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.wire import Count, Digest, Message, RoundId, Seconds
from policies.units import MICRO

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


class SurvivorsSigned(Message):
    """The silo signed the survivors of a round: whose contributions are opened."""

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
    chains: Kept = b""  # `log.hash_of_chains` of all entries that are erased
    charges: Kept = b""  # as of `Started`, since entries of charges may be among those that are gone


Event = (
    Started
    | PolicyInForce
    | Decided
    | Reserved
    | Released
    | Contributed
    | ConsentRead
    | SurvivorsSigned
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


def decided(request_hash: bytes, analyst: str, purpose: str, codes: Iterable[str]) -> Decided:
    """Return the entry of a decision; names that a stranger wrote are cut to what the log can hold."""
    return Decided(request_hash=request_hash, analyst=analyst[:255], purpose=purpose[:255], codes=tuple(codes))


def hash_of_row(*values: bytes | str | int | None) -> bytes:
    """Return the SHA-256 of a row that the ledger keeps beside the log."""
    return sha256(json.dumps([one.hex() if isinstance(one, bytes) else one for one in values]).encode()).digest()


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
        case SurvivorsSigned():
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
