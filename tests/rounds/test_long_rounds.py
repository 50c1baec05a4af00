"""Long vectors, by whole rounds: whoever sends something else, vanishes, has a full disk or lies spoils no sum.

A long round needs 65,537 values; here a frame is a chunk, so that a vector has several.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aggregator.errors import StoreError
from aggregator.proving import challenge_from
from aggregator.store import Staged
from aggregator.sums import SumShard
from crypto.backends.scheme import CHUNK_VALUES
from crypto.backends.unreduced import UnreducedSum
from crypto.rounds.messages import Failure
from tests.cases import every
from tests.harness.inside import ledger_of
from tests.harness.long_rounds import LongFederation, long_federation
from tests.harness.simulator import KilledError, SimulatedSilo

pytestmark = pytest.mark.slow  # seconds in all: `make check` runs it

LENGTH, LIMIT = 4 * CHUNK_VALUES + 1, 2**28
SPOILER = "silo-01"
Frames = tuple[bytes, ...]
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongFederation]:
    path = tmp_path_factory.mktemp("long") / "f"
    with few_bytes_a_frame(), long_federation(path, 4, LENGTH, LIMIT, step_timeout_s=10.0) as fed:
        yield fed


@contextmanager
def few_bytes_a_frame() -> Iterator[None]:
    """Let every chunk be a frame."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crypto.rounds.payload.CONTRIBUTION_FRAME_BYTES", CHUNK_VALUES)
        yield


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a round: the report, or why there is none; what is said of whom, and who was charged."""

    report: bytes
    failure: Failure | None
    statuses: Mapping[str, str]
    wrong: Mapping[str, str]
    charged: set[str]

    @property
    def reason(self) -> str:
        assert self.failure is not None
        return self.failure.reason


def values(name: str) -> npt.NDArray[np.int64]:
    return np.random.default_rng(int(name[-2:])).integers(-(LIMIT // 2), LIMIT // 2, LENGTH, np.int64)


def asked(fed: LongFederation) -> Told:
    """Ask once; the silos behave again afterwards."""
    request = fed.request()
    answer = fed.ask(values, request)
    charged = {name for name, silo in fed.simulation.silos.items() if ledger_of(silo).is_charged(request.nonce)}
    fed.simulation.mend()
    outcomes = fed.simulation.ended[-1].outcomes
    statuses = {name: outcomes.status(name) for name in fed.names}
    if isinstance(answer, bytes):
        return Told(answer, None, statuses, outcomes.wrong, charged)
    return Told(b"", answer.message, statuses, outcomes.wrong, charged)


def learned(fed: LongFederation, report: bytes, silos: Iterable[str]) -> None:
    """Assert that all silos learn the sum of those that count, and no other."""
    fed.opened.clear()
    assert set(fed.learn(report)) == set(fed.names)
    right = sum(values(name) for name in silos)
    assert len(fed.opened) == len(fed.names)
    assert all(np.array_equal(one, right) for one in fed.opened)


def spoils(silo: SimulatedSilo, change: Callable[[int, bytes], bytes]) -> None:
    """Let a silo send each frame as `change` returns it, by its number."""
    sent = 0

    def rewrite(step: str, frames: Frames) -> Frames:
        nonlocal sent
        if step not in ("contribute", "frame"):
            return frames
        found = list(frames)
        for place, frame in enumerate(frames):
            if len(frame) > CHUNK_VALUES // 2 or sent == 4:  # the header is shorter, and the last frame one value
                found[place] = change(sent, frame)
                sent += 1
        return tuple(found)

    silo.rewrite = rewrite


def without_the_spoiler(fed: LongFederation, told: Told) -> None:
    """Assert that the round went on without it, and that its charge stands: something of it had left."""
    others = [name for name in fed.names if name != SPOILER]
    assert {name for name, status in told.statuses.items() if status == "answered"} == set(others)
    assert told.charged == set(fed.names)
    learned(fed, told.report, others)


def test_a_long_round_gives_every_silo_the_sum(long: LongFederation) -> None:
    told = asked(long)
    assert set(told.statuses.values()) == {"answered"}
    learned(long, told.report, long.names)


@every(
    ("number", "change", "said"),
    [
        (0, lambda frame: frame[:-4], "expected"),
        (1, lambda frame: frame + bytes(4), "expected"),
        (4, lambda frame: b"", "expected"),
        (1, lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]), "is not the one it signed"),
    ],
)
def test_a_frame_of_another_length_or_with_another_value_leaves_the_silo_out(
    number: int, change: Callable[[bytes], bytes], said: str, long: LongFederation
) -> None:
    """Hope: a chunk that nobody signed gets into the sum, or the round ends for all."""
    spoils(long.simulation.silos[SPOILER], lambda at, frame: change(frame) if at == number else frame)
    told = asked(long)
    without_the_spoiler(long, told)
    assert said in told.wrong[SPOILER]


def test_frames_in_another_order_or_of_another_round_leave_the_silo_out(long: LongFederation) -> None:
    """Hope: a vector is added at another place, or an older one once more."""
    before, sent, places = list[bytes](), list[bytes](), {0: 0, 1: 0, 2: 1}

    def kept(_: int, frame: bytes) -> bytes:
        before.append(frame)
        return frame

    def swapped(at: int, frame: bytes) -> bytes:
        sent.append(frame)
        return sent[0] if at == 2 else frame  # its own first frame, at the place of its third

    changes: list[Callable[[int, bytes], bytes]] = [swapped]
    changes += [partial(_replaced, before, at, place) for at, place in places.items()]  # at its place, and at another
    spoiler = long.simulation.silos[SPOILER]
    spoils(spoiler, kept)
    asked(long)
    for change in changes:
        spoils(spoiler, change)
        told = asked(long)
        without_the_spoiler(long, told)
        assert "is not the one it signed" in told.wrong[SPOILER]


def _replaced(others: list[bytes], at: int, place: int, number: int, frame: bytes) -> bytes:
    """Return another frame in the place of that of number `at`."""
    return others[place] if number == at else frame


def test_a_silo_that_sends_a_part_and_vanishes_drops_out(long: LongFederation) -> None:
    spoiler = long.simulation.silos[SPOILER]
    for number in range(1, 6):  # of the last the header alone is missing
        asked_for = list[str]()

        def vanishes(step: str, _: Frames, number: int = number, asked_for: list[str] = asked_for) -> None:
            asked_for += ["frame"] if step == "frame" else []
            if len(asked_for) == number:
                raise KilledError(step)

        spoiler.before = vanishes
        told = asked(long)
        without_the_spoiler(long, told)
        assert told.statuses[SPOILER] == "missing"


def test_a_disk_that_is_full_before_anybody_contributes_charges_nobody(
    long: LongFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: object, length: int) -> None:  # of masked inputs, but not of what is noted of a round
        raise FULL

    with monkeypatch.context() as full:
        full.setattr("aggregator.store.take_room", fails)
        told = asked(long)
    assert "no room for contributions (No space left on device)" in told.reason
    assert not told.charged
    assert not list((long.path / "aggregator" / "contributions").glob("*.partial"))
    assert set(asked(long).statuses.values()) == {"answered"}


def test_a_disk_that_fails_among_frames_is_told_as_the_aggregators(
    long: LongFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room was taken, so a write fails for another reason, such as a disk that is worn out."""
    written = list[int]()
    write = Staged.write

    def fails(self: Staged, start: int, frame: bytes) -> None:
        written.append(len(frame))
        if len(written) > 6:
            raise StoreError("a contribution cannot be kept (Input/output error)", "free disk space")
        write(self, start, frame)

    with monkeypatch.context() as worn:
        worn.setattr("aggregator.store.Staged.write", fails)
        told = asked(long)
    assert "at the aggregator: a contribution cannot be kept (Input/output error)" in told.reason
    assert told.charged == set(long.names)
    assert not list((long.path / "aggregator" / "contributions").glob("*.partial"))


