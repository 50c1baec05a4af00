"""The policy of one silo as frozen values; `policies.load` reads it from TOML.

Whatever a policy leaves out is closed: no analyst, no aggregate, no backend, no dimension. What two sections must have
in common is checked by `policies.consistency`, on the document, so that one bad section hides nothing of another.
"""

import difflib
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from crypto.errors import SignatureError
from crypto.keys import VerifyKey
from crypto.manifest import BackendName
from crypto.wire import Jurisdiction, Name
from policies.vocabulary import ETHICS_APPROVAL, GEOGRAPHICAL, KNOWN

Number = int | Decimal
Rho = Annotated[Number, Field(ge=Decimal("0.000001"), le=100)]
Label = Annotated[str, Field(min_length=1, max_length=120)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Days = Annotated[int, Field(ge=1, le=36_500)]
# An analyst, or with *@ whoever of a domain holds the one key; they share what one analyst may spend.
AnalystName = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^(\*@)?[A-Za-z0-9][A-Za-z0-9._@+/-]*$")]
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
    "date": ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
}
Granularity = Literal["day", "week", "month", "quarter", "year"]
SourceKind = Literal["parquet", "csv", "duckdb", "postgres"]
Computation = Literal[
    "query", "logistic-regression", "linear-regression", "gradient-boosting", "k-means", "cox", "neural-network"
]
AggregateName = Literal["count", "sum", "avg", "var", "histogram", "quantile"]
# What this version computes. Of the rest a policy may already speak; every request for it is denied.
BUILT_NOISE = "distributed"
BUILT_SECURITY_BITS = 128  # X25519 beside ML-KEM-768, Ed25519


class Section(BaseModel):
    """Root of every policy section: immutable, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


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
        if self.missing == "zero":
            self._check_missing()
        if self.type == "date" or self.granularity is not None:
            self._check_date()
        if "feature" in self.roles and self.type != "bool" and self.bounds is None and self.domain is None:
            raise ValueError("a feature needs bounds or a domain, from public knowledge, never read from the data")
        if "label" in self.roles and self.type != "bool":
            raise ValueError(f"a {self.type} column cannot be a label; use a bool column")
        if "dimension" in self.roles and not self.domain and self.type != "date":
            raise ValueError('a dimension needs domain = ["...", ...], the public list of its values')
        if self.step is not None and self.type not in ("int", "decimal"):
            raise ValueError(f"a {self.type} column has no step; remove it")
        if self.bounds is not None:
            self._check_bounds(*self.bounds)
        if isinstance(self.domain, tuple):
            self._check_domain(self.domain)
        elif self.domain is not None and self.type != "string":
            raise ValueError(f'domain = "discover" is for a string column, not for {self.type}')
        return self

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


class SignedBy(Section):
    """Who signs the policy, and how many of them must; one more for a version that loosens anything."""

    need: Annotated[int, Field(ge=1, le=100)]
    of: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_need(self.need, self.of)
        return self


class Head(Section):
    """Which version of the policy this is, when it holds, and who answers for it."""

    id: Name
    version: Annotated[int, Field(ge=1, le=2**31)]
    previous: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None  # the file of the last version
    valid_from: datetime
    valid_until: datetime
    signed_by: SignedBy | None = None

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
    jurisdiction: Jurisdiction
    contact: Label


class PrivacyUnit(Section):
    """Who one protected person is, and how much of a person may enter one request."""

    entity: Label
    id_column: Name
    max_rows: Annotated[int, Field(ge=1, le=10_000)]
    max_groups: Annotated[int, Field(ge=1, le=10_000)] | None = None  # of one person in one GROUP BY
    max_silos: Annotated[int, Field(ge=1, le=100)] = 1


class ConsentTable(Section):
    """A table of decisions, one row per person, purpose and decision; read anew at every request."""

    mode: Literal["table"]
    source: Annotated[str, Field(min_length=1, max_length=500)]
    subject: Name
    purpose: Name
    given_at: Name
    withdrawn_at: Name
    expires_at: Name | None = None
    receipt_id: Name | None = None
    stale_after_hours: Annotated[Number, Field(gt=0, le=24 * 366)] | None = None
    missing: Literal["exclude"] = "exclude"
    check: Literal["every-request"] = "every-request"

    @field_validator("source")
    @classmethod
    def _check_source(cls, uri: str) -> str:
        kind = kind_of(uri)
        if kind is None:
            raise ValueError(
                "the decisions must stand in a .parquet or a .csv file, in FILE#TABLE or in env:NAME#TABLE"
            )
        check_uri(kind, uri)
        return uri

    @property
    def kind(self) -> SourceKind:
        """What the decisions stand in, which the source says."""
        kind = kind_of(self.source)
        assert kind is not None  # noqa: S101  as checked above
        return kind


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
    computations: tuple[Computation, ...]
    vocabulary: Label | None = None
    ethics_ref: Label | None = None
    recipients_in: Annotated[tuple[Jurisdiction, ...], Field(max_length=300)] | None = (
        None  # None: wherever the roster is
    )

    @field_validator("vocabulary")
    @classmethod
    def _check_vocabulary(cls, word: str | None) -> str | None:
        if word is not None and word not in KNOWN:
            close = difflib.get_close_matches(word, sorted(KNOWN), 1)
            meant = f"; did you mean {close[0]!r}" if close else "; see DPV's purposes and GA4GH's DUO"
            raise ValueError(f"no word of DPV or DUO (found {word!r}{meant})")
        return word

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.legal_basis == "consent" and self.consent != "opt-in":
            raise ValueError('legal_basis = "consent" needs consent = "opt-in"')
        if self.consent == "none" and self.consent_values is not None:
            raise ValueError('consent_values need consent = "opt-in" or "opt-out"')
        if self.vocabulary == ETHICS_APPROVAL and self.ethics_ref is None:
            raise ValueError(f"{ETHICS_APPROVAL} means that ethics approval is required; give ethics_ref")
        if self.vocabulary == GEOGRAPHICAL and self.recipients_in is None:
            raise ValueError(f"{GEOGRAPHICAL} means a geographical restriction; give recipients_in")
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
    """What one purpose may spend within one window, and how much of that one analyst may.

    A calendar window is of the clock (UTC), a data-month is each month of the data that a request reads.
    """

    purpose: Name
    window: Literal[
        "calendar-day", "calendar-week", "calendar-month", "calendar-quarter", "calendar-year", "data-month"
    ]
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
    suppress: Literal["drop"] = "drop"
    release: tuple[Literal["query-result", "model"], ...] = ("query-result", "model")
    aggregates: tuple[AggregateName, ...] = ()


class Protection(Section):
    """Which secure sums the silo takes part in, and what they must withstand."""

    accept: tuple[BackendName, ...] = ()
    security_bits: Literal[128, 192, 256] = 128
    noise: Literal["distributed", "local-full"] = "distributed"
    max_colluding: Annotated[int, Field(ge=1, le=100)] = 1
    max_missing: Annotated[int, Field(ge=0, le=100)] = 0


def _check_key(text: str) -> str:
    try:
        VerifyKey.parse(text)
    except SignatureError as err:
        raise ValueError(f"{err.message}; expected ed25519:<64 hexadecimal digits>") from err
    return text


PublicKey = Annotated[str, AfterValidator(_check_key)]


class Person(Section):
    """Somebody who signs policies or approves requests, by this verification key."""

    key: PublicKey


class When(Section):
    """Which requests somebody must approve: those for which all that is given here holds; all if nothing is."""

    kind: Literal["query", "training"] | None = None
    purpose: Name | None = None
    rho_at_least: Rho | None = None  # of a training run: all its steps together


class ApprovalRule(Section):
    """How many of which people must approve such a request, and how long each approval lasts."""

    when: When = When()
    need: Annotated[int, Field(ge=1, le=100)]
    of: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
    expires_hours: Annotated[int, Field(ge=1, le=24 * 366)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_need(self.need, self.of)
        return self


class Limits(Section):
    """When requests are answered, by the silo's clock in UTC, and how many of one analyst a day."""

    hours_utc: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$")] | None = None
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] | None = None
    requests_per_day: Count | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hours_utc is not None and self.hours_utc[:5] == self.hours_utc[6:]:
            raise ValueError(f'hours_utc = "{self.hours_utc}" begins where it ends; for all day leave it out')
        return self

    def is_open_at(self, minute: int) -> bool:
        """Tell whether a minute of the day lies within the hours, which may pass midnight."""
        if self.hours_utc is None:
            return True
        begin, end = (int(text[:2]) * 60 + int(text[3:]) for text in self.hours_utc.split("-"))
        return begin <= minute < end if begin < end else minute >= begin or minute < end


