"""The wire vocabulary of questions: what an analyst signs, what a silo publishes, and how it says no.

SQL never crosses the boundary; a typed plan does. `terms_of` turns a request into the slots, scales and noise variances
of its secure sum, and is computed by every party for itself.
"""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import Shape
from crypto.errors import CryptoError
from crypto.keys import SECRET_BYTES
from crypto.rounds.committees import quorum_of
from crypto.rounds.manifest import BackendName, Recipient
from crypto.sealing import OVERHEAD_BYTES
from crypto.wire import MAX_RECIPIENTS, MAX_SILOS, Message, Name, RoundId, Seconds, digest_of
from policies.requests.calibration import CARRIED_ROWS, MAX_DEVIATION, MIN_EXACT, cut_of, sensitivity, spreads_of
from policies.requests.query import Both, Compare, Either, IsNull, Not, OneOf, Plan, Predicate
from policies.requests.statistic import is_exact, price_parts, slot_count, uses
from policies.requests.tables import Table, is_number
from policies.requests.training import START, Step
from policies.units import DAY_S, MICRO

MAX_ROUND_KEY_BYTES = 140_000
SEALED_SECRET_BYTES = OVERHEAD_BYTES + SECRET_BYTES
MAX_SLOTS = 100_000
MAX_LIFETIME_S = 30 * DAY_S
_MAX_DEPTH = 12
_MAX_NODES = 200


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
        for statistic, (of_one_silo, scale_bits, variance) in spreads_of(self).items():
            least = MIN_EXACT if is_exact(self) else CARRIED_ROWS * of_one_silo
            if cut_of(limit, scale_bits) < least or limit // 2 < 8 * math.isqrt(variance):
                message = f"{self.backend} cannot carry {statistic.kind} of {len(self.silos)} silos at this price"
                raise ValueError(f"{message}; take the backend masking")
        if self.backend == "shares" and isinstance(self.plan, Step):
            # A false sum could go to each silo in another form, and then they would hold different models.
            raise ValueError("shares does not train models; take the backend masking")
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
        column = self.table.column(name)
        kind = column.type
        if kind == "date" and value not in column.domain:
            raise ValueError(f"{value!r} is no period of column {name!r}")
        if (kind in ("int", "decimal") and not is_number(value)) or (kind == "bool" and value not in ("true", "false")):
            raise ValueError(f"{value!r} is no {kind}, the type of column {name!r}")


def job_of(request: Request) -> bytes:
    """Return the SHA-256 of what all steps of one training run have in common."""
    first = request.plan.model_copy(update={"step": 0, "after": START})
    fields: dict[str, object] = {"nonce": bytes(16), "plan": first, "created_at": 0, "expires_at": 0}
    fields |= {"round_key": b"", "sealed_secrets": ()}
    return digest_of(request.model_copy(update=fields))
