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
from crypto.rounds.bounds import why_infeasible
from crypto.wire import unverified
from federation.members.roster import Roster
from policies.document.answers import Answers
from policies.document.load import load
from policies.domains import hash_of
from policies.errors import PolicyFileError
from tests.cases import every
from tests.harness.simulator import no_noise, simulate

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "own-data.md").read_text()
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
    console = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
    (draft, found, *checks, query), (_, drafted, founded, *_) = (
        re.findall(r"^\$ (.*)", console, re.MULTILINE),
        re.split(r"^\$ .*\n", console, flags=re.MULTILINE),
    )
    assert run(draft) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == drafted
    (file, diff), *more = re.findall(r"`(\S+)`:\n\n```diff\n(.*?)```", PAGE, re.DOTALL)
    assert not more
    change(Path(file), diff)
    assert run(found) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == founded
    assert len(checks) == len(SILOS)
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
    for policy in new(tmp_path / "out", files, None, ["person"], "ana", NOW).todo:
        text = policy.read_text()
        assert not [value for value in ("xq7731", "167", "mauve", "2024-05-06") if value in text]
        assert (policy.parent / "north.csv").read_bytes() == files[0][1].read_bytes()


@pytest.mark.parametrize("head", ["who,größe,seen,smoker,kg", ""])
def test_a_draft_has_marks_of_fixed_lists_and_nothing_else_of_the_cells(
    head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ("xq7731;mauve;13.05.1987;ja;1.717,25", "xq7732;ochre;14.06.1988;nein;NULL", "xq7733;mauve;?;ja;2.818,5")
    for silo in SILOS:
        Path(f"{silo}.csv").write_text("\n".join([head.replace(",", ";"), *rows]).strip() + "\n")
    options = f"{THREE} --draft-columns columns.toml"
    assert run(f"consilo new out {options}") == 0, capsys.readouterr().err
    for policy in new(tmp_path / "out", [(silo, Path(f"{silo}.csv")) for silo in SILOS], "t", [], "ana", NOW).todo:
        text = policy.read_text() + Path("columns.toml").read_text() + capsys.readouterr().out
        assert 'csv = { delimiter = ";"' in text
        assert 'missing = ["", "NULL", "?"]' in text
        assert 'dates = "%d.%m.%Y"' in text
        assert 'true = ["ja"]' in text
        for value in re.split(r"[;\n]", "\n".join(rows)):
            assert value in ("ja", "nein", "NULL", "?") or value not in text


def test_the_same_schema_gives_the_same_draft_whatever_the_values(
    tmp_path: Path, files: list[tuple[str, Path]]
) -> None:
    (tmp_path / "south.csv").write_text("person,Größe (cm),sex,smoker,visited\nb,-5,x,false,1999-01-01\nc,9,y,true,\n")
    north, south, _ = (
        policy.read_text().replace(policy.parent.name, "silo")
        for policy in new(tmp_path / "out", files, "t", ["person"], "ana", NOW).todo
    )
    assert north == south


def test_a_federation_on_one_machine_is_in_one_place(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    for policy in new(tmp_path / "out", files, None, ["person"], "ana", NOW, Answers(jurisdiction="NO")).todo:
        text = tomllib.loads(policy.read_text())
        assert (text["silo"]["jurisdiction"], text["analysts"]["ana"]["jurisdiction"]) == ("NO", "NO")
    roster = unverified((tmp_path / "out" / "roster.signed").read_bytes(), Roster)
    assert roster.silo_jurisdictions == dict.fromkeys(SILOS, "NO")
    assert list(roster.aggregator_jurisdictions.values()) == ["NO"]


def test_a_draft_says_line_by_line_what_to_fill_in(tmp_path: Path, files: list[tuple[str, Path]]) -> None:
    todo = new(tmp_path / "out", files, None, [], "ana", NOW).todo
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
    policy, *_ = new(tmp_path / "out", files, None, ["id"], "ana", NOW).todo
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


def test_names_that_give_one_key_are_told_apart_in_the_file_of_columns(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for silo in SILOS:
        Path(f"{silo}.csv").write_text("person,a b,A-B,a_b\n1,2,3,4\n")
    assert run(f"consilo new out {THREE} --id person --draft-columns columns.toml") == 0
    text = Path("columns.toml").read_text().replace('bounds = "FILL IN"', "bounds = [0, 9]")
    assert found_with(text) == 0, capsys.readouterr().err
    assert [column_of("north", key)["from"] for key in ("a_b", "a_b_2", "a_b_3")] == ["a b", "A-B", "a_b"]


@pytest.mark.parametrize("kind", ["TIME", "VARCHAR[]"])
def test_types_that_a_policy_cannot_carry_are_left_out(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a.parquet"
    duckdb.execute(f"COPY (SELECT 1 AS id, NULL::{kind} AS odd) TO '{file}'")
    policy, *_ = new(tmp_path / "out", [(silo, file) for silo in SILOS], None, ["id"], "ana", NOW).todo
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


TABLES = {
    "north": "person,sex,age,kg,smoker,seen,code\n1,f,30,70.5,yes,2024-05-06,0150\n2,m,41,80.25,no,2024-05-07,7\n",
    "south": "person;Sex;age;kg;smoker;seen;extra\n1;f;30;70,5;1;13.05.2024;\n2;m;NA;80;0;14.05.2024;\n",
    "west": "person,gender,age,lb,smoker,seen\n1,f,30.5,150,yes,05/06/2024\n2,f,41,160,yes,05/06/2024\n",
}
OPTIONS = "--purpose care --basis public-task --epsilon 2 --jurisdiction NO --controller 'A <b>' --id person"


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for silo, text in TABLES.items():
        Path(f"{silo}.csv").write_text(text)
    return tmp_path


def found_with(columns: str, options: str = OPTIONS) -> int:
    Path("columns.toml").write_text(columns)
    return run(f"consilo new out {THREE} {options} --columns columns.toml")


def column_of(silo: str, key: str) -> dict[str, object]:
    policy = load(Path(f"out/silos/{silo}/policy.toml")).policy
    return policy.sources["north"].columns[key].model_dump(by_alias=True, exclude_unset=True)


def test_columns_of_one_key_get_one_type_and_the_command_says_why(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"consilo new out {THREE} --id person") == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: age: drafted as decimal for all (int at north, south; decimal at west)",
        "note: smoker: drafted as bool for all (bool at north; int at south; string at west)",
        "note: not at every silo: sex (north, south), kg (north, south), code (north), extra (south), gender (west),"
        " lb (west)",
    ]
    south = Path("out/silos/south/policy.toml").read_text()
    for line in ('csv = { delimiter = ";" }', 'missing = ["", "NA"]', 'decimal = ","', 'dates = "%d.%m.%Y"'):
        assert f"\n{line}" in south
    assert "[sources.north.columns.sex]\nfrom = " in south


def test_the_file_of_columns_is_for_all_drafts(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = """\
sex = { domain = ["f", "m"], from = ["gender"], values = { south = { w = "f" } } }
age = { bounds = [0, 110], step = 1, class = "public" }
kg = { bounds = [30, 200], from = { west = "lb" }, scale = { west = 0.4536 }, roles = ["measure"] }
smoker = { type = "bool" }
seen = { granularity = "month", lookback_days = 3650 }
code = { domain = ["0150", "NA"] }
gender = { type = "string", domain = "FILL IN" }
extra = { bounds = "FILL IN" }
"""
    assert found_with(lines) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "fill in" not in told
    assert "one person may spend rho 0.08" in told
    assert "note: code: not at south, west\n" in told
    assert "note: closed, as their lines have FILL IN: extra\n" in told
    assert column_of("south", "sex") == {
        "from": "Sex",
        "type": "string",
        "class": "confidential",
        "roles": ("dimension", "filter"),
        "domain": ("f", "m", "unknown"),
        "unknown": "unknown",
        "values": {"w": "f"},
    }
    assert column_of("west", "kg") == {
        "from": "lb",
        "type": "decimal",
        "class": "confidential",
        "roles": ("measure",),
        "bounds": (30, 200),
        "step": Decimal("0.01"),
        "scale": Decimal("0.4536"),
    }
    assert "scale" not in column_of("north", "kg")
    assert column_of("west", "age")["step"] == 1
    assert column_of("south", "seen")["dates"] == ("%d.%m.%Y",)
    assert column_of("south", "extra")["roles"] == ()
    for silo in SILOS:
        source = load(Path(f"out/silos/{silo}/policy.toml")).policy.sources["north"]
        assert (source.time_column, source.lookback_days) == ("seen", 3650)
        assert run(f"consilo-silo check-policy out/silos/{silo}/policy.toml") == 0, capsys.readouterr().err


def test_a_text_of_the_domain_is_no_missing_cell(tables: Path) -> None:
    Path("south.csv").write_text("person;land\n1;NA\n2;DE\n")
    assert found_with('land = { domain = ["DE", "NA"] }\n') == 0
    assert column_of("south", "land")["missing"] == ("",)


LONG = "".join(f"A{number:04}\n" for number in range(1500)) + "unknown\n"


def test_a_file_of_values_goes_beside_each_policy_with_its_hash(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("codes").mkdir()
    Path("west.csv").write_text(TABLES["west"].replace("30.5", "30"))
    Path("codes/icd.txt").write_text(LONG.replace("\n", "\r\n"))
    Path("ages.txt").write_text("30\n41\n-1\n")
    lines = """\
sex = { domain_file = "codes/icd.txt", from = ["gender"] }
age = { domain_file = "ages.txt", unknown = -1, roles = ["dimension"] }
"""
    assert found_with(lines) == 0, capsys.readouterr().err
    assert "fill in" not in capsys.readouterr().out
    for silo in SILOS:
        home = Path("out/silos") / silo
        assert (home / "codes/icd.txt").read_text() == LONG
        assert run(f"consilo-silo check-policy {home}/policy.toml") == 0, capsys.readouterr().err
        sex, age = (column_of(silo, key) for key in ("sex", "age"))
        assert (sex["domain_hash"], sex["unknown"], sex["type"]) == (hash_of(LONG.split()), "unknown", "string")
        assert (sex["roles"], age["type"]) == (("dimension", "filter"), "int")


def test_one_silo_takes_the_file_of_values_that_is_there_but_overwrites_no_other(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("icd.txt").write_text("f\nunknown\n")
    right = hash_of(("f", "unknown"))
    Path("columns.toml").write_text(f'sex = {{ domain_file = "icd.txt", domain_hash = "{right}" }}\n')
    command = f"consilo-silo init north.csv --silo north {OPTIONS} --columns columns.toml"
    assert run(command) == 0, capsys.readouterr().err
    assert run("consilo-silo check-policy policy.toml") == 0, capsys.readouterr().err
    Path("away").mkdir()
    Path("away/icd.txt").write_text("m\nunknown\n")
    capsys.readouterr()
    assert run(f"{command} --out away/policy.toml") == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith("away/icd.txt is there with other values")
    assert hint == "consilo-silo: hint: give one of the two files another name"
    assert Path("away/icd.txt").read_text() == "m\nunknown\n"
    assert not Path("away/policy.toml").exists()


@every(
    ("name", "text", "entry", "problem"),
    [
        (
            "none.txt",
            None,
            "",
            "domain_file: none.txt is missing; put a file with one value a line, in UTF-8, beside c",
        ),
        ("a.txt", "f\n\n", "", "domain_file: a.txt:2: an empty line; remove it"),
        ("../a.txt", None, "", "domain_file: ../a.txt lies outside the directory of columns.toml; put the file itself"),
        ("a.txt", "f\nm\n", "", "unknown = None must be a member of domain"),
        ("a.txt", "f\nx\n", 'unknown = "x", domain = ["f"]', "domain_file: the column has a domain too; remove one"),
        ("a.txt", "f\nx\n", 'unknown = "x", type = "bool"', "domain_file: a bool column has no domain; remove domain"),
        ("a.txt", "f\nx\n", 'unknown = "x", type = "int"', "domain_file: a.txt:1: 'f' is no whole number of 64 bits"),
        ("a.txt", "f\nx\n", f'unknown = "x", domain_hash = "sha256:{"0" * 64}"', "domain_hash: a.txt has another hash"),
        ("a.txt", LONG, 'case = "ignore"', 'case: case = "ignore" is for a domain of at most 1000 values'),
    ],
)
def test_a_file_of_values_that_is_no_domain_is_one_line(
    name: str,
    text: str | None,
    entry: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for silo, rows in TABLES.items():
        Path(f"{silo}.csv").write_text(rows)
    if text is not None:
        Path(name).write_text(text)
    line = f'sex = {{ domain_file = "{name}", from = ["gender"]{", " if entry else ""}{entry} }}'
    assert found_with(f"\n{line}\n") == 1
    first, second, *more = capsys.readouterr().err.splitlines()
    assert first.startswith("columns.toml:2: sex")
    assert problem in first
    assert (second.startswith("consilo: error: "), len(more)) == (True, 1)
    assert not Path("out").exists()


def test_a_file_of_values_takes_no_name_of_another_file(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("silo.toml").write_text("f\nunknown\n")
    assert found_with('sex = { domain_file = "./silo.toml", from = "gender" }\n') == 1
    assert "'./silo.toml' has the name of another file of a silo" in capsys.readouterr().err
    assert not Path("out").exists()


@every(
    ("columns", "problems"),
    [
        ("age = { bound = [0, 9] }", ["1: age.bound: unknown key (found 'bound'; did you mean 'bounds')"]),
        ("age = { type = 'int', bounds = [9, 0] }", ["1: age: bounds [9, 0]: low must be below high"]),
        (
            "\nagee = { bounds = [0, 9] }\nseen = { granularity = 'month' }",
            [
                "2: agee: no file has such a column (did you mean 'age'?); say what it is called: from = [...]",
                "3: seen.lookback_days: missing; an open date needs it: how many days back rows are read, such as 3650",
            ],
        ),
        (
            "age = { bounds = [0, 9], scale = { est = 2 } }",
            ["1: age.scale: there is no silo 'est' (known: north, south, west)"],
        ),
        ("person = { domain = ['a'] }", ["1: person: column 'person' of north says whose row it is, and stays closed"]),
        (
            "a = { bounds = [0, 9], from = 'age' }\nage = { bounds = [0, 9] }",
            ["2: age: 'a' takes column 'age' of north"],
        ),
        ("age = { domain = [1, 2] }", ["1: age: unknown = None must be a member of domain"]),
        ("sex = { roles = ['label'], from = 'gender' }", ["1: sex: a label needs bounds or a domain"]),
        ("age = { bounds = [0, 9], lookback_days = 3 }", ["1: age.lookback_days: a decimal column does not tell"]),
        ("seen = { type = 'date', lookback_days = 0 }", ["1: seen.lookback_days: expected a whole number from 1"]),
        (
            "seen = { granularity = 'day', lookback_days = 3650 }",
            ["1: seen.granularity: 3683 periods lie within lookback_days, fewer than 1000 are possible"],
        ),
        ("age = 7", ["1: age: a column is a table, such as { bounds = [0, 110] }"]),
        ("'a b' = { type = 'int' }", ["1: a b: no key of a column: it has a letter"]),
        ("age = {", ["1: not TOML: "]),
    ],
)
def test_problems_of_the_file_of_columns_come_at_once_with_their_lines(
    columns: str,
    problems: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for silo, text in TABLES.items():
        Path(f"{silo}.csv").write_text(text)
    assert found_with(columns) == 1
    *lines, error, _ = capsys.readouterr().err.splitlines()
    assert error.startswith("consilo: error: ")
    for problem in problems:
        assert any(line.startswith(f"columns.toml:{problem}") for line in lines), (problem, lines)
    assert not Path("out").exists()


def test_a_file_of_columns_is_drafted_for_all_silos(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"consilo new out {THREE} {OPTIONS} --columns columns.toml") == 1
    assert "to draft it, give the command with --draft-columns columns.toml" in capsys.readouterr().err
    assert run(f"consilo new out {THREE} {OPTIONS} --draft-columns columns.toml") == 0
    assert not Path("out").exists()
    lines = [line for line in Path("columns.toml").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[:4] == [
        'sex = { type = "string", domain = "FILL IN" }  # only north, south',
        'age = { type = "decimal", bounds = "FILL IN", step = 0.01 }',
        'kg = { type = "decimal", bounds = "FILL IN", step = 0.01 }  # only north, south',
        'smoker = { type = "bool", roles = [] }',
    ]
    assert run(f"consilo new out {THREE} {OPTIONS} --draft-columns columns.toml") == 1
    assert "columns.toml exists" in capsys.readouterr().err
    assert run(f"consilo new out {THREE} {OPTIONS} --columns columns.toml") == 0, capsys.readouterr().err
    for silo in SILOS:
        policy = load(Path(f"out/silos/{silo}/policy.toml")).policy
        assert not [key for key, column in policy.sources["north"].columns.items() if column.roles]


@pytest.mark.parametrize(("number", "missing"), [(3, 0), (4, 0), (5, 1), (9, 1)])
def test_a_draft_leaves_its_silo_beside_two_honest_others_where_there_are_enough(
    tables: Path, number: int, missing: int
) -> None:
    silos = " ".join(f"--silo s{one}=west.csv" for one in range(number))
    Path("columns.toml").write_text("age = { bounds = [0, 110] }\n")
    assert run(f"consilo new mine {silos} {OPTIONS} --columns columns.toml") == 0
    policies = [load(path) for path in Path("mine/silos").glob("*/policy.toml")]
    assert len(policies) == number
    for file in policies:
        protection, least = file.policy.protection, file.policy.disclosure.min_silos
        assert (least, protection.max_colluding, protection.max_missing) == (min(4, number), 1, missing)
        assert why_infeasible(number, least, protection.max_colluding, protection.max_missing) == ""
        assert any("min_silos" in one for one in file.warnings) == (number == 3)


def test_one_silo_drafts_with_the_same_file(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("columns.toml").write_text(
        "kg = { bounds = [30, 200], from = { west = 'lb' }, scale = { west = 0.4536 } }\n"
        "smoker = { type = 'bool', roles = ['label'] }\nage = { bounds = [0, 110] }\n"
    )
    command = f"consilo-silo init west.csv --silo west {OPTIONS} --columns columns.toml --max-rows 30 --max-norm 3"
    assert run(f"{command} --computations query,logistic-regression") == 0, capsys.readouterr().err
    assert "policy.toml: drafted from 6 columns; nothing to fill in\n" in capsys.readouterr().out
    policy = load(Path("policy.toml")).policy
    assert (policy.privacy_unit.max_rows, policy.privacy_unit.max_norm) == (30, 3)
    assert policy.training is not None
    assert policy.training.max_rho_per_run == policy.budget.lifetime.rho
    assert policy.sources["west"].columns["kg"].roles == ("measure", "filter", "feature")
    assert policy.disclosure.min_silos == 4, "how many others there are, nobody knows"
    assert run("consilo-silo check-policy policy.toml") == 0, capsys.readouterr().err


@every(
    ("options", "problem"),
    [
        ("--epsilon 0", "argument --epsilon: found '0', expected a number above 0 and at most 100"),
        ("--epsilon nan", "argument --epsilon: found 'nan', expected a number above 0 and at most 100"),
        ("--max-rows 0", "argument --max-rows: found '0', expected a whole number from 1 to 10000"),
        ("--max-norm 1.5", "argument --max-norm: found '1.5', expected a whole number from 1 to 10000"),
        ("--max-norm 3 --max-rows 3", "max_norm 3 bounds nothing, as 3 rows have no larger norm; leave it out"),
        ("--basis consent", "argument --basis: invalid choice: 'consent'"),
        ("--purpose 'a b'", "argument --purpose: 'a b' cannot be the name of a purpose"),
        ("--computations query,guess", "argument --computations: found 'guess', expected some of query, "),
        (
            "--computations query,neural-network",
            "argument --computations: found 'neural-network', expected some of query",
        ),
        ("--controller ''", "argument --controller: expected a text of 1 to 120 characters"),
        ("--controller '<a@b>'", "--controller '<a@b>' names nobody"),
        ("--jurisdiction nowhere", "argument --jurisdiction: 'nowhere' cannot be a place"),
    ],
)
def test_an_answer_that_cannot_stand_is_refused(
    options: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"consilo new {tmp_path}/out {THREE} {options}") == 1
    assert capsys.readouterr().err.startswith(f"consilo: error: {problem}")


def test_controllers_are_named_for_all_or_for_one(tables: Path) -> None:
    assert found_with("", f"{OPTIONS} --controller 'west=West = East'") == 0
    told = [load(Path(f"out/silos/{silo}/policy.toml")) for silo in ("north", "south")]
    assert {(one.policy.silo.controller, one.policy.silo.contact) for one in told} == {("A", "b")}
    assert 'controller   = "West = East"' in Path("out/silos/west/policy.toml").read_text()


def test_the_file_of_columns_in_the_docs_is_read(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text()
    example = re.search(r"### The file of columns\n.*?```toml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    for silo, age in zip(SILOS, ("age", "Age (years)", "years"), strict=True):
        Path(f"{silo}.csv").write_text(f"person,{age},gender,weight,smoker,seen,died\n1,3,f,5,yes,2024-05-06,no\n")
    assert found_with(example[1], f"{OPTIONS} --computations query,logistic-regression") == 0, capsys.readouterr().err
    assert "note: " not in capsys.readouterr().out
    roles = {key: column_of("west", key)["roles"] for key in ("age", "sex", "smoker", "seen", "died")}
    assert roles == {
        "age": ("measure", "filter", "feature"),
        "sex": ("dimension", "filter", "feature"),
        "smoker": ("measure", "filter", "feature"),
        "seen": ("dimension", "filter"),
        "died": ("label",),
    }
