"""The declared time that `consilo-silo doctor` proposes, and the alarm of its owner where rows outgrow it."""

import math
import re
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from analyst.reports.estimates import Estimate
from federation.operations.checks import Finding
from policies.decision.computing import declared_ms, plan_size
from policies.decision.decide import decide
from policies.document.load import load, parse
from policies.document.policy import Policy
from policies.requests.families import SHAPES
from silo_node.data import compute
from silo_node.data.locations import connect
from silo_node.data.measure import (
    QUESTIONS,
    SAFETY,
    Measured,
    enough_for,
    family_steps,
    is_covered,
    measure,
    power_of_two,
    proposed,
    questions,
    training_steps,
)
from silo_node.data.prepared.store import Store
from silo_node.data.watch import Watch
from silo_node.doctor import examine
from silo_node.home import LEDGER
from silo_node.ledger.store import LedgerStore
from silo_node.owner.cli import main
from silo_node.owner.ledger_commands import signer_of
from tests.harness.example_policy import NOW, Edit, policy
from tests.harness.rows import load_consent, load_sources
from tests.harness.simulator import no_noise, simulate
from tests.policies.test_computing import SPENT
from tests.rounds.test_exact_families import banks, job_of
from tests.rounds.test_training import EXACT, PRIVATE, found_banks


def aspen(home: Path, more: str = "", rows: str = "") -> Path:
    """Return the policy of a hospital, with a section more, and a line more about its rows."""
    file = home / "silos" / "aspen" / "policy.toml"
    text = file.read_text()
    kind = 'kind = "parquet"'
    assert kind in text
    file.write_text(f"{text.replace(kind, kind + rows, 1)}\n{more}")
    return file


def found(file: Path, what: str, **options: bool) -> list[Finding]:
    return [one for one in examine(file, time.time, **options) if one.what == what]


def test_the_next_power_of_two_is_not_below_a_count() -> None:
    cases = {0: 1, 1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 1000: 1024, 1024: 1024, 1025: 2048}
    assert {count: power_of_two(count) for count in cases} == cases


def test_what_is_proposed_is_twice_what_was_measured_at_every_size() -> None:
    slow = [Measured("t", 1000, 0, size, 0.5 + 2e-6 * size * 1000) for size in (2, 10, 40)]
    fit = proposed(slow, {"t": 1000}, 0)
    assert fit.row_nanoseconds == 4000  # twice 2 microseconds
    assert fit.fixed_seconds == Decimal("1.05")  # twice the half second, and what is beside it
    assert fit.lines == ("[compute] fixed_seconds = 1.05, row_nanoseconds = 4000", "[sources.t] rows_up_to = 1024")
    odd = [*slow, Measured("t", 1000, 0, 20, 3.0)]
    for measures in (slow, odd, [Measured("t", 1, 0, 2, 0.0001)]):
        fit = proposed(measures, {"t": 1000}, 0)
        for one in measures:
            declared = float(fit.fixed_seconds) + float(fit.row_nanoseconds) * 1e-9 * one.size * one.rows
            assert declared >= SAFETY * one.seconds - 1e-9
    assert enough_for([Measured("t", 1000, 0, 2, 1.3)]) == Decimal("2.7")  # twice, and what is beside it, in two digits
    assert enough_for(slow) == enough_for([Measured("t", 1, 0, 2, 0.0001)]) == 2
    assert enough_for(()) is None
    read = [Measured("t", 1000, 0, 2, 0.25), *(Measured("t", 1000, 500, size, 0.5) for size in (2, 20))]
    fit = proposed(read, {"t": 1000}, 500)
    assert fit.decision_nanoseconds == 1_000_000  # twice 0.25 s for 500
    assert fit.lines[-1] == "[consent] decisions_up_to = 512"


def test_the_questions_grow_and_are_those_that_the_policy_opens() -> None:
    of = policy()
    asked = list(questions(of, "visits", QUESTIONS, NOW))
    sizes = [plan_size(one) for one in asked]
    assert len(asked) == QUESTIONS
    assert sizes == sorted(sizes)
    assert sizes[-1] > 5 * sizes[0]
    for one in asked:
        opened = one.model_copy(update={"analyst": "ana", "silos": ("east", "north", "south", "west")})
        codes = {denial.code for denial in decide(of, opened, bytes(32), SPENT, NOW)}
        assert codes <= {"RECIPIENT_CLOSED"}
    closed = policy()
    shut = {key: one.model_copy(update={"computations": ()}) for key, one in closed.purposes.items()}
    assert not list(questions(closed.model_copy(update={"purposes": shut}), "visits", QUESTIONS, NOW))


def measured(of: Policy, home: Path) -> tuple[Measured, ...]:
    with connect() as database:
        sources, decisions = load_sources(of, home), load_consent(of, home)
        now = int(time.time())
        return measure(of, database, sources, decisions, {"lung": 47}, 47, now, clock=time.process_time)


