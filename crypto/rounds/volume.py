"""How many bytes a round takes at one silo, before there is a round: messages of the right form, with nothing in them.

What is counted is what the two ends say to each other; that of TLS, HTTP/2 and streams comes on top. All silos that are
asked take part and none is late. docs/protocol.md sections 3 to 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from crypto.merkle import MerkleTree, leaf_hash
from crypto.rounds.committees import MIN_DEGREE, degree_of, quorum_of
from crypto.rounds.manifest import Accept, Manifest, Propose, Terms
from crypto.rounds.messages import (
    SEALED_SEED,
    SEALED_SHARES,
    Bundle,
    Challenge,
    Contribution,
    Deliver,
    Go,
    ModelUpdated,
    Open,
    Opening,
    Products,
    Ready,
    ShareKeys,
    Survivor,
    SurvivorSet,
    sealed_row_bytes,
)
from crypto.rounds.payload import piece_sizes, scheme_of, sum_sizes
from crypto.rounds.report import REPORT_HEADER_BYTES, EncryptedReport
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import ROUND_ID_BYTES, Message, Signature, attach

_HASH, _SIGNATURE = bytes(32), bytes(64)


@dataclass(frozen=True, slots=True)
class Volume:
    """The bytes of one round at one silo: what it sends, and what it receives; of training with the report to learn."""

    up: int
    down: int


@dataclass(frozen=True, slots=True)
class _Sample:
    """A round as its messages tell it; every silo has a name as long as the longest one."""

    federation: str
    aggregator: str
    silos: tuple[str, ...]
    terms: Terms
    request_bytes: int
    round_key: bytes
    conditions: tuple[int, int, int]  # min_silos, max_colluding, max_missing
    now: int

    @property
    def name(self) -> str:
        return max(self.silos, key=len)

    def signed(self, message: Message) -> int:
        """Return the length of a message that a silo signs."""
        return len(attach(message, self.name, _SIGNATURE))

    @property
    def propose(self) -> bytes:
        message = Propose(
            federation=self.federation,
            round_id=bytes(ROUND_ID_BYTES),
            expires_at=self.now,
            request=bytes(self.request_bytes),
        )
        return attach(message, self.aggregator, _SIGNATURE)

    @property
    def accept(self) -> bytes:
        least, colluding, missing = self.conditions
        message = Accept(
            federation=self.federation,
            round_id=bytes(ROUND_ID_BYTES),
            request_hash=_HASH,
            expires_at=self.now,
            mask_key_hash=_HASH,
            channel_key_hash=_HASH,
            self_commitment=_HASH,
            policy_hash=_HASH,
            min_silos=least,
            max_colluding=colluding,
            max_missing=missing,
            nonce_hash=_HASH if self.terms.is_long else None,
        )
        return attach(message, self.name, _SIGNATURE)

    @property
    def manifest(self) -> Manifest:
        least, colluding, missing = self.conditions
        return Manifest(
            federation=self.federation,
            round_id=bytes(ROUND_ID_BYTES),
            expires_at=self.now,
            terms=self.terms,
            silos=self.silos,
            members=_HASH,
            quorum=quorum_of(len(self.silos)),
            degree=degree_of(len(self.silos), colluding, missing),
            min_silos=least,
            max_colluding=colluding,
            max_missing=missing,
            nonces=(_HASH,) * len(self.silos) if self.terms.is_long else None,
        )


def volume_of(
    federation: str,
    aggregator: str,
    silos: Sequence[str],
    terms: Terms,
    request_bytes: int,
    round_key: bytes,
    conditions: tuple[int, int, int],
    now: int,
    *,
    is_learned: bool,
) -> Volume:
    """Return the bytes of a round of a signed request of so many bytes, at a silo in the middle of the roster.

    `conditions` are min_silos, max_colluding and max_missing of the strictest policy. With `is_learned` the silos are
    the recipients, who receive the report, and every masked input of its sum unless it is a long one, which is proven.
    """
    sample = _Sample(federation, aggregator, tuple(silos), terms, request_bytes, round_key, conditions, now)
    manifest = sample.manifest
    scheme = scheme_of(manifest, round_key)
    count, members = len(silos), manifest.degree + 1
    others, later = members - 1, (members - 1) / 2  # of the committee; half of them come later in the roster
    pieces, recipients = piece_sizes(scheme), len(terms.recipients)
    signature = Signature(signer=sample.name, signature=_SIGNATURE)
    header = Contribution(manifest_hash=_HASH, length=manifest.length, chunks=(_HASH,) * len(pieces), consent_as_of=now)
    contribution = sample.signed(header)
    is_added_there = scheme.columns > 1  # by the silos, in `shares`
    is_long, row = terms.is_long, sealed_row_bytes(manifest)
    is_beside = is_added_there or is_long  # what is sealed to the recipients follows the opening
    opening = sample.signed(
        Opening(
            manifest_hash=_HASH,
            split_hash=_HASH,
            sealed=() if is_beside else (bytes(row),) * recipients,
            sums=(_HASH,) * recipients if is_beside else (),
            nonce=_HASH if is_long else None,
        )
    )
    bound = {"manifest_hash": _HASH, "split_hash": _HASH}
    products = sample.signed(Products(**bound, challenge=_HASH, values=bytes(16)))
    entries = others * SEALED_SHARES + later * SEALED_SEED
    up: float = len(sample.accept) + 2 * PUBLIC_BYTES
    up += sample.signed(Bundle(manifest_hash=_HASH, entries=_HASH)) + entries
    up += sample.signed(Ready(manifest_hash=_HASH)) + contribution + sum(pieces)
    up += len(signature.encode()) + opening
    if is_added_there:
        up += sum(sum_sizes(scheme, 1, recipients))
    if is_long:
        up += recipients * row + products
    split = SurvivorSet(
        manifest_hash=_HASH,
        survivors=tuple(Survivor(silo=silo, contribution=_HASH) for silo in silos),
        dropped=(),
        sum=_HASH if is_long else None,
    )
    manifest_sent = attach(manifest, aggregator, _SIGNATURE)
    down: float = len(sample.propose) + _shown(sample, manifest_sent, members)
    down += len(_deliver(sample.name, members).encode()) + entries
    down += len(Go(signatures=(_SIGNATURE,) * count).encode())
    down += len(attach(split, aggregator, _SIGNATURE))
    down += len(Open(signatures=(signature,) * manifest.quorum).encode())
    if is_long:
        down += len(Challenge(**bound, nonces=(_HASH,) * count).encode())
    if is_learned:
        sums = sum_sizes(scheme, count, recipients)
        report = EncryptedReport(
            propose=sample.propose,
            manifest=manifest_sent,
            accepts=(sample.accept,) * count,
            bundles=(),
            contributions=(bytes(contribution),) * count,
            split=split.encode(),
            signatures=(signature,) * count,
            openings=(bytes(opening),) * count,
            dropped=(),
            refusals=(),
            missing=(),
            testimonies=(),
            length=manifest.length,
            chunks=(_HASH,) * len(sums),
            products=(bytes(products),) * count if is_long else None,
        )
        down += REPORT_HEADER_BYTES + len(report.encode()) + sum(sums)
        down += count * row if is_long else 0
        down += count * sum(pieces) if not is_beside else 0
        up += sample.signed(ModelUpdated(federation=federation, run=bytes(ROUND_ID_BYTES), position=_HASH))
    return Volume(round(up), round(down))


def _shown(sample: _Sample, manifest: bytes, members: int) -> float:
    """Return the length of what a silo is shown of the manifest's members, and of their acceptances and keys."""
    count, others = len(sample.silos), members - 1
    tree = MerkleTree([leaf_hash(silo.encode()) for silo in sample.silos])
    proof = tree.proof(range(min(members, count)))
    message = ShareKeys(manifest=manifest, witnesses=() if count - 1 <= MIN_DEGREE else (0,), proof=proof)
    return len(message.encode()) + others * (len(sample.accept) + PUBLIC_BYTES) + others / 2 * PUBLIC_BYTES


def _deliver(name: str, members: int) -> Deliver:
    """Return what binds the entries of a committee for one silo."""
    others = members - 1
    tree = MerkleTree([leaf_hash(bytes((place % 256,))) for place in range(others)])
    path = b"".join(tree.proof([0]))
    return Deliver(signatures=(Signature(signer=name, signature=_SIGNATURE),) * others, paths=(path,) * others)
