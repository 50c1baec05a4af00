"""Drafts hold names and types and nothing else; filled in as docs/own-data.md says, they give the right answer."""

import re
import shlex
import tomllib
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

import analyst.cli.main
import analyst.client
import silo_node.owner.cli
from analyst.cli.new import new
from analyst.errors import AnalystError
from analyst.reports.estimates import Estimate
from crypto.wire import unverified
from federation.members.roster import Roster
from policies.document.load import load
from policies.errors import PolicyFileError
from tests.harness.simulator import no_noise, simulate

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "own-data.md").read_text()
NOW = datetime(2026, 10, 1, tzinfo=UTC)
SILOS = ("north", "south", "west")
POOLED = """
    SELECT sex, count(*), sum(CAST(kg AS DECIMAL(18, 2))) FROM (
        SELECT sex, weight::DECIMAL(18, 4) AS kg FROM 'north.csv'
        UNION ALL SELECT "Sex", "Weight (lb)"::DECIMAL(9, 1) * 0.4536 FROM 'south.csv'
        UNION ALL SELECT gender, grams * 0.001 FROM 'west.csv'
    ) GROUP BY sex
"""


def run(command: str) -> int:
    program, *arguments = shlex.split(command)
    return {"consilo": analyst.cli.main.main, "consilo-silo": silo_node.owner.cli.main}[program](arguments)


def code(line: str) -> str:
    return line.partition("  # ")[0].rstrip()


def change(policy: Path, diff: str) -> None:
    """Change the file as the diff says: find each line of the old text below the last, comments aside."""
    lines, at = policy.read_text().splitlines(), 0
    for step in diff.splitlines():
        if step.startswith("+"):
            lines.insert(at, step[1:])
            at += 1
            continue
        at = next(index for index in range(at, len(lines)) if code(lines[index]) == step[1:])
        if step.startswith("-"):
            del lines[at]
        else:
            at += 1
    policy.write_text("\n".join(lines) + "\n")


def test_the_page_leads_to_a_right_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    exec(compile(example[1], "own-data.md", "exec"), {})  # noqa: S102
    draft, *checks, query = re.findall(r"^\$ (.*)", PAGE, re.MULTILINE)
    assert run(draft) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count("sources.visits.columns.") == 6
    for check in checks:
        assert run(check) == 1
    assert capsys.readouterr().err.count(": fill in [low, high] from public knowledge, never from the data") == 6
    changes = re.findall(r"`(mine/\S+)`.*?```diff\n(.*?)```", PAGE, re.DOTALL)
    assert len(changes) == len(checks) == len(SILOS)
    for policy, diff in changes:
        change(Path(policy), diff)
    for check in checks:
        assert run(check) == 0, capsys.readouterr().err
    with simulate(tmp_path / "mine", noise=no_noise) as simulation:
        monkeypatch.setattr(analyst.client, "started", lambda *_: nullcontext(simulation))
        assert run(query) == 0, capsys.readouterr().err
        report = simulation.federation.query(
            "SELECT sex, COUNT(*) AS n, SUM(weight) AS kg FROM visits GROUP BY sex",
            purpose="health-research",
            epsilon=1,
        )
        seen = b"".join(simulation.everything_seen())
    answer = {}
    for row in report.rows:
        n, kg = row["n"], row["kg"]
        assert isinstance(n, Estimate)
        assert isinstance(kg, Estimate)
        answer[row["sex"]] = (n.value, round(Decimal(str(kg.value)), 2))
    truth = {sex: (count, total) for sex, count, total in duckdb.execute(POOLED).fetchall()}
    assert answer == truth
    assert len(truth) == 2
    for hidden in (b"Weight (lb)", b"grams", b"Patient No", b"0.4536"):
        assert hidden not in seen


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, Path]]:
    made = []
    for silo in SILOS:
        file = tmp_path / f"{silo}.csv"
        file.write_text("person,Größe (cm),sex,smoker,visited\nxq7731,167,mauve,true,2024-05-06\n")
        made.append((silo, file))
    return made