class Retention(Section):
    """How many days the silo keeps what it made; what is older is erased, and the log keeps that it was."""

    results_days: Days | None = None
    audit_days: Days | None = None
    encrypted_contributions_days: Days | None = None


class Analyst(Section):
    """Who may ask, for which purposes, until when; `key` is the analyst's verification key."""

    key: PublicKey
    purposes: Annotated[tuple[Name, ...], Field(max_length=100)]
    until: datetime
    jurisdiction: Jurisdiction | None = None  # where the analyst receives answers; None is nowhere that a purpose names

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
    people: dict[Name, Person] = Field(default_factory=dict)
    analysts: dict[AnalystName, Analyst] = Field(default_factory=dict)
    approvals: Annotated[tuple[ApprovalRule, ...], Field(max_length=100)] = ()
    limits: Limits | None = None
    retention: Retention | None = None

    def analyst_entry(self, name: str) -> str | None:
        """Return under which name the policy knows an analyst: the very name, or *@ and its domain; None if not."""
        if name in self.analysts and not name.startswith("*"):
            return name
        wildcard = f"*@{name.partition('@')[2]}"
        return wildcard if wildcard in self.analysts else None

    def analyst(self, name: str) -> Analyst | None:
        """Return what the policy says of an analyst; None if it does not know the analyst."""
        entry = self.analyst_entry(name)
        return None if entry is None else self.analysts[entry]


def _check_need(need: int, of: tuple[str, ...]) -> None:
    if len(set(of)) != len(of):
        raise ValueError("of names somebody twice")
    if need > len(of):
        raise ValueError(f"need = {need} of {len(of)} people can never be met")


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


def contains(region: str, place: str | None) -> bool:
    """Tell whether a place lies in a region: EU holds EU-DE, NO holds NO and NO-03. An unknown place lies nowhere."""
    return place is not None and (place == region or place.startswith(f"{region}-"))


def micro_floor(rho: Number) -> int:
    """Return a limit in micro-rho, rounded down: a limit is never widened by rounding."""
    return int(Decimal(rho) * MICRO)
