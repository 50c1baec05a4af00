"""From CSV files of several silos and the name of a label to a run that works; wrong inputs are each a clear line."""

import re
import shlex
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import analyst.cli.main
import analyst.client
import silo_node.owner.cli
from policies.document.load import load
from tests.cases import every
from tests.harness.simulator import simulate

SILOS = ("alpha", "beta", "delta", "gamma")
FOUND = " ".join(f"--silo {silo}={silo}.csv" for silo in SILOS) + " --table customers --id customer"
ANSWERS = '--purpose retention --basis legitimate-interest --jurisdiction NO --controller "Shop <a@shop.example>"'
COLUMNS = """\
age = { bounds = [18, 100] }
income = { type = "int", bounds = "FILL IN" }
region = { domain = ["north", "south", "coast"] }
newsletter = { type = "bool" }
visits = { bounds = [0, 50] }
left = { type = "bool", from = "churned" }
plan = { domain = ["basic", "plus", "pro"], roles = ["label"] }
spent = { bounds = [0, 1000] }
"""


def run(command: str) -> int:
    program, *arguments = shlex.split(command)
    return {"consilo": analyst.cli.main.main, "consilo-silo": silo_node.owner.cli.main}[program](arguments)


def write_files() -> None:
    """Write four files; gamma calls the label otherwise, and delta does not tell incomes."""
    numbers = np.random.default_rng(4)
    for silo in SILOS:
        rows = ["customer,age,region,newsletter,visits,left,plan,spent,income"]
        for number in range(120):
            age, visits = int(numbers.integers(18, 91)), int(numbers.integers(0, 41))
            region, plan = (numbers.choice(names) for names in (("north", "south", "coast"), ("basic", "plus", "pro")))
            odds = -1 + 0.02 * age - 0.05 * visits + 0.6 * (region == "coast")
            left, news = int(numbers.logistic() < odds), "yes" if numbers.random() < 0.4 else "no"
            spent = max(0, 20 + 3 * visits + 5 * numbers.normal())
            rows.append(f"{silo}{number},{age},{region},{news},{visits},{left},{plan},{spent:.2f},{age}000")
        text = "\n".join(rows) + "\n"
        text = re.sub(r",[^,\n]*$", "", text, flags=re.M) if silo == "delta" else text
        Path(f"{silo}.csv").write_text(text.replace(",left,", ",churned,") if silo == "gamma" else text)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_files()
    Path("columns.toml").write_text(COLUMNS)
    return tmp_path


