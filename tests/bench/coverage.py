"""How often shown intervals hold the truth: those of every aggregate, over 10,000 draws of its noise.

The worst case of each goes to standard error; a group that less than a quarter of the answers show is left out.

Run: python -m tests.bench.coverage
"""

import sys
import tempfile
from pathlib import Path

from tests.bench.figures import publish
from tests.questions.coverage import CORE, SHAPES, core_runs, silo

RUNS = 10_000


def main() -> None:
    for shape in SHAPES:
        worst = []
        with tempfile.TemporaryDirectory() as folder:
            of = silo(Path(folder), shape)
            for seed, question in enumerate(CORE):
                found = core_runs(of, question, RUNS, seed)
                group, share = found.worst(RUNS // 4)
                worst.append(100 * share)
                print(f"{100 * share:5.1f} %  {shape}, {group}: {question}", file=sys.stderr, flush=True)
                print(*found.impossible[:1], sep="\n", end="", file=sys.stderr)
        publish(f"covered_{shape}_worst", [min(worst)], "%", aim="at least 94")
        publish(f"covered_{shape}", worst, "%", aim="at least 94")


if __name__ == "__main__":
    main()
