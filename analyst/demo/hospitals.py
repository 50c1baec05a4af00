"""Five hospitals that hold the NCCTG lung cancer trial between them.

Loprinzi et al., Journal of Clinical Oncology 12 (1994) 601-607; the table travels inside the `lifelines` package. The
trial's 18 institutions are grouped into five silos for this demo, and the column that names them is dropped: what
identifies a silo is never a dimension or a filter.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from analyst.errors import AnalystError
from analyst.founding import found
from crypto.keys import VerifyKey

FEDERATION = "consilo-demo"
ANALYST = "ana"
PURPOSE = "health-research"
TABLE = "lung"
# Institutions by hospital: 47, 45, 45, 46 and 45 patients (one record names no institution and stays at aspen).
HOSPITALS = {
    "aspen": (1, 4, 26),
    "birch": (12, 22, 2),
    "cedar": (13, 11, 32),
    "maple": (3, 16, 5, 33),
    "rowan": (21, 6, 7, 10, 15),
}

_POLICY = """\
schema = "silo-policy/1"
mode   = "trial"                       # simulate mode only

[policy]
id          = "{silo}/outcomes"
version     = 1
valid_from  = 2026-01-01T00:00:00Z
valid_until = 2036-01-01T00:00:00Z

[silo]
id           = "{silo}"
controller   = "{title} Hospital"
sector       = "hospital"
jurisdiction = "NO"
contact      = "privacy@{silo}.example"

[privacy_unit]                         # who one protected person is
entity    = "patient"
id_column = "patient_id"
max_rows  = 1                          # rows of one patient that enter one request

[sources.lung]
kind = "parquet"
uri  = "lung.parquet"
[sources.lung.columns]                 # bounds and domains are public knowledge, never read from the data
patient_id = {{ type = "string", class = "identifier", roles = [] }}
sex        = {{ type = "string", class = "internal", roles = ["dimension", "filter"], \
domain = ["female", "male", "unknown"], unknown = "unknown" }}
ecog       = {{ type = "int", class = "sensitive", roles = ["dimension", "filter"], domain = [-1, 0, 1, 2, 3], \
unknown = -1 }}
age        = {{ type = "int", class = "internal", roles = ["measure", "filter"], bounds = [30, 90], unit = "year" }}
survival   = {{ type = "int", class = "special-category", roles = ["measure", "filter"], bounds = [0, 1100], \
unit = "day" }}
died       = {{ type = "bool", class = "special-category", roles = ["measure", "filter"] }}
karnofsky  = {{ type = "int", class = "sensitive", roles = ["measure", "filter"], bounds = [50, 100], step = 10 }}
weight_loss = {{ type = "int", class = "sensitive", roles = ["measure"], bounds = [-30, 70], unit = "pound" }}

[purposes.health-research]
legal_basis  = "public-task"
vocabulary   = "DUO:0000006"
computations = ["query"]

[budget]                               # zCDP rho; epsilon is shown at delta
delta       = 1e-6
lifetime    = {{ rho = 1.0 }}            # per patient, never refreshed
per_request = {{ min_rho = 0.00002, max_rho = 0.1 }}

[disclosure]
min_cohort     = 25                    # on the noisy count, after opening
min_silos      = 3
max_dimensions = 2
max_groups     = 100
aggregates     = ["count", "sum", "avg"]

[protection]
accept        = ["masking"]
max_colluding = 1                      # silos that may collude with the aggregator
max_missing   = 1                      # silos that may drop out

[analysts.{analyst}]
key      = "{key}"
purposes = ["health-research"]
until    = 2036-01-01T00:00:00Z
"""


def read_lung() -> Any:
    """Return the trial as a pyarrow.Table with the demo's column names and `inst`; raises AnalystError."""
    package = find_spec("lifelines")  # found, not imported: importing it takes seconds
    if package is None or package.origin is None:
        raise AnalystError("the demo's data is not installed", "pip install 'consilo[demo]'")
    options = pyarrow.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    raw = pyarrow.csv.read_csv(Path(package.origin).parent / "datasets" / "lung.csv", convert_options=options)
    rows = range(raw.num_rows)
    sexes = {1: "male", 2: "female"}
    return pa.table(
        {
            "inst": raw["inst"],
            "patient_id": pa.array([f"NCCTG-{row + 1:03d}" for row in rows]),
            "sex": pa.array([sexes[value] for value in raw["sex"].to_pylist()]),
            "ecog": pc.cast(raw["ph.ecog"], pa.int8()),
            "age": pc.cast(raw["age"], pa.int16()),
            "survival": pc.cast(raw["time"], pa.int16()),
            "died": pa.array([bool(value) for value in raw["status"].to_pylist()]),
            "karnofsky": pc.cast(raw["ph.karno"], pa.int16()),
            "weight_loss": pc.cast(raw["wt.loss"], pa.int16()),
        }
    )


def parts(lung: Any) -> dict[str, Any]:
    """Return each hospital's rows, without the column that names institutions."""
    places = {inst: silo for silo, members in HOSPITALS.items() for inst in members} | {None: "aspen"}
    homes = [places[inst] for inst in lung["inst"].to_pylist()]
    return {silo: lung.drop_columns(["inst"]).filter(pa.array([home == silo for home in homes])) for silo in HOSPITALS}


def found_hospitals(path: Path) -> dict[str, VerifyKey]:
    """Write the whole federation into `path`: keys, roster, policies, data; raises AnalystError or OSError."""
    tables = parts(read_lung())
    keys = found(path, FEDERATION, tuple(HOSPITALS), (ANALYST,))
    for silo, table in tables.items():
        home = path / "silos" / silo
        pyarrow.parquet.write_table(table, home / "lung.parquet")
        text = _POLICY.format(silo=silo, title=silo.title(), analyst=ANALYST, key=keys[ANALYST])
        (home / "policy.toml").write_text(text)
    return keys
