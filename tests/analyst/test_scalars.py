"""Questions that read a table several times mean the same where it is read once; others stay as they are."""

import duckdb
import pytest
from sqlglot import exp

from analyst.reports.rehearsal import rehearsed
from analyst.sql.beside import with_joined_figures
from analyst.sql.parse import parse
from analyst.sql.plan import plan
from analyst.sql.scalars import with_scalars
from tests.analyst.test_sql import OFFER, refusal
from tests.cases import every

ROWS = (
    "CREATE TABLE visits AS SELECT 20 + range % 61 AS age, ['surgery', 'medicine', 'unknown'][1 + range * range % 3] AS"
    " ward, range % 4 AS grade, CASE WHEN range % 11 > 0 THEN range * 7 % 31 END AS cost, range % 5 < 2 AS smoker,"
    " range % 50 % 17 AS patient_id FROM range(200)"
)
_BY_WARD = "(SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward)"
SCALARS = (
    "SELECT COUNT(*) * 100.0 / (SELECT COUNT(*) FROM visits) AS pct FROM visits WHERE smoker",
    "SELECT (SELECT COUNT(*) FROM visits WHERE smoker) * 1.0 / (SELECT COUNT(*) FROM visits) AS rate",
    "SELECT (SELECT COUNT(*) FROM visits WHERE smoker) AS n",
    "SELECT AVG(age) - (SELECT AVG(age) FROM visits v WHERE NOT v.smoker) AS d, COUNT(*) FROM visits WHERE smoker",
    "SELECT MEDIAN(age) - (SELECT MEDIAN(age) FROM visits) AS d FROM visits WHERE smoker AND age > 30",
    "SELECT ROUND(100 * AVG(cost) / (SELECT SUM(cost) / COUNT(*) FROM visits), 1) AS d FROM visits WHERE"
    " smoker OR age > 50",
    "SELECT COUNT(*) / (SELECT COUNT(DISTINCT patient_id) FROM visits) AS per FROM visits",
    "SELECT SUM(smoker::INT) * 1.0 / (SELECT COUNT(*) FROM visits) AS share FROM visits WHERE ward = 'surgery'",
    "WITH t AS (SELECT COUNT(*) AS n FROM visits) SELECT COUNT(*) / (SELECT n FROM t) AS x FROM visits WHERE smoker",
    "WITH a AS (SELECT COUNT(*) AS n FROM visits WHERE smoker), b AS (SELECT COUNT(*) AS m FROM visits)"
    " SELECT (SELECT n FROM a) * 1.0 / (SELECT m FROM b) AS r",
)
OF_ROWS = (
    "WITH a AS (SELECT * FROM visits WHERE age > 30) SELECT COUNT(*) / (SELECT COUNT(*) FROM a) AS x"
    " FROM a WHERE smoker",
    "WITH f AS (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id)"
    " SELECT COUNT(*) / (SELECT COUNT(*) FROM f) AS x FROM f WHERE n > 11",
)
GROUPED = (
    "SELECT ward, AVG(smoker::INT) / (SELECT AVG(smoker::INT) FROM visits WHERE ward = 'surgery') AS di"
    " FROM visits GROUP BY ward",
    "SELECT ward, COUNT(*) / (SELECT COUNT(*) FROM visits WHERE smoker) AS s, SUM(COUNT(*)) OVER () AS t FROM visits"
    " WHERE age > 40 GROUP BY ward ORDER BY s",
    "SELECT ward, COUNT(*) / (SELECT COUNT(*) FROM visits) AS share FROM visits GROUP BY ward HAVING COUNT(*) > 80",
    "SELECT ward, COUNT(*) / (SELECT COUNT(*) FROM visits WHERE age > 40) AS f FROM visits WHERE age > 40 AND smoker"
    " AND ward IN ('surgery', 'medicine') GROUP BY ward HAVING COUNT(*) > 1",
    "SELECT ward, SUM(COUNT(*)) OVER () AS t, COUNT(*) / (SELECT COUNT(*) FROM visits) AS f FROM visits"
    " WHERE ward <> 'zzz' GROUP BY ward",
    "SELECT CASE WHEN age < 40 THEN 'y' ELSE 'o' END AS band, AVG(cost) - (SELECT AVG(cost) FROM visits)"
    " AS d FROM visits"
    " GROUP BY band ORDER BY 2",
    "SELECT ward, grade, COUNT(*) / (SELECT COUNT(*) FROM visits WHERE grade = 2 AND smoker) AS d FROM"
    " visits GROUP BY ALL",
    "SELECT ward, AVG(cost) FILTER (WHERE age > 30) - (SELECT AVG(cost) FILTER (WHERE smoker) FROM"
    " visits WHERE age < 60)"
    " AS d FROM visits GROUP BY ward",
    "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING n > (SELECT COUNT(*) * 0.333 FROM"
    " visits) ORDER BY n DESC",
    f"SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING COUNT(*) > (SELECT AVG(n) FROM {_BY_WARD})",
    "SELECT ward, COUNT(*) AS n FROM visits WHERE smoker GROUP BY ward HAVING COUNT(*) >= (SELECT MAX(n) FROM"
    " (SELECT v.ward AS w, COUNT(*) AS n FROM visits v WHERE v.smoker GROUP BY w))",
    f"WITH m AS (SELECT AVG(n) AS a FROM {_BY_WARD}) SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward"
    " HAVING COUNT(*) > (SELECT a FROM m)",
    f"WITH t AS {_BY_WARD} SELECT ward, COUNT(*) / (SELECT SUM(n) FROM t) AS share FROM visits GROUP BY ward",
    f"SELECT * FROM {_BY_WARD} WHERE n > (SELECT COUNT(*) FROM visits) / 3",
    "WITH t AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING COUNT(*) > 66) SELECT ward,"
    " n / (SELECT COUNT(*) FROM visits WHERE smoker), (SELECT SUM(n) FROM t) FROM t",
)
JOINED = (
    "WITH a AS (SELECT ward, COUNT(*) AS n FROM visits WHERE smoker GROUP BY ward), b AS (SELECT ward,"
    " COUNT(*) AS m FROM"
    " visits GROUP BY ward) SELECT a.ward, n * 1.0 / m AS rate FROM a JOIN b ON a.ward = b.ward",
    "WITH a AS (SELECT ward AS w, grade, AVG(cost) AS n FROM visits WHERE smoker AND age > 30 GROUP BY"
    " ALL), b AS (SELECT"
    " grade, ward, AVG(cost) AS n FROM visits v WHERE v.age > 30 GROUP BY 1, 2) SELECT b.ward, b.grade,"
    " a.n / b.n AS rate"
    " FROM a, b WHERE a.w = b.ward AND a.grade = b.grade AND b.n > 5 ORDER BY rate DESC",
    "SELECT ward, a.n, b.n AS m FROM (SELECT ward, COUNT(*) AS n FROM visits WHERE smoker GROUP BY ward)"
    " a LEFT JOIN (SELECT"
    " ward, SUM(age) / COUNT(*) AS n FROM visits WHERE NOT smoker GROUP BY ward) b USING (ward) ORDER BY a.n",
    "WITH a AS (SELECT COUNT(*) AS n FROM visits WHERE smoker), b AS (SELECT COUNT(*) AS m FROM visits)"
    " SELECT n * 1.0 / m AS r FROM a CROSS JOIN b",
    "WITH a AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward), b AS (SELECT COUNT(*) AS m FROM"
    " visits WHERE smoker)"
    " SELECT ward, n * 1.0 / m AS r, m FROM a, b ORDER BY r",
    "WITH a AS (SELECT ward, COUNT(*) AS n FROM visits WHERE age > 50 GROUP BY ward), b AS (SELECT ward,"
    " COUNT(*) AS m FROM"
    " visits GROUP BY ward), c AS (SELECT ward, AVG(age) AS m FROM visits WHERE smoker GROUP BY ward)"
    " SELECT a.ward, n, b.m,"
    " c.m AS k FROM a JOIN b ON a.ward = b.ward JOIN c ON c.ward = b.ward ORDER BY n",
)
KEPT = (
    "SELECT COUNT(*) FROM visits WHERE age > (SELECT AVG(age) FROM visits)",
    "SELECT age - (SELECT AVG(age) FROM visits) AS d FROM visits",
    "SELECT (SELECT COUNT(*) FROM visits) AS n FROM visits",
    "SELECT SUM(age - (SELECT AVG(age) FROM visits)) AS s FROM visits",
    "SELECT COUNT(*) / (SELECT COUNT(*) FROM lung) AS x FROM visits",
    "SELECT COUNT(*) / (SELECT COUNT(DISTINCT patient_id) FROM visits) AS x FROM visits WHERE smoker AND age > 3 AND"
    " age > (SELECT MIN(age) FROM visits)",
    "SELECT COUNT(*) / (SELECT COUNT(DISTINCT patient_id) FROM visits WHERE smoker) AS x FROM visits",
    "SELECT ward, COUNT(*) / (SELECT COUNT(*) FROM visits b WHERE b.ward = a.ward) AS s FROM visits a GROUP BY ward",
    "SELECT ward, AVG(cost) - (SELECT MEDIAN(cost) FROM visits) AS d FROM visits GROUP BY ward",
    "SELECT ward, AVG(cost) - (SELECT AVG(cost) FROM visits) AS d FROM visits GROUP BY ROLLUP (ward)",
    "SELECT ward, COUNT(*) / (SELECT COUNT(*) FROM visits) AS s, RANK() OVER (ORDER BY COUNT(*)) AS r FROM visits"
    " GROUP BY ward HAVING COUNT(*) > 20",
    "SELECT ward, COUNT(*) AS n FROM visits WHERE smoker GROUP BY ward HAVING COUNT(*) > (SELECT AVG(n) FROM"
    f" {_BY_WARD})",
    "SELECT ward, COUNT(*) / (SELECT AVG(n) FROM (SELECT grade, COUNT(*) AS n FROM visits GROUP BY"
    " grade)) AS x FROM visits"
    " GROUP BY ward",
    "SELECT patient_id, COUNT(*) / (SELECT COUNT(*) FROM visits) AS s FROM visits GROUP BY patient_id",
)


