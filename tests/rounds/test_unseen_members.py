"""Attack stories on what a silo is not shown of a round: a false roster, condition, key or leaf gains nothing.

Forty silos, each of which sees 32 others. The aggregator tells what it likes; docs/protocol.md section 3.6.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import Any

import pytest

from aggregator import rounds as hub
from aggregator.rounds import Composed
from crypto.errors import CryptoError, ProtocolError, SignatureError
from crypto.merkle import MerkleTree
from crypto.rounds.manifest import Accept, compose, manifest_of, member_leaf
from crypto.rounds.messages import Go, Ready, ShareKeys
from crypto.rounds.opening import check_report
from crypto.rounds.shown import witnesses
from crypto.wire import detach, digest_of, sign, unverified
from silo_node.rounds import states, steps
from tests.harness.example_policy import NOW
from tests.harness.many_silos import Many, Round, refused, with_report

COUNT = 40
VICTIM, ODD = "silo-007", "silo-031"


@cache
def many() -> Many:
    return Many(COUNT)


@cache
def proposed() -> Round:
    """Return a round whose silos have accepted; the stories change nothing in it."""
    return many().round().propose().compose()


def accepts() -> dict[str, Accept]:
    return {one.signer: one.message for one in proposed().composed.members}


def told(
    silos: Sequence[str], leaves: dict[str, bytes] | None = None, envelopes: dict[str, bytes] | None = None, **says: Any
) -> Composed:
    """Return a manifest that the aggregator made up: its roster, leaves, the envelopes it shows, and conditions."""
    honest, given = proposed().composed, accepts()
    own = {silo: member_leaf(silo, given.get(silo, given[VICTIM])) for silo in silos} | (leaves or {})
    tree = MerkleTree([own[silo] for silo in silos])
    conditions = {field: getattr(honest.manifest, field) for field in ("min_silos", "max_colluding", "max_missing")}
    conditions |= {"expires_at": honest.manifest.expires_at, "must_include": (), **says}
    manifest = manifest_of(honest.before.propose, honest.before.terms, tuple(silos), tree.root, **conditions)
    members = {one.signer: one for one in honest.members}
    shown = tuple(
        replace(members.get(silo, members[VICTIM]), envelope=(envelopes or {}).get(silo, members[silo].envelope))
        if silo in members
        else members[VICTIM]
        for silo in silos
    )
    envelope = sign(manifest, "hub", many().aggregator.signing)
    strictest = witnesses([unverified(one.envelope, Accept) for one in shown])
    return Composed(honest.before, manifest, digest_of(manifest), envelope, shown, tree, strictest)


def take(name: str, composed: Composed, state: states.Proposed | None = None) -> states.KeysShared:
    message, *parts = composed.share(name)
    before = proposed().state(name, states.Proposed) if state is None else state
    return steps.share(proposed().silo(name), before, NOW, message, parts)[0]


def refusing(composed: Composed, names: Iterable[str] = ()) -> dict[str, CryptoError]:
    """Return who does not go on under a manifest, and why."""
    found = {}
    for name in names or composed.manifest.silos:
        try:
            take(name, composed)
        except CryptoError as err:
            found[name] = err
    return found


def seeing(composed: Composed, name: str) -> set[str]:
    """Return who is shown a member, itself included."""
    silos = composed.manifest.silos
    return {silos[place] for place in composed.committees[silos.index(name)]}


def no_go(composed: Composed, without: Iterable[str]) -> None:
    """Assert that no silo contributes under a manifest that `without` have not signed, whoever signs in their place."""
    one, manifest_hash = proposed(), composed.manifest_hash
    signatures = {
        name: detach(sign(Ready(manifest_hash=manifest_hash), name, one.silo(name).signing), Ready).signature
        for name in many().names
        if name not in without
    }
    hubs = sign(Ready(manifest_hash=manifest_hash), "hub", many().aggregator.signing)
    forged = tuple(signatures.get(name, detach(hubs, Ready).signature) for name in composed.manifest.silos)
    fewer = tuple(signatures[name] for name in composed.manifest.silos if name in signatures)
    ready = next(name for name in composed.manifest.silos if name in signatures)
    state = states.Received(take(ready, composed), states.KeyShares((), ()), ())
    for attempt in (forged, fewer):
        with pytest.raises((ProtocolError, SignatureError)):
            steps.commit(one.silo(ready), state, many().members[ready].ledger, NOW, Go(signatures=attempt).encode())
    assert not any(one.request.nonce in member.ledger.committed for member in many().members.values())


def test_what_is_true_is_followed_by_all_and_each_sees_33() -> None:
    composed = told(many().names)
    assert composed.manifest == proposed().composed.manifest
    assert not refusing(composed)
    assert {len(seeing(composed, name)) for name in many().names} == {33}


def test_a_false_n_with_a_member_who_never_accepted() -> None:
    # Hope: a greater n, so that a quorum counts a silo that is not there. Noise and quorum follow from those asked.
    rest = tuple(name for name in many().names if name != ODD)
    one = Round(many(), proposed().request, proposed().round_id)
    one.replies["propose"] = {name: frames for name, frames in proposed().replies["propose"].items() if name != ODD}
    assert one.compose().composed.manifest.silos == rest
    assert one.composed.manifest.noise_shares == proposed().composed.manifest.noise_shares
    assert one.composed.manifest.quorum == proposed().composed.manifest.quorum
    # silo-031 refused; the aggregator puts a leaf in its place, which those who see it find unsigned.
    fake = accepts()[VICTIM]
    composed = told(many().names, {ODD: member_leaf(ODD, fake)}, {ODD: sign(fake, ODD, many().aggregator.signing)})
    found = refusing(composed, rest)
    assert set(found) == seeing(composed, ODD) - {ODD}
    assert all(isinstance(err, SignatureError) for err in found.values())
    no_go(composed, {ODD, *found})


def test_a_false_n_with_fewer_members_told_to_one() -> None:
    # Hope: one silo takes the roster for another than the rest do, so that its noise, or its masks, do not fit.
    rest = tuple(name for name in many().names if name != ODD)
    narrow, wide = told(rest), proposed().composed
    assert narrow.manifest_hash != wide.manifest_hash
    take(VICTIM, narrow)
    # The others signed the wide one: their signatures are none under the narrow one.
    hashed = Ready(manifest_hash=wide.manifest_hash)
    signed = tuple(detach(sign(hashed, name, proposed().silo(name).signing), Ready).signature for name in rest)
    state = states.Received(take(VICTIM, narrow), states.KeyShares((), ()), ())
    with pytest.raises(SignatureError):
        steps.commit(proposed().silo(VICTIM), state, many().members[VICTIM].ledger, NOW, Go(signatures=signed).encode())


def test_a_roster_with_silos_that_nobody_asked_or_twice() -> None:
    strangers = tuple(sorted((*many().names[:-1], "silo-999")))
    with pytest.raises(ProtocolError, match="did not ask"):
        take(VICTIM, told(strangers))
    twice = tuple(sorted((*many().names[:-1], "silo-000")))
    with pytest.raises(ProtocolError, match="twice"):
        take("silo-001", told(twice))


@pytest.mark.parametrize(("field", "value"), [("max_colluding", 5), ("max_missing", 0), ("min_silos", 5)])
def test_a_lower_a_or_least_number_or_a_greater_d_than_an_unseen_member_accepts(field: str, value: int) -> None:
    # Hope: the strictest member is counted, though the round does not bear what it demands.
    strict = accepts()[ODD].model_copy(update={field: value})
    own = sign(strict, ODD, proposed().silo(ODD).signing)
    composed = told(many().names, {ODD: member_leaf(ODD, strict)}, {ODD: own})
    composed = replace(composed, witnesses=())  # ODD is shown to those only who need its keys
    state = replace(proposed().state(ODD, states.Proposed), accept=own)
    with pytest.raises(ProtocolError, match=f"{field} is not that of the strictest"):
        take(ODD, composed, state)
    found = refusing(composed, [name for name in many().names if name != ODD])
    assert set(found) == seeing(composed, ODD) - {ODD}, "and those who do not see it go no further than Ready"
    no_go(composed, {ODD, *found})


def test_the_strictest_member_is_a_witness_to_those_who_do_not_see_it() -> None:
    strict = accepts()[ODD].model_copy(update={"max_missing": 0, "compute_ms": 3_000, "send_ms": 4_000})
    own, ends = sign(strict, ODD, proposed().silo(ODD).signing), proposed().composed.manifest.expires_at + 7
    composed = told(many().names, {ODD: member_leaf(ODD, strict)}, {ODD: own}, max_missing=0, expires_at=ends)
    place, names = composed.manifest.silos.index(ODD), composed.manifest.silos
    assert place in composed.witnesses
    assert not refusing(composed, [name for name in names if name != ODD])
    name = sorted(set(names) - seeing(composed, ODD))[0]
    encoded, *parts = composed.share(name)
    message, seen = ShareKeys.decode(encoded), names.index(sorted(seeing(composed, name) - {name})[0])
    assert place in message.witnesses
    at = message.witnesses.index(place)
    # Without it, twice, or with one in its place that is no member, is seen anyway or is not as strict.
    given = message.witnesses
    lies = [(*given[:at], one, *given[at + 1 :]) for one in (COUNT, seen, names.index(name))]
    for lie, left in ((given[:-1], parts[:-1]), (given, parts[:-1]), *((one, parts) for one in lies)):
        wrong = message.model_copy(update={"witnesses": lie}).encode()
        with pytest.raises(CryptoError):
            steps.share(proposed().silo(name), proposed().state(name, states.Proposed), NOW, wrong, left)


def test_a_greater_a_d_or_least_number_than_anybody_accepts() -> None:
    # Hope: more may be missing, so that a colluding analyst opens the sum of fewer, though no silo bears it.
    honest = proposed().composed.manifest
    lies: tuple[dict[str, Any], ...] = ({"max_colluding": 4}, {"max_missing": 6}, {"min_silos": 5})
    for says in (*lies, {"expires_at": honest.expires_at + 1}):
        found = refusing(told(many().names, **says))
        assert set(found) == set(many().names)
        assert all(f"{next(iter(says))} is not that of the strictest" in str(err) for err in found.values())
    most: tuple[dict[str, Any], ...] = ({"max_colluding": 14}, {"max_missing": 14}, {"min_silos": 41})
    for beyond in most:  # and no more than a roster bears
        error = refused(lambda beyond=beyond: told(many().names, **beyond))  # type: ignore[misc]
        assert any(word in str(error) for word in ("withstand", "cannot lose", "must"))
    one = many().round(many().request(nonce=b"\5" * 16)).run()
    forged = one.composed.manifest.model_copy(update={"max_missing": 6})
    report = with_report(one.report, manifest=sign(forged, "hub", many().aggregator.signing))
    with pytest.raises(ProtocolError, match="max_missing is not what request and acceptances give"):
        check_report(report, one.terms, many().aggregator.silos, one.silo(VICTIM).aggregators)
    assert one.answer() == many().sum_of(many().names), "without the lie it opens"


def test_a_silo_that_an_unseen_member_needs_is_left_out() -> None:
    # Hope: a round without the silo that a member takes no part without.
    needs = accepts()[ODD].model_copy(update={"must_include": ("silo-000",)})
    own = sign(needs, ODD, proposed().silo(ODD).signing)
    composed = told(many().names, {ODD: member_leaf(ODD, needs)}, {ODD: own})
    with pytest.raises(ProtocolError, match="must_include lacks silo-000, whom a member needs"):
        take(ODD, composed, replace(proposed().state(ODD, states.Proposed), accept=own))
    found = refusing(composed, [name for name in many().names if name != ODD])
    assert set(found) == seeing(composed, ODD) - {ODD}
    no_go(composed, {ODD, *found})


def test_another_key_for_an_unseen_member() -> None:
    # Hope: what is sealed to a member opens with the aggregator's key.
    given = accepts()[ODD]
    for field in ("mask_key_hash", "channel_key_hash", "self_commitment", "policy_hash"):
        forged = given.model_copy(update={field: sha256(b"the aggregator's").digest()})
        composed = told(many().names, {ODD: member_leaf(ODD, forged)})
        found = refusing(composed)
        # The leaf is not that of the acceptance that silo-031 signed: it and those who see it notice.
        assert set(found) == seeing(composed, ODD)
        assert all("own acceptance and those that came with it" in str(err) for err in found.values())
        no_go(composed, found)


def test_a_member_that_some_see_otherwise() -> None:
    # Hope: a colluding silo shows one half of its committee one key and the other half another. A root holds one leaf.
    given = accepts()[ODD]
    second = given.model_copy(update={"channel_key_hash": sha256(b"another").digest()})
    both = [sign(one, ODD, proposed().silo(ODD).signing) for one in (given, second)]
    composed = told(many().names)
    seen = sorted(seeing(composed, ODD) - {ODD})
    for name in seen[:3]:
        take(name, composed)
        message, *parts = composed.share(name)
        other = [both[1] if part == both[0] else part for part in parts]
        assert other != parts
        with pytest.raises(ProtocolError):
            steps.share(proposed().silo(name), proposed().state(name, states.Proposed), NOW, message, other)


def test_a_leaf_at_the_place_of_another() -> None:
    # Hope: one silo counts twice, or stands where another belongs.
    given, names = accepts(), many().names
    unseen = sorted(set(names) - seeing(told(names), VICTIM))[0]
    swapped = told(names, {ODD: member_leaf(unseen, given[unseen]), unseen: member_leaf(ODD, given[ODD])})
    found = refusing(swapped)
    assert set(found) >= seeing(swapped, ODD) | seeing(swapped, unseen)  # and who has them as witnesses
    # Its own proof shows a silo nothing of a tree of another shape.
    message, *parts = told(names).share(VICTIM)
    proof = ShareKeys.decode(message).proof
    for wrong in (proof[1:], proof[:-1], (*proof, proof[-1]), (proof[1], proof[0], *proof[2:]), ()):
        told_so = ShareKeys.decode(message).model_copy(update={"proof": wrong})
        with pytest.raises(ProtocolError):
            steps.share(
                proposed().silo(VICTIM), proposed().state(VICTIM, states.Proposed), NOW, told_so.encode(), parts
            )


def test_a_committee_that_is_not_the_one_of_the_graph() -> None:
    # Hope: the aggregator chooses who holds a silo's shares: colluders.
    composed = proposed().composed
    silos, me = composed.manifest.silos, composed.manifest.silos.index(VICTIM)
    graph = composed.committees[me]
    others = [place for place in range(COUNT) if place not in graph]
    chosen = tuple(sorted([me, *(others + [place for place in graph if place != me])[: len(graph) - 1]]))
    assert len(chosen) == len(graph)
    assert chosen != graph
    parts: list[bytes] = []
    for place in chosen:
        member = composed.members[place]
        keys = [member.channel_key, *([member.mask_key] if place > me else [])]
        parts += [member.envelope, *keys] if place != me else []
    message = ShareKeys(manifest=composed.envelope, witnesses=(), proof=composed.tree.proof(chosen)).encode()
    with pytest.raises((ProtocolError, SignatureError)):
        steps.share(proposed().silo(VICTIM), proposed().state(VICTIM, states.Proposed), NOW, message, parts)
    wide = [one for place, member in enumerate(composed.members) if place != me for one in (member.envelope,)]
    with pytest.raises(ProtocolError, match="not those of this silo's committee"):
        steps.share(proposed().silo(VICTIM), proposed().state(VICTIM, states.Proposed), NOW, message, wide)
    assert silos == many().names


def test_a_composed_round_is_what_the_recipient_composes() -> None:
    composed = proposed().composed
    again = compose(
        composed.before.propose, composed.before.terms, [(one.signer, one.message) for one in composed.members]
    )
    assert again == composed.manifest
    assert (
        hub.compose_round(many().aggregator, composed.before, {one.signer: one for one in composed.members}).manifest
        == again
    )
    assert all(unverified(one.envelope, Accept) == one.message for one in composed.members)


def test_who_lets_nobody_be_missing_is_left_out_of_a_round_without_somebody() -> None:
    given = {silo: one.model_copy(update={"max_missing": 2}) for silo, one in accepts().items()}
    given[VICTIM] = given[VICTIM].model_copy(update={"max_missing": 0})
    terms = proposed().composed.before.terms
    assert hub.fitting(given, terms) == list(many().names), "all are there"
    del given[ODD]
    assert hub.fitting(given, terms) == [name for name in many().names if name not in (ODD, VICTIM)]
