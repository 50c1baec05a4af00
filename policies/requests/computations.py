"""Every kind of computation that silos can be asked for: the shape of each, by its name in a policy.

A computation is one value with three faces. Its *shape* is here: which columns it uses, which statistics its sum holds,
how much one person can change them, who may receive the result. All that judges, prices or relays a request asks the
value for these and never which kind it is. Its *contribution* (rows to whole numbers) is found in
`silo_node/data/compute.py`, its *result* in `analyst/reports/` or, for a model, in `silo_node/training/models.py`.
docs/extending.md adds one, file by file.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal, Protocol

from pydantic import Field

from policies.requests.logistic import LogisticStep
from policies.requests.query import Plan, Predicate
from policies.requests.statistic import Extent, Statistic
from policies.requests.tables import Table
from policies.requests.training import TrainingStep
from policies.units import Role


class Computation(Protocol):
    """What a request asks for; a frozen message of the wire."""

    @property
    def kind(self) -> str:
        """The name in `purposes.*.computations` of a policy, and on the wire."""

    @property
    def release(self) -> Literal["private", "exact"]:
        """The release of the sources that can answer it: with noise, or without."""

    @property
    def result(self) -> Literal["query-result", "model"]:
        """The name of the result in `disclosure.release`. A model goes to the silos, all else to the analyst."""

    @property
    def approved_as(self) -> Literal["query", "training"]:
        """The name in `approvals.*.when.kind`."""

    @property
    def training(self) -> TrainingStep | None:
        """The step of a training run that it is; None if it is asked for at once."""

    @property
    def dimensions(self) -> Sequence[str]:
        """The columns by which the answer is grouped."""

    @property
    def functions(self) -> Sequence[str]:
        """The aggregates of the answer, by their names in `disclosure.aggregates`."""

    @property
    def conditions(self) -> Sequence[Predicate]:
        """The predicates that every row must fulfil to enter."""

    def uses(self) -> Mapping[Role, tuple[str, ...]]:
        """Return the columns that it reads, by the role that it reads them in."""

    def group_count(self, table: Table) -> int:
        """Return the number of groups of the answer; 1 without dimensions."""

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the blocks of its vector, in order."""

    def check(self, table: Table, backend: str) -> None:
        """Raise ValueError where it contradicts the table definition or cannot be asked for by this backend."""

    def release_remedy(self, release: str) -> str:
        """Return what an analyst can do about a source of the other `release`."""

    def in_words(self, table_name: str) -> str:
        """Return what it asks for, as those who approve it read it."""


AnyComputation = Annotated[Plan | LogisticStep, Field(discriminator="kind")]  # the closed union of the wire

COMPUTATIONS: Mapping[str, type[Computation]] = MappingProxyType(
    {
        "query": Plan,
        "logistic-regression": LogisticStep,
    }
)


def slot_count(computation: Computation, table: Table) -> int:
    """Return the length of the vector that each silo contributes."""
    return sum(extent.length for extent in computation.statistics(table).values())
