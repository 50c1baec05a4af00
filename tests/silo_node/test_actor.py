"""A silo's shell: one process a home, files for its owner only, bounded rounds; and silos that answer wrongly."""

import stat
import time
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aggregator.rounds import ROUND_S, cancel, propose, read_request
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, DeniedError, RoundError
from crypto.keys import Secret, SigningKey
from crypto.rounds.manifest import Accept, Recipient
from crypto.rounds.messages import Cancel, Failed
from crypto.rounds.opening import quorums
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import sign, unverified
from federation.errors import FederationError
from policies.requests.catalogue import Catalogue
from policies.requests.request import Request
from policies.units import UNDECLARED_S
from silo_node.actor import SiloActor
from silo_node.errors import HomeError
from silo_node.rounds import states
from silo_node.rounds.open_rounds import MAX_ROUNDS_OF_ONE
from silo_node.rounds.states import Agreed
from tests.harness.inside import aggregator_of, computer_of, key_of, known_to, rounds_of, teach
from tests.harness.simulator import Simulation, ask, no_noise, simulate

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"


def test_rows_of_one_group_of_a_person_enter_where_the_policy_says_so(home: Path) -> None:
    """Everybody of one silo has a row in either group, and the policy lets one group of a person in."""
    data = home / "silos" / "aspen" / "lung.parquet"
    table = pq.read_table(data)
    other = pa.array(["male" if sex == "female" else "female" for sex in table["sex"].to_pylist()])
    place = table.column_names.index("sex")
    pq.write_table(pa.concat_tables([table, table.set_column(place, "sex", other)]), data)
    totals = []
    for bound in ("max_rows  = 4", "max_rows  = 4\nmax_groups = 1"):
        for policy in home.glob("silos/*/policy.toml"):
            lines = policy.read_text().splitlines()
            policy.write_text("\n".join(bound if line.startswith("max_rows") else line for line in lines))
        with simulate(home, noise=no_noise) as simulation:
            report = simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
            totals.append(round(sum(report.to_pandas()["n"])))
    assert totals == [228 + table.num_rows, 228]


def test_two_processes_cannot_run_one_silo(exact: Simulation) -> None:
    with pytest.raises(HomeError, match="running already") as caught:
        SiloActor(str(exact.silos["aspen"].policy))
    assert "consilo up" in caught.value.hint
    exact.silos["aspen"].restarts = True
    exact.silos["aspen"].kill()  # the lock ends with its holder
    assert ask(exact, QUESTION)["aspen"] == "answered"


def test_what_a_silo_writes_is_for_its_owner_only(exact: Simulation) -> None:
    ask(exact, QUESTION)
    home = exact.silos["aspen"].policy.parent
    for name in ("silo.log", "identity.key"):
        mode = stat.S_IMODE((home / name).stat().st_mode)
        assert not mode & 0o077, f"{name} has mode {mode:04o}"
    assert not stat.S_IMODE(home.stat().st_mode) & 0o077
    report = next((exact.path / "aggregator" / "reports").iterdir())
    assert not stat.S_IMODE(report.stat().st_mode) & 0o077


def test_a_silo_with_a_round_key_that_nothing_can_be_sealed_to_is_left_out(shared: Simulation) -> None:
    ask(shared, QUESTION)
    key = known_to(shared.silos["cedar"]).signing

    def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step != "propose":
            return frames
        weak = unverified(frames[0], Accept).model_copy(update={"channel_key": bytes(PUBLIC_BYTES)})
        return (sign(weak, "cedar", key),)

    shared.silos["cedar"].rewrite = rewrite
    statuses = ask(shared, QUESTION)
    assert statuses.pop("cedar") == "left out"
    assert set(statuses.values()) == {"answered"}, "the honest are not blamed"