def lies(self: UnreducedSum, index: int) -> bytes:
    """Return a chunk of a sum, whose first entry is off by one."""
    chunk = honest(self, index)
    return (int.from_bytes(chunk[:4], "little") ^ 1).to_bytes(4, "little") + chunk[4:] if index == 0 else chunk


honest = UnreducedSum.chunk


def test_an_aggregator_whose_shard_lies_says_so(long: LongFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that fails is found by what the silos sign, before anybody has a report."""
    with monkeypatch.context() as lying:
        lying.setattr(UnreducedSum, "chunk", lies)
        told = asked(long)
    assert "the sum here is not that of its masked inputs" in told.reason
    assert told.charged == set(long.names)


def test_nobody_learns_the_sum_of_an_aggregator_that_lies(
    long: LongFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: an aggregator moves the model by a number of its own, within the bounds of the sum."""

    async def unproven(hub: Any, sums: Any, fixed: Any, openings: Any, ask: Any, outcomes: Any) -> tuple[bytes, ...]:
        challenge, opened = challenge_from(hub, fixed, openings, outcomes)
        replies = await ask(opened, challenge.encode())
        return tuple(frames[0] for _, frames in sorted(replies.items()))

    with monkeypatch.context() as lying:
        lying.setattr(UnreducedSum, "chunk", lies)
        lying.setattr("aggregator.driver.proven", unproven)
        told = asked(long)
    long.opened.clear()
    assert not long.learn(told.report)
    assert not long.opened
    for name in long.names:
        assert "the sum is wrong" in (long.path / "silos" / name / "silo.log").read_text()


def test_a_sum_that_changes_after_it_was_agreed_on_is_no_sum(
    long: LongFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: what the silos agreed on is exchanged when the report is written."""
    sum_chunk = SumShard.sum_chunk

    def exchanged(self: SumShard, round_id: bytes, index: int) -> bytes:
        chunk = sum_chunk(self, round_id, index)
        return chunk if index else bytes((chunk[0] ^ 1,)) + chunk[1:]

    with monkeypatch.context() as lying:
        lying.setattr(SumShard, "sum_chunk", exchanged)
        told = asked(long)
    long.opened.clear()
    assert not told.report or not long.learn(told.report)
    assert not long.opened
