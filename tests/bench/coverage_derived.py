"""How often shown intervals hold the truth: those of what is computed after the answer, and of rows that noise picked.

Each question is answered anew with fresh noise; all groups and shapes of data count together. What each question has
goes to standard error.

Run: python -m tests.bench.coverage_derived
"""

import sys
import tempfile
from pathlib import Path

from tests.bench.figures import publish
from tests.questions.coverage import DERIVED, PICKED, SHAPES, Covered, derived_runs, silo

ANSWERS = 50  # of each question, for each shape of data


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind, questions in (("derived", [(one, None) for one in DERIVED]), ("picked", list(PICKED))):
            shares = []
            for seed, (question, truth) in enumerate(questions):
                whole = Covered()
                for shape in SHAPES:
                    whole.merge(derived_runs(silo(Path(folder), shape), question, ANSWERS, seed, truth))
                held, shown = sum(whole.held.values()), sum(whole.shown.values())
                shares.append(100 * held / shown)
                print(f"{shares[-1]:5.1f} % of {shown}: {question}", file=sys.stderr, flush=True)
                print(*whole.impossible[:1], sep="\n", end="", file=sys.stderr)
            publish(f"covered_{kind}_worst", [min(shares)], "%")
            publish(f"covered_{kind}", shares, "%", aim="at least 94")


if __name__ == "__main__":
    main()
