"""One of every message, as bytes, and what is close to it and must be refused: docs/protocol.md sections 3 to 7, 11."""

import base64
import math
import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from blake3 import blake3

from tests.vectors.independent import derive, encode, envelope, public, signing_key

ROOT = bytes(range(32))
SIGNED_ONLY_BY = {
    "Request": "ann@university",
    "CatalogueRequest": "ann@university",
    "DomainRequest": "ann@university",
    "NetworkOffer": "ann@university",
    "Stopped": "ann@university",
    "OtherVersion": "hub",
    "NoRoom": "hub",
    "Propose": "hub",
    "Manifest": "hub",
    "Failure": "hub",
    "Away": "hub",
    "Cancel": "hub",
    "HandoverAsked": "hub",
    "Roster": "authority",
}
UNSIGNED = {"Share", "Deliver", "Go", "Open", "Challenge", "EncryptedReport", "Found"}
KINDS = {  # those that carry a name on the wire; the others stand inside another message or a seal
    "Request": "request",
    "CatalogueRequest": "catalogue-request",
    "Catalogue": "catalogue",
    "Refusal": "refusal",
    "Propose": "propose",
    "Accept": "accept",
    "Manifest": "manifest",
    "Share": "share",
    "Bundle": "bundle",
    "Deliver": "deliver",
    "Ready": "ready",
    "Go": "go",
    "Contribution": "contribution",
    "Split": "split",
    "Open": "open",
    "Cancel": "cancel",
    "Opening": "opening",
    "Challenge": "challenge",
    "Products": "products",
    "EncryptedReport": "report",
    "Learned": "learned",
    "Stopped": "stopped",
    "Failed": "failed",
    "Accusation": "accusation",
    "Failure": "failure",
    "Away": "away",
    "Receipt": "receipt",
    "Found": "found",
    "Roster": "roster",
    "RunState": "run-state",
    "OwnState": "own-state",
    "DomainRequest": "domain-request",
    "NetworkOffer": "network-offer",
    "OtherVersion": "other-version",
    "NoRoom": "no-room",
    "ReleasedModel": "released-model",
    "HandoverAsked": "handover-asked",
    "HeldState": "held-state",
}
# What no message of the type may be longer than, in bytes.
LIMITS = {
    "Request": 512 << 10,
    "CatalogueRequest": 1 << 20,
    "Catalogue": 1 << 20,
    "Refusal": 256 << 10,
    "Propose": 1 << 20,
    "Manifest": 1 << 20,
    "Share": 2 << 20,
    "Deliver": 1 << 20,
    "Go": 128 << 10,
    "Contribution": 1 << 20,
    "Split": 256 << 10,
    "Open": 256 << 10,
    "Opening": 4 << 20,
    "Challenge": 128 << 10,
    "EncryptedReport": 256 << 20,
    "Failure": 100 << 20,
    "Receipt": 16 << 20,
    "Roster": 2 << 20,
    "NetworkOffer": 256 << 10,
    "Stopped": 256 << 10,
    "HandoverAsked": 1 << 20,
    "HeldState": 1024,
    "RunState": 16 << 20,
    "ReleasedModel": 6 << 20,
}


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


def _numbers(name: str, values: list[float]) -> dict[str, Any]:
    """Return what a state's header has of a vector of doubles, which lies beside it."""
    raw = struct.pack(f"<{len(values)}d", *values)
    return {"name": name, "dtype": "float64", "length": len(values), "digest": blake3(raw).digest()}


