"""A silo's shell: one process a home, files for its owner only, bounded rounds; and silos that answer wrongly."""

import stat
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from aggregator.core import propose
from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError, FederationError
from crypto.keys import SigningKey
from crypto.manifest import Accept, Recipient
from crypto.opening import _quorums
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import sign, unverified
from policies.request import Request
from silo_node.actor import MAX_ROUNDS, SiloActor
from silo_node.core import Agreed
from silo_node.errors import HomeError
from tests.simulator import Simulation, simulate

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"


def ask(simulation: Simulation) -> dict[str, str]:
    report = simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    return {silo: outcome.status for silo, outcome in report.silos.items()}


def test_two_processes_cannot_run_one_silo(exact: Simulation) -> None:
    with pytest.raises(HomeError, match="running already") as caught:
        SiloActor(str(exact.silos["aspen"].policy))
    assert "consilo up" in caught.value.hint
    exact.silos["aspen"].restarts = True
    exact.silos["aspen"].kill()  # the lock ends with its holder
    assert ask(exact)["aspen"] == "answered"


def test_what_a_silo_writes_is_for_its_owner_only(exact: Simulation) -> None:
    ask(exact)
    home = exact.silos["aspen"].policy.parent
    for name in ("silo.log", "identity.key"):
        mode = stat.S_IMODE((home / name).stat().st_mode)
        assert not mode & 0o077, f"{name} has mode {mode:04o}"
    assert not stat.S_IMODE(home.stat().st_mode) & 0o077
    report = next((exact.path / "aggregator" / "reports").iterdir())
    assert not stat.S_IMODE(report.stat().st_mode) & 0o077


def test_a_silo_with_a_round_key_that_nothing_can_be_sealed_to_is_left_out(exact: Simulation) -> None:
    ask(exact)
    key = exact.silos["cedar"].actor._silo.signing

    def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step != "propose":
            return frames
        weak = unverified(frames[0], Accept).model_copy(update={"channel_key": bytes(PUBLIC_BYTES)})
        return (sign(weak, "cedar", key),)

    exact.silos["cedar"].rewrite = rewrite
    statuses = ask(exact)
    assert statuses.pop("cedar") == "missing"
    assert set(statuses.values()) == {"answered"}, "the honest are not blamed"


def test_one_wrong_opened_share_does_not_spoil_the_report(exact: Simulation) -> None:
    """Five open, four are a quorum: those that hold the wrong share are passed over."""
    ask(exact)
    aspen = exact.silos["aspen"]
    original = aspen.actor.open_shares
    lies = []

    def lie(round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        state = aspen.actor._rounds[round_id]
        assert isinstance(state, Agreed)
        wrong = tuple(bytes(32) for _ in state.before.self_shares)
        aspen.actor._rounds[round_id] = replace(state, before=replace(state.before, self_shares=wrong))
        lies.append(round_id)
        return original(round_id, data)

    aspen.actor.open_shares = lie  # type: ignore[method-assign]
    assert set(ask(exact).values()) == {"answered"}
    assert len(lies) == 1


def test_with_many_openings_one_wrong_share_is_passed_over_at_once() -> None:
    """From 15 silos on, the quorums that hold the first silo are more than are tried in all."""
    parties = list(range(15))
    tried = list(islice(_quorums(parties, 11), 17))
    for wrong in parties:
        assert any(wrong not in quorum for quorum in tried)
    assert all(len(set(quorum)) == 11 for quorum in tried)


def test_a_recipient_that_is_no_analyst_of_the_policy_is_refused(exact: Simulation) -> None:
    federation = exact.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    stranger = Recipient(name="eve", key=request.recipients[0].key)
    widened = Request.model_validate({**dict(request), "recipients": (*request.recipients, stranger)})
    with pytest.raises(DeniedError, match="RECIPIENT_UNKNOWN"):
        federation.submit(widened)
    assert all(exact.spent(silo) == 0 for silo in exact.silos)


def test_an_analyst_whose_term_ended_sees_no_catalogue(home: Path) -> None:
    for policy in home.glob("silos/*/policy.toml"):
        policy.write_text(policy.read_text().replace("until    = 2036", "until    = 2026"))
    with simulate(home) as simulation, pytest.raises(DeniedError, match="ANALYST_UNKNOWN"):
        ask(simulation)


def test_a_failing_silo_is_not_reported_as_a_refusal(exact: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    for silo in exact.silos.values():
        monkeypatch.setattr(silo.actor, "_catalogue", lambda data: 1 / 0)
    with pytest.raises(FederationError, match="the step failed at the silo"):
        ask(exact)


@pytest.mark.parametrize("tick", ["-1", "60001", '"20"', "true"])
def test_a_tick_outside_its_bounds_does_not_start(home: Path, tick: str) -> None:
    settings = home / "silos" / "aspen" / "silo.toml"
    settings.write_text(settings.read_text().replace("tick_ms = 10", f"tick_ms = {tick}"))
    with pytest.raises(HomeError, match="tick_ms"):
        SiloActor(str(home / "silos" / "aspen" / "policy.toml"))


def test_the_number_of_open_rounds_is_bounded_and_what_is_evicted_is_released(exact: Simulation) -> None:
    federation, aspen = exact.federation, exact.silos["aspen"]
    assert isinstance(federation._signing, SigningKey)
    for index in range(MAX_ROUNDS + 5):
        _, request = federation.prepare("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.05)
        envelope = sign(request, federation.analyst, federation._signing)
        round_id = index.to_bytes(16, "big")
        proposed = propose(exact.server._aggregator, envelope, round_id, int(aspen.clock()))
        aspen.actor.propose(round_id, proposed.envelope)
    assert len(aspen.actor._rounds) == MAX_ROUNDS
    one = exact.spent("aspen") // MAX_ROUNDS
    assert exact.spent("aspen") == one * MAX_ROUNDS
    for round_id in list(aspen.actor._rounds):
        aspen.actor.cancel(round_id)
    assert exact.spent("aspen") == 0
