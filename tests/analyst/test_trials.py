"""How much a person writes to set up a trial: every line of a file and every option of a command is counted."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import analyst.cli.main
from analyst.reports.estimates import Estimate
from analyst.training.job import first_request, read_job
from policies.document.load import load
from policies.requests.logistic import LogisticStep
from tests.harness.simulator import Simulation, no_noise, simulate

_ROWS = 300


@dataclass(frozen=True, slots=True)
class Trial:
    """What a person writes: the options of `consilo new`, and the lines of a file of columns."""

    options: str
    columns: str = ""

    @property
    def edits(self) -> int:
        lines = [line for line in self.columns.splitlines() if line.strip() and not line.startswith("#")]
        return len(re.findall(r"(?:^|\s)--\w", self.options)) + len(lines)


def write(file: str, head: Sequence[str], rows: Iterator[Sequence[object]], delimiter: str = ",", **form: str) -> None:
    text = "\n".join(delimiter.join(map(str, cells)) for cells in (head, *rows)) + "\n"
    Path(file).write_bytes(text.encode(form.get("encoding", "utf-8")))


def comma(number: float, decimals: int = 2) -> str:
    return f"{number:_.{decimals}f}".replace(".", ",").replace("_", ".")


def write_banks() -> None:
    """Three banks: one table of loans in three dialects, whose columns are partly called otherwise."""
    schools, regions = ("school", "college", "university"), ("coast", "inland")

    def row(n: int) -> tuple[int, int, float, float, float, int]:
        return 18 + n % 60, 1000 + 37 * n % 9000, round(n % 50 + 0.25, 2), 500.5 * (1 + n % 40), 3.5 + n % 5, n % 120

    def north() -> Iterator[Sequence[object]]:
        for n in range(_ROWS):
            age, income, ratio, amount, rate, months = row(n)
            day = f"20{10 + n % 10}-{1 + n % 12:02}-{1 + n % 28:02}"
            truth, words = "yes" if n % 7 == 0 else "no", (f"N{n:05}", "fm"[n % 2], schools[n % 3], regions[n % 2])
            yield *words, age, income, ratio or "NA", amount, rate, months, n % 4, truth, day

    def south() -> Iterator[Sequence[object]]:
        for n in range(_ROWS):
            age, income, ratio, amount, rate, months = row(n + 11)
            day = f"{1 + n % 28:02}.{1 + n % 12:02}.20{10 + n % 10}"
            words = f"S{n:05}", "wm"[n % 2], schools[n % 3], ("küste", "inland")[n % 2]
            numbers = age, comma(income), comma(ratio), comma(amount), comma(rate), months, n % 4
            yield *words, *numbers, "ja" if n % 7 == 0 else "nein", day

    def west() -> Iterator[Sequence[object]]:
        for n in range(_ROWS):
            age, income, ratio, amount, rate, months = row(n + 23)
            words = n + 1, ("female", "male")[n % 2], schools[n % 3], regions[n % 2]
            yield *words, age if n % 9 else "", income, ratio, int(amount), rate, months, n % 4, int(n % 7 == 0), 2010

    names = ["customer", "gender", "education", "region", "age", "income", "debt_ratio", "amount", "rate", "months"]
    write("north.csv", [*names, "cards", "defaulted", "opened"], north())
    german = ["kunde", "Sex", "education", "region", "Alter", "Einkommen (EUR)", "debt_ratio", "Betrag", "Zins"]
    write("south.csv", [*german, "months", "cards", "Ausfall", "opened"], south(), ";", encoding="cp1252")
    english = ["customer", "sex", "education", "region", "age", "income", "debt_ratio", "amount", "rate", "tenure"]
    write("west.csv", [*english, "cards", "defaulted", "year"], west(), "\t")


BANKS = Trial(
    "--silo north=north.csv --silo south=south.csv --silo west=west.csv --id customer --id kunde --jurisdiction NO"
    " --controller 'Bank trial <trial@bank.example>' --purpose fair-lending --basis legal-obligation --epsilon 8"
    " --columns columns.toml",
    """\
