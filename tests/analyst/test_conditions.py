"""Aggregates with conditions become sums over groups, which DuckDB finds equal to what was asked."""

from hashlib import sha256
from random import Random
from typing import Any

import duckdb
import pytest
from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.conditions import Conditioned, Figure, conditions_of
from analyst.sql.offer import Offer
from analyst.sql.parse import parse
from analyst.sql.plan import plan
from policies.domains import LongDomain, text_of, with_text
from policies.requests.predicates import Either, IsNull, Not, OneOf
from policies.requests.query import Plan
from tests.harness.example_policy import catalogue, offer, policy, request

# A question, and its core; then how each figure is added.
PAIRS = (
    (
        "SELECT COUNT(*) FILTER (WHERE smoker) AS smokers FROM visits",
        "SELECT CASE WHEN smoker THEN '1' ELSE '0' END AS hidden_1, COUNT(*) AS hidden_count_1 FROM visits"
        " GROUP BY hidden_1",
        {"smokers": ("count", "hidden_count_1", None, "hidden_1", 0)},
    ),
    (
        "SELECT AVG(age) FILTER (WHERE ward = 'surgery') AS s, AVG(age) FILTER (WHERE ward = 'medicine') AS m"
        " FROM visits",
        "SELECT CASE WHEN ward = 'surgery' THEN '1' ELSE '0' END || CASE WHEN ward = 'medicine' THEN '1' ELSE '0' END"
        " AS hidden_1, SUM(age) AS hidden_sum_1, COUNT(age) AS hidden_count_2 FROM visits GROUP BY hidden_1",
        {
            "s": ("avg", "hidden_sum_1", "hidden_count_2", "hidden_1", 0),
            "m": ("avg", "hidden_sum_1", "hidden_count_2", "hidden_1", 1),
        },
    ),
    (
        "SELECT ward, COUNT(*) AS n, SUM(CASE WHEN age > 60 THEN 1 ELSE 0 END) AS old,"
        " SUM(CASE WHEN age > 60 AND smoker THEN cost END) AS cost, AVG(CASE WHEN smoker THEN 1.0 ELSE 0 END) AS share"
        " FROM visits GROUP BY ward",
        "SELECT ward, CASE WHEN age > 60 THEN '1' ELSE '0' END AS hidden_1,"
        " CASE WHEN age > 60 AND smoker THEN '1' ELSE '0' END AS hidden_2, CASE WHEN smoker THEN '1' ELSE '0' END AS"
        " hidden_3, COUNT(*) AS hidden_count_1, SUM(cost) AS hidden_sum_2 FROM visits"
        " GROUP BY ward, hidden_1, hidden_2, hidden_3",
        {
            "n": ("count", "hidden_count_1", None, None, None),
            "old": ("count", "hidden_count_1", None, "hidden_1", 0),
            "cost": ("sum", "hidden_sum_2", None, "hidden_2", 0),
            "share": ("share", "hidden_count_1", None, "hidden_3", 0),
        },
    ),
    (
        "SELECT COUNT_IF(age > 3) AS a, COUNT(age) FILTER (WHERE (age > 3)) AS b FROM visits WHERE smoker",
        "SELECT CASE WHEN age > 3 THEN '1' ELSE '0' END AS hidden_1, COUNT(*) AS hidden_count_1,"
        " COUNT(age) AS hidden_count_2 FROM visits WHERE smoker GROUP BY hidden_1",
        {
            "a": ("count", "hidden_count_1", None, "hidden_1", 0),
            "b": ("count", "hidden_count_2", None, "hidden_1", 0),
        },
    ),
    (
        "SELECT SUM(CASE WHEN smoker THEN age END) FILTER (WHERE ward = 'x') AS hidden_1 FROM visits",
        "SELECT CASE WHEN smoker AND ward = 'x' THEN '1' ELSE '0' END AS hidden_101, SUM(age) AS hidden_sum_1"
        " FROM visits GROUP BY hidden_101",
        {"hidden_1": ("sum", "hidden_sum_1", None, "hidden_101", 0)},
    ),
)


def select(sql: str) -> exp.Select:
    query = parse(sql)
    assert isinstance(query, exp.Select)
    return query


