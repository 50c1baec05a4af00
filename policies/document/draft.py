"""Draft a policy from what is found of a source and from what a person answers.

Promise: of the rows a draft has no value. It has the columns' names and types and, of a CSV file, marks from the fixed
lists of `policies.document.sniff`: how missing cells, numbers, dates and truth values are written. Bounds and domains
taken from the data would leak it. Where a person must decide, the draft has the placeholder `FILL IN`, and does not
load until it is replaced. Text columns are closed until a person opens them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from crypto.keys import VerifyKey
from policies.document.agreement import ColumnDraft, array_keys, cells_of, remark_of, toml, toml_key
from policies.document.answers import DELTA, UNANSWERED, Answers
from policies.document.consistency import MIN_HONEST
from policies.document.found import PLAIN, FoundTable
from policies.document.load import PLACEHOLDER
from policies.networks.names import NETWORKS, PACKED

COLLUDING = 1  # silos that a draft assumes to collude
_SCHEMA = """\
from the names and types of the columns alone, never from their values: bounds and domains
# that are read from the data leak it."""
_WRITTEN = """\
from the names of the columns, and from how the cells of the first 100,000 lines (16 MiB at
# most) are written: their types, and marks from fixed lists. No other value is here: bounds and domains that are read
# from the data leak it."""
_POLICY = """\
# Drafted by `{command}` {basis} {replace} Then run:
#   consilo-silo check-policy {path}
# Every key is explained in docs/policy-keys.md.
schema = "silo-policy/1"
mode   = "trial"                      # simulate mode only

[silo]
id           = "{silo}"
controller   = {controller}
sector       = "other"                # or "bank", "hospital", "retailer"
jurisdiction = {jurisdiction}
contact      = {contact}

[privacy_unit]                        # who one protected person is
entity    = "person"
id_column = {id_column}
max_rows  = {max_rows}                         # rows of one person that enter one request, at most
{norm}
# A column's key is its name in questions: rename it until all silos say the same. `from` is its name in this file.
[sources.{table}]
{release}kind = "{kind}"
uri  = {uri}
{cells}{columns}
[purposes.{purpose}
legal_basis  = {basis_of_law}
computations = {computations}

[budget]                              # zCDP rho; epsilon is shown at delta
delta    = {delta}
lifetime = {lifetime}

[disclosure]
min_cohort     = 10                   # groups with a smaller noisy count are withheld
min_silos      = {least}                    # in a sum: {beside}
max_dimensions = 2
max_groups     = 100
{leaves}

[protection]
accept        = ["masking"]
max_colluding = {colluding}                     # silos of the federation that may collude with the aggregator
max_missing   = {max_missing}                     # silos asked that may be missing
{training}{analysts}"""
_MEASURE = """\
roles = ["measure", "filter"]         # or, to close it: roles = [] and no bounds
bounds = "{placeholder}"                    # [low, high] from public knowledge, never from the data
"""
_SCALE = """\
# scale = 0.4536                      # to convert the unit: the file's value is multiplied by it, as pounds to kg
"""
_NUMBER = """\
roles = []                            # closed; to sum or filter by it, put two lines in place of this one:
# roles = ["measure", "filter"]
# bounds = "{placeholder}"                  # [low, high] from public knowledge, never from the data
"""
_TRAINING = """\

[training]                            # models go to the silos that train them, to nobody else
max_rounds      = 100                 # steps of one run, at most
{dp}clip_norm       = 5                   # the longest gradient of one person that a run may count
max_rho_per_run = {rho}
"""
_NETWORKS = """\

[training.networks]                   # networks: those that the program ships, and no other graph
allow         = "{allow}"
max_weights   = 1_000_000             # of one network
max_flops     = 1_000_000_000_000_000 # operations of one round
max_memory_mb = 2048                  # of the process that computes it
max_seconds   = 60                    # of one round there
"""
_EXACT = """\
release = "exact"                     # sums without noise leave, for models alone: nothing is promised to a person
"""
_DP = """\
dp              = "optional"          # models without noise are allowed, as the data are exact
"""
_ANSWERS = 'aggregates     = ["count", "sum", "avg"]'
_UNUSED_RHO = Decimal("0.01")  # of exact data, which have no price
_LABEL = """\
roles = ["label"]                     # models predict it, and no question uses it
"""
_LABEL_BOUNDS = """\
bounds = "{placeholder}"                    # [low, high] from public knowledge, never from the data
"""
_LABEL_DOMAIN = """\
domain = "{placeholder}"                    # the public list of its values, such as ["no", "yes", "unknown"]
unknown = "unknown"                   # the one of them that stands for missing and unlisted values
"""
_STEP = "step = 0.01                           # the unit in which sums are made; bounds are multiples of it\n"
_BOOL = """\
roles = []                            # closed; to sum or filter by it: roles = ["measure", "filter"]
"""
_OPEN_ARRAY = """\
roles = ["feature"]                   # networks learn from it, no question uses it; to close it: roles = [], no bounds
"""
_CLOSED_ARRAY = """\
roles = []                            # closed; for networks to learn from it, put these lines in place of this one:
# roles = ["feature"]
"""
_ARRAY = {
    "shape": "how many numbers each axis of a cell has, such as [28, 28]",
    "bounds": "[low, high] of its numbers, from public knowledge, never from the data",
    "step": "the unit in which its numbers are kept; bounds are multiples of it",
}
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
purposes = [{purpose}]{told}
until    = {until}
{place}"""
_NOBODY = """
# [analysts.NAME]                      # nobody may ask until you name somebody here
# key      = "ed25519:..."            # the analyst makes it: consilo key new ana.key
# purposes = [{purpose}]
# until    = 2030-01-01T00:00:00Z
"""
_NORM = "max_norm  = {max_norm:<25} # L2 norm of the rows of one person over the groups of a question, at most"


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    """The inputs of a draft; `uri` is the location of the rows at the silo, `columns` are those of `found`."""

    command: str
    silo: str
    table: str
    kind: str
    uri: str
    found: FoundTable
    columns: tuple[ColumnDraft, ...]
    answers: Answers = UNANSWERED
    is_named: bool = False  # whether a file of columns says which to open
    members: int | None = None  # silos of the federation, where they are known
    analyst: tuple[str, VerifyKey, datetime] | None = None


def drafted(draft: PolicyDraft, path: str) -> str:
    """Return the text of a drafted policy; `path` is the policy file's path."""
    answers = draft.answers
    controller, contact = answers.controller(draft.silo)
    id_key = next((toml(column.key) for column in draft.columns if column.is_id), None)
    columns = "\n".join(_column(draft, column) for column in draft.columns)
    analysts = _NOBODY.format(placeholder=PLACEHOLDER, purpose=toml(answers.purpose or PLACEHOLDER))
    if draft.analyst is not None:
        name, key, until = draft.analyst
        place = "" if answers.jurisdiction is None else f"jurisdiction = {toml(answers.jurisdiction)}\n"
        analysts = _ANALYST.format(
            analyst=name,
            key=key,
            until=f"{until:%Y-%m-%d}T00:00:00Z",
            place=place,
            purpose=toml(answers.purpose or PLACEHOLDER),
            told="" if answers.purpose else "                # the purpose's name",
        )
    text = _POLICY.format(
        command=draft.command,
        basis=_WRITTEN if draft.kind == "csv" else _SCHEMA,
        replace="{replace}",
        path=path if path.isprintable() else "policy.toml",
        silo=draft.silo,
        controller=_asked(controller, 'who answers for these data, such as "North Hospital"'),
        jurisdiction=_asked(answers.jurisdiction, 'such as "NO"'),
        contact=_asked(contact, "the contact for an analyst who is refused, such as an address"),
        id_column=_asked(
            None if id_key is None else json.loads(id_key),
            "the key of the column that says whose row it is; there roles = []",
        ),
        max_rows=answers.max_rows,
        norm="" if answers.max_norm is None else f"{_NORM.format(max_norm=answers.max_norm)}\n",
        table=draft.table,
        kind=draft.kind,
        uri=toml(draft.uri),
        cells="".join(f"{line}\n" for line in _cells(draft)),
        columns=columns,
        release=_EXACT if answers.has_exact_data else "",
        leaves=_leaves(answers),
        purpose=_purpose(answers.purpose),
        basis_of_law=_asked(answers.basis, 'such as "public-task" or "legitimate-interest"; see docs/policy-keys.md'),
        computations=toml(answers.computations),
        delta=DELTA,
        lifetime=_lifetime(answers),
        **_silos(draft.members),
        training=_training(answers),
        analysts=analysts,
    )
    is_done = not to_fill_in(text)
    order = "Read it." if is_done else f'Replace every "{PLACEHOLDER}"; until then the policy does not load.'
    return text.replace("{replace}", order, 1)


