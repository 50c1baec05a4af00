"""What a question's SQL makes of the released figures, and of figures that the same noise could have given.

DuckDB runs the SQL over the table `released` once for all scenarios: the figures as they are; each sum moved by one
deviation of its noise; all sums moved by noise that is drawn anew, from a seed, so that the same answer has the same
intervals; and only the sums of shown groups, or of withheld ones, moved. Nothing here reads more than released sums.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlglot
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from sqlglot import exp

from analyst.errors import SqlError
from analyst.reports.afterwards import GROUP, WITHHELD
from analyst.reports.estimates import figures_of, groups_of
from analyst.reports.intervals import Floats, Noisy
from analyst.reports.redrawn import Redrawn
from analyst.sql.database import KeptDatabase, interrupted_after
from analyst.sql.evaluation import reason_of
from analyst.sql.split import RELEASED
from policies.requests.query import Plan
from policies.requests.statistic import Statistic
from policies.requests.tables import Table
from policies.requests.trees import TREE

DRAWS, LEAST_DRAWS = 1000, 200
_SOME = 16  # draws in which the shown groups, or the withheld ones, alone are moved: a rounded figure may hide one
_MAX_ROWS = 2_000_000  # of all scenarios together
_MAX_MOVES = 2_000  # sums that are moved one by one
_LIMIT_S, _MEMORY = 60.0, "2GB"
MAX_BYTES, _BATCH = 1 << 30, 100_000  # of a result, which is no part of the database's memory; rows
_SCENARIO = "_scenario"
_CONFIG: Mapping[str, Any] = MappingProxyType({"threads": 2, "memory_limit": _MEMORY, "temp_directory": ""})
_SETTINGS = ("python_enable_replacements = false", "enable_external_access = false", "lock_configuration = true")
_KEPT = KeptDatabase(_CONFIG, _SETTINGS)
_MEND = "a figure is a number, and a group a text, a number or a truth value: give each function what it takes"
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The noisy sums of all groups, also of the nodes of their trees, and which groups are shown."""

    plan: Plan
    table: Table
    of: Mapping[Statistic, Noisy]
    is_shown: Bools

    @property
    def groups(self) -> int:
        return len(self.is_shown)

    @property
    def plain(self) -> Mapping[Statistic, Noisy]:
        """The sums of one number a group."""
        return {one: of for one, of in self.of.items() if one.kind != TREE}


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """One column of the result in all scenarios, a value for each row; a number that is missing is NaN."""

    point: Any  # (rows)
    moved: Any  # (moves, rows)
    drawn: Any  # (draws, rows)
    by_shown: Any  # (some draws, rows): the sums of shown groups moved
    by_withheld: Any  # (some draws, rows)
    is_number: bool

    @property
    def is_stable(self) -> Bools:
        """Where the value is the same in every scenario: no noise is in it."""
        return _same(self.point, self.drawn) & _same(self.point, self.by_withheld)

    @property
    def is_of_withheld(self) -> Bools:
        """Where noise is in the value, and all of it is that of withheld groups."""
        return ~_same(self.point, self.by_withheld) & _same(self.point, self.by_shown)


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """The result: its rows in order, the place of each among the candidates, and all that these could have been."""

    rows: Sequence[Mapping[str, Any]]
    places: Sequence[int]
    columns: Mapping[str, Outcomes]  # also the parts of quotients and ranks
    noise: Floats  # (draws, moves): by how many deviations each draw moved each sum; empty without moves


class ComputingError(SqlError):
    """What is computed after the answer is no SQL that DuckDB computes over the released figures."""


def can_draw(groups: int) -> bool:
    """Tell whether an answer of so many groups can be computed on, with intervals."""
    return groups * (LEAST_DRAWS + 2 * _SOME + 1) <= _MAX_ROWS


