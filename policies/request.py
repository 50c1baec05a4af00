"""The wire vocabulary of questions: what an analyst signs, what a silo publishes, and how it says no.

SQL never crosses the boundary; a typed plan does. `terms_of` turns a request into the slots, scales and noise variances
of its secure sum, and is computed by every party for itself.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from itertools import product
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from crypto.backends import BACKENDS
from crypto.errors import CryptoError, ProtocolError
from crypto.graph import quorum_of
from crypto.keys import SECRET_BYTES, Secret, derive
from crypto.manifest import BackendName, Block, Recipient, Terms
from crypto.scheme import Shape, key_id
from crypto.sealing import OVERHEAD_BYTES, SealingKey, seal
from crypto.wire import MAX_RECIPIENTS, MAX_SILOS, Count, Digest, Message, Name, RoundId, Seconds, digest_of
from policies.model import MAX_DELTA, MAX_DOMAIN, MAX_RANGE_STEPS, MICRO, MIN_DELTA, Role
from policies.training import GRADIENT_UNITS, START, Step

MAX_ROUND_KEY_BYTES = 140_000
SEALED_SECRET_BYTES = OVERHEAD_BYTES + SECRET_BYTES
CARRIED_ROWS = 10_000  # at the end of their bounds, or persons: a backend that cuts off less serves nobody
MIN_EXACT = 2**50  # of weights in units of 2^-30, times rows
NOT_AN_ANALYST = "you are not an analyst here"  # what a silo tells an analyst whom its policy does not name
MAX_SLOTS = 100_000
MAX_DEVIATION = 2**52  # of the noise in a sum, in ring units: far from wrapping in 64 bits
MAX_DENIALS = 64
MAX_LIFETIME_S = 30 * 24 * 3600
_FINE_VARIANCE = 2**20
_MAX_DEPTH = 12
_MAX_NODES = 200

Text = Annotated[str, Field(max_length=200)]
Decimals = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$")]


class TableColumn(Message):
    """A column as the analyst took it from the silos' catalogues: its bounds in whole steps, its closed domain."""

    name: Name
    type: Literal["int", "decimal", "bool", "string"]
    low: Annotated[int, Field(ge=-(2**60), le=2**60)] | None = None
    high: Annotated[int, Field(ge=-(2**60), le=2**60)] | None = None
    step: Decimals | None = None
    domain: Annotated[tuple[Text, ...], Field(max_length=MAX_DOMAIN)] = ()
    unknown: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.low is None) != (self.step is None):
            raise ValueError("low, high and step go together")
        if self.low is not None and self.high is not None and not 0 < self.high - self.low <= MAX_RANGE_STEPS:
            raise ValueError("low must be below high, and not too far")
        if self.step is not None and not float(self.step):
            raise ValueError("step must be above 0")
        if self.domain and (self.unknown not in self.domain or len(set(self.domain)) != len(self.domain)):
            raise ValueError("unknown must be in the domain, and no value twice")
        return self

    @property
    def range_steps(self) -> int:
        """The width of the bounds in steps: the largest magnitude of a centred value, which is doubled."""
        return 0 if self.low is None or self.high is None else self.high - self.low


class Table(Message):
    """The one definition of a table that all silos answer by."""

    name: Name
    max_rows: Annotated[int, Field(ge=1, le=10_000)]
    max_silos: Annotated[int, Field(ge=1, le=MAX_SILOS)]
    columns: Annotated[tuple[TableColumn, ...], Field(max_length=64)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({column.name for column in self.columns}) != len(self.columns):
            raise ValueError("a column is defined twice")  # the price and the query must read the same definition
        return self

    def column(self, name: str) -> TableColumn:
        """Return the definition of a column; raises KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


class Compare(Message):
    """column op value; a number or a bool is written as text and read by the column's type."""

    kind: Literal["compare"] = "compare"
    column: Name
    op: Literal["=", "<>", "<", "<=", ">", ">="]
    value: Text


class OneOf(Message):
    """Column IN (values)."""

    kind: Literal["one_of"] = "one_of"
    column: Name
    values: Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]


