"""The section [audit] of a job file: by which groups a model is audited, and the largest gap that it may have."""

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from crypto.wire import Name
from policies.document.section import MeasureName
from policies.requests.audited import AuditLimit
from policies.units import Number


class AuditJob(BaseModel):
    """How the model of a job is audited once it is trained."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    groups: Annotated[tuple[Name, ...], Field(min_length=1, max_length=2)]  # columns of the role audit
    measure: MeasureName | None = None
    max_gap: Annotated[Number, Field(ge=0, lt=1)] | None = None
    threshold: Annotated[Number, Field(gt=0, lt=1)] = Decimal("0.5")  # the least score that is decided for
    min_cohort: Annotated[int, Field(ge=2, le=100_000)] | None = None  # None: the policies' largest
    epsilon: Annotated[Number, Field(gt=0, le=100)] | None = None  # of the audit alone; private sources only
    recipients: tuple[Literal["silos", "analyst"], ...] = ("silos",)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.measure is None) != (self.max_gap is None):
            raise ValueError(
                "audit.measure and audit.max_gap go together: the gap by which it is judged, and its limit"
            )
        if len(set(self.groups)) < len(self.groups):
            raise ValueError("audit.groups names a column twice")
        if "silos" not in self.recipients or len(set(self.recipients)) < len(self.recipients):
            raise ValueError('audit.recipients is ["silos"], or ["silos", "analyst"]: the silos always have it')
        return self

    @property
    def in_words(self) -> str:
        """What is asked at the end of the run, in one line."""
        if not self.groups:
            return f"drift: scores and features are counted{_beside(self)}"
        limit = "" if self.measure is None else f", which may differ by {self.max_gap} in {self.measure}"
        return f"audit: of the groups by {' and '.join(self.groups)}{limit}{_beside(self)}"

    @property
    def limit(self) -> AuditLimit | None:
        """What the run's requests state, so that every silo knows it."""
        if self.measure is None or self.max_gap is None:
            return None
        return AuditLimit(
            groups=self.groups,
            measure=self.measure,
            max_gap=f"{Decimal(self.max_gap).normalize():f}",
            threshold=f"{Decimal(self.threshold).normalize():f}",
        )


def counted_alone(epsilon: Number | None) -> AuditJob:
    """Return the audit of a job that is watched and names no groups: scores and features are counted in bins alone."""
    found: dict[str, Any] = {"groups": (), "epsilon": epsilon, "recipients": ("silos", "analyst")}
    return AuditJob.model_construct(**found)


def _beside(job: AuditJob) -> str:
    return "" if job.epsilon is None else f", for epsilon {job.epsilon:g} beside"
