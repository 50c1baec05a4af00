"""Draft a job file beside the policies of `consilo new`, and check it by what these will open.

Promise: nothing in it is read from rows. What a job names must be open at every silo; a feature that nobody has named
is left out where it is closed, or not at every silo, and a note says so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from analyst.errors import AnalystError
from analyst.sql.offer import suggest
from analyst.training.job import parsed_job, step_of
from policies.budget.accountant import epsilon_of
from policies.document.agreement import Agreement, ColumnDraft, column_of, toml, toml_key
from policies.document.answers import DELTA, Answers
from policies.document.catalogue import defined
from policies.document.drafted_roles import FEATURE, LABEL
from policies.document.found import FoundTable
from policies.errors import reason_of
from policies.networks.names import PACKED, REGISTERED
from policies.requests.families import SHAPES, Kind
from policies.requests.networks import RUN_ROUNDS
from policies.requests.noised_families import NOISED, why_exact_alone
from policies.requests.tables import Table
from policies.requests.training import MAX_FEATURES
from policies.units import MAX_STEPS

MIN_COHORT = 10  # of the drafted policies
DEFAULT_EPSILON = 1.0  # of a run, where the lifetime is to be filled in
_HEAD = """\
# Drafted by `consilo new --job`. Every key is explained in docs/{page}.
schema   = "consilo-job/1"
{model}table    = {table}
purpose  = {purpose}
"""
_NETWORK = """
[model]
family = {model}
{sizes}
[optimiser]                           # how silos train, and how the sums of their changes move the network
{optimiser}
[rounds]
most = {rounds:<31}# at most; add patience and [metric] to end by a metric
"""
_SIZES = ("hidden", "channels", "embedding", "size", "latent")  # options that a draft shows, with their defaults
_OPTIMISER = ("algorithm", "rate", "epochs", "batch")
_PRICE = """\
epsilon  = {epsilon:<27}# of the whole run, to one person
"""
_HELD_OUT = """
[held_out]                            # persons from whom nothing is learned, so that the model is judged by them
{key} = {value}
"""
_ROUNDS = """
# rounds = {rounds:<3}                         # at most; a run ends by itself when another round would change nothing
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants a model of: the family, its columns, and the value of a text label that is the positive one.

    `parts` are further columns by what they are to the family, such as a time and an event. Without `features` they are
    all columns that are open as such.
    """

    model: str
    label: str | None = None
    features: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    positive: str | None = None
    held_out: str | None = None  # the share of persons from whom nothing is learned

    def __post_init__(self) -> None:
        if self.model not in SHAPES:
            begun = [name for name in SHAPES if self.model and name.startswith(self.model)]
            hint = f"did you mean {begun[0]!r}?" if begun else suggest(self.model, SHAPES)
            raise AnalystError(f"there is no model {self.model!r}", hint)
        shape = SHAPES[self.model]
        for name in self.parts:
            if name not in shape.parts:
                message = f"{self.model} has no column for {name!r}"
                raise AnalystError(message, f"leave out --part {name}=; known: {', '.join(shape.parts) or 'none'}")
        for name, part in shape.parts.items():
            if part.is_needed and name not in self.parts:
                raise AnalystError(f"{self.model} needs a column for its {name}", f"add --part {name}=COLUMN")
        if self.model == PACKED:
            hint = "draft a shipped one, such as --job mlp, and put [model] graph in the place of its family"
            raise AnalystError("a packed network is named by its SHA-256, which no draft knows", hint)
        if shape.labels and self.label is None and shape.is_label_needed:
            raise AnalystError(f"{self.model} needs a label", "add --label COLUMN: what it predicts")
        if not shape.labels and self.label is not None:
            raise AnalystError(f"{self.model} has no label", f"leave out --label {self.label}")

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that are opened as labels."""
        parts = SHAPES[self.model].parts
        named = (column for name, column in self.parts.items() if parts[name].role == LABEL)
        return (*(() if self.label is None else (self.label,)), *named)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that must be open as features."""
        parts = SHAPES[self.model].parts
        named = (column for name, column in self.parts.items() if parts[name].role == FEATURE)
        return (*self.features, *named)


@dataclass(frozen=True, slots=True)
class JobDraft:
    """The text of a job file, and what a person should know of it."""

    text: str
    notes: tuple[str, ...] = ()


def drafted_job(
    wanted: Wanted, table: str, answers: Answers, agreement: Agreement, tables: Mapping[str, FoundTable]
) -> JobDraft:
    """Return a job that the drafted policies will take; raises AnalystError where there is none."""
    if answers.purpose is None:
        raise AnalystError("a job is for a purpose", "add --purpose NAME, such as health-research")
    if not answers.has_exact_data and wanted.model not in NOISED:
        hint = f"add --exact, if the data may be declared exact; or take another --job: {', '.join(NOISED)}"
        raise AnalystError(why_exact_alone(wanted.model), hint)
    columns = {silo: {one.key: one for one in drafts} for silo, drafts in agreement.columns.items()}
    for key in wanted.needed:
        if problem := _why_closed(key, columns):
            raise AnalystError(f"the feature {key!r} {problem}", "open it in the file of columns, or leave it out")
    features, notes = (wanted.features, ()) if wanted.features else _open_features(wanted, columns, answers.audited)
    used = tuple(dict.fromkeys((*features, *wanted.labels, *wanted.needed)))
    text = _text(wanted, table, answers, features, _marked(columns))
    job = parsed_job(text, "the job")
    first = next(iter(columns))
    try:
        definition = Table(
            name=table,
            max_rows=answers.max_rows,
            max_silos=1,
            columns=tuple(defined(key, column_of(columns[first][key], tables[first])) for key in used),
            max_norm=answers.max_norm,
        )
        step_of(job, MIN_COHORT).check(definition, "masking")
    except ValueError as err:
        reason = reason_of(err)
        raise AnalystError(
            f"no such job: {reason}", _remedy(wanted, reason, has_exact_data=answers.has_exact_data)
        ) from err
    return JobDraft(text, notes)


def _why_closed(key: str, columns: Mapping[str, Mapping[str, ColumnDraft]]) -> str:
    """Return why a column is no feature at every silo; nothing if it is one."""
    if absent := [silo for silo, known in columns.items() if key not in known]:
        return "is in no file" if len(absent) == len(columns) else f"is not at {', '.join(absent)}"
    drafts = [known[key] for known in columns.values()]
    if any(one.is_id for one in drafts):
        return "says whose row it is"
    if any(one.declared is None or FEATURE not in one.declared.get("roles", ()) for one in drafts):
        return "is closed: its line has no bounds, no domain, or FILL IN; or roles without feature; or there is no line"
    return ""


def _marked(columns: Mapping[str, Mapping[str, ColumnDraft]]) -> str | None:
    """Return the column that marks who is held out, if one is open for that at every silo."""
    open_at = [
        {key for key, one in known.items() if "held_out" in (one.declared or {}).get("roles", ())}
        for known in columns.values()
    ]
    return min(set.intersection(*open_at), default=None)


def _open_features(
    wanted: Wanted, columns: Mapping[str, Mapping[str, ColumnDraft]], audited: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return all columns that are open as features, in order, and notes of those that are left out."""
    if not SHAPES[wanted.model].least_features:
        return (), ()
    used = {*wanted.labels, *wanted.needed, *audited}
    keys = [key for key in dict.fromkeys(key for known in columns.values() for key in known) if key not in used]
    is_id = {key for known in columns.values() for key, one in known.items() if one.is_id}
    closed = {key: _why_closed(key, columns) for key in keys if key not in is_id}
    shape, first = SHAPES[wanted.model], next(iter(columns))
    features = tuple(key for key, why in closed.items() if not why and shape.fits(_kind_of(columns[first][key])))
    if not features:
        hint = "open columns in the file of columns: bounds for numbers, a domain for texts, a line for a bool"
        raise AnalystError("no column is open as a feature at every silo", hint)
    if len(features) > MAX_FEATURES:
        raise AnalystError(f"{len(features)} features, at most {MAX_FEATURES}", "name them with --features A,B,C")
    without = [key for key, why in closed.items() if why and key != _marked(columns)]
    notes = [f"no features, as they are closed or not everywhere: {', '.join(without)}"] if without else []
    if others := [key for key, why in closed.items() if not why and key not in features]:
        notes.append(f"no features, as {wanted.model} does not take their type: {', '.join(others)}")
    if groups := [key for key in audited if key not in wanted.labels and not _why_closed(key, columns)]:
        notes.append(f"no features unless --features names them, as audits compare them: {', '.join(groups)}")
    return features, tuple(notes)


