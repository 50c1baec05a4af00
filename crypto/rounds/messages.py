"""What silos submit after the manifest, and what a recipient receives: docs/protocol.md sections 4 to 7."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from crypto.backends.scheme import CHUNK_VALUES, MAX_VALUES
from crypto.errors import ProtocolError
from crypto.keys import VerifyKey
from crypto.rounds.manifest import Manifest
from crypto.wire import MAX_SILOS, Digest, Message, Name, RoundId, Seconds, Signature, verify_detached

_PER_SILO = Field(max_length=MAX_SILOS)
_MAX_SEALED = 8 * 1024


class Share(Message):
    """Aggregator to silo: the manifest and the acceptances it was composed from."""

    KIND: ClassVar[str] = "share"
    MAX_BYTES: ClassVar[int] = 8 << 20
    manifest: bytes
    accepts: Annotated[tuple[bytes, ...], _PER_SILO]


class Entry(Message):
    """One silo's sealed values for another: key shares to its channel key, a pair seed to its mask key.

    `pair_seed` is empty where the receiver stands before the sender in the roster, or is the sender itself.
    """

    shares: Annotated[bytes, Field(max_length=_MAX_SEALED)]
    pair_seed: Annotated[bytes, Field(max_length=_MAX_SEALED)]


class Bundle(Message):
    """Silo to its committee: the digests of my entries for it. Signed, so nobody is dealt another one."""

    KIND: ClassVar[str] = "bundle"
    manifest_hash: Digest
    entries: Annotated[tuple[Digest, ...], _PER_SILO]


class Shared(Message):
    """Silo to aggregator: my signed bundle and the entries themselves, one for each of my committee."""

    KIND: ClassVar[str] = "shared"
    MAX_BYTES: ClassVar[int] = 4 << 20
    bundle: bytes
    entries: Annotated[tuple[bytes, ...], _PER_SILO]


class Deliver(Message):
    """Aggregator to silo: the bundle and the entry for this silo of each of its committee, in roster order."""

    KIND: ClassVar[str] = "deliver"
    MAX_BYTES: ClassVar[int] = 16 << 20
    bundles: Annotated[tuple[bytes, ...], _PER_SILO]
    entries: Annotated[tuple[bytes, ...], _PER_SILO]


class Ready(Message):
    """Silo to all: what every member of my committee sealed to me opens; nothing has been computed yet."""

    KIND: ClassVar[str] = "ready"
    manifest_hash: Digest


class Go(Message):
    """Aggregator to silo: the signatures of the whole roster under one Ready, in roster order."""

    KIND: ClassVar[str] = "go"
    MAX_BYTES: ClassVar[int] = 256 * 1024
    signatures: Annotated[tuple[Signature, ...], _PER_SILO]


class Contribution(Message):
    """Silo to aggregator: the BLAKE3 digests of the pieces of my blinded vector, which follow in frames.

    `consent_as_of` is the clock time at which decisions on consent were read; absent where the purpose asks for none.
    """

    KIND: ClassVar[str] = "contribution"
    MAX_BYTES: ClassVar[int] = 64 * 1024
    manifest_hash: Digest
    length: Annotated[int, Field(ge=1, le=MAX_VALUES)]
    chunks: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=MAX_VALUES // CHUNK_VALUES)]
    consent_as_of: Annotated[Seconds | None, Field(default=None, exclude_if=lambda time: time is None)] = None


class Survivor(Message):
    """A silo whose whole contribution arrived, and the SHA-256 of its signed Contribution's body."""

    silo: Name
    contribution: Digest


class SurvivorSet(Message):
    """Aggregator to silo: whose contributions are in the sum and whose are not. Silos answer by signing it."""

    KIND: ClassVar[str] = "split"
    manifest_hash: Digest
    survivors: Annotated[tuple[Survivor, ...], _PER_SILO]
    dropped: Annotated[tuple[Name, ...], _PER_SILO]


class Open(Message):
    """Aggregator to silo: the encoded SurvivorSet, and the signatures of a quorum under it."""

    KIND: ClassVar[str] = "open"
    MAX_BYTES: ClassVar[int] = 256 * 1024
    split: bytes
    signatures: Annotated[tuple[Signature, ...], _PER_SILO]


