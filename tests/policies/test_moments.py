"""The shape of aggregates from moments: which sums they share, how much a row changes each, and what a policy opens."""

from itertools import product

import pytest

from policies.requests.capacity import carried_rows, carriers
from policies.requests.moments import MOST, OPENED_AS, PAIRS, SPREADS, product_most, product_shift, square_most
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.statistic import Statistic
from policies.requests.tables import TableColumn
from policies.units import MAX_RANGE_STEPS, ROWS_UP_TO
from tests.cases import every
from tests.harness.example_policy import AGE, COLUMNS, COST, SMOKER, STAY, Edit, plan, policy, request, table
from tests.policies.test_thresholds import judge


def of(function: str, *columns: str, alias: str = "a") -> Aggregate:
    column, other = (*columns, None, None)[:2]
    return Aggregate(function=function, column=column, other=other, alias=alias)  # type: ignore[arg-type]


def names(*aggregates: Aggregate, sure: tuple[str, ...] = ()) -> list[str]:
    """Return the statistics of a question, where some columns can never be missing."""
    columns = tuple(one.model_copy(update={"can_be_missing": one.name not in sure}) for one in COLUMNS)
    used = plan(where=None, group_by=(), aggregates=aggregates)
    return [one.name for one in used.statistics(table(columns=columns))]


def wide(steps: int, name: str = "x") -> TableColumn:
    return TableColumn(name=name, type="int", low=0, high=steps, step="1")


def test_figures_share_what_is_the_same() -> None:
    one = of("avg", "age", alias="a"), of("stddev_samp", "age", alias="b"), of("var_pop", "age", alias="c")
    assert names(*one) == ["present:age", "total:age", "square:age"]
    pair = of("corr", "cost", "age", alias="d"), of("covar_pop", "age", "cost", alias="e")
    rows = ["present:age:cost", "total:cost:age", "total:age:cost", "product:age:cost", "square:age:cost"]
    assert names(*pair) == [*rows, "square:cost:age"]
    assert names(of("regr_slope", "cost", "age")) == rows
    assert names(of("regr_avgx", "cost", "age")) == ["present:age:cost", "total:age:cost"]
    assert names(of("regr_avgy", "cost", "age")) == ["present:age:cost", "total:cost:age"]
    assert names(of("regr_count", "age", "cost")) == ["present:age:cost"]


def test_a_column_that_cannot_be_missing_is_no_condition_of_a_pair() -> None:
    """So a pair shares its sums with figures of one column: fewer of them, each with less noise."""
    figures = of("corr", "cost", "age", alias="c"), of("var_pop", "age", alias="v")
    assert names(*figures, sure=("age",)) == [
        "present:cost", "total:cost", "total:age:cost", "product:age:cost", "square:age:cost", "square:cost",
        "rows", "total:age", "square:age",
    ]  # fmt: skip
    both = ["rows", "total:cost", "total:age", "product:age:cost", "square:age", "square:cost"]
    assert names(*figures, sure=("age", "cost")) == both


def test_a_column_of_two_values_needs_no_squares() -> None:
    assert names(of("var_pop", "smoker")) == ["present:smoker", "total:smoker"]
    assert "square:smoker:age" not in names(of("corr", "smoker", "age"))
    assert "square:age:smoker" in names(of("corr", "smoker", "age"))


def test_a_row_changes_a_square_and_a_product_by_no_more_than_is_said() -> None:
    """By every pair of cells: the most is reached, so the noise is no larger than it must be."""
    for steps in range(1, 40):
        squares = [2 * (cell * (steps - cell)) - square_most(wide(steps)) for cell in range(steps + 1)]
        assert max(map(abs, squares)) == square_most(wide(steps))
        for other in (1, 2, 7, 40):
            cells = product(range(steps + 1), range(other + 1))
            products = [(2 * one - steps) * (2 * two - other) for one, two in cells]
            assert max(map(abs, products)) == product_most(wide(steps), wide(other))


