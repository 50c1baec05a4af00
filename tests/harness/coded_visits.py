"""A federation of four clinics whose visits have codes that nobody has listed, and whose keys may be found."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from federation.founding import found
from tests.harness.simulator import Noise, Simulation, no_noise, simulate

SILOS = ("east", "north", "south", "west")
PURPOSE, TABLE, COLUMN = "health-research", "visits", "code"
POLICY = """\
schema = "silo-policy/1"
[silo]
id = "{silo}"
controller = "Clinic"
sector = "hospital"
jurisdiction = "NO"
contact = "privacy@clinic.example"
[privacy_unit]
entity = "patient"
id_column = "id"
max_rows = 4
max_silos = 2
[sources.visits]
kind = "parquet"
uri = "visits.parquet"
[sources.visits.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
code = {{ type = "string", class = "internal", roles = ["dimension", "key"], domain = "discover", \
keys = {{ alphabet = "A-D0-2", length = 3, most = 2 }} }}
[purposes.health-research]
legal_basis = "legitimate-interest"
computations = ["query", "key-search"]
[budget]
delta = 1e-6
lifetime = {{ rho = 50.0 }}
[disclosure]
min_cohort = 5
min_silos = 3
max_dimensions = 1
max_groups = 400
aggregates = ["count"]
[protection]
accept = ["masking"]
max_missing = 1
[analysts.ana]
key = "{key}"
purposes = ["health-research"]
until = 2036-01-01T00:00:00Z
"""
# How many patients of each clinic have a code: what is common everywhere, at one clinic, rare, and no key at all.
COUNTS: Mapping[str, tuple[int, int, int, int]] = {
    "A01": (60, 50, 40, 70),
    "A02": (30, 40, 30, 20),
    "A0": (25, 25, 30, 40),
    "B": (20, 30, 30, 30),
    "C12": (90, 0, 0, 0),
    "DDD": (1, 0, 1, 0),
    "A0111": (50, 50, 50, 50),
    "a01": (50, 50, 50, 50),
}
Rows = Mapping[str, Sequence[dict[str, str | None]]]
COMMON = ("A0", "A01", "A02", "B", "C12")


def rows_of(silo: str) -> list[dict[str, str | None]]:
    """Return a clinic's visits: each patient once, and some cells that are missing."""
    place, found = SILOS.index(silo), list[dict[str, str | None]]()
    for code, counts in COUNTS.items():
        found += [{"id": f"{silo}-{code}-{number}", "code": code} for number in range(counts[place])]
    return [*found, {"id": f"{silo}-none", "code": None}]


def found_clinics(path: Path, rows: Rows | None = None, policy: str = POLICY) -> Path:
    """Found a federation of clinics with these visits, or with those of `rows_of`."""
    key = found(path, "clinics", dict.fromkeys(SILOS), ("ana",))["ana"]
    schema = pa.schema([("id", pa.string()), ("code", pa.string())])
    for silo in SILOS:
        home, own = path / "silos" / silo, rows_of(silo) if rows is None else rows[silo]
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(own), schema=schema), home / "visits.parquet")
        (home / "policy.toml").write_text(policy.format(silo=silo, key=key))
    return path


@contextmanager
def clinics(
    path: Path,
    noise: Noise = no_noise,
    rows: Rows | None = None,
    policy: str = POLICY,
) -> Iterator[Simulation]:
    """Run a federation of clinics in memory."""
    with simulate(found_clinics(path, rows, policy), noise=noise) as simulation:
        yield simulation
