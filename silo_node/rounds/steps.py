"""One silo's part in a round, as pure steps: state and bytes in, state and bytes out.

    Proposed --share--> KeysShared --receive--> Received --begin, ready--> Received --commit--> Committed
    Committed --fill, mask--> Contributed --agree--> Agreed --open--> (erased)
    of a long round: Agreed --open--> Opened --prove--> (erased)

In training the silos are the recipients: `learn` opens a report and moves the model.

Promise: every step checks its input and raises ProtocolError (or an error of the decoders) before anything leaves. The
clock, the ledger, what was computed on rows and the noise are arguments, which `silo_node.actor` passes: the noise is
`crypto.noise.discrete_gaussian`, added in `silo_node.rounds.vector`. docs/protocol.md sections 4 to 6; section 8,
tables B to E. Bonawitz et al., CCS 2017, figure 4, rounds 1 to 4.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crypto.errors import AccusedError, CryptoError, ProtocolError
from crypto.merkle import MerkleTree, leaf_hash
from crypto.noise import MIN_DEVIATION
from crypto.rounds.entries import open_entry
from crypto.rounds.key_schedule import entry_info, opening_info, pair_seed, self_seed, sum_info
from crypto.rounds.manifest import Accept, Manifest, seconds_of
from crypto.rounds.messages import (
    Accusation,
    Bundle,
    Contribution,
    Deliver,
    Entry,
    Go,
    Open,
    Opening,
    Ready,
    ShareKeys,
    SurvivorSet,
    UnmaskingShares,
    check_ready,
    check_signatures,
    check_survivors,
    entries_root,
)
from crypto.rounds.payload import UnitVector, added_column, digests, masked_input, scheme_of
from crypto.rounds.shown import Own, check_shown
from crypto.sealing import seal
from crypto.shamir import share_secret
from crypto.wire import Signature, detach, sign, unverified, verify, verify_detached
from policies.budget.ledger import Consulted, Ledger
from policies.decision.computing import stated_ms
from policies.decision.sending import sending_ms
from policies.requests.limit import clamps_of
from policies.requests.request import Request
from silo_node.data.figures import Vectors
from silo_node.rounds.states import (
    Agreed,
    Committed,
    Contributed,
    KeyShares,
    KeysShared,
    Proposed,
    Received,
    Silo,
    check_not_expired,
)
from silo_node.rounds.vector import Noise, add_figures, add_noise, is_beyond


def share(
    silo: Silo, state: Proposed, now: int, data: bytes, parts: Sequence[bytes] = ()
) -> tuple[KeysShared, tuple[bytes, ...]]:
    """Check the manifest and share this silo's secrets over its committee; return the signed bundle and the entries.

    `parts` are the acceptances and keys of the members that this silo is shown, see `ShareKeys`.
    """
    check_not_expired(state.propose.expires_at, now)
    message = ShareKeys.decode(data)
    signed = verify(message.manifest, Manifest, silo.aggregators)
    manifest, manifest_hash = signed.message, signed.digest
    own = Own(
        silo.name,
        state.propose,
        state.terms,
        state.request.silos,
        state.request.waits_s,
        state.request.sends_s,
        unverified(state.accept, Accept),
    )
    shown, compute_ms = check_shown(manifest, manifest_hash, own, message, parts, silo.silos)
    # Share b and r; seal one share of each to every channel key, and the pair seeds to the mask keys that follow.
    me = manifest.silos.index(silo.name)
    committee = manifest.committee(manifest_hash, me)
    self_shares = share_secret(state.self_secret.raw, len(committee), manifest.committee_quorum)
    root_shares = share_secret(state.root.raw, len(committee), manifest.committee_quorum)
    both = dict(zip(committee, zip(self_shares, root_shares, strict=True), strict=True))
    entries = []
    for place in committee:
        if place == me:
            continue
        name = manifest.silos[place]
        member, sealed_seed = shown[name], b""
        if place > me:
            seed = pair_seed(state.root.raw, manifest_hash, name)
            sealed_seed = seal(member.mask_key, seed, entry_info(manifest_hash, "pair seed", silo.name, name))
        shares_info = entry_info(manifest_hash, "shares", silo.name, name)
        entries.append(Entry(seal(member.channel_key, b"".join(both[place]), shares_info), sealed_seed).encode())
    bundle = Bundle(manifest_hash=manifest_hash, entries=MerkleTree([leaf_hash(entry) for entry in entries]).root)
    channel_keys = {name: member.channel_key for name, member in shown.items()}
    after = KeysShared(state, manifest, manifest_hash, committee, channel_keys, both[me], message.manifest, compute_ms)
    return after, (sign(bundle, silo.name, silo.signing), *entries)


def receive(silo: Silo, state: KeysShared, now: int, data: bytes, entries: Sequence[bytes] = ()) -> Received:
    """Open the committee's entries for this silo. AccusedError names a faulty sender."""
    check_not_expired(state.manifest.expires_at, now)
    manifest, message = state.manifest, Deliver.decode(data)
    me = manifest.silos.index(silo.name)
    others = [place for place in state.committee if place != me]
    if not len(message.signatures) == len(message.paths) == len(entries) == len(others):
        raise ProtocolError("an entry of every member is needed before anything is contributed")
    opened = {me: (*state.own_shares, b"")}
    for place, signature, path, raw in zip(others, message.signatures, message.paths, entries, strict=True):
        name = manifest.silos[place]
        _check_bundle(silo, state, place, signature, path, raw)
        keys = state.before.channel, state.before.mask
        try:
            opened[place] = open_entry(manifest, state.manifest_hash, place, me, raw, *keys)
        except CryptoError as err:
            accusation = _accusation(state, name, signature, path, raw).encode()
            raise AccusedError(f"the entry of {name!r} does not hold: {err.message}", name, accusation) from err
    received = [opened[place] for place in state.committee]
    shares = KeyShares(tuple(one[0] for one in received), tuple(one[1] for one in received))
    return Received(state, shares, tuple(seed for _, _, seed in received if seed))