@every("steps", [2**14, 2**15, 2**15 + 1, 2**16, 505_000, 2**31 + 1, MAX_RANGE_STEPS])
def test_a_row_changes_no_sum_by_more_than_fits(steps: int) -> None:
    assert square_most(wide(steps)) <= MOST
    for other in (1, 110, 2**15, MAX_RANGE_STEPS):
        assert product_most(wide(steps), wide(other)) <= MOST
    if steps**2 <= MOST:
        assert product_shift(wide(steps), wide(steps)) == 0, "exact"
    asked = plan(where=None, group_by=(), aggregates=(of("corr", "x", "y"),))
    for silos in (3, 40, 400):
        whole = table(columns=(wide(steps), wide(steps, "y")))
        assert carried_rows(whole, asked, 10_000, "masking", silos) >= min(ROWS_UP_TO, 2**40 // silos // steps)


def test_what_no_backend_carries_is_refused_with_a_remedy() -> None:
    used = plan(where=None, group_by=(), aggregates=(of("var_pop", "cost"),))
    assert "ckks" not in carriers(table(), used, 10_000, 4, ROWS_UP_TO)
    assert "masking" in carriers(table(), used, 10_000, 4, ROWS_UP_TO)
    with pytest.raises(ValueError, match="the noise would exceed the ring; narrow the bounds or raise epsilon"):
        request(plan=used, micro_rho=1, table=table(max_rows=10_000, max_silos=400))


@every(
    ("function", "columns"),
    [
        ("var_pop", ()),
        ("var_pop", ("age", "cost")),
        ("corr", ("age",)),
        ("corr", ("age", "age")),
        ("corr", ()),
        ("sum", ("age", "cost")),
        ("sum", ()),
        ("count", ("age", "cost")),
    ],
)
def test_a_figure_has_the_columns_that_it_takes(function: str, columns: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes [12] column"):
        request(plan=plan(where=None, group_by=(), aggregates=(of(function, *columns),)))


@every("function", ["count", "sum", "var_pop", "corr"])
def test_a_second_column_stands_beside_a_first(function: str) -> None:
    alone = Aggregate(function=function, column=None, other="age", alias="a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"takes [12] column"):
        request(plan=plan(where=None, group_by=(), aggregates=(alone,)))


def test_the_wire_of_other_figures_is_what_it_was() -> None:
    plain = of("avg", "age").model_dump(exclude_none=False)
    assert plain == {"function": "avg", "column": "age", "alias": "a"}
    asked = request(plan=plan(where=None, aggregates=(of("corr", "age", "cost"),)))
    assert Request.decode(asked.encode()) == asked
    assert asked.plan.in_words("visits") == "CORR(age, cost) of visits by ward"


def test_a_value_of_either_column_can_be_cut() -> None:
    used = plan(where=None, aggregates=(of("covar_pop", "stay", "cost"),))
    assert sorted(used.valued(table())) == ["cost", "stay"]
    assert plan(where=None, aggregates=(of("regr_avgx", "stay", "cost"),)).valued(table()) == ("cost",)
    assert plan(where=None, aggregates=(of("regr_count", "stay", "cost"),)).valued(table()) == ()


def test_both_columns_of_a_pair_are_used_as_measures() -> None:
    asked = request(plan=plan(where=None, aggregates=(of("corr", "stay", "cost"),)))
    assert asked.plan.uses()["measure"] == ("stay", "cost")
    opened = Edit('["count", "sum", "avg"]', '["corr"]')
    assert judge(policy(opened), asked) == ()
    closed = Edit(
        '"internal", roles = ["measure"], bounds = [0, 60]', '"internal", roles = ["filter"], bounds = [0, 60]'
    )
    (denial,) = judge(policy(opened, closed), asked)
    assert (denial.code, denial.rule) == ("COLUMN_ROLE", "sources.visits.columns.stay.roles")


@every("function", [*SPREADS, *PAIRS])
def test_a_policy_opens_each_by_name_and_none_by_count_sum_and_avg(function: str) -> None:
    columns = ("age", "cost") if function in PAIRS else ("age",)
    asked = request(plan=plan(aggregates=(of(function, *columns),)))
    (denial,) = judge(policy(), asked)
    opened = OPENED_AS[function]
    assert (denial.code, denial.rule) == ("AGGREGATE", "disclosure.aggregates")
    assert denial.message == f"{opened.upper()} is not allowed"
    assert judge(policy(Edit('["count", "sum", "avg"]', f'["{opened}"]')), asked) == ()
    others = sorted({*OPENED_AS.values(), "count", "sum", "avg"} - {opened})
    listed = ", ".join(f'"{one}"' for one in others)
    assert len(judge(policy(Edit('["count", "sum", "avg"]', f"[{listed}]")), asked)) == 1


def test_narrower_bounds_of_either_column_are_a_threshold() -> None:
    opened = policy(Edit('["count", "sum", "avg"]', '["covar"]'))
    narrow = table(columns=(*(one for one in COLUMNS if one.name != "stay"), STAY.model_copy(update={"high": 20})))
    for pair in (("stay", "age"), ("age", "stay")):
        used: Plan = plan(where=None, aggregates=(of("covar_pop", *pair),))
        (denial,) = judge(opened, request(table=narrow, plan=used))
        assert denial.rule == "sources.visits.columns.stay.narrow"


def test_a_pair_costs_more_to_compute_than_a_column() -> None:
    sizes = [
        plan(where=None, group_by=(), aggregates=(one,)).size(table())
        for one in (of("avg", "age"), of("var_pop", "age"), of("covar_pop", "age", "cost"), of("corr", "age", "cost"))
    ]
    assert sizes == sorted(sizes)
    assert Statistic("product", "age", "cost").name == "product:age:cost"
    assert (SMOKER.range_steps, AGE.range_steps, COST.range_steps) == (1, 110, 505_000)
