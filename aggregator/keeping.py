"""How long an aggregator keeps a kind of file, how much of it, and the dates on which it erased what.

The dates are a ring of records in one file, whose room is taken at once: a full disk keeps nothing from being erased,
and the oldest dates make room for new ones. Promise: a date is on disk before its file is erased, if it can be written.
"""

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from policies.units import when

DATES = "erased.dates"
MAX_DATES = 1 << 16
SPARE = 64  # one part in so many of a limit is freed beyond the need, so that not every round looks for room
_NAME_BYTES = 32
_RECORD_BYTES = 2 * _NAME_BYTES + 8  # the name, the owner's hash, seconds since 1970
_MAGIC = b"CSE1"
_HEADER_BYTES = len(_MAGIC) + 8  # with the place of the next record


@dataclass(frozen=True, slots=True)
class Keeping:
    """The limits of a kind of file: what is older, or does not fit, is erased, the oldest first."""

    age_s: int
    max_bytes: int
    fresh_s: int  # what is younger is still being fetched: it is never erased for want of room


class KeptFile(NamedTuple):
    """What is erased together, and its age and bytes."""

    age_s: float
    size: int
    paths: tuple[Path, ...]


def due(oldest_first: Iterable[KeptFile], total: int, room: int, keeping: Keeping) -> list[KeptFile]:
    """Return what must be erased of `total` bytes, so that `room` bytes more stay within the limits.

    If nothing makes so much room, only what is too old is returned.
    """
    old, more, left = list[KeptFile](), list[KeptFile](), total
    spare = keeping.max_bytes // SPARE
    for one in oldest_first:
        if one.age_s >= keeping.age_s:
            old.append(one)
        elif one.age_s < keeping.fresh_s or left + room <= keeping.max_bytes - (spare if more else 0):
            break
        else:
            more.append(one)
        left -= one.size
    return old + more if left + room <= keeping.max_bytes else old


@dataclass(slots=True)
class Room:
    """The bytes of a directory, within the limits of its kind of file; never less than the files' real size."""

    keeping: Keeping
    bytes: int = 0

    def take(self, length: int, left_for: Callable[[int], int]) -> bool:
        """Count `length` bytes more; return False if there is no room for them.

        `left_for` erases what so many bytes need, and returns how many bytes are left.
        """
        self.bytes += length
        if self.bytes <= self.keeping.max_bytes:
            return True
        left = left_for(length)
        has_room = left + length <= self.keeping.max_bytes
        self.bytes = left + length if has_room else left
        return has_room


@dataclass(frozen=True, slots=True)
class Erased:
    """When something was erased, and whose it was."""

    at: int
    owner: bytes  # the SHA-256 of a name; zeros if nobody's

    def is_of(self, name: str) -> bool:
        """Tell whether it was this owner's."""
        return self.owner == owner_hash(name)

    @property
    def day(self) -> str:
        """The date, for people."""
        return when(self.at)[:10]


class ErasureDates:
    """The last MAX_DATES dates of one directory."""

    def __init__(self, directory: Path, most: int = MAX_DATES) -> None:
        self._path, self._most = directory / DATES, most
        self._lock = threading.Lock()
        with suppress(OSError):  # it is tried again at every note
            self._ensure()

    def note(self, names: Iterable[tuple[bytes, bytes]], at: float) -> None:
        """Write when these names, each with the hash of its owner, are erased. What cannot be written is left out."""
        with self._lock, suppress(OSError):
            self._ensure()
            with self._path.open("r+b") as file:
                header = file.read(_HEADER_BYTES)
                place = int.from_bytes(header[len(_MAGIC) :], "big") % self._most if header.startswith(_MAGIC) else 0
                for name, owner in names:
                    if len(name) != _NAME_BYTES:
                        continue
                    file.seek(_HEADER_BYTES + place * _RECORD_BYTES)
                    file.write(name + owner + int(at).to_bytes(8, "big"))
                    place = (place + 1) % self._most
                file.seek(0)
                file.write(_MAGIC + place.to_bytes(8, "big"))
                file.flush()
                os.fsync(file.fileno())

    def find(self, name: bytes) -> Erased | None:
        """Return when something of this name was erased; None if nobody knows."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        place = data.find(name, _HEADER_BYTES)
        while place >= 0 and (place - _HEADER_BYTES) % _RECORD_BYTES:
            place = data.find(name, place + 1)
        record = data[place : place + _RECORD_BYTES] if place >= 0 else b""
        at = int.from_bytes(record[2 * _NAME_BYTES :], "big")
        return Erased(at, record[_NAME_BYTES : 2 * _NAME_BYTES]) if len(name) == _NAME_BYTES and at else None

    def _ensure(self) -> None:
        """Take room for all records; raises OSError if there is none."""
        size = _HEADER_BYTES + self._most * _RECORD_BYTES
        if self._path.exists() and self._path.stat().st_size >= size:
            return
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        finally:
            os.close(file)


def sizes(directory: Path) -> dict[Path, tuple[float, int]]:
    """Return the time and the bytes of each file in a directory but the dates, the oldest first."""
    found = list[tuple[float, Path, int]]()
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # a round has ended meanwhile
                if entry.name != DATES:
                    status = entry.stat()
                    found.append((status.st_mtime, Path(entry.path), status.st_size))
    return {path: (at, size) for at, path, size in sorted(found)}


def name_of(path: Path) -> bytes:
    """Return the name of a file that is named in hexadecimal, before a dash if it has one; empty for any other."""
    try:
        return bytes.fromhex(path.stem.partition("-")[0])
    except ValueError:
        return b""


def owner_hash(name: str) -> bytes:
    """Return the hash under which an owner is kept; zeros for nobody."""
    return sha256(name.encode()).digest() if name else bytes(_NAME_BYTES)
