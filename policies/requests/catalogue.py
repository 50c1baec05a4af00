"""The catalogue: what a silo publishes to an analyst of its policy. docs/protocol.md section 7.5."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from crypto.wire import MAX_SILOS, Count, Digest, Message, Name, RoundId, Seconds
from policies.domains import MAX_DOMAIN_BYTES, LongDomain
from policies.periods import UNKNOWN, is_calendar
from policies.requests.key_search import KeyShape
from policies.requests.request import Request
from policies.requests.standing import Standing
from policies.requests.tables import MAX_ROWS, TableColumn, Text, check_norm
from policies.units import MAX_DELTA, MIN_DELTA, ColumnRole


class CatalogueRequest(Message):
    """Analyst to silo: what may I ask? With `standing` also: where do I stand, and what would you say to this request?

    The request is unsigned, and so it is no request that anybody could answer.
    """

    KIND: ClassVar[str] = "catalogue-request"
    MAX_BYTES: ClassVar[int] = 1 << 20  # of which the request, in base64, has up to two thirds
    federation: Name
    analyst: Name
    nonce: RoundId
    created_at: Seconds
    standing: Annotated[bool, Field(default=False, exclude_if=lambda asked: not asked)] = False
    request: Annotated[bytes, Field(default=b"", max_length=Request.MAX_BYTES, exclude_if=lambda body: not body)] = b""


class OtherVersion(Message):
    """Aggregator to analyst, in the place of a catalogue: this silo dialled, in a version that has none in common."""

    KIND: ClassVar[str] = "other-version"
    federation: Name
    nonce: RoundId  # of the request for catalogues
    silo: Name
    said: Annotated[str, Field(max_length=500)]  # which software runs at both ends, and what it knows


class NoRoom(Message):
    """Aggregator to analyst, beside the catalogues: a round of the request in the question would not fit here."""

    KIND: ClassVar[str] = "no-room"
    federation: Name
    nonce: RoundId  # of the request for catalogues
    reason: Annotated[str, Field(max_length=500)]  # the bytes that are needed, those that are kept, what to change


class DomainRequest(Message):
    """Analyst to silo: send me the values of a long domain that your catalogue names.

    The reply is `DOMAIN_MAGIC` and the domain's text. It needs no signature, as the signed catalogue has its hash.
    """

    KIND: ClassVar[str] = "domain-request"
    federation: Name
    analyst: Name
    silo: Name
    hash: Digest
    created_at: Seconds


DOMAIN_MAGIC = b"CSD1"
MAX_DOMAIN_REPLY_BYTES = len(DOMAIN_MAGIC) + MAX_DOMAIN_BYTES


class OpenColumn(Message):
    """A column that the policy opens in at least one role."""

    column: TableColumn
    roles: tuple[ColumnRole, ...]
    unit: Text | None
    # Whether it may be asked within narrower bounds, or by fewer values; a filter may be in any case.
    narrow: Annotated[bool, Field(default=False, exclude_if=lambda may: not may)] = False
    # What its keys are, where they may be found.
    keys: Annotated[KeyShape | None, Field(default=None, exclude_if=lambda shape: shape is None)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse values that no policy publishes: they are read as what the type says, compared as such, and shown."""
        column, values = self.column, self.column.domain
        if isinstance(values, LongDomain) or not values:
            return self
        match column.type:
            case "int":
                is_one = all(re.fullmatch(r"0|-?[1-9][0-9]*", value) for value in values)
            case "date":
                is_one = is_calendar(values)
            case "bool":
                is_one = set(values) <= {"false", "true", UNKNOWN}
            case other:
                is_one = other == "string" and all(map(str.isprintable, values))
        if not is_one:
            raise ValueError(f"the values of {column.name!r} are none of the type {column.type}")
        return self

    @property
    def is_narrowable(self) -> bool:
        return self.narrow or "filter" in self.roles


class OpenTable(Message):
    """A source that the policy opens."""

    name: Name
    columns: Annotated[tuple[OpenColumn, ...], Field(max_length=500)]
    definition: Digest  # of the table, as `adopts` of a policy has it; owners compare it, nobody computes with it
    # As many rows as the silo's declared time is for; left out where its policy does not say.
    rows_up_to: Annotated[int | None, Field(default=None, ge=1, le=2**40, exclude_if=lambda rows: rows is None)] = None
    # Whether each person has one row, whose columns may stand beside the rows of other tables.
    one_row: Annotated[bool, Field(default=False, exclude_if=lambda is_one: not is_one)] = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.column.name for one in self.columns)


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
    # The policy's name of the column that says whose row it is: to count persons by, never to read.
    id_column: Annotated[Name | None, Field(default=None, exclude_if=lambda name: name is None)] = None
    max_rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
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
    standing: Annotated[Standing | None, Field(default=None, exclude_if=lambda found: found is None)] = None
    max_norm: Annotated[int | None, Field(default=None, ge=1, lt=MAX_ROWS, exclude_if=lambda norm: norm is None)] = None
    # Whether an evaluation may have figures of this silo alone; left out where it may not.
    own_metrics: Annotated[bool, Field(default=False, exclude_if=lambda may: not may)] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_norm(self.max_rows, self.max_norm)
        tables = [table.name for table in self.tables]
        if any(len(set(names)) != len(names) for names in (tables, *(table.names for table in self.tables))):
            raise ValueError("a table or a column is named twice")
        try:
            is_bounded = MIN_DELTA <= Decimal(self.delta) <= MAX_DELTA
        except ArithmeticError:
            is_bounded = False
        if not is_bounded:
            raise ValueError(f"delta must be a number from {MIN_DELTA} to {MAX_DELTA}")
        return self

    @property
    def domains(self) -> Mapping[bytes, LongDomain]:
        """The long domains of its columns, in their order, by hash."""
        listed = (one.column.domain for table in self.tables for one in table.columns)
        return {one.digest: one for one in listed if isinstance(one, LongDomain)}
