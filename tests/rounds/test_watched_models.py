"""A model that is watched, across five silos in memory: what changes, what raises an alarm, and what it may cost."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from analyst.errors import AnalystError
from analyst.training.job import Job, read_job
from analyst.training.looking import check_left, first_look, keep, look_at, looks_in, price_of, run_of
from analyst.training.registry import Registry
from analyst.training.run import train
from analyst.training.watch_record import Look
from policies.errors import ModelError
from tests.cases import every
from tests.rounds.test_exact_families import SILOS, banks
from tests.rounds.test_model_audits import COLUMNS, OPEN, RELEASED, applicants, job_of

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
