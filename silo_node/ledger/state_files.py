"""Long states of training runs as files beside the ledger, since a row of SQLite holds at most 1 GB and locks for all.

Promise: a file is whole and durable before the row that names it, and nobody changes it after. It goes when no row
names it any more; what a crash leaves goes at the next start. Only the owner can read it.

A file has its name inside a transaction of the ledger, and is removed inside one: so no process removes what another
one is about to name.
"""

import errno
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from federation.files import named, partial_of, sync_directory
from policies.errors import LedgerError, LedgerFullError
from silo_node.training.raw_numbers import MAX_STATE_BYTES

INLINE_BYTES = 1 << 20  # of numbers, that stand in the row itself
SUFFIX = ".numbers"
NAME_PATTERN = r"[0-9a-f]{32}-[0-9a-f]{32}\.numbers"  # the run, and the beginning of the SHA-256 of its header

LONG_STATES = "SELECT run, state FROM runs WHERE numbers IS NULL"  # in a ledger


def names_of(rows: Iterable[tuple[bytes, bytes]]) -> set[str]:
    """Return the names of the files of long states."""
    return {name_of(bytes(run), bytes(header)) for run, header in rows}


def name_of(run: bytes, header: bytes) -> str:
    """Return the name of the file of a state's numbers: another state of the run has another one."""
    return f"{run.hex()}-{sha256(header).hexdigest()[:32]}{SUFFIX}"


def folder_of(ledger: Path) -> Path:
    """Return the folder of the states of a ledger."""
    return ledger.with_suffix(".states")


class StateFiles:
    """The folder of long states beside a ledger; it is made when the first one is written."""

    def __init__(self, ledger: Path) -> None:
        self._folder = folder_of(ledger)

    @property
    def is_used(self) -> bool:
        """Whether a long state has ever been kept here."""
        return self._folder.is_dir()

    def write(self, name: str, numbers: bytes) -> Path:
        """Write what is to have a name, durably; return where it lies until `take`. Raises LedgerError."""
        partial = partial_of(self._folder / name)
        try:
            with named(self._folder / name):
                self._folder.mkdir(mode=0o700, exist_ok=True)
                partial.unlink(missing_ok=True)
                with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(numbers)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as err:
            partial.unlink(missing_ok=True)
            raise self._failed(err) from err
        return partial

    def take(self, partial: Path, name: str) -> None:
        """Give what was written its name, durably, within the transaction that saves its row. Raises LedgerError."""
        try:
            partial.replace(self._folder / name)
            sync_directory(self._folder)
            sync_directory(self._folder.parent)
        except OSError as err:
            raise self._failed(err) from err

    def read(self, name: str) -> bytes | None:
        """Return the numbers of this name; None if they are not here, or are more than any state has."""
        try:
            with (self._folder / name).open("rb") as file:
                return file.read() if os.fstat(file.fileno()).st_size <= MAX_STATE_BYTES else None
        except FileNotFoundError:
            return None
        except OSError as err:
            raise self._failed(err) from err

    def keep_only(self, names: Collection[str], *, is_start: bool = False) -> None:
        """Remove every other file, within a transaction; at a start of the silo also what was not written to its end.

        A file that cannot be removed now is removed later.
        """
        with suppress(OSError):
            for file in list(self._folder.iterdir()):
                if file.name not in names and (is_start or file.suffix == SUFFIX):
                    with suppress(OSError):
                        file.unlink()

    def _failed(self, err: OSError) -> LedgerError:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            return LedgerFullError(
                f"no room for a state beside the ledger, in {self._folder} ({err})", "free disk space"
            )
        return LedgerError(f"a state in {self._folder} cannot be kept or read ({err})", "see who may write there")
