"""One policy, its catalogue and one request that it allows, for tests to change in a single place."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from analyst.sql.offer import Offer
from crypto.keys import Secret, SigningKey
from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from policies.document.catalogue import catalogue_of
from policies.document.load import parse
from policies.document.policy import Analyst, Policy
from policies.requests.catalogue import Catalogue
from policies.requests.predicates import Compare
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import Table, TableColumn

KEY = str(SigningKey(Secret(bytes(range(32)))).public)
CREATED_AT = 1_800_000_000  # 2027-01-15, inside the policy's validity
NOW = CREATED_AT + 5

POLICY = f"""\
schema = "silo-policy/1"
mode   = "trial"

[policy]
id          = "north/visits"
version     = 3
valid_from  = 2026-01-01T00:00:00Z
valid_until = 2036-01-01T00:00:00Z

[silo]
id           = "north"
controller   = "North Hospital"
sector       = "hospital"
jurisdiction = "NO"
contact      = "privacy@north.example"

[privacy_unit]
entity    = "patient"
id_column = "patient_id"
max_rows  = 2
max_silos = 2

[sources.visits]
kind = "parquet"
uri  = "visits.parquet"
[sources.visits.columns]
patient_id = {{ type = "string", class = "identifier", roles = [] }}
ward   = {{ type = "string", class = "internal", roles = ["dimension", "filter"], \
domain = ["medicine", "surgery", "unknown"], unknown = "unknown" }}
grade  = {{ type = "int", class = "sensitive", roles = ["dimension", "filter"], domain = [-1, 0, 1, 2], unknown = -1 }}
age    = {{ type = "int", class = "internal", roles = ["measure", "filter"], bounds = [0, 110], unit = "year" }}
cost   = {{ type = "decimal", class = "confidential", roles = ["measure", "filter"], bounds = [-50, 5000], \
step = 0.01 }}
smoker = {{ type = "bool", class = "sensitive", roles = ["measure", "filter"] }}
region = {{ type = "string", class = "internal", roles = ["filter"] }}
stay   = {{ type = "int", class = "internal", roles = ["measure"], bounds = [0, 60], unit = "day" }}
diary  = {{ type = "string", class = "special-category", roles = [] }}

[purposes.health-research]
legal_basis  = "public-task"
vocabulary   = "DUO:0000006"
computations = ["query"]

[purposes.billing]
legal_basis  = "contract"
computations = []

[budget]
delta       = 1e-6
lifetime    = {{ rho = 1.0 }}
per_request = {{ min_rho = 0.001, max_rho = 0.1 }}

[disclosure]
min_cohort     = 25
min_silos      = 3
max_dimensions = 2
max_groups     = 12
aggregates     = ["count", "sum", "avg"]

[protection]
accept        = ["masking"]
max_colluding = 1
max_missing   = 1

[analysts.ana]
key      = "{KEY}"
purposes = ["health-research", "billing"]
until    = 2036-01-01T00:00:00Z
"""

WARD = TableColumn(name="ward", type="string", domain=("medicine", "surgery", "unknown"), unknown="unknown")
GRADE = TableColumn(name="grade", type="int", domain=("-1", "0", "1", "2"), unknown="-1")
AGE = TableColumn(name="age", type="int", low=0, high=110, step="1")
COST = TableColumn(name="cost", type="decimal", low=-5000, high=500_000, step="0.01")
SMOKER = TableColumn(name="smoker", type="bool", low=0, high=1, step="1")
REGION = TableColumn(name="region", type="string")
STAY = TableColumn(name="stay", type="int", low=0, high=60, step="1")
AT = {"quantile": "0.5", "quantile_disc": "0.25"}  # what an aggregate is asked at, if it needs that
COLUMNS = (WARD, GRADE, AGE, COST, SMOKER, REGION, STAY)
# The same in a file, with the person first: names and types of Arrow.
STORED = [
    ("patient_id", pa.string()),
    ("ward", pa.string()),
    ("grade", pa.int16()),
    ("age", pa.int64()),
    ("cost", pa.float64()),
    ("smoker", pa.bool_()),
    ("region", pa.string()),
    ("stay", pa.int32()),
]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the policy's text, which must occur in it."""

    old: str
    new: str

    def apply(self, text: str) -> str:
        assert self.old in text, f"the example policy has no {self.old!r}"
        return text.replace(self.old, self.new, 1)


def edited(*edits: Edit) -> str:
    """Return the example policy's text after the changes."""
    text = POLICY
    for edit in edits:
        text = edit.apply(text)
    return text


def decided_in(file: str) -> str:
    """Return the section of a policy whose decisions on consent are in a file with the usual names."""
    return (
        f'[consent]\nmode = "table"\nsource = "{file}"\nsubject = "person"\npurpose = "purpose"\n'
        'given_at = "given"\nwithdrawn_at = "withdrawn"\n'
    )


def policy(*edits: Edit) -> Policy:
    """Return the example policy after the changes."""
    return parse(edited(*edits).encode(), "policy.toml")


def plan(**changes: Any) -> Plan:
    """Return a plan with a filter, a dimension and two aggregates, with the changes."""
    fields: dict[str, Any] = {
        "where": Compare(column="smoker", op="=", value="true"),
        "group_by": ("ward",),
        "aggregates": (
            Aggregate(function="count", column=None, alias="n"),
            Aggregate(function="avg", column="age", alias="mean_age"),
        ),
    }
    return Plan(**fields | changes)


def table(**changes: Any) -> Table:
    """Return the definition of the example's table, with the changes."""
    fields: dict[str, Any] = {"name": "visits", "max_rows": 2, "max_silos": 2, "columns": COLUMNS}
    return Table(**fields | changes)


def request(**changes: Any) -> Request:
    """Return a request that the example policy allows, with the changes."""
    fields: dict[str, Any] = {
        "federation": "fed",
        "nonce": bytes(range(16)),
        "analyst": "ana",
        "recipients": (Recipient(name="ana", key=bytes(PUBLIC_BYTES)),),
        "purpose": "health-research",
        "micro_rho": 10_000,
        "silos": ("east", "north", "south", "west"),
        "backend": "masking",
        "round_key": b"",
        "sealed_secrets": (),
        "table": table(),
        "plan": plan(),
        "created_at": CREATED_AT,
        "expires_at": CREATED_AT + 600,
    }
    return Request(**fields | changes)


def catalogue(of: Policy, **changes: Any) -> Catalogue:
    """Return what a silo with this policy publishes, with the changes."""
    analyst = Analyst(key=KEY, purposes=tuple(of.purposes), until=datetime(2100, 1, 1, tzinfo=UTC))
    published = catalogue_of(of, analyst, "fed", bytes(32), bytes(16))
    return Catalogue.model_validate({**dict(published), **changes})


def offer(*policies: Policy) -> Offer:
    """Return what silos with these policies offer together."""
    return Offer({f"silo-{index}": catalogue(one) for index, one in enumerate(policies)})
