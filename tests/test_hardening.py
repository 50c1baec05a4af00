"""What a careful reading found once, each kept as a test: locks, file modes, wrong shares, late additions, bounds."""

import asyncio
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from aggregator.sums import LocalSums
from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError, FederationError
from crypto.errors import ProtocolError
from crypto.keys import SigningKey
from crypto.manifest import Accept, Recipient
from crypto.messages import Opening, chunk_digests
from crypto.sealing import PUBLIC_BYTES
from crypto.wire import sign, unverified
from policies.request import Request, Table, TableColumn
from silo_node.actor import MAX_ROUNDS, SiloActor
from silo_node.errors import HomeError
from tests.simulator import Simulation, simulate

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"


def ask(simulation: Simulation) -> dict[str, str]:
    report = simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=1)
    return {silo: outcome.status for silo, outcome in report.silos.items()}


def test_a_table_that_defines_a_column_twice_is_refused() -> None:
    """Else the price would be computed from one definition and the answer from the other."""
    narrow, wide = (TableColumn(name="stay", type="int", low=0, high=high, step="1") for high in (1, 1000))
    with pytest.raises(ValidationError, match="defined twice"):
        Table(name="lung", max_rows=1, max_silos=1, columns=(narrow, wide))


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
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "silo.log", "identity.key"):
        mode = stat.S_IMODE((home / name).stat().st_mode)
        assert not mode & 0o077, f"{name} has mode {mode:04o}"
    assert not stat.S_IMODE(home.stat().st_mode) & 0o077
    report = next((exact.path / "aggregator" / "reports").iterdir())
    assert not stat.S_IMODE(report.stat().st_mode) & 0o077


def test_a_sum_that_holds_another_set_than_agreed_is_never_released() -> None:
    """A contribution may be added just after the round stopped waiting for it."""

    async def run() -> None:
        sums, payload = LocalSums(), bytes(80)
        await sums.start(b"r", 10, 64)
        for silo in ("a", "b"):
            await sums.add(b"r", silo, chunk_digests(payload, 8), (payload,))
        with pytest.raises(ProtocolError, match="exactly the contributions"):
            await sums.total(b"r", ("a",))

    asyncio.run(run())


def test_a_contribution_is_added_once_whole_and_as_signed() -> None:
    async def run() -> None:
        sums, payload = LocalSums(), bytes(80)
        await sums.start(b"r", 10, 64)
        await sums.add(b"r", "a", chunk_digests(payload, 8), (payload,))
        for silo, frames in (("a", (payload,)), ("b", (payload[:-8],)), ("b", (bytes(79) + b"\1",))):
            with pytest.raises(ProtocolError):
                await sums.add(b"r", silo, chunk_digests(payload, 8), frames)
        assert await sums.total(b"r", ("a",)) == payload

    asyncio.run(run())


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

    def lie(round_id: bytes, data: bytes) -> tuple[bytes, ...]:
        state = aspen.actor._rounds[round_id]
        before = state.before  # type: ignore[union-attr]
        wrong = tuple(bytes(32) for _ in before.self_shares)  # type: ignore[union-attr]
        object.__setattr__(before, "self_shares", wrong)
        return original(round_id, data)

    aspen.actor.open_shares = lie  # type: ignore[method-assign]
    assert set(ask(exact).values()) == {"answered"}
    assert unverified(lie_opening(exact), Opening).sealed


def lie_opening(exact: Simulation) -> bytes:
    return next(frames[0] for step, frames in reversed(exact.silos["aspen"].seen) if step == "< open_shares")


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
    from aggregator.core import propose

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
