"""The aggregator's part in a round, as pure steps: replies of silos in, the next messages out.

    Proposed --compose_round--> Composed --collect_shares--> KeysShared --collect_ready--> Go
    KeysShared --fix_survivors--> SurvivorsFixed --assemble--> EncryptedReport

Promise: an invalid reply counts as no reply. The aggregator composes the manifest and chooses only the roster in it:
recipients compose it again for themselves, and silos check what they are shown of it. docs/protocol.md sections 3 to 7;
section 8, table F.
Bonawitz et al., CCS 2017, figure 4, the server's side.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from aggregator.errors import SharesMissingError, SilosMissingError
from aggregator.outcomes import Outcomes, passing_over
from crypto.backends.scheme import Scheme
from crypto.errors import CryptoError, ProtocolError
from crypto.keys import SigningKey, VerifyKey
from crypto.merkle import MerkleTree, leaf_hash
from crypto.rounds.bounds import why_infeasible
from crypto.rounds.manifest import (
    Accept,
    Manifest,
    Propose,
    Terms,
    check_accept,
    check_round_keys,
    compose,
    compute_s_of,
    members_tree,
    send_s_of,
)
from crypto.rounds.messages import (
    SEALED_SEED,
    SEALED_SHARES,
    Accusation,
    Away,
    Bundle,
    Cancel,
    Contribution,
    Deliver,
    Failed,
    Failure,
    Go,
    Open,
    Opening,
    Ready,
    ShareKeys,
    Survivor,
    SurvivorSet,
    check_survivors,
    sealed_row_bytes,
)
from crypto.rounds.payload import digests, piece_sizes, scheme_of, sum_digest, sum_sizes
from crypto.rounds.report import DroppedSeeds, EncryptedReport
from crypto.rounds.shown import places_shown, witnesses
from crypto.wire import Signature, Signed, body_digest, detach, digest_of, sign, unverified, verify, verify_detached
from policies.requests.denials import Refusal
from policies.requests.request import Request
from policies.requests.terms import terms_of
from policies.units import MAX_BUSY_S, UNDECLARED_S

ROUND_S = 120  # without the silos' computing, where their acceptances state its time

Replies = Mapping[str, tuple[bytes, ...]]  # by silo; a silo that did not answer is absent
_ACCEPTED_FRAMES = 3  # an acceptance and two keys


@dataclass(frozen=True, slots=True)
class Aggregator:
    """This aggregator's name and key, and the silos of its federation."""

    name: str
    federation: str
    signing: SigningKey
    silos: Mapping[str, VerifyKey]


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """An analyst's request as it arrived, read and hashed once. It proves nothing: the silos verify it."""

    envelope: bytes
    request: Request
    digest: bytes  # SHA-256 of the body


@dataclass(frozen=True, slots=True)
class Accepted(Signed[Accept]):
    """A silo's signed acceptance, with the two public keys that it names."""

    mask_key: bytes
    channel_key: bytes


@dataclass(frozen=True, slots=True)
class Proposed:
    """A request was relayed to the silos that its analyst asked."""

    propose: Propose
    envelope: bytes
    terms: Terms
    round_key: bytes
    waits_s: int  # for the silos' computing
    sends_s: int  # for a silo to send a long vector
    gathers_s: int  # for the masked inputs of all silos to arrive at the aggregator