def once(question: str) -> str:
    """Return a question as it is rewritten."""
    return with_scalars(with_joined_figures(parse(question), OFFER), OFFER).sql(dialect="duckdb")


@every("question", (*SCALARS, *OF_ROWS, *GROUPED, *JOINED))
def test_one_reading_gives_the_figures_of_several(question: str) -> None:
    rewritten = once(question)
    assert [one.name for one in parse(rewritten).find_all(exp.Table)].count("visits") == 1
    with duckdb.connect() as database:
        database.execute(ROWS)
        relations = [database.sql(one) for one in (rewritten, question)]
        found, expected = (relation.fetchall() for relation in relations)
    assert len(found) == len(expected) > 0
    pairs = zip(found, expected, strict=True)
    if "ORDER BY" not in question:
        pairs = zip(sorted(found, key=str), sorted(expected, key=str), strict=True)
    for row, wanted in pairs:
        assert [str(one) if isinstance(one, str) else one for one in row] == pytest.approx(list(wanted))


@every("question", (*SCALARS, *OF_ROWS, *GROUPED, *JOINED))
def test_one_reading_can_be_asked(question: str) -> None:
    rehearsed(plan(question, OFFER), question)


@every("question", KEPT)
def test_what_does_not_fit_one_reading_stays_refused(question: str) -> None:
    assert once(question) == parse(question).sql(dialect="duckdb")
    refusal(question)