def _leaves(answers: Answers) -> str:
    """Return which results may leave, where that is not the default, and of answers to questions which aggregates."""
    results = [] if answers.has_exact_data else ["query-result"]
    results += ["model"] if answers.is_training else []
    results += ["metrics"] if answers.is_judging else []
    lines = [] if answers.has_exact_data else [_ANSWERS]
    if answers.has_exact_data or answers.is_judging:
        lines.insert(0, f"release        = {toml(results)}")
    return "\n".join(lines)


def _silos(members: int | None) -> dict[str, object]:
    """Return how many silos a sum needs: with those that collude left out, this one still has two others beside it.

    In a federation of fewer it needs all.
    """
    enough = COLLUDING + MIN_HONEST
    least = enough if members is None else min(enough, members)
    beside = (
        "this silo, two others, and those that collude" if least == enough else "all there are; a fourth would be safer"
    )
    missing = int(members is not None and members > least)
    return {"least": least, "beside": beside, "colluding": COLLUDING, "max_missing": missing}


def _asked(answer: str | None, comment: str) -> str:
    return f"{toml(PLACEHOLDER):<23}# {comment}" if answer is None else toml(answer)


def _purpose(name: str | None) -> str:
    if name is None:
        return f"{toml(PLACEHOLDER)}]                  # the purpose's name, such as health-research"
    return f"{toml_key(name)}]"


