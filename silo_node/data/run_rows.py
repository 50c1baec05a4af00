"""The rows that a run of training learns from, read once and kept in the memory of the process that computes.

A source is read again as soon as its files are others than they were, and the decisions on consent at every round.
Promise: each round has the rows that reading them now would give. Who is out is judged anew each time, by the same
condition as in a question, at the round's own clock time; of somebody who is out no cell is kept, so the source is read
again when somebody comes in. Rows of a server's table are kept where it tells their version, which is that of the
snapshot that they were read in; files that were written a moment ago are not kept. What is kept is bounded in number
and bytes, and goes with the last round of its run, or when no round asked for it for a while.
"""

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import duckdb
import numpy as np
import pyarrow as pa

from policies.document.policy import Policy
from policies.document.purposes import ConsentTable
from policies.requests.held_out import Side
from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.arrays import Arrays
from silo_node.data.cells import quote
from silo_node.data.coded import (
    NO_MEMBER,
    NO_NUMBER,
    NO_STEPS,
    Bools,
    Cells,
    Coding,
    Integers,
    Members,
    Numbers,
    Rows,
    Steps,
    arrow_of,
)
from silo_node.data.consent import ConsentFilter, Decisions, consent_filter, narrowed, recent_filter, together
from silo_node.data.locations import Files, Reading, Versions, opened_within
from silo_node.data.postgres import PostgresTable, version_of
from silo_node.data.query import Forgotten, read_rows
from silo_node.data.query import Reading as Chosen
from silo_node.data.sides import both, on_side_by_id
from silo_node.data.sources import Source
from silo_node.data.watch import Stamp, stamp_of
from silo_node.errors import SourceError

KEPT_BYTES = 256 << 20  # of all kept rows; rows that are more are read at every round
MOST_KEPT = 2  # runs on different columns
KEPT_S = 600.0  # after the last round that asked
SETTLED_S = 2.0  # files that were written within are not kept: another write could leave no trace in their times
_PERSONS, _PLACE = "persons of a run", "place"
Learned = tuple[Rows, Bools | None]  # rows, and which of their persons are in; None: all


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a step reads of a source, by everything that it depends on but the rows and the decisions."""

    source: Source
    codings: tuple[Coding, ...]
    on_rows: ConsentFilter | None  # which rows may be used: by a column of theirs, and by their age
    on_persons: ConsentFilter | None  # whose rows may be used, by the table of decisions
    side: Side | None  # the persons whose rows are taken, where some are held out
    split: bytes | None = field(repr=False)  # the secret that divides persons

    @property
    def key(self) -> object:
        where = None if self.on_rows is None else (self.on_rows.sql, tuple(sorted(self.on_rows.parameters.items())))
        return self.source.name, self.codings, where, self.side, self.split


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Rows of a source as its files, or its table, were."""

    stored: object  # the names and stamps of files, or the version of a table; None: not to be kept
    rows: Rows
    persons: pa.Array  # by place
    is_in: Bools | None  # who was in when they were judged last; of others there is no cell
    by_split: Bools | None  # who is on the side that is taken; None: all, or a column says it
    runs: frozenset[bytes]
    used_at: float  # by the clock that only goes forward

    @property
    def size(self) -> int:
        """The bytes of the rows and of their persons."""
        cells = (array for one in self.rows.cells.values() for array in _arrays(one))
        return int(self.rows.person.nbytes + self.persons.nbytes + sum(array.nbytes for array in cells))


