"""A version runs only if enough people signed its very bytes, it holds now, and it follows the version in force."""

from hashlib import sha256
from pathlib import Path

import pytest

from crypto.keys import Secret, SigningKey
from crypto.wire import sign
from policies.budget.ledger import Charge
from policies.document.load import PolicyFile, parse
from policies.document.signatures import (
    SUFFIX,
    PolicySignature,
    admit,
    check_succession,
    quorums,
    read_signatures,
    signature,
    signed_by,
    written,
)
from policies.errors import PolicySignatureError
from silo_node.ledger.log import Signer
from silo_node.ledger.store import LedgerStore
from tests.harness.example_policy import NOW, POLICY, Edit, edited

KEYS = {name: SigningKey(Secret(bytes([index]) * 32)) for index, name in enumerate(["dpo", "ciso", "owner", "eve"])}
PEOPLE = "".join(f'[people.{name}]\nkey = "{key.public}"\n' for name, key in KEYS.items())
OPEN = Edit("rho = 1.0", "rho = 2.0")
CLOSE = Edit("rho = 1.0", "rho = 0.5")
DAY = 24 * 3600


def version(number: int, *edits: Edit, previous: PolicyFile | None = None, need: int = 2) -> PolicyFile:
    """Return a version of the example policy that dpo, ciso and owner sign."""
    follows = "" if previous is None else f'\nprevious = "sha256:{previous.digest.hex()}"'
    signers = f'signed_by = {{ need = {need}, of = ["dpo", "ciso", "owner"] }}'
    head = Edit("version     = 3", f"version     = {number}{follows}\n{signers}")
    raw = (edited(head, *edits) + PEOPLE).encode()
    return PolicyFile(parse(raw, "policy.toml"), sha256(raw).digest(), Path("policy.toml"), raw)


def by(file: PolicyFile, *names: str) -> tuple[bytes, ...]:
    return tuple(signature(file, "health", name, KEYS[name], NOW) for name in names)


FIRST = version(1)


def refused(file: PolicyFile, signatures: tuple[bytes, ...], accepted: PolicyFile | None = None, now: int = NOW) -> str:
    with pytest.raises(PolicySignatureError) as caught:
        admit(file, "health", signatures, accepted, now)
    assert caught.value.hint
    return caught.value.message


def test_enough_signatures_admit_a_version() -> None:
    admit(FIRST, "health", by(FIRST, "dpo", "owner"), None, NOW)
    admit(FIRST, "health", by(FIRST, "dpo", "owner"), FIRST, NOW)  # started again
    assert "1 of 2 signatures (dpo signed)" in refused(FIRST, by(FIRST, "dpo"))
    assert "0 of 2 signatures (nobody signed)" in refused(FIRST, ())


def test_one_person_counts_once() -> None:
    assert "1 of 2" in refused(FIRST, (*by(FIRST, "dpo"), signature(FIRST, "health", "dpo", KEYS["dpo"], NOW + 1)))


def test_one_key_under_two_names_counts_once() -> None:
    raw = FIRST.raw.replace(str(KEYS["ciso"].public).encode(), str(KEYS["dpo"].public).encode())
    file = PolicyFile(parse(raw, "x"), sha256(raw).digest(), Path("x"), raw)
    both = (signature(file, "health", "dpo", KEYS["dpo"], NOW), signature(file, "health", "ciso", KEYS["dpo"], NOW))
    assert len(signed_by(file, "health", both, file.policy)) == 1


@pytest.mark.parametrize("name", ["eve", "stranger"])
def test_who_is_not_named_cannot_sign(name: str) -> None:
    with pytest.raises(PolicySignatureError, match="does not sign this policy"):
        signature(FIRST, "health", name, KEYS["eve"], NOW)


def test_a_signer_needs_the_key_that_the_policy_gives() -> None:
    with pytest.raises(PolicySignatureError, match="not the key of 'dpo'"):
        signature(FIRST, "health", "dpo", KEYS["eve"], NOW)


def test_signatures_of_others_over_others_and_broken_ones_do_not_count() -> None:
    head = FIRST.policy.policy
    assert head is not None
    told = PolicySignature(federation="health", silo="north", policy=head.id, version=1, digest=FIRST.digest, at=NOW)
    changes = ({"silo": "south"}, {"policy": "other"}, {"version": 2}, {"digest": bytes(32)})
    forged = [sign(told.model_copy(update=change), "dpo", KEYS["dpo"]) for change in changes]
    forged += [sign(told, "eve", KEYS["eve"]), sign(told, "dpo", KEYS["eve"]), b"", by(FIRST, "dpo")[0][:-1]]
    assert signed_by(FIRST, "health", forged, FIRST.policy) == ()
    assert signed_by(FIRST, "health", [sign(told, "dpo", KEYS["dpo"])], FIRST.policy) == ("dpo",)


