"""One step of a training run in the analyst's signed request: one secure sum, one charge.

A run is a chain: each step names the encrypted report of the step before, so all silos of a run have the same model at
the same step. The common part of all model families is here; a family adds its own parameters and statistics, as
`policies/requests/logistic.py` does, and for all exact families `policies/requests/exact.py`. docs/protocol.md 11.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import prod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.rounds.manifest import Recipient
from crypto.wire import Digest, Message, Name, RoundId
from policies.requests.audited import AuditLimit
from policies.requests.held_out import HeldOut, Side, marks_of
from policies.requests.one_sum import OneSum
from policies.requests.tables import Table
from policies.units import MAX_STEPS, ColumnRole, counted

MAX_FEATURES = 64
START = bytes(32)  # the first step names this as the report before it

Positive = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?$")]


class TrainingStep(OneSum, Message, ABC):
    """The common fields of the steps of all model families; the result is a model, which the silos receive.

    They alone receive it, unless `released_to` names the analyst. Nobody but the silos receives an update.

    With release "private" the sum has noise, and one person changes a silo's part by at most `clip_norm` in L2 norm.
    With release "exact" it has none and `clip_norm` is 0; only a source that its policy declares exact answers.
    """

    kind: str  # each family names its own; the order of fields is that of the wire
    run: RoundId
    step: Annotated[int, Field(ge=0, lt=MAX_STEPS)]
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    after: Digest  # SHA-256 of the encrypted report of the step before
    release: Literal["private", "exact"]
    label: Name | None
    features: Annotated[tuple[Name, ...], Field(max_length=MAX_FEATURES)]
    # The run from whose last opened model this one goes on with fewer silos; left out of any other.
    continues: Annotated[RoundId | None, Field(default=None, exclude_if=lambda run: run is None)] = None
    # The persons from whom the model does not learn; left out where it learns from all.
    held_out: Annotated[HeldOut | None, Field(default=None, exclude_if=lambda held: held is None)] = None
    # The largest gap between groups with which the model leaves its silos; left out where the job states none.
    audit: Annotated[AuditLimit | None, Field(default=None, exclude_if=lambda limit: limit is None)] = None
    # The analyst, to whom silos seal the model at the end of the run; left out where it stays with the silos.
    released_to: Annotated[Recipient | None, Field(default=None, exclude_if=lambda one: one is None)] = None

    result: ClassVar[Literal["query-result", "model", "metrics"]] = "model"
    # What `disclosure.release` needs, one of which, where the analyst receives the result too.
    released_as: ClassVar[tuple[str, ...]] = ("model-to-analyst",)
    approved_as: ClassVar[Literal["query", "training", "key-search"]] = "training"
    search: ClassVar[None] = None
    reads_rows: ClassVar[bool] = True
    dimensions: ClassVar[tuple[str, ...]] = ()
    functions: ClassVar[tuple[str, ...]] = ()
    is_about_persons: ClassVar[bool] = False
    rounds_key: ClassVar[str] = "steps"  # of a job file: how many steps a run has
    clip_key: ClassVar[str] = "clip"  # of a job file: the norm to which each person's part is clipped

    @model_validator(mode="after")
    def _check_chain(self) -> Self:
        if self.step >= self.steps or (self.step == 0) != (self.after == START):
            raise ValueError("step must be below steps, and follow a report unless it is the first")
        named = self.columns()
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"a column is used twice: {', '.join(twice)}; name it once, as label, feature or part")
        if self.continues == self.run:
            raise ValueError("a run continues another one")
        return self

    @property
    def training(self) -> Self:
        return self

    @property
    def part(self) -> Self:
        return self

    @property
    def opened_as(self) -> str:
        return self.kind

    @property
    def judged(self) -> Any:
        """The `policies.requests.judged.JudgedModel` that an audit is of; None of a step that is no audit."""
        return None

    @property
    @abstractmethod
    def clip_norm(self) -> Decimal:
        """The L2 norm to which each person's part is clipped; 0 without noise."""

    @property
    def share(self) -> Decimal:
        """The share of the run's silos that a round asks."""
        return Decimal(1)

    @property
    def unit(self) -> str:
        """Whose change the noise hides: a "person", or a whole "silo"."""
        return "person"

    @property
    def cohort(self) -> int | None:
        """Of how many persons a group is, at least, that the model shows; None where it shows no groups."""
        return None

    @property
    def side(self) -> Side | None:
        return None if self.held_out is None else Side(self.held_out, is_held_out=False)

    def first(self) -> Self:
        """Return the first step of the run; it has the fields that all steps share."""
        return self.model_copy(update={"step": 0, "after": START})

    def columns(self) -> tuple[str, ...]:
        """Return every column that the step reads."""
        return (*self.features, *(() if self.label is None else (self.label,)), *self._marks)

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        found: dict[ColumnRole, tuple[str, ...]] = {
            "feature": self.features,
            "label": () if self.label is None else (self.label,),
        }
        return found | ({"held_out": self._marks} if self._marks else {})

    @property
    def _marks(self) -> tuple[str, ...]:
        """The column that says which rows are held out, if one does."""
        return marks_of(self.held_out)

    @property
    def whose_in_words(self) -> str:
        """Who receives the model beside the silos, in words; empty where nobody does."""
        return "" if self.released_to is None else f", whose model {self.released_to.name} receives too"

    def rows_in_words(self, table: Table) -> str:
        rows = f"at most {counted(table.max_rows, 'row')}"
        return rows if self.held_out is None else f"{rows}, and none of who is held out: {self.held_out}"

    def state_values(self, slots: int) -> int:
        """Return of how many values, with up to five numbers each, the state of the run is, by the slots of its vector.

        A family whose vector is shorter than its model returns more.
        """
        return slots

    def owns(self, table: Table) -> Mapping[str, int]:
        """Return the lengths of what a silo keeps for itself after the step, by its name; none of most families."""
        return {}

    def thresholds(self, table: Table) -> Iterator[tuple[str, str]]:
        return iter(())

    def group_count(self, table: Table) -> int:
        return 1

    def size(self, table: Table) -> int:
        """Return how much each row costs: the id, and for each column one, or as many as it has values or numbers."""
        columns = [table.column(name) for name in self.columns()]
        return 1 + sum(prod(column.shape) if column.shape else len(column.domain) or 1 for column in columns)

    def check(self, table: Table, backend: str) -> None:
        if backend == "shares":
            # Each silo could receive a different false sum, and the silos would then have different models.
            raise ValueError("shares does not train models; take the backend masking")

    def release_remedy(self, release: str) -> str:
        return f'train with release = "{release}"'

    def in_words(self, table_name: str) -> str:
        features = ", ".join(self.features)
        run = f"a run of {counted(self.steps, 'step')} ({self.release}){self.whose_in_words}"
        return f"train {self.label} from {features} in {table_name}, {run}"
