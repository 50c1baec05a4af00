"""The messages of a round after the manifest, and the checks that all parties share: docs/protocol.md sections 4 to 7.

One key may sign in two federations. So each signed message has the federation's name, or the hash of a manifest or
request that has it.

Promise: no check passes a survivor set with too few survivors, or fewer signatures than a quorum (section 8, rows C5,
D2, D3, E1 and G4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.backends.scheme import MAX_CHUNKS, MAX_VALUES
from crypto.errors import ProtocolError, WireError
from crypto.keys import VerifyKey
from crypto.merkle import HASH_BYTES, leaf_hash, shown_root
from crypto.rounds.bounds import why_too_few
from crypto.rounds.committees import MAX_COMMITTEE
from crypto.rounds.manifest import Manifest
from crypto.sealing import OVERHEAD_BYTES
from crypto.wire import (
    MAX_SILOS,
    SHARE_BYTES,
    Count,
    Digest,
    Message,
    Name,
    RoundId,
    Seconds,
    Signature,
    SignatureBytes,
    verify_detached,
)

PER_SILO = Field(max_length=MAX_SILOS)
SEED_BYTES = 32
SEALED_SHARES = OVERHEAD_BYTES + 2 * SHARE_BYTES
SEALED_SEED = OVERHEAD_BYTES + SEED_BYTES
_MAX_DEPTH = 10  # of a tree over MAX_SILOS leaves
MAX_WITNESSES = 5  # one for each condition of a manifest
MAX_TESTIMONY = 6  # messages that a silo signs in a round
MAX_MANIFESTS = 8  # that a failure holds
_MAX_PROOF = (MAX_COMMITTEE + MAX_WITNESSES) * _MAX_DEPTH


Path = Annotated[bytes, Field(max_length=_MAX_DEPTH * HASH_BYTES)]


class ShareKeys(Message):
    """Aggregator to silo: the manifest, and the proof that the acceptances which follow are leaves under its root.

    `witnesses` are the places of members that the silo would not see and whose conditions are those of the manifest.

    For every other member that the silo is shown, in roster order, there follow as bytes: its signed acceptance, its
    channel key and, if it comes later in the roster, its mask key. The signed acceptances of the witnesses come last.
    """

    KIND: ClassVar[str] = "share"
    MAX_BYTES: ClassVar[int] = 2 << 20
    manifest: bytes
    witnesses: Annotated[tuple[Count, ...], Field(max_length=MAX_WITNESSES)]
    proof: Annotated[tuple[Digest, ...], Field(max_length=_MAX_PROOF)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One silo's sealed values for another: key shares to its channel key, a pair seed to its mask key.

    `pair_seed` is empty if the receiver precedes the sender in the roster. On the wire one follows the other.
    """

    shares: bytes = field(repr=False)
    pair_seed: bytes = field(repr=False)

    def encode(self) -> bytes:
        return self.shares + self.pair_seed

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the entry with the encoding `data`; raises WireError on any other length."""
        if len(data) not in (SEALED_SHARES, SEALED_SHARES + SEALED_SEED):
            raise WireError(f"an entry of {len(data)} bytes, expected {SEALED_SHARES} or {SEALED_SHARES + SEALED_SEED}")
        return cls(data[:SEALED_SHARES], data[SEALED_SHARES:])


class Bundle(Message):
    """Silo to its committee: the root of the tree over my entries for it, so that nobody receives a different entry.

    The signed bundle is followed by the entries as bytes, one for each other member, in roster order.
    """

    KIND: ClassVar[str] = "bundle"
    manifest_hash: Digest
    entries: Digest


class Deliver(Message):
    """Aggregator to silo: of each other member of its committee, in roster order, what binds its entry for this silo.

    A signature is the sender's under its Bundle, and a path the hashes that lead from the entry to the Bundle's root.
    The entries follow as bytes.
    """

    KIND: ClassVar[str] = "deliver"
    MAX_BYTES: ClassVar[int] = 1 << 20
    signatures: Annotated[tuple[Signature, ...], Field(max_length=MAX_COMMITTEE)]
    paths: Annotated[tuple[Path, ...], Field(max_length=MAX_COMMITTEE)]


class Ready(Message):
    """Silo to all: I could open the entry of every member of my committee. Nothing has been computed yet."""

    KIND: ClassVar[str] = "ready"
    manifest_hash: Digest


class Go(Message):
    """Aggregator to silo: the signatures of the whole roster under one Ready, in roster order."""

    KIND: ClassVar[str] = "go"
    MAX_BYTES: ClassVar[int] = 128 * 1024
    signatures: Annotated[tuple[SignatureBytes, ...], PER_SILO]


class Contribution(Message):
    """Silo to aggregator: the BLAKE3 digests of the pieces of my blinded vector, which follow in frames.

    `consent_as_of` is the clock time at which decisions on consent were read; absent if the purpose asks for none.
    `rows_as_of` is when the files of prepared rows were last seen unchanged; absent if rows were read at this step.
    """

    KIND: ClassVar[str] = "contribution"
    MAX_BYTES: ClassVar[int] = 1 << 20
    MAX_COMMAS: ClassVar[int] = MAX_CHUNKS + 16  # a digest of each chunk
    manifest_hash: Digest
    length: Annotated[int, Field(ge=1, le=MAX_VALUES)]
    chunks: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=MAX_CHUNKS)]
    consent_as_of: Annotated[Seconds | None, Field(default=None, exclude_if=lambda time: time is None)] = None
    rows_as_of: Annotated[Seconds | None, Field(default=None, exclude_if=lambda time: time is None)] = None


class Survivor(Message):
    """A silo whose whole contribution arrived, and the SHA-256 of its signed Contribution's body."""

    silo: Name
    contribution: Digest


