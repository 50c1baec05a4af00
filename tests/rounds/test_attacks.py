"""Attack stories on one round: each is refused, or the attacker's own computation shows that it gains nothing."""

import copy
import pickle
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from aggregator import reports
from aggregator import rounds as aggregator_core
from aggregator.errors import SharesMissingError, SilosMissingError, StoreError
from aggregator.rounds import Replies, read_request
from analyst import verify as verify_answer
from analyst.demo.hospitals import PURPOSE
from analyst.reports.estimates import Estimate
from crypto.backends.masks import apply_masks
from crypto.errors import AccusedError, CryptoError, ProtocolError, SealError, SignatureError
from crypto.keys import Secret, SigningKey, derive
from crypto.merkle import MerkleTree, leaf_hash
from crypto.ring import Ring, Words
from crypto.rounds.bounds import tolerated_collusion, why_infeasible
from crypto.rounds.committees import committees, degree_of, quorum_of
from crypto.rounds.key_schedule import entry_info, mask_key_of, opening_info, pair_seed, self_commitment, self_seed
from crypto.rounds.manifest import Accept, Recipient
from crypto.rounds.messages import (
    SEALED_SHARES,
    Accusation,
    Bundle,
    Contribution,
    Entry,
    Failed,
    Go,
    Open,
    Opening,
    SurvivorSet,
    UnmaskingShares,
)
from crypto.rounds.opening import check_report
from crypto.rounds.recount import check_chunk
from crypto.rounds.report import StoredReport, report_header
from crypto.sealing import PUBLIC_BYTES, SealingKey, seal
from crypto.shamir import combine
from crypto.wire import Signature, attach, detach, digest_of, sign, unverified, verify
from federation.errors import FederationError
from policies.decision.denial_codes import CLOCK_SKEW_S
from policies.domains import digest_in, hash_of, text_of
from policies.errors import AlreadyChargedError
from policies.requests.catalogue import DOMAIN_MAGIC, Catalogue, CatalogueRequest, DomainRequest
from policies.requests.denials import Refusal
from silo_node.rounds import proposal as rounds_proposal
from silo_node.rounds import states as rounds_states
from silo_node.rounds import steps
from tests.harness.domains import days, lengthen
from tests.harness.example_policy import NOW
from tests.harness.inside import aggregator_of, database_of, key_of, known_to, ledger_of, rounds_of
from tests.harness.many_silos import SEALING, Many, Round, accusation_of, chunk_digests, trusting, with_report, words_of
from tests.harness.simulator import Simulation, ask, no_noise, simulate
from tests.rounds.test_training import banks, models, run

if TYPE_CHECKING:
    import networkx  # type: ignore[import-untyped]

QUESTION = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex"
ONE, TWO = b"the first round ", b"the second round"


def values_of(words: Words) -> list[int]:
    return [int(value) for value in Ring(64).signed(words)]


def scaled(one: Round, name: str) -> list[int]:
    """Return what a silo contributed, in the ring units of the round."""
    scale = one.terms.blocks[0].scale_bits
    return [value << scale for value in one.many.members[name].values]


def resigned(one: Round, name: str, message: Any, **changes: object) -> bytes:
    return sign(message.model_copy(update=changes), name, one.silo(name).signing)


# Telling different silos different things


def test_different_rosters_to_different_silos() -> None:
    # Hope: two manifests of one round, so that sums over two rosters open and their difference is one silo.
    one = Round(Many(6), Many(6).request(), ONE).propose().compose()
    narrow = one.composed
    accepts = {name: frames for name, frames in one.replies["propose"].items() if name != "silo-005"}
    one.replies["propose"] = accepts
    one.compose()
    assert one.manifest_hash != narrow.manifest_hash
    shares = {}
    for name, told in zip(one.composed.manifest.silos, [narrow, narrow, *[one.composed] * 3], strict=True):
        message, *parts = told.share(name)
        one.states[name], shares[name] = steps.share(
            one.silo(name), one.state(name, rounds_states.Proposed), NOW, message, parts
        )
    with pytest.raises(SharesMissingError) as caught:
        aggregator_core.collect_shares(one.many.aggregator, one.composed, shares)
    assert caught.value.missing == ("silo-000", "silo-001")
    # Given the bundles all the same, nobody is ready for a round that others understand otherwise.
    deliver, *entries = trusting(one.composed, shares).deliver("silo-002")
    with pytest.raises((ProtocolError, SignatureError)):
        steps.receive(one.silo("silo-002"), one.state("silo-002", rounds_states.KeysShared), NOW, deliver, entries)


def test_different_requests_to_different_silos() -> None:
    # Hope: one silo answers a wide question while the others answer a narrow one, under one round.
    many = Many(5)
    one, other = many.round(), many.round(many.request(nonce=b"\1" * 16, micro_rho=20_000))
    one.propose(many.names[:4])
    other.propose(many.names[4:])
    mixed = {**one.replies["propose"], **other.replies["propose"]}
    accepts, _ = aggregator_core.read_answers(many.aggregator, one.proposed, mixed)
    assert set(accepts) == set(many.names[:4])
    one.replies["propose"] = mixed
    one.compose()
    assert "silo-004" not in one.composed.manifest.silos
    # Taken in all the same, silo-004 sees another request's terms.
    accepts["silo-004"] = replace(accepts["silo-003"], signer="silo-004")
    message, *parts = aggregator_core.compose_round(many.aggregator, one.proposed, accepts).share("silo-004")
    with pytest.raises(ProtocolError, match="manifest's terms is not"):
        steps.share(one.silo("silo-004"), other.state("silo-004", rounds_states.Proposed), NOW, message, parts)


def test_different_recipients_to_different_silos() -> None:
    # Hope: one silo seals its shares to the aggregator's key, the others to the analyst's.
    many = Many(5)
    one = many.round().propose().compose()
    eve = SealingKey(Secret(derive(bytes(32), "eve")))
    terms = one.composed.manifest.terms.model_copy(update={"recipients": (Recipient(name="ana", key=eve.public),)})
    forged = one.composed.manifest.model_copy(update={"terms": terms})
    envelope = sign(forged, "hub", many.aggregator.signing)
    message, *parts = replace(one.composed, envelope=envelope).share("silo-000")
    with pytest.raises(ProtocolError, match="terms"):
        steps.share(one.silo("silo-000"), one.state("silo-000", rounds_states.Proposed), NOW, message, parts)


def test_a_recipient_that_the_analyst_did_not_sign() -> None:
    # Hope: the aggregator becomes a recipient by changing the request, which it relays.
    many = Many(4)
    one = many.round()
    widened = many.request(
        recipients=(Recipient(name="ana", key=SEALING.public), Recipient(name="hub", key=SEALING.public))
    )
    forged = sign(widened, "ana", many.aggregator.signing)
    propose = aggregator_core.propose(many.aggregator, read_request(forged), ONE, NOW)
    member = many.members["silo-000"]
    state, reply = rounds_proposal.propose(
        member.silo, member.ledger, lambda _: rounds_proposal.Freshness(None, None), NOW, ONE, propose.envelope
    )
    assert state is None
    assert [denial.code for denial in unverified(reply, Refusal).denials] == ["SIGNATURE"]
    # What a quorum opened is sealed to the analyst alone: the aggregator's own key opens no row of it.
    one.run()
    hub = SealingKey(Secret(derive(bytes(32), "hub")))
    for raw in one.report.message.openings:
        opening = unverified(raw, Opening)
        info = opening_info(opening.manifest_hash, opening.split_hash, "silo-000", "ana")
        assert len(opening.sealed) == 1
        with pytest.raises(SealError):
            hub.open(opening.sealed[0], info)


