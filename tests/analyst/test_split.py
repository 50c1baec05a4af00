"""Questions come apart as tests/analyst/splits/ pairs them, and mean the same in two parts as in one.

A block of a file is `-- title:`, the question, `-- core:` and what silos compute, and perhaps `-- after:` and the rest.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
import sqlglot
from sqlglot import exp

from analyst.errors import SqlError
from analyst.sql.parse import parse
from analyst.sql.split import RELEASED, lenient, split
from tests.cases import every


@dataclass(frozen=True)
class Pair:
    """A question and its two parts."""

    title: str
    question: str
    core: str
    after: str


def read_pairs() -> list[Pair]:
    """Return every pair of the files in tests/analyst/splits/."""
    pairs = []
    for file in sorted((Path(__file__).parent / "splits").glob("*.sql")):
        for block in re.split(r"^-- title: ", file.read_text(), flags=re.MULTILINE)[1:]:
            title, rest = block.split("\n", 1)
            question, *marked = re.split(r"^-- (core|after):\n", rest, flags=re.MULTILINE)
            fields = {key: text.strip() for key, text in zip(marked[::2], marked[1::2], strict=True)}
            pairs.append(Pair(title, question.strip(), fields["core"], fields.get("after", "")))
    return pairs


PAIRS = read_pairs()


def parts_of(question: str) -> tuple[str, str]:
    found = split(parse(question))
    return found.core.sql(dialect="duckdb"), "" if found.after is None else found.after.sql(dialect="duckdb")


@every("pair", PAIRS)
def test_a_question_comes_apart_as_expected(pair: Pair) -> None:
    assert parts_of(pair.question) == (pair.core, pair.after)


@every("pair", PAIRS)
def test_both_parts_together_say_what_the_question_says(pair: Pair) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE visits AS SELECT 20 + range % 61 AS age, ['a', 'b', 'c'][1 + range % 3] AS ward,"
            " range % 5 < 2 AS smoker FROM range(500)"
        )
        whole = connection.sql(pair.question).fetchall()
        core, after = parts_of(pair.question)
        connection.execute(f"CREATE TABLE {RELEASED} AS {core}")
        parts = connection.sql(after or f"SELECT * FROM {RELEASED}").fetchall()
    assert sorted(map(str, parts)) == sorted(map(str, whole))
    if "ORDER BY" in pair.question:
        assert parts == whole


@every("pair", PAIRS)
def test_a_part_comes_apart_no_further(pair: Pair) -> None:
    assert parts_of(pair.core) == (pair.core, "")


def test_what_stands_after_the_answer_reads_released_figures_alone() -> None:
    for pair in PAIRS:
        if pair.after:
            query = sqlglot.parse_one(pair.after, dialect="duckdb")
            ctes = {one.alias for one in query.find_all(exp.CTE)}
            assert {one.name for one in query.find_all(exp.Table)} - ctes == {RELEASED}


REFUSED = {
    "SELECT COUNT(*) FROM visits a JOIN visits b USING (ward)": "JOIN is not supported at line 1, column 36",
    "SELECT COUNT(*) / (SELECT COUNT(*) FROM visits) FROM visits": "the question reads 'visits' and then 'visits'",
    "SELECT ward, COUNT(*) FROM visits GROUP BY 3": "GROUP BY 3 names no column of the answer at line 1, column 44",
    "SELECT ward, age + 1 AS x, COUNT(*) AS n FROM visits GROUP BY ward ORDER BY n": "column 'age' is neither grouped",
    "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward HAVING age > 3": "column 'age' is neither grouped",
    "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT 1 FROM t) SELECT COUNT(*) FROM t": "WITH RECURSIVE",
    "SELECT years FROM (SELECT age FROM visits)": "the subquery has no column 'years' at line 1, column 8",
    "SELECT *, COUNT(*) + 1 AS n FROM visits": "SELECT * is not supported",
}


@every("question", list(REFUSED))
def test_what_does_not_come_apart_is_refused(question: str) -> None:
    with pytest.raises(SqlError) as caught:
        split(parse(question))
    assert caught.value.message.startswith(REFUSED[question]), caught.value.message
    assert caught.value.hint


def test_many_nested_subqueries_are_refused_and_do_not_take_long() -> None:
    question = "SELECT COUNT(*) FROM " + "(SELECT * FROM " * 90 + "visits" + ")" * 90
    with pytest.raises(SqlError):
        split(parse(question))


def test_a_cast_of_figures_that_overflows_is_null_and_one_of_groups_an_error() -> None:
    figures = {"f1"}
    for text, expected in (
        ("SELECT CAST(f1 AS SMALLINT) FROM released", "SELECT TRY_CAST(f1 AS SMALLINT) FROM released"),
        ("SELECT CAST(f1 / 2 AS DATE) FROM released", "SELECT TRY_CAST(f1 / 2 AS DATE) FROM released"),
        ("SELECT CAST(ward AS INT) FROM released", "SELECT CAST(ward AS INT) FROM released"),
    ):
        assert lenient(parse(text), figures).sql(dialect="duckdb") == expected


def test_texts_that_differ_in_case_alone_are_two_conditions() -> None:
    question = "SELECT COUNT(*) FILTER (WHERE v.Ward = 'A') + COUNT(*) FILTER (WHERE ward = 'A') AS a, COUNT(*) FILTER"
    core, after = parts_of(f"{question} (WHERE ward = 'a') AS b FROM visits AS v")
    assert core.count("COUNT(*)") == 2
    assert after == "SELECT f1 + f1 AS a, f2 AS b FROM released"
