"""An evaluation: one secure sum that tells how good a model's predictions are, by rows that its silos have.

The analyst receives the sums, and no score of a row. With release "private" every number has noise, and one person's
`max_rows` rows change each block by what `statistics` says. A silo that opens its own metrics (`own`) has slots of its
own in the common sum, to which all others add zeros. docs/protocol.md section 11.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Message
from policies.requests.held_out import HeldOut, Side, marks_of
from policies.requests.judged import JudgedModel, check_judges, judges
from policies.requests.metrics import METRICS, MetricName, Sum, sums_of
from policies.requests.one_sum import OneSum
from policies.requests.statistic import Extent, Statistic, exact, noised
from policies.requests.tables import Table
from policies.units import ColumnRole, counted

OWN = "own"  # beside the name of a block: the slots of the silos that open their own metrics


class Evaluation(OneSum, Message):
    """The metrics of one model, by the rows of those who are held out, or by all rows of a table."""

    kind: Literal["evaluation"] = "evaluation"
    release: Literal["private", "exact"]
    model: JudgedModel
    metrics: Annotated[tuple[MetricName, ...], Field(min_length=1, max_length=len(METRICS))]
    held_out: Annotated[HeldOut | None, Field(default=None, exclude_if=lambda held: held is None)] = None

    opened_as: ClassVar[str] = "evaluation"
    result: ClassVar[Literal["query-result", "model", "metrics"]] = "metrics"
    approved_as: ClassVar[Literal["query", "training", "key-search"]] = "training"
    training: ClassVar[None] = None
    search: ClassVar[None] = None
    part: ClassVar[None] = None
    reads_rows: ClassVar[bool] = True
    dimensions: ClassVar[tuple[str, ...]] = ()
    functions: ClassVar[tuple[str, ...]] = ()
    is_about_persons: ClassVar[bool] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.metrics) != sorted(set(self.metrics)):
            raise ValueError("metrics are in order, each once")
        check_judges(self.model, self.held_out)
        return self

    @property
    def judged(self) -> JudgedModel:
        return self.model

    @property
    def side(self) -> Side | None:
        return judges(self.held_out)

    @property
    def is_exact(self) -> bool:
        return self.release == "exact"

    def sums(self, table: Table) -> Mapping[str, Sum]:
        """Return the blocks of one judgement, by name; raises ValueError where a metric does not fit the model."""
        return sums_of(self.model.task(table), self.metrics, has_noise=not self.is_exact)

    def rows_in_words(self, table: Table) -> str:
        rows = f"at most {counted(table.max_rows, 'row')}"
        return rows if self.held_out is None else f"{rows} of who is held out: {self.held_out}"

    def thresholds(self, table: Table) -> Iterator[tuple[str, str]]:
        return iter(())

    def group_count(self, table: Table) -> int:
        return 1

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        marks = marks_of(self.held_out)
        found: dict[ColumnRole, tuple[str, ...]] = dict(self.model.uses())
        return found | ({"held_out": marks} if marks else {})

    def size(self, table: Table) -> int:
        """Return how much each row costs: its columns for its score, and the numbers that it changes."""
        columns = (name for names in self.uses().values() for name in names)
        read = 1 + sum(len(table.column(name).domain) or 1 for name in columns)
        return read + 4 * sum(one.changed for one in self.sums(table).values())

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the blocks; with noise one person changes each by at most `max_rows` times what a row does."""
        sums, silos = self.sums(table), len(self.model.own)
        found = {Statistic(name): self._extent(one, table) for name, one in sums.items()}
        if silos:
            found |= {Statistic(name, OWN): self._extent(one, table, silos) for name, one in sums.items()}
        return found

    def _extent(self, one: Sum, table: Table, silos: int = 1) -> Extent:
        if self.is_exact:
            return exact(silos * one.length, one.most)
        # All rows of a person may change the same numbers, each by the most.
        return noised(silos * one.length, table.max_rows * one.most, per_row=one.most).in_groups(one.changed)

    def check(self, table: Table, backend: str) -> None:
        if table.beside:
            raise ValueError("a model is judged by the rows of one table")
        self.model.step.check(table, "masking")
        self.sums(table)

    def release_remedy(self, release: str) -> str:
        return f'evaluate with release = "{release}"'

    def in_words(self, table_name: str) -> str:
        step, silos = self.model.step, self.model.own
        own = f"; of each of {', '.join(silos)} alone too" if silos else ""
        whose = "all rows" if self.held_out is None else f"rows of who is held out: {self.held_out}"
        of = f" of {step.label}" if step.label else ""
        what = f"judge the {step.opened_as}{of} of the run {self.model.run.hex()[:16]} by {', '.join(self.metrics)}"
        return f"{what}, in {table_name}, {whose} ({self.release}){own}"
