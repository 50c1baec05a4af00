"""Training while parties are killed: at every step of a round, and at every call of the analyst's command.

Four silos train without noise. A run is the same to its last bit whoever was killed on the way, no silo contributes
twice to one model, and what cannot go on says what helps.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from analyst.errors import AnalystError, RoundError, StuckError
from analyst.training.job import read_job
from analyst.training.progress import Progress
from analyst.training.run import Training, show_training, train
from federation.errors import FederationError
from federation.founding import found
from policies.requests.exact import ExactStep
from policies.requests.request import Request
from silo_node.training.run import RunState
from tests.harness.inside import forget_offer, ledger_of
from tests.harness.simulator import STEPS, Simulation, simulate
from tests.rounds.test_exact_families import POLICY, job_of, rows_of

SILOS = ("east", "middle", "north", "south")
ROUNDS = 3  # of a linear regression


def founded(path: Path, max_missing: int = 1, silos: Sequence[str] = SILOS, **changes: str) -> Path:
    key = found(path, "banks", dict.fromkeys(silos), ("ana",))["ana"]
    for silo in silos:
        home = path / "silos" / silo
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows_of(silo)[:30]), home / "loans.parquet")
        text = POLICY.format(silo=silo, key=key, computations='["linear-regression"]')
        (home / "policy.toml").write_text(text.replace("max_missing = 1", f"max_missing = {max_missing}"))
    (path / "job.toml").write_text(job_of("linear-regression", "paid"))
    return path


@contextmanager
def banks(path: Path, max_missing: int = 1, silos: Sequence[str] = SILOS) -> Iterator[tuple[Simulation, Path]]:
    with simulate(founded(path, max_missing, silos)) as simulation:
        yield simulation, path / "job.toml"


def run(simulation: Simulation, file: Path, progress: Callable[[int], None] = lambda done: None) -> Training:
    return train(simulation.federation, read_job(file), progress, keep_of(file), sleep=lambda _: None)


def keep_of(file: Path) -> Path:
    return file.with_name("keep.json")


def state_of(simulation: Simulation, silo: str, run: str) -> RunState:
    states = map(RunState.decode, ledger_of(simulation.silos[silo]).runs())
    return next(state for state in states if state.run.hex() == run)


def models(simulation: Simulation, training: Training) -> set[str]:
    """Return the models that silos hold at the end of a run, as text."""
    held = (state_of(simulation, silo, training.run).exact for silo in training.holders)
    return {model.model_dump_json() for model in held if model is not None}


def contributed(simulation: Simulation, silo: str, run: str) -> list[int]:
    """Return the steps of a run to which a contribution of a silo has left, or may have, in their order."""
    rows = ledger_of(simulation.silos[silo]).history()
    return sorted(row.step for row in rows if row.run is not None and row.run.hex() == run and row.is_committed)
