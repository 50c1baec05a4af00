"""The aggregator's part in a round, as pure steps: replies of silos in, the next messages out.

    Proposed --compose_round--> Composed --collect_shares--> SharedOut --collect_ready--> Go
    SharedOut --fix_survivors--> SurvivorsFixed --assemble--> EncryptedReport

A reply that does not hold counts as no reply. The aggregator composes the manifest but decides nothing in it: silos
and recipients compose it again for themselves. docs/protocol.md sections 3 to 7.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from aggregator.errors import SharesMissingError, SilosMissingError
from crypto.backends.scheme import Scheme
from crypto.errors import CryptoError, ProtocolError
from crypto.keys import SigningKey, VerifyKey
from crypto.rounds.bounds import why_infeasible
from crypto.rounds.manifest import Accept, Manifest, Propose, Terms, check_accept, check_round_keys, compose
from crypto.rounds.messages import (
    Accusation,
    Bundle,
    Cancel,
    Contribution,
    Deliver,
    Failure,
    Go,
    Open,
    Opening,
    Ready,
    Share,
    Shared,
    Survivor,
    SurvivorSet,
    check_split,
)
from crypto.rounds.payload import digests, piece_sizes, scheme_of, sum_sizes
from crypto.rounds.report import DroppedSeeds, EncryptedReport
from crypto.wire import Signature, Signed, body_digest, detach, digest_of, sign, unverified, verify
from policies.requests.denials import Refusal
from policies.requests.request import Request
from policies.requests.terms import terms_of

ROUND_S = 120
MAX_ENTRY_BYTES = 24 * 1024  # two sealed values of at most 8 KiB, encoded

Replies = Mapping[str, tuple[bytes, ...]]  # by silo; a silo that did not answer is absent


@dataclass(frozen=True, slots=True)
class Aggregator:
    """Who this aggregator is and which silos it may talk to."""

    name: str
    federation: str
    signing: SigningKey
    silos: Mapping[str, VerifyKey]


@dataclass(frozen=True, slots=True)
class Asked:
    """An analyst's request as it arrived, read and hashed once. It proves nothing: the silos verify it."""

    envelope: bytes
    request: Request
    digest: bytes  # SHA-256 of the body


@dataclass(frozen=True, slots=True)
class Proposed:
    """A request was relayed to the silos that its analyst asked."""

    propose: Propose
    envelope: bytes
    terms: Terms
    round_key: bytes


@dataclass(frozen=True, slots=True)
class Composed:
    """The manifest of those that accepted."""

    before: Proposed
    manifest: Manifest
    manifest_hash: bytes
    envelope: bytes
    accepts: tuple[bytes, ...]
    refusals: tuple[bytes, ...]

    @property
    def scheme(self) -> Scheme:
        return scheme_of(self.manifest, self.before.round_key)

    @property
    def committees(self) -> tuple[tuple[int, ...], ...]:
        return self.manifest.committees(self.manifest_hash)

    @property
    def share(self) -> bytes:
        return Share(manifest=self.envelope, accepts=self.accepts).encode()


@dataclass(frozen=True, slots=True)
class SharedOut:
    """Every member's bundle and entries have arrived."""

    before: Composed
    bundles: tuple[bytes, ...]
    entries: tuple[tuple[bytes, ...], ...]  # of each member, for those of its committee

    def entry(self, sender: int, receiver: int) -> bytes:
        """Return the entry of one place in the roster for another in its committee."""
        return self.entries[sender][self.before.committees[sender].index(receiver)]

    def deliver(self, silo: str) -> bytes:
        index = self.before.manifest.silos.index(silo)
        committee = self.before.committees[index]
        bundles = tuple(self.bundles[place] for place in committee)
        return Deliver(bundles=bundles, entries=tuple(self.entry(place, index) for place in committee)).encode()


@dataclass(frozen=True, slots=True)
class SurvivorsFixed:
    """The roster was parted into survivors and dropped."""

    before: SharedOut
    contributions: tuple[bytes, ...]  # the survivors' signed heads, in roster order
    split: SurvivorSet
    envelope: bytes


