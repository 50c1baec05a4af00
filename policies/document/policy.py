"""The policy of one silo as frozen values; `policies.document.load` reads it from TOML.

Whatever a policy leaves out is closed: no analyst, no aggregate, no backend, no dimension. What two sections must have
in common is checked by `policies.document.consistency`, on the document, so that one bad section hides nothing of
another.
"""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from crypto.errors import SignatureError
from crypto.keys import VerifyKey
from crypto.roster import Place
from crypto.rounds.manifest import BackendName
from crypto.wire import Name
from policies.document.columns import Source
from policies.document.purposes import ConsentColumn, ConsentTable, Purpose
from policies.document.section import AggregateName, AnalystName, Count, Days, Label, Rho, Section
from policies.units import MAX_DELTA, MAX_STEPS, MIN_DELTA, Number, micro_floor

# What this version computes. Of the rest a policy may already speak; every request for it is denied.
BUILT_NOISE = "distributed"
BUILT_SECURITY_BITS = 128  # X25519 beside ML-KEM-768, Ed25519


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
    jurisdiction: Place
    contact: Label


class PrivacyUnit(Section):
    """Who one protected person is, and how much of a person may enter one request."""

    entity: Label
    id_column: Name
    max_rows: Annotated[int, Field(ge=1, le=10_000)]
    max_groups: Annotated[int, Field(ge=1, le=10_000)] | None = None  # of one person in one GROUP BY
    max_silos: Annotated[int, Field(ge=1, le=100)] = 1


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
    jurisdiction: Place | None = None  # where the analyst receives answers; None is nowhere that a purpose names

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
