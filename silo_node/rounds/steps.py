"""One silo's part in a round, as pure steps: state and bytes in, state and bytes out.

    Proposed --share--> SharedOut --ready--> Received --contribute--> Contributed --agree--> Agreed --open--> (erased)

In training the silos are the recipients: `learn` opens a report and moves the model.

Every step checks what it is told and raises ProtocolError (or what the decoders raise) before anything leaves. The
clock, the ledger, the computation on rows and the noise are arguments, which `silo_node.actor` passes: the noise is
`crypto.noise.discrete_gaussian`, added in `_noisy_values`. docs/protocol.md sections 3 to 6 and 11.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from crypto.errors import AccusedError, CryptoError, ProtocolError
from crypto.noise import MIN_DEVIATION
from crypto.rounds.key_schedule import entry_info, mask_key_of, opening_info, pair_seed, self_seed, sum_info
from crypto.rounds.manifest import Manifest, check_manifest
from crypto.rounds.messages import (
    Bundle,
    Contribution,
    Deliver,
    Entry,
    Go,
    Open,
    OpenedShares,
    Opening,
    Ready,
    Share,
    Shared,
    SurvivorSet,
    check_ready,
    check_signatures,
    check_split,
)
from crypto.rounds.payload import added_column, blinded_pieces, digests, scheme_of
from crypto.sealing import seal
from crypto.shamir import SHARE_BYTES, share_secret
from crypto.wire import digest_of, sign, verify
from policies.budget.ledger import Ledger
from policies.requests.calibration import clip_of
from policies.requests.request import Request
from silo_node.rounds.states import (
    Agreed,
    Contributed,
    KeyShares,
    Proposed,
    Received,
    SharedOut,
    Silo,
    check_not_expired,
)

# At a time; whole numbers of int64 per block, exact, before noise.
Compute = Callable[[Request, int], Sequence[npt.NDArray[np.int64]]]
Noise = Callable[[int, int, int], npt.NDArray[np.int64]]  # length, variance of the sum, shares


def share(silo: Silo, state: Proposed, now: int, data: bytes) -> tuple[SharedOut, bytes]:
    """Check the manifest and share this silo's secrets over its roster; return the encoded `Shared`."""
    check_not_expired(state.propose.expires_at, now)
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
    self_shares = share_secret(state.self_secret.raw, len(committee), manifest.committee_quorum)
    root_shares = share_secret(state.root.raw, len(committee), manifest.committee_quorum)
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
    check_not_expired(state.manifest.expires_at, now)
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
    shares = KeyShares(tuple(one[0] for one in received), tuple(one[1] for one in received))
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
    check_not_expired(shared.manifest.expires_at, now)
    manifest, manifest_hash, me = shared.manifest, shared.manifest_hash, silo.name
    roster = {name: silo.silos[name] for name in manifest.silos}
    check_ready(manifest, manifest_hash, Go.decode(data).signatures, roster)
    ledger.commit(shared.before.request.nonce, manifest.round_id)
    values = _noisy_values(shared, compute, noise, now)
    scheme = scheme_of(manifest, shared.before.request.round_key)
    later = [name for name in (manifest.silos[place] for place in shared.committee) if name > me]
    added_seeds = [self_seed(shared.before.self_secret.raw, manifest_hash)]
    added_seeds += [pair_seed(shared.before.root.raw, manifest_hash, name) for name in later]
    units = np.clip(values, -manifest.terms.limit, manifest.terms.limit)  # total, so that no error depends on data
    seals = [(member.channel_key, entry_info(manifest_hash, "column", me, member.silo)) for member in manifest.roster]
    pieces = tuple(blinded_pieces(scheme, units, added_seeds, state.seeds, seals))
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
    least = MIN_DEVIATION**2 * state.manifest.noise_shares if state.before.request.micro_rho else 0
    if any(int(block.variance) < least for block in blocks):
        raise ProtocolError(f"a silo's noise would deviate by less than {MIN_DEVIATION} ring units")
    exact = compute(state.before.request, now)
    if [part.shape for part in exact] != [(block.length,) for block in blocks]:
        raise ProtocolError("the computation does not have the length that the manifest states")
    parts = []
    for block, part in zip(blocks, exact, strict=True):
        bound = clip_of(state.manifest.terms.limit, block.scale_bits)
        units, variance = np.clip(part, -bound, bound) << np.int64(block.scale_bits), int(block.variance)
        parts.append(units + noise(block.length, variance, state.manifest.noise_shares) if variance else units)
    return np.concatenate(parts)


def agree(silo: Silo, state: Contributed, ledger: Ledger, now: int, data: bytes) -> tuple[Agreed, bytes]:
    """Sign the split if it is one that this silo may open under, and the only one of this round."""
    check_not_expired(state.manifest.expires_at, now)
    proposed = verify(data, SurvivorSet, silo.aggregators)
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
    check_not_expired(manifest.expires_at, now)
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