class Cancel(Message):
    """Aggregator to silo: the round that I proposed is over; forget it."""

    KIND: ClassVar[str] = "cancel"
    round_id: RoundId


class OpenedShares(Message):
    """Inside a seal: the sender's share of the secret of each of its committee: b of a survivor, r of a dropped."""

    shares: Annotated[tuple[Digest, ...], Field(max_length=MAX_SILOS, repr=False)]


class Opening(Message):
    """Silo to recipients: my shares, sealed to each recipient of the manifest in its order."""

    KIND: ClassVar[str] = "opening"
    MAX_BYTES: ClassVar[int] = 4 << 20
    manifest_hash: Digest
    split_hash: Digest
    sealed: Annotated[tuple[bytes, ...], _PER_SILO]
    sums: Annotated[tuple[Digest, ...], _PER_SILO]  # BLAKE3 of my sum as sealed to each recipient, in `shares`


class Learned(Message):
    """Silo to analyst: the report of a training run, by its SHA-256, that my model was moved by last."""

    KIND: ClassVar[str] = "learned"
    run: RoundId
    position: Digest


class Failed(Message):
    """Silo to aggregator: I cannot take this step. The reason never speaks of data; the owner's log says more."""

    KIND: ClassVar[str] = "failed"
    round_id: RoundId
    reason: Annotated[str, Field(max_length=500)]


class Accusation(Message):
    """Silo to aggregator: what another silo sealed for me does not hold, so I am not ready."""

    KIND: ClassVar[str] = "accusation"
    round_id: RoundId
    accused: Name


class Failure(Message):
    """Aggregator to analyst: no report came about, who was missing, and what the silos that refused said."""

    KIND: ClassVar[str] = "failure"
    MAX_BYTES: ClassVar[int] = 40 << 20
    request_hash: Digest
    reason: Annotated[str, Field(max_length=1000)]
    missing: Annotated[tuple[Name, ...], _PER_SILO]
    refusals: Annotated[tuple[bytes, ...], _PER_SILO]


def check_split(manifest: Manifest, manifest_hash: bytes, split: SurvivorSet) -> None:
    """Raise ProtocolError unless `split` parts the roster and leaves enough survivors."""
    survivors = tuple(survivor.silo for survivor in split.survivors)
    if split.manifest_hash != manifest_hash:
        raise ProtocolError("the split belongs to another manifest")
    if survivors != tuple(sorted(set(survivors))) or split.dropped != tuple(sorted(set(split.dropped))):
        raise ProtocolError("the split is not sorted or names a silo twice")
    if tuple(sorted(survivors + split.dropped)) != manifest.silos:
        raise ProtocolError("the split does not part the roster into survivors and dropped")
    if len(survivors) < manifest.min_survivors:
        raise ProtocolError(f"{len(survivors)} survivors, at least {manifest.min_survivors} are needed")
    if len(split.dropped) > manifest.max_missing:
        raise ProtocolError(f"{len(split.dropped)} silos dropped, at most {manifest.max_missing} may")


def check_signatures(
    manifest: Manifest, split: bytes, signatures: Sequence[Signature], keys: Mapping[str, VerifyKey]
) -> SurvivorSet:
    """Return the split that a quorum of its distinct survivors signed.

    Raises ProtocolError without a quorum, SignatureError on a signature that does not hold.
    """
    signers = {one.signer for one in signatures}
    if len(signers) < manifest.quorum or len(signers) != len(signatures):
        raise ProtocolError(f"the split lacks the signatures of {manifest.quorum} distinct silos")
    for one in signatures:
        verify_detached(one, split, SurvivorSet, keys)
    message = SurvivorSet.decode(split)
    if not signers <= {survivor.silo for survivor in message.survivors}:
        raise ProtocolError("the split is signed by a silo that it does not count among the survivors")
    return message


def check_ready(
    manifest: Manifest, manifest_hash: bytes, signatures: Sequence[Signature], keys: Mapping[str, VerifyKey]
) -> None:
    """Raise ProtocolError or SignatureError unless every silo of the roster signed that it is ready."""
    if tuple(one.signer for one in signatures) != manifest.silos:
        raise ProtocolError("not every silo of the roster is ready")
    body = Ready(manifest_hash=manifest_hash).encode()
    for one in signatures:
        verify_detached(one, body, Ready, keys)