def test_a_changed_byte_loses_every_signature() -> None:
    raw = FIRST.raw + b"# a remark\n"
    changed = PolicyFile(parse(raw, "x"), sha256(raw).digest(), Path("x"), raw)
    assert "0 of 2" in refused(changed, by(FIRST, "dpo", "owner"))


def test_a_tightening_needs_as_many_as_before_a_loosening_one_more() -> None:
    closer, wider = version(2, CLOSE, previous=FIRST), version(2, OPEN, previous=FIRST)
    admit(closer, "health", by(closer, "dpo", "owner"), FIRST, NOW)
    message = refused(wider, by(wider, "dpo", "owner"), FIRST)
    assert "2 of 3 signatures, one more as it loosens something (dpo, owner signed)" in message
    admit(wider, "health", by(wider, "dpo", "ciso", "owner"), FIRST, NOW)


def test_a_new_version_cannot_let_itself_in() -> None:
    """Neither by fewer signatures, nor by signers of its own, nor by another key for a name."""
    fewer = version(2, CLOSE, previous=FIRST, need=1)
    assert "1 of 3" in refused(fewer, by(fewer, "dpo"), FIRST)
    raw = version(2, CLOSE, previous=FIRST).raw.replace(b'["dpo", "ciso", "owner"]', b'["eve", "ciso", "owner"]')
    taken = PolicyFile(parse(raw, "x"), sha256(raw).digest(), Path("x"), raw)
    assert "signatures" in refused(taken, by(taken, "eve", "ciso"), FIRST)
    raw = version(2, CLOSE, previous=FIRST).raw.replace(
        str(KEYS["dpo"].public).encode(), str(SigningKey(Secret.generate()).public).encode()
    )
    rekeyed = PolicyFile(parse(raw, "x"), sha256(raw).digest(), Path("x"), raw)
    own, before = quorums(rekeyed, "health", by(FIRST, "dpo"), FIRST)
    assert (own.signed, before.signed, before.need) == ((), (), 3)


@pytest.mark.parametrize("number", [1, 2])
def test_an_older_version_never_comes_back(number: int) -> None:
    second = version(2, CLOSE, previous=FIRST)
    old = FIRST if number == 1 else version(2, OPEN, previous=FIRST)
    assert "was in force already" in refused(old, by(old, "dpo", "ciso", "owner"), second)
    with pytest.raises(PolicySignatureError, match="was in force already"):
        check_succession(old, second)


def test_a_version_names_the_file_that_it_follows() -> None:
    stray = version(2, CLOSE, previous=version(1, CLOSE))
    assert "previous does not name the version in force" in refused(stray, by(stray, "dpo", "owner"), FIRST)
    alone = version(2, CLOSE)
    assert "previous does not name" in refused(alone, by(alone, "dpo", "owner"), FIRST)


def test_a_version_is_of_the_same_policy_of_the_same_silo() -> None:
    for change in (
        Edit('id          = "north/visits"', 'id = "north/other"'),
        Edit('id           = "north"', 'id = "s"'),
    ):
        other = version(2, CLOSE, change, previous=FIRST)
        assert "in force is 'north/visits' of 'north'" in refused(other, by(other, "dpo", "owner"), FIRST)


@pytest.mark.parametrize("now", [NOW - 2 * 365 * DAY, NOW + 10 * 365 * DAY])
def test_a_version_out_of_its_term_is_refused(now: int) -> None:
    assert "holds from 2026-01-01 to 2036-01-01" in refused(FIRST, by(FIRST, "dpo", "owner"), now=now)


def test_a_policy_that_nobody_signs_is_not_admitted() -> None:
    file = PolicyFile(parse(POLICY.encode(), "x"), bytes(32), Path("x"), POLICY.encode())
    assert "does not say who signs it" in refused(file, ())


def test_signatures_lie_beside_the_file(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    assert read_signatures(policy) == ()
    beside = policy.with_name(policy.name + SUFFIX)
    beside.write_text(written(by(FIRST, "dpo", "owner")))
    assert read_signatures(policy) == by(FIRST, "dpo", "owner")
    for broken in ("", "other/1\n", "consilo-signatures/1\nzz\n", "consilo-signatures/1\n" + "00\n" * 101):
        beside.write_text(broken)
        with pytest.raises(PolicySignatureError, match="is no file of signatures"):
            read_signatures(policy)


def test_no_version_resets_a_ledger(tmp_path: Path) -> None:
    store = LedgerStore(tmp_path / "ledger.sqlite", Signer("north", "fed", KEYS["dpo"]))
    store.start(FIRST.digest, 1)
    charge = Charge(bytes(16), bytes(32), "ana", "billing", 700_000, FIRST.digest, NOW)
    assert store.reserve(charge, FIRST.policy.budget.lifetime_micro)
    store.begin_charge(charge.nonce, bytes(16))
    store.commit(charge.nonce, bytes(16))
    second = version(2, OPEN, previous=FIRST)
    store.start(second.digest, 2)
    assert store.spending().lifetime == 700_000
    store.close()
