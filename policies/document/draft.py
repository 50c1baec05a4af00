"""A policy drafted from a source's schema: names and types of columns, and nothing else of it.

Bounds and domains that are read from the data would leak it. What a person must decide is the placeholder `FILL IN`,
with which a policy does not load; text columns are closed until somebody opens them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from crypto.keys import VerifyKey
from policies.document.columns import STORED_TYPES
from policies.document.load import PLACEHOLDER

MAX_NAME = 60
_MAX_COLUMN_NAME = 120

_POLICY = """\
# Drafted by `{command}` from the names and types of the columns alone, never from their values: bounds and domains
# that are read from the data leak it. Replace every "{placeholder}"; until then the policy does not load. Then run:
#   consilo-silo check-policy {path}
# Every key is explained in docs/policy-keys.md.
schema = "silo-policy/1"
mode   = "trial"                      # simulate mode only

[silo]
id           = "{silo}"
controller   = "{placeholder}"              # who answers for these data, such as "North Hospital"
sector       = "other"                # or "bank", "hospital", "retailer"
jurisdiction = {jurisdiction}
contact      = "{placeholder}"              # whom an analyst asks when refused, such as an address

[privacy_unit]                        # who one protected person is
entity    = "person"
id_column = {id_column}
max_rows  = 1                         # rows of one person that enter one request, at most

# A column's key is its name in questions: rename it until all silos say the same. `from` is its name in this file.
[sources.{table}]
kind = "{kind}"
uri  = {uri}
{columns}
[purposes."{placeholder}"]                  # the purpose's name, such as health-research
legal_basis  = "{placeholder}"              # such as "public-task" or "legitimate-interest"; see docs/policy-keys.md
computations = ["query"]

[budget]                              # zCDP rho; epsilon is shown at delta
delta    = 1e-6
lifetime = {{ rho = "{placeholder}" }}        # what may ever be spent on one person, never refreshed, such as 1.0

[disclosure]
min_cohort     = 10                   # groups with a smaller noisy count are withheld
min_silos      = 3
max_dimensions = 2
max_groups     = 100
aggregates     = ["count", "sum", "avg"]

[protection]
accept        = ["masking"]
max_colluding = 1                     # silos that may collude with the aggregator
max_missing   = {max_missing}                     # silos that may drop out
{analysts}"""
_MEASURE = """\
roles = ["measure", "filter"]         # or, to close it: roles = [] and no bounds
bounds = "{placeholder}"                    # [low, high] from public knowledge, never from the data
"""
_SCALE = """\
# scale = 0.4536                      # to convert the unit: the file's value is multiplied by it, as pounds to kg
"""
_STEP = "step = 0.01                           # the unit in which sums are made; bounds are multiples of it\n"
_BOOL = """\
roles = []                            # closed; to sum or filter by it: roles = ["measure", "filter"]
"""
_DATE = """\
roles = []                            # closed; to group or filter by its month, put two lines in place of this one:
# roles = ["dimension", "filter"]     # and give the source time_column = (this key) and lookback_days
# granularity = "month"               # or "day", "week", "quarter", "year"
"""
_STRING = """\
roles = []                            # closed; to group by it, put these three lines in place of this one:
# roles = ["dimension", "filter"]
# domain = "{placeholder}"                  # the public list of its values, such as ["female", "male", "unknown"]
# unknown = "unknown"                 # the one of them that stands for missing and unlisted values
"""


_ANALYST = """\

[analysts.{analyst}]
key      = "{key}"
purposes = ["{placeholder}"]                # the purpose's name
until    = {until}
{place}"""
_NOBODY = """
# [analysts.NAME]                      # nobody may ask until you name somebody here
# key      = "ed25519:..."            # the analyst makes it: consilo key new ana.key
# purposes = ["{placeholder}"]
# until    = 2030-01-01T00:00:00Z
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a draft is made from; `schema` gives DuckDB's types by column, `uri` is where the silo finds the file."""

    command: str
    silo: str
    table: str
    kind: str
    uri: str
    schema: Mapping[str, str]
    id_column: str | None
    max_missing: int = 0
    analyst: tuple[str, VerifyKey, datetime] | None = None
    jurisdiction: str | None = None  # of the silo, and of the analyst if there is one


