"""Hashed features across four silos in memory: long weights through secure sums, from a job to an evaluation."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.preview import preview_run
from analyst.training.run import Training, train
from crypto.backends.scheme import CHUNK_VALUES
from crypto.noise import discrete_gaussian
from federation.founding import found
from policies.budget.sampler import sampler_delta
from policies.requests.hashed import MOST_REACH, levels, limbs
from policies.requests.request import Request
from policies.requests.terms import terms_of
from silo_node.training.family import State
from silo_node.training.run import RunState
from tests.harness import families
from tests.harness.inside import ledger_of
from tests.harness.simulator import Noise, Simulation, no_noise, simulate
from tests.harness.states import states_of
from tests.rounds.test_evaluation import by_name, judged
from tests.rounds.test_exact_families import POLICY
from tests.rounds.test_training import asked

pytestmark = pytest.mark.slow

SILOS = ("east", "middle", "north", "south")
KINDS = ("a", "b", "c")
JOB = """\
schema = "consilo-job/1"
model = "hashed-logistic"
table = "loans"
purpose = "lending"
label = "ok"
features = ["kind", "debt", "age", "owner"]
"""
EXACT = 'release = "exact"\n'
OPTIONS = '[options]\nbits = 12\ncrossed = "all"\n'


@cache
def rows_of(silo: str) -> tuple[dict[str, Any], ...]:
    """Return a silo's rows: who owns pays back if of one kind, and does not if of another."""
    numbers = np.random.default_rng(SILOS.index(silo))
    rows = []
    for number in range(250):
        kind, owner, debt = KINDS[numbers.integers(3)], bool(numbers.random() < 0.5), float(numbers.uniform(0, 10))
        odds = {"a": 2.5, "b": -2.5, "c": 0.0}[kind] * (1 if owner else -1) - 0.1 * (debt - 5)
        row: dict[str, Any] = {"id": f"{silo}-{number}", "ok": bool(odds + numbers.logistic() > 0), "kind": kind}
        row |= {"owner": owner, "debt": round(debt, 2), "age": int(numbers.integers(18, 100))}
        rows.append(row | {"grade": "no", "visits": 1, "paid": 1.0, "exposure": 0.0})
    return tuple(rows)


@contextmanager
def banks(
    path: Path, job: str, *more: tuple[str, str], noise: Noise = no_noise, max_values: Mapping[str, int] | None = None
) -> Iterator[tuple[Simulation, Path]]:
    key = found(path, "banks", dict.fromkeys(SILOS), ("ana",))["ana"]
    for silo in SILOS:
        home = path / "silos" / silo
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows_of(silo))), home / "loans.parquet")
        computations = '["hashed-logistic", "logistic-regression", "evaluation"]'
        text = POLICY.format(silo=silo, key=key, computations=computations)
        text = text.replace("max_rounds = 30", "max_rounds = 400")
        text = text.replace('release = ["model"]', 'release = ["model", "metrics"]')
        for old, new in more:
            assert old in text
            text = text.replace(old, new)
        if max_values is not None and silo in max_values:
            text += f"\n[vectors]\nmax_values = {max_values[silo]}\n"
        (home / "policy.toml").write_text(text)
    (path / "job.toml").write_text(job)
    with simulate(path, noise=noise) as simulation:
        yield simulation, path / "job.toml"


PRIVATE = (
    ('release = "exact"\n', ""),
    ('dp = "optional"\n', ""),
    ("lifetime = { rho = 1 }", "lifetime = { rho = 4 }"),
    ("max_rho_per_run = 1.0", "max_rho_per_run = 4.0"),
)


def run(simulation: Simulation, file: Path) -> Training:
    return train(simulation.federation, read_job(file), keep=file.with_name("keep.json"), sleep=lambda _: None)


def the_state(simulation: Simulation) -> RunState:
    """Return the model, which all silos have to the last bit."""
    held = [state for silo in simulation.silos.values() for state in states_of(silo) if state.exact is not None]
    assert len(held) == len(SILOS)
    assert len({(one.model_copy(update={"learned_at": 0}).encode(), one.raw) for one in held}) == 1
    return held[0]


def vector(state: RunState, name: str) -> Any:
    return next(one.values for one in state.numbers if one.name == name)


