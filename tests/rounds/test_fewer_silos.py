"""Training survives a silo: what is printed is what was paid, and the rest goes on from the last opened model."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analyst.errors import DeniedError, StuckError
from analyst.requests import renewed
from analyst.training.job import read_job
from analyst.training.registry import Registry
from analyst.training.told import show_training
from crypto.errors import ProtocolError
from crypto.keys import Secret, SigningKey
from crypto.rounds.opening import CheckedReport
from crypto.rounds.report import StoredReport
from policies.document.load import load
from policies.requests.logistic import LogisticStep
from policies.requests.request import Request
from policies.units import MICRO
from silo_node.owner.model_registry import held_models
from silo_node.owner.pending import decide_on, requests_of
from silo_node.rounds.learning import check_conditions
from silo_node.rounds.states import Silo
from silo_node.training.run import RunState
from tests.harness.inside import known_to, ledger_of
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.harness.states import states_of
from tests.rounds.test_replaced import refused_by, without
from tests.rounds.test_training import (
    EXACT,
    PRIVATE,
    SILOS,
    STEPS,
    asked,
    begun,
    charges,
    descent,
    found_banks,
    pooled,
    rows_of,
    run,
)

REST = SILOS[:-1]


def without_spares(path: Path, job: str = PRIVATE, more: str = "") -> Path:
    """Found banks of which none may be missing."""
    found_banks(path, job)
    for policy in path.glob("silos/*/policy.toml"):
        policy.write_text(policy.read_text().replace("max_missing = 1", "max_missing = 0") + more)
    return path


def killing(simulation: Simulation, after: int, step: str) -> Callable[[int], None]:
    """Return what kills one silo for good before a step of a round, once so many steps of the run are done."""

    def kill(done: int) -> None:
        if done == after:
            simulation.silos["west"].dies_before = step

    return kill


def states(simulation: Simulation, silo: str) -> list[RunState]:
    return states_of(simulation.silos[silo])


def paid(simulation: Simulation, silo: str) -> float:
    return simulation.spent(silo) / MICRO


@pytest.mark.parametrize("step", ["propose", "ready", "contribute", "agree"])
def test_one_silo_that_is_killed_for_good_is_survived(tmp_path: Path, step: str) -> None:
    with simulate(found_banks(tmp_path / "f"), noise=no_noise) as simulation:
        kill = killing(simulation, 1, step)
        training = run(simulation, tmp_path / "f/job.toml", kill)
        assert set(training.holders) == set(REST)
        assert training.lost == 0
        assert training.rho == pytest.approx(paid(simulation, "east"), rel=0.01)
        assert {state.done for silo in REST for state in states(simulation, silo)} == {STEPS}
        (entry,) = Registry(tmp_path / "f").entries()
        (state,) = states(simulation, "east")
        assert state.record == entry.record
        assert entry.record is not None
        assert entry.record.contributed["east"] == STEPS
        assert entry.record.contributed["west"] == (2 if step == "agree" else 1)
        assert [(one.first, one.last) for one in entry.record.spells] == [(0, 0), (1, STEPS - 1)] or step != "propose"


def test_below_what_may_be_missing_the_rest_goes_on_from_the_last_model(tmp_path: Path) -> None:
    path = without_spares(tmp_path / "f")
    with simulate(path, noise=no_noise) as simulation:
        kill = killing(simulation, 2, "propose")
        training = run(simulation, path / "job.toml", kill)
        assert set(training.holders) == set(REST)
        assert training.lost == 0
        assert training.rho == pytest.approx(paid(simulation, "east"), rel=0.01)
        rest = [row for silo in REST for row in rows_of(silo)]
        expected = descent(lambda step: pooled() if step < 2 else rest)
        runs = [one for one in states(simulation, "east") if one.done == STEPS]
        assert [one.weights for one in runs] == [pytest.approx(expected, abs=2e-5)]
        steps = [request.plan.training for request in asked(simulation)]
        assert [step is not None and step.continues is not None for step in steps] == [False] * 2 + [True] * (STEPS - 2)
        before, after = sorted(Registry(path).entries(), key=lambda one: one.done)
        assert (before.goes_on_as, before.done, before.is_finished) == (after.run, 2, False)
        assert after.record is not None
        assert after.record == runs[0].record
        assert [(one.first, one.last, len(one.silos)) for one in after.record.spells] == [(0, 1, 5), (2, STEPS - 1, 4)]
        policy = path / "silos" / "east" / "policy.toml"
    old, new = held_models(load(policy).policy, policy.parent)
    assert (old.end, new.end) == (f"goes on as {new.name}", "all rounds taken")
    assert new.price is not None
    assert new.price.rho == training.rho


def test_what_is_printed_has_the_charges_that_gave_no_report(tmp_path: Path) -> None:
    path = without_spares(tmp_path / "f")
    with simulate(path, noise=no_noise) as simulation:
        kill = killing(simulation, 2, "contribute")
        training = run(simulation, path / "job.toml", kill)
        assert training.lost == 1
        assert len(charges(simulation, "east")) == STEPS + 1
        assert training.rho == pytest.approx(paid(simulation, "east"), rel=0.01)
        shown = show_training(training, read_job(path / "job.toml"), {})
        assert f"of it, 1 of {STEPS + 1} charges gave no report" in shown


def test_without_noise_no_model_is_asked_about_twice(tmp_path: Path) -> None:
    path = without_spares(tmp_path / "f", EXACT)
    with simulate(path, noise=no_noise) as simulation:
        kill = killing(simulation, 2, "contribute")
        with pytest.raises(StuckError, match=r"step 3 of 4: .*RUN_POSITION") as caught:
            run(simulation, path / "job.toml", kill)
        assert [len(charges(simulation, silo)) for silo in REST] == [3] * len(REST)
        assert "begins a new run" in caught.value.hint
        before = {state.run for state in states(simulation, "east")}
        training = run(simulation, path / "job.toml")  # of another model, from its beginning
        assert bytes.fromhex(training.run) not in before
        assert (set(training.holders), training.steps) == (set(REST), STEPS)
        assert [len(charges(simulation, silo)) for silo in REST] == [3 + STEPS] * len(REST)


def test_without_noise_the_rest_goes_on_if_nothing_left(tmp_path: Path) -> None:
    path = without_spares(tmp_path / "f", EXACT)
    with simulate(path, noise=no_noise) as simulation:
        kill = killing(simulation, 2, "share")
        training = run(simulation, path / "job.toml", kill)
        assert set(training.holders) == set(REST)


def test_without_noise_no_two_runs_go_on_from_one_model(tmp_path: Path) -> None:
    # Hope: the difference of two sums, one of them without a silo that is called away, is what that silo contributed.
    path = without_spares(tmp_path / "f", EXACT)
    with simulate(path, noise=no_noise) as simulation:
        last, federation = begun(simulation, path / "job.toml"), simulation.federation
        before = last.plan
        assert isinstance(before, LogisticStep)
        step = before.model_copy(update={"step": 2, "after": states(simulation, "east")[0].position})
        first = federation.renew(last, step)
        assert isinstance(federation.exchange(without(simulation, first, "west")), bytes)
        contributed = {silo: len(charges(simulation, silo)) for silo in SILOS}
        assert contributed == dict.fromkeys(REST, 3) | {"west": 2}
        again = federation.renew(last, step)
        for fork in (first, again, without(simulation, again, "north"), without(simulation, again, "west")):
            assert refused_by(simulation, fork) >= {"REPLACED"}
        assert {silo: len(charges(simulation, silo)) for silo in SILOS} == contributed


def test_a_silo_learns_by_its_own_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Silo, CheckedReport]] = []
    monkeypatch.setattr(
        "silo_node.rounds.learning.check_conditions", lambda silo, checked: seen.append((silo, checked))
    )
    with simulate(found_banks(tmp_path / "f"), noise=no_noise) as simulation:
        simulation.silos["west"].dies_before = "propose"

        def stop(done: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(simulation, tmp_path / "f/job.toml", stop)
        _, checked = seen[0]
        assert StoredReport.decode(simulation.reports[-1]).name == checked.name
        check_conditions(known_to(simulation.silos["east"]), checked)
        silo = known_to(simulation.silos["west"])
        for section, change, reason in (
            ("protection", {"max_missing": 0}, "4 of the 5"),
            ("protection", {"max_colluding": 2}, "noise"),
            ("protection", {"max_colluding": 3}, "withstand 2"),
            ("protection", {"must_include": ("west",)}, "without west"),
            ("disclosure", {"min_silos": 5}, "cannot lose"),
        ):
            stricter = getattr(silo.policy, section).model_copy(update=change)
            own = replace(silo, policy=silo.policy.model_copy(update={section: stricter}))
            with pytest.raises(ProtocolError, match=reason):
                check_conditions(own, checked)


def test_an_approval_that_listed_it_holds_for_the_smaller_roster(tmp_path: Path) -> None:
    key = SigningKey(Secret.generate())
    rule = f'[people.dpo]\nkey = "{key.public}"\n[[approvals]]\nneed = 1\nof = ["dpo"]\nexpires_hours = 24\n'
    path = without_spares(tmp_path / "f")
    policy = path / "silos" / "east" / "policy.toml"
    policy.write_text(f"{policy.read_text()}\n{rule}")
    with simulate(path, noise=no_noise) as simulation:
        with pytest.raises(DeniedError, match="APPROVAL_AWAITED"):
            run(simulation, path / "job.toml")
        store, rules, now = ledger_of(simulation.silos["east"]), known_to(simulation.silos["east"]).policy, _now()
        (waiting,) = requests_of(rules, store, now)
        assert dict(waiting.lines)["silos"].endswith("or without up to 2 of them")
        decide_on(rules, store, "dpo", key, waiting.name, "approve", now)
        kill = killing(simulation, 2, "propose")
        training = run(simulation, path / "job.toml", kill)
        assert set(training.holders) == set(REST)
        assert training.lost == 0
        assert len(requests_of(rules, store, now)) == 1, "nobody was asked again"
        # The approval is of one model: no other run continues the first, and the first goes on no more.
        price, requests = paid(simulation, "east"), asked(simulation)
        first, later = requests[0], next(one for one in requests if one.replaces is not None)
        step = later.plan.training
        assert isinstance(step, LogisticStep)
        again = dict(later) | renewed(later, step.model_copy(update={"run": bytes(range(16))}), now)
        own = step.model_copy(update={"run": step.continues, "continues": None})
        for fields in (again, dict(first) | renewed(first, own, now)):
            assert "REPLACED" in refused_by(simulation, Request.model_validate(fields))
        assert paid(simulation, "east") == price


def _now() -> int:
    return int(time.time())
