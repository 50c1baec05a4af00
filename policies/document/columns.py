"""The sources of a policy and their columns."""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from crypto.wire import Name
from policies.arrays import Of, Shape, check_elements, check_shape
from policies.document.cells import CellRules, Csv, Formats, Markers, listed
from policies.document.searchable import Keys
from policies.document.section import Days, Duration, Label, PowerOfTwo, Section, seconds_of
from policies.domains import HASH_PATTERN, Domain, LongDomain, digest_in
from policies.errors import reason_of
from policies.periods import UNKNOWN
from policies.units import HOUR_S, MAX_DOMAIN, MAX_LONG_DOMAIN, MAX_RANGE_STEPS, ColumnRole, Number

STORED_TYPES = {  # the types of stored columns, in DuckDB's names, by the type that a draft declares for them
    "int": (
        *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    ),
    "decimal": ("FLOAT", "DOUBLE", "DECIMAL"),
    "bool": ("BOOLEAN",),
    "string": ("VARCHAR", "ENUM", "UUID"),
    "date": (
        "DATE",
        "TIMESTAMP",
        "TIMESTAMP_S",
        "TIMESTAMP_MS",
        "TIMESTAMP_NS",
        "TIMESTAMP WITH TIME ZONE",
        "TIMESTAMPTZ_NS",
    ),
}
_NUMBERS = ("int", "decimal")
_WITH_BOUNDS = (*_NUMBERS, "array")
_CELL_KEYS = {  # the rules for cells that a column of some types only can have
    "dates": ("date",),
    "decimal": _NUMBERS,
    "thousands": _NUMBERS,
    "true": ("bool",),
    "false": ("bool",),
    "values": ("string", "int"),
}
_RULES = ("dates", "decimal", "thousands", "true", "false", "trim", "case", "unicode")
Granularity = Literal["day", "week", "month", "quarter", "year"]
SourceKind = Literal["parquet", "csv", "duckdb", "postgres"]


