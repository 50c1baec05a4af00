"""One round of a model family: what exact and noised ones share, and a round without noise, on sources declared exact.

There is one message for all exact families. `family` names one of `SHAPES`, and the blocks of the
sum follow from it, from the columns and options, and from the number of the round. docs/protocol.md section 11.
"""

from abc import ABC
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, InstanceOf, model_validator
from pydantic.json_schema import SkipJsonSchema

from crypto.wire import Message, Name
from policies.networks.names import NETWORKS
from policies.networks.packed import Packed
from policies.requests.beginning import Begins, Begun
from policies.requests.families import SHAPES, Shape, Task, check_task
from policies.requests.networks import check_begins
from policies.requests.noised_families import NOISED, why_exact_alone
from policies.requests.statistic import Extent, Statistic
from policies.requests.tables import MAX_TEXT, Table
from policies.requests.training import MAX_FEATURES, TrainingStep
from policies.units import ColumnRole, counted

_MOST_SETTINGS = 48
SHARE = "share"  # the option that says which share of the run's silos a round asks


class Setting(Message):
    """A named part of a family: an option and its value, or a further column and its name."""

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_]*$")]
    value: Annotated[str, Field(max_length=MAX_TEXT)]

    def __str__(self) -> str:
        return f"{self.name} = {self.value}"


Settings = Annotated[tuple[Setting, ...], Field(max_length=_MOST_SETTINGS, exclude_if=lambda settings: not settings)]


class FamilyStep(TrainingStep, ABC):
    """One round of a family: `step` is its number, and `steps` is how many the run has at most."""

    label: Annotated[Name | None, Field(exclude_if=lambda name: name is None)] = None
    features: Annotated[tuple[Name, ...], Field(max_length=MAX_FEATURES)] = ()
    family: Name
    parts: Settings = ()  # further columns
    options: Settings = ()
    # Of a network of any graph, which the option `graph` names by its hash, where its file is here; in no encoding.
    graph: SkipJsonSchema[InstanceOf[Packed] | None] = Field(default=None, exclude=True, repr=False)

    # The model whose weights a run of a network begins with; left out where they are fresh or packed.
    begins: Annotated[Begins | None, Field(default=None, exclude_if=lambda model: model is None)] = None
    # Whether the model before this step is the best so far by the metric of the run, as its analyst says.
    is_best: Annotated[bool, Field(default=False, exclude_if=lambda best: not best)] = False
    # The weights that the run begins with, where they are here; in no encoding.
    begun: SkipJsonSchema[InstanceOf[Begun] | None] = Field(default=None, exclude=True, repr=False)

    rounds_key: ClassVar[str] = "rounds"
    shapes: ClassVar[Mapping[str, Shape]]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for settings in (self.parts, self.options):
            if [one.name for one in settings] != sorted({one.name for one in settings}):
                raise ValueError("parts and options must be sorted and distinct")
        if self.is_best and (self.family not in NETWORKS or not self.step):
            raise ValueError("a later step of a network alone says that the model before it is the best")
        return self

    def first(self) -> Self:
        return super().first().model_copy(update={"is_best": False})

    @property
    def opened_as(self) -> str:
        return self.family

    @property
    def shape(self) -> Shape:
        """What the family takes; raises ValueError where there is no such family."""
        if self.family not in self.shapes:
            kind = self.release
            raise ValueError(f"no {kind} family {self.family!r}, expected one of {', '.join(self.shapes)}")
        return self.shapes[self.family]

    @property
    def settings(self) -> Mapping[str, str]:
        """The options, with the defaults of those that the request leaves out."""
        defaults = {name: option.default for name, option in self.shape.options.items()}
        return defaults | {one.name: one.value for one in self.options}

    @property
    def share(self) -> Decimal:
        named = next((one.value for one in self.options if one.name == SHARE), "")
        return Decimal(named or 1)

    def state_values(self, slots: int) -> int:
        return self.shape.held(self.settings, slots)

    def task(self, table: Table) -> Task:
        """Return what the family's shape and its computation read of this step."""
        return Task(
            family=self.family,
            table=table,
            number=self.step,
            rounds=self.steps,
            label=self.label,
            features=self.features,
            parts={one.name: one.value for one in self.parts},
            options=self.settings,
            run=self.run,
            graph=self.graph,
            begun=self.begun,
        )

    def owns(self, table: Table) -> Mapping[str, int]:
        return self.shape.owns(self.task(table))

    def columns(self) -> tuple[str, ...]:
        return (*super().columns(), *(one.value for one in self.parts))

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        known = self.shape.parts
        found: dict[ColumnRole, tuple[str, ...]] = dict(super().uses())
        for one in self.parts:
            role: ColumnRole = known[one.name].role if one.name in known else "feature"
            found[role] = (*found.get(role, ()), one.value)
        return found

    def size(self, table: Table) -> int:
        """Return how much each row costs: its columns, and a part of each number that it changes in a round."""
        if self.shape.changed is not None:
            return super().size(table) + self.shape.changed(self.task(table))
        rounds = (self.model_copy(update={"step": number}) for number in range(2))
        return super().size(table) + max(sum(self.shape.blocks(one.task(table)).values()) for one in rounds)

    def check(self, table: Table, backend: str) -> None:
        super().check(table, backend)
        check_task(self.task(table), self.shapes)
        if self.begins is not None:
            check_begins(self.task(table))

    def in_words(self, table_name: str) -> str:
        of = f" of {self.label}" if self.label else ""
        by = f" from {', '.join(self.features)}" if self.features else ""
        beside = f" with {', '.join(map(str, self.parts))}" if self.parts else ""
        run = f"a run of at most {counted(self.steps, 'step')} ({self.release}){self.whose_in_words}"
        return f"fit a {self.family}{of}{by}{beside} in {table_name}, {run}"


class ExactStep(FamilyStep):
    """One round of an exact family."""

    kind: Literal["exact-step"] = "exact-step"
    release: Literal["exact"] = "exact"
    shapes: ClassVar[Mapping[str, Shape]] = SHAPES

    @property
    def clip_norm(self) -> Decimal:
        return Decimal(0)

    @property
    def cohort(self) -> int | None:
        option, named = self.shape.options.get("min_cohort"), {one.name: one.value for one in self.options}
        if option is None or not self.shape.has_groups(named):
            return None
        return int(named.get("min_cohort", option.default))

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        return {Statistic(name): extent for name, extent in self.shape.extents(self.task(table)).items()}

    def release_remedy(self, release: str) -> str:
        has_other = 'take sources with release = "exact"'
        if self.family not in NOISED:
            return f"{why_exact_alone(self.family)}; or {has_other}"
        return f'remove release = "exact" from the job, as {self.family} has a form with noise; or {has_other}'
