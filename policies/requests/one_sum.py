"""What computations have in common that are one sum of one table: no statements, conditions or groups by them.

A step of training, an evaluation and a round of a key search are such; a question and several of them are more.
"""

from typing import ClassVar, Self

from policies.requests.cases import Cases
from policies.requests.expressions import Derived
from policies.requests.predicates import Predicate
from policies.requests.tables import Table


class OneSum:
    """The parts of `policies.requests.computations.Computation` that are the same of each."""

    cases: ClassVar[tuple[Cases, ...]] = ()
    coarsened: ClassVar[tuple[str, ...]] = ()
    derived: ClassVar[tuple[Derived, ...]] = ()
    inner: ClassVar[None] = None
    curve: ClassVar[None] = None
    conditions: ClassVar[tuple[Predicate, ...]] = ()
    paired: ClassVar[tuple[str, ...]] = ()
    portions: ClassVar[tuple[tuple[int, int], ...]] = ((1, 1),)

    @property
    def has_own_noise(self) -> bool:
        return False

    @property
    def alone(self) -> tuple[Self, ...]:
        return (self,)

    @property
    def blocks(self) -> tuple[Self, ...]:
        return (self,)

    def seen(self, table: Table) -> Table:
        return table
