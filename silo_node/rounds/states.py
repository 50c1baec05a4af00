"""The states of a silo in a round: one frozen value each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from crypto.backends.scheme import Scheme
from crypto.errors import CryptoError, ProtocolError
from crypto.keys import Secret, SigningKey, VerifyKey
from crypto.rounds.manifest import Manifest, Propose, Terms
from crypto.rounds.messages import Cancel, SurvivorSet
from crypto.rounds.payload import frames, piece_sizes
from crypto.sealing import SealingKey
from crypto.wire import verify
from federation.members.roster import Roster
from policies.document.policy import Policy
from policies.requests.request import Request


@dataclass(frozen=True, slots=True)
class Silo:
    """Who this silo is, whom it knows, and the policy it keeps."""

    name: str
    federation: str
    signing: SigningKey
    sealing: SealingKey
    roster: Roster
    silos: Mapping[str, VerifyKey]
    aggregators: Mapping[str, VerifyKey]
    policy: Policy
    policy_hash: bytes


@dataclass(frozen=True, slots=True)
class Proposed:
    """A request was accepted and its whole cost reserved."""

    aggregator: str  # who proposed the round
    propose: Propose
    request: Request
    terms: Terms
    accept: bytes
    root: Secret  # r: the mask key and the pair seeds come from it
    self_secret: Secret  # b: the self mask comes from it
    channel: SealingKey


@dataclass(frozen=True, slots=True)
class SharedOut:
    """The manifest was checked and the secrets were shared out over its roster."""

    before: Proposed
    manifest: Manifest
    manifest_hash: bytes
    committee: tuple[int, ...]  # the places in the roster of those this silo shares secrets with, itself included
    entries: tuple[bytes, ...] = field(repr=False)  # this silo's own, one for each of its committee


@dataclass(frozen=True, slots=True)
class KeyShares:
    """What the others of its committee entrusted to this silo: a share of each one's b and of each one's r."""

    of_self: tuple[bytes, ...] = field(repr=False)
    of_root: tuple[bytes, ...] = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise CryptoError("the shares of a round cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class Received:
    """What every member of the committee sealed to this silo was opened; still nothing has been computed."""

    before: SharedOut
    shares: KeyShares
    seeds: tuple[bytes, ...] = field(repr=False)  # of the pair masks with those before it in the roster

    def __reduce__(self) -> NoReturn:
        raise CryptoError("the seeds of a round cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class Contributed:
    """The blinded vector is on its way."""

    aggregator: str
    manifest: Manifest
    manifest_hash: bytes
    committee: tuple[int, ...]
    scheme: Scheme
    channel: SealingKey
    contribution: bytes  # digest of the signed head
    pieces: tuple[bytes, ...] = field(repr=False)
    shares: KeyShares

    def frame(self, index: int) -> bytes:
        """Return a frame of the payload; raises ProtocolError if there is none of that number."""
        found = frames(piece_sizes(self.scheme))
        if not 0 <= index < len(found):
            raise ProtocolError(f"the contribution has no frame {index}")
        return b"".join(self.pieces[number] for number in found[index])


@dataclass(frozen=True, slots=True)
class Agreed:
    """This silo signed the one split of the round."""

    aggregator: str
    manifest: Manifest
    manifest_hash: bytes
    committee: tuple[int, ...]
    scheme: Scheme
    channel: SealingKey
    split: SurvivorSet
    split_hash: bytes
    shares: KeyShares


State = Proposed | SharedOut | Received | Contributed | Agreed


def check_cancel(silo: Silo, state: State, round_id: bytes, data: bytes) -> None:
    """Raise CryptoError unless the aggregator that proposed the round of a state says that it is over."""
    name = proposer_of(state)
    message = verify(data, Cancel, {name: silo.aggregators[name]} if name in silo.aggregators else {}).message
    if message.round_id != round_id:
        raise ProtocolError("the message belongs to another round")


def proposer_of(state: State) -> str:
    """Return the aggregator that proposed the round."""
    match state:
        case Proposed() | Contributed() | Agreed():
            return state.aggregator
        case SharedOut():
            return state.before.aggregator
        case Received():
            return state.before.before.aggregator


def expiry_of(state: State) -> int:
    """Return when the round of a state expires, in seconds since 1970."""
    match state:
        case Proposed():
            return state.propose.expires_at
        case Received():
            return state.before.manifest.expires_at
        case SharedOut() | Contributed() | Agreed():
            return state.manifest.expires_at


def reservation_of(state: State) -> bytes | None:
    """Return the nonce whose reservation may be released with this state; None once a contribution may have left."""
    match state:
        case Proposed():
            return state.request.nonce
        case SharedOut():
            return state.before.request.nonce
        case Received():
            return state.before.before.request.nonce
        case Contributed() | Agreed():
            return None


def check_not_expired(expires_at: int, now: int) -> None:
    """Raise ProtocolError from `expires_at` on."""
    if now >= expires_at:
        raise ProtocolError("the round has expired")
