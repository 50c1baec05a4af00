"""Read a policy file, and say of everything wrong in it where it is and what was meant.

TOML with decimals kept exact; the hash of the very bytes is the policy's name in requests, ledger and reports.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from policies.document.consistency import meant, problems, warnings
from policies.document.policy import Policy
from policies.errors import PolicyFileError

_MAX_BYTES = 1 << 20
_MEND = "mend the file, then run: consilo-silo check-policy FILE"
PLACEHOLDER = "FILL IN"  # what a draft says where a person must decide
_UNION = ("int", "decimal", "str", "tuple[", "literal[", "constrained-", "function-")
_PUBLIC = "from public knowledge, never from the data"
_TO_FILL_IN = {
    "bounds": f"fill in [low, high] {_PUBLIC}",
    "domain": f'fill in the list of its values, such as ["female", "male", "unknown"], {_PUBLIC}',
    "id_column": "fill in the column that says whose row it is; that column has roles = [] and no bounds",
    "rho": "fill in a number, such as 1.0: what may ever be spent on one person, never refreshed",
    "legal_basis": 'fill in the legal basis, such as "public-task" or "legitimate-interest"',
    "purposes": "fill in the name of the purpose, such as health-research, wherever it stands",
}
_MAX_PARTS = 8  # of a key between dots; no policy has as many
_LONG_KEY = re.compile(
    rf"""(?:^[ \t]*+\[?+\[?+|[{{,])[ \t]*+(?:(?:[\w-]++|"[^"]*+"|'[^']*+')[ \t]*+\.[ \t]*+){{{_MAX_PARTS}}}"""
)
_UNSEEN = "a control character, or one that is not seen or moves others, is not allowed"
# The keys whose members are named by the author of the policy.
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
        """What in the policy has no effect yet or may not be meant, as `file:line: path: warning`."""
        lines = _lines(self.raw.decode())
        found = [(_line_of(path, lines), dotted(path), text) for path, text in warnings(self.policy)]
        return tuple(f"{self.path}:{line}: {path}: {text}" for line, path, text in sorted(found))


def load(path: Path) -> PolicyFile:
    """Read the policy at `path`; raises PolicyFileError with one line per problem."""
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise PolicyFileError(f"{path}:1: the policy file cannot be read ({err.strerror})", "check the path") from err
    if len(raw) > _MAX_BYTES:
        raise PolicyFileError(f"{path}:1: the file has {len(raw)} bytes, at most {_MAX_BYTES} are read", _MEND)
    return PolicyFile(parse(raw, str(path)), sha256(raw).digest(), path, raw)


def parse(raw: bytes, name: str) -> Policy:
    """Return the policy that `raw` holds; `name` stands before the line numbers in errors."""
    unfit: dict[tuple[str, ...], str] = {}
    try:
        text = raw.decode()
        _check_keys(text, name)
        document = _fitted(frozen(tomllib.loads(text, parse_float=_decimal)), (), unfit)
    except UnicodeDecodeError as err:
        raise PolicyFileError(f"{name}:1: not UTF-8 text", _MEND) from err
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as err:
        place = re.search(r"at line (\d+)", str(err))
        raise PolicyFileError(f"{name}:{place[1] if place else 1}: not TOML: {err}", _MEND) from err
    found = list(problems(document))
    try:
        policy = Policy.model_validate(document)
    except ValidationError as err:
        policy, broken = None, err.errors(include_url=False)
    else:
        broken = []
    pending = {dotted(path): path for path in _placeholders(document)}
    if policy is not None and not found and not pending and not unfit:
        return policy
    lines = _lines(text)
    # What a placeholder stands in cannot be right yet: say only what is to be filled in.
    listed = [(_line_of(path, lines), name, _to_fill_in(path)) for name, path in pending.items()]
    others = [(_line_of(path, lines), dotted(path), problem) for path, problem in found]
    described: dict[tuple[int, str], str] = {}
    for line, path, problem in (_describe(one, lines) for one in broken):
        described.setdefault((line, path), problem)  # one is enough of the members of a union
    others += [(line, path, problem) for (line, path), problem in described.items()]
    listed += [(_line_of(path, lines), dotted(path), problem) for path, problem in unfit.items()]
    said_already = [*pending, *map(dotted, unfit)]
    listed += [one for one in others if not any(_is_within(one[1], at) for at in said_already)]
    said = "\n".join(printable(f"{name}:{line}: {path}: {problem}") for line, path, problem in sorted(set(listed)))
    raise PolicyFileError(said, _MEND)


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
    """Raise PolicyFileError if a key has too many parts: the time to read one grows with their square."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") >= _MAX_PARTS and _LONG_KEY.search(line):
            raise PolicyFileError(f"{name}:{number}: a key has more than {_MAX_PARTS} parts between dots", _MEND)


def _fitted(value: Any, path: tuple[str, ...], unfit: dict[tuple[str, ...], str]) -> Any:
    """Return the document with 0 for integers that are too large to be written, and note in `unfit` what cannot stand.

    People sign what commands show them: a character that is not seen, or that moves others, could hide a line of it.
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
    """Return the text with an escape for each character that is not seen, or that moves others."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _placeholders(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return where something is still to be filled in, as a value or as a name."""
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
    """Return a path as it stands in TOML: keys that hold a dot quoted."""
    return ".".join(f'"{part}"' if "." in part else part for part in path) or "policy"


def _describe(error: Any, lines: dict[tuple[str, ...], int]) -> tuple[int, str, str]:
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
    return _line_of(location, lines), dotted(location), message


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


def _lines(text: str) -> dict[tuple[str, ...], int]:
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


def _line_of(location: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> int:
    for depth in range(len(location), 0, -1):
        if location[:depth] in lines:
            return lines[location[:depth]]
    return 1
