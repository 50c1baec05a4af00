"""Read the domains in files beside a policy: `domain_file`, one value a line, and `domain_hash` in the policy.

Promise: a file is read only from the policy's own directory, and its values only under the hash that the policy states.
A silo's signed version covers them through this hash. A later version may change the file, so a copy of the domains of
the version in force is kept under their hashes (`KEPT`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from policies.domains import MAX_DOMAIN_BYTES, digest_in, hash_of, int_problem_of, problem_of, text_of
from policies.units import MAX_LONG_DOMAIN

KEPT = "policy.accepted.domains"  # the directory with the domains of the version in force, by hash
_FORM = "one value a line, in UTF-8"
_POLICY = "the policy"  # beside which the files of domains stand

Values = tuple[str | int, ...]


class FileProblem(NamedTuple):
    """A problem of a domain that stands in a file: the path of its key in the policy, and what to do."""

    path: tuple[str, ...]
    text: str


class DomainError(ValueError):
    """A file that holds no domain, or not the one that a policy states."""


def with_domains(
    document: Mapping[str, Any], home: Path | None, is_earlier: bool, found: list[FileProblem]
) -> dict[str, Any]:
    """Return the document with the values of every `domain_file` as the column's `domain`; add problems to `found`.

    `home` is the policy's directory. Of an earlier version, a file that has changed since is read from its kept copy.
    """
    whole = dict(document)
    for path, column in list(_columns(document)):
        values = domain_of(column, home, is_earlier)
        if not isinstance(values, FileProblem):
            if (stated := _stated(column, hash_of(values), is_earlier)) is None:
                _put(whole, path, values)
                continue
            values = FileProblem(("domain_hash",), stated)
        found.append(FileProblem((*path, *values.path), values.text))
    return whole


def domain_of(
    column: Mapping[str, Any], home: Path | None, is_earlier: bool = False, beside: str = _POLICY
) -> Values | FileProblem:
    """Return the values of a column's `domain_file`, which stands in `home`, or what is wrong with it.

    `beside` is what errors call the file that names it.
    """
    if (problem := _misplaced(column)) is not None:
        return problem
    try:
        return _values(column, home, is_earlier, beside)
    except DomainError as err:
        return FileProblem(("domain_file",), str(err))


def put_beside(home: Path, domains: Mapping[str, Values]) -> None:
    """Write files of domains, by name, where a policy will stand; raises DomainError before any is written.

    A file that is there with the same values stays as it is, and one with others is never overwritten.
    """
    missing = {}
    for name, values in domains.items():
        path = _beside(home, name, _POLICY)
        if not path.exists():
            missing[path] = text_of(values)
        elif read_values(path, name, "string") != tuple(map(str, values)):
            raise DomainError(f"{path} is there with other values; give one of the two files another name")
    for path, text in missing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:  # through no link
            file.write(text)


def _columns(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield every column with a domain in a file, or with a hash, and its path."""
    sources = document.get("sources")
    for name, source in sources.items() if isinstance(sources, dict) else ():
        columns = source.get("columns") if isinstance(source, dict) else None
        for key, column in columns.items() if isinstance(columns, dict) else ():
            if isinstance(column, dict) and ("domain_file" in column or "domain_hash" in column):
                yield ("sources", name, "columns", key), column


def _misplaced(column: Mapping[str, Any]) -> FileProblem | None:
    if "domain_file" not in column:
        text = "there is no domain_file that it is the hash of; add domain_file, or remove it"
        return FileProblem(("domain_hash",), text)
    if "domain" in column:
        return FileProblem(("domain_file",), "the column has a domain too; remove one of the two")
    if column.get("type") not in ("string", "int"):
        text = f"a {column.get('type')} column has no domain; remove domain_file and domain_hash"
        return FileProblem(("domain_file",), text)
    return None


