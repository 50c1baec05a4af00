"""What a search leaves: the domain as a file that policies can adopt, and beside it where it is from.

The domain is a version of its own: `TABLE.COLUMN.vN.txt`, a key a line, in order, with the member for all else last.
Its provenance, `TABLE.COLUMN.vN.json`, has everything by which the search can be read again from its reports
(`analyst.finding.verify`). Neither holds a count. No file that exists is written over.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analyst.errors import AnalystError
from analyst.finding.search import Found
from analyst.finding.tree import BETA
from federation.files import check_out, write_out
from policies.domains import HASH_PATTERN, LongDomain, hash_of, text_of
from policies.requests.key_search import MAX_LENGTH, KeyShape
from policies.requests.tables import TableColumn
from policies.units import when

SCHEMA = "consilo-keys/1"
_OTHERS = "(other)"
_MAX_BYTES = 4 << 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class OfRound(_Part):
    """One round: its request and report by their SHA-256, its size, the deviation of its noise, and its thresholds."""

    request: str = Field(pattern=r"^[0-9a-f]{64}$")
    report: str = Field(pattern=r"^[0-9a-f]{64}$")
    prefixes: int
    slots: int
    sd: float
    survive: float | None  # None in the last round, where nothing survives
    enter: float | None  # None in the first round, where nothing enters
    silos: list[str]


class Provenance(_Part):
    """Where a domain is from."""

    schema_: Literal["consilo-keys/1"] = Field(alias="schema")
    federation: str
    table: str
    column: str
    version: int
    domain_file: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,200}\.txt$")
    domain_hash: str = Field(pattern=HASH_PATTERN)
    unknown: str
    keys: int
    takes_place_of: str | None  # the hash of the domain that policies had then
    found_at: str
    analyst: str
    purpose: str
    alphabet: str
    length: int = Field(ge=1, le=MAX_LENGTH)
    most: int  # of one person
    run: str
    rho: float
    epsilon: float
    delta: float
    max_silos: int
    min_cohort: int = Field(ge=0)
    most_prefixes: int = Field(ge=1)  # of a round
    beta: float  # the chance that a key entered which nobody has
    rounds: list[OfRound] = Field(min_length=1, max_length=MAX_LENGTH)


@dataclass(frozen=True, slots=True)
class Written:
    """A domain as it was written; `domain` is None where no key was found."""

    provenance: Provenance
    path: Path
    domain: Path | None


def others_of(shape: KeyShape) -> str:
    """Return the member of a domain for all that is no key of it: a text that can be no key."""
    name = _OTHERS
    while shape.is_key(name):
        name = f"({name})"
    return name


def values_of(found: Found) -> tuple[str, ...]:
    """Return the values of the domain that a search has found: its keys in order, and the member for all else."""
    return (*(one.key for one in found.keys), others_of(found.shape))


def stem_of(table: str, column: str) -> str:
    """Return how the files of a column's domains begin; a name that is no name of a file is written otherwise."""
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", name) for name in (table, column))


def check_directory(directory: Path, table: str, column: str) -> None:
    """Raise AnalystError if nothing can be written there, before anything is asked."""
    hint = "name another directory; nothing was asked or paid"
    if not directory.is_dir():
        raise AnalystError(f"there is no directory {directory}", "make it first; nothing was asked or paid")
    try:
        check_out(directory / f"{stem_of(table, column)}.v{_next_version(directory, table, column)}.txt")
    except OSError as err:
        raise AnalystError(f"the domain cannot be written to {directory} ({err.strerror})", hint) from err


def write(directory: Path, found: Found, before: TableColumn | None) -> Written:
    """Write what a search has found; `before` is the column as policies define it now. Raises AnalystError.

    What a search has written already stays as it is.
    """
    if (known := _written(directory, found)) is not None:
        return known
    version, values = _next_version(directory, found.table, found.column), values_of(found)
    name = f"{stem_of(found.table, found.column)}.v{version}"
    provenance = Provenance.model_validate(
        {
            "schema": SCHEMA,
            "federation": found.federation,
            "table": found.table,
            "column": found.column,
            "version": version,
            "domain_file": f"{name}.txt",
            "domain_hash": hash_of(values),
            "unknown": values[-1],
            "keys": len(found.keys),
            "takes_place_of": _hash_of(before),
            "found_at": when(found.ended_at),
            "analyst": found.analyst,
            "purpose": found.purpose,
            **found.shape.model_dump(),
            "run": found.run,
            "rho": found.rho,
            "epsilon": found.epsilon,
            "delta": found.delta,
            "max_silos": found.max_silos,
            "min_cohort": found.min_cohort,
            "most_prefixes": found.most_prefixes,
            "beta": BETA,
            "rounds": rounds_of(found),
        }
    )
    path, domain = directory / f"{name}.json", directory / f"{name}.txt"
    try:
        if found.keys:
            write_out(domain, text_of(values))
        write_out(path, (json.dumps(provenance.model_dump(by_alias=True), indent=2) + "\n").encode())
    except OSError as err:
        hint = "make room there, or name another --out, and give the command again: what is paid is not paid twice"
        raise AnalystError(f"{path} cannot be written ({err.strerror})", hint) from err
    return Written(provenance, path, domain if found.keys else None)


def rounds_of(found: Found) -> list[Mapping[str, Any]]:
    """Return the rounds of a search as its provenance has them."""
    return [
        {
            "request": one.request,
            "report": one.report,
            "prefixes": one.prefixes,
            "slots": one.slots,
            "sd": one.sd,
            **asdict(one.limits),
            "silos": list(one.silos),
        }
        for one in found.rounds
    ]


def read_provenance(path: Path) -> Provenance:
    """Return the provenance in a file; raises AnalystError."""
    hint = "give the JSON file that `consilo find-keys` wrote beside a domain"
    try:
        with path.open("rb") as file:
            return Provenance.model_validate_json(file.read(_MAX_BYTES))
    except OSError as err:
        raise AnalystError(f"{path} cannot be read ({err.strerror})", hint) from err
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise AnalystError(f"{path} is no provenance of a domain: {where}: {first['msg']}", hint) from err


def to_json(found: Found, written: Written) -> str:
    """Return a finished search as JSON: the provenance, and the noised number of persons of each key."""
    keys = [asdict(one) for one in found.keys]
    return json.dumps({**written.provenance.model_dump(by_alias=True), "found": keys, "lost": found.lost}, indent=2)


def _versions(directory: Path, table: str, column: str) -> Iterator[tuple[int, Path]]:
    """Yield the files of a column's domains, with their versions."""
    pattern = re.compile(rf"{re.escape(stem_of(table, column))}\.v([0-9]{{1,9}})\.(?:txt|json)")
    for path in directory.iterdir():
        if (found := pattern.fullmatch(path.name)) is not None:
            yield int(found[1]), path


def _next_version(directory: Path, table: str, column: str) -> int:
    return 1 + max((version for version, _ in _versions(directory, table, column)), default=0)


def _written(directory: Path, found: Found) -> Written | None:
    """Return what a search has written before it was interrupted."""
    for _, path in _versions(directory, found.table, found.column):
        if path.suffix == ".json":
            with suppress(AnalystError):
                known = read_provenance(path)
                if known.run == found.run:
                    return Written(known, path, path.with_name(known.domain_file) if known.keys else None)
    return None


def _hash_of(before: TableColumn | None) -> str | None:
    if before is None or not before.domain:
        return None
    return before.domain.name if isinstance(before.domain, LongDomain) else hash_of(before.domain)
