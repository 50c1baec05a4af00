"""What is computed without DuckDB is what DuckDB computes: simple expressions, and SQL that surely computes."""

import threading
import time
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pytest
import sqlglot
from sqlglot import exp

import analyst.reports.rehearsal
from analyst.errors import SqlError
from analyst.reports.afterwards import read_after
from analyst.reports.plainly import fields_of
from analyst.reports.rehearsal import rehearsed
from analyst.sql import evaluation
from analyst.sql.database import KeptDatabase
from analyst.sql.evaluation import Result, changes, is_monotonic, results
from analyst.sql.plan import plan
from analyst.sql.simple import computed
from tests.analyst.test_sql import PAIRS
from tests.harness.example_policy import offer, policy

OFFER = offer(policy())
NUMBERS = (
    "x // 10", "x // 7 * 7", "FLOOR(x / 10)", "FLOOR(x / 10) * 10", "CEIL(x / 3)", "FLOOR(x * 0.1)", "-(x // 4)",
    "ROUND(x, -1)", "ROUND(x)", "x * 2 + 1", "1 - x", "(x + 5) / 2", "x >= 5", "x / 4 < 2.5", "3 * x > 100", "x + 0.5",
    "FLOOR((x - 18) / 5)", "CEIL(x)", "FLOOR(x)", "x * 1.5", "x / 3", "ROUND(x, 1)", "ROUND(x / 2, -1)", "x <= -3",
    "CASE WHEN x > 3 THEN 'a' WHEN x = 1 THEN 'b' ELSE 'c' END", "x IN (1, 2, 3)", "NOT x > 3", "x <> 4 AND x < 9",
    "CASE WHEN x > 3 THEN '1' ELSE '0' END || CASE WHEN NOT x > 7 THEN '1' ELSE '0' END",
)  # fmt: skip
TEXTS = (
    "SUBSTR(x, 1, 4)", "LEFT(x, 2)", "x LIKE 's%'", "x LIKE '%g_r%'", "x LIKE 'a.b'", "x = 'surgery'", "x <> 'a'",
    "x NOT LIKE 's%'", "x NOT IN ('a', 'b c')",
    "x IN ('a', 'b c')", "CASE WHEN x LIKE 's%' THEN '1' ELSE '0' END", "NOT x LIKE '%e%' OR x = 'a.b'",
    "SUBSTR(x, 3, 100)",
)  # fmt: skip
TRUTHS = ("CASE WHEN x THEN '1' ELSE '0' END || CASE WHEN NOT x THEN '1' ELSE '0' END", "NOT x")
# Expressions that are left to DuckDB.
OTHERS = ("ABS(x)", "x % 3", "COALESCE(x, 0)", "x // 0", "SQRT(x)", "CAST(x AS INT)", "x + x", "ROUND(x / 3, 2)",
          "x // -2", "x BETWEEN 1 AND 3", "x IS NULL", "CASE x WHEN 1 THEN 'a' ELSE 'b' END")  # fmt: skip


def node_of(text: str) -> exp.Expr:
    node: exp.Expr = sqlglot.parse_one(f"SELECT {text}", dialect="duckdb").expressions[0]
    return node


def by_duckdb(monkeypatch: pytest.MonkeyPatch, call: Any) -> Any:
    """Return what is computed with DuckDB alone."""
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "computed", lambda node, kind: None)
        return call()


