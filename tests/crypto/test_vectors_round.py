"""One whole round agrees, byte for byte, with vectors that were made without the packages under test."""

from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from crypto.backends.masks import apply_masks, blind
from crypto.errors import CryptoError, ProtocolError, SealError
from crypto.keys import Secret, SigningKey
from crypto.merkle import MerkleTree, leaf_hash
from crypto.ring import Ring
from crypto.rounds.committees import committees, degree_of
from crypto.rounds.key_schedule import entry_info, mask_key_of, opening_info, pair_seed, self_commitment, self_seed
from crypto.rounds.manifest import Manifest, Propose, Terms, check_manifest
from crypto.rounds.messages import (
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
from crypto.rounds.opening import check_report, open_report
from crypto.rounds.recount import check_chunk
from crypto.rounds.report import StoredReport, report_header
from crypto.sealing import SealingKey
from crypto.shamir import combine
from crypto.wire import detach, digest_of, sign, unverified, verify
from policies.requests.request import Request
from policies.requests.terms import terms_of
from tests.crypto.test_vectors import load
from tests.harness.many_silos import chunk_digests

TERMS, GRAPH, ROUND = load("terms")["cases"], load("graph"), load("round")
SEALED = {label: bytes.fromhex(value) for label, value in load("sealed")["sealed"].items()}
NAMES: list[str] = ROUND["silos"]
RING = Ring(64)


def _bytes(name: str) -> dict[str, bytes]:
    return {label: bytes.fromhex(value) for label, value in ROUND[name].items()}


IDENTITY, R, B = _bytes("identity_roots"), _bytes("r"), _bytes("b")
SIGNING = {name: SigningKey(Secret(root)) for name, root in IDENTITY.items()}
SILOS = {name: SIGNING[name].public for name in NAMES}
AGGREGATORS = {"hub": SIGNING["hub"].public}
HASH = bytes.fromhex(ROUND["manifest_hash"])
STORED = StoredReport.decode(bytes.fromhex(ROUND["stored_report"]))
REPORT = STORED.message
MANIFEST = unverified(REPORT.manifest, Manifest)
TERMS_OF_ROUND = Terms.decode(ROUND["terms"].encode())
SURVIVOR_SET = ROUND["split"].encode()


# Terms and graphs


@pytest.mark.parametrize("case", TERMS, ids=range(len(TERMS)))
def test_terms_of_a_request(case: dict[str, str]) -> None:
    request = Request.decode(case["request"].encode())
    assert terms_of(request, digest_of(request)).encode() == case["terms"].encode()


def test_degrees() -> None:
    assert [[n, a, d, degree_of(n, a, d)] for n, a, d, _ in GRAPH["degrees"]] == GRAPH["degrees"]


@pytest.mark.parametrize("case", GRAPH["graphs"], ids=lambda case: case["manifest_hash"][:8])
def test_committees_of_a_sparse_graph(case: dict[str, Any]) -> None:
    names = [f"silo-{number:03}" for number in range(case["silos"])]
    found = committees(names, case["degree"], bytes.fromhex(case["manifest_hash"]))
    assert {place: list(found[int(place)]) for place in case["committees"]} == case["committees"]
    reach = case["degree"] // 2
    for position, place in enumerate(case["order"]):
        around = {case["order"][(position + step) % case["silos"]] for step in range(-reach, reach + 1)}
        assert set(found[place]) == around


# The round, in the order of its steps


def test_identity_keys() -> None:
    assert {name: key.public.raw.hex() for name, key in SIGNING.items()} == ROUND["verify_keys"]


def test_request_and_terms() -> None:
    propose = verify(REPORT.propose, Propose, AGGREGATORS).message
    request = verify(propose.request, Request, {ROUND["recipient"]: SIGNING[ROUND["recipient"]].public})
    assert terms_of(request.message, request.digest) == TERMS_OF_ROUND


def test_acceptances_and_manifest() -> None:
    propose = verify(REPORT.propose, Propose, AGGREGATORS).message
    accepts = check_manifest(MANIFEST, propose, TERMS_OF_ROUND, REPORT.accepts, SILOS)
    for accept in accepts:
        assert accept.message.mask_key_hash == sha256(mask_key_of(R[accept.signer]).public).digest()
        assert accept.message.channel_key_hash == sha256(_channel(accept.signer).public).digest()
        assert accept.message.self_commitment == self_commitment(B[accept.signer])
        assert sign(accept.message, accept.signer, SIGNING[accept.signer]) == accept.envelope
    assert verify(REPORT.manifest, Manifest, AGGREGATORS).digest == HASH
    assert [list(one) for one in MANIFEST.committees(HASH)] == ROUND["committees"]
    share = ShareKeys(manifest=REPORT.manifest, witnesses=(), proof=())
    assert [sha256(share.encode()).hexdigest()] * 3 == ROUND["share_sha256"]


def _channel(name: str) -> SealingKey:
    return SealingKey(Secret(bytes.fromhex(ROUND["channel_roots"][name])))


def test_derived_seeds() -> None:
    assert {name: self_seed(B[name], HASH) for name in NAMES} == _bytes("self_seeds")
    pairs = {f"{name} {later}": pair_seed(R[name], HASH, later) for name in NAMES for later in NAMES if later > name}
    assert pairs == _bytes("pair_seeds")


def test_shares_rebuild_the_secrets() -> None:
    for name in NAMES:
        for secret, which in ((B[name], "shares_of_b"), (R[name], "shares_of_r")):
            shares = {place: bytes.fromhex(share) for place, share in enumerate(ROUND[which][name])}
            assert combine(shares, MANIFEST.committee_quorum) == secret


def _tree(name: str) -> MerkleTree:
    return MerkleTree([leaf_hash(bytes.fromhex(raw)) for raw in ROUND["entries"][name]])


def test_entries_open() -> None:
    for place, (name, raw) in enumerate(zip(NAMES, ROUND["bundles"], strict=True)):
        bundle = verify(bytes.fromhex(raw), Bundle, SILOS)
        assert (bundle.signer, bundle.message.manifest_hash, bundle.message.entries) == (name, HASH, _tree(name).root)
        others = [receiver for receiver in NAMES if receiver != name]
        for receiver, encoded in zip(others, ROUND["entries"][name], strict=True):
            entry, pair, at = Entry.decode(bytes.fromhex(encoded)), f"{name} {receiver}", NAMES.index(receiver)
            assert entry.encode().hex() == encoded
            info = entry_info(HASH, "shares", name, receiver)
            assert entry.shares == SEALED[f"shares {pair}"]
            assert info.hex() == ROUND["contexts"][f"shares {pair}"]
            both = ROUND["shares_of_b"][name][at] + ROUND["shares_of_r"][name][at]
            assert _channel(receiver).open(entry.shares, info).hex() == both
            if at <= place:
                assert entry.pair_seed == b""
                continue
            info = entry_info(HASH, "pair seed", name, receiver)
            assert entry.pair_seed == SEALED[f"pair seed {pair}"]
            assert info.hex() == ROUND["contexts"][f"pair seed {pair}"]
            assert mask_key_of(R[receiver]).open(entry.pair_seed, info).hex() == ROUND["pair_seeds"][pair]


def test_entries_open_for_their_receiver_in_their_context_only() -> None:
    label, info = "shares bank ward", entry_info(HASH, "shares", "bank", "ward")
    wrong = (("clinic", info), ("ward", entry_info(HASH, "shares", "clinic", "ward")), ("ward", b""))
    for receiver, context in wrong:
        with pytest.raises(SealError):
            _channel(receiver).open(SEALED[label], context)
    changed = SEALED[label][:-1] + bytes([SEALED[label][-1] ^ 1])
    for sealed in (changed, SEALED[label][:-1], b""):
        with pytest.raises(SealError):
            _channel("ward").open(sealed, info)


def test_delivered() -> None:
    for receiver, expected in zip(NAMES, ROUND["deliver_sha256"], strict=True):
        signatures, paths = [], []
        for name in NAMES:
            if name != receiver:
                number = [one for one in NAMES if one != name].index(receiver)
                entry, path = bytes.fromhex(ROUND["entries"][name][number]), b"".join(_tree(name).proof([number]))
                root = entries_root(MANIFEST, HASH, NAMES.index(name), NAMES.index(receiver), entry, path)
                signed = sign(Bundle(manifest_hash=HASH, entries=root), name, SIGNING[name])
                assert signed.hex() == ROUND["bundles"][NAMES.index(name)]
                signatures.append(detach(signed, Bundle))
                paths.append(path)
        deliver = Deliver(signatures=tuple(signatures), paths=tuple(paths))
        assert sha256(deliver.encode()).hexdigest() == expected


def test_ready_and_go() -> None:
    ready, go = Ready(manifest_hash=HASH), Go.decode(ROUND["go"].encode())
    assert ready.encode() == ROUND["ready"].encode()
    assert go.signatures == tuple(detach(sign(ready, name, SIGNING[name]), Ready).signature for name in NAMES)
    check_ready(MANIFEST, HASH, go.signatures, SILOS)
    with pytest.raises(ProtocolError, match="not every silo"):
        check_ready(MANIFEST, HASH, go.signatures[1:], SILOS)


def test_masks() -> None:
    for label, seed in (_bytes("pair_seeds") | _bytes("self_seeds")).items():
        words = RING.zeros(len(ROUND["masks"][label]))
        apply_masks(words, RING, [seed], [])
        assert [str(word) for word in words.tolist()] == ROUND["masks"][label]


def test_contributions() -> None:
    pairs = _bytes("pair_seeds")
    for place, name in enumerate(NAMES):
        values = np.array([int(value) for value in ROUND["values"][place]], np.int64)
        added_seeds = [
            _bytes("self_seeds")[name],
            *(seed for pair, seed in pairs.items() if pair.startswith(f"{name} ")),
        ]
        subtracted_seeds = [seed for pair, seed in pairs.items() if pair.endswith(f" {name}")]
        payload = RING.to_bytes(blind(values, RING.from_signed, RING, added_seeds, subtracted_seeds))
        assert payload.hex() == ROUND["blinded"][place]
        assert [digest.hex() for digest in chunk_digests(payload, 8)] == [ROUND["chunk_digests"][place]]
        header = Contribution(manifest_hash=HASH, length=values.size, chunks=chunk_digests(payload, 8))
        assert sign(header, name, SIGNING[name]) == REPORT.contributions[place]


def test_survivor_set_and_its_quorum() -> None:
    survivor_set = check_signatures(MANIFEST, SURVIVOR_SET, REPORT.signatures, SILOS)
    check_survivors(MANIFEST, HASH, survivor_set)
    assert survivor_set.encode() == SURVIVOR_SET == REPORT.split
    assert REPORT.signatures == tuple(detach(sign(survivor_set, name, SIGNING[name]), SurvivorSet) for name in NAMES)
    opened = Open(signatures=REPORT.signatures)
    assert sha256(opened.encode()).hexdigest() == ROUND["open_sha256"]


def test_openings_open() -> None:
    recipient, survivors_hash = ROUND["recipient"], sha256(SURVIVOR_SET).digest()
    for place, (name, raw) in enumerate(zip(NAMES, REPORT.openings, strict=True)):
        info = opening_info(HASH, survivors_hash, name, recipient)
        (sealed,) = verify(raw, Opening, {name: SILOS[name]}).message.sealed
        assert sealed == SEALED[f"opening {name}"]
        assert info.hex() == ROUND["contexts"][f"opening {name}"]
        row = SealingKey(Secret(IDENTITY[recipient])).open(sealed, info)
        assert row == ROUND["opened_shares"][place].encode()
        shares = [share.hex() for share in UnmaskingShares.decode(row).shares]
        assert shares == [ROUND["shares_of_b"][other][place] for other in NAMES]


def test_report_opens_to_the_sum() -> None:
    key, total = SealingKey(Secret(IDENTITY[ROUND["recipient"]])), [int(value) for value in ROUND["opened_sum"]]
    checked = check_report(STORED, TERMS_OF_ROUND, SILOS, AGGREGATORS)
    opened = open_report(checked, ROUND["recipient"], key)
    assert opened.units.tolist() == total
    scales = [block.scale_bits for block in TERMS_OF_ROUND.blocks for _ in range(block.length)]
    decoded = [value for block in opened.blocks() for value in block.tolist()]
    assert decoded == [value / 2**scale for value, scale in zip(total, scales, strict=True)]


def test_report_is_the_documented_bytes() -> None:
    raw = bytes.fromhex(ROUND["stored_report"])
    assert STORED.name.hex() == ROUND["report_sha256"]
    assert bytes(STORED.blinded_sum).hex() == ROUND["blinded_sum"]
    assert report_header(REPORT) + bytes.fromhex(ROUND["blinded_sum"]) == raw
    assert raw[:8] == b"CSR1" + len(REPORT.encode()).to_bytes(4, "big")


def test_report_adds_up() -> None:
    checked = check_report(STORED, TERMS_OF_ROUND, SILOS, AGGREGATORS)
    check_chunk(checked, 0, [bytes.fromhex(payload) for payload in ROUND["blinded"]])


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"CSR2" + raw[4:],
        lambda raw: raw[:7],
        lambda raw: raw[:4] + (2**32 - 1).to_bytes(4, "big") + raw[8:],
        lambda raw: raw[:4] + (int.from_bytes(raw[4:8], "big") + 1).to_bytes(4, "big") + raw[8:],
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    ],
    ids=["magic", "head", "length too great", "length one off", "cut", "longer", "another sum"],
)
def test_report_that_must_be_refused(damage: Any) -> None:
    raw = bytes.fromhex(ROUND["stored_report"])
    with pytest.raises(CryptoError):
        check_report(StoredReport.decode(damage(raw)), TERMS_OF_ROUND, SILOS, AGGREGATORS)
