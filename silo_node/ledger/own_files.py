"""What a silo keeps for itself of its runs, as files beside the ledger: docs/networks.md, "Algorithms".

A file is *pending* from before the contribution leaves that it was made with. When the round is learned with this silo
in its sum, the file is *kept*; else it goes. In force is the kept file of the last step before the one that the
ledger's state of the run is at: so a process that ends between keeping a file and saving that state, or after it,
leaves the right one in force. An empty file says that there was one, which was dropped, or whose making was missed.

Promise: a file is whole and durable before it has its name. Backups leave these files out: what one is put back from
has dropped them. Only the owner can read them.
"""

import errno
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from federation.files import named, partial_of, sync_directory
from policies.errors import LedgerError, LedgerFullError
from silo_node.training.raw_numbers import MAX_STATE_BYTES

_MOST_BYTES = MAX_STATE_BYTES + (64 << 20)  # with a header and a request
_NAME = re.compile(r"([0-9a-f]{32})-([0-9]{6})-([0-9a-f]{32})\.(own|pending)")
_UNKNOWN = bytes(16)  # the round of a step whose report was missed


class _File(NamedTuple):
    run: bytes
    step: int
    round: bytes
    is_kept: bool

    @property
    def name(self) -> str:
        return f"{self.run.hex()}-{self.step:06d}-{self.round.hex()}.{'own' if self.is_kept else 'pending'}"


class OwnFiles:
    """The folder of what a silo keeps for itself; it is made when the first file is written."""

    def __init__(self, ledger: Path) -> None:
        self._folder = ledger.with_suffix(".own")

    def load(self, run: bytes, done: int) -> tuple[int, bytes] | None:
        """Return the step that made what is in force after `done` steps, and the bytes, empty where it was dropped."""
        if (found := self._in_force(run, done)) is None:
            return None
        try:
            with (self._folder / found.name).open("rb") as file:
                return found.step, (file.read() if os.fstat(file.fileno()).st_size <= _MOST_BYTES else b"")
        except FileNotFoundError:
            return found.step, b""
        except OSError as err:
            raise self._failed(err) from err

    def keep(self, run: bytes, step: int, round_id: bytes, data: bytes) -> None:
        """Keep what a round made until it is known whether the round counts. Durable before this returns."""
        self._write(_File(run, step, round_id, is_kept=False), data)

    def learned(self, run: bytes, step: int, round_id: bytes, *, took_part: bool) -> None:
        """Put in force, for when the state after the step is saved, what this round made, if the silo took part."""
        own, files = _File(run, step, round_id, is_kept=True), self._files(run)
        self._remove(one for one in files if one.is_kept and one.step == step and not (took_part and one == own))
        pending = _File(run, step, round_id, is_kept=False)
        if took_part and pending in files:
            try:
                (self._folder / pending.name).replace(self._folder / own.name)
                sync_directory(self._folder)
            except OSError as err:
                raise self._failed(err) from err
        elif took_part and own not in files:
            self._write(own, b"")

    def missed(self, run: bytes, first: int, done: int) -> None:
        """Put nothing in force if this silo contributed to one of these steps, whose reports it has not learned."""
        made = [one.step for one in self._files(run) if first <= one.step < done]
        if made:
            self._write(_File(run, max(made), _UNKNOWN, is_kept=True), b"")
            self.tidy(run, done)

    def drop(self, run: bytes, done: int) -> None:
        """Drop what is in force after so many steps, and all that is pending."""
        if (found := self._in_force(run, done)) is not None:
            self._write(found, b"")
        self._remove(one for one in self._files(run) if one != found)

    def tidy(self, run: bytes, done: int) -> None:
        """Remove what is in force no more after so many steps, and what is pending of a step before."""
        found = self._in_force(run, done)
        self._remove(one for one in self._files(run) if one.step < done and one != found)

    def keep_only(self, runs: Collection[bytes]) -> None:
        """Remove what is of other runs than these."""
        self._remove(one for one in self._files() if one.run not in runs)

    def _in_force(self, run: bytes, done: int) -> _File | None:
        kept = [one for one in self._files(run) if one.is_kept and one.step < done]
        return max(kept, key=lambda one: (one.step, one.round == _UNKNOWN), default=None)

    def _files(self, run: bytes | None = None) -> list[_File]:
        if not self._folder.is_dir():
            return []
        matches = map(_NAME.fullmatch, os.listdir(self._folder))
        found = [
            _File(bytes.fromhex(one[1]), int(one[2]), bytes.fromhex(one[3]), one[4] == "own") for one in matches if one
        ]
        return [one for one in found if run is None or one.run == run]

    def _write(self, file: _File, data: bytes) -> None:
        place = self._folder / file.name
        partial = partial_of(place)
        try:
            with named(place):
                self._folder.mkdir(mode=0o700, exist_ok=True)
                partial.unlink(missing_ok=True)
                with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
                    opened.write(data)
                    opened.flush()
                    os.fsync(opened.fileno())
                partial.replace(place)
                sync_directory(self._folder)
                sync_directory(self._folder.parent)
        except OSError as err:
            partial.unlink(missing_ok=True)
            raise self._failed(err) from err

    def _remove(self, files: Iterable[_File]) -> None:
        """Remove files durably; what was dropped must not come back."""
        try:
            gone = [self._folder / one.name for one in files]
            for place in gone:
                place.unlink(missing_ok=True)
            if gone:
                sync_directory(self._folder)
        except OSError as err:
            raise self._failed(err) from err

    def _failed(self, err: OSError) -> LedgerError:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            told = f"no room for what a silo keeps for itself, in {self._folder} ({err})"
            return LedgerFullError(told, "free disk space")
        return LedgerError(f"a file in {self._folder} cannot be kept or read ({err})", "see who may write there")
