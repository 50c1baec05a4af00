"""By brute force: no person changes a tree of counts by more than its price was computed for, at one silo or at two."""

from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from policies.requests.persons import Inner, InnerColumn
from policies.requests.predicates import Compare
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import TableColumn
from policies.requests.trees import TREE, tree_of, tree_over
from silo_node.data.answer import Vectors, added, question
from silo_node.data.coded import NO_MEMBER, NO_NUMBER, NO_STEPS, Members, Numbers, Rows, Run, Steps
from silo_node.data.lots import Lots
from silo_node.data.trees import counts
from tests.cases import every
from tests.harness.example_policy import GRADE, WARD, request, table

NEIGHBOURS = 10_000
PERSONS = 3
RANGES = (1, 7, 8, 30, 110)  # steps: trees of one to three levels


def of(name: str, at: str) -> Aggregate:
    return Aggregate(function="quantile", column=name, at=at, alias=f"{name} {at}")


FIGURES = (of("x", "0.5"), of("x", "0.9"), of("y", "0.25"), Aggregate(function="avg", column="x", alias="mean"))
INNER = Inner(
    where=None,
    columns=(
        InnerColumn(name="x", function="sum", column="age", low=0, high=40),
        InnerColumn(name="y", function="count", column=None, high=9),
    ),
)


def columns(steps: int) -> tuple[TableColumn, ...]:
    own = (TableColumn(name=name, type="int", low=-3, high=steps - 3, step="1") for name in ("x", "y", "age"))
    return (WARD, GRADE, *own)


def asked_of(random: Random, steps: int) -> Request:
    """Return a question with two trees, of any bounds; of persons' rows, or of what they come to."""
    most = random.randint(1, 20)
    norm = random.choice([None, None, random.randint(1, most - 1)]) if most > 1 else None
    by = random.choice([(), ("ward",), ("ward", "grade")])
    inner = INNER if random.randrange(5) == 0 else None
    where = Compare(column="x", op=">", value="2") if random.randrange(3) == 0 else None
    plan = Plan(
        where=where,
        group_by=() if inner else by,
        aggregates=FIGURES,
        inner=inner,
        counts_cut=random.random() < 0.5,
    )
    return request(
        micro_rho=100_000, table=table(max_rows=most, max_norm=norm, max_silos=2, columns=columns(steps)), plan=plan
    )


