"""The events of the log: one class each, the entry around it, and its words for people.

Promise: an event has only names, hashes, prices, codes and clock times, nothing that was computed from a row. Class
names may change; the `kind` of an event and its fields are in the files of every silo, and must stay.
"""

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.wire import Count, Digest, Message, RoundId, Seconds
from policies.budget.ledger import UNKNOWN, RunOver
from policies.units import MICRO, counted, when

Who = Annotated[str, Field(max_length=255)]  # another party may have written it
Amount = Annotated[int, Field(ge=0)]
# The hash of a row in the tables, so that a changed row is noticed. Version 3 wrote none.
Kept = Annotated[bytes, Field(max_length=32, exclude_if=lambda kept: not kept)]


class Started(Message):
    """The silo started: its spending so far, and the hash of its charges."""

    kind: Literal["started"] = "started"
    micro_rho: Amount
    released: Count
    charges: Kept = b""
    asked: Kept = b""  # of all nonces: whose each is, since when, and which step of which run


class PolicyInForce(Message):
    """The silo decides by this policy from now on."""

    kind: Literal["policy"] = "policy"
    policy_hash: Digest
    version: Count
    is_signed: Annotated[bool, Field(exclude_if=lambda is_signed: not is_signed)] = False  # by the people it names
    max_silos: Annotated[Count, Field(exclude_if=lambda max_silos: not max_silos)] = 0  # for which charges are priced


class Repriced(Message):
    """More was charged for what was charged before, as one person may be known to more silos than was thought."""

    kind: Literal["repriced"] = "repriced"
    max_silos: Count
    micro_rho: Amount


class RosterInForce(Message):
    """The silo takes part with the members of this roster from now on."""

    kind: Literal["roster"] = "roster"
    version: Count
    digest: Digest  # of the signed roster


class KeptInForce(Message):
    """The silo answers by this version of what it keeps itself: of prepared rows, or of who is forgotten."""

    kind: Literal["kept"] = "kept"
    name: Who  # where it is kept, in the silo's directory
    digest: Digest
    count: Annotated[Count, Field(exclude_if=lambda count: not count)] = 0  # of a list that only grows: its first rows


class Decided(Message):
    """A request was judged; without a code it was accepted."""

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
    asked: Kept = b""  # of its nonce's row, where that is new: whose it is, and which step of which run


class Released(Message):
    """A reservation, or a charge that had begun, was given back, since nothing of its round had left."""

    kind: Literal["release"] = "release"
    nonce: RoundId


class Replaced(Message):
    """Another request stands in the place of this one, or of this run, which is not accepted any more."""

    kind: Literal["replaced"] = "replaced"
    nonce: RoundId
    by: RoundId


class Charging(Message):
    """The silo is about to sign that it is ready in a round: the price counts as spent until it is given back."""

    kind: Literal["charging"] = "charging"
    nonce: RoundId
    round_id: RoundId
    micro_rho: Amount


class RunReserved(Message):
    """What a training run has set aside now for its steps that have not begun."""

    kind: Literal["run-reservation"] = "run-reservation"
    run: RoundId
    parts: Count
    micro_rho: Amount
    atto_delta: Amount
    row: Kept = b""


class RunReleased(Message):
    """A training run has set nothing aside any more; what it had left is given back, or another run has it."""

    kind: Literal["run-release"] = "run-release"
    run: RoundId
    why: Literal["used", "stopped", "expired", "not-begun", "continued"]
    micro_rho: Amount
    atto_delta: Amount


class RunStopped(Message):
    """No further step of a training run is taken: a quorum of its silos signed why, its analyst did, or it expired."""

    kind: Literal["run-stop"] = "run-stop"
    run: RoundId
    why: RunOver


class StaysCharged(Message):
    """The process that had begun a charge ended, so nobody knows that it could be given back: it is spent."""

    kind: Literal["stays-charged"] = "stays-charged"
    nonce: RoundId
    round_id: RoundId


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
    """The silo signed the survivor set of a round."""

    kind: Literal["split"] = "split"
    round_id: Annotated[bytes, Field(max_length=64)]
    split_hash: Annotated[bytes, Field(max_length=64)]


class Opened(Message):
    """The silo sealed its shares of a round to the recipients."""

    kind: Literal["opening"] = "opening"
    round_id: RoundId
    split_hash: Digest


class ModelUpdated(Message):
    """The silo's model learned from a report."""

    kind: Literal["model"] = "model"
    run: RoundId
    state: Kept = b""