def by_functions(request: Request, rounds: int) -> State:
    """Return what the family's own functions give of the same rows."""
    assert request.plan.training is not None
    own = request.plan.task(request.table)  # type: ignore[union-attr]
    silos = []
    for silo in SILOS:
        cells: dict[str, Any] = {}
        for column in request.table.columns:
            values = [row[column.name] for row in rows_of(silo)]
            grain = float(column.step or 1)
            cells[column.name] = values if column.domain else [round(float(value) / grain) for value in values]
        silos.append(families.examples(own, cells))
    state, _, _ = families.run(replace(own, rounds=rounds), silos)
    return state


def test_a_run_of_4096_weights_is_what_its_functions_give_whoever_stops_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int) -> None:
        if done == 3:
            raise StoppedError

    with banks(tmp_path / "f", JOB + EXACT + "rounds = 8\n" + OPTIONS) as (simulation, file):
        with pytest.raises(StoppedError):
            train(simulation.federation, read_job(file), stop, file.with_name("keep.json"))
        training = run(simulation, file)
        state = the_state(simulation)
        expected = by_functions(asked(simulation)[0], 8)
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
        new = tmp_path / "new.csv"
        new.write_text("kind,owner,debt,age\na,true,5,40\na,false,5,40\nb,true,5,40\nb,false,5,40\n")
        assert silo_node.owner.cli.main(["models", "predict", training.run, str(new), "--policy", str(policy)]) == 0
        scores = [float(line.split(",")[1]) for line in capsys.readouterr().out.splitlines()[1:5]]
        assert [score > 0.5 for score in scores] == [True, False, False, True]
        out = str(tmp_path / "model.json")
        assert silo_node.owner.cli.main(["models", "export", training.run, "--out", out, "--policy", str(policy)]) == 1
        assert "weights of places" in capsys.readouterr().err
    assert (training.steps, training.holders) == (8, SILOS)
    for name in ("accepted", "weights", "reach"):
        assert vector(state, name).tobytes() == expected[name].tobytes(), name
    assert len(vector(state, "accepted")) == 4096
    assert "weights that a row meets" in shown
    assert len(shown.splitlines()) < 30


def test_who_is_held_out_is_told_better_than_without_pairs(tmp_path: Path) -> None:
    found = {}
    for name, job in (
        ("hashed", JOB + EXACT + "rounds = 20\n" + OPTIONS),
        ("plain", JOB.replace("hashed-logistic", "logistic-regression") + EXACT),
    ):
        with banks(tmp_path / name, f"{job}[held_out]\nshare = 0.25\n") as (simulation, file):
            run(simulation, file)
            judgement = judged(simulation).judged
            assert 150 < judgement.rows < 350
            found[name] = by_name(judgement)
    assert found["hashed"]["accuracy"] > found["plain"]["accuracy"] + 0.1
    assert found["hashed"]["auc"] > found["plain"]["auc"] + 0.1


def test_few_bits_and_a_part_of_the_weights_travel_in_the_least_ring(tmp_path: Path) -> None:
    few = "keep = 0.1\nvalue_bits = 8\n"
    with banks(tmp_path / "f", JOB + EXACT + "rounds = 12\n" + OPTIONS + few) as (simulation, file):
        training = run(simulation, file)
        state = the_state(simulation)
        requests = asked(simulation)
    assert (training.ended, training.steps) == (None, 12)
    lengths = [sum(one.length for one in request.plan.statistics(request.table).values()) for request in requests]
    assert lengths == [4096 + 3 * limbs(MOST_REACH)] + [409 + 2 * limbs(levels(8))] * 11
    assert [terms_of(one, bytes(32)).limit for one in requests] == [MOST_REACH] + [127] * 11
    assert np.count_nonzero(vector(state, "accepted")) > 5


