"""What silos submit after the manifest, and what a recipient receives: docs/protocol.md sections 4 to 7."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from blake3 import blake3
from pydantic import Field

from crypto.errors import ProtocolError
from crypto.manifest import CHUNK_VALUES, MAX_VALUES, Manifest
from crypto.wire import MAX_SILOS, Count, Digest, Message, Name, RoundId, Signed

FRAME_CHUNKS = 8  # 4 MiB of 8-byte values to a frame
_PER_SILO = Field(max_length=MAX_SILOS)
_MAX_SEALED = 8 * 1024


class Share(Message):
    """Aggregator to silo: the manifest and the acceptances it was composed from."""

    KIND: ClassVar[str] = "share"
    MAX_BYTES: ClassVar[int] = 4 << 20
    manifest: bytes
    accepts: Annotated[tuple[bytes, ...], _PER_SILO]


class Entry(Message):
    """One silo's sealed values for another: key shares to its channel key, a pair seed to its mask key.

    `pair_seed` is empty where the receiver stands before the sender in the roster, or is the sender itself.
    """

    shares: Annotated[bytes, Field(max_length=_MAX_SEALED)]
    pair_seed: Annotated[bytes, Field(max_length=_MAX_SEALED)]


class Bundle(Message):
    """Silo to all: the digests of my entries, in roster order. Signed, so nobody is dealt another one."""

    KIND: ClassVar[str] = "bundle"
    manifest_hash: Digest
    entries: Annotated[tuple[Digest, ...], _PER_SILO]


class Shared(Message):
    """Silo to aggregator: my signed bundle and the entries themselves, in roster order."""

    KIND: ClassVar[str] = "shared"
    MAX_BYTES: ClassVar[int] = 2 << 20
    bundle: bytes
    entries: Annotated[tuple[bytes, ...], _PER_SILO]


class Deliver(Message):
    """Aggregator to silo: every member's bundle and its entry for this silo, both in roster order."""

    KIND: ClassVar[str] = "deliver"
    MAX_BYTES: ClassVar[int] = 4 << 20
    bundles: Annotated[tuple[bytes, ...], _PER_SILO]
    entries: Annotated[tuple[bytes, ...], _PER_SILO]


class Contribution(Message):
    """Silo to aggregator: the BLAKE3 digests of my blinded chunks; the payload follows in frames."""

    KIND: ClassVar[str] = "contribution"
    MAX_BYTES: ClassVar[int] = 64 * 1024
    manifest_hash: Digest
    length: Annotated[int, Field(ge=1, le=MAX_VALUES)]
    chunks: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=MAX_VALUES // CHUNK_VALUES)]


class Survivor(Message):
    """A silo whose whole contribution arrived, and the SHA-256 of its signed Contribution's body."""

    silo: Name
    contribution: Digest


class Split(Message):
    """Aggregator to silo: whose contributions are in the sum and whose are not. Silos answer by signing it."""

    KIND: ClassVar[str] = "split"
    manifest_hash: Digest
    survivors: Annotated[tuple[Survivor, ...], _PER_SILO]
    dropped: Annotated[tuple[Name, ...], _PER_SILO]


class Open(Message):
    """Aggregator to silo: a quorum signed the same split."""

    KIND: ClassVar[str] = "open"
    MAX_BYTES: ClassVar[int] = 8 << 20
    signatures: Annotated[tuple[bytes, ...], _PER_SILO]


class OpenedShares(Message):
    """Inside a seal: the sender's share of every member's secret, in roster order: b of a survivor, r of a dropped."""

    shares: Annotated[tuple[Digest, ...], Field(max_length=MAX_SILOS, repr=False)]


class Opening(Message):
    """Silo to recipients: my shares, sealed to each recipient of the manifest in its order."""

    KIND: ClassVar[str] = "opening"
    MAX_BYTES: ClassVar[int] = 1 << 20
    manifest_hash: Digest
    split_hash: Digest
    sealed: Annotated[tuple[bytes, ...], _PER_SILO]


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


class Failure(Message):
    """Aggregator to analyst: no report came about, who was missing, and what the silos that refused said."""

    KIND: ClassVar[str] = "failure"
    MAX_BYTES: ClassVar[int] = 40 << 20
    request_hash: Digest
    reason: Annotated[str, Field(max_length=1000)]
    missing: Annotated[tuple[Name, ...], _PER_SILO]
    refusals: Annotated[tuple[bytes, ...], _PER_SILO]


class DroppedSeeds(Message):
    """The pair seeds sealed to a dropped silo's mask key, by those before it in the roster, in roster order."""

    silo: Name
    entries: Annotated[tuple[bytes, ...], _PER_SILO]


class EncryptedReport(Message):
    """All that a recipient needs to check and open one sum. The aggregator keeps it and cannot read it."""

    KIND: ClassVar[str] = "report"
    MAX_BYTES: ClassVar[int] = 256 << 20
    propose: bytes
    manifest: bytes
    accepts: Annotated[tuple[bytes, ...], _PER_SILO]
    bundles: Annotated[tuple[bytes, ...], _PER_SILO]
    contributions: Annotated[tuple[bytes, ...], _PER_SILO]
    signatures: Annotated[tuple[bytes, ...], _PER_SILO]
    openings: Annotated[tuple[bytes, ...], _PER_SILO]
    dropped: Annotated[tuple[DroppedSeeds, ...], _PER_SILO]
    refusals: Annotated[tuple[bytes, ...], _PER_SILO]
    length: Count
    blinded_sum: bytes


def chunk_digests(payload: bytes, word_bytes: int) -> tuple[bytes, ...]:
    """Return the BLAKE3 digest of every chunk of CHUNK_VALUES ring elements."""
    step = CHUNK_VALUES * word_bytes
    view = memoryview(payload)
    return tuple(blake3(view[start : start + step]).digest() for start in range(0, len(payload), step))


def check_split(manifest: Manifest, manifest_hash: bytes, split: Split) -> None:
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


def check_signatures(manifest: Manifest, signatures: Sequence[Signed[Split]]) -> None:
    """Raise ProtocolError unless a quorum of distinct survivors signed one and the same split."""
    if len({one.signer for one in signatures}) < manifest.quorum or len({one.digest for one in signatures}) != 1:
        raise ProtocolError(f"the split lacks the {manifest.quorum} equal signatures of a quorum")
    survivors = {survivor.silo for survivor in signatures[0].message.survivors}
    if not {one.signer for one in signatures} <= survivors:
        raise ProtocolError("the split is signed by a silo that it does not count among the survivors")
