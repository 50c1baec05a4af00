"""The journal of the rounds under way: what the aggregator has told silos of each, written before it is sent.

Promise: manifest, Go and survivor set of a round are on disk before a silo has them, in room that was taken before, so
that a disk that fills breaks no round; and which masked inputs every shard holds, before one of them is added. A round
is never continued by another process: `left` names those that an earlier one did not end, and `aggregator.recovery`
ends them. docs/protocol.md section 9.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from aggregator.errors import StoreError
from aggregator.store import create, take_room
from crypto.errors import CryptoError, WireError
from crypto.keys import VerifyKey
from crypto.rounds.manifest import Manifest
from crypto.rounds.messages import Go, SurvivorSet
from crypto.wire import MAX_ENVELOPE_OVERHEAD, verify
from federation.files import sync_directory

MAGIC = b"CSJ1"
LENGTH_BYTES = 4
# After the manifest: Go, what every shard holds, as a survivor set that nobody has signed, and the signed survivor set.
_LATER_BYTES = 3 * LENGTH_BYTES + Go.MAX_BYTES + 2 * SurvivorSet.MAX_BYTES + MAX_ENVELOPE_OVERHEAD


@dataclass(frozen=True, slots=True)
class LeftRound:
    """A round that an earlier process of this aggregator did not end."""

    round_id: bytes
    silos: tuple[str, ...]
    expires_at: int


class RoundJournal:
    """A directory with one file for each round under way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._found = sorted(path.glob("*.round"))  # before this process begins its own

    def begin(self, round_id: bytes, manifest: bytes) -> None:
        """Write the signed manifest of a round, and take room for what follows; raises StoreError."""
        first = MAGIC + len(manifest).to_bytes(LENGTH_BYTES, "big") + manifest
        path = self._file(round_id)
        try:
            with create(path) as file:
                take_room(file, len(first) + _LATER_BYTES)
                file.write(first)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self._path)
        except OSError as err:
            path.unlink(missing_ok=True)
            raise StoreError(f"the round cannot be noted ({err.strerror})", f"free space in {self._path}") from err

    def note(self, round_id: bytes, message: bytes) -> None:
        """Write the next message of a round: Go, what is held, the signed survivor set; raises StoreError."""
        try:
            with self._file(round_id).open("r+b") as file:
                file.seek(sum(LENGTH_BYTES + len(one) for one in records(file.read())) + len(MAGIC))
                file.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, WireError) as err:
            raise StoreError(f"the round cannot be noted ({err})", f"mend {self._path}") from err

    def end(self, round_id: bytes) -> None:
        """Forget a round that is over."""
        self._file(round_id).unlink(missing_ok=True)

    def left(self, name: str, key: VerifyKey) -> list[LeftRound]:
        """Return the rounds that an earlier process has left; `name` and `key` are the aggregator's own."""
        found = list[LeftRound]()
        for path in self._found:
            try:
                found.append(left_of(path.read_bytes(), name, key))
            except (OSError, CryptoError):  # torn at its beginning, before anything of the round was sent
                path.unlink(missing_ok=True)
        return found

    def _file(self, round_id: bytes) -> Path:
        return self._path / f"{round_id.hex()}.round"


def records(data: bytes) -> list[bytes]:
    """Return the whole messages in a journal, oldest first; raises WireError if it is no journal.

    What a crash has torn off, or never filled, is left out.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise WireError("this is no journal of a round")
    found, place = list[bytes](), len(MAGIC)
    while length := int.from_bytes(data[place : place + LENGTH_BYTES], "big"):
        place += LENGTH_BYTES + length
        if place > len(data):
            break
        found.append(data[place - length : place])
    return found


def left_of(data: bytes, name: str, key: VerifyKey) -> LeftRound:
    """Return the round of a journal; raises CryptoError unless this aggregator signed the manifest it begins with."""
    found = records(data)
    manifest = verify(found[0] if found else b"", Manifest, {name: key}).message
    return LeftRound(manifest.round_id, manifest.silos, manifest.expires_at)