@dataclass(frozen=True, slots=True)
class Composed:
    """The manifest of the silos that accepted."""

    before: Proposed
    manifest: Manifest
    manifest_hash: bytes
    envelope: bytes
    members: tuple[Accepted, ...]  # in roster order
    tree: MerkleTree  # over their acceptances
    witnesses: tuple[int, ...]  # the places of members whose conditions are those of the manifest

    @property
    def accepts(self) -> tuple[bytes, ...]:
        return tuple(one.envelope for one in self.members)

    @property
    def scheme(self) -> Scheme:
        return scheme_of(self.manifest, self.before.round_key)

    @property
    def compute_s(self) -> int:
        """How long the silos may compute: the greatest time among their acceptances; 0 if none states one."""
        return compute_s_of(one.message for one in self.members)

    @property
    def send_s(self) -> int:
        """How long the silos may send: the greatest time among their acceptances; 0 if none states one."""
        return send_s_of(one.message for one in self.members)

    @property
    def contribute_s(self) -> int:
        """How long a masked input may take beyond the time of a step: it is computed, sent, and taken in here."""
        return self.compute_s + self.send_s + self.before.gathers_s

    @property
    def counted_s(self) -> int:
        """How long the silos may compute, also where an acceptance states no time."""
        return max(self.compute_s, UNDECLARED_S if any(one.message.compute_ms is None for one in self.members) else 0)

    @property
    def committees(self) -> tuple[tuple[int, ...], ...]:
        return self.manifest.committees(self.manifest_hash)

    def share(self, silo: str) -> tuple[bytes, ...]:
        """Return the message that shows one silo what it needs of the manifest's members, and its parts."""
        me = self.manifest.silos.index(silo)
        places, parts = places_shown(self.manifest, self.manifest_hash, me), list[bytes]()
        for place in places:
            if place != me:
                member = self.members[place]
                parts += [member.envelope, member.channel_key, *([member.mask_key] if place > me else [])]
        beside = tuple(place for place in self.witnesses if place not in places)
        proof = self.tree.proof((*places, *beside))
        message = ShareKeys(manifest=self.envelope, witnesses=beside, proof=proof)
        return message.encode(), *parts, *(self.members[place].envelope for place in beside)


@dataclass(frozen=True, slots=True)
class KeysShared:
    """Every member's bundle and entries have arrived."""

    before: Composed
    bundles: tuple[bytes, ...]
    entries: tuple[tuple[bytes, ...], ...]  # by member, for each other silo of its committee
    trees: tuple[MerkleTree, ...]  # by member, over its entries

    def entry(self, sender: int, receiver: int) -> bytes:
        """Return one member's entry for another of its committee, by their positions in the roster."""
        return self.entries[sender][self._number(sender, receiver)]

    def path(self, sender: int, receiver: int) -> bytes:
        """Return the hashes that lead from that entry to the root in its sender's bundle."""
        return b"".join(self.trees[sender].proof([self._number(sender, receiver)]))

    def _number(self, sender: int, receiver: int) -> int:
        found = self.before.committees[sender].index(receiver)
        return found if receiver < sender else found - 1  # a sender has no entry for itself

    def deliver(self, silo: str) -> tuple[bytes, ...]:
        """Return the message with what binds the entries for a silo, and the entries."""
        me = self.before.manifest.silos.index(silo)
        others = [place for place in self.before.committees[me] if place != me]
        message = Deliver(
            signatures=tuple(detach(self.bundles[place], Bundle) for place in others),
            paths=tuple(self.path(place, me) for place in others),
        )
        return message.encode(), *(self.entry(place, me) for place in others)


@dataclass(frozen=True, slots=True)
class SurvivorsFixed:
    """The roster was divided into survivors and dropped silos."""

    before: KeysShared
    contributions: tuple[bytes, ...]  # the survivors' signed headers, in roster order
    survivor_set: SurvivorSet
    envelope: bytes
    chunks: tuple[bytes, ...]  # the digests of those of the sum


def read_request(envelope: bytes) -> ReceivedRequest:
    """Decode a signed request without verifying it; raises WireError on bytes that are not a request."""
    return ReceivedRequest(envelope, unverified(envelope, Request), body_digest(envelope, Request))


