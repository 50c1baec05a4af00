"""A manifest is what its request and acceptances give, and a survivor set what its manifest and a quorum allow."""

import base64
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import ProtocolError, SignatureError, WireError
from crypto.keys import Secret, SigningKey, derive
from crypto.noise import deviation
from crypto.rounds.bounds import (
    MIN_SURVIVORS,
    fewest_survivors,
    noise_shares,
    tolerated_collusion,
    why_infeasible,
)
from crypto.rounds.committees import quorum_of
from crypto.rounds.manifest import (
    Accept,
    Block,
    Manifest,
    Propose,
    Recipient,
    Terms,
    check_manifest,
    compose,
    members_tree,
)
from crypto.rounds.messages import (
    MAX_WITNESSES,
    Ready,
    Survivor,
    SurvivorSet,
    check_ready,
    check_signatures,
    check_survivors,
)
from crypto.rounds.shown import witnesses
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import MAX_SILOS, Signature, Signed, detach, digest_of, sign, verify
from tests.cases import every

TABLE = [(3, 1, 0), (4, 1, 1), (5, 2, 1), (6, 3, 1), (7, 2, 2), (10, 3, 3)]  # silos, collusion, missing


def _filled(label: str, length: int = 32) -> bytes:
    return derive(bytes(32), label) * (length // 32)


SILOS = ("bank", "clinic", "hospital", "laboratory", "ward")
KEYS = {silo: SigningKey(Secret(_filled(silo))) for silo in (*SILOS, "stranger")}
PUBLIC = {silo: KEYS[silo].public for silo in SILOS}
PROPOSE = Propose(federation="health", round_id=bytes(16), expires_at=1_000_000, request=b"request")
TERMS = Terms(
    request_hash=_filled("request"),
    recipients=(Recipient(name="ann", key=_filled("ann", PUBLIC_BYTES)),),
    backend="masking",
    asked=5,
    key_id=_filled("key id"),
    limit=2**60,
    blocks=(
        Block(name="rows", length=2, scale_bits=3, variance="400"),
        Block(name="total:days", length=2, scale_bits=0, variance="900000"),
    ),
)


def _accept(silo: str, **changes: object) -> Accept:
    return Accept(
        federation="health",
        round_id=bytes(16),
        request_hash=TERMS.request_hash,
        expires_at=1_000_000,
        mask_key_hash=_filled(f"{silo} mask"),
        channel_key_hash=_filled(f"{silo} channel"),
        self_commitment=_filled(f"{silo} commitment"),
        policy_hash=_filled(f"{silo} policy"),
        min_silos=3,
        max_colluding=1,
        max_missing=0,
    ).model_copy(update=changes)


def _accepts(silos: tuple[str, ...] = SILOS) -> list[tuple[str, Accept]]:
    return [(silo, _accept(silo)) for silo in silos]


ENVELOPES = [sign(accept, silo, KEYS[silo]) for silo, accept in _accepts()]
MANIFEST = compose(PROPOSE, TERMS, _accepts())
MANIFEST_HASH = digest_of(MANIFEST)

# Quorum and tolerance


@every(("silos", "collusion", "missing"), TABLE)
def test_tolerances_are_those_of_the_design(silos: int, collusion: int, missing: int) -> None:
    assert quorum_of(silos) == 2 * silos // 3 + 1
    assert tolerated_collusion(silos) == collusion
    assert silos - quorum_of(silos) == missing


@every("silos", range(1, MAX_SILOS + 1))
def test_quorum_withstands_what_it_promises(silos: int) -> None:
    quorum, colluding = quorum_of(silos), tolerated_collusion(silos)
    assert 3 * (quorum - 1) <= 2 * silos < 3 * quorum  # the floor, without dividing
    assert 1 <= quorum <= silos or silos < MIN_SURVIVORS
    if colluding:
        # 1. Two survivor sets cannot both gather a quorum: each honest silo signs one of them only.
        assert 2 * (quorum - colluding) > silos - colluding
        # 2. Colluding silos and the one share that an honest silo opens are no quorum.
        assert colluding + 1 < quorum
    assert colluding == max(0, min(2 * quorum - silos - 1, quorum - 2))


@every(("silos", "collusion", "missing"), TABLE)
def test_roster_bears_what_the_table_says_and_no_more(silos: int, collusion: int, missing: int) -> None:
    assert why_infeasible(silos, 0, collusion, 0) == ""
    assert why_infeasible(silos, 0, 1, missing) == ""
    assert why_infeasible(silos, 0, collusion + 1, 0)
    assert f"cannot lose {missing + 1}" in why_infeasible(silos, 0, 1, missing + 1)


@every(
    ("arguments", "reason"),
    [
        ((0, 0, 1, 0), "at least 3 must"),
        ((1, 0, 0, 0), "at least 3 must"),
        ((2, 0, 0, 0), "at least 3 must"),
        ((3, 4, 1, 0), "at least 4 must"),
        ((5, 6, 1, 0), "at least 6 must"),
        ((4, 0, 3, 0), "at least 5 must"),
        ((4, 0, 2, 0), "withstand 1 colluding, a policy asks for 2"),
        ((5, 5, 1, 1), "cannot lose 1 and keep 5"),
        ((6, 0, 3, 2), "cannot lose 2 and keep 5"),
        ((10, 0, 3, 4), "cannot lose 4 and keep 7"),
        ((10, 8, 3, 3), "cannot lose 3 and keep 8"),
    ],
)
def test_obstacle_says_why(arguments: tuple[int, int, int, int], reason: str) -> None:
    assert reason in why_infeasible(*arguments)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 100), st.integers(0, 100))
