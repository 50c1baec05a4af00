"""What was cut: four slots of persons for a sixteenth of the price, the shares told of them; intervals that hold."""

import csv
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from analyst.demo.scenes import pooled_truth
from analyst.demo.sector import found_sector
from analyst.demo.story import SECTORS
from analyst.errors import AnalystError
from analyst.reports.cut import WIDEST, Cut, Share, share_of
from analyst.reports.estimates import Estimate, interpret, threshold_of
from analyst.reports.render import render
from analyst.sql.draft import Planned
from analyst.verify import verify
from crypto.rounds.opening import OpenedSum
from crypto.rounds.report import StoredReport
from policies.budget.accountant import charge
from policies.requests.query import CUT, CUT_SLOTS, Plan
from policies.requests.request import Request
from policies.requests.terms import terms_of
from tests.harness.simulator import Simulation, no_noise, simulate

ALPHA = 1e-6
RUNS = 200
QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"
PURPOSE = "health-research"
TYPICAL = (
    ("banks", "SELECT AVG(income) AS f FROM loans"),
    ("banks", "SELECT VARIANCE(income) AS f FROM loans"),
    ("banks", "SELECT AVG(loan) AS f FROM loans"),
    ("banks", "SELECT REGR_SLOPE(loan, income) AS f FROM loans"),
    ("retailers", "SELECT AVG(cds) AS f FROM purchases"),
    ("retailers", "SELECT VAR_POP(cds) AS f FROM purchases"),
    ("retailers", "SELECT AVG(amount) AS f FROM purchases"),
    ("retailers", "SELECT SUM(amount) AS f FROM purchases"),
    ("retailers", "SELECT MEDIAN(amount) AS f FROM purchases"),
)


def at_least(runs: int, chance: float) -> float:
    """Return what a count of so many runs falls below with probability ALPHA."""
    return runs * chance + NormalDist().inv_cdf(ALPHA) * math.sqrt(runs * chance * (1 - chance))


def asked(simulation: Simulation, question: str, purpose: str, epsilon: float) -> tuple[Planned, Request, OpenedSum]:
    """Return what an answer is made of: its plan, its request and its opened sum."""
    planned, request = simulation.federation.prepare(question, purpose=purpose, epsilon=epsilon)
    stored = StoredReport.decode(simulation.federation.submit(request))
    checked = simulation.federation.check_report(stored, request)
    return planned, request, simulation.federation.open_sum(checked, request)


def with_noise(opened: OpenedSum, random: np.random.Generator) -> OpenedSum:
    """Return an opened sum with the noise of all its silos, which has none."""
    blocks = opened.manifest.terms.blocks
    silos = len(opened.survivor_set.survivors)
    deviations = [math.sqrt(int(one.variance) * silos / opened.manifest.noise_shares) for one in blocks]
    of_slots = np.repeat(deviations, [one.length for one in blocks])
    return replace(opened, units=opened.units + np.rint(random.normal(0, of_slots)).astype(np.int64))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SECTORS))
def test_over_200_runs_the_intervals_of_the_demo_hold_for_the_truth_beside_them(name: str, tmp_path: Path) -> None:
    """What entered and what is there differ little enough: 94 % and more of the intervals hold all rows' figure."""
    one = SECTORS[name]
    found_sector(tmp_path / "f", one)
    random, truths = np.random.default_rng(1), pooled_truth(one, one.read())
    with simulate(tmp_path / "f", noise=no_noise) as simulation:
        planned, request, opened = asked(simulation, one.question, one.purpose, one.epsilon)
    threshold = threshold_of(request, opened, one.min_cohort)
    held: dict[tuple[str, int], list[bool]] = {}
    for _ in range(RUNS):
        rows, _ = interpret(planned, request, with_noise(opened, random), threshold)
        for row in rows:
            group, *cells = row.values()
            for place, (cell, truth) in enumerate(zip(cells, truths.get(str(group), ()), strict=False)):
                assert isinstance(cell, Estimate)
                assert truth is not None
                assert cell.low is not None
                assert cell.high is not None
                held.setdefault((str(group), place), []).append(cell.low <= truth <= cell.high)
    figures = 2 * len([truth for truth in truths.values() if truth[0]])
    assert len(held) == figures
    assert {len(found) for found in held.values()} == {RUNS}
    for figure, found in held.items():
        assert sum(found) >= at_least(RUNS, 0.94), (figure, sum(found))
    every = sum(map(sum, held.values()))
    assert every >= at_least(RUNS * figures, 0.94), every / (RUNS * figures)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["banks", "retailers"])
