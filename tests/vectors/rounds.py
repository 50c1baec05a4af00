"""One whole round of three silos with fixed secrets, the terms of requests, and graphs: docs/protocol.md."""

from fractions import Fraction
from hashlib import sha256
from typing import Any

from blake3 import blake3

from tests.vectors import messages
from tests.vectors.independent import (
    Seals,
    derive,
    encode,
    envelope,
    evaluate,
    merkle_proof,
    merkle_root,
    public,
    signing_key,
    words,
)

ROOT = bytes(range(32))
NAMES = ("bank", "clinic", "ward")
ANALYST = "ann@university"
QUORUM = 3  # of three
SCALE = 10**6  # millionths of rho
VALUES = (  # what the silos contribute, noise included, in ring units: three groups, three statistics
    (1728, -61, 94_001, 1699, 12, 93_900, -41_000_000, 7, 2**40),
    (0, 0, 0, 0, 0, 0, 0, 0, 0),
    (-1, 1, 2**31, -(2**31), 2**32, 5, -(2**50), 99, 2**50),
)


def _inner(one: dict[str, Any], columns: dict[str, Any]) -> dict[str, Any]:
    """Return an inner column as a column of a table with one row a person."""
    base = columns[one["column"]] if one["column"] else {"can_be_missing": False}
    bounds = {"low": one["low"], "high": one["high"]} if one["function"] == "sum" else {}
    return base | bounds


