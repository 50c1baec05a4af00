"""The offer: the silos' signed catalogues, and the one table definition that they share."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from analyst.errors import SqlError
from analyst.sql.outliers import check_outliers
from policies.budget.sampler import delta_for
from policies.decision.shown import quoted
from policies.domains import LongDomain, hash_of, int_problem_of
from policies.requests.catalogue import Catalogue, OpenColumn
from policies.requests.computations import Computation
from policies.requests.denials import Denial
from policies.requests.standing import Standing
from policies.requests.tables import Table, TableColumn
from policies.units import MAX_DOMAIN, counted

_FEW = 20  # values that a message lists


def _as_it_is(domain: LongDomain) -> LongDomain:
    return domain


@dataclass(frozen=True, slots=True)
class Offer:
    """The catalogues of a federation, by silo; `find` returns a long domain with its values.

    `reasons` has why a silo that answered sent no catalogue, `missing` the silos that have not answered. `is_chosen`:
    the analyst has named these silos. `written` has how a question writes what is none of the silos' tables.
    """

    silos: Mapping[str, Catalogue]
    find: Callable[[LongDomain], LongDomain] = _as_it_is
    reasons: Mapping[str, Denial] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    is_chosen: bool = False
    written: Mapping[str, str] = field(default_factory=dict)
    no_room: str = ""  # why a round of the request that was asked about would not fit at the aggregator

    @property
    def standings(self) -> dict[str, Standing]:
        """Where the analyst stands at each silo that says so."""
        return {silo: one.standing for silo, one in self.silos.items() if one.standing is not None}

    @property
    def delta(self) -> float:
        """The smallest delta among the silos."""
        return min(float(catalogue.delta) for catalogue in self.silos.values())

    @property
    def most_dimensions(self) -> int:
        """The most columns that every silo lets one question group by."""
        return min(one.max_dimensions for one in self.silos.values())

    @property
    def strictest(self) -> tuple[str, ...]:
        """Whose delta, and whose number of silos that know a person, hold for all silos; nothing where all agree."""
        deltas = {silo: float(one.delta) for silo, one in self.silos.items()}
        most = {silo: one.max_silos for silo, one in self.silos.items()}
        least_delta, most_silos = min(deltas.values()), max(most.values())
        whose = [silo for silo, delta in deltas.items() if delta == least_delta]
        whose_most = [silo for silo, count in most.items() if count == most_silos]
        said = [f"delta {least_delta:g} is that of {', '.join(whose)}"] if len(whose) < len(deltas) else []
        if len(whose_most) < len(most):
            said.append(
                f"that a person is known to at most {counted(most_silos, 'silo')} is said by {', '.join(whose_most)}"
            )
        return tuple(said)

    def delta_for(self, table: Table, what: Computation) -> float:
        """Return the part of delta at which the epsilon of an answer is converted; noise from tables uses the rest."""
        return delta_for(self.delta, table, what)

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(table.name for one in self.silos.values() for table in one.tables))

    @property
    def purposes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(purpose for one in self.silos.values() for purpose in one.purposes))

    def holders(self, table: str) -> dict[str, dict[str, OpenColumn]]:
        """Return the open columns of `table` at each silo that has the table."""
        return {
            silo: {open_column.column.name: open_column for open_column in one.columns}
            for silo, catalogue in self.silos.items()
            for one in catalogue.tables
            if one.name == table
        }

    def holders_of(self, tables: Iterable[str]) -> tuple[str, ...]:
        """Return the silos that have all of these tables."""
        held = [self.holders(table) for table in tables]
        return tuple(silo for silo in held[0] if all(silo in holders for holders in held))

    def is_filter(self, table: str, name: str) -> bool:
        """Tell whether every silo that opens a column opens it as a filter."""
        return all("filter" in found[name].roles for found in self.holders(table).values() if name in found)

    def rows_up_to(self, silo: str, table: str) -> int | None:
        """Return how many rows of a table a silo's policy states at most; None where it states none."""
        return next((one.rows_up_to for one in self.silos[silo].tables if one.name == table), None)

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the columns that every silo with `table` opens in some role."""
        holders = list(self.holders(table).values())
        return tuple(name for name in holders[0] if all(name in columns for columns in holders)) if holders else ()

    def has_keys(self, table: str, name: str) -> bool:
        """Tell whether some silo lets the keys of a column be found."""
        return any(columns[name].keys is not None for columns in self.holders(table).values() if name in columns)

    def persons(self, table: str) -> tuple[str, ...]:
        """Return how silos with `table` name the column of the person; it is open in no role."""
        known = self.columns(table)
        names = dict.fromkeys(self.silos[silo].id_column for silo in self.holders(table))
        return tuple(name for name in names if name is not None and name not in known)

    def only(self, silos: Sequence[str]) -> "Offer":
        """Return the offer of these silos alone; raises SqlError if one of them has not answered."""
        for silo in silos:
            if silo in self.missing:
                raise SqlError(f"the silo {silo!r} does not answer", "ask again when it is back, or ask others")
            if silo in self.reasons:
                raise SqlError(f"the silo {silo!r} sends no catalogue: {self.reasons[silo].message}")
            if silo not in self.silos:
                raise SqlError(f"there is no silo {silo!r}", suggest(silo, self.silos))
        return replace(self, silos={silo: one for silo, one in self.silos.items() if silo in silos}, is_chosen=True)

    def column(self, table: str, name: str) -> TableColumn:
        """Return the definition of a column, as `check_is_one` has found it at every silo with the table.

        Of a date it has the periods that all these silos still read, which differ only about midnight, by one.
        """
        first, *others = (columns[name].column for columns in self.holders(table).values() if name in columns)
        if first.type != "date":
            return first
        periods = tuple(period for period in first.domain if all(period in one.domain for one in others))
        return first.model_copy(update={"domain": periods, "unknown": first.unknown if periods else None})

    def check_is_one(self, table: str, used: Iterable[str]) -> None:
        """Raise SqlError unless every silo with the table defines it, and these columns of it, in the same way.

        Definitions that differ are never merged: one silo's narrow bounds would cut the rows of all others.
        """
        names, holders = tuple(dict.fromkeys(used)), self.holders(table)
        groups: dict[tuple[str, ...], list[str]] = {}
        of_all = {name: [columns[name] for columns in holders.values() if name in columns] for name in names}
        other_ends = {name for name, opened in of_all.items() if _is_cut(opened)}
        for silo, columns in holders.items():
            rows = rows_in_words(self.silos[silo])
            known = [name for name in names if name in columns]
            said = (rows, *(f"{name} {_definition(columns[name], name in other_ends)}" for name in known))
            groups.setdefault(said, []).append(silo)
        if len(groups) < 2:
            return
        differing = [place for place, said in enumerate(zip(*groups, strict=False)) if len(set(said)) > 1]
        ordered = sorted(groups.items(), key=lambda one: -len(one[1]))
        lines = [f"{', '.join(silos)}: {'; '.join(said[place] for place in differing)}" for said, silos in ordered]
        usual, others = ordered[0][1], ", ".join(silo for _, group in ordered[1:] for silo in group)
        raise SqlError(
            "\n  ".join([f"the silos define {table!r} in {len(groups)} ways:", *lines]),
            f"ask silos of one definition alone: --silos {','.join(usual)}; or their owners agree on one: {others}"
            f' would write into the policy what {usual[0]} has, adopts = "{self._adopted(usual[0], table)}"',
        )

    def _adopted(self, silo: str, table: str) -> str:
        """Return how the policies of silos adopt this silo's definition of a table."""
        return f"sha256:{next(one.definition for one in self.silos[silo].tables if one.name == table).hex()}"

    def with_values(self, column: TableColumn) -> TableColumn:
        """Return a definition with the values of its long domain."""
        if not isinstance(column.domain, LongDomain):
            return column
        return column.resolved({column.domain.digest: self.find(column.domain)})

    def table(self, name: str, used: Iterable[str]) -> Table:
        """Return the definition of `name` with the columns that a plan uses.

        Raises SqlError if silos differ, or if a few that nobody has named would spoil the answer of all.
        """
        names = tuple(dict.fromkeys(used))
        self.check_is_one(name, names)
        asked = {silo: self.silos[silo] for silo in self.holders(name)}
        if not self.is_chosen:
            check_outliers(asked)
        catalogues = asked.values()
        columns = tuple(self.with_values(self.column(name, column)) for column in names)
        for one in columns:  # the answer's groups are these numbers: when it is paid it is too late
            values = one.domain.values if isinstance(one.domain, LongDomain) else one.domain
            if one.type == "int" and values and (problem := int_problem_of(values)) is not None:
                raise SqlError(f"the values of {one.name!r} are wrong: {problem.text}", f"tell {', '.join(asked)}")
        return Table(
            name=name,
            max_rows=min(one.max_rows for one in catalogues),
            max_silos=max(one.max_silos for one in catalogues),
            columns=columns,
            # The same at all, as `check_is_one` has found; a silo refuses another one than its own.
            max_norm=min((one.max_norm for one in catalogues if one.max_norm is not None), default=None),
        )


