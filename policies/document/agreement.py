"""The keys, types and knowledge of columns that the drafts of several silos share.

Columns of one key get one type where all their cells can be read so. A file of columns (`columns.toml`) says of each
key what is public knowledge of it, once for all silos; what that file does not name stays closed.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from policies.document.columns import Column, why_not_folded
from policies.document.domain_files import FileProblem, Values, domain_of
from policies.document.drafted_roles import LABEL, Opening, check_labels
from policies.document.found import FoundColumn, FoundTable, joined
from policies.document.load import PLACEHOLDER, described, document_of, dotted, line_of, lines_of
from policies.domains import hash_of
from policies.errors import ColumnsFileError, PolicyFileError
from policies.periods import most_periods
from policies.units import MAX_DOMAIN

STEP = Decimal("0.01")
UNKNOWN = "unknown"
MAX_DAYS = 36_500  # as in `section.Days`
_MAX_NAME = 120
_KEY = r"[A-Za-z][A-Za-z0-9_]{0,59}"
# The keys that may be a table by silo, where silos differ.
_BY_SILO = (
    *("from", "scale", "values", "missing", "dates", "decimal", "thousands"),
    *("true", "false", "trim", "case", "unicode"),
)
_NAMED = """\
# Drafted by `consilo new` from the names of the columns and the types that their cells can be read as, never from
# other values. One line a column, for all silos. Replace "{placeholder}" by public knowledge to open a column; one
# whose line has it, or roles = [], and one without a line, stays closed. Where a file calls the column otherwise:
# from = ["name", ...], and where silos differ: scale = {{ SILO = 0.4536 }}, likewise values, dates and the other
# rules for cells.
"""

Entry = Mapping[str, Any]
_LABEL_NEEDS = "replace it by public knowledge: bounds of a number, the domain of a text"


@dataclass(frozen=True, slots=True)
class ColumnsFile:
    """What a file says of columns by their keys, and the line of each of its paths."""

    path: str
    entries: Mapping[str, Entry]
    lines: Mapping[tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class ColumnDraft:
    """A column of one silo as its draft has it; `declared` is what the file of columns says, None if nothing."""

    name: str
    key: str
    found: FoundColumn
    type: str
    is_id: bool = False
    declared: Entry | None = None
    lookback_days: int | None = None
    listed: Values | None = None  # the values of its domain_file, whose name and hash `declared` has
    is_label: bool = False

    @property
    def is_carried(self) -> bool:
        """Whether a policy can name the column at all."""
        return self.found.type is not None and self.name.isprintable() and 1 <= len(self.name) <= _MAX_NAME


@dataclass(frozen=True, slots=True)
class Agreement:
    """The columns of each silo's draft, and what a person should know of how they came about."""

    columns: Mapping[str, tuple[ColumnDraft, ...]]
    notes: tuple[str, ...] = ()

    def domains(self, silo: str) -> dict[str, Values]:
        """Return the files of domains that stand beside a silo's policy, by name."""
        return {
            one.declared["domain_file"]: one.listed
            for one in self.columns[silo]
            if one.declared is not None and one.listed is not None
        }


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is wrong in a file of columns, and where."""

    path: tuple[str, ...]
    text: str


def read_columns(path: Path) -> ColumnsFile:
    """Read a file of columns; raises ColumnsFileError, or OSError."""
    raw = path.read_bytes()
    hint = "mend the file; docs/commands.md describes it"
    try:
        document, unfit = document_of(raw, str(path))
    except PolicyFileError as err:
        raise ColumnsFileError(err.message, hint) from err
    lines = lines_of(raw.decode())
    wrong = [_Problem(at, text) for at, text in unfit.items()]
    for key, entry in document.items():
        if not re.fullmatch(_KEY, key):
            wrong.append(
                _Problem((key,), "no key of a column: it has a letter, then letters, digits and _, at most 60")
            )
        if not isinstance(entry, dict):
            wrong.append(_Problem((key,), "a column is a table, such as { bounds = [0, 110] }"))
    folded = [key.casefold() for key in document]
    wrong += [_Problem((key,), "stands twice but for case") for key in document if folded.count(key.casefold()) > 1]
    file = ColumnsFile(str(path), document, MappingProxyType(lines))
    _raise_for(file, wrong)
    return file


def clean(name: str) -> str:
    """Return a name made of letters, digits and underscores that the policy language can carry."""
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60].lower()
    return cleaned if cleaned[:1].isalpha() else f"column_{cleaned}".rstrip("_")


def agreed(
    tables: Mapping[str, FoundTable], ids: Mapping[str, str | None], file: ColumnsFile | None, opening: Opening
) -> Agreement:
    """Return the columns of every silo's draft; raises ColumnsFileError with all that is wrong in `file`.

    Raises PolicyError where a silo has no column of a label's key.
    """
    wrong: list[_Problem] = []
    entries = {} if file is None else file.entries
    claims = _claims(tables, ids, entries, wrong)
    spellings: dict[str, str] = {}
    keys = {silo: _keys(table, claims[silo], spellings) for silo, table in tables.items()}
    known = {silo: tuple(named.values()) for silo, named in keys.items()}
    check_labels(opening.labels, known, ids, file is not None)
    check_labels(opening.audited, known, ids, file is not None, "column of an audit")
    if file is not None:
        wrong += _unsaid_labels(opening.labels, entries)
    columns = _by_key(tables, ids, keys)
    drafted = {key: joined(at).type for key, at in columns.items()}
    unread: list[_Problem] = []
    listed = {} if file is None else dict(_domains(file, drafted, unread))
    wrong += unread
    broken = {problem.path[0] for problem in unread}  # what else is wrong with such a column may come of that
    types = {
        key: listed[key].type if key in listed else _type_of(entries.get(key, {}), type_)
        for key, type_ in drafted.items()
    }
    types |= {key: "bool" for key in opening.labels if key not in entries and _is_read_as(columns[key], "bool")}
    drafts: dict[str, tuple[ColumnDraft, ...]] = {}
    for silo, table in tables.items():
        drafts[silo] = tuple(
            _id_column(name, key, found)
            if name == ids[silo]
            else _draft(
                silo,
                table,
                name,
                key,
                types[key],
                entries[key] if claims[silo].get(name) == key else None,
                listed.get(key),
                opening,
            )
            for (name, found), key in ((one, keys[silo][one[0]]) for one in table.columns.items())
        )
        wrong += [
            problem for draft in drafts[silo] if draft.key not in broken for problem in _problems(silo, draft, table)
        ]
    timed = [key for key, entry in entries.items() if "lookback_days" in entry]
    wrong += [_Problem((key, "lookback_days"), f"{timed[0]!r} tells the time of a row already") for key in timed[1:]]
    if file is not None:
        _raise_for(file, wrong)
    return Agreement(drafts, tuple(_notes(columns, types, tuple(tables), file)))


def drafted_columns(agreement: Agreement) -> str:
    """Return the text of a file of columns: one line a column, with its proposed type."""
    silos = tuple(agreement.columns)
    columns: dict[str, dict[str, ColumnDraft]] = {}
    for silo, drafts in agreement.columns.items():
        for draft in drafts:
            if draft.is_carried and not draft.is_id:
                columns.setdefault(draft.key, {})[silo] = draft
    lines = []
    for key, at in columns.items():
        type_ = next(iter(at.values())).type
        line = f'{key} = {{ type = "{type_}", '
        is_label = any(one.is_label for one in at.values())
        if type_ in ("int", "decimal"):
            line += f'bounds = "{PLACEHOLDER}"' + (f", step = {STEP}" if type_ == "decimal" else "")
        elif type_ == "string":
            line += f'domain = "{PLACEHOLDER}"'
        elif type_ == "array":
            line += array_keys(next(iter(at.values())).found)
        elif not is_label:
            line += "roles = []"
        if is_label:
            line += f'{"" if line.endswith(", ") else ", "}roles = ["{LABEL}"]'
        names = {one.name: None for silo, one in at.items() if _is_ambiguous(one, agreement.columns[silo])}
        line += f", from = {toml(tuple(names))}" if names else ""
        where = "" if len(at) == len(silos) else f"only {', '.join(at)}"
        are_bools = type_ != "int" or all("bool" in one.found.readable for one in at.values())
        remarks = (remark_of(one) for one in at.values() if are_bools or "bool" not in one.found.readable)
        said = "; ".join(dict.fromkeys(text for text in remarks if text))
        comment = "; ".join(part for part in ("the label" if is_label else "", where, said) if part)
        lines.append(f"{line} }}" + (f"  # {comment}" if comment else ""))
    return "\n".join([_NAMED.format(placeholder=PLACEHOLDER), *lines]) + "\n"


def array_keys(found: FoundColumn, separator: str = ", ") -> str:
    """Return what a draft says of an array: what is stored, and what a person must say of its numbers."""
    shape = PLACEHOLDER if found.shape is None else found.shape
    said = {"shape": shape, "of": found.of, "bounds": PLACEHOLDER} | ({"step": STEP} if found.of == "decimal" else {})
    return separator.join(f"{key} = {toml(value)}" for key, value in said.items())


def _is_ambiguous(draft: ColumnDraft, others: Sequence[ColumnDraft]) -> bool:
    """Tell whether the key alone does not lead to the column: other names of its table give the same one."""
    return sum(clean(one.name) == clean(draft.name) for one in others) > 1


def remark_of(draft: ColumnDraft) -> str:
    """Return why a column has this type where another is possible; nothing where that was decided."""
    return draft.found.remark if draft.type == draft.found.type and not draft.is_id else ""


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=not value.isprintable())
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case Mapping():
            return f"{{ {', '.join(f'{toml_key(str(key))} = {toml(one)}' for key, one in value.items())} }}"
        case _:
            return str(value)


def toml_key(text: str) -> str:
    """Return a key as TOML writes it."""
    return text if re.fullmatch("[A-Za-z0-9_-]+", text) else toml(text)


def _raise_for(file: ColumnsFile, wrong: Sequence[_Problem]) -> None:
    if wrong:
        said = sorted({(line_of(one.path, file.lines), dotted(one.path), one.text) for one in wrong})
        lines = [f"{file.path}:{line}: {path}: {text}" for line, path, text in said]
        raise ColumnsFileError("\n".join(lines), "mend the file; docs/commands.md describes it")


def _is_pending(entry: Entry) -> bool:
    """Tell whether a line waits for a person, so that its column stays closed."""
    return any(value == PLACEHOLDER for value in entry.values())


def _yields(entry: Entry) -> bool:
    """Tell whether a line opens nothing, so that another may take its column."""
    return _is_pending(entry) or entry.get("roles") == ()


def _picked(entry: Entry, silo: str) -> dict[str, Any]:
    """Return what an entry says for one silo."""
    found = {}
    for key, value in entry.items():
        is_table = isinstance(value, Mapping) and key in _BY_SILO
        if not is_table or (key == "values" and not any(isinstance(one, Mapping) for one in value.values())):
            found[key] = value
        elif silo in value:
            found[key] = value[silo]
    return found


def _claims(
    tables: Mapping[str, FoundTable],
    ids: Mapping[str, str | None],
    entries: Mapping[str, Entry],
    wrong: list[_Problem],
) -> dict[str, dict[str, str]]:
    """Return which key takes which column, by silo; what opens a column goes before what leaves it closed."""
    claims: dict[str, dict[str, str]] = {silo: {} for silo in tables}
    for key, entry in sorted(entries.items(), key=lambda one: _yields(one[1])):
        wrong += [_Problem((key, *path), text) for path, text in _strange_silos(entry, tables)]
        for silo, table in tables.items():
            wanted = _picked(entry, silo).get("from", ())
            named = [wanted] if isinstance(wanted, str) else [one for one in wanted if isinstance(one, str)]
            matching = _matching(table, named) or _matching(table, [key])
            if len(matching) > 1:
                listed = " and ".join(map(repr, matching))
                wrong.append(_Problem((key,), f"{silo} has {listed}; say which: from = {{ {silo} = ... }}"))
            for name in matching[:1]:
                if name in claims[silo]:
                    if not _yields(entry):
                        wrong.append(
                            _Problem((key,), f"{claims[silo][name]!r} takes column {name!r} of {silo} already")
                        )
                elif name == ids[silo]:
                    wrong.append(_Problem((key,), f"column {name!r} of {silo} says whose row it is, and stays closed"))
                else:
                    claims[silo][name] = key
        if not _yields(entry) and not any(key in taken.values() for taken in claims.values()):
            known = sorted({name for table in tables.values() for name in table.columns})
            near = difflib.get_close_matches(key, known, 1)
            text = f"did you mean {near[0]!r}?" if near else f"found: {', '.join(known)[:300]}"
            wrong.append(_Problem((key,), f"no file has such a column ({text}); say what it is called: from = [...]"))
    return claims


def _strange_silos(entry: Entry, tables: Mapping[str, FoundTable]) -> Iterator[tuple[tuple[str, ...], str]]:
    if len(tables) == 1:  # one silo's draft, by a file that all silos may share
        return
    for key in _BY_SILO:
        value = entry.get(key)
        if not isinstance(value, Mapping) or (
            key == "values" and not any(isinstance(one, Mapping) for one in value.values())
        ):
            continue
        for silo in value:
            if silo not in tables:
                yield (key,), f"there is no silo {silo!r} (known: {', '.join(tables)})"


def _matching(table: FoundTable, wanted: Sequence[str]) -> list[str]:
    """Return the columns of one of these names: as they stand, else but for case and blanks, else by their keys."""
    folded = {one.strip().casefold() for one in wanted}
    for matches in (
        [name for name in table.columns if name in wanted],
        [name for name in table.columns if name.strip().casefold() in folded],
        [name for name in table.columns if clean(name) in folded],
    ):
        if matches:
            return matches
    return []


def _keys(table: FoundTable, claimed: Mapping[str, str], spellings: dict[str, str]) -> dict[str, str]:
    """Return each column's key: as claimed, else its name if that is valid, else a cleaned one; no key twice.

    `spellings` has what the silos before called it: names that differ in case only get one key.
    """
    keys = dict(claimed)
    taken = {key.casefold() for key in claimed.values()}
    for name in table.columns:
        if name in keys:
            continue
        key = name if re.fullmatch(_KEY, name) else clean(name)
        key = first = spellings.setdefault(key.casefold(), key)
        number = 2
        while key.casefold() in taken:
            key, number = f"{first}_{number}", number + 1
        taken.add(key.casefold())
        keys[name] = key
    return keys


def _by_key(
    tables: Mapping[str, FoundTable], ids: Mapping[str, str | None], keys: Mapping[str, Mapping[str, str]]
) -> dict[str, list[tuple[str, FoundColumn]]]:
    found: dict[str, list[tuple[str, FoundColumn]]] = {}
    for silo, table in tables.items():
        for name, column in table.columns.items():
            if name != ids[silo]:
                found.setdefault(keys[silo][name], []).append((silo, column))
    return found


def _id_column(name: str, key: str, found: FoundColumn) -> ColumnDraft:
    is_number = found.type == "int" and found.stored != "VARCHAR"
    return ColumnDraft(name, key, found, "int" if is_number else "string", is_id=True)


def _draft(
    silo: str,
    table: FoundTable,
    name: str,
    key: str,
    type_: str,
    entry: Entry | None,
    listed: "_Listed | None",
    opening: Opening,
) -> ColumnDraft:
    found, is_label = table.columns[name], key in opening.labels
    if entry is None or found.type is None:
        return ColumnDraft(name, key, found, type_, is_label=is_label)
    values = None if listed is None else listed.values
    declared = _declared(key, entry, type_, silo, table.missing, values, opening, found.of)
    lookback = declared.pop("lookback_days", None)
    return ColumnDraft(
        name, key, found, type_, declared=declared, lookback_days=lookback, listed=values, is_label=is_label
    )


def _is_read_as(columns: Sequence[tuple[str, FoundColumn]], type_: str) -> bool:
    return all(type_ in column.readable for _, column in columns)


def _unsaid_labels(labels: Sequence[str], entries: Mapping[str, Entry]) -> Iterator[_Problem]:
    """Yield the labels of which a file of columns says too little to open them, or that it opens as something else."""
    for label in labels:
        entry = entries.get(label)
        if entry is None:
            text = 'no line names the label; add one, such as { type = "bool" } or { bounds = [0, 9] }'
            yield _Problem((label,), text)
        elif _is_pending(entry):
            yield _Problem((label,), f"the label stays closed while its line has {PLACEHOLDER}; {_LABEL_NEEDS}")
        elif LABEL not in entry.get("roles", (LABEL,)):
            yield _Problem((label, "roles"), f'the label needs the role "{LABEL}"; add it, or remove roles')


@dataclass(frozen=True, slots=True)
class _Listed:
    """The values of a column's `domain_file`, and the type that they are read as."""

    type: str
    values: Values


