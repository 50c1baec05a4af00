"""How far one person changes what a silo contributes, beside what the price assumes: by brute force.

It ends with an error at the first change that is greater. Run: python -m tests.bench.sensitivity
"""

import tempfile
from pathlib import Path

from tests.bench.figures import publish
from tests.questions.sensitivity import KINDS, search

EXAMPLES = 160  # data sets, of which every one makes pairs for each question and each bound


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            found = search(Path(folder), kind, EXAMPLES)
            name = kind.replace(" ", "_")
            publish(f"neighbours_{name}", [found.pairs], "pairs", aim="at least 10000")
            publish(f"neighbours_{name}_reached", [100 * found.of_price], "% of the price", aim="100")


if __name__ == "__main__":
    main()