class SurvivorSet(Message):
    """Aggregator to silo: whose contributions are in the sum and whose are not. Silos answer with their signatures."""

    KIND: ClassVar[str] = "split"
    MAX_BYTES: ClassVar[int] = 256 * 1024
    manifest_hash: Digest
    survivors: Annotated[tuple[Survivor, ...], PER_SILO]
    dropped: Annotated[tuple[Name, ...], PER_SILO]
    # The BLAKE3 of the digests of the sum's chunks, one after the other; left out in a round that is not long.
    sum: Annotated[Digest | None, Field(default=None, exclude_if=lambda digest: digest is None)] = None


class Open(Message):
    """Aggregator to silo: the signatures of a quorum under the survivor set that the silo signed."""

    KIND: ClassVar[str] = "open"
    MAX_BYTES: ClassVar[int] = 256 * 1024
    signatures: Annotated[tuple[Signature, ...], PER_SILO]


class Cancel(Message):
    """Aggregator to silo: the round that I proposed is over; forget it."""

    KIND: ClassVar[str] = "cancel"
    federation: Name
    round_id: RoundId


class UnmaskingShares(Message):
    """Inside a seal: the sender's key share for each member of its committee: b of a survivor, r of a dropped silo."""

    shares: Annotated[tuple[Digest, ...], Field(max_length=MAX_COMMITTEE, repr=False)]


class Opening(Message):
    """Silo to recipients: my shares, sealed to each recipient of the manifest in its order."""

    KIND: ClassVar[str] = "opening"
    MAX_BYTES: ClassVar[int] = 4 << 20
    manifest_hash: Digest
    split_hash: Digest
    sealed: Annotated[tuple[bytes, ...], PER_SILO]
    # BLAKE3 of what is sealed to each recipient and follows this: my sum in `shares`, my shares in a long round.
    sums: Annotated[tuple[Digest, ...], PER_SILO]
    nonce: Annotated[Digest | None, Field(default=None, exclude_if=lambda nonce: nonce is None)] = None  # if long


class Challenge(Message):
    """Aggregator to silo, in a long round: the nonce of every member in roster order, empty where it told none.

    The coefficients of the inner products follow from its SHA-256: `crypto.rounds.products`.
    """

    KIND: ClassVar[str] = "challenge"
    MAX_BYTES: ClassVar[int] = 128 * 1024
    manifest_hash: Digest
    split_hash: Digest
    nonces: Annotated[tuple[Annotated[bytes, Field(max_length=HASH_BYTES)], ...], PER_SILO]


class Products(Message):
    """Silo to recipients, in a long round: the inner products of my blinded vector with two rows of coefficients."""

    KIND: ClassVar[str] = "products"
    manifest_hash: Digest
    split_hash: Digest
    challenge: Digest  # SHA-256 of the Challenge
    values: Annotated[bytes, Field(min_length=16, max_length=16)]  # two little-endian words of 8 bytes