def _domains(file: ColumnsFile, drafted: Mapping[str, str], wrong: list[_Problem]) -> Iterator[tuple[str, _Listed]]:
    """Yield what the files of domains beside a file of columns hold, by key; add what is wrong with them to `wrong`.

    Where the line states no type, a list of whole numbers is one of numbers if the cells are such too.
    """
    path = Path(file.path)
    for key, entry in file.entries.items():
        if key not in drafted or _is_pending(entry) or not entry.keys() & {"domain_file", "domain_hash"}:
            continue
        tried = (
            (str(entry["type"]),) if "type" in entry else ("int", "string") if drafted[key] == "int" else ("string",)
        )
        for type_ in tried:
            found = domain_of({**entry, "type": type_}, path.resolve().parent, beside=path.name)
            if not isinstance(found, FileProblem):
                break
        if isinstance(found, FileProblem):
            wrong.append(_Problem((key, *found.path), found.text))
            continue
        if (right := hash_of(found)) != entry.get("domain_hash", right):
            text = f'{entry["domain_file"]} has another hash than stated; write domain_hash = "{right}", or remove it'
            wrong.append(_Problem((key, "domain_hash"), text))
        yield key, _Listed(type_, found)


def _type_of(entry: Entry, drafted: str) -> str:
    if "type" in entry:
        return str(entry["type"])
    domain = entry.get("domain")
    if isinstance(domain, tuple) and domain:
        return "int" if all(type(one) is int for one in domain) else "string"
    if drafted == "int" and any(isinstance(one, Decimal) for one in (entry.get("step"), *_tuple(entry.get("bounds")))):
        return "decimal"
    return drafted


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else ()


