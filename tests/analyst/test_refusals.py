"""A function that silos do not compute is refused with a reason of its own, and with a question that is answered."""

import re

import pytest

from analyst.sql.offer import Offer
from analyst.sql.plan import plan
from analyst.sql.refusals import HINTS
from policies.requests.predicates import Compare
from tests.analyst.test_sql import OFFER, refusal
from tests.cases import every
from tests.harness.example_policy import Edit, offer, policy

MEASURES = offer(
    policy(Edit('roles = ["measure", "filter"], bounds = [0, 110]', 'roles = ["measure"], bounds = [0, 110]'))
)
QUANTILES = offer(policy(Edit('["count", "sum", "avg"]', '["count", "sum", "avg", "quantile"]')))
FUNCTIONS = ("MIN", "AVG", "SUM", "MEDIAN", "STDDEV", "VAR_POP", "PRODUCT", "MAD", "BOOL_OR", "MODE")
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
def test_a_refused_function_beside_others_has_the_same_reason_and_keeps_groups_and_conditions(name: str) -> None:
    column = "smoker" if name in ("BOOL_OR", "BOOL_AND", "EVERY") else "age"
    why = refusal(f"SELECT {call(name, column)} AS f FROM visits").hint.partition(": SELECT")[0]
    asked = (
        f"SELECT ward, COUNT(*) AS n, 2 * {call(name, column)} AS f FROM visits WHERE cost > 5 GROUP BY ward ORDER BY n"
    )
    hint = refusal(asked).hint
    assert hint.partition(": SELECT")[0] == why
    found = plan(proposed(hint), OFFER).plan
    assert found.group_by[0] == "ward"
    assert found.where == Compare(column="cost", op=">", value="5")


INNER = "(SELECT patient_id, ANY_VALUE(ward) AS w, COUNT(*) AS n FROM visits GROUP BY patient_id HAVING COUNT(*) > 1)"


@pytest.mark.parametrize("offered", [OFFER, QUANTILES], ids=["plain", "quantiles"])
def test_every_hint_with_a_question_is_answered(offered: Offer) -> None:
    asked = [
        *(f"SELECT {function}({column}) FROM visits" for function in FUNCTIONS for column in ("ward", "grade")),
        *(f"SELECT ward, {function}(age, grade) FROM visits GROUP BY ward" for function in ("CORR", "REGR_SLOPE")),
        *(f"SELECT w, {function}(n) FROM {INNER} WHERE n > 1 GROUP BY w" for function in ("MIN", "MAX", "MODE", "MAD")),
        *(f"SELECT {what} FROM {INNER}" for what in ("*", "n", "DISTINCT n", "DISTINCT w, n", "AVG(w)")),
        *(f"SELECT {what} FROM visits" for what in ("*", "age", "DISTINCT ward, age", "region", "DISTINCT age // 5")),
        "SELECT MAX(w) - MIN(n) FROM (SELECT patient_id, MAX(age) AS w, SUM(stay) AS n FROM visits GROUP BY 1)",
    ]
    for question in asked:
        hint = refusal(question, offered).hint
        assert plan(re.search(r"SELECT .*$", hint)[0], offered).plan.aggregates, question  # type: ignore[index]


def test_both_ends_are_proposed_where_both_are_asked() -> None:
    asked = "SELECT ward, MAX(age), MIN(age) FROM visits GROUP BY ward"
    figures = "QUANTILE_CONT(age, 0.99), QUANTILE_CONT(age, 0.01)"
    said = f"ask for a low and a high quantile: SELECT ward, {figures} FROM visits GROUP BY ward"
    assert refusal(asked, QUANTILES).hint.endswith(said)


def test_a_hint_for_a_person_s_figure_sets_no_threshold_where_no_policy_lets_it() -> None:
    """A quantile of SUM(stay) is one inside the values of stay, which has no filter; one of a count is none."""
    for figure, is_open in (("SUM(stay)", False), ("COUNT(*)", True), ("SUM(cost)", True)):
        inner = f"(SELECT patient_id, {figure} AS s FROM visits GROUP BY patient_id)"
        assert ("QUANTILE_CONT(s, 0.99)" in refusal(f"SELECT MAX(s) FROM {inner}", QUANTILES).hint) is is_open


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


def test_figures_of_groups_may_be_what_rows_may_not() -> None:
    inner = "(SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward)"
    for asked in ("MAX(n)", "MIN(n)", "MAX(n) - MIN(n)"):
        assert plan(f"SELECT {asked} AS f FROM {inner}", OFFER).after


def test_count_of_a_constant_counts_rows() -> None:
    assert plan("SELECT COUNT(1) AS n FROM visits", OFFER) == plan("SELECT COUNT(*) AS n FROM visits", OFFER)
