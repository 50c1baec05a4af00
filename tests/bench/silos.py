"""What one round costs one silo, in bytes and CPU seconds, as the federation grows: the pure steps, without rows.

The silo that is measured has as many neighbours before it as after it in the roster, so its bytes are the mean over all
silos. Whatever only other silos' messages are needed for is done for its committee alone. What grows with the roster,
names and signatures, is counted apart: names in the request and the manifest, Go, the survivor set, Open.
"""

import os
import statistics
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar
from unittest.mock import patch

from aggregator import rounds as hub
from crypto.merkle import MerkleTree, leaf_hash
from crypto.rounds.committees import committee
from crypto.rounds.manifest import Propose
from crypto.rounds.messages import Contribution, Open, Ready, SurvivorSet, check_ready, check_signatures
from crypto.wire import Signed, detach, sign, unverified
from silo_node.rounds import proposal, states, steps
from tests.bench.figures import publish
from tests.harness.example_policy import NOW
from tests.harness.many_silos import ROUND_ID, Many, MemoryLedger, Round
from tests.harness.simulator import no_noise

RUNS = 5
A_TENTH = "226000"  # of the bytes at 100 silos when every acceptance went to every silo
T = TypeVar("T")


@dataclass
class Cost:
    """Of one silo in one round: its bytes in both directions, and CPU milliseconds without those for signatures."""

    sent: int = 0
    of_names: int = 0
    ms: float = 0.0
    signatures_ms: float = 0.0

    def moved(self, *messages: bytes) -> None:
        self.sent += sum(map(len, messages))

    def timed(self, step: Callable[[], T]) -> T:
        took, result = cpu_ms(step)
        self.ms += took
        return result


