"""Runs whose rows are read once: before the first round is accepted, and again where files or decisions changed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import statsmodels.duration.api as smd

from analyst.errors import DeniedError, RoundError
from analyst.training.job import read_job
from analyst.training.run import train
from silo_node.data import compute, run_rows
from silo_node.data.compute import Computer
from tests.harness.inside import computer_of
from tests.harness.simulator import SimulatedSilo, Simulation
from tests.rounds import test_exact_families as families
from tests.rounds.test_exact_times import COLUMNS, JOB
from tests.rounds.test_training import SILOS, STEPS, banks, descent, pooled, rows_of, run, the_model

pytestmark = pytest.mark.torch

DECIDED = (
    '[consent]\nmode = "table"\nsource = "consent.csv"\nsubject = "id"\npurpose = "purpose"\n'
    'given_at = "given_at"\nwithdrawn_at = "withdrawn_at"\n[purposes.lending]\nconsent = "opt-out"\n'
)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files that a test has written a moment ago for older ones."""
    monkeypatch.setattr(run_rows, "SETTLED_S", -60.0)


def reads(silo: SimulatedSilo) -> int:
    """Return how often a silo has read its source for training."""
    computer = computer_of(silo)
    assert isinstance(computer, Computer)
    return computer.runs.reads


def kept_bytes(simulation: Simulation) -> list[int]:
    return [computer_of(silo).runs.kept_bytes for silo in simulation.silos.values()]  # type: ignore[attr-defined]


