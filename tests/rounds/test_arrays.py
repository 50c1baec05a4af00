"""A network that reads images, across four silos in memory: however they are stored and read, one model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from analyst.errors import AnalystError
from analyst.training.job import read_job
from analyst.training.run import Training, train
from federation.founding import found
from silo_node.owner.cli import main
from silo_node.training.run import RunState
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.harness.states import states_of
from tests.rounds.test_exact_families import POLICY

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SILOS = ("east", "middle", "north", "south")
ROWS = 30
IMAGE = '{ type = "array", of = "int", shape = [6, 6], class = "internal", roles = ["feature"], bounds = [0, 16] }'
JOB = """\
schema = "consilo-job/1"
model = "cnn"
table = "loans"
purpose = "lending"
label = "ok"
features = ["scan"]
release = "exact"
rounds = 3
[options]
channels = "4"
"""
Images = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def images(silo: str) -> tuple[Images, list[bool]]:
    """Return a silo's images, and of which the upper half is the brighter one."""
    numbers = np.random.default_rng(SILOS.index(silo))
    answers = numbers.random(ROWS) < 0.5
    made = numbers.integers(0, 8, (ROWS, 6, 6), np.uint8)
    made[answers, :3] += 8
    made[~answers, 3:] += 8
    return made, answers.tolist()


def write(home: Path, silo: str, cells: Sequence[Any], kind: pa.DataType) -> None:
    """Write a silo's table with further rows: without an image, with one of another shape, and without a person."""
    _, answers = images(silo)
    ids = [f"{silo}-{row}" for row in range(ROWS)] + [f"{silo}-none", f"{silo}-ragged", None]
    bad = [None, [1, 2, 3], cells[0]] if not pa.types.is_nested(kind.value_type) else [None, [[1], [2, 3]], cells[0]]
    own = {"id": ids, "ok": [*answers, True, True, True], "scan": pa.array([*cells, *bad], kind)}
    constant = {"grade": "no", "visits": 1, "paid": 1.0, "kind": "a", "debt": 1.0, "age": 30, "owner": True}
    rows = own | {name: [value] * len(ids) for name, value in (constant | {"exposure": 0.0}).items()}
    pyarrow.parquet.write_table(pa.table(rows), home / "loans.parquet", row_group_size=8)


STORED: dict[str, tuple[pa.DataType, Any]] = {
    "lists": (pa.list_(pa.list_(pa.uint8())), lambda one: one.tolist()),
    "flat": (pa.list_(pa.float32()), lambda one: one.ravel().astype(float).tolist()),
}


@contextmanager
def clinics(path: Path, stored: str, *more: tuple[str, str], job: str = JOB) -> Iterator[tuple[Simulation, Path]]:
    key = found(path, "clinics", dict.fromkeys(SILOS), ("ana",))["ana"]
    kind, cell = STORED[stored]
    for silo in SILOS:
        home = path / "silos" / silo
        write(home, silo, [cell(one) for one in images(silo)[0]], kind)
        text = POLICY.format(silo=silo, key=key, computations='["cnn", "mlp", "linear-regression", "evaluation"]')
        opened = (("owner = {", f"scan = {IMAGE}\nowner = {{"), ("[training]", "[training.networks]\n[training]"))
        read = ('kind = "parquet"', 'kind = "parquet"\nmax_unreadable = 1')
        for old, new in (*opened, read, *more):
            assert old in text
            text = text.replace(old, new)
        (home / "policy.toml").write_text(text)
    (path / "job.toml").write_text(job)
    with simulate(path, noise=no_noise) as simulation:
        yield simulation, path / "job.toml"


def run(simulation: Simulation, file: Path) -> Training:
    return train(simulation.federation, read_job(file), keep=file.with_name("keep.json"), sleep=lambda _: None)


def states(simulation: Simulation) -> list[RunState]:
    return [state for silo in simulation.silos.values() for state in states_of(silo) if state.exact is not None]


def numbers(path: Path, stored: str, *more: tuple[str, str]) -> dict[str, Any]:
    """Return the numbers of a model of the job: those that do not follow from the run's own id."""
    with clinics(path, stored, *more) as (simulation, file):
        training = run(simulation, file)
        assert training.ended is None
        first, *others = states(simulation)
        assert [one.raw for one in others] == [first.raw] * (len(SILOS) - 1)
        return {one.name: list(one.values) for one in first.numbers}


@pytest.mark.parametrize(
    ("stored", "read"), [("lists", "every-request"), ("flat", "every-request"), ("lists", "prepared")]
)
def test_a_round_has_every_image_that_is_one(tmp_path: Path, stored: str, read: str) -> None:
    own = numbers(tmp_path / "f", stored, ('kind = "parquet"', f'read = "{read}"\nkind = "parquet"'))
    assert own["rows"] == [len(SILOS) * ROWS], "two lack an image at each silo, and one has nobody"
    assert np.isfinite(own["weights"]).all()


def test_a_model_says_of_new_images_what_it_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with clinics(tmp_path / "f", "lists", job=JOB.replace("rounds = 3", "rounds = 12")) as (simulation, file):
        run(simulation, file)
        state = states(simulation)[0]
    home, new = tmp_path / "f" / "silos" / "east", tmp_path / "new.parquet"
    kind, cell = STORED["flat"]
    made, answers = images("south")
    pyarrow.parquet.write_table(pa.table({"scan": pa.array([*map(cell, made), None], kind)}), new)
    capsys.readouterr()
    asked = ["models", "predict", state.run.hex(), "--policy", str(home / "policy.toml"), str(new)]
    assert main(asked) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    scores = [line.partition(",")[2] for line in lines[: ROWS + 1]]
    assert first == "row,score"
    assert scores[-1] == "", "it has no image"
    assert np.mean((np.array(scores[:-1], float) > 0.5) == answers) > 0.8
    (tmp_path / "new.csv").write_text("scan\n1\n")
    assert main([*asked[:-1], str(tmp_path / "new.csv")]) == 1
    assert "is CSV, which has no arrays such as 'scan'" in capsys.readouterr().err


def test_a_family_that_takes_no_arrays_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    job = JOB.replace('"cnn"', '"linear-regression"').replace('[options]\nchannels = "4"\n', "")
    with clinics(tmp_path / "f", "lists", job=job) as (simulation, file):
        with pytest.raises(AnalystError, match="'scan' is an array, which linear-regression does not take; take"):
            run(simulation, file)
        assert not states(simulation)
