"""Consent: who is in at one clock time, by a file of decisions or by a column, and that the next request knows."""

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import silo_node.owner.cli
from analyst.demo.hospitals import PURPOSE
from analyst.errors import DeniedError
from policies.decision.availability import is_stale_feed
from policies.document.load import load, parse
from policies.document.policy import Policy
from policies.errors import PolicyFileError
from silo_node.actor import SiloActor
from silo_node.data.consent import ConsentFilter, Decisions, consent_filter
from silo_node.data.query import execute
from silo_node.errors import SourceError
from silo_node.owner.consent_status import ConsentCounts, PersonConsent, consent_counts, status_of_person
from tests.harness.inside import forget_offer
from tests.harness.rows import load_consent, load_sources, opened, prepared_in
from tests.harness.simulator import Simulation, no_noise, simulate

NOW = 1_780_000_000  # 2026-05-28T20:26:40Z
PAST, EARLIER, FUTURE = "2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
TABLE = """
[consent]
mode         = "table"
source       = "consent.parquet"
subject      = "person"
purpose      = "code"
given_at     = "given"
expires_at   = "until"
withdrawn_at = "withdrawn"
"""
FIELDS = ("person", "code", "given", "until", "withdrawn")
Decision = tuple[str | None, str | None, str | None, str | None, str | None]


NO_CONSENT = 'legal_basis  = "public-task"'


def without_consent(text: str) -> str:
    """Return the demo's policy without its own rule of consent and without its file of decisions."""
    text, rules = re.subn(r'legal_basis  = "consent"\nconsent      = "opt-in"', NO_CONSENT, text)
    text, sections = re.subn(r"\[consent\].*?\n\n", "", text, flags=re.DOTALL)
    assert (rules, sections) == (1, 1)
    return text


def with_consent(home: Path, silo: str, section: str, purpose: str, decisions: list[Decision] | None = None) -> Path:
    """Give a silo's policy a [consent] section and its purpose a consent rule; write the decisions."""
    policy = home / "silos" / silo / "policy.toml"
    text = without_consent(policy.read_text())
    text = text.replace(NO_CONSENT, purpose).replace("[budget] ", f"{section}\n[budget] ")
    assert purpose in text
    policy.write_text(text)
    if decisions is not None:
        rows = [dict(zip(FIELDS, row, strict=True)) for row in decisions]
        schema = pa.schema([(name, pa.string()) for name in FIELDS])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), policy.parent / "consent.parquet")
    return policy


OPT_IN = 'legal_basis = "consent"\nconsent = "opt-in"\nconsent_values = ["HMB", "GRU"]'
OPT_OUT = 'legal_basis = "public-task"\nconsent = "opt-out"\nconsent_values = ["HMB"]'


def people_in(policy: Path, now: int = NOW) -> set[str]:
    """Return the patients whom the filter lets in."""
    loaded, home = load(policy).policy, policy.parent
    source = load_sources(loaded, home)["lung"]
    among = consent_filter(loaded, PURPOSE, now)
    assert isinstance(among, ConsentFilter)
    with opened(source, load_consent(loaded, home)) as connection:
        rows = connection.execute(
            f"SELECT patient_id FROM {source.view} WHERE {among.sql}", among.parameters
        ).fetchall()
    found = {row[0] for row in rows}
    assert prepared_in(loaded, home, PURPOSE, now) == found
    return found


@pytest.fixture
def patients(home: Path) -> Any:
    return pq.read_table(home / "silos" / "aspen" / "lung.parquet")["patient_id"].to_pylist()


