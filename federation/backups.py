"""Backups of a member's directory: one archive under a passphrase, and a new directory from it, whole or not at all.

Promises: an archive has the mode 0600 and appears under its name only when it is complete. Only files with names that
the role expects are written, inside the new directory; a name never leads out of it, and no link is made.
docs/federated.md, section 5.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar, Literal, TypeVar

from pydantic import Field

from crypto.archive import ArchiveWriter, read_archive
from crypto.errors import WireError
from crypto.wire import Message, Name, Seconds
from federation.errors import FederationError
from federation.files import named, partial_of, sync_directory
from federation.joining import MEMBER_SETTINGS
from federation.members.credentials import AUTHORITY_CERTIFICATE, CERTIFICATE, IDENTITY_KEY, ROSTER, TRANSPORT_KEY
from federation.members.membership import LOG
from federation.terminal import Parser, typed
from federation.transport.handshake import SOFTWARE

MEMBER_FILES = (MEMBER_SETTINGS, IDENTITY_KEY, TRANSPORT_KEY, CERTIFICATE, AUTHORITY_CERTIFICATE, LOG, ROSTER)
PIECE_BYTES = 1 << 20
MAX_PASSPHRASE_FILE = 1024
_LENGTH_BYTES = 4
M = TypeVar("M", bound=Message)


class BackupOf(Message):
    """The first record of a backup: whose it is."""

    KIND: ClassVar[str] = "backup"
    version: Literal["backup/1"] = "backup/1"
    federation: Name
    role: Literal["silo", "aggregator"]
    name: Name
    made_at: Seconds
    software: Annotated[str, Field(max_length=64)] = SOFTWARE


class BackupEntry(Message):
    """The record before the bytes of each file; after the last one stands one with an empty name."""

    KIND: ClassVar[str] = "backup-entry"
    MAX_BYTES: ClassVar[int] = 1024
    name: Annotated[str, Field(max_length=250)]
    length: Annotated[int, Field(ge=0, le=2**45)]
    modified_at: Seconds


@dataclass(frozen=True, slots=True)
class Restored:
    """A backup in a directory that does not have its name yet."""

    whose: BackupOf
    place: Path
    files: int

    def check_has(self, *names: str) -> None:
        """Raise FederationError unless the backup had all these files."""
        if missing := [name for name in names if not (self.place / name).is_file()]:
            raise FederationError(f"the backup has no {missing[0]}", "take another backup; nothing of this one is used")


def passphrase_option(parser: Parser) -> None:
    """Add the option whose value `passphrase_from` takes."""
    text = "a file of yours (mode 0600) with the passphrase in its first line; default: it is asked for"
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help=text)


def passphrase_from(path: Path | None, purpose: str, is_new: bool = False) -> Callable[[], str]:
    """Return a function that reads the passphrase from a file of its owner, or asks for it on the terminal.

    A new one is asked for twice. Raises FederationError if the file can be read by others.
    """
    hint = "run it in a terminal, or give --passphrase-file FILE"
    if path is None:

        def ask() -> str:
            first = typed(f"passphrase of {purpose}: ", hint)
            if is_new and typed("once more: ", hint) != first:
                raise FederationError("these are two different passphrases", "try again; nothing was written")
            return first

        return ask

    def read() -> str:
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                text = file.read(MAX_PASSPHRASE_FILE).decode()
        except (OSError, UnicodeDecodeError) as err:
            raise FederationError(f"cannot read the passphrase in {path}", "name a file with one line of text") from err
        if mode & 0o077:
            raise FederationError(f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
        return text.splitlines()[0] if text else ""

    return read


def write_backup(out: Path, whose: BackupOf, files: Iterable[tuple[str, Path]], passphrase: Callable[[], str]) -> int:
    """Write a backup of files, given by their names in the directory and their paths; return how many there are.

    A file that is gone by now is left out. Raises FederationError, CryptoError or OSError, and leaves nothing then.
    """
    if os.path.lexists(out):
        raise FederationError(f"{out} exists", "a backup is never overwritten: name another file")
    partial, count = partial_of(out), 0
    try:
        with named(out), os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            archive = ArchiveWriter(file, passphrase)
            archive.write(_record(whose))
            for name, path in files:
                try:
                    source = path.open("rb")
                except FileNotFoundError:
                    continue
                with source:
                    _append(archive, name, source)
                count += 1
            archive.write(_record(BackupEntry(name="", length=0, modified_at=0)))
            archive.finish()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
        sync_directory(out.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


@contextmanager
def restored_from(
    path: Path,
    out: Path,
    role: Literal["silo", "aggregator"],
    is_expected: Callable[[str], bool],
    passphrase: Callable[[], str],
) -> Iterator[Restored]:
    """Yield the contents of a backup in a directory beside `out`, which becomes `out` when the block ends.

    Raises FederationError, CryptoError or OSError, and then there is no such directory. `out` must not exist, or be
    empty: nothing is ever overwritten.
    """
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        raise FederationError(f"{out} exists", "nothing is overwritten: name another directory, or move it away")
    place = partial_of(out)
    try:
        place.mkdir(mode=0o700, parents=True)
        with named(out), path.open("rb") as file:
            contents = Contents(read_archive(file, passphrase))
            whose = contents.record(BackupOf)
            if whose.role != role:
                raise FederationError(
                    f"this is a backup of the {whose.role} {whose.name!r}", f"expected the backup of a member: {role}"
                )
            files = _unpack(contents, place, is_expected)
        yield Restored(whose, place, files)
        for directory in (*(one for one in place.rglob("*") if one.is_dir()), place):
            sync_directory(directory)
        place.rename(out)
        sync_directory(out.parent)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _append(archive: ArchiveWriter, name: str, source: BinaryIO) -> None:
    found = os.fstat(source.fileno())
    archive.write(_record(BackupEntry(name=name, length=found.st_size, modified_at=int(found.st_mtime))))
    left = found.st_size
    while left:
        piece = source.read(min(left, PIECE_BYTES))
        if not piece:
            raise FederationError(f"{name} became shorter while it was read", "try again")
        archive.write(piece)
        left -= len(piece)


def _unpack(contents: "Contents", place: Path, is_expected: Callable[[str], bool]) -> int:
    names = set[str]()
    while (entry := contents.record(BackupEntry)).name:
        if entry.name in names or not is_expected(entry.name) or ".." in entry.name.split("/"):
            message = f"the backup has a file {entry.name[:100]!r}, which does not belong into such a directory"
            raise FederationError(message, "take another backup; nothing of this one is used")
        names.add(entry.name)
        target = place / entry.name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for piece in contents.take(entry.length):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.utime(target, (entry.modified_at, entry.modified_at))
    contents.end()
    return len(names)


class Contents:
    """The contents of an archive, read in pieces."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, b""

    def record(self, kind: type[M]) -> M:
        """Return the next record; raises WireError."""
        length = int.from_bytes(b"".join(self.take(_LENGTH_BYTES)), "big")
        if length > kind.MAX_BYTES:
            raise WireError(f"a {kind.KIND} of {length} bytes, at most {kind.MAX_BYTES} are read")
        return kind.decode(b"".join(self.take(length)))

    def take(self, length: int) -> Iterator[bytes]:
        """Yield the next bytes; raises WireError if there are fewer."""
        while length:
            self._held = self._held or next(self._chunks, b"")
            if not self._held:
                raise WireError("the backup ends too early", "take another backup; nothing of this one is used")
            piece, self._held = self._held[:length], self._held[length:]
            length -= len(piece)
            yield piece

    def end(self) -> None:
        """Raise WireError unless nothing is left, and the end is genuine."""
        if self._held or next(self._chunks, b""):
            raise WireError("the backup goes on after its end", "take another backup; nothing of this one is used")


def _record(message: Message) -> bytes:
    body = message.encode()
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body
