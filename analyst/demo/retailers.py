"""Four record shops that hold 69,659 purchases at CDNOW between them.

Fader and Hardie, Interfaces 31 (2001) S94-S107: every purchase until June 1998 of the 23,570 customers who first bought
in the first quarter of 1997; the file travels inside the `lifetimes` package. CDNOW was one shop: the split into four
silos is artificial. It is by customer, so that all rows of a customer are at one silo.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analyst.demo.sector import Sector, data_file

RETAILERS = ("arcade", "bazaar", "corner", "depot")
_MONTHS_A_QUARTER = 3

# At most 100 rows of a customer count, and 250 USD of a purchase. So few are cut that what the noise adds hides it, and
# the intervals hold for the truth; the noise is 100 times that for one row. With 20 rows they missed most true counts.
MAX_ROWS = 100

# CDs of a purchase are 1 to 20: their mean and their variance are so little off, at epsilon 1 and at 2, that the noise
# hides it. Up to 10 the variance is 3.5 in place of 5.4, and its interval misses it; up to 40 its noise is threefold.
_COLUMNS = """\
customer_id = { type = "string", class = "identifier", roles = [] }
quarter     = { type = "string", class = "internal", roles = ["dimension", "filter"], \
domain = ["1997Q1", "1997Q2", "1997Q3", "1997Q4", "1998Q1", "1998Q2", "unknown"], unknown = "unknown" }
cds         = { type = "int", class = "internal", roles = ["measure", "filter"], bounds = [1, 20], \
can_be_missing = false }
amount      = { type = "decimal", class = "confidential", roles = ["measure", "filter"], bounds = [0, 250], \
step = 0.01, unit = "USD", can_be_missing = false }
"""

LIMITED = "advertising"
_LIMITED = f"""
[purposes.{LIMITED}]
legal_basis  = "legitimate-interest"
computations = ["query"]

[[budget.limits]]                      # pace of one purpose, beside the lifetime limit
purpose         = "{LIMITED}"
window          = "calendar-month"
rho             = 0.1
per_analyst_rho = 0.03
"""


def read_purchases() -> Any:
    """Return the purchases as a pyarrow.Table with the demo's column names; raises AnalystError."""
    lines = data_file("lifetimes", "datasets", "CDNOW_master.txt").read_text().splitlines()[1:]
    customers, dates, cds, amounts = zip(*(line.split() for line in lines), strict=True)
    return pa.table(
        {
            "customer_id": pa.array(customers),
            "quarter": pa.array([_quarter(date) for date in dates]),
            "cds": pc.cast(pa.array(cds), pa.int16()),
            "amount": pc.cast(pa.array(amounts), pa.decimal128(8, 2)),
        }
    )


def _quarter(date: str) -> str:
    """Return the quarter of a date such as 19970112."""
    return f"{date[:4]}Q{(int(date[4:6]) - 1) // _MONTHS_A_QUARTER + 1}"


def parts(purchases: Any) -> dict[str, Any]:
    """Return each shop's rows: every fourth customer, with all purchases."""
    homes = [int(customer) % len(RETAILERS) for customer in purchases["customer_id"].to_pylist()]
    return {shop: purchases.filter(pa.array([home == index for home in homes])) for index, shop in enumerate(RETAILERS)}


SECTOR = Sector(
    kind="retailer",
    silos=RETAILERS,
    house="Records",
    jurisdiction="US",
    policy="purchases",
    entity="customer",
    table="purchases",
    columns=_COLUMNS,
    purpose="market-insight",
    terms='legal_basis  = "legitimate-interest"',
    max_rows=MAX_ROWS,
    min_cohort=2600,  # in rows: five deviations of the noise of the question
    read=read_purchases,
    split=parts,
    headline="Four record shops, one question, no purchase record moves",
    intro="{rows} real purchases at CDNOW; their split into four silos is artificial.",
    title="{rows} purchases at CDNOW, 1997 and 1998",
    question="SELECT quarter, COUNT(amount), AVG(amount) FROM purchases GROUP BY quarter",
    epsilon=2,
    decimals=1,
    refused="SELECT FLOOR(amount / 2) AS f, COUNT(*) AS n FROM purchases GROUP BY f",
    next_question="SELECT quarter, AVG(cds) AS cds FROM purchases GROUP BY quarter",
    more_purposes=(LIMITED,),
    sections=_LIMITED,
)