class IsNull(Message):
    """Column IS NULL."""

    kind: Literal["is_null"] = "is_null"
    column: Name


class Not(Message):
    """NOT operand."""

    kind: Literal["not"] = "not"
    operand: "Predicate"


class Both(Message):
    """Operand AND operand AND ..."""

    kind: Literal["and"] = "and"
    operands: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=64)]


class Either(Message):
    """Operand OR operand OR ..."""

    kind: Literal["or"] = "or"
    operands: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=64)]


Predicate = Annotated[Compare | OneOf | IsNull | Not | Both | Either, Field(discriminator="kind")]


class Aggregate(Message):
    """function(column) AS alias; no column means COUNT(*)."""

    function: Literal["count", "sum", "avg"]
    column: Name | None
    alias: Annotated[str, Field(min_length=1, max_length=120)]


class Plan(Message):
    """One grouped question about one table."""

    kind: Literal["query"] = "query"
    where: Predicate | None
    group_by: Annotated[tuple[Name, ...], Field(max_length=8)]
    aggregates: Annotated[tuple[Aggregate, ...], Field(min_length=1, max_length=32)]


class Request(Message):
    """What an analyst signs: the question, the table definition it holds for, the price and who may open the answer."""

    KIND: ClassVar[str] = "request"
    MAX_BYTES: ClassVar[int] = 512 * 1024
    MAX_COMMAS: ClassVar[int] = 2**16
    version: Literal["request/1"] = "request/1"
    federation: Name
    nonce: RoundId
    analyst: Name
    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    purpose: Name
    micro_rho: Annotated[int, Field(ge=0, le=100 * MICRO)]  # 0 for an exact step of training, which has no noise
    silos: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_SILOS)]
    backend: BackendName
    round_key: Annotated[bytes, Field(max_length=MAX_ROUND_KEY_BYTES)]  # public; empty where the backend has none
    sealed_secrets: Annotated[tuple[bytes, ...], Field(max_length=MAX_RECIPIENTS)]  # of it, to each recipient
    table: Table
    plan: Annotated[Plan | Step, Field(discriminator="kind")]
    created_at: Seconds
    expires_at: Seconds

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.silos != tuple(sorted(set(self.silos))):
            raise ValueError("silos must be sorted and distinct")
        if not self.created_at < self.expires_at <= self.created_at + MAX_LIFETIME_S:
            raise ValueError("expires_at must follow created_at within 30 days")
        if len({recipient.name for recipient in self.recipients}) != len(self.recipients):
            raise ValueError("a recipient is named twice")
        for role, names in uses(self.plan).items():
            for name in names:
                self._check_use(role, name)
        if isinstance(self.plan, Plan):
            self._check_plan(self.plan)
        if slot_count(self) > MAX_SLOTS:
            raise ValueError(f"the answer has more than {MAX_SLOTS} slots")
        if (self.micro_rho == 0) != is_exact(self):
            raise ValueError("micro_rho must be above 0, and 0 for what has no noise")
        parts = price_parts(self.plan)
        for statistic, part in parts.items():
            spread = sensitivity(self, statistic, self.table.max_silos) ** 2 * sum(parts.values()) * MICRO
            if not is_exact(self) and spread > 2 * self.micro_rho * part * MAX_DEVIATION**2:
                raise ValueError("the noise would exceed the ring; narrow the bounds or raise epsilon")
        self._check_backend()
        return self

    def _check_backend(self) -> None:
        chosen = BACKENDS[self.backend]
        if chosen.has_key != bool(self.round_key) or len(self.sealed_secrets) != chosen.has_key * len(self.recipients):
            count = "one" if chosen.has_key else "no"
            raise ValueError(f"{self.backend} has {count} key a round, sealed to recipients")
        if any(len(sealed) != SEALED_SECRET_BYTES for sealed in self.sealed_secrets):
            raise ValueError(f"a sealed secret has {SEALED_SECRET_BYTES} bytes")
        limit = chosen.capacity(len(self.silos))
        for statistic, (scale_bits, variance) in _scales(self).items():
            least = MIN_EXACT if is_exact(self) else CARRIED_ROWS * sensitivity(self, statistic, 1)
            if cut_of(limit, scale_bits) < least or limit // 2 < 8 * math.isqrt(variance):
                message = f"{self.backend} cannot carry {statistic.kind} of {len(self.silos)} silos at this price"
                raise ValueError(f"{message}; take the backend masking")
        try:
            chosen.bind(Shape(slot_count(self), len(self.silos), quorum_of(len(self.silos)), limit), self.round_key)
        except CryptoError as err:
            raise ValueError(err.message) from err

    def _check_plan(self, plan: Plan) -> None:
        aliases = [*plan.group_by, *(aggregate.alias for aggregate in plan.aggregates)]
        if len(set(aliases)) != len(aliases):
            raise ValueError("an output name is used twice")
        if plan.where is not None:
            self._check_predicate(plan.where, [_MAX_NODES], 0)

    def _check_use(self, role: str, name: str) -> None:
        if all(column.name != name for column in self.table.columns):
            raise ValueError(f"column {name!r} is not in the table definition")
        column = self.table.column(name)
        if role == "dimension" and not column.domain:
            raise ValueError(f"dimension {name!r} has no domain")
        if role == "measure" and column.step is None:
            raise ValueError(f"measure {name!r} has no bounds")
        if role == "feature" and column.step is None and not column.domain:
            raise ValueError(f"feature {name!r} has neither bounds nor a domain")
        if role == "label" and column.type != "bool":
            raise ValueError(f"label {name!r} is no bool")

    def _check_predicate(self, predicate: Predicate, nodes_left: list[int], depth: int) -> None:
        nodes_left[0] -= 1
        if depth > _MAX_DEPTH or nodes_left[0] < 0:
            raise ValueError("the filter is nested too deeply or has too many parts")
        match predicate:
            case Both() | Either():
                for operand in predicate.operands:
                    self._check_predicate(operand, nodes_left, depth + 1)
            case Not():
                self._check_predicate(predicate.operand, nodes_left, depth + 1)
            case Compare():
                self._check_literal(predicate.column, predicate.value)
            case OneOf():
                for value in predicate.values:
                    self._check_literal(predicate.column, value)
            case IsNull():
                pass

    def _check_literal(self, name: str, value: str) -> None:
        kind = self.table.column(name).type
        if (kind in ("int", "decimal") and not is_number(value)) or (kind == "bool" and value not in ("true", "false")):
            raise ValueError(f"{value!r} is no {kind}, the type of column {name!r}")