def _declared(
    key: str,
    entry: Entry,
    type_: str,
    silo: str,
    missing: Sequence[str],
    listed: Values | None,
    opening: Opening,
    of: str | None = None,
) -> dict[str, Any]:
    """Return what a silo's draft declares of a column, with what follows from it; `listed` is in its domain_file.

    `of` is what the numbers of a stored array are.
    """
    if _is_pending(entry):
        entry = {"roles": ()}
    said = _picked(entry, silo)
    said.pop("from", None)
    said.pop("type", None)
    domain = said.get("domain")
    if type_ == "string" and isinstance(domain, tuple) and "unknown" not in said:
        said |= {"domain": domain if UNKNOWN in domain else (*domain, UNKNOWN), "unknown": UNKNOWN}
    if listed is not None:
        said["domain_hash"] = hash_of(listed)
        if UNKNOWN in listed:
            said.setdefault("unknown", UNKNOWN)
    values = domain if isinstance(domain, tuple) else listed or ()
    if not set(missing).isdisjoint(values):
        said.setdefault("missing", tuple(text for text in missing if text not in values))
    if "decimal" in (type_, said.get("of", of)) and "bounds" in said:
        said.setdefault("step", STEP)
    roles = opening.roles(key, type_, said)
    return {"class": said.pop("class", "confidential"), "roles": said.pop("roles", roles), **said}