def test_no_obstacle_means_enough_survivors_and_noise(silos: int, least: int, colluding: int, missing: int) -> None:
    if not why_infeasible(silos, least, colluding, missing):
        assert silos - missing >= max(quorum_of(silos), colluding + 2, least, 3)
        assert colluding <= tolerated_collusion(silos)
        assert silos - colluding - missing >= 1
        # What is borne stays borne when less is asked for.
        assert not why_infeasible(silos, max(0, least - 1), max(1, colluding - 1), max(0, missing - 1))


# Composing


def test_manifest_is_that_of_its_acceptances() -> None:
    accepts = [
        ("ward", _accept("ward", min_silos=4)),
        ("bank", _accept("bank", max_colluding=2)),
        ("hospital", _accept("hospital", max_missing=1)),
        ("clinic", _accept("clinic", max_missing=2)),
        ("laboratory", _accept("laboratory")),
    ]
    manifest = compose(PROPOSE, TERMS, accepts)
    assert manifest.silos == SILOS
    assert (manifest.federation, manifest.round_id, manifest.expires_at) == ("health", bytes(16), 1_000_000)
    assert manifest.terms == TERMS
    assert (manifest.quorum, manifest.min_silos, manifest.max_colluding, manifest.max_missing) == (4, 4, 2, 0)
    assert manifest.length == 4
    assert manifest.noise_shares == 5 - 2
    # The tree of RFC 6962, written out: a name behind its length, and the acceptance.
    one, two, three, four, five = (
        sha256(b"\0" + bytes([len(silo)]) + silo.encode() + dict(accepts)[silo].encode()).digest() for silo in SILOS
    )
    left = _node(_node(one, two), _node(three, four))
    assert manifest.members == _node(left, five)
    assert manifest.committee(digest_of(manifest), 2) == tuple(range(5))


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def test_root_changes_with_every_field_of_every_acceptance() -> None:
    for silo in SILOS:
        for field in set(Accept.model_fields) - {"must_include"}:
            value = getattr(_accept(silo), field)
            if value is None:  # it is left out
                other: object = bytes(32) if field == "nonce_hash" else 1
            else:
                other = (
                    value + 1 if isinstance(value, int) else value[:-1] + (b"?" if isinstance(value, bytes) else "?")
                )
            changed = [(name, _accept(name, **({field: other} if name == silo else {}))) for name in SILOS]
            assert members_tree(changed).root != MANIFEST.members, field
    needing = [(silo, _accept(silo, must_include=("bank",) if silo == "ward" else None)) for silo in SILOS]
    assert members_tree(needing).root != MANIFEST.members
    renamed = [(f"{silo}x" if silo == "ward" else silo, accept) for silo, accept in _accepts()]
    assert members_tree(renamed).root != MANIFEST.members