def main() -> None:
    """Print every figure; with a tenth of the silos missing, the committees grow, and with them all but the names."""
    for label, tenth in (("", False), ("_d10", True)):
        known = {silos: cost(silos, missing=silos // 10 if tenth else 1) for silos in (100, 120, 1000)}
        for silos, found in known.items():
            name, beside = f"silos_n{silos}{label}", known[120]
            aims = silos == 1000 and not tenth
            most = A_TENTH if silos == 100 and not tenth else "ratio 1.5" if aims else None
            base = f"n = 120{', d = 12' if tenth else ''}"
            rest, rest_base = found.sent - found.of_names, beside.sent - beside.of_names
            publish(f"{name}_bytes", [rest], "B", base, [rest_base], aim=most)
            publish(f"{name}_names", [found.of_names / silos], "B/silo", aim="400")
            publish(f"{name}_cpu", [found.ms], "ms", base, [beside.ms], aim="ratio 1.5" if aims else None)
            publish(f"{name}_signatures_cpu", [found.signatures_ms], "ms", base, [beside.signatures_ms])


def cost(silos: int, missing: int) -> Cost:
    """Play one round as far as it concerns one silo of it, by the messages of an honest aggregator."""
    many, found = Many(silos, missing=missing), Cost()
    one = many.round().propose().compose()
    composed = one.composed
    manifest, members = composed.manifest, composed.manifest.silos
    half = manifest.degree // 2
    me = min(range(silos), key=lambda place: abs(composed.committees[place].index(place) - half))
    name, silo = members[me], one.silo(members[me])
    _propose(one, name, found)
    # Every silo orders the names of the graph once; here the aggregator has done it already.
    found.ms += cpu_ms(lambda: committee(members, manifest.degree, os.urandom(32), me))[0]
    message, *parts = composed.share(name)
    state = one.state(name, states.Proposed)
    shared, reply = found.timed(lambda: steps.share(silo, state, NOW, message, parts))
    found.moved(message, *parts, *reply)
    message, *entries = _delivered(one, me)
    received = found.timed(lambda: steps.receive(silo, shared, NOW, message, entries))
    steps.begin(silo, received, many.members[name].ledger, NOW)
    found.moved(message, *entries, found.timed(lambda: steps.ready(silo, received)))
    _last_steps(one, name, received, found)
    names = sum(len(_base64(f'"{other}",'.encode())) for other in members)
    found.of_names += 2 * names  # in the request within Propose, and in the manifest within ShareKeys
    return found


def _propose(one: Round, name: str, found: Cost) -> None:
    silo, envelope = one.silo(name), one.proposed.envelope
    undated = proposal.Freshness(None, None)
    state, _ = found.timed(lambda: proposal.propose(silo, MemoryLedger(), lambda _: undated, NOW, ROUND_ID, envelope))
    if state is None or unverified(envelope, Propose).round_id != ROUND_ID:
        sys.exit("the silo refused")
    found.moved(envelope, *state.reply)


def _delivered(one: Round, me: int) -> tuple[bytes, ...]:
    """Return what is delivered to one silo, for which its committee alone has shared."""
    composed, silos = one.composed, one.composed.manifest.silos
    none = MerkleTree([leaf_hash(b"")])
    bundles, entries, trees = [b""] * len(silos), [()] * len(silos), [none] * len(silos)
    given: list[tuple[bytes, ...]] = list(entries)
    for place in composed.committees[me]:
        message, *parts = composed.share(silos[place])
        state = one.state(silos[place], states.Proposed)
        _, (bundles[place], *rest) = steps.share(one.silo(silos[place]), state, NOW, message, parts)
        given[place], trees[place] = tuple(rest), MerkleTree([leaf_hash(entry) for entry in rest])
    one.shared = hub.KeysShared(composed, tuple(bundles), tuple(given), tuple(trees))
    return one.shared.deliver(silos[me])


def _last_steps(one: Round, name: str, received: states.Received, found: Cost) -> None:
    many, composed, silo = one.many, one.composed, one.silo(name)
    manifest, keys = composed.manifest, dict(one.silo(name).silos)
    ready = Ready(manifest_hash=composed.manifest_hash)
    envelopes = {other: sign(ready, other, one.silo(other).signing) for other in manifest.silos}
    go = hub.collect_ready(many.aggregator, one.shared, {other: (raw,) for other, raw in envelopes.items()})
    ledger, member = many.members[name].ledger, many.members[name]
    charging = dict(ledger.charging)

    def contribute() -> tuple[states.Contributed, tuple[bytes, ...]]:
        ledger.charging, ledger.committed = dict(charging), {}
        return member.contribute(received, go, noise=no_noise)

    with patch.object(steps, "check_ready"):  # timed below, apart
        contributed, frames = found.timed(contribute)
    found.moved(go, *frames)
    signatures = [detach(envelopes[other], Ready).signature for other in manifest.silos]
    found.signatures_ms += cpu_ms(lambda: check_ready(manifest, composed.manifest_hash, signatures, keys))[0]
    header = hub.read_contribution(many.aggregator, one.shared, name, frames[0])
    others: dict[str, Signed[Contribution]] = {other: replace(header, signer=other) for other in manifest.silos}
    fixed = hub.fix_survivors(many.aggregator, one.shared, others)
    agreed, reply = found.timed(lambda: steps.agree(silo, contributed, MemoryLedger(), NOW, fixed.envelope))
    found.moved(fixed.envelope, reply)
    signed = {
        other: detach(sign(fixed.survivor_set, other, one.silo(other).signing), SurvivorSet) for other in manifest.silos
    }
    opens = hub.open_message(fixed, signed)
    with patch.object(steps, "check_signatures"):
        opening = found.timed(lambda: steps.open_shares(silo, agreed, NOW, opens))
    found.moved(opens, *opening)
    body, told = fixed.survivor_set.encode(), Open.decode(opens).signatures
    found.signatures_ms += cpu_ms(lambda: check_signatures(manifest, body, told, keys))[0]
    found.of_names += len(go) + len(fixed.envelope) + len(opens)


def cpu_ms(step: Callable[[], T]) -> tuple[float, T]:
    """Return the median CPU time of a step over some runs, in milliseconds, and its last result."""
    taken: list[float] = []
    for _ in range(RUNS):
        began = time.process_time()
        result = step()
        taken.append((time.process_time() - began) * 1000)
    return statistics.median(taken), result


def _base64(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


if __name__ == "__main__":
    main()
