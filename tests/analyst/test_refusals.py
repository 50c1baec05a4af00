"""A function that silos do not compute is refused with a reason of its own, and with a question that is answered."""

import re

import pytest

from analyst.sql.plan import plan
from analyst.sql.refusals import HINTS
from tests.analyst.test_sql import OFFER, refusal
from tests.cases import every
from tests.harness.example_policy import Edit, offer, policy

MEASURES = offer(
    policy(Edit('roles = ["measure", "filter"], bounds = [0, 110]', 'roles = ["measure"], bounds = [0, 110]'))
)
QUANTILES = offer(policy(Edit('["count", "sum", "avg"]', '["count", "sum", "avg", "quantile"]')))
PAIRS = ("REGR_SXX", "REGR_SYY", "REGR_SXY", "ARG_MIN", "ARG_MAX", "MIN_BY", "MAX_BY", "ARG_MIN_NULL", "ARG_MAX_NULL")


def call(name: str, column: str) -> str:
    """Return a call of a function of a column, as DuckDB takes it."""
    if name.startswith("PERCENTILE"):
        return f"{name}(0.5) WITHIN GROUP (ORDER BY {column})"
    more = {"APPROX_TOP_K": ", 3", "STRING_AGG": ", ','", "HISTOGRAM_EXACT": ", [1, 2]"}.get(name, "")
    more = ", 0.5" if "QUANTILE" in name else ", stay" if name in PAIRS else more
    return f"{name}({column}{more})"


def proposed(hint: str) -> str:
    """Return the question at the end of a hint."""
    found = re.search(r"SELECT .* FROM visits.*$", hint)
    assert found is not None, hint
    return found[0]


@every("name", sorted(HINTS))
def test_a_refused_function_has_its_reason_and_a_question_that_is_answered(name: str) -> None:
    columns = ("smoker",) if name in ("BOOL_OR", "BOOL_AND", "EVERY") else ("age", "cost", "ward", "grade", "smoker")
    for column in columns:
        error = refusal(f"SELECT {call(name, column)} AS f FROM visits")
        assert "is not supported at line 1, column " in error.message
        assert error.hint.startswith(HINTS[name].why.partition(";")[0].partition(":")[0])
        assert plan(proposed(error.hint), OFFER).plan.aggregates


@every("name", sorted(HINTS))
def test_a_refused_function_beside_others_has_the_same_hint(name: str) -> None:
    column = "smoker" if name in ("BOOL_OR", "BOOL_AND", "EVERY") else "age"
    alone = refusal(f"SELECT {call(name, column)} AS f FROM visits").hint
    asked = f"SELECT ward, COUNT(*) AS n, 2 * {call(name, column)} AS f FROM visits GROUP BY ward ORDER BY n"
    assert refusal(asked).hint == alone


def test_a_hint_about_a_column_that_is_open_to_sums_alone_asks_for_no_condition() -> None:
    for name in ("MAD", "MAX", "MODE"):
        hint = refusal(f"SELECT {name}(age) FROM visits", MEASURES).hint
        assert plan(proposed(hint), MEASURES).plan.uses()["filter"] == ()


@every(
    ("name", "share"),
    [("MIN", "0.01"), ("MAX", "0.99"), ("MAD", "0.75"), ("RESERVOIR_QUANTILE", "0.5")],
)
def test_where_silos_open_quantiles_one_is_the_nearest_question(name: str, share: str) -> None:
    for column in ("age", "cost"):
        hint = refusal(f"SELECT {call(name, column)} AS f FROM visits", QUANTILES).hint
        assert f"QUANTILE_CONT({column}, {share})" in hint
        assert plan(proposed(hint), QUANTILES).plan.functions == ("quantile",)
    for column in ("stay", "smoker", "ward"):  # no filter, no number, no bounds
        hint = refusal(f"SELECT {call(name, column)} AS f FROM visits", QUANTILES).hint
        assert "QUANTILE" not in proposed(hint)
        assert plan(proposed(hint), QUANTILES).plan.aggregates


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("MIN(age)", "one person decides it"),
        ("MODE(age)", "count the rows of each value"),
        ("MODE(age)", "age // 10 * 10"),
        ("MEDAIN(age)", "did you mean MEDIAN?"),
        ("COUTN(*)", "did you mean COUNT?"),
        ("COUNT(DISTINCT ward)", "only persons are told apart"),
    ],
)
def test_hints_say_why(asked: str, hint: str) -> None:
    assert hint in refusal(f"SELECT {asked} AS f FROM visits").hint


@pytest.mark.parametrize(
    ("asked", "instead"),
    [
        ("AVG(stay / 7)", "AVG(stay) / 7"),
        ("SUM(stay * 24)", "SUM(stay) * 24"),
        ("AVG(24 * stay)", "24 * AVG(stay)"),
        ("AVG(age + 1)", "AVG(age) + 1"),
        ("SUM(age - 1)", "SUM(age) - 1 * COUNT(age)"),
        ("SUM(-cost)", "-SUM(cost)"),
        ("AVG(age - stay)", "AVG(age) - AVG(stay), the same where no cell is missing"),
        ("AVG(cost / stay)", "SUM(cost) / SUM(stay)"),
        ("AVG(age * stay)", "COVAR_POP(age, stay) + REGR_AVGX(age, stay) * REGR_AVGY(age, stay)"),
        ("AVG(COALESCE(cost, 0))", "SUM(cost) / COUNT(*)"),
        ("SUM(CAST(smoker AS INT))", "SUM(smoker)"),
        ("AVG(smoker::DOUBLE)", "AVG(smoker)"),
    ],
)
def test_arithmetic_inside_an_aggregate_is_proposed_outside(asked: str, instead: str) -> None:
    hint = refusal(f"SELECT {asked} FROM visits").hint
    assert instead in hint
    assert plan(f"SELECT {instead.partition(', the same')[0]} AS f FROM visits", OFFER).plan.aggregates


@every("asked", ["AVG(ABS(cost))", "SUM(age // 10)", "AVG(1 / age)", "SUM(grade + 1)", "COUNT(DISTINCT age)"])
def test_another_expression_is_proposed_as_groups(asked: str) -> None:
    assert plan(proposed(refusal(f"SELECT {asked} FROM visits").hint), OFFER).plan.cases or "grade" in asked


def test_figures_of_groups_may_be_what_rows_may_not() -> None:
    inner = "(SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward)"
    for asked in ("MAX(n)", "MIN(n)", "MAX(n) - MIN(n)"):
        assert plan(f"SELECT {asked} AS f FROM {inner}", OFFER).after


def test_count_of_a_constant_counts_rows() -> None:
    assert plan("SELECT COUNT(1) AS n FROM visits", OFFER) == plan("SELECT COUNT(*) AS n FROM visits", OFFER)
