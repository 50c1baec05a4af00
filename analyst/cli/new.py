"""`consilo new`: found a simulated federation for given files, and draft the silos' policies.

Promise: of the rows a draft has no value, as bounds or domains taken from the data would leak it. It has the columns'
names and types and, of a CSV file, marks from fixed lists: how cells are written. Where a person must decide, the draft
has the placeholder `FILL IN`, and does not load until it is replaced.
"""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from os.path import normpath
from pathlib import Path

from analyst.errors import AnalystError
from analyst.training.draft import Wanted, drafted_job
from crypto.rounds.bounds import MIN_SURVIVORS
from federation.files import replace_file
from federation.founding import AGGREGATOR, SILO_FILES, found
from policies.document.agreement import Agreement, ColumnsFile, agreed, clean, drafted_columns
from policies.document.answers import UNANSWERED, Answers
from policies.document.domain_files import put_beside
from policies.document.draft import PolicyDraft, drafted, to_fill_in
from policies.document.found import FoundTable, stored_table
from policies.document.sniff import sniff_file
from policies.document.stored_lists import with_lengths
from policies.errors import SniffError
from policies.units import counted

POLICY, JOB = "policy.toml", "job.toml"
_KINDS = {".csv": "csv", ".parquet": "parquet"}
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}"


@dataclass(frozen=True, slots=True)
class Examined:
    """One silo's file, and what was found of it."""

    silo: str
    file: Path
    kind: str
    table: FoundTable
    id_column: str | None


@dataclass(frozen=True, slots=True)
class Founded:
    """The keys and names to fill in, by policy file, and what a person should know of how the drafts came about."""

    todo: Mapping[Path, list[str]]
    notes: tuple[str, ...]
    job: Path | None = None


def new(
    path: Path,
    files: Sequence[tuple[str, Path]],
    table: str | None,
    id_columns: Sequence[str],
    analyst: str,
    now: datetime,
    answers: Answers = UNANSWERED,
    columns: ColumnsFile | None = None,
    wanted: Wanted | None = None,
) -> Founded:
    """Found the federation in `path`.

    `id_columns` are possible names of the files' column that identifies a person; the jurisdiction of the answers is
    that of this machine, and so of all parties. With `wanted` a job file is drafted too. Raises AnalystError,
    PolicyError or ColumnsFileError before anything is written, otherwise CryptoError or OSError.
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
            f"{counted(len(names), 'silo')}, at least {MIN_SURVIVORS} are needed",
            "add --silo NAME=FILE, once for each silo",
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AnalystError(f"{path} is there and not empty", "name a new directory")
    examined = _examined(files, id_columns)
    agreement = _agreement(examined, columns, answers)
    chosen = table if table is not None else clean(files[0][1].stem)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,59}", chosen):
        raise AnalystError(
            f"{chosen!r} cannot be the name of a table", "add --table NAME: a letter, then letters, digits and _"
        )
    job = None
    if wanted is not None:
        job = drafted_job(wanted, chosen, answers, agreement, {one.silo: one.table for one in examined})
    for one in examined:
        _check_names(agreement.domains(one.silo), f"{chosen}.{one.kind}")
    place = answers.jurisdiction
    key = found(path, clean(path.resolve().name), dict.fromkeys(names, place), (analyst,), place)[analyst]
    todo: dict[Path, list[str]] = {}
    for one in examined:
        home = path / "silos" / one.silo
        shutil.copyfile(one.file, home / f"{chosen}.{one.kind}")
        (home / f"{chosen}.{one.kind}").chmod(0o600)
        put_beside(home, agreement.domains(one.silo))
        policy = home / POLICY
        text = drafted(
            PolicyDraft(
                command="consilo new",
                silo=one.silo,
                table=chosen,
                kind=one.kind,
                uri=f"{chosen}.{one.kind}",
                found=one.table,
                columns=agreement.columns[one.silo],
                answers=answers,
                is_named=columns is not None,
                members=len(names),
                analyst=(analyst, key, now + timedelta(days=365)),
            ),
            str(policy),
        )
        replace_file(policy, text.encode())
        todo[policy] = to_fill_in(text)
    if job is None:
        return Founded(todo, agreement.notes)
    replace_file(path / JOB, job.text.encode())
    return Founded(todo, (*agreement.notes, *job.notes), path / JOB)


def _check_names(domains: Iterable[str], table: str) -> None:
    """Raise AnalystError if a file of values has the name of another file of the silo."""
    taken = (*SILO_FILES, POLICY, table)
    if found := [name for name in domains if normpath(name) in taken]:
        hint = "give the file of values another name, and write it into the file of columns"
        raise AnalystError(f"domain_file = {found[0]!r} has the name of another file of a silo", hint)


def columns_of(
    files: Sequence[tuple[str, Path]], id_columns: Sequence[str], answers: Answers = UNANSWERED
) -> tuple[str, tuple[str, ...]]:
    """Return the draft of a file of columns for all silos, and its notes; raises AnalystError or PolicyError."""
    agreement = _agreement(_examined(files, id_columns), None, answers)
    return drafted_columns(agreement), agreement.notes


def _examined(files: Sequence[tuple[str, Path]], id_columns: Sequence[str]) -> list[Examined]:
    return [_examine(silo, file, id_columns) for silo, file in files]


def _agreement(examined: Sequence[Examined], columns: ColumnsFile | None, answers: Answers) -> Agreement:
    tables = {one.silo: one.table for one in examined}
    ids = {one.silo: one.id_column for one in examined}
    return agreed(tables, ids, columns, answers.opening)


def _examine(silo: str, file: Path, id_columns: Sequence[str]) -> Examined:
    """Find what a draft may say of a file; raises AnalystError."""
    kind = _KINDS.get(file.suffix.lower())
    if not file.is_file():
        raise AnalystError(f"silo {silo!r}: there is no file {file}", "mend --silo NAME=FILE")
    if kind is None:
        raise AnalystError(f"silo {silo!r}: {file} is neither .csv nor .parquet", "convert it first")
    try:
        table = sniff_file(file) if kind == "csv" else stored_table(_parquet_types(silo, file))
    except SniffError as err:
        raise AnalystError(f"silo {silo!r}: {err.message}", err.hint) from err
    ids = [name for name in table.columns if name in id_columns]
    if id_columns and len(ids) != 1:
        asked, listing = " or ".join(map(repr, id_columns)), ", ".join(table.columns)
        problem = "has no column" if not ids else "has more than one column"
        raise AnalystError(
            f"silo {silo!r}: {file} {problem} {asked} (found: {listing})", "repeat --id for another name of it"
        )
    return Examined(silo, file, kind, table, ids[0] if ids else None)


def _parquet_types(silo: str, file: Path) -> dict[str, str]:
    import duckdb  # slow to import: only to examine Parquet files

    literal = "'" + str(file).replace("'", "''") + "'"
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(f"DESCRIBE FROM read_parquet([{literal}], hive_partitioning = false)").fetchall()
    except duckdb.Error as err:
        reason = str(err).splitlines()[0][:200]
        raise AnalystError(f"silo {silo!r}: {file} cannot be read as parquet ({reason})", "mend the file") from err
    return with_lengths({str(row[0]): str(row[1]) for row in rows}, file)