def propose(
    aggregator: Aggregator, asked: ReceivedRequest, round_id: bytes, now: int, busy_s: int = 0, gathers_s: int = 0
) -> Proposed:
    """Return the proposal of a round for an analyst's signed request; the silos are busy for at most `busy_s`.

    Long masked inputs may take `gathers_s` to arrive here.

    The aggregator needs no analyst's key: the silos verify the request, and only they decide.
    """
    message = Propose(
        federation=aggregator.federation,
        round_id=round_id,
        expires_at=now + ROUND_S + min(busy_s, MAX_BUSY_S) + asked.request.loads_s + gathers_s,
        request=asked.envelope,
    )
    terms = terms_of(asked.request, asked.digest)
    envelope = sign(message, aggregator.name, aggregator.signing)
    request = asked.request
    return Proposed(message, envelope, terms, request.round_key, request.waits_s, request.sends_s, gathers_s)


def cancel(aggregator: Aggregator, round_id: bytes) -> bytes:
    """Return the signed Cancel of a round that this aggregator proposed."""
    return sign(Cancel(federation=aggregator.federation, round_id=round_id), aggregator.name, aggregator.signing)


def read_answers(
    aggregator: Aggregator, state: Proposed, replies: Replies, wrong: dict[str, str] | None = None
) -> tuple[dict[str, Accepted], dict[str, bytes]]:
    """Return the signed acceptances and the signed refusals of this round among the replies, by silo.

    Here and below, `wrong` learns what silos sent wrongly.
    """
    accepts: dict[str, Accepted] = {}
    refusals: dict[str, bytes] = {}
    for silo, frames in replies.items():
        keys = {silo: aggregator.silos[silo]}
        with passing_over(wrong if len(frames) == _ACCEPTED_FRAMES else None, silo):
            envelope, mask_key, channel_key = _three_frames(frames)
            signed = verify(envelope, Accept, keys)
            check_accept(state.propose, state.terms, silo, signed.message)
            check_wait(state, signed.message)
            # Otherwise its committee would fail to seal to it.
            check_round_keys(signed.message, mask_key, channel_key)
            accepts[silo] = Accepted(signed.message, silo, envelope, signed.digest, mask_key, channel_key)
            continue
        with suppress(CryptoError):
            refusal = verify(only_frame(frames), Refusal, keys)
            if refusal.message.request_hash == state.terms.request_hash:
                refusals[silo] = refusal.envelope
    return accepts, refusals


def check_wait(state: Proposed, accept: Accept) -> None:
    """Raise ProtocolError if a silo would compute or send for longer than the request waits: all others would wait."""
    if (accept.compute_ms or 0) > 1000 * state.waits_s:
        raise ProtocolError(f"computing of {accept.compute_ms} ms, and the request waits {state.waits_s} s")
    if (accept.send_ms or 0) > 1000 * state.sends_s:
        raise ProtocolError(f"sending for {accept.send_ms} ms, and the request waits {state.sends_s} s for it")


def compose_round(aggregator: Aggregator, state: Proposed, accepts: Mapping[str, Accepted]) -> Composed:
    """Return the manifest of the most silos that accepted and whose conditions can all be met.

    Raises ProtocolError if no roster is left.
    """
    members = [accepts[silo] for silo in fitting({silo: one.message for silo, one in accepts.items()}, state.terms)]
    manifest = compose(state.propose, state.terms, [(one.signer, one.message) for one in members])
    return Composed(
        before=state,
        manifest=manifest,
        manifest_hash=digest_of(manifest),
        envelope=sign(manifest, aggregator.name, aggregator.signing),
        members=tuple(members),
        tree=members_tree([(one.signer, one.message) for one in members]),
        witnesses=witnesses([one.message for one in members]),
    )