def read_request(envelope: bytes) -> Asked:
    """Return a signed request, read but not verified; raises WireError on bytes that are no request."""
    return Asked(envelope, unverified(envelope, Request), body_digest(envelope, Request))


def propose(aggregator: Aggregator, asked: Asked, round_id: bytes, now: int) -> Proposed:
    """Return the proposal of a round for an analyst's signed request.

    The aggregator has no analyst's key and needs none: the silos verify, and they alone decide.
    """
    message = Propose(
        federation=aggregator.federation, round_id=round_id, expires_at=now + ROUND_S, request=asked.envelope
    )
    terms = terms_of(asked.request, asked.digest)
    return Proposed(message, sign(message, aggregator.name, aggregator.signing), terms, asked.request.round_key)


def cancel(aggregator: Aggregator, round_id: bytes) -> bytes:
    """Return what tells silos that a round proposed by this aggregator is over."""
    return sign(Cancel(round_id=round_id), aggregator.name, aggregator.signing)


def read_answers(
    aggregator: Aggregator, state: Proposed, replies: Replies
) -> tuple[dict[str, Signed[Accept]], dict[str, bytes]]:
    """Return the signed acceptances and the signed refusals of this round among the replies, by silo."""
    accepts: dict[str, Signed[Accept]] = {}
    refusals: dict[str, bytes] = {}
    for silo, frames in replies.items():
        keys = {silo: aggregator.silos[silo]}
        with suppress(CryptoError):
            signed = verify(_only(frames), Accept, keys)
            check_accept(state.propose, state.terms, silo, signed.message)
            check_round_keys(signed.message)  # else every other silo would fail to seal to it
            accepts[silo] = signed
            continue
        with suppress(CryptoError):
            refusal = verify(_only(frames), Refusal, keys)
            if refusal.message.request_hash == state.terms.request_hash:
                refusals[silo] = refusal.envelope
    return accepts, refusals


def compose_round(
    aggregator: Aggregator, state: Proposed, accepts: Mapping[str, Signed[Accept]], refusals: Mapping[str, bytes]
) -> Composed:
    """Return the manifest of the silos that accepted, without those whose conditions no roster here can bear.

    Raises ProtocolError if no roster is left.
    """
    members = [accepts[silo] for silo in sorted(accepts)]
    while True:
        try:
            manifest = compose(state.propose, state.terms, [(one.signer, one.message) for one in members])
            break
        except ProtocolError:
            # First whoever asks for more than this many silos could ever bear, then the harshest of the others.
            own = [one for one in members if _is_alone_impossible(one.message, len(members))]
            if own and len(own) < len(members):
                members = [one for one in members if one not in own]
                continue
            harshest = max(members, key=lambda one: _demand(one.message), default=None)
            if harshest is None or _demand(harshest.message) == min(_demand(one.message) for one in members):
                raise  # they all ask the same: it is the number of silos that does not suffice
            members.remove(harshest)
    return Composed(
        before=state,
        manifest=manifest,
        manifest_hash=digest_of(manifest),
        envelope=sign(manifest, aggregator.name, aggregator.signing),
        accepts=tuple(one.envelope for one in members),
        refusals=tuple(refusals[silo] for silo in sorted(refusals)),
    )


def _is_alone_impossible(accept: Accept, silos: int) -> bool:
    return bool(why_infeasible(silos, accept.min_silos, accept.max_colluding, accept.max_missing))


def _demand(accept: Accept) -> tuple[int, int]:
    return accept.max_colluding + accept.max_missing, accept.min_silos