def test_a_long_vector_of_few_bits_goes_through_the_secure_sum(tmp_path: Path) -> None:
    job = JOB + EXACT + "rounds = 4\n" + OPTIONS.replace("12", "17") + "value_bits = 8\n"
    with banks(tmp_path / "f", job) as (simulation, file):
        preview = preview_run(simulation.federation, read_job(file))
        training = run(simulation, file)
        state, exact = the_state(simulation), by_functions(asked(simulation)[0], 4)
        sent = sum(len(frame) for step, frames in simulation.silos["east"].seen for frame in frames if step[0] == "<")
    assert training.steps == 4
    assert len(vector(state, "accepted")) == 2**17
    assert CHUNK_VALUES < 2**17
    assert vector(state, "reach").tobytes() == exact["reach"].tobytes()
    first, later = preview.sizes
    # Four silos: 2 * 4 * (2^26 - 1) + 1 has 29 bits, which travel as words of 32, and 2 * 4 * 127 + 1 has 10.
    assert 2**17 * 32 / 8 < first.up_bytes < 2**17 * 32 / 8 + 20_000
    assert 2**17 * 10 / 8 < later.up_bytes < 2**17 * 10 / 8 + 20_000
    assert sent > preview.up_bytes / 2
    # Three steps from rounded gradients are near those from exact ones.
    apart = np.abs(vector(state, "accepted") - exact["accepted"]).max()
    assert 0 < apart < 0.05


def test_a_silo_that_the_longest_round_is_too_long_for_refuses_the_run_at_its_first_step(tmp_path: Path) -> None:
    """The first round alone would fit: who took part in it would be out of all others."""
    job = JOB + EXACT + "rounds = 3\n" + OPTIONS.replace("12", "17") + "value_bits = 8\n"
    with banks(tmp_path / "f", job, max_values={"north": 2**17 + 6}) as (simulation, file):
        refused = preview_run(simulation.federation, read_job(file)).refusals["north"]
        training = run(simulation, file)
    assert [one.code for one in refused] == ["MAX_VALUES"]
    assert refused[0].message.startswith("the longest vector of this run has 131,0")
    longest = int(refused[0].message.split()[7].replace(",", ""))
    assert f"{longest}" in refused[0].remedy.replace(",", "")
    assert [dict(one.without) for one in training.rounds] == [{"north": "MAX_VALUES"}] * 3
    assert ", without north (MAX_VALUES)" in training.rounds[0].in_words
    with banks(tmp_path / "g", job, max_values={"north": longest}) as (simulation, file):
        assert not any(one.without for one in run(simulation, file).rounds)


def test_a_private_run_charges_epsilon_and_the_delta_of_its_noise(tmp_path: Path) -> None:
    job = JOB + "epsilon = 12\nrounds = 5\n" + OPTIONS + "rows_up_to = 16777216\n"
    with banks(tmp_path / "f", job, *PRIVATE, noise=discrete_gaussian) as (simulation, file):
        training = run(simulation, file)
        state = the_state(simulation)
        requests = asked(simulation)
        spent = ledger_of(simulation.silos["east"]).spending(purpose="lending", analyst="ana").atto_delta
    assert (training.steps, training.ended) == (5, None)
    assert training.epsilon == pytest.approx(12, rel=0.01)
    assert spent == sum(map(sampler_delta, requests)) > 0
    assert {request.plan.kind for request in requests} == {"noised-step"}
    persons, noise = vector(state, "persons")[0], vector(state, "persons_noise")[0]
    assert abs(persons - 1000) < 6 * noise
    assert np.count_nonzero(vector(state, "accepted")) == 4096  # noise is in every weight


def test_what_policies_and_backends_do_not_take_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    with banks(tmp_path / "long", JOB + EXACT + OPTIONS.replace("12", "20")) as (simulation, file):
        with pytest.raises(DeniedError, match=r"MAX_VALUES.*1,048,"):
            run(simulation, file)
        assert not any(step == "> contribute" for silo in simulation.silos.values() for step, _ in silo.seen)
    closed = ('"hashed-logistic", ', "")
    with (
        banks(tmp_path / "closed", JOB + EXACT + OPTIONS, closed) as (simulation, file),
        pytest.raises(DeniedError, match=r"COMPUTATION_CLOSED.*hashed-logistic"),
    ):
        run(simulation, file)
    job = JOB + "epsilon = 4\n" + OPTIONS + "value_bits = 8\n"
    with banks(tmp_path / "private", job, *PRIVATE) as (simulation, file):
        with pytest.raises(AnalystError, match="value_bits: for exact sources alone"):
            run(simulation, file)
        assert not simulation.reports
