"""The store of one source: its files as segments, read again only where a file has changed.

    prepared/SOURCE/<SHA-256>.json   the manifest of a complete store; its time is when files were last seen unchanged
    prepared/SOURCE/<random>/        a segment, or the index that joins several

The silo's log names the manifest in force, so an earlier store is none, whoever puts it back. Promise: whoever reads
that manifest finds all that it names, whatever is killed when: directories are written first, then the manifest, then
the entry of the log; what the manifest in force does not name is removed at the next preparing. One process prepares at
a time. Nothing here is done while a request waits.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np

from crypto.randomness import token
from federation.files import replace_file
from policies.document.catalogue import published
from policies.document.policy import Policy
from policies.requests.tables import TableColumn
from silo_node.data import dialect
from silo_node.data.coded import Bools, Coding, coded
from silo_node.data.consent import Decisions
from silo_node.data.locations import LOAD_TIMEOUT_S, DuckTable, Files, Location, opened, unreadable
from silo_node.data.prepared import segment
from silo_node.data.prepared.codes import merged
from silo_node.data.prepared.decisions import DecisionStore
from silo_node.data.prepared.forgotten import KEY, Keeps, Persons, held
from silo_node.data.prepared.manifest import Manifest, SegmentEntry
from silo_node.data.prepared.snapshot import Snapshot, read_snapshot
from silo_node.data.sources import Source
from silo_node.data.watch import Stamp, stamp_of
from silo_node.errors import SourceError
from silo_node.ledger.events import KeptInForce

FOLDER = "prepared"
LOCK_S = 60.0
_LOCK = "lock"
_TRIES = 3
_NOT_READ_BY = {
    "prepared_for",
    "max_unreadable",
    "rows_up_to",
}  # what a policy says of a source, and no cell depends on


class Made(NamedTuple):
    """What preparing has made: how many segments were read, and the store, for the log."""

    read: int
    store: KeptInForce


class Store:
    """The prepared sources of one silo."""

    def __init__(self, policy: Policy, home: Path, kept: Keeps) -> None:
        """Make the directory and the key where they are missing; raises SourceError.

        `kept` returns what the log says is in force.
        """
        self._policy, self._folder, self._kept = policy, home / FOLDER, kept
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._folder.chmod(0o700)
        except OSError as err:
            raise _disk(err) from err
        self.persons = Persons(policy, home, kept)
        self._kept_codings: dict[str, tuple[Coding, ...]] = {}  # by source; they follow from the policy

    def snapshot(self, source: Source) -> Snapshot | None:
        """Return the newest complete store of a source; None if there is none for these rules."""
        folder = self._folder / source.name
        for _ in range(_TRIES):  # what an older manifest names may be removed meanwhile
            manifest = self._manifest(source.name)
            if manifest is None or manifest.rules != self._rules(source):
                return None
            try:
                seen_at = int(_file_of(folder, manifest).stat().st_mtime)
                found = read_snapshot(folder, manifest, seen_at, self._domains(source))
            except segment.BROKEN:
                continue
            if all(self._is_whole(one, source) for one in found.segments):
                return found
        return None

    def seen_at(self, source: Source) -> int | None:
        """Return when the files of a source were last seen unchanged; None without a complete store."""
        snapshot = self.snapshot(source)
        return None if snapshot is None else snapshot.seen_at

    def version(self, name: str) -> int:
        """Return a number that changes with what is prepared of a source; 0 if nothing is."""
        known = self._in_force(name)
        return 0 if known is None else int.from_bytes(known.digest[:8], "big")

    def is_lost(self, source: Source) -> bool:
        """Tell whether the store that the log names is not there: an earlier one may have been put back."""
        return self._in_force(source.name) is not None and self._manifest(source.name) is None

    def _in_force(self, name: str) -> KeptInForce | None:
        return self._kept().get(f"{FOLDER}/{name}")

    def keep_only(self, sources: Iterable[str]) -> None:
        """Remove the stores of all other sources; raises SourceError."""
        named = set(sources)
        try:
            for path in self._folder.iterdir():
                if path.name not in named:
                    _remove(path)
        except OSError as err:
            raise _disk(err) from err

    def decisions(self, decisions: Decisions) -> DecisionStore:
        """Return the prepared decisions on consent."""
        said = (
            decisions.consent.model_dump_json(exclude={"decisions_up_to"}),
            decisions.id_form,
            self.persons.key.hex(),
        )
        return DecisionStore(decisions, self._folder, self.persons.key, sha256(repr(said).encode()).hexdigest())

    def remembered(self, snapshot: Snapshot, is_in: Bools | None) -> Bools | None:
        """Return which persons are in, without those that are forgotten. Raises SourceError."""
        is_out = self.persons.out(snapshot.persons, snapshot.alike)
        if is_out is None:
            return is_in
        return ~is_out if is_in is None else is_in & ~is_out

    def is_current(self, source: Source) -> bool:
        """Tell whether the files of a source are those that its store was made from."""
        manifest = self._manifest(source.name)
        if manifest is None or manifest.rules != self._rules(source):
            return False
        listed = [(one.file, one.stamp) for one in manifest.segments]
        if not all(stamp for _, stamp in listed) or self.snapshot(source) is None:
            return False
        return listed == [(one.name, one.stamp) for one in _files(source.location)]

    def prepare(self, connection: duckdb.DuckDBPyConnection, source: Source, now: int) -> Made:
        """Make the store of a source as its files are now; `put_in_force` is next. Raises SourceError.

        A store whose files have not changed is only seen again. Of a failure the old store is left as it was. Nothing
        is taken over from a store that the log does not name.
        """
        folder = self._folder / source.name
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            with held(folder / _LOCK, LOCK_S):
                return self._prepare(connection, source, now, folder)
        except OSError as err:
            raise _disk(err) from err
        except duckdb.Error as err:
            uri = self._policy.sources[source.name].uri
            raise unreadable(f"source {source.name!r}", source.location, uri, err) from err

    def put_in_force(self, source: Source, new: KeptInForce, log: Callable[[KeptInForce], None]) -> bool:
        """Log that a store answers from now on, and remove what it does not name.

        Return whether it does: another process may have put another one in force meanwhile. Raises SourceError.
        """
        folder = self._folder / source.name
        try:
            with held(folder / _LOCK, LOCK_S):
                if (folder / _name_of(new.digest)).exists() and self._in_force(source.name) != new:
                    log(new)
                if (manifest := self._manifest(source.name)) is not None:
                    _clear(folder, manifest)
                return self._in_force(source.name) == new
        except OSError as err:
            raise _disk(err) from err

    def _prepare(self, connection: duckdb.DuckDBPyConnection, source: Source, now: int, folder: Path) -> Made:
        rules, before = self._rules(source), self._manifest(source.name)
        if before is None or before.rules != rules:
            before = Manifest(rules, (), None, 0 if before is None else before.next_number)
        kept = {
            (one.file, one.stamp): one
            for one in before.segments
            if one.stamp and self._is_kept(folder / one.directory, source)
        }
        entries, number = [], before.next_number
        _clear(folder, before)
        for file in _files(source.location):
            entry = kept.get((file.name, file.stamp))
            if entry is None:
                entry = self._segment(connection, source, file, folder, number)
                number += 1
            entries.append(entry)
        read = number - before.next_number
        index = before.index
        if read or len(entries) != len(before.segments):
            index = self._index(folder, entries)
        after = Manifest(rules, tuple(entries), index, number)
        place, body = _file_of(folder, after), after.encode()
        if not place.exists():
            replace_file(place, body, 0o600)
        os.utime(place, (now, now))
        return Made(read, KeptInForce(name=f"{FOLDER}/{source.name}", digest=sha256(body).digest()))

    def _is_kept(self, directory: Path, source: Source) -> bool:
        """Tell whether a segment is complete, and has nobody who was forgotten since."""
        try:
            found = segment.read(directory, self._domains(source))
        except segment.BROKEN:
            return False
        is_out = self.persons.out(found.persons, found.alike)
        return self._is_whole(found, source) and (is_out is None or not is_out.any())

    def _is_whole(self, found: segment.Segment, source: Source) -> bool:
        return set(found.cells) == {(one.aspect, one.column.name) for one in self._codings(source)}

    def _codings(self, source: Source) -> tuple[Coding, ...]:
        if source.name not in self._kept_codings:
            self._kept_codings[source.name] = tuple(codings_of(self._policy, source))
        return self._kept_codings[source.name]

    def _domains(self, source: Source) -> Mapping[str, Sequence[str]]:
        """Return the closed domains by which cells are coded; a bool is coded by itself."""
        columns = (one.column for one in self._codings(source) if one.aspect == "member")
        return {column.name: column.domain for column in columns if column.domain and column.type != "bool"}

    def _segment(
        self, connection: duckdb.DuckDBPyConnection, source: Source, file: "_File", folder: Path, number: int
    ) -> SegmentEntry:
        """Read one file into a new segment; one that changes meanwhile is read again."""
        for _ in range(_TRIES):
            stamp, directory = file.stamp, token(8).hex()
            with _misfits_named(file):
                self._write(connection, replace(source, location=file.location, is_strict=True), folder / directory)
            found = next((one for one in _files(source.location) if one.name == file.name), None)
            if found is None:
                raise SourceError(f"{file.name} was removed while it was read", "put it back")
            if found.stamp == stamp:
                return SegmentEntry(file.name, stamp, directory, number)
            file = found
        raise SourceError(f"{file.name} changes faster than it is read", "write it elsewhere, then move it there")

    def _write(self, connection: duckdb.DuckDBPyConnection, source: Source, directory: Path) -> None:
        with opened(connection, (source,), LOAD_TIMEOUT_S):
            rows, persons = coded(connection, source.view, source.unit, self._codings(source))
            codes = self.persons.codes_of(persons.to_pylist())
            alike = self.persons.alike_of(connection, persons, codes)
        is_out = self.persons.out(codes, alike)
        left_out = np.zeros(len(codes), np.bool_) if is_out is None else is_out
        segment.write(directory, rows, codes, alike, left_out, self._domains(source))

    def _index(self, folder: Path, entries: Sequence[SegmentEntry]) -> str | None:
        """Write the index of several segments: all their persons, and the places of each segment's there."""
        if len(entries) == 1:
            return None
        listed = [segment.read_persons(folder / one.directory) for one in entries]
        persons, places = merged(np.asarray(codes) for codes, _ in listed)
        directory = token(8).hex()
        (folder / directory).mkdir(mode=0o700)
        segment.save(folder / directory, "persons", persons)
        for number, place in enumerate(places):
            segment.save(folder / directory, str(number), place.astype(np.int32))
        alike = np.empty_like(persons)
        for (_, loosest), place in zip(listed, places, strict=True):
            alike[place] = loosest
        segment.save(folder / directory, "alike", alike)
        return directory

    def _manifest(self, source: str) -> Manifest | None:
        """Return the manifest that the log names; None without one, and if it is not there."""
        if (known := self._in_force(source)) is None:
            return None
        try:
            body = (self._folder / source / _name_of(known.digest)).read_bytes()
        except OSError:  # there is none, or only others can read it
            return None
        return Manifest.decode(body) if sha256(body).digest() == known.digest else None

    def _rules(self, source: Source) -> str:
        policy = self._policy
        said = (
            policy.sources[source.name].model_dump_json(exclude=_NOT_READ_BY),
            source.unit,
            source.id_form,
            policy.consent_column,
            self.persons.key.hex(),
        )
        return sha256(repr(said).encode()).hexdigest()


