"""A source of a policy as it is read: its columns by the policy's names, with the rules for their cells.

One reading serves the check at the start, the profile for the owner, and every request.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from policies.document.cells import CellRules
from policies.document.columns import Column
from policies.document.policy import IdDifference, Policy
from silo_node.data import arrays
from silo_node.data.cells import (
    DAY,
    check_readable,
    day_of,
    id_text,
    is_native,
    person_in,
    present,
    quote,
    text_of,
    time_rules,
    value_of,
)
from silo_node.data.locations import Files, Location, Part, Stored, location_of, stored_in


@dataclass(frozen=True, slots=True)
class Source:
    """A checked data source: its location, and its readable columns by the policy's names, with the rules for cells."""

    name: str
    uri: str  # as the policy writes it
    location: Location
    columns: Mapping[str, Column]
    rules: Mapping[str, CellRules]
    unit: str  # the key of the column that says whose row it is
    id_form: tuple[IdDifference, ...] | None = None
    time_column: str | None = None
    lookback_days: int | None = None  # rows whose `DAY` lies further back are not read
    is_strict: bool = False

    @property
    def view(self) -> str:
        return quote(f"source {self.name}")

    @property
    def required(self) -> frozenset[str]:
        return frozenset(column.from_ or key for key, column in self.columns.items())

    def narrowed(self, keys: Iterable[str]) -> "Source":
        """Return the source with these columns only, and with the one that tells how old a row is, if it counts."""
        kept = {*keys, *([self.time_column] if self.lookback_days is not None else [])}
        return replace(self, columns={key: column for key, column in self.columns.items() if key in kept})

    def stored(self, part: Part, key: str) -> Stored:
        """Return where a column is stored in a part; raises SourceError."""
        return stored_in(part, self.columns[key].from_ or key)

    def readable(self, part: Part, key: str) -> None:
        """Raise SourceError unless a part has the column, stored as what cells are read from."""
        what, stored = f"column {key!r} of {part.name}", self.stored(part, key).type
        if self.columns[key].type == "array":
            arrays.check_stored(what, self.columns[key], stored)
        else:
            check_readable(what, stored)

    def rules_in(self, part: Part, key: str) -> CellRules:
        """Return the rules for a column's cells as a part stores them."""
        rules = self.rules[key]
        return time_rules(rules, self.stored(part, key).type) if self.columns[key].type == "date" else rules

    def texts(self, part: Part) -> str:
        """Return the SQL of the texts of the cells of a part, by the policy's names; NULL where one is missing."""
        formed, kept = [], []
        for key, column in self.columns.items():
            cell, stored = self.stored(part, key)
            rules, name = self.rules_in(part, key), quote(key)
            if column.type == "array":
                formed.append(f"{cell} AS {name}")
                kept.append(name)
            elif is_native(stored, column, rules, is_id=key == self.unit):
                formed.append(f"{cell} AS {name}")
                kept.append(f"CASE WHEN NOT isnan({name}) THEN {name} END AS {name}" if stored == "DOUBLE" else name)
            else:
                text = id_text(cell, stored, rules) if key == self.unit else text_of(cell, stored, rules)
                formed.append(f"{text} AS {name}")
                kept.append(f"{present(name, rules)} AS {name}")
        return f"(SELECT {', '.join(kept)} FROM (SELECT {', '.join(formed)} FROM {part.relation}))"  # noqa: S608

    def values(self, part: Part) -> dict[str, str]:
        """Return the SQL of the value of each cell of a part, from its text; of the id, the person."""
        found = {}
        for key, column in self.columns.items():
            stored, rules = self.stored(part, key).type, self.rules_in(part, key)
            if key == self.unit:
                found[key] = person_in(quote(key), stored, self.id_form)
            elif column.type == "array":
                has_others = isinstance(self.location, Files) and self.location.pattern is not None
                found[key] = arrays.value_of(quote(key), column, stored, has_other_files=has_others)
            else:
                native = is_native(stored, column, rules, is_id=False)
                found[key] = value_of(quote(key), column, rules, is_native=native)
        return found

    def select(self, part: Part) -> str:
        cells = [f"{value} AS {quote(key)}" for key, value in self.values(part).items()]
        if self.lookback_days is not None and self.time_column is not None:
            key = self.time_column
            cells.append(f"{day_of(f'CAST({quote(key)} AS VARCHAR)', self.rules_in(part, key))} AS {quote(DAY)}")
        return f"SELECT {', '.join(cells)} FROM {self.texts(part)}"  # noqa: S608


def source_of(policy: Policy, name: str, home: Path) -> Source:
    """Return a source of the policy whose rows were not looked at; raises SourceError if its location is missing."""
    declared, unit = policy.sources[name], policy.privacy_unit.id_column
    location = location_of(f"source {name!r}", declared.kind, declared.uri, home, declared.csv, declared.pattern)
    needed = (unit, policy.consent_column, declared.time_column)
    # A column that is closed is never read.
    readable = {key: column for key, column in declared.columns.items() if column.roles or key in needed}
    rules = {key: declared.rules(column) for key, column in readable.items()}
    rules[unit] = id_rules(rules[unit])
    form = policy.privacy_unit.id_form
    return Source(
        name, declared.uri, location, readable, rules, unit, form, declared.time_column, declared.lookback_days
    )


def id_rules(rules: CellRules) -> CellRules:
    """Return the rules for the cells of ids: text, trimmed, in one Unicode form; `id_form` says what else is equal."""
    return CellRules(missing=rules.missing)
