"""A long contribution leaves frame by frame, its header last, in as few bits as the request needs."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from crypto.backends.scheme import CHUNK_VALUES
from crypto.rounds.messages import Contribution, Failed
from crypto.rounds.payload import digests
from crypto.wire import unverified
from silo_node.rounds.states import Agreed, Contributed
from silo_node.traces import RoundTraces
from tests.cases import every
from tests.harness.inside import rounds_of
from tests.harness.long_rounds import LongFederation, long_federation
from tests.harness.simulator import KilledError

SILOS, LENGTH = 4, 3 * CHUNK_VALUES + 13
CHUNKS = 4
MOST = {4: 1, 10: 127, 13: 1000, 32: 2**28, 64: 2**40}  # by the bits of the ring that holds the sum of four silos
SUBJECT = "silo-01"


@pytest.fixture(scope="module", params=sorted(MOST))
def packed(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, LongFederation]]:
    path = tmp_path_factory.mktemp("streamed") / "f"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crypto.rounds.payload.CONTRIBUTION_FRAME_BYTES", CHUNK_VALUES // 8)  # a frame is a chunk
        with long_federation(path, SILOS, LENGTH, MOST[request.param]) as fed:
            yield request.param, fed


def values(most: int, name: str) -> np.ndarray[Any, Any]:
    """Return numbers up to beyond what the request states, whose first ones are at its ends."""
    found = np.random.default_rng(int(name[-2:])).integers(-most - most // 2, most + most // 2 + 1, LENGTH)
    found[:2] = most, -most
    return found.astype(np.int32) if most < 2**30 and name == SUBJECT else found


def whole(most: int, names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    return sum(
        (np.clip(values(most, name), -most, most).astype(np.int64) for name in names), np.zeros(LENGTH, np.int64)
    )


@pytest.mark.slow
def test_sums_are_exact_and_a_value_takes_as_many_bits_as_the_ring_has(packed: tuple[int, LongFederation]) -> None:
    bits, fed = packed
    most, passed = MOST[bits], fed.count()
    fed.opened.clear()
    report = fed.ask(partial(values, most))
    assert isinstance(report, bytes)
    assert set(fed.learn(report)) == set(fed.names)
    assert all(np.array_equal(one, whole(most, fed.names)) for one in fed.opened)
    assert int(fed.opened[0][0]) == SILOS * most
    sent = passed[SUBJECT].bytes["< contribute"] + passed[SUBJECT].bytes["< frame"]
    payload = 3 * CHUNK_VALUES * bits // 8 + -(-13 * bits // 8)
    assert payload < sent < payload + 1000, "the header has a digest for each chunk"


@pytest.mark.slow
def test_a_drop_out_leaves_the_sum_of_the_others(packed: tuple[int, LongFederation]) -> None:
    bits, fed = packed

    def dies(step: str, _: tuple[bytes, ...]) -> None:
        if step == "frame":
            raise KilledError(step)

    fed.opened.clear()
    fed.simulation.silos[SUBJECT].before = dies
    report = fed.ask(partial(values, MOST[bits]))
    fed.simulation.mend()
    assert isinstance(report, bytes)
    fed.learn(report)
    left = tuple(name for name in fed.names if name != SUBJECT)
    assert np.array_equal(fed.opened[0], whole(MOST[bits], left))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongFederation]:
    path = tmp_path_factory.mktemp("order") / "f"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crypto.rounds.payload.CONTRIBUTION_FRAME_BYTES", CHUNK_VALUES)
        with long_federation(path, SILOS, LENGTH, 1000) as fed:
            yield fed


def index_of(number: int) -> bytes:
    return number.to_bytes(8, "big")


@pytest.mark.slow
def test_frames_leave_first_and_the_header_last_and_again_as_they_were(long: LongFederation) -> None:
    subject, again = long.simulation.silos[SUBJECT], list[Any]()

    def before(step: str, arguments: tuple[bytes, ...]) -> None:
        if step not in ("agree", "open_shares"):
            return
        round_id, actor = arguments[0], subject.actor
        (state,) = rounds_of(subject).values()
        again.append((type(state), [actor.frame(round_id, index_of(at)) for at in range(CHUNKS + 2)]))
        kept = RoundTraces(subject.policy.parent).find(round_id)
        assert kept is not None
        again[-1] += (kept.contribution,)

    subject.seen.clear()
    subject.before = before
    assert isinstance(long.ask(partial(values, 1000)), bytes)
    sent = [frames for step, frames in subject.seen if step in ("< contribute", "< frame")]
    long.simulation.mend()
    assert [len(frames) for frames in sent] == [1] * (CHUNKS + 1)
    header = unverified(sent[-1][0], Contribution)
    assert header.chunks == digests([frame for (frame,) in sent[:-1]])
    assert header.length == LENGTH
    (at_agree, frames, kept), (at_open, later, kept_later) = again
    assert (at_agree, at_open) == (Contributed, Agreed)
    assert frames[: CHUNKS + 1] == sent, "the same bytes every time, also of the header"
    assert later[:CHUNKS] == sent[:CHUNKS], "until the round is over"
    for refused in (frames[CHUNKS + 1], later[CHUNKS], later[CHUNKS + 1]):
        assert "no frame" in unverified(refused[0], Failed).reason
    assert kept == kept_later == sent[-1][0], "the header is kept for receipts"


@pytest.mark.slow
def test_nothing_is_kept_for_receipts_before_the_header_leaves(long: LongFederation) -> None:
    subject, found = long.simulation.silos[SUBJECT], list[object]()

    def before(step: str, arguments: tuple[bytes, ...]) -> None:
        if step == "frame":
            found.append(RoundTraces(subject.policy.parent).find(arguments[0]))

    subject.before = before
    assert isinstance(long.ask(partial(values, 1000)), bytes)
    long.simulation.mend()
    assert found == [None] * CHUNKS


@every("number", [0, 2, CHUNKS])
def test_a_silo_that_says_that_it_failed_is_heard(number: int, long: LongFederation) -> None:
    """In the place of its first frame, of another, or of its header."""
    subject, sent = long.simulation.silos[SUBJECT], list[int]()
    failed = subject.actor.frame(bytes(16), index_of(0))

    def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step in ("contribute", "frame"):
            sent.append(len(sent))
            return failed if sent[-1] == number else frames
        return frames

    subject.rewrite = rewrite
    long.opened.clear()
    report = long.ask(partial(values, 1000))
    long.simulation.mend()
    assert isinstance(report, bytes)
    long.learn(report)
    assert np.array_equal(long.opened[0], whole(1000, tuple(name for name in long.names if name != SUBJECT)))
    assert long.simulation.ended[-1].outcomes.status(SUBJECT) != "answered"
