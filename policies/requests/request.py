"""What an analyst signs: one computation on one table, the price that one person may pay, who may open the result."""

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
from policies.requests.calibration import check_price, clip_of, spreads_of
from policies.requests.computations import AnyComputation, slot_count
from policies.requests.tables import Table, check_role
from policies.requests.training import TrainingStep
from policies.units import DAY_S, MICRO

MAX_ROUND_KEY_BYTES = 140_000
SEALED_SECRET_BYTES = OVERHEAD_BYTES + SECRET_BYTES
MAX_SLOTS = 100_000
MAX_LIFETIME_S = 30 * DAY_S


class Request(Message):
    """A computation, the table definition that it holds for, its price, and its recipients.

    Raises ValueError (by pydantic) on what contradicts itself: a column in a role that its definition lacks, noise that
    exceeds the ring, a backend that cannot carry the sum.
    """

    KIND: ClassVar[str] = "request"
    MAX_BYTES: ClassVar[int] = 512 * 1024
    MAX_COMMAS: ClassVar[int] = 2**16
    version: Literal["request/1"] = "request/1"
    federation: Name
    nonce: RoundId
    analyst: Name
    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    purpose: Name
    micro_rho: Annotated[int, Field(ge=0, le=100 * MICRO)]  # 0 for what has no noise
    silos: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_SILOS)]
    backend: BackendName
    round_key: Annotated[bytes, Field(max_length=MAX_ROUND_KEY_BYTES)]  # public; empty where the backend has none
    sealed_secrets: Annotated[tuple[bytes, ...], Field(max_length=MAX_RECIPIENTS)]  # of it, to each recipient
    table: Table
    plan: AnyComputation
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
        for role, names in self.plan.uses().items():
            for name in names:
                check_role(self.table, role, name)
        self.plan.check(self.table, self.backend)
        if slot_count(self.plan, self.table) > MAX_SLOTS:
            raise ValueError(f"the answer has more than {MAX_SLOTS} slots")
        check_price(self.table, self.plan, self.micro_rho)
        self._check_backend()
        return self

    def _check_backend(self) -> None:
        chosen, silos = BACKENDS[self.backend], len(self.silos)
        if chosen.has_key != bool(self.round_key) or len(self.sealed_secrets) != chosen.has_key * len(self.recipients):
            count = "one" if chosen.has_key else "no"
            raise ValueError(f"{self.backend} has {count} key a round, sealed to recipients")
        if any(len(sealed) != SEALED_SECRET_BYTES for sealed in self.sealed_secrets):
            raise ValueError(f"a sealed secret has {SEALED_SECRET_BYTES} bytes")
        limit, extents = chosen.capacity(silos), self.plan.statistics(self.table)
        for statistic, (_, scale_bits, variance) in spreads_of(self.table, self.plan, self.micro_rho).items():
            if clip_of(limit, scale_bits) < extents[statistic].room or limit // 2 < 8 * math.isqrt(variance):
                message = f"{self.backend} cannot carry {statistic.kind} of {silos} silos at this price"
                raise ValueError(f"{message}; take the backend masking")
        try:
            chosen.bind(Shape(slot_count(self.plan, self.table), silos, quorum_of(silos), limit), self.round_key)
        except CryptoError as err:
            raise ValueError(err.message) from err


def job_of(request: Request, step: TrainingStep) -> bytes:
    """Return the SHA-256 of what the requests of all steps of a training run have in common."""
    fields: dict[str, object] = {"nonce": bytes(16), "plan": step.first(), "created_at": 0, "expires_at": 0}
    fields |= {"round_key": b"", "sealed_secrets": ()}
    return digest_of(request.model_copy(update=fields))
