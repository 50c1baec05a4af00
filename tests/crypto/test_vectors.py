"""The package agrees with vectors that were made without it, those that must be refused included."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from crypto import errors
from crypto.backends.masks import apply_masks
from crypto.backends.scheme import CHUNK_VALUES
from crypto.errors import CryptoError, RangeError, SealError, WireError
from crypto.keys import Secret, SigningKey, VerifyKey, derive
from crypto.ring import Ring
from crypto.rounds.key_schedule import entry_info, mask_key_of, opening_info, pair_seed, self_commitment, self_seed
from crypto.rounds.messages import Failed
from crypto.rounds.payload import digests
from crypto.sealing import SealingKey, seal
from crypto.shamir import combine
from crypto.wire import detach, digest_of, sign, verify
from policies.requests.approval import Verdict
from policies.requests.training import TrainingStep
from tests.cases import every
from tests.vectors import generate
from tests.vectors.vocabulary import types

FOLDER = Path(generate.__file__).parent


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert {"what", "source", "generate", "licence"} == set(content["header"])
    return content


def _why(case: dict[str, Any]) -> str:
    return f"{case['type']}: {case['why']}" if "type" in case else str(case["why"])


# Verdict is of a silo's own file, and a TrainingStep is a part of its Request.
TYPES = {name: kind for name, kind in types().items() if kind not in (Verdict, TrainingStep)}


def test_files_are_those_that_the_script_writes() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")} == generate.files()


@every("case", load("derive")["cases"])
def test_derive(case: dict[str, Any]) -> None:
    context = [part["text"] if "text" in part else bytes.fromhex(part["hex"]) for part in case["context"]]
    assert derive(bytes.fromhex(case["secret"]), *context, length=case["length"]).hex() == case["derived"]


@every("case", load("keys")["cases"])
def test_keys_of_a_root(case: dict[str, Any]) -> None:
    root = bytes.fromhex(case["root"])
    assert str(SigningKey(Secret(root)).public) == case["verify_key"]
    assert sha256(SealingKey(Secret(root)).public).hexdigest() == case["sealing_key_sha256"]
    assert sha256(mask_key_of(root).public).hexdigest() == case["mask_key_sha256"]


@every("case", load("keys")["failures"])
def test_public_key_that_must_not_be_sealed_to(case: dict[str, Any]) -> None:
    head, tail = bytes.fromhex(case["head"]), bytes.fromhex(case["tail"])
    good = SealingKey(Secret(bytes.fromhex(load("keys")["cases"][0]["root"]))).public
    public = head + good[len(head) : len(good) - len(tail)] + tail
    with pytest.raises(SealError):
        seal(public[: case["length"]].ljust(case["length"], b"\0"), b"secret", b"")


def _shares(case: dict[str, Any]) -> dict[int, bytes]:
    return {int(party): bytes.fromhex(share) for party, share in case["shares"].items()}


@every("case", load("shamir")["cases"])
def test_shares_combine(case: dict[str, Any]) -> None:
    assert combine(_shares(case), case["quorum"]).hex() == case["secret"]


@every("case", load("shamir")["failures"])
def test_shares_that_must_be_refused(case: dict[str, Any]) -> None:
    with pytest.raises(RangeError):
        combine(_shares(case), case["quorum"])


@every("case", load("masks")["cases"])
def test_seeds_contexts_and_masks(case: dict[str, Any]) -> None:
    secret, manifest_hash, survivors_hash = (
        bytes.fromhex(case[key]) for key in ("secret", "manifest_hash", "split_hash")
    )
    assert self_commitment(secret).hex() == case["self_commitment"]
    assert self_seed(secret, manifest_hash).hex() == case["self_seed"]
    assert pair_seed(secret, manifest_hash, "ward").hex() == case["pair_seed_for_ward"]
    assert entry_info(manifest_hash, "shares", "bank", "ward").hex() == case["entry_info_shares_bank_ward"]
    assert opening_info(manifest_hash, survivors_hash, "bank", "ann").hex() == case["opening_info_bank_ann"]
    for bits, expected in case["mask"].items():
        ring = Ring(int(bits))
        words = ring.zeros(len(expected))
        apply_masks(words, ring, [bytes.fromhex(case["self_seed"])], [])
        assert [str(word) for word in words.tolist()] == expected
    for bits, raw in case["packed"].items():
        ring, length = Ring(int(bits)), 11
        words = ring.zeros(length)
        apply_masks(words, ring, [bytes.fromhex(case["self_seed"])], [])
        assert ring.pack(words).hex() == raw
        assert ring.unpack(bytes.fromhex(raw), length).tolist() == words.tolist()


@every("case", load("masks")["failures"])
def test_bytes_that_are_no_ring_elements(case: dict[str, Any]) -> None:
    with pytest.raises(RangeError):
        Ring(case["bits"]).from_bytes(bytes.fromhex(case["raw"]))


@every("case", load("masks")["wrong_packed"])
def test_bytes_that_are_no_packed_elements(case: dict[str, Any]) -> None:
    with pytest.raises(RangeError):
        Ring(case["bits"]).unpack(bytes.fromhex(case["raw"]), case["length"])


def _keys_of(content: dict[str, Any]) -> dict[str, VerifyKey]:
    return {content["signer"]: SigningKey(Secret(bytes.fromhex(content["root"]))).public}


def test_envelope() -> None:
    content = load("envelope")
    (case,) = content["cases"]
    message = Failed.decode(case["body"].encode())
    key = SigningKey(Secret(bytes.fromhex(content["root"])))
    assert sign(message, content["signer"], key).hex() == case["envelope"]
    signed = verify(bytes.fromhex(case["envelope"]), Failed, _keys_of(content))
    assert signed.message == message
    assert signed.digest.hex() == case["sha256"]


@every("case", load("envelope")["failures"])
def test_envelope_that_must_be_refused(case: dict[str, Any]) -> None:
    with pytest.raises(CryptoError) as caught:
        verify(bytes.fromhex(case["envelope"]), Failed, _keys_of(load("envelope")))
    assert type(caught.value) is getattr(errors, case["error"])


@every("case", load("chunks")["cases"])
def test_chunk_digests(case: dict[str, Any]) -> None:
    length = case["values"] * case["word_bytes"]
    payload = (bytes(range(251)) * (length // 251 + 1))[:length]
    step = CHUNK_VALUES * case["word_bytes"]
    pieces = [payload[start : start + step] for start in range(0, length, step)]
    assert [digest.hex() for digest in digests(pieces)] == case["digests"]


# Messages


MESSAGES = load("messages")
FIRST = {case["type"]: case["body"].encode() for case in reversed(MESSAGES["cases"])}


def test_every_message_has_a_vector() -> None:
    assert {name for name, kind in TYPES.items() if kind.KIND} | {"OpenedShares", "Signature"} == set(FIRST)
    assert {name: TYPES[name].MAX_BYTES for name in FIRST} == MESSAGES["limits"]


@every("case", MESSAGES["cases"])
def test_message(case: dict[str, Any]) -> None:
    kind, body = TYPES[case["type"]], case["body"].encode()
    message = kind.decode(body)
    assert case["kind"] == kind.KIND
    assert message.encode() == body
    assert digest_of(message).hex() == case["sha256"]
    if "signature" in case:
        key = SigningKey(Secret(bytes.fromhex(MESSAGES["root"])))
        envelope = sign(message, case["signer"], key)
        head = b"".join(len(part).to_bytes(1, "big") + part.encode() for part in (case["kind"], case["signer"]))
        assert envelope == b"CSL1" + head + bytes.fromhex(case["signature"]) + body
        assert verify(envelope, kind, {case["signer"]: key.public}).message == message
        assert detach(envelope, kind).signature.hex() == case["signature"]


@every("case", MESSAGES["failures"])
def test_message_that_must_be_refused(case: dict[str, Any]) -> None:
    good = FIRST[case["type"]]
    data = good[: case["head"]] + case["insert"].encode() * case["times"] + good[len(good) - case["tail"] :]
    with pytest.raises(WireError):
        TYPES[case["type"]].decode(data)
