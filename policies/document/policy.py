"""The policy of one silo as frozen values; `policies.document.load` reads it from TOML.

Whatever a policy leaves out is closed: no analyst, no aggregate, no backend, no dimension.
`policies.document.consistency` checks the sections against each other, on the document, so that an invalid section
hides no problem of another.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from crypto.errors import SignatureError
from crypto.keys import VerifyKey
from crypto.rounds.manifest import MAX_MUST_INCLUDE, BackendName
from crypto.wire import Jurisdiction, Name
from policies.document.columns import Source
from policies.document.networks import Networks
from policies.document.purposes import ConsentColumn, ConsentTable, Purpose
from policies.document.section import AggregateName, AnalystName, Count, Days, Label, MeasureName, Rho, Section
from policies.requests.tables import check_norm
from policies.units import MAX_DELTA, MAX_STEPS, MAX_WAIT_S, MIN_DELTA, Number, micro_floor

# What this version computes. A policy may already name more, but every request for it is denied.
BUILT_NOISE = "distributed"
BUILT_SECURITY_BITS = 128  # X25519 beside ML-KEM-768, Ed25519


class SignedBy(Section):
    """Who may sign the policy, and how many must; a version that loosens anything needs one more."""

    need: Annotated[int, Field(ge=1, le=100)]
    of: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_need(self.need, self.of)
        return self


class Head(Section):
    """The version of the policy, its validity, and its signers."""

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
    """The silo, and who is responsible for its data."""

    id: Name
    controller: Label
    sector: Literal["bank", "hospital", "retailer", "other"]
    jurisdiction: Jurisdiction
    contact: Label


IdDifference = Literal["case", "leading-zeros", "blanks"]


class PrivacyUnit(Section):
    """The definition of one protected person, and how much of a person may enter one request."""

    entity: Label
    id_column: Name
    # Differences between two spellings that make no difference between persons; None: none, but an objection takes out
    # everybody whose id equals it but for these.
    id_form: tuple[IdDifference, ...] | None = None
    max_rows: Annotated[int, Field(ge=1, le=10_000)]
    max_norm: Annotated[int, Field(ge=1, lt=10_000)] | None = None  # L2, of one person's rows over the groups
    max_groups: Annotated[int, Field(ge=1, le=10_000)] | None = None  # of one person in one GROUP BY
    max_silos: Annotated[int, Field(ge=1, le=100)] = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_norm(self.max_rows, self.max_norm)
        return self


class Lifetime(Section):
    """The limit on one person's total spending, over all purposes and analysts."""

    rho: Rho


class PerRequest(Section):
    """The most that one request may cost, and the least at which an answer is useful."""

    max_rho: Rho
    min_rho: Rho

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_rho > self.max_rho:
            raise ValueError(f"min_rho {self.min_rho} is above max_rho {self.max_rho}")
        return self


class Limit(Section):
    """The limit of one purpose within one window, in total and for one analyst.

    A calendar window follows the clock (UTC); a data-month is each month of the data that a request reads.
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


class Aggregators(Section):
    """How many aggregators may be away, or lie about the ledger's checkpoint that they keep."""

    max_unreachable: Annotated[int, Field(ge=0, le=7)] = 0
    max_dishonest: Annotated[int, Field(ge=0, le=7)] | None = None  # None: all but one of those that must answer

    def must_answer(self, aggregators: int) -> int:
        """Return how many of so many aggregators must answer at a start of the silo: one of them is honest and newest.

        A charge is kept by all but `max_unreachable`; so many of those that answer may lack it, and more may lie.
        """
        if self.max_dishonest is None:
            return max(aggregators, self.max_unreachable + 1) if self.max_unreachable else aggregators
        return self.max_unreachable + self.max_dishonest + 1


class AuditedTraining(Section):
    """The largest gap between groups with which a model may leave the silo, be used there or be exported."""

    by: Annotated[tuple[Name, ...], Field(min_length=1, max_length=2)]
    measure: MeasureName
    max_gap: Annotated[Number, Field(ge=0, lt=1)]
    # The least score that is decided for: an audit at another one says nothing of these decisions.
    threshold: Annotated[Number, Field(gt=0, lt=1)] = Decimal("0.5")


class Training(Section):
    """The training runs that the silo takes part in; none without this section."""

    max_rounds: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    dp: Literal["required", "optional"] = "required"
    clip_norm: Annotated[Number, Field(gt=0, le=100_000)]
    max_rho_per_run: Rho
    # Whose change the noise of a run may hide: of a person, or of all rows of the silo together.
    units: Annotated[tuple[Literal["person", "silo"], ...], Field(min_length=1, max_length=2)] = ("person",)
    audit: AuditedTraining | None = None
    networks: Networks | None = None