def is_number(text: str) -> bool:
    """Tell whether `text` is a number as the wire writes it: up to 18 digits, up to 9 decimals."""
    whole, dot, decimals = text.removeprefix("-").partition(".")
    return (
        text.isascii()
        and whole.isdigit()
        and len(whole) <= 18
        and (not dot or (decimals.isdigit() and len(decimals) <= 9))
    )


class Statistic(NamedTuple):
    """What one block of the vector holds.

    Of a question, one number per group: the rows, the rows where a column is present, or the centred total of a column.
    Of a step of training: the sum of the persons' clipped gradients and the number of persons, or the sum of the
    silos' weights, each times its rows, and the number of rows.
    """

    kind: Literal["rows", "present", "total", "gradients", "persons", "weights"]
    column: str | None = None


def uses(plan: Plan | Step) -> dict[Role, tuple[str, ...]]:
    """Return the columns that a plan uses, by the role it uses them in."""
    if isinstance(plan, Step):
        return {"feature": plan.features, "label": (plan.label,)}
    filters: list[str] = []

    def visit(predicate: Predicate) -> None:
        match predicate:
            case Both() | Either():
                for operand in predicate.operands:
                    visit(operand)
            case Not():
                visit(predicate.operand)
            case Compare() | OneOf() | IsNull():
                filters.append(predicate.column)

    if plan.where is not None:
        visit(plan.where)
    measures = [aggregate.column for aggregate in plan.aggregates if aggregate.column is not None]
    return {
        "dimension": plan.group_by,
        "filter": tuple(dict.fromkeys(filters)),
        "measure": tuple(dict.fromkeys(measures)),
    }