# Survivors and dropped


def test_the_same_silo_as_survivor_and_as_dropped() -> None:
    # Hope: the shares of both secrets of silo-003, in one survivor set or in two.
    one = Many(4).round().until_contributed().part()
    both = one.parted.survivor_set.model_copy(update={"dropped": ("silo-003",)})
    envelope = sign(both, "hub", one.many.aggregator.signing)
    with pytest.raises(ProtocolError, match="part the roster"):
        one.sign("silo-000", envelope)
    without = one.parted.survivor_set.model_copy(
        update={"survivors": one.parted.survivor_set.survivors[:3], "dropped": ("silo-003",)}
    )
    one.sign("silo-000", one.parted.envelope)
    with pytest.raises(ProtocolError, match="another survivor set"):
        one.sign("silo-000", sign(without, "hub", one.many.aggregator.signing))
    with pytest.raises(ProtocolError, match="own contribution"):
        one.sign("silo-003", sign(without, "hub", one.many.aggregator.signing))


def test_survivor_set_equivocation_by_a_colluding_signer_at_four() -> None:
    # Hope: with the quorum of 3, the aggregator and silo-000 gather it for two survivor sets, and so both secrets of a
    # silo.
    many = Many(4)
    one = many.round().until_contributed().part()
    everybody = one.parted.survivor_set.survivors
    survivor_sets = []
    for dropped in ("silo-002", "silo-003"):
        survivors = tuple(survivor for survivor in everybody if survivor.silo != dropped)
        survivor_sets.append(one.parted.survivor_set.model_copy(update={"survivors": survivors, "dropped": (dropped,)}))
    reached = []
    # Every honest silo signs at most one of the two, whatever order they are shown in.
    for order in product((0, 1), repeat=3):
        for ledger in many.members.values():
            ledger.ledger.survivors_hashes.clear()
        signatures: dict[int, list[Any]] = {0: [], 1: []}
        agreed: dict[tuple[int, str], rounds_states.Agreed] = {}
        for place, survivor_set in enumerate(survivor_sets):
            signatures[place].append(
                sign(survivor_set, "silo-000", one.silo("silo-000").signing)
            )  # colludes: signs both
        for name, first in zip(many.names[1:], order, strict=True):
            for place in (first, 1 - first):
                try:
                    agreed[place, name], reply = one.sign(
                        name, sign(survivor_sets[place], "hub", many.aggregator.signing)
                    )
                    signatures[place].append(attach(survivor_sets[place], name, Signature.decode(reply).signature))
                except ProtocolError:
                    continue
        full = [place for place in (0, 1) if len(signatures[place]) >= quorum_of(4)]
        assert len(full) <= 1
        reached.append(len(full))
        for (place, name), state in agreed.items():
            detached = tuple(detach(raw, SurvivorSet) for raw in signatures[place])
            opens = Open(signatures=detached).encode()
            if place in full:
                steps.open_shares(one.silo(name), state, NOW, opens)
            else:
                with pytest.raises(ProtocolError, match="lacks the signatures"):
                    steps.open_shares(one.silo(name), state, NOW, opens)
    assert 1 in reached
    # Two colluders of four could do it, so no policy that fears two takes part in a round of four.
    assert 2 * quorum_of(4) - 4 == 2
    assert tolerated_collusion(4) == 1
    assert "withstand 1" in why_infeasible(4, 0, 2, 0)


def rebuilt_by(one: Round, parties: dict[str, tuple[SealingKey, ...]], victim: str) -> dict[str, bytes]:
    """Return the shares of b and r of `victim` that the holders of these keys can open, by place in the roster."""
    place, found = one.composed.manifest.silos.index(victim), {}
    for name, keys in parties.items():
        entry = Entry.decode(one.shared.entry(place, one.composed.manifest.silos.index(name)))
        for key in keys:
            try:
                found[name] = key.open(entry.shares, entry_info(one.manifest_hash, "shares", victim, name))
            except SealError:
                continue
    return found


def unblinded(one: Round, victim: str, root: bytes, self_secret: bytes, pairs: dict[str, bytes]) -> list[int]:
    """Return a contribution with the masks taken off that follow from these secrets; `pairs`: r of those before it."""
    words = words_of(one.payloads[victim])
    plus = [pair_seed(secret, one.manifest_hash, victim) for secret in pairs.values()]
    later = [name for name in one.composed.manifest.silos if name > victim]
    minus = [self_seed(self_secret, one.manifest_hash), *(pair_seed(root, one.manifest_hash, name) for name in later)]
    apply_masks(words, Ring(64), plus, minus)
    return values_of(words)


@pytest.mark.parametrize("separate", [True, False], ids=["separate keys", "one key for both"])
def test_roots_of_three_dropped_silos_at_ten_with_four_colluders(separate: bool) -> None:
    # Hope: the recipient rebuilds r of three dropped silos; their mask keys open the shares dealt to them, which with
    # those of four colluders are a quorum of seven shares of every survivor's secrets.
    many = Many(10, colluding=3, missing=3)
    one = many.round().propose()
    if not separate:
        for name, state in one.states.items():
            assert isinstance(state, rounds_states.Proposed)
            rekeyed(one, name, channel=mask_key_of(state.root.raw))
    dropped, colluders = many.names[7:], many.names[3:7]
    one.compose().share()
    secrets = {name: one.state(name, rounds_states.KeysShared).before for name in many.names}
    one.ready().contribute(dropped).part().agree().open()
    assert one.answer() == many.sum_of(many.names[:7])
    # The recipient colludes too: r of the dropped is what it rebuilds to open the report.
    known: dict[str, tuple[SealingKey, ...]] = {name: (mask_key_of(secrets[name].root.raw),) for name in dropped}
    known |= {name: (secrets[name].channel, mask_key_of(secrets[name].root.raw)) for name in colluders}
    for victim in many.names[:3]:
        shares = rebuilt_by(one, known, victim)
        assert set(shares) == set(colluders if separate else (*colluders, *dropped))
        roots = {many.names.index(name): both[32:] for name, both in shares.items()}
        if separate:
            with pytest.raises(CryptoError, match="4 shares, 7 are needed"):
                combine(roots, quorum_of(10))
            # Whatever the three missing shares are taken to be, every root is as likely as another: try one.
            guess = combine({**roots, **{place: bytes(32) for place in (7, 8, 9)}}, quorum_of(10))
            member = one.composed.members[many.names.index(victim)]
            assert mask_key_of(guess).public != member.mask_key
    if not separate:  # every survivor's r and b fall, and with them what it contributed
        victim, before = "silo-002", ("silo-000", "silo-001")
        fallen = {name: rebuilt_by(one, known, name) for name in (*before, victim)}
        found: dict[str, tuple[bytes, bytes]] = {}
        for name, shares in fallen.items():
            halves = (
                {many.names.index(who): both[part] for who, both in shares.items()}
                for part in (slice(32), slice(32, 64))
            )
            self_secret, root = (combine(half, quorum_of(10)) for half in halves)
            found[name] = root, self_secret
        pairs = {name: found[name][0] for name in before}
        assert unblinded(one, victim, *found[victim], pairs) == scaled(one, victim)


