"""One silo's part in a round, as pure steps: state and bytes in, state and bytes out.

    Proposed --share--> SharedOut --ready--> Received --contribute--> Contributed --agree--> Agreed --open--> (erased)

In training the silos are the recipients: `learn` opens a report and moves the model.

Every step checks what it is told and raises ProtocolError (or what the decoders raise) before anything leaves. The
clock, the ledger, the computation on rows and the noise are arguments. docs/protocol.md sections 3 to 6 and 11.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from crypto.backends import scheme_of
from crypto.errors import AccusedError, CryptoError, ProtocolError, SignatureError
from crypto.keys import Secret, SigningKey, VerifyKey
from crypto.manifest import Accept, Manifest, Propose, Terms, check_manifest
from crypto.masking import (
    entry_info,
    mask_key_of,
    opening_info,
    pair_seed,
    self_commitment,
    self_seed,
    sum_info,
)
from crypto.messages import (
    Bundle,
    Cancel,
    Contribution,
    Deliver,
    Entry,
    Go,
    Learned,
    Open,
    OpenedShares,
    Opening,
    Ready,
    Share,
    Shared,
    Split,
    StoredReport,
    check_ready,
    check_signatures,
    check_split,
)
from crypto.noise import MIN_DEVIATION
from crypto.opening import check_report, open_report
from crypto.payload import added_column, blinded_pieces, digests, frames, piece_sizes
from crypto.recount import check_chunk
from crypto.scheme import Scheme
from crypto.sealing import SealingKey, seal
from crypto.shamir import SHARE_BYTES, draw, split
from crypto.wire import body_digest, digest_of, sign, signer_of, verify
from federation.members.roster import Roster
from policies.accountant import charge
from policies.approvals import subject_of
from policies.decide import Places, decide, limits_of, months_of, rate_of, run_limit_of
from policies.ledger import Charge, Ledger, RunStep
from policies.model import Policy
from policies.request import Denial, Refusal, Request, cut_of, is_exact, job_of, round_secret, terms_of
from policies.training import Step
from silo_node.training.run import RunState, check_position, moved, position_of

MAX_ROUND_S = 600

Compute = Callable[[Request, int], Sequence[Sequence[int]]]  # at a time; whole numbers per block, exact, before noise
FeedAt = Callable[[str], int | None]  # when the files of a source were last written
Noise = Callable[[int, int, int], npt.NDArray[np.int64]]  # length, variance of the sum, shares


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
class Shares:
    """What the others of its committee entrusted to this silo: a share of each one's b and of each one's r."""

    of_self: tuple[bytes, ...] = field(repr=False)
    of_root: tuple[bytes, ...] = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise CryptoError("the shares of a round cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class Received:
    """What every member of the committee sealed to this silo was opened; still nothing has been computed."""

    before: SharedOut
    shares: Shares
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
    shares: Shares

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
    split: Split
    split_hash: bytes
    shares: Shares


State = Proposed | SharedOut | Received | Contributed | Agreed


def propose(
    silo: Silo, ledger: Ledger, feed_at: FeedAt, now: int, round_id: bytes, data: bytes
) -> tuple[Proposed | None, bytes]:
    """Judge the request in a signed Propose of this round; return (Proposed, signed Accept) or (None, signed Refusal).

    On yes the whole cost is reserved durably before this returns.
    """
    signed = verify(data, Propose, silo.aggregators)
    message = signed.message
    if message.round_id != round_id:
        raise ProtocolError("the message belongs to another round")
    if message.federation != silo.federation:
        raise ProtocolError(f"a round of the federation {message.federation!r}, this is {silo.federation!r}")
    if not now < message.expires_at <= now + MAX_ROUND_S:
        raise ProtocolError("the round has expired or would last too long")
    request_hash = body_digest(message.request, Request)
    request, denials = _judge(silo, ledger, feed_at, now, message.request, request_hash)
    if request is not None and not denials:
        cost = charge(request, request_hash, silo.policy.privacy_unit.max_silos)
        run = run_of(request)
        months = months_of(silo.policy, request, now)
        entry = Charge(
            nonce=request.nonce,
            request_hash=request_hash,
            analyst=_entry(silo, request),
            purpose=request.purpose,
            micro_rho=cost,
            policy_hash=silo.policy_hash,
            charged_at=now,
            run=run,
            months=months,
        )
        windows = limits_of(silo.policy, request.purpose, now, months)
        run_limit, rate = run_limit_of(silo.policy) if run else None, rate_of(silo.policy, now)
        if not ledger.reserve(entry, silo.policy.budget.lifetime_micro, windows, run_limit, rate=rate):
            denials = _decide(silo, ledger, feed_at, now, request, request_hash)
    if request is None or denials:
        refusal = Refusal(
            federation=silo.federation, request_hash=request_hash, policy_hash=silo.policy_hash, denials=denials
        )
        return None, sign(refusal, silo.name, silo.signing)
    root, self_secret, channel = Secret(draw()), Secret(draw()), SealingKey(Secret.generate())
    accept = Accept(
        federation=silo.federation,
        round_id=message.round_id,
        request_hash=request_hash,
        expires_at=message.expires_at,
        mask_key=mask_key_of(root.raw).public,
        channel_key=channel.public,
        self_commitment=self_commitment(self_secret.raw),
        policy_hash=silo.policy_hash,
        min_silos=silo.policy.disclosure.min_silos,
        max_colluding=silo.policy.protection.max_colluding,
        max_missing=silo.policy.protection.max_missing,
    )
    envelope = sign(accept, silo.name, silo.signing)
    terms = terms_of(request, request_hash)
    return Proposed(signed.signer, message, request, terms, envelope, root, self_secret, channel), envelope


def _decide(
    silo: Silo, ledger: Ledger, feed_at: FeedAt, now: int, request: Request, request_hash: bytes
) -> tuple[Denial, ...]:
    months = months_of(silo.policy, request, now)
    since = [limit.since for limit in limits_of(silo.policy, request.purpose, now, months)]
    run = run_of(request)
    rate = rate_of(silo.policy, now)
    spent = ledger.spending(
        request.nonce, request.purpose, _entry(silo, request), since, run, None if rate is None else rate.since
    )
    verdicts = ledger.verdicts(subject_of(request, request_hash)) if silo.policy.approvals else ()
    feed, places = (
        feed_at(request.table.name),
        Places(silo.roster.silo_jurisdictions, silo.roster.aggregator_jurisdictions),
    )
    return decide(silo.policy, request, request_hash, spent, now, feed, verdicts, places)


def run_of(request: Request) -> RunStep | None:
    """Return which step of which training run a request is; None for a question."""
    step = request.plan
    return RunStep(step.run, job_of(request), step.step) if isinstance(step, Step) else None


def _entry(silo: Silo, request: Request) -> str:
    """Return under which name the policy knows the analyst, who shares what one may spend with all of that name."""
    return silo.policy.analyst_entry(request.analyst) or request.analyst


def _judge(
    silo: Silo, ledger: Ledger, feed_at: FeedAt, now: int, envelope: bytes, request_hash: bytes
) -> tuple[Request | None, tuple[Denial, ...]]:
    name = signer_of(envelope, Request)
    analyst = silo.policy.analyst(name)
    contact = silo.policy.silo.contact
    if analyst is None:
        shown = name[:120]
        message = f"{shown!r} is not an analyst here"
        return None, (Denial(code="ANALYST_UNKNOWN", rule="analysts", message=message, remedy=f"ask {contact}"),)
    try:
        request = verify(envelope, Request, {name: VerifyKey.parse(analyst.key)}).message
    except SignatureError:
        message = "the request is not signed with the key that the policy names"
        rule = f"analysts.{name}.key"
        return None, (Denial(code="SIGNATURE", rule=rule, message=message, remedy=f"ask {contact} to update it"),)
    if request.analyst != name or request.federation != silo.federation or silo.name not in request.silos:
        raise ProtocolError("the request was signed for another analyst, federation or set of silos")
    for recipient in request.recipients:
        seal(recipient.key, b"", b"")  # raises on a key that the shares could not be sealed to at the end
        if isinstance(request.plan, Step) and recipient not in silo.roster.recipients(set(silo.silos)):
            raise ProtocolError(f"the model would go to {recipient.name!r} with a key that the roster does not give it")
    if not set(request.silos) <= set(silo.silos):
        raise ProtocolError("the request names a silo that the federation's roster lacks")
    if ledger.is_committed(request.nonce):
        message = "this very request was answered before"
        denial = Denial(code="ALREADY_ANSWERED", rule="budget", message=message, remedy="sign a new request")
        return request, (denial,)
    if ledger.is_exhausted(request.nonce):
        message = "this very request was accepted too often without an answer"
        denial = Denial(code="RETRIES", rule="budget", message=message, remedy="sign a new request")
        return request, (denial,)
    denials = _decide(silo, ledger, feed_at, now, request, request_hash)
    if not denials and isinstance(request.plan, Step):
        try:
            if ledger.job_of(request.plan.run) not in (None, job_of(request)):
                raise ProtocolError("this training run began with another request")
            check_position(load_run(ledger, request.plan.run), request, request.plan)
        except ProtocolError as err:
            remedy = "deliver the reports that it missed, or begin a new run"
            denials = (Denial(code="RUN_POSITION", rule="training", message=err.message, remedy=remedy),)
    return request, denials


def load_run(ledger: Ledger, run: bytes) -> RunState | None:
    """Return how far this silo is in a training run; None if it has learned nothing of it."""
    state = ledger.load_run(run)
    return None if state is None else RunState.decode(state)


def share(silo: Silo, state: Proposed, now: int, data: bytes) -> tuple[SharedOut, bytes]:
    """Check the manifest and share this silo's secrets over its roster; return the encoded `Shared`."""
    _not_expired(state.propose.expires_at, now)
    message = Share.decode(data)
    signed = verify(message.manifest, Manifest, silo.aggregators)
    manifest, manifest_hash = signed.message, signed.digest
    # 1. The manifest is what this silo's own reading of the request and the signed acceptances give: roster within
    #    the federation's, recipients, slots, variances, quorum, tolerances and expiry are all compared.
    accepts = check_manifest(manifest, state.propose, state.terms, message.accepts, silo.silos)
    if not set(manifest.silos) <= set(state.request.silos):
        raise ProtocolError("the roster holds a silo that the analyst did not ask")
    # 2. This silo's own acceptance is in it, unaltered, so its keys and its policy's conditions are.
    if [one.envelope for one in accepts if one.signer == silo.name] != [state.accept]:
        raise ProtocolError("the manifest does not hold this silo's own acceptance")
    # 3. Share b and r; seal one share of each to every channel key, and the pair seeds to the mask keys that follow.
    committee = manifest.committees(manifest_hash)[manifest.silos.index(silo.name)]
    self_shares = split(state.self_secret.raw, len(committee), manifest.committee_quorum)
    root_shares = split(state.root.raw, len(committee), manifest.committee_quorum)
    entries = []
    for number, place in enumerate(committee):
        member = manifest.roster[place]
        shares_info = entry_info(manifest_hash, "shares", silo.name, member.silo)
        sealed_seed = b""
        if member.silo > silo.name:
            seed = pair_seed(state.root.raw, manifest_hash, member.silo)
            sealed_seed = seal(member.mask_key, seed, entry_info(manifest_hash, "pair seed", silo.name, member.silo))
        sealed_shares = seal(member.channel_key, self_shares[number] + root_shares[number], shares_info)
        entries.append(Entry(shares=sealed_shares, pair_seed=sealed_seed).encode())
    bundle = Bundle(manifest_hash=manifest_hash, entries=tuple(sha256(entry).digest() for entry in entries))
    reply = Shared(bundle=sign(bundle, silo.name, silo.signing), entries=tuple(entries))
    return SharedOut(state, manifest, manifest_hash, committee, tuple(entries)), reply.encode()


