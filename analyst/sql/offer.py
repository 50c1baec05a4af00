"""What the silos together open: their signed catalogues merged into one definition that each of them accepts."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analyst.errors import SqlError
from policies.requests.catalogue import Catalogue, OpenColumn
from policies.requests.tables import Table, TableColumn


@dataclass(frozen=True, slots=True)
class Offer:
    """The catalogues of a federation, by silo."""

    silos: Mapping[str, Catalogue]

    @property
    def delta(self) -> float:
        """The smallest delta among the silos: epsilon is converted at it."""
        return min(float(catalogue.delta) for catalogue in self.silos.values())

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(table.name for one in self.silos.values() for table in one.tables))

    @property
    def purposes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(purpose for one in self.silos.values() for purpose in one.purposes))

    def holders(self, table: str) -> dict[str, dict[str, OpenColumn]]:
        """Return the open columns of `table`, by silo that has it."""
        return {
            silo: {open_column.column.name: open_column for open_column in one.columns}
            for silo, catalogue in self.silos.items()
            for one in catalogue.tables
            if one.name == table
        }

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the columns that every holder of `table` opens in some role."""
        holders = list(self.holders(table).values())
        return tuple(name for name in holders[0] if all(name in columns for columns in holders)) if holders else ()

    def column(self, table: str, name: str) -> TableColumn:
        """Return the definition that lies within every holder's: narrowest bounds, common domain. Raises SqlError."""
        found = {silo: columns[name].column for silo, columns in self.holders(table).items() if name in columns}
        first = next(iter(found.values()))
        for silo, one in found.items():
            if (one.type, one.step, one.unknown) != (first.type, first.step, first.unknown):
                raise SqlError(
                    f"the silos define column {name!r} differently: {_define(first)}, but {_define(one)} at {silo!r}",
                    "ask the silos to agree on type, step and unknown",
                )
        lows = [one.low for one in found.values() if one.low is not None]
        highs = [one.high for one in found.values() if one.high is not None]
        low, high = max(lows, default=None), min(highs, default=None)
        if low is not None and high is not None and low >= high:
            raise SqlError(f"the silos' bounds of column {name!r} do not overlap", "ask the silos to agree on bounds")
        common = [value for value in first.domain if all(value in one.domain for one in found.values())]
        return TableColumn(
            name=name,
            type=first.type,
            low=low,
            high=high,
            step=first.step,
            domain=tuple(common),
            unknown=first.unknown if common else None,
        )

    def table(self, name: str, used: Iterable[str]) -> Table:
        """Return the definition of `name` with the columns that a plan uses."""
        catalogues = [self.silos[silo] for silo in self.holders(name)]
        return Table(
            name=name,
            max_rows=min(one.max_rows for one in catalogues),
            max_silos=max(one.max_silos for one in catalogues),
            columns=tuple(self.column(name, column) for column in dict.fromkeys(used)),
        )


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` or the list of what is known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def _define(column: TableColumn) -> str:
    step = f" in steps of {column.step}" if column.step else ""
    return f"{column.type}{step}" + (f", unknown {column.unknown!r}" if column.domain else "")
