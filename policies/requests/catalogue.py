"""What a silo publishes to an analyst of its policy."""

from decimal import Decimal
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from crypto.wire import MAX_SILOS, Count, Digest, Message, Name, RoundId, Seconds
from policies.requests.tables import TableColumn, Text
from policies.units import MAX_DELTA, MIN_DELTA, Role


class CatalogueRequest(Message):
    """Analyst to silo: what may I ask?"""

    KIND: ClassVar[str] = "catalogue-request"
    federation: Name
    analyst: Name
    nonce: RoundId
    created_at: Seconds


class OpenColumn(Message):
    """A column that the policy opens in at least one role."""

    column: TableColumn
    roles: tuple[Role, ...]
    unit: Text | None


class OpenTable(Message):
    """A source that the policy opens."""

    name: Name
    columns: Annotated[tuple[OpenColumn, ...], Field(max_length=500)]


class Catalogue(Message):
    """Silo to analyst: what my policy opens to you. Nothing here is computed from rows."""

    KIND: ClassVar[str] = "catalogue"
    MAX_BYTES: ClassVar[int] = 1 << 20
    MAX_COMMAS: ClassVar[int] = 2**16
    federation: Name
    nonce: RoundId
    controller: Text
    sector: Text
    policy_hash: Digest
    policy_version: Count
    entity: Text
    max_rows: Annotated[int, Field(ge=1, le=10_000)]
    max_silos: Annotated[int, Field(ge=1, le=MAX_SILOS)]
    tables: Annotated[tuple[OpenTable, ...], Field(max_length=100)]
    purposes: Annotated[tuple[Name, ...], Field(max_length=100)]
    aggregates: Annotated[tuple[Text, ...], Field(max_length=16)]
    backends: Annotated[tuple[Text, ...], Field(max_length=16)]
    delta: Annotated[str, Field(max_length=40, pattern=r"^[0-9.Ee-]+$")]
    min_micro_rho: Count
    max_micro_rho: Count
    max_dimensions: Count
    max_groups: Count
    min_cohort: Count
    min_silos: Annotated[int, Field(ge=0, le=MAX_SILOS)]
    max_colluding: Annotated[int, Field(ge=1, le=MAX_SILOS)]
    max_missing: Annotated[int, Field(ge=0, le=MAX_SILOS)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            is_bounded = MIN_DELTA <= Decimal(self.delta) <= MAX_DELTA
        except ArithmeticError:
            is_bounded = False
        if not is_bounded:
            raise ValueError(f"delta must be a number from {MIN_DELTA} to {MAX_DELTA}")
        return self
