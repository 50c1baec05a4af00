"""Who sums what under which rules: the manifest of one round, and the checks that every party makes on it.

The manifest is a pure function of the signed request and of the signed acceptances of its roster (`compose`), so a
party checks it by composing it again and comparing: a key, quorum or deviation that the aggregator altered shows.
docs/protocol.md sections 3 and 4.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.backends.scheme import MAX_VALUES
from crypto.errors import ProtocolError
from crypto.keys import VerifyKey
from crypto.rounds.bounds import fewest_survivors, why_infeasible
from crypto.rounds.committees import committees, degree_of, quorum_of
from crypto.sealing import PUBLIC_BYTES, seal
from crypto.wire import MAX_RECIPIENTS, MAX_SILOS, Count, Digest, Message, Name, RoundId, Seconds, Signed, verify

PublicKey = Annotated[bytes, Field(min_length=PUBLIC_BYTES, max_length=PUBLIC_BYTES)]


BackendName = Literal["masking", "shares", "bfv", "ckks", "paillier"]
KeyId = Annotated[bytes, Field(max_length=32)]


class Recipient(Message):
    """Someone to whom the sum is opened, and the key it is sealed to."""

    name: Name
    key: PublicKey


class Block(Message):
    """A run of slots with one meaning, one scale and one noise variance (all in ring units of 2^-scale_bits)."""

    name: Annotated[str, Field(min_length=1, max_length=160)]
    length: Annotated[int, Field(ge=1, le=MAX_VALUES)]
    scale_bits: Annotated[int, Field(ge=0, le=62)]
    variance: Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,39})$")]  # decimal; of the sum over n - a - d silos


class Terms(Message):
    """What the analyst's signed request fixes about its sum."""

    request_hash: Digest
    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    backend: BackendName
    key_id: KeyId  # of the round's homomorphic key, where the backend has one
    limit: Annotated[int, Field(ge=1, lt=2**63)]  # largest magnitude of a value of one silo, noise included
    blocks: Annotated[tuple[Block, ...], Field(min_length=1, max_length=256)]


class Propose(Message):
    """Aggregator to silo: will you take part in this request?"""

    KIND: ClassVar[str] = "propose"
    MAX_BYTES: ClassVar[int] = 1 << 20
    federation: Name
    round_id: RoundId
    expires_at: Seconds
    request: bytes  # the analyst's envelope


class Accept(Message):
    """Silo to aggregator: yes, with the keys of this round and the conditions of my policy."""

    KIND: ClassVar[str] = "accept"
    federation: Name
    round_id: RoundId
    request_hash: Digest
    expires_at: Seconds
    mask_key: PublicKey
    channel_key: PublicKey
    self_commitment: Digest
    policy_hash: Digest
    min_silos: Annotated[int, Field(ge=0, le=MAX_SILOS)]
    max_colluding: Annotated[int, Field(ge=1, le=MAX_SILOS)]
    max_missing: Annotated[int, Field(ge=0, le=MAX_SILOS)]


class Member(Message):
    """One silo of the roster, as its acceptance describes it."""

    silo: Name
    mask_key: PublicKey
    channel_key: PublicKey
    self_commitment: Digest
    policy_hash: Digest


class Manifest(Message):
    """The whole agreement of one round; everything after Propose is bound to its SHA-256."""

    KIND: ClassVar[str] = "manifest"
    MAX_BYTES: ClassVar[int] = 4 << 20
    federation: Name
    round_id: RoundId
    expires_at: Seconds
    terms: Terms
    roster: Annotated[tuple[Member, ...], Field(min_length=1, max_length=MAX_SILOS)]
    quorum: Count
    degree: Count
    min_silos: Count
    max_colluding: Count
    max_missing: Count

    @property
    def silos(self) -> tuple[str, ...]:
        return tuple(member.silo for member in self.roster)

    def committees(self, manifest_hash: bytes) -> tuple[tuple[int, ...], ...]:
        """Return of every silo the places of those that hold shares of its secrets; see `crypto.rounds.committees`."""
        return committees(self.silos, self.degree, manifest_hash)

    @property
    def committee_quorum(self) -> int:
        """The number of shares that rebuild a secret of one silo."""
        return quorum_of(self.degree + 1)

    @property
    def length(self) -> int:
        return sum(block.length for block in self.terms.blocks)

    @property
    def noise_shares(self) -> int:
        """The number of silos whose noise alone must reach the variance of every block."""
        return len(self.roster) - self.max_colluding - self.max_missing

    @property
    def min_survivors(self) -> int:
        return fewest_survivors(self.quorum, self.min_silos, self.max_colluding)


def check_accept(propose: Propose, terms: Terms, silo: str, accept: Accept) -> None:
    """Raise ProtocolError if an acceptance belongs to another round or request."""
    expected = propose.federation, propose.round_id, terms.request_hash, propose.expires_at
    if (accept.federation, accept.round_id, accept.request_hash, accept.expires_at) != expected:
        raise ProtocolError(f"the acceptance of {silo!r} belongs to another round or request")


def check_round_keys(accept: Accept) -> None:
    """Raise SealError if a key of this round is one that nothing can be sealed to."""
    for key in (accept.mask_key, accept.channel_key):
        seal(key, b"", b"")


def compose(propose: Propose, terms: Terms, accepts: Sequence[tuple[str, Accept]]) -> Manifest:
    """Return the one manifest that these acceptances (silo name, message) give rise to.

    Raises ProtocolError if one belongs to another round or request, or if the roster cannot bear its conditions.
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
    max_colluding = max(accept.max_colluding for _, accept in accepts)
    max_missing = max(accept.max_missing for _, accept in accepts)
    members = tuple(
        Member(
            silo=silo,
            mask_key=accept.mask_key,
            channel_key=accept.channel_key,
            self_commitment=accept.self_commitment,
            policy_hash=accept.policy_hash,
        )
        for silo, accept in sorted(accepts)
    )
    manifest = Manifest(
        federation=propose.federation,
        round_id=propose.round_id,
        expires_at=propose.expires_at,
        terms=terms,
        roster=members,
        quorum=quorum_of(len(members)),
        degree=degree_of(len(members), max_colluding, max_missing),
        min_silos=max(accept.min_silos for _, accept in accepts),
        max_colluding=max_colluding,
        max_missing=max_missing,
    )
    reason = why_infeasible(len(members), manifest.min_silos, manifest.max_colluding, manifest.max_missing)
    if reason:
        raise ProtocolError(reason)
    return manifest


def check_manifest(
    manifest: Manifest,
    propose: Propose,
    terms: Terms,
    accepts: Sequence[bytes],
    keys: Mapping[str, VerifyKey],
) -> list[Signed[Accept]]:
    """Raise unless `manifest` is what the signed acceptances of known silos give rise to; return those.

    ProtocolError names what differs; WireError and SignatureError come from the acceptances.
    """
    if len(accepts) > MAX_SILOS:
        raise ProtocolError(f"{len(accepts)} acceptances, at most {MAX_SILOS}")
    signed = [verify(envelope, Accept, keys) for envelope in accepts]
    composed = compose(propose, terms, [(one.signer, one.message) for one in signed])
    for field in Manifest.model_fields:
        if getattr(manifest, field) != getattr(composed, field):
            raise ProtocolError(f"the manifest's {field} is not what request and acceptances give")
    return signed
