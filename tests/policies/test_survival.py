"""The shape of survival curves: their grid, their price, what a row changes, and what a policy must open."""

from math import isqrt

import pytest

from policies.requests.query import Aggregate, Plan
from policies.requests.statistic import Statistic
from policies.requests.survival import MAX_BINS, ROW, SHARE, check_curve, grid_of, kernel, of_curves
from policies.requests.tables import TableColumn
from tests.cases import every
from tests.harness.example_policy import AGE, COLUMNS, SMOKER, STAY, WARD, Edit, plan, policy, request, table
from tests.policies.test_thresholds import judge


def days(low: int, high: int, step: str = "1") -> TableColumn:
    return TableColumn(name="t", type="decimal" if "." in step else "int", low=low, high=high, step=step)


def curve(column: str = "age", width: int | None = None, **changes: object) -> Plan:
    figure = Aggregate(function="survival", column=column, other="smoker", alias="s", width=width)
    return plan(**{"where": None, "group_by": (), "aggregates": (figure,), **changes})


def test_a_grid_has_every_value_in_one_bin_and_every_bin_in_one_row() -> None:
    for low, high, width in ((0, 1100, 1), (0, 1100, 30), (-7, 7, 3), (5, 6, 10), (-100, -1, 7), (3, 700, None)):
        grid = grid_of(days(low, high), width)
        assert [grid.of(value) for value in (low, high)] == [0, grid.bins - 1]
        assert [first for first, _ in grid.rows] == [0, *(last + 1 for _, last in grid.rows[:-1])]
        assert grid.rows[-1][1] == grid.bins - 1
        held = [grid.ends(days(low, high), *row) for row in grid.rows]
        assert [int(held[0][0]), int(held[-1][1])] == [low, high]
        for value in range(low, high + 1):
            (row,) = (row for row, (start, end) in zip(grid.rows, held, strict=True) if start <= value <= end)
            assert row[0] <= grid.of(value) <= row[1]


@every(
    ("column", "width", "bins", "shown"),
    [(days(0, 1100), 1, 1101, 50), (days(0, 10_000), 5, 2001, 500), (days(0, 60), 1, 61, 5), (days(-9, 9), 1, 19, 1)],
)
def test_a_grid_that_no_question_states_is_round_and_shows_few_rows(
    column: TableColumn, width: int, bins: int, shown: int
) -> None:
    grid = grid_of(column, None)
    assert (grid.width, grid.bins, grid.width * grid.shown) == (width, bins, shown)
    assert len(grid.rows) <= 30


def test_a_time_of_decimals_has_bins_of_its_steps() -> None:
    grid = grid_of(days(0, 400, "0.25"), 4)
    assert (grid.bins, [float(one) for one in grid.ends(days(0, 400, "0.25"), 1, 1)]) == (101, [1.0, 1.75])


def test_the_kernel_is_the_square_root_of_all_sums() -> None:
    """Twice it is, to rounding, what adds up everything behind: 1, 1, 1 and so on."""
    weights = kernel(200)
    for place in range(200):
        twice = sum(weights[one] * weights[place - one] for one in range(place + 1))
        assert twice == pytest.approx(ROW**2, rel=0.02)
    assert weights[0] == ROW
    assert min(kernel(MAX_BINS)) >= 1


def test_the_sensitivity_is_the_norm_of_the_kernel_for_each_row() -> None:
    extent = of_curves(groups=3, bins=100, rows=4, share=1)
    assert extent.squared == 16 * sum(one**2 for one in kernel(100))
    assert isqrt(extent.squared) < 4 * 1.7 * ROW
    assert (extent.length, extent.share, extent.per_row) == (600, SHARE, ROW)


def test_a_curve_gets_four_fifths_of_the_price_and_a_sixteenth_counts_what_is_cut() -> None:
    one = Statistic("survival", "age", "smoker")
    shares = {name: extent.share for name, extent in curve().statistics(table()).items()}
    assert shares == {Statistic("present", "age", "smoker"): 1, one: 4}
    shares = {name: extent.share for name, extent in curve(counts_cut=True).statistics(table()).items()}
    assert shares == {Statistic("present", "age", "smoker"): 15, one: 60, Statistic("cut"): 5}


def test_what_cannot_be_a_curve_is_refused() -> None:
    bad = {
        "no time": (WARD, SMOKER, None),
        "no event": (AGE, STAY, None),
        "at most 2,048": (days(0, 5000), SMOKER, 1),
        "too many": (days(0, 2000), SMOKER, 1),
    }
    for said, (time, event, width) in bad.items():
        with pytest.raises(ValueError, match=said):
            check_curve(time, event, width, 10_000)
    check_curve(days(0, 2000), SMOKER, 1, 3)
    for changes, said in (
        ({"aggregates": (*curve().aggregates, Aggregate(function="count", column=None, alias="n"))}, "only aggregate"),
        ({"aggregates": (Aggregate(function="survival", column="age", alias="s"),)}, "2 columns"),
        ({"aggregates": (Aggregate(function="avg", column="age", alias="s", width=2),)}, "no width"),
    ):
        with pytest.raises(ValueError, match=said):
            curve(**changes).check(table(), "masking")


def test_a_policy_opens_it_by_its_name_and_its_time_needs_the_role_filter() -> None:
    opened = policy(Edit('["count", "sum", "avg"]', '["survival"]'))
    used = curve()
    assert not judge(opened, request(plan=used, table=table(columns=COLUMNS)))
    codes = {one.code for one in judge(policy(), request(plan=used))}
    assert codes == {"AGGREGATE"}
    (denial,) = judge(opened, request(plan=curve("stay")))
    assert (denial.code, denial.rule) == ("COLUMN_ROLE", "sources.visits.columns.stay.narrow")
    assert "by the bins of a survival curve" in denial.message


def test_it_is_said_in_words_with_its_width() -> None:
    assert curve(width=7).in_words("visits") == "SURVIVAL(age, smoker, bins of 7 steps) of visits"
    assert b"width" not in curve().encode()
