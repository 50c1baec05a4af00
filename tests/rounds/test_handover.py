"""A silo that missed reports of a run takes over what a quorum of the others holds, and nothing that fewer say.

Four silos train without noise, and one of them is away. Whatever an aggregator makes of a handover, with fewer silos
than a quorum, the silo stays where it is or has the very state that the others have.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from analyst.training.job import read_job
from analyst.training.run import Training, train
from crypto.errors import CryptoError
from crypto.rounds.handover import FRAME_BYTES, HandoverAsked, HeldState, frame_context, statement_context
from crypto.rounds.messages import Failed, ModelUpdated
from crypto.rounds.report import StoredReport
from crypto.sealing import OVERHEAD_BYTES, seal
from crypto.wire import Message, is_envelope, sign, unverified, verify
from silo_node.rounds import handover
from silo_node.rounds.handover import Held, agreed, held, statement
from silo_node.training.keeping import packed, unpacked
from silo_node.training.raw_numbers import Numbers
from silo_node.training.run import RunState
from tests.harness.inside import aggregator_of, known_to, ledger_of
from tests.harness.simulator import SimulatedSilo, Simulation
from tests.harness.states import states_of
from tests.rounds.test_exact_families import job_of
from tests.rounds.test_killed import SILOS, banks, keep_of

pytestmark = pytest.mark.slow

OTHERS = ("east", "middle", "north")
AWAY = 5  # rounds


def trained(simulation: Simulation, file: Path, first: int = 1, rounds: int = AWAY) -> Training:
    """Run a job, of whose rounds the south misses so many after the first ones."""
    south = simulation.silos["south"]

    def progress(done: int) -> None:
        south.is_cut_off = first <= done < first + rounds

    return train(simulation.federation, read_job(file), progress, keep_of(file), sleep=lambda _: None)


@contextmanager
def newton(path: Path) -> Iterator[tuple[Simulation, Path]]:
    """Yield a federation of four silos, and a job that takes a round more for each step of Newton's method."""
    with banks(path) as (simulation, file):
        for silo in simulation.silos.values():
            text = silo.policy.read_text().replace('["linear-regression"]', '["k-means"]')
            silo.policy.write_text(text.replace("max_rounds = 30", "max_rounds = 100"))
            silo.actor.close()
            silo.actor = silo.start()
        file.write_text(job_of("k-means", "ok", "[options]\nclusters = 4\n").replace('label = "ok"\n', ""))
        yield simulation, file


def calls(silo: SimulatedSilo, step: str) -> list[tuple[bytes, ...]]:
    return [parts for what, parts in silo.seen if what == f"> {step}"]


def comparable(state: RunState) -> tuple[str, bytes]:
    """Return a state but for when the silo learned it."""
    return state.model_copy(update={"learned_at": 0}).model_dump_json(), state.raw


def test_a_silo_that_was_away_for_five_rounds_catches_up_with_one_handover(tmp_path: Path) -> None:
    with newton(tmp_path / "f") as (simulation, file):
        training = trained(simulation, file)
        assert training.steps > AWAY + 2
        assert training.holders == SILOS
        gone = [dict(one.without) for one in training.rounds if one.without]
        assert gone == [{"south": ""}] * AWAY
        assert f"{len(SILOS) - 1} of {len(SILOS)} silos, without south, each" in training.rounds[1].in_words
        south = simulation.silos["south"]
        (taken,) = calls(south, "take_over")
        learned = [StoredReport.decode(parts[0]).name for parts in calls(south, "learn")]
        assert len(learned) == len(set(learned)) == training.steps - AWAY, "none of the reports that it missed"
        states = [states_of(simulation.silos[silo])[0] for silo in SILOS]
        assert len({comparable(state) for state in states}) == 1
        assert states[0].done == training.steps
        one = states[0].record
        assert one is not None
        assert one.contributed["south"] == training.answered["south"] == training.steps - AWAY
        # What it receives, in bytes: one state and three statements in the place of five reports with their evidence.
        missed = calls(simulation.silos["east"], "learn")[1 : 1 + AWAY]
        reports = sum(len(part) for parts in missed for part in parts)
        received = sum(map(len, taken))
        print(f"{received:,} bytes of a handover, {reports:,} of the {AWAY} reports that it missed")
        assert received < reports / 10
        asked, statements = taken[0], taken[3:]
        size = len(packed(states[0])) + OVERHEAD_BYTES  # not of that round, but about as long
        assert received - len(asked) - sum(map(len, statements)) == pytest.approx(size, rel=0.1)