def test_simple_expressions_are_computed_as_duckdb_does(monkeypatch: pytest.MonkeyPatch) -> None:
    random, compared = np.random.default_rng(3), 0
    whole = [None, *map(str, range(-40, 41)), *map(str, random.integers(-(10**6), 10**6, 200))]
    decimals = [
        None,
        *(f"{value / 100:.2f}" for value in random.integers(-(10**6), 10**6, 400)),
        "0.05",
        "-0.05",
        "2.50",
    ]
    texts = [None, "surgery", "medicine", "", "a.b", "a", "b c", "axb", "sgxr", "S"]
    kinds = (("BIGINT", whole, NUMBERS), ("DECIMAL(18, 2)", decimals, NUMBERS), ("VARCHAR", texts, TEXTS),
             ("BOOLEAN", [None, "true", "false"], TRUTHS))  # fmt: skip
    for kind, values, expressions in kinds:
        for text in expressions:
            node = node_of(text)
            if "x // " in text and kind != "BIGINT":
                assert computed(node, kind) is None
                continue
            if computed(node, kind) is None:
                continue
            compared += 1
            found = results(node, kind, values)
            true = by_duckdb(monkeypatch, lambda node=node, kind=kind, values=values: results(node, kind, values))
            different = [(value, *pair) for value, *pair in zip(values, found, true, strict=True) if pair[0] != pair[1]]
            assert not different, (text, kind, different[:3])
    assert compared >= 0.85 * (2 * len(NUMBERS) + len(TEXTS) + len(TRUTHS)) - 3


def test_other_expressions_are_left_to_duckdb() -> None:
    assert not [text for text in OTHERS if computed(node_of(text), "BIGINT") is not None]
    assert computed(node_of("ROUND(x / 3)"), "BIGINT") is None, "a float is rounded by DuckDB alone"
    assert results(node_of("SUBSTR(x, 1, 2)"), "VARCHAR", ["été", None]) == [
        Result("string", "ét"),
        Result("string", None),
    ]


@pytest.mark.parametrize(
    ("scale", "low", "high", "step"), [(0, -50, 300, "1"), (2, -5000, 60_000, "0.01"), (0, 0, 9000, "5")]
)
def test_changes_of_monotonic_expressions_are_found_without_computing_every_step(
    monkeypatch: pytest.MonkeyPatch, scale: int, low: int, high: int, step: str
) -> None:
    compared = 0
    for text in (*NUMBERS, "FLOOR(x / 7) / 3", "ROUND(x / 100, 1)", "FLOOR(x / 1000)"):
        node = node_of(text)
        if not is_monotonic(node):
            continue
        with monkeypatch.context() as patched:
            patched.setattr(evaluation, "is_monotonic", lambda node: False)
            patched.setattr(evaluation, "computed", lambda node, kind: None)
            true = outcome(node, scale, low, high, Decimal(step))
        found = outcome(node, scale, low, high, Decimal(step))
        between = by_duckdb(monkeypatch, lambda node=node: outcome(node, scale, low, high, Decimal(step)))
        assert found == true, text
        assert between == true, text
        compared += 1
    assert compared >= 15


def outcome(node: exp.Expr, scale: int, low: int, high: int, step: Decimal) -> list[tuple[int, Result]] | str:
    try:
        return changes(node, scale, low, high, step)
    except SqlError as err:
        return err.message


def test_only_what_rises_or_falls_is_searched_by_halving() -> None:
    for text in (
        "x % 3",
        "x * x",
        "ABS(x)",
        "x - x // 3",
        "CASE WHEN x > 3 THEN 1 ELSE 0 END",
        "x / x",
        "1 / x",
        "x = 3",
    ):
        assert not is_monotonic(node_of(text)), text