def test_over_200_runs_the_intervals_of_typical_questions_hold_for_all_rows(name: str, tmp_path: Path) -> None:
    """Bounds that clamp too much shift a figure, which no interval tells: those of the demo clamp little enough."""
    one = SECTORS[name]
    found_sector(tmp_path / "f", one)
    random = np.random.default_rng(1)
    with simulate(tmp_path / "f", noise=no_noise) as simulation, duckdb.connect() as database:
        database.register(one.table, one.read())
        for question in (question for sector, question in TYPICAL if sector == name):
            (truth,) = database.execute(question).fetchone() or (math.nan,)
            planned, request, opened = asked(simulation, question, one.purpose, 1)
            threshold = threshold_of(request, opened, one.min_cohort)
            held = 0
            for _ in range(RUNS):
                ((row,), _) = interpret(planned, request, with_noise(opened, random), threshold)
                cell = row["f"]
                assert isinstance(cell, Estimate)
                assert cell.low is not None
                assert cell.high is not None
                held += cell.low <= float(truth) <= cell.high
            assert held >= at_least(RUNS, 0.94), (question, held)


def test_the_block_has_a_sixteenth_of_the_price_and_the_charge_stays_the_price(shared: Simulation) -> None:
    for question in (QUESTION, "SELECT COUNT(*) AS n FROM lung", "SELECT SUM(age), AVG(weight_loss) FROM lung"):
        _, request = shared.federation.prepare(question, purpose=PURPOSE, epsilon=1)
        _, without = shared.federation.prepare(question, purpose=PURPOSE, epsilon=1, counts_cut=False)
        assert request.micro_rho == without.micro_rho == charge(request, 1) == charge(without, 1)
        assert isinstance(request.plan, Plan)
        extents = request.plan.statistics(request.table)
        assert (list(extents)[-1], extents[CUT].length) == (CUT, CUT_SLOTS)
        assert 16 * extents[CUT].share == sum(extent.share for extent in extents.values())
        assert (extents[CUT].sensitivity, extents[CUT].per_row) == (1, 1)
        assert CUT not in without.plan.statistics(without.table)
        assert request.plan.size(request.table) > without.plan.size(without.table)
        for block, other in zip(terms_of(request, bytes(32)).blocks, terms_of(without, bytes(32)).blocks, strict=False):
            ratio = math.ldexp(int(block.variance), -2 * block.scale_bits)
            ratio /= math.ldexp(int(other.variance), -2 * other.scale_bits)
            assert ratio == pytest.approx(16 / 15, rel=1e-5)


def test_shares_hold_the_truth_in_95_percent_of_answers() -> None:
    random, runs = np.random.default_rng(2), 20_000
    for persons, share, deviation in ((2_000, 0.0, 20.0), (2_000, 0.03, 20.0), (5_000, 0.6, 80.0), (900, 1.0, 15.0)):
        noise = random.normal(0, deviation * math.sqrt(2), (runs, 2))
        found = [share_of(persons * share + cut, persons * (1 - share) + uncut, deviation**2) for cut, uncut in noise]
        told = [one for one in found if one.low is not None and one.high is not None]
        assert len(told) == runs
        held = sum(one.low <= share <= one.high for one in told)  # type: ignore[operator]
        chance = 0.95 if 0 < share < 1 else 0.975  # at an end the interval can miss on one side only
        assert at_least(runs, chance) <= held <= runs - at_least(runs, 1 - chance)
        assert all(one.high - one.low <= WIDEST for one in told)  # type: ignore[operator]
    assert share_of(30, 70, 30**2) == share_of(-5, 3, 1) == share_of(0, 0, 1) == Share()


def test_words_say_how_many_persons_and_not_how_many_rows() -> None:
    told = Cut(Share(0.12, 0.094, 0.151), Share(0.002, 0.0, 0.004))
    assert list(told.in_words()) == [
        "12 % (9 to 15) of persons had rows left out; how many rows is not known",
        "0.2 % (0.0 to 0.4) of persons had a value clamped to its bounds; by how much is not known",
    ]
    assert list(Cut(Share(), None).in_words()) == [
        "what share of persons had rows left out cannot be told: the noise is too large"
    ]


