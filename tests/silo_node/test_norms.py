"""A person's rows are bounded by their length over the groups: what enters, and that no person shifts a sum further."""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.requests.predicates import Compare
from policies.requests.query import CUT, Aggregate, Plan
from policies.requests.request import Request
from policies.requests.tables import Table, TableColumn
from silo_node.data import answer
from silo_node.data.bounding import by_lot, chosen
from silo_node.data.coded import NO_STEPS, Bools, Members, Rows, Run, Steps
from silo_node.data.lots import SECRET_BYTES, Lots, Words
from silo_node.data.norms import Owned, has_more, within_norm
from tests.harness.example_policy import request

WARDS = ("a", "b", "c", "unknown")
DAYS = (*(f"{day:02}" for day in range(99)), "unknown")
SCHEMES: Mapping[str, TableColumn] = {
    "ward": TableColumn(name="ward", type="string", domain=WARDS, unknown="unknown"),
    "day": TableColumn(name="day", type="string", domain=DAYS, unknown="unknown"),
    "age": TableColumn(name="age", type="int", low=0, high=10, step="1"),
    "cost": TableColumn(name="cost", type="int", low=-3, high=4, step="1", can_be_missing=False),
}


class Row(NamedTuple):
    """One row: the places of its ward and day, an age or None, and a cost."""

    ward: int
    day: int
    age: int | None
    cost: int


CELLS = st.none() | st.integers(-1, 11), st.integers(-4, 5)  # an age and a cost beyond the bounds are clamped
ANYWHERE, IN_ONE_GROUP = (
    st.builds(Row, *place, *CELLS) for place in ((st.integers(0, 3), st.integers(0, 99)), (st.just(0), st.just(0)))
)
PERSON = st.lists(ANYWHERE, max_size=30) | st.lists(IN_ONE_GROUP, max_size=30)


def coded(people: Sequence[Sequence[Row]], first: int = 0, person: int = 0) -> Rows:
    """Return the rows of some persons, the first of them the row `first` of its segment."""
    rows = [row for own in people for row in own]
    steps = {"age": [NO_STEPS if row.age is None else np.clip(row.age, -1, 11) for row in rows]}
    steps["cost"] = [np.clip(row.cost + 3, -1, 8) for row in rows]
    cells: dict[Any, Any] = {
        ("steps", name): Steps(np.array(found, np.int64), SCHEMES[name].low or 0, SCHEMES[name].range_steps)
        for name, found in steps.items()
    }
    cells["member", "ward"] = Members(np.array([row.ward for row in rows], np.int64), WARDS)
    cells["member", "day"] = Members(np.array([row.day for row in rows], np.int64), DAYS)
    owner = np.repeat(np.arange(len(people)), [len(own) for own in people])
    return Rows(owner, len(people), (Run(0, first, len(rows)),), cells, person)


def question(
    group_by: tuple[str, ...], most: int, norm: int | None, where: Any = None, counts_cut: bool = False
) -> Request:
    figures = (("count", None), ("sum", "age"), ("avg", "cost"))
    return request(
        table=Table(name="visits", max_rows=most, max_silos=2, columns=tuple(SCHEMES.values()), max_norm=norm),
        plan=Plan(
            where=where,
            group_by=group_by,
            aggregates=tuple(Aggregate(function=one, column=name, alias=f"{one} {name}") for one, name in figures),  # type: ignore[arg-type]
            counts_cut=counts_cut,
        ),
    )


def plain(rows: Owned, most: int, norm: int, lots: Words) -> Bools:
    """Return which rows are in, row by row."""
    is_in = np.zeros(len(rows.person), np.bool_)
    held: dict[tuple[int, int], int] = {}
    squares: dict[int, int] = {}
    counts: dict[int, int] = {}
    for place in np.lexsort((lots, rows.person)):
        pair = one, _ = int(rows.person[place]), int(rows.group[place])
        has = held.get(pair, 0)
        if counts.get(one, 0) < most and squares.get(one, 0) + (has + 1) ** 2 - has**2 <= norm**2:
            is_in[place] = True
            held[pair], counts[one] = has + 1, counts.get(one, 0) + 1
            squares[one] = squares.get(one, 0) + 2 * has + 1
    return is_in


