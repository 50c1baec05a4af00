"""An audit of a model: one secure sum of its decisions by group, which the silos that hold the model open.

It is a run of one step, whose result stays beside the model at every silo, and goes to the analyst where the policies
release that. So each silo judges by it whether the model may leave, be used or be exported. Rows are those that an
evaluation takes. With release "private" each number has noise: all `max_rows` rows of a person may be in one cell, and
a person is counted once in each group. An audit without groups reads no label and counts scores and features in public
bins alone, by which drift is told of any model that predicts. docs/protocol.md section 11.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Name
from policies.requests import audited
from policies.requests.drifting import feature_bins, score_bins
from policies.requests.held_out import Side
from policies.requests.judged import JudgedModel, check_judges, judges
from policies.requests.metrics import bins_of, prediction_of
from policies.requests.scores import Bins
from policies.requests.statistic import Extent, Statistic, exact, noised
from policies.requests.tables import Table, TableColumn
from policies.requests.training import TrainingStep
from policies.units import ColumnRole

MAX_NUMBERS = 400_000  # of scores by group, truth and bin
_ROWS_SHARE = 4  # of the price, in parts: the counts that gaps are made of, beside one part each of the others


class AuditStep(TrainingStep):
    """The one step of an audit: of one model, by the values of up to two columns with the role `audit`."""

    kind: Literal["audit-step"] = "audit-step"
    steps: Literal[1] = 1
    label: Annotated[None, Field(exclude_if=lambda name: name is None)] = None
    features: Annotated[tuple[Name, ...], Field(max_length=0, exclude_if=lambda names: not names)] = ()
    model: JudgedModel
    # Left out where scores and features are counted alone.
    groups: Annotated[tuple[Name, ...], Field(default=(), max_length=2, exclude_if=lambda names: not names)] = ()
    # The least score for which the positive value is decided.
    threshold: Annotated[str, Field(pattern=audited.THRESHOLD)] = audited.USUAL_THRESHOLD
    min_cohort: Annotated[int, Field(ge=2, le=100_000)] = 10
    # Whether the features are counted in public bins too, by which drift is told; left out where they are not.
    has_drift: Annotated[bool, Field(exclude_if=lambda has: not has)] = False

    opened_as: ClassVar[str] = "audit"
    released_as: ClassVar[tuple[str, ...]] = ("metrics", "model-to-analyst")

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if len(set(self.groups)) < len(self.groups) or not float(self.threshold):
            raise ValueError("an audit names each column of groups once, and a threshold above 0")
        if not self.groups and not self.has_drift:
            raise ValueError("an audit without groups tells drift")
        check_judges(self.model, self.held_out)
        return self

    @property
    def judged(self) -> JudgedModel:
        return self.model

    @property
    def clip_norm(self) -> Decimal:
        return Decimal(0)

    @property
    def cohort(self) -> int:
        return self.min_cohort

    @property
    def is_exact(self) -> bool:
        return self.release == "exact"

    @property
    def side(self) -> Side | None:
        return judges(self.held_out)

    @property
    def bins(self) -> Bins:
        """The bins of scores."""
        return bins_of(has_noise=not self.is_exact)

    def columns(self) -> tuple[str, ...]:
        """Return every column that the step reads, once: the model may have a column of groups among its features."""
        if not self.groups:
            return tuple(dict.fromkeys(name for names in self.uses().values() for name in names))
        return tuple(dict.fromkeys((*self.model.step.columns(), *self.groups, *self._marks)))

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        found: dict[ColumnRole, tuple[str, ...]] = dict(self.model.uses())
        if not self.groups:  # rows have a score before anybody knows what is true of them
            found = {"feature": found["feature"]}
            return found | ({"held_out": self._marks} if self._marks else {})
        found["audit"] = tuple(dict.fromkeys((*found.get("audit", ()), *self.groups)))
        return found | ({"held_out": self._marks} if self._marks else {})

    def grouped(self, table: Table) -> list[TableColumn]:
        """Return the columns of the groups."""
        return [table.column(name) for name in self.groups]

    def features_of(self, table: Table) -> list[TableColumn]:
        """Return the features that are counted in bins; none unless drift is told."""
        return [table.column(name) for name in self.model.step.features] if self.has_drift else []

    def size(self, table: Table) -> int:
        """Return how much each row costs: its columns for its score, and the numbers that it changes."""
        return super().size(table) + 4 * (3 + len(self.features_of(table)))

    def check(self, table: Table, backend: str) -> None:
        super().check(table, backend)
        self.model.step.check(table, backend)
        if table.beside:
            raise ValueError("a model is audited by the rows of one table")
        task = self.model.task(table)
        if not self.groups:
            self._check_drift(table)
            return
        if prediction_of(task) != "chance":
            raise ValueError(f"an audit is of decisions between two values; {task.family} of {task.label} makes none")
        audited.check(self.grouped(table))
        if (size := audited.count_of(self.grouped(table)) * 2 * self.bins.count) > MAX_NUMBERS:
            raise ValueError(f"{size:,} numbers by group and score, at most {MAX_NUMBERS:,}; take fewer groups")

    def _check_drift(self, table: Table) -> None:
        count = score_bins(self.model.task(table)).count + sum(map(len, map(feature_bins, self.features_of(table))))
        if count > MAX_NUMBERS:
            raise ValueError(f"{count:,} bins of scores and features, at most {MAX_NUMBERS:,} are counted")

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the rows by group, truth and decision, the persons by group, and the rows by group, truth and bin.

        Without groups: all rows, their persons, and the rows by bin of scores.
        """
        groups = audited.count_of(self.grouped(table))
        lengths = {"rows": 4 * groups, "persons": groups, "bins": 2 * groups * self.bins.count}
        if not self.groups:
            lengths = {"rows": 1, "persons": 1, "bins": score_bins(self.model.task(table)).count}
        if features := self.features_of(table):
            lengths["features"] = sum(map(len, map(feature_bins, features)))
        if self.is_exact:
            return {Statistic(name): exact(length, 1) for name, length in lengths.items()}
        most = table.max_rows
        found = {
            Statistic("rows"): noised(lengths["rows"], most, share=_ROWS_SHARE, per_row=1),
            # One person has rows in at most so many groups, and is one person in each.
            Statistic("persons"): noised(groups, 1).in_groups(min(most, groups)),
            Statistic("bins"): noised(lengths["bins"], most, per_row=1),
        }
        if features:
            # All rows of a person may be in one bin of each feature.
            found[Statistic("features")] = noised(lengths["features"], most, per_row=1).in_groups(len(features))
        return found

    def release_remedy(self, release: str) -> str:
        return f'audit with release = "{release}"'

    def in_words(self, table_name: str) -> str:
        step = self.model.step
        whose = "all rows" if self.held_out is None else f"rows of who is held out: {self.held_out}"
        of = f" of {step.label}" if step.label else ""
        what = f"audit the {step.opened_as}{of} of the run {self.model.run.hex()[:16]}"
        if not self.groups:
            return f"{what}: count scores and features in bins, in {table_name}, {whose} ({self.release})"
        return f"{what} by {' and '.join(self.groups)}, in {table_name}, {whose} ({self.release})"