@pytest.fixture(scope="module")
def of_many(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A federation without noise: 1,000 persons a silo, of whom a fifth has two rows and a tenth an age above 90."""
    home = Path(shutil.copytree(founded, tmp_path_factory.mktemp("cut") / "federation"))
    for number, file in enumerate(sorted(home.glob("silos/*/lung.parquet"))):
        table = pyarrow.parquet.read_table(file)
        one, persons = table.to_pylist()[0] | {"sex": "female"}, range(1000 * number, 1000 * number + 1000)
        rows = []
        for place, person in enumerate(persons):
            cells = one | {"patient_id": f"p{person}", "age": 95 if place < 100 else 60}
            rows += [cells] * (2 if 50 <= place < 250 else 1)
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
        given = [f"p{person},{PURPOSE},2026-01-01T00:00:00Z," for person in persons]
        (file.parent / "consent.csv").write_text("\n".join(["person,purpose,given_at,withdrawn_at", *given]) + "\n")
    with simulate(home, noise=no_noise) as simulation:
        yield simulation


def test_a_report_says_what_was_cut_and_by_which_definition(of_many: Simulation) -> None:
    report = of_many.federation.query(QUESTION, purpose=PURPOSE, epsilon=2)
    assert report.cut is not None
    assert report.cut.values is not None
    assert (report.cut.rows.value, report.cut.values.value) == (0.2, 0.1)
    rows, values, definition = report.notes()
    assert rows == "20 % (19 to 21) of persons had rows left out; how many rows is not known"
    assert values == "10 % (9 to 11) of persons had a value clamped to its bounds; by how much is not known"
    assert definition == (
        "by definition: at most 1 row of each person; sex one of 3 (female, male, unknown); age 30 to 90; delta 1e-06"
    )
    table = " ".join(render(report, "table").split())
    assert all(note in table for note in report.notes())
    lines = render(report, "csv").splitlines()
    assert lines[:3] == [f"# {note}" for note in report.notes()]
    assert [one["sex"] for one in csv.DictReader(lines[3:])] == ["female"]
    told = json.loads(render(report, "json"))
    assert told["cut"]["rows"] == {"value": 0.2, "low": report.cut.rows.low, "high": report.cut.rows.high}
    assert told["cut"]["in_words"] == [rows, values]
    assert told["definition"] == {
        "max_rows": 1,
        "max_silos": 1,
        "delta": 1e-6,
        "columns": {
            "sex": {"type": "string", "domain": ["female", "male", "unknown"]},
            "age": {"type": "int", "bounds": [30, 90], "step": 1, "can_be_missing": False},
        },
    }
    frame = report.to_pandas()
    assert frame.attrs["notes"] == report.notes()
    assert frame.attrs["cut"] == told["cut"]
    assert frame.attrs["definition"] == told["definition"]


def test_nothing_is_said_of_values_where_none_entered_nor_of_anything_that_was_not_asked(of_many: Simulation) -> None:
    counted = of_many.federation.query("SELECT COUNT(*) AS n FROM lung WHERE age < 70", purpose=PURPOSE, epsilon=1)
    assert counted.cut is not None
    assert counted.cut.rows.value == pytest.approx(150 / 900), "persons are counted after the filter"
    assert counted.cut.values is None
    silent = of_many.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, counts_cut=False)
    assert silent.cut is None
    assert json.loads(silent.to_json())["cut"] is None
    (note,) = silent.notes()
    assert note.startswith("by definition: at most 1 row")


def test_a_cell_that_begins_like_a_comment_is_quoted_in_csv(of_many: Simulation) -> None:
    question = 'SELECT sex AS "#sex", COUNT(*) AS n FROM lung GROUP BY sex'
    report = of_many.federation.query(question, purpose=PURPOSE, epsilon=1)
    _, _, head, row, *_ = render(report, "csv").splitlines()
    assert head.startswith('"#sex",')
    assert row.startswith('"female",')


@pytest.mark.parametrize("key", ["cut", "definition"])
def test_an_answer_whose_notes_were_changed_does_not_verify(of_many: Simulation, key: str) -> None:
    answer = json.loads(of_many.federation.query(QUESTION, purpose=PURPOSE, epsilon=1).to_json())
    assert list(verify(of_many.federation, bytes.fromhex(answer["transcript"]), answer))
    if key == "cut":
        answer["cut"]["rows"]["value"] = 0.0
    else:
        answer["definition"]["max_rows"] = 2
    with pytest.raises(AnalystError, match=r"the definition in|rows left out"):
        list(verify(of_many.federation, bytes.fromhex(answer["transcript"]), answer))


def test_a_report_says_by_which_norm_rows_were_left_out(of_many: Simulation, tmp_path: Path) -> None:
    """A fifth of the persons has two rows: both enter where they are in two groups, one where they are in one."""
    home = Path(shutil.copytree(of_many.path, tmp_path / "federation"))
    for file in home.glob("silos/*/policy.toml"):
        lines = [
            "max_rows = 9\nmax_norm = 1" if line.startswith("max_rows") else line
            for line in file.read_text().splitlines()
        ]
        file.write_text("\n".join(lines) + "\n")
    with simulate(home, noise=no_noise) as simulation:
        _, request = simulation.federation.prepare(QUESTION, purpose=PURPOSE, epsilon=2)
        assert (request.table.max_rows, request.table.max_norm) == (9, 1)
        assert {one.sensitivity for one in list(request.plan.statistics(request.table).values())[:1]} == {1}
        report = simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=2)
        assert report.cut is not None
        assert report.cut.rows.value == 0.2
        assert report.to_pandas()["n"].tolist() == [1000 * len(simulation.silos)]
        told = json.loads(report.to_json())
        assert told["definition"]["max_norm"] == 1
        norm = ", of an L2 norm of at most 1 over the groups"
        assert report.notes()[-1].startswith(f"by definition: at most 9 rows of each person{norm}; sex one of 3")
        assert (
            report.assumptions[0] == f"one patient has at most 9 rows in an answer{norm} and is known to at most 1 silo"
        )
        assert list(verify(simulation.federation, bytes.fromhex(told["transcript"]), told))
        told["definition"]["max_norm"] = 2
        with pytest.raises(AnalystError, match="the definition in"):
            list(verify(simulation.federation, bytes.fromhex(told["transcript"]), told))