def _lifetime(answers: Answers) -> str:
    text = "what may ever be spent on one person, never refreshed"
    if answers.rho is None and answers.has_exact_data:
        return f"{{ rho = {_UNUSED_RHO} }}            # {text}; exact data have no price"
    if answers.rho is None:
        return f'{{ rho = "{PLACEHOLDER}" }}        # {text}, such as 1.0'
    return f"{{ rho = {answers.rho} }}        # epsilon {answers.epsilon:g} at this delta: {text}"


def _training(answers: Answers) -> str:
    if not answers.is_training:
        return ""
    rho = f"{_UNUSED_RHO if answers.rho is None and answers.has_exact_data else answers.rho}"
    if answers.rho is None and not answers.has_exact_data:
        rho = _asked(None, "what one run may cost a person")
    of_networks = ""
    if NETWORKS & set(answers.computations):
        of_networks = _NETWORKS.format(allow="approved" if PACKED in answers.computations else "registered")
    return _TRAINING.format(rho=rho, dp=_DP if answers.has_exact_data else "") + of_networks


def _cells(draft: PolicyDraft) -> Iterator[str]:
    """Yield what the source declares of its cells and of its rows' time, where that is not the default."""
    found = draft.found
    dialect = {key: value for key, value in found.csv.model_dump().items() if value != getattr(PLAIN, key)}
    if dialect:
        yield f"csv = {toml(dialect)}  # how the file is written" + (
            "; its first line is no names: name the columns, here and in from" if "header" in dialect else ""
        )
    if found.missing != ("",):
        yield f"missing = {toml(found.missing)}  # texts that mean a missing cell; take out what is a value somewhere"
    if found.decimal != ".":
        yield f'decimal = "{found.decimal}"                         # the mark in numbers'
    if found.thousands:
        yield f'thousands = "{found.thousands}"                       # the mark between thousands'
    for column in (column for column in draft.columns if column.lookback_days is not None):
        yield f'time_column = "{column.key}"'
        yield f"lookback_days = {column.lookback_days}"