def test_one_wrong_opened_share_does_not_spoil_the_report(exact: Simulation) -> None:
    """Five open, four are a quorum: those that hold the wrong share are passed over."""
    ask(exact, QUESTION)
    aspen = exact.silos["aspen"]
    original = aspen.actor.open_shares
    lies = []

    def lie(round_id: bytes, data: bytes, *columns: bytes) -> tuple[bytes, ...]:
        state = rounds_of(aspen)[round_id]
        assert isinstance(state, Agreed)
        wrong = tuple(bytes(32) for _ in state.shares.of_self)
        rounds_of(aspen)[round_id] = replace(state, shares=replace(state.shares, of_self=wrong))
        lies.append(round_id)
        return original(round_id, data)

    aspen.actor.open_shares = lie  # type: ignore[method-assign]
    assert set(ask(exact, QUESTION).values()) == {"answered"}
    assert len(lies) == 1


def test_with_many_openings_one_wrong_share_is_passed_over_at_once() -> None:
    """From 15 silos on, the quorums that hold the first silo are more than are tried in all."""
    parties = list(range(15))
    tried = list(islice(quorums(parties, 11), 17))
    for wrong in parties:
        assert any(wrong not in quorum for quorum in tried)
    assert all(len(set(quorum)) == 11 for quorum in tried)


def altered(request: Request, **changes: object) -> Request:
    return Request.model_validate({**dict(request), **changes})


def refuse(simulation: Simulation, request: Request, code: str) -> None:
    before = {silo: simulation.spent(silo) for silo in simulation.silos}
    with pytest.raises(DeniedError, match=code):
        simulation.federation.submit(request)
    assert before == {silo: simulation.spent(silo) for silo in simulation.silos}


def test_nobody_but_the_asking_analyst_receives(shared: Simulation) -> None:
    _, request = shared.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    own = request.recipients[0]
    refuse(shared, altered(request, recipients=(own, Recipient(name="eve", key=own.key))), "RECIPIENT_CLOSED")
    silos = shared.federation.config.roster.recipients(request.silos)
    refuse(shared, altered(request, recipients=silos), "RECIPIENT_CLOSED")


def test_a_recipient_key_that_nothing_can_be_sealed_to_costs_nothing(exact: Simulation) -> None:
    _, request = exact.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    weak = altered(request, recipients=(Recipient(name=exact.federation.analyst, key=bytes(PUBLIC_BYTES)),))
    with pytest.raises(RoundError):
        exact.federation.submit(weak)
    assert all(exact.spent(silo) == 0 for silo in exact.silos)


def test_a_filter_cannot_leave_out_the_domain_that_the_policy_closes(shared: Simulation) -> None:
    question = "SELECT COUNT(*) AS n FROM lung WHERE ecog = 1"
    _, request = shared.federation.prepare(question, purpose=PURPOSE, epsilon=1)
    (column,) = request.table.columns
    bare = column.model_copy(update={"domain": (), "unknown": None})
    refuse(shared, altered(request, table=request.table.model_copy(update={"columns": (bare,)})), "DEFINITION")


