"""`consilo report verify`: an answer holds only if every figure and every group is what the silos' signatures give."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import StoreError
from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError
from analyst.reports.render import render
from analyst.reports.report import Report
from analyst.verify import read_answer, verify
from crypto.errors import CryptoError, SignatureError
from crypto.keys import Secret, SigningKey
from crypto.rounds.report import StoredReport
from federation.errors import FederationError
from tests.harness.inside import exchange_keys, forget_offer
from tests.harness.simulator import Simulation, no_noise, simulate

GROUPED = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"
BANDS = "SELECT age // 10 AS decade, sex, COUNT(*) AS n, AVG(survival) AS days FROM lung GROUP BY decade, sex"
WHOLE = "SELECT COUNT(*) AS n, SUM(age) AS years FROM lung"
Answer = dict[str, Any]


def ask(simulation: Simulation, question: str = GROUPED) -> Report:
    return simulation.federation.query(question, purpose=PURPOSE, epsilon=1)


def written(path: Path, report: Report, change: Callable[[Answer], object] = lambda answer: None) -> str:
    answer = json.loads(report.to_json())
    change(answer)
    file = path / "answer.json"
    file.write_text(json.dumps(answer))
    return str(file)


def check(simulation: Simulation, what: str) -> list[str]:
    return list(verify(simulation.federation, *read_answer(what)))


@pytest.mark.parametrize("question", [GROUPED, WHOLE, BANDS])
def test_the_right_answer_holds(shared: Simulation, tmp_path: Path, question: str) -> None:
    report = ask(shared, question)
    lines = check(shared, written(tmp_path, report))
    assert len(lines) == 7
    assert "added once more, completely" in lines[4]
    assert check(shared, report.transcript) == lines[:6], "a transcript alone names no figures"
    spent = shared.spent("aspen")
    check(shared, report.transcript)
    assert shared.spent("aspen") == spent


def test_an_answer_says_when_each_silo_read_who_consents(home: Path, tmp_path: Path) -> None:
    clock = 1_793_000_000.5
    shown = "2026-10-26T07:33:20Z"
    with simulate(home, noise=no_noise, clock=lambda: clock) as simulation:
        report = ask(simulation)
        assert {one.consent_as_of for one in report.silos.values()} == {1_793_000_000}
        assert f"consent as of {shown}\n" in render(report, "table")
        assert f"they read who consents at {shown}" in check(simulation, report.transcript)

        def later(answer: Answer) -> None:
            answer["silos"]["birch"]["consent_as_of"] = "2026-10-26T07:33:21Z"

        def nowhere(answer: Answer) -> None:
            del answer["silos"]["birch"]["consent_as_of"]

        for change in (later, nowhere):
            with pytest.raises(AnalystError, match="the times at which consent was read"):
                check(simulation, written(tmp_path, report, change))


def raise_figure(part: str) -> Callable[[Answer], object]:
    def change(answer: Answer) -> None:
        answer["rows"][1]["n"][part] += 1e-3

    return change


def double_row(answer: Answer) -> None:
    answer["rows"].append(answer["rows"][0])


def double_wrong_row(answer: Answer) -> None:
    wrong = json.loads(json.dumps(answer["rows"][0]))
    wrong["n"]["value"] += 1000
    answer["rows"].insert(0, wrong)  # the right one follows it


def withhold_row(answer: Answer) -> None:
    answer["withheld_groups"].append({"sex": answer["rows"].pop(0)["sex"]})


def show_withheld(answer: Answer) -> None:
    answer["rows"].append({**answer["rows"][0], **answer["withheld_groups"].pop()})


def swap_groups(answer: Answer) -> None:
    first, second = answer["rows"]
    first["sex"], second["sex"] = second["sex"], first["sex"]


CHANGES: dict[str, Callable[[Answer], object]] = {
    "a figure": raise_figure("value"),
    "a figure beside": lambda answer: answer["rows"][0].update(
        deaths={"value": 1.0, "low": 0.0, "high": 2.0, "sd": 1.0}
    ),
    "a word in a figure": lambda answer: answer["rows"][0]["n"].update(unit="thousand"),
    "the price": lambda answer: answer.update(rho=answer["rho"] / 10),
    "the epsilon": lambda answer: answer.update(epsilon=answer["epsilon"] / 2),
    "the epsilon as text": lambda answer: answer.update(epsilon="1"),
    "the delta": lambda answer: answer.update(delta=answer["delta"] / 10),
    "no delta": lambda answer: answer.pop("delta"),
    "an assumption left out": lambda answer: answer["assumptions"].pop(),
    "another assumption": lambda answer: answer["assumptions"].append("nobody lies"),
    "another part": lambda answer: answer.update(sql="SELECT 1"),
    "curves of no curve": lambda answer: answer.update(curves={"median": 1}),
    "a column twice": lambda answer: answer["columns"].append(answer["columns"][0]),
    "more of the threshold": lambda answer: answer["threshold"].update(extra=1),
    "another request": lambda answer: answer.update(request="ab" * 32),
    "what a silo did": lambda answer: answer["silos"]["aspen"].update(status="denied"),
    "the policy of a silo": lambda answer: answer["silos"]["aspen"].update(policy_hash="ab" * 32),
    "a silo that was not there": lambda answer: answer["silos"].update(
        ghost={"status": "answered", "policy_hash": "00"}
    ),
    "a fault": lambda answer: answer.update(wrong={"aspen": "lied"}),
    "notes that are a number": lambda answer: answer.update(told=5),
    "assumptions that are a number": lambda answer: answer.update(assumptions=5),
    "no question of a union": lambda answer: answer.update(branches=[]),
    "a note": lambda answer: answer.update(told=["n is the number of deaths"]),
    "the low end": raise_figure("low"),
    "the high end": raise_figure("high"),
    "the deviation": raise_figure("sd"),
    "another aggregate": lambda answer: answer["rows"][0]["mean_age"].update(value=50.0),
    "no figure": lambda answer: answer["rows"][0]["n"].update(value=None),
    "a figure that is text": lambda answer: answer["rows"][0]["n"].update(value="137"),
    "an aggregate left out": lambda answer: answer["rows"][0].pop("n"),
    "a row removed": lambda answer: answer["rows"].pop(),
    "a row doubled": double_row,
    "a wrong row before the right one": double_wrong_row,
    "a group moved to withheld": withhold_row,
    "a withheld group shown": show_withheld,
    "a withheld group left out": lambda answer: answer["withheld_groups"].clear(),
    "a withheld group doubled": lambda answer: answer["withheld_groups"].append(answer["withheld_groups"][0]),
    "two groups swapped": swap_groups,
    "an unknown group": lambda answer: answer["rows"][0].update(sex="other"),
    "another minimum cohort": lambda answer: answer["threshold"].update(min_cohort=24, noisy_count=24.0),
    "another threshold": lambda answer: answer["threshold"].update(noisy_count=25.5),
    "surer than it was": lambda answer: answer["threshold"].update(sure=True),
    "a threshold that is text": lambda answer: answer["threshold"].update(noisy_count="25"),
    "a minimum cohort that no float can be": lambda answer: answer["threshold"].update(min_cohort=10**400),
    "no threshold": lambda answer: answer.pop("threshold"),
    "no dimensions": lambda answer: answer.update(dimensions={}),
    "dimensions left out": lambda answer: answer.pop("dimensions"),
    "rows that are no rows": lambda answer: answer.update(rows=[1, 2]),
    "columns of another question": lambda answer: answer.update(columns=["sex", "other"]),
}


@pytest.fixture(scope="module")
def answer(_running: Simulation) -> Report:
    return ask(_running)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_answer_does_not_hold(shared: Simulation, answer: Report, tmp_path: Path, name: str) -> None:
    with pytest.raises(AnalystError) as caught:
        check(shared, written(tmp_path, answer, CHANGES[name]))
    assert caught.value.hint


SEVERAL: dict[str, Callable[[Answer], object]] = {
    "columns of all": lambda answer: answer.update(columns=["n"]),
    "notes of all": lambda answer: answer.update(told=["all is well"]),
    "a price of its own": lambda answer: answer["tables"][0].update(epsilon=3),
    "no table": lambda answer: answer.update(tables=[]),
    "tables that are none": lambda answer: answer.update(tables=[[], []]),
    "the union's threshold": lambda answer: answer["tables"][1]["threshold"].update(min_cohort=99),
    "a question less": lambda answer: answer["tables"][1]["branches"].pop(),
    "none of its questions": lambda answer: answer["tables"][1].update(branches=[]),
}


def test_a_changed_answer_of_several_tables_does_not_hold(shared: Simulation, tmp_path: Path) -> None:
    both = "SELECT sex, COUNT(*) AS n FROM lung GROUP BY sex UNION ALL SELECT 'all', COUNT(*) FROM lung"
    report = shared.federation.query(f"SELECT COUNT(*) AS n FROM lung; {both}", purpose=PURPOSE, epsilon=1)
    check(shared, written(tmp_path, report))
    for change in SEVERAL.values():
        with pytest.raises(AnalystError):
            check(shared, written(tmp_path, report, change))


def test_names_that_nobody_signed_are_told(shared: Simulation, answer: Report, tmp_path: Path) -> None:
    def renamed(answer: Answer) -> None:
        for row in (*answer["rows"], *answer["withheld_groups"]):
            row["gender"] = row.pop("sex")
        answer["dimensions"]["gender"] = answer["dimensions"].pop("sex")
        answer["columns"] = ["gender" if name == "sex" else name for name in answer["columns"]]

    lines = check(shared, written(tmp_path, answer, renamed))
    assert any(line.endswith("nobody signed: gender is sex") for line in lines)


def test_groups_withheld_are_held_against_the_policies_of_the_round_only(exact: Simulation, tmp_path: Path) -> None:
    report = ask(exact)
    assert report.withheld_groups
    aspen = exact.silos["aspen"]
    aspen.policy.write_text(aspen.policy.read_text() + "\n# changed\n")
    aspen.restarts = True
    aspen.kill()
    forget_offer(exact.federation)
    lines = check(exact, written(tmp_path, report))
    assert lines[-1].startswith("its minimum cohort, delta and assumptions cannot be checked")
    with pytest.raises(AnalystError, match="what was opened"):
        check(exact, written(tmp_path, report, raise_figure("value")))


def test_an_answer_under_the_transcript_of_another_does_not_hold(shared: Simulation, tmp_path: Path) -> None:
    one, other, whole = ask(shared), ask(shared, WHOLE), ask(shared, WHOLE)
    for report, transcript in ((one, other.transcript), (whole, one.transcript)):
        with pytest.raises(AnalystError):
            check(shared, written(tmp_path, report, lambda answer, name=transcript: answer.update(transcript=name)))  # type: ignore[misc]
    with pytest.raises(FederationError, match="no report"):
        check(shared, "0" * 64)


@pytest.mark.parametrize(
    "text", ["", "n\n137\n", "[1]", "{}", "7", "null", '{"transcript": "00", "rows": []}', "[" * 100_000]
)
def test_a_file_that_is_no_answer_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "answer.csv"
    file.write_text(text)
    with pytest.raises(AnalystError, match="is not an answer in JSON"):
        read_answer(str(file))
    with pytest.raises(AnalystError, match="cannot be read"):
        read_answer(str(tmp_path / "absent.json"))
    with pytest.raises(AnalystError):
        read_answer("0" * 63)


def test_rows_that_are_no_list_are_no_answer(tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    file.write_text(json.dumps({"transcript": "0" * 64, "rows": {}}))
    with pytest.raises(AnalystError, match="is not an answer"):
        read_answer(str(file))


def test_an_answer_of_another_federation_does_not_hold(
    founded: Path, home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analyst.demo.hospitals import found_hospitals

    elsewhere = tmp_path_factory.mktemp("elsewhere") / "federation"
    found_hospitals(elsewhere)
    with simulate(home) as here, simulate(elsewhere) as there:
        report = ask(there)
        with pytest.raises(FederationError, match="no report"):
            check(here, report.transcript)
        # Even from the other's store: other keys signed it.
        monkeypatch.setattr(here, "report", there.report)
        with pytest.raises(SignatureError):
            check(here, report.transcript)


def test_a_report_for_somebody_else_is_not_verified_as_ones_own(exact: Simulation) -> None:
    report = ask(exact)
    exchange_keys(exact.federation, signing=SigningKey(Secret(bytes(32))))
    with pytest.raises(CryptoError):
        check(exact, report.transcript)
    exact.federation.analyst = "eve"
    with pytest.raises(SignatureError, match="not expected"):
        check(exact, report.transcript)


def test_a_report_whose_evidence_is_gone_is_not_verified(exact: Simulation) -> None:
    report = ask(exact)
    for file in (exact.path / "aggregator" / "contributions").iterdir():
        file.unlink()
    with pytest.raises(StoreError, match="not kept here"):
        check(exact, report.transcript)


def test_a_report_that_was_changed_on_the_aggregators_disk_is_another_one(exact: Simulation) -> None:
    report = ask(exact)
    file = exact.path / "aggregator" / "reports" / f"{report.transcript}.report"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert StoredReport.decode(bytes(data)).name.hex() == report.transcript, "the sum is bound by its digests"
    with pytest.raises(CryptoError, match="not the one that the report names"):
        check(exact, report.transcript)


def test_an_answer_with_a_name_twice_is_no_answer(tmp_path: Path, answer: Report) -> None:
    path = Path(written(tmp_path, answer))
    text = path.read_text()
    path.write_text(text.replace('"value": ', '"value": 1e6, "value": ', 1))
    with pytest.raises(AnalystError, match="is not an answer in JSON"):
        read_answer(str(path))
