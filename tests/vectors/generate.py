"""Write the vectors beside this file: `python -m tests.vectors.generate`.

Uses nothing of the packages under test; `tests.vectors.independent` has the primitives written out once more.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.vectors import messages, rounds
from tests.vectors.independent import PRIME, Seals, derive, envelope, evaluate, packed, public, signing_key, words

FOLDER = Path(__file__).parent
FIELD = 2**56 - 5
ROOT = bytes(range(32))
OTHER_ROOT = b"\xff" * 32
MANIFEST_HASH = sha256(b"a manifest").digest()
SURVIVORS_HASH = sha256(b"a split").digest()


def _derive_vectors() -> dict[str, Any]:
    contexts: list[list[bytes | str]] = [[], [""], ["", ""], ["ab"], ["a", "b"], ["mask key"], ["é", MANIFEST_HASH]]
    cases = [
        {
            "secret": secret.hex(),
            "context": [{"hex": part.hex()} if isinstance(part, bytes) else {"text": part} for part in context],
            "length": length,
            "derived": derive(secret, *context, length=length).hex(),
        }
        for secret in (ROOT, OTHER_ROOT)
        for context in contexts
        for length in (32, 64)
    ]
    return {"cases": cases}


def _keys_vectors() -> dict[str, Any]:
    cases = [
        {
            "root": root.hex(),
            "verify_key": f"ed25519:{signing_key(root).public_key().public_bytes_raw().hex()}",
            "sealing_key_sha256": sha256(public(root)).hexdigest(),
            "mask_key_sha256": sha256(public(derive(root, "mask key"))).hexdigest(),
        }
        for root in (ROOT, OTHER_ROOT, bytes(32))
    ]
    weak = {
        "zero": 0,
        "order 1": 1,
        "order 8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
        "order 8, twin": 39382357235489614581723060781553021112529911719440698176882885853963445705823,
        "order 2": 2**255 - 20,
        "zero, not reduced": 2**255 - 19,
        "order 1, not reduced": 2**255 - 18,
    }
    # Each failure is the first case's key with another head or tail, cut or filled up with zeros to a length.
    failures = [
        {"why": f"X25519 point: {why}", "head": "", "tail": point.to_bytes(32, "little").hex(), "length": 1216}
        for why, point in weak.items()
    ]
    failures += [
        {"why": "ML-KEM coefficient not below 3329", "head": "ffffff", "tail": "", "length": 1216},
        {"why": "one byte short", "head": "", "tail": "", "length": 1215},
        {"why": "one byte long", "head": "", "tail": "", "length": 1217},
    ]
    return {"cases": cases, "failures": failures}


def _shamir_vectors() -> dict[str, Any]:
    cases: list[dict[str, Any]] = []
    for quorum, parties in ((1, [4]), (2, [0, 1]), (3, [1, 3, 6]), (5, [9, 0, 4, 2, 7]), (2, [5, 99])):
        coefficients = [int.from_bytes(derive(ROOT, "coefficient", str(power)), "big") for power in range(quorum)]
        shares = {str(party): evaluate(coefficients, party + 1) for party in parties}
        cases.append({"quorum": quorum, "shares": shares, "secret": evaluate(coefficients, 0)})
    cases.append({"quorum": 2, "shares": {"0": evaluate([PRIME - 1, 1], 1), "1": evaluate([PRIME - 1, 1], 2)}})
    cases[-1]["secret"] = (PRIME - 1).to_bytes(32, "big").hex()
    good = {str(party): evaluate([7, 11, 13], party + 1) for party in range(3)}
    failures = [
        {"why": "a share is missing", "quorum": 3, "shares": {"0": good["0"], "1": good["1"]}},
        {"why": "a share is the prime", "quorum": 3, "shares": {**good, "1": PRIME.to_bytes(32, "big").hex()}},
        {"why": "a share is above the prime", "quorum": 3, "shares": {**good, "2": "ff" * 32}},
        {"why": "a share is short", "quorum": 3, "shares": {**good, "0": good["0"][2:]}},
        {"why": "a share is long", "quorum": 3, "shares": {**good, "0": "00" + good["0"]}},
        {"why": "a share is empty", "quorum": 3, "shares": {**good, "0": ""}},
        {"why": "x would be 0", "quorum": 3, "shares": {"-1": good["0"], "1": good["1"], "2": good["2"]}},
    ]
    return {"cases": cases, "failures": failures}


def _mask_vectors() -> dict[str, Any]:
    def cases(secret: bytes, manifest_hash: bytes) -> dict[str, Any]:
        seed = derive(secret, "self mask", manifest_hash)
        return {
            "secret": secret.hex(),
            "manifest_hash": manifest_hash.hex(),
            "split_hash": SURVIVORS_HASH.hex(),
            "self_commitment": derive(secret, "self commitment").hex(),
            "self_seed": seed.hex(),
            "pair_seed_for_ward": derive(secret, "pair mask", manifest_hash, "ward").hex(),
            "entry_info_shares_bank_ward": derive(manifest_hash, "entry", "shares", "bank", "ward").hex(),
            "opening_info_bank_ann": derive(manifest_hash, "opening", SURVIVORS_HASH, "bank", "ann").hex(),
            "mask": {str(bits): words(seed, bits, 5) for bits in (1, 8, 12, 24, 32, 33, 64)},
            "packed": {
                str(bits): packed(list(map(int, words(seed, bits, 11))), bits) for bits in (1, 5, 8, 12, 17, 32, 64)
            },
        }

    failures = [
        {"why": "a partial word", "bits": 64, "raw": "00" * 9},
        {"why": "a partial word", "bits": 32, "raw": "00" * 3},
        {"why": "an element of 2^24", "bits": 24, "raw": "00000001"},
        {"why": "an element of 2^33", "bits": 33, "raw": "0000000000000000" + "0000000002000000"},
    ]
    wrong_packed = [
        {"why": "a byte is missing", "bits": 12, "length": 3, "raw": "00" * 4},
        {"why": "a byte too many", "bits": 12, "length": 3, "raw": "00" * 6},
        {"why": "one of the last 4 bits is set", "bits": 12, "length": 3, "raw": "00" * 4 + "10"},
        {"why": "the last bit is set", "bits": 5, "length": 3, "raw": "0080"},
        {"why": "a whole word instead of 12 bits", "bits": 12, "length": 2, "raw": "00" * 4},
        {"why": "words of 4 bytes instead of 8", "bits": 64, "length": 2, "raw": "00" * 8},
    ]
    return {
        "cases": [cases(ROOT, MANIFEST_HASH), cases(OTHER_ROOT, bytes(32))],
        "failures": failures,
        "wrong_packed": wrong_packed,
    }


def _envelope_vectors() -> dict[str, Any]:
    body = b'{"federation":"health","round_id":"AAECAwQFBgcICQoLDA0ODw==","reason":"the source is unreachable"}'
    good = envelope("failed", "ward", body, ROOT)
    at = len("CSL1?failed?ward")
    foreign = envelope("open", "ward", body, ROOT)[len("CSL1?open?ward") :][:64]
    flipped = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    failures = [
        ("signed by another key", "SignatureError", envelope("failed", "ward", body, OTHER_ROOT)),
        ("signed under another kind", "SignatureError", good[:at] + foreign + good[at + 64 :]),
        ("an unknown signer", "SignatureError", envelope("failed", "clinic", body, ROOT)),
        ("another kind", "WireError", envelope("open", "ward", body, ROOT)),
        ("another version", "WireError", b"CSL2" + good[4:]),
        ("an altered body", "SignatureError", good.replace(b"source", b"Source")),
        ("an altered signature", "SignatureError", flipped),
        ("trailing bytes", "SignatureError", good + b"\n"),
        ("cut in its body", "SignatureError", good[:-1]),
        ("cut in its signature", "WireError", good[:40]),
        ("no body", "WireError", envelope("failed", "ward", b"", ROOT)),
        ("a repeated key", "WireError", envelope("failed", "ward", body[:-1] + b',"reason":"x"}', ROOT)),
        ("a space in the body", "WireError", envelope("failed", "ward", body.replace(b":", b": "), ROOT)),
        ("an unknown key", "WireError", envelope("failed", "ward", body[:-1] + b',"more":1}', ROOT)),
        ("no JSON", "WireError", envelope("failed", "ward", b"\x80", ROOT)),
        ("empty", "WireError", b""),
    ]
    return {
        "root": ROOT.hex(),
        "signer": "ward",
        "cases": [{"body": body.decode(), "sha256": sha256(body).hexdigest(), "envelope": good.hex()}],
        "failures": [{"why": why, "error": error, "envelope": raw.hex()} for why, error, raw in failures],
    }


def _chunk_vectors() -> dict[str, Any]:
    pattern = bytes(range(251))
    cases = []
    for word_bytes, values in ((4, 0), (4, 1), (4, 65_536), (4, 65_537), (8, 65_536), (8, 131_073)):
        length = values * word_bytes
        payload = (pattern * (length // len(pattern) + 1))[:length]
        size = 65_536 * word_bytes
        digests = [blake3(payload[start : start + size]).hexdigest() for start in range(0, length, size)]
        cases.append({"word_bytes": word_bytes, "values": values, "digests": digests})
    return {"payload": "bytes 0 to 250, repeated and cut", "cases": cases}


def _values_below(modulus: int, seed: bytes, chunk: int, count: int) -> list[int]:
    """Return mask values by encrypting one counter block after the other and cutting candidates off the whole."""
    width = 8 if modulus < 2**64 else -(-modulus.bit_length() // 8)
    cipher = Cipher(algorithms.AES256(seed), modes.ECB()).encryptor()  # noqa: S305
    stream, block = b"", chunk * 2**32
    values: list[int] = []
    while len(values) < count:
        while len(stream) < width:
            stream, block = stream + cipher.update(block.to_bytes(16, "big")), block + 1
        candidate = int.from_bytes(stream[:width], "little") % 2 ** modulus.bit_length()
        stream = stream[width:]
        values += [candidate] if candidate < modulus else []
    return values


def _keystream_vectors() -> dict[str, Any]:
    moduli = {
        "p of shares": FIELD,
        "t of bfv": 4398046486529,
        "q of ckks": 1152921504606830593,
        "half of the candidates rejected": 2**20 + 7,
        "the smallest": 2,
        "as wide as a Paillier modulus": int.from_bytes(derive(ROOT, "modulus", length=384), "big") | 1 | 1 << 3071,
    }
    cases = [
        {
            "modulus": str(modulus),
            "what": what,
            "seed": seed.hex(),
            "chunk": chunk,
            "values": [str(value) for value in _values_below(modulus, seed, chunk, 40 if modulus < 2**21 else 3)],
        }
        for what, modulus in moduli.items()
        for seed, chunk in ((ROOT, 0), (OTHER_ROOT, 1), (ROOT, 255))
    ]
    return {"cases": cases}


def _interpolated(values: dict[int, int], at: int) -> int:
    total = 0
    for i, value in values.items():
        term = value
        for j in values:
            if j != i:
                term = term * (at - j) * pow(i - j, -1, FIELD) % FIELD
        total += term
    return total % FIELD


def _shares_vectors() -> dict[str, Any]:
    cases = []
    for silos, quorum, chunk in ((3, 3, 0), (4, 3, 1), (5, 4, 0), (10, 7, 0), (12, 9, 2), (25, 17, 0)):
        secrets = [0, 1, -1, 2**40, -(2**50), (FIELD - 1) // 2 // silos]
        seeds = [derive(ROOT, "share seed", str(silos), str(column)) for column in range(quorum - 1)]
        dealt = [_values_below(FIELD, seed, chunk, len(secrets)) for seed in seeds]
        columns = []
        for column in range(quorum - 1, silos):
            values: list[str] = []
            for index, secret in enumerate(secrets):
                known = {0: secret % FIELD, **{place + 1: words[index] for place, words in enumerate(dealt)}}
                values.append(str(_interpolated(known, column + 1)))
            columns.append(values)
        cases.append(
            {
                "silos": silos,
                "quorum": quorum,
                "chunk": chunk,
                "secrets": [str(secret) for secret in secrets],
                "seeds": [seed.hex() for seed in seeds],
                "columns": columns,
            }
        )
    return {"cases": cases}


def files() -> dict[str, str]:
    """Return the text of every vector file by its name."""
    kept = FOLDER / "sealed.json"
    seals = Seals(json.loads(kept.read_text(encoding="utf-8"))["sealed"] if kept.exists() else {})
    whole = rounds.round_vectors(seals)
    contents = {
        "derive": ("HKDF-Expand with length-prefixed context", _derive_vectors()),
        "keys": ("public keys that a root gives, and public keys that must not be sealed to", _keys_vectors()),
        "shamir": ("shares that combine, and shares that must be refused", _shamir_vectors()),
        "masks": ("seeds, contexts and masks of one round, and bytes that are no ring elements", _mask_vectors()),
        "envelope": ("a signed message, and envelopes that must be refused", _envelope_vectors()),
        "keystream": ("mask values for groups whose order is no power of two", _keystream_vectors()),
        "shares": ("columns dealt from secrets and the seeds of the first ones", _shares_vectors()),
        "chunks": ("BLAKE3 digests of the chunks of a payload", _chunk_vectors()),
        "terms": ("requests, and the slots, scales and variances that they fix", rounds.term_vectors()),
        "graph": ("degrees, and the committees of a sparse graph", rounds.graph_vectors()),
        "merkle": ("roots of trees, and what shows some of their leaves", rounds.merkle_vectors()),
        "round": ("all that is derived and sent in a round of three silos with fixed secrets", whole),
        "sealed": ("what is sealed in that round: drawn once, as sealing is randomised", {"sealed": seals.used}),
        "messages": ("one of every message, and bytes that are close to it and none", messages.vectors()),
    }
    headers = {
        name: {
            "header": {
                "what": what,
                "source": "tests/vectors/generate.py, which uses no code of the packages it tests",
                "generate": "python -m tests.vectors.generate",
                "licence": "Apache-2.0",
            }
        }
        for name, (what, _) in contents.items()
    }
    return {
        f"{name}.json": json.dumps(headers[name] | content, indent=1, ensure_ascii=False) + "\n"
        for name, (_, content) in contents.items()
    }


if __name__ == "__main__":
    for file, text in files().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
