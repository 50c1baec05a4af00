"""Floods of requests: they neither displace what is owed nor fill a silo's logs, and the owner is told of them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.rounds import cancel, propose, read_request
from analyst.demo.hospitals import PURPOSE
from crypto.keys import Secret, SigningKey
from crypto.randomness import token
from crypto.rounds.manifest import Recipient
from crypto.sealing import SealingKey
from crypto.wire import sign, unverified
from federation.operations.allowance import Allowance
from policies.requests.denials import Refusal
from policies.units import DAY_S, HOUR_S
from silo_node import telling
from silo_node.actor import owner_log
from silo_node.errors import SiloError
from silo_node.ledger import events, records
from silo_node.rounds import open_rounds
from silo_node.telling import Teller
from tests.harness.clock import Clock
from tests.harness.inside import aggregator_of, erase_at, key_of, ledger_of
from tests.harness.simulator import STEPS, Simulation, ask, no_noise, simulate

QUESTION = "SELECT COUNT(*) AS n FROM lung"
AT_ONCE = 5


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def narrow(home: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    """A federation whose silos let a signer ask only a few times for nothing."""
    monkeypatch.setattr(records, "UNPAID_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(records, "UNPAID_PER_DAY", AT_ONCE)
    monkeypatch.setattr(records, "UNKNOWN_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(records, "UNKNOWN_PER_DAY", AT_ONCE)
    with simulate(home, noise=no_noise, clock=clock) as simulation:
        yield simulation


def proposal(simulation: Simulation, number: int, key: SigningKey | None = None) -> tuple[bytes, bytes]:
    """Return the id and the Propose of a new round; with `key`, the analyst's request is forged."""
    federation = simulation.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.05)
    envelope = sign(request, federation.analyst, key or key_of(federation))
    round_id, now = b"flood" + number.to_bytes(11, "big"), int(simulation.silos["aspen"].clock())
    return round_id, propose(aggregator_of(simulation.server), read_request(envelope), round_id, now).envelope


def codes(frames: tuple[bytes, ...]) -> list[str]:
    return [one.code for one in unverified(frames[0], Refusal).denials]


def told(simulation: Simulation) -> list[events.NotLogged]:
    entries = ledger_of(simulation.silos["aspen"]).entries(10_000)
    return [entry.event for entry in entries if isinstance(entry.event, events.NotLogged)]


def test_requests_for_nothing_fill_a_log_only_so_fast_and_the_owner_is_told(narrow: Simulation, clock: Clock) -> None:
    ask(narrow, QUESTION)
    aspen, hub = narrow.silos["aspen"], aggregator_of(narrow.server)
    before = len(ledger_of(aspen).entries(10_000))
    flood = 60
    for number in range(flood):
        round_id, proposed = proposal(narrow, number)
        frames = aspen.actor.propose(round_id, proposed)
        if number >= AT_ONCE:
            assert codes(frames) == ["BUSY"]
            assert "too many requests of this analyst" in unverified(frames[0], Refusal).denials[0].message
        else:
            aspen.actor.cancel(round_id, cancel(hub, round_id))
    assert len(ledger_of(aspen).entries(10_000)) - before == 3 * AT_ONCE + 1
    forged = proposal(narrow, flood, SigningKey(Secret(bytes(32))))
    assert codes(aspen.actor.propose(*forged)) == ["SIGNATURE"], "whoever forges has an allowance of its own"
    clock.now += DAY_S
    assert set(ask(narrow, QUESTION).values()) == {"answered"}
    assert sum(one.count for one in told(narrow)) == flood - AT_ONCE
    assert "54 more requests of" in events.worded(told(narrow)[-1])
    with open(aspen.policy.parent / "silo.log") as log:
        assert "too many requests" not in log.read()


def refused(simulation: Simulation) -> list[events.Decided]:
    entries = ledger_of(simulation.silos["aspen"]).entries(10_000)
    return [one.event for one in entries if isinstance(one.event, events.Decided) and one.event.codes]


