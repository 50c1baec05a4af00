"""What twenty statements in one request cost, beside one of them: the processor's time of a whole question.

Planning, the request, four silos that judge it, read and code their rows, compute and add noise, the aggregator, and
the answer with its intervals, all in one process. The twenty differ in filter or groups, so that they share no figure.

Run: python -m tests.bench.statements
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from analyst.client import Federation
from analyst.demo.retailers import SECTOR
from analyst.demo.sector import found_sector
from tests.bench.figures import publish
from tests.harness.simulator import simulate

ONE = "SELECT quarter, COUNT(*) AS n, AVG(amount) AS mean FROM purchases GROUP BY quarter"
COUNT = 20
EPSILON = 1.0
RUNS = 7


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "federation"
        found_sector(home, SECTOR)
        for policy in home.glob("silos/*/policy.toml"):
            text = policy.read_text()
            policy.write_text(text.replace("lifetime    = { rho = 1.0 }", "lifetime    = { rho = 100 }"))
        with simulate(home) as simulation:
            single, several = list[float](), list[float]()
            cpu_s(simulation.federation, ONE)  # the first loads what all need
            for _ in range(RUNS):
                single.append(1000 * cpu_s(simulation.federation, ONE))
                several.append(1000 * cpu_s(simulation.federation, "; ".join(statements())))
    publish("one_statement_cpu", single, "ms")
    publish(f"{COUNT}_statements_cpu", several, "ms", "one statement", single, "ratio 3")


def cpu_s(federation: Federation, sql: str) -> float:
    """Return the processor's time of a question, in seconds."""
    began = time.process_time()
    federation.query(sql, purpose=SECTOR.purpose, epsilon=EPSILON, new=True)
    return time.process_time() - began


def statements() -> Iterator[str]:
    """Yield statements of four kinds, each with another filter."""
    for place in range(COUNT):
        least = place // 4
        yield (
            f"SELECT quarter, COUNT(*) AS n, AVG(amount) AS mean FROM purchases WHERE cds > {least} GROUP BY quarter",
            f"SELECT cds // 2 AS p, COUNT(*) AS n, SUM(amount) AS s FROM purchases WHERE cds > {least} GROUP BY p",
            f"SELECT COUNT(*) AS n FROM purchases WHERE cds <= {least}",
            f"SELECT quarter, COUNT(DISTINCT customer_id) AS n FROM purchases WHERE cds <> {least} GROUP BY quarter",
        )[place % 4]


if __name__ == "__main__":
    main()
