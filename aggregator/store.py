"""What the aggregator keeps on disk, none of which it can open, written whole or not at all.

Encrypted reports, named by the SHA-256 of what stands before their sum. Blinded contributions, named by the SHA-256 of
their signed heads, the oldest deleted first when they need too much room. And the heads of the silos' ledgers: what a
silo signed last of how long its ledger is, so that an older copy put back in its place shows.
"""

import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from io import BufferedRandom
from pathlib import Path

from aggregator.errors import StoreError
from crypto.keys import VerifyKey
from crypto.randomness import token
from crypto.rounds.report import EncryptedReport, StoredReport, report_header
from crypto.wire import verify
from policies.budget.ledger import Checkpoint

MAX_KEPT_BYTES = 16 << 30


class ReportStore:
    """A directory of encrypted reports."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, report: EncryptedReport, blinded_sum: Sequence[bytes]) -> bytes:
        """Store a report and the pieces of its sum durably, and return its name."""
        head = report_header(report)
        name = StoredReport.decode(head).name
        _write(self._path / f"{name.hex()}.report", (head, *blinded_sum))
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

    def stage(self, length: int, needed: Collection[bytes] = ()) -> "Staged":
        """Begin a contribution of `length` bytes, after making room for it without those that are `needed`, by name."""
        self._make_room(length, {f"{name.hex()}.contribution" for name in needed})
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

    def _make_room(self, length: int, needed: Collection[str]) -> None:
        self._bytes += length
        if self._bytes <= self._max_bytes:
            return
        found = [(entry.stat(), entry) for entry in self._path.iterdir()]
        old = [one for one in found if one[1].suffix == ".contribution" and one[1].name not in needed]
        kept = [(stat.st_mtime_ns, stat.st_size, entry) for stat, entry in old]
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


class HeadStore:
    """The last ledger head of each silo, signed by it. A head replaces only a shorter one."""

    # What is kept is read, compared and replaced as one, by every store of this process: a membership makes another.
    _lock = threading.Lock()

    def __init__(self, path: Path, federation: str, silos: Mapping[str, VerifyKey]) -> None:
        self._path, self._federation, self._silos = path, federation, silos
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, envelope: bytes) -> bytes:
        """Keep a head durably, and return the one that is kept now: an older one changes nothing.

        Raises CryptoError on a head that no silo of the federation signed, and StoreError if it cannot be kept.
        """
        signed = verify(envelope, Checkpoint, self._silos)
        if signed.message.silo != signed.signer or signed.message.federation != self._federation:
            raise StoreError(f"the head is of {signed.message.silo!r} in {signed.message.federation!r}")
        with self._lock:
            kept = self.get(signed.signer)
            if kept and verify(kept, Checkpoint, self._silos).message.count >= signed.message.count:
                return kept
            _write(self._file(signed.signer), (envelope,))
        return envelope

    def get(self, silo: str) -> bytes:
        """Return the head that a silo signed last, nothing of one that has sent none. Raises StoreError."""
        try:
            return self._file(silo).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as err:
            raise StoreError(f"the head of {silo!r} cannot be read ({err.strerror})", "mend the disk") from err

    def _file(self, silo: str) -> Path:
        # By its key too: a silo that was revoked and joined anew begins another ledger.
        key = self._silos[silo].raw if silo in self._silos else b""
        return self._path / f"{sha256(key + silo.encode()).hexdigest()}.head"


def _write(target: Path, pieces: Iterable[bytes]) -> None:
    partial = target.with_suffix(".partial")
    try:
        with _create(partial) as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # else a power loss may bring back what stood under this name before
        finally:
            os.close(directory)
    except OSError as err:
        raise StoreError(f"{target.name} cannot be stored ({err.strerror})", f"free space in {target.parent}") from err