def fitting(accepts: Mapping[str, Accept], terms: Terms) -> list[str]:
    """Return the largest roster whose conditions can all be met, sorted; all silos if there is none.

    The fewest that may be missing, by one of its silos, hold for all. So for each such number, it takes the silos that
    bear it, without those that allow fewer.
    """
    best: list[str] = []
    for missing in sorted({one.max_missing for one in accepts.values()}):
        found = {
            silo: one
            for silo, one in accepts.items()
            if one.max_missing >= missing and not why_infeasible(terms.asked, one.min_silos, one.max_colluding, missing)
        }
        while without := [silo for silo, one in found.items() if not found.keys() >= set(one.must_include or ())]:
            for silo in without:
                del found[silo]
        is_theirs = any(one.max_missing == missing for one in found.values())  # else a later number is
        if is_theirs and len(found) > len(best) and len(found) >= terms.asked - missing:
            best = sorted(found)
    return best or sorted(accepts)


def collect_shares(
    aggregator: Aggregator, state: Composed, replies: Replies, wrong: dict[str, str] | None = None
) -> KeysShared:
    """Return all bundles and entries; raises SharesMissingError naming members whose reply is absent or wrong."""
    found: dict[str, tuple[bytes, tuple[bytes, ...], MerkleTree]] = {}
    for place, silo in enumerate(state.manifest.silos):
        with passing_over(wrong if replies.get(silo) else None, silo):
            found[silo] = _read_shares(aggregator, state, place, replies.get(silo, ()))
    missing = tuple(silo for silo in state.manifest.silos if silo not in found)
    if missing:
        raise SharesMissingError("not every silo shared its round secrets", missing)
    bundles, entries, trees = zip(*(found[silo] for silo in state.manifest.silos), strict=True)
    return KeysShared(state, bundles, entries, trees)


def _read_shares(
    aggregator: Aggregator, state: Composed, place: int, frames: Sequence[object]
) -> tuple[bytes, tuple[bytes, ...], MerkleTree]:
    """Return the bundle of the member at a position of the roster, its entries, and the tree over them."""
    silo, envelope = state.manifest.silos[place], only_frame(frames[:1])
    entries = tuple(frame for frame in frames[1:] if isinstance(frame, bytes))
    bundle = verify(envelope, Bundle, {silo: aggregator.silos[silo]}).message
    # Each of the committee gets key shares, and those later in the roster a pair seed.
    sizes = [SEALED_SHARES + (SEALED_SEED if other > place else 0) for other in state.committees[place]]
    del sizes[state.committees[place].index(place)]
    if list(map(len, entries)) != sizes:
        raise ProtocolError(f"the entries of {silo!r} are not those for its committee")
    tree = MerkleTree([leaf_hash(entry) for entry in entries])
    if (bundle.manifest_hash, bundle.entries) != (state.manifest_hash, tree.root):
        raise ProtocolError(f"the bundle of {silo!r} does not bind its entries to this round")
    return envelope, entries, tree


def collect_ready(
    aggregator: Aggregator, state: KeysShared, replies: Replies, wrong: dict[str, str] | None = None
) -> bytes:
    """Return the message that lets silos contribute.

    Raises SharesMissingError naming the members that are not ready and those that they accuse: at least one of the two
    is at fault. What has begun to be charged is given back, as nothing was contributed.
    """
    composed, found = state.before, dict[str, Signature]()
    accused: set[str] = set()
    for silo, frames in replies.items():
        keys = {silo: aggregator.silos[silo]}
        with suppress(CryptoError):
            if verify(only_frame(frames), Ready, keys).message.manifest_hash == composed.manifest_hash:
                found[silo] = detach(only_frame(frames), Ready)
                continue
        with suppress(CryptoError):
            accusation = verify(only_frame(frames), Accusation, keys).message
            if accusation.manifest_hash == composed.manifest_hash:
                accused.add(accusation.accused)
                if wrong is not None and accusation.accused in composed.manifest.silos:
                    wrong |= {accusation.accused: f"{silo} could not open what it sealed, or says so falsely"}
    missing = {silo for silo in composed.manifest.silos if silo not in found}
    if missing:
        raise SharesMissingError(
            "not every silo could open what the others shared with it",
            tuple(sorted(missing | accused.intersection(composed.manifest.silos))),
        )
    return Go(signatures=tuple(found[silo].signature for silo in composed.manifest.silos)).encode()