def test_a_round_ends_when_the_slowest_has_computed_and_after_that_the_slowest_has_sent() -> None:
    for compute_ms, send_ms, more_s in (
        ({}, {}, 0),
        ({"ward": 1}, {}, 1),
        ({}, {"bank": 1000}, 1),
        ({"ward": 2500, "bank": 900}, {"bank": 4000, "clinic": 7001}, 3 + 8),
    ):
        accepts = [(silo, _accept(silo, compute_ms=compute_ms.get(silo), send_ms=send_ms.get(silo))) for silo in SILOS]
        assert compose(PROPOSE, TERMS, accepts).expires_at == PROPOSE.expires_at + more_s
        stated = [accept for _, accept in accepts]
        slowest = {max(range(5), key=lambda place: one.get(SILOS[place], 0)) for one in (compute_ms, send_ms) if one}
        assert slowest <= set(witnesses(stated)), "who makes the others wait bears witness to it"
        assert len(witnesses(stated)) <= MAX_WITNESSES


def test_manifest_does_not_depend_on_the_order_of_acceptances() -> None:
    accepts = _accepts()
    for start in range(len(accepts)):
        assert compose(PROPOSE, TERMS, accepts[start:] + accepts[:start]) == MANIFEST
    assert all(one < two for one, two in pairwise(MANIFEST.silos))


@pytest.mark.parametrize(
    ("asked", "least", "colluding", "missing", "survivors"),
    [(5, 2, 1, 1, 4), (5, 2, 4, 2, 6), (5, 5, 1, 3, 5), (3, 2, 0, 3, 3), (5, 3, 1, 0, 5), (10, 3, 1, 2, 8)],
)
def test_survivors_satisfy_every_rule(asked: int, least: int, colluding: int, missing: int, survivors: int) -> None:
    terms = TERMS.model_copy(update={"asked": asked})
    changes = {"terms": terms, "min_silos": least, "max_colluding": colluding, "max_missing": missing}
    assert MANIFEST.model_copy(update=changes).min_survivors == survivors


def test_nobody_composes_no_manifest() -> None:
    with pytest.raises(ProtocolError, match="no silo takes part"):
        compose(PROPOSE, TERMS, [])


def test_silo_is_not_counted_twice() -> None:
    for second in (_accept("bank"), _accept("bank", mask_key_hash=_filled("another"))):
        with pytest.raises(ProtocolError, match="twice"):
            compose(PROPOSE, TERMS, [*_accepts(), ("bank", second)])


