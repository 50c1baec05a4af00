"""Several statements in one text: each is planned as if it stood alone, and an error says which one it is in."""

import time

import duckdb
import pytest

from analyst.errors import SqlError
from analyst.sql.draft import Script
from analyst.sql.plan import plan
from analyst.sql.script import queries_of, script
from policies.requests.statements import MAX_STATEMENTS, Statements, statistics_of
from policies.requests.statistic import Statistic
from tests.cases import every
from tests.harness.example_policy import Edit, offer, policy

SECOND = '[sources.stays]\nkind = "parquet"\nuri = "stays.parquet"\n[sources.stays.columns]\n' + (
    'patient_id = { type = "string", class = "identifier", roles = [] }\n'
    'age    = { type = "int", class = "internal", roles = ["measure"], bounds = [0, 110] }\n\n'
)
OFFER = offer(policy(Edit("[purposes.health-research]", f"{SECOND}[purposes.health-research]")))
ONE = "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward"
OTHER = "SELECT AVG(age) AS a FROM visits WHERE smoker"


def planned(*statements: str, weights: tuple[int, ...] = ()) -> Statements:
    found = script("; ".join(statements), OFFER, weights=weights).plan
    assert isinstance(found, Statements)
    return found


def refusal(sql: str, weights: tuple[int, ...] = ()) -> SqlError:
    with pytest.raises(SqlError) as caught:
        script(sql, OFFER, weights=weights)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_each_statement_has_the_plan_that_it_has_alone() -> None:
    texts = (ONE, OTHER, "SELECT grade, COUNT(*) FILTER (WHERE smoker) AS n FROM visits GROUP BY grade ORDER BY n")
    found = script(";".join(texts), OFFER, counts_cut=True)
    assert isinstance(found.plan, Statements)
    for text, statement, part in zip(texts, found.statements, found.plan.plans, strict=True):
        alone = plan(text, OFFER, counts_cut=True)
        assert (statement.plan, statement.output, statement.names, statement.after) == (
            alone.plan, alone.output, alone.names, alone.after,
        )  # fmt: skip
        assert part == alone.plan
        assert statement.table == found.table
    assert {column.name for column in found.table.columns} == {"ward", "age", "smoker", "grade"}
    assert found.tables == ((0,), (1,), (2,))


@every(
    "text",
    [
        ONE, f"{ONE};", f"{ONE} ; ; ", f"; {ONE}", f"-- a comment; with a mark\n{ONE}; -- and one at the end;",
        f"/* ; */ {ONE} /* ; */ ; /* ; */",
    ],
)  # fmt: skip
def test_what_has_no_word_is_no_statement(text: str) -> None:
    assert script(text, OFFER) == Script.of(plan(ONE, OFFER))


def test_a_mark_in_a_text_or_a_name_ends_no_statement() -> None:
    found = planned("SELECT COUNT(*) AS \"a;b\" FROM visits WHERE region = 'x;y'", ONE)
    assert [one.alias for one in found.plans[0].aggregates] == ["a;b"]


def test_an_error_names_the_statement_and_the_place_in_the_whole_text() -> None:
    statements = [ONE] * 20
    statements[6] = "SELECT ward, COUNT(* AS n FROM visits GROUP BY ward"
    error = refusal(";\n".join(statements))
    assert error.message.startswith("statement 7 of 20: broken SQL at line 7, column 22")
    statements[6] = "SELECT ward,\n  COUNT(*) AS n FROM visits GROUP BY wrad"
    assert refusal(";\n".join(statements)).message.startswith("statement 7 of 20: ")
    statements[6] = "SELECT MAX(age) AS m FROM visits"
    assert "statement 7 of 20: " in refusal(";\n".join(statements)).message
    assert "at line 7, column 12" in refusal(";\n".join(statements)).message
    statements[6] = "DROP TABLE visits"
    assert refusal(";".join(statements)).message.startswith("statement 7 of 20: DROP is not supported")
    statements[6] = "EXPLAIN SELECT 1"
    assert "consilo explain" in refusal(";".join(statements)).hint


def test_a_text_that_cannot_be_divided_is_one_line() -> None:
    assert "a quote or comment is not closed" in refusal(f"{ONE}; SELECT 'x FROM visits").message
    assert "the question is empty" in refusal(" ; ;; -- nothing\n").message


@every("statement", ["SELECT 1", "SELECT COUNT(*) FROM visits", "", "("])
def test_ten_thousand_statements_are_refused_in_a_line_and_a_moment(statement: str) -> None:
    began = time.process_time()
    refusal(";".join([statement] * 10_000))
    refusal(";".join([statement] * 600))
    assert time.process_time() - began < 5


def test_as_many_statements_as_a_request_holds() -> None:
    assert len(planned(*[ONE] * MAX_STATEMENTS).plans) == MAX_STATEMENTS
    error = refusal(";".join([ONE] * (MAX_STATEMENTS + 1)))
    assert error.message == f"{MAX_STATEMENTS + 1} statements, one request has at most {MAX_STATEMENTS}"