def codings_of(policy: Policy, source: Source) -> Iterator[Coding]:
    """Yield how the columns of a prepared source are coded: for every use that the policy opens them for."""
    declared = policy.sources[source.name]
    for key, column in source.columns.items():
        roles = set(column.roles) | ({"filter"} if key == policy.consent_column else set())
        if not roles:
            continue
        if column.type == "date":
            yield Coding("member", TableColumn(name=key, type="date"))
            continue
        definition, is_numeric = published(key, column, declared, 0), column.type in ("int", "decimal")
        if column.type == "array":
            yield Coding("array", definition)
            continue
        if column.keys is not None:
            yield Coding("text", definition)
        if (not is_numeric and column.roles != ("key",)) or column.members:
            yield Coding("member", definition)
        if is_numeric and column.bounds is not None and roles & {"measure", "feature"}:
            yield Coding("steps", definition)
        if is_numeric and not column.members and "filter" in roles:
            yield Coding("number", definition)
    if source.lookback_days is not None and source.time_column is not None:
        yield Coding("day", TableColumn(name=source.time_column, type="date"))


@dataclass(frozen=True, slots=True)
class StoreState:
    """What an owner may know of a store without reading a row: how old it is, and what it was made from."""

    read_at: int  # when its newest file was read, in seconds since 1970
    seen_at: int  # when its files were last seen unchanged
    files: int
    file_bytes: int  # 0 of a table of a server
    is_changed: bool  # whether the files are others now


