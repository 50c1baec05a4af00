"""Five hospitals that hold the NCCTG lung cancer trial between them.

Loprinzi et al., Journal of Clinical Oncology 12 (1994) 601-607; the table travels inside the `lifelines` package. The
trial's 18 institutions are grouped into five silos for this demo. The column that names them is dropped, as a column
that identifies a silo must not be a dimension or a filter. The decisions on consent are invented: everybody consented.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from analyst.demo.sector import DECISIONS, Sector, data_file, found_sector
from crypto.keys import VerifyKey

PURPOSE = "health-research"
# Institutions by hospital: 47, 45, 45, 46 and 45 patients (one record names no institution and stays at aspen).
HOSPITALS = {
    "aspen": (1, 4, 26),
    "birch": (12, 22, 2),
    "cedar": (13, 11, 32),
    "maple": (3, 16, 5, 33),
    "rowan": (21, 6, 7, 10, 15),
}

_COLUMNS = """\
patient_id = { type = "string", class = "identifier", roles = [] }
sex        = { type = "string", class = "internal", roles = ["dimension", "filter"], \
domain = ["female", "male", "unknown"], unknown = "unknown" }
ecog       = { type = "int", class = "sensitive", roles = ["dimension", "filter"], domain = [-1, 0, 1, 2, 3], \
unknown = -1 }
age        = { type = "int", class = "internal", roles = ["measure", "filter"], bounds = [30, 90], \
unit = "year", can_be_missing = false }
survival   = { type = "int", class = "special-category", roles = ["measure", "filter"], bounds = [0, 1100], \
unit = "day", can_be_missing = false }
died       = { type = "bool", class = "special-category", roles = ["measure", "filter"], can_be_missing = false }
karnofsky  = { type = "int", class = "sensitive", roles = ["measure", "filter"], bounds = [50, 100], step = 10 }
weight_loss = { type = "int", class = "sensitive", roles = ["measure"], bounds = [-30, 70], unit = "pound" }
"""

_CONSENT = f"""
[consent]                              # read anew at every request
mode         = "table"
source       = "{DECISIONS}"
subject      = "person"
purpose      = "purpose"
given_at     = "given_at"
withdrawn_at = "withdrawn_at"
"""


def read_lung() -> Any:
    """Return the trial as a pyarrow.Table with the demo's column names and `inst`; raises AnalystError."""
    options = pyarrow.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    raw = pyarrow.csv.read_csv(data_file("lifelines", "datasets", "lung.csv"), convert_options=options)
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


SECTOR = Sector(
    kind="hospital",
    silos=tuple(HOSPITALS),
    house="Hospital",
    jurisdiction="NO",
    policy="outcomes",
    entity="patient",
    table="lung",
    columns=_COLUMNS,
    purpose=PURPOSE,
    terms='legal_basis  = "consent"\nconsent      = "opt-in"\nvocabulary   = "DUO:0000006"',
    max_rows=1,
    min_cohort=25,
    read=read_lung,
    split=parts,
    headline="Five hospitals, one question, no patient record moves",
    intro=(
        "The NCCTG lung cancer trial: {rows} real records. Its 18 institutions are grouped\n"
        "into five silos for this demo; the grouping and all consents are artificial."
    ),
    title="{rows} patients of the NCCTG lung cancer trial",
    question="SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex",
    epsilon=2,
    decimals=1,
    refused="SELECT COUNT(*) AS n FROM lung WHERE weight_loss > 20",
    next_question="SELECT sex, COUNT(*) AS n, SUM(died) AS deaths FROM lung GROUP BY sex",
    sections=_CONSENT,
    has_decisions=True,
)


def found_hospitals(path: Path) -> dict[str, VerifyKey]:
    """Write the whole federation into `path`; raises AnalystError or OSError."""
    return found_sector(path, SECTOR)
