"""A model that is watched, across five silos in memory: what changes, what raises an alarm, and what it may cost."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

import analyst.cli.main
from analyst.cli.watching import ALARM, lines_of
from analyst.errors import AnalystError
from analyst.training.job import Job, read_job
from analyst.training.looking import check_left, first_look, keep, look_at, looks_in, price_of, run_of
from analyst.training.registry import Registry
from analyst.training.run import train
from analyst.training.told import show_training
from analyst.training.watch_record import Look
from crypto.noise import discrete_gaussian
from policies.errors import ModelError
from silo_node.training.shown import shown
from tests.cases import every
from tests.harness.states import states_of
from tests.rounds.test_exact_families import SILOS, banks
from tests.rounds.test_model_audits import COLUMNS, OPEN, RELEASED, applicants, job_of
from tests.rounds.test_noised_families import banks as private_banks
from tests.rounds.test_noised_families import job_of as noised_job

pytestmark = pytest.mark.slow
AUDIT = 'groups = ["white"]\nmeasure = "demographic-parity"\nmax_gap = 0.9\nrecipients = ["silos", "analyst"]\n'
WATCH = '[watch]\nevery = "7d"\nmax_drift = 0.1\nmetric = "auc"\nbound = 0.75\n'


def at_silos(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {silo: rows[place::5] for place, silo in enumerate(SILOS)}


def test_a_look_tells_drift_and_alarms_and_the_first_is_the_reference(tmp_path: Path) -> None:
    rows = applicants()[:1200]
    whole = banks(tmp_path / "f", job_of(AUDIT, WATCH), at_silos(rows), (*OPEN, "evaluation"), change=COLUMNS,
                  more=(RELEASED,))  # fmt: skip
    path = tmp_path / "looks.jsonl"
    with whole as (simulation, file):
        job, federation = read_job(file), simulation.federation
        training = train(federation, job)
        assert training.audited is not None
        first = first_look(training.audited, job, training.run, federation.now())
        assert first is not None
        assert not first.alarms
        keep(path, first)
        entry = run_of(federation, job, None)
        same = look_at(federation, entry, job, looks_in(path, entry.name))
        keep(path, same)
        assert not same.alarms
        assert {one.index for one in same.drift.values()} == {0.0}
        assert same.metric is not None
        assert same.metric.value is not None
        assert set(same.bins) == {"scores", "black", "ratio", "credit", "debt", "owner"}
        assert sum(same.bins["black"]) == len(rows)
        for silo, own in at_silos([row | {"debt": min(10.0, row["debt"] + 2.5)} for row in rows]).items():
            pyarrow.parquet.write_table(pa.Table.from_pylist(own), tmp_path / "f" / "silos" / silo / "loans.parquet")
        before = Registry(federation.config.path.parent).entry(entry.name)
        moved = look_at(federation, before, job, looks_in(path, entry.name))
        noted = Registry(federation.config.path.parent).entry(entry.name)
        gap = next(one for one in noted.audit if one.name.startswith("demographic-parity"))
        assert (gap.value, gap.low) == (moved.gaps["demographic-parity"].value, moved.gaps["demographic-parity"].low)
        assert moved.metric is not None
        assert [one.value for one in noted.metrics] == [moved.metric.value]
        keep(path, moved)
        assert moved.drift["debt"].index > 1 > moved.drift["debt"].floor
        assert moved.drift["black"].index == 0
        assert any(one.startswith("drift of debt") for one in moved.alarms)
        with pytest.raises(ModelError, match="no run of the name 'ffff'"):
            run_of(federation, job, "ffff")
        other = job.model_copy(update={"label": "grade"})
        with pytest.raises(AnalystError, match="no finished run"):
            run_of(federation, other, None)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(line["alarms"]) > 0 for line in lines] == [False, False, True]
    assert {line["run"] for line in lines} == {training.run}
    assert len(lines[0]["gaps"]["demographic-parity"]) == 3


def test_what_silos_do_not_release_is_a_look_that_failed(tmp_path: Path) -> None:
    rows = at_silos(applicants()[:600])
    whole = banks(tmp_path / "f", job_of(AUDIT, WATCH), rows, (*OPEN, "evaluation"), change=COLUMNS)
    with whole as (simulation, file):
        job, federation = read_job(file), simulation.federation
        train(federation, job.model_copy(update={"audit": None, "watch": None}))  # which would be refused beside it
        look = look_at(federation, run_of(federation, job, None), job, [])
    assert "refuse" in look.error
    assert look.alarms == (f"the look failed: {look.error}",)


class Priced:
    """A federation as far as prices go."""

    def offer_of(self, silos: Any) -> Any:
        class Offer:
            delta = 1e-6

        return Offer()


class Entry:
    """A run as far as prices go."""

    def first(self) -> Any:
        class Request:
            silos = ("east",)

        return Request()


def test_watching_ends_before_its_budget_does() -> None:
    text = {
        "schema": "consilo-job/1", "model": "logistic-regression", "table": "loans", "purpose": "lending",
        "label": "ok", "features": ("debt",), "epsilon": 1,
        "audit": {"groups": ("white",), "epsilon": 1, "recipients": ("silos", "analyst")},
        "watch": {"every": "1d", "epsilon": 2},
    }  # fmt: skip
    job = Job.model_validate(text)
    entry, federation = Entry(), Priced()
    before: list[Look] = []
    price = price_of(federation, entry, job)  # type: ignore[arg-type]
    for _ in range(3):  # rho grows with the square of epsilon, nearly
        check_left(federation, entry, job, before)  # type: ignore[arg-type]
        before.append(Look(run="a", at=0, rho=price, error="lost"))  # a failed look counts as paid
    with pytest.raises(AnalystError, match="3 looks cost"):
        check_left(federation, entry, job, before)  # type: ignore[arg-type]


@every(
    ("audit", "watch", "message"),
    [
        ('groups = ["white"]\n', WATCH, "recipients"),
        (AUDIT, '[watch]\nevery = "weekly"\n', "watch.every"),
        (AUDIT, '[watch]\nevery = "1d"\nmetric = "auc"\n', "go together"),
        (AUDIT, '[watch]\nevery = "1d"\nepsilon = 1\n', "watch.epsilon"),
        (AUDIT, '[watch]\nevery = "1d"\nmetric_epsilon = 1\n', "metric_epsilon"),
        (AUDIT, '[watch]\nevery = "1d"\nmetric = "precision"\nbound = 1\n', "watch.metric"),
    ],
)
def test_a_watch_that_cannot_be_is_refused_in_the_job(
    tmp_path_factory: pytest.TempPathFactory, audit: str, watch: str, message: str
) -> None:
    file = tmp_path_factory.mktemp("job") / "job.toml"
    file.write_text(job_of(audit, watch))
    with pytest.raises(AnalystError) as found:
        read_job(file)
    assert message in str(found.value)


def test_lines_of_another_file_are_no_looks(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"schema": "other"}\n')
    with pytest.raises(AnalystError, match="cannot be read"):
        looks_in(path, "a")
    assert looks_in(tmp_path / "none.jsonl", "a") == []


DRIFT = '[watch]\nevery = "7d"\nmax_drift = 0.1\n'


def with_debts(rows: list[dict[str, Any]], more: float) -> dict[str, list[dict[str, Any]]]:
    return at_silos([row | {"debt": min(10.0, row["debt"] + more)} for row in rows])


def write(path: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    for silo, own in rows.items():
        pyarrow.parquet.write_table(pa.Table.from_pylist(own), path / "silos" / silo / "loans.parquet")


def test_drift_is_told_without_groups_labels_and_at_every_silo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model that predicts a number, of which an audit by groups compares nothing."""
    rows = [row | {"paid": row["ratio"] / 10 + row["debt"]} for row in applicants()[:1000]]
    job_text = job_of("", DRIFT).replace("[audit]\n", "").replace("logistic-regression", "linear-regression")
    job_text = job_text.replace('label = "ok"', 'label = "paid"')
    path, opened = tmp_path / "looks.jsonl", ("linear-regression", "audit")
    whole = banks(tmp_path / "f", job_text, at_silos(rows), opened, change=COLUMNS, more=(RELEASED,))
    with whole as (simulation, file):
        job, federation = read_job(file), simulation.federation
        training = train(federation, job)
        assert training.audited is not None
        assert "scores and features counted" in show_training(training, job, {})
        first = first_look(training.audited, job, training.run, federation.now())
        assert first is not None
        assert (first.alarms, first.gaps, first.metric) == ((), {}, None)
        assert lines_of(first)[-1].endswith("later ones are compared with it")
        assert set(first.bins) == {"scores", "black", "ratio", "credit", "debt", "owner"}
        assert sum(first.bins["black"]) == len(rows)
        assert sum(first.bins["scores"]) > 0.9 * len(rows), "bins of fewer than min_cohort persons are not shown"
        keep(path, first)
        entry = run_of(federation, job, None)
        # Rows whose label is not known yet have a score.
        moved = [row | {"ratio": min(300.0, row["ratio"] + 20), "paid": None} for row in rows]
        write(tmp_path / "f", at_silos(moved))
        look = look_at(federation, entry, job, looks_in(path, entry.name))
        assert look.drift["ratio"].index > 0.1
        assert look.drift["black"].index == 0
        assert [one.partition(":")[0] for one in look.alarms if "ratio" in one] == ["drift of ratio"]
        assert sum(look.bins["black"]) == len(rows)

        @contextmanager
        def here(*_: Any) -> Iterator[Any]:
            yield federation, SimpleNamespace(update=lambda text: None)

        monkeypatch.setattr("analyst.cli.watching.federation_opened", here)
        words = ["watch", str(file), "--once", "--out", str(path), "--federation", str(tmp_path / "f" / "consilo.toml")]
        assert analyst.cli.main.main([*words, "--format", "json"]) == ALARM
        said = json.loads(capsys.readouterr().out)
        assert (said["schema"], said["run"], said["error"]) == ("consilo-watch/1", training.run, "")
        assert said["drift"]["ratio"] == {"index": look.drift["ratio"].index, "floor": look.drift["ratio"].floor}
        assert any(one.startswith("drift of ratio") for one in said["alarms"])
        assert path.read_text().splitlines()[-1] == json.dumps(said)
        write(tmp_path / "f", at_silos(rows))
        assert analyst.cli.main.main(words) == 0
        assert "drift of ratio 0.0000" in capsys.readouterr().out
        (state,) = [one for one in states_of(simulation.silos["east"]) if not one.is_audit]
        assert any("scores and features counted" in line for line in shown(state))
    assert json.loads(look.line())["drift"]["ratio"]["index"] == look.drift["ratio"].index