def _kind_of(draft: ColumnDraft) -> Kind:
    """Return the kind of a column that is open: a bool, an array, one of a domain, a number with bounds."""
    if draft.type in ("bool", "array"):
        return "bool" if draft.type == "bool" else "array"
    return "number" if (draft.declared or {}).get("bounds") is not None else "text"


def _text(wanted: Wanted, table: str, answers: Answers, features: Sequence[str], marked: str | None) -> str:
    is_network = wanted.model in REGISTERED
    model = "" if is_network else f"model    = {toml(wanted.model)}\n"
    page = "networks.md" if is_network else "training.md"
    text = _HEAD.format(page=page, model=model, table=toml(table), purpose=toml(answers.purpose))
    if wanted.label is not None:
        text += f"label    = {toml(wanted.label)}\n"
    if features:
        text += f"features = {toml(tuple(features))}\n"
    held_out = ""
    if wanted.held_out is not None:
        held_out = _HELD_OUT.format(key="share", value=wanted.held_out)
    elif marked is not None:
        held_out = _HELD_OUT.format(key="column", value=toml(marked))
    options = {} if wanted.positive is None else {"positive": wanted.positive}
    if not answers.has_exact_data:
        text += _PRICE.format(epsilon=f"{_epsilon(answers):g}")
    else:
        text += 'release  = "exact"\n'
        if SHAPES[wanted.model].rounds != 1 and not is_network:
            text += _ROUNDS.format(rounds=min(MAX_STEPS, SHAPES[wanted.model].rounds or 25))
    for name, table_of in (("columns", wanted.parts), ("options", options)):
        if table_of:
            text += f"\n[{name}]\n" + "".join(f"{toml_key(key)} = {json.dumps(one)}\n" for key, one in table_of.items())
    return text + (_network(wanted.model, has_noise=not answers.has_exact_data) if is_network else "") + held_out