# What stands in the file about one person, and whether that person is in: by opt-in, by opt-out.
CASES: dict[str, tuple[list[tuple[Any, ...]], bool, bool]] = {
    "nothing": ([], False, True),
    "given": ([("HMB", PAST, None, None)], True, True),
    "given for a value only opt-in names": ([("GRU", PAST, None, None)], True, True),
    "given for another purpose": ([("DS", PAST, None, None)], False, True),
    "given in the future": ([("HMB", FUTURE, None, None)], False, True),
    "expired": ([("HMB", EARLIER, PAST, None)], False, True),
    "expires later": ([("HMB", PAST, FUTURE, None)], True, True),
    "withdrawn": ([("HMB", EARLIER, None, PAST)], False, False),
    "withdrawal to come": ([("HMB", PAST, None, FUTURE)], True, True),
    "withdrawn for another purpose": ([("HMB", PAST, None, None), ("DS", EARLIER, None, PAST)], True, True),
    "withdrawn in a row of its own": ([("HMB", EARLIER, None, None), ("HMB", None, None, PAST)], False, False),
    "given again after a withdrawal": ([("HMB", EARLIER, None, EARLIER), ("HMB", PAST, None, None)], True, True),
    "no time of giving": ([("HMB", None, None, None)], False, True),
    "no purpose": ([(None, PAST, None, None)], False, True),
}


def decisions_of_cases(persons: dict[str, str]) -> list[Decision]:
    """Return the rows of every case, each about a person of its own, by the case's name."""
    return [(person, *row) for case, person in persons.items() for row in CASES[case][0]]


@pytest.mark.parametrize(("rule", "place"), [(OPT_IN, 1), (OPT_OUT, 2)])
def test_decisions_decide(home: Path, patients: list[str], rule: str, place: int) -> None:
    persons = dict(zip(CASES, patients, strict=False))
    others, rest = patients[len(CASES) : len(CASES) + 2], patients[len(CASES) + 2 :]
    decisions = decisions_of_cases(persons)
    decisions += [(other, "HMB", PAST, None, None) for other in others]
    decisions.append((None, "HMB", EARLIER, None, PAST))  # a row of nobody objects for nobody
    policy = with_consent(home, "aspen", TABLE, rule, decisions)
    found = people_in(policy)
    assert {case: person in found for case, person in persons.items()} == {case: CASES[case][place] for case in CASES}
    assert set(others) <= found
    assert rest
    assert set(rest) & found == (set() if rule == OPT_IN else set(rest))


def test_times_have_zones_and_stand_in_any_column_type(home: Path, patients: list[str]) -> None:
    policy = with_consent(home, "aspen", TABLE, OPT_IN, [(patients[0], "HMB", "2026-05-28T22:26:39+02:00", None, None)])
    assert people_in(policy) == {patients[0]}
    assert people_in(policy, NOW - 2) == set()


@pytest.mark.parametrize("field", ["given", "until", "withdrawn"])
def test_what_is_no_time_is_found_when_the_silo_loads(home: Path, patients: list[str], field: str) -> None:
    row = dict(zip(FIELDS, (patients[0], "HMB", PAST, None, None), strict=True)) | {field: "soon"}
    with_consent(home, "aspen", TABLE, OPT_IN, [tuple(row[name] for name in FIELDS)])  # type: ignore[list-item]
    with pytest.raises(SourceError, match=f"'{field}' of .*consent.parquet has 1 cells that are no time"):
        SiloActor(str(home / "silos" / "aspen" / "policy.toml"))


def test_a_file_that_breaks_after_loading_lets_nobody_in_who_may_have_left(home: Path, patients: list[str]) -> None:
    policy = with_consent(home, "aspen", TABLE, OPT_IN, [(patients[0], "HMB", PAST, None, None)])
    loaded = load(policy).policy
    decided = load_consent(loaded, policy.parent)
    for until, withdrawn in (("soon", None), (None, "yesterday")):
        rows = [dict(zip(FIELDS, (patients[0], "HMB", PAST, until, withdrawn), strict=True))]
        schema = pa.schema([(name, pa.string()) for name in FIELDS])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), policy.parent / "consent.parquet")
        among = consent_filter(loaded, PURPOSE, NOW)
        assert among is not None
        source = load_sources(loaded, policy.parent)["lung"]
        with opened(source, decided) as connection:
            sql = f"SELECT count(*) FROM {source.view} WHERE {among.sql}"
            assert connection.execute(sql, among.parameters).fetchall() == [(0,)]


