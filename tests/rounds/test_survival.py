"""Whole questions for survival curves, over several silos in memory."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyst.asking import Command
from analyst.demo.hospitals import PURPOSE, read_lung
from analyst.errors import AnalystError, DeniedError, SqlError
from analyst.preview import preview, preview_lines
from analyst.reports.estimates import Estimate
from analyst.reports.render import render
from analyst.reports.report import Report, decoded, encoded
from analyst.reports.survival import greenwood, kaplan_meier
from analyst.verify import read_answer, verify
from tests.harness.simulator import Simulation, no_noise, simulate
from tests.rounds.test_rounds import ask, rewrite_policies

BY_DAY = "SELECT SURVIVAL(survival, died, 1) AS alive FROM lung"
BY_MONTH = "SELECT sex, SURVIVAL(survival, died, 30) AS alive FROM lung GROUP BY sex"
CURVES = "SELECT sex, SURVIVAL(survival, died) FROM lung GROUP BY sex"
COLUMNS = ("time", "until", "at_risk", "events", "alive", "population_low", "population_high")
# Of the pooled trial, as tests/analyst/test_survival.py has them with their source.
DAYS = {90: 0.8815789473684208, 180: 0.7216706534097623}


@pytest.fixture(scope="module")
def quiet(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation without noise, whose intervals are as if there was noise."""
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("quiet") / "federation"))
    with simulate(path, noise=no_noise) as simulation:
        yield simulation


