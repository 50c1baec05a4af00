"""Steps at one silo that come at a time: none waits for what another computes, and of a round one of each leaves."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aggregator.rounds import cancel, propose, read_request
from analyst.demo.hospitals import PURPOSE
from crypto.randomness import token
from crypto.rounds.manifest import Accept
from crypto.rounds.messages import Bundle, Failed
from crypto.wire import sign, signer_of, unverified
from policies.requests.catalogue import Catalogue, CatalogueRequest
from silo_node.rounds import open_rounds, steps
from silo_node.rounds import proposal as rounds_proposal
from tests.harness.inside import aggregator_of, key_of, ledger_of, reach_of, rounds_of
from tests.harness.simulator import Simulation, ask, no_noise, simulate

QUESTION = "SELECT COUNT(*) AS n FROM lung"
SOON_S = 20  # far less than what is held up


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as found:
        yield found


def proposal(simulation: Simulation, envelope: bytes | None = None) -> tuple[bytes, bytes]:
    """Return a new round of a request, or of a new one."""
    federation = simulation.federation
    if envelope is None:
        _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.05)
        envelope = sign(request, federation.analyst, key_of(federation))
    round_id, now = token(16), int(simulation.silos["aspen"].clock())
    return round_id, propose(aggregator_of(simulation.server), read_request(envelope), round_id, now).envelope


def asked_for_catalogue(simulation: Simulation) -> bytes:
    name, hub = simulation.federation.analyst, aggregator_of(simulation.server)
    now = int(simulation.silos["aspen"].clock())
    message = CatalogueRequest(federation=hub.federation, analyst=name, nonce=token(16), created_at=now)
    return sign(message, name, key_of(simulation.federation))


def others_go_on(simulation: Simulation, pool: ThreadPoolExecutor) -> None:
    """Assert that a proposal and a catalogue are answered now."""
    aspen, (round_id, proposed) = simulation.silos["aspen"].actor, proposal(simulation)
    assert isinstance(unverified(pool.submit(aspen.propose, round_id, proposed).result(SOON_S)[0], Accept), Accept)
    assert isinstance(
        unverified(pool.submit(aspen.catalogue, asked_for_catalogue(simulation)).result(SOON_S)[0], Catalogue),
        Catalogue,
    )
    pool.submit(aspen.cancel, round_id, cancel(aggregator_of(simulation.server), round_id)).result(SOON_S)


def test_a_source_that_does_not_answer_holds_no_other_question_up(
    exact: Simulation, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: questions about a table of a silent server keep a silo from everything else, for nothing."""
    ask(exact, QUESTION)
    going, waiting, reach = threading.Event(), threading.Event(), reach_of(exact.silos["aspen"])
    check = reach.check

    def silent(request: object) -> None:
        if not waiting.is_set():
            waiting.set()
            assert going.wait(60)
        check(request)

    monkeypatch.setattr(reach, "check", silent)
    held = pool.submit(exact.silos["aspen"].actor.propose, *proposal(exact))
    assert waiting.wait(SOON_S)
    others_go_on(exact, pool)
    going.set()
    assert isinstance(unverified(held.result(SOON_S)[0], Accept), Accept)


