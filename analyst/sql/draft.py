"""A plan while the rules of `analyst.sql.plan` write it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.offer import Offer
from policies.requests.cases import Cases
from policies.requests.computations import AnyComputation
from policies.requests.expressions import Derived
from policies.requests.predicates import Predicate
from policies.requests.query import MAX_NAME, Aggregate, Plan
from policies.requests.tables import Table


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """A plan in the making."""

    table: str = ""
    group_by: tuple[str, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()
    where: Predicate | None = None
    cases: tuple[Cases, ...] = ()
    derived: tuple[Derived, ...] = ()
    names: tuple[tuple[str, str], ...] = ()  # each dimension's name in the output, and in the plan


@dataclass(frozen=True, slots=True)
class Planned:
    """A question ready to be signed; `output` is the order of the columns that the silos' figures give.

    `after` is the SQL of what is computed from them, on the table `released`; empty where they are the answer.
    """

    table: Table
    plan: Plan
    output: tuple[str, ...]
    names: dict[str, str]  # the column of each dimension in the output, by its name there
    after: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """One question or several, ready to be signed as one request.

    Each table of the answer has the rows of the statements at these places: of one, or of a UNION ALL of several.
    """

    table: Table
    plan: AnyComputation
    statements: tuple[Planned, ...]
    tables: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, planned: Planned) -> "Script":
        """Return the script of one question."""
        return cls(planned.table, planned.plan, (planned,), ((0,),))

    @property
    def is_single(self) -> bool:
        return len(self.tables) == 1


Rule = Callable[[exp.Select, PlanDraft, Offer], PlanDraft]


def check_fields(fields: Iterable[str]) -> None:
    """Raise SqlError unless the fields of a flat answer have names that differ and can be written."""
    taken = set[str]()
    for field in fields:
        if not field.isprintable() or len(field) > MAX_NAME:
            raise SqlError(f"an output name is no printable text of at most {MAX_NAME} characters", "name it with AS")
        if field in taken:
            hint = "give every column of the answer its own name with AS; an aggregate n also takes n_low, n_high, n_sd"
            raise SqlError(f"the output name {field!r} is used twice", hint)
        taken.add(field)
