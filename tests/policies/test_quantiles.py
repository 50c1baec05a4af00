"""The shape of quantiles: one tree for all of a column, its price, what a policy must open, and its slots."""

from typing import Any

import pytest

from policies.requests.calibration import spreads_of
from policies.requests.capacity import carriers
from policies.requests.persons import Inner, InnerColumn
from policies.requests.query import CUT, Aggregate
from policies.requests.request import MAX_SLOTS, Request
from policies.requests.statistic import Statistic
from policies.requests.trees import TREE, tree_over
from policies.units import ROWS_UP_TO
from tests.cases import every
from tests.harness.example_policy import AGE, COST, STAY, Edit, plan, policy, request, table
from tests.policies.test_thresholds import judge

OPENED = Edit('["count", "sum", "avg"]', '["count", "sum", "avg", "quantile"]')
NARROW = Edit('roles = ["measure"], bounds = [0, 60]', 'roles = ["measure"], narrow = true, bounds = [0, 60]')
AVERAGE = Aggregate(function="avg", column="age", alias="mean")


def of(column: str, at: str = "0.5", function: Any = "quantile") -> Aggregate:
    return Aggregate(function=function, column=column, at=at, alias=f"{function} {column} {at}")


def asked(*figures: Aggregate, **changes: Any) -> Request:
    fields = {"where": None, "group_by": (), "aggregates": figures} | changes.pop("plan", {})
    return request(plan=plan(**fields), **changes)


def test_quantiles_of_a_column_share_a_tree_and_the_count_of_others() -> None:
    figures = of("age"), of("age", "0.9"), of("age", "0.1", "quantile_disc"), AVERAGE
    found = asked(*figures).plan.statistics(table())
    assert [one.name for one in found] == ["present:age", "tree:age", "total:age"]
    assert len(asked(of("age"), of("cost")).plan.statistics(table())) == 4


@every(("max_rows", "max_norm"), [(1, None), (7, None), (20, 12), (20, 1)])
def test_a_level_has_the_price_and_the_noise_of_a_count(max_rows: int, max_norm: int | None) -> None:
    for counts_cut in (False, True):
        question = asked(
            of("age"),
            of("cost"),
            plan={"counts_cut": counts_cut},
            table=table(max_rows=max_rows, max_norm=max_norm, max_silos=1),
            micro_rho=100_000,
        )
        found, spreads = question.plan.statistics(question.table), spreads_of(question.table, question.plan, 100_000)
        norm = max_rows if max_norm is None else max_norm
        for column in (AGE, COST):
            tree, extent = tree_over(column), found[Statistic(TREE, column.name)]
            assert extent.squared == norm**2 * tree.levels
            assert extent.share == tree.levels * found[Statistic("present", column.name)].share
            assert (extent.length, extent.per_row) == (tree.nodes, 1)
            noise = [spreads[Statistic(kind, column.name)] for kind in (TREE, "present")]
            one, other = (spread.variance / 4**spread.scale_bits for spread in noise)
            assert one == pytest.approx(other, rel=1e-5)
        if counts_cut:
            assert found[CUT].share * 16 == sum(extent.share for extent in found.values())


def test_a_policy_opens_quantiles_by_name_and_where_rows_may_be_compared() -> None:
    (denial,) = judge(policy(), asked(of("age")))
    assert (denial.code, denial.rule) == ("AGGREGATE", "disclosure.aggregates")
    assert denial.message == "QUANTILE is not allowed"
    for function in ("quantile", "quantile_disc"):
        assert judge(policy(OPENED), asked(of("age", function=function))) == ()
        (denial,) = judge(policy(OPENED), asked(of("stay", function=function)))
        assert (denial.code, denial.rule) == ("COLUMN_ROLE", "sources.visits.columns.stay.narrow")
        assert "may be used as measure" in denial.message
        assert denial.remedy == "ask its average; columns whose quantiles may be asked: age, cost, smoker"
        assert judge(policy(OPENED, NARROW), asked(of("stay", function=function))) == ()


def test_a_quantile_of_what_a_person_comes_to_compares_its_column() -> None:
    sums = InnerColumn(name="x", function="sum", column="stay", low=0, high=60)
    inner = {"inner": Inner(where=None, columns=(sums,))}
    average = Aggregate(function="avg", column="x", alias="mean")
    assert judge(policy(OPENED), asked(average, plan=inner)) == ()
    (denial,) = judge(policy(OPENED), asked(of("x"), plan=inner))
    assert (denial.code, denial.rule) == ("COLUMN_ROLE", "sources.visits.columns.stay.narrow")
    assert judge(policy(OPENED, NARROW), asked(of("x"), plan=inner)) == ()
    visits = InnerColumn(name="x", function="count", column=None, high=9)
    of_counts = asked(of("x"), plan={"inner": Inner(where=None, columns=(visits,))})
    assert judge(policy(OPENED), of_counts) == (), "how many rows a person has is no column"
    assert of_counts.plan.statistics(of_counts.table)[Statistic(TREE, "x")].squared == 2


@every("at", ["0", "1", "1.5", "-0.5", "0.50", ".5", "0.1234567", "NaN", "5e-1", ""])
def test_a_quantile_is_at_a_share_in_its_one_spelling(at: str) -> None:
    with pytest.raises(ValueError, match="at"):
        of("age", at)


def test_only_a_quantile_is_at_a_share() -> None:
    for function, column, share in (("quantile", "age", None), ("avg", "age", "0.5"), ("count", None, "0.5")):
        figure = Aggregate(function=function, column=column, at=share, alias="a")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a quantile is at a share of the rows"):
            asked(figure)
    with pytest.raises(ValueError, match="takes 1 column"):
        asked(Aggregate(function="quantile", column=None, at="0.5", alias="a"))


def test_the_wire_of_other_figures_is_what_it_was() -> None:
    assert AVERAGE.model_dump() == {"function": "avg", "column": "age", "alias": "mean"}
    question = asked(of("age", "0.05"), of("cost", "0.999999", "quantile_disc"))
    assert Request.decode(question.encode()) == question
    assert question.plan.in_words("visits") == "QUANTILE(age, 0.05), QUANTILE_DISC(cost, 0.999999) of visits"


def test_too_many_trees_are_refused() -> None:
    groups = MAX_SLOTS // tree_over(COST).nodes
    wide = {"name": "ward", "type": "int", "unknown": "0"}
    wards = [table().column("ward").model_copy(update={**wide, "domain": tuple(map(str, range(size)))}) for size in (
        groups, groups + 1
    )]  # fmt: skip
    few, many = (table(columns=(ward, COST)) for ward in wards)
    by_ward = {"group_by": ("ward",)}
    with pytest.raises(ValueError, match="slots, at most 1,000,000 are possible"):
        asked(of("cost"), plan=by_ward, table=many)
    used = asked(of("cost"), plan=by_ward, table=few).plan
    assert carriers(few, used, 10_000, 4, ROWS_UP_TO) == ("masking",)
    assert "shares" in carriers(table(), asked(of("age")).plan, 10_000, 4, ROWS_UP_TO)


def test_values_of_a_quantile_can_be_cut() -> None:
    used = plan(where=None, group_by=(), aggregates=(of("age"), of("cost")))
    assert used.valued(table()) == ("age", "cost")
    assert tree_over(STAY).sizes == (8, 61)