def test_the_aggregator_sees_neither_the_state_nor_a_hash_of_it(tmp_path: Path) -> None:
    with newton(tmp_path / "f") as (simulation, file):
        asked = HandoverAsked.KIND
        trained(simulation, file)
        data = calls(simulation.silos["south"], "take_over")[0][0]
        silo = known_to(simulation.silos["east"])
        state = states_of(simulation.silos["east"])[0]
        seen = b"".join(simulation.everything_seen())
        assert asked.encode() in seen
        for secret in (state.raw[:64], state.raw[-64:], HeldState.KIND.encode(), state.numbers[0].digest):
            assert secret not in seen
        assert b'"family":"k-means"' not in seen.replace(data, b"")
        assert silo.name in SILOS


@dataclass
class Story:
    """An aggregator that may do anything, the south at a state of some rounds ago, and what is asked of the others."""

    simulation: Simulation
    asked: HandoverAsked
    before: RunState

    @property
    def south(self) -> Any:
        return self.simulation.silos["south"].actor

    def data(self, **changes: Any) -> bytes:
        hub = aggregator_of(self.simulation.server)
        return sign(self.asked.model_copy(update=changes), hub.name, hub.signing)

    def held(self, silo: str = "east") -> Held:
        return held(known_to(self.simulation.silos[silo]), ledger_of(self.simulation.silos[silo]), self.data())

    def sealed(self, message: Message, signer: str, **changes: Any) -> bytes:
        """Return what a silo that colludes says to the south, or to whom the changes of the request name."""
        to = self.asked.model_copy(update=changes)
        silo = known_to(self.simulation.silos[signer])
        key = silo.roster.recipients([to.receiver])[0].key
        return seal(key, sign(message, signer, silo.signing), statement_context(to))

    def honest(self, *silos: str) -> list[bytes]:
        data = self.data()
        return [statement(known_to(self.simulation.silos[one]), data, self.held(one))[0] for one in silos]

    def frame(self, body: bytes, index: int = 0, **changes: Any) -> bytes:
        to = self.asked.model_copy(update=changes)
        key = known_to(self.simulation.silos["east"]).roster.recipients([to.receiver])[0].key
        return seal(key, body, frame_context(to, index))

    def take(self, statements: Sequence[bytes], frame: bytes, data: bytes | None = None, index: int = 0) -> str:
        """Hand a frame to the south; return why it does not take it, empty if it does."""
        data = self.data() if data is None else data
        reply = self.south.take_over(data, index.to_bytes(8, "big"), frame, *statements)
        silo = known_to(self.simulation.silos["south"])
        try:
            learned = verify(reply[0], ModelUpdated, {"south": silo.signing.public}).message
        except CryptoError:
            return unverified(reply[0], Failed).reason
        assert learned.position == self.asked.position
        return ""

    def check_unmoved(self) -> None:
        assert states_of(self.simulation.silos["south"]) == [self.before]


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulation, Training]]:
    """A run that is over, at whose first rounds alone the south was."""
    with newton(tmp_path_factory.mktemp("handover") / "f") as (simulation, file):
        training = trained(simulation, file, first=2, rounds=99)
        assert training.holders == OTHERS
        simulation.silos["south"].is_cut_off = False
        yield simulation, training


@pytest.fixture
def story(over: tuple[Simulation, Training]) -> Story:
    simulation, _ = over
    name = states_of(simulation.silos["east"])[0].position
    index = simulation.server.transcripts.index_of(name)
    (before,) = states_of(simulation.silos["south"])
    assert before.done == 2
    asked = HandoverAsked(
        federation=simulation.federation.config.federation, receiver="south", position=name, request=index.request
    )
    return Story(simulation, asked, before)


def lie(story: Story) -> tuple[HeldState, bytes]:
    """Return another state than the others have, and what is said of it."""
    true = unpacked(story.held().body)
    first, *rest = true.numbers
    false = true.model_copy(update={"numbers": (Numbers.of(first.name, np.asarray(first.values) + 1), *rest)})
    body = packed(false)
    said = story.held().state.model_copy(update={"size": len(body), "digest": blake3(body).digest()})
    return said, body


def wrong_bytes(story: Story) -> tuple[list[bytes], bytes, bytes]:
    _, body = lie(story)
    return story.honest(*OTHERS), story.frame(body), story.data()