def test_a_computation_that_fails_is_nothing_and_noise_at_the_deadline(
    exact: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So nobody outside can tell from a failure that rows are what they are, and a charge computes on rows once."""
    whole = count(exact)
    aspen = exact.silos["aspen"].actor
    computed: list[Request] = []

    def fail(request: Request, now: int) -> list[list[int]]:
        computed.append(request)
        raise ZeroDivisionError

    monkeypatch.setattr(computer_of(aspen), "computed", fail)
    before = exact.spent("aspen")
    slept = exact.silos["aspen"].slept
    slept.clear()
    assert 0 < count(exact) < whole
    assert len(computed) == 1
    (at_the_end,) = slept
    assert UNDECLARED_S - 5 < at_the_end < UNDECLARED_S + 1
    assert exact.spent("aspen") > before
    assert not rounds_of(aspen)
    assert "answered by nothing and noise" in (exact.silos["aspen"].policy.parent / "silo.log").read_text()
    monkeypatch.undo()
    assert count(exact) == whole


def count(simulation: Simulation) -> float:
    report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=1)
    assert report.silos["aspen"].status == "answered"
    return float(report.to_records()[0]["n"])


def test_a_proposal_under_a_false_round_id_releases_nothing(exact: Simulation) -> None:
    federation, aspen = exact.federation, exact.silos["aspen"]
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    envelope = sign(request, federation.analyst, key_of(federation))
    now = int(aspen.clock())
    first, second = (propose(aggregator_of(exact.server), read_request(envelope), bytes([n]) * 16, now) for n in (1, 2))
    aspen.actor.propose(b"\1" * 16, first.envelope)
    reserved = exact.spent("aspen")
    assert reserved > 0
    assert unverified(aspen.actor.propose(b"\3" * 16, second.envelope)[0], Failed).reason.endswith("another round")
    assert exact.spent("aspen") == reserved
    assert list(rounds_of(aspen)) == [b"\1" * 16]


def test_a_stranger_cannot_fill_the_log(exact: Simulation) -> None:
    aspen = exact.silos["aspen"]
    log = aspen.policy.parent / "silo.log"
    log.chmod(0o644)
    before = log.stat().st_size
    (reply,) = aspen.actor.share(bytes(2_000_000), b"")
    assert "16 bytes" in unverified(reply, Failed).reason
    aspen.actor.share(bytes(16), bytes(2_000_000))
    assert log.stat().st_size - before < 1000


@pytest.mark.parametrize(
    "change", [{"max_colluding": 100}, {"min_silos": 100}, {"round_id": bytes(16)}, {"request_hash": bytes(32)}]
)
def test_one_silo_with_impossible_conditions_or_a_stale_acceptance_is_left_out(
    shared: Simulation, change: dict[str, object]
) -> None:
    ask(shared, QUESTION)
    key = known_to(shared.silos["cedar"]).signing

    def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step != "propose":
            return frames
        return (sign(unverified(frames[0], Accept).model_copy(update=change), "cedar", key),)

    shared.silos["cedar"].rewrite = rewrite
    statuses = ask(shared, QUESTION)
    assert statuses.pop("cedar") == "left out"
    assert set(statuses.values()) == {"answered"}


def test_a_reply_that_is_no_bytes_is_no_reply(shared: Simulation) -> None:
    ask(shared, QUESTION)
    shared.silos["cedar"].rewrite = lambda step, frames: (None,)  # type: ignore[assignment,return-value]
    assert ask(shared, QUESTION)["cedar"] == "left out", "it did answer"


@pytest.mark.parametrize("change", [{"delta": "abc"}, {"delta": "0"}, {"delta": "1e-300"}, {"max_silos": 2**31 - 1}])
def test_one_impossible_catalogue_does_not_stop_a_question(shared: Simulation, change: dict[str, object]) -> None:
    cedar = shared.silos["cedar"]
    key = known_to(cedar).signing

    def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step != "catalogue":
            return frames
        return (sign(unverified(frames[0], Catalogue).model_copy(update=change), "cedar", key),)

    cedar.rewrite = rewrite
    statuses = ask(shared, QUESTION)
    assert statuses.pop("cedar") == "missing"
    assert set(statuses.values()) == {"answered"}


def test_an_analyst_whose_term_ended_sees_no_catalogue(home: Path) -> None:
    for policy in home.glob("silos/*/policy.toml"):
        policy.write_text(policy.read_text().replace("until    = 2036", "until    = 2026"))
    with simulate(home) as simulation, pytest.raises(DeniedError, match="ANALYST_UNKNOWN"):
        ask(simulation, QUESTION)


def test_a_failing_silo_is_not_reported_as_a_refusal(shared: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo_node.publishing.catalogue_of", lambda *_: 1 / 0)
    with pytest.raises(FederationError, match="the step failed at the silo"):
        ask(shared, QUESTION)


@pytest.mark.parametrize("tick", ["-1", "60001", '"20"', "true"])
def test_a_tick_outside_its_bounds_does_not_start(home: Path, tick: str) -> None:
    settings = home / "silos" / "aspen" / "silo.toml"
    settings.write_text(settings.read_text().replace("tick_ms = 10", f"tick_ms = {tick}"))
    with pytest.raises(HomeError, match="tick_ms"):
        SiloActor(str(home / "silos" / "aspen" / "policy.toml"))


def test_the_number_of_open_rounds_is_bounded_and_what_is_evicted_is_released(exact: Simulation) -> None:
    federation, aspen = exact.federation, exact.silos["aspen"]
    assert isinstance(key_of(federation), SigningKey)
    for index in range(MAX_ROUNDS_OF_ONE + 5):
        _, request = federation.prepare("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.05)
        envelope = sign(request, federation.analyst, key_of(federation))
        round_id = index.to_bytes(16, "big")
        proposed = propose(aggregator_of(exact.server), read_request(envelope), round_id, int(aspen.clock()))
        aspen.actor.propose(round_id, proposed.envelope)
    assert len(rounds_of(aspen)) == MAX_ROUNDS_OF_ONE
    one = exact.spent("aspen") // MAX_ROUNDS_OF_ONE
    assert exact.spent("aspen") == one * MAX_ROUNDS_OF_ONE
    for round_id in list(rounds_of(aspen)):
        aspen.actor.cancel(round_id, cancel(aggregator_of(exact.server), round_id))
    assert exact.spent("aspen") == 0


def test_only_who_proposed_a_round_can_cancel_it(exact: Simulation) -> None:
    federation, aspen, hub = exact.federation, exact.silos["aspen"], aggregator_of(exact.server)
    other = replace(hub, name="other", signing=SigningKey(Secret(bytes(32))))
    teach(aspen, aggregators={**known_to(aspen).aggregators, "other": other.signing.public})
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    round_id, envelope = b"r" * 16, sign(request, federation.analyst, key_of(federation))
    aspen.actor.propose(round_id, propose(hub, read_request(envelope), round_id, int(aspen.clock())).envelope)
    spent = exact.spent("aspen")
    message = unverified(cancel(hub, round_id), Cancel)
    for forged in (
        b"",
        bytes(300),
        cancel(hub, b"s" * 16),
        cancel(other, round_id),
        cancel(replace(hub, signing=other.signing), round_id),
        sign(message, federation.analyst, key_of(federation)),
        sign(message, "birch", known_to(exact.silos["birch"]).signing),
    ):
        (reply,) = aspen.actor.cancel(round_id, forged)
        assert unverified(reply, Failed).round_id == round_id
        assert list(rounds_of(aspen)) == [round_id]
        assert exact.spent("aspen") == spent > 0
    assert aspen.actor.cancel(round_id, cancel(hub, round_id)) == ()
    assert aspen.actor.cancel(round_id, cancel(hub, round_id)) == (), "once more changes nothing"
    assert not rounds_of(aspen)
    assert exact.spent("aspen") == 0


AFTER = {
    "share": states.KeysShared,
    "ready": states.Received,
    "contribute": states.Contributed,
    "agree": states.Agreed,
}


@pytest.mark.parametrize("step", AFTER)
def test_a_round_can_be_cancelled_at_every_step(shared: Simulation, step: str) -> None:
    aspen, hub, kept = shared.silos["aspen"], aggregator_of(shared.server), AFTER[step]
    found: list[bool] = []

    def cancelled(done: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if done == step:
            ((round_id, state),) = rounds_of(aspen).items()
            found.append(isinstance(state, kept))
            aspen.actor.cancel(round_id, b"")
            assert rounds_of(aspen)
            aspen.actor.cancel(round_id, cancel(hub, round_id))
            assert not rounds_of(aspen)
        return frames

    aspen.rewrite = cancelled
    with suppress(AnalystError):
        shared.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    assert found
    assert all(found)


def test_an_expired_round_is_erased_and_released_though_no_message_comes(exact: Simulation) -> None:
    federation, aspen = exact.federation, exact.silos["aspen"]
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=1)
    envelope = sign(request, federation.analyst, key_of(federation))
    # As if the aggregator had asked for a round that ends in three seconds.
    proposed = propose(aggregator_of(exact.server), read_request(envelope), bytes(16), int(aspen.clock()) + 3 - ROUND_S)
    aspen.actor.propose(bytes(16), proposed.envelope)
    assert rounds_of(aspen)
    assert exact.spent("aspen") > 0
    deadline = time.monotonic() + 30
    while rounds_of(aspen) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not rounds_of(aspen), "its secrets are referenced no more"
    assert exact.spent("aspen") == 0