def clean(name: str) -> str:
    """Return a name made of letters, digits and underscores that the policy language can carry."""
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60].lower()
    return cleaned if cleaned[:1].isalpha() else f"column_{cleaned}".rstrip("_")


def _keys(schema: Mapping[str, str]) -> dict[str, str]:
    """Return each column's key in the policy: its name where that can stand, else a cleaned one; no key twice."""
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for name in schema:
        key = first = name if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,59}", name) else clean(name)
        number = 2
        while key.casefold() in taken:
            key, number = f"{first}_{number}", number + 1
        taken.add(key.casefold())
        keys[name] = key
    return keys


def drafted(draft: Draft, path: str) -> str:
    """Return the text of a policy that stands at `path`."""
    keys = _keys(draft.schema)
    columns = [
        _column(f"sources.{draft.table}.columns.{keys[name]}", name, sql_type, name == draft.id_column)
        for name, sql_type in draft.schema.items()
    ]
    if draft.id_column is None:
        id_column = f'"{PLACEHOLDER}"               # the key of the column that says whose row it is; there roles = []'
    else:
        id_column = f'"{keys[draft.id_column]}"'
    place = None if draft.jurisdiction is None else json.dumps(draft.jurisdiction)
    analysts = _NOBODY.format(placeholder=PLACEHOLDER)
    if draft.analyst is not None:
        name, key, until = draft.analyst
        analysts = _ANALYST.format(
            placeholder=PLACEHOLDER,
            analyst=name,
            key=key,
            until=f"{until:%Y-%m-%d}T00:00:00Z",
            place="" if place is None else f"jurisdiction = {place}\n",
        )
    return _POLICY.format(
        command=draft.command,
        placeholder=PLACEHOLDER,
        path=path if path.isprintable() else "policy.toml",
        silo=draft.silo,
        jurisdiction=place or f'"{PLACEHOLDER}"              # such as "NO"',
        id_column=id_column,
        table=draft.table,
        kind=draft.kind,
        uri=json.dumps(draft.uri, ensure_ascii=False),
        columns="\n".join(columns),
        max_missing=draft.max_missing,
        analysts=analysts,
    )


def _column(header: str, name: str, sql_type: str, is_id: bool) -> str:
    kind = sql_type.partition("(")[0]
    declared = next((type_ for type_, known in STORED_TYPES.items() if kind in known), "string" if is_id else None)
    shown = json.dumps(name, ensure_ascii=not name.isprintable())
    if declared is None or not name.isprintable() or not 1 <= len(name) <= _MAX_COLUMN_NAME:
        return f"# left out, as a policy cannot carry it: column {shown[:200]} of type {kind[:40]}\n"
    text = f'[{header}]\nfrom = {shown}\ntype = "{declared}"\n'
    if is_id:
        return f'{text}class = "identifier"\nroles = []\n'
    text += 'class = "confidential"                # or "public", "internal", "sensitive", "special-category"\n'
    if declared == "string":
        return text + _STRING.format(placeholder=PLACEHOLDER)
    if declared == "bool":
        return text + _BOOL
    if declared == "date":
        return text + _DATE
    return text + _MEASURE.format(placeholder=PLACEHOLDER) + (_STEP if declared == "decimal" else "") + _SCALE


def to_fill_in(text: str) -> list[str]:
    """Return what is to be filled in, each once, in the order of the file."""
    todo: list[str] = []
    section = ""
    for line in text.splitlines():
        code = "" if line.startswith("#") else line.partition("  # ")[0].strip()
        if code.startswith("["):
            section = code.strip("[]").replace(f'"{PLACEHOLDER}"', "NAME")
        if PLACEHOLDER in code:
            todo.append("the purpose's name" if code.startswith("[") else f"{section}.{code.partition('=')[0].strip()}")
    return todo