def test_statements_about_two_tables_are_two_requests() -> None:
    error = refusal(f"{ONE}; {OTHER}; SELECT COUNT(*) AS n FROM stays")
    assert error.message == "statement 3 is about 'stays', and statement 1 about 'visits'"
    assert error.hint == "one request is about one table: ask about 'stays' in a second one"
    error = refusal(f"{ONE} UNION ALL SELECT 'other', COUNT(*) FROM stays")
    assert error.message == "UNION ALL of questions about 'visits' and 'stays' is not supported"


@every("weights", [(1,), (1, 2, 3), (0, 1), (1, 1001)])
def test_weights_are_those_of_the_statements(weights: tuple[int, ...]) -> None:
    assert "--weights" in refusal(f"{ONE}; {OTHER}", weights).hint


def test_blocks_are_statements_that_differ_in_their_figures_only() -> None:
    more = "SELECT ward, COUNT(*) AS m, AVG(age) AS a FROM visits GROUP BY ward"
    found = planned(ONE, OTHER, more, weights=(2, 1, 3))
    table = script(f"{ONE}; {OTHER}; {more}", OFFER).table
    assert [block.statements for block in found.shared] == [(0, 2), (1,)]
    assert found.portions == ((5, 6), (1, 6), (5, 6))
    assert list(found.statistics(table)) == [
        Statistic("1/rows"), Statistic("1/present", "age"), Statistic("1/total", "age"),
        Statistic("2/present", "age"), Statistic("2/total", "age"),
    ]  # fmt: skip
    shares = [extent.share for extent in found.statistics(table).values()]
    assert sum(shares[:3]) == 5 * sum(shares[3:])
    own = statistics_of(found, table)
    assert own[0] == {Statistic("rows"): Statistic("1/rows")}
    assert list(own[2].values()) == list(found.statistics(table))[:3]
    others = ("SELECT ward, COUNT(*) AS n FROM visits WHERE smoker GROUP BY ward", "SELECT COUNT(*) AS n FROM visits")
    assert len(planned(ONE, *others).blocks) == 3


@every(
    ("union", "count"),
    [
        (f"{ONE} UNION ALL SELECT 'all', COUNT(*) FROM visits", 2),
        (f"({ONE}) UNION ALL (SELECT 'all', COUNT(*) FROM visits)", 2),
        (f"{ONE} UNION ALL {ONE} UNION ALL {ONE}", 3),
        (f"WITH t AS ({ONE}) SELECT ward, n FROM t UNION ALL SELECT 'all', COUNT(*) FROM visits", 2),
        (f"WITH t AS ({ONE}) SELECT ward, n FROM t UNION ALL SELECT 'all', SUM(n) FROM t", 1),
    ],
)
def test_a_union_of_questions_is_a_statement_each(union: str, count: int) -> None:
    found = script(union, OFFER)
    assert len(found.statements) == count
    assert found.is_single
    beside = script(f"{union}; {OTHER}", OFFER)
    assert beside.tables == (tuple(range(count)), (count,))
    assert isinstance(beside.plan, Statements)
    assert sum(part / whole for part, whole in beside.plan.portions[count:]) == pytest.approx(0.5)


@every(
    ("union", "said"),
    [
        (f"{ONE} UNION {ONE}", "UNION of two questions is not supported"),
        (f"{ONE} UNION ALL SELECT COUNT(*) FROM visits", "have 2 and 1 columns"),
        (f"{ONE} UNION ALL {ONE} ORDER BY n", "ORDER BY and LIMIT of a UNION ALL of questions"),
        (f"{ONE} INTERSECT {ONE}", "INTERSECT of two questions is not supported"),
        (f"WITH t AS ({ONE}) SELECT * FROM t UNION ALL {ONE}", "SELECT * in a UNION ALL of questions"),
    ],
)
def test_what_no_union_can_be_is_refused(union: str, said: str) -> None:
    assert said in refusal(union).message
    assert refusal(f"{OTHER}; {union}").message.startswith("statement 2 of 2: ")


def test_the_same_expression_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, connect = list[int](), duckdb.connect

    def counted(*arguments: object, **options: object) -> duckdb.DuckDBPyConnection:
        calls.append(1)
        return connect(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(duckdb, "connect", counted)
    one = "SELECT age // 10 AS decade, COUNT(*) AS n FROM visits GROUP BY decade"
    plan(one, OFFER)
    alone = len(calls)
    script(";".join([one] * 10), OFFER)
    assert len(calls) == 2 * alone


def test_parsed_statements_are_those_of_the_text() -> None:
    assert [query.sql() for query in queries_of(f"{OTHER}; {ONE};")] == [
        query.sql() for text in (OTHER, ONE) for query in queries_of(text)
    ]