def _stated(column: Mapping[str, Any], right: str, is_earlier: bool) -> str | None:
    """Return what is wrong with the hash that a column states; None if it is the right one."""
    stated, name = column.get("domain_hash"), column["domain_file"]
    if stated is None:
        return (
            f'missing; it is mandatory beside domain_file; write domain_hash = "{right}" if {name} is as it should be'
        )
    if stated == right:
        return None
    if is_earlier:
        text = f"{name} has other values now than this version had (found {right})"
        return f"{text}; give the file of the later version another name, and put the old one back"
    return (
        f"{name} has another hash than stated (found {right}); if this change of the values is meant, write"
        f' domain_hash = "{right}", and let the policy be signed anew as for any change; else put the old file back'
    )


def _values(column: Mapping[str, Any], home: Path | None, is_earlier: bool, beside: str) -> Values:
    name, stated = column["domain_file"], column.get("domain_hash")
    if home is None:
        raise DomainError("it stands beside a policy file, and this text is read without one; use domain = [...]")
    if is_earlier and isinstance(stated, str):
        kept = home / KEPT / kept_name(stated)
        if kept.is_file():
            return read_values(kept, f"{KEPT}/{kept.name}", str(column["type"]))
    return read_values(_beside(home, name, beside), name, str(column["type"]), beside)


def _beside(home: Path, name: Any, beside: str) -> Path:
    """Return the place of a file in a directory; raises DomainError if it would be outside."""
    if not isinstance(name, str) or not name or len(name) > 200 or "\0" in name:
        raise DomainError(f'not the name of a file (found {name!r:.60}); write domain_file = "values.txt"')
    path = home / name
    try:
        inside = not Path(name).is_absolute() and path.resolve().is_relative_to(home.resolve())
    except (OSError, RuntimeError) as err:
        raise DomainError(f"{name} cannot be read ({err}); put the file beside {beside}") from err
    if not inside:
        raise DomainError(f"{name} lies outside the directory of {beside}; put the file itself beside {beside}")
    return path


def read_values(path: Path, name: str, type_: str, beside: str = _POLICY) -> Values:
    """Return the values in a file, which errors call `name`; raises DomainError, with the line."""
    try:
        if not path.is_file():
            missing = "is no file" if path.exists() else "is missing"
            raise DomainError(f"{name} {missing}; put a file with {_FORM}, beside {beside}")
        with path.open("rb") as opened:
            raw = opened.read(MAX_DOMAIN_BYTES + 1)
    except OSError as err:
        raise DomainError(f"{name} cannot be read ({err.strerror}); let the silo's user read it") from err
    if len(raw) > MAX_DOMAIN_BYTES:
        raise DomainError(f"{name} has more than {MAX_DOMAIN_BYTES:,} bytes; shorten its values")
    try:
        text = raw.decode()
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        byte = raw[err.start]
        raise DomainError(f"{name}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from err
    if text.startswith("\ufeff"):
        raise DomainError(f"{name}:1: it begins with a byte order mark; save the file as UTF-8 without one")
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        del lines[-1]
    if len(lines) > MAX_LONG_DOMAIN:
        del lines[MAX_LONG_DOMAIN + 1 :]
    problem = problem_of(lines) or (int_problem_of(lines) if type_ == "int" else None)
    if problem is not None:
        raise DomainError(f"{name}:{problem.place}: {problem.text}")
    return tuple(map(int, lines)) if type_ == "int" else tuple(lines)


def _put(document: dict[str, Any], path: tuple[str, ...], values: Values) -> None:
    """Set the domain of the column at `path`, in copies of the tables around it."""
    inner = document
    for part in path:
        inner[part] = dict(inner[part])
        inner = inner[part]
    inner["domain"] = values


def kept_name(stated: str) -> str:
    """Return the name of the kept copy of a domain, by the hash that a policy states."""
    return f"{digest_in(stated).hex()}.txt" if stated.startswith("sha256:") and len(stated) == 71 else "none"
