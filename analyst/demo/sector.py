"""One sector of the demo: its data, its silos' policies, the questions of its story; and founding a federation of it.

Sectors are founded alone, or together as one federation. A policy's bounds and domains are public knowledge, written in
the sector's module; nothing in a policy is read from the data. The rest of a policy is the same in every sector, and is
written here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from analyst.errors import AnalystError
from crypto.keys import VerifyKey
from federation.files import replace_file
from federation.founding import found

FEDERATION = "consilo-demo"
ANALYST = "ana"
DECISIONS = "consent.csv"
GIVEN_AT = "2026-01-01T00:00:00Z"

_POLICY = """\
schema = "silo-policy/1"
mode   = "trial"                       # simulate mode only

[policy]
id          = "{silo}/{policy}"
version     = 1
valid_from  = 2026-01-01T00:00:00Z
valid_until = 2036-01-01T00:00:00Z

[silo]
id           = "{silo}"
controller   = "{title} {house}"
sector       = "{kind}"
jurisdiction = "{jurisdiction}"
contact      = "privacy@{silo}.example"

[privacy_unit]                         # who one protected person is
entity    = "{entity}"
id_column = "{entity}_id"
max_rows  = {max_rows:<26} # rows of one {entity} that enter one request

[sources.{table}]
kind = "parquet"
uri  = "{table}.parquet"
[sources.{table}.columns]                 # bounds and domains are public knowledge, never read from the data
{columns}
[purposes.{purpose}]
{terms}
computations = {computations}
{sections}
[budget]                               # zCDP rho; epsilon is shown at delta
delta       = 1e-6
lifetime    = {{ rho = 1.0 }}            # per {entity}, never refreshed
per_request = {{ min_rho = 0.00002, max_rho = 0.1 }}

[disclosure]
min_cohort     = {min_cohort:<21} # on the noisy count, after opening
min_silos      = 3
max_dimensions = 2
max_groups     = 100
aggregates     = ["count", "sum", "avg", "var", "covar", "corr", "regr", "quantile", "survival"]

[protection]
accept        = ["masking", "shares", "bfv", "ckks", "paillier"]
max_colluding = 1                      # silos of the federation that may collude with the aggregator
max_missing   = 1                      # silos asked that may be missing

[analysts.{analyst}]
key      = "{key}"
purposes = {purposes}
until    = 2036-01-01T00:00:00Z
"""


@dataclass(frozen=True, slots=True)
class Sector:
    """One sector; `read` returns all rows as a pyarrow.Table, `split` those of each silo, with the id `ENTITY_id`."""

    kind: str  # the policy's silo.sector
    silos: tuple[str, ...]
    house: str  # the second part of a controller's name, after the silo's name
    jurisdiction: str
    policy: str
    entity: str
    table: str
    columns: str
    purpose: str
    terms: str  # the purpose's legal basis, consent and vocabulary, in TOML
    max_rows: int
    min_cohort: int  # so far from the question's noise that no run can cross it
    read: Callable[[], Any]
    split: Callable[[Any], Mapping[str, Any]]
    headline: str
    intro: str  # with {rows}; says that the split is artificial
    title: str  # a description of the rows, with {rows}
    question: str
    epsilon: float  # of the question
    decimals: int  # of the true averages next to the answer
    refused: str
    next_question: str
    computations: tuple[str, ...] = ("query",)  # of the purpose
    more_purposes: tuple[str, ...] = ()  # defined in `sections`; not part of the sector's own story
    sections: str = ""  # further sections of the policy, in TOML
    has_decisions: bool = False  # on consent, in DECISIONS beside the data: at first, everybody has given it

    @property
    def counting(self) -> str:
        """The question that counts the rows."""
        return f"SELECT COUNT(*) AS n FROM {self.table}"  # noqa: S608


def found_sector(path: Path, sector: Sector) -> dict[str, VerifyKey]:
    """Write a federation of one sector into `path`; raises AnalystError or OSError."""
    return found_sectors(path, (sector,))


def found_sectors(path: Path, sectors: Sequence[Sector]) -> dict[str, VerifyKey]:
    """Write one federation of these sectors into `path`: keys, roster, policies, data; return the analysts' keys.

    Raises AnalystError or OSError.
    """
    tables = {sector.kind: sector.split(sector.read()) for sector in sectors}
    places = {silo: sector.jurisdiction for sector in sectors for silo in sector.silos}
    keys = found(path, FEDERATION, places, (ANALYST,), sectors[0].jurisdiction)
    for sector in sectors:
        for silo in sector.silos:
            home, table = path / "silos" / silo, tables[sector.kind][silo]
            pyarrow.parquet.write_table(table, home / f"{sector.table}.parquet")
            if sector.has_decisions:
                write_decisions(home, sector, dict.fromkeys(table[f"{sector.entity}_id"].to_pylist()))
            replace_file(home / "policy.toml", _policy(sector, silo, keys[ANALYST]).encode())
    return keys


def write_decisions(home: Path, sector: Sector, withdrawn_at: Mapping[str, str | None]) -> None:
    """Replace the silo's file of decisions atomically: these persons gave consent, some withdrew it at a time."""
    count = len(withdrawn_at)
    decisions = pa.table(
        {
            "person": list(withdrawn_at),
            "purpose": [sector.purpose] * count,
            "given_at": [GIVEN_AT] * count,
            "withdrawn_at": pa.array(withdrawn_at.values(), pa.string()),
        }
    )
    partial = home / f"{DECISIONS}.partial"
    pyarrow.csv.write_csv(decisions, partial)
    partial.replace(home / DECISIONS)


def data_file(package: str, *parts: str) -> Path:
    """Return the path of a data file inside an installed package; raises AnalystError."""
    spec = find_spec(package)  # found, not imported: importing takes seconds, or fails
    file = None if spec is None or spec.origin is None else Path(spec.origin).parent.joinpath(*parts)
    if file is None or not file.is_file():
        raise AnalystError("the demo's data is not installed", "pip install 'consilo[demo]'")
    return file


def _policy(sector: Sector, silo: str, key: VerifyKey) -> str:
    return _POLICY.format(
        silo=silo,
        title=silo.title(),
        house=sector.house,
        kind=sector.kind,
        jurisdiction=sector.jurisdiction,
        policy=sector.policy,
        entity=sector.entity,
        max_rows=sector.max_rows,
        table=sector.table,
        columns=sector.columns,
        purpose=sector.purpose,
        terms=sector.terms,
        computations=json.dumps(sector.computations),
        sections=sector.sections,
        purposes=json.dumps((sector.purpose, *sector.more_purposes)),
        min_cohort=sector.min_cohort,
        analyst=ANALYST,
        key=key,
    )
