"""The policy of one silo as frozen values; `policies.load` reads it from TOML.

Whatever a policy leaves out is closed: no analyst, no aggregate, no backend, no dimension.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from crypto.errors import SignatureError
from crypto.keys import VerifyKey
from crypto.manifest import BackendName
from crypto.wire import Name

Number = int | Decimal
Rho = Annotated[Number, Field(ge=Decimal("0.000001"), le=100)]
Label = Annotated[str, Field(min_length=1, max_length=120)]
Role = Literal["dimension", "measure", "filter", "feature", "label"]
MICRO = 1_000_000  # the ledger counts in millionths of zCDP rho
MAX_RANGE_STEPS = 2**32
MAX_DOMAIN = 1000
MAX_STEPS = 1000  # of a training run
MIN_DELTA, MAX_DELTA = Decimal("1e-12"), Decimal("1e-5")


STORED_TYPES = {  # the types of a file's columns, in DuckDB's names, that a declared type is read from
    "int": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    "decimal": ("FLOAT", "DOUBLE", "DECIMAL"),
    "bool": ("BOOLEAN",),
    "string": ("VARCHAR", "ENUM"),
}


class Section(BaseModel):
    """Root of every policy section: immutable, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Column(Section):
    """One column of a source: what it may be used for and what is publicly known of it."""

    type: Literal["int", "decimal", "bool", "string"]
    class_: Literal["public", "internal", "confidential", "sensitive", "special-category", "identifier"] = Field(
        alias="class"
    )
    roles: tuple[Role, ...]
    bounds: tuple[Number, Number] | None = None
    step: Annotated[Number, Field(gt=0)] | None = None
    domain: tuple[str | int, ...] | None = None
    unknown: str | int | None = None
    unit: Label | None = None
    from_: Label | None = Field(default=None, alias="from")  # what the file calls it; never published
    scale: Annotated[Number, Field(gt=0)] = 1  # what the file's value is multiplied by; never published

    @field_validator("from_")
    @classmethod
    def _check_from(cls, name: str | None) -> str | None:
        if name is not None and not name.isprintable():
            raise ValueError("the name of a column in the file must be printable")
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale != 1:
            self._check_scale(Decimal(self.scale))
        if self.class_ == "identifier" and self.roles:
            raise ValueError("an identifier column may have no role; set roles = []")
        if "measure" in self.roles and self.type == "string":
            raise ValueError("a string column cannot be a measure; remove that role")
        if "measure" in self.roles and self.type in ("int", "decimal") and self.bounds is None:
            raise ValueError("a measure needs bounds = [low, high], from public knowledge, never read from the data")
        if "dimension" in self.roles and self.type not in ("string", "int"):
            raise ValueError(f"a {self.type} column cannot be a dimension; use a string or an int column")
        if "feature" in self.roles and self.type != "bool" and self.bounds is None and self.domain is None:
            raise ValueError("a feature needs bounds or a domain, from public knowledge, never read from the data")
        if "label" in self.roles and self.type != "bool":
            raise ValueError(f"a {self.type} column cannot be a label; use a bool column")
        if "dimension" in self.roles and not self.domain:
            raise ValueError('a dimension needs domain = ["...", ...], the public list of its values')
        if self.bounds is not None:
            self._check_bounds(*self.bounds)
        if self.domain is not None:
            self._check_domain(self.domain)
        return self

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
    kind: Literal["parquet", "csv"]
    uri: Annotated[str, Field(min_length=1, max_length=500)]
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
        return self


class Head(Section):
    """Which version of the policy this is, and when it holds."""

    id: Name
    version: Annotated[int, Field(ge=1)]
    valid_from: datetime
    valid_until: datetime

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.valid_from.tzinfo is None or self.valid_until.tzinfo is None:
            raise ValueError("valid_from and valid_until need a time zone, as in 2026-10-01T00:00:00Z")
        if self.valid_from >= self.valid_until:
            raise ValueError("valid_from must be before valid_until")
        return self


class Silo(Section):
    """Who answers for the data."""

    id: Name
    controller: Label
    sector: Literal["bank", "hospital", "retailer", "other"]
    jurisdiction: Label
    contact: Label


