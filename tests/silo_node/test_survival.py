"""What a silo adds for survival curves: exact trails, and no person, at one silo or two, shifts them too far."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.survival import TRAILS, Grid, grid_of, kernel
from policies.requests.tables import Table, TableColumn
from silo_node.data import answer
from silo_node.data.coded import NO_MEMBER, NO_STEPS, Members, Rows, Run, Steps
from silo_node.data.lots import SECRET_BYTES, Lots
from silo_node.data.survival import trails
from tests.harness.example_policy import request

LOW, HIGH = -3, 14
TIME = TableColumn(name="t", type="int", low=LOW, high=HIGH, step="1")
DIED = TableColumn(name="died", type="bool", low=0, high=1, step="1")
WARD = TableColumn(name="ward", type="string", domain=("a", "b", "c", "unknown"), unknown="unknown")
SECRET = bytes(range(SECRET_BYTES))


class Row(NamedTuple):
    """One row: the place of its ward, a time and whether the event was seen, each of which may be missing."""

    ward: int
    time: int | None
    died: bool | None


ROW = st.builds(Row, st.integers(0, 3), st.none() | st.integers(LOW - 3, HIGH + 3), st.none() | st.booleans())
AT_THE_END = st.just(Row(0, HIGH, True))  # whose trail has every number of the kernel
PERSON = st.lists(ROW, max_size=12) | st.lists(AT_THE_END, max_size=12) | st.lists(ROW | AT_THE_END, max_size=12)


def asked(most: int, norm: int | None, width: int | None, is_grouped: bool, silos: int = 2) -> Request:
    table = Table(name="visits", max_rows=most, max_silos=silos, columns=(WARD, TIME, DIED), max_norm=norm)
    figure = Aggregate(function="survival", column="t", other="died", alias="s", width=width)
    groups = ("ward",) if is_grouped else ()
    return request(table=table, plan=Plan(where=None, group_by=groups, aggregates=(figure,), counts_cut=True))


def coded(people: Sequence[Sequence[Row]], first: int = 0, person: int = 0) -> Rows:
    """Return the rows of some persons, the first of them the row `first` of its segment."""
    rows = [row for own in people for row in own]
    steps = [NO_STEPS if row.time is None else np.clip(row.time - LOW, -1, HIGH - LOW + 1) for row in rows]
    codes = [NO_MEMBER if row.died is None else int(row.died) for row in rows]
    cells: dict[Any, Any] = {
        ("steps", "t"): Steps(np.array(steps, np.int64), LOW, HIGH - LOW),
        ("member", "died"): Members(np.array(codes, np.int64), ("false", "true")),
        ("member", "ward"): Members(np.array([row.ward for row in rows], np.int64), WARD.domain),
    }
    owner = np.repeat(np.arange(len(people)), [len(own) for own in people])
    return Rows(owner, len(people), (Run(0, first, len(rows)),), cells, person)


def plainly(rows: Sequence[Row], grid: Grid, groups: int) -> list[list[list[int]]]:
    """Return the trails as their definition has them, row by row."""
    found = [[[0] * grid.bins for _ in range(TRAILS)] for _ in range(groups)]
    weights = kernel(grid.bins)
    for row in rows:
        if row.time is None or row.died is None:
            continue
        is_event = row.died and row.time <= HIGH
        back = grid.bins - 1 - grid.of(min(max(row.time, LOW), HIGH))
        for place in range(back, grid.bins):
            found[row.ward if groups > 1 else 0][0 if is_event else 1][place] += weights[place - back]
    return found


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, max_size=30), width=st.sampled_from([1, 4, 100, None]), is_grouped=st.booleans())
def test_trails_are_those_of_every_row(rows: list[Row], width: int | None, is_grouped: bool) -> None:
    grid, groups = grid_of(TIME, width), 4 if is_grouped else 1
    found = answer.question(coded([[row] for row in rows]), asked(1, None, width, is_grouped), None, Lots(SECRET), None)
    assert found[1].reshape(groups, TRAILS, grid.bins).tolist() == plainly(rows, grid, groups)
    present = [row for row in rows if row.time is not None and row.died is not None]
    assert found[0].sum() == len(present)


def test_what_happens_beyond_the_upper_bound_is_not_seen() -> None:
    grid, one, zero = grid_of(TIME, 1), np.array([1]), np.array([0])
    for cell, is_event in ((HIGH - LOW, True), (HIGH - LOW + 1, False), (-1, True)):
        found = trails(zero, 1, np.array([cell]), one, TIME, grid).reshape(TRAILS, grid.bins)
        assert bool(found[0].any()) is is_event
        assert bool(found[1].any()) is not is_event
    assert not trails(zero, 1, np.array([NO_STEPS]), one, TIME, grid).any()


def test_parts_of_the_rows_add_up() -> None:
    random = np.random.default_rng(3)
    cells, event = random.integers(-1, HIGH - LOW + 2, 500), random.integers(0, 2, 500)
    group, grid = random.integers(0, 4, 500), grid_of(TIME, 2)
    whole = trails(group, 4, cells, event, TIME, grid)
    parts = [trails(group[part], 4, cells[part], event[part], TIME, grid) for part in (slice(0, 77), slice(77, 500))]
    assert (whole == parts[0] + parts[1]).all()


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(
    people=st.lists(PERSON, min_size=1, max_size=3),
    elsewhere=PERSON,
    norm=st.sampled_from([1, 2, 3, None]),
    most=st.sampled_from([4, 7]),
    width=st.sampled_from([1, 3, 100, None]),
    is_grouped=st.booleans(),
    max_groups=st.sampled_from([None, 1, 2]),
    secret=st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
)
def test_no_person_shifts_the_trails_further_than_the_price_assumes(
    people: list[list[Row]],
    elsewhere: list[Row],
    norm: int | None,
    most: int,
    width: int | None,
    is_grouped: bool,
    max_groups: int | None,
    secret: bytes,
) -> None:
    """The last person is at two silos, with other rows at the other one; the total shifts by what both silos' do."""
    used = asked(most, norm, width, is_grouped)
    extents = used.plan.statistics(used.table)

    def contributed(rows: Rows) -> answer.Vectors:
        return answer.question(rows, used, None, Lots(secret), max_groups)

    rest = sum(map(len, people[:-1]))
    whole, others = contributed(coded(people)), contributed(coded(people[:-1]))
    alone = contributed(coded(people[-1:], rest, len(people) - 1))
    there = contributed(coded([elsewhere]))
    for extent, one, without, own, other in zip(extents.values(), whole, others, alone, there, strict=True):
        assert (one - without == own).all()
        assert sum(int(shift) ** 2 for shift in own) <= extent.squared
        both = sum(int(shift) ** 2 for shift in own + other)
        assert both <= used.table.max_silos**2 * extent.squared


@pytest.mark.parametrize("norm", [2, None])
def test_the_sensitivity_is_reached(norm: int | None) -> None:
    used = asked(4, norm, 1, is_grouped=True)
    extents = list(used.plan.statistics(used.table).values())
    own = answer.question(coded([[Row(0, HIGH, True)] * 9]), used, None, Lots(SECRET), None)
    spread = answer.question(coded([[Row(ward, HIGH, False) for ward in range(4)]]), used, None, Lots(SECRET), None)
    assert sum(int(one) ** 2 for one in own[1]) == extents[1].squared
    assert sum(int(one) ** 2 for one in spread[1]) == 4 * extents[1].squared // (norm or 4) ** 2
