"""Every check of every step, by its number in docs/protocol.md section 8: what breaks one rule alone is refused.

A to E: the silo at propose, share, ready and contribute, agree, open. F: the aggregator. G: the recipient. One round of
five silos, of which the third drops out, is run once; each test takes one of its steps again with one thing changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator import reports
from aggregator import rounds as hub
from aggregator.errors import SharesMissingError, SilosMissingError
from aggregator.sums import SumShard
from crypto.errors import AccusedError, CryptoError, ProtocolError, SealError, SignatureError, WireError
from crypto.keys import Secret, SigningKey, derive
from crypto.merkle import MerkleTree, leaf_hash
from crypto.rounds import report as stored_reports
from crypto.rounds.committees import MIN_DEGREE, degree_of, quorum_of
from crypto.rounds.key_schedule import entry_info, opening_info
from crypto.rounds.manifest import Accept, Recipient, compose
from crypto.rounds.messages import (
    SEALED_SEED,
    Bundle,
    Contribution,
    Deliver,
    Entry,
    Go,
    ModelUpdated,
    Open,
    Opening,
    Ready,
    ShareKeys,
    SurvivorSet,
    UnmaskingShares,
)
from crypto.rounds.opening import check_report, open_report
from crypto.rounds.recount import check_chunk
from crypto.rounds.report import DroppedSeeds, StoredReport, report_header
from crypto.sealing import PUBLIC_BYTES, SealingKey, seal
from crypto.wire import detach, digest_of, sign, unverified
from policies.budget.ledger import Spending
from policies.errors import AlreadyChargedError
from policies.requests.denials import Denial, Refusal
from policies.requests.logistic import LogisticStep
from policies.requests.request import Request
from policies.requests.training import START
from silo_node.rounds import learning, proposal, states
from silo_node.rounds import steps as core
from tests.harness.example_policy import AGE, NOW, SMOKER, table
from tests.harness.many_silos import (
    ANALYST,
    SEALING,
    Many,
    MemoryLedger,
    Round,
    accusation_of,
    checked_with,
    chunk_digests,
    refused,
    with_report,
)
from tests.harness.simulator import no_noise

ME = "silo-001"
BEFORE, DROPPED, AFTER = "silo-000", "silo-002", "silo-004"
STRANGER = SigningKey(Secret(derive(bytes(32), "stranger")))
ANA = SigningKey(ANALYST)
END = NOW + hub.ROUND_S


@dataclass(frozen=True)
class Held:
    """A finished round, and the states of its silos after each step."""

    one: Round
    proposed: dict[str, states.Proposed]
    shared: dict[str, states.KeysShared]
    received: dict[str, states.Received]
    contributed: dict[str, states.Contributed]
    agreed: dict[str, states.Agreed]

    def silo(self, name: str = ME) -> states.Silo:
        return self.one.silo(name)

    @property
    def many(self) -> Many:
        return self.one.many

    def signed(self, message: Any, name: str = "hub") -> bytes:
        key = self.many.aggregator.signing if name == "hub" else self.silo(name).signing
        return sign(message, name, key)

    def forged(self, message: Any, name: str = "hub") -> bytes:
        return sign(message, name, STRANGER)


def run(round_id: bytes, dropped: tuple[str, ...], many: Many) -> Held:
    one, found = many.round(many.request(nonce=round_id), round_id), dict[str, Any]()
    one.propose().compose()
    found["proposed"] = dict(one.states)
    found["shared"] = dict(one.share().states)
    found["received"] = dict(one.ready().states)
    found["contributed"] = dict(one.contribute(dropped).part().states)
    found["agreed"] = dict(one.agree().states)
    one.open()
    return Held(one, **found)


@cache
def five() -> Many:
    return Many(5)


@cache
def held() -> Held:
    return run(b"the round of all", (DROPPED,), five())


@cache
def earlier() -> Held:
    return run(b"an earlier round", (DROPPED,), five())


def charging() -> MemoryLedger:
    """Return a ledger as it is before the contribution: the charge of the held round has begun."""
    ledger = MemoryLedger()
    nonce = held().one.request.nonce
    ledger.charging = {nonce: (held().many.members[ME].ledger.committed[nonce], held().one.round_id)}
    return ledger


# A: the silo at propose


def propose(
    message: Any = None, envelope: bytes = b"", ledger: MemoryLedger | None = None, now: int = NOW
) -> tuple[states.Proposed | None, bytes]:
    message = held().one.proposed.propose if message is None else message
    data = envelope or held().signed(message)
    return proposal.propose(
        held().silo(), ledger or MemoryLedger(), lambda _: proposal.Freshness(None, None), now, message.round_id, data
    )


def asking(asked: Request, key: SigningKey = ANA, signer: str = "ana") -> Any:
    return held().one.proposed.propose.model_copy(update={"request": sign(asked, signer, key)})


def codes(reply: bytes) -> list[str]:
    return [denial.code for denial in unverified(reply, Refusal).denials]


def test_a0_what_breaks_no_rule_is_accepted() -> None:
    state, reply = propose()
    assert state is not None
    assert unverified(reply, Accept).request_hash == held().one.terms.request_hash


def test_a1_a_proposal_is_signed_by_an_aggregator() -> None:
    message = held().one.proposed.propose
    for envelope in (
        held().forged(message),
        held().signed(message, BEFORE),
        held().forged(message, "other"),
    ):
        with pytest.raises(SignatureError):
            propose(message, envelope)


def test_a2_a_proposal_is_of_its_round_and_federation_and_time() -> None:
    message = held().one.proposed.propose
    with pytest.raises(ProtocolError, match="another round"):
        proposal.propose(
            held().silo(),
            MemoryLedger(),
            lambda _: proposal.Freshness(None, None),
            NOW,
            bytes(16),
            held().signed(message),
        )
    with pytest.raises(ProtocolError, match="federation 'other'"):
        propose(message.model_copy(update={"federation": "other"}))
    propose(message.model_copy(update={"expires_at": NOW + proposal.MAX_ROUND_S}))
    for expires_at in (NOW, NOW - 1, NOW + proposal.MAX_ROUND_S + 1):
        with pytest.raises(ProtocolError, match="expired"):
            propose(message.model_copy(update={"expires_at": expires_at}))


def test_a3_a_request_is_signed_with_the_key_of_its_analyst() -> None:
    asked = held().one.request
    state, reply = propose(asking(asked, STRANGER))
    assert (state, codes(reply)) == (None, ["SIGNATURE"])
    state, reply = propose(asking(asked, STRANGER, "eve"))
    assert (state, codes(reply)) == (None, ["ANALYST_UNKNOWN"])


def test_a4_a_request_names_its_signer_and_this_federation_and_this_silo() -> None:
    asked = held().one.request
    for change in ({"analyst": "eve"}, {"federation": "other"}, {"silos": (BEFORE, AFTER, DROPPED, "silo-003")}):
        changed = Request.model_validate(
            {**dict(asked), **change, "silos": tuple(sorted(change.get("silos", asked.silos)))}
        )
        with pytest.raises(ProtocolError, match="another analyst, federation or set of silos"):
            propose(asking(changed))
    wider = Request.model_validate({**dict(asked), "silos": (*asked.silos, "stranger")})
    with pytest.raises(ProtocolError, match="roster lacks"):
        propose(asking(wider))
    for key in (bytes(PUBLIC_BYTES), SEALING.public[:-32] + bytes(32)):
        weak = Request.model_validate({**dict(asked), "recipients": (Recipient(name="ana", key=key),)})
        with pytest.raises(SealError):
            propose(asking(weak))


def step_request(recipients: tuple[Recipient, ...]) -> Request:
    step = LogisticStep(
        run=bytes(16), step=0, steps=2, after=START, release="private", label="smoker", features=("age",),
        learning_rate="1", momentum="0", clip="1", local_steps=1,
    )  # fmt: skip
    return held().many.request(recipients=recipients, plan=step, table=table(columns=(AGE, SMOKER)))


def test_a4_a_model_goes_to_the_keys_of_the_roster() -> None:
    right = held().silo().roster.recipients(held().many.names)
    state, reply = propose(asking(step_request(right)))
    assert state is None, "it is the policy that has no training"
    assert "COMPUTATION_CLOSED" in codes(reply)
    wrong = (*right[:-1], Recipient(name=right[-1].name, key=SEALING.public))
    with pytest.raises(ProtocolError, match="a key that the roster does not give it"):
        propose(asking(step_request(wrong)))


def test_a5_a_request_is_answered_once() -> None:
    state, reply = propose(ledger=held().many.members[ME].ledger)
    assert (state, codes(reply)) == (None, ["ALREADY_ANSWERED"])
    # Also where the ledger learns of it only when it reserves.
    ledger = MemoryLedger()
    ledger.committed = dict(held().many.members[ME].ledger.committed)
    ledger.is_charged = lambda nonce: False  # type: ignore[method-assign]
    with pytest.raises(AlreadyChargedError):
        propose(ledger=ledger)


def test_a10_a_limit_that_is_reached_while_deciding_refuses() -> None:
    class Racing(MemoryLedger):
        full = False

        def spending(self, *arguments: Any, **named: Any) -> Spending:
            return Spending(1_000_000 if self.full else 0)

        def reserve(self, *arguments: Any, **named: Any) -> bool:
            self.full = True
            return False

    state, reply = propose(ledger=Racing())
    assert (state, codes(reply)) == (None, ["BUDGET_LIFETIME"])


# B: the silo at share


def share(
    manifest: Any = None,
    parts: tuple[bytes, ...] | None = None,
    envelope: bytes = b"",
    proof: tuple[bytes, ...] | None = None,
    now: int = NOW,
) -> tuple[states.KeysShared, tuple[bytes, ...]]:
    honest, *honest_parts = held().one.composed.share(ME)
    told = ShareKeys.decode(honest)
    signed = envelope or (told.manifest if manifest is None else held().signed(manifest))
    told = told.model_copy(update={"manifest": signed, "proof": told.proof if proof is None else proof})
    return core.share(held().silo(), held().proposed[ME], now, told.encode(), honest_parts if parts is None else parts)


def test_b1_an_expired_round_goes_no_further_at_any_step() -> None:
    share(now=END - 1)
    one, me = held().one, held().many.members[ME]
    steps: tuple[Callable[[], object], ...] = (
        lambda: share(now=END),
        lambda: core.receive(me.silo, held().shared[ME], END, one.shared.deliver(ME)[0], one.shared.deliver(ME)[1:]),
        lambda: core.begin(me.silo, held().received[ME], MemoryLedger(), END),
        lambda: core.commit(me.silo, held().received[ME], charging(), END, one.go),
        lambda: core.agree(me.silo, held().contributed[ME], MemoryLedger(), END, one.parted.envelope),
        lambda: core.open_shares(me.silo, held().agreed[ME], END, one.opens),
    )
    for step in steps:
        with pytest.raises(ProtocolError, match="expired"):
            step()


def test_b2_a_manifest_is_signed_by_an_aggregator() -> None:
    manifest = held().one.composed.manifest
    for envelope in (held().forged(manifest), held().signed(manifest, BEFORE)):
        with pytest.raises(SignatureError):
            share(envelope=envelope)


def test_b3_every_acceptance_is_signed_by_its_silo_and_of_this_round_with_its_keys() -> None:
    # What ME is shown: of silo-000 two parts, of each later one three.
    _, *parts = held().one.composed.share(ME)
    mine = unverified(parts[0], Accept)
    assert [len(parts), *map(len, (parts[1], parts[3], parts[4]))] == [11, PUBLIC_BYTES, PUBLIC_BYTES, PUBLIC_BYTES]
    for wrong, error in (
        (held().forged(mine, BEFORE), SignatureError),
        (earlier().one.composed.accepts[0], ProtocolError),
        (parts[2], SignatureError),
    ):
        with pytest.raises(error):
            share(parts=(wrong, *parts[1:]))
    for place in (1, 3, 4):
        for wrong_key in (SEALING.public, b"", parts[place][:-1], parts[1] if place > 1 else parts[3]):
            with pytest.raises(ProtocolError, match=r"not the one that its silo's acceptance names"):
                share(parts=(*parts[:place], wrong_key, *parts[place + 1 :]))
    for few in (parts[:-1], (*parts, b""), ()):
        with pytest.raises(ProtocolError, match="not those of this silo's committee"):
            share(parts=tuple(few))


def test_b4_a_manifest_is_what_request_and_roster_give() -> None:
    manifest = held().one.composed.manifest
    for change in ({"quorum": 3}, {"degree": 2}, {"round_id": bytes(16)}, {"federation": "other"}):
        with pytest.raises(ProtocolError, match=f"manifest's {next(iter(change))} is not what"):
            share(manifest.model_copy(update=change))
    terms = manifest.terms.model_copy(update={"limit": 5})
    with pytest.raises(ProtocolError, match="manifest's terms"):
        share(manifest.model_copy(update={"terms": terms}))
    silos = manifest.silos
    for names in (silos[::-1], (*silos, silos[-1]), (*silos[:2], silos[2], silos[2], silos[4])):
        with pytest.raises(ProtocolError, match="not sorted or names a silo twice"):
            share(manifest.model_copy(update={"silos": names}))


def test_b4a_a_manifest_is_as_strict_as_the_strictest_acceptance_and_lasts_no_longer_than_the_request() -> None:
    manifest = held().one.composed.manifest
    for change in ({"min_silos": 2}, {"max_colluding": 0}, {"max_missing": 0}):
        with pytest.raises(ProtocolError, match=f"{next(iter(change))} is not that of the strictest"):
            share(manifest.model_copy(update=change))
    expires_at, waits_s = held().one.proposed.propose.expires_at, held().one.request.waits_s
    for other in (expires_at + 1, expires_at - 1):
        with pytest.raises(ProtocolError, match="expires_at is not that of the strictest"):
            share(manifest.model_copy(update={"expires_at": other}))
    slower, parts = joined(AFTER, compute_ms=5_000)
    assert slower.expires_at == expires_at + 5
    share(slower, parts)
    with pytest.raises(ProtocolError, match="expires_at is not that of the strictest"):
        share(slower.model_copy(update={"expires_at": expires_at + 4}), parts)
    with pytest.raises(ProtocolError, match="later than the request waits"):
        share(*joined(AFTER, compute_ms=1000 * waits_s + 1))
    sends_s = held().one.request.sends_s
    slower, parts = joined(AFTER, compute_ms=5_000, send_ms=1000 * sends_s)
    assert slower.expires_at == expires_at + 5 + sends_s
    share(slower, parts)
    for other in (expires_at + 5, expires_at + sends_s, expires_at + 6 + sends_s):
        with pytest.raises(ProtocolError, match="expires_at is not that of the strictest"):
            share(slower.model_copy(update={"expires_at": other}), parts)
    with pytest.raises(ProtocolError, match="later than the request waits"):
        share(*joined(AFTER, send_ms=1000 * sends_s + 1))


def test_b8_a_pair_seed_goes_to_those_after_it_alone() -> None:
    entries = [Entry.decode(raw) for raw in share()[1][1:]]
    assert [bool(entry.pair_seed) for entry in entries] == [False, True, True, True]


def joined(name: str, **changes: object) -> tuple[Any, tuple[bytes, ...]]:
    """Return manifest and parts in which one silo accepts otherwise."""
    one = held().one
    accepts = {silo: unverified(raw, Accept) for silo, raw in zip(held().many.names, one.composed.accepts, strict=True)}
    accepts[name] = accepts[name].model_copy(update=changes)
    manifest = compose(one.proposed.propose, one.terms, list(accepts.items()))
    return manifest, shown(accepts)


def shown(accepts: dict[str, Accept]) -> tuple[bytes, ...]:
    """Return the parts that show ME these acceptances, with the keys of the held round."""
    parts: list[bytes] = []
    for place, (silo, accept) in enumerate(accepts.items()):
        member = held().one.composed.members[place]
        keys = [member.channel_key, *([member.mask_key] if silo > ME else [])]
        parts += [held().signed(accept, silo), *keys] if silo != ME else []
    return tuple(parts)


def test_b5_a_roster_bears_the_conditions_of_its_members() -> None:
    one = held().one
    for change in ({"max_colluding": 3}, {"min_silos": 6}, {"max_missing": 2}):
        if "max_missing" not in change:  # the fewest that any member allows hold
            with pytest.raises(ProtocolError):
                joined(AFTER, **change)
        manifest = one.composed.manifest.model_copy(update=change)
        with pytest.raises(ProtocolError, match=r"must|withstand|cannot lose"):
            share(manifest)


def test_b6_a_silo_that_was_not_asked_is_not_in_the_roster() -> None:
    asked = held().many.request(nonce=b"\7" * 16, silos=held().many.names[:4])
    one = Round(held().many, asked, b"a narrower round").propose(held().many.names[:4])
    envelope, *keys = one.replies["propose"][ME]
    one.replies["propose"][AFTER] = (held().signed(unverified(envelope, Accept), AFTER), *keys)
    one.compose()
    message, *parts = one.composed.share(ME)
    with pytest.raises(ProtocolError, match="did not ask"):
        core.share(held().silo(), one.state(ME, states.Proposed), NOW, message, parts)


def test_b7_its_own_acceptance_and_those_it_sees_are_under_the_root_unaltered() -> None:
    for change in ({"min_silos": 2}, {"self_commitment": bytes(32)}, {"channel_key_hash": bytes(32)}):
        for name in (ME, AFTER):  # in the root it accepts otherwise than it is seen to
            with pytest.raises(ProtocolError, match="own acceptance and those"):
                share(joined(name, **change)[0])
    four = Round(held().many, held().one.request, held().one.round_id)
    four.replies["propose"] = {name: frames for name, frames in held().one.replies["propose"].items() if name != ME}
    four.compose()
    with pytest.raises(ProtocolError, match="own acceptance"):
        share(four.composed.manifest)
    for proof in ((bytes(32),), (held().one.composed.manifest.members,)):  # of five, ME sees all
        with pytest.raises(ProtocolError, match="more hashes than it needs"):
            share(proof=proof)
    _, *parts = held().one.composed.share(ME)
    swapped = (*parts[:2], *parts[5:8], *parts[2:5], *parts[8:])  # each at the place of the other
    with pytest.raises(SignatureError):
        share(parts=swapped)


# C: the silo at ready and at contribute


def deliver(entries: tuple[bytes, ...] | None = None, **changes: Any) -> states.Received:
    honest, *honest_entries = held().one.shared.deliver(ME)
    told = Deliver.decode(honest).model_copy(update=changes)
    given = honest_entries if entries is None else entries
    return core.receive(held().silo(), held().shared[ME], NOW, told.encode(), given)


def redealt(dealer: str, change: Callable[[Entry], bytes], **bundle: Any) -> dict[str, Any]:
    """Return what is delivered to ME where a dealer signed another entry for it, or another bundle."""
    place, silos = held().many.names.index(dealer), held().many.names
    number = [name for name in silos if name != dealer].index(ME)
    mine = list(held().one.shared.entries[place])
    mine[number] = change(Entry.decode(mine[number]))
    tree = MerkleTree([leaf_hash(entry) for entry in mine])
    signed = Bundle(**{"manifest_hash": held().one.manifest_hash, "entries": tree.root, **bundle})
    honest, *entries = held().one.shared.deliver(ME)
    told, at = Deliver.decode(honest), [name for name in silos if name != ME].index(dealer)
    signatures, paths = list(told.signatures), list(told.paths)
    signatures[at] = detach(held().signed(signed, dealer), Bundle)
    entries[at], paths[at] = mine[number], b"".join(tree.proof([number]))
    return {"signatures": tuple(signatures), "paths": tuple(paths), "entries": tuple(entries)}


def same(entry: Entry) -> bytes:
    return entry.encode()


def resealed(
    dealer: str, shares: bytes | None = None, seed: bytes | None = None, whose: str = ""
) -> Callable[[Entry], bytes]:
    def change(entry: Entry) -> bytes:
        member, fields = held().one.composed.members[1], dict[str, bytes]()
        for name, key, plain, purpose in (
            ("shares", member.channel_key, shares, "shares"),
            ("pair_seed", member.mask_key, seed, "pair seed"),
        ):
            if plain is not None:
                fields[name] = seal(key, plain, entry_info(held().one.manifest_hash, purpose, whose or dealer, ME))
        return replace(entry, **fields).encode()

    return change


def test_c0_what_breaks_no_rule_is_ready() -> None:
    deliver()
    for dealer in (BEFORE, AFTER):
        deliver(**redealt(dealer, same))
        deliver(**redealt(dealer, resealed(dealer, bytes(64))))
    deliver(**redealt(BEFORE, resealed(BEFORE, bytes(64), bytes(32))))


def test_c1_an_entry_of_every_member() -> None:
    honest, *entries = held().one.shared.deliver(ME)
    told = Deliver.decode(honest)
    for change in (
        {"signatures": told.signatures[:-1]},
        {"paths": told.paths[:-1]},
        {"entries": tuple(entries[:-1])},
        {"signatures": told.signatures[:-1], "paths": told.paths[:-1], "entries": tuple(entries[:-1])},
        {"signatures": told.signatures * 2, "paths": told.paths * 2, "entries": (*entries, *entries)},
    ):
        with pytest.raises(ProtocolError, match="every member"):
            deliver(**change)


def test_c2_c3_each_entry_is_the_one_that_its_member_signed_for_this_manifest_and_silo() -> None:
    """Nobody is accused: the aggregator alone could have made any of these."""
    honest, *entries = held().one.shared.deliver(ME)
    told, bundle = Deliver.decode(honest), unverified(held().one.shared.bundles[0], Bundle)
    forged = detach(held().forged(bundle, BEFORE), Bundle)
    other = told.signatures[0].model_copy(update={"signature": told.signatures[1].signature})
    for signature in (forged, other, told.signatures[1], detach(held().one.replies["ready"][BEFORE][0], Ready)):
        with pytest.raises(SignatureError):
            deliver(signatures=(signature, *told.signatures[1:]))
    for changes in ({"manifest_hash": bytes(32)}, {"entries": bytes(32)}):
        with pytest.raises(SignatureError):
            deliver(**redealt(BEFORE, same, **changes))
    for swapped in (resealed(BEFORE, bytes(64))(Entry.decode(entries[0])), held().one.shared.entry(0, 3), b""):
        with pytest.raises(SignatureError):
            deliver(entries=(swapped, *entries[1:]))
    # The entry for another silo, with the path that leads from it to the signed root: it is not at the place of ME.
    with pytest.raises(SignatureError):
        deliver(
            entries=(held().one.shared.entry(0, 3), *entries[1:]), paths=(held().one.shared.path(0, 3), *told.paths[1:])
        )
    for path in (b"", told.paths[0][:-1], told.paths[0] + bytes(32), told.paths[0][:-32]):
        with pytest.raises(ProtocolError, match="a proof"):
            deliver(paths=(path, *told.paths[1:]))


def test_c4_shares_and_pair_seeds_open_in_their_context_and_have_their_lengths() -> None:
    for dealer, change in (
        (BEFORE, resealed(BEFORE, bytes(63))),
        (AFTER, resealed(AFTER, bytes(65))),
        (BEFORE, resealed(BEFORE, seed=bytes(31))),
        (BEFORE, resealed(BEFORE, seed=b"")),
        (BEFORE, resealed(BEFORE, bytes(64), whose=AFTER)),
        (BEFORE, resealed(BEFORE, seed=bytes(32), whose=AFTER)),
        (BEFORE, lambda entry: replace(entry, pair_seed=b"").encode()),
        (AFTER, resealed(AFTER, seed=bytes(32))),
        (AFTER, lambda entry: b"{}"),
    ):
        with pytest.raises(AccusedError) as caught:
            deliver(**redealt(dealer, change))
        assert caught.value.accused == dealer


def contribute(go: bytes = b"", ledger: MemoryLedger | None = None, values: Any = (1, 2, 3)) -> states.Contributed:
    ledger = charging() if ledger is None else ledger
    committed = core.commit(held().silo(), held().received[ME], ledger, NOW, go or held().one.go)
    vector = core.noise_of(committed, no_noise)
    core.fill(committed, [np.array(values, np.int64)], vector)
    return core.mask(held().silo(), committed, vector, NOW)[0]


def test_c5_c6_go_needs_every_ready_and_a_charge_that_began_in_this_round() -> None:
    signatures, stale = Go.decode(held().one.go).signatures, Go.decode(earlier().one.go).signatures
    for wrong in (
        signatures[1:],
        signatures[:-1],
        signatures[::-1],
        (*signatures, signatures[0]),
        (stale[0], *signatures[1:]),
    ):
        ledger = charging()
        with pytest.raises(CryptoError):
            contribute(Go(signatures=wrong).encode(), ledger)
        assert ledger.charging, "nothing was committed"
    ledger, other = charging(), charging()
    contribute(ledger=ledger)
    assert not ledger.charging
    other.charging = {nonce: (one, bytes(16)) for nonce, (one, _) in other.charging.items()}
    reserved = MemoryLedger()
    reserved.reserved = dict(ledger.committed)
    for spent in (ledger, MemoryLedger(), other, reserved):
        with pytest.raises(AlreadyChargedError):
            contribute(ledger=spent)


def with_variance(variance: int) -> states.Received:
    before = held().received[ME].before
    terms = before.manifest.terms
    block = terms.blocks[0].model_copy(update={"variance": str(variance)})
    changed = before.manifest.model_copy(update={"terms": terms.model_copy(update={"blocks": (block,)})})
    return replace(held().received[ME], before=replace(before, manifest=changed))


def test_c7_the_noise_of_one_silo_deviates_by_three_units() -> None:
    shares = held().one.composed.manifest.noise_shares
    ledger = MemoryLedger()
    ledger.reserved = {held().one.request.nonce: charging().charging[held().one.request.nonce][0]}
    with pytest.raises(ProtocolError, match="less than 3"):
        core.begin(held().silo(), with_variance(9 * shares - 1), ledger, NOW)
    assert ledger.reserved, "nothing was charged"
    core.begin(held().silo(), with_variance(9 * shares), ledger, NOW)
    assert ledger.charging


@pytest.mark.parametrize("values", [(), (1, 2), (1, 2, 3, 4)])
def test_c8_the_computation_has_the_lengths_of_the_blocks(values: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError, match="length"):
        contribute(values=values)


def test_c9_a_frame_that_is_not_there_is_refused() -> None:
    state = held().contributed[ME]
    assert state.masked.frame(0) == held().one.payloads[ME]
    for index in (-1, 1, 2**63):
        with pytest.raises(ProtocolError, match="no frame"):
            state.masked.frame(index)


# D and E: the silo at agree and at open


def agree(data: bytes, ledger: MemoryLedger | None = None) -> states.Agreed:
    return core.agree(held().silo(), held().contributed[ME], ledger or MemoryLedger(), NOW, data)[0]


def survivor_set(**changes: Any) -> SurvivorSet:
    return held().one.parted.survivor_set.model_copy(update=changes)


def test_d1_a_survivor_set_comes_from_an_aggregator() -> None:
    agree(held().signed(survivor_set()))
    for envelope in (held().forged(survivor_set()), held().signed(survivor_set(), BEFORE)):
        with pytest.raises(SignatureError):
            agree(envelope)


def test_d2_d3_a_survivor_set_parts_this_roster_and_leaves_enough() -> None:
    survivors = survivor_set().survivors
    for change in (
        {"manifest_hash": bytes(32)},
        {"survivors": survivors[::-1]},
        {"survivors": (*survivors, survivors[-1])},
        {"dropped": ()},
        {"dropped": (DROPPED, AFTER)},
        {"survivors": survivors[:-1], "dropped": (DROPPED, AFTER)},
    ):
        with pytest.raises(ProtocolError):
            agree(held().signed(survivor_set(**change)))


def test_d4_a_survivor_set_counts_this_silos_own_contribution() -> None:
    survivors = tuple(
        one.model_copy(update={"contribution": bytes(32)}) if one.silo == ME else one
        for one in survivor_set().survivors
    )
    with pytest.raises(ProtocolError, match="own contribution"):
        agree(held().signed(survivor_set(survivors=survivors)))


def test_d5_one_survivor_set_is_signed_in_a_round_and_noted_first() -> None:
    ledger = MemoryLedger()
    ledger.survivors_hashes[held().one.round_id] = bytes(32)
    with pytest.raises(ProtocolError, match="another survivor set"):
        agree(held().signed(survivor_set()), ledger)
    ledger = MemoryLedger()
    agree(held().signed(survivor_set()), ledger)
    assert ledger.survivors_hashes == {held().one.round_id: digest_of(survivor_set())}


def open_shares(signatures: Any = None) -> bytes:
    (opening,) = open_frames(signatures)
    return opening


def open_frames(signatures: Any = None) -> tuple[bytes, ...]:
    told = Open.decode(held().one.opens)
    message = Open(signatures=told.signatures if signatures is None else signatures)
    return core.open_shares(held().silo(), held().agreed[ME], NOW, message.encode())


def test_e1_a_quorum_of_survivors_signed_the_survivor_set() -> None:
    open_shares()
    good = Open.decode(held().one.opens).signatures
    dropped = detach(held().signed(survivor_set(), DROPPED), SurvivorSet)
    forged = detach(held().forged(survivor_set(), AFTER), SurvivorSet)
    for wrong in ((), good[:3], (*good[:3], good[0]), (*good, good[0]), (*good[:3], forged), (*good, dropped)):
        with pytest.raises(CryptoError):
            open_shares(signatures=wrong)


def test_e2_a_silo_opens_under_the_survivor_set_that_it_signed() -> None:
    told = earlier().one.parted.survivor_set.model_copy(update={"manifest_hash": held().one.manifest_hash})
    names = [one.silo for one in told.survivors]
    signatures = tuple(detach(held().signed(told, name), SurvivorSet) for name in names)
    with pytest.raises(SignatureError):
        open_shares(signatures)


def test_e3_it_releases_one_of_the_two_shares_of_each_and_never_both() -> None:
    opening = unverified(open_shares(), Opening)
    info = opening_info(held().one.manifest_hash, digest_of(survivor_set()), ME, "ana")
    row = UnmaskingShares.decode(SEALING.open(opening.sealed[0], info)).shares
    mine = held().agreed[ME].shares
    for place, share_of in enumerate(row):
        assert share_of == (mine.of_root if place == 2 else mine.of_self)[place]
        assert share_of != (mine.of_self if place == 2 else mine.of_root)[place]


# F: the aggregator


def hub_party() -> hub.Aggregator:
    return held().many.aggregator


def replied(step: str, **changes: bytes | tuple[bytes, ...]) -> dict[str, tuple[bytes, ...]]:
    given = {name.replace("_", "-"): raw if isinstance(raw, tuple) else (raw,) for name, raw in changes.items()}
    return {**held().one.replies[step], **given}


def test_f1_an_answer_is_signed_by_the_silo_that_was_asked_and_of_this_request() -> None:
    envelope, *keys = held().one.replies["propose"][AFTER]
    good, weak = unverified(envelope, Accept), bytes(PUBLIC_BYTES)
    named = {"mask_key_hash": sha256(weak).digest(), "channel_key_hash": sha256(weak).digest()}
    for wrong in (
        (held().forged(good, AFTER), *keys),
        (held().signed(good, BEFORE), *keys),
        (earlier().one.replies["propose"][AFTER][0], *keys),
        (envelope, *keys[::-1]),
        (envelope, keys[0], SEALING.public),
        (envelope, keys[0]),
        (envelope, *keys, b""),
        (held().signed(good.model_copy(update=named), AFTER), weak, weak),
    ):
        accepts, refusals = hub.read_answers(hub_party(), held().one.proposed, replied("propose", silo_004=wrong))
        assert set(accepts) == set(held().many.names[:4])
        assert not refusals
    denial = Denial(code="NO", rule="r", message="m", remedy="r")
    no = Refusal(federation="fed", request_hash=good.request_hash, policy_hash=bytes(32), denials=(denial,))
    for refusing, counts in (
        (held().signed(no, AFTER), True),
        (held().forged(no, AFTER), False),
        (held().signed(no, BEFORE), False),
        (held().signed(no.model_copy(update={"request_hash": bytes(32)}), AFTER), False),
    ):
        _, refusals = hub.read_answers(hub_party(), held().one.proposed, replied("propose", silo_004=refusing))
        assert set(refusals) == ({AFTER} if counts else set())
    frame = held().one.replies["propose"][AFTER][0]
    no_bytes: Any = None
    for frames in ((frame, b""), (), (no_bytes,)):
        accepts, refusals = hub.read_answers(hub_party(), held().one.proposed, {AFTER: frames})
        assert not accepts, "a reply is one frame of bytes"
        assert not refusals


def test_f2_the_harshest_are_left_out_until_a_roster_bears_them() -> None:
    accepts, _ = hub.read_answers(hub_party(), held().one.proposed, held().one.replies["propose"])
    harsh = replace(accepts[BEFORE], message=accepts[BEFORE].message.model_copy(update={"max_colluding": 50}))
    composed = hub.compose_round(hub_party(), held().one.proposed, {**accepts, BEFORE: harsh})
    assert composed.manifest.silos == held().many.names[1:]
    with pytest.raises(ProtocolError, match="2 of the 5 silos"):
        hub.compose_round(hub_party(), held().one.proposed, {name: accepts[name] for name in (ME, AFTER)})
    with pytest.raises(ProtocolError, match="no silo"):
        hub.compose_round(hub_party(), held().one.proposed, {})


def test_f3_a_bundle_is_signed_and_bound_and_lists_its_entries() -> None:
    envelope, *entries = held().one.replies["share"][AFTER]
    bundle, no_bytes = unverified(envelope, Bundle), None
    wrong: tuple[Any, ...] = (
        (held().forged(bundle, AFTER), *entries),
        (held().signed(bundle, BEFORE), *entries),
        (held().signed(bundle.model_copy(update={"manifest_hash": bytes(32)}), AFTER), *entries),
        (held().signed(bundle.model_copy(update={"entries": bytes(32)}), AFTER), *entries),
        (envelope, *entries[::-1]),
        (envelope, *entries[:-1]),
        (envelope, *entries, entries[0]),
        (envelope, *entries[:-1], no_bytes),
        (envelope, *entries[:-1], entries[-1][:-1]),
        (envelope,),
        (),
        b"",
    )
    hub.collect_shares(hub_party(), held().one.composed, held().one.replies["share"])
    for reply in wrong:
        with pytest.raises(SharesMissingError) as caught:
            hub.collect_shares(hub_party(), held().one.composed, replied("share", silo_004=reply))
        assert caught.value.missing == (AFTER,)
    missing = {name: frames for name, frames in held().one.replies["share"].items() if name != ME}
    with pytest.raises(SharesMissingError) as caught:
        hub.collect_shares(hub_party(), held().one.composed, missing)
    assert caught.value.missing == (ME,)


def test_f4_ready_is_signed_and_bound_and_an_accusation_is_of_this_round_and_roster() -> None:
    good = unverified(held().one.replies["ready"][AFTER][0], Ready)
    accused = accusation_of(held().one, AFTER, ME)
    for reply, missing in (
        (held().forged(good, AFTER), {AFTER}),
        (held().signed(good, BEFORE), {AFTER}),
        (held().signed(Ready(manifest_hash=bytes(32)), AFTER), {AFTER}),
        (held().signed(accused, AFTER), {AFTER, ME}),
        (held().forged(accused, AFTER), {AFTER}),
        (held().signed(accused.model_copy(update={"manifest_hash": bytes(32)}), AFTER), {AFTER}),
        (held().signed(accused.model_copy(update={"accused": "stranger"}), AFTER), {AFTER}),
    ):
        with pytest.raises(SharesMissingError) as caught:
            hub.collect_ready(hub_party(), held().one.shared, replied("ready", silo_004=reply))
        assert set(caught.value.missing) == missing


def test_f5_a_contribution_is_signed_and_of_this_round_and_length() -> None:
    good = unverified(held().one.headers[ME].envelope, Contribution)
    hub.read_contribution(hub_party(), held().one.shared, ME, held().one.headers[ME].envelope)
    for wrong in (
        held().forged(good, ME),
        held().one.headers[AFTER].envelope,
        held().signed(good.model_copy(update={"manifest_hash": bytes(32)}), ME),
        held().signed(good.model_copy(update={"length": 4}), ME),
    ):
        with pytest.raises(CryptoError):
            hub.read_contribution(hub_party(), held().one.shared, ME, wrong)


def test_f6_f7_a_sum_takes_whole_signed_contributions_once(tmp_path: Path) -> None:
    sums, payload = SumShard(tmp_path), held().one.payloads[ME]
    digests = chunk_digests(payload, 8)
    manifest = held().one.composed.manifest.encode()
    sums.start(b"r", manifest, b"")
    sums.start(b"r", manifest, b"")  # as a call that is repeated
    with pytest.raises(ProtocolError, match="open already"):
        sums.start(b"r", manifest, b"another key")
    for frame in (payload[:-8], b"", payload + bytes(8)):
        with pytest.raises(WireError, match="bytes, expected"):
            sums.stage(b"r", ME, 0, 1, frame)
    with pytest.raises(ProtocolError, match="another shard"):
        sums.stage(b"r", ME, 1, 2, payload)
    assert sums.stage(b"r", ME, 0, 1, bytes(len(payload))) != digests, "which tells the driver, before it is kept"
    assert sums.keep(b"r", AFTER, b"m") == (0,), "the piece that is lacking"
    assert sums.stage(b"r", ME, 0, 1, payload) == digests
    for _ in range(2):  # a call that is repeated changes nothing
        assert sums.keep(b"r", ME, b"m") == ()
        assert sums.stage(b"r", ME, 0, 1, bytes(len(payload))) != digests
    with pytest.raises(ProtocolError, match="kept before"):
        sums.keep(b"r", ME, b"another")
    with pytest.raises(ProtocolError, match="not open"):
        sums.stage(b"x", ME, 0, 1, payload)
    with pytest.raises(ProtocolError, match="not open"):
        sums.close(b"x", ())
    sums.stage(b"r", AFTER, 0, 1, payload)
    for names in ((b"m", b"another"), ()):
        with pytest.raises(ProtocolError, match=r"not held here|of nothing"):
            sums.close(b"r", names)
    for _ in range(2):
        assert sums.close(b"r", (b"m",)) == digests
    assert sums.sum_chunk(b"r", 0) == payload
    with pytest.raises(ProtocolError, match="other contributions"):
        sums.close(b"r", (b"m", b"m"))
    sums.discard(b"r")
    assert {path.suffix for path in tmp_path.iterdir()} == {".contribution", ".dates"}, "what was not added is gone"
    sums.start(b"s", manifest, b"")
    sums.stage(b"s", AFTER, 0, 1, payload)
    sums.discard(b"s")
    sums.discard(b"s")
    assert len(list(tmp_path.glob("*.contribution"))) == 1
    sums.start(b"s", manifest, b"")
    with pytest.raises(ProtocolError, match="not held"):
        sums.close(b"s", (b"m",))


def test_f8_a_survivor_set_leaves_enough_survivors() -> None:
    few = {name: held().one.headers[name] for name in held().many.names[:2]}
    with pytest.raises(SilosMissingError) as caught:
        hub.fix_survivors(hub_party(), held().one.shared, few)
    assert caught.value.missing == held().many.names[2:]


def test_f9_a_quorum_of_survivors_signed_this_very_survivor_set() -> None:
    assert set(hub.collect_signatures(hub_party(), held().one.parted, held().one.replies["agree"])) == {
        *held().many.names
    } - {DROPPED}
    other = survivor_set(dropped=())
    for wrong in (
        held().forged(survivor_set(), AFTER),
        held().signed(survivor_set(), BEFORE),
        held().signed(other, AFTER),
        b"",
    ):
        with pytest.raises(SilosMissingError) as caught:
            hub.collect_signatures(hub_party(), held().one.parted, replied("agree", silo_004=wrong))
        assert caught.value.missing == (AFTER,)
    # The signature of a dropped silo is left out: silos refuse a message that holds one.
    found = hub.collect_signatures(
        hub_party(), held().one.parted, replied("agree", silo_002=held().signed(survivor_set(), DROPPED))
    )
    assert DROPPED not in found


def assemble(replies: dict[str, tuple[bytes, ...]], shared: Any = None) -> Any:
    one = held().one
    parted = one.parted if shared is None else replace(one.parted, before=shared)
    return hub.assemble(hub_party(), parted, one.signatures, replies)


def test_f10_a_quorum_opened_this_manifest_and_survivor_set() -> None:
    assemble(held().one.replies["open_shares"])
    good = unverified(held().one.replies["open_shares"][AFTER][0], Opening)
    for wrong in (
        held().forged(good, AFTER),
        held().signed(good, BEFORE),
        held().signed(good.model_copy(update={"manifest_hash": bytes(32)}), AFTER),
        held().signed(good.model_copy(update={"split_hash": bytes(32)}), AFTER),
        b"",
    ):
        with pytest.raises(SilosMissingError, match="fewer than 4") as caught:
            assemble(replied("open_shares", silo_004=wrong))
        assert caught.value.missing == (AFTER,)


def test_f10_a_quorum_of_every_committee_opened() -> None:
    """In a sparse graph as many may open as must, and yet too few beside one silo."""
    composed = held().one.composed
    manifest = composed.manifest.model_copy(update={"quorum": 3, "degree": 2})
    shared = replace(held().one.shared, before=replace(composed, manifest=manifest))
    for names in ([ME, BEFORE, "silo-003"], [ME, AFTER, "silo-003"], [BEFORE, AFTER, "silo-003"]):
        replies: dict[str, tuple[bytes, ...]] = {name: (reopened(name, (bytes(32),) * 3),) for name in names}
        with pytest.raises(SilosMissingError, match="neighbours"):
            assemble(replies, shared)


# G: the recipient


def stored() -> StoredReport:
    return held().one.report


def opened(report: StoredReport | None = None, name: str = "ana", key: SealingKey = SEALING) -> list[float]:
    silos, hubs = held().silo().silos, held().silo().aggregators
    found = open_report(check_report(report or stored(), held().one.terms, silos, hubs), name, key)
    return [float(value) for block in found.blocks() for value in block]


def spoilt(**changes: Any) -> CryptoError:
    return refused(lambda: opened(with_report(stored(), **changes)))


def checking(**changes: Any) -> CryptoError:
    """Return the error of the checks that need no key, and stand before the openings."""
    report = with_report(stored(), **changes)
    return refused(lambda: check_report(report, held().one.terms, held().silo().silos, held().silo().aggregators))


def test_g0_what_breaks_no_rule_opens() -> None:
    assert opened() == held().many.sum_of(name for name in held().many.names if name != DROPPED)


def test_g1_propose_and_manifest_are_signed_by_an_aggregator() -> None:
    one = held().one
    assert isinstance(spoilt(propose=held().forged(one.proposed.propose)), SignatureError)
    assert isinstance(spoilt(manifest=held().forged(one.composed.manifest)), SignatureError)


def test_g2_the_manifest_is_what_own_terms_and_signed_acceptances_give() -> None:
    assert "belongs to another" in str(spoilt(propose=earlier().one.proposed.envelope))
    accepts = stored().message.accepts
    assert "silos" in str(spoilt(accepts=accepts[:-1]))
    forged = held().forged(unverified(accepts[4], Accept), AFTER)
    assert isinstance(spoilt(accepts=(*accepts[:4], forged)), SignatureError)
    lower = held().one.composed.manifest.model_copy(update={"quorum": 3})
    assert "quorum" in str(spoilt(manifest=held().signed(lower)))


def test_g3_recipient_and_key_are_in_the_manifest() -> None:
    for name, key in (("eve", SEALING), ("ana", SealingKey(Secret(bytes(32))))):
        error = refused(lambda name=name, key=key: opened(name=name, key=key))  # type: ignore[misc]
        assert "is not a recipient" in str(error)


def test_g4_a_quorum_is_on_one_valid_survivor_set_and_the_headers_are_its_survivors() -> None:
    headers, signatures = stored().message.contributions, stored().message.signatures
    assert "lacks the signatures" in str(checking(signatures=signatures[:3]))
    assert isinstance(
        checking(signatures=(*signatures[:3], detach(held().forged(survivor_set(), AFTER), SurvivorSet))),
        SignatureError,
    )
    for changed, says in (
        (survivor_set(manifest_hash=bytes(32)), "another manifest"),
        (survivor_set(dropped=()), "part the roster"),
    ):
        signed = tuple(detach(held().signed(changed, one.signer), SurvivorSet) for one in signatures)
        assert says in str(checking(split=changed.encode(), signatures=signed))
    assert "not the one that was agreed on" in str(checking(contributions=headers[1:]))
    good = unverified(headers[0], Contribution)
    assert isinstance(checking(contributions=(held().forged(good, BEFORE), *headers[1:])), SignatureError)
    another = held().signed(good.model_copy(update={"chunks": (bytes(32),)}), BEFORE)
    assert "not the one that was agreed on" in str(checking(contributions=(another, *headers[1:])))
    for change in ({"manifest_hash": bytes(32)}, {"length": 4}):
        # Agreed on by all, and yet not a contribution to this round.
        header = good.model_copy(update=change)
        survivors = (
            survivor_set().survivors[0].model_copy(update={"contribution": digest_of(header)}),
            *survivor_set().survivors[1:],
        )
        agreed = survivor_set(survivors=survivors)
        signed = tuple(detach(held().signed(agreed, one.signer), SurvivorSet) for one in signatures)
        error = checking(
            split=agreed.encode(), signatures=signed, contributions=(held().signed(header, BEFORE), *headers[1:])
        )
        assert str(error) == f"the contribution of {BEFORE!r} belongs to another round"


def reopened(name: str, row: tuple[bytes, ...], **changes: Any) -> bytes:
    manifest_hash, survivors_hash = held().one.manifest_hash, digest_of(survivor_set())
    sealed = seal(
        SEALING.public, UnmaskingShares(shares=row).encode(), opening_info(manifest_hash, survivors_hash, name, "ana")
    )
    opening = Opening(manifest_hash=manifest_hash, split_hash=survivors_hash, sealed=(sealed,), sums=())
    return held().signed(opening.model_copy(update=changes), name)


def test_g5_openings_are_signed_and_bound_and_cover_the_committee() -> None:
    openings = stored().message.openings
    good = unverified(openings[0], Opening)
    row = (bytes(32),) * 5
    for wrong, says in (
        (held().forged(good, BEFORE), "does not hold"),
        (held().forged(good, "stranger"), "not expected"),
        (reopened(BEFORE, row, manifest_hash=bytes(32)), "another round or survivor set"),
        (reopened(BEFORE, row, split_hash=bytes(32)), "another round or survivor set"),
        (reopened(BEFORE, row, sealed=()), "not sealed to each"),
        (reopened(BEFORE, row, sealed=(b"", b"")), "not sealed to each"),
        (reopened(BEFORE, row[:4]), "cover its committee"),
        (reopened(BEFORE, (*row, bytes(32))), "cover its committee"),
        (openings[1], "3 silos opened their shares, 4 are needed"),
    ):
        assert says in str(spoilt(openings=(wrong, *openings[1:])))


def test_g6_rebuilt_secrets_fit_their_commitments() -> None:
    openings = stored().message.openings
    row = UnmaskingShares.decode(
        SEALING.open(
            unverified(openings[0], Opening).sealed[0],
            opening_info(held().one.manifest_hash, digest_of(survivor_set()), BEFORE, "ana"),
        )
    ).shares
    for place, silo in ((0, BEFORE), (2, DROPPED)):
        for wrong in (bytes(32), b"\xff" * 32):  # another secret, and no element of the field
            changed = reopened(BEFORE, (*row[:place], wrong, *row[place + 1 :]))
            assert f"{silo!r} do not rebuild" in str(spoilt(openings=(changed, *openings[1:])))


def test_g7_entries_of_dropped_silos_are_those_of_signed_bundles() -> None:
    (seeds,), bundles = stored().message.dropped, stored().message.bundles
    first = unverified(bundles[0], Bundle)
    for changes in (
        {"dropped": ()},
        {"dropped": (DroppedSeeds(silo=DROPPED, entries=seeds.entries[:1]),)},
        {"dropped": (DroppedSeeds(silo=DROPPED, entries=(*seeds.entries, seeds.entries[0])),)},
        {"bundles": ()},
        {"bundles": bundles[1:]},
    ):
        assert "missing" in str(spoilt(**changes))
    assert isinstance(spoilt(bundles=(held().forged(first, BEFORE), *bundles[1:])), SignatureError)
    bundle = held().signed(first.model_copy(update={"manifest_hash": bytes(32)}), BEFORE)
    assert "another round" in str(spoilt(bundles=(bundle, *bundles[1:])))
    bundle = held().signed(first.model_copy(update={"entries": bytes(32)}), BEFORE)
    assert "not the one it signed" in str(spoilt(bundles=(bundle, *bundles[1:])))
    swapped = DroppedSeeds(silo=DROPPED, entries=seeds.entries[::-1])
    assert "not the one it signed" in str(spoilt(dropped=(swapped,)))
    cut = DroppedSeeds(silo=DROPPED, entries=(seeds.entries[0][:-32], *seeds.entries[1:]))
    assert "a proof that lacks a hash" in str(spoilt(dropped=(cut,)))
    info = entry_info(held().one.manifest_hash, "pair seed", BEFORE, DROPPED)
    own, key = list(held().one.shared.entries[0]), held().one.composed.members[2].mask_key
    good = Entry.decode(own[1])
    for changed, says in (
        (replace(good, pair_seed=b""), "lacks a hash"),  # what follows is read as the rest of the entry
        (replace(good, pair_seed=seal(key, bytes(31), info)), "lacks a hash"),
        (replace(good, pair_seed=bytes(SEALED_SEED)), "does not open"),
    ):
        own[1] = changed.encode()
        tree = MerkleTree([leaf_hash(entry) for entry in own])
        error = spoilt(
            bundles=(held().signed(first.model_copy(update={"entries": tree.root}), BEFORE), *bundles[1:]),
            dropped=(DroppedSeeds(silo=DROPPED, entries=(own[1] + b"".join(tree.proof([1])), *seeds.entries[1:])),),
        )
        assert says in str(error)


def test_g8_the_sum_has_the_length_of_the_manifest_and_the_digests_of_the_report() -> None:
    total = bytes(stored().blinded_sum)
    for changes in (
        {"total": total[:-8], "chunks": chunk_digests(total[:-8], 8)},
        {"total": total[:-8], "chunks": chunk_digests(total[:-8], 8), "length": 2},
        {"total": total + bytes(8), "chunks": chunk_digests(total + bytes(8), 8), "length": 4},
        {"length": 4},
    ):
        error = str(spoilt(**changes))
        assert "the report names" in error or "bytes, expected" in error
    assert "names" in str(spoilt(total=bytes(24)))
    assert "names" in str(spoilt(chunks=(bytes(32),)))


# G9: adding once more


def test_g9_a_chunk_is_the_sum_of_the_survivors_signed_chunks() -> None:
    checked = check_report(stored(), held().one.terms, held().silo().silos, held().silo().aggregators)
    chunks = [held().one.payloads[one.silo] for one in survivor_set().survivors]
    check_chunk(checked, 0, chunks)
    for wrong, says in (
        (chunks[:-1], "3 contributions"),
        ([*chunks, chunks[0]], "5 contributions"),
        ([bytes(24), *chunks[1:]], "not the one that it signed"),
        ([chunks[0][:-8], *chunks[1:]], "not the one that it signed"),
    ):
        with pytest.raises(ProtocolError, match=says):
            check_chunk(checked, 0, wrong)
    # A chunk of another length, signed though it is, is no part of this sum.
    short = chunks[0][:-8]
    headers = (
        checked.contributions[0].model_copy(update={"chunks": chunk_digests(short, 8)}),
        *checked.contributions[1:],
    )
    with pytest.raises(WireError, match="has 16 bytes, expected 24"):
        check_chunk(checked_with(checked, contributions=headers), 0, [short, *chunks[1:]])
    zero = StoredReport.decode(report_header(stored().message) + bytes(24))
    with pytest.raises(ProtocolError, match="the sum is wrong"):
        check_chunk(checked_with(checked, stored=zero), 0, chunks)


# The graph


def test_j1_the_degree_is_the_least_that_meets_each_rule() -> None:
    assert degree_of(MIN_DEGREE + 1, 1, 1) == MIN_DEGREE
    assert degree_of(MIN_DEGREE + 2, 1, 1) == MIN_DEGREE
    for silos, colluding, missing in (
        (400, 60, 40),
        (400, 1, 30),
        (400, 70, 1),
        (400, 120, 1),
        (120, 30, 30),
        (400, 90, 0),
    ):
        degree = degree_of(silos, colluding, missing)

        def holds(k: int, a: int = colluding, d: int = missing) -> bool:
            return k > a + d and a + 1 < quorum_of(k + 1) and k + 1 - d >= quorum_of(k + 1)

        assert degree == silos - 1 or holds(degree)
        assert not any(holds(k) for k in range(MIN_DEGREE, min(degree, silos - 1), 2))


# Learning: what is no report of a training step moves nothing


def test_k1_a_report_of_a_question_or_of_a_stranger_is_not_learned() -> None:
    data = report_header(stored().message) + bytes(stored().blinded_sum)
    ledger = MemoryLedger()
    with pytest.raises(ProtocolError, match="not that of a training step"):
        learning.learn(held().silo(), ledger, NOW, data, [])
    propose_of = held().one.proposed.propose
    for asked, signer, key, error in (
        (held().one.request, "eve", STRANGER, ProtocolError),
        (held().one.request, "ana", STRANGER, SignatureError),
    ):
        changed = propose_of.model_copy(update={"request": sign(asked, signer, key)})
        message = stored().message.model_copy(update={"propose": held().signed(changed)})
        with pytest.raises(error):
            learning.learn(held().silo(), ledger, NOW, report_header(message), [])
    step = step_request(held().silo().roster.recipients(held().many.names))
    for change in ({"analyst": "eve"}, {"federation": "other"}):
        asked = Request.model_validate({**dict(step), **change})
        changed = propose_of.model_copy(update={"request": sign(asked, "ana", ANA)})
        message = stored().message.model_copy(update={"propose": held().signed(changed)})
        with pytest.raises(ProtocolError, match="not that of a training step of this federation"):
            learning.learn(held().silo(), ledger, NOW, report_header(message), [])
    message = stored().message.model_copy(update={"propose": held().forged(propose_of)})
    with pytest.raises(SignatureError):
        learning.learn(held().silo(), ledger, NOW, report_header(message), [])
    with pytest.raises(ProtocolError, match="not that of a training step"):
        reports.index_of(stored().message).recipients  # noqa: B018  reading it is what is refused


# Reading: what is cut, or does not fit itself, is no message


def test_a_head_names_as_many_pieces_as_the_round_has() -> None:
    good = unverified(held().one.headers[ME].envelope, Contribution)
    wrong = held().signed(good.model_copy(update={"chunks": good.chunks * 2}), ME)
    with pytest.raises(ProtocolError, match="another round"):
        hub.read_contribution(hub_party(), held().one.shared, ME, wrong)


def test_a_report_that_is_cut_or_something_else_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    data = report_header(stored().message) + bytes(stored().blinded_sum)
    assert StoredReport.decode(data).name == stored().name
    for wrong in (b"", data[:4], data[:7], b"XXXX" + data[4:]):
        with pytest.raises(WireError, match="no encrypted report"):
            StoredReport.decode(wrong)
    with pytest.raises(WireError, match="cut short"):
        StoredReport.decode(data[: len(report_header(stored().message)) - 1])
    monkeypatch.setattr(stored_reports, "MAX_REPORT_BYTES", len(data) - 1)
    with pytest.raises(WireError, match="no encrypted report"):
        StoredReport.decode(data)
    monkeypatch.setattr(type(stored().message), "MAX_BYTES", 1000)
    with pytest.raises(WireError, match="at most 1000"):
        report_header(stored().message)


def test_k2_a_silo_answers_for_the_run_that_was_asked_about() -> None:
    asked = step_request(held().silo().roster.recipients(held().many.names))
    changed = held().one.proposed.propose.model_copy(update={"request": sign(asked, "ana", ANA)})
    report = stored().message.model_copy(update={"propose": held().signed(changed)})
    step = reports.index_of(report).step
    updated = ModelUpdated(federation=hub_party().federation, run=bytes(16), position=bytes(32))
    assert reports.read_model_updated(hub_party(), ME, step.run, (held().signed(updated, ME),)).message == updated
    other = updated.model_copy(update={"run": b"\1" * 16})
    for frames in (
        (held().signed(other, ME),),
        (held().signed(updated, AFTER),),
        (held().forged(updated, ME),),
        (held().signed(updated, ME),) * 2,
    ):
        with pytest.raises(CryptoError):
            reports.read_model_updated(hub_party(), ME, step.run, frames)
