"""What a silo's owner sees of each round follows from the steps and the kinds of replies, and every round ends once."""

import json

import pytest

from crypto.keys import Secret, SigningKey
from crypto.rounds.messages import Failed
from crypto.wire import sign
from policies.requests.denials import Denial, Refusal
from silo_node.transport.round_watch import MAX_ROUNDS, RoundWatch

KEY = SigningKey(Secret(bytes(32)))
ROUND = bytes(range(16))
STEPS = ("propose", "share", "ready", "contribute", "agree", "open_shares")


def refusal(*codes: str) -> tuple[bytes]:
    denials = tuple(Denial(code=code, rule="r", message="m", remedy="r") for code in codes)
    message = Refusal(federation="fed", request_hash=bytes(32), policy_hash=bytes(32), denials=denials)
    return (sign(message, "aspen", KEY),)


FAILED = (sign(Failed(federation="f", round_id=ROUND, reason="no"), "aspen", KEY),)
WELL = (b"a reply",)


def seen(*steps: tuple[str, tuple[bytes, ...] | None]) -> list[tuple[str, float, tuple[str, ...]]]:
    """Return what a watch reports of a round of these steps and replies, a second each."""
    found: list[tuple[str, float, tuple[str, ...]]] = []
    watch = RoundWatch(lambda *one: found.append(one))
    for now, (step, reply) in enumerate(steps):
        watch.began(step, (ROUND, b""), float(now))
        watch.saw(step, (ROUND, b""), reply, now + 0.5)
    assert not (found and watch.is_open(ROUND))
    return found


@pytest.mark.parametrize(
    ("steps", "outcome", "codes"),
    [
        ([(step, WELL) for step in STEPS], "opened", ()),
        ([("propose", refusal("ROSTER", "HOURS"))], "refused", ("ROSTER", "HOURS")),
        ([("propose", refusal("CLOCK"))], "unable", ("CLOCK",)),
        ([("propose", refusal("FROM_LATER"))], "refused", ("other",)),
        ([("propose", WELL), ("share", FAILED), ("cancel", ())], "failed", ()),
        ([("propose", WELL), ("share", None)], "failed", ()),
        ([("propose", WELL), ("share", WELL), ("cancel", ())], "cancelled", ()),
        (
            [("propose", WELL), ("share", WELL), ("ready", WELL), ("contribute", refusal("DISK_FULL"))],
            "unable",
            ("DISK_FULL",),
        ),
    ],
)
def test_a_round_ends_once_with_one_outcome(
    steps: list[tuple[str, tuple[bytes, ...]]], outcome: str, codes: tuple[str, ...]
) -> None:
    ((found, took, said),) = seen(*steps)
    assert (found, said) == (outcome, codes)
    assert 0.5 <= took <= len(steps)


def test_what_is_no_round_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert seen(("catalogue", WELL), ("share", FAILED), ("cancel", ())) == []
    assert "round_ended" not in "".join(capsys.readouterr())


def test_open_rounds_are_bounded() -> None:
    watch = RoundWatch(lambda *_: None)
    for number in range(MAX_ROUNDS + 5):
        watch.began("propose", (number.to_bytes(16, "big"),), 0.0)
    assert not watch.is_open(bytes(16))
    assert watch.is_open((MAX_ROUNDS + 4).to_bytes(16, "big"))


def test_the_line_of_a_round_names_no_bytes_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    seen(("propose", refusal("ROSTER")))
    said = "".join(capsys.readouterr())
    assert "round_ended" in said
    assert ROUND.hex() not in said, "the beginning of the number is enough to find it"
    assert json.dumps(ROUND.hex()[:16]).strip('"') in said