class PrivacyUnit(Section):
    """Who one protected person is, and how much of a person may enter one request."""

    entity: Label
    id_column: Name
    max_rows: Annotated[int, Field(ge=1, le=10_000)]
    max_silos: Annotated[int, Field(ge=1, le=100)] = 1


class ConsentTable(Section):
    """A file of decisions, one row per person, purpose and decision; read anew at every request."""

    mode: Literal["table"]
    source: Annotated[str, Field(min_length=1, max_length=500)]
    subject: Name
    purpose: Name
    given_at: Name
    withdrawn_at: Name
    expires_at: Name | None = None
    receipt_id: Name | None = None
    missing: Literal["exclude"] = "exclude"
    check: Literal["every-request"] = "every-request"

    @field_validator("source")
    @classmethod
    def _check_source(cls, uri: str) -> str:
        if not uri.endswith((".parquet", ".csv")):
            raise ValueError("the decisions must stand in a .parquet or a .csv file")
        return uri


class ConsentColumn(Section):
    """The decision stands in each row, kept up to date by a feed that must not be older than it may."""

    mode: Literal["column"]
    column: Name
    stale_after_hours: Annotated[Number, Field(gt=0, le=24 * 366)]
    missing: Literal["exclude"] = "exclude"
    check: Literal["every-request"] = "every-request"


class Purpose(Section):
    """Something the data may be used for, by which computations, and whom it leaves out."""

    legal_basis: Literal[
        "consent", "contract", "legal-obligation", "vital-interest", "public-task", "legitimate-interest"
    ]
    consent: Literal["opt-in", "opt-out", "none"] = "none"
    consent_values: Annotated[tuple[Label, ...], Field(min_length=1, max_length=100)] | None = None
    computations: tuple[Literal["query", "logistic-regression"], ...]
    vocabulary: Label | None = None
    ethics_ref: Label | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.legal_basis == "consent" and self.consent != "opt-in":
            raise ValueError('legal_basis = "consent" needs consent = "opt-in"')
        if self.consent == "none" and self.consent_values is not None:
            raise ValueError('consent_values need consent = "opt-in" or "opt-out"')
        return self


class Lifetime(Section):
    """What may ever be spent on one person, over all purposes and analysts."""

    rho: Rho


class PerRequest(Section):
    """What one request may spend, and what it must spend to be worth asking."""

    max_rho: Rho
    min_rho: Rho

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_rho > self.max_rho:
            raise ValueError(f"min_rho {self.min_rho} is above max_rho {self.max_rho}")
        return self


class Limit(Section):
    """What one purpose may spend within one calendar window (UTC), and how much of that one analyst may."""

    purpose: Name
    window: Literal["calendar-day", "calendar-week", "calendar-month", "calendar-quarter", "calendar-year"]
    rho: Rho
    per_analyst_rho: Rho | None = None


class Budget(Section):
    """The privacy budget in zCDP rho; epsilon is shown at `delta`."""

    delta: Annotated[Number, Field(ge=MIN_DELTA, le=MAX_DELTA)]
    lifetime: Lifetime
    per_request: PerRequest | None = None
    limits: Annotated[tuple[Limit, ...], Field(max_length=100)] = ()

    @property
    def lifetime_micro(self) -> int:
        return micro_floor(self.lifetime.rho)

    @property
    def request_micro(self) -> tuple[int, int]:
        """The least and the most that one request may cost, in micro-rho."""
        if self.per_request is None:
            return 1, self.lifetime_micro
        return micro_floor(self.per_request.min_rho), micro_floor(self.per_request.max_rho)


class Training(Section):
    """Which runs of training the silo takes part in; without this section none."""

    max_rounds: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    dp: Literal["required", "optional"] = "required"
    clip_norm: Annotated[Number, Field(gt=0, le=100_000)]
    max_rho_per_run: Rho


