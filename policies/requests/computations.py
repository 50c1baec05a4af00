"""All kinds of computation that silos can be asked for, by their names on the wire, and the interface of one.

A computation is one value with three parts. Its *shape* is here: the columns it uses, the statistics in its sum, how
much one person can change them, and who may receive the result. Code that judges, prices or relays a request reads
these properties and never asks for the kind. Its *contribution* (from rows to whole numbers) is in
`silo_node/data/compute.py`, its *result* in `analyst/reports/` or, for a model, in `silo_node/training/models.py`.
docs/extending.md adds one, file by file.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal, Protocol

from pydantic import Field

from policies.requests.audit import AuditStep
from policies.requests.cases import Cases
from policies.requests.evaluation import Evaluation
from policies.requests.exact import ExactStep
from policies.requests.expressions import Derived
from policies.requests.families import SHAPES
from policies.requests.held_out import Side
from policies.requests.judged import JudgedModel
from policies.requests.key_search import KeySearch
from policies.requests.logistic import LogisticStep
from policies.requests.noised import NoisedStep
from policies.requests.persons import Inner
from policies.requests.predicates import Predicate
from policies.requests.query import Aggregate, Plan
from policies.requests.runs import RunPart
from policies.requests.split import SplitStep
from policies.requests.statements import Statements
from policies.requests.statistic import Extent, Statistic
from policies.requests.tables import Table
from policies.requests.training import TrainingStep
from policies.units import ColumnRole


class Computation(Protocol):
    """What a request asks for; a frozen message of the wire."""

    @property
    def kind(self) -> str:
        """The name on the wire."""

    @property
    def opened_as(self) -> str:
        """The name in `purposes.*.computations` of a policy: of a step of a family that of the family."""

    @property
    def release(self) -> Literal["private", "exact"]:
        """The release of the sources that can answer it: with noise, or without."""

    @property
    def result(self) -> Literal["query-result", "model", "metrics"]:
        """The name of the result in `disclosure.release`. A model goes to the silos, all else to the analyst."""

    @property
    def approved_as(self) -> Literal["query", "training", "key-search"]:
        """The name in `approvals.*.when.kind`."""

    @property
    def training(self) -> TrainingStep | None:
        """The computation as a step of a training run; None if it is not such a step."""

    @property
    def search(self) -> KeySearch | None:
        """The computation as a round of a key search; None if it is not such a round."""

    @property
    def side(self) -> Side | None:
        """The persons whose rows it takes, where some are held out; None: all."""

    @property
    def judged(self) -> JudgedModel | None:
        """The model whose predictions it compares with what is true; None of any other."""

    @property
    def reads_rows(self) -> bool:
        """Whether anything in its sum comes from rows."""

    @property
    def has_own_noise(self) -> bool:
        """Whether each silo adds the whole noise to its part, and not a share of it."""

    @property
    def part(self) -> RunPart | None:
        """The computation as one of several requests that are approved together; None if it stands alone."""

    @property
    def alone(self) -> Sequence["Computation"]:
        """The computations that are each judged as if they were asked alone; itself, but of several statements."""

    @property
    def blocks(self) -> Sequence["Computation"]:
        """The computations whose vectors, one after another, are its vector; itself, but of several statements."""

    @property
    def portions(self) -> Sequence[tuple[int, int]]:
        """Which part of the price each of `alone` has, as a fraction."""

    @property
    def dimensions(self) -> Sequence[str]:
        """The columns by which the answer is grouped, by themselves or by conditions on them."""

    @property
    def cases(self) -> Sequence[Cases]:
        """The dimensions that are no column, but conditions."""

    @property
    def coarsened(self) -> Sequence[str]:
        """The columns whose members it merges into fewer groups, and that it uses in no other way."""

    @property
    def functions(self) -> Sequence[str]:
        """The aggregates of the answer, by their names in `disclosure.aggregates`."""

    @property
    def conditions(self) -> Sequence[Predicate]:
        """The predicates that a row must meet to be counted."""

    @property
    def paired(self) -> Sequence[str]:
        """The measures that a figure has together with another measure."""

    @property
    def curve(self) -> Aggregate | None:
        """The survival curve that the answer is, if it is one: its rows are no groups."""

    @property
    def inner(self) -> Inner | None:
        """What makes one row of all rows of a person; None where rows are used singly."""

    @property
    def derived(self) -> Sequence[Derived]:
        """The measures that are computed of a row."""

    @property
    def is_about_persons(self) -> bool:
        """Whether it counts persons, or makes figures of a row of each."""

    def rows_in_words(self, table: Table) -> str:
        """Return how many rows of a person enter, in words."""

    def seen(self, table: Table) -> Table:
        """Return the definition of what it adds: the columns of a row, and the measures that are computed of it."""

    def thresholds(self, table: Table) -> Iterator[tuple[str, str]]:
        """Yield the columns inside whose values it sets a threshold, and how, but for those of its conditions."""

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        """Return the columns that it reads, by their roles."""

    def group_count(self, table: Table) -> int:
        """Return the number of groups of the answer; 1 without dimensions."""

    def size(self, table: Table) -> int:
        """Return the size of the plan: how much each row costs, in the unit of `compute.row_nanoseconds`."""

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the blocks of its vector, in order."""

    def check(self, table: Table, backend: str) -> None:
        """Raise ValueError if it contradicts the table definition or this backend cannot compute it."""

    def release_remedy(self, release: str) -> str:
        """Return the remedy for a source that has the other `release`."""

    def in_words(self, table_name: str) -> str:
        """Return the question in words, for the people who approve it."""


# The closed union of the wire.
AnyComputation = Annotated[
    Plan | KeySearch | LogisticStep | ExactStep | NoisedStep | SplitStep | AuditStep | Evaluation | Statements,
    Field(discriminator="kind"),
]

COMPUTATIONS: Mapping[str, type[Computation]] = MappingProxyType(
    {
        "statements": Statements,  # a policy opens it as the kind of its parts
        "query": Plan,
        "key-search": KeySearch,
        "logistic-regression": LogisticStep,
        "exact-step": ExactStep,
        "noised-step": NoisedStep,
        "split": SplitStep,
        "audit-step": AuditStep,
        "evaluation": Evaluation,
    }
)

# The names that a policy opens and a request can ask for; those of a step of a family are the families, and a
# split of the persons is opened as what it is for.
OPENED: frozenset[str] = frozenset({"query", "key-search", "logistic-regression", "evaluation", *SHAPES})


def slot_count(computation: Computation, table: Table) -> int:
    """Return the length of the vector that each silo contributes."""
    return sum(extent.length for extent in computation.statistics(table).values())
