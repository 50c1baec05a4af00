"""Questions that random ones showed to be answered wrongly; each is DuckDB's now."""

import pytest

from tests.cases import every
from tests.questions.clauses import Text, same
from tests.questions.compare import difference
from tests.questions.data import Federation, federation
from tests.questions.whole import Question

BY_AGE = "width_bucket(age, 0, 10, 2)"
BUCKETS = "CASE WHEN m_age < 0 THEN 0 WHEN m_age >= 10 THEN 3 ELSE floor(m_age / 5)::INT + 1 END"


def of_groups(text: str) -> Question:
    """Return a question by small buckets, of which some are empty; {} is the bucket."""
    ours, theirs = (text.replace("{}", bucket) for bucket in (BY_AGE, BUCKETS))
    return Question(Text(ours, theirs), ("d",), is_of_groups=True)


FOUND = (
    # A condition was judged by the nearest public value as soon as another one read the same column.
    Question(
        Text(
            "SELECT COUNT_IF(score BETWEEN -10 AND -9) AS a, COUNT_IF(ABS(score) >= 6) AS b FROM visits",
            "SELECT COUNT_IF(score BETWEEN -10 AND -9) AS a, COUNT_IF(ABS(c_score) >= 6) AS b FROM visits",
        )
    ),
    Question(
        same(
            "SELECT COUNT(*) FILTER (WHERE weight < 70.3) AS a, COUNT(*) FILTER (WHERE weight IN (70.25, 80)) AS b,"
            " COUNT(*) FILTER (WHERE NOT weight > 203) AS c, COUNT(*) FILTER (WHERE weight IS NULL) AS d FROM visits"
        )
    ),
    # A column without missing cells, and yet a condition that is NULL.
    Question(
        Text(
            "SELECT NULLIF(visits, 1) < 4 AS d, COUNT(*) AS n FROM visits GROUP BY d",
            "SELECT NULLIF(c_visits, 1) < 4 AS d, COUNT(*) AS n FROM visits GROUP BY 1",
        ),
        ("d",),
    ),
    Question(
        Text(
            "SELECT 20 / visits > 4 AS d, COUNT(*) AS n FROM visits GROUP BY d",
            "SELECT 20 / c_visits > 4 AS d, COUNT(*) AS n FROM visits GROUP BY 1",
        ),
        ("d",),
    ),
    # A share of rows of which there are none had no value.
    Question(
        same(
            "SELECT AVG(CASE WHEN GREATEST(age, 30) < 23 THEN 1 ELSE 0 END) AS a,"
            " AVG(CASE WHEN 38 < age THEN 1 ELSE 0 END) AS b FROM visits"
        )
    ),
    # A group that is NULL, in an answer of which rows are no groups of the silos.
    Question(
        Text(
            "WITH t AS (SELECT UPPER(ward) AS d, COUNT(*) AS n FROM visits GROUP BY d)"
            " SELECT d, n FROM t UNION ALL SELECT 'all', SUM(n) FROM t",
            "WITH t AS (SELECT UPPER(ward) AS d, COUNT(*) AS n FROM visits GROUP BY 1)"
            " SELECT d, n FROM t UNION ALL SELECT 'all', SUM(n) FROM t",
        ),
        ("d",),
        is_of_groups=True,
    ),
    # Groups without rows were ranked, and were the neighbours of those that are shown.
    *map(
        of_groups,
        (
            "SELECT {} AS d, COUNT(*) AS n, RANK() OVER (ORDER BY COUNT(*)) AS r FROM visits WHERE age < 2 GROUP BY {}",
            "SELECT {} AS d, COUNT(*) AS n, COUNT(*) - LAG(COUNT(*)) OVER w AS r, SUM(COUNT(*)) OVER w AS s FROM visits"
            " WHERE age < 2 GROUP BY {} WINDOW w AS (ORDER BY {})",
            "SELECT {} AS d, COUNT(*) AS n, NTILE(2) OVER (ORDER BY {}) AS t, FIRST_VALUE(COUNT(*)) OVER (ORDER BY"
            " COUNT(*)) AS f, CUME_DIST() OVER (ORDER BY COUNT(*)) AS c FROM visits WHERE age < 2 GROUP BY {}",
            "WITH t AS (SELECT {} AS d, COUNT(*) AS n FROM visits WHERE age < 2 GROUP BY {})"
            " SELECT d, n, DENSE_RANK() OVER (ORDER BY n) AS r FROM t",
        ),
    ),
)


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("questions"))


@every("made", FOUND)
def test_what_was_found_wrong_is_what_duckdb_answers(of: Federation, made: Question) -> None:
    truth = of.truth(made.text.theirs)
    assert truth
    assert not difference(made, of.answer(made.text.ours, 0.5 if made.is_of_groups else float("-inf")), truth)
