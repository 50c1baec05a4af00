"""The aggregator's files: encrypted reports, masked inputs and the silos' checkpoints. It cannot open any of them.

A report is named by the SHA-256 of its header, and found by the SHA-256 of the request that it answers. A masked input
is named by the SHA-256 of its signed header. Both have an age and a size limit; the oldest are erased first, and the
dates are kept (`aggregator.keeping`). A checkpoint is the last that its silo signed, so that an older copy of the
silo's ledger is noticed. Promises: a file is written completely or not at all; room that was taken for masked inputs
and a report stays theirs, so that a disk that fills later does not break their round; what is younger than its limit
allows is never erased for want of room, so a new round is refused instead, before anything is charged.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import BufferedRandom
from pathlib import Path
from typing import ClassVar

from aggregator.errors import StoreError
from aggregator.keeping import Erased, ErasureDates, Keeping, KeptFile, Room, due, name_of, owner_hash, sizes
from crypto.errors import WireError
from crypto.keys import VerifyKey
from crypto.randomness import token
from crypto.rounds.report import EncryptedReport, StoredReport, report_header
from crypto.wire import Digest, Message, Name, verify
from federation.files import sync_directory
from policies.budget.ledger import Checkpoint
from policies.units import DAY_S, HOUR_S

# If the operator does not say. Somebody may still fetch what is fresh: a report its analyst, a masked input whoever
# counts again.
REPORTS = Keeping(age_s=90 * DAY_S, max_bytes=16 << 30, fresh_s=DAY_S)
CONTRIBUTIONS = Keeping(age_s=REPORTS.age_s, max_bytes=16 << 30, fresh_s=HOUR_S)
MAX_KEPT_DAYS, MAX_KEPT_GIB = 3650, 1 << 20
FORMER = "former"  # the end of a checkpoint that came from a backup
FILED_BYTES = 4096  # more than a `Filed` has


class Filed(Message):
    """The report that answers a request, and the request's analyst."""

    KIND: ClassVar[str] = "filed"
    report: Digest
    analyst: Name


