"""What a round is said to take before it is one is what its messages come to, for few silos and for many."""

import pytest

from crypto.keys import SigningKey
from crypto.rounds.volume import volume_of
from crypto.wire import sign
from tests.harness.example_policy import NOW
from tests.harness.many_silos import ANALYST, Many, Round


def frames(one: Round, name: str) -> tuple[int, int]:
    """Return the bytes that a silo sent and received in a round."""
    up = [frame for step in one.replies.values() for frame in step.get(name, ())]
    manifest = one.composed.manifest
    up += [one.parted.contributions[manifest.silos.index(name)], one.payloads[name]]
    down = [one.proposed.envelope, *one.composed.share(name), *one.shared.deliver(name)]
    down += [one.go, one.parted.envelope, one.opens]
    return sum(map(len, up)), sum(map(len, down))


@pytest.mark.parametrize("count", [5, 12, 60])
def test_a_round_takes_what_was_foreseen(count: int) -> None:
    many = Many(count)
    asked = many.request()
    one = many.round(asked).run()
    envelope = sign(asked, "ana", SigningKey(ANALYST))
    found = volume_of("fed", "hub", many.names, one.terms, len(envelope), b"", (3, 1, 1), NOW, is_learned=False)
    sent = [frames(one, name) for name in many.names]
    mean_up, mean_down = (sum(part) / count for part in zip(*sent, strict=True))
    assert found.up == pytest.approx(mean_up, rel=0.01)
    assert found.down == pytest.approx(mean_down, rel=0.03)