# Why a run is at its end before its last step: the aim is met, the last good model stands, or its analyst gave it up.
RunEnd = Literal["complete", "no-maximum", "diverged", "too-few-rows", "abandoned", "patience"]


class ModelUpdated(Message):
    """Silo to analyst: the SHA-256 of the last report from which my model of a training run has learned."""

    KIND: ClassVar[str] = "learned"
    federation: Name
    run: RoundId
    position: Digest
    # Why no further step of the run is taken here; left out while it goes on.
    ended: Annotated[RunEnd | None, Field(default=None, exclude_if=lambda ended: ended is None)] = None


class Stopped(Message):
    """Analyst to the silos of a run, signed: it is over, and what its unbegun steps have reserved is given back.

    `learned` is the ModelUpdated whose `ended` a quorum of the run's silos signed alike, and `signatures` are theirs.
    Without them the analyst alone gives the run up: a silo takes no further step of it, says so in its ModelUpdated,
    and keeps what is reserved until a quorum has said so.
    """

    KIND: ClassVar[str] = "stopped"
    MAX_BYTES: ClassVar[int] = 256 * 1024
    federation: Name
    run: RoundId
    silos: Annotated[tuple[Name, ...], PER_SILO]  # that the run asks
    learned: Annotated[ModelUpdated | None, Field(default=None, exclude_if=lambda learned: learned is None)] = None
    signatures: Annotated[tuple[Signature, ...], PER_SILO] = ()


class Failed(Message):
    """Silo to aggregator: I cannot take this step. The reason never mentions data; the owner's `silo.log` has more."""

    KIND: ClassVar[str] = "failed"
    federation: Name
    round_id: RoundId
    reason: Annotated[str, Field(max_length=500)]


class Accusation(Message):
    """Silo to all: the entry of another silo for me is not valid, so I am not ready; and what proves it.

    `channel` and `root` are the secrets of this round's channel key and mask key, by which anybody can try to open the
    entry. Nothing is masked with them: a round goes on only if every silo is ready, and I have left this one.
    """

    KIND: ClassVar[str] = "accusation"
    manifest_hash: Digest
    accused: Name
    signature: SignatureBytes  # of the accused, under its Bundle
    path: Path  # from the entry to the root in that Bundle
    entry: Annotated[bytes, Field(max_length=SEALED_SHARES + SEALED_SEED)]
    channel: Annotated[Digest, Field(repr=False)]
    root: Annotated[Digest, Field(repr=False)]


class SiloTestimony(Message):
    """Aggregator to analyst: what a silo signed in the last round that it was in, and what is wrong with it.

    `wrong` is in the words of the aggregator; empty where it finds nothing wrong.
    """

    silo: Name
    wrong: Annotated[str, Field(max_length=300)]
    signed: Annotated[tuple[bytes, ...], Field(max_length=MAX_TESTIMONY)]


class Failure(Message):
    """Aggregator to analyst: there is no report; who did not answer, who was left out, and what they signed."""

    KIND: ClassVar[str] = "failure"
    MAX_BYTES: ClassVar[int] = 100 << 20
    MAX_COMMAS: ClassVar[int] = 2**16
    request_hash: Digest
    reason: Annotated[str, Field(max_length=1000)]
    missing: Annotated[tuple[Name, ...], PER_SILO]  # that did not answer
    left_out: Annotated[tuple[Name, ...], PER_SILO]  # whose answer was of no use, or whose conditions no roster meets
    refusals: Annotated[tuple[bytes, ...], PER_SILO]
    failed: Annotated[tuple[bytes, ...], PER_SILO]  # the signed Failed of silos that could not take a step
    away: bytes  # the signed Away; empty if it would name nobody
    charged: bool  # silos were told to contribute, so the charges of those that did stand
    manifests: Annotated[tuple[bytes, ...], Field(max_length=MAX_MANIFESTS)]  # of the last rounds
    testimonies: Annotated[tuple[SiloTestimony, ...], PER_SILO]  # of the silos that did not answer or were left out


class Away(Message):
    """Aggregator to silos, in a later request: these took no part in that request, and have not refused it.

    Whoever reads it may not have the request itself, so its hash alone would not tell the federation.
    """

    KIND: ClassVar[str] = "away"
    federation: Name
    request_hash: Digest
    silos: Annotated[tuple[Name, ...], PER_SILO]