class ReportStore:
    """A directory of encrypted reports, each filed under the request that it answers, of bounded age and size."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, keeping: Keeping = REPORTS) -> None:
        self._path, self._clock, self._keeping = path, clock, keeping
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in path.glob("*.partial"):  # of a process that ended during a round
            left.unlink(missing_ok=True)
        self._dates, self._lock = ErasureDates(path), threading.Lock()
        self._kept = Room(keeping)
        self.erase()

    def take_room(self, round_id: bytes, length: int) -> None:
        """Take room on disk for the report of a round, for which older reports are erased.

        Raises StoreError if there is none.
        """
        with self._lock:
            if not self._kept.take(length + FILED_BYTES, self._left_for):
                message = "the aggregator has no room for a report, as those of the last day fill what it keeps"
                raise StoreError(message, "ask later, or ask its operator to keep more")
        try:
            for place, needed in ((self._room(round_id), length), (self._filing_room(round_id), FILED_BYTES)):
                with create(place) as file:
                    take_room(file, needed)
                    os.fsync(file.fileno())
            sync_directory(self._path)
        except OSError as err:
            self.give_back(round_id)
            raise _no_room("a report", self._path, err) from err

    def give_back(self, round_id: bytes) -> None:
        """Give back the room for the report of a round, unless it was used."""
        for place in (self._room(round_id), self._filing_room(round_id)):
            place.unlink(missing_ok=True)

    def put(
        self,
        report: EncryptedReport,
        blinded_sum: Iterable[bytes],
        request_hash: bytes,
        analyst: str,
        round_id: bytes = b"",
    ) -> bytes:
        """Store a report and the pieces of its sum durably, filed under its request, and return its name."""
        with self.begin(report, request_hash, analyst, round_id) as writing:
            for piece in blinded_sum:
                writing.write(piece)
            writing.end()
        return writing.name

    def begin(self, report: EncryptedReport, request_hash: bytes, analyst: str, round_id: bytes = b"") -> "Writing":
        """Begin to store a report, filed under its request; the pieces of its sum are written one by one.

        They are written in the room that was taken for their round, if it was.
        """
        if self._clock() - self._looked_at >= HOUR_S:
            self.erase()
        header = report_header(report)
        name = StoredReport.decode(header).name
        # First where it is found: a report that nobody finds would be paid and lost.
        filed = Filed(report=name, analyst=analyst)
        _write(self._filed(request_hash), (filed.encode(),), self._filing_room(round_id))
        return Writing(name, header, self._report(name), self._room(round_id))

    def get(self, name: bytes) -> bytes:
        """Return the report of that name; raises StoreError if there is none, with the date if it was erased."""
        with self._reading(name):
            return self._report(name).read_bytes()

    @contextmanager
    def _reading(self, name: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            if (erased := self._dates.find(name)) is not None:
                message = f"the report {name.hex()[:16]} was erased here on {erased.day}"
                raise StoreError(message, "the aggregator's operator says how long reports are kept") from err
            raise StoreError(
                f"there is no report {name.hex()[:16]} here ({err.strerror})", "check its name, or run the step again"
            ) from err

    def find(self, request_hash: bytes) -> Filed | Erased | None:
        """Return what is filed under a request, or when it was erased. Raises StoreError."""
        return self.filed(request_hash) or self._dates.find(request_hash)

    def filed(self, request_hash: bytes) -> Filed | None:
        """Return what is filed under a request whose report is kept; raises StoreError."""
        try:
            filed = Filed.decode(self._filed(request_hash).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, WireError) as err:
            raise StoreError(
                f"the report of request {request_hash.hex()[:16]} cannot be looked up", "mend the disk"
            ) from err
        return filed if self._report(filed.report).exists() else None

    def erase(self) -> None:
        """Erase the reports that are too old, and the oldest of too many."""
        with self._lock:
            self._kept.bytes = self._left_for(0)

    def _left_for(self, room: int) -> int:
        """Erase what is too old, and what `room` bytes need; return how many bytes are left."""
        now = self._looked_at = self._clock()
        files = sizes(self._path)
        left = sum(size for _, size in files.values())
        for one in due(self._found(files, now), left, room, self._keeping):
            self._dates.note(self._names(one.paths), now)
            for path in one.paths:
                path.unlink(missing_ok=True)
            left -= one.size
        for path, (at, size) in files.items():  # which no request names
            if path.suffix == ".report" and now - at >= self._keeping.age_s and path.exists():
                self._dates.note(((name_of(path), owner_hash("")),), now)
                path.unlink(missing_ok=True)
                left -= size
        return left

    def _found(self, files: Mapping[Path, tuple[float, int]], now: float) -> Iterator[KeptFile]:
        """Yield what is filed, with its report, the oldest first."""
        for path in (path for path in files if path.suffix == ".request"):
            filed = self._read(path)
            paths = (path,) if filed is None else (path, self._report(filed.report))
            yield KeptFile(now - files[path][0], sum(files[one][1] for one in paths if one in files), paths)

    def _names(self, paths: Sequence[Path]) -> list[tuple[bytes, bytes]]:
        filed = self._read(paths[0])
        return [(name_of(path), owner_hash("" if filed is None else filed.analyst)) for path in paths]

    def _read(self, path: Path) -> Filed | None:
        with suppress(WireError, OSError):
            return Filed.decode(path.read_bytes())
        return None

    def _report(self, name: bytes) -> Path:
        return self._path / f"{name.hex()}.report"

    def _filed(self, request_hash: bytes) -> Path:
        return self._path / f"{request_hash.hex()}.request"

    def _room(self, round_id: bytes) -> Path:
        return self._path / f"{round_id.hex()}.report.partial"

    def _filing_room(self, round_id: bytes) -> Path:
        return self._path / f"{round_id.hex()}.request.partial"


class Writing:
    """A report that is being written, piece by piece; it has its name only when it is whole and durable."""

    def __init__(self, name: bytes, header: bytes, target: Path, reserved: Path) -> None:
        """Begin in the room of `reserved`, if there is such a file; raises StoreError."""
        self.name, self._target, self._partial = name, target, reserved
        with _storing(target):
            self._file = reserved.open("r+b") if reserved.exists() else create(reserved)
        self.write(header)

    def write(self, piece: bytes) -> None:
        """Write the next piece; raises StoreError."""
        with _storing(self._target):
            self._file.write(piece)

    def end(self) -> None:
        """Make it durable under its name; raises StoreError."""
        with _storing(self._target):
            _end(self._file, self._partial, self._target)

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class ContributionStore:
    """A directory of masked inputs, or of one range of the bytes of each, of bounded age and size.

    A file is named by the masked input, and by where its range begins if that is not 0.
    """

    def __init__(self, path: Path, keeping: Keeping = CONTRIBUTIONS, clock: Callable[[], float] = time.time) -> None:
        self._path, self._keeping, self._clock = path, keeping, clock
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in path.glob("*.partial"):  # of a process that ended during a round
            left.unlink(missing_ok=True)
        self._dates = ErasureDates(path)
        self._kept = Room(keeping, self._left_for(0, ()))

    def stage(self, lengths: Sequence[int], needed: Collection[bytes] = ()) -> "list[Staged]":
        """Begin masked inputs, or sums, of these lengths in bytes, in room on disk that stays theirs.

        Older masked inputs make room for them, but those named in `needed`. Raises StoreError if there is none.
        """
        whole = sum(lengths)
        if self._clock() - self._looked_at >= HOUR_S:
            self._kept.bytes = self._left_for(0, needed)
        if not self._kept.take(whole, lambda room: self._left_for(room, needed)):
            message = f"no room for a contribution of {whole} bytes, as those of the last hour fill what is kept"
            raise StoreError(message, "let fewer rounds run at a time, or ask later")
        staged = list[Staged]()
        try:
            for length in lengths:
                staged.append(Staged(self._path, length))
            sync_directory(self._path)
        except OSError as err:
            for one in staged:
                one.discard()
            raise _no_room("contributions", self._path, err) from err
        return staged

    def file(self, name: bytes, first: int) -> Path:
        """Return where the range of a masked input that begins at this byte is kept, or would be."""
        return self._path / f"{name.hex()}{f'-{first}' if first else ''}.contribution"

    def read(self, name: bytes, start: int, length: int) -> bytes:
        """Return a part of a masked input; raises StoreError if it is not kept here, with the date if it was erased.

        It is shorter than `length` if the masked input, or the range that is kept here, ends before.
        """
        try:
            path, first = self.file(name, 0), 0
            if not path.exists():
                for path in self._path.glob(f"{name.hex()}-*.contribution"):
                    first = int(path.stem.partition("-")[2])
            with path.open("rb") as file:
                file.seek(max(start - first, 0))
                return file.read(length) if start >= first else b""
        except OSError as err:
            hint = "the aggregator's operator says how long contributions are kept; ask while they are fresh"
            if (erased := self._dates.find(name)) is not None:
                raise StoreError(f"the contribution {name.hex()[:16]} was erased here on {erased.day}", hint) from err
            raise StoreError(f"the contribution {name.hex()[:16]} is not kept here ({err.strerror})", hint) from err

    def _left_for(self, room: int, needed: Collection[bytes]) -> int:
        """Erase what is too old, and what `room` bytes need; return how many bytes are left."""
        now = self._looked_at = self._clock()
        files = sizes(self._path)
        left = sum(size for _, size in files.values())
        found = (
            KeptFile(now - at, size, (path,))
            for path, (at, size) in files.items()
            if path.suffix == ".contribution" and name_of(path) not in needed
        )
        if erased := due(found, left, room, self._keeping):
            self._dates.note([(name_of(one.paths[0]), owner_hash("")) for one in erased], now)
        for one in erased:
            one.paths[0].unlink(missing_ok=True)
            left -= one.size
        return left


class Staged:
    """A masked input that is to arrive, or a sum, in room on disk that is its own; it is not in memory."""

    def __init__(self, directory: Path, length: int) -> None:
        """Take room for it; raises OSError if there is none."""
        self._path = directory / f"{token(16).hex()}.partial"
        try:
            with create(self._path) as file:
                take_room(file, length)
        except OSError:
            self.discard()
            raise

    def write(self, start: int, data: bytes) -> None:
        """Write bytes at a place, perhaps once more; raises StoreError if they cannot be written."""
        with self._mended(), self._path.open("r+b") as file:
            file.seek(start)
            file.write(data)

    def read(self, start: int, length: int) -> bytes:
        """Return bytes that were written; raises StoreError."""
        with self._mended(), self._path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def keep(self, target: Path) -> None:
        """Keep it durably under a name; raises StoreError."""
        with self._mended():
            with self._path.open("r+b") as file:
                os.fdatasync(file.fileno())
            self._path.replace(target)

    def discard(self) -> None:
        """Delete it."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _mended(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            message = f"a contribution cannot be kept in {self._path.parent} ({err.strerror})"
            raise StoreError(message, "free disk space, or mend the disk") from err