def drawn(generator: np.random.Generator, rows: int, persons: int, groups: int) -> tuple[Owned, Words]:
    owned = Owned(generator.integers(0, persons, rows), persons, generator.integers(0, groups, rows), groups)
    return owned, generator.integers(0, 2**64, rows, np.uint64)


def test_rows_are_taken_in_the_order_of_their_lots_while_they_fit() -> None:
    """As one loop over the rows takes them: valid, and whatever is passed over did not fit."""
    generator, over = np.random.default_rng(1), 0
    for _ in range(1_500):
        rows, lots = drawn(generator, *(int(generator.integers(1, end)) for end in (70, 6, 14)))
        most, norm = int(generator.integers(1, 30)), int(generator.integers(1, 8))
        found = within_norm(rows, most, norm, lots.__getitem__)
        assert (found == plain(rows, most, norm, lots)).all()
        held = np.zeros((rows.persons, rows.groups), np.int64)
        np.add.at(held, (rows.person[found], rows.group[found]), 1)
        assert (held**2).sum(axis=1).max() <= norm**2
        assert held.sum(axis=1).max() <= most
        for place in np.flatnonzero(~found):
            own = held[rows.person[place]]
            assert own.sum() == most or (own**2).sum() + 2 * own[rows.group[place]] + 1 > norm**2
        over += int(has_more(rows, most, norm).sum())
        assert (has_more(rows, most, norm) == (np.bincount(rows.person[~found], minlength=rows.persons) > 0)).all()
    assert over > 1_000


def test_the_choice_of_a_person_is_the_same_beside_whomever() -> None:
    """And the same in whatever part of the persons: lots are those of the rows, and no other person has a say."""
    generator = np.random.default_rng(2)
    person = np.sort(generator.integers(0, 200, 6_000))
    group, lots = generator.integers(0, 9, 6_000), generator.integers(0, 2**64, 6_000, np.uint64)
    everybody = within_norm(Owned(person, 200, group, 9), 25, 6, lots.__getitem__)
    assert 0.3 < everybody.mean() < 0.9
    for cuts in ((0, 1, 100, 200), (0, 77, 78, 200), range(201)):
        for low, end in pairwise(cuts):
            part = (person >= low) & (person < end)
            mine = Owned(person[part] - low, end - low, group[part], 9)
            assert (within_norm(mine, 25, 6, lots[part].__getitem__) == everybody[part]).all()
    for _ in range(20):  # others have other rows
        mine = person % 7 == 3
        others = np.where(mine, group, generator.integers(0, 9, 6_000))
        assert (within_norm(Owned(person, 200, others, 9), 25, 6, lots.__getitem__) == everybody)[mine].all()


