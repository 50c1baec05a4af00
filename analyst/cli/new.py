"""`consilo new`: found a simulated federation around one's own files, and draft the silos' policies.

Promise: a draft holds the names and types of a file's columns and nothing else of it, as bounds or domains read from
the data would leak. What a person must decide is the placeholder `FILL IN`, with which a policy does not load.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from analyst.errors import AnalystError
from crypto.rounds.bounds import MIN_SURVIVORS
from federation.founding import AGGREGATOR, found
from policies.document.draft import Draft, clean, drafted, to_fill_in

_KINDS = {".csv": "csv", ".parquet": "parquet"}
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}"


@dataclass(frozen=True, slots=True)
class Examined:
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
    jurisdiction: str | None = None,
) -> dict[Path, list[str]]:
    """Found the federation in `path`; return what is to be filled in, by policy file.

    `id_columns` are the names that the column of the person has in the files, `jurisdiction` where this machine is, and
    so all of the federation. Raises AnalystError before anything is
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
    chosen = table if table is not None else clean(files[0][1].stem)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,59}", chosen):
        raise AnalystError(
            f"{chosen!r} cannot be the name of a table", "add --table NAME: a letter, then letters, digits and _"
        )
    key = found(path, clean(path.resolve().name), dict.fromkeys(names, jurisdiction), (analyst,), jurisdiction)[analyst]
    todo: dict[Path, list[str]] = {}
    for draft in drafts:
        home = path / "silos" / draft.silo
        shutil.copyfile(draft.file, home / f"{chosen}.{draft.kind}")
        (home / f"{chosen}.{draft.kind}").chmod(0o600)
        policy = home / "policy.toml"
        text = drafted(
            Draft(
                command="consilo new",
                silo=draft.silo,
                table=chosen,
                kind=draft.kind,
                uri=f"{chosen}.{draft.kind}",
                schema=draft.schema,
                id_column=draft.id_column,
                max_missing=int(len(names) > MIN_SURVIVORS),
                analyst=(analyst, key, now + timedelta(days=365)),
                jurisdiction=jurisdiction,
            ),
            str(policy),
        )
        policy.write_text(text)
        todo[policy] = to_fill_in(text)
    return todo


def _examine(silo: str, file: Path, id_columns: Sequence[str]) -> Examined:
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
    return Examined(silo, file, kind, schema, ids[0] if ids else None)
