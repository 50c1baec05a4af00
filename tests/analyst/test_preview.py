"""Before a question: its price and its refusals as the silos will have them, its widths as the answer has them."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from rich.status import Status

import analyst.cli.main
import analyst.cli.planning
from analyst.asking import Command
from analyst.cli.main import main
from analyst.client import Federation
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, DeniedError
from analyst.preview import Preview, preview, preview_lines
from analyst.reports.estimates import Estimate
from crypto.errors import CryptoError
from crypto.keys import Secret, SigningKey
from crypto.rounds.messages import Failed
from crypto.wire import sign, verify
from policies.requests.catalogue import Catalogue, CatalogueRequest
from policies.requests.standing import LIFETIME
from policies.units import MICRO
from tests.harness.inside import key_of
from tests.harness.simulator import Simulation, simulate
from tests.rounds.test_rounds import rewrite_policies

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS a FROM lung GROUP BY sex"


@pytest.fixture(scope="module")
def own(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    path = Path(shutil.copytree(founded, tmp_path_factory.mktemp("preview") / "federation"))
    with simulate(path) as simulation:
        yield simulation


def foreseen(simulation: Simulation, sql: str = QUESTION, epsilon: float = 0.5) -> Preview:
    return preview(simulation.federation, Command(sql, PURPOSE, epsilon))


def left(simulation: Simulation) -> dict[str, int]:
    found = simulation.federation.standing()
    return {silo: next(one.everybody for one in of.left if one.window == LIFETIME) for silo, of in found.items()}


def test_a_preview_touches_no_budget_and_its_price_is_what_is_charged(own: Simulation) -> None:
    before = left(own)
    found = foreseen(own)
    assert left(own) == before
    assert not found.refusals
    own.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
    charged = {silo: before[silo] - after for silo, after in left(own).items()}
    assert charged == {silo: round(one.rho * MICRO) for silo, one in found.silos.items()}
    assert {one.rho for one in found.silos.values()} == {found.rho * 1.0}


def test_widths_are_those_of_the_answer(own: Simulation) -> None:
    found = foreseen(own, "SELECT COUNT(*) AS n, SUM(age) / COUNT(*) AS mean FROM lung")
    report = own.federation.query(
        "SELECT COUNT(*) AS n, SUM(age) / COUNT(*) AS mean FROM lung", purpose=PURPOSE, epsilon=0.5
    )
    cell, width = report.rows[0]["n"], found.widths["n"][10_000]
    assert isinstance(cell, Estimate)
    assert cell.high is not None
    assert cell.value is not None
    assert width == pytest.approx(cell.high - cell.value, rel=0.01)
    widths = [one for one in found.widths["mean"].values() if one is not None]
    assert len(widths) >= 2
    assert widths == sorted(widths, reverse=True)


def test_who_would_refuse_and_why_is_said_before(own: Simulation) -> None:
    found = foreseen(own, epsilon=20)
    assert set(found.refusals) == set(found.silos)
    assert {denial.code for one in found.refusals.values() for denial in one} >= {"RHO_PER_REQUEST"}
    with pytest.raises(DeniedError) as caught:
        own.federation.query(QUESTION, purpose=PURPOSE, epsilon=20)
    said = {silo: [one.code for one in denials] for silo, denials in caught.value.denials.items()}
    assert said == {silo: [one.code for one in denials] for silo, denials in found.refusals.items()}
    assert any("would refuse: RHO_PER_REQUEST" in line for line in preview_lines(found))


def test_approvals_that_are_needed_are_named(founded: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(founded, tmp_path / "federation"))
    policy, key = path / "silos/aspen/policy.toml", SigningKey(Secret.generate()).public
    rule = '[[approvals]]\nwhen = { kind = "query" }\nneed = 1\nof = ["dpo"]\nexpires_hours = 24\n'
    policy.write_text(f'{policy.read_text()}\n[people.dpo]\nkey = "{key}"\n\n{rule}')
    with simulate(path) as simulation:
        found = foreseen(simulation)
        assert [one.code for one in found.refusals["aspen"]] == ["APPROVAL_AWAITED"]
        assert "1 of dpo must approve it" in found.refusals["aspen"][0].message


def test_a_silo_that_is_away_is_named(founded: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(founded, tmp_path / "federation"))
    with simulate(path) as simulation:
        simulation.silos["maple"].is_cut_off = True
        found = foreseen(simulation)
    assert found.absent == {"maple": "it does not answer"}


def test_the_budget_of_an_analyst_counts_down(founded: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(founded, tmp_path / "federation"))
    limit = f'[[budget.limits]]\npurpose = "{PURPOSE}"\nwindow = "calendar-month"\nrho = 0.5\nper_analyst_rho = 0.1\n'
    rewrite_policies(path, "\n[budget]", f"\n{limit}\n[budget]")
    with simulate(path) as simulation:
        before = simulation.federation.standing()["aspen"].left
        report = simulation.federation.query(QUESTION, purpose=PURPOSE, epsilon=0.5)
        after = simulation.federation.standing()["aspen"].left
    assert [one.window for one in after] == [LIFETIME, "calendar-month"]
    for old, new in zip(before, after, strict=True):
        assert old.everybody - new.everybody == round(report.rho * MICRO)
    assert before[1].analyst == 100_000
    assert after[1].analyst == 100_000 - round(report.rho * MICRO)


def test_what_is_no_request_of_the_analyst_is_refused(own: Simulation) -> None:
    federation = own.federation
    _, request = federation.prepare(QUESTION, purpose=PURPOSE, epsilon=0.5)
    key = key_of(federation)
    for body in (
        b"{}",
        b"\xff" * 100,
        request.model_copy(update={"analyst": "bob"}).encode(),
        request.model_copy(update={"federation": "other"}).encode(),
        request.model_copy(update={"silos": ("birch", "cedar", "maple")}).encode(),
    ):
        asked = CatalogueRequest(
            federation=federation.config.federation,
            analyst=federation.analyst,
            nonce=bytes(16),
            created_at=federation.now(),
            standing=True,
            request=body,
        )
        (answer,) = own.silos["aspen"].actor.catalogue(sign(asked, federation.analyst, key))
        keys = federation.config.roster.silo_keys
        with pytest.raises(CryptoError):
            verify(answer, Catalogue, keys)
        assert verify(answer, Failed, keys).message.reason
    assert federation.standing(request)["aspen"].micro_rho == request.micro_rho


def test_a_question_that_cannot_be_asked_has_no_preview(own: Simulation) -> None:
    for sql in ("SELECT MODE(age) AS m FROM lung", "SELECT COUNT(*) + random() AS x FROM lung", "SELECT"):
        with pytest.raises(AnalystError):
            foreseen(own, sql)


def test_the_commands_tell_it(
    own: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def opened(_: object, notes: Console) -> Iterator[tuple[Federation, Status]]:
        yield own.federation, notes.status("")

    for module in (analyst.cli.main, analyst.cli.planning):
        monkeypatch.setattr(module, "federation_opened", opened)

    def said(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    asked = ("query", QUESTION, "--purpose", PURPOSE, "--epsilon", "0.5", "--preview")
    shown = said(*asked)
    assert "nobody would refuse it now" in shown
    assert "nothing was asked, nothing is paid" in shown
    found = json.loads(said(*asked, "--format", "json"))
    assert found["groups"] == 3
    assert set(found["silos"]["aspen"]) == {"rho", "epsilon", "seconds", "denials", "left", "sends_s"}
    assert "of 1 is left" in said("budget")
    assert json.loads(said("budget", "--format", "json"))["aspen"][0]["window"] == LIFETIME
    shown = said("explain", "SELECT COUNT(*) * 2 AS n FROM lung", "--no-cut")
    assert "each silo computes: COUNT(*) of lung" in shown
    assert "computed after the answer, at no price: SELECT f1 * 2 AS n FROM released" in shown
    found = json.loads(said("explain", QUESTION, "--format", "json"))
    assert [part["name"] for part in found["crosses"]] == ["rows", "total:age", "cut"]
