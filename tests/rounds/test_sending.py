"""The time for which a silo may send a long vector, in a round: acceptance, expiry, waits, and who is left out."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from aggregator.capacity import Capacity
from aggregator.driver import STEP_TIMEOUT_S
from aggregator.reports import index_of
from aggregator.rounds import ROUND_S
from analyst.asking import Command
from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError, RoundError
from analyst.preview import preview, preview_lines
from analyst.training.job import read_job
from analyst.training.preview import preview_run, run_lines
from analyst.training.run import train
from crypto.rounds.manifest import Accept, Manifest, Propose
from crypto.rounds.messages import ShareKeys
from crypto.rounds.report import StoredReport
from crypto.wire import sign, unverified
from policies.requests.sending import at_rate, sent_of
from policies.units import SEND_S
from tests.harness.inside import known_to
from tests.harness.simulator import SimulatedSilo, Simulation, ask, no_noise, simulate
from tests.rounds.test_training import STEPS, found_banks

pytestmark = pytest.mark.slow  # seconds in all: `make check` runs it

LONG = "SELECT sex, ecog, COUNT(*) AS n FROM lung GROUP BY sex, ecog"  # 65,750 groups
SHORT = "SELECT ecog, COUNT(*) AS n FROM lung GROUP BY ecog"
SLOW = {"aspen": 100_000, "cedar": 4_000}  # bytes a second; of the others a million


@pytest.fixture(scope="module")
def wide(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation whose dimensions have so many values that one question is long, and of which two links are slow."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("wide") / "federation"))
    sexes = ", ".join(
        f'"{sex}"' for sex in ["female", "male", *(f"other-{number}" for number in range(260)), "unknown"]
    )
    changes = {
        '["female", "male", "unknown"]': f"[{sexes}]",
        "domain = [-1, 0, 1, 2, 3]": f"domain = {list(range(-1, 249))}",
        "max_groups     = 100": "max_groups     = 100000",
        "lifetime    = { rho = 1.0 }": "lifetime    = { rho = 3.0 }",
    }
    for policy in path.glob("silos/*/policy.toml"):
        text = policy.read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        rate = SLOW.get(policy.parent.name)
        policy.write_text(text if rate is None else f"{text}\n[vectors]\nbytes_per_second = {rate}\n")
    return path


@pytest.fixture(scope="module")
def simulation(wide: Path) -> Iterator[Simulation]:
    with simulate(wide, noise=no_noise) as found:
        yield found


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> "ContextVar[float]":
    """How long the aggregator waits for the call that is made, in the call itself; no test waits for it."""
    limit, wait_for = ContextVar[float]("limit"), asyncio.wait_for

    async def noted(call: Any, timeout: float) -> Any:
        limit.set(timeout)
        return await wait_for(call, timeout)

    monkeypatch.setattr("aggregator.driver.asyncio.wait_for", noted)
    return limit


def last(silo: SimulatedSilo, what: str) -> tuple[bytes, ...]:
    return [frames for step, frames in silo.seen if step == what][-1]


def spent(simulation: Simulation) -> dict[str, int]:
    return {silo: simulation.spent(silo) for silo in simulation.silos}


def ask_long(simulation: Simulation, send_deadline: int = SEND_S) -> dict[str, str]:
    report = simulation.federation.query(LONG, purpose=PURPOSE, epsilon=1, send_deadline=send_deadline)
    return {silo: outcome.status for silo, outcome in report.silos.items()}


def sends(simulation: Simulation, silo: str) -> int:
    """Return how many seconds the bytes of the long vector take over a silo's link, by hand."""
    _, request = simulation.federation.prepare(LONG, purpose=PURPOSE, epsilon=1)
    return -(-sent_of(request).input_bytes // SLOW.get(silo, 1_000_000))


def test_an_acceptance_states_the_time_and_the_round_lasts_as_much_longer_as_the_greatest(
    simulation: Simulation,
) -> None:
    assert ask_long(simulation, 200) == dict.fromkeys(simulation.silos, "answered")
    for name, silo in simulation.silos.items():
        accept = unverified(last(silo, "< propose")[0], Accept)
        assert accept.send_ms == 1000 * sends(simulation, name)
        expires_at = unverified(last(silo, "> propose")[1], Propose).expires_at
        manifest = unverified(ShareKeys.decode(last(silo, "> share")[1]).manifest, Manifest)
        assert manifest.expires_at == expires_at + sends(simulation, "cedar")
    assert ask(simulation, SHORT) == dict.fromkeys(simulation.silos, "answered")
    for silo in simulation.silos.values():
        envelope = last(silo, "< propose")[0]
        assert b"send_ms" not in envelope, "a short round has the bytes that it had"
        expires_at = unverified(last(silo, "> propose")[1], Propose).expires_at
        assert unverified(ShareKeys.decode(last(silo, "> share")[1]).manifest, Manifest).expires_at == expires_at


def test_a_silo_whose_link_is_too_slow_is_left_out_before_anything_is_charged(simulation: Simulation) -> None:
    before = spent(simulation)
    assert ask_long(simulation) == dict.fromkeys(simulation.silos, "answered") | {"cedar": "denied"}
    charged = {silo for silo, rho in spent(simulation).items() if rho > before[silo]}
    assert charged == set(simulation.silos) - {"cedar"}
    _, request = simulation.federation.prepare(LONG, purpose=PURPOSE, epsilon=1)
    found = preview(simulation.federation, Command(LONG, PURPOSE, 1.0))
    assert found.upload_bytes == sent_of(request).input_bytes
    assert {silo: one.sends_s for silo, one in found.silos.items()} == {
        silo: sends(simulation, silo) for silo in simulation.silos
    }
    ((denial,),) = found.refusals.values()
    told = "\n".join(preview_lines(found))
    assert f"cedar would refuse: SEND_DEADLINE (vectors.bytes_per_second): {denial.message}; {denial.remedy}" in told
    assert f"aspen: rho 0.02435, epsilon 1 there, sends up to {sends(simulation, 'aspen')} s" in told
    seconds = sends(simulation, "cedar")
    assert denial.remedy == f"ask with --send-deadline {seconds}, or for fewer values"
    assert not preview(simulation.federation, Command(LONG, PURPOSE, 1.0, send_deadline=seconds)).refusals
    assert ask_long(simulation, seconds)["cedar"] == "answered", "the remedy works"


@pytest.mark.parametrize(("over_s", "status"), [(-0.5, "answered"), (0.5, "dropped")])
def test_a_silo_that_is_too_slow_in_fact_is_dropped_and_its_charge_stands(
    simulation: Simulation, limits: "ContextVar[float]", over_s: float, status: str
) -> None:
    birch, before, waited = simulation.silos["birch"], spent(simulation), list[float]()
    gathers = Capacity().gathers_s(simulation.federation.prepare(LONG, purpose=PURPOSE, epsilon=1)[1])
    needs_s = STEP_TIMEOUT_S + sends(simulation, "cedar") + gathers + over_s

    def late(step: str, arguments: tuple[bytes, ...]) -> None:
        if step == "contribute":
            waited.append(limits.get())

    def arrives(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step == "contribute" and needs_s > limits.get():
            raise TimeoutError
        return frames

    birch.before, birch.rewrite = late, arrives
    try:
        assert ask_long(simulation, 200) == dict.fromkeys(simulation.silos, "answered") | {"birch": status}
    finally:
        simulation.mend()
    assert waited == [STEP_TIMEOUT_S + sends(simulation, "cedar") + gathers], "as the slowest of the round states"
    assert spent(simulation)["birch"] > before["birch"]


def test_a_short_round_waits_no_longer_than_it_did(simulation: Simulation, limits: "ContextVar[float]") -> None:
    waited = list[tuple[str, float]]()
    simulation.silos["birch"].before = lambda step, _: waited.append((step, limits.get()))
    ask(simulation, SHORT)
    simulation.mend()
    assert {limit for step, limit in waited if step != "cancel"} == {STEP_TIMEOUT_S}


def test_a_silo_that_states_more_than_the_request_waits_is_missing(simulation: Simulation) -> None:
    birch = simulation.silos["birch"]

    def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if step != "propose":
            return frames
        longer = unverified(frames[0], Accept).model_copy(update={"send_ms": 1000 * SEND_S + 1})
        return (sign(longer, "birch", known_to(birch).signing), *frames[1:])

    birch.rewrite = rewrite
    before = simulation.spent("birch")
    assert ask_long(simulation)["birch"] == "left out"
    simulation.mend()
    assert simulation.spent("birch") == before


def test_what_would_be_sent_too_late_is_not_charged(wide: Path, tmp_path: Path) -> None:
    """When the round has ten seconds left, there is time for the six of aspen, and not for the 132 of cedar."""
    path = Path(shutil.copytree(wide, tmp_path / "federation"))
    began, late_s = time.time(), 0
    with simulate(path, noise=no_noise, clock=lambda: began + late_s) as simulation:
        gathers = Capacity().gathers_s(simulation.federation.prepare(LONG, purpose=PURPOSE, epsilon=1)[1])
        ends_s, before = ROUND_S + gathers + sends(simulation, "cedar"), spent(simulation)

        def rewrite(step: str, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
            nonlocal late_s
            late_s = ends_s - 10 if step == "ready" else late_s
            return frames

        simulation.silos["rowan"].rewrite = rewrite
        assert ask_long(simulation, 200) == dict.fromkeys(before, "answered") | {"cedar": "unable"}
        charged = {silo for silo, rho in spent(simulation).items() if rho > before[silo]}
        assert charged == set(before) - {"cedar"}


def test_a_vector_longer_than_every_policy_is_refused_and_nothing_is_charged(wide: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(wide, tmp_path / "federation"))
    for policy in path.glob("silos/*/policy.toml"):
        text, section = policy.read_text(), "" if policy.parent.name in SLOW else "\n[vectors]"
        policy.write_text(f"{text}{section}\nmax_values = 65753\n")
    with simulate(path, noise=no_noise) as simulation:
        before = spent(simulation)
        with pytest.raises(DeniedError) as caught:
            ask_long(simulation, 200)
        (denial,) = caught.value.denials["birch"]
        assert denial.message == "the vector has 65,754 values, and this silo contributes at most 65,753"
        assert {one.code for denials in caught.value.denials.values() for one in denials} == {"MAX_VALUES"}
        assert set(preview(simulation.federation, Command(LONG, PURPOSE, 1.0)).refusals) == set(simulation.silos)
        assert spent(simulation) == before
        assert ask(simulation, SHORT)["birch"] == "answered"


def test_a_round_that_does_not_fit_on_the_aggregator_s_disk_is_refused_before_any_silo_is_asked(
    wide: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(wide, tmp_path / "federation"))
    with simulate(path, noise=no_noise) as simulation:
        _, request = simulation.federation.prepare(LONG, purpose=PURPOSE, epsilon=1)
    sent, silos = sent_of(request), len(request.silos)
    needed = silos * sent.input_bytes + sent.sum_bytes
    for capacity, what, bytes_needed in (
        (Capacity(contribution_bytes=needed - 1), "contributions", needed),
        (Capacity(report_bytes=sent.sum_bytes - 1), "reports", sent.sum_bytes),
    ):
        with simulate(path, noise=no_noise, capacity=capacity) as simulation:
            before = spent(simulation)
            with pytest.raises(RoundError) as caught:
                ask_long(simulation, 200)
            figures = f"{silos} vectors of 65,754 values need {bytes_needed:,} bytes of "
            kept = f", and the aggregator keeps {bytes_needed - 1:,}; "
            for text in (str(caught.value), preview(simulation.federation, Command(LONG, PURPOSE, 1.0)).no_room):
                assert figures in text
                assert kept in text
                assert f"ask its operator for --{what}-gib 1" in text
            told = "\n".join(preview_lines(preview(simulation.federation, Command(LONG, PURPOSE, 1.0))))
            assert f"the aggregator would refuse: {figures}" in told
            assert spent(simulation) == before
            assert not any(step == "> propose" for silo in simulation.silos.values() for step, _ in silo.seen)
            assert ask(simulation, SHORT)["birch"] == "answered", "what fits is answered"
    with simulate(path, noise=no_noise, capacity=Capacity(needed, sent.sum_bytes)) as simulation:
        assert not preview(simulation.federation, Command(LONG, PURPOSE, 1.0)).no_room
        assert ask_long(simulation, 200)["birch"] == "answered"


def test_a_long_report_is_waited_for_as_its_bytes_take_over_the_slowest_link(simulation: Simulation) -> None:
    ask_long(simulation, 200)
    found = index_of(StoredReport.decode(simulation.reports[-1]).message)
    _, request = simulation.federation.prepare(LONG, purpose=PURPOSE, epsilon=1)
    sent = sent_of(request)
    assert found.receives_s == at_rate(sent.sum_bytes, sent.input_bytes, sends(simulation, "cedar")) > 0
    ask(simulation, SHORT)
    assert index_of(StoredReport.decode(simulation.reports[-1]).message).receives_s == 0


@pytest.mark.torch
def test_silos_are_taught_a_long_sum_within_the_time_that_its_bytes_take(
    tmp_path: Path, limits: "ContextVar[float]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every vector of more than one value counts as long here."""
    monkeypatch.setattr("policies.requests.sending.is_long", lambda backend, values: values > 1)
    with simulate(found_banks(tmp_path / "banks"), noise=no_noise) as simulation:
        waited, job = list[tuple[str, float]](), read_job(simulation.path / "job.toml")
        simulation.silos["east"].before = lambda step, _: waited.append((step, limits.get()))
        found = preview_run(simulation.federation, job)
        assert {one.sends_s for one in found.silos.values()} == {1}
        assert "sends up to 1 s a round" in "\n".join(run_lines(found))
        assert train(simulation.federation, job).steps == STEPS
        index = index_of(StoredReport.decode(simulation.reports[-1]).message)
        assert index.receives_s == len(simulation.silos) + 1, "the sum and every masked input, a second each"
        assert {limit for step, limit in waited if step == "learn"} == {STEP_TIMEOUT_S + index.receives_s}
        assert {limit for step, limit in waited if step == "contribute"} == {STEP_TIMEOUT_S + 1 + 1}
