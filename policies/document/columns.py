"""The sources of a policy and their columns."""

import re
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Name
from policies.document.section import Days, Label, Section
from policies.units import MAX_DOMAIN, MAX_RANGE_STEPS, Number, Role

STORED_TYPES = {  # the types of a file's columns, in DuckDB's names, that a declared type is read from
    "int": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    "decimal": ("FLOAT", "DOUBLE", "DECIMAL"),
    "bool": ("BOOLEAN",),
    "string": ("VARCHAR", "ENUM"),
    "date": ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
}
Granularity = Literal["day", "week", "month", "quarter", "year"]
SourceKind = Literal["parquet", "csv", "duckdb", "postgres"]


class Column(Section):
    """One column of a source: what it may be used for and what is publicly known of it."""

    type: Literal["int", "decimal", "bool", "string", "date"]
    class_: Literal["public", "internal", "confidential", "sensitive", "special-category", "identifier"] = Field(
        alias="class"
    )
    roles: tuple[Role, ...]
    bounds: tuple[Number, Number] | None = None
    step: Annotated[Number, Field(gt=0)] | None = None
    domain: tuple[str | int, ...] | Literal["discover"] | None = None
    unknown: str | int | None = None
    unit: Label | None = None
    granularity: Granularity | None = None  # of a date: no finer period is ever seen
    missing: Literal["exclude", "zero"] = "exclude"
    sole_dimension: bool = False
    from_: Label | None = Field(default=None, alias="from")  # what the file calls it; never published
    scale: Annotated[Number, Field(gt=0)] = 1  # what the file's value is multiplied by; never published

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale != 1:
            self._check_scale(Decimal(self.scale))
        self._check_roles()
        if self.missing == "zero":
            self._check_missing()
        if self.type == "date" or self.granularity is not None:
            self._check_date()
        self._check_knowledge()
        if self.bounds is not None:
            self._check_bounds(*self.bounds)
        if isinstance(self.domain, tuple):
            self._check_domain(self.domain)
        elif self.domain is not None and self.type != "string":
            raise ValueError(f'domain = "discover" is for a string column, not for {self.type}')
        return self

    def _check_roles(self) -> None:
        """Raise ValueError if a role is not for a column of this class and type."""
        if self.class_ == "identifier" and self.roles:
            raise ValueError("an identifier column may have no role; set roles = []")
        if "measure" in self.roles and self.type == "string":
            raise ValueError("a string column cannot be a measure; remove that role")
        if "measure" in self.roles and self.type in ("int", "decimal") and self.bounds is None:
            raise ValueError("a measure needs bounds = [low, high], from public knowledge, never read from the data")
        if "dimension" in self.roles and self.type not in ("string", "int", "date"):
            raise ValueError(f"a {self.type} column cannot be a dimension; use a string, an int or a date column")
        if self.sole_dimension and "dimension" not in self.roles:
            raise ValueError("sole_dimension is for a dimension; add that role, or remove it")

    def _check_knowledge(self) -> None:
        """Raise ValueError if a role lacks what must be publicly known for it, or a step is for nothing."""
        if "feature" in self.roles and self.type != "bool" and self.bounds is None and self.domain is None:
            raise ValueError("a feature needs bounds or a domain, from public knowledge, never read from the data")
        if "label" in self.roles and self.type != "bool":
            raise ValueError(f"a {self.type} column cannot be a label; use a bool column")
        if "dimension" in self.roles and not self.domain and self.type != "date":
            raise ValueError('a dimension needs domain = ["...", ...], the public list of its values')
        if self.step is not None and self.type not in ("int", "decimal"):
            raise ValueError(f"a {self.type} column has no step; remove it")

    def _check_date(self) -> None:
        if self.type != "date":
            raise ValueError(f"granularity is for a date column, not for {self.type}; remove it")
        if set(self.roles) - {"dimension", "filter"}:
            raise ValueError("a date column is a dimension or a filter, nothing else")
        if self.roles and self.granularity is None:
            raise ValueError('an open date column needs granularity = "day", "week", "month", "quarter" or "year"')

    def _check_missing(self) -> None:
        if self.type not in ("int", "decimal") or self.bounds is None or self.domain is not None:
            raise ValueError('missing = "zero" is for a number with bounds; remove it')
        if not self.bounds[0] <= 0 <= self.bounds[1]:
            raise ValueError(f'missing = "zero" needs bounds that hold 0, not [{self.bounds[0]}, {self.bounds[1]}]')

    def _check_scale(self, scale: Decimal) -> None:
        if self.type not in ("int", "decimal"):
            raise ValueError(f"a {self.type} column has no scale; remove it")
        if self.domain is not None:
            raise ValueError("a column with a domain has no scale; remove one of the two")
        if not Decimal("1e-9") <= scale <= 10**9 or scale % Decimal("1e-9"):
            raise ValueError(f"scale {self.scale} must lie between 1e-9 and 1e9, with at most 9 decimals")

    def _check_bounds(self, low: Number, high: Number) -> None:
        if self.type not in ("int", "decimal"):
            raise ValueError(f"a {self.type} column has no bounds; remove them")
        if self.type == "decimal" and self.step is None:
            raise ValueError("a decimal measure needs step, its smallest unit, because sums are made of integers")
        if not low < high:
            raise ValueError(f"bounds [{low}, {high}]: low must be below high")
        if not -(10**18) <= low < high <= 10**18:
            raise ValueError(f"bounds [{low}, {high}] lie beyond 1e18")
        if not Decimal("1e-9") <= Decimal(self.grid) <= 10**9 or Decimal(self.grid) % Decimal("1e-9"):
            raise ValueError(f"step {self.grid} must lie between 1e-9 and 1e9, with at most 9 decimals")
        if any(Decimal(bound) % Decimal(self.grid) for bound in (low, high)):
            raise ValueError(f"bounds [{low}, {high}] must be multiples of step {self.grid}")
        if Decimal(high - low) / Decimal(self.grid) > MAX_RANGE_STEPS:
            raise ValueError(f"bounds [{low}, {high}] span more than {MAX_RANGE_STEPS} steps of {self.grid}")

    def _check_domain(self, domain: tuple[str | int, ...]) -> None:
        if self.type not in ("string", "int"):
            raise ValueError(f"a {self.type} column has no domain; remove it")
        if len(set(domain)) != len(domain) or len(domain) > MAX_DOMAIN:
            raise ValueError(f"domain names a value twice, or more than {MAX_DOMAIN}")
        kind = str if self.type == "string" else int
        if any(type(value) is not kind for value in domain):
            raise ValueError(f"domain must hold {kind.__name__} values, as the column does")
        if any(len(str(value)) > 80 or not str(value) for value in domain):
            raise ValueError("a domain value is empty or longer than 80 characters")
        if self.unknown not in domain:
            raise ValueError(f"unknown = {self.unknown!r} must be a member of domain, for missing and unlisted values")

    @property
    def values(self) -> tuple[str | int, ...]:
        """The closed list of its values; nothing if there is none, or if it would have to be discovered."""
        return self.domain if isinstance(self.domain, tuple) else ()

    @property
    def grid(self) -> Number:
        return 1 if self.step is None else self.step

    @property
    def range_steps(self) -> tuple[int, int]:
        """The bounds in whole steps; a bool spans 0 to 1."""
        low, high = self.bounds or (0, 1)
        return int(Decimal(low) / Decimal(self.grid)), int(Decimal(high) / Decimal(self.grid))