def report_bytes(state: KeysShared, refusals: Mapping[str, bytes]) -> int:
    """Return how many bytes the report of a round has at most, whoever drops out; `refusals` are those so far.

    Raises ProtocolError if its recipients would not read so much of it before the sum.
    """
    composed, manifest = state.before, state.before.manifest
    recipients, members = len(manifest.terms.recipients), manifest.degree + 1
    known = (composed.before.envelope, composed.envelope, *composed.accepts, *refusals.values(), *state.bundles)
    sent = sum(map(len, known)) + sum(len(entry) for entries in state.entries for entry in entries)
    # Of a silo: its header with a digest for each piece, its signature, its place in the survivor set, its opening; or
    # why it cannot go on.
    pieces = len(piece_sizes(composed.scheme))
    if (most := 64 * pieces * len(manifest.silos)) > EncryptedReport.MAX_BYTES // 2:
        raise ProtocolError(f"digests of {most} bytes in a report, at most {EncryptedReport.MAX_BYTES // 2} are read")
    of_silo = 8192 + 64 * pieces + 2 * recipients * (64 * members + 2048)
    sums = sum(sum_sizes(composed.scheme, len(manifest.silos), recipients))
    # Twice, as bytes in JSON are a third longer, and some are in JSON in JSON.
    return 2 * (sent + len(manifest.silos) * of_silo) + sums


def read_contribution(aggregator: Aggregator, state: KeysShared, silo: str, header: bytes) -> Signed[Contribution]:
    """Return the signed header of a masked input of this round; raises CryptoError."""
    signed = verify(header, Contribution, {silo: aggregator.silos[silo]})
    composed = state.before
    bound = signed.message.manifest_hash, signed.message.length, len(signed.message.chunks)
    if bound != (composed.manifest_hash, composed.manifest.length, len(piece_sizes(composed.scheme))):
        raise ProtocolError(f"the contribution of {silo!r} belongs to another round")
    return signed


def fix_survivors(
    aggregator: Aggregator,
    state: KeysShared,
    contributions: Mapping[str, Signed[Contribution]],
    chunks: Sequence[bytes] = (),
) -> SurvivorsFixed:
    """Name survivors and dropped; raises SilosMissingError if too few have contributed.

    `chunks` are the digests of the chunks of their sum, which is closed: a long round's survivor set names it.
    """
    survivor_set = survivors_of(state, contributions, chunks)
    headers = tuple(contributions[survivor.silo].envelope for survivor in survivor_set.survivors)
    envelope = sign(survivor_set, aggregator.name, aggregator.signing)
    return SurvivorsFixed(state, headers, survivor_set, envelope, tuple(chunks))


def survivors_of(
    state: KeysShared, contributions: Mapping[str, Signed[Contribution]], chunks: Sequence[bytes] = ()
) -> SurvivorSet:
    """Divide the roster by whose masked inputs are here whole, as `fix_survivors`; `chunks` are none before the sum."""
    manifest = state.before.manifest
    survivors = [silo for silo in manifest.silos if silo in contributions]
    survivor_set = SurvivorSet(
        manifest_hash=state.before.manifest_hash,
        survivors=tuple(Survivor(silo=silo, contribution=contributions[silo].digest) for silo in survivors),
        dropped=tuple(silo for silo in manifest.silos if silo not in contributions),
        sum=sum_digest(chunks) if manifest.terms.is_long else None,
    )
    try:
        check_survivors(manifest, state.before.manifest_hash, survivor_set)
    except ProtocolError as err:
        raise SilosMissingError(err.message, survivor_set.dropped) from err
    return survivor_set