def test_a_missing_file_or_column_is_found_when_the_silo_loads(home: Path, patients: list[str]) -> None:
    policy = with_consent(home, "aspen", TABLE, OPT_IN)
    with pytest.raises(SourceError, match=r"consent: the file consent\.parquet is missing"):
        SiloActor(str(policy))
    pq.write_table(pa.table({"person": ["a"]}), policy.parent / "consent.parquet")
    with pytest.raises(SourceError, match="has no column 'code'"):
        SiloActor(str(policy))


def count(simulation: Simulation) -> float:
    report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.5)
    return float(report.to_records()[0]["n"])


def test_a_withdrawal_counts_on_the_very_next_question_and_the_analyst_cannot_tell(
    home: Path, patients: list[str]
) -> None:
    given: list[Decision] = [(patient, "HMB", EARLIER, None, None) for patient in patients]
    policy = with_consent(home, "aspen", TABLE, OPT_IN, given)
    with simulate(home, noise=no_noise) as simulation:
        assert count(simulation) == 228
        before = simulation.federation.offer.silos["aspen"]
        given[0] = (patients[0], "HMB", EARLIER, None, PAST)
        rows = [dict(zip(FIELDS, row, strict=True)) for row in given]
        pq.write_table(pa.Table.from_pylist(rows), policy.parent / "consent.parquet")
        assert count(simulation) == 227
        forget_offer(simulation.federation)
        after = simulation.federation.offer.silos["aspen"]
        assert before.model_copy(update={"nonce": b""}) == after.model_copy(update={"nonce": b""})


def test_consent_is_applied_before_rows_are_sampled(home: Path) -> None:
    """A person with many rows, one of them consented: that one must be the one that enters."""
    policy = with_consent(home, "aspen", COLUMN, OPT_IN)
    text = policy.read_text().replace(
        "died       = {", 'ok = { type = "bool", class = "internal", roles = [] }\ndied = {'
    )
    policy.write_text(text)
    table = pq.read_table(policy.parent / "lung.parquet").slice(0, 40)
    same = pa.array(["NCCTG-001"] * 40)
    table = table.set_column(table.column_names.index("patient_id"), "patient_id", same)
    table = table.append_column("ok", pa.array([index == 7 for index in range(40)]))
    pq.write_table(table, policy.parent / "lung.parquet")
    with simulate(home, noise=no_noise) as simulation:
        _, request = simulation.federation.prepare("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=1)
    loaded = load(policy).policy
    source = load_sources(loaded, policy.parent)["lung"]
    among = consent_filter(loaded, PURPOSE, NOW)
    with opened(source) as connection:
        for _ in range(10):
            found = execute(connection, source, "patient_id", request, among)
            assert [vector.tolist() for vector in found] == [[1], [1, 0, 0, 0]], "of this person nothing else was cut"


COLUMN = '\n[consent]\nmode = "column"\ncolumn = "ok"\nstale_after_hours = 2\n'


@pytest.mark.parametrize("rule", [OPT_IN, OPT_OUT])
def test_a_column_decides_and_a_missing_cell_is_out(home: Path, rule: str) -> None:
    policy = with_consent(home, "aspen", COLUMN, rule)
    policy.write_text(
        policy.read_text().replace("died       = {", 'ok = { type = "bool", class = "internal", roles = [] }\ndied = {')
    )
    table = pq.read_table(policy.parent / "lung.parquet")
    flags = [(True, False, None)[index % 3] for index in range(table.num_rows)]
    pq.write_table(table.append_column("ok", pa.array(flags)), policy.parent / "lung.parquet")
    with simulate(home, noise=no_noise) as simulation:
        assert count(simulation) == 228 - table.num_rows + flags.count(True)


def test_a_stale_feed_refuses_and_a_fresh_one_answers(home: Path) -> None:
    policy = with_consent(home, "aspen", COLUMN, OPT_IN)
    policy.write_text(
        policy.read_text().replace("died       = {", 'ok = { type = "bool", class = "internal", roles = [] }\ndied = {')
    )
    data = policy.parent / "lung.parquet"
    table = pq.read_table(data)
    pq.write_table(table.append_column("ok", pa.array([True] * table.num_rows)), data)
    with simulate(home, noise=no_noise) as simulation:
        assert count(simulation) == 228
        old = simulation.silos["aspen"].clock() - 2 * 3600 - 10
        os.utime(data, (old, old))
        report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.5)
        (denial,) = report.silos["aspen"].denials
        assert (denial.code, denial.rule) == ("CONSENT_STALE", "consent.stale_after_hours")
        os.utime(data)
        assert count(simulation) == 228


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('legal_basis  = "public-task"', 'legal_basis = "consent"', 'needs consent = "opt-in"'),
        ('legal_basis  = "public-task"', 'legal_basis = "consent"\nconsent = "opt-in"', "needs a [consent] section"),
        ("[budget] ", COLUMN + "[budget] ", "there is no bool 'ok' for consent"),
        ("[budget] ", TABLE.replace("parquet", "xlsx") + "[budget] ", ".parquet or a .csv"),
        ("[budget] ", TABLE.replace('"table"', '"maybe"') + "[budget] ", 'mode must be "table" or "column"'),
        ("[budget] ", TABLE.replace("person", "a b") + "[budget] ", "consent.subject"),
    ],
)
def test_a_consent_section_that_cannot_stand_is_refused(home: Path, old: str, new: str, problem: str) -> None:
    text = without_consent((home / "silos" / "aspen" / "policy.toml").read_text())
    assert old in text
    with pytest.raises(PolicyFileError) as caught:
        parse(text.replace(old, new).encode(), "policy.toml")
    assert problem in caught.value.message