class RunRows:
    """The rows of runs at one silo, in one process."""

    def __init__(
        self,
        policy: Policy,
        database: duckdb.DuckDBPyConnection,
        sources: Mapping[str, Source],
        decisions: Decisions | None,
        forgotten: Forgotten,
        most_bytes: int = KEPT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`forgotten` says which persons are out for good; `clock` is that by which files are written."""
        self._policy, self._database, self._sources = policy, database, sources
        self._decisions, self._forgotten, self._most_bytes, self._clock = decisions, forgotten, most_bytes, clock
        self._kept: dict[object, _Kept] = {}  # what was asked for last stands last
        self._lock = threading.Lock()
        self._dropping: threading.Timer | None = None
        self.reads = 0  # how often a source was read

    @property
    def kept_bytes(self) -> int:
        """The bytes of all that is kept."""
        return sum(one.size for one in self._kept.values())

    def close(self) -> None:
        """Drop all that is kept."""
        with self._lock:
            self._kept.clear()
            self._stop_dropping()

    def of(self, request: Request, now: int, limit_s: float, split: bytes | None = None) -> Learned:
        """Return the rows of a step of training, and who is in at `now`; raises SourceError, duckdb.Error or OSError.

        The source is read if its rows are not kept as its files are now. `split` is the secret that divides persons.
        """
        found, step = self._learned(request, now, limit_s, split), request.plan.training
        if step is not None and step.step + 1 == step.steps:
            with self._lock:
                self._end(self._asked(request, now, split), step.run)
        return found

    def ahead(self, request: Request, now: int, limit_s: float, split: bytes | None = None) -> None:
        """Read the rows of a step before its first round; raises as `of`."""
        self._learned(request, now, limit_s, split)

    def _learned(self, request: Request, now: int, limit_s: float, split: bytes | None) -> Learned:
        deadline, asked, step = time.monotonic() + limit_s, self._asked(request, now, split), request.plan.training
        run = b"" if step is None else step.run
        with self._lock:
            kept = self._found(asked, deadline)
            is_in = None if kept is None else both(self._judged(kept.persons, asked, deadline), kept.by_split)
            if kept is None or _has_come_in(kept.is_in, is_in):
                kept, is_in = self._read(asked, request, deadline)
            else:
                kept = self._without(kept, is_in)
            self._keep(asked, replace(kept, runs=kept.runs | {run}, used_at=time.monotonic()))
        return kept.rows, is_in

    def _asked(self, request: Request, now: int, split: bytes | None) -> _Asked:
        policy, table = self._policy, request.table.name
        used = (name for names in request.plan.uses().values() for name in names)
        source = narrowed(policy, self._sources[table], request.purpose, used)
        consented, recent = consent_filter(policy, request.purpose, now), recent_filter(source, now)
        by_person = isinstance(policy.consent, ConsentTable)
        on_rows = recent if by_person else together(consented, recent)
        on_persons, codings = consented if by_person else None, tuple(answer.codings_of(request))
        return _Asked(source, codings, on_rows, on_persons, request.plan.side, split)

    def _found(self, asked: _Asked, deadline: float) -> _Kept | None:
        kept = self._kept.pop(asked.key, None)
        return kept if kept is not None and kept.stored == _stored(asked.source, deadline) else None

    def _read(self, asked: _Asked, request: Request, deadline: float) -> tuple[_Kept, Bools | None]:
        """Return the rows of a source as it is now; they may be kept if its files have not changed meanwhile."""
        location, unit = asked.source.location, self._policy.privacy_unit.id_column
        files, tables = _files(asked.source), (location,) if isinstance(location, PostgresTable) else ()
        with self._open((asked.source, *self._consulted(asked)), deadline, tables) as versions:
            self.reads += 1
            rows, persons = read_rows(self._database, Chosen(asked.source, asked.on_rows), unit, request)
            by_split = on_side_by_id(self._database, persons, asked.side, asked.split)
            is_in = both(self._who(persons, asked), by_split)
        is_settled = files is not None and files == _files(asked.source) and self._clock() - files.newest_s > SETTLED_S
        stored = versions.get(location) if isinstance(location, PostgresTable) else files if is_settled else None
        kept = _Kept(stored, rows, persons, None, by_split, frozenset(), time.monotonic())
        return self._without(kept, is_in), is_in

    def _judged(self, persons: pa.Array, asked: _Asked, deadline: float) -> Bools | None:
        """Return who is in by the decisions as they are now."""
        if asked.on_persons is None:
            return self._who(persons, asked)
        with self._open(self._consulted(asked), deadline):
            return self._who(persons, asked)

    def _who(self, persons: pa.Array, asked: _Asked) -> Bools | None:
        """Return who is in by the opened decisions, and by the list of who is forgotten; None: all."""
        is_in: Bools | None = None
        if (consent := asked.on_persons) is not None:
            unit = self._policy.privacy_unit.id_column
            self._database.register(_PERSONS, pa.table({_PLACE: arrow_of(np.arange(len(persons))), unit: persons}))
            try:
                sql = f"SELECT {quote(_PLACE)} FROM {quote(_PERSONS)} WHERE {consent.sql}"  # noqa: S608
                places = self._database.sql(sql, params=consent.parameters).to_arrow_table()[_PLACE]
            finally:
                self._database.unregister(_PERSONS)
            is_in = np.zeros(len(persons), np.bool_)
            is_in[np.from_dlpack(places.combine_chunks())] = True
        is_out = self._forgotten(self._database, persons)
        if is_out is None:
            return is_in
        return ~is_out if is_in is None else is_in & ~is_out

    def _consulted(self, asked: _Asked) -> tuple[Decisions, ...]:
        return () if asked.on_persons is None or self._decisions is None else (self._decisions,)

    @contextmanager
    def _open(
        self, readings: tuple[Reading, ...], deadline: float, versioned: tuple[PostgresTable, ...] = ()
    ) -> Iterator[Versions]:
        with opened_within(self._database, readings, deadline - time.monotonic(), versioned) as versions:
            yield versions

    @staticmethod
    def _without(kept: _Kept, is_in: Bools | None) -> _Kept:
        """Return rows without the cells of who is out."""
        if is_in is None or (kept.is_in is not None and (is_in == kept.is_in).all()):
            return kept
        is_out = ~is_in[kept.rows.person]
        cells = {key: _blanked(one, is_out) for key, one in kept.rows.cells.items()}
        return replace(kept, rows=replace(kept.rows, cells=cells), is_in=is_in)

    def _keep(self, asked: _Asked, kept: _Kept) -> None:
        """Keep rows if they may be kept; what was asked for longest ago makes room."""
        if kept.stored is None or kept.size > self._most_bytes:
            return
        self._kept[asked.key] = kept
        while len(self._kept) > MOST_KEPT or self.kept_bytes > self._most_bytes:
            del self._kept[next(iter(self._kept))]
        if self._dropping is None:
            self._drop_in(KEPT_S)

    def _end(self, asked: _Asked, run: bytes) -> None:
        """Drop rows with the last round of the last run that has them."""
        if (kept := self._kept.pop(asked.key, None)) is not None and (others := kept.runs - {run}):
            self._kept[asked.key] = replace(kept, runs=others)
        if not self._kept:
            self._stop_dropping()

    def _stop_dropping(self) -> None:
        if self._dropping is not None:
            self._dropping.cancel()
            self._dropping = None

    def _drop_in(self, seconds: float) -> None:
        self._dropping = threading.Timer(seconds, _drop, [weakref.ref(self)])
        self._dropping.daemon = True
        self._dropping.start()

    def drop(self) -> None:
        """Drop what nobody has asked for for a while, and look again when the rest will be as old."""
        with self._lock:
            now = time.monotonic()
            self._kept = {key: one for key, one in self._kept.items() if now - one.used_at < KEPT_S}
            self._dropping = None
            if self._kept:
                self._drop_in(min(one.used_at for one in self._kept.values()) + KEPT_S - now)


def _drop(of: "weakref.ref[RunRows]") -> None:
    if (found := of()) is not None:
        found.drop()


@dataclass(frozen=True, slots=True)
class _FilesNow:
    names: tuple[str, ...]
    stamp: Stamp

    @property
    def newest_s(self) -> float:
        """When the newest of them was written or put in its place, in seconds since 1970."""
        return max(max(changed, moved) for _, _, changed, moved in self.stamp) / 1e9


def _stored(source: Source, deadline: float) -> object:
    """Return what a source's files are now, or which version of its rows a table has; None if it does not tell."""
    if not isinstance(source.location, PostgresTable):
        return _files(source)
    with suppress(SourceError):  # then it is read, which says why
        return version_of(source.location, max(1.0, deadline - time.monotonic()))
    return None


def _files(source: Source) -> _FilesNow | None:
    """Return what a source's files are now; None for a table of a server."""
    location = source.location
    stamp = stamp_of(location)
    return _FilesNow(location.files if isinstance(location, Files) else (), stamp) if stamp else None


def _has_come_in(before: Bools | None, now: Bools | None) -> bool:
    """Tell whether somebody is in whose cells were not kept."""
    if before is None:
        return False
    return not before.all() if now is None else bool((now & ~before).any())


def _arrays(cells: Cells) -> tuple[Integers | Bools, ...]:
    match cells:
        case Members():
            return (cells.codes,)
        case Steps():
            return (cells.cells,)
        case Numbers():
            return (cells.whole,) if cells.nanos is None else (cells.whole, cells.nanos)
        case Arrays():
            return (cells.steps, cells.is_there)


def _blanked(cells: Cells, is_out: Bools) -> Cells:
    """Return cells of which those of a mask are missing."""
    match cells:
        case Members():
            return Members(np.where(is_out, NO_MEMBER, cells.codes).astype(cells.codes.dtype), cells.texts)
        case Steps():
            steps = np.where(is_out, NO_STEPS, cells.cells).astype(cells.cells.dtype)
            return Steps(steps, cells.low, cells.range_steps)
        case Numbers():
            nanos = None if cells.nanos is None else np.where(is_out, 0, cells.nanos).astype(cells.nanos.dtype)
            return Numbers(np.where(is_out, NO_NUMBER, cells.whole).astype(cells.whole.dtype), nanos)
        case Arrays():
            return cells.without(is_out)