def ready(silo: Silo, state: SharedOut, now: int, data: bytes) -> tuple[Received, bytes]:
    """Open what the committee sealed to this silo; return the signed Ready. AccusedError names whose does not hold."""
    _not_expired(state.manifest.expires_at, now)
    manifest, message = state.manifest, Deliver.decode(data)
    if not len(message.bundles) == len(message.entries) == len(state.committee):
        raise ProtocolError("a bundle of every member is needed before anything is contributed")
    received = []
    for place, envelope, raw in zip(state.committee, message.bundles, message.entries, strict=True):
        name = manifest.silos[place]
        bundle = verify(envelope, Bundle, {name: silo.silos[name]}).message
        try:
            received.append(_open_entry(silo, state, place, bundle, raw))
        except CryptoError as err:
            raise AccusedError(f"the entry of {name!r} does not hold: {err.message}", name) from err
    shares = Shares(tuple(one[0] for one in received), tuple(one[1] for one in received))
    after = Received(state, shares, tuple(seed for _, _, seed in received if seed))
    return after, sign(Ready(manifest_hash=state.manifest_hash), silo.name, silo.signing)


def contribute(
    silo: Silo, state: Received, ledger: Ledger, compute: Compute, noise: Noise, now: int, data: bytes
) -> tuple[Contributed, tuple[bytes, ...]]:
    """Compute, clip, add noise, blind; return the signed head followed by the first frame of the payload.

    Only after every silo of the roster signed that it is ready. The charge is committed durably before a row is read:
    how long the computation takes depends on data, so there is at most one of it to a charge.
    """
    shared = state.before
    _not_expired(shared.manifest.expires_at, now)
    manifest, manifest_hash, me = shared.manifest, shared.manifest_hash, silo.name
    roster = {name: silo.silos[name] for name in manifest.silos}
    check_ready(manifest, manifest_hash, Go.decode(data).signatures, roster)
    ledger.commit(shared.before.request.nonce, manifest.round_id)
    values = _noisy_values(shared, compute, noise, now)
    scheme = scheme_of(manifest, shared.before.request.round_key)
    later = [name for name in (manifest.silos[place] for place in shared.committee) if name > me]
    plus = [self_seed(shared.before.self_secret.raw, manifest_hash)]
    plus += [pair_seed(shared.before.root.raw, manifest_hash, name) for name in later]
    units = np.clip(values, -manifest.terms.limit, manifest.terms.limit)  # total, so that no error depends on data
    seals = [(member.channel_key, entry_info(manifest_hash, "column", me, member.silo)) for member in manifest.roster]
    pieces = tuple(blinded_pieces(scheme, units, plus, state.seeds, seals))
    asks_consent = silo.policy.purposes[shared.before.request.purpose].consent != "none"
    head = Contribution(
        manifest_hash=manifest_hash,
        length=manifest.length,
        chunks=digests(pieces),
        consent_as_of=now if asks_consent else None,
    )
    after = Contributed(
        aggregator=shared.before.aggregator,
        manifest=manifest,
        manifest_hash=manifest_hash,
        committee=shared.committee,
        scheme=scheme,
        channel=shared.before.channel,
        contribution=digest_of(head),
        pieces=pieces,
        shares=state.shares,
    )
    return after, (sign(head, me, silo.signing), after.frame(0))


