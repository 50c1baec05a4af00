"""Several questions about one table as one request: one round, one price, a table of the answer for each.

Each question stays the plan that it is alone. Questions with the same filter, groups and bounding make one *block* and
share their statistics; what else they have in common is bought twice. The vector is that of all blocks, one after
another, and their statistics are named by block. A person may change all blocks at once: each statistic has noise of
its own, so the prices of the blocks add up to that of the request, and each block has the part of it that the weights
of its questions say. docs/decisions/0043-several-statements.md.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import gcd, lcm
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from crypto.wire import Message
from policies.requests.cases import Cases
from policies.requests.expressions import Derived
from policies.requests.predicates import Predicate
from policies.requests.query import Plan
from policies.requests.statistic import Extent, Statistic
from policies.requests.survival import MOST_WORK, grid_of
from policies.requests.tables import Table
from policies.units import ColumnRole

MAX_STATEMENTS = 50  # of one request
MAX_WEIGHT = 1000
MAX_STATISTICS = 256  # of one request: as many blocks as a manifest has


_KEPT = 32  # requests whose statistics are remembered: every party asks for them a dozen times


@dataclass(frozen=True, slots=True)
class Block:
    """Questions that share their statistics, as one plan with the aggregates of all; its part of the price."""

    plan: Plan
    weight: int
    statements: tuple[int, ...]  # their places in the request


class Statements(Message):
    """Several questions about one table, in their order."""

    kind: Literal["statements"] = "statements"
    plans: Annotated[tuple[Plan, ...], Field(min_length=2, max_length=MAX_STATEMENTS)]
    # How the price is divided among the questions; none: equally.
    weights: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MAX_WEIGHT)], ...],
        Field(default=(), max_length=MAX_STATEMENTS, exclude_if=lambda weights: not weights),
    ] = ()

    release: ClassVar[Literal["private", "exact"]] = "private"
    result: ClassVar[Literal["query-result", "model", "metrics"]] = "query-result"
    approved_as: ClassVar[Literal["query", "training", "key-search"]] = "query"
    training: ClassVar[None] = None
    side: ClassVar[None] = None
    judged: ClassVar[None] = None
    reads_rows: ClassVar[bool] = True
    opened_as: ClassVar[str] = "query"
    search: ClassVar[None] = None
    part: ClassVar[None] = None
    curve: ClassVar[None] = None  # nor this
    inner: ClassVar[None] = None  # each question may have one of its own
    coarsened: ClassVar[tuple[str, ...]] = ()  # each question may merge members that another one shows

    @property
    def alone(self) -> tuple[Plan, ...]:
        return self.plans

    @property
    def blocks(self) -> tuple[Plan, ...]:
        return tuple(block.plan for block in self.shared)

    @property
    def shared(self) -> tuple[Block, ...]:
        """The questions by what they share, in the order of the vector."""
        found: dict[tuple[object, ...], list[int]] = {}
        for place, plan in enumerate(self.plans):
            found.setdefault(_alike(plan), []).append(place)
        return tuple(self._block(tuple(places)) for places in found.values())

    def _block(self, places: tuple[int, ...]) -> Block:
        first, weights = self.plans[places[0]], self._weights
        aggregates = tuple(dict.fromkeys(one for place in places for one in self.plans[place].aggregates))
        # A plan that is never sent: only its statistics are computed, so its aliases need not differ.
        plan = first.model_copy(update={"aggregates": aggregates})
        return Block(plan, sum(weights[place] for place in places), places)

    @property
    def _weights(self) -> tuple[int, ...]:
        """The weight of each statement; raises ValueError if there are more or fewer."""
        weights = self.weights or (1,) * len(self.plans)
        if len(weights) != len(self.plans):
            raise ValueError(f"{len(weights)} weights for {len(self.plans)} statements")
        return weights

    @property
    def portions(self) -> tuple[tuple[int, int], ...]:
        """The part of the price that buys the figures of each question, as a fraction: that of its block."""
        blocks = self.shared
        whole = sum(block.weight for block in blocks)
        of = {place: block.weight for block in blocks for place in block.statements}
        return tuple((of[place], whole) for place in range(len(self.plans)))

    @property
    def dimensions(self) -> tuple[str, ...]:
        return _united(plan.dimensions for plan in self.plans)

    @property
    def cases(self) -> tuple[Cases, ...]:
        return tuple(one for plan in self.plans for one in plan.cases)

    @property
    def derived(self) -> tuple[Derived, ...]:
        return tuple(one for plan in self.plans for one in plan.derived)

    @property
    def functions(self) -> tuple[str, ...]:
        return _united(plan.functions for plan in self.plans)

    @property
    def conditions(self) -> tuple[Predicate, ...]:
        """What a row must meet to be counted in whatever question."""
        first, *others = self.plans
        return tuple(one for one in first.conditions if all(one in other.conditions for other in others))

    @property
    def paired(self) -> tuple[str, ...]:
        return _united(plan.paired for plan in self.plans)

    @property
    def has_own_noise(self) -> bool:
        return False

    @property
    def is_about_persons(self) -> bool:
        return any(plan.is_about_persons for plan in self.plans)

    def rows_in_words(self, table: Table) -> str:
        return f"in each of the {len(self.plans)} statements " + " or ".join(
            dict.fromkeys(plan.rows_in_words(table) for plan in self.plans)
        )

    def seen(self, table: Table) -> Table:
        return table

    def thresholds(self, table: Table) -> Iterator[tuple[str, str]]:
        return chain.from_iterable(plan.thresholds(table) for plan in self.plans)

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        used = [plan.uses() for plan in self.plans]
        roles: tuple[ColumnRole, ...] = tuple(dict.fromkeys(role for one in used for role in one))
        return {role: _united(one.get(role, ()) for one in used) for role in roles}

    def group_count(self, table: Table) -> int:
        return sum(plan.group_count(table) for plan in self.plans)

    def size(self, table: Table) -> int:
        """Return how much each row costs: its cells are read once, and each block computes on them."""
        read = 1 + len({name for names in self.uses().values() for name in names})
        return read + sum(plan.size(table) for plan in self.blocks)

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the statistics of each block, named by it; a block's shares of the price add up to its weight."""
        kept = _FOUND.get((id(self), id(table)))
        if kept is not None and kept[0] is self and kept[1] is table:  # what is kept keeps its id
            return kept[2]
        found = MappingProxyType(self._statistics(table))
        _FOUND[id(self), id(table)] = self, table, found
        while len(_FOUND) > _KEPT:
            _FOUND.popitem(last=False)
        return found

    def _statistics(self, table: Table) -> dict[Statistic, Extent]:
        blocks = self.shared
        of = [block.plan.statistics(table) for block in blocks]
        wholes = [sum(extent.share for extent in found.values()) for found in of]
        common = lcm(*wholes)
        shares = [
            extent.share * block.weight * (common // whole)
            for block, found, whole in zip(blocks, of, wholes, strict=True)
            for extent in found.values()
        ]
        divisor = gcd(*shares) or 1
        named = ((number, *one) for number, found in enumerate(of, 1) for one in found.items())
        return {
            statistic.in_block(number): extent.of_share(share // divisor)
            for (number, statistic, extent), share in zip(named, shares, strict=True)
        }

    def check(self, table: Table, backend: str) -> None:
        for place, plan in enumerate(self.plans, 1):
            try:
                plan.check(table, backend)
            except ValueError as err:
                raise ValueError(f"statement {place}: {err}") from err
        curves = ((plan, plan.curve, plan.seen(table)) for plan in self.plans)
        bins = (
            (plan.group_count(table), grid_of(seen.column(str(curve.column)), curve.width).bins)
            for plan, curve, seen in curves
            if curve is not None
        )
        if sum(groups * of_each**2 for groups, of_each in bins) > MOST_WORK:
            raise ValueError("the survival curves of all statements are too many; ask for some in another request")
        if (count := sum(len(plan.statistics(table)) for plan in self.blocks)) > MAX_STATISTICS:
            raise ValueError(f"the statements need {count} sums, one request has at most {MAX_STATISTICS}")

    def release_remedy(self, release: str) -> str:
        return self.plans[0].release_remedy(release)

    def in_words(self, table_name: str) -> str:
        said = (
            f"statement {place}{'' if not self.weights else f' (weight {weight})'}: {plan.in_words(table_name)}"
            for place, (plan, weight) in enumerate(zip(self.plans, self._weights, strict=True), 1)
        )
        return "; ".join(said)


_FOUND: OrderedDict[tuple[int, int], tuple[Statements, Table, Mapping[Statistic, Extent]]] = OrderedDict()


class _Sums(Protocol):
    def statistics(self, table: Table) -> Mapping[Statistic, Extent]: ...


def statistics_of(plan: _Sums, table: Table) -> Sequence[Mapping[Statistic, Statistic]]:
    """Return for each statement its statistics, each with the one of the request that it is."""
    if not isinstance(plan, Statements):
        return [{one: one for one in plan.statistics(table)}]
    found = list[Mapping[Statistic, Statistic]]([{}] * len(plan.plans))
    for number, block in enumerate(plan.shared, 1):
        for place in block.statements:
            found[place] = {one: one.in_block(number) for one in plan.plans[place].statistics(table)}
    return found


def _alike(plan: Plan) -> tuple[object, ...]:
    """Return what questions must have in common to share their statistics: all but their figures.

    Whether any figure is of rows decides what is counted as cut, and so is a part of it. A survival curve stands alone.
    """
    is_of_rows = any(one.function != "persons" for one in plan.aggregates)
    return plan.where, plan.group_by, plan.cases, plan.inner, plan.derived, plan.curve, plan.counts_cut, is_of_rows


def _united(parts: Iterator[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in parts for name in names))