class ApprovalAsked(Message):
    """A request waits for people to approve it."""

    kind: Literal["request"] = "request"
    subject: Digest
    analyst: Who
    purpose: Who
    until: Annotated[Seconds, Field(exclude_if=lambda until: not until)] = 0  # the request is kept at least until then
    row: Kept = b""


class Voted(Message):
    """A person approved or rejected a waiting request; the signed verdict is in a table."""

    kind: Literal["verdict"] = "verdict"
    subject: Digest
    who: Who
    decision: Literal["approve", "reject"]
    row: Kept = b""


class Erased(Message):
    """Expired data were erased: models, traces of rounds, requests for approval, or the oldest log entries."""

    kind: Literal["erased"] = "erased"
    what: Literal["models", "rounds", "approvals", "log"]
    count: Count
    before: Seconds
    through: Count = 0  # the number of the last erased log entry
    chain: Annotated[bytes, Field(max_length=32)] = b""
    chains: Kept = b""  # `log.hash_of_chains` of all entries that are erased
    charges: Kept = b""  # as in `Started`, since entries of charges may be among the erased ones
    asked: Kept = b""


class Excused(Message):
    """An aggregator may keep no checkpoint of this log, until the next charge: it is new here, or lost its disk."""

    kind: Literal["excused"] = "excused"
    aggregator: Who
    by: Literal["owner", "membership"]


class NotLogged(Message):
    """Requests that were refused without an entry of their own: they had one, or their signers had asked too often."""

    kind: Literal["not-logged"] = "not-logged"
    aggregator: Who  # empty if it was the silo that could not take part
    analyst: Who  # empty if the analyst had not signed them
    count: Count


class PutBack(Message):
    """The owner put the ledger back from a backup, so it may have forgotten charges."""

    kind: Literal["put-back"] = "put-back"
    made_at: Seconds  # of the backup


class Recovered(Message):
    """The log goes on after the newest checkpoint that aggregators gave; what was spent since the backup is booked."""

    kind: Literal["recovered"] = "recovered"
    count: Count  # of that checkpoint
    chain: Digest
    line: RoundId
    given: Count  # how many aggregators gave one
    micro_rho: Amount
    atto_delta: Amount
    nonces: Count  # of requests that were charged, as far as they are known
    asked: Kept = b""  # as in `Started`, with these nonces


class ChosenAfterProfile(Message):
    """Bounds, domains, max_rows or max_norm changed after the owner had seen a profile of the rows."""

    kind: Literal["chosen-after-profile"] = "chosen-after-profile"
    shown_at: Seconds
    keys: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=20)]
    count: Count  # of all keys that changed; the log names the first 20


Event = (
    Started
    | PolicyInForce
    | RosterInForce
    | KeptInForce
    | Repriced
    | Decided
    | Reserved
    | Released
    | Replaced
    | Charging
    | RunReserved
    | RunReleased
    | RunStopped
    | StaysCharged
    | Contributed
    | ConsentRead
    | SurvivorsSigned
    | Opened
    | ModelUpdated
    | ApprovalAsked
    | Voted
    | Erased
    | Excused
    | NotLogged
    | PutBack
    | Recovered
    | ChosenAfterProfile
)


class LogEntry(Message):
    """One entry: its number, the silo's clock, and the event."""

    KIND: ClassVar[str] = "log-entry"
    MAX_BYTES: ClassVar[int] = 16 * 1024
    seq: Annotated[int, Field(ge=1)]
    at: Seconds
    event: Annotated[Event, Field(discriminator="kind")]


def decided(request_hash: bytes, analyst: str, purpose: str, codes: Iterable[str]) -> Decided:
    """Return the entry of a decision; another party's names are cut to the log's limit."""
    return Decided(request_hash=request_hash, analyst=analyst[:255], purpose=purpose[:255], codes=tuple(codes))


def hash_of_row(*values: bytes | str | int | None) -> bytes:
    """Return the SHA-256 of a row of the ledger's tables."""
    return sha256(json.dumps([one.hex() if isinstance(one, bytes) else one for one in values]).encode()).digest()


_ERASED = {
    "models": "models",
    "rounds": "survivor sets of rounds",
    "approvals": "requests for approval",
    "log": "entries of the log",
}