def rewritten(sql: str) -> Conditioned:
    found = conditions_of(select(sql))
    assert found is not None
    return found


@pytest.mark.parametrize(("sql", "core", "figures"), PAIRS)
def test_a_question_becomes_its_core(sql: str, core: str, figures: dict[str, tuple[Any, ...]]) -> None:
    found = rewritten(sql)
    assert found.core.sql(dialect="duckdb") == core
    said = {
        name: (one.function, one.of, one.by, one.held and one.held.dimension, one.held and one.held.place)
        for name, one in found.figures.items()
    }
    assert said == figures


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ward, COUNT(*) AS n, SUM(age), AVG(cost) FROM visits GROUP BY ward",
        "SELECT SUM(CASE WHEN smoker THEN 1 ELSE 2 END) AS n FROM visits",
        "SELECT AVG(CASE WHEN smoker THEN age ELSE 0 END) AS n FROM visits",
    ],
)
def test_what_has_no_condition_that_is_known_stays_as_it_is(sql: str) -> None:
    assert conditions_of(select(sql)) is None


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT COUNT(*) FILTER (WHERE TRUE) AS n FROM visits", "reads no column"),
        ("SELECT MEDIAN(age) FILTER (WHERE smoker) AS n FROM visits", "FILTER is not supported here at line 1, column"),
        ("SELECT COUNT_IF(smoker) AS n, MEDIAN(age) AS m FROM visits", "beside aggregates with conditions at line 1"),
        ("SELECT COUNT_IF(smoker) AS n, COUNT(DISTINCT age) AS m FROM visits", "beside aggregates with conditions"),
        (
            "SELECT " + ", ".join(f"COUNT_IF(age > {age}) AS n{age}" for age in range(9)) + " FROM visits",
            "more than 8 conditions in aggregates at line 1, column",
        ),
    ],
)
def test_what_cannot_be_added_is_refused_with_its_place(sql: str, why: str) -> None:
    with pytest.raises(SqlError, match=why) as caught:
        conditions_of(select(sql))
    assert caught.value.hint


def test_the_core_is_a_question_whose_groups_are_those_that_occur() -> None:
    """Of the two conditions on one column no row meets both, so there are three groups, and not four."""
    planned = plan(rewritten(PAIRS[1][0]).core.sql(dialect="duckdb"), offer(policy()))
    (case,) = planned.plan.cases
    assert case.groups == ("01", "10", "00")
    assert planned.plan.coarsened == ("ward",), "it only merges members of a dimension"
    asked = request(table=planned.table, plan=planned.plan)
    plain = plan("SELECT AVG(age) AS a FROM visits GROUP BY ward", offer(policy()))
    assert isinstance(asked.plan, Plan)
    prices = [
        {one: (extent.sensitivity, extent.share, extent.room) for one, extent in each.statistics(asked.table).items()}
        for each in (asked.plan, plain.plan)
    ]
    assert prices[0] == prices[1], "the sensitivity is that of one figure"


CONDITIONS = (
    "a > 2", "a <= 1", "b = 'x'", "b = 'y'", "b IN ('x', 'z')", "a > 1 AND b = 'x'", "a IS NULL", "NOT a > 2",
    "c < 0.5",
    "a > c OR b = 'y'",
)  # fmt: skip
FORMS = (
    "COUNT(*) FILTER (WHERE {c})", "COUNT_IF({c})", "SUM(CASE WHEN {c} THEN 1 ELSE 0 END)", "COUNT(*)", "SUM(c)",
    "COUNT(CASE WHEN {c} THEN 1 END)", "COUNT(a) FILTER (WHERE {c})", "SUM(c) FILTER (WHERE {c})", "AVG(a)",
    "SUM(CASE WHEN {c} THEN c END)", "SUM(CASE WHEN {c} THEN a ELSE 0 END)", "AVG(a) FILTER (WHERE {c})",
    "AVG(CASE WHEN {c} THEN c END)", "AVG(CASE WHEN {c} THEN 1 ELSE 0 END)", "SUM(IF({c}, 1, 0))",
    "COUNT(CASE WHEN {c} THEN c END) FILTER (WHERE {d})",
)  # fmt: skip


