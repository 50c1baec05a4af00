"""One table of an answer: the rows of one statement, or of a UNION ALL of several, with all that is said of them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Protocol

from pydantic import Field

from analyst.errors import AnalystError
from analyst.reports.cut import Cut, definition_in_words
from analyst.reports.derived import Cell
from analyst.reports.estimates import Estimate, Label, Threshold
from federation.terminal import plain
from policies.requests.query import field_names


class Rows(Protocol):
    """What a table of an answer has: `Answered`, and a `Report` of one statement."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def dimensions(self) -> Mapping[str, str]: ...
    @property
    def rows(self) -> tuple[Mapping[str, Cell], ...]: ...
    @property
    def withheld_groups(self) -> tuple[Mapping[str, Label], ...]: ...
    @property
    def threshold(self) -> Threshold: ...
    @property
    def cut(self) -> Cut | None: ...
    @property
    def definition(self) -> Mapping[str, Any]: ...
    @property
    def after(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def told(self) -> tuple[str, ...]: ...
    @property
    def curves(self) -> Mapping[str, Any]: ...
    @property
    def branches(self) -> "tuple[Answered, ...]": ...


class Tabular:
    """A table of an answer as flat rows, and what a reader of its figures must know."""

    __slots__ = ()

    def notes(self: Rows) -> list[str]:
        """Return what a reader of the figures must know of them: what was cut, and the definition."""
        told = [*self.told, *([] if self.cut is None else self.cut.in_words())]
        told += [f"by definition: {plain(definition_in_words(self.definition))}"] if self.definition else []
        return told + list(dict.fromkeys(note for branch in self.branches for note in branch.notes()))

    def to_records(self: Rows) -> list[dict[str, Any]]:
        """Return flat rows: an aggregate `n` becomes n, n_low, n_high and n_sd."""
        flat = _flat(self)
        records = []
        for row in self.rows:
            record: dict[str, Any] = {}
            for name, cell in row.items():
                if name in flat:
                    record[name] = cell
                else:
                    found = (cell.value, cell.low, cell.high, cell.sd) if isinstance(cell, Estimate) else (cell,)
                    record |= zip(field_names(name), (*found, None, None, None)[:4], strict=True)
            records.append(record)
        return records

    def field_names(self: Rows) -> list[str]:
        """Return the column names of `to_records`, also if there are no rows."""
        flat = _flat(self)
        return [field for name in self.columns for field in ([name] if name in flat else field_names(name))]

    def to_arrow(self: Any) -> Any:
        """Return a pyarrow.Table of `to_records`."""
        import pyarrow as pa

        records = self.to_records()
        return pa.table({name: [record[name] for record in records] for name in self.field_names()})

    def to_pandas(self: Any) -> Any:
        """Return a pandas.DataFrame of `to_records`; its `attrs` have what was cut, the definition, tests of curves."""
        frame = self.to_arrow().to_pandas()
        found = {"notes": self.notes(), **self.to_dict()}
        frame.attrs |= {name: found[name] for name in ("notes", "cut", "definition", "curves") if name in found}
        return frame


def _flat(table: Rows) -> frozenset[str]:
    """Return the columns that hold no figures."""
    if getattr(table, "tables", ()):
        raise AnalystError("the answer has several tables", "take one of them: report.tables[0]")
    return frozenset({*table.dimensions, *table.labels})


@dataclass(frozen=True, slots=True)
class Answered(Tabular):
    """The table of one statement of several, or of one question of a UNION ALL."""

    columns: tuple[str, ...]
    dimensions: Mapping[str, str]  # the output columns that are groups, with the table's column of each
    rows: tuple[Mapping[str, Cell], ...]
    withheld_groups: tuple[Mapping[str, Label], ...]
    threshold: Threshold  # by which they are withheld
    rho: float  # of the price, the part that bought the figures
    cut: Cut | None = None  # what bounding cut; None where the question did not ask
    definition: Mapping[str, Any] = field(default_factory=dict)  # that the answer was given by
    after: str = ""  # the SQL that made the rows of the silos' figures
    labels: tuple[str, ...] = ()  # output columns that are no figures and no groups
    told: tuple[str, ...] = ()  # how sure labels are that depend on noisy figures
    # Of survival curves the median of each group, and the log-rank test.
    curves: Annotated[Mapping[str, Any], Field(exclude_if=lambda curves: not curves)] = field(default_factory=dict)
    branches: "tuple[Answered, ...]" = ()  # of a UNION ALL, whose rows stand below each other in `rows`

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain values; docs/commands.md describes them."""
        return {**table_dict(self), "rho": self.rho}


def table_dict(table: Rows) -> dict[str, Any]:
    """Return what a table says as plain values; of a UNION ALL also what each of its questions says."""
    found = {
        "columns": list(table.columns),
        "dimensions": dict(table.dimensions),
        "rows": [
            {name: asdict(cell) if isinstance(cell, Estimate) else cell for name, cell in row.items()}
            for row in table.rows
        ],
        "withheld_groups": [dict(group) for group in table.withheld_groups],
        "threshold": asdict(table.threshold),
        "cut": None if table.cut is None else table.cut.to_dict(),
        "definition": dict(table.definition),
        "after": table.after,
        "labels": list(table.labels),
        "told": list(table.told),
        **({"curves": dict(table.curves)} if table.curves else {}),
    }
    return found | ({"branches": [one.to_dict() for one in table.branches]} if table.branches else {})


def united(branches: Sequence[Answered], rho: float) -> Answered:
    """Return the table of a UNION ALL: the rows of all questions, in their order, by the names of the first.

    A column holds no figures where it holds none in any question.
    """
    columns = branches[0].columns
    return Answered(
        columns=columns,
        dimensions={},
        rows=tuple(united_rows([(one.columns, one.rows) for one in branches])),
        withheld_groups=tuple(group for one in branches for group in one.withheld_groups),
        threshold=max((one.threshold for one in branches), key=lambda one: one.noisy_count),
        rho=rho,
        labels=united_labels([(one.columns, {*one.dimensions, *one.labels}) for one in branches]),
        branches=tuple(branches),
    )


def united_labels(tables: Sequence[tuple[Sequence[str], Collection[str]]]) -> tuple[str, ...]:
    """Return the columns of a UNION ALL that hold no figures; of each table its columns, and which hold none there."""
    flat = [[name in labels for name in columns] for columns, labels in tables]
    return tuple(name for name, is_flat in zip(tables[0][0], zip(*flat, strict=True), strict=True) if all(is_flat))


def united_rows(tables: Sequence[tuple[Sequence[str], Sequence[Mapping[str, Any]]]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of tables, each with its columns, by the names of the first table's columns."""
    names = tables[0][0]
    for columns, rows in tables:
        for row in rows:
            yield {name: row[column] for name, column in zip(names, columns, strict=True)}
