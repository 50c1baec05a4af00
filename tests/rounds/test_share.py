"""Rounds of a network that ask a share of its run's silos: every silo learns all of them, and the late stay in.

Six silos, of which each round asks four by a public draw; one of the four may be missing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from analyst.errors import AnalystError, RoundError
from analyst.training.job import read_job
from analyst.training.preview import preview_run
from analyst.training.run import Training, train
from federation.founding import found
from policies.requests.request import Request
from policies.requests.share import drawn, draws
from silo_node.training.run import RunState
from tests.harness.simulator import Simulation, simulate
from tests.rounds.test_exact_families import POLICY
from tests.rounds.test_killed import KilledError, keep_of, killed_at, state_of
from tests.rounds.test_training import asked

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SILOS = ("east", "far", "middle", "north", "south", "west")
ROUNDS = 6
NETWORKS = '[training.networks]\nallow = "registered"\n'
JOB = """\
schema = "consilo-job/1"
table = "loans"
purpose = "lending"
label = "paid"
features = ["age", "kind"]
release = "exact"
[model]
family = "mlp"
hidden = [4]
[optimiser]
algorithm = "fedavg"
rate = 0.05
[rounds]
most = 6
share = 0.6
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def rows_of(silo: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(SILOS.index(silo))
    rows = list[dict[str, Any]]()
    for number in range(30):
        age, kind = int(rng.integers(18, 100)), "abc"[rng.integers(3)]
        row: dict[str, Any] = {"id": f"{silo}-{number}", "age": age, "kind": kind}
        row |= {"ok": True, "grade": "no", "visits": 1, "debt": 1.0, "owner": False, "exposure": 0.0}
        rows.append(row | {"paid": float(round(3.0 * age + rng.normal(0, 20), 3))})
    return rows


def founded(path: Path, job: str = JOB) -> Path:
    key = found(path, "banks", dict.fromkeys(SILOS), ("ana",))["ana"]
    for silo in SILOS:
        home = path / "silos" / silo
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows_of(silo)), home / "loans.parquet")
        (home / "policy.toml").write_text(
            POLICY.format(silo=silo, key=key, computations='["mlp", "evaluation"]') + NETWORKS
        )
    (path / "job.toml").write_text(job)
    return path


@contextmanager
def banks(path: Path, job: str = JOB) -> Iterator[tuple[Simulation, Path]]:
    with simulate(founded(path, job)) as simulation:
        yield simulation, path / "job.toml"


def run(simulation: Simulation, file: Path, progress: Callable[[int], None] = lambda done: None) -> Training:
    return train(simulation.federation, read_job(file), progress, keep_of(file), sleep=lambda _: None)


def ending(simulation: Simulation, file: Path, progress: Callable[[int], None]) -> Training | RoundError:
    try:
        return run(simulation, file, progress)
    except RoundError as err:
        return err


def states(simulation: Simulation, training: Training, silos: tuple[str, ...] = SILOS) -> list[RunState]:
    return [state_of(simulation, silo, training.run) for silo in silos]


