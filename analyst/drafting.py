"""`consilo new`: found a simulated federation around one's own files, and draft the silos' policies.

Promise: a draft holds the names and types of a file's columns and nothing else of it, as bounds or domains read from
the data would leak. What a person must decide is the placeholder `FILL IN`, with which a policy does not load.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from analyst.errors import AnalystError
from analyst.founding import AGGREGATOR, found
from crypto.keys import VerifyKey
from crypto.manifest import MIN_SURVIVORS
from policies.load import PLACEHOLDER
from policies.model import STORED_TYPES

_KINDS = {".csv": "csv", ".parquet": "parquet"}
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}"
_MAX_COLUMN_NAME = 120

_POLICY = """\
# Drafted by `consilo new` from the names and types of the columns alone, never from their values: bounds and domains
# that are read from the data leak it. Replace every "{placeholder}"; until then the policy does not load. Then run:
#   consilo-silo check-policy {path}
schema = "silo-policy/1"
mode   = "trial"                      # simulate mode only

[silo]
id           = "{silo}"
controller   = "{placeholder}"              # who answers for these data, such as "North Hospital"
sector       = "other"                # or "bank", "hospital", "retailer"
jurisdiction = "{placeholder}"              # such as "NO"
contact      = "{placeholder}"              # whom an analyst asks when refused, such as an address

[privacy_unit]                        # who one protected person is
entity    = "person"
id_column = {id_column}
max_rows  = 1                         # rows of one person that enter one request, at most

# A column's key is its name in questions: rename it until all silos say the same. `from` is its name in this file.
[sources.{table}]
kind = "{kind}"
uri  = "{table}.{kind}"
{columns}
[purposes."{placeholder}"]                  # the purpose's name, such as health-research
legal_basis  = "{placeholder}"              # such as "public-task" or "legitimate-interest"; see docs/quickstart.md
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

[analysts.{analyst}]
key      = "{key}"
purposes = ["{placeholder}"]                # the purpose's name
until    = {until}
"""
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
_STRING = """\
roles = []                            # closed; to group by it, put these three lines in place of this one:
# roles = ["dimension", "filter"]
# domain = "{placeholder}"                  # the public list of its values, such as ["female", "male", "unknown"]
# unknown = "unknown"                 # the one of them that stands for missing and unlisted values
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """One silo's file and the schema that its policy is drafted from."""

    silo: str
    file: Path
    kind: str
    schema: Mapping[str, str]  # DuckDB's types by column
    id_column: str | None


def new(
    path: Path,
    files: Sequence[tuple[str, Path]],
    table: str | None,
    id_columns: Sequence[str],
    analyst: str,
    now: datetime,
) -> dict[Path, list[str]]:
    """Found the federation in `path`; return what is to be filled in, by policy file.

    `id_columns` are the names that the column of the person has in the files. Raises AnalystError before anything is
    written, else CryptoError or OSError.
    """
    names = [silo for silo, _ in files]
    for what, name in [*(("a silo", silo) for silo in names), ("an analyst", analyst)]:
        if not re.fullmatch(_NAME, name):
            raise AnalystError(f"{name!r} cannot be the name of {what}", "use letters, digits, - and _, at most 60")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AnalystError(f"the silo {twice!r} is named twice", "give every silo a name of its own")
    if AGGREGATOR in names:
        raise AnalystError(f"{AGGREGATOR!r} cannot be the name of a silo", "choose another name")
    if len(names) < MIN_SURVIVORS:
        raise AnalystError(
            f"{len(names)} silos, at least {MIN_SURVIVORS} are needed", "add --silo NAME=FILE, once for each silo"
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AnalystError(f"{path} is there and not empty", "name a new directory")
    drafts = [_examine(silo, file, id_columns) for silo, file in files]
    chosen = table if table is not None else _clean(files[0][1].stem)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,59}", chosen):
        raise AnalystError(
            f"{chosen!r} cannot be the name of a table", "add --table NAME: a letter, then letters, digits and _"
        )
    key = found(path, _clean(path.resolve().name), tuple(names), (analyst,))[analyst]
    todo: dict[Path, list[str]] = {}
    for draft in drafts:
        home = path / "silos" / draft.silo
        shutil.copyfile(draft.file, home / f"{chosen}.{draft.kind}")
        (home / f"{chosen}.{draft.kind}").chmod(0o600)
        policy = home / "policy.toml"
        text = _policy(draft, policy, chosen, analyst, key, now + timedelta(days=365), len(names))
        policy.write_text(text)
        todo[policy] = _to_fill_in(text)
    return todo