class Disclosure(Section):
    """What may leave."""

    min_cohort: Annotated[int, Field(ge=2)] = 10
    min_silos: Annotated[int, Field(ge=3, le=100)] = 3
    max_dimensions: Annotated[int, Field(ge=0, le=8)] = 0
    max_groups: Annotated[int, Field(ge=1, le=100_000)] = 1
    aggregates: tuple[Literal["count", "sum", "avg"], ...] = ()


class Protection(Section):
    """Which secure sums the silo takes part in, and what they must withstand."""

    accept: tuple[BackendName, ...] = ()
    max_colluding: Annotated[int, Field(ge=1, le=100)] = 1
    max_missing: Annotated[int, Field(ge=0, le=100)] = 0


class Analyst(Section):
    """Who may ask, for which purposes, until when; `key` is the analyst's verification key."""

    key: str
    purposes: Annotated[tuple[Name, ...], Field(max_length=100)]
    until: datetime

    @field_validator("key")
    @classmethod
    def _check_key(cls, text: str) -> str:
        try:
            VerifyKey.parse(text)
        except SignatureError as err:
            raise ValueError(f"{err.message}; expected ed25519:<64 hexadecimal digits>") from err
        return text

    @field_validator("until")
    @classmethod
    def _check_until(cls, until: datetime) -> datetime:
        if until.tzinfo is None:
            raise ValueError("until needs a time zone, as in 2027-03-31T23:59:59Z")
        return until


class Policy(Section):
    """One silo's policy."""

    schema_: Literal["silo-policy/1"] = Field(alias="schema")
    mode: Literal["trial", "production"] = "trial"
    policy: Head | None = None
    silo: Silo
    privacy_unit: PrivacyUnit
    sources: Annotated[dict[Name, Source], Field(min_length=1, max_length=100)]
    purposes: Annotated[dict[Name, Purpose], Field(min_length=1, max_length=100)]
    consent: Annotated[ConsentTable | ConsentColumn, Field(discriminator="mode")] | None = None
    budget: Budget
    disclosure: Disclosure = Disclosure()
    protection: Protection = Protection()
    training: Training | None = None
    analysts: dict[Name, Analyst] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.mode == "production" and self.policy is None:
            problems.append('policy: mode = "production" needs id, version, valid_from and valid_until')
        unit = self.privacy_unit.id_column
        for name, source in self.sources.items():
            if unit not in source.columns:
                problems.append(f"sources.{_key(name)}.columns: there is no {unit!r}, the privacy_unit.id_column")
            elif source.columns[unit].roles:
                problems.append(
                    f"sources.{_key(name)}.columns.{_key(unit)}.roles: the id_column may have no role; set roles = []"
                )
            elif source.columns[unit].scale != 1:
                problems.append(f"sources.{_key(name)}.columns.{_key(unit)}.scale: the id_column may have no scale")
        for name, purpose in self.purposes.items():
            if purpose.consent != "none" and self.consent is None:
                path = f"purposes.{_key(name)}.consent"
                problems.append(
                    f"{path}: {purpose.consent!r} needs a [consent] section that says where decisions stand"
                )
        if isinstance(self.consent, ConsentColumn):
            for name, source in self.sources.items():
                column = source.columns.get(self.consent.column)
                if column is None or column.type != "bool":
                    problems.append(
                        f"sources.{_key(name)}.columns: there is no bool {self.consent.column!r} for consent"
                    )
        for index, limit in enumerate(self.budget.limits):
            if limit.purpose not in self.purposes:
                offered = ", ".join(self.purposes)
                problems.append(f"budget.limits.{index}.purpose: {limit.purpose!r} is not in purposes ({offered})")
        for name, analyst in self.analysts.items():
            for purpose_name in analyst.purposes:
                if purpose_name not in self.purposes:
                    offered = ", ".join(self.purposes)
                    problems.append(f"analysts.{_key(name)}.purposes: {purpose_name!r} is not in purposes ({offered})")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _key(name: str) -> str:
    """Return a key as it stands in TOML: quoted where it holds a dot."""
    return f'"{name}"' if "." in name else name


def micro_floor(rho: Number) -> int:
    """Return a limit in micro-rho, rounded down: a limit is never widened by rounding."""
    return int(Decimal(rho) * MICRO)