def limited(home: Path, limits: str) -> None:
    for policy in home.glob("silos/*/policy.toml"):
        policy.write_text(policy.read_text().replace("[disclosure]", f"{limits}\n[disclosure]"))


def test_a_window_limit_refuses_and_the_next_window_answers(home: Path) -> None:
    limited(home, f'[[budget.limits]]\npurpose = "{PURPOSE}"\nwindow = "calendar-month"\nrho = 0.015')
    clock = [NOW]
    with simulate(home, noise=no_noise, clock=lambda: clock[0]) as simulation:
        assert count(simulation) == 228
        assert count(simulation) == 228
        with pytest.raises(DeniedError) as caught:
            count(simulation)
        (denial,) = caught.value.denials["aspen"]
        assert (denial.code, denial.rule) == ("BUDGET_WINDOW", "budget.limits.0.rho")
        assert "month" in denial.remedy
        clock[0] += 4 * 24 * 3600  # June
        assert count(simulation) == 228
        assert simulation.spent("aspen") > 15_000, "a lifetime is never refreshed"


def test_a_per_analyst_limit_shows_what_is_left_to_oneself(home: Path) -> None:
    limits = f'[[budget.limits]]\npurpose = "{PURPOSE}"\nwindow = "calendar-year"\nrho = 1\nper_analyst_rho = 0.01'
    limited(home, limits)
    with simulate(home, noise=no_noise, clock=lambda: NOW) as simulation:
        assert count(simulation) == 228
        with pytest.raises(DeniedError) as caught:
            count(simulation)
        (denial,) = caught.value.denials["birch"]
        assert (denial.code, denial.rule) == ("BUDGET_ANALYST", "budget.limits.0.per_analyst_rho")
        left = 10_000 - simulation.spent("birch")
        assert f"rho {left / 1e6:g} is left to you" in denial.message


def owner_sees(policy: Path, person: str = "nobody", now: int = NOW) -> tuple[ConsentCounts, PersonConsent]:
    """Return what `consilo-silo consent` computes of the only purpose and source."""
    one, (found,) = owner_sees_of_each(policy, person, now=now)
    return one, found


def owner_sees_of_each(policy: Path, *persons: str, now: int = NOW) -> tuple[ConsentCounts, list[PersonConsent]]:
    loaded, home = load(policy).policy, policy.parent
    sources = load_sources(loaded, home)
    with opened(*sources.values(), load_consent(loaded, home)) as connection:
        (one,) = consent_counts(connection, loaded, [PURPOSE], sources, now)
        of = (status_of_person(connection, loaded, PURPOSE, sources["lung"], now, person) for person in persons)
        return one, list(of)


