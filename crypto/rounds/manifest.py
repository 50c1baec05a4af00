"""The manifest of one round (its roster, quorum, slots and noise), and the check that a recipient makes on it.

The manifest is a pure function of the signed request and of the signed acceptances of its roster (`compose`), which it
binds by the root of a Merkle tree. A recipient has all of them, and composes it again; a silo sees those of its
committee (`crypto.rounds.shown`). So a key, quorum or deviation that the aggregator altered is noticed.
docs/protocol.md sections 3.1 to 3.5; section 8, rows B2 to B5 and G2.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.backends.scheme import CHUNK_VALUES, MAX_VALUES
from crypto.errors import ProtocolError
from crypto.keys import VerifyKey
from crypto.merkle import MerkleTree, leaf_hash
from crypto.rounds.bounds import fewest_survivors, noise_shares, why_infeasible, why_too_few
from crypto.rounds.committees import committee, committees, degree_of, quorum_of
from crypto.sealing import PUBLIC_BYTES, seal
from crypto.wire import MAX_RECIPIENTS, MAX_SILOS, Count, Digest, Message, Name, RoundId, Seconds, Signed, verify

PublicKey = Annotated[bytes, Field(min_length=PUBLIC_BYTES, max_length=PUBLIC_BYTES)]


BackendName = Literal["masking", "shares", "bfv", "ckks", "paillier"]
KeyId = Annotated[bytes, Field(max_length=32)]


class Recipient(Message):
    """A party that can open the sum, and the key to which openings are sealed."""

    name: Name
    key: PublicKey


class Block(Message):
    """A run of slots with one meaning, one scale and one noise variance (all in ring units of 2^-scale_bits)."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    length: Annotated[int, Field(ge=1, le=MAX_VALUES)]
    scale_bits: Annotated[int, Field(ge=0, le=62)]
    variance: Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,39})$")]  # decimal; of the sum over asked - a - d silos


class Terms(Message):
    """What the analyst's signed request fixes about its sum."""

    request_hash: Digest
    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    backend: BackendName
    asked: Annotated[int, Field(ge=1, le=MAX_SILOS)]  # silos
    key_id: KeyId  # of the round's homomorphic key, where the backend has one
    limit: Annotated[int, Field(ge=1, lt=2**63)]  # largest magnitude of a value of one silo, noise included
    blocks: Annotated[tuple[Block, ...], Field(min_length=1, max_length=256)]
    # Whether each silo adds the whole noise, for those who trust no other; left out where the silos share it.
    own_noise: Annotated[bool, Field(exclude_if=lambda is_own: not is_own)] = False

    @property
    def length(self) -> int:
        return sum(block.length for block in self.blocks)

    @property
    def is_long(self) -> bool:
        """Whether the sum is proven by inner products, and not added once more; see `crypto.rounds.products`."""
        return is_long(self.backend, self.length)


def is_long(backend: str, length: int) -> bool:
    """Tell whether a round of this backend and of so many values is long: then its sum is proven."""
    return backend == "masking" and length > CHUNK_VALUES


class Propose(Message):
    """Aggregator to silo: will you take part in this request?"""

    KIND: ClassVar[str] = "propose"
    MAX_BYTES: ClassVar[int] = 1 << 20
    federation: Name
    round_id: RoundId
    expires_at: Seconds
    request: bytes  # the analyst's envelope


MAX_MUST_INCLUDE = 20  # silos that one policy names
MAX_COMPUTE_S = 3600  # of a silo's computing in one round, as an acceptance may state it
MAX_SEND_S = 3600  # of sending one masked input, as an acceptance may state it


class Accept(Message):
    """Silo to all: yes, with the conditions of my policy; my keys of this round travel beside it, by their SHA-256."""

    KIND: ClassVar[str] = "accept"
    federation: Name
    round_id: RoundId
    request_hash: Digest
    expires_at: Seconds
    mask_key_hash: Digest
    channel_key_hash: Digest
    self_commitment: Digest
    policy_hash: Digest
    min_silos: Annotated[int, Field(ge=0, le=MAX_SILOS)]
    max_colluding: Annotated[int, Field(ge=1, le=MAX_SILOS)]
    max_missing: Annotated[int, Field(ge=0, le=MAX_SILOS)]
    # How long my computing may take, by policy and request alone; left out where the policy does not say.
    compute_ms: Annotated[
        int | None, Field(default=None, ge=1, le=1000 * MAX_COMPUTE_S, exclude_if=lambda time: time is None)
    ] = None
    # How long sending my masked input may take, by policy and request alone; left out where the vector is short.
    send_ms: Annotated[
        int | None, Field(default=None, ge=1, le=1000 * MAX_SEND_S, exclude_if=lambda time: time is None)
    ] = None
    # Silos without which I take no part; left out where the policy names none.
    must_include: Annotated[
        tuple[Name, ...] | None,
        Field(default=None, min_length=1, max_length=MAX_MUST_INCLUDE, exclude_if=lambda names: names is None),
    ] = None
    # The SHA-256 of the nonce that I tell when the sum is closed; left out in a round that is not long.
    nonce_hash: Annotated[Digest | None, Field(default=None, exclude_if=lambda digest: digest is None)] = None


