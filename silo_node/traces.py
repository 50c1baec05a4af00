"""What a silo keeps of its rounds for its receipts: the directory `rounds`, one file a round.

Promise: a file has signed messages alone, nothing computed from a row. It is a copy for the silo's own defence: no step
of a round waits for it or fails by it. At most MAX_KEPT are kept, for as long as the policy keeps traces of rounds.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from crypto.errors import CryptoError
from crypto.wire import Message
from federation.files import replace_file

DIRECTORY = "rounds"
MAX_KEPT = 4096


class Trace(Message):
    """The manifest and the survivor set of a round as its aggregator signed them, and the silo's own signed header."""

    KIND: ClassVar[str] = "trace"
    MAX_BYTES: ClassVar[int] = 4 << 20
    manifest: bytes
    contribution: bytes
    survivors: bytes = b""


class RoundTraces:
    """The kept traces of one silo. What the disk refuses is told in the owner's log, and nothing else."""

    def __init__(self, home: Path, log: logging.Logger | None = None) -> None:
        self._path, self._log = home / DIRECTORY, log or logging.getLogger("consilo.silo")

    def contributed(self, round_id: bytes, manifest: bytes, contribution: bytes) -> None:
        """Keep what was agreed before the contribution, and its header, as that leaves."""
        self._write(round_id, Trace(manifest=manifest, contribution=contribution))

    def agreed(self, round_id: bytes, survivors: bytes) -> None:
        """Add the survivor set that the aggregator signed."""
        if (trace := self.find(round_id)) is not None:
            self._write(round_id, trace.model_copy(update={"survivors": survivors}))
        self._forget_oldest()

    def find(self, round_id: bytes) -> Trace | None:
        """Return what is kept of a round; None if nothing is, or it cannot be read."""
        try:
            return Trace.decode((self._path / round_id.hex()).read_bytes())
        except (OSError, CryptoError):
            return None

    def erase(self, before: float) -> None:
        """Erase what was kept before a time, in seconds since 1970."""
        for at, path in self._kept():
            if at < before:
                self._remove(path)

    def _write(self, round_id: bytes, trace: Trace) -> None:
        try:
            self._path.mkdir(mode=0o700, exist_ok=True)
            replace_file(self._path / round_id.hex(), trace.encode(), 0o600)
        except OSError as err:
            self._log.warning("round %s is not kept for receipts (%s)", round_id.hex(), err.strerror)

    def _forget_oldest(self) -> None:
        kept = self._kept()
        for _, path in kept[: max(0, len(kept) - MAX_KEPT)]:
            self._remove(path)

    def _remove(self, path: Path) -> None:
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def _kept(self) -> list[tuple[float, Path]]:
        """Return the kept files with their times, the oldest first."""
        try:
            with os.scandir(self._path) as found:
                return sorted((one.stat().st_mtime, Path(one.path)) for one in found)
        except OSError:
            return []