def again(simulation: Simulation, envelope: bytes, times: int, codes_of: str) -> None:
    """Let an aggregator propose the same request again and again, each time as a new round."""
    aspen, hub = simulation.silos["aspen"], aggregator_of(simulation.server)
    for _ in range(times):
        round_id, now = token(16), int(aspen.clock())
        frames = aspen.actor.propose(round_id, propose(hub, read_request(envelope), round_id, now).envelope)
        assert codes(frames) == [codes_of]


def test_a_refusal_that_comes_again_is_counted_and_not_logged(exact: Simulation) -> None:
    """Hope: one envelope, replayed by an aggregator, fills the log of every silo."""
    _, request = exact.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.05)
    cheap = sign(request.model_copy(update={"micro_rho": 1}), exact.federation.analyst, key_of(exact.federation))
    again(exact, cheap, 200, "RHO_TOO_SMALL")
    assert len(refused(exact)) == 1
    erase_at(exact.silos["aspen"], time.time() + HOUR_S)
    assert sum(one.count for one in told(exact)) == 199
    assert " refused, as they came again or too many had come" in events.worded(told(exact)[0])


def test_a_member_whom_no_policy_names_leaves_a_bounded_number_of_entries(exact: Simulation) -> None:
    """Hope: whoever no policy names has nothing to lose, and each of its refusals is an entry that stays."""
    key, root = SigningKey(Secret(bytes(32))), Secret(bytes(32))
    _, request = exact.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.05)
    mine = Recipient(name="eve", key=SealingKey(root).public)
    request = request.model_copy(update={"analyst": "eve", "recipients": (mine,)})
    again(exact, sign(request, "eve", key), 50, "ANALYST_UNKNOWN")
    assert len(refused(exact)) == 1
    for number in range(records.UNKNOWN_AT_ONCE + 100):
        other = request.model_copy(update={"nonce": number.to_bytes(16, "big")})
        again(exact, sign(other, f"eve{number}", key), 1, "ANALYST_UNKNOWN")
    assert len(refused(exact)) == records.UNKNOWN_AT_ONCE, "also by ever new names"
    assert set(ask(exact, QUESTION).values()) == {"answered"}, "and others are answered"


def test_what_a_silo_cannot_do_leaves_a_bounded_number_of_entries(narrow: Simulation, clock: Clock) -> None:
    """Hope: a proposal with a wrong clock is refused before anybody looks who signed its request."""
    aspen, hub, key = narrow.silos["aspen"], aggregator_of(narrow.server), SigningKey(Secret(bytes(32)))
    _, request = narrow.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.05)
    for number in range(30):
        round_id = b"late" + number.to_bytes(12, "big")
        envelope = sign(request.model_copy(update={"nonce": round_id}), "eve", key)
        late = propose(hub, read_request(envelope), round_id, int(clock()) - DAY_S).envelope
        assert codes(aspen.actor.propose(round_id, late)) == ["CLOCK"]
    assert len(refused(narrow)) == AT_ONCE
    clock.now += HOUR_S
    ask(narrow, QUESTION)
    assert sum(one.count for one in told(narrow)) == 30 - AT_ONCE
    assert "24 more requests here refused" in events.worded(told(narrow)[1])


@pytest.mark.parametrize("err", [SiloError("no", "mend it"), ValueError("unexpected")], ids=["own", "unexpected"])
def test_lines_of_every_kind_are_limited(tmp_path: Path, clock: Clock, err: Exception) -> None:
    teller = Teller(owner_log(tmp_path / "silo.log", "aspen"), clock)
    for _ in range(telling.AT_ONCE + 500):
        teller.failed(bytes(16), err)
    assert (tmp_path / "silo.log").read_text().count(" ERROR ") == telling.AT_ONCE
    clock.now += HOUR_S
    teller.failed(bytes(16), err)
    assert "500 lines on " in (tmp_path / "silo.log").read_text()


