"""Change single keys of a policy file, and leave every other line of it as its author wrote it.

Promise: the changed text holds the old document with these keys changed and nothing else, or PolicyFileError is raised.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from policies.document.agreement import toml, toml_key
from policies.errors import PolicyFileError

Path = tuple[str, ...]
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?$")
_ANY_HEADER = re.compile(r"\s*\[")


def edited(text: str, changes: Mapping[Path, Any], name: str) -> str:
    """Return the text with the value at each path set; raises PolicyFileError where it cannot be set by a line."""
    wanted: dict[str, Any] = tomllib.loads(text)
    changed, by_hand = text, list[str]()
    for path, value in changes.items():
        before = deepcopy(wanted)
        _put(wanted, path, value)
        if wanted == before:
            continue
        line = _with_line(changed, path, value)
        try:
            found: object = tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            found = None
        if found == wanted:
            changed = line
        else:
            wanted = before
            by_hand.append(f"{'.'.join(map(toml_key, path))} = {toml(value)}")
    if by_hand:
        hint = f"write by hand: {'; '.join(by_hand)}; then give the same command again"
        raise PolicyFileError(f"{name}: what has no line of its own cannot be changed line by line", hint)
    return changed


def _put(document: dict[str, Any], path: Path, value: Any) -> None:
    inner = document
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            return  # the texts will differ
    inner[path[-1]] = deepcopy(value)


def _with_line(text: str, path: Path, value: Any) -> str:
    """Return the text with one key set in its section, or in a new section at the end."""
    *section, key = path
    lines = text.split("\n")
    line = f"{toml_key(key)} = {toml(value)}"
    first, end = _span(lines, tuple(section))
    if first is None:
        header = f"[{'.'.join(map(toml_key, section))}]"
        return f"{text.rstrip()}\n\n{header}\n{line}\n"
    given = re.compile(rf"\s*(?:{re.escape(key)}|{re.escape(toml(key))})\s*=")
    for number in range(first, end):
        if given.match(lines[number]):
            lines[number] = line
            return "\n".join(lines)
    lines.insert(first, line)
    return "\n".join(lines)


def _span(lines: Sequence[str], section: Path) -> tuple[int | None, int]:
    """Return the first line below the header of a section, None if there is none, and the line after its last one."""
    first = 0 if not section else None
    for number, line in enumerate(lines):
        if first is None:
            header = _HEADER.match(line)
            if header is not None and key_parts(header[1]) == section:
                first = number + 1
        elif _ANY_HEADER.match(line):
            return first, number
    return first, len(lines)


def key_parts(key: str) -> Path:
    """Return the parts of a dotted key, or of a section's header; none if it is not one key."""
    try:
        document: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts: list[str] = []
    while isinstance(document, dict):
        if len(document) != 1:
            return ()
        ((part, document),) = document.items()
        parts.append(part)
    return tuple(parts)