def rows_in_words(catalogue: Catalogue) -> str:
    """Return how a silo bounds the rows of one person."""
    rows = f"at most {counted(catalogue.max_rows, 'row')} a person"
    return rows if catalogue.max_norm is None else f"{rows} of a norm of at most {catalogue.max_norm}"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` or the list of known names; of many, those that begin alike are compared."""
    known = list(known)
    if len(known) > MAX_DOMAIN:
        alike = [value for value in known if value[:2].casefold() == name[:2].casefold()][:MAX_DOMAIN]
        close = difflib.get_close_matches(name, alike, 1)
        shown = ", ".join((*known[:3], "...", known[-1]))
        return f"did you mean {close[0]!r}?" if close else f"known: {len(known):,} values, {shown}"
    same = [value for value in known if value.casefold() == name.casefold()]
    close = same or difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def _is_cut(opened: Iterable[OpenColumn]) -> bool:
    """Tell whether calendars have so different lengths that it is no midnight that lies between them."""
    lengths = [len(one.column.domain) for one in opened if one.column.type == "date"]
    return max(lengths, default=0) - min(lengths, default=0) > 1


def _definition(opened: OpenColumn, has_other_end: bool) -> str:
    """Return the definition of a column in words; two are the same if these are.

    Of a calendar the end is said where silos have others.
    """
    column = opened.column
    parts: list[str] = [column.kind_in_words]
    if column.low is not None and column.high is not None:
        step = Decimal(column.step or 1)
        parts.append(f"{column.low * step:f} to {column.high * step:f} in steps of {step:f}")
    if not column.can_be_missing:
        parts.append("never missing")
    if column.type == "date":
        if not column.domain:
            return "date"
        return f"date by periods from {column.domain[0]} {f'to {column.domain[:-1][-1]}' if has_other_end else 'on'}"
    if column.domain:
        text = column.domain.name if isinstance(column.domain, LongDomain) else hash_of(column.domain)
        is_long = len(column.domain) > _FEW
        values = f"{len(column.domain):,} values {text}" if is_long else ", ".join(map(quoted, column.domain))
        parts.append(f"one of {values}; unknown is {quoted(column.unknown or '')}")
    return " ".join(parts)