def collect_signatures(aggregator: Aggregator, state: SurvivorsFixed, replies: Replies) -> dict[str, Signature]:
    """Return the survivors' signatures on the survivor set, by silo; raises SilosMissingError without a quorum."""
    manifest = state.before.before.manifest
    survivors = tuple(survivor.silo for survivor in state.survivor_set.survivors)
    found: dict[str, Signature] = {}
    body = state.survivor_set.encode()
    for silo in survivors:
        with suppress(CryptoError):
            signature = Signature.decode(only_frame(replies.get(silo, ())))
            verify_detached(signature, body, SurvivorSet, {silo: aggregator.silos[silo]})
            found[silo] = signature
    if len(found) < manifest.quorum:
        missing = tuple(silo for silo in survivors if silo not in found)
        raise SilosMissingError(f"fewer than {manifest.quorum} silos agreed on the contributions", missing)
    return found


def open_message(state: SurvivorsFixed, signatures: Mapping[str, Signature]) -> bytes:
    """Return the message that asks silos to release their shares: a quorum of the signatures, and no more."""
    quorum = sorted(signatures)[: state.before.before.manifest.quorum]
    return Open(signatures=tuple(signatures[silo] for silo in quorum)).encode()


def assemble(
    aggregator: Aggregator,
    state: SurvivorsFixed,
    signatures: Mapping[str, Signature],
    replies: Replies,
    outcomes: Outcomes | None = None,
    products: Sequence[bytes] = (),
) -> tuple[EncryptedReport, Sequence[bytes]]:
    """Return the report, and what follows the chunks of its sum; raises SilosMissingError if too few silos opened.

    In the backend `shares` that are the silos' sealed sums, and there is no other sum; in a long round what each
    recipient is to have of the openings, by recipient. `products` are those that survivors signed of a long round. The
    report names the silos of the request that refused, those that did not answer, and those that signed something
    wrong.
    """
    told = outcomes or Outcomes(state.before.before.before.terms.request_hash, aggregator.federation, aggregator.silos)
    shared, composed = state.before, state.before.before
    manifest = composed.manifest
    openings, beside = read_openings(aggregator, state, replies, told.wrong)
    for silo in set(told.failed).intersection(manifest.silos):
        told.wrong[silo] = f"it says itself: {unverified(told.failed[silo], Failed).reason}"[:300]
    closed = tuple(silo for silo in signatures if silo not in openings)
    if len(openings) < manifest.quorum:
        raise SilosMissingError(f"fewer than {manifest.quorum} silos released their shares", closed)
    opened = {manifest.silos.index(silo) for silo in openings}
    has_all = all(len(opened.intersection(one)) >= manifest.committee_quorum for one in composed.committees)
    if composed.scheme.is_masked and not has_all:
        raise SilosMissingError("too few of the neighbours of a silo released their shares", closed)
    dropped = tuple(
        DroppedSeeds(
            silo=silo,
            entries=tuple(
                shared.entry(place, index) + shared.path(place, index)
                for place in composed.committees[index]
                if place < index
            ),
        )
        for index, silo in enumerate(manifest.silos)
        if silo in state.survivor_set.dropped
    )
    after = [piece for silo in sorted(beside) for piece in beside[silo]]
    is_long, recipients = manifest.terms.is_long, len(manifest.terms.recipients)
    if is_long:  # each recipient's together
        after = [piece for place in range(recipients) for piece in after[place::recipients]]
    report = EncryptedReport(
        propose=composed.before.envelope,
        manifest=composed.envelope,
        accepts=composed.accepts,
        bundles=shared.bundles if dropped else (),
        contributions=state.contributions,
        split=state.survivor_set.encode(),
        signatures=tuple(signatures[silo] for silo in sorted(signatures)),
        openings=tuple(openings[silo] for silo in sorted(openings)),
        dropped=dropped,
        refusals=tuple(told.refusals[silo] for silo in sorted(told.refusals)),
        missing=tuple(sorted(told.missing)),
        testimonies=tuple(told.testimony(silo) for silo in sorted(told.wrong)),
        length=manifest.length,
        chunks=digests(after) if composed.scheme.columns > 1 else state.chunks,
        products=tuple(products) if is_long else None,
    )
    return report, after