def worded(event: Event) -> str:
    """Return an event in words, for people."""
    match event:
        case Started():
            released = f", {event.released} reservations released" if event.released else ""
            return f"started with rho {event.micro_rho / MICRO:g} spent{released}"
        case PolicyInForce() | RosterInForce() | KeptInForce() | Repriced():
            return _worded_in_force(event)
        case Decided():
            verdict = f"no: {', '.join(event.codes)}" if event.codes else "yes"
            return f"{_shown(event.analyst)} for {_shown(event.purpose)}: {verdict}"
        case Reserved() | Released() | Replaced() | Charging() | StaysCharged() | Contributed():
            return _worded_charge(event)
        case ConsentRead():
            return f"consent read for {_shown(event.purpose)} as of {when(event.as_of)}"
        case SurvivorsSigned():
            return f"survivor set {event.split_hash.hex()[:16]} signed in round {event.round_id.hex()[:16]}"
        case Opened():
            return f"shares of round {event.round_id.hex()[:16]} sealed to its recipients"
        case ModelUpdated() | RunReserved() | RunReleased() | RunStopped():
            return _worded_run(event)
        case ApprovalAsked():
            return f"{_shown(event.analyst)} waits for approval of {event.subject.hex()[:32]}"
        case Voted():
            return f"{_shown(event.who)}: {event.decision} {event.subject.hex()[:32]}"
        case Erased():
            return f"{event.count} {_ERASED[event.what]} from before {when(event.before)} erased"
        case NotLogged():
            whose = f"of {_shown(event.analyst)}, by {_shown(event.aggregator)}" if event.aggregator else "here"
            return f"{event.count} more requests {whose} refused, as they came again or too many had come"
        case Excused() | PutBack() | Recovered():
            return _worded_copy(event)
        case ChosenAfterProfile():
            named = ", ".join(_shown(key) for key in event.keys)
            return f"{event.count} changed after the profile of {when(event.shown_at)} was shown: {named}"


def _worded_in_force(event: PolicyInForce | RosterInForce | KeptInForce | Repriced) -> str:
    match event:
        case PolicyInForce():
            return f"policy version {event.version} in force ({event.policy_hash.hex()[:16]})"
        case RosterInForce():
            return f"members of version {event.version} in force ({event.digest.hex()[:16]})"
        case KeptInForce():
            return f"{_shown(event.name)} in force ({event.digest.hex()[:16]})"
        case Repriced():
            more = f"rho {event.micro_rho / MICRO:g} more is spent"
            return f"{more}, as one person may be known to {counted(event.max_silos, 'silo')}"


def _worded_charge(event: Reserved | Released | Replaced | Charging | StaysCharged | Contributed) -> str:
    match event:
        case Reserved():
            return f"rho {event.micro_rho / MICRO:g} set aside for request {event.request_hash.hex()[:16]}"
        case Released():
            return f"reservation of {event.nonce.hex()[:16]} given back, nothing had left"
        case Replaced():
            return (
                f"{event.nonce.hex()[:16]} is not accepted any more: request {event.by.hex()[:16]} stands in its place"
            )
        case Charging():
            return f"rho {event.micro_rho / MICRO:g} counts as spent in round {event.round_id.hex()[:16]}"
        case StaysCharged():
            return f"charge of {event.nonce.hex()[:16]} stays, as the silo was stopped in its round"
        case Contributed():
            return f"contribution to round {event.round_id.hex()[:16]}"


_RELEASED = {
    "used": "it has begun its last step",
    "stopped": "it is over",
    "expired": "it lay too long",
    "not-begun": "nothing of it had begun",
    "continued": "the run that continues it has it",
}


def _worded_run(event: ModelUpdated | RunReserved | RunReleased | RunStopped) -> str:
    run = f"run {event.run.hex()[:16]}"
    match event:
        case ModelUpdated():
            return f"model of {run} moved"
        case RunReserved():
            return f"rho {event.micro_rho / MICRO:g} set aside for {event.parts} more steps of {run}"
        case RunReleased():
            return (
                f"{run} sets nothing aside any more: {_RELEASED[event.why]}; rho {event.micro_rho / MICRO:g} was left"
            )
        case RunStopped():
            return f"no further step of {run} is taken: {event.why}"


def _worded_copy(event: Excused | PutBack | Recovered) -> str:
    match event:
        case Excused():
            who = "the owner" if event.by == "owner" else "the membership"
            return f"{_shown(event.aggregator)} may keep no checkpoint yet, says {who}"
        case PutBack():
            return (
                f"put back from the backup of {when(event.made_at)}; nothing is answered until it is the newest again"
            )
        case Recovered():
            return (
                f"goes on after entry {event.count}, as {event.given} aggregators know it;"
                f" rho {event.micro_rho / MICRO:g} spent since the backup, by {UNKNOWN}"
            )


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:120]) or "nobody"