class Compute(Section):
    """What one computation may take, and the declared time: how long a plan takes at most, by its size alone."""

    seconds: Annotated[int, Field(ge=1, le=MAX_WAIT_S)] | None = None
    memory_mb: Annotated[int, Field(ge=64, le=2**24)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    partition_rows: Annotated[int, Field(ge=1, le=2**40)] | None = None  # of a prepared source, from which it is spread
    fixed_seconds: Annotated[Number, Field(gt=0, le=MAX_WAIT_S)] | None = None  # of every plan
    row_nanoseconds: Annotated[Number, Field(gt=0, le=10**9)] | None = None  # of each row, and each part of a plan
    decision_nanoseconds: Annotated[Number, Field(gt=0, le=10**9)] | None = None  # of each decision on consent
    device: Literal["cpu", "cuda", "auto"] = "cpu"  # that networks are computed on

    @property
    def states_time(self) -> bool:
        """Whether each contribution leaves at a time that the policy gives, whatever the rows are."""
        return self.seconds is not None or self.fixed_seconds is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        rates = ("row_nanoseconds", "decision_nanoseconds")
        named = [name for name in rates if getattr(self, name) is not None]
        if self.fixed_seconds is None and named:
            raise ValueError(f"{named[0]} needs fixed_seconds; `consilo-silo doctor` proposes both")
        return self


class Vectors(Section):
    """How long a vector may be that the silo contributes, how fast it is sent, and the room for a run's state."""

    max_values: Annotated[int, Field(ge=1, le=2**30)] = 1_000_004  # a million figures, and what bounding cut
    bytes_per_second: Annotated[int, Field(ge=1_000, le=2**40)] = 1_000_000
    max_state_mb: Annotated[int, Field(ge=1, le=17_179)] = 64  # as many as a state has that is read back


class Disclosure(Section):
    """What may leave the silo."""

    min_cohort: Annotated[int, Field(ge=2)] = 10
    min_silos: Annotated[int, Field(ge=3, le=100)] = 3
    max_dimensions: Annotated[int, Field(ge=0, le=8)] = 0
    max_groups: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    suppress: Literal["drop"] = "drop"
    release: tuple[Literal["query-result", "model", "model-to-analyst", "metrics"], ...] = ("query-result", "model")
    own_metrics: bool = False  # whether an evaluation may have figures of this silo alone
    aggregates: tuple[AggregateName, ...] = ()


class Protection(Section):
    """The secure sums that the silo takes part in, and the collusion and drop-out that they must withstand."""

    accept: tuple[BackendName, ...] = ()
    security_bits: Literal[128, 192, 256] = 128
    noise: Literal["distributed", "local-full"] = "distributed"
    max_colluding: Annotated[int, Field(ge=1, le=100)] = 1
    max_missing: Annotated[int, Field(ge=0, le=100)] = 0
    must_include: Annotated[tuple[Name, ...], Field(max_length=MAX_MUST_INCLUDE)] = ()  # other silos

    @field_validator("must_include")
    @classmethod
    def _check_must_include(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("must_include names a silo twice")
        return names


def _check_key(text: str) -> str:
    try:
        VerifyKey.parse(text)
    except SignatureError as err:
        raise ValueError(f"{err.message}; {err.hint}") from err
    return text


PublicKey = Annotated[str, AfterValidator(_check_key)]


class Person(Section):
    """A person who signs policies or approves requests, with this verification key."""

    key: PublicKey


class When(Section):
    """The requests that need approval: those that meet every condition here; all requests if there is none."""

    kind: Literal["query", "training", "key-search"] | None = None
    purpose: Name | None = None
    rho_at_least: Rho | None = None  # of a training run: all its steps together


class ApprovalRule(Section):
    """Who may approve such a request, how many must, and how long an approval lasts."""

    when: When = When()
    need: Annotated[int, Field(ge=1, le=100)]
    of: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
    expires_hours: Annotated[int, Field(ge=1, le=24 * 366)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_need(self.need, self.of)
        return self


class Limits(Section):
    """The hours in which requests are answered, in UTC, and the number of requests of one analyst a day."""

    hours_utc: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$")] | None = None
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] | None = None
    requests_per_day: Count | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hours_utc is not None and self.hours_utc[:5] == self.hours_utc[6:]:
            raise ValueError(f'hours_utc = "{self.hours_utc}" begins where it ends; for all day leave it out')
        return self

    def is_open_at(self, minute: int) -> bool:
        """Tell whether a minute of the day is within the hours, which may pass midnight."""
        if self.hours_utc is None:
            return True
        begin, end = (int(text[:2]) * 60 + int(text[3:]) for text in self.hours_utc.split("-"))
        return begin <= minute < end if begin < end else minute >= begin or minute < end


class Retention(Section):
    """How many days the silo keeps its records; older ones are erased, and the log records the erasure."""

    results_days: Days | None = None
    audit_days: Days | None = None
    encrypted_contributions_days: Days | None = None


class Analyst(Section):
    """Who may ask, for which purposes, until when; `key` is the analyst's verification key."""

    key: PublicKey
    purposes: Annotated[tuple[Name, ...], Field(max_length=100)]
    until: datetime
    jurisdiction: Jurisdiction | None = None  # where the analyst receives answers; None is in no region

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
    aggregators: Aggregators = Aggregators()
    training: Training | None = None
    compute: Compute | None = None
    vectors: Vectors = Vectors()
    people: dict[Name, Person] = Field(default_factory=dict)
    analysts: dict[AnalystName, Analyst] = Field(default_factory=dict)
    approvals: Annotated[tuple[ApprovalRule, ...], Field(max_length=100)] = ()
    limits: Limits | None = None
    retention: Retention | None = None

    @property
    def consent_column(self) -> str | None:
        """The column that has the decisions on consent; None where they stand elsewhere, or there are none."""
        return self.consent.column if isinstance(self.consent, ConsentColumn) else None

    def analyst_entry(self, name: str) -> str | None:
        """Return the name of the policy's entry for an analyst: the same name, or *@ and its domain; None if none."""
        if name in self.analysts and not name.startswith("*"):
            return name
        wildcard = f"*@{name.partition('@')[2]}"
        return wildcard if wildcard in self.analysts else None

    def analyst(self, name: str) -> Analyst | None:
        """Return the policy's entry for an analyst; None if there is none."""
        entry = self.analyst_entry(name)
        return None if entry is None else self.analysts[entry]


def _check_need(need: int, of: tuple[str, ...]) -> None:
    if len(set(of)) != len(of):
        raise ValueError("of names somebody twice")
    if need > len(of):
        raise ValueError(f"need = {need} of {len(of)} people can never be met")