def seconds_of(milliseconds: int | None) -> int:
    """Return how many whole seconds later a round ends by an acceptance that states this time; 0 if it states none."""
    return -(-(milliseconds or 0) // 1000)


def compute_s_of(accepts: Iterable[Accept]) -> int:
    """Return how many seconds the silos may compute: the greatest time among their acceptances."""
    return max(seconds_of(accept.compute_ms) for accept in accepts)


def send_s_of(accepts: Iterable[Accept]) -> int:
    """Return how many seconds the silos may send: the greatest time among their acceptances."""
    return max(seconds_of(accept.send_ms) for accept in accepts)


def ends_at(propose: Propose, accepts: Sequence[Accept]) -> int:
    """Return when a round of these acceptances ends: all of them compute, and then all of them send."""
    return propose.expires_at + compute_s_of(accepts) + send_s_of(accepts)


class Manifest(Message):
    """The whole agreement of one round; everything after Propose is bound to its SHA-256."""

    KIND: ClassVar[str] = "manifest"
    MAX_BYTES: ClassVar[int] = 1 << 20
    federation: Name
    round_id: RoundId
    expires_at: Seconds
    terms: Terms
    silos: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_SILOS)]  # the roster, sorted
    members: Digest  # the root of the tree over their acceptances, in this order
    quorum: Count
    degree: Count
    min_silos: Count
    max_colluding: Count
    max_missing: Count
    must_include: Annotated[
        tuple[Name, ...] | None,
        Field(default=None, min_length=1, max_length=MAX_SILOS, exclude_if=lambda names: names is None),
    ] = None
    # The nonce_hash of every member, in roster order; left out in a round that is not long.
    nonces: Annotated[
        tuple[Digest, ...] | None,
        Field(default=None, min_length=1, max_length=MAX_SILOS, exclude_if=lambda hashes: hashes is None),
    ] = None

    def committee(self, manifest_hash: bytes, place: int) -> tuple[int, ...]:
        """Return the committee of the silo at a place of the roster; see `crypto.rounds.committees`."""
        return committee(self.silos, self.degree, manifest_hash, place)

    def committees(self, manifest_hash: bytes) -> tuple[tuple[int, ...], ...]:
        """Return the committee of every silo, as positions in the roster; see `crypto.rounds.committees`."""
        return committees(self.silos, self.degree, manifest_hash)

    @property
    def committee_quorum(self) -> int:
        """The number of shares that rebuild a secret of one silo."""
        is_whole = self.degree + 1 == len(self.silos)
        return self.quorum if is_whole else quorum_of(self.degree + 1)

    @property
    def length(self) -> int:
        return self.terms.length

    @property
    def noise_shares(self) -> int:
        """The number of silos whose noise alone must reach the variance of every block; 1 where each adds the whole."""
        return 1 if self.terms.own_noise else noise_shares(self.terms.asked, self.max_colluding, self.max_missing)

    @property
    def min_survivors(self) -> int:
        return fewest_survivors(*self.conditions)

    @property
    def conditions(self) -> tuple[int, int, int, int]:
        """How many were asked, min_silos, max_colluding and max_missing, as `crypto.rounds.bounds` takes them."""
        return self.terms.asked, self.min_silos, self.max_colluding, self.max_missing


def check_accept(propose: Propose, terms: Terms, silo: str, accept: Accept) -> None:
    """Raise ProtocolError if an acceptance belongs to another round or request."""
    expected = propose.federation, propose.round_id, terms.request_hash, propose.expires_at
    if (accept.federation, accept.round_id, accept.request_hash, accept.expires_at) != expected:
        raise ProtocolError(f"the acceptance of {silo!r} belongs to another round or request")
    if (accept.nonce_hash is not None) != terms.is_long:
        needed = "lacks the hash of a nonce, and the round is" if terms.is_long else "has a nonce, and the round is not"
        raise ProtocolError(f"the acceptance of {silo!r} {needed} a long one")


def check_round_keys(accept: Accept, mask_key: bytes, channel_key: bytes) -> None:
    """Raise CryptoError unless both keys are those of an acceptance and can be sealed to."""
    for key, expected in ((mask_key, accept.mask_key_hash), (channel_key, accept.channel_key_hash)):
        check_round_key(key, expected)
        seal(key, b"", b"")