def create(path: Path) -> BufferedRandom:
    """Make an empty file that only its owner can read, or empty it; raises OSError."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")


def take_room(file: BufferedRandom, length: int) -> None:
    """Take room on disk for so many bytes of a file, so that writing them cannot fail for lack of it."""
    if length:
        os.posix_fallocate(file.fileno(), 0, length)


def _no_room(what: str, path: Path, err: OSError) -> StoreError:
    return StoreError(f"the aggregator has no room for {what} ({err.strerror})", f"free space in {path}")


class CheckpointStore:
    """The last signed checkpoint of each silo. A checkpoint replaces only one that it supersedes."""

    # Reading, comparing and replacing is one step for all stores of this process: each membership makes a store.
    _lock = threading.Lock()

    def __init__(self, path: Path, federation: str, silos: Mapping[str, VerifyKey]) -> None:
        self._path, self._federation, self._silos = path, federation, silos
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, envelope: bytes) -> bytes:
        """Keep a checkpoint durably, and return the one that is kept now; an older one changes nothing.

        Raises CryptoError if no silo of the federation signed it, StoreError if it cannot be kept.
        """
        signed = verify(envelope, Checkpoint, self._silos)
        if signed.message.silo != signed.signer or signed.message.federation != self._federation:
            raise StoreError(f"the checkpoint is of {signed.message.silo!r} in {signed.message.federation!r}")
        with self._lock:
            kept, former = self.get(signed.signer), self._file(signed.signer).with_suffix(f".{FORMER}")
            if kept and not signed.message.supersedes(verify(kept, Checkpoint, self._silos).message):
                return kept
            if not kept and former.exists() and not self._continues(former, signed.message):
                return former.read_bytes()
            _write(self._file(signed.signer), (envelope,))
            former.unlink(missing_ok=True)
        return envelope

    def _continues(self, former: Path, given: Checkpoint) -> bool:
        """Tell whether a silo's checkpoint is that of a backup of this aggregator, or takes its place."""
        kept = verify(former.read_bytes(), Checkpoint, self._silos).message
        is_same = (given.line, given.count, given.chain) == (kept.line, kept.count, kept.chain)
        return is_same or given.supersedes(kept)

    def get(self, silo: str) -> bytes:
        """Return the last checkpoint of a silo; empty if it has sent none. Raises StoreError.

        What stands in a backup of this aggregator may not be the last, so it counts as none until the silo sends one.
        """
        try:
            return self._file(silo).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as err:
            raise StoreError(f"the checkpoint of {silo!r} cannot be read ({err.strerror})", "mend the disk") from err

    def _file(self, silo: str) -> Path:
        # The file is named by the silo's key too: a silo that was revoked and joined again begins another ledger.
        key = self._silos[silo].raw if silo in self._silos else b""
        return self._path / f"{sha256(key + silo.encode()).hexdigest()}.head"


def _write(target: Path, pieces: Iterable[bytes], reserved: Path | None = None) -> None:
    """Write a file durably, in the room of `reserved` if there is such a file; it takes the target's name."""
    has_room = reserved is not None and reserved.exists()
    partial = reserved if reserved is not None else target.with_suffix(".partial")
    with _storing(target), partial.open("r+b") if has_room else create(partial) as file:
        for piece in pieces:
            file.write(piece)
        _end(file, partial, target)


def _end(file: BufferedRandom, partial: Path, target: Path) -> None:
    """Cut a file where its writing has ended, and give it its name durably; raises OSError."""
    file.truncate()
    file.flush()
    os.fsync(file.fileno())
    partial.replace(target)
    sync_directory(target.parent)


@contextmanager
def _storing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise StoreError(f"{target.name} cannot be stored ({err.strerror})", f"free space in {target.parent}") from err