def column_of(draft: ColumnDraft, table: FoundTable) -> Column:
    """Return a column as its policy will have it; raises ValidationError of what is wrong with it."""
    declared = cells_of(draft, table) | dict(draft.declared or {})
    values = {} if draft.listed is None else {"domain": draft.listed}
    return Column.model_validate({"type": draft.type, "from": draft.name} | declared | values)


def _problems(silo: str, draft: ColumnDraft, table: FoundTable) -> Iterator[_Problem]:
    """Yield what the policy's own model says of a column, and what its source at a silo would say."""
    if draft.declared is None:
        return
    declared = draft.declared
    try:
        column = column_of(draft, table)
    except ValidationError as err:
        for one in err.errors(include_url=False):
            path, text = described({**one, "loc": ("sources", "table", "columns", draft.key, *one["loc"])})
            yield _Problem(path[3:], text)
        return
    shape, stored = column.shape or (), draft.found.shape
    if column.roles and stored is not None and stored not in (shape, (prod(shape),)):
        text = f"{list(shape)} here, but at {silo} column {draft.name!r} has arrays of shape {list(stored)}"
        yield _Problem((draft.key, "shape"), f"{text}; all silos store one shape")
    if (folded := why_not_folded(column, column.case)) is not None:
        yield _Problem((draft.key, "case"), folded)
    granularity, lookback, path = declared.get("granularity"), draft.lookback_days, (draft.key, "lookback_days")
    if lookback is None:
        if granularity is not None and declared["roles"]:
            text = "missing; an open date needs it: how many days back rows are read, such as 3650"
            yield _Problem(path, text)
    elif draft.type != "date":
        yield _Problem(path, f"a {draft.type} column does not tell the time of a row; remove it")
    elif type(lookback) is not int or not 1 <= lookback <= MAX_DAYS:
        yield _Problem(path, f"expected a whole number from 1 to {MAX_DAYS} (found {str(lookback)[:40]})")
    elif granularity is not None and (count := most_periods(granularity, lookback)) >= MAX_DOMAIN:
        text = f"{count} periods lie within lookback_days, fewer than {MAX_DOMAIN} are possible; take longer"
        yield _Problem((draft.key, "granularity"), text)