def test_lots_that_differ_in_the_last_bit_alone_are_ordered_as_they_are_without_others() -> None:
    """The more rows, the fewer bits of a lot fit into the word that is sorted; they decide nothing."""
    generator = np.random.default_rng(3)
    for rows in (40, 100_000):
        rank = np.sort(generator.integers(0, rows // 4, rows))
        lots = generator.integers(0, 2**64, rows, np.uint64)
        rank[:10], lots[:10] = 0, np.uint64(2**63) + np.arange(10, dtype=np.uint64)[::-1]
        order = by_lot(rank, lots)
        assert (order == np.lexsort((lots, rank))).all()
        in_order = order[np.isin(order, np.arange(10))]
        assert in_order.tolist() == list(range(9, -1, -1))
        is_in = chosen(rank, rows, 5, lots.__getitem__)
        assert is_in[5:10].all() or is_in[:10].sum() < 5
        assert not (is_in[:5] & ~is_in[5:10]).any()


def test_every_row_is_drawn_as_often() -> None:
    """Chi-square of 4,000 draws of one person: 12 rows in each of three groups, of which a norm of 6 lets some in."""
    is_in, group = np.zeros(36), np.repeat(np.arange(3), 12)
    rows = Owned(np.zeros(36, np.int64), 1, group, 3)
    for _ in range(4_000):
        is_in += within_norm(rows, 100, 6, Lots().of_rows([Run(0, 7, 36)]).__getitem__)
    expected = is_in.mean()
    assert 0.2 * 4_000 < expected < 0.4 * 4_000
    assert ((is_in - expected) ** 2 / expected).sum() < 95, "35 degrees of freedom; 1e-6 lies above 87"


def test_the_first_row_is_any_row_and_the_order_of_lots_decides() -> None:
    """Of one large and one small group each row is the first as often, so the large group is closed first."""
    group = np.array([0] * 30 + [1] * 3)
    first = np.zeros(33)
    for _ in range(4_000):
        first += within_norm(
            Owned(np.zeros(33, np.int64), 1, group, 2), 1, 30, Lots().of_rows([Run(0, 0, 33)]).__getitem__
        )
    expected = 4_000 / 33
    assert ((first - expected) ** 2 / expected).sum() < 85, "32 degrees of freedom; 1e-6 lies above 83"


def test_a_table_lets_in_no_more_rows_than_it_says() -> None:
    """By brute force: the largest number of rows with so small a norm over so many groups."""
    for norm in range(1, 6):
        for groups in range(1, 7):
            best, fits = 0, [(0, 0)]
            for _ in range(groups):
                fits = [(rows + n, sq + n * n) for rows, sq in fits for n in range(norm + 1) if sq + n * n <= norm**2]
                fits = list(dict.fromkeys(fits))
            best = max(rows for rows, _ in fits)
            for most in (norm + 1, 8, 100):
                if most > norm:
                    of = Table(name="t", max_rows=most, max_silos=1, columns=(), max_norm=norm)
                    assert of.most_rows(groups) == min(best, most), (norm, groups, most)
                    assert of.most_in_a_group == norm
    assert Table(name="t", max_rows=7, max_silos=1, columns=()).most_rows(1) == 7
    with pytest.raises(ValueError, match="max_norm 7 bounds nothing"):
        Table(name="t", max_rows=7, max_silos=1, columns=(), max_norm=7)


SECRET = bytes(range(SECRET_BYTES))
WHERES = (None, Compare(column="ward", op="=", value="a"))


def contributed(rows: Rows, asked: Request, secret: bytes, max_groups: int | None = None) -> answer.Vectors:
    return answer.question(rows, asked, None, Lots(secret), max_groups)


def check_neighbours(people: Sequence[Sequence[Row]], asked: Request, secret: bytes, max_groups: int | None) -> None:
    """Assert that the last person shifts each statistic by exactly what that person contributes alone, and not too far.

    The last one, as then the others' rows keep their numbers, and so their lots.
    """
    whole = contributed(coded(people), asked, secret, max_groups)
    others = contributed(coded(people[:-1]), asked, secret, max_groups)
    rest = sum(map(len, people[:-1]))
    alone = contributed(coded(people[-1:], rest, len(people) - 1), asked, secret, max_groups)
    extents = asked.plan.statistics(asked.table)
    for (statistic, extent), one, without, own in zip(extents.items(), whole, others, alone, strict=True):
        assert (one - without == own).all(), statistic
        assert sum(int(shift) ** 2 for shift in own) <= extent.sensitivity**2, statistic


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    people=st.lists(PERSON, min_size=1, max_size=4),
    group_by=st.sampled_from([(), ("ward",), ("day",), ("ward", "day")]),
    norm=st.sampled_from([1, 2, 3, 4, 6, None]),
    most=st.sampled_from([7, 12, 1_000]),
    where=st.sampled_from(WHERES),
    max_groups=st.sampled_from([None, 1, 3]),
    secret=st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
)
def test_no_person_shifts_a_statistic_further_than_its_sensitivity(
    people: list[list[Row]],
    group_by: tuple[str, ...],
    norm: int | None,
    most: int,
    where: Any,
    max_groups: int | None,
    secret: bytes,
) -> None:
    check_neighbours(people, question(group_by, most, norm, where, counts_cut=True), secret, max_groups)


ENDS = (Row(0, 0, 10, 4), Row(0, 0, 0, -3))
EVERYWHERE = [Row(0, place, 10, 4) for place in range(99)] + [Row(0, 99, 10, 4)]


@pytest.mark.parametrize("norm", [1, 3, 10])
@pytest.mark.parametrize("group_by", [(), ("ward",), ("day",), ("ward", "day")], ids=str)
def test_the_sensitivity_is_reached_where_rows_are_in_one_group_and_where_they_are_in_many(
    group_by: tuple[str, ...], norm: int
) -> None:
    """One person in norm^2 groups of one grouping is in one group of the other, and as long in both."""
    asked, reached = question(group_by, 1_000, norm), []
    for own in (*([end] * 200 for end in ENDS), EVERYWHERE):
        check_neighbours([[ENDS[0]], own], asked, SECRET, None)
        reached.append([int((one**2).sum()) for one in contributed(coded([own]), asked, SECRET)])
    extents = asked.plan.statistics(asked.table)
    for place, (statistic, extent) in enumerate(extents.items()):
        assert max(squares[place] for squares in reached) == extent.sensitivity**2, statistic
        per_row = SCHEMES[statistic.column or ""].range_steps if statistic.kind == "total" else 1
        assert extent.sensitivity == norm * per_row
    by_day = contributed(coded([EVERYWHERE]), asked, SECRET)[0]
    assert by_day.sum() == (min(100, norm**2) if "day" in group_by else norm)
    assert by_day.sum() <= asked.table.most_rows(asked.plan.group_count(asked.table))


def test_max_rows_holds_beside_a_norm_and_alone() -> None:
    for most, norm, rows, length in ((5, 4, 5, 4), (1_000, 4, 16, 4), (5, None, 5, 5)):
        asked = question(("day",), most, norm)
        assert contributed(coded([EVERYWHERE]), asked, SECRET)[0].sum() == rows
        assert next(iter(asked.plan.statistics(asked.table).values())).sensitivity == length
    by_ward = question((), 1_000, 4)
    assert [vector.tolist() for vector in contributed(coded([[ENDS[0]] * 50]), by_ward, SECRET)] == [
        [4],
        [4],
        [40],
        [28],
    ]


def test_rows_beyond_the_norm_are_left_out_and_counted_as_cut() -> None:
    """Whose rows are longer, by the rows that match; and whose are not has nothing cut, however many rows there are."""
    spread = [Row(place % 4, place, 5, 0) for place in range(16)]  # 16 days of norm 4; 4 wards, of norm 8
    short, long = [Row(0, 0, 5, 0)] * 4, [Row(0, 0, 5, 0)] * 5
    people = [spread, short, long, [Row(0, 0, 5, 9)] * 5, [Row(1, 1, 1, 0)] * 9, []]
    for group_by, where, slots in (
        (("day",), None, [2, 2, 0, 1]),
        (("ward",), None, [1, 3, 0, 1]),
        ((), None, [1, 3, 0, 1]),
        (("day",), WHERES[1], [2, 1, 0, 1]),  # one has no such row
    ):
        asked = question(group_by, 1_000, 4, where, counts_cut=True)
        assert contributed(coded(people), asked, SECRET)[-1].tolist() == slots
    assert contributed(coded(people), question(("day",), 15, 4, counts_cut=True), SECRET)[-1].tolist() == [1, 3, 0, 1]
    assert contributed(coded(people), question(("day",), 99, 4, counts_cut=True), SECRET, 3)[-1].tolist() == [
        1,
        3,
        0,
        1,
    ]
    assert list(asked.plan.statistics(asked.table))[-1] == CUT


def test_what_a_norm_lets_in_adds_up_over_any_parts() -> None:
    generator = np.random.default_rng(4)
    people = [
        [Row(int(ward), int(day), 5, 1) for ward, day in generator.integers(0, (4, 20), (generator.integers(0, 40), 2))]
        for _ in range(60)
    ]
    asked = question(("ward",), 25, 6, counts_cut=True)
    whole = contributed(coded(people), asked, SECRET)
    starts = np.concatenate([[0], np.cumsum([len(own) for own in people])])
    for cuts in ((0, 1, 30, 60), (0, 17, 18, 60), range(61)):
        parts = answer.added(
            contributed(coded(people[low:end], int(starts[low]), low), asked, SECRET) for low, end in pairwise(cuts)
        )
        assert all((one == other).all() for one, other in zip(parts, whole, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("persons", "groups"), [(50_000, 8), (1, 100_000)], ids=["many persons", "one person"])
def test_a_million_rows_are_bounded_within_the_cost_of_a_few_sorts(persons: int, groups: int) -> None:
    """No loop over rows, persons or groups: however the rows are spread, their number decides."""
    rows, lots = drawn(np.random.default_rng(5), 1_000_000, persons, groups)
    began = time.process_time()
    within_norm(rows, 10_000, 6, lots.__getitem__)
    bounded = time.process_time()
    np.lexsort((lots, rows.person))
    assert bounded - began < 20 * (time.process_time() - bounded) + 1