def test_doctor_proposes_a_time_that_covers_what_it_measured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = aspen(home)
    measures = measured(load(file).policy, file.parent)
    monkeypatch.setattr("silo_node.doctor.measure", lambda *_, **__: measures)
    assert len(measures) == QUESTIONS + 1, "and the smallest without the decisions on consent"
    assert [one.decisions for one in measures] == [0, *(47,) * QUESTIONS]
    (finding,) = found(file, "declared time", is_measuring=True)
    assert finding.state == "ok"
    assert re.match(r"none; \d+ questions took at most ", finding.found)
    _, _, lines = finding.found.partition("twice that is ")
    sections = dict(line[1:].split("] ", 1) for line in lines.split("; "))
    assert set(sections) == {"compute", "sources.lung", "consent"}
    text = file.read_text().replace("[sources.lung]", f"[sources.lung]\n{sections['sources.lung']}")
    text = text.replace("[consent]", f"[consent]\n{sections['consent']}")
    declared = parse(f"{text}\n[compute]\n{sections['compute'].replace(', ', chr(10))}\n".encode(), "policy.toml")
    assert declared.compute is not None
    assert all(is_covered(declared, declared.compute, one) for one in measures)
    assert declared_ms(declared, next(questions(declared, "lung", 1, int(time.time())))) is not None
    assert not found(file, "declared time"), "serve times nothing"


@pytest.mark.torch
@pytest.mark.parametrize("job", [PRIVATE, EXACT])
def test_what_is_proposed_holds_for_steps_of_training_too(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = found_banks(tmp_path / "f", job) / "silos" / "east" / "policy.toml"
    of, now, rows = load(file).policy, int(time.time()), {"loans": 30}
    with connect() as database:
        decisions = load_consent(of, file.parent)
        sources = load_sources(of, file.parent)
        measures = measure(of, database, sources, decisions, rows, 1, now, clock=time.process_time)
    monkeypatch.setattr("silo_node.doctor.measure", lambda *_, **__: measures)
    steps = [one for one in measures if one.is_step]
    sizes = [plan_size(one) for one in training_steps(of, "loans", now)]
    assert [one.size for one in steps[:2]] == sizes
    assert sizes == [3, 6], "by one number, and by a domain of three values too"
    (family,) = family_steps(of, "loans", now)
    assert [one.size for one in steps[2:]] == [plan_size(family)] * 2, "the first round of the family, and the next"
    assert len(measures) == len(steps) + (0 if "exact" in job else QUESTIONS + 1)
    fit = proposed(measures, rows, 1)
    for one in measures:
        declared = float(fit.fixed_seconds) + float(fit.row_nanoseconds) * 1e-9 * one.size * one.rows
        assert declared + float(fit.decision_nanoseconds or 0) * 1e-9 * one.decisions >= SAFETY * one.seconds - 1e-9
    (finding,) = found(file, "declared time", is_measuring=True)
    assert "questions and 4 steps of training took at most " in finding.found


@pytest.mark.torch
def test_each_family_that_a_policy_opens_is_timed_in_its_first_round_and_the_next(tmp_path: Path) -> None:
    with banks(tmp_path / "f", job_of("logistic-regression", "ok"), computations=tuple(SHAPES)):
        file = tmp_path / "f" / "silos" / "west" / "policy.toml"
    of, now = load(file).policy, int(time.time())
    steps = list(family_steps(of, "loans", now))
    without = {"audit", "cnn", "language-model", "network"}  # there is no column for audits, no array and no graph
    assert {step.plan.opened_as for step in steps} >= {*SHAPES} - without
    with connect() as database:
        measures = measure(of, database, load_sources(of, file.parent), None, {"loans": 100}, 0, now, time.process_time)
    of_families = measures[len(list(training_steps(of, "loans", now))) :]
    assert {one.size for one in of_families} == {plan_size(step) for step in steps}
    assert len(of_families) > len(steps) + 6, "and the rounds that move the model, but where these rows are too few"
    fit = proposed(measures, {"loans": 100}, 0)
    for one in measures:
        declared = float(fit.fixed_seconds) + float(fit.row_nanoseconds) * 1e-9 * one.size * one.rows
        assert declared >= SAFETY * one.seconds - 1e-9


def test_a_slow_step_of_training_raises_what_is_proposed() -> None:
    asked = [Measured("t", 1000, 0, size, 0.1) for size in (2, 10)]
    slow = [Measured("t", 1000, 0, size, 0.125 + size / 1024, is_step=True) for size in (3, 9)]
    fit = proposed([*asked, *slow], {"t": 1000}, 0)
    assert fit.row_nanoseconds == 2000, "twice the microsecond that a row of a step takes"


def test_prepared_rows_are_timed_as_requests_read_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = aspen(home, rows='\nread = "prepared"')
    (finding,) = found(file, "declared time", is_measuring=True)
    assert "as the rows are not prepared yet" in finding.found
    of = load(file).policy
    with connect() as database, closing(LedgerStore(file.parent / LEDGER, signer_of(file))) as ledger:
        source, store = load_sources(of, file.parent)["lung"], Store(of, file.parent, ledger.kept)
        store.put_in_force(source, store.prepare(database, source, int(time.time())).store, ledger.put_in_force)
    monkeypatch.setattr(compute, "execute", None)  # what reads the rows of a file at the request
    (finding,) = found(file, "declared time", is_measuring=True)
    assert re.match(r"none; \d+ questions took at most ", finding.found)
    assert "prepared" not in finding.found


def test_doctor_warns_where_less_is_declared_than_measured(home: Path) -> None:
    (finding,) = found(aspen(home, "[compute]\nfixed_seconds = 0.000001\n"), "declared time", is_measuring=True)
    assert finding.state == "warn"
    assert "longer than declared" in finding.found
    assert "[compute] fixed_seconds = " in finding.remedy


def test_more_rows_than_declared_alarm_the_owner_and_refuse_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = aspen(home, rows="\nrows_up_to = 16")
    said = "sources.lung: 47 rows, above rows_up_to = 16: plans may take longer, and figures may be cut; raise it"
    (finding,) = found(file, "declared rows")
    assert (finding.state, finding.found) == ("warn", said)
    for command in ("check-policy", "profile"):
        assert main([command, str(file)]) == 0
        assert f"warning: {said}" in capsys.readouterr().err
    with simulate(home) as simulation:
        report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose="health-research", epsilon=1)
        assert report.silos["aspen"].status == "answered"
        (table,) = simulation.federation.offer.silos["aspen"].tables
        assert table.rows_up_to == 16, "the policy's number is public, and the count is not"
    assert f"WARNING {said}" in (file.parent / "silo.log").read_text()
    of = load(file).policy
    watch = Watch(of, load_sources(of, file.parent), None)
    assert watch.look() == []
    rows = file.parent / "lung.parquet"
    rows.write_bytes(rows.read_bytes())
    assert watch.look() == [said]


