"""Found a federation on given tables, and read the jobs that a page of the docs shows."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from analyst.training.job import read_job
from analyst.training.run import Training, train
from federation.founding import found
from tests.harness.simulator import Simulation, no_noise, simulate

ROOT = Path(__file__).resolve().parents[2]
PURPOSE = "research"
_POLICY = """\
schema = "silo-policy/1"
silo = {{ id = "{silo}", controller = "Owner", sector = "other", jurisdiction = "NO", contact = "a@o.example" }}
budget = {{ delta = 1e-6, lifetime = {{ rho = 10 }} }}
[privacy_unit]
entity = "person"
id_column = "id"
max_rows = {max_rows}
[sources.{table}]
release = "exact"
kind = "parquet"
uri = "{table}.parquet"
[sources.{table}.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
{columns}
[purposes.research]
legal_basis = "legitimate-interest"
computations = {computations}
[disclosure]
release = ["model", "metrics"]
own_metrics = true
[protection]
accept = ["masking"]
max_missing = {max_missing}
[vectors]
max_values = 2_000_000
[training]
max_rounds = 400
dp = "optional"
clip_norm = 1.0
max_rho_per_run = 10.0
[training.networks]
allow = "any-graph"
max_flops = 1_000_000_000_000_000
max_memory_mb = 8_000
[analysts.ana]
key = "{key}"
purposes = ["research"]
until = 2036-01-01T00:00:00Z
"""


@dataclass(frozen=True, slots=True)
class Use:
    """A table at several silos, and what its policies say of it."""

    table: str
    columns: Mapping[str, str]  # but the id, each as a line of the policy has it
    rows: Mapping[str, pa.Table]  # by silo
    computations: tuple[str, ...]
    max_rows: int = 1  # of one person
    max_missing: int = 1


@contextmanager
def running(use: Use, path: Path, job: str) -> Iterator[tuple[Simulation, Path]]:
    """Yield a federation in memory on the tables of a use, and the file of its job."""
    key = found(path, "uses", dict.fromkeys(use.rows), ("ana",))["ana"]
    columns = "\n".join(f"{name} = {line}" for name, line in use.columns.items())
    for silo, rows in use.rows.items():
        home = path / "silos" / silo
        pyarrow.parquet.write_table(rows, home / f"{use.table}.parquet")
        (home / "policy.toml").write_text(
            _POLICY.format(
                silo=silo,
                key=key,
                table=use.table,
                columns=columns,
                max_rows=use.max_rows,
                max_missing=use.max_missing,
                computations=json.dumps([*use.computations, "evaluation"]),
            )
        )
    (path / "job.toml").write_text(job)
    with simulate(path, noise=no_noise) as simulation:
        yield simulation, path / "job.toml"


def trained(simulation: Simulation, file: Path, progress: Callable[[int], None] = lambda done: None) -> Training:
    return train(simulation.federation, read_job(file), progress, file.with_name("keep.json"), sleep=lambda _: None)


def job_of(page: str, title: str) -> str:
    """Return the job file that a page of docs/ shows under a heading."""
    text = (ROOT / "docs" / page).read_text()
    section = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#+ |\Z)", text, re.S | re.M)
    assert section is not None, f"docs/{page} has no heading {title!r}"
    job = re.search(r"^```toml\n(schema.*?)^```$", section[1], re.S | re.M)
    assert job is not None, f"docs/{page} shows no job under {title!r}"
    return job[1]