def test_too_few_persons_to_show_a_bin_are_a_look_that_failed(tmp_path: Path) -> None:
    rows = applicants()[:600]
    job_text = job_of("", DRIFT).replace("[audit]\n", "")
    with banks(tmp_path / "f", job_text, at_silos(rows), OPEN, change=COLUMNS, more=(RELEASED,)) as (simulation, file):
        job, federation = read_job(file), simulation.federation
        train(federation, job)
        write(tmp_path / "f", at_silos(rows[:8]))
        look = look_at(federation, run_of(federation, job, None), job, [])
    assert look.alarms == ("the look failed: too few persons to show a bin of scores or features",)


def test_a_watched_table_that_nobody_has_is_named(tmp_path: Path) -> None:
    job_text = job_of("", f'{DRIFT}table = "lones"\n').replace("[audit]\n", "")
    rows = at_silos(applicants()[:300])
    with banks(tmp_path / "f", job_text, rows, OPEN, change=COLUMNS, more=(RELEASED,)) as (simulation, file):
        job, federation = read_job(file), simulation.federation
        train(federation, job)
        look = look_at(federation, run_of(federation, job, None), job, [])
    assert "watch.table: unknown table 'lones'" in look.error


def test_a_private_look_has_noise_and_a_price_and_noise_alone_is_no_alarm(tmp_path: Path) -> None:
    watch = '[watch]\nevery = "7d"\nmax_drift = 0.2\ndrift_epsilon = 1\nepsilon = 3\n'
    job_text = noised_job("logistic-regression", "ok", f"epsilon = 2\n{watch}")
    opened = ("logistic-regression", "audit")
    change = 'release = ["model"]', 'release = ["model", "metrics"]'
    whole = private_banks(tmp_path / "f", job_text, discrete_gaussian, None, 8, change, opened)
    with whole as (simulation, file):
        job, federation = read_job(file), simulation.federation
        training = train(federation, job, sleep=lambda _: None)
        assert training.audited is not None
        assert training.audited.rho is not None
        first = first_look(training.audited, job, training.run, federation.now())
        assert first is not None
        assert first.variances[0] > 0 < first.variances[1]
        entry = run_of(federation, job, None)
        look = look_at(federation, entry, job, [first])
    assert look.error == ""
    assert look.rho == pytest.approx(training.audited.rho)
    assert look.alarms == (), look.drift
    assert {one.floor > 0 for one in look.drift.values()} == {True}


@every(
    ("watch", "message"),
    [
        (f"{DRIFT}drift_epsilon = 1\n", "watch.drift_epsilon"),
        ("[watch]\nevery = '1d'\ndrift_epsilon = 0\n", "watch.drift_epsilon"),
    ],
)
def test_a_price_of_drift_that_cannot_be_is_refused_in_the_job(
    tmp_path_factory: pytest.TempPathFactory, watch: str, message: str
) -> None:
    file = tmp_path_factory.mktemp("job") / "job.toml"
    file.write_text(job_of("", watch).replace("[audit]\n", ""))
    with pytest.raises(AnalystError) as found:
        read_job(file)
    assert message in str(found.value)