def a_flipped_bit(story: Story) -> tuple[list[bytes], bytes, bytes]:
    body = story.held().body
    return story.honest(*OTHERS), story.frame(body[:-1] + bytes([body[-1] ^ 1])), story.data()


def cut_off(story: Story) -> tuple[list[bytes], bytes, bytes]:
    return story.honest(*OTHERS), story.frame(story.held().body[:-8]), story.data()


def too_few(story: Story) -> tuple[list[bytes], bytes, bytes]:
    return story.honest("east", "middle"), story.frame(story.held().body), story.data()


def one_many_times(story: Story) -> tuple[list[bytes], bytes, bytes]:
    return story.honest("east", "middle", "middle", "middle"), story.frame(story.held().body), story.data()


def liars(story: Story) -> tuple[list[bytes], bytes, bytes]:
    said, body = lie(story)
    false = [story.sealed(said, silo) for silo in ("east", "middle")]
    return [*false, *story.honest("north")], story.frame(body), story.data()


def its_own_signature(story: Story) -> tuple[list[bytes], bytes, bytes]:
    said, body = lie(story)
    return [story.sealed(said, silo) for silo in ("east", "middle", "south")], story.frame(body), story.data()


def no_silo_signs(story: Story) -> tuple[list[bytes], bytes, bytes]:
    said, body = lie(story)
    hub = aggregator_of(story.simulation.server)
    key = known_to(story.simulation.silos["east"]).roster.recipients(["south"])[0].key
    signed = [sign(said, name, hub.signing) for name in OTHERS]
    return [seal(key, one, statement_context(story.asked)) for one in signed], story.frame(body), story.data()


def of_another(field: str, value: object) -> Callable[[Story], tuple[list[bytes], bytes, bytes]]:
    def make(story: Story) -> tuple[list[bytes], bytes, bytes]:
        said = story.held().state.model_copy(update={field: value})
        return [story.sealed(said, silo) for silo in OTHERS], story.frame(story.held().body), story.data()

    return make


def sealed_to_another(story: Story) -> tuple[list[bytes], bytes, bytes]:
    said = story.held().state
    statements = [story.sealed(said, silo, receiver="north") for silo in OTHERS]
    return statements, story.frame(story.held().body), story.data()


def a_frame_to_another(story: Story) -> tuple[list[bytes], bytes, bytes]:
    return story.honest(*OTHERS), story.frame(story.held().body, receiver="north"), story.data()


def a_frame_of_another_place(story: Story) -> tuple[list[bytes], bytes, bytes]:
    return story.honest(*OTHERS), story.frame(story.held().body, 1), story.data()


def to_another_receiver(story: Story) -> tuple[list[bytes], bytes, bytes]:
    return story.honest(*OTHERS), story.frame(story.held().body), story.data(receiver="north")


def at_another_report(story: Story) -> tuple[list[bytes], bytes, bytes]:
    return story.honest(*OTHERS), story.frame(story.held().body), story.data(position=bytes(32))


def with_the_request_of_another_step(story: Story) -> tuple[list[bytes], bytes, bytes]:
    server = story.simulation.server.transcripts
    earlier = server.index_of(server.index_of(story.asked.position).step.after).request
    return story.honest(*OTHERS), story.frame(story.held().body), story.data(request=earlier)


def by_nobody(story: Story) -> tuple[list[bytes], bytes, bytes]:
    silo = known_to(story.simulation.silos["east"])
    return story.honest(*OTHERS), story.frame(story.held().body), sign(story.asked, silo.name, silo.signing)


def of_another_federation(story: Story) -> tuple[list[bytes], bytes, bytes]:
    return story.honest(*OTHERS), story.frame(story.held().body), story.data(federation="others")


def an_altered_request(story: Story) -> tuple[list[bytes], bytes, bytes]:
    request = story.asked.request[:-2] + b"1}"
    return story.honest(*OTHERS), story.frame(story.held().body), story.data(request=request)