def read_openings(
    aggregator: Aggregator, state: SurvivorsFixed, replies: Replies, wrong: dict[str, str]
) -> tuple[dict[str, bytes], dict[str, tuple[bytes, ...]]]:
    """Return the signed openings of this survivor set among the replies, and what follows each, by silo."""
    composed = state.before.before
    manifest, is_long = composed.manifest, composed.manifest.terms.is_long
    openings: dict[str, bytes] = {}
    beside: dict[str, tuple[bytes, ...]] = {}
    recipients = len(manifest.terms.recipients)
    rows = (sealed_row_bytes(manifest),) * recipients if composed.scheme.is_masked else ()
    sums = sum_sizes(composed.scheme, 1, recipients) if composed.scheme.columns > 1 else ()
    sealed, sizes = ((), rows) if is_long else (rows, sums)
    for silo, frames in replies.items():
        with passing_over(wrong if frames else None, silo):
            opening = verify(only_frame(frames[:1]), Opening, {silo: aggregator.silos[silo]}).message
            bound = opening.manifest_hash, opening.split_hash
            if bound != (composed.manifest_hash, digest_of(state.survivor_set)):
                raise ProtocolError("its opening belongs to another round or survivor set")
            if tuple(map(len, opening.sealed)) != sealed:
                raise ProtocolError("its opening is not sealed to each recipient")
            if tuple(map(len, frames[1:])) != sizes or opening.sums != digests(frames[1:]):
                raise ProtocolError("its sums are not those that it signed")
            check_nonce(manifest, silo, opening.nonce)
            openings[silo], beside[silo] = frames[0], frames[1:]
    return openings, beside


def check_nonce(manifest: Manifest, silo: str, nonce: bytes | None) -> None:
    """Raise ProtocolError unless an opening tells the nonce that its silo committed to, in a long round."""
    expected = manifest.nonces[manifest.silos.index(silo)] if manifest.nonces else None
    if (None if nonce is None else sha256(nonce).digest()) != expected:
        raise ProtocolError("its nonce is not the one that it committed to")


def failure(aggregator: Aggregator, asked: ReceivedRequest, reason: str, outcomes: Outcomes) -> bytes:
    """Return the signed message that tells the analyst why there is no report, with what the silos signed."""
    took_no_part = outcomes.out - set(outcomes.refusals)
    away = Away(federation=aggregator.federation, request_hash=asked.digest, silos=tuple(sorted(took_no_part)))
    message = Failure(
        request_hash=asked.digest,
        reason=reason[:1000],
        missing=tuple(sorted(outcomes.missing)),
        left_out=tuple(sorted(outcomes.left_out)),
        refusals=tuple(outcomes.refusals[silo] for silo in sorted(outcomes.refusals)),
        failed=tuple(outcomes.failed[silo] for silo in sorted(outcomes.failed)),
        away=sign(away, aggregator.name, aggregator.signing) if took_no_part else b"",
        charged=outcomes.charged,
        manifests=outcomes.manifests_of(took_no_part),
        testimonies=tuple(outcomes.testimony(silo) for silo in sorted(took_no_part)),
    )
    return sign(message, aggregator.name, aggregator.signing)


def _three_frames(frames: Sequence[object]) -> tuple[bytes, bytes, bytes]:
    """Return the frames of an acceptance; raises ProtocolError unless there are three of bytes."""
    first, second, third = (only_frame(frames[place : place + 1]) for place in range(3))
    if len(frames) != _ACCEPTED_FRAMES:
        raise ProtocolError(f"an acceptance of {len(frames)} frames, expected it and two keys")
    return first, second, third


def only_frame(frames: Sequence[object]) -> bytes:
    """Return the one frame of a reply; raises ProtocolError if there are none or several."""
    if len(frames) != 1 or not isinstance(frames[0], bytes):
        raise ProtocolError("a reply is not one frame of bytes")
    return frames[0]