def test_what_is_paid_does_not_count(narrow: Simulation) -> None:
    for _ in range(AT_ONCE + 2):
        assert set(ask(narrow, QUESTION).values()) == {"answered"}


def test_a_day_of_floods_is_one_entry_an_hour_for_each_signer(narrow: Simulation, clock: Clock) -> None:
    aspen = narrow.silos["aspen"]
    ask(narrow, QUESTION)
    key = SigningKey(Secret(bytes(32)))
    for hour in range(24):
        for number in range(20):
            aspen.actor.propose(*proposal(narrow, 20 * hour + number, key))
        clock.now += HOUR_S
    aspen.actor.propose(*proposal(narrow, 1000, key))
    entries = ledger_of(aspen).entries(10_000)
    refused = [one for one in entries if isinstance(one.event, events.Decided) and one.event.codes]
    assert len(refused) <= 2 * AT_ONCE
    assert len(told(narrow)) <= 25
    assert sum(one.count for one in told(narrow)) + len(refused) >= 480, "each request is in the log, or counted there"


@pytest.mark.parametrize(("limit", "most"), [("MAX_REPLIES", 20), ("MAX_REPLY_BYTES", 16 << 10)])
def test_proposals_make_no_silo_forget_a_reply_of_a_charged_round(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    """The aggregator whose stream broke asks again: it gets the very same bytes."""
    monkeypatch.setattr(open_rounds, limit, most)
    ask(exact, QUESTION)
    aspen, repeated = exact.silos["aspen"], dict[str, bool]()
    key = SigningKey(Secret(bytes(32)))

    def before(step: str, arguments: tuple[bytes, ...]) -> None:
        if step not in ("agree", "open_shares"):
            return
        for number in range(50):
            assert codes(aspen.actor.propose(*proposal(exact, len(repeated) * 100 + number, key))) == ["SIGNATURE"]
        for earlier in STEPS[STEPS.index("ready") : STEPS.index(step)]:
            sent = next(frames for name, frames in reversed(aspen.seen) if name == f"> {earlier}")
            reply = next(frames for name, frames in reversed(aspen.seen) if name == f"< {earlier}")
            repeated[f"{earlier} at {step}"] = getattr(aspen.actor, earlier)(*sent) == reply

    aspen.before = before
    assert set(ask(exact, QUESTION).values()) == {"answered"}
    assert repeated
    assert all(repeated.values()), repeated


def test_lines_on_broken_rules_are_limited_and_the_owner_is_told(
    home: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("silo_node.telling.AT_ONCE", AT_ONCE)
    with simulate(home, clock=clock) as simulation:
        aspen = simulation.silos["aspen"]
        for number in range(200):
            aspen.actor.propose(number.to_bytes(16, "big"), b"garbage")
        log = aspen.policy.parent / "silo.log"
        assert log.read_text().count("WARNING") == AT_ONCE
        clock.now += HOUR_S
        aspen.actor.propose(bytes(16), b"garbage")
        assert f"{200 - AT_ONCE} lines on broken rules of the protocol were left out" in log.read_text()


def test_an_allowance_grows_to_its_limit_and_never_by_a_clock_set_back(clock: Clock) -> None:
    allowance = Allowance[str](2, 24, clock)
    assert [allowance.take("a") for _ in range(3)] == [True, True, False]
    assert allowance.take("b")
    clock.now -= DAY_S
    assert not allowance.take("a")
    clock.now += HOUR_S
    assert [allowance.take("a"), allowance.take("a")] == [True, False]
    allowance.give_back("a")
    allowance.give_back("never seen")
    assert [allowance.take("a"), allowance.take("a")] == [True, False]
    assert allowance.refused() == {"a": 4}
    allowance.told("a")
    assert allowance.refused() == {}
    clock.now += 10 * DAY_S
    assert [allowance.take("a") for _ in range(3)] == [True, True, False]