def test_texts_that_differ_in_case_are_different_conditions() -> None:
    rewritten = once(
        "SELECT COUNT(*) / (SELECT COUNT(*) FROM visits WHERE region = 'a') AS x FROM visits WHERE region = 'A'"
    )
    assert "FILTER(WHERE region = 'A')" in rewritten
    assert "FILTER(WHERE region = 'a')" in rewritten


def test_groups_that_a_total_is_of_need_no_hidden_groups() -> None:
    planned = plan(GROUPED[0], OFFER)
    assert planned.plan.group_by == ("ward",)
    assert [one.column for one in planned.plan.aggregates] == ["smoker"] * 3
    others = GROUPED[0].replace("ward = 'surgery'", "ward <> 'surgery'")  # of the group 'unknown' no row meets it
    assert plan(others, OFFER).plan.group_by == ("ward", "hidden_1")


def test_joined_figures_are_refused_with_the_question_to_ask() -> None:
    question = (
        "SELECT a.n FROM (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward) a JOIN (SELECT grade, COUNT(*) AS n"
    )
    hint = refusal(f"{question} FROM visits GROUP BY grade) b ON a.n = b.n").hint
    assert hint.startswith("figures of one table need no join: ask one question, with COUNT(*) FILTER (WHERE ...)")
