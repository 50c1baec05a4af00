"""Requests answered from prepared rows: one snapshot, the decisions of this moment, and every person judged once."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from crypto.randomness import token
from policies.document.policy import Policy
from policies.document.purposes import ConsentTable
from policies.requests.request import Request
from policies.units import DAY_S
from silo_node.data import answer
from silo_node.data.cells import form, quote
from silo_node.data.coded import Bools, Integers, Rows
from silo_node.data.consent import Decisions
from silo_node.data.locations import LOAD_TIMEOUT_S, opened
from silo_node.data.lots import SECRET_BYTES, Lots
from silo_node.data.model_rows import model_rows
from silo_node.data.prepared.codes import merged, places_in
from silo_node.data.prepared.decided import Decided, judged, who_is_in
from silo_node.data.prepared.forgotten import Keeps
from silo_node.data.prepared.part import Question
from silo_node.data.prepared.snapshot import Snapshot
from silo_node.data.prepared.store import Made, Store
from silo_node.data.sides import both, on_side, on_side_by_id
from silo_node.data.sources import Source
from silo_node.errors import SourceError
from silo_node.training.family import Examples

PARTITION_ROWS = 1 << 20
REFRESH_S = 10.0  # of the 30 s in which a silo answers a proposal


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """Where the persons of a table of decisions are among those of a snapshot."""

    snapshot: Snapshot
    decided: Decided
    place: Integers
    alike_place: Integers | None
    alike_of: Integers | None
    alikes: int


class Reader:
    """Answers from the prepared sources of one silo."""

    def __init__(
        self,
        policy: Policy,
        store: Store,
        connection: duckdb.DuckDBPyConnection,
        sources: Mapping[str, Source],
        decisions: Decisions | None,
    ) -> None:
        self._policy, self._store, self._connection = policy, store, connection
        self._sources = sources
        self._decisions = None if decisions is None else store.decisions(decisions)
        self._joined: dict[str, _Joined] = {}

    def prepare(self, connection: duckdb.DuckDBPyConnection, source: str, now: int) -> Made:
        """Make the store of a source as its files are now, and bring the decisions up to date.

        Raises SourceError. Decisions that cannot be read are left to the requests, which raise.
        """
        if self._decisions is not None:
            with suppress(SourceError, duckdb.Error, OSError):
                self._decisions.current(connection, LOAD_TIMEOUT_S)
        return self._store.prepare(connection, self._sources[source], now)

    def refresh(self) -> None:
        """Do before a request what needs not be done again before the rows or the decisions change.

        Raises SourceError, duckdb.Error or OSError.
        """
        if self._decisions is None:
            return
        decided = self._decisions.current(self._connection, REFRESH_S)
        for source in self._sources.values():
            if (snapshot := self._store.snapshot(source)) is not None:
                self._join(source.name, snapshot, decided)

    def vectors(self, request: Request, now: int, limit_s: float) -> answer.Vectors:
        """Return what a question contributes. Raises SourceError, duckdb.Error or OSError."""
        question, snapshot = self.asked(request, now)
        is_in = self.judged(snapshot, request.table.name, request.purpose, now, limit_s)
        return answer.added(question.part(first, end, is_in, snapshot) for first, end in snapshot.parts(PARTITION_ROWS))

    def examples(self, request: Request, now: int, limit_s: float, split: bytes | None = None) -> answer.Vectors:
        """Return what a step of training learns from; see `answer.examples`. `split`: the secret that divides ids."""
        rows, asked, is_in = self.on_side(request, now, limit_s, split)
        return answer.examples(rows, asked, is_in, Lots())

    def model_examples(self, request: Request, now: int, limit_s: float, split: bytes | None = None) -> Examples:
        """Return what a step of a family learns from; see `model_rows.model_rows`, and `examples`."""
        return model_rows(*self.on_side(request, now, limit_s, split))

    @property
    def silo(self) -> str:
        """The silo whose rows these are."""
        return self._policy.silo.id

    def on_side(
        self, request: Request, now: int, limit_s: float, split: bytes | None
    ) -> tuple[Rows, Request, Bools | None]:
        """Return the rows of a request, the request, and which persons are in and on its side; None: all."""
        question, snapshot = self.asked(request, now)
        is_in = self.judged(snapshot, request.table.name, request.purpose, now, limit_s)
        by_id = self._by_id(self._sources[request.table.name], snapshot, request, split, limit_s)
        rows = question.rows(0, len(snapshot.persons), snapshot)
        return rows, request, on_side(rows, request, both(is_in, by_id))

    def _by_id(
        self, source: Source, snapshot: Snapshot, request: Request, split: bytes | None, limit_s: float
    ) -> Bools | None:
        """Return which persons a split has on a request's side; None: all. A store has no ids, so the files are read.

        Who is in the store and no longer in the files is on no side.
        """
        if split is None or request.plan.side is None:
            return None
        narrow, unit = source.narrowed((source.unit,)), quote(source.unit)
        with opened(self._connection, (narrow,), limit_s):
            sql = f"SELECT DISTINCT {unit} AS person FROM {narrow.view} WHERE {unit} IS NOT NULL"  # noqa: S608
            persons = self._connection.sql(sql).to_arrow_table()["person"].combine_chunks()
        found = on_side_by_id(self._connection, persons, request.plan.side, split)
        place = places_in(self._store.persons.codes_of(persons.to_pylist()), snapshot.persons)
        is_in = np.zeros(len(snapshot.persons), np.bool_)
        is_there = (place >= 0) & (np.ones(len(place), np.bool_) if found is None else found)
        is_in[place[is_there]] = True
        return is_in

    def asked(self, request: Request, now: int) -> tuple[Question, Snapshot]:
        """Return a request for the newest rows of its source, with a secret for its lots; raises SourceError."""
        policy, source = self._policy, self._sources[request.table.name]
        snapshot = self.snapshot(source.name)
        keys = {(one.aspect, one.column.name): None for one in answer.codings_of(request)}
        time = None
        consent = None if policy.purposes[request.purpose].consent == "none" else policy.consent_column
        if consent is not None:
            keys["member", consent] = None
        if source.lookback_days is not None and source.time_column is not None:
            time = source.time_column, now // DAY_S - source.lookback_days
            keys["day", source.time_column] = None
        question = Question(
            folder=snapshot.folder,
            manifest=snapshot.manifest,
            domains=snapshot.domains,
            request=request,
            keys=tuple(keys),
            max_groups=policy.privacy_unit.max_groups,
            consent=consent,
            time=time,
            secret=token(SECRET_BYTES),
        )
        return question, snapshot

    def snapshot(self, table: str) -> Snapshot:
        """Return the newest complete rows of a source; raises SourceError."""
        found = self._store.snapshot(self._sources[table])
        if found is None:
            raise SourceError(f"source {table!r} is not prepared", "see silo.log for the reason")
        return found

    def judged(self, snapshot: Snapshot, table: str, purpose: str, now: int, limit_s: float) -> Bools | None:
        """Return which persons of a snapshot are in for a purpose at `now`; None: all. Raises SourceError."""
        is_in = self._who(self._sources[table], snapshot, purpose, now, limit_s)
        return self._store.remembered(snapshot, is_in)

    def _who(self, source: Source, snapshot: Snapshot, purpose_name: str, now: int, limit_s: float) -> Bools | None:
        """Return which persons are in for a purpose; None: all."""
        policy = self._policy
        purpose, persons = policy.purposes[purpose_name], len(snapshot.persons)
        if purpose.consent == "none":
            return None
        if policy.consent_column is not None:
            return self._not_refused_since(source, snapshot, policy.consent_column, limit_s)
        if not isinstance(policy.consent, ConsentTable) or self._decisions is None:
            return np.zeros(persons, np.bool_)  # the policy's own check excludes this
        values = [form(value, policy.consent.rules) for value in purpose.consent_values or (purpose_name,)]
        if policy.consent.rules.case == "ignore":  # one engine folds the case of both
            values = [str(self._connection.execute("SELECT lower(?)", [one]).fetchall()[0][0]) for one in values]
        join = self._join(source.name, snapshot, self._decisions.current(self._connection, limit_s))
        found = judged(join.decided, values, now)
        must_agree = purpose.consent == "opt-in"
        return who_is_in(
            found,
            join.decided,
            join.place,
            join.alike_place,
            join.alike_of,
            join.alikes,
            persons,
            must_agree=must_agree,
        )

    def _join(self, name: str, snapshot: Snapshot, decided: Decided) -> _Joined:
        """Return where the persons of both are, from memory while neither has changed."""
        kept = self._joined.get(name)
        if kept is not None and kept.snapshot.manifest == snapshot.manifest and kept.decided is decided:
            return kept
        place = places_in(decided.codes, snapshot.persons)
        alike_of, alike_place, alikes = None, None, 0
        if self._policy.privacy_unit.id_form is None:
            every, (alike_of, alike_place) = merged([snapshot.alike, decided.alike])
            alikes = len(every)
        made = self._joined[name] = _Joined(snapshot, decided, place, alike_place, alike_of, alikes)
        return made

    def _not_refused_since(self, source: Source, snapshot: Snapshot, column: str, limit_s: float) -> Bools:
        """Return which persons have agreed in some row of the files as they are now, and refused in none.

        In files that have not changed, the rows that a person has refused are those that the store marks. A cell that
        cannot be read is a refusal.
        """
        narrow = source.narrowed((source.unit, column))
        unit, cell = quote(source.unit), quote(column)
        with opened(self._connection, (narrow,), limit_s):
            found = self._connection.sql(
                f"SELECT {unit} AS person, count(*) FILTER ({cell} IS TRUE) AS agreed,"  # noqa: S608
                f" count(*) FILTER ({cell} IS NOT TRUE) AS refused FROM {narrow.view}"
                f" WHERE {unit} IS NOT NULL GROUP BY 1"
            ).to_arrow_table()
        place = places_in(self._store.persons.codes_of(found["person"].to_pylist()), snapshot.persons)
        agreed, refused = (found[name].to_numpy().astype(np.int64) for name in ("agreed", "refused"))
        rows = snapshot.rows(0, len(snapshot.persons), [("member", column)])
        known = np.bincount(rows.person[rows.members(column).codes != 1], minlength=rows.persons)
        is_same = self._store.is_current(source)
        is_in = np.zeros(rows.persons, np.bool_)
        is_there = (place >= 0) & (agreed > 0)
        theirs = place[is_there]
        is_in[theirs] = (refused[is_there] == 0) | (is_same & (refused[is_there] == known[theirs]))
        return is_in


def prepared_reader(
    policy: Policy,
    home: Path,
    connection: duckdb.DuckDBPyConnection,
    sources: Mapping[str, Source],
    decisions: Decisions | None,
    kept: Keeps,
) -> Reader | None:
    """Return what answers from a policy's prepared sources; None if it has none. Raises SourceError."""
    prepared = {name: source for name, source in sources.items() if policy.sources[name].read == "prepared"}
    return Reader(policy, Store(policy, home, kept), connection, prepared, decisions) if prepared else None