def pooled(sex: str | None, width: int) -> tuple[Any, Any, Any]:
    """Return the events, who is at risk, and the share that is left, by bin, of all rows together."""
    lung = read_lung()
    time, died, sexes = (np.array(lung[name].to_pylist()) for name in ("survival", "died", "sex"))
    is_one = np.full(len(time), True) if sex is None else sexes == sex
    bins = 1100 // width + 1
    events, everybody = (np.bincount(time[one] // width, minlength=bins) for one in (is_one & died, is_one))
    at_risk = everybody[::-1].cumsum()[::-1].astype(float)
    return events, at_risk, kaplan_meier(events.astype(float), at_risk)


def value(cell: Any) -> float | None:
    assert isinstance(cell, Estimate)
    return cell.value


def test_without_noise_a_curve_by_day_is_that_of_the_pooled_rows(quiet: Simulation) -> None:
    report = ask(quiet, BY_DAY, 2.0)
    events, at_risk, shares = pooled(None, 1)
    assert report.columns == COLUMNS
    assert [(row["time"], row["until"]) for row in report.rows] == [(day, day) for day in range(1101)]
    assert [value(row["at_risk"]) for row in report.rows] == pytest.approx(at_risk.tolist(), abs=1e-6)
    assert [value(row["events"]) for row in report.rows] == pytest.approx(events.tolist(), abs=1e-6)
    told = {day: found for day, row in enumerate(report.rows) if (found := value(row["alive"])) is not None}
    assert len(told) > 300
    assert told == pytest.approx({day: shares[day] for day in told}, abs=1e-9)
    assert {day: told[day] for day in DAYS} == pytest.approx(DAYS, abs=1e-9)
    (median,) = report.curves["medians"]
    assert median["median"]["value"] == 310
    assert report.curves["log_rank"] is None


def test_without_noise_curves_by_thirty_days_are_those_of_each_sex(quiet: Simulation) -> None:
    report = ask(quiet, BY_MONTH, 2.0)
    assert report.columns == ("sex", *COLUMNS)
    assert report.dimensions == {"sex": "sex"}
    assert report.withheld_groups == ({"sex": "unknown"},)
    for sex in ("female", "male"):
        rows = [row for row in report.rows if row["sex"] == sex]
        events, at_risk, shares = pooled(sex, 30)
        assert [(row["time"], row["until"]) for row in rows] == [
            (30 * one, min(30 * one + 29, 1100)) for one in range(37)
        ]
        assert [value(row["at_risk"]) for row in rows] == pytest.approx(at_risk.tolist(), abs=1e-6)
        told = [found for row in rows if (found := value(row["alive"])) is not None]
        assert len(told) > 8
        assert told == pytest.approx(shares[: len(told)].tolist(), abs=1e-9)
        spread = np.exp(1.96 * np.sqrt(greenwood(events.astype(float), at_risk)))
        for row, share, factor in zip(rows[: len(told)], shares, spread, strict=False):
            cell, low, high = row["alive"], row["population_low"], row["population_high"]
            assert isinstance(cell, Estimate)
            assert isinstance(low, float)
            assert isinstance(high, float)
            assert cell.low is not None
            assert low <= min(share / factor, cell.low) + 1e-4
            assert high >= min(share * factor, 1.0) - 1e-4
    assert 0 < report.curves["log_rank"]["p"] < 1


def test_a_curve_without_a_width_is_by_day_and_shows_few_rows(quiet: Simulation) -> None:
    report = ask(quiet, "SELECT SURVIVAL(survival, died) AS alive FROM lung WHERE sex = 'male'", 2.0)
    events, at_risk, shares = pooled("male", 1)
    assert [row["time"] for row in report.rows] == list(range(0, 1101, 50))
    for row in report.rows:
        time, until = row["time"], row["until"]
        assert isinstance(time, int)
        assert isinstance(until, int)
        assert value(row["at_risk"]) == pytest.approx(at_risk[time], abs=1e-6)
        assert value(row["events"]) == pytest.approx(events[time : until + 1].sum(), abs=1e-6)
        if (found := value(row["alive"])) is not None:
            assert found == pytest.approx(shares[until], abs=1e-9)


@pytest.fixture
def noisy(home: Path) -> Iterator[tuple[Simulation, Report]]:
    with simulate(home) as simulation:
        yield simulation, ask(simulation, CURVES, 2.0)


def test_a_curve_is_read_as_table_json_and_csv(noisy: tuple[Simulation, Report]) -> None:
    _, report = noisy
    assert decoded(encoded(report)) == report
    shown = render(report, "table")
    assert "median survival of sex = male" in shown
    assert "log-rank test of 2 groups" in shown
    assert "p = " in shown
    plain = json.loads(render(report, "json"))
    assert {one["group"]["sex"] for one in plain["curves"]["medians"]} == {"female", "male"}
    assert set(plain["curves"]["log_rank"]) == {"chi2", "freedom", "p"}
    lines = [line for line in render(report, "csv").splitlines() if not line.startswith("#")]
    table = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert [*table[0]][:7] == ["sex", "time", "until", "at_risk", "at_risk_low", "at_risk_high", "at_risk_sd"]
    assert len(table) == len(report.rows) == 46
    assert report.to_arrow().column_names == report.field_names()
    assert report.to_pandas().attrs["curves"] == report.curves
    for sex in ("female", "male"):
        found = [value(row["survival"]) for row in report.rows if row["sex"] == sex]
        told = [one for one in found if one is not None]
        assert told == sorted(told, reverse=True)
        assert found[len(told) :] == [None] * (len(found) - len(told)), "what is hidden is at the end"


@pytest.mark.parametrize("sql", [CURVES, "SELECT SURVIVAL(survival, died, 90) AS s FROM lung WHERE age >= 40"])
def test_a_curve_is_verified_and_what_was_changed_in_it_is_found(home: Path, tmp_path: Path, sql: str) -> None:
    with simulate(home) as simulation:
        report = ask(simulation, sql, 2.0)
        alias = "s" if "AS s" in sql else "survival"

        def verified(answer: dict[str, Any]) -> list[str]:
            (tmp_path / "answer.json").write_text(json.dumps(answer))
            return list(verify(simulation.federation, *read_answer(str(tmp_path / "answer.json"))))

        answer = json.loads(report.to_json())
        assert any("rows of the answer are what it says" in line for line in verified(answer))
        changes: list[Any] = [
            lambda one: one["rows"][3][alias].update(value=0.5, low=0.4, high=0.6),
            lambda one: one["rows"][3].update(population_low=0.001),
            lambda one: one["rows"].pop(),
            lambda one: one["rows"].reverse(),
            lambda one: one["curves"]["medians"][0]["median"].update(value=1),
            lambda one: one["curves"].update(log_rank={"chi2": 99.0, "freedom": 1, "p": 0.0}),
            lambda one: one["told"].append("all is well"),
            lambda one: one["withheld_groups"].append({"sex": "other"}),
            lambda one: one.update(columns=[*one["columns"][:-1], "x"]),
            lambda one: one.pop("curves"),
        ]
        for change in changes:
            changed = json.loads(report.to_json())
            change(changed)
            with pytest.raises(AnalystError):
                verified(changed)


def test_an_answer_that_is_no_curve_may_say_nothing_of_curves(home: Path, tmp_path: Path) -> None:
    with simulate(home) as simulation:
        answer = json.loads(ask(simulation, "SELECT COUNT(*) AS n FROM lung").to_json())
        assert "curves" not in answer
        (tmp_path / "answer.json").write_text(json.dumps(answer | {"curves": {"medians": []}}))
        with pytest.raises(AnalystError, match="what no silo released"):
            list(verify(simulation.federation, *read_answer(str(tmp_path / "answer.json"))))


def test_a_preview_says_its_price_and_its_widths(home: Path) -> None:
    with simulate(home) as simulation:
        found = preview(simulation.federation, Command(CURVES, PURPOSE, 2.0))
        assert simulation.spent("aspen") == 0
    shares = {part.name: part.share for part in found.parts}
    assert shares == pytest.approx({"rows": 15 / 80, "survival:survival:died": 60 / 80, "cut": 5 / 80})
    widths = found.widths["survival"]
    assert widths[100_000] is not None
    assert widths[1_000] is not None
    assert widths[100_000] < widths[1_000] < 0.1
    lines = "\n".join(preview_lines(found))
    assert "survival:survival:died: 6,606 numbers, one person changes it by up to 1,859, 75% of the price" in lines
    assert "sums over bins 1 wide and all later ones" in lines


def test_a_curve_of_persons_is_that_of_one_row_of_each(quiet: Simulation) -> None:
    inner = "SELECT patient_id, MAX(survival) AS s, BOOL_OR(died) AS d FROM lung GROUP BY patient_id"
    found = ask(quiet, f"SELECT SURVIVAL(s, d, 30) AS alive FROM ({inner})", 2.0)
    plain = ask(quiet, "SELECT SURVIVAL(survival, died, 30) AS alive FROM lung", 2.0)
    assert [value(row["alive"]) for row in found.rows] == [value(row["alive"]) for row in plain.rows]


def test_groups_are_too_many_only_for_narrow_bins(home: Path) -> None:
    by = "FROM lung GROUP BY 1, 2"
    with simulate(home) as simulation:
        with pytest.raises(SqlError, match="305 groups on 1,101 bins") as caught:
            ask(simulation, f"SELECT age // 1 AS a, ecog, SURVIVAL(survival, died) {by}")
        assert "SURVIVAL(survival, died, 50)" in caught.value.hint
        wider = f"SELECT age // 1 AS a, ecog, SURVIVAL(survival, died, 50) {by}"
        planned, _ = simulation.federation.prepare(wider, purpose=PURPOSE, epsilon=1.0)
    assert planned.plan.group_count(planned.table) == 305


def test_a_policy_that_does_not_list_it_refuses_and_the_hint_for_a_column_of_times_names_what_is_open(
    home: Path,
) -> None:
    by_time = (
        "SELECT survival, SUM(died) AS deaths, COUNT(*) AS left_here FROM lung GROUP BY survival ORDER BY survival"
    )
    with simulate(home) as simulation:
        with pytest.raises(SqlError, match="cannot group by 'survival'") as caught:
            ask(simulation, by_time)
        assert "SELECT SURVIVAL(survival, died) FROM lung" in caught.value.hint
        assert "survival // 100 * 100" in caught.value.hint
        for counted in ("COUNT(*) FILTER (WHERE died)", "SUM(CASE WHEN died THEN 1 ELSE 0 END)", "COUNT_IF(died)"):
            with pytest.raises(SqlError) as caught:
                ask(simulation, f"SELECT survival, {counted} AS deaths FROM lung GROUP BY survival")
            assert "SELECT SURVIVAL(survival, died) FROM lung" in caught.value.hint
        with pytest.raises(SqlError) as caught:
            ask(simulation, "SELECT survival, COUNT(*) AS n FROM lung WHERE died GROUP BY survival")
        assert "SURVIVAL(" not in caught.value.hint
        with pytest.raises(SqlError) as caught:
            ask(simulation, "SELECT SURVIVALS(survival, died) FROM lung")
        assert caught.value.hint == "did you mean SURVIVAL?"
    rewrite_policies(home, ', "survival"]', "]")
    with simulate(home) as simulation:
        with pytest.raises(SqlError) as caught:
            ask(simulation, by_time)
        assert "SURVIVAL(" not in caught.value.hint
        with pytest.raises(DeniedError) as denied:
            ask(simulation, CURVES)
        assert {one.code for found in denied.value.denials.values() for one in found} == {"AGGREGATE"}
        assert simulation.spent("aspen") == 0