@pytest.mark.parametrize("step", ["share", "receive", "mask", "open_shares"])
def test_what_one_round_computes_holds_no_other_up(
    exact: Simulation, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Hope: a round of a large answer, in a slow backend, keeps a silo from everything else while it is computed."""
    computed, seen = getattr(steps, step), list[str]()

    def slow(silo: Any, *arguments: Any) -> object:
        if silo.name == "aspen" and not seen:
            seen.append(step)
            others_go_on(exact, pool)
        return computed(silo, *arguments)

    monkeypatch.setattr(steps, step, slow)
    assert set(ask(exact, QUESTION).values()) == {"answered"}
    assert seen


@pytest.mark.parametrize("what", ["signers_of", "nonces_of"])
def test_reading_a_large_request_holds_no_other_up(
    exact: Simulation, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Hope: a request of half a megabyte, read twice for a tenth of a second, keeps a silo from everything else."""
    read, seen = getattr(rounds_proposal, what), list[str]()

    def slow(*arguments: Any) -> object:
        if not seen:
            seen.append(what)
            others_go_on(exact, pool)
        return read(*arguments)

    monkeypatch.setattr(rounds_proposal, what, slow)
    assert set(ask(exact, QUESTION).values()) == {"answered"}
    assert seen


def test_noise_that_is_drawn_for_long_holds_no_other_up(home: Path, pool: ThreadPoolExecutor) -> None:
    drawn = list[int]()

    def slow(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
        if not drawn:
            drawn.append(length)
            others_go_on(simulation, pool)
        return no_noise(length, variance, shares)

    with simulate(home, noise=slow) as simulation:
        assert set(ask(simulation, QUESTION).values()) == {"answered"}
    assert drawn


def twice(
    exact: Simulation, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Let a message of the step `share` come twice at once; return both replies."""
    shared, replies = steps.share, list[Future[tuple[bytes, ...]]]()
    both = threading.Barrier(2, timeout=SOON_S)
    aspen = exact.silos["aspen"]

    def together(silo: Any, *arguments: Any) -> Any:
        if silo.name == "aspen":
            both.wait()
        return shared(silo, *arguments)

    def before(step: str, arguments: tuple[bytes, ...]) -> None:
        if step == "share" and not replies:
            replies.append(pool.submit(aspen.actor.share, *arguments))

    monkeypatch.setattr(steps, "share", together)
    aspen.before = before
    ask(exact, QUESTION)
    sent = next(frames for name, frames in aspen.seen if name == "< share")
    return sent, replies[0].result(SOON_S)


def test_a_message_that_comes_twice_at_once_has_one_answer(
    exact: Simulation, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: two bundles of one round, whose shares together tell more than either."""
    one, other = twice(exact, pool, monkeypatch)
    assert one == other
    assert isinstance(unverified(one[0], Bundle), Bundle)


def test_of_two_messages_of_a_step_that_come_at_once_one_is_answered(
    exact: Simulation, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two manifests of one round: a reply that was kept is for no other bytes."""
    again = open_rounds.OpenRounds.again

    def of_others(self: open_rounds.OpenRounds, round_id: bytes, step: str, arguments: Any) -> Any:
        return None if step == "share" else again(self, round_id, step, arguments)

    monkeypatch.setattr(open_rounds.OpenRounds, "again", of_others)
    replies = twice(exact, pool, monkeypatch)
    (lost,) = [frames for frames in replies if len(frames) == 1]
    assert unverified(lost[0], Failed).reason == open_rounds.CLOSED
    (answered,) = [frames for frames in replies if len(frames) > 1]
    assert isinstance(unverified(answered[0], Bundle), Bundle)


def test_one_request_that_is_proposed_twice_at_once_is_reserved_once(
    exact: Simulation, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(exact, QUESTION)
    aspen, before = exact.silos["aspen"].actor, exact.spent("aspen")
    federation = exact.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.05)
    envelope = sign(request, federation.analyst, key_of(federation))
    both, check = threading.Barrier(2, timeout=SOON_S), reach_of(aspen).check

    def together(request: object) -> None:
        both.wait()
        check(request)

    monkeypatch.setattr(reach_of(aspen), "check", together)
    rounds = [proposal(exact, envelope) for _ in range(2)]
    for future in [pool.submit(aspen.propose, *one) for one in rounds]:
        assert signer_of(future.result(SOON_S)[0], Accept) == "aspen"
    assert len(rounds_of(aspen)) == 1
    one = exact.spent("aspen") - before
    for round_id, _ in rounds:
        aspen.cancel(round_id, cancel(aggregator_of(exact.server), round_id))
    assert one > 0
    assert exact.spent("aspen") == before, "nothing stays reserved"


def test_an_analyst_s_rounds_push_out_its_own_and_nobody_else_s(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hope: one analyst, over several aggregators, makes a silo forget the rounds of others, or refuse theirs."""
    monkeypatch.setattr(open_rounds, "MAX_ROUNDS_OF_ONE", 3)
    monkeypatch.setattr(open_rounds, "MAX_ROUNDS", 5)
    ask(exact, QUESTION)
    aspen, (round_id, proposed) = exact.silos["aspen"].actor, proposal(exact)
    aspen.propose(round_id, proposed)
    state, held = rounds_of(aspen)[round_id], open_rounds.OpenRounds(ledger_of(aspen))
    for number, name in enumerate(["ana", "bob", *["eve"] * 10, "cat", "dan"]):
        held.begin(number.to_bytes(2, "big"), state, (), name)
    left = [int.from_bytes(one, "big") for one in held.states]
    assert left == [0, 1, 11, 12, 13], "of those of eve, who has the most, the newest is left"