DAYS = {"name": "days", "type": "int", "low": 0, "high": 60, "step": "1", "domain": [], "unknown": None}
WARD = {
    "name": "ward",
    "type": "string",
    "low": None,
    "high": None,
    "step": None,
    "domain": ["surgery", "other", 'é "quoted" \\ /'],
    "unknown": "other",
}
ICD: dict[str, Any] = WARD | {
    "name": "icd",
    "domain": {"hash": _digest("A00\nA01\n..."), "size": 20_000},
}  # too long to travel
DIED = {"name": "died", "type": "bool", "low": 0, "high": 1, "step": "1", "domain": [], "unknown": None}
TABLE = {"name": "stays", "max_rows": 3, "max_silos": 1, "columns": [WARD, DAYS, DIED]}
QUESTION: dict[str, Any] = {
    "kind": "query",
    "where": {
        "kind": "and",
        "operands": [
            {"kind": "not", "operand": {"kind": "compare", "column": "days", "op": ">", "value": "30"}},
            {
                "kind": "or",
                "operands": [
                    {"kind": "is_null", "column": "ward"},
                    {"kind": "one_of", "column": "ward", "values": ["surgery", "other"]},
                ],
            },
        ],
    },
    "group_by": ["ward"],
    "aggregates": [
        {"function": "count", "column": None, "alias": "stays"},
        {"function": "avg", "column": "days", "alias": "mean days"},
    ],
}
COUNTS_CUT = QUESTION | {"counts_cut": True}
BY_CASES = QUESTION | {
    "where": {"kind": "compare_columns", "column": "days", "op": "<>", "other": "days"},
    "group_by": ["length", "ward"],
    "cases": [
        {
            "name": "length",
            "whens": [
                {"kind": "compare", "column": "days", "op": "<", "value": "7"},
                {"kind": "is_null", "column": "died"},
            ],
            "labels": ["1", None],
            "otherwise": "2",
            "type": "int",
        }
    ],
}
PERSONS = QUESTION | {"aggregates": [{"function": "persons", "column": None, "alias": "persons"}]}
QUANTILES = QUESTION | {
    "aggregates": [
        {"function": "quantile", "column": "days", "alias": "median", "at": "0.5"},
        {"function": "quantile_disc", "column": "days", "alias": "most", "at": "0.999999"},
    ]
}
CURVE = QUESTION | {
    "aggregates": [{"function": "survival", "column": "days", "alias": "alive", "other": "died", "width": 30}],
}
# One row of each person: the least ward, the number of rows, and the sum of the days of the rows with a ward.
BY_PERSON: dict[str, Any] = {
    "kind": "query",
    "where": {"kind": "compare", "column": "stays", "op": ">", "value": "1"},
    "group_by": ["first"],
    "aggregates": [
        {"function": "count", "column": None, "alias": "persons"},
        {"function": "avg", "column": "sum", "alias": "days"},
    ],
    "inner": {
        "where": {"kind": "is_null", "column": "died"},
        "columns": [
            {"name": "first", "function": "first", "column": "ward"},
            {"name": "stays", "function": "count", "column": None, "high": 5},
            {
                "name": "sum",
                "function": "sum",
                "column": "days",
                "where": {"kind": "compare", "column": "ward", "op": "=", "value": "surgery"},
                "low": 0,
                "high": 600,
            },
        ],
    },
}
# The first and the last share their statistics, as they differ in their figures only.
STATEMENTS: dict[str, Any] = {"kind": "statements", "plans": [QUESTION, BY_PERSON, COUNTS_CUT, QUESTION]}
WEIGHTED = STATEMENTS | {"weights": [2, 1, 3, 5]}
SHAPE = {"alphabet": "-0123456789ABC", "length": 5, "most": 2}
SEARCH: dict[str, Any] = {
    "kind": "key-search",
    "run": bytes(range(16)),
    "step": 2,
    "column": "ward",
    "shape": SHAPE,
    "prefixes": ["-0", "A1", "B7"],
}
# A measure that is computed of each row: one of two results, the first of which divides by what a condition bounds.
DERIVED: dict[str, Any] = QUESTION | {
    "where": {"kind": "compare", "column": "days", "op": ">=", "value": "10"},
    "aggregates": [
        {"function": "avg", "column": "share", "alias": "share"},
        {"function": "corr", "column": "share", "alias": "corr", "other": "days"},
    ],
    "derived": [
        {
            "name": "share",
            "expression": {
                "kind": "choose",
                "whens": [{"kind": "is_null", "column": "ward"}],
                "results": [
                    {
                        "kind": "apply",
                        "function": "divide",
                        "arguments": [{"kind": "constant", "value": "-10.5"}, {"kind": "cell", "column": "days"}],
                    }
                ],
                "otherwise": {"kind": "cell", "column": "died"},
            },
        }
    ],
}
# One row of each person in each ward and for each truth of `died`.
BY_GROUP: dict[str, Any] = {
    "kind": "query",
    "where": None,
    "group_by": ["ward"],
    "aggregates": [
        {"function": "count", "column": None, "alias": "n"},
        {"function": "persons", "column": None, "alias": "persons"},
    ],
    "inner": {
        "where": None,
        "columns": [
            {"name": "ward", "function": "each", "column": "ward"},
            {"name": "first", "function": "first", "column": "ward", "of_person": True},
            {"name": "wards", "function": "distinct", "column": "ward", "high": 2},
        ],
        "cases": [
            {
                "name": "dead",
                "whens": [{"kind": "is_null", "column": "died"}],
                "labels": [None],
                "otherwise": "known",
            }
        ],
    },
}
JOINED = TABLE | {"columns": [WARD | {"name": "wards.ward"}, DAYS, DIED], "beside": ["wards"]}
BY_JOINED = QUESTION | {"where": None, "group_by": ["wards.ward"]}
NEVER_MISSING = TABLE | {"columns": [WARD, DAYS | {"can_be_missing": False}, DIED]}
WITH_NORM = TABLE | {"max_norm": 2}
STEP = {
    "kind": "logistic-regression",
    "run": bytes(range(16)),
    "step": 1,
    "steps": 3,
    "after": _digest("the report of step 0"),
    "release": "private",
    "label": "died",
    "features": ["ward", "days"],
    "learning_rate": "0.5",
    "momentum": "0.9",
    "clip": "1",
    "local_steps": 1,
}
EXACT = STEP | {"step": 0, "after": bytes(32), "release": "exact", "momentum": "0", "clip": "0", "local_steps": 20}
EXACT_FAMILY = {
    "kind": "exact-step",
    "run": bytes(range(16)),
    "step": 1,
    "steps": 25,
    "after": _digest("the report of step 0"),
    "release": "exact",
    "label": "days",
    "features": ["ward"],
    "family": "poisson-regression",
    "options": [{"name": "missing", "value": "mean"}, {"name": "tolerance", "value": "0.000001"}],
}
SPLIT = {
    "kind": "split",
    "run": bytes(range(16)),
    "step": 0,
    "steps": 1,
    "after": bytes(32),
    "release": "private",
}
WITHOUT_COLUMNS = TABLE | {"columns": []}
HOLDING_OUT = EXACT_FAMILY | {"held_out": {"split": bytes(range(16, 32)), "parts": 250}}
HOLDING_OUT = {key: HOLDING_OUT[key] for key in (*list(EXACT_FAMILY)[:8], "held_out", *list(EXACT_FAMILY)[8:])}