def statistics_of(plan: Plan | Step) -> tuple[Statistic, ...]:
    """Return the distinct statistics that a plan needs, in the order of their blocks."""
    if isinstance(plan, Step):
        return (
            (Statistic("weights"), Statistic("rows"))
            if plan.is_exact
            else (Statistic("gradients"), Statistic("persons"))
        )
    found: list[Statistic] = []
    for aggregate in plan.aggregates:
        if aggregate.column is None:
            found.append(Statistic("rows"))
            continue
        found.append(Statistic("present", aggregate.column))
        if aggregate.function != "count":
            found.append(Statistic("total", aggregate.column))
    return tuple(dict.fromkeys(found))


def price_parts(plan: Plan | Step) -> dict[Statistic, int]:
    """Return the parts into which the price is divided: equal ones, but the number of persons needs little of it."""
    return {statistic: 15 if statistic.kind == "gradients" else 1 for statistic in statistics_of(plan)}


def is_exact(request: Request) -> bool:
    """Tell whether the sum is to have no noise; only a source that its policy declares exact may answer."""
    return isinstance(request.plan, Step) and request.plan.is_exact


def job_of(request: Request) -> bytes:
    """Return the SHA-256 of what all steps of one training run have in common."""
    first = request.plan.model_copy(update={"step": 0, "after": START})
    fields: dict[str, object] = {"nonce": bytes(16), "plan": first, "created_at": 0, "expires_at": 0}
    fields |= {"round_key": b"", "sealed_secrets": ()}
    return digest_of(request.model_copy(update=fields))


def groups_of(request: Request) -> Iterator[tuple[str, ...]]:
    """Yield every group of the closed domains, in the order of the slots; one without dimensions."""
    dimensions = request.plan.group_by if isinstance(request.plan, Plan) else ()
    return product(*(request.table.column(name).domain for name in dimensions))


def group_count(request: Request) -> int:
    """Return the number of groups; 1 without GROUP BY."""
    dimensions = request.plan.group_by if isinstance(request.plan, Plan) else ()
    return math.prod(len(request.table.column(name).domain) for name in dimensions)


def width(request: Request, step: Step) -> int:
    """Return the number of weights of a model: one for the intercept, one for a number, all but one of a domain."""
    columns = [request.table.column(name) for name in step.features]
    return 1 + sum(len(column.domain) - 1 if column.domain else 1 for column in columns)


def block_length(request: Request, statistic: Statistic) -> int:
    """Return the number of slots of a statistic."""
    if isinstance(request.plan, Step):
        return width(request, request.plan) if statistic.kind in ("gradients", "weights") else 1
    return group_count(request)


def slot_count(request: Request) -> int:
    """Return the length of the vector that each silo submits."""
    return sum(block_length(request, statistic) for statistic in statistics_of(request.plan))


def sensitivity(request: Request, statistic: Statistic, max_silos: int) -> int:
    """Return the L2 sensitivity of a statistic over all groups, for one person known to `max_silos` silos.

    In half steps for a total (a centred value is doubled to stay whole), else in rows: at most `max_rows` rows of a
    person enter, in the worst case all into one group. A gradient is clipped once for the person, however many rows.
    """
    if statistic.kind in ("gradients", "persons"):
        return max_silos * (GRADIENT_UNITS if statistic.kind == "gradients" else 1)
    unit = 1
    if statistic.kind == "total" and statistic.column is not None:
        unit = request.table.column(statistic.column).range_steps
    return max_silos * request.table.max_rows * unit