def test_rows_are_read_before_the_first_round_is_accepted_and_not_again(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        found = list[tuple[str, int]]()
        south = simulation.silos["south"]
        south.before = lambda step, _: found.append((step, reads(south)))
        training = run(simulation, file)
        assert training.answered == dict.fromkeys(SILOS, STEPS)
        first = [step for step, _ in found].index("propose")
        assert {count for _, count in found[: first + 1]} == {0}
        assert {count for _, count in found[first + 1 :]} == {1}, "read before it is accepted"
        assert the_model(simulation).weights == pytest.approx(descent(lambda _: pooled()), abs=2e-5)
        assert kept_bytes(simulation) == [0] * len(SILOS), "they go with the last round"


def test_a_file_that_changes_in_a_run_is_read_for_the_next_round_before_it_is_accepted(tmp_path: Path) -> None:
    rest = rows_of("south")[:-9]
    with banks(tmp_path / "f") as (simulation, file):
        south = simulation.silos["south"]
        found = list[tuple[str, int]]()
        south.before = lambda step, _: found.append((step, reads(south)))

        def change(done: int) -> None:
            if done == 2:
                found.clear()
                pyarrow.parquet.write_table(pa.Table.from_pylist(rest), tmp_path / "f/silos/south/loans.parquet")

        run(simulation, file, change)
        others = [row for silo in SILOS if silo != "south" for row in rows_of(silo)]
        expected = descent(lambda step: pooled() if step < 2 else [*others, *rest])
        assert the_model(simulation).weights == pytest.approx(expected, abs=2e-5)
        first = [step for step, _ in found].index("propose")
        assert {count for _, count in found[: first + 1]} == {1}
        assert {count for _, count in found[first + 1 :]} == {2}
        assert [reads(silo) for name, silo in simulation.silos.items() if name != "south"] == [1] * 4


def test_a_withdrawal_and_a_return_count_at_the_next_round(tmp_path: Path) -> None:
    gone = rows_of("south")[3]["id"]
    decisions = tmp_path / "f/silos/south/consent.csv"
    with banks(tmp_path / "f") as (simulation, file):

        def decide(done: int) -> None:
            back = "2020-02-01T00:00:00Z" if done == 2 else ""
            if done < 3:
                line = f"{gone},lending,{back},2020-01-01T00:00:00Z"
                decisions.write_text(
                    f"id,purpose,given_at,withdrawn_at\n{line}\n" + ("" if done == 1 else f"{gone},lending,{back},\n")
                )

        run(simulation, file, decide)
        expected = descent(lambda step: [row for row in pooled() if step != 1 or row["id"] != gone])
        assert the_model(simulation).weights == pytest.approx(expected, abs=2e-5)
        assert max(abs(expected - descent(lambda _: pooled()))) > 1e-4
        assert reads(simulation.silos["south"]) == 2, "the cells of somebody who comes back are read again"


def test_a_decision_that_ends_by_the_clock_counts_at_the_next_round(tmp_path: Path) -> None:
    """Nothing but the clock changes: the withdrawal was written before the run, for a time in the midst of it."""
    import time

    from tests.harness.simulator import no_noise, simulate
    from tests.rounds.test_training import found_banks

    path, ahead = found_banks(tmp_path / "f"), [0.0]
    gone, at = rows_of("south")[3]["id"], time.time() + 3600
    when = np.datetime64(int(at), "s")
    (path / "silos/south/consent.csv").write_text(f"id,purpose,given_at,withdrawn_at\n{gone},lending,,{when}Z\n")
    with simulate(path, no_noise, lambda: time.time() + ahead[0]) as simulation:

        def pass_time(done: int) -> None:
            ahead[0] = 7200.0 * (done >= 2)

        run(simulation, path / "job.toml", pass_time)
        expected = descent(lambda step: [row for row in pooled() if step < 2 or row["id"] != gone])
        assert the_model(simulation).weights == pytest.approx(expected, abs=2e-5)
        assert reads(simulation.silos["south"]) == 1


def withdrawn(simulation: Simulation, silo: str, gone: Sequence[str], after: int) -> Callable[[int], None]:
    def withdraw(done: int) -> None:
        if done == after:
            lines = "".join(f"{one},lending,2020-01-01T00:00:00Z,2020-01-02T00:00:00Z\n" for one in gone)
            decisions = simulation.silos[silo].policy.with_name("consent.csv")
            decisions.write_text(f"id,purpose,given_at,withdrawn_at\n{lines}")

    return withdraw


def test_clusters_go_on_from_their_centres_with_the_rows_that_are_there(tmp_path: Path) -> None:
    """k-means keeps centres, which a change of consent must not send back to where they began."""
    job = families.job_of(
        "k-means", "ok", "rounds = 30\n[options]\nclusters = 3\nmin_cohort = 10\ntolerance = 0.000000001\n"
    )
    job = job.replace('label = "ok"\n', "")
    gone = {row["id"] for row in families.rows_of("west")[::3]}
    found = []
    for leaves in (True, False):
        rows = {silo: [row for row in families.rows_of(silo) if leaves or row["id"] not in gone] for silo in SILOS}
        path = tmp_path / f"f{leaves}"
        with families.banks(path, job, rows, ("k-means",), consent=DECIDED) as (simulation, file):
            change = withdrawn(simulation, "west", sorted(gone), 2) if leaves else lambda done: None
            training = train(simulation.federation, read_job(file), change)
            assert training.ended == "complete"
            found.append(families.the_model(simulation))
            assert reads(simulation.silos["west"]) == 1
    after, without = ({line.name: line.values for line in one.fitted.listings[0].lines} for one in found)
    assert after.keys() == without.keys()
    for name, values in after.items():
        assert values == pytest.approx(without[name], abs=1e-6), name
    assert any("rows changed" in note for note in found[0].fitted.notes)


def test_a_cox_run_goes_on_to_the_fit_of_the_rows_that_are_there(tmp_path: Path) -> None:
    own = {
        silo: [row | {"paid": 100.0 + round(row["paid"])} for row in families.rows_of(silo)] for silo in families.SILOS
    }
    gone = {row["id"] for row in own["west"][::3]}
    job = f"{JOB}{COLUMNS}"
    with families.banks(tmp_path / "f", job, own, ("cox",), consent=DECIDED) as (simulation, file):
        training = train(simulation.federation, read_job(file), withdrawn(simulation, "west", sorted(gone), 3))
        model = families.the_model(simulation)
        assert reads(simulation.silos["west"]) == 1
    rows = [row | {"at": f"{silo} {row['kind']}"} for silo in SILOS for row in own[silo] if row["id"] not in gone]
    names = ("debt", "age", "owner")
    inputs = np.array([[row[name] for name in names] for row in rows], float)
    _, strata = np.unique([row["at"] for row in rows], return_inverse=True)
    times, events = np.array([row["paid"] for row in rows]), np.array([row["ok"] for row in rows], float)
    fit = smd.PHReg(times, inputs, status=events, strata=strata, ties="efron").fit(tol=1e-14)
    lines = {line.name: line.values for line in model.fitted.listings[0].lines}
    assert [lines[name][0] for name in names] == pytest.approx(fit.params, abs=1e-7)
    assert training.ended == "complete"
    assert any("rows changed" in note for note in model.fitted.notes)


def test_a_silo_that_lacks_what_a_step_needs_says_so_before_anything_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ImportError("No module named 'torch'")

    kinds: dict[str, Any] = dict(compute.CONTRIBUTIONS)
    kinds["logistic-regression"] = replace(kinds["logistic-regression"], load=missing)
    monkeypatch.setattr(compute, "CONTRIBUTIONS", MappingProxyType(kinds))
    with banks(tmp_path / "f") as (simulation, file):
        with pytest.raises((RoundError, DeniedError), match="not loaded at this silo yet, or not installed") as told:
            run(simulation, file)
        assert "ask again in a minute" in told.value.hint
        assert [simulation.spent(silo) for silo in SILOS] == [0] * len(SILOS)
        assert [reads(silo) for silo in simulation.silos.values()] == [0] * len(SILOS)
        assert "cannot be imported here" in simulation.silos["east"].policy.with_name("silo.log").read_text()