# Why a person of CASES is in or not, by opt-in, with the year of the time that is named.
REASONS = {
    "nothing": ("no decision", None),
    "given": ("given", 2026),
    "given for another purpose": ("no decision", None),
    "given in the future": ("not given yet", 2027),
    "expired": ("expired", 2026),
    "expires later": ("given", 2026),
    "withdrawn": ("withdrawn", 2026),
    "withdrawal to come": ("given", 2026),
    "withdrawn in a row of its own": ("withdrawn", 2026),
    "given again after a withdrawal": ("given", 2026),
    "no time of giving": ("no time", None),
}


@pytest.mark.parametrize(("rule", "place"), [(OPT_IN, 1), (OPT_OUT, 2)])
def test_the_owner_sees_whom_a_request_counts(home: Path, patients: list[str], rule: str, place: int) -> None:
    persons = dict(zip(CASES, patients, strict=False))
    decisions = decisions_of_cases(persons)
    decisions += [(other, "HMB", PAST, None, None) for other in patients[len(CASES) : len(CASES) + 2]]
    policy = with_consent(home, "aspen", TABLE, rule, decisions)
    one, found = owner_sees_of_each(policy, *persons.values())
    assert (one.persons, one.persons_in) == (len(patients), len(people_in(policy)))
    for case, person in zip(CASES, found, strict=True):
        assert (person.rows, person.rows_in) == (1, 1 if CASES[case][place] else 0), case
        year = None if person.at is None else datetime.fromtimestamp(person.at, UTC).year
        if rule == OPT_IN and case in REASONS:
            assert (person.reason, year) == REASONS[case], case
        if rule == OPT_OUT:
            assert person.reason == ("no objection" if CASES[case][place] else "objected"), case


def test_the_latest_event_is_the_reason(home: Path, patients: list[str]) -> None:
    """Consent given again after a withdrawal, which then expired."""
    decisions: list[Decision] = [
        (patients[0], "HMB", "2024-01-01T00:00:00Z", None, EARLIER),
        (patients[0], "HMB", "2025-06-01T00:00:00Z", PAST, None),
    ]
    policy = with_consent(home, "aspen", TABLE, OPT_IN, decisions)
    assert owner_sees(policy, patients[0])[1].reason == "expired"
    assert owner_sees(policy, patients[0], NOW - 365 * 24 * 3600)[1].reason == "withdrawn"