def test_check_policy_shows_how_rows_are_read_and_what_is_declared(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> list[str]:
        assert main(["check-policy", str(file)]) == 0
        return [line[2:] for line in capsys.readouterr().out.splitlines() if line[2:9] in ("read   ", "compute")]

    file = aspen(home, "[compute]\nseconds = 7\n")
    assert told() == ["read      lung: at every request", "compute   no time is declared; a computation may take 7 s"]
    file.write_text(file.read_text().replace("[compute]", "[compute]\nfixed_seconds = 0.5\nrow_nanoseconds = 1000000"))
    file.write_text(file.read_text().replace("[consent]", "[consent]\ndecisions_up_to = 64"))
    file.write_text(
        file.read_text().replace("[sources.lung]", '[sources.lung]\nread = "prepared"\nrows_up_to = 1024', 1)
    )
    of, now = load(file).policy, int(time.time())
    largest = list(questions(of, "lung", QUESTIONS, now))[-1]
    seconds = math.ceil((plan_size(largest) * 1024 * 10**6 + 5 * 10**8) / (25 * 10**6)) * 0.025
    assert told() == [
        "read      lung: prepared, and used for 1h after its files were last seen unchanged",
        f"compute   the largest plan is declared to take {seconds:g} s, for up to 1,024 rows of lung and 64 decisions;"
        " at most 7 s are computed",
    ]


def test_a_missing_cell_where_none_can_be_alarms_the_owner_and_nobody_else(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in home.glob("silos/*/policy.toml"):
        edit = Edit('unit = "pound" }', 'unit = "pound", can_be_missing = false }')
        one.write_text(edit.apply(one.read_text()))
    file = home / "silos/aspen/policy.toml"
    missing = "cells missing or unreadable, though can_be_missing = false: each counts as the middle of the bounds"
    (finding,) = found(file, "declared rows")
    assert finding.state == "warn"
    assert finding.found.startswith("sources.lung.columns.weight_loss: ")
    assert finding.found.endswith(missing)
    assert "take can_be_missing = false out" in finding.remedy
    assert main(["check-policy", str(file)]) == 0
    assert missing in capsys.readouterr().err
    with simulate(home, noise=no_noise) as simulation:
        question = "SELECT COUNT(weight_loss) AS n, AVG(weight_loss) AS lost FROM lung"
        report = simulation.federation.query(question, purpose="health-research", epsilon=1)
        assert report.silos["aspen"].status == "answered"
        (row,) = report.rows
        assert isinstance(row["n"], Estimate)
        assert row["n"].value == 228, "every row counts"
    assert missing in (file.parent / "silo.log").read_text()


@pytest.mark.process
def test_check_policy_shows_the_declared_time_of_a_question(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = aspen(home, "[compute]\nfixed_seconds = 99.5\n")
    arguments = ["check-policy", str(file), "--request", "SELECT COUNT(*) AS n FROM lung"]
    assert main([*arguments, "--purpose", "health-research", "--epsilon", "1"]) == 3
    said = capsys.readouterr().out
    assert "time      99.5 s at most, by [compute]; a request waits 60 s, or its --deadline" in said
    assert "TOO_SLOW (compute): this plan may take 99.5 s here, and the request waits 60 s" in said