def begin(silo: Silo, state: Received, ledger: Ledger, now: int) -> None:
    """Begin the charge of a round durably, if all that this silo alone needs to contribute is as it should be.

    From here on it counts as spent, until the same process gives it back without having committed it.
    """
    _check_time(silo, state, now)
    manifest, request = state.before.manifest, state.before.before.request
    least = MIN_DEVIATION**2 * manifest.noise_shares if request.micro_rho else 0
    if any(int(block.variance) < least for block in manifest.terms.blocks):
        raise ProtocolError(f"a silo's noise would deviate by less than {MIN_DEVIATION} ring units")
    ledger.begin_charge(request.nonce, manifest.round_id)


def ready(silo: Silo, state: Received) -> bytes:
    """Return the signed Ready, which may leave when the aggregators keep a checkpoint with the charge's beginning."""
    return sign(Ready(manifest_hash=state.before.manifest_hash), silo.name, silo.signing)


def _check_time(silo: Silo, state: Received, now: int) -> None:
    """Raise ProtocolError if the round ends before the silo has computed and sent: what is late must cost nothing."""
    request = state.before.before.request
    own_s = seconds_of(stated_ms(silo.policy, request)) + seconds_of(sending_ms(silo.policy, request))
    check_not_expired(state.before.manifest.expires_at - own_s, now)


def commit(
    silo: Silo, state: Received, ledger: Ledger, now: int, data: bytes, consulted: Consulted | None = None
) -> Committed:
    """Commit the charge of a round durably, before a row is computed on, if every silo of the roster is ready.

    The time of the computation depends on data, so there is at most one computation per charge. `now` is when the
    computing begins, after that of other rounds; `consulted` is what it will read of decisions on consent.
    """
    _check_time(silo, state, now)
    shared, manifest = state.before, state.before.manifest
    roster = {name: silo.silos[name] for name in manifest.silos}
    check_ready(manifest, shared.manifest_hash, Go.decode(data).signatures, roster)
    ledger.commit(shared.before.request.nonce, manifest.round_id, consulted)
    return Committed(state)


def request_of(state: Committed) -> Request:
    """Return the request whose contribution is being computed."""
    return state.before.before.before.request


def nothing_of(state: Committed) -> list[npt.NDArray[np.int64]]:
    """Return the contribution of a silo without rows."""
    return [np.zeros(block.length, np.int64) for block in state.before.before.manifest.terms.blocks]


def cut_by(state: Committed, exact: Vectors) -> tuple[str, ...]:
    """Return the statistics with a number that `mask` cuts: the silo has more rows than the backend carries."""
    shared = state.before.before
    parts = zip(shared.manifest.terms.blocks, exact, _clamps(shared), strict=False)  # `mask` refuses another length
    return tuple(block.name for block, part, clamp in parts if is_beyond(part, clamp))