def test_a_draft_holds_no_value_of_the_data(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    for policy in new(tmp_path / "out", files, None, ["person"], "ana", NOW):
        text = policy.read_text()
        assert not [value for value in ("xq7731", "167", "mauve", "2024-05-06") if value in text]
        assert (policy.parent / "north.csv").read_bytes() == files[0][1].read_bytes()


def test_the_same_schema_gives_the_same_draft_whatever_the_values(
    tmp_path: Path, files: list[tuple[str, Path]]
) -> None:
    (tmp_path / "south.csv").write_text("person,Größe (cm),sex,smoker,visited\nb,-5,x,false,1999-01-01\nc,9,y,true,\n")
    north, south, _ = (
        policy.read_text().replace(policy.parent.name, "silo")
        for policy in new(tmp_path / "out", files, "t", ["person"], "ana", NOW)
    )
    assert north == south


def test_a_federation_on_one_machine_is_in_one_place(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    for policy in new(tmp_path / "out", files, None, ["person"], "ana", NOW, "NO"):
        text = tomllib.loads(policy.read_text())
        assert (text["silo"]["jurisdiction"], text["analysts"]["ana"]["jurisdiction"]) == ("NO", "NO")
    roster = unverified((tmp_path / "out" / "roster.signed").read_bytes(), Roster)
    assert roster.silo_jurisdictions == dict.fromkeys(SILOS, "NO")
    assert list(roster.aggregator_jurisdictions.values()) == ["NO"]


def test_a_draft_says_line_by_line_what_to_fill_in(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    todo = new(tmp_path / "out", files, None, [], "ana", NOW)
    for policy, entries in todo.items():
        with pytest.raises(PolicyFileError) as caught:
            load(policy)
        lines = caught.value.message.splitlines()
        assert len(lines) == len(entries)
        assert all(": fill in " in line for line in lines)
        text = policy.read_text().splitlines()
        for line in lines:
            assert "FILL IN" in text[int(line.removeprefix(f"{policy}:").partition(":")[0]) - 1]
    assert "privacy_unit.id_column" in entries


def test_names_that_a_policy_cannot_carry_are_cleaned(tmp_path: Path) -> None:
    files = []
    for silo in SILOS:
        file = tmp_path / f"{silo} data.csv"
        file.write_text('id,"a b","A-B","2nd ""x""",größe,a_b\n1,2,3,4,5,6\n')
        files.append((silo, file))
    policy, *_ = new(tmp_path / "out", files, None, ["id"], "ana", NOW)
    text = policy.read_text()
    columns = re.findall(r"\[sources\.north_data\.columns\.(\w+)\]\nfrom = (.*)", text)
    assert columns == [
        ("id", '"id"'),
        ("a_b", '"a b"'),
        ("a_b_2", '"A-B"'),
        ("column_2nd_x", r'"2nd \"x\""'),
        ("gr_e", '"größe"'),
        ("a_b_3", '"a_b"'),
    ]


@pytest.mark.parametrize("kind", ["TIME", "INTEGER[]"])
def test_types_that_a_policy_cannot_carry_are_left_out(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a.parquet"
    duckdb.execute(f"COPY (SELECT 1 AS id, NULL::{kind} AS odd) TO '{file}'")
    policy, *_ = new(tmp_path / "out", [(silo, file) for silo in SILOS], None, ["id"], "ana", NOW)
    text = policy.read_text()
    assert '# left out, as a policy cannot carry it: column "odd"' in text
    assert 'uri  = "a.parquet"' in text


THREE = "--silo north=north.csv --silo south=south.csv --silo west=west.csv"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("out --silo north=north.csv --silo south=south.csv", "2 silos, at least 3 are needed"),
        (f"out {THREE} --silo east=east.csv", "silo 'east': there is no file east.csv"),
        (f"out {THREE} --silo north=west.csv", "the silo 'north' is named twice"),
        (f"out {THREE} --silo aggregator=west.csv", "'aggregator' cannot be the name of a silo"),
        (f"out {THREE} --silo a/b=west.csv", "'a/b' cannot be the name of a silo"),
        (f"out {THREE} --silo west", "argument --silo: 'west' is not NAME=FILE"),
        (f"out {THREE} --id nobody", "silo 'north': north.csv has no column 'nobody' (found: person, "),
        (f"out {THREE} --id person --id sex", "silo 'north': north.csv has more than one column 'person' or 'sex'"),
        (f"out {THREE} --table 'my table'", "'my table' cannot be the name of a table"),
        (f"out {THREE} --analyst 'a b'", "'a b' cannot be the name of an analyst"),
        (f". {THREE}", ". is there and not empty"),
        (f"north.csv {THREE}", "north.csv is there and not empty"),
        (f"out {THREE} --silo east=notes.txt", "silo 'east': notes.txt is neither .csv nor .parquet"),
        (f"out {THREE} --silo east=broken.parquet", "silo 'east': broken.parquet cannot be read as parquet"),
        ("out", "the following arguments are required: --silo"),
    ],
)
def test_an_error_is_one_line_and_one_hint_and_leaves_nothing(
    arguments: str,
    problem: str,
    files: list[tuple[str, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("a")
    Path("broken.parquet").write_text("a")
    assert run(f"consilo new {arguments}") == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"consilo: error: {problem}")
    assert hint.startswith("consilo: hint: ")
    assert not Path("out").exists()
    assert not Path("consilo.toml").exists()


def test_no_files_are_read_before_the_names_are_right(tmp_path: Path) -> None:
    with pytest.raises(AnalystError, match="at least 3"):
        new(tmp_path / "out", [("a", tmp_path / "none.csv")], None, [], "ana", NOW)