def blocks_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of several statements: each group of alike ones as if it were asked alone, at its part."""
    plans, groups = request["plan"]["plans"], list[tuple[dict[str, Any], int]]()
    weights = request["plan"].get("weights", [1] * len(plans))
    for plan, weight in zip(plans, weights, strict=True):
        alike = [{**one, "aggregates": plan["aggregates"]} == plan for one, _ in groups]
        if True in alike:
            place = alike.index(True)
            known, before = groups[place]
            added = [one for one in plan["aggregates"] if one not in known["aggregates"]]
            groups[place] = {**known, "aggregates": [*known["aggregates"], *added]}, before + weight
        else:
            groups.append((plan, weight))
    return [
        {**block, "name": f"{number}/{block['name']}"}
        for number, (plan, weight) in enumerate(groups, 1)
        for block in terms(request | {"plan": plan}, Fraction(weight, sum(weights)))["blocks"]
    ]


def terms(request: dict[str, Any], part: Fraction = Fraction(1)) -> dict[str, Any]:
    """Return the terms of a request, of which `part` of the price is spent: docs/privacy-promise.md section 4."""
    plan, table = request["plan"], request["table"]
    if plan["kind"] == "statements":
        return terms(request | {"plan": plan["plans"][0]}) | {
            "request_hash": sha256(encode(request)).digest(),
            "blocks": blocks_of(request),
        }
    columns = {column["name"]: column for column in table["columns"]}
    per_person = min(table["max_rows"], table.get("max_norm", table["max_rows"])) * table["max_silos"]
    persons = 1
    found: dict[str, tuple[int, int, int]] = {}  # block: length, sensitivity, parts of the price
    if plan["kind"] == "query":
        groups = 1
        if "inner" in plan:
            columns, per_person = (
                {one["name"]: _inner(one, columns) for one in plan["inner"]["columns"]},
                table["max_silos"],
            )
        for name in plan["group_by"]:
            groups *= len(columns[name]["domain"])
        for aggregate in plan["aggregates"]:
            column, share = aggregate["column"], 15 if plan.get("counts_cut") else 1
            if aggregate["function"] == "persons":
                found["persons"], persons = (groups, table["max_silos"], share), min(table["max_rows"], groups)
                continue
            is_sure = column is not None and not columns[column].get("can_be_missing", True)
            found["rows" if column is None or is_sure else f"present:{column}"] = groups, per_person, share
            if aggregate["function"] != "count":
                steps = columns[column]["high"] - columns[column]["low"]
                found[f"total:{column}"] = groups, per_person * steps, share
        if plan.get("counts_cut"):
            found["cut"] = 4, table["max_silos"], len(found)
    else:
        weights = 1 + sum(
            len(columns[name]["domain"]) - 1 if columns[name]["domain"] else 1 for name in plan["features"]
        )
        if plan["release"] == "exact":
            found = {"weights": (weights, 0, 1), "rows": (1, 0, 1)}
        else:
            found = {"gradients": (weights, 2**20 * table["max_silos"], 15), "persons": (1, table["max_silos"], 1)}
    all_parts = sum(parts for _, _, parts in found.values())
    blocks = []
    for name, (length, sensitivity, parts) in found.items():
        scale_bits = variance = 0
        if request["micro_rho"]:
            while True:
                squared = (sensitivity * 2**scale_bits) ** 2 * (persons if name == "persons" else 1)
                variance = squared * all_parts * SCALE // (2 * request["micro_rho"] * parts * part) + 2
                if variance >= 2**20:
                    break
                scale_bits += 1
        blocks.append({"name": name, "length": length, "scale_bits": scale_bits, "variance": str(variance)})
    return {
        "request_hash": sha256(encode(request)).digest(),
        "recipients": request["recipients"],
        "backend": "masking",
        "asked": len(request["silos"]),
        "key_id": b"",
        "limit": (2**63 - 1) // len(request["silos"]),
        "blocks": blocks,
    }


def term_vectors() -> dict[str, Any]:
    """Return requests and what they fix about their sums."""
    silos = [{"name": name, "key": public(derive(ROOT, "sealing", name))} for name in NAMES]
    requests = [
        messages.request(messages.QUESTION, 100_000),
        messages.request(messages.QUESTION, 100_000_000),
        messages.request(messages.QUESTION, 1),
        messages.request(messages.STEP, 20_000, silos),
        messages.request(messages.EXACT, 0, silos),
        messages.request(messages.COUNTS_CUT, 100_000),
        messages.request(messages.COUNTS_CUT, 100_000) | {"table": messages.NEVER_MISSING},
        messages.request(messages.COUNTS_CUT, 100_000) | {"table": messages.WITH_NORM},
        messages.request(messages.PERSONS, 100_000),
        messages.request(messages.BY_PERSON, 100_000),
        messages.request(messages.STATEMENTS, 100_000),
        messages.request(messages.WEIGHTED, 100_000),
    ]
    return {"cases": [{"request": encode(one).decode(), "terms": encode(terms(one)).decode()} for one in requests]}


def _degree(silos: int, colluding: int, missing: int) -> int:
    """Return the least even degree that holds, by what it is to guarantee; else all others."""
    for degree in range(32, silos - 1, 2):
        committee = degree + 1
        quorum = committee * 2 // 3 + 1
        stays_connected = degree - colluding - missing > 0
        if stays_connected and colluding + 1 < quorum <= committee - missing:
            return degree
    return silos - 1


def graph_vectors() -> dict[str, Any]:
    """Return degrees, and the committees of a sparse graph."""
    names, degree = [f"silo-{number:03}" for number in range(120)], 32
    graphs = []
    for label in ("a manifest", "another manifest"):
        manifest_hash = sha256(label.encode()).digest()
        keyed = sorted((derive(manifest_hash, "graph", name), place) for place, name in enumerate(names))
        order = [place for _, place in keyed]
        doubled = order * 3
        graphs.append(
            {
                "manifest_hash": manifest_hash.hex(),
                "silos": len(names),
                "degree": degree,
                "order": order,
                "committees": {
                    str(place): sorted(doubled[120 + order.index(place) - 16 : 120 + order.index(place) + 17])
                    for place in (0, 1, 2, order[0], order[-1])
                },
            }
        )
    sizes = (3, 10, 33, 34, 35, 100, 120, 200, 400, 1000)
    tolerated = ((1, 0), (1, 1), (5, 5), (10, 10), (10, 11), (20, 20), (22, 1), (1, 39), (40, 60))
    degrees = [[n, a, d, _degree(n, a, d)] for n in sizes for a, d in tolerated]
    return {"names": "silo-000 to silo-119", "degrees": degrees, "graphs": graphs}


def merkle_vectors() -> dict[str, Any]:
    """Return trees over short leaves, with their roots and proofs of some of the leaves."""
    cases = []
    for size in (1, 2, 3, 4, 5, 7, 8, 33, 100):
        leaves = [f"leaf {number}".encode() for number in range(size)]
        for shown in ({0}, {size - 1}, {size // 3, size // 2}, set(range(0, size, 3)), set(range(size))):
            proof = [node.hex() for node in merkle_proof(leaves, shown)]
            cases.append({"size": size, "shown": sorted(shown), "root": merkle_root(leaves).hex(), "proof": proof})
    return {"leaves": "leaf 0, leaf 1, ...", "cases": cases}


def round_vectors(seals: Seals) -> dict[str, Any]:
    """Return everything that three silos, an aggregator and a recipient derive in one round."""
    root_of = {name: derive(ROOT, "identity", name) for name in (*NAMES, "hub", ANALYST)}
    r, b, channel = ({name: derive(ROOT, what, name) for name in NAMES} for what in ("r", "b", "channel"))
    mask_root = {name: derive(r[name], "mask key") for name in NAMES}

    # Propose.
    request = messages.request(messages.QUESTION, 100_000, [{"name": ANALYST, "key": public(root_of[ANALYST])}])
    request_envelope = envelope("request", ANALYST, encode(request), root_of[ANALYST])
    fixed = terms(request)
    head = {"federation": "hospitals", "round_id": derive(ROOT, "round")[:16]}
    expires_at = 1_000_120
    propose = envelope(
        "propose", "hub", encode({**head, "expires_at": expires_at, "request": request_envelope}), root_of["hub"]
    )
    keys = {
        name: {
            "mask_key_hash": sha256(public(mask_root[name])).digest(),
            "channel_key_hash": sha256(public(channel[name])).digest(),
            "self_commitment": derive(b[name], "self commitment"),
            "policy_hash": sha256(name.encode()).digest(),
        }
        for name in NAMES
    }
    conditions = {"min_silos": 3, "max_colluding": 1, "max_missing": 0}
    accepted = {
        name: encode(
            {**head, "request_hash": fixed["request_hash"], "expires_at": expires_at, **keys[name], **conditions}
        )
        for name in NAMES
    }
    accepts = [envelope("accept", name, body, root_of[name]) for name, body in accepted.items()]
    leaves = [bytes([len(name)]) + name.encode() + body for name, body in accepted.items()]
    manifest_body = encode(
        {
            **head,
            "expires_at": expires_at,
            "terms": fixed,
            "silos": list(NAMES),
            "members": merkle_root(leaves),
            "quorum": QUORUM,
            "degree": 2,
            **conditions,
        }
    )
    manifest, manifest_hash = envelope("manifest", "hub", manifest_body, root_of["hub"]), sha256(manifest_body).digest()

    # Share.
    def shares(secret: bytes, name: str, what: str) -> list[bytes]:
        rest = [int.from_bytes(derive(ROOT, f"coefficient of {what}", name, str(power)), "big") for power in (1, 2)]
        return [bytes.fromhex(evaluate([int.from_bytes(secret, "big"), *rest], x)) for x in (1, 2, 3)]

    of_self = {name: shares(b[name], name, "b") for name in NAMES}
    of_root = {name: shares(r[name], name, "r") for name in NAMES}
    pair_seeds = {
        f"{name} {later}": derive(r[name], "pair mask", manifest_hash, later)
        for name in NAMES
        for later in NAMES
        if later > name
    }
    contexts, entries = {}, dict[str, list[bytes]]()
    for name in NAMES:
        entries[name] = []
        for place, receiver in enumerate(NAMES):
            if receiver == name:
                continue
            label = f"{name} {receiver}"
            info = derive(manifest_hash, "entry", "shares", name, receiver)
            both = of_self[name][place] + of_root[name][place]
            entry = seals.seal(f"shares {label}", channel[receiver], both, info)
            contexts[f"shares {label}"] = info.hex()
            if receiver > name:
                info = derive(manifest_hash, "entry", "pair seed", name, receiver)
                contexts[f"pair seed {label}"] = info.hex()
                seed = pair_seeds[label]
                entry += seals.seal(f"pair seed {label}", mask_root[receiver], seed, info)
            entries[name].append(entry)
    bundles = [
        envelope(
            "bundle",
            name,
            encode({"manifest_hash": manifest_hash, "entries": merkle_root(entries[name])}),
            root_of[name],
        )
        for name in NAMES
    ]
    share = [encode({"manifest": manifest, "witnesses": [], "proof": []})] * 3  # of three, each silo is shown all

    def signature(kind: str, name: str, body: bytes) -> dict[str, Any]:
        raw = envelope(kind, name, body, root_of[name])
        return {"signer": name, "signature": raw[-len(body) - 64 : -len(body)]}

    # Deliver: of each other silo its signature, and the way from its entry to the root that it signed.
    deliver = []
    for receiver in NAMES:
        others = [name for name in NAMES if name != receiver]
        signed = [
            signature("bundle", name, encode({"manifest_hash": manifest_hash, "entries": merkle_root(entries[name])}))
            for name in others
        ]
        numbers = {name: [one for one in NAMES if one != name].index(receiver) for name in others}
        paths = [b"".join(merkle_proof(entries[name], {number})) for name, number in numbers.items()]
        deliver.append(encode({"signatures": signed, "paths": paths}))

    # Ready and Go.
    ready = encode({"manifest_hash": manifest_hash})
    go = encode({"signatures": [signature("ready", name, ready)["signature"] for name in NAMES]})

    # Contribute.
    self_seeds = {name: derive(b[name], "self mask", manifest_hash) for name in NAMES}
    blinded, headers, digests = [], [], []
    for name, values in zip(NAMES, VALUES, strict=True):
        total = list(values)
        streams = [(1, self_seeds[name])]
        streams += [(1, seed) for pair, seed in pair_seeds.items() if pair.split()[0] == name]
        streams += [(-1, seed) for pair, seed in pair_seeds.items() if pair.split()[1] == name]
        for sign, seed in streams:
            total = [one + sign * int(mask) for one, mask in zip(total, words(seed, 64, len(total)), strict=True)]
        payload = b"".join((one % 2**64).to_bytes(8, "little") for one in total)
        body = encode({"manifest_hash": manifest_hash, "length": len(total), "chunks": [blake3(payload).digest()]})
        blinded.append(payload)
        digests.append(sha256(body).digest())
        headers.append(envelope("contribution", name, body, root_of[name]))

    # Agree.
    survivors = [{"silo": name, "contribution": digest} for name, digest in zip(NAMES, digests, strict=True)]
    split = encode({"manifest_hash": manifest_hash, "survivors": survivors, "dropped": []})
    split_hash = sha256(split).digest()
    signatures = [signature("split", name, split) for name in NAMES]

    # Open.
    rows = [encode({"shares": [of_self[name][place] for name in NAMES]}) for place in range(3)]
    openings = []
    for name, row in zip(NAMES, rows, strict=True):
        info = derive(manifest_hash, "opening", split_hash, name, ANALYST)
        contexts[f"opening {name}"] = info.hex()
        sealed = seals.seal(f"opening {name}", root_of[ANALYST], row, info)
        body = encode({"manifest_hash": manifest_hash, "split_hash": split_hash, "sealed": [sealed], "sums": []})
        openings.append(envelope("opening", name, body, root_of[name]))
    columns = zip(
        *([int.from_bytes(raw[at : at + 8], "little") for at in range(0, 72, 8)] for raw in blinded), strict=True
    )
    blinded_sum = b"".join((sum(column) % 2**64).to_bytes(8, "little") for column in columns)
    report = encode(
        {
            "propose": propose,
            "manifest": manifest,
            "accepts": accepts,
            "bundles": [],
            "contributions": headers,
            "split": split,
            "signatures": signatures,
            "openings": openings,
            "dropped": [],
            "refusals": [],
            "missing": [],
            "testimonies": [],
            "length": len(VALUES[0]),
            "chunks": [blake3(blinded_sum).digest()],
        }
    )

    def hexes(values: dict[str, bytes]) -> dict[str, str]:
        return {name: value.hex() for name, value in values.items()}

    return {
        "silos": list(NAMES),
        "recipient": ANALYST,
        "identity_roots": hexes(root_of),
        "verify_keys": {
            name: signing_key(root).public_key().public_bytes_raw().hex() for name, root in root_of.items()
        },
        "r": hexes(r),
        "b": hexes(b),
        "channel_roots": hexes(channel),
        "mask_roots": hexes(mask_root),
        "terms": encode(fixed).decode(),
        "manifest_hash": manifest_hash.hex(),
        "committees": [[0, 1, 2]] * 3,
        "shares_of_b": {name: [share.hex() for share in of_self[name]] for name in NAMES},
        "shares_of_r": {name: [share.hex() for share in of_root[name]] for name in NAMES},
        "pair_seeds": hexes(pair_seeds),
        "self_seeds": hexes(self_seeds),
        "masks": {label: words(seed, 64, len(VALUES[0])) for label, seed in {**pair_seeds, **self_seeds}.items()},
        "contexts": contexts,
        "share_sha256": [sha256(body).hexdigest() for body in share],
        "bundles": [raw.hex() for raw in bundles],
        "entries": {name: [entry.hex() for entry in one] for name, one in entries.items()},
        "deliver_sha256": [sha256(body).hexdigest() for body in deliver],
        "ready": ready.decode(),
        "go": go.decode(),
        "values": [[str(value) for value in row] for row in VALUES],
        "blinded": [payload.hex() for payload in blinded],
        "chunk_digests": [blake3(payload).hexdigest() for payload in blinded],
        "split": split.decode(),
        "open_sha256": sha256(encode({"signatures": signatures})).hexdigest(),
        "opened_shares": [row.decode() for row in rows],
        "blinded_sum": blinded_sum.hex(),
        "opened_sum": [str(sum(column)) for column in zip(*VALUES, strict=True)],
        "report_sha256": sha256(report).hexdigest(),
        "stored_report": (b"CSR1" + len(report).to_bytes(4, "big") + report + blinded_sum).hex(),
    }
