"""A price by what it must do: a share of what is left, or the least that meets an error."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analyst.asking import Command
from analyst.cli.main import command_line
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, SqlError
from analyst.preview import preview
from analyst.pricing import Wanted, read_share, read_wanted
from analyst.reports.estimates import Estimate
from analyst.requests import keep_request
from federation.errors import CommandLineError
from policies.requests.standing import LIFETIME
from policies.units import MICRO
from tests.harness.simulator import Simulation, simulate
from tests.rounds.test_rounds import rewrite_policies

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS a FROM lung GROUP BY sex"
RATIO = "SELECT sex, COUNT(*) AS n, SUM(age) / COUNT(*) AS mean FROM lung GROUP BY sex"


@pytest.fixture(scope="module")
def own(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("pricing") / "federation"))
    with simulate(path) as simulation:
        yield simulation


def rho(simulation: Simulation, sql: str = QUESTION, **price: Any) -> float:
    """Return the price of a question, which is not asked."""
    _, request = simulation.federation.planned(command(sql, **price))
    return request.micro_rho / MICRO


def command(sql: str = QUESTION, **price: Any) -> Command:
    return Command(sql, PURPOSE, **({"epsilon": None} | price))


def wanted(*texts: str) -> tuple[Wanted, ...]:
    return tuple(map(read_wanted, texts))


def left(simulation: Simulation) -> list[float]:
    found = simulation.federation.standing().values()
    return [next(one.everybody for one in of.left if one.window == LIFETIME) / MICRO for of in found]


def test_a_share_is_of_what_is_left_where_least_is_left(own: Simulation) -> None:
    before = min(left(own))
    assert rho(own, share=0.05) == pytest.approx(0.05 * before, abs=2 / MICRO)
    report = own.federation.query(QUESTION, purpose=PURPOSE, share=0.05)
    assert report.rho == pytest.approx(0.05 * before, abs=2 / MICRO)
    assert rho(own, share=0.05) == pytest.approx(0.05 * 0.95 * before, abs=2 / MICRO)


def test_a_share_of_an_analysts_own_limit(founded: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(founded, tmp_path / "federation"))
    limit = f'[[budget.limits]]\npurpose = "{PURPOSE}"\nwindow = "calendar-month"\nrho = 0.5\nper_analyst_rho = 0.1\n'
    policy = path / "silos/cedar/policy.toml"
    policy.write_text(policy.read_text().replace("\n[budget]", f"\n{limit}\n[budget]"))
    with simulate(path) as simulation:
        assert rho(simulation, share=0.25) == pytest.approx(0.025)


def test_a_share_that_a_policy_does_not_allow_is_refused_with_one_that_works(own: Simulation) -> None:
    for share, said in ((1.0, "one request may cost"), (1e-6, "a request costs rho 2e-05 or more")):
        with pytest.raises(AnalystError, match=said) as caught:
            rho(own, share=share)
        remedy = caught.value.hint.rpartition("--share ")[2]
        assert not preview(own.federation, command(share=read_share(remedy))).refusals


@pytest.mark.parametrize("half", [25.0, 40.0, 300.0])
def test_an_error_of_counts_is_met_and_hardly_more(own: Simulation, half: float) -> None:
    found = preview(own.federation, command(wanted=wanted(f"{half}")))
    width = found.widths["n"][100_000]
    assert width is not None
    assert 0.999 * half <= width <= half
    assert not found.refusals


@pytest.mark.parametrize(("sql", "name", "half"), [(QUESTION, "a", 1.5), (RATIO, "mean", 2.0), (RATIO, "n", 60.0)])
def test_an_error_of_a_named_figure_is_met_in_groups_of_a_thousand_rows(
    own: Simulation, sql: str, name: str, half: float
) -> None:
    found = preview(own.federation, command(sql, wanted=wanted(f"{name}={half}")))
    widths = [found.widths[name][size] for size in (1_000, 10_000, 100_000)]
    widest = max(width for width in widths if width is not None)
    assert None not in widths
    assert 0.99 * half <= widest <= half * 1.0001


def test_the_answer_keeps_the_error(own: Simulation) -> None:
    report = own.federation.query(QUESTION, purpose=PURPOSE, error=30)
    for row in report.rows:
        cell = row["n"]
        assert isinstance(cell, Estimate)
        assert cell.sd is not None
        assert 29 < 1.96 * cell.sd <= 30.01


def test_errors_of_several_figures_and_statements_hold_at_once(own: Simulation) -> None:
    sql = f"{QUESTION}; SELECT COUNT(*) AS everybody FROM lung"
    found = preview(own.federation, command(sql, wanted=wanted("40", "a=4"), weights=(3, 1)))
    halves = [of.widths[name][size] for of, name, size in (
        (found.statements[0], "n", 100_000), (found.statements[1], "everybody", 100_000),
        (found.statements[0], "a", 1_000),
    )]  # fmt: skip
    assert all(half is not None and half <= most * 1.0001 for half, most in zip(halves, (40, 40, 4), strict=True))
    assert any(half is not None and half >= 0.99 * most for half, most in zip(halves, (40, 40, 4), strict=True))


def test_an_error_that_costs_too_much_is_refused_with_the_least_that_works(own: Simulation) -> None:
    for texts in (("5",), ("a=0.01",), ("5", "a=0.2")):
        with pytest.raises(AnalystError, match=r"costs more than the rho 0\.1 that one request may cost") as caught:
            rho(own, wanted=wanted(*texts))
        again = [one.partition(",")[0] for one in caught.value.hint.split("--error ")[1:]]
        assert not preview(own.federation, command(wanted=wanted(*again))).refusals


def test_what_is_left_bounds_what_an_error_may_cost(founded: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(founded, tmp_path / "federation"))
    limit = f'[[budget.limits]]\npurpose = "{PURPOSE}"\nwindow = "calendar-month"\nrho = 0.5\nper_analyst_rho = 0.01\n'
    rewrite_policies(path, "\n[budget]", f"\n{limit}\n[budget]")
    with simulate(path) as simulation:
        with pytest.raises(AnalystError, match=r"costs more than the rho 0\.01 that is left to you at"):
            rho(simulation, wanted=wanted("20"))
        simulation.federation.query(QUESTION, purpose=PURPOSE, share=1.0)
        with pytest.raises(AnalystError, match="is left to you at"):
            rho(simulation, wanted=wanted("200"))
        with pytest.raises(AnalystError, match="a request costs rho 2e-05 or more"):
            rho(simulation, share=1.0)


def test_a_loose_error_costs_the_least_that_policies_let_a_request_cost(own: Simulation) -> None:
    assert rho(own, wanted=wanted("1000000")) == pytest.approx(2e-5, rel=0.1)
    assert not preview(own.federation, command(wanted=wanted("1000000"))).refusals
    two = f"{QUESTION}; {QUESTION} HAVING COUNT(*) > 3; SELECT COUNT(*) FROM lung"
    assert not preview(own.federation, command(two, wanted=wanted("1000000"))).refusals


@pytest.mark.parametrize(
    ("sql", "text", "said", "hint"),
    [
        (QUESTION, "m=5", "no figure of the answer is called 'm'", "figures: n, a"),
        (RATIO, "m=5", "no figure of the answer is called 'm'", "figures: n, mean"),
        ("SELECT AVG(age) AS a FROM lung", "5", "the answer shows no count", "name a figure, such as --error a=5"),
        ("SELECT COUNT(*) FILTER (WHERE died) AS d FROM lung", "5", "the answer shows no count", "--error d=5"),
    ],
)
def test_a_figure_that_is_not_there_is_named(own: Simulation, sql: str, text: str, said: str, hint: str) -> None:
    with pytest.raises(AnalystError, match=said) as caught:
        rho(own, sql, wanted=wanted(text))
    assert hint in caught.value.hint


def test_a_price_is_said_once(own: Simulation) -> None:
    with pytest.raises(AnalystError, match="a price is an epsilon, a share or errors"):
        own.federation.query(QUESTION, purpose=PURPOSE, epsilon=1, share=0.1)
    with pytest.raises(AnalystError, match="a price is"):
        own.federation.query(QUESTION, purpose=PURPOSE)
    for error in (0, -1, float("nan")):
        with pytest.raises(AnalystError, match="cannot be asked"):
            own.federation.query(QUESTION, purpose=PURPOSE, error=error)
    with pytest.raises(AnalystError, match="cannot be asked"):
        own.federation.query(QUESTION, purpose=PURPOSE, share=1.5)
    with pytest.raises(AnalystError, match="unknown purpose"):
        own.federation.query(QUESTION, purpose="none", share=0.1)
    with pytest.raises(SqlError, match="broken SQL"):
        own.federation.query("SELECT (", purpose=PURPOSE, share=0.1)


def test_the_command_reads_what_people_write() -> None:
    asked = ["query", QUESTION, "--purpose", PURPOSE]
    read = command_line().parse_args([*asked, "--error", "50", "--error", "a=0.5", "--weights", "2,1"])
    assert read.error == [Wanted(50), Wanted(0.5, "a")]
    assert read.weights == (2, 1)
    for text in ("10%", "0.1", "1e1%"):
        assert command_line().parse_args([*asked, "--share", text]).share == pytest.approx(0.1)
    for wrong in (
        ("--share", "0"),
        ("--share", "110%"),
        ("--share", "x"),
        ("--error", "0"),
        ("--error", "n="),
        ("--error", "inf"),
        ("--epsilon", "1", "--share", "10%"),
        ("--epsilon", "1", "--weights", "0,1"),
        ("--epsilon", "1", "--weights", "1,,1"),
        (),
    ):
        with pytest.raises(CommandLineError):
            command_line().parse_args([*asked, *wrong])


def test_a_request_that_people_approve_keeps_its_price(own: Simulation, tmp_path: Path) -> None:
    keep = tmp_path / "request"
    first = own.federation.planned(command(share=0.01))[1]
    kept = keep_request(keep, first, own.federation.now(), is_priced=False)
    own.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.3, new=True)
    later = own.federation.planned(command(share=0.01))[1]
    assert later.micro_rho < first.micro_rho
    assert keep_request(keep, later, own.federation.now(), is_priced=False) == kept
    with pytest.raises(AnalystError, match="another question"):
        keep_request(keep, later, own.federation.now())