def test_the_draft_of_columns_has_the_label_with_its_role(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"consilo new mine {FOUND} --job logistic-regression --label left --draft-columns drafted.toml") == 0
    lines = Path("drafted.toml").read_text().splitlines()
    assert 'left = { type = "bool", roles = ["label"] }  # the label; only alpha, beta, delta' in lines
    assert 'visits = { type = "int", bounds = "FILL IN" }' in lines
    assert "left (alpha, beta, delta), income (alpha, beta, gamma), churned (gamma)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "more", "features"),
    [
        ("logistic-regression", "--label left --held-out 0.25", ["age", "region", "newsletter", "visits", "spent"]),
        ("multinomial-regression", "--label plan", ["age", "region", "newsletter", "visits", "left", "spent"]),
        ("logistic-regression", "--label plan --positive pro --features age,region", ["age", "region"]),
        ("mlp", "--label left", ["age", "region", "newsletter", "visits", "spent"]),
        ("cox", "--part time=spent --part event=left --features age", ["age"]),
        ("kaplan-meier", "--part time=spent --part event=left --part group=region", []),
        ("chi-square", "--label left", ["region", "newsletter"]),
    ],
)
def test_a_newcomer_gets_from_files_to_a_model(
    model: str,
    more: str,
    features: list[str],
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(f"consilo new mine {FOUND} --columns columns.toml --job {model} {more} --exact {ANSWERS}") == 0
    printed = capsys.readouterr()
    assert "fill in" not in printed.out, "nothing is left to be filled in"
    commands = re.findall(r"^  (consilo.*)$", printed.out, re.M)
    assert [command.split()[1] for command in commands] == ["check-policy"] * 4 + ["train"] * 2
    with simulate(shop / "mine") as simulation:
        monkeypatch.setattr(analyst.client, "started", lambda *_: nullcontext(simulation))
        for command in commands:
            assert run(command) == 0, (command, capsys.readouterr())
        said = capsys.readouterr().out
    assert "nobody would refuse it now" in said
    assert "the model is at alpha, beta, delta, gamma" in said
    assert re.findall(r"features = (.*)", Path("mine/job.toml").read_text()) == (
        [str(features).replace("'", '"')] if features else []
    )
    assert not load(shop / "mine/silos/alpha/policy.toml").warnings


def test_a_run_with_noise_costs_half_of_the_lifetime(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = "--job logistic-regression --label left --epsilon 8"
    assert run(f"consilo new mine {FOUND} --columns columns.toml {job} {ANSWERS}") == 0, capsys.readouterr()
    command = re.findall(r"^  (consilo train .* --preview)$", capsys.readouterr().out, re.M)[0]
    with simulate(shop / "mine") as simulation:
        monkeypatch.setattr(analyst.client, "started", lambda *_: nullcontext(simulation))
        assert run(command) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert "nobody would refuse it now" in said
    left, after = map(float, re.findall(r"alpha: .*; rho ([0-9.]+) is left \(lifetime\), ([0-9.]+) after it", said)[0])
    assert 0.5 * left <= after < 0.55 * left
    policy = load(shop / "mine/silos/gamma/policy.toml").policy
    assert policy.sources["customers"].columns["left"].roles == ("label",)
    assert policy.sources["customers"].columns["age"].roles == ("measure", "filter", "feature")
    assert policy.purposes["retention"].computations == ("query", "logistic-regression", "evaluation")
    assert policy.disclosure.release == ("query-result", "model", "metrics")


def test_a_column_of_audits_is_opened_for_them_and_is_no_feature(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = "--job logistic-regression --label left --exact --audit region --audit newsletter"
    assert run(f"consilo new mine {FOUND} --columns columns.toml {job} {ANSWERS}") == 0, capsys.readouterr()
    policy = load(shop / "mine/silos/gamma/policy.toml").policy
    assert policy.sources["customers"].columns["region"].roles == ("feature", "audit")
    assert policy.purposes["retention"].computations == ("logistic-regression", "evaluation", "audit")
    assert 'features = ["age", "visits", "spent"]' in Path("mine/job.toml").read_text()
    said = capsys.readouterr().out
    assert "no features unless --features names them, as audits compare them: region, newsletter" in said


def test_a_column_that_marks_who_is_held_out_is_in_the_job(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marked = COLUMNS.replace('newsletter = { type = "bool" }', 'newsletter = { type = "bool", roles = ["held_out"] }')
    Path("columns.toml").write_text(marked)
    job = "--job logistic-regression --label left --exact"
    assert run(f"consilo new mine {FOUND} --columns columns.toml {job} {ANSWERS}") == 0, capsys.readouterr()
    assert 'column = "newsletter"' in Path("mine/job.toml").read_text()
    assert "newsletter" not in capsys.readouterr().out
    assert run(f"consilo new other {FOUND} --columns columns.toml {job} --held-out 0.25 {ANSWERS}") == 0
    text = Path("other/job.toml").read_text()
    assert "share = 0.25" in text
    assert "column =" not in text


def test_numbers_that_are_0_and_1_at_one_silo_alone_are_not_proposed_as_a_bool(shop: Path) -> None:
    file = Path("alpha.csv")
    file.write_text(re.sub(r"^((?:[^,]*,){4})\d+,", r"\g<1>1,", file.read_text(), flags=re.M))
    assert run(f"consilo new mine {FOUND} --job logistic-regression --label plan --draft-columns drafted.toml") == 0
    lines = Path("drafted.toml").read_text().splitlines()
    assert 'visits = { type = "int", bounds = "FILL IN" }' in lines
    assert any(line.startswith("left = ") and "only 0 and 1" in line for line in lines)


def test_without_answers_few_keys_are_left_to_fill_in(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = "--job linear-regression --label spent --exact --purpose retention"
    assert run(f"consilo new mine {FOUND} --columns columns.toml {job}") == 0
    text = Path("mine/silos/alpha/policy.toml").read_text()
    keys = [line.split("=")[0].strip() for line in text.splitlines() if re.search('= "FILL IN"', line)]
    assert keys == ["controller", "jurisdiction", "contact", "legal_basis"]


WRONG: list[tuple[str, str, str]] = [
    ("--job logistic-regression --label lefft", "no file has a column 'lefft', the label", "did you mean 'left'?"),
    ("--job logistic-regression", "logistic-regression needs a label", "add --label COLUMN"),
    ("--job logistic-regression --label customer", "the label 'customer' says whose row it is", "another label"),
    ("--job logistic-regression --label income", "the label 'income' is not at delta", "say what it is called there"),
    ("--job logistic-regression --label spent", "label 'spent' is number (decimal)", "type into the file of columns"),
    ("--job logistic-regression --label plan", "name its positive value, positive = one of basic", "add --positive VA"),
    (
        "--job linear-regression --label plan",
        "linear-regression takes bool or number; text labels: logi",
        "another --j",
    ),
    ("--job poisson-regression --label spent", "label 'spent' is no count", "write the label's type"),
    ("--job welch-t --label left --features region", "feature 'region' is text", "leave the column out"),
    ("--job logistic-regression --label left --features age,income", "the feature 'income' is not at delta", "open it"),
    ("--job logistic-regression --label left --features ago", "the feature 'ago' is in no file", "leave it out"),
    ("--job logistic-regression --label left --features plan", "the feature 'plan' is closed", "open it"),
    ("--job logistic-regression --label left --label plan", "2 labels, a job has one", "--part"),
    ("--job logistic --label left", "there is no model 'logistic'", "did you mean 'logistic-regression'?"),
    ("--job cox --part time=spent", "cox needs a column for its event", "add --part event=COLUMN"),
    ("--job cox --label left --part time=spent --part event=left", "cox has no label", "leave out --label left"),
    ("--job pca --part time=spent", "pca has no column for 'time'", "leave out --part time="),
    ("--job pca --audit regoin", "no file has a column 'regoin', the column of an audit", "did you mean 'region'?"),
    ("--held-out 0.2", "--held-out is of a job", "add --job MODEL"),
    ("--features age", "--features is of a job", "add --job MODEL"),
    ("--label left", "labels and exact data are for models", "--job MODEL"),
]


@every(("options", "message", "hint"), WRONG)
def test_what_is_wrong_is_said_in_one_line(options: str, message: str, hint: str, shop_once: "Wrong") -> None:
    status, error, hinted = shop_once(options)
    assert status == 1
    assert message in error
    assert hint in hinted
    assert not Path("mine").exists()


Wrong = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def shop_once(shop: Path, capsys: pytest.CaptureFixture[str]) -> Wrong:
    def ask(options: str) -> tuple[int, str, str]:
        status = run(f"consilo new mine {FOUND} --columns columns.toml {options} --exact {ANSWERS}")
        error, hint = capsys.readouterr().err.splitlines()
        return status, error, hint

    return ask


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('left = "FILL IN"', "a column is a table"),
        ('left = { domain = "FILL IN", from = "churned" }', "left: the label stays closed while its line has FILL IN"),
        ('left = { type = "bool", from = "churned", roles = ["measure"] }', 'the label needs the role "label"'),
        ("", "the label 'left' is not at gamma"),
    ],
)
def test_a_line_that_does_not_open_the_label_is_named(
    line: str, message: str, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("columns.toml").write_text(re.sub("^left.*$", line, COLUMNS, flags=re.M))
    job = "--job logistic-regression --label left --exact"
    assert run(f"consilo new mine {FOUND} --columns columns.toml {job} {ANSWERS}") == 1
    assert message in capsys.readouterr().err
    assert not Path("mine").exists()


def test_a_job_needs_a_purpose_and_a_file_of_columns(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"consilo new mine {FOUND} --columns columns.toml --job logistic-regression --label left --exact") == 1
    assert "a job is for a purpose" in capsys.readouterr().err
    assert run(f"consilo new mine {FOUND} --job logistic-regression --label left --exact {ANSWERS}") == 1
    assert "to draft that file, --draft-columns FILE" in capsys.readouterr().err


def test_an_owner_drafts_the_same_from_the_same_file(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--id customer --columns columns.toml --computations logistic-regression --label left --exact"
    assert run(f"consilo-silo init gamma.csv --silo gamma --table customers {options} {ANSWERS}") == 0
    assert "nothing to fill in" in capsys.readouterr().out
    source = load(shop / "policy.toml").policy.sources["customers"]
    assert source.release == "exact"
    assert source.columns["left"].from_ == "churned"
    assert source.columns["left"].roles == ("label",)
    assert source.columns["age"].roles == ("feature",)


def test_without_a_file_of_columns_the_label_is_drafted_with_what_is_to_be_filled_in(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--id customer --computations logistic-regression --exact"
    for label, drafted in (("left", ""), ("plan", 'domain = "FILL IN"'), ("spent", 'bounds = "FILL IN"')):
        assert run(f"consilo-silo init alpha.csv {options} --label {label} --out {label}.toml {ANSWERS}") == 0
        text = Path(f"{label}.toml").read_text().partition(f"columns.{label}]")[2].partition("\n\n")[0]
        assert 'roles = ["label"]' in text
        assert drafted in text
        assert ("FILL IN" in text) == bool(drafted)