def test_a_late_contribution_of_a_dropped_silo() -> None:
    # Hope: call a slow silo dropped, have its r opened, and unmask what arrives after all.
    many = Many(5)
    one = many.round().until_contributed()
    del one.headers["silo-004"]  # it arrived, and the aggregator keeps it for itself
    one.part().agree().open()
    assert one.answer() == many.sum_of(many.names[:4])
    # The recipient colludes: it has every row that was opened, and the r of the dropped silo.
    rows = {
        place: UnmaskingShares.decode(
            SEALING.open(
                unverified(raw, Opening).sealed[0],
                opening_info(one.manifest_hash, digest_of(one.parted.survivor_set), many.names[place], "ana"),
            )
        ).shares
        for place, raw in enumerate(one.report.message.openings)
    }
    secret = combine({place: row[4] for place, row in rows.items()}, quorum_of(5))
    envelope, mask_key, _ = one.replies["propose"]["silo-004"]
    accept = unverified(envelope, Accept)
    assert mask_key_of(secret).public == mask_key, "r, which takes the pair masks off"
    assert self_commitment(secret) != accept.self_commitment, "and not b"
    words = words_of(one.payloads["silo-004"])
    seeds = [
        mask_key_of(secret).open(
            Entry.decode(one.shared.entry(place, 4)).pair_seed,
            entry_info(one.manifest_hash, "pair seed", many.names[place], "silo-004"),
        )
        for place in range(4)
    ]
    apply_masks(words, Ring(64), seeds, [])
    assert values_of(words) != scaled(one, "silo-004")
    left = self_seed(one.state("silo-004", rounds_states.Contributed).shares.of_self[0], one.manifest_hash)
    apply_masks(words, Ring(64), [], [left])  # a share is not the secret
    assert values_of(words) != scaled(one, "silo-004")
    with pytest.raises(ProtocolError, match="own contribution"):
        one.sign("silo-004", one.parted.envelope)


def test_one_contribution_offered_as_an_aggregate() -> None:
    # Hope: a survivor set of one; else a report whose "sum" is one contribution, opened by a colluding analyst.
    many = Many(5)
    one = many.round().until_contributed().part()
    alone = one.parted.survivor_set.model_copy(
        update={"survivors": one.parted.survivor_set.survivors[:1], "dropped": many.names[1:]}
    )
    with pytest.raises(ProtocolError, match="1 of the 5 silos that were asked are left, and at least 4 must be"):
        one.sign("silo-000", sign(alone, "hub", many.aggregator.signing))
    one.agree().open()
    payload = one.payloads["silo-002"]
    offered = with_report(one.report, payload, chunks=chunk_digests(payload, 8))
    assert one.answer(offered) != [float(value) for value in many.members["silo-002"].values]
    # With the b of silo-002, which the analyst did rebuild, its pair masks still blind it.
    words = words_of(payload)
    rows = [
        UnmaskingShares.decode(
            SEALING.open(
                unverified(raw, Opening).sealed[0],
                opening_info(one.manifest_hash, digest_of(one.parted.survivor_set), many.names[place], "ana"),
            )
        ).shares[2]
        for place, raw in enumerate(one.report.message.openings)
    ]
    self_secret = combine(dict(enumerate(rows)), quorum_of(5))
    apply_masks(words, Ring(64), [], [self_seed(self_secret, one.manifest_hash)])
    assert values_of(words) != scaled(one, "silo-002")
    checked = checked_of(one, offered)
    with pytest.raises(ProtocolError, match="the sum is wrong"):
        check_chunk(checked, 0, evidence_of(one))


def checked_of(one: Round, stored: StoredReport | None = None) -> Any:
    hubs = one.silo("silo-000").aggregators
    return check_report(one.report if stored is None else stored, one.terms, one.many.aggregator.silos, hubs)


def evidence_of(one: Round) -> list[bytes]:
    return [one.payloads[survivor.silo] for survivor in one.parted.survivor_set.survivors]


# Replays, restarts, uploads


def messages_of(one: Round, name: str) -> dict[str, tuple[bytes, ...]]:
    """Return what the aggregator sent to a silo, by step."""
    return {
        "share": one.composed.share(name),
        "ready": one.shared.deliver(name),
        "contribute": (one.go,),
        "agree": (one.parted.envelope,),
        "open_shares": (one.opens,),
    }


def test_no_message_of_another_round_is_followed() -> None:
    # Hope: what was signed in one round serves in another of the same silos and even the same request.
    many = Many(5)
    old = many.round(many.request(nonce=b"\1" * 16), ONE).run()
    new = many.round(many.request(nonce=b"\2" * 16), TWO)
    me, stale = "silo-001", messages_of(old, "silo-001")
    member = many.members[me]
    with pytest.raises(ProtocolError, match="another round"):
        rounds_proposal.propose(
            member.silo, member.ledger, lambda _: rounds_proposal.Freshness(None, None), NOW, TWO, old.proposed.envelope
        )
    new.propose().compose()
    message, *parts = stale["share"]
    with pytest.raises(ProtocolError):
        steps.share(member.silo, new.state(me, rounds_states.Proposed), NOW, message, parts)
    new.share()
    message, *entries = stale["ready"]
    with pytest.raises(SignatureError):
        steps.receive(member.silo, new.state(me, rounds_states.KeysShared), NOW, message, entries)
    new.ready()
    with pytest.raises(SignatureError):
        member.contribute(new.state(me, rounds_states.Received), stale["contribute"][0])
    assert b"\2" * 16 not in member.ledger.committed
    new.contribute().part()
    with pytest.raises(ProtocolError, match="another manifest"):
        new.sign(me, stale["agree"][0])
    new.agree()
    with pytest.raises(SignatureError):
        steps.open_shares(member.silo, new.state(me, rounds_states.Agreed), NOW, stale["open_shares"][0])
    new.open()
    assert new.answer() == many.sum_of(many.names)