class Source(Section):
    """One table of the silo. All that leaves a private one has noise; an exact one serves registered models only."""

    release: Literal["private", "exact"] = "private"
    kind: SourceKind
    uri: Annotated[str, Field(min_length=1, max_length=500)]
    time_column: Name | None = None
    lookback_days: Days | None = None  # rows whose time_column lies further back are not read
    columns: Annotated[dict[Name, Column], Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        # Names are matched without case when a file is read. An identifier must not be open under a second key.
        for what, names in (
            ("are the same name", {key: key for key in self.columns}),
            ("read the same column of the file", {key: column.from_ or key for key, column in self.columns.items()}),
        ):
            first: dict[str, str] = {}
            for key, name in names.items():
                other = first.setdefault(name.casefold(), key)
                if other != key:
                    raise ValueError(f"columns {other!r} and {key!r} {what}; remove one")
        check_uri(self.kind, self.uri)
        return self


def kind_of(uri: str) -> SourceKind | None:
    """Return what a place is in, by how it is written; None if that does not say it."""
    if uri.startswith("env:"):
        return "postgres"
    if uri.lower().endswith(".parquet"):
        return "parquet"
    if uri.lower().endswith(".csv"):
        return "csv"
    return "duckdb" if "#" in uri else None


def check_uri(kind: SourceKind, uri: str) -> None:
    """Raise ValueError if `uri` does not name a table of this kind."""
    table = r"#[^\W\d]\w*(\.[^\W\d]\w*)?"
    if kind == "postgres" and not re.fullmatch(rf"env:[A-Za-z_][A-Za-z0-9_]*{table}", uri):
        raise ValueError(
            f"a postgres uri names a variable and a table, env:NAME#TABLE or env:NAME#SCHEMA.TABLE, never a password:"
            f" {uri[:40]!r}"
        )
    if kind == "duckdb" and not re.fullmatch(rf"[^#]+{table}", uri):
        raise ValueError(f"a duckdb uri is FILE#TABLE or FILE#SCHEMA.TABLE, not {uri[:40]!r}")
