"""What the aggregator keeps on disk, none of which it can open.

Encrypted reports, written whole or not at all, named by the SHA-256 of what stands before their sum. And blinded
contributions, named by the SHA-256 of their signed heads, the oldest deleted first when they need too much room.
"""

import os
from collections.abc import Iterator, Sequence
from io import BufferedRandom
from pathlib import Path

from aggregator.errors import StoreError
from crypto.messages import EncryptedReport, StoredReport, report_head
from crypto.randomness import token

MAX_KEPT_BYTES = 16 << 30


class ReportStore:
    """A directory of encrypted reports."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, report: EncryptedReport, blinded_sum: Sequence[bytes]) -> bytes:
        """Store a report and the pieces of its sum durably, and return its name."""
        head = report_head(report)
        name = StoredReport.decode(head).name
        target, partial = self._path / f"{name.hex()}.report", self._path / f"{name.hex()}.partial"
        try:
            with _create(partial) as file:
                for piece in (head, *blinded_sum):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError as err:
            raise StoreError(f"the report cannot be stored ({err.strerror})", f"free space in {self._path}") from err
        return name

    def get(self, name: bytes) -> bytes:
        """Return the report of that name; raises StoreError if there is none."""
        try:
            return (self._path / f"{name.hex()}.report").read_bytes()
        except OSError as err:
            raise StoreError(
                f"there is no report {name.hex()[:16]} here ({err.strerror})", "check its name, or run the step again"
            ) from err


class ContributionStore:
    """A directory of blinded contributions, of bounded size."""

    def __init__(self, path: Path, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in path.glob("*.partial"):  # of a process that ended in mid-round
            left.unlink(missing_ok=True)
        self._bytes = sum(entry.stat().st_size for entry in path.iterdir())  # never less than what lies there

    def stage(self, length: int) -> "Staged":
        """Begin a contribution of `length` bytes, after making room for it."""
        self._make_room(length)
        return Staged(self._path)

    def read(self, name: bytes, start: int, length: int) -> bytes:
        """Return a part of a contribution; raises StoreError if it is not kept, or no longer."""
        try:
            with (self._path / f"{name.hex()}.contribution").open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as err:
            hint = "contributions are deleted when they need too much room; ask while they are fresh"
            raise StoreError(f"the contribution {name.hex()[:16]} is not kept here ({err.strerror})", hint) from err

    def _make_room(self, length: int) -> None:
        self._bytes += length
        if self._bytes <= self._max_bytes:
            return
        found = [(entry.stat(), entry) for entry in self._path.iterdir()]
        kept = [(stat.st_mtime_ns, stat.st_size, entry) for stat, entry in found if entry.suffix == ".contribution"]
        total = sum(stat.st_size for stat, _ in found)
        if length + total - sum(size for _, size, _ in kept) > self._max_bytes:
            self._bytes = total
            raise StoreError(f"no room for a contribution of {length} bytes", "let fewer rounds run at a time")
        for _, size, entry in sorted(kept):
            if length + total <= self._max_bytes:
                break
            entry.unlink(missing_ok=True)
            total -= size
        self._bytes = length + total


class Staged:
    """A contribution that is arriving; on disk, not in memory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"{token(16).hex()}.partial"
        self._file = _create(self._path)
        self.frames = 0

    def append(self, frame: bytes) -> None:
        """Write the next frame; raises StoreError if the disk is full."""
        try:
            self._file.write(frame)
            self._file.flush()
        except OSError as err:
            raise StoreError(f"a contribution cannot be kept ({err.strerror})", "free disk space") from err
        self.frames += 1

    def parts(self, sizes: Sequence[int]) -> Iterator[bytes]:
        """Yield the whole in parts of these sizes."""
        self._file.seek(0)
        for size in sizes:
            yield self._file.read(size)

    def keep(self, name: bytes) -> None:
        """Keep it under its name."""
        self._file.close()
        self._path.replace(self._path.with_name(f"{name.hex()}.contribution"))

    def discard(self) -> None:
        """Delete it."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _create(path: Path) -> BufferedRandom:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")
