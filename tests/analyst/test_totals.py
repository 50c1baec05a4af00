"""Questions with totals mean the same where silos compute the finest groups alone."""

import duckdb
import pytest

from analyst.errors import SqlError
from analyst.reports.rehearsal import rehearsed
from analyst.sql.parse import parse
from analyst.sql.plan import plan
from analyst.sql.totals import with_totals
from tests.analyst.test_sql import OFFER

QUESTIONS = (
    "SELECT ward, COUNT(*) AS n, AVG(cost) AS m FROM visits GROUP BY ROLLUP (ward)",
    "SELECT ward, grade, SUM(cost) AS s FROM visits WHERE age > 30 GROUP BY CUBE (ward, grade) HAVING COUNT(*) > 3",
    "SELECT ward AS w, COUNT_IF(smoker) AS n FROM visits GROUP BY GROUPING SETS ((w, grade), (grade), ())",
    "SELECT ward, grade, COUNT(cost), AVG(cost) FILTER (WHERE smoker) AS m FROM visits GROUP BY ward, ROLLUP (grade)",
    "SELECT CASE WHEN age < 50 THEN 'y' ELSE 'o' END AS band, ROUND(SUM(cost) / COUNT(*), 3) AS r FROM visits GROUP BY"
    " ROLLUP (band) ORDER BY r LIMIT 2",
)
ROWS = (
    "CREATE TABLE visits AS SELECT 20 + range % 61 AS age, ['a', 'b', 'c'][1 + range % 3] AS ward, range % 4 AS grade,"
    " CASE WHEN range % 11 > 0 THEN range * 7 % 31 END AS cost, range % 5 < 2 AS smoker FROM range(200)"
)


def test_totals_are_those_of_all_rows() -> None:
    with duckdb.connect() as database:
        database.execute(ROWS)
        for question in QUESTIONS:
            rewritten = with_totals(parse(question)).sql(dialect="duckdb")
            assert rewritten.count("visits") == 1
            found, expected = (database.sql(one).fetchall() for one in (rewritten, question))
            assert len(found) == len(expected) > 0, question
            for row, wanted in zip(sorted(found, key=str), sorted(expected, key=str), strict=True):
                assert row == pytest.approx(wanted), question


def test_questions_with_totals_can_be_asked() -> None:
    for question in QUESTIONS[:2]:
        planned = rehearsed(plan(question, OFFER), question)
        assert "ROLLUP" in planned.after or "CUBE" in planned.after


def test_what_does_not_add_up_has_no_total() -> None:
    for figure in ("MEDIAN(age)", "STDDEV(age)", "COUNT(DISTINCT patient_id)"):
        with pytest.raises(SqlError, match="has no total at line 1, column 14"):
            plan(f"SELECT ward, {figure} AS f FROM visits GROUP BY ROLLUP (ward)", OFFER)