def _examine(silo: str, file: Path, id_columns: Sequence[str]) -> Draft:
    """Read the names and types of a file's columns; raises AnalystError."""
    import duckdb  # heavy: only once files are examined

    kind = _KINDS.get(file.suffix.lower())
    if not file.is_file():
        raise AnalystError(f"silo {silo!r}: there is no file {file}", "mend --silo NAME=FILE")
    if kind is None:
        raise AnalystError(f"silo {silo!r}: {file} is neither .csv nor .parquet", "convert it first")
    every_line = ", sample_size = -1" if kind == "csv" else ""
    literal = "'" + str(file).replace("'", "''") + "'"
    try:
        with duckdb.connect() as connection:
            described = connection.execute(
                f"DESCRIBE FROM read_{kind}([{literal}], hive_partitioning = false{every_line})"
            ).fetchall()
    except duckdb.Error as err:
        reason = str(err).splitlines()[0][:200]
        raise AnalystError(f"silo {silo!r}: {file} cannot be read as {kind} ({reason})", "mend the file") from err
    schema = {str(row[0]): str(row[1]) for row in described}
    ids = [name for name in schema if name in id_columns]
    if id_columns and len(ids) != 1:
        asked, listing = " or ".join(map(repr, id_columns)), ", ".join(schema)
        problem = "has no column" if not ids else "has more than one column"
        raise AnalystError(
            f"silo {silo!r}: {file} {problem} {asked} (found: {listing})", "repeat --id for another name of it"
        )
    return Draft(silo, file, kind, schema, ids[0] if ids else None)


def _clean(name: str) -> str:
    """Return a name made of letters, digits and underscores that the policy language can carry."""
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60].lower()
    return cleaned if cleaned[:1].isalpha() else f"column_{cleaned}".rstrip("_")


def _keys(schema: Mapping[str, str]) -> dict[str, str]:
    """Return each column's key in the policy: its name where that can stand, else a cleaned one; no key twice."""
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for name in schema:
        key = first = name if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,59}", name) else _clean(name)
        number = 2
        while key.casefold() in taken:
            key, number = f"{first}_{number}", number + 1
        taken.add(key.casefold())
        keys[name] = key
    return keys


def _policy(
    draft: Draft, path: Path, table: str, analyst: str, key: VerifyKey, until: datetime, silo_count: int
) -> str:
    keys = _keys(draft.schema)
    columns = [
        _column(f"sources.{table}.columns.{keys[name]}", name, sql_type, name == draft.id_column)
        for name, sql_type in draft.schema.items()
    ]
    if draft.id_column is None:
        id_column = f'"{PLACEHOLDER}"               # the key of the column that says whose row it is; there roles = []'
    else:
        id_column = f'"{keys[draft.id_column]}"'
    return _POLICY.format(
        placeholder=PLACEHOLDER,
        path=path if str(path).isprintable() else "policy.toml",
        silo=draft.silo,
        id_column=id_column,
        table=table,
        kind=draft.kind,
        columns="\n".join(columns),
        max_missing=int(silo_count > MIN_SURVIVORS),
        analyst=analyst,
        key=key,
        until=f"{until:%Y-%m-%d}T00:00:00Z",
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
    return text + _MEASURE.format(placeholder=PLACEHOLDER) + (_STEP if declared == "decimal" else "") + _SCALE


def _to_fill_in(text: str) -> list[str]:
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