def test_each_round_asks_a_public_draw_and_every_silo_has_the_model_of_all_rounds(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        preview = preview_run(simulation.federation, read_job(file))
        assert [(one.first, one.last) for one in preview.sizes] == [(1, 1), (2, ROUNDS)]
        training = run(simulation, file)
        assert training.holders == SILOS
        held = states(simulation, training)
        assert len({state.raw for state in held}) == 1
        assert {state.done for state in held} == {ROUNDS}
        requests = asked(simulation)
        for number, request in enumerate(requests):
            step = request.plan.training
            assert step is not None
            expected = SILOS if number == 0 else drawn(step.run, number, 0, SILOS, step.share)
            assert request.silos == expected
            assert request.run_silos == SILOS
        assert len({request.silos for request in requests}) > 2
        counts = {silo: sum(silo in request.silos for request in requests) for silo in SILOS}
        assert training.answered == counts
        assert {one.asked for one in training.rounds[1:]} == {4}
        assert "4 of 4 silos (of the run's 6), each sent" in training.rounds[1].in_words
        record = held[0].record
        assert record is not None
        assert record.contributed == counts


def test_a_silo_refuses_any_other_set_of_silos(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        run(simulation, file)
        request = asked(simulation)[1]
        step = request.plan.training
        assert step is not None
        possible = set(
            draws(step.run, step.step, SILOS, step.share)
        )  # 16 draws of six silos leave few sets of four out
        others = [silos for silos in combinations(SILOS, len(request.silos)) if silos not in possible]
        for silos in (*others, request.silos[:3], SILOS):
            with pytest.raises(ValueError, match="are no draw of it"):
                Request.model_validate(dict(request) | {"silos": silos})


def test_who_is_late_is_missed_and_its_next_turn_comes(tmp_path: Path) -> None:
    """South dies in the middle of every round that it is in, and is back for the next one."""
    with banks(tmp_path / "f") as (simulation, file):
        south = simulation.silos["south"]
        south.restarts = True

        def kill(done: int) -> None:
            south.dies_before = "contribute" if done % 2 else ""

        training = run(simulation, file, kill)
        assert training.holders == SILOS
        assert len({state.raw for state in states(simulation, training)}) == 1
        missed = [one.number for one in training.rounds if "south" in one.without]
        assert all(number % 2 == 0 for number in missed)


def test_silos_that_are_gone_are_left_to_later_draws_and_catch_up_when_they_are_back(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        gone = [simulation.silos[name] for name in ("south", "west")]

        def leave(done: int) -> None:
            if done == 2:
                for silo in gone:
                    silo.kill()
            if done == 5:
                for silo in gone:
                    silo.actor, silo.is_dead = silo.start(), False

        training = run(simulation, file, leave)
        assert training.steps == ROUNDS
        assert training.holders == SILOS, "who was away learns all rounds when it is back"
        assert len({state.raw for state in states(simulation, training)}) == 1
        for one in training.rounds[2:5]:
            assert len(set(one.survivors) & {"south", "west"}) == 0
            assert len(one.survivors) >= 3


def test_three_gone_of_six_are_named_with_what_helps_and_nothing_is_computed_twice(tmp_path: Path) -> None:
    with banks(tmp_path / "f") as (simulation, file):
        gone = [simulation.silos[name] for name in ("north", "south", "west")]

        def leave(done: int) -> None:
            if done == 2:
                for silo in gone:
                    silo.kill()

        found = ending(simulation, file, leave)  # most often a draw has all three others, and one who is gone
        if isinstance(found, RoundError):
            assert "\n" not in f"{found.message} {found.hint}"
            assert "is back" in found.hint or "are back" in found.hint
            assert "the same command goes on with step" in found.hint
            for silo in gone:
                silo.actor, silo.is_dead = silo.start(), False
            found = run(simulation, file)
        assert found.steps == ROUNDS
        assert found.holders in (SILOS, SILOS[:3])


def test_a_share_that_no_sum_bears_is_refused_with_one_that_works(tmp_path: Path) -> None:
    with banks(tmp_path / "f", JOB.replace("share = 0.6", "share = 0.4")) as (simulation, file):
        with pytest.raises(AnalystError, match=r"share 0\.4 of 6 silos asks 3 a round.*needs 4") as caught:
            run(simulation, file)
        assert caught.value.hint == "write share = 0.67 or more, or remove it"
        file.write_text(JOB.replace("share = 0.6", "share = 0.67"))
        training = run(simulation, file)
        assert training.holders == SILOS
        assert {one.asked for one in training.rounds[1:]} == {5}


def test_the_analyst_killed_in_a_round_of_a_share_goes_on_and_nobody_contributes_twice(tmp_path: Path) -> None:
    job = JOB.replace("most = 6", "most = 3")
    with banks(tmp_path / "f", job) as (simulation, file):
        with killed_at(simulation, 0, "after") as calls:
            run(simulation, file)
        for number in range(1, len(calls) + 1):
            with killed_at(simulation, number, "after"), pytest.raises(KilledError):
                run(simulation, file)
            training = run(simulation, file)
            assert (training.steps, training.holders) == (3, SILOS), number
            record = states(simulation, training)[0].record
            assert record is not None
            assert [spell.last - spell.first for spell in record.spells] == [0, 0, 0] or len(record.spells) <= 3