age = { bounds = [18, 100], unit = "year", from = "Alter" }
income = { bounds = [0, 20000], from = "Einkommen (EUR)", scale = { west = 1.1 } }
debt_ratio = { bounds = [0, 100] }
amount = { bounds = [0, 50000], step = 1, from = "Betrag" }
rate = { bounds = [0, 30], from = "Zins" }
months = { bounds = [0, 360], unit = "month", from = "tenure" }
sex = { domain = ["f", "m"], from = "gender", values = { south = { w = "f" }, west = { female = "f", male = "m" } } }
education = { domain = ["school", "college", "university"] }
defaulted = { type = "bool", from = "Ausfall" }
""",
)


def write_clinics() -> None:
    """Four clinics: a heart study whose columns have the same names, and cells that are written in several ways."""
    names = ["patient", "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"]
    for place, (silo, delimiter, missing) in enumerate(
        (("basel", ";", "?"), ("budapest", ",", ""), ("cleveland", ",", "NA"), ("valencia", "\t", "-9"))
    ):

        def rows(place: int = place, missing: str = missing) -> Iterator[Sequence[object]]:
            for n in range(150):
                m = n * (place + 3)
                numbers = 30 + m % 45, m % 2, 1 + m % 4, 100 + m % 80, missing if n % 11 == 0 else 150 + m % 200
                more = n % 5 // 4, m % 3, 90 + m % 100, n % 3 // 2, f"{m % 40 / 10:.1f}", 1 + m % 3
                yield f"{place}-{n:04}", *numbers, *more, missing if n % 13 == 0 else m % 4, int(m % 5 > 2)

        write(f"{silo}.csv", [*names, "slope", "ca", "num"], rows(), delimiter)


CLINICS = Trial(
    "--silo basel=basel.csv --silo budapest=budapest.csv --silo cleveland=cleveland.csv --silo valencia=valencia.csv"
    " --id patient --jurisdiction CH --controller 'Heart study <study@heart.example>' --purpose heart-research"
    " --basis public-task --epsilon 8 --computations query,logistic-regression --columns columns.toml",
    """\
age = { bounds = [0, 110], unit = "year" }
sex = { type = "bool" }
cp = { domain = [1, 2, 3, 4, 0], unknown = 0 }
trestbps = { bounds = [60, 250], unit = "mmHg" }
chol = { bounds = [80, 600], missing = { valencia = ["", "-9"] } }
fbs = { type = "bool" }
restecg = { domain = [0, 1, 2, 9], unknown = 9 }
thalach = { bounds = [50, 230] }
exang = { type = "bool" }
oldpeak = { bounds = [0, 10], step = 0.1 }
slope = { bounds = [1, 3] }
ca = { bounds = [0, 4], missing = { valencia = ["", "-9"] } }
num = { type = "bool", roles = ["label"] }
""",
)
JOB = """\
schema = "consilo-job/1"
model = "logistic-regression"
table = "basel"
purpose = "heart-research"
label = "num"
features = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca"]
steps = 20
learning_rate = 1.0
epsilon = 4
clip = 3
"""


@contextmanager
def founded(trial: Trial, capsys: pytest.CaptureFixture[str]) -> Iterator[Simulation]:
    Path("columns.toml").write_text(trial.columns)
    status = analyst.cli.main.main(["new", "trial", *shlex.split(trial.options)])
    told = capsys.readouterr()
    assert status == 0, told.err
    assert "fill in" not in told.out
    for policy in Path("trial/silos").glob("*/policy.toml"):
        assert all("disclosure.min_silos" in line for line in load(policy).warnings), "three have no spare"
    with simulate(Path("trial"), noise=no_noise) as simulation:
        yield simulation


@pytest.fixture(autouse=True)
def in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def value(found: object) -> float:
    assert isinstance(found, Estimate)
    assert found.value is not None
    return float(found.value)


def test_a_trial_of_banks_takes_twenty_edits(capsys: pytest.CaptureFixture[str]) -> None:
    write_banks()
    assert BANKS.edits <= 20
    with founded(BANKS, capsys) as simulation:
        report = simulation.federation.query(
            "SELECT sex, COUNT(*) AS n, SUM(debt_ratio) AS ratio FROM north GROUP BY sex",
            purpose="fair-lending",
            epsilon=1,
        )
        found = {row["sex"]: (round(value(row["n"])), round(value(row["ratio"]), 2)) for row in report.rows}
    truth = {
        letter: (
            _ROWS // 2 * 3,
            sum(round((n + ahead) % 50 + 0.25, 2) for ahead in (0, 11, 23) for n in range(_ROWS) if n % 2 == odd),
        )
        for odd, letter in enumerate("fm")
    }
    assert found == truth


def test_a_trial_of_clinics_takes_twenty_five_edits(capsys: pytest.CaptureFixture[str]) -> None:
    write_clinics()
    assert CLINICS.edits <= 25
    Path("job.toml").write_text(JOB)
    with founded(CLINICS, capsys) as simulation:
        request = first_request(simulation.federation, read_job(Path("job.toml")))
        assert isinstance(request.plan, LogisticStep)
        assert request.silos == ("basel", "budapest", "cleveland", "valencia")
        assert {column.name for column in request.table.columns} == {*request.plan.features, "num"}
        report = simulation.federation.query(
            "SELECT COUNT(*) AS n, SUM(exang) AS pain FROM basel", purpose="heart-research", epsilon=1
        )
    (row,) = report.rows
    assert (round(value(row["n"])), round(value(row["pain"]))) == (600, 200)