def collect_shares(aggregator: Aggregator, state: Composed, replies: Replies) -> SharedOut:
    """Return all bundles and entries; raises SharesMissingError naming members whose reply is absent or wrong."""
    found: dict[str, Shared] = {}
    for silo, frames in replies.items():
        try:
            message = Shared.decode(_only(frames))
            bundle = verify(message.bundle, Bundle, {silo: aggregator.silos[silo]}).message
            digests = tuple(sha256(entry).digest() for entry in message.entries)
            fits = len(digests) == state.manifest.degree + 1 and silo in state.manifest.silos
            fits = fits and max(map(len, message.entries)) <= MAX_ENTRY_BYTES  # or a Deliver grows beyond what is read
            if fits and bundle.manifest_hash == state.manifest_hash and bundle.entries == digests:
                found[silo] = message
        except CryptoError:
            continue
    missing = tuple(silo for silo in state.manifest.silos if silo not in found)
    if missing:
        raise SharesMissingError("not every silo shared its round secrets", missing)
    members = [found[silo] for silo in state.manifest.silos]
    return SharedOut(state, tuple(one.bundle for one in members), tuple(one.entries for one in members))


def collect_ready(aggregator: Aggregator, state: SharedOut, replies: Replies) -> bytes:
    """Return the message that lets silos contribute.

    Raises SharesMissingError naming the members that are not ready, and those that they accuse: of the two at least
    one is at fault, and nothing has been charged yet.
    """
    composed, found = state.before, dict[str, Signature]()
    accused: set[str] = set()
    for silo, frames in replies.items():
        keys = {silo: aggregator.silos[silo]}
        with suppress(CryptoError):
            if verify(_only(frames), Ready, keys).message.manifest_hash == composed.manifest_hash:
                found[silo] = detach(_only(frames), Ready)
                continue
        with suppress(CryptoError):
            accusation = verify(_only(frames), Accusation, keys).message
            if accusation.round_id == composed.manifest.round_id:
                accused.add(accusation.accused)
    missing = {silo for silo in composed.manifest.silos if silo not in found}
    if missing:
        raise SharesMissingError(
            "not every silo could open what the others shared with it",
            tuple(sorted(missing | accused.intersection(composed.manifest.silos))),
        )
    return Go(signatures=tuple(found[silo] for silo in composed.manifest.silos)).encode()


def read_contribution(aggregator: Aggregator, state: SharedOut, silo: str, head: bytes) -> Signed[Contribution]:
    """Return the signed head of a contribution to this round; raises CryptoError."""
    signed = verify(head, Contribution, {silo: aggregator.silos[silo]})
    composed = state.before
    bound = signed.message.manifest_hash, signed.message.length, len(signed.message.chunks)
    if bound != (composed.manifest_hash, composed.manifest.length, len(piece_sizes(composed.scheme))):
        raise ProtocolError(f"the contribution of {silo!r} belongs to another round")
    return signed


def fix_survivors(
    aggregator: Aggregator, state: SharedOut, contributions: Mapping[str, Signed[Contribution]]
) -> SurvivorsFixed:
    """Name survivors and dropped; raises SilosMissingError if too few have contributed."""
    manifest = state.before.manifest
    survivors = [silo for silo in manifest.silos if silo in contributions]
    split = SurvivorSet(
        manifest_hash=state.before.manifest_hash,
        survivors=tuple(Survivor(silo=silo, contribution=contributions[silo].digest) for silo in survivors),
        dropped=tuple(silo for silo in manifest.silos if silo not in contributions),
    )
    try:
        check_split(manifest, state.before.manifest_hash, split)
    except ProtocolError as err:
        raise SilosMissingError(err.message, split.dropped) from err
    heads = tuple(contributions[silo].envelope for silo in survivors)
    return SurvivorsFixed(state, heads, split, sign(split, aggregator.name, aggregator.signing))


def collect_signatures(aggregator: Aggregator, state: SurvivorsFixed, replies: Replies) -> dict[str, Signature]:
    """Return the survivors' signatures on the split, by silo; raises SilosMissingError without a quorum of them."""
    manifest = state.before.before.manifest
    survivors = tuple(survivor.silo for survivor in state.split.survivors)
    found: dict[str, Signature] = {}
    for silo, frames in replies.items():
        with suppress(CryptoError):
            signed = verify(_only(frames), SurvivorSet, {silo: aggregator.silos[silo]})
            if signed.message == state.split and silo in survivors:
                found[silo] = detach(signed.envelope, SurvivorSet)
    if len(found) < manifest.quorum:
        missing = tuple(silo for silo in survivors if silo not in found)
        raise SilosMissingError(f"fewer than {manifest.quorum} silos agreed on the contributions", missing)
    return found