def noise_of(committed: Committed, noise: Noise) -> UnitVector:
    """Begin this silo's vector with its share of the noise, which the manifest alone determines."""
    shared = committed.before.before
    vector = UnitVector(scheme_of(shared.manifest, shared.before.request.round_key))
    add_noise(vector, shared.manifest.terms, _clamps(shared), shared.manifest.noise_shares, noise)
    return vector


def fill(committed: Committed, exact: Vectors, vector: UnitVector) -> None:
    """Add what was computed to the vector that `noise_of` began; its arrays may be forgotten then."""
    shared = committed.before.before
    add_figures(vector, shared.manifest.terms, _clamps(shared), exact)


def mask(
    silo: Silo, committed: Committed, vector: UnitVector, now: int, rows_at: int | None = None
) -> tuple[Contributed, tuple[bytes, ...]]:
    """Blind a vector that is filled; return what leaves first.

    That is the signed header and the first frame of the payload; of a long round the frame alone, as the header is the
    last to leave (`frame`). `vector` belongs to the round from now on, `now` is when the decisions on consent were
    judged, `rows_at` when the files of prepared rows were seen unchanged.
    """
    state = committed.before
    shared = state.before
    manifest, manifest_hash, me = shared.manifest, shared.manifest_hash, silo.name
    scheme = scheme_of(manifest, shared.before.request.round_key)
    later = [name for name in (manifest.silos[place] for place in shared.committee) if name > me]
    added_seeds = [self_seed(shared.before.self_secret.raw, manifest_hash)]
    added_seeds += [pair_seed(shared.before.root.raw, manifest_hash, name) for name in later]
    keys = {**shared.channel_keys, me: shared.before.channel.public}
    to_all = manifest.silos if scheme.columns > 1 else ()
    seals = [(keys[name], entry_info(manifest_hash, "column", me, name)) for name in to_all]
    asks_consent = silo.policy.purposes[shared.before.request.purpose].consent != "none"
    after = Contributed(
        aggregator=shared.before.aggregator,
        manifest=manifest,
        manifest_hash=manifest_hash,
        committee=shared.committee,
        scheme=scheme,
        channel=shared.before.channel,
        masked=masked_input(scheme, vector, added_seeds, state.seeds, seals),
        consent_as_of=now if asks_consent else None,
        rows_as_of=rows_at,
        shares=state.shares,
        envelope=shared.envelope,
        nonce=shared.before.nonce,
    )
    first = after.masked.frame(0)
    return after, ((first,) if manifest.terms.is_long else (sign(after.header, me, silo.signing), first))


def frame(silo: Silo, state: Contributed | Agreed, index: int) -> bytes:
    """Return another frame of a masked input; in a long round the signed header comes after the last one.

    Raises ProtocolError if there is none of that number.
    """
    if isinstance(state, Contributed) and state.is_header(index):
        return sign(state.header, silo.name, silo.signing)
    return state.masked.frame(index)


def _check_bundle(silo: Silo, state: KeysShared, place: int, signature: Signature, path: bytes, raw: bytes) -> None:
    """Raise unless the member at a position of the roster signed a bundle that holds this entry for this silo.

    ProtocolError and SignatureError accuse nobody: any of them could have been made by the aggregator alone.
    """
    manifest, name = state.manifest, state.manifest.silos[place]
    root = entries_root(manifest, state.manifest_hash, place, manifest.silos.index(silo.name), raw, path)
    body = Bundle(manifest_hash=state.manifest_hash, entries=root).encode()
    verify_detached(signature, body, Bundle, {name: silo.silos[name]})


def _accusation(state: KeysShared, accused: str, signature: Signature, path: bytes, raw: bytes) -> Accusation:
    """Return an accusation with its proof. Whoever sends it leaves the round, whose secrets it tells."""
    return Accusation(
        manifest_hash=state.manifest_hash,
        accused=accused,
        signature=signature.signature,
        path=path,
        entry=raw,
        channel=state.before.channel_secret.raw,
        root=state.before.root.raw,
    )


def _clamps(state: KeysShared) -> tuple[int, ...]:
    """Return the magnitude to which the figures of every block are clamped, by the request alone."""
    request = state.before.request
    of = request.table, request.plan, request.micro_rho, request.backend, len(request.silos)
    return tuple(clamps_of(*of).values())