def compute(sums: Sums, result: str, candidates: str, is_whole: bool, seed: bytes, runs: "Runs") -> Computed:
    """Run the SQL of the answer's rows, and of its candidates in every scenario.

    Both are as `analyst.reports.afterwards` writes them. Raises SqlError, as where rows cannot be told apart.
    """
    redrawn = Redrawn(sums.plan.aggregates, sums.table, sums.of)
    shape = (len(sums.plain) + redrawn.rows, sums.groups)  # of what the noise moves
    moves = shape[0] * shape[1]
    moves = moves if moves <= _MAX_MOVES and moves * sums.groups <= _MAX_ROWS else 0
    draws = min(runs.draws, _MAX_ROWS // sums.groups - 2 * _SOME - 1 - moves)
    noise = _normals(seed, (draws, *shape))
    unit = np.eye(moves).reshape((moves, *shape)) if moves else np.zeros((0, *shape))
    shown, some = np.where(sums.is_shown, 1.0, 0.0), noise[:_SOME]
    steps = np.concatenate([np.zeros((1, *shape)), unit, noise, some * shown, some * (1 - shown)])
    figures = _table(sums, redrawn, steps)
    with runs.database(figures, len(steps)) as database:
        inner = _read_by(candidates)
        found = _run(database, f"SELECT {_SCENARIO}s.id, x.* FROM {_SCENARIO}s, LATERAL ({inner}) AS x")  # noqa: S608
        rows = _run(database, _read_by(result, "0"))
    names, scenario = found.column_names[1:], found.column(0).to_numpy().astype(np.int64)
    arrays = {name: _values(found.column(place + 1), name) for place, name in enumerate(names)}
    place = arrays.pop(GROUP)[0].astype(np.int64) if is_whole else _places(arrays, scenario, _members(sums))
    count = sums.groups if is_whole else int(place.max(initial=-1)) + 1
    columns = {
        name: _outcomes(array, is_number, scenario, place, (len(steps), count), moves)
        for name, (array, is_number) in arrays.items()
    }
    shown_rows = rows.to_pylist()
    places = [row.pop(GROUP) for row in shown_rows] if is_whole else _found(shown_rows, arrays, scenario, place)
    flat = noise.reshape(draws, -1) if moves else np.zeros((draws, 0))
    return Computed(shown_rows, places, columns, flat)


def _normals(seed: bytes, shape: tuple[int, ...]) -> Floats:
    """Return standard normal numbers that follow from a seed of 32 bytes (Box and Muller, 1958).

    They make intervals of figures that are released already; no noise that protects anybody is drawn here.
    """
    count = int(np.prod(shape))
    stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()
    words = np.frombuffer(stream.update(bytes(16 * ((count + 1) // 2))), "<u8").reshape(2, -1)
    radius, angle = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    length = np.sqrt(-2 * np.log(radius))
    pairs = np.concatenate([length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle)])
    return pairs[:count].reshape(shape)


def _table(sums: Sums, redrawn: Redrawn, steps: Floats) -> pa.Table:
    """Return the released table of all scenarios, by how many deviations (scenarios, what is moved, groups) of each."""
    count, groups = len(steps), sums.groups
    noisy = {
        one: Noisy((of.values + of.sd * steps[:, place]).ravel(), of.sd)
        for place, (one, of) in enumerate(sums.plain.items())
    }
    quantiles = redrawn.values(steps[:, len(noisy) :], noisy)
    columns: dict[str, Any] = {
        _SCENARIO: np.repeat(np.arange(count), groups),
        GROUP: np.tile(np.arange(groups), count),
        WITHHELD: np.tile(~sums.is_shown, count),
    }
    members = list(zip(*groups_of(sums.plan, sums.table), strict=True))
    for name, values in zip(sums.plan.group_by, members, strict=True):
        kinds = {type(one) for one in values} - {type(None)}
        listed = values if len(kinds) < 2 else [None if one is None else str(one) for one in values]
        columns[name] = pa.array(listed).take(pa.array(np.tile(np.arange(groups), count)))
    for one in sums.plan.aggregates:
        is_redrawn = one.alias in quantiles
        found = quantiles[one.alias] if is_redrawn else figures_of(one, sums.table, noisy).values
        columns[one.alias] = pa.array(found, from_pandas=True)
    return pa.table(columns)


def _members(sums: Sums) -> list[frozenset[str]]:
    """Return the values of each dimension."""
    return [frozenset(map(str, one)) for one in zip(*groups_of(sums.plan, sums.table), strict=True)]


@contextmanager
def _database(figures: pa.Table, scenarios: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database of these figures that reaches nothing else, and is interrupted after a while."""
    with duckdb.connect(config=dict(_CONFIG)) as database:
        database.register("_figures", figures)
        database.execute("CREATE TABLE figures AS SELECT * FROM _figures")
        database.unregister("_figures")
        database.execute(f"CREATE TABLE {_SCENARIO}s AS SELECT range AS id FROM range({scenarios})")  # noqa: S608
        for setting in _SETTINGS:
            database.execute(f"SET {setting}")
        with interrupted_after(database, _LIMIT_S):
            yield database


@contextmanager
def _kept_database(figures: pa.Table, scenarios: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield the same in a database that is kept, for figures that are nobody's."""
    with _KEPT.used(_LIMIT_S) as database:
        database.register("_figures", figures)
        database.execute("CREATE OR REPLACE TABLE figures AS SELECT * FROM _figures")
        database.unregister("_figures")
        database.execute(f"CREATE OR REPLACE TABLE {_SCENARIO}s AS SELECT range AS id FROM range({scenarios})")  # noqa: S608
        yield database


@dataclass(frozen=True, slots=True)
class Runs:
    """How many times the noise is drawn anew, and the database that computes."""

    draws: int
    database: Callable[[pa.Table, int], AbstractContextManager[duckdb.DuckDBPyConnection]]


ANSWER = Runs(DRAWS, _database)  # each in a database of its own, as somebody else may have written its SQL
REHEARSAL = Runs(LEAST_DRAWS, _kept_database)  # of made-up figures, which are nobody's


def _read_by(text: str, scenario: str = f"{_SCENARIO}s.id") -> str:
    """Return SQL that reads `released` as the figures of one scenario."""
    query = sqlglot.parse_one(text, dialect="duckdb")
    for table in list(query.find_all(exp.Table)):
        if table.name == RELEASED:
            figures = exp.select(exp.Star(except_=[exp.to_identifier(_SCENARIO)])).from_("figures")
            figures = figures.where(exp.column(_SCENARIO).eq(sqlglot.parse_one(scenario, dialect="duckdb")))
            table.replace(figures.subquery(table.alias_or_name))
    return query.sql(dialect="duckdb")


def _run(database: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    batches, size = list[pa.RecordBatch](), 0
    try:
        with database.sql(sql).to_arrow_reader(_BATCH) as reader:
            for batch in reader:
                batches.append(batch)
                size += batch.nbytes
                if size > MAX_BYTES:
                    raise SqlError("what is computed after the answer has too large a result", "compute less")
            return pa.Table.from_batches(batches, reader.schema)
    except duckdb.InterruptException as err:
        raise SqlError("what is computed after the answer takes too long", "compute less after the answer") from err
    except duckdb.Error as err:
        raise ComputingError(f"what is computed after the answer fails: {reason_of(err)}", _MEND) from err


def _values(column: pa.ChunkedArray, name: str) -> tuple[Any, bool]:
    """Return a column as numbers, or as texts and truth values, and whether it has numbers."""
    kind = column.type
    if pa.types.is_nested(kind) and not pa.types.is_dictionary(kind):
        raise SqlError(f"the column {name!r} holds lists or structures", "ask for numbers, text or truth values")
    if pa.types.is_dictionary(kind):
        return _values(column.cast(kind.value_type), name)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float64(), safe=False).to_numpy(), True
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan), True
    if not pa.types.is_boolean(kind):
        try:
            column = column.cast(pa.string())
        except pa.ArrowException as err:
            raise SqlError(f"the column {name!r} holds {kind}", "ask for numbers, text or truth values") from err
    return np.array(column.to_pylist(), dtype=object), False


def _places(arrays: Mapping[str, tuple[Any, bool]], scenario: Integers, members: Sequence[frozenset[str]]) -> Integers:
    """Return the row of each line, by the columns that say which one it is; raises SqlError if two agree.

    Those are the same in all scenarios, or have values of one dimension only: one of `members`.
    """
    last = int(scenario.max(initial=0))
    for by_members in (False, True):
        code = np.zeros(len(scenario), np.int64)
        for values, is_number in arrays.values():
            texts = values if is_number else np.array([f"{one}" for one in values], dtype=str)
            known, codes = np.unique(texts, return_inverse=True)
            counts = np.zeros((last + 1, len(known) or 1), np.int64)
            np.add.at(counts, (scenario, codes), 1)
            named = {f"{one:g}" if is_number else str(one) for one in known}
            if (counts == counts[0]).all() or (by_members and any(named <= one for one in members)):
                _, code = np.unique(code * (len(known) or 1) + codes, return_inverse=True)
        place = code.astype(np.int64)
        if len(np.unique(place + scenario * (int(place.max(initial=0)) + 1))) == len(place):
            return place
    hint = "select the columns that say which group each row is, or only totals"
    raise SqlError("the rows of the answer cannot be told apart", hint)


def _found(
    rows: Sequence[Mapping[str, Any]],
    arrays: Mapping[str, tuple[Any, bool]],
    scenario: Integers,
    place: Integers,
) -> list[int]:
    """Return the place of each row of the answer among the candidates."""
    names = [name for name in (rows[0] if rows else ()) if name in arrays]
    lines = np.flatnonzero(scenario == 0)
    known = {_key(arrays[name][0][line] for name in names): int(place[line]) for line in lines}
    return [known[_key(_plain(row[name], arrays[name][1]) for name in names)] for row in rows]


def _key(values: Iterator[Any]) -> tuple[str, ...]:
    return tuple(f"{float(one):.12g}" if isinstance(one, int | float | np.number) else f"{one}" for one in values)


def _plain(value: Any, is_number: bool) -> Any:
    return float("nan") if value is None and is_number else value


def _outcomes(
    values: Any, is_number: bool, scenario: Integers, place: Integers, shape: tuple[int, int], moves: int
) -> Outcomes:
    """Return a column by scenario and row."""
    whole = np.full(shape, np.nan) if is_number else np.full(shape, None, dtype=object)
    whole[scenario, place] = values
    drawn, last = whole[1 + moves : -2 * _SOME], whole[-2 * _SOME :]
    return Outcomes(whole[0], whole[1 : 1 + moves], drawn, last[:_SOME], last[_SOME:], is_number)


def _same(point: Any, others: Any) -> Bools:
    """Return which values of a row are the same in all other rows; missing ones are."""
    equal: Bools = np.asarray(point == others, np.bool_)
    if np.asarray(point).dtype != object:
        equal |= np.isnan(point) & np.isnan(others)
    return np.asarray(equal.all(axis=0), np.bool_)