def value(figure: Figure, groups: list[dict[str, Any]]) -> float:
    """Return a figure by adding core figures; 0 where DuckDB has NULL for nothing."""
    held = [group for group in groups if figure.held is None or figure.held.is_in(group)]
    total = float(sum(group[figure.of] or 0 for group in held))
    if figure.function in ("count", "sum"):
        return total
    by = sum(group[figure.by] for group in held) if figure.by else sum(group[figure.of] for group in groups)
    return total / by if by else 0.0


@pytest.mark.slow
def test_the_sums_over_groups_are_what_duckdb_finds() -> None:
    random = Random(3)  # noqa: S311
    rows = [
        (random.choice(["k", "l", None]), random.choice([None, 0, 1, 2, 3]), random.choice([None, "x", "y", "z"]),
         random.choice([None, 0.25, 0.75, 2.5]))
        for _ in range(200)
    ]  # fmt: skip
    with duckdb.connect() as database:
        database.execute("CREATE TABLE t (g VARCHAR, a INTEGER, b VARCHAR, c DOUBLE)")
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        for _ in range(150):
            chosen = [random.choice(CONDITIONS) for _ in range(random.randint(1, 4))]
            forms = [random.choice(FORMS).format(c=one, d=random.choice(chosen)) for one in chosen]
            named = ", ".join(f"{one} AS f{place}" for place, one in enumerate(forms))
            where, by = random.choice(["", " WHERE a < 3"]), random.choice([True, False])
            sql = f"SELECT {'g, ' if by else ''}{named} FROM t{where}{' GROUP BY g' if by else ''}"
            found = conditions_of(select(sql))
            if found is None:
                continue
            core = database.sql(found.core.sql(dialect="duckdb")).to_arrow_table().to_pylist()
            for truth in database.sql(sql).to_arrow_table().to_pylist():
                own = [group for group in core if not by or group["g"] == truth["g"]]
                for name, figure in found.figures.items():
                    assert value(figure, own) == pytest.approx(float(truth[name] or 0)), (sql, name)


def long_offer(values: tuple[str, ...]) -> Offer:
    """Return an offer in which `ward` is a column of many values."""
    domain = with_text(LongDomain(sha256(text_of(values)).digest(), len(values)), text_of(values))
    known = catalogue(policy())
    (visits,) = known.tables
    columns = tuple(
        one.model_copy(update={"column": one.column.model_copy(update={"domain": domain})})
        if one.column.name == "ward"
        else one
        for one in visits.columns
    )
    return Offer({"north": known.model_copy(update={"tables": (visits.model_copy(update={"columns": columns}),)})})


def test_a_long_domain_is_listed_by_its_smaller_part_or_refused() -> None:
    values = (*(f"{letter}{number:04}" for letter in "ABC" for number in range(7000)), "unknown")
    by = long_offer(values)

    def asked(sql: str) -> Plan:
        planned = plan(sql, by)
        plan_of_request = request(table=planned.table, plan=planned.plan).plan
        assert isinstance(plan_of_request, Plan)
        return plan_of_request

    few = asked("SELECT COUNT(*) AS n FROM visits WHERE ward LIKE 'A1%'").where
    assert few == OneOf(column="ward", values=tuple(f"A1{number:03}" for number in range(1000)))
    most = asked("SELECT COUNT(*) AS n FROM visits WHERE ward LIKE '%0%' OR NOT ward LIKE 'A1%'").where
    assert isinstance(most, Either)
    assert most.operands[1] == Not(operand=few)
    (groups,) = asked("SELECT ward LIKE 'A%' AS a, COUNT(*) AS n FROM visits GROUP BY a").cases
    assert groups.groups == ("true", "false", None)
    assert groups.whens[1] == Not(operand=IsNull(column="ward"))
    for sql in ("SELECT LEFT(ward, 1) AS a, COUNT(*) AS n FROM visits GROUP BY a",):
        with pytest.raises(SqlError, match="14,000 values of 'ward' would have to be listed") as caught:
            plan(sql, by)
        assert caught.value.hint == "name those that matter: ward IN (...)"