def state_of(policy: Policy, home: Path, source: Source, kept: Keeps) -> StoreState | None:
    """Return the state of a source's store, and make nothing; None without a complete one. Raises SourceError."""
    if not (home / FOLDER).is_dir() or not (home / KEY).exists():
        return None
    store = Store(policy, home, kept)
    found = store.snapshot(source)
    manifest = None if found is None else Manifest.decode(found.manifest)
    if found is None or manifest is None:
        return None
    stamps = [stamp for one in manifest.segments for stamp in one.stamp]
    try:
        read_at = max(int((Path(found.folder) / one.directory).stat().st_mtime) for one in manifest.segments)
    except OSError as err:
        raise _disk(err) from err
    is_changed = isinstance(source.location, Files) and not store.is_current(source)
    return StoreState(read_at, found.seen_at, len(manifest.segments), sum(stamp[1] for stamp in stamps), is_changed)


@dataclass(frozen=True, slots=True)
class _File:
    """What becomes one segment: a file, or the table of a database, as it is now."""

    name: str
    location: Location
    stamp: Stamp  # empty where nothing tells whether it changed


@contextmanager
def _misfits_named(file: _File) -> Iterator[None]:
    """Raise SourceError, with the line that does not fit, where the engine cannot read a CSV file."""
    try:
        yield
    except duckdb.Error as err:
        if not isinstance(file.location, Files) or file.location.kind != "csv":
            raise
        raise dialect.misfit(file.name, file.location.dialect, err) from err


def _files(location: Location) -> list[_File]:
    if isinstance(location, Files):
        singles = (replace(location, named=(file,), pattern=None) for file in location.files)
        return [_File(one.named[0], one, stamp_of(one)) for one in singles]
    name = f"{location.file}#{location.table}" if isinstance(location, DuckTable) else location.name
    return [_File(name, location, ())]  # a view may read what its own file does not tell of


def _name_of(digest: bytes) -> str:
    return f"{digest.hex()}.json"


def _file_of(folder: Path, manifest: Manifest) -> Path:
    return folder / _name_of(sha256(manifest.encode()).digest())


def _clear(folder: Path, manifest: Manifest) -> None:
    """Remove every directory that a manifest does not name, and every other manifest."""
    named = {one.directory for one in manifest.segments} | {manifest.index, _file_of(folder, manifest).name, _LOCK}
    for path in folder.iterdir():
        if path.name not in named:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _disk(err: OSError) -> SourceError:
    reason = err.strerror or type(err).__name__
    return SourceError(f"the store of prepared rows cannot be written ({reason})", "free space, or mend its rights")
