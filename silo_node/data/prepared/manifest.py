"""The manifest of a store: which segments, made from which files, are the newest complete rows of one source."""

import json
from dataclasses import dataclass
from typing import Any

from silo_node.data.watch import Stamp

FORMAT = 2


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One segment in a manifest: the file that it was read from, as it was then."""

    file: str
    stamp: Stamp
    directory: str
    number: int  # never used twice, as lots are drawn by it


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete store of one source."""

    rules: str  # the digest of everything in the policy that says how rows are read
    segments: tuple[SegmentEntry, ...]
    index: str | None  # the directory of the index; None where one segment needs none
    next_number: int

    def encode(self) -> bytes:
        """Return it as JSON."""
        listed = [
            {"file": one.file, "stamp": one.stamp, "directory": one.directory, "number": one.number}
            for one in self.segments
        ]
        found = {"format": FORMAT, "rules": self.rules, "segments": listed, "index": self.index}
        return json.dumps(found | {"next_number": self.next_number}, indent=1).encode()

    @classmethod
    def decode(cls, raw: bytes) -> "Manifest | None":
        """Return a manifest from JSON; None if it is not one of this format."""
        try:
            found: Any = json.loads(raw)
            if found["format"] != FORMAT:
                return None
            entries = tuple(
                SegmentEntry(
                    str(one["file"]),
                    tuple(tuple(int(part) for part in stamp) for stamp in one["stamp"]),
                    _plain(one["directory"]),
                    int(one["number"]),
                )
                for one in found["segments"]
            )
            index = None if found["index"] is None else _plain(found["index"])
            if not entries:
                return None
            return cls(str(found["rules"]), entries, index, int(found["next_number"]))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return None


def _plain(name: object) -> str:
    """Return the name of a directory in the store; raises ValueError if it leads elsewhere."""
    if not isinstance(name, str) or not name.isalnum():
        raise ValueError("no name of a directory")
    return name