def cells_of(draft: ColumnDraft, table: FoundTable) -> dict[str, Any]:
    """Return the rules for the cells of a column that differ from those of its source."""
    found, rules = draft.found, dict[str, Any]()
    if draft.type == "date" and found.dates:
        rules["dates"] = found.dates if len(found.dates) > 1 else found.dates[0]
    if draft.type in ("int", "decimal"):
        rules |= {"decimal": found.decimal} if found.decimal != table.decimal else {}
        rules |= {"thousands": found.thousands} if found.thousands != table.thousands else {}
    if draft.type == "bool" and found.true:
        rules |= {"true": found.true, "false": found.false}
    if draft.type == "array":
        rules |= {} if found.shape is None else {"shape": found.shape}
        rules |= {} if found.of is None else {"of": found.of}
    return rules


def _notes(
    columns: Mapping[str, Sequence[tuple[str, FoundColumn]]],
    types: Mapping[str, str],
    silos: Sequence[str],
    file: ColumnsFile | None,
) -> Iterator[str]:
    """Yield what a person should know: types that differed, columns that are not everywhere, and what stays closed."""
    entries = {} if file is None else file.entries
    opened = {key: entry for key, entry in entries.items() if not _is_pending(entry)}
    for key, at in columns.items():
        shapes = {silo: list(column.shape) for silo, column in at if column.shape is not None}
        if len({str(shape) for shape in shapes.values()}) > 1 and key not in opened:
            listed = "; ".join(f"{shape} at {silo}" for silo, shape in shapes.items())
            yield f"{key}: an array has one shape at all silos ({listed}): no job takes both"
        join = joined(at)
        if join.differs and "type" not in entries.get(key, {}):
            listed = "; ".join(f"{type_} at {', '.join(where)}" for type_, where in join.found.items())
            yield f"{key}: drafted as {types[key]} for all ({listed})"
        if key in opened:
            if absent := [silo for silo in silos if silo not in dict(at)]:
                yield f"{key}: not at {', '.join(absent)}"
            unread = [silo for silo, column in at if types[key] not in column.readable]
            if unread and "values" not in opened[key]:
                yield f"{key}: not every cell at {', '.join(unread)} can be read as {types[key]}"
    if pending := [key for key in columns if key in entries and key not in opened]:
        yield f"closed, as their lines have {PLACEHOLDER}: {', '.join(pending)}"
    if file is not None and (unnamed := [key for key in columns if key not in entries]):
        yield f"closed, as no line names them: {', '.join(unnamed)}"
    scattered = [f"{key} ({', '.join(dict(at))})" for key, at in columns.items() if len(at) < len(silos)]
    if file is None and scattered:
        yield f"not at every silo: {', '.join(scattered)}"
