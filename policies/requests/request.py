"""The request that an analyst signs: one computation on one table, its price, its silos and its recipients.

docs/protocol.md section 3.1.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import MAX_VALUES, Shape
from crypto.errors import CryptoError
from crypto.keys import SECRET_BYTES
from crypto.rounds.committees import quorum_of
from crypto.rounds.manifest import BackendName, Recipient
from crypto.sealing import OVERHEAD_BYTES
from crypto.wire import MAX_RECIPIENTS, MAX_SILOS, Message, Name, RoundId, Seconds, digest_of
from policies.domains import LongDomain
from policies.requests.calibration import check_price, clamp_of, spreads_of
from policies.requests.computations import AnyComputation, Computation, slot_count
from policies.requests.query import CUT_SLOTS
from policies.requests.replaces import Replaces
from policies.requests.runs import RunPart
from policies.requests.share import drawn, draws
from policies.requests.tables import Table, check_role
from policies.requests.training import TrainingStep
from policies.units import DAY_S, LOAD_S, MAX_SEND_S, MAX_WAIT_S, MICRO, SEND_S, WAIT_S

MAX_ROUND_KEY_BYTES = 140_000
SEALED_SECRET_BYTES = OVERHEAD_BYTES + SECRET_BYTES
MAX_SLOTS = 1_000_000  # of figures
MAX_TRAINED = MAX_VALUES  # of the weights of a model; each policy says how many it takes, `vectors.max_values`
OTHER_SLOTS = 100_000  # of every backend but masking, which alone is fast enough for more
MAX_LIFETIME_S = 30 * DAY_S


class Request(Message):
    """A computation, its table definition, its price, and its recipients.

    Raises ValueError (from pydantic) on contradictions: a column in a role that its definition lacks, noise that
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
    micro_rho: Annotated[int, Field(ge=0, le=100 * MICRO)]  # 0 without noise
    silos: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_SILOS)]
    backend: BackendName
    round_key: Annotated[bytes, Field(max_length=MAX_ROUND_KEY_BYTES)]  # public; empty where the backend has none
    sealed_secrets: Annotated[tuple[bytes, ...], Field(max_length=MAX_RECIPIENTS)]  # of it, to each recipient
    table: Table
    plan: AnyComputation
    created_at: Seconds
    expires_at: Seconds
    # How long its analyst waits for the silos' computing; left out where it is WAIT_S.
    wait_seconds: Annotated[
        int | None, Field(default=None, ge=1, le=MAX_WAIT_S, exclude_if=lambda wait: wait is None)
    ] = None
    # How long its analyst waits for a silo to send a long vector; left out where it is SEND_S.
    send_seconds: Annotated[
        int | None, Field(default=None, ge=1, le=MAX_SEND_S, exclude_if=lambda wait: wait is None)
    ] = None
    # Without how many of these silos it may be asked again, in its place; left out where it may not.
    or_without: Annotated[
        int | None, Field(default=None, ge=1, lt=MAX_SILOS, exclude_if=lambda count: count is None)
    ] = None
    replaces: Annotated[Replaces | None, Field(default=None, exclude_if=lambda found: found is None)] = None

    @property
    def run_silos(self) -> tuple[str, ...]:
        """The silos of its run, which receive the sum of every round; those that it asks of any other request."""
        step = self.plan.training
        if step is None or step.share == 1:
            return self.silos
        return tuple(recipient.name for recipient in self.recipients)

    @property
    def waits_s(self) -> int:
        """How long its analyst waits for the silos' computing, in seconds."""
        return WAIT_S if self.wait_seconds is None else self.wait_seconds

    @property
    def sends_s(self) -> int:
        """How long its analyst waits for a silo to send a long vector, in seconds."""
        return SEND_S if self.send_seconds is None else self.send_seconds

    @property
    def loads_s(self) -> int:
        """How long a silo may load what the rounds of its run need, before it accepts the first one, in seconds."""
        step = self.plan.training
        return LOAD_S if step is not None and (step.step == 0 or step.continues is not None) else 0

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
        if self.table.beside and self.plan.part is not None:
            raise ValueError("what takes several requests reads one table")
        self.plan.check(self.table, self.backend)
        check_slots(slot_count(self.plan, self.table), self.backend, most_slots(self.plan))
        check_price(self.table, self.plan, self.micro_rho)
        self._check_backend()
        self._check_replaces()
        return self

    def _check_replaces(self) -> None:
        if self.replaces is None:
            return
        left_out = self.replaces.left_out
        if left_out != tuple(sorted(set(left_out))) or not set(left_out).isdisjoint(self.silos):
            raise ValueError("the silos that are left out must be sorted, distinct, and not asked")
        if len(left_out) > (self.or_without or 0):
            raise ValueError(f"{len(left_out)} silos are left out, {self.or_without or 0} may be")
        if len({*self.replaces.nonces, self.nonce}) <= len(self.replaces.requests):
            raise ValueError("a request names its own nonce as replaced, or one twice")

    @model_validator(mode="after")
    def _check_continues(self) -> Self:
        step = self.plan.training
        if step is not None and (step.continues is None) != (self.replaces is None):
            raise ValueError("a training step that leaves out silos continues another run, and no other step does")
        if step is None and self.plan.part is not None and self.replaces is not None:
            raise ValueError("a round of a search stands in no other's place; ask it anew")
        return self

    @model_validator(mode="after")
    def _check_drawn(self) -> Self:
        step, whole = self.plan.training, self.run_silos
        if step is None or step.share == 1:
            return self
        if step.release != "exact" or step.continues is not None:
            raise ValueError("a share of silos is for rounds without noise, of a run that continues none")
        if whole != tuple(sorted(set(whole))) or self.silos not in draws(step.run, step.step, whole, step.share):
            message = f"round {step.step + 1} of this run asks a share of {len(whole)} silos"
            raise ValueError(f"{message}, and {', '.join(self.silos)} are no draw of it")
        return self

    @model_validator(mode="after")
    def _check_released(self) -> Self:
        step = self.plan.training
        receiver = None if step is None else step.released_to
        if receiver is not None and receiver.name != self.analyst:
            raise ValueError(f"a model is released to the analyst who asks for it, not to {receiver.name}")
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
            if clamp_of(limit, scale_bits) < extents[statistic].room or limit // 2 < 8 * math.isqrt(variance):
                message = f"{self.backend} cannot carry {statistic.kind} of {silos} silos at this price"
                raise ValueError(f"{message}; take the backend masking")
        try:
            chosen.bind(Shape(slot_count(self.plan, self.table), silos, quorum_of(silos), limit), self.round_key)
        except CryptoError as err:
            raise ValueError(err.message) from err