def test_no_reply_of_another_round_counts() -> None:
    # Hope (of a silo, or of whoever stands between): an old reply is taken for a new one.
    many, hub = Many(5), Many(5).aggregator
    old = many.round(many.request(nonce=b"\1" * 16), ONE).run()
    new = many.round(many.request(nonce=b"\2" * 16), TWO).run()
    accepts, refusals = aggregator_core.read_answers(hub, new.proposed, old.replies["propose"])
    assert not accepts
    assert not refusals
    collectors: dict[str, Callable[[Replies], object]] = {
        "share": lambda replies: aggregator_core.collect_shares(hub, new.composed, replies),
        "ready": lambda replies: aggregator_core.collect_ready(hub, new.shared, replies),
        "agree": lambda replies: aggregator_core.collect_signatures(hub, new.parted, replies),
        "open_shares": lambda replies: aggregator_core.assemble(hub, new.parted, new.signatures, replies),
    }
    for step, collect in collectors.items():
        with pytest.raises(SilosMissingError):
            collect(old.replies[step])
    with pytest.raises(ProtocolError, match="another round"):
        aggregator_core.read_contribution(hub, new.shared, "silo-001", old.headers["silo-001"].envelope)
    # Nor at the recipient.
    for field in ("propose", "manifest", "accepts", "contributions", "split", "signatures", "openings"):
        with pytest.raises(CryptoError):
            new.opened(with_report(new.report, **{field: getattr(old.report.message, field)}))


def test_no_message_is_answered_twice_but_by_the_same_bytes(exact: Simulation) -> None:
    # Hope: a second answer to the same step shows what one answer hides. It is the first, byte for byte.
    ask(exact, QUESTION)
    aspen = exact.silos["aspen"]
    sent = [(step[2:], arguments) for step, arguments in aspen.seen if step.startswith("> ")]
    sent = [(step, arguments) for step, arguments in sent if step not in ("catalogue", "cancel", "frame")]
    assert [step for step, _ in sent] == ["propose", "share", "ready", "contribute", "agree", "open_shares"]
    spent = exact.spent("aspen")
    answered = [frames for step, frames in aspen.seen if step[:1] == "<" and step[2:] in dict(sent)]
    for (step, arguments), reply in zip(sent, answered, strict=True):  # after the round
        assert getattr(aspen.actor, step)(*arguments) == reply
        (other,) = getattr(aspen.actor, step)(arguments[0], arguments[1] + b" ", *arguments[2:])
        unverified(other, Failed)
    assert exact.spent("aspen") == spent
    assert not rounds_of(aspen)
    # Within a round: each step once more right after it was taken.
    doubled: list[str] = []
    for silo in exact.silos.values():
        original = silo.call

        async def twice(
            step: str, *arguments: bytes, _silo: Any = silo, _original: Any = original
        ) -> tuple[bytes, ...]:
            reply: tuple[bytes, ...] = await _original(step, *arguments)
            if step in ("propose", "share", "ready", "contribute", "agree", "open_shares"):
                assert getattr(_silo.actor, step)(*arguments) == reply
                doubled.append(step)
            return reply

        silo.call = twice  # type: ignore[method-assign]
    assert set(ask(exact, QUESTION).values()) == {"answered"}
    assert len(doubled) == 6 * 5
    assert exact.spent("aspen") == 2 * spent


def test_a_restart_with_the_same_secrets() -> None:
    # Hope: a silo restored from a snapshot masks a second vector with the same masks; their difference is in clear.
    many = Many(5)
    one = many.round().propose().compose()
    proposed = one.states["silo-000"]
    one.share()
    shared = one.states["silo-000"]
    one.ready()
    received = one.states["silo-000"]
    one.contribute()
    contributed = one.states["silo-000"]
    for state in (proposed, shared, received, contributed):
        for snapshot in (pickle.dumps, copy.deepcopy):
            with pytest.raises((CryptoError, TypeError)):
                snapshot(state)
    # Even a state that was kept in memory contributes once: the charge is bound to one contribution.
    assert isinstance(received, rounds_states.Received)
    with pytest.raises(AlreadyChargedError):
        many.members["silo-000"].contribute(received, one.go)
    assert many.members["silo-000"].computed == 1


def test_a_silo_that_restarts_in_mid_round_is_a_drop_out(shared: Simulation) -> None:
    # Hope: kill a silo after it contributed and let it contribute again.
    ask(shared, QUESTION)
    cedar = shared.silos["cedar"]
    cedar.restarts, cedar.dies_after = True, "contribute"
    assert ask(shared, QUESTION)["cedar"] == "dropped"
    _, arguments = next(one for one in reversed(cedar.seen) if one[0] == "> contribute")
    (reply,) = cedar.actor.contribute(*arguments)
    assert "restarted" in unverified(reply, Failed).reason