ATTACKS = {
    "wrong bytes": (wrong_bytes, "bytes|not the one"),
    "a flipped bit": (a_flipped_bit, "not the one"),
    "a state that is cut off": (cut_off, "has"),
    "signed by too few": (too_few, "2 silos say"),
    "signed by one many times": (one_many_times, "2 silos say"),
    "two of three lie": (liars, "2 silos say"),
    "with the laggard's own signature": (its_own_signature, "2 silos say"),
    "signed by the aggregator": (no_silo_signs, "0 silos say"),
    "a header of another run": (of_another("run", b"\7" * 16), "0 silos say"),
    "a header of another job": (of_another("job", bytes(32)), "0 silos say"),
    "a header of another report": (of_another("position", bytes(32)), "0 silos say"),
    "a header of another federation": (of_another("federation", "others"), "0 silos say"),
    "a header of another step": (of_another("done", 3), "0 silos say"),
    "statements to another silo": (sealed_to_another, "0 silos say"),
    "a frame to another silo": (a_frame_to_another, ""),
    "a frame of another place": (a_frame_of_another_place, ""),
    "a handover to another silo": (to_another_receiver, "north"),
    "a handover at another report": (at_another_report, "0 silos say"),
    "the request of another step": (with_the_request_of_another_step, "0 silos say"),
    "asked by no aggregator": (by_nobody, ""),
    "asked in another federation": (of_another_federation, "federation"),
    "an altered request": (an_altered_request, ""),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_less_than_a_quorum_moves_a_silo(story: Story, attack: str) -> None:
    make, told = ATTACKS[attack]
    statements, frame, data = make(story)
    reason = story.take(statements, frame, data)
    assert reason
    assert not told or any(one in reason for one in told.split("|")), reason
    story.check_unmoved()


def test_a_frame_that_nobody_agreed_on_is_not_taken(story: Story) -> None:
    body = story.held().body
    assert "nobody has agreed" in story.take([], story.frame(body, 1), index=1)
    story.check_unmoved()


def test_a_silo_hands_over_to_no_one_but_a_silo_of_the_run_at_that_report(story: Story) -> None:
    east = story.simulation.silos["east"].actor
    outsiders = (story.data(receiver="west"), story.data(receiver="east"), story.data(position=bytes(32)))
    for data in (*outsiders, b"", sign(story.asked, "east", known_to(east).signing)):
        for index in ((), (bytes(8),)):
            (reply,) = east.hand_over(data, *index)
            assert is_envelope(reply)
            assert unverified(reply, Failed).reason
    (reply,) = east.hand_over(story.data(), (99).to_bytes(8, "big"))
    assert "none of number 99" in unverified(reply, Failed).reason


STRICTER = {
    "more silos than the rounds had": ('release = ["model"]\n', "min_silos = 4\n", "keep 4"),
    "a silo that is in no round": ("max_missing = 1\n", 'must_include = ["west"]\n', "without west"),
}


@pytest.mark.parametrize("how", STRICTER)
def test_a_round_that_it_missed_must_meet_the_silo_s_own_policy(story: Story, how: str) -> None:
    line, more, told = STRICTER[how]
    south = story.simulation.silos["south"]
    text = south.policy.read_text()
    south.policy.write_text(text.replace(line, line + more))
    south.actor.close()
    south.actor = south.start()
    try:
        reason = story.take(story.honest(*OTHERS), story.frame(story.held().body))
        assert "own policy" in reason
        assert told in reason
        story.check_unmoved()
    finally:
        south.policy.write_text(text)
        south.actor.close()
        south.actor = south.start()


def recorded(**changes: Any) -> Callable[[RunState], RunState]:
    """Return a change of what the record says of the rounds that the south missed."""

    def change(state: RunState) -> RunState:
        assert state.record is not None
        spells = [one if one.last < 2 else one.model_copy(update=changes) for one in state.record.spells]
        return state.model_copy(update={"record": state.record.model_copy(update={"spells": tuple(spells)})})

    return change


def test_a_state_longer_than_the_policy_allows_is_not_begun(story: Story) -> None:
    said = story.held().state.model_copy(update={"size": 90_000_000})
    statements = [story.sealed(said, silo) for silo in OTHERS]
    assert "vectors.max_state_mb is 64" in story.take(statements, story.frame(bytes(FRAME_BYTES)))
    story.check_unmoved()


FALSE = {
    "noise of too few": (recorded(noise_shares=3), "noise is not enough"),
    "a round without a record": (recorded(first=3), "who took part in round 3"),
    "a record of before": (recorded(asked=0), "who took part in round 3"),
    "two survivors": (recorded(without=("east", "middle")), "at least 3 must"),
    "no record": (lambda state: state.model_copy(update={"record": None}), "no record"),
    "another purpose": (lambda state: state.model_copy(update={"purpose": "else"}), "of another run"),
    "another step": (lambda state: state.model_copy(update={"done": state.done + 1}), "of another step"),
}


@pytest.mark.parametrize("what", FALSE)
def test_what_even_a_quorum_cannot_have_a_silo_take(story: Story, what: str) -> None:
    """All others say it alike, and the state is of the size and digest that they say."""
    change, told = FALSE[what]
    body = packed(change(unpacked(story.held().body)))
    said = story.held().state.model_copy(update={"size": len(body), "digest": blake3(body).digest()})
    assert told in story.take([story.sealed(said, silo) for silo in OTHERS], story.frame(body))
    story.check_unmoved()


def test_however_many_take_a_state_over_its_holder_has_it_in_memory_once(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An aggregator asks in the names of several silos, in turn, and many times at once."""
    monkeypatch.setattr(handover, "FRAME_BYTES", 1000)
    monkeypatch.setattr("crypto.rounds.handover.FRAME_BYTES", 1000)
    read, east, lock = list[int](), story.simulation.silos["east"].actor, threading.Lock()
    body, asked = story.held().body, [story.data(), story.data(receiver="north")]

    def counted(*arguments: Any) -> Held:
        assert lock.acquire(blocking=False), "two are read at a time"
        read.append(1)
        try:
            return held(*arguments)
        finally:
            lock.release()

    monkeypatch.setattr(handover, "held", counted)
    for place in range(len(body) // 1000):
        for data in asked:
            (frame,) = east.hand_over(data, place.to_bytes(8, "big"))
            assert len(frame) == 1000 + OVERHEAD_BYTES
            assert len(east.hand_over(data)) == 2
    assert len(read) == 1
    with ThreadPoolExecutor(8) as pool:
        assert all(len(one) == 2 for one in pool.map(east.hand_over, [story.data(position=story.asked.position)] * 16))


def test_what_a_quorum_holds_is_taken_frame_by_frame_and_never_goes_back(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "FRAME_BYTES", 1000)
    monkeypatch.setattr("crypto.rounds.handover.FRAME_BYTES", 1000)
    body, data, statements = story.held().body, story.data(), story.honest(*OTHERS)
    pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    assert len(pieces) > 2
    east = story.simulation.silos["east"].actor
    assert int.from_bytes(east.hand_over(data)[1]) == len(pieces)
    older = agreed(known_to(story.south), ledger_of(story.south), data, statements)
    for place, _ in enumerate(pieces):
        (frame,) = east.hand_over(data, place.to_bytes(8, "big"))
        reply = story.south.take_over(data, place.to_bytes(8, "big"), frame, *(statements if place == 0 else ()))
        at = unverified(reply[0], ModelUpdated).position
        assert at == (story.asked.position if place == len(pieces) - 1 else story.before.position)
    (after,) = states_of(story.south)
    assert comparable(after) == comparable(states_of(east)[0])
    ledger_of(story.south).audit()
    # The same once more, and what was agreed before: the silo has it already.
    assert "learned" in story.take(statements, story.frame(pieces[0]))
    full = replace(older, frames=tuple(pieces))
    with pytest.raises(CryptoError, match="meanwhile"):
        handover.taken(known_to(story.south), ledger_of(story.south), 0, full)


def test_where_the_others_cannot_hand_over_it_learns_report_by_report(tmp_path: Path) -> None:
    with newton(tmp_path / "f") as (simulation, file):
        for silo in OTHERS:
            simulation.silos[silo].rewrite = lambda step, frames: () if step == "hand_over" else frames
        training = trained(simulation, file)
        assert training.holders == SILOS
        south = simulation.silos["south"]
        assert not calls(south, "take_over")
        assert len({StoredReport.decode(parts[0]).name for parts in calls(south, "learn")}) == training.steps
        assert len({comparable(states_of(silo)[0]) for silo in simulation.silos.values()}) == 1


def test_a_silo_that_hands_over_something_else_is_passed_over(tmp_path: Path) -> None:
    with newton(tmp_path / "f") as (simulation, file):
        simulation.silos["east"].rewrite = lambda step, frames: (
            (frames[0][:-1] + b"\0",) if step == "hand_over" and len(frames) == 1 else frames
        )
        training = trained(simulation, file)
        assert training.holders == SILOS
        first, second = calls(simulation.silos["south"], "take_over")
        assert first[2] != second[2]
        assert len({comparable(states_of(silo)[0]) for silo in simulation.silos.values()}) == 1
