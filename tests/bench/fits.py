"""How far the models of exact families are from a fit of the pooled rows by another program, and rounds to get there.

Run: python -m tests.bench.fits
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from analyst.training.metrics import auc_of
from policies.requests.scores import FINE
from silo_node.training.families.k_means import in_units, spread
from silo_node.training.family import Fitted
from tests.bench.figures import publish
from tests.harness.families import divided, examples, part, run, task
from tests.harness.public_rows import PIXELS, PublicRows, arrests, diabetes, digits, loan_approvals, patients

TIGHT = "0.000000000001"  # the tolerance of both
Matrix = npt.NDArray[np.float64]


def main() -> None:
    import statsmodels.api as sm

    of = diabetes()
    regression("linear-regression", "ols_diabetes", of, 4, sm.OLS(of.outcome, sm.add_constant(of.inputs)).fit())
    of = loan_approvals()
    logit = sm.Logit(of.outcome, sm.add_constant(of.inputs)).fit(disp=0, tol=1e-14, maxiter=50)
    regression("logistic-regression", "logistic_loanapp", of, 5, logit)
    of = arrests()
    counts = sm.GLM(of.outcome, sm.add_constant(of.inputs), family=sm.families.Poisson()).fit(tol=1e-14)
    regression("poisson-regression", "poisson_crime1", of, 5, counts)
    cox()
    eigenvalues()
    centres()
    areas()


def regression(family: str, figure: str, of: PublicRows, silos: int, fit: Any) -> None:
    own = task(family, of.columns, of.label, of.features, tolerance=TIGHT)
    _, fitted, rounds = run(own, divided(examples(own, of.rows), silos))
    published(f"{figure}_{silos}_silos", fitted, fit, rounds, "statsmodels on the pooled rows", "1e-8")


def cox() -> None:
    import statsmodels.duration.api as smd

    columns, rows = patients()
    features = ("age", "sex", "ecog", "loss")
    own = task("cox", columns, None, features, {"time": "days", "event": "died"}, tolerance=TIGHT, ties="efron")
    whole = examples(own, rows)
    silos = [part(whole, np.flatnonzero(rows["inst"] == place)) for place in sorted(set(rows["inst"]))]
    _, fitted, rounds = run(own, silos)
    inputs = np.column_stack([rows[name] for name in features]).astype(float)
    times = rows["days"].astype(float)
    model = smd.PHReg(times, inputs, status=rows["died"], strata=rows["inst"], ties="efron")
    published(f"cox_ncctg_{len(silos)}_strata", fitted, model.fit(tol=1e-14), rounds, "statsmodels' PHReg", "1e-7")


def published(figure: str, fitted: Fitted, fit: Any, rounds: int, baseline: str, aim: str) -> None:
    """Publish the largest difference of coefficients and errors, each by max(1, its value), and the rounds."""
    found = np.array([line.values[:2] for line in fitted.listings[0].lines], float)
    expected = np.column_stack([fit.params, fit.bse])
    publish(figure, [float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())], "", baseline, aim=aim)
    publish(f"{figure}_rounds", [rounds], "rounds")


def areas() -> None:
    """Publish how far the area under the curve of scores in bins is from that of the scores."""
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    of, cancer, numerals = loan_approvals(), load_breast_cancer(), load_digits()
    for name, inputs, outcome in (
        ("loanapp", of.inputs, of.outcome == 1),
        ("breast_cancer", cancer.data, cancer.target == 1),
        ("digits", numerals.data, numerals.target > 4),
    ):
        standard = StandardScaler().fit_transform(inputs)
        scores = LogisticRegression(max_iter=5000).fit(standard, outcome).predict_proba(standard)[:, 1]
        counts = (np.bincount(FINE.places(scores[outcome == one]), minlength=FINE.count) for one in (False, True))
        negatives, positives = (one.astype(np.float64) for one in counts)
        found = abs(auc_of(negatives, positives) - roc_auc_score(outcome, scores))
        publish(f"auc_512_bins_{name}", [found], "", "scikit-learn on the scores", aim="0.002")


def eigenvalues() -> None:
    columns, rows, inputs = digits()
    own = task("pca", columns, None, PIXELS, components="64")
    _, fitted, _ = run(own, divided(examples(own, rows), 4))
    found = [line.values[0] for one in fitted.listings if one.name == "eigenvalues" for line in one.lines]
    expected = np.linalg.eigvalsh(np.cov(inputs.T))[::-1][: len(found)]
    publish("pca_digits_4_silos", [float(np.abs(np.array(found, float) - expected).max())], "",
            "numpy on the pooled rows", aim="1e-8")  # fmt: skip


def centres() -> None:
    """Publish the largest difference to Lloyd's algorithm on the pooled rows, from the same points in the bounds."""
    columns, rows, inputs = digits()
    own = task("k-means", columns, None, PIXELS, clusters="10", rounds=200)
    start = 16 * spread(10, len(PIXELS))  # of pixels from 0 to 16
    state, _, rounds = run(own, divided(examples(own, rows), 4))
    found: Matrix = in_units(own, state)
    publish("k_means_digits_4_silos", [float(np.abs(found - lloyd(inputs, start)).max())], "",
            "Lloyd's algorithm on the pooled rows", aim="1e-8")  # fmt: skip
    publish("k_means_digits_4_silos_rounds", [rounds], "rounds")


def lloyd(inputs: Matrix, centres: Matrix) -> Matrix:
    at = centres
    while True:
        nearest = ((inputs[:, None] - at) ** 2).sum(2).argmin(1)
        there = [nearest == place for place in range(len(at))]
        moved = np.array([inputs[own].mean(0) if own.any() else at[place] for place, own in enumerate(there)])
        if (moved == at).all():
            return at
        at = moved


if __name__ == "__main__":
    main()