AFTERS = (
    "SELECT ward, COUNT(*) AS n, AVG(age) AS a FROM visits GROUP BY ward HAVING COUNT(*) > 40 ORDER BY n DESC LIMIT 2",
    "SELECT SUM(cost) / SUM(stay) AS r FROM visits",
    "SELECT ward, ROUND(AVG(age), 3) AS a, CASE WHEN COUNT(*) > 9 THEN 'x' ELSE 'y' END AS s FROM visits GROUP BY 1",
    "SELECT ward, COUNT(*) AS n, RANK() OVER (ORDER BY COUNT(*) DESC) AS r FROM visits GROUP BY ward",
    "SELECT ward, grade, COUNT(*) AS n, SUM(COUNT(*)) OVER (PARTITION BY ward) AS t FROM visits GROUP BY ward, grade",
    "SELECT AVG(age) FILTER (WHERE smoker) / AVG(age) FILTER (WHERE NOT smoker) AS r FROM visits",
    "SELECT ward, COUNT(*) FILTER (WHERE smoker) AS n FROM visits GROUP BY ward ORDER BY n",
    "SELECT grade, COUNT(*) AS n, COALESCE(AVG(age), 0) AS a, grade = 1 AS g FROM visits GROUP BY grade ORDER BY 1",
    "SELECT age // 10 AS decade, COUNT(*) AS n, COUNT(*) / SUM(COUNT(*)) OVER () AS share FROM visits GROUP BY decade",
    "SELECT ward, 1 AS one, 'x' AS text, COUNT(*) AS n FROM visits GROUP BY ward",
    "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward ORDER BY AVG(age), 1",
)
# Each has something that fails, or might, so that it is tried.
TRIED = (
    "SELECT ward, LAG(COUNT(*)) OVER (ORDER BY ward) AS n FROM visits GROUP BY ward",
    "SELECT ward, LN(COUNT(*)) AS n FROM visits GROUP BY ward",
    "SELECT ward || '!' AS w, COUNT(*) AS n FROM visits GROUP BY ward",
    "SELECT COUNT(*) * 99999999999 * 99999999999 AS n FROM visits",
    "WITH t AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward) SELECT AVG(n) AS a FROM t",
    "SELECT grade + 1 AS g, COUNT(*) AS n FROM visits GROUP BY grade",
    "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward ORDER BY ward + 1",
)


def test_what_surely_computes_has_the_columns_that_a_trial_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = 0
    for question in (*AFTERS, *TRIED, *(pair.question for pair in PAIRS if pair.plan)):
        planned = plan(question, OFFER)
        if not planned.after:
            continue
        seen = planned.plan.seen(planned.table)
        after = read_after(planned.after, {one.alias: one.function for one in planned.plan.aggregates})
        fields = fields_of(after, planned.plan, seen)
        assert (fields is not None) or question not in AFTERS, question
        assert fields is None or question not in TRIED, question
        if fields is None:
            continue
        told: list[Any] = []
        with monkeypatch.context() as patched:
            patched.setattr(analyst.reports.rehearsal, "fields_of", lambda *of: None)
            patched.setattr(analyst.reports.rehearsal, "check_names", lambda *of, told=told: told.append(of))
            rehearsed(planned, question)
        ((columns, labels),) = told
        assert (columns, set(labels)) == (fields.columns, set(fields.labels)), question
        plain += 1
    assert plain >= len(AFTERS)


def test_a_kept_database_serves_one_at_a_time_and_is_opened_anew_after_a_failure() -> None:
    kept = KeptDatabase({"threads": 1}, ("lock_configuration = true",))
    with kept.used(5) as first:
        assert first.execute("SELECT 1").fetchall() == [(1,)]
    with kept.used(5) as second:
        assert second is first
    with pytest.raises(duckdb.Error), kept.used(5) as failing:
        failing.execute("SELECT nothing")
    with kept.used(5) as third:
        assert third is not first
        with pytest.raises(duckdb.Error):
            third.execute("SET threads = 2")
    counted: list[int] = []

    def use() -> None:
        with kept.used(5) as database:
            counted.append(database.execute("SELECT count(*) FROM range(100000)").fetchall()[0][0])

    threads = [threading.Thread(target=use) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert counted == [100_000] * 8
    kept.close()


def test_a_kept_database_is_interrupted_and_works_again() -> None:
    kept, long = (
        KeptDatabase({"threads": 1}),
        "SELECT count(*) FROM range(100000000) a, range(1000) b WHERE a.range < b.range",
    )
    with kept.used(30) as database:  # a later end does not delay an earlier one
        assert database.execute("SELECT 1").fetchall()
    started = time.monotonic()
    with pytest.raises(duckdb.InterruptException), kept.used(0.2) as database:
        database.execute(long).fetchall()
    assert time.monotonic() - started < 10
    for _ in range(50):
        with kept.used(0.5) as database:
            assert database.execute("SELECT 7").fetchall() == [(7,)]
    time.sleep(0.6)
    with kept.used(5) as database:
        assert database.execute("SELECT 8").fetchall() == [(8,)], "an old end interrupts nothing new"
    kept.close()