@pytest.mark.parametrize(
    "change",
    [
        {"federation": "banking"},
        {"round_id": b"\1" * 16},
        {"request_hash": _filled("another request")},
        {"expires_at": 1_000_001},
        {"expires_at": 999_999},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("position", [0, 4])
def test_acceptance_of_another_round_is_refused(change: dict[str, object], position: int) -> None:
    accepts = _accepts()
    accepts[position] = (SILOS[position], _accept(SILOS[position], **change))
    with pytest.raises(ProtocolError, match=f"'{SILOS[position]}' belongs to another"):
        compose(PROPOSE, TERMS, accepts)


@pytest.mark.parametrize("change", [{"min_silos": 6}, {"max_colluding": 3}], ids=str)
def test_roster_that_cannot_bear_one_policy_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        compose(PROPOSE, TERMS, [*_accepts()[:-1], ("ward", _accept("ward", **change))])


def test_no_policy_lets_more_be_missing_than_another_allows() -> None:
    # Hope: a silo that colludes with the aggregator lets a sum be opened without silos that others' policies demand.
    manifest = compose(PROPOSE, TERMS, [*_accepts()[:-1], ("ward", _accept("ward", max_missing=1))])
    assert (manifest.max_missing, manifest.min_survivors) == (0, 5)
    with pytest.raises(ProtocolError, match="4 of the 5 silos"):
        check_survivors(manifest, MANIFEST_HASH, _survivor_set(SILOS[1:], SILOS[:1]))


def test_more_silos_than_a_roster_holds_are_refused() -> None:
    accepts = _accepts(tuple(f"silo-{number:03}" for number in range(MAX_SILOS + 1)))
    terms = TERMS.model_copy(update={"asked": MAX_SILOS})
    assert len(compose(PROPOSE, terms, accepts[:-1]).silos) == MAX_SILOS
    with pytest.raises(ProtocolError):
        compose(PROPOSE, terms, accepts)


# Who is missing, for whatever reason


def _is_opened(accepts: list[tuple[str, Accept]], terms: Terms, dropped: int) -> Manifest | None:
    """Return the manifest of a round in which the first of the roster drop out, if its sum may be opened."""
    try:
        manifest = compose(PROPOSE, terms, accepts)
        names = manifest.silos
        survivor_set = _survivor_set(names[dropped:], names[:dropped], manifest_hash=MANIFEST_HASH)
        check_survivors(manifest, MANIFEST_HASH, survivor_set)
    except ProtocolError:
        return None
    return manifest


def test_it_does_not_matter_why_a_silo_is_missing() -> None:
    """By brute force over how many are asked, refuse and drop out, and over the conditions of a policy."""
    opened = refused_then_dropped = 0
    for asked in range(3, 12):
        terms = TERMS.model_copy(update={"asked": asked})
        names = [f"silo-{number:02}" for number in range(asked)]
        for colluding, missing, least in product(range(1, 5), range(5), (3, 4, 7)):
            conditions = {"min_silos": least, "max_colluding": colluding, "max_missing": missing}
            accepts = [(name, _accept(name, **conditions)) for name in names]
            needed = max(quorum_of(asked), asked - missing, colluding + 2, least, 3)
            is_possible = colluding <= tolerated_collusion(asked) and asked - missing >= needed
            for refused, dropped in product(range(asked), range(asked)):
                if refused + dropped >= asked or refused + dropped > missing + 2:
                    continue
                survivors = asked - refused - dropped
                manifest = _is_opened(accepts[refused:], terms, dropped)
                assert (manifest is not None) == (is_possible and survivors >= needed)
                if manifest is None:
                    continue
                opened += 1
                refused_then_dropped += bool(refused and dropped)
                # 1. The honest survivors' noise alone reaches the variance, at the greatest loss too.
                for block in terms.blocks:
                    share = Fraction(int(block.variance), manifest.noise_shares)
                    assert (survivors - colluding) * share >= int(block.variance)
                    assert (needed - colluding) * share >= int(block.variance)
                # 2. No two survivor sets of this roster gather a quorum, and one share more opens nothing.
                members = asked - refused
                assert 2 * (manifest.quorum - colluding) > members - colluding
                assert colluding + 1 < manifest.committee_quorum
                # 3. Who is left can sign and open.
                assert survivors >= manifest.quorum == manifest.committee_quorum
    assert opened > 300
    assert refused_then_dropped


def test_noise_of_the_fewest_survivors_reaches_the_variance_as_it_is_drawn() -> None:
    for asked, colluding, missing in ((5, 1, 1), (7, 2, 2), (10, 3, 3), (400, 20, 40)):
        shares = noise_shares(asked, colluding, missing)
        honest = fewest_survivors(asked, 3, colluding, missing) - colluding
        for variance in (9 * 400, 10**9 + 7, 2**100 + 1):
            assert honest * Fraction(deviation(variance, shares)) ** 2 >= variance


def test_who_must_be_in_is_in_and_survives() -> None:
    accepts = [(silo, _accept(silo, max_missing=1, must_include=("ward",) * (silo == "bank"))) for silo in SILOS]
    manifest = compose(PROPOSE, TERMS, accepts)
    assert manifest.must_include == ("ward",)
    check_survivors(manifest, MANIFEST_HASH, _survivor_set(SILOS[1:], SILOS[:1]))
    with pytest.raises(ProtocolError, match="no part without ward"):
        check_survivors(manifest, MANIFEST_HASH, _survivor_set(SILOS[:-1], SILOS[-1:]))
    with pytest.raises(ProtocolError, match="no part without ward"):
        compose(PROPOSE, TERMS, accepts[:-1])


# Checking

ALTERED: dict[str, Callable[[Manifest], object]] = {
    "federation": lambda manifest: "banking",
    "round_id": lambda manifest: b"\1" * 16,
    "expires_at": lambda manifest: manifest.expires_at + 1,
    "terms": lambda manifest: manifest.terms.model_copy(update={"limit": 2**59}),
    "silos": lambda manifest: manifest.silos[:-1],
    "members": lambda manifest: bytes(32),
    "quorum": lambda manifest: manifest.quorum - 1,
    "degree": lambda manifest: manifest.degree - 1,
    "min_silos": lambda manifest: manifest.min_silos - 1,
    "max_colluding": lambda manifest: manifest.max_colluding + 1,
    "max_missing": lambda manifest: manifest.max_missing + 1,
    "must_include": lambda manifest: ("bank",),
    "nonces": lambda manifest: (bytes(32),) * len(manifest.silos),
}


def _check(manifest: Manifest, envelopes: list[bytes] | None = None) -> list[Signed[Accept]]:
    return check_manifest(manifest, PROPOSE, TERMS, ENVELOPES if envelopes is None else envelopes, PUBLIC)


def test_honest_manifest_is_accepted() -> None:
    assert [(one.signer, one.message) for one in _check(MANIFEST)] == _accepts()
    assert len(_check(MANIFEST, ENVELOPES[::-1])) == 5
    assert len(_check(Manifest.decode(MANIFEST.encode()))) == 5


@pytest.mark.parametrize("field", Manifest.model_fields)
def test_altered_field_is_found(field: str) -> None:
    altered = MANIFEST.model_copy(update={field: ALTERED[field](MANIFEST)})
    with pytest.raises(ProtocolError, match=f"the manifest's {field} "):
        _check(altered)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


LEAVES = list(_leaves(json.loads(MANIFEST.encode())))


def _changed(leaf: str | int) -> str | int:
    if isinstance(leaf, int):
        return leaf - 1 if leaf else 1
    if leaf.endswith("=") or len(leaf) > 100:  # base64
        raw = base64.urlsafe_b64decode(leaf)
        return base64.urlsafe_b64encode(bytes([raw[0] ^ 1]) + raw[1:]).decode()
    return leaf[:-1] + ("1" if leaf[-1] != "1" else "2")


@every(("path", "leaf"), LEAVES)
def test_no_leaf_can_be_altered(path: tuple[Any, ...], leaf: str | int) -> None:
    tree = json.loads(MANIFEST.encode())
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = _changed(leaf)
    data = json.dumps(tree, separators=(",", ":")).encode()
    assert data != MANIFEST.encode()
    if path[-1] == "backend":
        with pytest.raises(WireError):
            Manifest.decode(data)
        return
    with pytest.raises(ProtocolError, match=f"the manifest's {path[0]} "):
        _check(Manifest.decode(data))


def test_roster_is_compared_in_order() -> None:
    with pytest.raises(ProtocolError, match="silos"):
        _check(MANIFEST.model_copy(update={"silos": MANIFEST.silos[::-1]}))


def test_manifest_of_other_terms_or_another_proposal_is_refused() -> None:
    narrower = TERMS.model_copy(update={"limit": 2**59})
    with pytest.raises(ProtocolError, match="terms"):
        check_manifest(MANIFEST, PROPOSE, narrower, ENVELOPES, PUBLIC)
    for change in ({"federation": "banking"}, {"round_id": b"\1" * 16}, {"expires_at": 1}):
        with pytest.raises(ProtocolError, match="belongs to another"):
            check_manifest(MANIFEST, PROPOSE.model_copy(update=change), TERMS, ENVELOPES, PUBLIC)


def test_acceptance_left_out_or_added_is_found() -> None:
    with pytest.raises(ProtocolError, match="4 of the 5 silos"):
        _check(MANIFEST, ENVELOPES[:-1])
    tolerant = [sign(_accept(silo, max_missing=1), silo, KEYS[silo]) for silo in SILOS]
    with pytest.raises(ProtocolError, match="silos"):
        _check(TOLERANT, tolerant[:-1])
    with pytest.raises(ProtocolError, match="twice"):
        _check(MANIFEST, [*ENVELOPES, ENVELOPES[0]])
    with pytest.raises(ProtocolError, match="no silo takes part"):
        _check(MANIFEST, [])


@pytest.mark.parametrize(
    ("signer", "key"), [("stranger", "stranger"), ("ward", "stranger"), ("ward", "bank")], ids=lambda name: name
)
def test_acceptance_not_signed_by_its_silo_is_refused(signer: str, key: str) -> None:
    with pytest.raises(SignatureError):
        _check(MANIFEST, [*ENVELOPES[:-1], sign(_accept("ward"), signer, KEYS[key])])


def test_acceptance_that_is_none_is_refused() -> None:
    with pytest.raises(WireError):
        _check(MANIFEST, [*ENVELOPES[:-1], sign(MANIFEST, "ward", KEYS["ward"])])


def test_too_many_acceptances_are_refused_before_any_is_verified() -> None:
    with pytest.raises(ProtocolError, match="at most 1000"):
        _check(MANIFEST, [b"no envelope"] * (MAX_SILOS + 1))
    with pytest.raises(WireError):
        _check(MANIFEST, [b"no envelope"] * MAX_SILOS)


# The survivor set

TOLERANT = compose(PROPOSE, TERMS, [(silo, _accept(silo, max_missing=1)) for silo in SILOS])


def _survivor_set(survivors: tuple[str, ...] = SILOS, dropped: tuple[str, ...] = (), **changes: object) -> SurvivorSet:
    named = tuple(Survivor(silo=silo, contribution=_filled(f"{silo} contribution")) for silo in survivors)
    return SurvivorSet(manifest_hash=MANIFEST_HASH, survivors=named, dropped=dropped).model_copy(update=changes)


def test_survivor_set_that_parts_the_roster_is_accepted() -> None:
    check_survivors(MANIFEST, MANIFEST_HASH, _survivor_set())
    for index in range(5):
        check_survivors(
            TOLERANT, MANIFEST_HASH, _survivor_set(SILOS[:index] + SILOS[index + 1 :], SILOS[index : index + 1])
        )


@every(
    ("survivor_set", "rule"),
    [
        (_survivor_set(manifest_hash=bytes(32)), "another manifest"),
        (_survivor_set(SILOS[::-1]), "not sorted"),
        (_survivor_set((*SILOS, "ward")), "twice"),
        (_survivor_set(("bank", *SILOS)), "twice"),
        (_survivor_set(SILOS[1:], ("bank", "bank")), "twice"),
        (_survivor_set(SILOS[2:], ("clinic", "bank")), "not sorted"),
        (_survivor_set(SILOS[1:]), "part the roster"),
        (_survivor_set(SILOS, ("bank",)), "part the roster"),
        (_survivor_set((*SILOS, "xray")), "part the roster"),
        (_survivor_set(SILOS, ("xray",)), "part the roster"),
        (_survivor_set((*SILOS[:-1], "xray")), "part the roster"),
        (_survivor_set((), SILOS), "0 of the 5 silos that were asked are left, and at least 4"),
        (_survivor_set(SILOS[2:], SILOS[:2]), "3 of the 5 silos"),
    ],
)
def test_survivor_set_that_breaks_a_rule_is_refused(survivor_set: SurvivorSet, rule: str) -> None:
    with pytest.raises(ProtocolError, match=rule):
        check_survivors(TOLERANT, MANIFEST_HASH, survivor_set)


def test_more_missing_than_agreed_are_refused() -> None:
    survivor_set = _survivor_set(SILOS[1:], SILOS[:1])
    check_survivors(TOLERANT, MANIFEST_HASH, survivor_set)
    with pytest.raises(ProtocolError, match="4 of the 5 silos that were asked are left, and at least 5"):
        check_survivors(MANIFEST, MANIFEST_HASH, survivor_set)


def _signed(survivor_set: SurvivorSet, *silos: str) -> list[Signature]:
    return [detach(sign(survivor_set, silo, KEYS[silo]), SurvivorSet) for silo in silos]


def _check_signatures(survivor_set: SurvivorSet, signatures: list[Signature]) -> SurvivorSet:
    return check_signatures(TOLERANT, survivor_set.encode(), signatures, PUBLIC)


def test_quorum_of_survivors_suffices() -> None:
    survivor_set = _survivor_set(SILOS[1:], SILOS[:1])
    assert _check_signatures(survivor_set, _signed(survivor_set, *SILOS[1:])) == survivor_set
    _check_signatures(_survivor_set(), _signed(_survivor_set(), *SILOS[:4]))
    _check_signatures(_survivor_set(), _signed(_survivor_set(), *SILOS))


@pytest.mark.parametrize("signers", [(), SILOS[:1], SILOS[:3], ("bank", "bank", "bank", "bank"), (*SILOS[:3], "bank")])
def test_fewer_signers_than_a_quorum_are_refused(signers: tuple[str, ...]) -> None:
    with pytest.raises(ProtocolError, match="lacks the signatures of 4 distinct silos"):
        _check_signatures(_survivor_set(), _signed(_survivor_set(), *signers))


def test_signatures_of_different_splits_do_not_add_up() -> None:
    other = _survivor_set(SILOS[1:], SILOS[:1])
    mixed = [*_signed(_survivor_set(), *SILOS[:4]), *_signed(other, "ward")]
    _check_signatures(_survivor_set(), mixed[:4])
    for signatures in (mixed, mixed[1:], mixed[::-1]):
        for survivor_set in (_survivor_set(), other):
            with pytest.raises(SignatureError, match="does not hold"):
                _check_signatures(survivor_set, signatures)


def test_stranger_does_not_sign() -> None:
    with pytest.raises(SignatureError, match="not expected to sign"):
        _check_signatures(_survivor_set(), _signed(_survivor_set(), *SILOS[:4], "stranger"))


def test_dropped_silo_does_not_sign() -> None:
    survivor_set = _survivor_set(SILOS[1:], SILOS[:1])
    for signers in (SILOS, SILOS[:4]):
        with pytest.raises(ProtocolError, match="does not count among the survivors"):
            _check_signatures(survivor_set, _signed(survivor_set, *signers))


# Ready


READY = Ready(manifest_hash=MANIFEST_HASH)


def _ready(message: Ready, *silos: str) -> list[bytes]:
    return [detach(sign(message, silo, KEYS[silo]), Ready).signature for silo in silos]


def test_all_are_ready_or_none_contributes() -> None:
    check_ready(MANIFEST, MANIFEST_HASH, _ready(READY, *SILOS), PUBLIC)
    few: tuple[tuple[str, ...], ...] = ((), SILOS[1:], SILOS[:-1], (*SILOS, "stranger"))
    for signers in few:
        with pytest.raises(ProtocolError, match="not every silo"):
            check_ready(MANIFEST, MANIFEST_HASH, _ready(READY, *signers), PUBLIC)
    wrong: tuple[tuple[str, ...], ...] = (SILOS[::-1], ("bank", *SILOS[:-1]), (*SILOS[:-1], "stranger"))
    for signers in wrong:
        with pytest.raises(SignatureError):
            check_ready(MANIFEST, MANIFEST_HASH, _ready(READY, *signers), PUBLIC)


def test_ready_of_another_round_or_another_silo_does_not_count() -> None:
    good = _ready(READY, *SILOS)
    other = _ready(Ready(manifest_hash=bytes(32)), "clinic")[0]
    survivor_set = detach(sign(_survivor_set(), "clinic", KEYS["clinic"]), SurvivorSet).signature
    for wrong in (other, good[0], survivor_set, bytes(64)):
        with pytest.raises(SignatureError):
            check_ready(MANIFEST, MANIFEST_HASH, [good[0], wrong, *good[2:]], PUBLIC)


def test_hash_of_a_manifest_is_that_of_its_bytes() -> None:
    assert sha256(MANIFEST.encode()).digest() == MANIFEST_HASH
    signed = verify(sign(MANIFEST, "hub", KEYS["bank"]), Manifest, {"hub": PUBLIC["bank"]})
    assert signed.digest == MANIFEST_HASH
    assert signed.message == MANIFEST
