"""The states of a silo in a round, each a frozen value; `silo_node.rounds.steps` has the steps between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from crypto.backends.scheme import Scheme
from crypto.errors import CryptoError, ExpiredError, ProtocolError
from crypto.keys import Secret, SigningKey, VerifyKey
from crypto.rounds.manifest import Manifest, Propose, Terms
from crypto.rounds.messages import Cancel, Contribution, SurvivorSet
from crypto.rounds.payload import MaskedInput, frames, piece_sizes
from crypto.sealing import SealingKey
from crypto.wire import digest_of, verify
from federation.members.roster import Roster
from policies.document.policy import Policy
from policies.requests.request import Request
from silo_node.graphs.kept import KeptNetworks


@dataclass(frozen=True, slots=True)
class Silo:
    """A silo's name, keys, roster and policy."""

    name: str
    federation: str
    signing: SigningKey
    sealing: SealingKey
    roster: Roster
    silos: Mapping[str, VerifyKey]
    aggregators: Mapping[str, VerifyKey]
    policy: Policy
    policy_hash: bytes
    graphs: KeptNetworks | None = None  # the packed networks that it has


@dataclass(frozen=True, slots=True)
class Proposed:
    """A request was accepted and its whole cost reserved."""

    aggregator: str  # the aggregator that proposed the round
    propose: Propose
    request: Request
    terms: Terms
    accept: bytes
    root: Secret  # r: the mask key and the pair seeds come from it
    self_secret: Secret  # b: the self mask comes from it
    mask: SealingKey
    channel: SealingKey
    channel_secret: Secret  # the channel key comes from it; told with an accusation
    reserved_at: int
    nonce: Secret | None = None  # of a long round: told when the sum is closed

    @property
    def reply(self) -> tuple[bytes, bytes, bytes]:
        """The signed acceptance, and the two public keys that it names."""
        return self.accept, self.mask.public, self.channel.public


@dataclass(frozen=True, slots=True)
class KeysShared:
    """The manifest was checked, and the secrets were shared over the committee."""

    before: Proposed
    manifest: Manifest
    manifest_hash: bytes
    committee: tuple[int, ...]  # positions in the roster, this silo included
    channel_keys: Mapping[str, bytes] = field(repr=False)  # of the other members that this silo is shown
    own_shares: tuple[bytes, bytes] = field(repr=False)  # this silo's, of its own b and r
    envelope: bytes = field(repr=False)  # the manifest as the aggregator signed it
    compute_ms: int  # the greatest that a member stated for its computing; 0 where none did


@dataclass(frozen=True, slots=True)
class KeyShares:
    """This silo's key shares: one of b and one of r for each member of its committee."""

    of_self: tuple[bytes, ...] = field(repr=False)
    of_root: tuple[bytes, ...] = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise CryptoError("the shares of a round cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class Received:
    """The entries of all committee members were opened and the charge has begun; nothing has been computed yet."""

    before: KeysShared
    shares: KeyShares
    seeds: tuple[bytes, ...] = field(repr=False)  # of the pair masks with the silos before it in the roster

    def __reduce__(self) -> NoReturn:
        raise CryptoError("the seeds of a round cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class Committed:
    """The charge is committed, and the contribution is being computed."""

    before: Received

    def __reduce__(self) -> NoReturn:
        raise CryptoError("the seeds of a round cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class Contributed:
    """The masked input is being sent."""

    aggregator: str
    manifest: Manifest
    manifest_hash: bytes
    committee: tuple[int, ...]
    scheme: Scheme
    channel: SealingKey
    masked: MaskedInput = field(repr=False)
    consent_as_of: int | None
    rows_as_of: int | None
    shares: KeyShares
    envelope: bytes = field(repr=False)  # the manifest as the aggregator signed it
    nonce: Secret | None = None

    @property
    def header(self) -> Contribution:
        """What the silo signs of its masked input; what has not left of it is made for that."""
        return Contribution(
            manifest_hash=self.manifest_hash,
            length=self.manifest.length,
            chunks=self.masked.digests(),
            consent_as_of=self.consent_as_of,
            rows_as_of=self.rows_as_of,
        )

    @property
    def contribution(self) -> bytes:
        """The digest of the signed header."""
        return digest_of(self.header)

    def is_header(self, index: int) -> bool:
        """Tell whether the header stands in the place of this frame: in a long round, after the last one."""
        return self.manifest.terms.is_long and index == len(frames(piece_sizes(self.scheme)))


@dataclass(frozen=True, slots=True)
class Agreed:
    """This silo signed the only survivor set of the round."""

    aggregator: str
    manifest: Manifest
    manifest_hash: bytes
    committee: tuple[int, ...]
    scheme: Scheme
    channel: SealingKey
    survivor_set: SurvivorSet
    survivors_hash: bytes
    shares: KeyShares
    masked: MaskedInput = field(repr=False)
    nonce: Secret | None = None  # of a long round


@dataclass(frozen=True, slots=True)
class Opened:
    """This silo opened a long round: it has told its nonce, and signs inner products for one challenge."""

    aggregator: str
    manifest: Manifest
    manifest_hash: bytes
    scheme: Scheme
    survivor_set: SurvivorSet
    survivors_hash: bytes
    masked: MaskedInput = field(repr=False)


State = Proposed | KeysShared | Received | Committed | Contributed | Agreed | Opened


def check_cancel(silo: Silo, state: State, round_id: bytes, data: bytes) -> None:
    """Raise CryptoError unless `data` is a Cancel from the aggregator that proposed the round."""
    name = proposer_of(state)
    message = verify(data, Cancel, {name: silo.aggregators[name]} if name in silo.aggregators else {}).message
    if (message.federation, message.round_id) != (silo.federation, round_id):
        raise ProtocolError("the message belongs to another round or federation")


def proposer_of(state: State) -> str:
    """Return the aggregator that proposed the round."""
    match state:
        case Proposed() | Contributed() | Agreed() | Opened():
            return state.aggregator
        case KeysShared() | Received() | Committed():
            return proposer_of(state.before)


def expiry_of(state: State) -> int:
    """Return when the round of a state expires, in seconds since 1970."""
    match state:
        case Proposed():
            return state.propose.expires_at
        case Received() | Committed():
            return expiry_of(state.before)
        case KeysShared() | Contributed() | Agreed() | Opened():
            return state.manifest.expires_at


def uncommitted(state: State) -> Proposed | None:
    """Return what was accepted, while its charge may be given back and no row has been read; None afterwards."""
    match state:
        case Proposed():
            return state
        case KeysShared() | Received():
            return uncommitted(state.before)
        case Committed() | Contributed() | Agreed() | Opened():
            return None


def reservation_of(state: State) -> bytes | None:
    """Return the nonce whose charge may still be given back; None once a contribution may have left."""
    accepted = uncommitted(state)
    return None if accepted is None else accepted.request.nonce


def has_begun(state: State) -> bool:
    """Tell whether the charge of a round has begun: it counts as spent, also after a restart."""
    match state:
        case Proposed() | KeysShared():
            return False
        case Received() | Committed() | Contributed() | Agreed() | Opened():
            return True


def check_not_expired(expires_at: int, now: int) -> None:
    """Raise ExpiredError from `expires_at` on."""
    if now >= expires_at:
        raise ExpiredError("the round has expired")