def sees(policy: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what the command prints after its first line, which is the silo and the time."""
    assert silo_node.owner.cli.main(["consent", "--policy", str(policy), *options]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"aspen at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first)
    return lines


def test_the_owner_reads_who_is_in_and_why(home: Path, patients: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given: list[Decision] = [(patient, "HMB", EARLIER, None, None) for patient in patients[1:]]
    given[0] = (patients[1], "HMB", EARLIER, None, PAST)
    policy = with_consent(home, "aspen", TABLE, OPT_IN, given)
    counted = [
        "  health-research: opt-in by the table consent.parquet, legal basis consent",
        f"    lung: {len(patients) - 2} of {len(patients)} patients are in",
    ]
    assert sees(policy, capsys=capsys) == counted
    for person, verdict in (
        (patients[0], "not in: no decision"),
        (patients[1], "not in: withdrawn 2026-01-01T00:00:00Z"),
        (patients[2], "in: given 2025-01-01T00:00:00Z"),
        ("NCCTG-000", "not in: no row"),
    ):
        assert sees(policy, "--person", person, capsys=capsys) == [*counted, f"      {person} is {verdict}"]
    printed = " ".join(sees(policy, capsys=capsys))
    assert not [patient for patient in patients if patient in printed]


def test_the_owner_reads_that_consent_is_not_asked(
    home: Path, patients: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    policy = home / "silos" / "aspen" / "policy.toml"
    policy.write_text(without_consent(policy.read_text()))
    assert sees(policy, "--purpose", PURPOSE, "--person", patients[0], capsys=capsys) == [
        "  health-research: consent is not asked, legal basis public-task",
        f"    lung: {len(patients)} of {len(patients)} patients are in",
        f"      {patients[0]} is in: consent is not asked",
    ]


@pytest.mark.parametrize("rule", [OPT_IN, OPT_OUT])
def test_the_owner_reads_a_column_and_the_age_of_its_feed(
    home: Path, patients: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = with_consent(home, "aspen", COLUMN, rule)
    policy.write_text(
        policy.read_text().replace("died       = {", 'ok = { type = "bool", class = "internal", roles = [] }\ndied = {')
    )
    data = policy.parent / "lung.parquet"
    table = pq.read_table(data)
    flags = [(True, False, None)[index % 3] for index in range(table.num_rows)]
    pq.write_table(table.append_column("ok", pa.array(flags)), data)
    with simulate(home, noise=no_noise) as simulation:
        assert count(simulation) == 228 - table.num_rows + flags.count(True)
    head, counted, verdict = sees(policy, "--person", patients[1], capsys=capsys)
    assert "by the column ok, " in head
    are_in = f"    lung: {flags.count(True)} of {len(patients)} patients are in; the feed is"
    assert counted == f"{are_in} 0.0 h old, at most 2 h"
    assert verdict == f"      {patients[1]} is not in: ok is true in 0 of 1 row"
    assert sees(policy, "--person", patients[0], capsys=capsys)[2].endswith(" is in: ok is true in 1 of 1 row")
    old = data.stat().st_mtime - 3 * 3600
    os.utime(data, (old, old))
    counted = sees(policy, capsys=capsys)[1]
    assert counted == f"{are_in} 3.0 h old, more than 2 h, so every request is denied"
    with simulate(home, noise=no_noise) as simulation:
        report = simulation.federation.query("SELECT COUNT(*) AS n FROM lung", purpose=PURPOSE, epsilon=0.5)
        assert report.silos["aspen"].denials[0].code == "CONSENT_STALE"


def test_a_broken_file_of_decisions_is_one_line_for_the_owner(
    home: Path, patients: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    policy = with_consent(home, "aspen", TABLE, OPT_IN, [(patients[0], "HMB", "soon", None, None)])
    assert silo_node.owner.cli.main(["consent", "--policy", str(policy)]) == 1
    output, errors = capsys.readouterr()
    assert not output
    assert errors.splitlines() == [
        f"consilo-silo: error: consent: column 'given' of {policy.parent}/consent.parquet has 1 cells that are no time",
        "consilo-silo: hint: write 2026-10-01T00:00:00Z or nothing, or say how times are written:"
        ' dates = "%d.%m.%Y" in [consent]',
    ]


# ---- what a feed may come to while the silo runs -----------------------------------------------------------------

BARE = """
schema = "silo-policy/1"
[silo]
id = "north"
controller = "North Hospital"
sector = "hospital"
jurisdiction = "NO"
contact = "privacy@north.example"
[privacy_unit]
entity = "patient"
id_column = "patient_id"
max_rows = 1
[sources.visits]
kind = "KIND"
uri = "visits.KIND"
[sources.visits.columns]
patient_id = { type = "string", class = "identifier", roles = [] }
age = { type = "int", class = "internal", roles = ["measure"], bounds = [0, 110] }
[purposes.care]
legal_basis = "consent"
consent = "RULE"
computations = ["query"]
[budget]
delta = 1e-6
lifetime = { rho = 1 }
[consent]
mode = "table"
source = "consent.KIND"
subject = "patient_id"
purpose = "code"
given_at = "given"
withdrawn_at = "withdrawn"
"""


def bare(path: Path, rule: str, kind: str = "csv") -> Policy:
    """Return a policy whose decisions call the person as its source does."""
    basis = "consent" if rule == "opt-in" else "public-task"
    text = BARE.replace("RULE", rule).replace('legal_basis = "consent"', f'legal_basis = "{basis}"')
    return parse(text.replace("KIND", kind).encode(), str(path / "policy.toml"))


def let_in(policy: Policy, path: Path, decided: Decisions | None) -> list[str]:
    among = consent_filter(policy, "care", NOW)
    assert among is not None
    source = load_sources(policy, path)["visits"]
    sql = f"SELECT patient_id FROM {source.view} WHERE {among.sql} ORDER BY 1"
    with opened(source, decided) as connection:
        return [row[0] for row in connection.execute(sql, among.parameters).fetchall()]


@pytest.mark.parametrize("lost", ["patient_id", "given", "withdrawn", "code"])
def test_a_feed_that_loses_a_column_lets_nobody_in(tmp_path: Path, lost: str) -> None:
    """Also where the source has a column of that name."""
    (tmp_path / "visits.csv").write_text("patient_id,given,withdrawn,code,age\np1,,,,3\np2,,,,4\n")
    feed = "patient_id,code,given,withdrawn\np1,care,2025-01-01T00:00:00Z,\n"
    (tmp_path / "consent.csv").write_text(feed)
    policy = bare(tmp_path, "opt-in")
    decided = load_consent(policy, tmp_path)
    assert let_in(policy, tmp_path, decided) == ["p1"]
    (tmp_path / "consent.csv").write_text(feed.replace(lost, "renamed", 1))
    with pytest.raises(SourceError, match=f"has no column '{lost}'"):
        let_in(policy, tmp_path, decided)


@pytest.mark.parametrize("written", ["2", "2.0", "2.00", '"2"'])
def test_an_objection_counts_however_a_program_writes_a_number(tmp_path: Path, written: str) -> None:
    (tmp_path / "visits.csv").write_text("patient_id,age\n1,3\n2,4\n20,5\n")
    (tmp_path / "consent.csv").write_text("patient_id,code,given,withdrawn\n2,care,,2025-01-01T00:00:00Z\n")
    policy = bare(tmp_path, "opt-out")
    decided = load_consent(policy, tmp_path)
    (tmp_path / "consent.csv").write_text(f"patient_id,code,given,withdrawn\n{written},care,,2025-01-01T00:00:00Z\n")
    assert let_in(policy, tmp_path, decided) == ["1", "20"]


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT", "DECIMAL(10, 2)", "VARCHAR"])
@pytest.mark.parametrize("which", ["visits", "consent"])
def test_ids_that_are_fractions_are_read_as_whole_numbers(tmp_path: Path, kind: str, which: str) -> None:
    """A decimal that is none is an id of its own text; a float that is none may have lost what it was."""
    types = {"visits": "BIGINT", "consent": "BIGINT"} | {which: kind}
    other = "2.5" if which == "visits" else "7"
    visits = f"SELECT unnest([2, {other}, 3])::{types['visits']} AS patient_id, 3 AS age"
    decision = (
        f"SELECT 2::{types['consent']} AS patient_id, 'care' AS code, NULL::VARCHAR AS given, '2025-01-01' AS withdrawn"
    )
    duckdb.execute(f"COPY ({visits}) TO '{tmp_path / 'visits.parquet'}'")
    duckdb.execute(f"COPY ({decision}) TO '{tmp_path / 'consent.parquet'}'")
    policy = bare(tmp_path, "opt-out", "parquet")
    if which == "visits" and kind in ("DOUBLE", "FLOAT"):
        with pytest.raises(SourceError, match=r"column 'patient_id': '2\.5' is no string"):
            load_sources(policy, tmp_path)
        return
    found = [one.rstrip("0") if "." in one else one for one in let_in(policy, tmp_path, load_consent(policy, tmp_path))]
    assert found == sorted([other, "3"])


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_a_time_without_a_zone_is_utc_wherever_the_machine_is(
    tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        (tmp_path / "visits.csv").write_text("patient_id,age\np1,3\np2,4\np3,5\n")
        feed = "patient_id,code,given,withdrawn\np1,care,2025-01-01 00:00:00,2026-05-28 20:26:00\n"
        feed += "p2,care,2025-01-01 00:00:00,2026-05-28 20:27:00\np3,care,2026-05-28 20:27:00,\n"
        (tmp_path / "consent.csv").write_text(feed)
        policy = bare(tmp_path, "opt-in")
        assert let_in(policy, tmp_path, load_consent(policy, tmp_path)) == ["p2"]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(("age_s", "is_stale"), [(0, False), (3600, False), (3601, True), (-300, False), (-301, True)])
def test_a_feed_from_the_future_is_stale_too(age_s: int, is_stale: bool) -> None:
    assert is_stale_feed(NOW - age_s, 1, NOW) is is_stale
    assert is_stale_feed(None, 1, NOW)