def test_half_an_upload(exact: Simulation) -> None:
    # Hope: a contribution that is added in part shifts the sum, or shows a part of it.
    ask(exact, QUESTION)
    exact.silos["maple"].rewrite = lambda step, frames: (
        (frames[0], frames[1][: len(frames[1]) // 16 * 8]) if step == "contribute" else frames
    )
    report = exact.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=1)
    assert report.silos["maple"].status == "dropped"
    report = exact.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    stored = StoredReport.decode(exact.reports[-1])
    assert [unverified(raw, Contribution).length for raw in stored.message.contributions] == [3 + 4] * 4
    assert len(list((exact.path / "aggregator" / "contributions").glob("*.partial"))) == 0


# Keys and shares


def rekeyed(one: Round, name: str, **keys: SealingKey) -> None:
    """Let a silo accept with other round keys: `mask`, `channel` or both."""
    state = replace(one.state(name, rounds_states.Proposed), **keys)
    _, *public = state.reply
    hashes = {f"{what}_key_hash": sha256(key).digest() for what, key in zip(("mask", "channel"), public, strict=True)}
    state = replace(state, accept=resigned(one, name, unverified(state.accept, Accept), **hashes))
    one.states[name], one.replies["propose"][name] = state, state.reply


def dealt(one: Round, dealer: str, change: Callable[[str, bytes], bytes | None]) -> None:
    """Let a dealer reseal the shares it gives to each, as `change` makes them, under a bundle that it signs.

    Where `change` returns None, they are no sealed message.
    """
    state = one.state(dealer, rounds_states.KeysShared)
    mine, entries = one.composed.manifest.silos.index(dealer), []
    others = [place for place in state.committee if place != mine]
    for place, raw in zip(others, one.shared.entries[mine], strict=True):
        name = one.composed.manifest.silos[place]
        info = entry_info(one.manifest_hash, "shares", dealer, name)
        other, entry = one.state(name, rounds_states.KeysShared), Entry.decode(raw)
        both = other.before.channel.open(entry.shares, info)
        changed = change(name, both)
        if changed != both:
            garbage = bytes(SEALED_SHARES)
            sealed = garbage if changed is None else seal(one.composed.members[place].channel_key, changed, info)
            raw = replace(entry, shares=sealed).encode()
        entries.append(raw)
    root = MerkleTree([leaf_hash(raw) for raw in entries]).root
    bundle = Bundle(manifest_hash=one.manifest_hash, entries=root)
    one.replies["share"][dealer] = (sign(bundle, dealer, one.silo(dealer).signing), *entries)
    one.shared = aggregator_core.collect_shares(one.many.aggregator, one.composed, one.replies["share"])


def test_unequal_coefficients_to_different_silos() -> None:
    # Hope: shares of different polynomials, so that different quorums rebuild different secrets of the dealer.
    many = Many(7, colluding=1, missing=2)
    one = many.round().propose().compose().share()
    dealt(one, "silo-006", lambda name, both: bytes(64) if name == "silo-000" else both)
    one.ready().contribute().part().agree().open()
    # All that fit a commitment are the same secret: a quorum that holds the odd share is passed over.
    assert one.answer() == many.sum_of(many.names)
    two = many.round(many.request(nonce=b"\1" * 16), TWO).propose().compose().share()
    dealt(two, "silo-006", lambda name, both: bytes(64) if int(name[-1]) < 4 else both)
    two.ready().contribute().part().agree().open()
    with pytest.raises(ProtocolError, match="'silo-006' do not rebuild its secret"):
        two.answer()  # nothing opens; that is all that the dealer can do


SMALL_ORDER = (0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18)


def weak_keys() -> Iterable[bytes]:
    good = SEALING.public
    yield bytes(PUBLIC_BYTES)
    yield b"\xff" * 1184 + good[1184:]  # coefficients above the modulus of ML-KEM
    yield from (good[:1184] + point.to_bytes(32, "little") for point in SMALL_ORDER)


@pytest.mark.parametrize(
    "key", list(weak_keys()), ids=["zeros", "ML-KEM", *(f"point {n}" for n in range(len(SMALL_ORDER)))]
)
@pytest.mark.parametrize("which", [1, 2], ids=["mask key", "channel key"])
def test_weak_round_keys(which: int, key: bytes) -> None:
    # Hope: an X25519 point of small order makes what is sealed to it readable to all; a malformed key stops the round.
    many = Many(5)
    one = many.round().propose()
    honest = dict(one.replies["propose"])
    frames = list(honest["silo-004"])
    field = ("", "mask_key", "channel_key")[which]
    changed = {f"{field}_hash": sha256(key).digest()}
    frames[0], frames[which] = resigned(one, "silo-004", unverified(frames[0], Accept), **changed), key
    one.replies["propose"]["silo-004"] = tuple(frames)
    one.compose()
    assert one.composed.manifest.silos == many.names[:4], "the honest are not stopped"
    # An aggregator that lets it pass gets no share from anybody.
    accepts, _ = aggregator_core.read_answers(many.aggregator, one.proposed, honest)
    signed = verify(frames[0], Accept, many.aggregator.silos)
    keys: dict[str, Any] = {field: key}
    weak = replace(accepts["silo-004"], message=signed.message, envelope=signed.envelope, **keys)
    forged = aggregator_core.compose_round(many.aggregator, one.proposed, {**accepts, "silo-004": weak})
    message, *parts = forged.share("silo-000")
    with pytest.raises(SealError):
        steps.share(one.silo("silo-000"), one.state("silo-000", rounds_states.Proposed), NOW, message, parts)


def test_keys_of_another_silo_replayed_as_own() -> None:
    # Hope: silo-004 names the keys of silo-000, so that silo-000 opens for it what was dealt to it.
    many = Many(5)
    one = many.round().propose()
    # It names them as its own, though it has not what opens them.
    own = one.state("silo-004", rounds_states.Proposed)
    theirs = one.state("silo-000", rounds_states.Proposed)
    rekeyed(one, "silo-004", mask=theirs.mask, channel=theirs.channel)
    one.compose()
    keyless = replace(one.state("silo-004", rounds_states.Proposed), mask=own.mask, channel=own.channel)
    one.states["silo-004"] = keyless
    one.share()
    # Delivered to silo-000 in the place of its own, an entry for silo-004 does not open in the context of silo-000.
    honest, *entries = one.shared.deliver("silo-000")
    swapped = (one.shared.entry(1, 4), *entries[1:])
    with pytest.raises(SignatureError):
        steps.receive(one.silo("silo-000"), one.state("silo-000", rounds_states.KeysShared), NOW, honest, swapped)
    key = one.state("silo-000", rounds_states.KeysShared).before.channel
    with pytest.raises(SealError):
        key.open(
            Entry.decode(one.shared.entry(1, 4)).shares, entry_info(one.manifest_hash, "shares", "silo-001", "silo-000")
        )
    deliver, *entries = one.shared.deliver("silo-004")
    with pytest.raises(AccusedError):  # and silo-004 itself is never ready
        steps.receive(one.silo("silo-004"), one.state("silo-004", rounds_states.KeysShared), NOW, deliver, entries)
    assert not any(member.ledger.committed for member in many.members.values())


def test_one_key_as_mask_key_and_channel_key_harms_only_who_does_it() -> None:
    # Hope: the careless silo's drop-out opens more than its own r. It opens one share of each: as if it colluded.
    many = Many(5)
    one = many.round().propose()
    key = one.state("silo-004", rounds_states.Proposed).mask
    rekeyed(one, "silo-004", channel=key)
    one.compose().share().ready().contribute(["silo-004"]).part().agree().open()
    assert one.answer() == many.sum_of(many.names[:4])
    for victim in many.names[:4]:
        shares = rebuilt_by(one, {"silo-004": (key,)}, victim)
        assert len(shares) == 1
        with pytest.raises(CryptoError, match="1 shares, 4 are needed"):
            combine({4: shares["silo-004"][32:]}, quorum_of(5))


# Garbage, accusations, Go


def accusations(one: Round) -> dict[str, tuple[bytes, ...]]:
    """Let every silo take the ready step, as its actor answers."""
    replies: dict[str, tuple[bytes, ...]] = {}
    for name in one.composed.manifest.silos:
        try:
            state = one.state(name, rounds_states.KeysShared)
            message, *entries = one.shared.deliver(name)
            one.states[name] = received = steps.receive(one.silo(name), state, NOW, message, entries)
            reply = steps.ready(one.silo(name), received)
        except AccusedError as err:
            reply = sign(Accusation.decode(err.accusation), name, one.silo(name).signing)
        replies[name] = (reply,)
    return replies


@pytest.mark.parametrize("victims", [1, 2, 6], ids=["one", "two", "all others"])
def test_a_silo_that_seals_garbage(victims: int) -> None:
    # Hope: the others have paid when the garbage shows. It shows before anybody reads a row.
    many = Many(7, missing=2)
    one = many.round().propose().compose().share()
    dealt(one, "silo-006", lambda name, both: None if int(name[-1]) < victims else both)
    with pytest.raises(SharesMissingError) as caught:
        aggregator_core.collect_ready(many.aggregator, one.shared, accusations(one))
    assert caught.value.missing == (*many.names[:victims], "silo-006")
    assert not any(member.ledger.committed or member.computed for member in many.members.values())
    rest = [name for name in many.names if name not in caught.value.missing]
    if len(rest) >= 5:  # the quorum of those that were asked
        again = many.round(round_id=TWO).propose(rest).compose().share().ready().contribute().part().agree().open()
        assert again.answer() == many.sum_of(rest)
        assert sorted(name for name, member in many.members.items() if member.ledger.committed) == rest
    else:
        with pytest.raises(ProtocolError):
            many.round(round_id=TWO).propose(rest or ["silo-006"]).compose()


def test_garbage_in_a_small_federation_costs_nobody_and_the_others_answer(exact: Simulation) -> None:
    # Hope: with five silos, of which three are too few for the policies, to burn everybody's budget.
    key = known_to(exact.silos["cedar"]).signing

    def garbage(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step != "share":
            return frames
        entries = (bytes(len(frames[1])), *frames[2:])
        root = MerkleTree([leaf_hash(entry) for entry in entries]).root
        bundle = unverified(frames[0], Bundle).model_copy(update={"entries": root})
        return sign(bundle, "cedar", key), *entries

    exact.silos["cedar"].rewrite = garbage
    answered = ask(exact, QUESTION)
    assert {silo for silo, status in answered.items() if status == "answered"} == set(exact.silos) - {"cedar"}
    assert exact.spent("cedar") == 0
    assert len({exact.spent(silo) for silo in exact.silos if silo != "cedar"}) == 1
    assert [one.outcomes.charged for one in exact.ended] == [False, True], "the first attempt cost nobody"
    exact.silos["cedar"].rewrite = lambda step, frames: frames
    assert set(ask(exact, QUESTION).values()) == {"answered"}


@pytest.mark.parametrize("accused", ["silo-002", "silo-006", "stranger", "silo-000"])
def test_a_false_accusation_costs_the_accuser_its_place_too(accused: str) -> None:
    # Hope: to throw an honest silo out alone, or to name one that is not there.
    many = Many(7)
    one = many.round().propose().compose().share()
    replies = accusations(one)
    lie = accusation_of(one, "silo-006", accused)
    replies["silo-006"] = (sign(lie, "silo-006", one.silo("silo-006").signing),)
    with pytest.raises(SharesMissingError) as caught:
        aggregator_core.collect_ready(many.aggregator, one.shared, replies)
    assert caught.value.missing == tuple(sorted({"silo-006", accused} - {"stranger"}))
    old = lie.model_copy(update={"manifest_hash": bytes(32)})  # an accusation of another round names nobody
    replies["silo-006"] = (sign(old, "silo-006", one.silo("silo-006").signing),)
    with pytest.raises(SharesMissingError) as caught:
        aggregator_core.collect_ready(many.aggregator, one.shared, replies)
    assert caught.value.missing == ("silo-006",)
    assert not any(member.ledger.committed for member in many.members.values())


def test_an_aggregator_that_says_go_too_early() -> None:
    # Hope: silos read rows and are charged although one of them cannot open its shares.
    many = Many(5)
    old = many.round(many.request(nonce=b"\1" * 16), ONE).until_go()
    one = many.round(many.request(nonce=b"\2" * 16), TWO).until_go()
    good, stale = Go.decode(one.go).signatures, Go.decode(old.go).signatures
    wrong = {
        "one is not ready": good[:-1],
        "one is ready twice": (*good[:4], good[0]),
        "one was ready in another round": (*good[:4], stale[4]),
        "one signed for another": (*good[:4], good[3]),
        "nobody": (),
    }
    member = many.members["silo-001"]
    for signatures in wrong.values():
        with pytest.raises(CryptoError):
            member.contribute(one.state("silo-001", rounds_states.Received), Go(signatures=signatures).encode())
    assert member.computed == 0
    assert not member.ledger.committed
    member.contribute(one.state("silo-001", rounds_states.Received), one.go)


# Vectors and budgets


@pytest.mark.parametrize(
    "lie",
    [
        lambda frames: (frames[0], b""),
        lambda frames: (frames[0], frames[1] + bytes(8)),
        lambda frames: (frames[0], frames[1][:-1]),
        lambda frames: (frames[0], bytes(len(frames[1]))),
        lambda frames: (frames[0],),
        lambda frames: (frames[1], frames[0]),
        lambda frames: (frames[0], None),
        lambda frames: (b"", frames[1]),
    ],
    ids=["empty", "longer", "a part of a word", "zeros", "no payload", "swapped", "no bytes", "no head"],
)
def test_a_silo_that_sends_a_malformed_vector(shared: Simulation, lie: Callable[[Any], Any]) -> None:
    # Hope: to stop the round, or to spoil the sum of the others.
    shared.silos["maple"].rewrite = lambda step, frames: lie(frames) if step == "contribute" else frames
    report = shared.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=1)
    assert report.silos["maple"].status == "dropped"
    (cell,) = report.rows[0].values()
    assert isinstance(cell, Estimate)
    assert cell.value == 228 - counted("maple")


def counted(silo: str) -> int:
    return {"aspen": 46, "birch": 46, "cedar": 45, "maple": 46, "rowan": 45}[silo]


def test_a_silo_whose_numbers_are_out_of_range() -> None:
    # Hope: a number beyond the headroom wraps the sum of everybody. It is clipped, and stays in its slot.
    many = Many(5)
    many.members["silo-000"].values = (2**63 - 1, -(2**63), 5)
    one = many.round().run()
    found = one.answer()
    limit = (2**63 - 1) // 5 / 2 ** one.terms.blocks[0].scale_bits
    honest = many.sum_of(many.names[1:])
    assert 0 < found[0] - honest[0] <= limit
    assert -limit <= found[1] - honest[1] < 0
    assert found[2] == honest[2] + 5


def test_a_budget_is_not_burnt_by_repeated_proposals(exact: Simulation) -> None:
    # Hope: one request under many round ids is reserved many times, or charged more than once.
    federation, aspen = exact.federation, exact.silos["aspen"]
    planned, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    envelope = sign(request, federation.analyst, key_of(federation))
    keys = set()
    for number in range(20):
        round_id = bytes([number]) * 16
        proposed = aggregator_core.propose(
            aggregator_of(exact.server), read_request(envelope), round_id, int(aspen.clock())
        )
        reply, _, _ = aspen.actor.propose(round_id, proposed.envelope)
        keys.add(unverified(reply, Accept).mask_key_hash)
        assert list(rounds_of(aspen)) == [round_id], "the older round can no longer be seen through"
    assert len(keys) == 20, "fresh secrets each time"
    once = exact.spent("aspen")
    aspen.actor.cancel(b"\0" * 16, aggregator_core.cancel(aggregator_of(exact.server), b"\0" * 16))
    assert exact.spent("aspen") == once, "an older round releases nothing"
    aspen.actor.cancel(round_id, aggregator_core.cancel(aggregator_of(exact.server), round_id))
    assert exact.spent("aspen") == 0
    federation.open_answer(planned, request, federation.submit(request))
    assert exact.spent("aspen") == once
    for number in range(5):
        proposed = aggregator_core.propose(
            aggregator_of(exact.server), read_request(envelope), bytes([number]) * 16, int(aspen.clock())
        )
        (reply,) = aspen.actor.propose(bytes([number]) * 16, proposed.envelope)
        assert [denial.code for denial in unverified(reply, Refusal).denials] == ["ALREADY_ANSWERED"]
    assert exact.spent("aspen") == once
    assert not rounds_of(aspen)


# Wrong sums and evidence


def shifted(stored: StoredReport) -> bytes:
    """Return an encoded report whose sum is one unit higher in a slot, with the digests that belong to it."""
    words = words_of(bytes(stored.blinded_sum))
    words[0] += 1 << 20
    total = Ring(64).to_bytes(words)
    changed = stored.message.model_copy(update={"chunks": chunk_digests(total, 8)})
    return report_header(changed) + total


def test_a_wrong_sum_is_found_by_whoever_reads_it(exact: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hope: the aggregator shifts a total, and makes all digests fit.
    federation, original = exact.federation, exact.submit
    monkeypatch.setattr(exact, "submit", lambda request, _: shifted(StoredReport.decode(original(request))))
    monkeypatch.setattr(exact, "evidence", lambda name, index: evidence(exact, exact.reports[-1]))
    with pytest.raises(ProtocolError, match="the sum is wrong"):
        federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    wrong = StoredReport.decode(shifted(StoredReport.decode(exact.reports[-1])))
    monkeypatch.setattr(exact, "report", lambda name: shifted(StoredReport.decode(exact.reports[-1])))
    with pytest.raises(ProtocolError, match="the sum is wrong"):
        list(verify_answer.verify(federation, wrong.name, None))
    with pytest.raises(ProtocolError, match="another report"):
        list(verify_answer.verify(federation, StoredReport.decode(exact.reports[-1]).name, None))


def evidence(simulation: Simulation, report: bytes) -> tuple[bytes, ...]:
    named = reports.index_of(StoredReport.decode(report).message).contributions
    folder = simulation.path / "aggregator" / "contributions"
    return tuple((folder / f"{name.hex()}.contribution").read_bytes() for name in named)


def test_a_changed_chunk_is_found_by_adding_once_more() -> None:
    # Hope: the sum itself, a digest, or a contribution is changed and nobody looks.
    one = Many(5).round().run()
    checked, good = checked_of(one), evidence_of(one)
    check_chunk(checked, 0, good)
    flipped = bytes(one.report.blinded_sum[:-1]) + bytes([one.report.blinded_sum[-1] ^ 1])
    with pytest.raises(ProtocolError, match="not the one that the report names"):
        checked_of(one, with_report(one.report, flipped))
    changed = with_report(one.report, flipped, chunks=chunk_digests(flipped, 8))
    with pytest.raises(ProtocolError, match="the sum is wrong: chunk 0"):
        check_chunk(checked_of(one, changed), 0, good)
    for place in range(5):
        lying = [*good[:place], bytes(len(good[place])), *good[place + 1 :]]
        with pytest.raises(ProtocolError, match=f"chunk 0 of 'silo-00{place}' is not the one that it signed"):
            check_chunk(checked, 0, lying)


def test_evidence_that_is_withheld_reordered_or_of_another_round_or_silo() -> None:
    # Hope: a wrong sum stays unnoticed because what it is held against is missing or something else.
    many = Many(5)
    one = many.round(many.request(nonce=b"\1" * 16), ONE).run()
    other = many.round(many.request(nonce=b"\2" * 16), TWO).run()
    checked, good, foreign = checked_of(one), evidence_of(one), evidence_of(other)
    for wrong in (
        [], good[:-1], [*good, good[0]], good[::-1], foreign, [*good[:4], foreign[4]], [*good[:4], good[3]],
        [*good[:4], b""], [*good[:4], good[4] + bytes(8)],
    ):  # fmt: skip
        with pytest.raises(ProtocolError):
            check_chunk(checked, 0, wrong)
    # A header that another silo or round signed does not stand for a survivor's either.
    headers = one.report.message.contributions
    elsewhere = other.report.message.contributions
    for wrong_headers in (headers[:-1], headers[::-1][:4], (*headers[:4], elsewhere[4]), (*headers[:4], headers[3])):
        with pytest.raises(CryptoError):
            checked_of(one, with_report(one.report, contributions=wrong_headers))


def test_evidence_that_is_gone_is_said_to_be_gone(exact: Simulation) -> None:
    # Hope: an aggregator that throws the contributions away is believed.
    federation = exact.federation
    planned, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    answer = federation.submit(request)
    for file in (exact.path / "aggregator" / "contributions").iterdir():
        file.unlink()
    with pytest.raises(StoreError, match="not kept here"):
        federation.open_answer(planned, request, answer)


@pytest.mark.torch
def test_a_training_silo_learns_no_wrong_sum(tmp_path: Path) -> None:
    # Hope: the aggregator moves every model by a sum of its own, with digests that fit.
    with banks(tmp_path) as (simulation, file):
        run(simulation, file)
        east = simulation.silos["east"]
        data, *chunks = next(arguments for step, arguments in east.seen if step == "> learn")
        assert len(chunks) == 5
        for name in simulation.silos:
            database_of(ledger_of(simulation.silos[name])).execute("DELETE FROM runs")
        assert not models(simulation)
        wrong = shifted(StoredReport.decode(data))
        lies = {
            "a wrong sum": (wrong, *chunks),
            "no evidence": (data,),
            "too little": (data, *chunks[:-1]),
            "reordered": (data, *chunks[::-1]),
            "changed": (data, bytes(len(chunks[0])), *chunks[1:]),
            "of another silo": (data, *chunks[:-1], chunks[0]),
        }
        for what, lie in lies.items():
            (reply,) = east.actor.learn(*lie)
            assert unverified(reply, Failed).reason, what
            assert not models(simulation), what
        east.actor.learn(data, *chunks)
        assert set(models(simulation)) == {"east"}


# The sparse graph


def graph_of(found: tuple[tuple[int, ...], ...]) -> "networkx.Graph[int]":
    import networkx

    graph: networkx.Graph[int] = networkx.Graph()
    graph.add_nodes_from(range(len(found)))
    graph.add_edges_from((one, other) for one, committee in enumerate(found) for other in committee if one != other)
    return graph


@pytest.mark.slow
@pytest.mark.parametrize(("silos", "colluding", "missing"), [(101, 1, 1), (120, 3, 5), (120, 20, 8)])
def test_a_sparse_graph_stays_connected_whoever_colludes_and_drops(silos: int, colluding: int, missing: int) -> None:
    # Hope: drop the neighbours of one silo, so that the masks of its contribution cancel among colluders alone.
    import networkx

    degree = degree_of(silos, colluding, missing)
    assert colluding + missing < degree < silos - 1
    names = [f"silo-{number:03}" for number in range(silos)]
    found = committees(names, degree, derive(bytes(32), "manifest"))
    graph = graph_of(found)
    assert set(dict(graph.degree).values()) == {degree}
    assert all(one in found[other] for one in range(silos) for other in found[one])
    # By Menger: k disjoint paths to each of these, so no removal of a + d < k silos cuts them off.
    far = [place for place in range(silos) if place not in found[0]]
    for place in far[:: len(far) // 3]:
        assert networkx.node_connectivity(graph, 0, place) == degree
    # Every adversarial choice around one silo: any a + d of its neighbours, in runs along the circle and at random.
    generator = np.random.default_rng(4)
    for victim in range(0, silos, 5):
        neighbours = [place for place in found[victim] if place != victim]
        for start in range(0, degree, 16):
            gone = [neighbours[(start + step) % degree] for step in range(colluding + missing)]
            assert networkx.is_connected(graph.subgraph(set(graph) - set(gone)))
    for _ in range(50):
        chosen = generator.choice(silos, colluding + missing, replace=False)
        assert networkx.is_connected(graph.subgraph(set(graph) - {int(place) for place in chosen}))
    # And the shares of the colluders, with the one that is opened, rebuild nothing; without d members a committee can.
    assert colluding + 1 < quorum_of(degree + 1) <= degree + 1 - missing


@pytest.mark.slow
def test_neighbours_called_dropped_at_120_give_nothing_of_the_one_between_them() -> None:
    # Hope: the aggregator calls d neighbours of a silo dropped and colludes with a others and with the recipient.
    many = Many(120, colluding=3, missing=5)
    one = many.round().propose().compose().share()
    manifest, found = one.composed.manifest, one.composed.committees
    assert manifest.degree < 119
    victim = 60
    neighbours = [place for place in found[victim] if place != victim]
    dropped, colluders = neighbours[:5], neighbours[5:8]
    secrets = {name: one.state(name, rounds_states.KeysShared).before for name in many.names}
    one.ready().contribute([many.names[place] for place in dropped]).part().agree().open()
    survivors = [name for place, name in enumerate(many.names) if place not in dropped]
    assert one.answer() == many.sum_of(survivors), "a whole round at 120 with drop-outs ends in the right sum"
    # Shares: those of the colluders are fewer than a quorum of the committee, by more than the one that is opened.
    known: dict[str, tuple[SealingKey, ...]] = {
        many.names[place]: (mask_key_of(secrets[many.names[place]].root.raw),) for place in dropped
    }
    known |= {many.names[place]: (secrets[many.names[place]].channel,) for place in colluders}
    shares = rebuilt_by(one, known, many.names[victim])
    assert set(shares) == {many.names[place] for place in colluders}
    assert len(shares) + 1 < manifest.committee_quorum
    # Masks: with r of the dropped, r of the colluders and b of the victim, other neighbours' masks are left.
    words = words_of(one.payloads[many.names[victim]])
    gone, me = [*dropped, *colluders], many.names[victim]
    take = [pair_seed(secrets[many.names[place]].root.raw, one.manifest_hash, me) for place in gone if place < victim]
    give = [pair_seed(secrets[me].root.raw, one.manifest_hash, many.names[place]) for place in gone if place > victim]
    apply_masks(words, Ring(64), take, [*give, self_seed(secrets[me].self_secret.raw, one.manifest_hash)])
    assert values_of(words) != scaled(one, me)
    others = [place for place in neighbours if place not in gone]
    assert len(others) == manifest.degree - 8
    take = [pair_seed(secrets[many.names[place]].root.raw, one.manifest_hash, me) for place in others if place < victim]
    give = [pair_seed(secrets[me].root.raw, one.manifest_hash, many.names[place]) for place in others if place > victim]
    apply_masks(words, Ring(64), take, give)
    assert values_of(words) == scaled(one, me), "exactly those masks of honest survivors stood between"


# Before and beside a round


def test_a_frame_that_no_round_has_is_not_given(exact: Simulation) -> None:
    # Hope: to read a contribution out of its step, or one that was never made.
    aspen, seen = exact.silos["aspen"], []
    original = aspen.call

    async def asking(step: str, *arguments: bytes) -> tuple[bytes, ...]:
        before = aspen.actor.frame(arguments[0], bytes(8)) if len(arguments[0]) == 16 else ()
        reply: tuple[bytes, ...] = await original(step, *arguments)
        after = aspen.actor.frame(arguments[0], bytes(8)) if len(arguments[0]) == 16 else ()
        seen.append((step, before, after, reply))
        return reply

    aspen.call = asking  # type: ignore[method-assign]
    assert ask(exact, QUESTION)["aspen"] == "answered"
    (payload,) = {reply[1] for step, _, _, reply in seen if step == "contribute"}
    for step, before, after, _ in seen:
        # A shard of the sum may be lost until the round is over, so the same frame is given again.
        for frames, contributed in (
            (before, step in ("agree", "open_shares")),
            (after, step in ("contribute", "agree")),
        ):
            if frames and contributed:
                assert frames == (payload,)
            elif frames:
                assert "not at that step" in unverified(frames[0], Failed).reason


def test_a_catalogue_is_given_to_its_own_analyst_now(exact: Simulation) -> None:
    # Hope: a stranger, or whoever recorded a request, reads what a policy opens.
    aspen, federation = exact.silos["aspen"], exact.federation
    now = int(aspen.clock())
    good = CatalogueRequest(federation=federation.config.federation, analyst="ana", nonce=bytes(16), created_at=now)
    key, stranger = key_of(federation), SigningKey(Secret(bytes(32)))
    unverified(aspen.actor.catalogue(sign(good, "ana", key))[0], Catalogue)
    for wrong in (
        sign(good, "ana", stranger),
        sign(good, "eve", stranger),
        sign(good.model_copy(update={"analyst": "eve"}), "ana", key),
        sign(good.model_copy(update={"federation": "other"}), "ana", key),
        sign(good.model_copy(update={"created_at": now - CLOCK_SKEW_S - 5}), "ana", key),
        sign(good.model_copy(update={"created_at": now + CLOCK_SKEW_S + 5}), "ana", key),
    ):
        unverified(aspen.actor.catalogue(wrong)[0], Failed)


def test_the_values_of_a_domain_are_given_to_an_analyst_whose_catalogue_names_them(home: Path) -> None:
    # Hope: a stranger reads them, or somebody reads those of another silo, or of a column that is closed.
    lengthen(home, 2000)
    with simulate(home, noise=no_noise) as running:
        aspen, federation = running.silos["aspen"], running.federation
        digest, now = digest_in(hash_of(days(2000))), int(aspen.clock())
        good = DomainRequest(
            federation=federation.config.federation, analyst="ana", silo="aspen", hash=digest, created_at=now
        )
        key, stranger = key_of(federation), SigningKey(Secret(bytes(32)))
        assert aspen.actor.domain(sign(good, "ana", key)) == (DOMAIN_MAGIC + text_of(days(2000)),)
        for wrong in (
            sign(good, "ana", stranger),
            sign(good, "eve", stranger),
            sign(good.model_copy(update={"analyst": "eve"}), "ana", key),
            sign(good.model_copy(update={"federation": "other"}), "ana", key),
            sign(good.model_copy(update={"silo": "birch"}), "ana", key),
            sign(good.model_copy(update={"hash": bytes(32)}), "ana", key),
            sign(good.model_copy(update={"created_at": now - CLOCK_SKEW_S - 5}), "ana", key),
        ):
            unverified(aspen.actor.domain(wrong)[0], Failed)
        with pytest.raises(FederationError, match="no silo 'nobody' is known here"):
            running.domain(sign(good.model_copy(update={"silo": "nobody"}), "ana", key))
    policy = home / "silos" / "aspen" / "policy.toml"
    policy.write_text(policy.read_text().replace('roles = ["measure", "filter", "dimension"]', "roles = []"))
    with simulate(home, noise=no_noise, is_lazy=True) as running:
        unverified(running.silos["aspen"].actor.domain(sign(good, "ana", key))[0], Failed)
