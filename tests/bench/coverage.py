"""How often shown intervals hold the truth: of every function, and of what is computed after the answer.

The worst case of each question goes to standard error. Where a cell is shown in fewer than a quarter of the answers, it
is left out: docs/intervals.md, section 8.

Run: python -m tests.bench.coverage
"""

import sys
import tempfile
from pathlib import Path

from tests.bench.figures import publish
from tests.questions.coverage import CORE, DERIVED, PICKED, SHAPES, Covered, core_runs, derived_runs, silo

RUNS, ANSWERS = 10_000, 120


def main() -> None:
    worst: dict[str, list[float]] = {"core": [], "derived": [], "picked": []}
    with tempfile.TemporaryDirectory() as folder:
        for shape in SHAPES:
            of = silo(Path(folder), shape)
            for seed, question in enumerate(CORE):
                worst["core"].append(told(shape, question, core_runs(of, question, RUNS, seed), RUNS // 4))
            for kind, questions in (("derived", [(one, None) for one in DERIVED]), ("picked", list(PICKED))):
                for seed, (question, truth) in enumerate(questions):
                    found = derived_runs(of, question, ANSWERS, 100 + seed, truth)
                    worst[kind].append(told(shape, question, found, ANSWERS // 4))
    for kind, shares in worst.items():
        known = [share for share in shares if share == share]
        publish(f"covered_{kind}_worst", [min(known)], "%", aim="at least 94" if kind == "core" else None)
        publish(f"covered_{kind}", known, "%", aim="at least 94")


def told(shape: str, question: str, found: Covered, least_shown: int) -> float:
    """Return the share, in per cent, of the group whose intervals hold least often."""
    group, share = found.worst(least_shown)
    print(f"{100 * share:5.1f} %  {shape}, {group}: {question}", file=sys.stderr, flush=True)
    for one in found.impossible[:1]:
        print(f"  beyond what is possible: {one}", file=sys.stderr)
    return 100 * share


if __name__ == "__main__":
    main()