class Column(Section):
    """One column of a source: its roles, and its public bounds or domain."""

    type: Literal["int", "decimal", "bool", "string", "date", "array"]
    class_: Literal["public", "internal", "confidential", "sensitive", "special-category", "identifier"] = Field(
        alias="class"
    )
    roles: tuple[ColumnRole, ...]
    bounds: tuple[Number, Number] | None = None
    step: Annotated[Number, Field(gt=0)] | None = None
    shape: Annotated[Shape, Field(min_length=1)] | None = None  # of an array: how many numbers each axis of a cell has
    of: Of | None = None  # of an array: what its numbers are
    domain: tuple[str | int, ...] | Literal["discover"] | None = None  # or the values of its domain_file, once read
    domain_file: Annotated[str, Field(min_length=1, max_length=200)] | None = None  # beside the policy, a value a line
    domain_hash: Annotated[str, Field(pattern=HASH_PATTERN)] | None = None  # of the values in it
    unknown: str | int | None = None
    keys: Keys | None = None  # of a column with the role key: what its keys are, and how many of one person count
    unit: Label | None = None
    granularity: Granularity | None = None  # of a date: the finest period that leaves
    missing: Literal["exclude", "zero"] | Markers = "exclude"  # or the texts of a missing cell
    can_be_missing: bool = True  # false: public knowledge that every cell of this measure holds a value
    sole_dimension: bool = False
    narrow: bool = False  # whether requests may define it more narrowly, which makes of a measure a filter
    from_: Label | None = Field(default=None, alias="from")  # the column's name in the file; never published
    scale: Annotated[Number, Field(gt=0)] = 1  # the factor for values in the file; never published
    values: Annotated[dict[str, str], Field(min_length=1, max_length=10_000)] | None = None  # by the file's text
    # As in `CellRules`, where this column is written otherwise than its source.
    dates: Annotated[Formats, BeforeValidator(listed)] | None = None
    decimal: Literal[".", ","] | None = None
    thousands: Literal["", ",", ".", "'", " "] | None = None
    true: Annotated[Markers, Field(min_length=1)] | None = None
    false: Annotated[Markers, Field(min_length=1)] | None = None
    trim: bool | None = None
    case: Literal["exact", "ignore"] | None = None
    unicode: Literal["NFC", "as-written"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale != 1:
            self._check_scale(Decimal(self.scale))
        self._check_array()
        self._check_roles()
        if self.missing == "zero":
            self._check_missing()
        if not self.can_be_missing and self.bounds is None and self.type != "bool":
            raise ValueError("can_be_missing = false is for a measure: a number with bounds, or a bool; remove it")
        if self.type == "date" or self.granularity is not None:
            self._check_date()
        self._check_knowledge()
        self._check_cells()
        if self.bounds is not None:
            self._check_bounds(*self.bounds)
        if isinstance(self.domain, tuple):
            self._check_domain(self.domain)
        elif self.domain is not None and self.type != "string":
            raise ValueError(f'domain = "discover" is for a string column, not for {self.type}')
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return what a policy says of the column: of a domain in a file its hash, not its values."""
        found: dict[str, Any] = write(self)
        return found if self.domain_file is None else {key: one for key, one in found.items() if key != "domain"}

    def _check_array(self) -> None:
        """Raise ValueError if an array lacks what it needs, or has what one number has, or if the column is none."""
        if self.type != "array":
            if self.shape is not None or self.of is not None:
                raise ValueError(f"shape and of are for an array, not for {self.type}; remove them")
            return
        if self.roles and (self.shape is None or self.of is None or self.bounds is None):
            text = 'such as shape = [8, 8], of = "int" (or "decimal", with a step) and bounds = [0, 16]'
            raise ValueError(f"an open array needs shape, of and bounds, {text}")
        check_shape(self.shape or ())
        if others := [role for role in self.roles if role != "feature"]:
            raise ValueError(f"an array is a feature of a network, and nothing else; remove the role {others[0]}")
        if not self.can_be_missing or self.narrow or not isinstance(self.missing, str):
            raise ValueError("an array has no can_be_missing, no narrow and no texts for missing cells; remove them")

    def _check_roles(self) -> None:
        """Raise ValueError if a role does not fit the column's class and type."""
        if self.class_ == "identifier" and self.roles:
            raise ValueError("an identifier column may have no role; set roles = []")
        if "measure" in self.roles and self.type == "string":
            raise ValueError("a string column cannot be a measure; remove that role")
        if "measure" in self.roles and self.type in ("int", "decimal") and self.bounds is None:
            raise ValueError("a measure needs bounds = [low, high], from public knowledge, never read from the data")
        if ("key" in self.roles) != (self.keys is not None):
            text = 'the role "key" needs keys = { alphabet = "0-9A-Z", length = 6, most = 2 }, and keys need that role'
            raise ValueError(f"{text}; add the other, or remove this one")
        if "key" in self.roles and self.type != "string":
            raise ValueError(f"keys are found of a string column, not of {self.type}; remove keys and the role key")
        if "held_out" in self.roles and self.type != "bool":
            raise ValueError(f"a bool says which rows are held out, a {self.type} column does not; remove that role")
        if "dimension" in self.roles and self.type == "decimal":
            raise ValueError("a decimal column cannot be a dimension; use a string, an int, a bool or a date column")
        if self.sole_dimension and "dimension" not in self.roles:
            raise ValueError("sole_dimension is for a dimension; add that role, or remove it")
        if self.narrow and not set(self.roles) & {"measure", "dimension", "feature"}:
            raise ValueError("narrow is for a measure, a dimension or a feature; add such a role, or remove it")

    def _check_knowledge(self) -> None:
        """Raise ValueError if a role lacks the public bounds or domain that it needs, or a step has no use."""
        has_domain = bool(self.domain) or self.domain_file is not None  # whose values a draft does not have yet
        if "feature" in self.roles and self.type != "bool" and self.bounds is None and not has_domain:
            raise ValueError("a feature needs bounds or a domain, from public knowledge, never read from the data")
        if "label" in self.roles and self.type != "bool" and self.bounds is None and not has_domain:
            raise ValueError("a label needs bounds or a domain, from public knowledge, or be a bool")
        if "audit" in self.roles and self.type != "bool" and not has_domain:
            raise ValueError("a column for audits needs a domain, from public knowledge, or is a bool")
        if "dimension" in self.roles and not has_domain and self.type not in ("date", "bool"):
            raise ValueError('a dimension needs domain = ["...", ...], the public list of its values')
        if self.step is not None and self.type not in _WITH_BOUNDS:
            raise ValueError(f"a {self.type} column has no step; remove it")

    def _check_cells(self) -> None:
        """Raise ValueError where a rule for cells is for another type."""
        for key, types in _CELL_KEYS.items():
            if getattr(self, key) is not None and self.type not in types:
                raise ValueError(f"{key} is for {' and '.join(types)} columns, not for {self.type}; remove it")
        if self.values is not None and self.scale != 1:
            raise ValueError("a column with values has no scale; remove one of the two")

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
        if self.type not in _WITH_BOUNDS:
            raise ValueError(f"a {self.type} column has no bounds; remove them")
        if "decimal" in (self.type, self.of) and self.step is None:
            what = "measure" if self.type == "decimal" else self.type
            raise ValueError(f"a decimal {what} needs step, its smallest unit, because sums are made of integers")
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
        if self.of is not None:
            check_elements(self.of, *self.range_steps, Decimal(self.grid))

    def _check_domain(self, domain: tuple[str | int, ...]) -> None:
        if self.type not in ("string", "int"):
            raise ValueError(f"a {self.type} column has no domain; remove it")
        if self.domain_file is None:  # `policies.document.domain_files` has checked the values of a file
            self._check_listed(domain)
        if self.unknown not in domain:
            raise ValueError(f"unknown = {self.unknown!r} must be a member of domain, for missing and unlisted values")

    def _check_listed(self, domain: tuple[str | int, ...]) -> None:
        if len(set(domain)) != len(domain):
            raise ValueError("domain names a value twice")
        if len(domain) > MAX_DOMAIN:
            text = f"domain names more than {MAX_DOMAIN} values; put up to {MAX_LONG_DOMAIN:,} into a file, one a line"
            raise ValueError(f'{text}, and write domain_file = "FILE" instead')
        kind = str if self.type == "string" else int
        if any(type(value) is not kind for value in domain):
            raise ValueError(f"domain must hold {kind.__name__} values, as the column does")
        if any(len(str(value)) > 80 or not str(value) for value in domain):
            raise ValueError("a domain value is empty or longer than 80 characters")
        if not all(str(value).isprintable() for value in domain):
            raise ValueError("a domain value has a character that is not seen or moves others; remove it")

    @property
    def open_roles(self) -> tuple[ColumnRole, ...]:
        """The roles in which requests may use it: while its values are to be found, only to find keys."""
        return tuple(role for role in self.roles if self.domain != "discover" or role == "key")

    @property
    def members(self) -> tuple[str | int, ...]:
        """The closed list of its values; empty if there is none, or if only the data would tell it."""
        if self.type == "bool" and "dimension" in self.roles:
            return ("false", "true", UNKNOWN)
        return self.domain if isinstance(self.domain, tuple) else ()

    @property
    def listed(self) -> Domain:
        """The same in text, as it is published: a long one goes by its hash."""
        values = self.members
        if len(values) <= MAX_DOMAIN or self.domain_hash is None:
            return tuple(map(str, values))
        return LongDomain(digest_in(self.domain_hash), len(values), _in_text(values))

    @property
    def unlisted(self) -> str | int | None:
        """The member that a missing cell and one outside the list count as; None without a list."""
        return UNKNOWN if self.type == "bool" and self.members else self.unknown

    @property
    def grid(self) -> Number:
        return 1 if self.step is None else self.step

    @property
    def is_always_there(self) -> bool:
        """Whether every row has a value of this measure, as far as anybody can tell from the policy."""
        return not self.can_be_missing or self.missing == "zero"

    @property
    def range_steps(self) -> tuple[int, int]:
        """The bounds in whole steps; a bool spans 0 to 1."""
        low, high = self.bounds or (0, 1)
        return int(Decimal(low) / Decimal(self.grid)), int(Decimal(high) / Decimal(self.grid))


@lru_cache(maxsize=16)
def _in_text(values: tuple[str | int, ...]) -> tuple[str, ...]:
    return tuple(map(str, values))


class Source(CellRules):
    """One table of the silo. Results of a private source have noise; an exact source serves registered models only."""

    release: Literal["private", "exact"] = "private"
    kind: SourceKind
    uri: Annotated[str, Field(min_length=1, max_length=500)]
    pattern: bool = False  # whether the uri is a pattern of several files' names
    csv: Csv | None = None
    read: Literal["every-request", "prepared"] = "every-request"  # or kept as numbers, and read again when it changes
    prepared_for: Duration | None = None  # how long after its files were last seen unchanged a prepared source is used
    max_unreadable: Annotated[Number, Field(ge=0, le=1)] = Decimal("0.01")  # of a column's cells, at a start
    time_column: Name | None = None
    lookback_days: Days | None = None  # rows with an older time_column are not read
    rows_up_to: PowerOfTwo | None = None  # as many rows as the declared time of a plan is for; public
    one_row: bool = False  # of each person: its columns may stand beside the rows of other tables
    adopts: Annotated[str, Field(pattern=HASH_PATTERN)] | None = None  # the table definition that silos agreed on
    columns: Annotated[dict[Name, Column], Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        # Files are read with case-insensitive names, so an identifier must not be open under a second spelling.
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
        check_arrays(self.kind, self.columns)
        check_dialect(self.kind, self.pattern, self.csv)
        if self.prepared_for is not None and self.read != "prepared":
            raise ValueError('prepared_for is for read = "prepared"; remove it')
        for key, column in self.columns.items():
            try:
                rules = self.rules(column)
            except ValidationError as err:
                raise ValueError(f"column {key!r}: {reason_of(err)}") from err
            if (text := why_not_folded(column, rules.case)) is not None:
                raise ValueError(f"column {key!r}: {text}")
        return self

    @property
    def prepared_s(self) -> int:
        """How many seconds a prepared source is used after its files were last seen unchanged."""
        return HOUR_S if self.prepared_for is None else seconds_of(self.prepared_for)

    def rules(self, column: Column) -> CellRules:
        """Return how the cells of one of its columns are written."""
        own = {key: value for key in _RULES if (value := getattr(column, key)) is not None}
        if not isinstance(column.missing, str):
            own["missing"] = column.missing
        return CellRules.model_validate({key: getattr(self, key) for key in CellRules.model_fields} | own)


def why_not_folded(column: Column, case: str | None) -> str | None:
    """Return why capital letters must count in a column; None if they need not."""
    if case != "ignore" or len(column.members) <= MAX_DOMAIN:
        return None
    return f'case = "ignore" is for a domain of at most {MAX_DOMAIN} values; write case = "exact" for this column'


def check_arrays(kind: SourceKind, columns: Mapping[str, Column]) -> None:
    """Raise ValueError if a kind of location has no arrays, and a column is one."""
    for key, column in columns.items():
        if column.type == "array" and kind not in ("parquet", "duckdb"):
            text = 'write the table as Parquet, and take kind = "parquet", or remove the column'
            raise ValueError(f"column {key!r}: an array is read from Parquet or DuckDB, not from {kind}; {text}")


def check_dialect(kind: SourceKind, pattern: bool, csv: Csv | None) -> None:
    """Raise ValueError if a kind of location has no such thing as a dialect or a pattern."""
    if csv is not None and kind != "csv":
        raise ValueError(f"csv is for CSV files, not for {kind}; remove it")
    if pattern and kind not in ("csv", "parquet"):
        raise ValueError(f"pattern is for CSV and Parquet files, not for {kind}; remove it")


def kind_of(uri: str) -> SourceKind | None:
    """Return the kind of a location, from how its URI is written; None if the URI does not tell."""
    if uri.startswith("env:"):
        return "postgres"
    if uri.lower().endswith(".parquet"):
        return "parquet"
    if uri.lower().endswith((".csv", ".csv.gz")):
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