def rows_of(random: Random, steps: int) -> Rows:
    """Return rows of three persons: one may have all of theirs in one bin of one group, or one in each group."""
    count, kind = random.randint(1, 24), random.randrange(4)
    person = np.array(random.choices(range(PERSONS), (6, 1, 1), k=count), np.int32)
    places = list(range(count)) if kind == 0 else [0] * count if kind == 1 else random.choices(range(12), k=count)

    def steps_of() -> npt.NDArray[np.int64]:
        anywhere = [random.choice([NO_STEPS, -1, 0, 1, steps // 2, steps, steps + 1]) for _ in range(count)]
        return np.array([steps // 2] * count if kind == 1 else anywhere, np.int64)

    cells: dict[Any, Any] = {("steps", name): Steps(steps_of(), -3, steps) for name in ("x", "y", "age")}
    cells["number", "x"] = Numbers(
        np.array([NO_NUMBER if one == NO_STEPS else one - 3 for one in cells["steps", "x"].cells], np.int64)
    )
    wards = [NO_MEMBER if kind > 1 and random.randrange(9) == 0 else place % 3 for place in places]
    cells["member", "ward"] = Members(np.array(wards, np.int32), WARD.domain)
    cells["member", "grade"] = Members(np.array([place // 3 % 4 for place in places], np.int32), GRADE.domain)
    return Rows(person, PERSONS, (Run(0, 0, count),), cells)


def changes(whole: Vectors, without: Vectors) -> list[float]:
    return [float(np.sum((one - other) ** 2)) for one, other in zip(whole, without, strict=True)]


@pytest.mark.slow
def test_no_person_changes_a_tree_by_more_than_its_sensitivity() -> None:
    random, widest, of_two = Random(40), dict[bool, float](), 0.0  # noqa: S311
    for _ in range(NEIGHBOURS):
        steps = random.choice(RANGES)
        asked, most = asked_of(random, steps), random.choice([None, None, 1, 3])
        silos, gone = [rows_of(random, steps) for _ in range(2)], random.randrange(PERSONS)
        lots = [Lots(random.randbytes(64)) for _ in silos]
        whole = [question(rows, asked, None, lot, most) for rows, lot in zip(silos, lots, strict=True)]
        is_in = np.arange(PERSONS) != gone
        without = [question(rows, asked, is_in, lot, most) for rows, lot in zip(silos, lots, strict=True)]
        extents = asked.plan.statistics(asked.table)
        at_one = changes(whole[0], without[0])
        at_both = changes(added(whole), added(without))
        for (statistic, extent), one, both, vector in zip(extents.items(), at_one, at_both, whole[0], strict=True):
            assert len(vector) == extent.length
            assert one <= extent.squared, (statistic, asked)
            assert both <= 4 * extent.squared, "a person known to two silos has the square of two"
            if statistic.kind == TREE:
                is_normed = asked.table.max_norm is not None and asked.plan.inner is None
                widest[is_normed] = max(widest.get(is_normed, 0.0), one / extent.squared)
                of_two = max(of_two, both / (4 * extent.squared))
    assert widest == {False: 1, True: 1}, "the sensitivity is reached, so it is not too large either"
    assert of_two == 1


def test_many_rows_in_one_bin_are_within_the_norm_over_groups() -> None:
    """A person with twelve rows in a bin has a norm of twelve there, in each level; in twelve groups the root of it."""
    steps, lots = 110, Lots(bytes(64))
    one_bin, by_group = (
        [0] * 12,
        list(range(12)),
    )
    for places, norm in ((one_bin, 12.0), (by_group, 12.0**0.5)):
        cells: dict[Any, Any] = {
            ("steps", "x"): Steps(np.full(12, 50, np.int64), -3, steps),
            ("member", "ward"): Members(np.array([place % 3 for place in places], np.int32), WARD.domain),
            ("member", "grade"): Members(np.array([place // 3 for place in places], np.int32), GRADE.domain),
        }
        rows = Rows(np.zeros(12, np.int32), 1, (Run(0, 0, 12),), cells)
        used = Plan(where=None, group_by=("ward", "grade"), aggregates=(of("x", "0.5"),))
        asked = request(
            micro_rho=100_000, table=table(max_rows=20, max_norm=12, max_silos=1, columns=columns(steps)), plan=used
        )
        (present, tree) = question(rows, asked, None, lots, None)
        levels = tree_over(asked.table.column("x")).levels
        assert float(np.sum(present**2)) ** 0.5 == pytest.approx(norm)
        assert float(np.sum(tree**2)) ** 0.5 == pytest.approx(norm * levels**0.5)


@every("values", [2, 8, 9, 64, 65, 1001, 4096, 4097, 10**6])
def test_a_tree_has_few_levels_and_each_row_once_in_each(values: int) -> None:
    tree = tree_of(values)
    assert tree.bins <= 4096
    assert (tree.bins - 1) * tree.width < values <= tree.bins * tree.width
    assert tree.children <= 8
    assert tree.sizes[-1] == tree.bins
    random = np.random.default_rng(values)
    group, value = random.integers(0, 3, 200), random.integers(0, values, 200)
    found = counts(group, value, 3, tree).reshape(3, tree.nodes)
    at = 0
    for above, size in zip(range(tree.levels - 1, -1, -1), tree.sizes, strict=True):
        expected = np.zeros((3, size), np.int64)
        np.add.at(expected, (group, value // (tree.width * tree.children**above)), 1)
        assert (found[:, at : at + size] == expected).all()
        at += size
    assert at == tree.nodes