def _column(draft: PolicyDraft, column: ColumnDraft) -> str:
    shown = json.dumps(column.name, ensure_ascii=not column.name.isprintable())
    if not column.is_carried:
        return f"# left out, as a policy cannot carry it: column {shown[:200]} of type {column.found.stored[:40]}\n"
    text = f'[sources.{draft.table}.columns.{column.key}]\nfrom = {shown}\ntype = "{column.type}"'
    text += f"  # {remark_of(column)}\n" if remark_of(column) else "\n"
    if column.is_id:
        return f'{text}class = "identifier"\nroles = []\n'
    declared: dict[str, Any] = cells_of(column, draft.found) | dict(column.declared or {})
    if column.declared is not None:
        return text + "".join(f"{key} = {toml(value)}\n" for key, value in declared.items())
    text += 'class = "confidential"                # or "public", "internal", "sensitive", "special-category"\n'
    text += "".join(f"{key} = {toml(value)}\n" for key, value in declared.items())
    if column.is_label:
        return text + _label(column)
    if column.type == "string":
        return text + _STRING.format(placeholder=PLACEHOLDER)
    if column.type == "array":
        return text + _array(draft, column)
    if column.type == "bool":
        return text + _BOOL
    if column.type == "date":
        return text + _DATE
    step = _STEP if column.type == "decimal" else ""
    if draft.is_named:
        return text + _NUMBER.format(placeholder=PLACEHOLDER) + "".join(f"# {line}\n" for line in step.splitlines())
    return text + _MEASURE.format(placeholder=PLACEHOLDER) + step + _SCALE


def _array(draft: PolicyDraft, column: ColumnDraft) -> str:
    """Return what is to be filled in of an array, where models may be open; else how to open it."""
    keys = array_keys(column.found, "\n").splitlines()
    stated = [key for key in keys if PLACEHOLDER not in key and not key.startswith("step")]
    asked = "".join(f"{key:<37} # {_ARRAY[key.partition(' ')[0]]}\n" for key in keys if key not in stated)
    if draft.answers.is_training and not draft.is_named:
        return _OPEN_ARRAY + asked
    return _CLOSED_ARRAY + "".join(f"# {line}\n" for line in asked.splitlines())


def _label(column: ColumnDraft) -> str:
    """Return the roles of a label, and what is to be filled in of it."""
    if column.type == "bool":
        return _LABEL
    if column.type == "string":
        return _LABEL + _LABEL_DOMAIN.format(placeholder=PLACEHOLDER)
    return _LABEL + _LABEL_BOUNDS.format(placeholder=PLACEHOLDER) + (_STEP if column.type == "decimal" else "")


def to_fill_in(text: str) -> list[str]:
    """Return the keys and names to fill in, each once, in the order of the file."""
    todo: list[str] = []
    section = ""
    for line in text.splitlines():
        code = "" if line.startswith("#") else line.partition("  # ")[0].strip()
        if code.startswith("["):
            section = code.strip("[]").replace(f'"{PLACEHOLDER}"', "NAME")
        if PLACEHOLDER in code:
            todo.append("the purpose's name" if code.startswith("[") else f"{section}.{code.partition('=')[0].strip()}")
    return todo