def cut_of(limit: int, scale_bits: int) -> int:
    """Return the magnitude at which a silo cuts a figure before noise: half of what the backend carries of one silo."""
    return (limit >> 1) >> scale_bits


def round_key_info(nonce: bytes, recipient: str) -> bytes:
    """Return the context that the secret of a round's key is sealed in, for a recipient of the request."""
    return derive(sha256(nonce).digest(), "round key", recipient)


def sealed_secret(nonce: bytes, recipient: Recipient, secret: Secret) -> bytes:
    """Return the secret of a round's key as it is sealed to a recipient of the request with this nonce."""
    return seal(recipient.key, secret.raw, round_key_info(nonce, recipient.name))


def round_secret(request: Request, recipient: str, key: SealingKey) -> Secret | None:
    """Return what opens the round's key for one of its recipients; None where the backend has no key.

    Raises SealError if it does not open, ProtocolError if the request does not name this recipient.
    """
    if not request.sealed_secrets:
        return None
    for one, sealed in zip(request.recipients, request.sealed_secrets, strict=True):
        if one.name == recipient:
            return Secret(key.open(sealed, round_key_info(request.nonce, recipient)))
    raise ProtocolError(f"{recipient!r} is not a recipient of the request")


def _scales(request: Request) -> dict[Statistic, tuple[int, int]]:
    """Return scale bits and variance of the noise in the sum of each statistic; see `terms_of`."""
    parts, found = price_parts(request.plan), {}
    for statistic, part in parts.items():
        scale_bits = variance = 0
        if not is_exact(request):
            squared = sensitivity(request, statistic, request.table.max_silos) ** 2 * sum(parts.values()) * MICRO
            while (variance := squared * 4**scale_bits // (2 * request.micro_rho * part) + 2) < _FINE_VARIANCE:
                scale_bits += 1
        found[statistic] = scale_bits, variance
    return found


def terms_of(request: Request, request_hash: bytes) -> Terms:
    """Return what the request fixes about its secure sum: slots, scales, variances, ring, recipients.

    The price is divided by `price_parts`. A variance is that of the whole sum, in ring units, and rounded
    up to the next integer but one; the scale is the least at which that rounding is lost in the noise. With at most 400
    silos the share of each then deviates by 51 or more, far above the 3 that summing discrete Gaussians asks for.
    """
    blocks = [
        Block(
            name=statistic.kind if statistic.column is None else f"{statistic.kind}:{statistic.column}",
            length=block_length(request, statistic),
            scale_bits=scale_bits,
            variance=str(variance),
        )
        for statistic, (scale_bits, variance) in _scales(request).items()
    ]
    return Terms(
        request_hash=request_hash,
        recipients=request.recipients,
        backend=request.backend,
        key_id=key_id(request.backend, request.round_key) if request.round_key else b"",
        limit=BACKENDS[request.backend].capacity(len(request.silos)),
        blocks=tuple(blocks),
    )


class Denial(Message):
    """Why a policy says no: never a number computed from rows."""

    code: Annotated[str, Field(max_length=40)]
    rule: Annotated[str, Field(max_length=300)]
    message: Annotated[str, Field(max_length=1000)]
    remedy: Annotated[str, Field(max_length=1000)]


class Refusal(Message):
    """Silo to analyst: no, and every reason."""

    KIND: ClassVar[str] = "refusal"
    MAX_BYTES: ClassVar[int] = 256 * 1024
    federation: Name
    request_hash: Digest
    policy_hash: Digest
    denials: Annotated[tuple[Denial, ...], Field(min_length=1, max_length=MAX_DENIALS)]


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