LIMITED = EXACT_FAMILY | {"audit": {"groups": ["ward"], "measure": "equalized-odds", "max_gap": "0.05"}}
LIMITED = {key: LIMITED[key] for key in (*list(EXACT_FAMILY)[:8], "audit", *list(EXACT_FAMILY)[8:])}
AUDIT = {
    "kind": "audit-step",
    "run": bytes(range(16, 32)),
    "step": 0,
    "steps": 1,
    "after": bytes(32),
    "release": "private",
    "model": {"position": _digest("the report of step 2"), "step": STEP | {"step": 0, "after": bytes(32)}},
    "groups": ["ward"],
    "threshold": "0.5",
    "min_cohort": 20,
}

_BEFORE_FAMILY = ("kind", "run", "step", "steps", "after", "release", "label", "features")
RELEASED = {name: EXACT_FAMILY[name] for name in _BEFORE_FAMILY}
RELEASED |= {"released_to": {"name": "ann@university", "key": public(derive(ROOT, "the analyst"))}}
RELEASED |= {name: value for name, value in EXACT_FAMILY.items() if name not in RELEASED}
FITTED: dict[str, Any] = {
    "listings": [
        {
            "name": "coefficients",
            "headings": ["coefficient", "standard error"],
            "lines": [{"name": "(intercept)", "values": [0.5, None]}],
        }
    ],
    "figures": [{"name": "rows", "values": [40.0]}],
    "notes": ["dropped: ward = other is the same in all rows"],
}
EVALUATION = {
    "kind": "evaluation",
    "release": "private",
    "model": {
        "position": _digest("the report of step 2"),
        "step": {**HOLDING_OUT, "step": 0, "after": bytes(32)},
        "own": ["bank", "ward"],
    },
    "metrics": ["mae", "rmse"],
    "held_out": HOLDING_OUT["held_out"],
}

NOISED_FAMILY = EXACT_FAMILY | {
    "kind": "noised-step",
    "steps": 50,
    "release": "private",
    "options": [{"name": "clip", "value": "0.5"}, {"name": "missing", "value": "indicator"}],
}