def most_slots(computation: Computation) -> int:
    """Return how many slots a computation may have: of a step of training as many as a model has weights."""
    return MAX_SLOTS if computation.training is None else MAX_TRAINED


def check_slots(slots: int, backend: str, most: int = MAX_SLOTS) -> None:
    """Raise ValueError if an answer has more slots than a backend is fast enough for."""
    if slots > most + CUT_SLOTS:  # of the figures, and of what bounding cut
        raise ValueError(f"the answer has {slots:,} slots, at most {most:,} are possible")
    if slots > OTHER_SLOTS + CUT_SLOTS and backend != "masking":
        message = f"the answer has {slots:,} slots, {backend} carries {OTHER_SLOTS:,}"
        raise ValueError(f"{message}; take the backend masking")


def resolved(request: Request, domains: Mapping[bytes, LongDomain]) -> Request:
    """Return the same request with the values of every long domain that `domains` has, by its hash."""
    return (
        request.model_copy(update={"table": request.table.resolved(domains)}) if request.table.unresolved else request
    )


def shared_by_run(request: Request, part: RunPart) -> Request:
    """Return what the requests of all parts of a run share; it is no valid request itself."""
    fields: dict[str, object] = {"nonce": bytes(16), "plan": part.first(), "created_at": 0, "expires_at": 0}
    fields |= {"silos": request.run_silos}
    fields |= {"round_key": b"", "sealed_secrets": (), "wait_seconds": None, "send_seconds": None}
    return request.model_copy(update=fields)


def job_of(request: Request, part: RunPart) -> bytes:
    """Return the SHA-256 of what the requests of all parts of a run share."""
    return digest_of(shared_by_run(request, part))


def asked_in(request: Request, step: TrainingStep, draw: int = 0) -> dict[str, object]:
    """Return the fields in which a request for a step of a run differs from that for another: the step and its silos.

    `request` is any of the run, and `draw` counts the draws of a round that asks a share of the silos.
    """
    silos = request.run_silos
    return {"plan": step, "silos": silos if step.share == 1 else drawn(step.run, step.step, draw, silos, step.share)}