def agree(silo: Silo, state: Contributed, ledger: Ledger, now: int, data: bytes) -> tuple[Agreed, bytes]:
    """Return this silo's encoded Signature under the survivor set, if it is valid and the only one of this round."""
    check_not_expired(state.manifest.expires_at, now)
    proposed = verify(data, SurvivorSet, silo.aggregators)
    message = proposed.message
    check_survivors(state.manifest, state.manifest_hash, message)
    mine = [survivor.contribution for survivor in message.survivors if survivor.silo == silo.name]
    if mine != [state.contribution]:
        raise ProtocolError("the survivor set does not count this silo's own contribution")
    if not ledger.record_survivors(state.manifest.round_id, proposed.digest):
        raise ProtocolError("this silo signed another survivor set of this round")
    after = Agreed(
        aggregator=state.aggregator,
        manifest=state.manifest,
        manifest_hash=state.manifest_hash,
        committee=state.committee,
        scheme=state.scheme,
        channel=state.channel,
        survivor_set=message,
        survivors_hash=proposed.digest,
        shares=state.shares,
        masked=state.masked,
        nonce=state.nonce,
    )
    return after, detach(sign(message, silo.name, silo.signing), SurvivorSet).encode()


def open_shares(silo: Silo, state: Agreed, now: int, data: bytes, columns: Sequence[bytes] = ()) -> tuple[bytes, ...]:
    """Return the signed Opening: for a survivor the share of its b, for a dropped silo of its r, never both.

    In a long round the Opening tells the nonce too, and what is sealed to each recipient follows it; then the silo
    signs inner products (`silo_node.rounds.proving`). In the backend `shares`, `columns` are the survivors' signed
    headers and the columns that they sealed to this silo; the Opening is then followed by the sum of the columns,
    sealed to each recipient.
    """
    manifest, message = state.manifest, Open.decode(data)
    check_not_expired(manifest.expires_at, now)
    roster = {name: silo.silos[name] for name in manifest.silos}
    check_signatures(manifest, state.survivor_set.encode(), message.signatures, roster)
    if not state.scheme.is_masked:
        return _open_sums(silo, state, columns)
    survivors = {survivor.silo for survivor in state.survivor_set.survivors}
    row = tuple(
        of_self if manifest.silos[place] in survivors else of_root
        for place, of_self, of_root in zip(state.committee, state.shares.of_self, state.shares.of_root, strict=True)
    )
    plaintext = UnmaskingShares(shares=row).encode()
    sealed = tuple(
        seal(one.key, plaintext, opening_info(state.manifest_hash, state.survivors_hash, silo.name, one.name))
        for one in manifest.terms.recipients
    )
    beside = sealed if state.nonce is not None else ()  # so that a recipient need not receive those of all
    opening = Opening(
        manifest_hash=state.manifest_hash,
        split_hash=state.survivors_hash,
        sealed=() if beside else sealed,
        sums=digests(beside),
        nonce=None if state.nonce is None else state.nonce.raw,
    )
    return (sign(opening, silo.name, silo.signing), *beside)


def _open_sums(silo: Silo, state: Agreed, columns: Sequence[bytes]) -> tuple[bytes, ...]:
    """Check each survivor's column for this silo against the signed header and the survivor set, and add them."""
    survivors, me = state.survivor_set.survivors, state.manifest.silos.index(silo.name)
    if len(columns) != 2 * len(survivors):
        raise ProtocolError("a header and a column of every survivor are needed")
    sealed, names = [], [survivor.silo for survivor in survivors]
    for survivor, header, column in zip(survivors, columns[: len(survivors)], columns[len(survivors) :], strict=True):
        signed = verify(header, Contribution, {survivor.silo: silo.silos[survivor.silo]})
        if signed.digest != survivor.contribution or len(signed.message.chunks) != state.scheme.columns:
            raise ProtocolError(f"the contribution of {survivor.silo!r} is not the one that was agreed on")
        if digests([column]) != signed.message.chunks[me : me + 1]:
            raise ProtocolError(f"the column of {survivor.silo!r} is not the one it signed")
        sealed.append((column, entry_info(state.manifest_hash, "column", survivor.silo, silo.name)))
    total = added_column(state.scheme, me, state.channel, dict(zip(names, sealed, strict=True)))
    sums = tuple(
        seal(one.key, total, sum_info(state.manifest_hash, state.survivors_hash, silo.name, one.name))
        for one in state.manifest.terms.recipients
    )
    opening = Opening(manifest_hash=state.manifest_hash, split_hash=state.survivors_hash, sealed=(), sums=digests(sums))
    return (sign(opening, silo.name, silo.signing), *sums)