def open_message(state: SurvivorsFixed, signatures: Mapping[str, Signature]) -> bytes:
    """Return the message that asks silos to release their shares."""
    return Open(split=state.split.encode(), signatures=tuple(signatures[silo] for silo in sorted(signatures))).encode()


def assemble(
    aggregator: Aggregator,
    state: SurvivorsFixed,
    signatures: Mapping[str, Signature],
    replies: Replies,
    blinded_sum: Sequence[bytes],
) -> tuple[EncryptedReport, Sequence[bytes]]:
    """Return the report and the pieces of its sum; raises SilosMissingError if too few silos opened their shares.

    In the backend `shares` the pieces are the sums that the silos opened, else those of `blinded_sum`.
    """
    shared, composed = state.before, state.before.before
    manifest = composed.manifest
    openings: dict[str, bytes] = {}
    sums: dict[str, tuple[bytes, ...]] = {}
    sizes = sum_sizes(composed.scheme, 1, len(manifest.terms.recipients)) if composed.scheme.columns > 1 else ()
    for silo, frames in replies.items():
        try:
            opening = verify(_only(frames[:1]), Opening, {silo: aggregator.silos[silo]}).message
        except CryptoError:
            continue
        bound = opening.manifest_hash, opening.split_hash, opening.sums, len(opening.sealed)
        sealed = len(manifest.terms.recipients) if composed.scheme.is_masked else 0
        expected = composed.manifest_hash, digest_of(state.split), digests(frames[1:]), sealed
        if tuple(map(len, frames[1:])) == sizes and bound == expected:
            openings[silo], sums[silo] = frames[0], frames[1:]
    if len(openings) < manifest.quorum:
        missing = tuple(silo for silo in signatures if silo not in openings)
        raise SilosMissingError(f"fewer than {manifest.quorum} silos released their shares", missing)
    opened = {manifest.silos.index(silo) for silo in openings}
    has_all = all(len(opened.intersection(one)) >= manifest.committee_quorum for one in composed.committees)
    if composed.scheme.is_masked and not has_all:
        missing = tuple(silo for silo in signatures if silo not in openings)
        raise SilosMissingError("too few of the neighbours of a silo released their shares", missing)
    dropped = tuple(
        DroppedSeeds(
            silo=silo,
            entries=tuple(shared.entry(place, index) for place in composed.committees[index] if place < index),
        )
        for index, silo in enumerate(manifest.silos)
        if silo in state.split.dropped
    )
    if composed.scheme.columns > 1:
        blinded_sum = [piece for silo in sorted(sums) for piece in sums[silo]]
    report = EncryptedReport(
        propose=composed.before.envelope,
        manifest=composed.envelope,
        accepts=composed.accepts,
        bundles=shared.bundles if dropped else (),
        contributions=state.contributions,
        split=state.split.encode(),
        signatures=tuple(signatures[silo] for silo in sorted(signatures)),
        openings=tuple(openings[silo] for silo in sorted(openings)),
        dropped=dropped,
        refusals=composed.refusals,
        length=manifest.length,
        chunks=digests(blinded_sum),
    )
    return report, blinded_sum


def failure(
    aggregator: Aggregator, asked: Asked, reason: str, missing: tuple[str, ...], refusals: Mapping[str, bytes]
) -> bytes:
    """Return the signed message that tells the analyst why there is no report."""
    message = Failure(
        request_hash=asked.digest,
        reason=reason[:1000],
        missing=tuple(sorted(missing)),
        refusals=tuple(refusals[silo] for silo in sorted(refusals)),
    )
    return sign(message, aggregator.name, aggregator.signing)


def _only(frames: Sequence[object]) -> bytes:
    if len(frames) != 1 or not isinstance(frames[0], bytes):
        raise ProtocolError("a reply is not one frame of bytes")
    return frames[0]