class Found(Message):
    """Aggregator to analyst: what it has for a request, by the hash of the request.

    `report` is the name of the stored report, and `erased_at` when its retention ended; each only in its state.
    """

    KIND: ClassVar[str] = "found"
    state: Literal["none", "running", "kept", "erased"]
    report: Annotated[bytes, Field(max_length=32)] = b""
    erased_at: Seconds = 0

    @model_validator(mode="after")
    def _each_in_its_state(self) -> Self:
        if len(self.report) != (32 if self.state == "kept" else 0):
            raise ValueError(f"a report's name of {len(self.report)} bytes where the state is {self.state}")
        if self.erased_at and self.state != "erased":
            raise ValueError(f"a time of erasure where the state is {self.state}")
        return self


def entries_root(
    manifest: Manifest, manifest_hash: bytes, sender: int, receiver: int, entry: bytes, path: bytes
) -> bytes:
    """Return the root of a sender's tree in which this path leads from the entry for a receiver; both by their places.

    Raises ProtocolError unless the receiver is another member of the sender's committee and the path has its length.
    """
    others = [place for place in manifest.committee(manifest_hash, sender) if place != sender]
    if receiver not in others:
        raise ProtocolError("the entry is for a silo outside its sender's committee")
    proof = [path[start : start + HASH_BYTES] for start in range(0, len(path), HASH_BYTES)]
    return shown_root(len(others), {others.index(receiver): leaf_hash(entry)}, proof)


def sealed_row_bytes(manifest: Manifest) -> int:
    """Return how many bytes an opening has for one recipient: a share of each of a committee, sealed."""
    row = UnmaskingShares(shares=(bytes(SHARE_BYTES),) * (manifest.degree + 1))
    return OVERHEAD_BYTES + len(row.encode())


def check_survivors(manifest: Manifest, manifest_hash: bytes, survivor_set: SurvivorSet) -> None:
    """Raise ProtocolError unless `survivor_set` divides the roster exactly and leaves enough survivors."""
    survivors = tuple(survivor.silo for survivor in survivor_set.survivors)
    if survivor_set.manifest_hash != manifest_hash:
        raise ProtocolError("the survivor set belongs to another manifest")
    if survivors != tuple(sorted(set(survivors))) or survivor_set.dropped != tuple(sorted(set(survivor_set.dropped))):
        raise ProtocolError("the survivor set is not sorted or names a silo twice")
    if tuple(sorted(survivors + survivor_set.dropped)) != manifest.silos:
        raise ProtocolError("the survivor set does not part the roster into survivors and dropped")
    if reason := why_too_few(len(survivors), *manifest.conditions):
        raise ProtocolError(reason)
    if lost := set(manifest.must_include or ()) - set(survivors):
        raise ProtocolError(f"a policy of the roster takes no part without {', '.join(sorted(lost))}")
    if (survivor_set.sum is not None) != manifest.terms.is_long:
        raise ProtocolError("the survivor set of a long round, and of no other, names the digest of its sum")


def check_signatures(
    manifest: Manifest, survivor_set: bytes, signatures: Sequence[Signature], keys: Mapping[str, VerifyKey]
) -> SurvivorSet:
    """Return the survivor set, if a quorum of its distinct survivors signed it.

    Raises ProtocolError without a quorum, SignatureError on an invalid signature.
    """
    signers = {one.signer for one in signatures}
    if len(signers) < manifest.quorum or len(signers) != len(signatures):
        raise ProtocolError(f"the survivor set lacks the signatures of {manifest.quorum} distinct silos")
    for one in signatures:
        verify_detached(one, survivor_set, SurvivorSet, keys)
    message = SurvivorSet.decode(survivor_set)
    if not signers <= {survivor.silo for survivor in message.survivors}:
        raise ProtocolError("the survivor set is signed by a silo that it does not count among the survivors")
    return message


def check_ready(
    manifest: Manifest, manifest_hash: bytes, signatures: Sequence[bytes], keys: Mapping[str, VerifyKey]
) -> None:
    """Raise ProtocolError or SignatureError unless every silo of the roster, in its order, signed that it is ready."""
    if len(signatures) != len(manifest.silos):
        raise ProtocolError("not every silo of the roster is ready")
    body = Ready(manifest_hash=manifest_hash).encode()
    for silo, signature in zip(manifest.silos, signatures, strict=True):
        verify_detached(Signature(signer=silo, signature=signature), body, Ready, keys)
