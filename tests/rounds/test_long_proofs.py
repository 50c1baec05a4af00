"""Whole long rounds whose silos prove their sum: who is away, lies or is asked twice spoils nothing."""

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest

from aggregator.sums import SumShard
from analyst.verify import verify
from crypto.backends.scheme import CHUNK_VALUES
from crypto.rounds.messages import Challenge, Failed, ModelUpdated, Opening, Products, SurvivorSet
from crypto.rounds.report import StoredReport
from crypto.rounds.volume import volume_of
from crypto.wire import digest_of, sign, unverified
from policies.requests.terms import terms_of
from silo_node.rounds.open_rounds import NOT_AT_STEP
from silo_node.rounds.states import Opened
from tests.harness.inside import known_to, rounds_of
from tests.harness.long_rounds import LongFederation, Passed, long_federation

LENGTH, LIMIT = 3 * CHUNK_VALUES + 1, 2**28
SPOILER, OTHER = "silo-01", "silo-02"
Frames = tuple[bytes, ...]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongFederation]:
    with long_federation(tmp_path_factory.mktemp("proofs") / "f", 4, LENGTH, LIMIT, step_timeout_s=10.0) as fed:
        yield fed


@pytest.fixture
def long(federation: LongFederation) -> Iterator[LongFederation]:
    yield federation
    federation.simulation.mend()
    federation.opened.clear()