def _network(family: str, *, has_noise: bool) -> str:
    """Return the tables of a network's job: its sizes and how it is trained, with the defaults of its family."""
    shape = NOISED[family].shape if has_noise else SHAPES[family]
    sizes, optimiser = (
        "".join(f"{name} = {_value(shape.options[name].default)}\n" for name in names if shape.options.get(name))
        for names in (_SIZES, _OPTIMISER)
    )
    return _NETWORK.format(model=toml(family), sizes=sizes, optimiser=optimiser, rounds=shape.rounds or RUN_ROUNDS)


def _value(text: str) -> str:
    """Return the text of an option as TOML: a number where it is one."""
    return text if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else toml(text)


def _epsilon(answers: Answers) -> float:
    """Return the epsilon of a run: that of half the lifetime's rho, rounded down to two digits."""
    if answers.rho is None:
        return DEFAULT_EPSILON
    whole = epsilon_of(float(answers.rho) / 2, float(DELTA))
    unit = 10.0 ** (len(f"{int(whole)}") - 2 if whole >= 1 else -2)
    return max(unit, float(f"{whole // unit * unit:.6g}"))


def _remedy(wanted: Wanted, reason: str, *, has_exact_data: bool) -> str:
    if "positive" in reason and wanted.positive is None:
        return "add --positive VALUE: the value of the label that the model predicts"
    if "positive" in reason:
        return "leave out --positive"
    if reason.startswith("label"):
        return "write the label's type into the file of columns, as bool for 0 and 1, or take another --job"
    return "leave the column out, or take another --job" if has_exact_data else "leave the column out, or add --exact"