def check_round_key(key: bytes, expected: bytes) -> None:
    """Raise ProtocolError unless a key is the one that an acceptance names."""
    if len(key) != PUBLIC_BYTES or sha256(key).digest() != expected:
        raise ProtocolError("a round key is not the one that its silo's acceptance names")


def member_leaf(silo: str, accept: Accept) -> bytes:
    """Return the hash of one member's leaf: its name behind its length in one byte, and its encoded acceptance."""
    name = silo.encode()
    return leaf_hash(len(name).to_bytes(1, "big") + name + accept.encode())


def members_tree(accepts: Sequence[tuple[str, Accept]]) -> MerkleTree:
    """Return the tree over the acceptances of a roster (silo name, message), in roster order."""
    return MerkleTree([member_leaf(silo, accept) for silo, accept in sorted(accepts, key=lambda one: one[0])])


def compose(propose: Propose, terms: Terms, accepts: Sequence[tuple[str, Accept]]) -> Manifest:
    """Return the only manifest that follows from these acceptances (silo name, message).

    Raises ProtocolError if one belongs to another round or request, or if the roster cannot meet its conditions.
    """
    if len(accepts) > MAX_SILOS:
        raise ProtocolError(f"{len(accepts)} acceptances, at most {MAX_SILOS}")
    names = [silo for silo, _ in accepts]
    if not accepts:
        raise ProtocolError("no silo takes part")
    if len(set(names)) != len(names):
        raise ProtocolError("the roster names a silo twice")
    for silo, accept in accepts:
        check_accept(propose, terms, silo, accept)
    return manifest_of(
        propose,
        terms,
        tuple(sorted(names)),
        members_tree(accepts).root,
        expires_at=ends_at(propose, [accept for _, accept in accepts]),
        min_silos=max(accept.min_silos for _, accept in accepts),
        max_colluding=max(accept.max_colluding for _, accept in accepts),
        max_missing=min(accept.max_missing for _, accept in accepts),
        must_include=tuple(sorted({silo for _, accept in accepts for silo in accept.must_include or ()})),
        nonces=nonces_of(terms, accepts),
    )


def nonces_of(terms: Terms, accepts: Sequence[tuple[str, Accept]]) -> tuple[bytes, ...] | None:
    """Return the commitments to the nonces of these members (silo name, message), in roster order."""
    if not terms.is_long:
        return None
    return tuple(accept.nonce_hash or b"" for _, accept in sorted(accepts, key=lambda one: one[0]))


def manifest_of(
    propose: Propose,
    terms: Terms,
    silos: tuple[str, ...],
    members: bytes,
    *,
    expires_at: int,
    min_silos: int,
    max_colluding: int,
    max_missing: int,
    must_include: tuple[str, ...],
    nonces: tuple[bytes, ...] | None = None,
) -> Manifest:
    """Return the only manifest of a roster under these conditions; raises ProtocolError if it cannot meet them."""
    manifest = Manifest(
        federation=propose.federation,
        round_id=propose.round_id,
        expires_at=expires_at,
        terms=terms,
        silos=silos,
        members=members,
        quorum=quorum_of(terms.asked),
        degree=degree_of(len(silos), max_colluding, max_missing),
        min_silos=min_silos,
        max_colluding=max_colluding,
        max_missing=max_missing,
        must_include=must_include or None,
        nonces=nonces,
    )
    reason = why_infeasible(*manifest.conditions) or why_too_few(len(silos), *manifest.conditions)
    if without := set(must_include) - set(silos):
        reason = f"a policy of the roster takes no part without {', '.join(sorted(without))}"
    if reason:
        raise ProtocolError(reason)
    return manifest


def check_equal(manifest: Manifest, expected: Manifest, of: str) -> None:
    """Raise ProtocolError, which names the first difference, unless two manifests are the same."""
    for field in Manifest.model_fields:
        if getattr(manifest, field) != getattr(expected, field):
            raise ProtocolError(f"the manifest's {field} is not what {of} give")


def check_manifest(
    manifest: Manifest,
    propose: Propose,
    terms: Terms,
    accepts: Sequence[bytes],
    keys: Mapping[str, VerifyKey],
) -> list[Signed[Accept]]:
    """Return the acceptances, if they are signed by known silos and `manifest` follows from them.

    Raises ProtocolError, which names the difference, and WireError or SignatureError from the acceptances.
    """
    if len(accepts) > MAX_SILOS:
        raise ProtocolError(f"{len(accepts)} acceptances, at most {MAX_SILOS}")
    signed = [verify(envelope, Accept, keys) for envelope in accepts]
    composed = compose(propose, terms, [(one.signer, one.message) for one in signed])
    check_equal(manifest, composed, "request and acceptances")
    return signed
