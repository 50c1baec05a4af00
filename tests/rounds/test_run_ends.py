"""A training run is reserved as a whole, and gives back what has not begun once a quorum has signed that it is over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analyst.errors import DeniedError
from analyst.training.abandoning import abandon, show_abandoned
from analyst.training.job import read_job
from analyst.training.stopping import owed_file
from analyst.training.told import show_training, to_json
from crypto.keys import Secret, SigningKey
from crypto.rounds.messages import Failed, ModelUpdated, RunEnd, Stopped
from crypto.wire import detach, sign, signer_of, unverified
from policies.budget.ledger import RESERVED_S
from policies.requests.logistic import LogisticStep
from policies.units import MICRO
from silo_node.ledger.events import worded
from silo_node.training.models import MODELS
from silo_node.training.run import RunState
from tests.harness.inside import known_to, ledger_of
from tests.harness.simulator import Simulation, simulate
from tests.rounds.test_training import (
    PRIVATE,
    RATE,
    SILOS,
    STEPS,
    asked,
    banks,
    begun,
    charges,
    found_banks,
    models,
    run,
)

pytestmark = pytest.mark.torch

KIND = LogisticStep.model_fields["kind"].default


def ends_after(monkeypatch: pytest.MonkeyPatch, step: int, why: RunEnd = "diverged") -> None:
    """Let the silos find at a step that the run is at its end, as they may from an opened sum."""
    moved = MODELS[KIND]

    def ending(*arguments: Any) -> RunState:
        state = moved(*arguments)
        return state.model_copy(update={"ended_early": why if state.done >= step else None})

    monkeypatch.setattr("silo_node.rounds.learning.MODELS", {**MODELS, KIND: ending})


def reserved(simulation: Simulation) -> list[int]:
    return [sum(one.parts for one in ledger_of(silo).reservations()) for silo in simulation.silos.values()]


def spent_steps(simulation: Simulation, silo: str = "east") -> float:
    """Return what counts as spent at a silo, in steps of the run."""
    return simulation.spent(silo) / charges(simulation, silo)[0].micro_rho


def said(simulation: Simulation, silo: str, kind: str) -> list[str]:
    entries = ledger_of(simulation.silos[silo]).entries(1000)
    return [worded(entry.event) for entry in entries if entry.event.kind == kind]


def keep_of(file: Path) -> Path:
    return file.with_name("keep.json")


def test_a_run_is_reserved_as_a_whole_and_pays_from_it_to_the_end(tmp_path: Path) -> None:
    with banks(tmp_path / "f", lifetime="2.0") as (simulation, file):
        seen: list[tuple[float, list[int]]] = []

        def others_ask(done: int) -> None:
            seen.append((round(spent_steps(simulation), 2), reserved(simulation)))
            if done == 1:  # then others would spend all that is left, and the run's part is not left to them
                with pytest.raises(DeniedError, match="BUDGET_LIFETIME"):
                    simulation.federation.query("SELECT COUNT(*) FROM loans", purpose="lending", epsilon=9)
                simulation.federation.query("SELECT COUNT(*) FROM loans", purpose="lending", epsilon=2)

        training = run(simulation, file, others_ask)
        assert [left for _, left in seen] == [[STEPS - 1 - done] * len(SILOS) for done in range(STEPS)]
        assert seen[0][0] == pytest.approx(STEPS, abs=0.05)
        assert reserved(simulation) == [0] * len(SILOS)
        assert training.reserved == training.rho
        assert training.released is None
        shown = show_training(training, read_job(file), {})
        assert f"reserved ahead, before the first step: rho {training.reserved:g}" in shown
        assert "released" not in shown


def test_a_run_that_ends_early_gives_back_what_has_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_after(monkeypatch, 2)
    with banks(tmp_path / "f") as (simulation, file):
        training = run(simulation, file)
        assert (training.steps, training.ended) == (2, "diverged")
        assert spent_steps(simulation) == 2
        assert reserved(simulation) == [0] * len(SILOS)
        assert training.rho == pytest.approx(simulation.spent("east") / MICRO, rel=0.01)
        assert training.stopping is not None
        assert training.stopping.released == SILOS
        assert not keep_of(file).exists()
        shown = show_training(training, read_job(file), {})
        assert f"released: rho {training.released:g}, as the run is over, at {', '.join(SILOS)}" in shown
        assert '"released_at": [' in to_json(training)
        assert said(simulation, "west", "run-stop")[0].endswith("is taken: diverged")
        assert "it is over; rho" in said(simulation, "west", "run-release")[-1]
        # No resume can run what was given back, not even with a file that says that the run goes on.
        last, position = asked(simulation)[-1], models(simulation)["east"].position
        assert isinstance(last.plan, LogisticStep)
        following = last.plan.model_copy(update={"step": 2, "after": position})
        for silo in simulation.silos.values():
            silo.restarts = True
            silo.kill()
        with pytest.raises(DeniedError, match=r"RUN_OVER.*at its end: diverged"):
            simulation.federation.submit(simulation.federation.renew(last, following))
        assert spent_steps(simulation) == 2


def test_a_silo_that_misses_the_last_step_holds_nothing_for_it(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        west = simulation.silos["west"]

        def cut(done: int) -> None:
            west.is_cut_off = done == STEPS - 1

        def back(step: str, _: tuple[bytes, ...]) -> None:
            west.is_cut_off = west.is_cut_off and step != "learn"

        west.before = back
        training = run(simulation, file, cut)
        assert training.answered["west"] == STEPS - 1
        assert reserved(simulation) == [0] * len(SILOS)
        assert spent_steps(simulation, "west") == STEPS - 1


def cut_off(simulation: Simulation, *names: str, at: str) -> Callable[[], None]:
    """Let nothing reach these silos from a call on; return what mends them."""

    def cutting(name: str) -> Callable[[str, tuple[bytes, ...]], None]:
        def before(step: str, _: tuple[bytes, ...]) -> None:
            state = models(simulation).get(name)
            if step == at and (at == "stop" or (state is not None and state.done == 1)):
                simulation.silos[name].is_cut_off = True

        return before

    for name in names:
        simulation.silos[name].before = cutting(name)

    def mend() -> None:
        for name in names:
            simulation.silos[name].before = lambda step, arguments: None
            simulation.silos[name].is_cut_off = False

    return mend


def test_without_a_quorum_nothing_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_after(monkeypatch, 2)
    with banks(tmp_path / "f") as (simulation, file):
        mend = cut_off(simulation, "south", "west", at="learn")
        training = run(simulation, file)
        assert (training.ended, training.holders) == ("diverged", SILOS[:3])
        assert training.stopping is not None
        assert (training.stopping.stopped, training.stopping.released) == (SILOS[:3], ())
        assert reserved(simulation) == [STEPS - 2] * len(SILOS)
        shown = show_training(training, read_job(file), {})
        assert "stays reserved: 4 of 5 silos must\n  have signed that the run is over, and 3 have" in shown
        assert keep_of(file).exists()
        mend()
        again = run(simulation, file)
        assert again.stopping is not None
        assert again.stopping.released == SILOS
        assert reserved(simulation) == [0] * len(SILOS)
        assert [len(charges(simulation, silo)) for silo in SILOS] == [2] * len(SILOS)
        assert not keep_of(file).exists()


def test_a_silo_that_was_away_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_after(monkeypatch, 2)
    with banks(tmp_path / "f") as (simulation, file):
        mend = cut_off(simulation, "west", at="stop")
        training = run(simulation, file)
        assert training.stopping is not None
        assert (training.stopping.released, training.stopping.holding) == (SILOS[:4], ("west",))
        assert reserved(simulation) == [0, 0, 0, 0, STEPS - 2]
        assert "not yet told: west" in show_training(training, read_job(file), {})
        owed = owed_file(keep_of(file))
        assert owed.exists()
        assert abandon(simulation.federation, read_job(file), keep_of(file)) is None
        assert owed.exists(), "it is still away"
        mend()
        assert abandon(simulation.federation, read_job(file), keep_of(file)) is None
        assert reserved(simulation) == [0] * len(SILOS)
        assert not owed.exists()


def test_an_interrupted_run_can_be_given_up(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        last = begun(simulation, file)
        assert reserved(simulation) == [STEPS - 2] * len(SILOS)
        west = simulation.silos["west"]
        mend = cut_off(simulation, "south", "west", at="stop")
        first = abandon(simulation.federation, read_job(file), keep_of(file))
        assert first is not None
        assert (first.rho or 0) + first.under_way + first.unbegun == pytest.approx(first.steps * (first.rho or 0) / 2)
        assert (first.stopping.stopped, first.stopping.released) == (SILOS[:3], ())
        assert reserved(simulation) == [STEPS - 2] * len(SILOS), "its analyst alone gives nothing back"
        assert "4 of 5 silos must" in show_abandoned(first)
        resumed = run(simulation, file)  # takes no further step
        assert (resumed.ended, resumed.steps) == ("abandoned", 2)
        assert resumed.stopping is not None
        assert (resumed.stopping.stopped, resumed.stopping.released) == (SILOS[:3], ())
        mend()
        west.kill()
        west.is_dead, west.actor = False, west.start()
        second = abandon(simulation.federation, read_job(file), keep_of(file))
        assert second is not None
        assert (second.done, second.stopping.released) == (2, SILOS)
        assert f"released: rho {second.unbegun:g}" in show_abandoned(second)
        assert spent_steps(simulation) == 2
        assert not keep_of(file).exists()
        step = last.plan.training
        assert step is not None
        assert {ledger_of(silo).why_over(step.run) for silo in simulation.silos.values()} == {"abandoned"}
        run(simulation, file)
        assert spent_steps(simulation) == pytest.approx(2 + STEPS, abs=0.05)


def test_a_stop_that_too_few_signed_or_that_is_another_s_changes_nothing(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        last = begun(simulation, file)
        step, federation = last.plan.training, simulation.federation
        assert step is not None
        east = simulation.silos["east"].actor
        learned = ModelUpdated(
            federation="banks", run=step.run, position=models(simulation)["east"].position, ended="diverged"
        )

        def signed(message: ModelUpdated, *names: str) -> Stopped:
            keys = {name: known_to(simulation.silos[name]).signing for name in names}
            signatures = tuple(detach(sign(message, name, keys[name]), ModelUpdated) for name in names)
            return Stopped(federation="banks", run=step.run, silos=SILOS, learned=message, signatures=signatures)

        whole = signed(learned, *SILOS)
        other_run = learned.model_copy(update={"run": bytes(16)})
        goes_on = learned.model_copy(update={"ended": None})
        wrong = [
            federation.signed(stopped)
            for stopped in (
                signed(learned, *SILOS[:3]),
                signed(learned, *SILOS[:3], *SILOS[:3]),
                signed(other_run, *SILOS),
                signed(goes_on, *SILOS),
                whole.model_copy(update={"learned": None}),
                whole.model_copy(update={"signatures": ()}),
                whole.model_copy(update={"learned": learned.model_copy(update={"ended": "complete"})}),
                whole.model_copy(update={"federation": "others"}),
            )
        ]
        stranger = SigningKey(Secret(bytes([9]) * 32))
        wrong += [sign(whole, "ana", stranger), sign(whole, "eve", stranger), b"junk"]
        for data in wrong:
            (reply,) = east.stop(data)
            assert signer_of(reply, Failed) == "east"
        assert reserved(simulation) == [STEPS - 2] * len(SILOS)
        assert ledger_of(simulation.silos["east"]).why_over(step.run) is None
        for _ in range(2):
            (reply,) = east.stop(federation.signed(signed(learned, *SILOS[1:])))
            assert unverified(reply, ModelUpdated).ended == "diverged"
        assert reserved(simulation) == [0, *([STEPS - 2] * 4)]
        # Of a run that it knows nothing of, a silo says only that.
        (reply,) = east.stop(federation.signed(signed(learned, *SILOS).model_copy(update={"run": bytes(16)})))
        assert unverified(reply, ModelUpdated).ended is None


def test_a_run_that_lies_too_long_is_over(tmp_path: Path) -> None:
    now = [1_900_000_000.0]
    with simulate(found_banks(tmp_path / "f"), clock=lambda: now[0]) as simulation:
        file = tmp_path / "f/job.toml"
        begun(simulation, file)
        now[0] += RESERVED_S + 2 * 86_400
        last, position = asked(simulation)[-1], models(simulation)["east"].position
        assert isinstance(last.plan, LogisticStep)
        following = simulation.federation.renew(last, last.plan.model_copy(update={"step": 2, "after": position}))
        with pytest.raises(DeniedError, match=r"RUN_OVER.*more than 30 days"):
            simulation.federation.submit(following)
        assert spent_steps(simulation) == 2, "it was given back on a later day"
        training = run(simulation, file)
        assert (training.ended, training.steps) == ("abandoned", 2)
        assert spent_steps(simulation) == 2


def test_a_run_that_diverges_pays_for_the_steps_that_it_took(tmp_path: Path) -> None:
    """With a rate of 99999 a run used to end well, and to be paid for in full."""
    job = PRIVATE.replace(f"learning_rate = {RATE}", "learning_rate = 99999")
    assert job != PRIVATE
    with banks(tmp_path / "f", job) as (simulation, file):
        training = run(simulation, file)
        assert training.ended == "diverged"
        assert training.steps < STEPS
        assert spent_steps(simulation) == pytest.approx(training.steps, abs=0.05)
        assert reserved(simulation) == [0] * len(SILOS)


@pytest.mark.parametrize("when", ["dies_before", "dies_after"])
def test_a_silo_that_is_killed_as_it_is_stopped_has_stopped_or_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    ends_after(monkeypatch, 2)
    with banks(tmp_path / "f") as (simulation, file):
        west = simulation.silos["west"]
        west.restarts = True
        setattr(west, when, "stop")
        training = run(simulation, file)
        assert training.stopping is not None
        assert training.stopping.holding == (() if when == "dies_before" else ("west",))
        assert reserved(simulation) == [0] * len(SILOS), "what it wrote before it died is done"
        assert abandon(simulation.federation, read_job(file), keep_of(file)) is None
        assert not owed_file(keep_of(file)).exists()
        ledger_of(west).audit()