def vector(name: str) -> npt.NDArray[np.int64]:
    return np.random.default_rng(int(name[-2:])).integers(-(LIMIT // 2), LIMIT // 2, LENGTH, np.int64)


def asked(long: LongFederation) -> StoredReport:
    answer = long.ask(vector)
    assert isinstance(answer, bytes), answer
    return StoredReport.decode(answer)


def replies(long: LongFederation, silo: str, step: str) -> list[Frames]:
    return [frames for seen, frames in long.simulation.silos[silo].seen if seen == step]


def learned(long: LongFederation, stored: StoredReport) -> dict[str, int]:
    """Deliver a report to all silos that live; return with how many frames of masked inputs each has learned it."""
    for silo in long.simulation.silos.values():
        silo.seen.clear()
    long.opened.clear()
    long.simulation.deliver_report(stored.name)
    found = {}
    for name, silo in long.simulation.silos.items():
        if silo.is_dead:
            continue
        (given,), (said,) = replies(long, name, "> learn"), replies(long, name, "< learn")
        assert unverified(said[0], ModelUpdated).position == stored.name
        found[name] = len(given) - 1
    expected = np.sum([vector(name) for name in long.names], axis=0)
    assert len(long.opened) == len(found)
    assert all(np.array_equal(one, expected) for one in long.opened)
    return found


def test_nobody_fetches_a_masked_input_of_a_sum_that_is_proven(long: LongFederation) -> None:
    stored = asked(long)
    assert len(stored.message.products or ()) == 4
    assert learned(long, stored) == dict.fromkeys(long.names, 0)
    assert all(not rounds_of(silo) for silo in long.simulation.silos.values())
    assert long.simulation.evidence(stored.name, 0) == ()
    lines = list(verify(long.simulation.federation, stored.name, None))
    assert lines[-1] == "the sum fits the inner products that 4 silos signed of their contributions"


@pytest.mark.parametrize("step", ["open_shares", "products"])
def test_the_masked_input_of_a_silo_that_vanishes_is_fetched_whole(long: LongFederation, step: str) -> None:
    long.simulation.silos[SPOILER].dies_before = step
    stored = asked(long)
    assert len(stored.message.products or ()) == 3
    assert len(stored.message.openings) == (3 if step == "open_shares" else 4)
    assert learned(long, stored) == dict.fromkeys(sorted({*long.names} - {SPOILER}), 4)
    lines = list(verify(long.simulation.federation, stored.name, None))
    assert "that 3 silos signed of their contributions; those of silo-01 were fetched whole" in lines[-1]


def products_by(long: LongFederation, name: str, frames: Frames, **changes: object) -> Frames:
    message = unverified(frames[0], Products).model_copy(update=changes)
    return (sign(message, name, known_to(long.simulation.silos[name]).signing),)


@pytest.mark.parametrize("what", ["products", "nonce"])
def test_what_a_silo_signs_falsely_is_left_out_and_it_is_named(long: LongFederation, what: str) -> None:
    """Hope: one silo's false word costs everybody the answer."""
    signing = known_to(long.simulation.silos[SPOILER]).signing

    def lie(step: str, frames: Frames) -> Frames:
        if step == "products" and what == "products":
            return products_by(long, SPOILER, frames, values=bytes(16))
        if step == "open_shares" and what == "nonce":
            opening = unverified(frames[0], Opening).model_copy(update={"nonce": bytes(32)})
            return (sign(opening, SPOILER, signing), *frames[1:])
        return frames

    long.simulation.silos[SPOILER].rewrite = lie
    stored = asked(long)
    assert {one.silo: one.wrong for one in stored.message.testimonies} == {
        SPOILER: "the inner products that it signed are not those of its masked input"
        if what == "products"
        else "its nonce is not the one that it committed to"
    }
    assert set(learned(long, stored).values()) == {4}


def test_false_products_that_cancel_are_those_of_the_sum(long: LongFederation) -> None:
    """Two liars who agree move nothing: it is the sum of the products that is compared."""

    def shifted(by: int, name: str) -> None:
        def lie(step: str, frames: Frames) -> Frames:
            if step != "products":
                return frames
            values = int.from_bytes(unverified(frames[0], Products).values[:8], "little") + by
            rest = unverified(frames[0], Products).values[8:]
            return products_by(long, name, frames, values=(values % 2**64).to_bytes(8, "little") + rest)

        long.simulation.silos[name].rewrite = lie

    shifted(5, SPOILER)
    shifted(-5, OTHER)
    assert set(learned(long, asked(long)).values()) == {0}


def test_a_masked_input_that_was_altered_at_the_aggregator_is_no_silos_fault(long: LongFederation) -> None:
    """A disk that fails, or a shard that lies: hope is that an honest silo is named, and that nobody says why."""
    add, flipped = SumShard.close, list[bytes]()

    def close(shard: SumShard, round_id: bytes, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
        (file,) = long.path.rglob(f"{names[1].hex()}.contribution")
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        flipped.append(names[1])
        return add(shard, round_id, names)

    with patch.object(SumShard, "close", close):
        answer = long.ask(vector)
    assert len(flipped) == 1
    assert not isinstance(answer, bytes)
    assert "piece 3 of the contribution of 'silo-01' is not as it signed it any more" in answer.message.reason
    assert not any(one.wrong for one in answer.message.testimonies)


def test_a_silo_signs_products_for_one_challenge_of_a_round(long: LongFederation) -> None:
    """Hope: a second challenge with fewer nonces, which suits another sum."""
    taken = list[Frames]()
    actor = long.simulation.silos[SPOILER].actor

    def twice(step: str, arguments: Frames) -> None:
        if step == "products":
            taken.append(arguments)
            round_id, challenge = arguments
            good = Challenge.decode(challenge)
            (state,) = rounds_of(actor).values()
            assert isinstance(state, Opened)
            fewer = good.model_copy(update={"nonces": (*good.nonces[:3], b"")}).encode()
            forged = good.model_copy(update={"nonces": (*good.nonces[:3], bytes(32))}).encode()
            (refused,) = actor.products(round_id, forged)
            assert "committed to" in unverified(refused, Failed).reason
            first = actor.products(round_id, challenge)
            assert unverified(first[0], Products).challenge == digest_of(good)
            assert actor.products(round_id, challenge) == first, "the same again"
            (second,) = actor.products(round_id, fewer)
            assert unverified(second, Failed).reason == NOT_AT_STEP
            assert not rounds_of(actor)

    long.simulation.silos[SPOILER].before = twice
    assert set(learned(long, asked(long)).values()) == {0}
    assert len(taken) == 1


def test_a_silo_signs_no_products_before_it_has_opened(long: LongFederation) -> None:
    """Hope: products first, and then a sum that suits them."""
    actor, refusals = long.simulation.silos[SPOILER].actor, list[str]()

    def early(step: str, arguments: Frames) -> None:
        if step in ("agree", "open_shares"):
            (state,) = rounds_of(actor).values()
            challenge = Challenge(manifest_hash=bytes(32), split_hash=bytes(32), nonces=(bytes(32),) * len(long.names))
            (refused,) = actor.products(arguments[0], challenge.encode())
            refusals.append(unverified(refused, Failed).reason)
            assert rounds_of(actor)[arguments[0]] is state

    long.simulation.silos[SPOILER].before = early
    assert set(learned(long, asked(long)).values()) == {0}
    assert refusals == [NOT_AT_STEP] * 2


def test_a_silo_that_was_restarted_signs_no_products_of_an_earlier_round(long: LongFederation) -> None:
    """Hope: a silo that has forgotten its first challenge answers a second one."""
    silo = long.simulation.silos[SPOILER]
    silo.restarts, silo.dies_after = True, "products"
    stored = asked(long)
    ((round_id, challenge),) = replies(long, SPOILER, "> products")
    (refused,) = silo.actor.products(round_id, challenge)
    assert unverified(refused, Failed).reason == NOT_AT_STEP
    assert set(learned(long, stored).values()) == {4}


def test_a_short_round_has_nothing_of_a_proof(long: LongFederation) -> None:
    with long_federation(long.path.parent / "short", 4, CHUNK_VALUES, LIMIT) as short:
        answer = short.ask(lambda name: vector(name)[:CHUNK_VALUES])
        assert isinstance(answer, bytes)
        stored = StoredReport.decode(answer)
        assert stored.message.products is None
        assert SurvivorSet.decode(stored.message.split).sum is None
        assert all(unverified(one, Opening).nonce is None for one in stored.message.openings)
        assert not replies(short, SPOILER, "> products")
        assert all(not rounds_of(silo) for silo in short.simulation.silos.values())


@pytest.mark.parametrize("silos", [4, 10])
def test_a_recipient_receives_two_vectors_however_many_silos_there_are(
    silos: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    length = 15 * CHUNK_VALUES
    one = np.arange(length, dtype=np.int64) % 1000
    with long_federation(tmp_path_factory.mktemp("volume") / "f", silos, length, LIMIT // silos) as fed:
        request = fed.request()
        counted = fed.count()
        answer = fed.ask(lambda _: one, request)
        assert isinstance(answer, bytes)
        before = {name: passed_in(passed) for name, passed in counted.items()}
        fed.learn(answer)
        delivered = {name: passed_in(passed) - before[name] for name, passed in counted.items()}
        assert max(delivered.values()) <= 1.05 * 2 * 4 * length
        signed = fed.simulation.federation.signed(request)
        terms, policy = terms_of(request, digest_of(request)), known_to(fed.simulation.silos[SPOILER]).policy
        conditions = policy.disclosure.min_silos, policy.protection.max_colluding, policy.protection.max_missing
        told = fed.names, terms, len(signed), b"", conditions, request.created_at
        found = volume_of("banks", "aggregator", *told, is_learned=True)
        sent = {name: sum(size for step, size in one.bytes.items() if step[0] == "<") for name, one in counted.items()}
        assert found.down == pytest.approx(sum(map(passed_in, counted.values())) / silos, rel=0.01)
        assert found.up == pytest.approx(sum(sent.values()) / silos, rel=0.01)


def passed_in(passed: Passed) -> int:
    """Return how many bytes a silo has received."""
    return sum(size for step, size in passed.bytes.items() if step.startswith(">"))