def request(plan: dict[str, Any], micro_rho: int, recipients: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return a request of the analyst to three silos."""
    analyst = "ann@university"
    return {
        "version": "request/1",
        "federation": "hospitals",
        "nonce": bytes(range(16, 32)),
        "analyst": analyst,
        "recipients": recipients or [{"name": analyst, "key": public(derive(ROOT, "the analyst"))}],
        "purpose": "research",
        "micro_rho": micro_rho,
        "silos": ["bank", "clinic", "ward"],
        "backend": "masking",
        "round_key": b"",
        "sealed_secrets": [],
        "table": TABLE,
        "plan": plan,
        "created_at": 1_000_000,
        "expires_at": 1_000_600,
    }


def _samples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (type, fields) of messages that do not belong together; tests.vectors.rounds has a whole round."""
    federation, round_id = "hospitals", bytes(range(16))
    manifest_hash, request_hash = _digest("a manifest"), _digest("a request")
    policy_hash, key = _digest("a policy"), public(ROOT)
    head = {"federation": federation, "round_id": round_id}
    signature = {"signer": "bank", "signature": bytes(range(64))}
    other_signature = {"signer": "ward", "signature": bytes(range(64, 128))}
    yield "Request", request(QUESTION, 100_000)
    yield "Request", request(STEP, 20_000, [{"name": name, "key": key} for name in ("bank", "clinic", "ward")])
    yield "Request", request(QUESTION, 100_000) | {"send_seconds": 400}
    yield "Request", request(EXACT, 0)
    yield "Request", request(STATEMENTS, 100_000)
    yield "Request", request(WEIGHTED, 100_000)
    earlier = {"nonce": bytes(range(32, 48)), "request_hash": request_hash}
    instead = {"requests": [earlier], "left_out": ["hospice"], "evidence": [b"an envelope"]}
    yield "Request", request(QUESTION, 100_000) | {"or_without": 2}
    yield "Request", request(QUESTION, 100_000) | {"or_without": 1, "replaces": instead}
    asked = {"federation": federation, "analyst": "ann@university", "nonce": round_id, "created_at": 1_000_000}
    yield "CatalogueRequest", asked
    yield "CatalogueRequest", asked | {"standing": True}
    yield "CatalogueRequest", asked | {"standing": True, "request": b"a request"}
    yield (
        "OtherVersion",
        {
            "federation": federation,
            "nonce": round_id,
            "silo": "ward",
            "said": "no common wire version: here 1, there 2",
        },
    )
    yield "NoRoom", {"federation": federation, "nonce": round_id, "reason": "4 bytes are needed, and 3 are kept"}
    catalogue: dict[str, Any] = {
        "federation": federation,
        "nonce": round_id,
        "controller": "Ward B",
        "sector": "health",
        "policy_hash": policy_hash,
        "policy_version": 3,
        "entity": "patient",
        "max_rows": 3,
        "max_silos": 2,
        "tables": [
            {
                "name": "stays",
                "columns": [
                    {"column": WARD, "roles": ["dimension", "filter"], "unit": None},
                    {"column": DAYS, "roles": ["measure"], "unit": "d"},
                    {"column": DAYS | {"name": "nights"}, "roles": ["measure"], "unit": "d", "narrow": True},
                ],
                "definition": request_hash,
            }
        ],
        "purposes": ["research"],
        "aggregates": ["count", "sum", "avg"],
        "backends": ["masking"],
        "delta": "1e-6",
        "min_micro_rho": 1000,
        "max_micro_rho": 500_000,
        "max_dimensions": 2,
        "max_groups": 50,
        "min_cohort": 10,
        "min_silos": 3,
        "max_colluding": 1,
        "max_missing": 1,
    }
    yield "Catalogue", catalogue
    yield "Catalogue", catalogue | {"max_norm": 2}
    yield "Catalogue", catalogue | {"tables": [catalogue["tables"][0] | {"one_row": True}]}
    lifetime = {"purpose": None, "window": "lifetime", "limit": 1_000_000, "everybody": 900_000, "analyst": None}
    month = lifetime | {"purpose": "research", "window": "calendar-month", "analyst": 10_000}
    standing = {"left": [lifetime, month], "micro_rho": 0, "compute_ms": 0, "denials": []}
    yield "Catalogue", catalogue | {"standing": standing}
    denial = {"code": "BUDGET", "rule": "budget.lifetime", "message": "nothing is left", "remedy": "wait"}
    yield (
        "Refusal",
        {
            "federation": federation,
            "request_hash": request_hash,
            "policy_hash": policy_hash,
            "denials": [denial, denial | {"code": "PURPOSE"}],
        },
    )
    yield "Catalogue", catalogue | {"standing": standing | {"send_ms": 8000}}
    yield "Catalogue", catalogue | {"standing": standing | {"micro_rho": 7, "compute_ms": 250, "denials": [denial]}}
    yield "Propose", head | {"expires_at": 1_000_120, "request": b"an envelope"}
    accept = head | {
        "request_hash": request_hash,
        "expires_at": 1_000_120,
        "mask_key_hash": sha256(key).digest(),
        "channel_key_hash": sha256(public(derive(ROOT, "another"))).digest(),
        "self_commitment": derive(ROOT, "self commitment"),
        "policy_hash": policy_hash,
        "min_silos": 3,
        "max_colluding": 1,
        "max_missing": 0,
    }
    yield "Accept", accept
    yield "Accept", accept | {"compute_ms": 250, "send_ms": 8000}
    yield "Accept", accept | {"nonce_hash": _digest("a nonce")}
    manifest = head | {
        "expires_at": 1_000_120,
        "terms": {
            "request_hash": request_hash,
            "recipients": [{"name": "ann@university", "key": key}],
            "backend": "masking",
            "asked": 4,
            "key_id": b"",
            "limit": 2**60,
            "blocks": [{"name": "rows", "length": 3, "scale_bits": 4, "variance": "1048578"}],
        },
        "silos": ["bank"],
        "members": _digest("the root"),
        "quorum": 1,
        "degree": 0,
        "min_silos": 3,
        "max_colluding": 1,
        "max_missing": 0,
    }
    yield "Manifest", manifest
    yield "Manifest", manifest | {"nonces": [_digest("a nonce")]}
    yield "Share", {"manifest": b"an envelope", "witnesses": [3, 9], "proof": [_digest("one"), _digest("another")]}
    yield "Bundle", {"manifest_hash": manifest_hash, "entries": _digest("the root")}
    yield "Deliver", {"signatures": [signature, other_signature], "paths": [_digest("one"), b""]}
    yield "Ready", {"manifest_hash": manifest_hash}
    yield "Signature", signature
    yield "Go", {"signatures": [signature["signature"], other_signature["signature"]]}
    chunks = [blake3(text).digest() for text in (b"first", b"second")]
    yield "Contribution", {"manifest_hash": manifest_hash, "length": 65_537, "chunks": chunks}
    timed = {"manifest_hash": manifest_hash, "length": 65_537, "chunks": chunks, "consent_as_of": 1_790_000_000}
    yield "Contribution", timed
    survivors = [{"silo": name, "contribution": _digest(name)} for name in ("bank", "ward")]
    split = {"manifest_hash": manifest_hash, "survivors": survivors, "dropped": ["clinic"]}
    yield "Split", split
    long_split = split | {"sum": blake3(b"".join(chunks)).digest()}
    yield "Split", long_split
    yield "Open", {"signatures": [signature, other_signature]}
    yield "Cancel", {"federation": "health", "round_id": round_id}
    yield "OpenedShares", {"shares": [_digest("a share"), _digest("another share")]}
    yield (
        "Opening",
        {
            "manifest_hash": manifest_hash,
            "split_hash": sha256(encode(split)).digest(),
            "sealed": [b"one", b"another"],
            "sums": [],
        },
    )
    of_long = {"manifest_hash": manifest_hash, "split_hash": sha256(encode(long_split)).digest()}
    yield "Opening", of_long | {"sealed": [], "sums": chunks, "nonce": _digest("its own nonce")}
    challenge = of_long | {"nonces": [_digest("its own nonce"), b"", _digest("another nonce")]}
    yield "Challenge", challenge
    values = b"".join(value.to_bytes(8, "little") for value in (2**64 - 3, 5))
    yield "Products", of_long | {"challenge": sha256(encode(challenge)).digest(), "values": values}
    testimony = {"silo": "ward", "wrong": "its opening does not open", "signed": [b"an envelope"]}
    report = {
        "propose": b"an envelope",
        "manifest": b"an envelope",
        "accepts": [b"an envelope"],
        "bundles": [b"an envelope"],
        "contributions": [b"an envelope"],
        "split": encode(split),
        "signatures": [signature],
        "openings": [b"an envelope"],
        "dropped": [{"silo": "clinic", "entries": [b"an entry"]}],
        "refusals": [],
        "missing": ["clinic"],
        "testimonies": [testimony],
        "length": 65_537,
        "chunks": chunks,
    }
    yield "EncryptedReport", report
    yield "EncryptedReport", report | {"split": encode(long_split), "products": [b"an envelope", b"another"]}
    yield "Learned", {"federation": "health", "run": round_id, "position": _digest("the report")}
    yield "Failed", {"federation": "health", "round_id": round_id, "reason": "the source is unreachable"}
    yield (
        "Accusation",
        {
            "manifest_hash": _digest("a manifest"),
            "accused": "clinic",
            "signature": bytes(range(64)),
            "path": _digest("a hash") * 3,
            "entry": b"an entry",
            "channel": _digest("a channel key"),
            "root": _digest("a root"),
        },
    )
    yield (
        "Failure",
        {
            "request_hash": request_hash,
            "reason": "too few",
            "missing": ["clinic"],
            "left_out": ["ward"],
            "refusals": [b"an envelope"],
            "failed": [b"an envelope"],
            "away": b"an envelope",
            "charged": True,
            "manifests": [b"an envelope"],
            "testimonies": [testimony],
        },
    )
    yield (
        "Receipt",
        {
            "federation": federation,
            "request_hash": request_hash,
            "made_at": 1_000_000,
            "accepted_at": 999_000,
            "refused": ["BUSY"],
            "rounds": [
                {
                    "round_id": round_id,
                    "step": "agreed",
                    "at": 999_900,
                    "manifest": b"an envelope",
                    "contribution": b"an envelope",
                    "survivors": b"an envelope",
                }
            ],
        },
    )
    yield "Away", {"federation": "health", "request_hash": request_hash, "silos": ["clinic", "ward"]}
    yield "Found", {"state": "kept", "report": _digest("the report"), "erased_at": 0}
    yield "Found", {"state": "erased", "report": b"", "erased_at": 1_000_000}
    keys = [f"ed25519:{signing_key(derive(ROOT, name)).public_key().public_bytes_raw().hex()}" for name in "bwh"]
    yield (
        "Roster",
        {
            "federation": federation,
            "version": 1,
            "silos": [
                {"name": name, "key": key_text, "sealing": key}
                for name, key_text in zip(("bank", "ward"), keys, strict=False)
            ],
            "aggregators": [{"name": "hub", "key": keys[2]}],
        },
    )
    descent = {
        "run": round_id,
        "job": _digest("a job"),
        "analyst": "ann@university",
        "purpose": "research",
        "table": "stays",
        "label": "died",
        "release": "private",
        "steps": 3,
        "done": 1,
        "position": _digest("the report"),
        "learned_at": 1_000_060,
        "terms": [
            {"name": "(intercept)", "middle": 0.0, "half": 1.0},
            {"name": "days", "middle": 30.0, "half": 30.0},
        ],
        "numbers": [_numbers("velocity", [0.0, 0.1]), _numbers("weights", [0.5, -1.25])],
    }
    own = {"run": round_id, "step": 3, "round": round_id, "rows": bytes(range(32)), "request": bytes(32)}
    yield "OwnState", own | {"numbers": [_numbers("control", [0.5, -1.25])]}
    yield "RunState", descent
    yield "RunState", descent | {"ended_early": "diverged"}
    yield (
        "RunState",
        {
            "run": round_id,
            "job": _digest("a job"),
            "analyst": "ann@university",
            "purpose": "research",
            "table": "stays",
            "label": "days",
            "release": "exact",
            "steps": 25,
            "done": 2,
            "position": _digest("the report"),
            "learned_at": 1_000_060,
            "terms": [],
            "numbers": [_numbers("loss", [12.5]), _numbers("weights", [0.5, -1.25])],
            "exact": {
                "family": "poisson-regression",
                "ended": "no-maximum",
                "why": "ward = other",
                "fitted": {
                    "listings": [
                        {
                            "name": "coefficients",
                            "headings": ["coefficient", "standard error"],
                            "lines": [{"name": "(intercept)", "values": [0.5, None]}],
                        }
                    ],
                    "figures": [{"name": "rows", "values": [40.0]}],
                    "notes": ["dropped: ward = other is the same in all rows"],
                },
            },
        },
    )
    yield "Learned", {"federation": federation, "run": round_id, "position": _digest("the report"), "ended": "complete"}
    over = {"federation": federation, "run": round_id, "position": _digest("the report"), "ended": "diverged"}
    signed = [{"signer": silo, "signature": bytes(range(64))} for silo in ("clinic", "ward")]
    of_run = {"federation": federation, "run": round_id, "silos": ["clinic", "ward"]}
    yield "Stopped", of_run | {"learned": over, "signatures": signed}
    yield "Stopped", of_run | {"signatures": []}
    yield "Learned", over | {"ended": "abandoned"}
    to_all = [{"name": name, "key": key} for name in ("bank", "clinic", "ward")]
    yield "Request", request(RELEASED, 0, to_all)
    state: dict[str, Any] = {
        "run": round_id,
        "job": _digest("a job"),
        "analyst": "ann@university",
        "purpose": "research",
        "table": "stays",
        "label": "days",
        "release": "exact",
        "steps": 25,
        "done": 2,
        "position": _digest("the report"),
        "learned_at": 1_000_060,
        "terms": [],
        "numbers": [],
    }
    spell = {"first": 0, "last": 1, "silos": ["bank", "ward"], "policies": [policy_hash] * 2, "without": ["ward"]}
    first = RELEASED | {"step": 0, "after": bytes(32)}
    yield "RunState", state | {"record": {"plan": first, "table": TABLE, "spells": [spell], "continues": round_id}}
    counted_spell = spell | {"asked": 3, "noise_shares": 2}
    record = {"plan": first, "table": TABLE, "spells": [spell | {"last": 0}, counted_spell | {"first": 1}]}
    yield "RunState", state | {"record": record}
    asked = {"federation": federation, "receiver": "ward", "position": _digest("the report"), "request": b"an envelope"}
    yield "HandoverAsked", asked
    held = {"federation": federation, "run": round_id, "job": _digest("a job"), "position": _digest("the report")}
    yield "HeldState", held | {"done": 2, "size": 8_000_000, "digest": blake3(b"a state").digest()}
    model: dict[str, Any] = {"federation": federation, "run": round_id, "position": _digest("the report")}
    model |= {"job": _digest("a job"), "family": "poisson-regression", "done": 2}
    yield "ReleasedModel", model | {"fitted": FITTED}
    yield (
        "ReleasedModel",
        model
        | {
            "ended": "complete",
            "fitted": FITTED,
            "portable": {
                "version": "consilo-model/1",
                "model": "poisson-regression",
                "label": "days",
                "classes": [],
                "positive": "",
                "columns": [WARD],
                "offset": None,
                "missing": "mean",
                "mean": [0.25, 0.125],
                "deviation": [0.5, 0.0],
                "weights": [[0.5, -1.25, 0.75]],
                "link": "log",
                "scale": 0.0,
                "shift": 0.0,
            },
        },
    )
    bayes: dict[str, Any] = {
        "version": "consilo-bayes/1",
        "model": "naive-bayes",
        "label": "icd",
        "classes": ["a", "b", "c"],
        "missing": "skip",
        "priors": [-0.5, None, -1.25],
        "numbers": [],
        "values": [{"column": WARD, "logs": [[-0.5] * 3, [-0.25] * 3]}],
    }
    yield "ReleasedModel", model | {"family": "naive-bayes", "ended": "complete", "fitted": FITTED, "portable": bayes}
    counted = {"kind": "query", "where": None, "group_by": ["icd"], "aggregates": QUESTION["aggregates"][:1]}
    yield "Request", request(counted, 100_000) | {"table": TABLE | {"columns": [ICD]}}
    yield "Request", request(COUNTS_CUT, 100_000) | {"table": NEVER_MISSING}
    yield "Request", request(COUNTS_CUT, 100_000) | {"table": WITH_NORM}
    yield "Request", request(BY_CASES, 100_000)
    yield "Request", request(PERSONS, 100_000)
    yield "Request", request(DERIVED, 100_000)
    yield "Request", request(BY_PERSON, 100_000)
    yield "Request", request(QUANTILES, 100_000)
    yield "Request", request(EXACT_FAMILY, 0)
    yield "Request", request(NOISED_FAMILY, 100_000)
    yield "RunState", descent | {"ended_early": "diverged"}
    yield "Request", request(CURVE, 100_000)
    yield "Request", request(SEARCH, 100_000)
    searchable = {"column": WARD, "roles": ["dimension", "key"], "unit": None, "keys": SHAPE}
    yield "Catalogue", catalogue | {"tables": [catalogue["tables"][0] | {"columns": [searchable]}]}
    yield "Catalogue", catalogue | {"standing": standing | {"run_limit": 400_000}}
    yield "Request", request(BY_GROUP, 100_000)
    yield "Request", request(BY_JOINED, 100_000) | {"table": JOINED}
    yield "Request", request(SPLIT, 0) | {"table": WITHOUT_COLUMNS}
    yield "Request", request(HOLDING_OUT, 0)
    yield "Request", request(EVALUATION, 100_000)
    yield "Catalogue", catalogue | {"own_metrics": True}
    yield "Request", request(LIMITED, 0)
    yield "Request", request(AUDIT, 20_000, to_all)
    audit = {
        "run": round_id,
        "groups": ["ward", "died"],
        "table": "stays",
        "is_held_out": True,
        "learned_at": 1_000_090,
    }
    gap = {"measure": "equalized-odds", "value": 0.125, "low": 0.0, "high": 0.25}
    yield "RunState", state | {"audits": [audit | {"gaps": [gap], "fitted": FITTED}]}
    yield (
        "RunState",
        {
            "run": round_id,
            "job": _digest("a job"),
            "analyst": "ann@university",
            "purpose": "research",
            "table": "stays",
            "release": "private",
            "steps": 1,
            "done": 1,
            "position": _digest("the report"),
            "learned_at": 1_000_060,
            "terms": [],
            "numbers": [],
            "split": bytes(range(64)),
        },
    )
    yield (
        "NetworkOffer",
        {
            "federation": federation,
            "analyst": "ann@university",
            "silos": ["home", "ward"],
            "network": _digest("a graph and its weights"),
            "size": 4_096,
            "created_at": 1_000_000,
        },
    )
    yield (
        "DomainRequest",
        {
            "federation": federation,
            "analyst": "ann@university",
            "silo": "ward",
            "hash": ICD["domain"]["hash"],
            "created_at": 1_000_000,
        },
    )


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every value inside a message with the way to it, outermost first."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))


def _with(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """Return `value` with the part at `path` replaced."""
    if not path:
        return other
    at, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {key: _with(inner, rest, other) if key == at else inner for key, inner in value.items()}
    return [_with(inner, rest, other) if index == at else inner for index, inner in enumerate(value)]


def _failures(fields: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield (why, bytes) of what is close to a message and none."""
    good, keys = encode(fields), list(fields)
    for key in (keys[0], keys[-1]):
        yield f"{key} is missing", encode({other: inner for other, inner in fields.items() if other != key})
    yield "a field too many", encode({**fields, "more": 1})
    yield "a field twice", good[:-1] + b"," + encode({keys[-1]: fields[keys[-1]]})[1:]
    if len(keys) > 1:
        yield "fields in another order", encode({key: fields[key] for key in (*keys[1:], keys[0])})
    yield "a space", good.replace(b'":', b'": ', 1)
    yield "a byte after the end", good + b"\n"
    yield "cut short", good[:-1]
    yield "an array instead", encode(list(fields.values()))
    seen = set[tuple[Any, ...]]()
    for path, value in _places(fields):
        field = tuple(part for part in path if isinstance(part, str))
        where = ".".join(field)
        if not path or field in seen:
            continue
        seen.add(field)
        match value:
            case bytes() if len(value) in (16, 32, 64, 1216):
                yield f"{where} a byte short", encode(_with(fields, path, value[:-1]))
                yield f"{where} a byte long", encode(_with(fields, path, value + b"\0"))
            case bool():
                pass
            case int():
                yield f"{where} below its range", encode(_with(fields, path, -(2**61)))
                yield f"{where} above its range", encode(_with(fields, path, 2**63))
                yield f"{where} as text", encode(_with(fields, path, str(value)))
            case float():
                other = good.replace(b":0.0", b":NaN", 1)
                yield f"{where} is no number", other if other != good else encode(_with(fields, path, math.nan))
        if isinstance(value, int) and not isinstance(value, bool):
            yield f"{where} as a fraction", encode(_with(fields, path, float(value)))
        if isinstance(value, bytes) and value:
            text = base64.urlsafe_b64encode(value).decode()
            if text.endswith("="):
                yield f"{where} without padding", encode(_with(fields, path, text.rstrip("=")))
                last = text.rstrip("=")[-1]
                alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
                stray = alphabet[alphabet.index(last) + 1] + text[len(text.rstrip("=")) :]
                changed = text.rstrip("=")[:-1] + stray
                yield f"{where} with bits after its end", encode(_with(fields, path, changed))
            if set(text) & {"-", "_"}:
                standard = text.replace("-", "+").replace("_", "/")
                yield f"{where} in the other alphabet", encode(_with(fields, path, standard))
            yield f"{where} as null", encode(_with(fields, path, None))
        if isinstance(value, list) and value:
            yield f"{where} as an object", encode(_with(fields, path, {"0": value[0]}))


def _edit(good: bytes, other: bytes) -> dict[str, Any]:
    """Return how `other` is made of `good`: its first `head` bytes, an insertion, and its last `tail` bytes."""
    most = min(len(good), len(other))
    head = next((at for at in range(most) if good[at] != other[at]), most)
    tail = next((at for at in range(most - head) if good[-1 - at] != other[-1 - at]), most - head)
    return {"head": head, "insert": other[head : len(other) - tail].decode(), "times": 1, "tail": tail}


def _too_much(name: str, fields: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (why, edit) of what is larger than it may be, in one part or as a whole."""
    good = encode(fields)
    for field, value in fields.items():
        if isinstance(value, list) and value and name != "RunState":  # a silo's own file, bounded as a whole only
            at = good.index(encode({field: value})[1:-1]) + len(f'"{field}":[')
            edit = {"head": at, "insert": encode({"": value[0]})[4:-1].decode() + ",", "times": 16_385}
            yield f"{field} with 16385 elements too many", edit | {"tail": len(good) - at}
    at = good.index(b'"', good.index(b":")) + 1
    times = LIMITS.get(name, 64 << 10) + 1 - len(good)
    yield "a byte above the limit", {"head": at, "insert": "A", "times": times, "tail": len(good) - at}


def vectors() -> dict[str, Any]:
    """Return messages with their digests and signatures, failures of each, and the length that each may have.

    A failure is an edit of the first case of its type: see `_edit`; the insertion stands there `times` times.
    """
    cases, failures = [], []
    seen = set[str]()
    for name, fields in _samples():
        body = encode(fields)
        case = {"type": name, "kind": KINDS.get(name, ""), "body": body.decode(), "sha256": sha256(body).hexdigest()}
        if name in KINDS and name not in UNSIGNED:
            signer = SIGNED_ONLY_BY.get(name, "ward")
            raw = envelope(KINDS[name], signer, body, ROOT)
            case |= {"signer": signer, "signature": raw[-len(body) - 64 : -len(body)].hex()}
        cases.append(case)
        if name not in seen:
            seen.add(name)
            failures += [{"type": name, "why": why, **_edit(body, raw)} for why, raw in _failures(fields)]
            failures += [{"type": name, "why": why, **edit} for why, edit in _too_much(name, fields)]
    limits = {name: LIMITS.get(name, 64 << 10) for name in dict.fromkeys(case["type"] for case in cases)}
    return {"root": ROOT.hex(), "limits": limits, "cases": cases, "failures": failures}