def _open_entry(silo: Silo, state: SharedOut, place: int, bundle: Bundle, raw: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (share of b, share of r, pair seed or nothing) of the member at a place of the roster."""
    manifest, manifest_hash, me = state.manifest, state.manifest_hash, silo.name
    mine, name = manifest.silos.index(me), manifest.silos[place]
    committee = manifest.committees(manifest_hash)[place]
    if bundle.manifest_hash != manifest_hash or len(bundle.entries) != len(committee):
        raise ProtocolError("its bundle belongs to another round")
    if sha256(raw).digest() != bundle.entries[committee.index(mine)]:
        raise ProtocolError("it is not the one that was signed")
    if place == mine and raw != state.entries[committee.index(mine)]:
        raise ProtocolError("it is not the one that this silo made")
    entry, seed = Entry.decode(raw), b""
    both = state.before.channel.open(entry.shares, entry_info(manifest_hash, "shares", name, me))
    if place < mine:
        mask_key = mask_key_of(state.before.root.raw)
        seed = mask_key.open(entry.pair_seed, entry_info(manifest_hash, "pair seed", name, me))
    if len(both) != 2 * SHARE_BYTES or len(seed) != (32 if place < mine else 0):
        raise ProtocolError("it is malformed")
    return both[:SHARE_BYTES], both[SHARE_BYTES:], seed


def _noisy_values(state: SharedOut, compute: Compute, noise: Noise, now: int) -> npt.NDArray[np.int64]:
    """Return the silo's vector in ring units with its share of the noise; total, whatever the data hold."""
    blocks = state.manifest.terms.blocks
    least = 0 if is_exact(state.before.request) else MIN_DEVIATION**2 * state.manifest.noise_shares
    if any(int(block.variance) < least for block in blocks):
        raise ProtocolError(f"a silo's noise would deviate by less than {MIN_DEVIATION} ring units")
    exact = compute(state.before.request, now)
    if [len(part) for part in exact] != [block.length for block in blocks]:
        raise ProtocolError("the computation does not have the length that the manifest states")
    parts = []
    for block, part in zip(blocks, exact, strict=True):
        bound = cut_of(state.manifest.terms.limit, block.scale_bits)
        clipped = np.array([max(-bound, min(bound, value)) for value in part], np.int64)
        units, variance = clipped << np.int64(block.scale_bits), int(block.variance)
        parts.append(units + noise(block.length, variance, state.manifest.noise_shares) if variance else units)
    return np.concatenate(parts)


def agree(silo: Silo, state: Contributed, ledger: Ledger, now: int, data: bytes) -> tuple[Agreed, bytes]:
    """Sign the split if it is one that this silo may open under, and the only one of this round."""
    _not_expired(state.manifest.expires_at, now)
    proposed = verify(data, Split, silo.aggregators)
    message = proposed.message
    check_split(state.manifest, state.manifest_hash, message)
    mine = [survivor.contribution for survivor in message.survivors if survivor.silo == silo.name]
    if mine != [state.contribution]:
        raise ProtocolError("the split does not count this silo's own contribution")
    if not ledger.record_split(state.manifest.round_id, proposed.digest):
        raise ProtocolError("this silo signed another split of this round")
    after = Agreed(
        aggregator=state.aggregator,
        manifest=state.manifest,
        manifest_hash=state.manifest_hash,
        committee=state.committee,
        scheme=state.scheme,
        channel=state.channel,
        split=message,
        split_hash=proposed.digest,
        shares=state.shares,
    )
    return after, sign(message, silo.name, silo.signing)


def open_shares(silo: Silo, state: Agreed, now: int, data: bytes, columns: Sequence[bytes] = ()) -> tuple[bytes, ...]:
    """Return the signed Opening: for a survivor the share of its b, for a dropped silo of its r, never both.

    In the backend `shares`, `columns` are the survivors' signed heads and what each sealed to this silo; the Opening
    is then followed by their sum, sealed to each recipient.
    """
    manifest, message = state.manifest, Open.decode(data)
    _not_expired(manifest.expires_at, now)
    if sha256(message.split).digest() != state.split_hash:
        raise ProtocolError("the quorum signed another split than this silo")
    check_signatures(manifest, message.split, message.signatures, {name: silo.silos[name] for name in manifest.silos})
    if not state.scheme.is_masked:
        return _open_sums(silo, state, columns)
    survivors = {survivor.silo for survivor in state.split.survivors}
    row = tuple(
        of_self if manifest.silos[place] in survivors else of_root
        for place, of_self, of_root in zip(state.committee, state.shares.of_self, state.shares.of_root, strict=True)
    )
    plaintext = OpenedShares(shares=row).encode()
    sealed = tuple(
        seal(one.key, plaintext, opening_info(state.manifest_hash, state.split_hash, silo.name, one.name))
        for one in manifest.terms.recipients
    )
    opening = Opening(manifest_hash=state.manifest_hash, split_hash=state.split_hash, sealed=sealed, sums=())
    return (sign(opening, silo.name, silo.signing),)


def _open_sums(silo: Silo, state: Agreed, columns: Sequence[bytes]) -> tuple[bytes, ...]:
    """Add this silo's column of every survivor's contribution, each as it was signed and agreed on."""
    survivors, me = state.split.survivors, state.manifest.silos.index(silo.name)
    if len(columns) != 2 * len(survivors):
        raise ProtocolError("a head and a column of every survivor are needed")
    sealed = []
    for survivor, head, column in zip(survivors, columns[: len(survivors)], columns[len(survivors) :], strict=True):
        signed = verify(head, Contribution, {survivor.silo: silo.silos[survivor.silo]})
        if signed.digest != survivor.contribution or len(signed.message.chunks) != state.scheme.columns:
            raise ProtocolError(f"the contribution of {survivor.silo!r} is not the one that was agreed on")
        if digests([column]) != signed.message.chunks[me : me + 1]:
            raise ProtocolError(f"the column of {survivor.silo!r} is not the one it signed")
        sealed.append((column, entry_info(state.manifest_hash, "column", survivor.silo, silo.name)))
    total = added_column(state.scheme, me, state.channel, sealed)
    sums = tuple(
        seal(one.key, total, sum_info(state.manifest_hash, state.split_hash, silo.name, one.name))
        for one in state.manifest.terms.recipients
    )
    opening = Opening(manifest_hash=state.manifest_hash, split_hash=state.split_hash, sealed=(), sums=digests(sums))
    return (sign(opening, silo.name, silo.signing), *sums)


def learn(silo: Silo, ledger: Ledger, now: int, data: bytes, evidence: Sequence[bytes]) -> bytes:
    """Open the report of a training step, move the model by it, and return the signed Learned.

    `evidence` holds the contributions of the survivors, chunk by chunk: the sum is added once more before it is used.

    The new state is durable before this returns. A report that is not the next one of its run is left alone; what is
    returned then says how far this silo is.
    """
    stored = StoredReport.decode(data)
    proposed = verify(stored.message.propose, Propose, silo.aggregators).message
    name = signer_of(proposed.request, Request)
    analyst = silo.policy.analyst(name)
    if analyst is None:
        raise ProtocolError("the report belongs to a request of somebody who is not an analyst here")
    signed = verify(proposed.request, Request, {name: VerifyKey.parse(analyst.key)})
    request, step = signed.message, signed.message.plan
    if request.analyst != name or request.federation != silo.federation or not isinstance(step, Step):
        raise ProtocolError("the report is not that of a training step of this federation")
    state = load_run(ledger, step.run)
    if state is None or state.position != stored.name:
        try:
            check_position(state, request, step)
        except ProtocolError:
            return sign(Learned(run=step.run, position=position_of(state)), silo.name, silo.signing)
        terms = terms_of(request, signed.digest)
        checked = check_report(stored, terms, silo.silos, silo.aggregators, request.round_key)
        members = len(checked.survivors)
        for index in range(checked.scheme.shape.chunks if checked.scheme.columns == 1 else 0):
            check_chunk(stored, checked, index, evidence[index * members : (index + 1) * members])
        parties = silo.name, silo.sealing, silo.silos, silo.aggregators
        secret = round_secret(request, silo.name, silo.sealing)
        opened = open_report(stored, terms, *parties, round_key=request.round_key, secret=secret)
        state = moved(state, request, step, stored.name, opened.blocks(), now)
        ledger.save_run(step.run, state.encode())
    return sign(Learned(run=step.run, position=state.position), silo.name, silo.signing)


def check_cancel(silo: Silo, state: State, round_id: bytes, data: bytes) -> None:
    """Raise CryptoError unless the aggregator that proposed the round of a state says that it is over."""
    name = _proposer_of(state)
    message = verify(data, Cancel, {name: silo.aggregators[name]} if name in silo.aggregators else {}).message
    if message.round_id != round_id:
        raise ProtocolError("the message belongs to another round")


def _proposer_of(state: State) -> str:
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


def _not_expired(expires_at: int, now: int) -> None:
    if now >= expires_at:
        raise ProtocolError("the round has expired")
