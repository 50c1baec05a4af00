"""Figures computed after the answer: DuckDB's values, and intervals that hold, also for rows that noise picked."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, SqlError
from analyst.reports import scenarios
from analyst.reports.afterwards import read_after
from analyst.reports.derived import Cell, Derived, derive
from analyst.reports.estimates import Estimate
from analyst.reports.intervals import Noisy
from analyst.reports.rehearsal import rehearsed
from analyst.reports.render import render
from analyst.reports.report import decoded, encoded
from analyst.reports.scenarios import Sums
from analyst.sql.draft import Planned
from analyst.sql.plan import plan
from analyst.verify import verify
from policies.requests.query import ROWS, Aggregate, Plan
from policies.requests.statistic import Statistic
from policies.requests.tables import Table
from tests.cases import every
from tests.harness.example_policy import offer, policy
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_rounds import pooled, rewrite_policies

OFFER = offer(policy())
QUESTIONS = (
    "SELECT ecog, COUNT(*) AS n FROM lung GROUP BY ecog HAVING COUNT(*) > 40 ORDER BY n DESC, ecog",
    "SELECT ecog, sex, AVG(age) AS a FROM lung WHERE ecog IN (0, 1) GROUP BY ecog, sex ORDER BY a DESC LIMIT 3",
    "SELECT SUM(survival) / SUM(age) AS ratio, ROUND(AVG(age), 1) AS a, COUNT(*) * 2 + 1 AS odd FROM lung",
    "SELECT sex, COUNT(*) AS n, RANK() OVER (ORDER BY COUNT(*) DESC) AS r FROM lung GROUP BY sex ORDER BY r",
    "SELECT sex, COUNT(*) - LAG(COUNT(*)) OVER (ORDER BY sex) AS change FROM lung GROUP BY sex ORDER BY sex",
    "SELECT sex, 100.0 * COUNT(*) / SUM(COUNT(*)) OVER () AS percent FROM lung GROUP BY 1 ORDER BY sex",
    "WITH t AS (SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex)"
    " SELECT sex, n / (SELECT SUM(n) FROM t) AS s FROM t ORDER BY sex",
    "SELECT AVG(n) AS a, MIN(n) AS least FROM (SELECT sex, COUNT(*) AS n FROM lung WHERE died GROUP BY sex)",
    "SELECT sex, CASE WHEN COUNT(*) > 100 THEN 'many' ELSE 'few' END AS size FROM lung GROUP BY sex ORDER BY sex",
    "SELECT AVG(age) AS a FROM (SELECT * FROM lung WHERE died AND ecog >= 2)",
    "SELECT COUNT(*) FILTER (WHERE died) AS d, AVG(age) FILTER (WHERE sex = 'male') / AVG(age) AS r FROM lung",
    "SELECT sex, SUM(CASE WHEN ecog >= 1 THEN 1 ELSE 0 END) AS n, COUNT(*) AS m FROM lung GROUP BY sex"
    " HAVING COUNT(*) > 3 ORDER BY sex",
    "SELECT CASE WHEN age < 60 THEN 'young' ELSE 'old' END AS band, COUNT(*) + 1 AS n"
    " FROM lung GROUP BY band ORDER BY n",
    "SELECT sex, STDDEV(age) / AVG(age) AS cv FROM lung GROUP BY sex ORDER BY sex",
    "SELECT died, COUNT(*) AS n FROM lung GROUP BY died ORDER BY n DESC LIMIT 1",
    "SELECT COUNT(DISTINCT patient_id) AS n FROM lung GROUP BY sex",
    "WITH t AS (SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex)"
    " SELECT sex, n FROM t UNION ALL SELECT 'all', SUM(n) FROM t ORDER BY n",
    "SELECT * FROM (SELECT sex, SUM(age) AS years FROM lung GROUP BY sex) WHERE years > 100 ORDER BY years",
    "SELECT sex, COALESCE(NULLIF(COUNT(*), 0), 1) AS n, SUM(COUNT(*)) OVER (ORDER BY sex) AS upto"
    " FROM lung GROUP BY sex ORDER BY sex",
)


@pytest.fixture(scope="module")
def of_two(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation without noise whose cohorts may be as small as two."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("derived") / "federation"))
    rewrite_policies(path, "min_cohort     = 25", "min_cohort     = 2")
    with simulate(path, noise=no_noise) as simulation:
        yield simulation


def values(row: Mapping[str, Cell]) -> list[Any]:
    return [cell.value if isinstance(cell, Estimate) else cell for cell in row.values()]


def test_without_noise_a_question_equals_pooled_duckdb(of_two: Simulation) -> None:
    for question in QUESTIONS:
        report = of_two.federation.query(question, purpose=PURPOSE, epsilon=1.0, counts_cut=False)
        # No noise was added, but the noise that was to be there is what intervals are made of.
        found, truth = [values(row) for row in report.rows], [list(row.values()) for row in pooled(question)]
        if "ORDER BY" not in question:  # DuckDB tells its groups in any order then
            found, truth = sorted(found), sorted(truth)
        assert len(found) == len(truth), (question, found, truth)
        for row, true in zip(found, truth, strict=True):
            for cell, expected in zip(row, true, strict=True):
                same = cell == expected if not isinstance(expected, int | float) else cell == pytest.approx(expected)
                assert same or (cell is None and expected is None), (question, row, true)
        assert decoded(encoded(report)) == report
        assert render(report, "table")
        assert render(report, "csv")
        assert json.loads(report.to_json())["after"] == report.after


def test_an_answer_is_verified_and_a_changed_one_refused(of_two: Simulation) -> None:
    question = "SELECT sex, COUNT(*) AS n, COUNT(*) > 100 AS many FROM lung GROUP BY sex ORDER BY n LIMIT 1"
    report = of_two.federation.query(question, purpose=PURPOSE, epsilon=0.1)
    answer = report.to_dict()
    name = bytes.fromhex(report.transcript)
    assert any("rows of the answer are what it says" in line for line in verify(of_two.federation, name, answer))
    changes: list[dict[str, Any]] = [
        {"rows": []},
        {"rows": [*answer["rows"], *answer["rows"]]},
        {"rows": [{**answer["rows"][0], "many": not answer["rows"][0]["many"]}]},
        {"rows": [{**answer["rows"][0], "n": {**answer["rows"][0]["n"], "high": 1e6}}]},
        {"after": answer["after"].replace("LIMIT 1", "LIMIT 2")},
        {"after": "SELECT 1"},
        {"after": "SELECT * FROM read_csv('x')"},
        {"labels": []},
        {"columns": ["n"]},
        {"dimensions": {}},
        {"told": ["all is well"]},
        {"withheld_groups": [{"sex": "male"}]},
    ]
    for change in changes:
        with pytest.raises(AnalystError):
            list(verify(of_two.federation, name, {**answer, **change}))


def test_a_withheld_group_has_the_names_of_the_answer_and_is_verified(of_two: Simulation) -> None:
    question = "SELECT sex AS d, age < 0 AS e, COUNT(*) AS n FROM lung GROUP BY sex, e ORDER BY n"
    report = of_two.federation.query(question, purpose=PURPOSE, epsilon=0.1)
    assert {"d": "unknown", "e": False} in report.withheld_groups
    assert list(verify(of_two.federation, bytes.fromhex(report.transcript), report.to_dict()))


def test_a_kept_question_is_opened_again_with_the_same_intervals(of_two: Simulation) -> None:
    question = "SELECT AVG(age) / AVG(survival) AS r FROM lung"
    report = of_two.federation.query(question, purpose=PURPOSE, epsilon=0.1)
    kept = of_two.federation.kept.named(report.request[:12])
    kept.answer.unlink()
    assert of_two.federation.open_kept(kept).rows == report.rows


def planned(question: str) -> Planned:
    return rehearsed(plan(question, OFFER), question)


def made(question: str, truth: Mapping[str, Any], sd: Mapping[str, float], draw: Any, least: float) -> Derived:
    """Answer a question from true sums by kind of statistic, with noise that `draw` makes of a shape."""
    one = planned(question)

    def noisy(statistic: Statistic) -> Noisy:
        true = np.asarray(truth[statistic.kind], np.float64)
        return Noisy(true + sd[statistic.kind] * draw(true.shape), sd[statistic.kind])

    sums = {statistic: noisy(statistic) for statistic in one.plan.statistics(one.table) if statistic.kind != "cut"}
    count = next(iter(sums.values())).values
    after = read_after(one.after, {figure.alias: figure.function for figure in one.plan.aggregates})
    seed = draw((32,)).tobytes()[:32]
    return derive(after, Sums(one.plan, one.table, sums, count >= least), least, seed)


COVERED = (
    # the question, its true value for each ward by rows and totals, and the mean that half steps stand for
    "SELECT ward, COUNT(*) - 7 AS x FROM visits GROUP BY ward",
    "SELECT ward, COUNT(*) / SUM(COUNT(*)) OVER () AS x FROM visits GROUP BY ward",
    "SELECT ward, COUNT(*) * COUNT(*) AS x FROM visits GROUP BY ward",
    "SELECT ward, COUNT(*) AS x FROM visits GROUP BY ward ORDER BY x DESC LIMIT 1",
    "SELECT ward, COUNT(*) AS x FROM visits GROUP BY ward HAVING COUNT(*) > 205",
    "SELECT ward, 2 * COUNT(*) AS x FROM visits GROUP BY ward HAVING COUNT(*) > 205",
    "SELECT ward, RANK() OVER (ORDER BY COUNT(*) DESC) AS x FROM visits GROUP BY ward",
    "SELECT MAX(n) AS x FROM (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward)",
)


@pytest.mark.slow
def test_intervals_hold_also_for_rows_that_noise_picked() -> None:
    """Of the intervals that are shown, 94 % or more hold the truth; 60 runs a question, all groups nearly alike."""
    random, runs = np.random.default_rng(20261130), 60
    wards = planned(COVERED[0]).plan.group_count(planned(COVERED[0]).table)
    counts = 200.0 + 3.0 * np.arange(wards)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE truth (ward VARCHAR, n DOUBLE)")
        domain = planned(COVERED[0]).table.column("ward").domain
        connection.executemany("INSERT INTO truth VALUES (?, ?)", list(zip(domain, counts.tolist(), strict=True)))
        for question in COVERED:
            core = question.replace("COUNT(*)", "n").replace(" GROUP BY ward", "").replace("visits", "truth")
            core = core.split(" HAVING ")[0].split(" ORDER BY x")[0]
            everybody = {row[0]: row[-1] for row in connection.sql(core).fetchall()}
            held, shown = 0, 0
            for _ in range(runs):
                derived = made(question, {"rows": counts}, {"rows": 8.0}, random.standard_normal, 10.0)
                for row in derived.rows:
                    cell, key = row["x"], row.get("ward")
                    assert isinstance(cell, Estimate)
                    true = everybody[key] if key is not None else next(iter(everybody.values()))
                    assert cell.low is not None
                    assert cell.high is not None
                    shown += 1
                    held += cell.low - 1e-9 <= true <= cell.high + 1e-9
            assert shown >= runs // 2, question
            assert held / shown >= 0.94 - 2.5 * math.sqrt(0.94 * 0.06 / shown), (question, held / shown)


GROUPED = "WITH t AS (SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward)"
REFUSED = {
    "SELECT COUNT(*) / random() AS x FROM visits": "RANDOM is not supported after the answer",
    "SELECT COUNT(*) + nextval('s') AS x FROM visits": "NEXTVAL is not supported after the answer",
    "SELECT COUNT(*) + getenv('HOME')::INT AS x FROM visits": "GETENV is not supported after the answer",
    "SELECT COUNT(*) || current_setting('threads') AS x FROM visits": "CURRENT_SETTING is not supported",
    "SELECT COUNT(*) + pg_sleep(1) AS x FROM visits": "PG_SLEEP is not supported after the answer",
    "SELECT ward, COUNT(*) + 1 AS _group FROM visits GROUP BY ward": "the name '_group' is used inside",
    "WITH released AS (SELECT COUNT(*) AS n FROM visits) SELECT n + 1 AS m FROM released": "is the name of the silos'",
    "SELECT INTERVAL (COUNT(*)) DAY AS d FROM visits": "the column 'd' holds month_day_nano_interval",
    "SELECT current_user AS u, COUNT(*) + 1 AS n FROM visits": "",
    "SELECT now() AS at, COUNT(*) + 1 AS n FROM visits": "",
    "SELECT no_such(COUNT(*)) AS x FROM visits": "NO_SUCH is not supported after the answer",
    "SELECT COUNT(*) + 'x' AS x FROM visits": "fails at line 1, column 8: Could not convert",
    "SELECT [COUNT(*)] AS x FROM visits": "the column 'x' holds lists or structures",
    f"{GROUPED} SELECT n FROM t UNION ALL SELECT n FROM t": "the rows of the answer cannot be told",
    "SELECT COUNT(*) + 1 AS n, COUNT(*) + 2 AS n FROM visits": "the output name 'n' is used twice",
    "SELECT COUNT(*) + 1 AS n, COUNT(*) + 2 AS n_low FROM visits": "the output name 'n_low' is used twice",
    "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward QUALIFY 1": "",
    "SELECT repeat('x', 1000000000) AS x, COUNT(*) + 1 AS n FROM visits": "",
    "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward ORDER BY no_such": "",
}


@every("question", list(REFUSED))
def test_what_cannot_be_computed_after_the_answer_is_refused_before_it_is_paid(question: str) -> None:
    with pytest.raises(SqlError) as caught:
        planned(question)
    assert REFUSED[question] in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_an_answer_is_computed_from_released_figures_alone() -> None:
    for text in (
        "SELECT * FROM figures",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT f1 FROM released, duckdb_settings()",
        "SELECT f1, (SELECT COUNT(*) FROM information_schema.tables) FROM released",
        "COPY released TO 'x.csv'",
        "SELECT f1 FROM main.released",
    ):
        with pytest.raises(SqlError):
            read_after(text, {"f1": "count"})


def test_withheld_groups_enter_totals_and_nothing_else(of_two: Simulation) -> None:
    one = planned(
        "SELECT ward, COUNT(*) AS n, SUM(COUNT(*)) OVER () AS total, LAG(COUNT(*)) OVER (ORDER BY ward) AS b"
        " FROM visits GROUP BY ward ORDER BY ward"
    )
    wards = one.plan.group_count(one.table)
    counts = np.full(wards, 100.0)
    counts[0] = 1.0
    sums = {statistic: Noisy(counts, 2.0) for statistic in one.plan.statistics(one.table) if statistic.kind != "cut"}
    after = read_after(one.after, {figure.alias: figure.function for figure in one.plan.aggregates})
    derived = derive(after, Sums(one.plan, one.table, sums, counts >= 10), 10.0, bytes(32))
    assert len(derived.rows) == wards - 1
    total = derived.rows[0]["total"]
    assert isinstance(total, Estimate)
    assert total.value == pytest.approx(counts.sum())
    assert derived.rows[0]["b"] is None, "the figure of a withheld group is shown"


CTES = "WITH c0 AS (SELECT f1 FROM released)" + "".join(
    f", c{at} AS (SELECT x.f1 FROM c{at - 1} AS x JOIN c{at - 1} AS y ON x.f1 = y.f1)" for at in range(1, 24)
)
GROWING = {
    f"{CTES} SELECT f1 FROM c23": "read each other too often",
    "SELECT lpad('x', 500000000 + f1::INT, 'y') IS NULL AS x, f1 FROM released": "LPAD is not supported",
    "SELECT length(repeat('x', 1000000000)) AS x, f1 FROM released": "REPEAT is not supported",
    "SELECT replace('xx', 'x', f1::VARCHAR) AS x FROM released": "REPLACE is not supported",
    "SELECT len(range(1000000000)) AS x FROM released": "is not supported",
    "SELECT f1, uniform(1, 2) AS x FROM released": "CAST is not supported",
    "SELECT f1, uniform(abs(f1), abs(2)) AS x FROM released": "RAND",
    "SELECT __internal_barrier(f1) AS x FROM released": "__INTERNAL_BARRIER is not supported",
    "SELECT f1 FROM released -- " + "x" * 200_000: "characters, at most",
}


@every("text", list(GROWING))
def test_the_sql_of_a_file_that_somebody_else_wrote_neither_hangs_nor_grows(text: str) -> None:
    with pytest.raises(SqlError) as caught:
        read_after(text, {"f1": "count"})
    assert GROWING[text] in caught.value.message


def test_a_result_that_grows_ends_before_the_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(where=None, group_by=(), aggregates=(Aggregate(function="count", column=None, alias="f1"),))
    table = Table(name="t", max_rows=1, max_silos=1, columns=())
    sums = Sums(plan, table, {ROWS: Noisy(np.array([100.0]), 3.0)}, np.array([True]))
    text = "WITH a AS (SELECT f1 FROM released) SELECT x.f1 FROM a AS x" + ", a" * 5
    after = read_after(text, {"f1": "count"})
    assert derive(after, sums, 5.0, bytes(32)).rows
    monkeypatch.setattr(scenarios, "MAX_BYTES", 10_000)
    with pytest.raises(SqlError, match="too large a result"):
        derive(after, sums, 5.0, bytes(32))
