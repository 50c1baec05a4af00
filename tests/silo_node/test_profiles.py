"""The owner sees what the silo reads of the rows, and nobody else does: in words, as JSON, and beside the last time."""

import json
from pathlib import Path

import pytest

from policies.document.load import load, parse
from silo_node.data.locations import connect
from silo_node.data.row_profile import Profile, profile
from silo_node.data.watch import Watch
from silo_node.owner.cli import main
from silo_node.profiles import FILE, chosen_after, figures, keep, last_lines, lines, rebase, rounded
from tests.harness.rows import load_consent, load_sources

POLICY = """\
schema = "silo-policy/1"
silo = { id = "a", controller = "C", sector = "hospital", jurisdiction = "NO", contact = "c" }
budget = { delta = 1e-6, lifetime = { rho = 1 } }
[privacy_unit]
entity = "patient"
id_column = "id"
max_rows = 2
[sources.t]
kind = "csv"
uri = "t.csv"
max_unreadable = 1
[sources.t.columns]
id = { type = "string", class = "identifier", roles = [] }
age = { type = "int", class = "internal", roles = ["measure"], bounds = [0, 120] }
ward = { type = "string", class = "internal", roles = ["dimension"], domain = ["m", "s", "?"], unknown = "?" }
[consent]
mode = "table"
source = "decisions.csv"
subject = "person"
purpose = "purpose"
given_at = "given"
withdrawn_at = "withdrawn"
[purposes.research]
legal_basis = "public-task"
consent = "opt-out"
computations = ["query"]
"""
ROWS = [
    "p1,30,m", "p1,31,m", "p1,31,m", "p2,-5,s", "p3,999,x", "p4,,", "p5,old,m", ",40,m", "007,20,s", "7,21,s"
]  # fmt: skip
DECISIONS = "person,purpose,given,withdrawn\n7,research,,2026-01-01\np1,research,,2026-01-01\nq,research,,2026-01-01\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "t.csv").write_text("\n".join(["id,age,ward", *ROWS]))
    (tmp_path / "decisions.csv").write_text(DECISIONS)
    return tmp_path


def profile_of(home: Path) -> Profile:
    with connect() as database:
        return profile(database, load(home / "policy.toml").policy, home)


def test_every_cell_row_and_person_is_counted_once(home: Path) -> None:
    found = profile_of(home)
    source = found.sources["t"]
    assert (source.rows, source.persons, source.nobody, source.duplicates, source.kept) == (10, 7, 1, 1, 8)
    assert source.histogram == {"1": 6, "3-5": 1}
    age, ward = source.columns["age"], source.columns["ward"]
    assert (age.rows, age.missing, age.unreadable, age.below, age.above) == (10, 1, 1, 1, 1)
    assert (ward.missing, ward.unreadable, ward.unlisted) == (1, 0, 1)
    assert found.decisions is not None
    decided = found.decisions
    assert (decided.decisions, decided.naming_nobody, decided.without, decided.ambiguous) == (3, 1, 4, 1)


def test_what_could_be_chosen_by_is_shown_with_one_digit(home: Path) -> None:
    assert [rounded(count) for count in (0, 7, 14, 15, 96, 1234, 95_000)] == [0, 7, 10, 20, 100, 1000, 100_000]
    more = "\n".join(f"z{index},130,m" for index in range(1234))
    (home / "t.csv").write_text("\n".join(["id,age,ward", *ROWS, more]))
    words = "\n".join(lines(figures(profile_of(home))))
    assert "1,244 rows of 1,241 persons" in words
    assert "about 1,000 enter an answer" in words
    assert "t.age: 1 missing, 1 unreadable, counted as missing, about 1 below its bounds, about 1,000 above" in words


def test_a_line_that_does_not_fit_is_told_by_the_profile_too(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "t.csv").write_text("id,age,ward\np1,30,m,9\n")
    assert main(["profile", str(home / "policy.toml")]) == 1
    assert "t.csv, line 2: 4 cells, expected 3" in capsys.readouterr().err


def test_a_second_run_shows_what_changed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = str(home / "policy.toml")
    assert main(["check-policy", policy]) == 0
    assert "(was" not in capsys.readouterr().out
    (home / "t.csv").write_text("\n".join(["id,age,ward", *ROWS[:5]]))
    assert main(["check-policy", policy]) == 0
    said = capsys.readouterr().out
    assert "t: 5 (was 10) rows of 3 (was 7) persons" in said
    assert "t.age: 0 missing (was 1), 0 unreadable" in said
    assert main(["profile", policy]) == 0
    assert json.loads(capsys.readouterr().out)["sources"]["t"]["rows"] == 5
    assert (home / FILE).stat().st_mode & 0o777 == 0o600


def test_a_choice_after_a_profile_is_known_until_it_is_logged(home: Path) -> None:
    before = load(home / "policy.toml").policy
    assert chosen_after(home, before) is None
    keep(home, before, profile_of(home), 1000)
    (home / "policy.toml").write_text(
        POLICY.replace("[0, 120]", "[0, 31]").replace("max_rows = 2", "max_rows = 3\nmax_norm = 2")
    )
    after = load(home / "policy.toml").policy
    keep(home, after, profile_of(home), 2000)  # shown once more, before any silo ran
    changed = ("privacy_unit.max_rows", "privacy_unit.max_norm", "sources.t.columns.age.bounds")
    assert chosen_after(home, after) == (1000, changed)
    rebase(home, after)
    assert chosen_after(home, after) is None
    assert last_lines(home)[0] == "as of 1970-01-01T00:33:20Z"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"figures": {}}', '{"figures": 1, "shown_at": "x"}', "\0"])
def test_a_profile_that_somebody_else_wrote_is_no_profile(home: Path, text: str) -> None:
    (home / FILE).write_text(text)
    assert last_lines(home) == ()
    assert chosen_after(home, load(home / "policy.toml").policy) is None


def test_a_file_that_changes_while_a_silo_runs_is_a_warning_for_its_owner(home: Path) -> None:
    strict = parse(POLICY.replace("max_unreadable = 1", "max_unreadable = 0.2").encode(), "policy.toml")
    sources, decisions = load_sources(strict, home), load_consent(strict, home)
    watch = Watch(strict, sources, decisions)
    assert watch.look() == []
    (home / "t.csv").write_text("\n".join(["id,age,ward", *ROWS, "p8,no,m", "p9,no,m", "p10,no,m"]))
    (home / "decisions.csv").write_text(f"{DECISIONS}r,research,,never\n")
    said = watch.look()
    assert "t.csv, line 8, column 'age': 'old' is no int" in said[0]
    assert "4 of 13 cells cannot be read as int" in said[2]
    assert "column 'withdrawn' of" in said[-1]
    assert watch.look() == [], "each change is told once"
    (home / "t.csv").unlink()
    assert len(watch.look()) == 1
