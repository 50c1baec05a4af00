"""Read a policy file; report every problem in it with its line, its key and a suggestion.

TOML with exact decimals; the SHA-256 of the file's bytes names the policy in requests, ledger and reports. Long domains
stand in files beside it (`policies.document.domain_files`), and their hashes in the policy.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from policies.document.catalogue import not_adopted
from policies.document.consistency import meant, problems, warnings
from policies.document.domain_files import FileProblem, with_domains
from policies.document.policy import Policy
from policies.errors import PolicyFileError

_MAX_BYTES = 1 << 20
_MEND = "mend the file, then run: consilo-silo check-policy FILE"
PLACEHOLDER = "FILL IN"  # a draft's placeholder where a person must decide
_UNION = ("int", "decimal", "str", "tuple[", "literal[", "constrained-", "function-")
_PUBLIC = "from public knowledge, never from the data"
_TO_FILL_IN = {
    "bounds": f"fill in [low, high] {_PUBLIC}",
    "domain": f'fill in the list of its values, such as ["female", "male", "unknown"], {_PUBLIC}',
    "id_column": "fill in the column that says whose row it is; that column has roles = [] and no bounds",
    "rho": "fill in a number, such as 1.0: what may ever be spent on one person, never refreshed",
    "legal_basis": 'fill in the legal basis, such as "public-task" or "legitimate-interest"',
    "purposes": "fill in the name of the purpose, such as health-research, in every place",
}
_MAX_PARTS = 8  # of a key between dots; no policy has as many
_LONG_KEY = re.compile(
    rf"""(?:^[ \t]*+\[?+\[?+|[{{,])[ \t]*+(?:(?:[\w-]++|"[^"]*+"|'[^']*+')[ \t]*+\.[ \t]*+){{{_MAX_PARTS}}}"""
)
_UNSEEN = "a control character, or one that is not seen or moves others, is not allowed"
# The keys whose members have names chosen by the policy's author.
_NAMING = (("sources",), ("columns",), ("purposes",), ("analysts",), ("people",))


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy, the bytes of the file it came from, and their SHA-256."""

    policy: Policy
    digest: bytes
    path: Path
    raw: bytes = field(repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The settings that have no effect yet or may not be meant, as `file:line: path: warning`."""
        lines = lines_of(self.raw.decode())
        found = [(line_of(path, lines), dotted(path), text) for path, text in warnings(self.policy)]
        return tuple(f"{self.path}:{line}: {path}: {text}" for line, path, text in sorted(found))


def load(path: Path) -> PolicyFile:
    """Read the policy at `path` and its domains; raises PolicyFileError with one line per problem."""
    return _load(path, is_earlier=False)


def load_earlier(path: Path) -> PolicyFile:
    """Read a version that a later one follows, whose `domain_file` may have other values now; raises PolicyFileError.

    Its domains are those that the silo kept when it admitted the version, else those beside it.
    """
    return _load(path, is_earlier=True)


def _load(path: Path, is_earlier: bool) -> PolicyFile:
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise PolicyFileError(f"{path}:1: the policy file cannot be read ({err.strerror})", "check the path") from err
    if len(raw) > _MAX_BYTES:
        raise PolicyFileError(f"{path}:1: the file has {len(raw)} bytes, at most {_MAX_BYTES} are read", _MEND)
    policy = parse(raw, str(path), path.resolve().parent, is_earlier)
    return PolicyFile(policy, sha256(raw).digest(), path, raw)


def parse(raw: bytes, name: str, home: Path | None = None, is_earlier: bool = False) -> Policy:
    """Parse the policy in `raw`; errors begin with `name` and a line number. `home` has its files of domains."""
    document, unfit = document_of(raw, name)
    text = raw.decode()
    pending = {dotted(path): path for path in _placeholders(document)}
    in_files: list[FileProblem] = []
    if not pending and not unfit:
        document = with_domains(document, home, is_earlier, in_files)
    found = list(problems(document))
    policy, broken = None, []
    try:
        policy = Policy.model_validate(document)
    except ValidationError as err:
        broken = err.errors(include_url=False)
    else:
        found += not_adopted(policy)
    if policy is not None and not (found or in_files or pending or unfit):
        return policy
    lines = lines_of(text)
    # A policy with a placeholder cannot be valid yet: report only the placeholders.
    listed = [(line_of(path, lines), name, _to_fill_in(path)) for name, path in pending.items()]
    others = [(line_of(path, lines), dotted(path), problem) for path, problem in found]
    first_of: dict[tuple[int, str], str] = {}
    for location, problem in map(described, broken):
        first_of.setdefault((line_of(location, lines), dotted(location)), problem)  # one of the members of a union
    others += [(line, path, problem) for (line, path), problem in first_of.items()]
    listed += [(line_of(path, lines), dotted(path), problem) for path, problem in unfit.items()]
    said_already = [*pending, *map(dotted, unfit)]
    # A file that is no domain leaves its column without one, and the column's other problems may come of that.
    unread = tuple(f"{dotted(path[:-1])}." for path, _ in in_files)
    others = [one for one in others if not f"{one[1]}.".startswith(unread)]
    listed += [(line_of(path, lines), dotted(path), problem) for path, problem in in_files]
    listed += [one for one in others if not any(_is_within(one[1], at) for at in said_already)]
    said = "\n".join(printable(f"{name}:{line}: {path}: {problem}") for line, path, problem in sorted(set(listed)))
    raise PolicyFileError(said, _MEND)


def document_of(raw: bytes, name: str) -> tuple[Any, dict[tuple[str, ...], str]]:
    """Return the document in `raw` with exact numbers, and what it may not hold, by path; raises PolicyFileError."""
    unfit: dict[tuple[str, ...], str] = {}
    try:
        text = raw.decode()
        _check_keys(text, name)
        return _fitted(frozen(tomllib.loads(text, parse_float=_decimal)), (), unfit), unfit
    except UnicodeDecodeError as err:
        raise PolicyFileError(f"{name}:1: not UTF-8 text", _MEND) from err
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as err:
        place = re.search(r"at line (\d+)", str(err))
        raise PolicyFileError(f"{name}:{place[1] if place else 1}: not TOML: {err}", _MEND) from err


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError as err:
        raise ValueError(f"{text[:40]} is not a number that can be kept exactly") from err
    if not value.is_finite():
        raise ValueError(f"{text} is not a finite number")
    return value


def frozen(value: Any) -> Any:
    """Return the document with tuples for lists, as strict models demand."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value


def _check_keys(text: str, name: str) -> None:
    """Raise PolicyFileError if a key has too many parts, as the time to read it grows with their square."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") >= _MAX_PARTS and _LONG_KEY.search(line):
            raise PolicyFileError(f"{name}:{number}: a key has more than {_MAX_PARTS} parts between dots", _MEND)


def _fitted(value: Any, path: tuple[str, ...], unfit: dict[tuple[str, ...], str]) -> Any:
    """Return the document with 0 for integers that are too large to print; add values that are not allowed to `unfit`.

    People sign the text that a command shows, and an invisible or moving character could hide part of it.
    """
    if isinstance(value, dict):
        for key in (key for key in value if not key.isprintable()):
            unfit[*path, key] = f"{_UNSEEN} in this name (found {ascii(key)[:60]})"
        return {key: _fitted(item, (*path, key), unfit) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_fitted(item, (*path, str(index)), unfit) for index, item in enumerate(value))
    if isinstance(value, str) and not value.isprintable():
        unfit[path] = f"{_UNSEEN} in this text (found {ascii(value)[:60]})"
    elif type(value) is int and not -(1 << 63) <= value < 1 << 63:
        unfit[path] = "an integer beyond 64 bits; the largest is 9223372036854775807"
        return 0
    return value


def printable(text: str) -> str:
    """Return the text with an escape for each character that is invisible or moves others."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _placeholders(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every placeholder, as a value or as a name."""
    if value == PLACEHOLDER or (isinstance(value, tuple) and PLACEHOLDER in value):
        yield path
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _placeholders(item, (*path, str(index)))
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == PLACEHOLDER:
                yield (*path, key)
            yield from _placeholders(item, (*path, key))


def _is_within(one: str, other: str) -> bool:
    """Tell whether one of two places lies within the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _to_fill_in(path: tuple[str, ...]) -> str:
    name = path[-2] if path[-1] == PLACEHOLDER and len(path) > 1 else path[-1]
    return _TO_FILL_IN.get(name, f"fill in the {name}")


def dotted(path: tuple[str, ...]) -> str:
    """Return a path as TOML writes it: a key with a dot is quoted."""
    return ".".join(f'"{part}"' if "." in part else part for part in path) or "policy"


def described(error: Any) -> tuple[tuple[str, ...], str]:
    """Return the path in the policy of one of pydantic's errors, and what is wrong there."""
    location = tuple(str(part) for part in error["loc"])
    while location and location[-1].startswith(_UNION) and location[-2:-1] not in _NAMING:
        location = location[:-1]  # which member of a union was tried
    if location[:1] == ("consent",) and len(location) > 2:
        location = (location[0], *location[2:])  # which form of consent was tried
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"unknown key {meant(location[-1], _known_keys(location))}"
    elif error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        message = 'mode must be "table" or "column"'
    elif error["type"] == "missing":
        message = "missing; it is mandatory"
    elif error["type"] == "literal_error" and isinstance(error["input"], str):
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        message = f"not one of the choices {meant(error['input'], choices)}"
    elif error["type"] != "value_error" and not isinstance(error.get("input"), dict):
        shown = repr(error["input"])
        message = f"{message[0].lower()}{message[1:]} (found {shown[:60]})"
        message = re.sub(r"Decimal\('([^']*)'\)", r"\1", message)
    return location, message


def _known_keys(location: tuple[str, ...]) -> list[str]:
    model: Any = Policy
    parts = iter(location[:-1])
    for part in parts:
        if part.isdigit():
            continue  # the place in a list of sections
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        model = _section_in(fields.get(part))
        if get_origin(fields.get(part)) is dict:
            next(parts, None)  # the name of one of several sections
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _section_in(annotation: Any) -> Any:
    """Return the section inside `X | None`, `dict[str, X]` and the like, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _section_in(arg)) is not None), None)


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of every table header and key, by dotted path."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    counted: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\s*\[(\[?)([^\[\]]+)\]\]?\s*(#.*)?$", line):
            section = _path(header[2])
            if header[1]:
                counted[section] = counted.get(section, -1) + 1
                found.setdefault(section, number)
                section = (*section, str(counted[section]))
            for depth in range(1, len(section) + 1):
                found.setdefault(section[:depth], number)
        elif key := re.match(r"""\s*((?:[\w-]+|"[^"]*")(?:\s*\.\s*(?:[\w-]+|"[^"]*"))*)\s*=""", line):
            path = section + _path(key[1])
            found.setdefault(path, number)
            for inner in re.finditer(r"[{,]\s*([\w-]+)\s*=", line):
                found.setdefault((*path, inner[1]), number)
    return found


def _path(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip('"') for part in re.findall(r'"[^"]*"|[^."\s]+', text))


def line_of(location: tuple[str, ...], lines: Mapping[tuple[str, ...], int]) -> int:
    """Return the line of a path, or of what is nearest around it."""
    for depth in range(len(location), 0, -1):
        if location[:depth] in lines:
            return lines[location[:depth]]
    return 1
