"""How far an answer is from the truth, and how much of it bounding leaves out: over repeated runs of the core.

Each run draws rows anew, and the noise of all silos many times, as silos do but for the encryption; the figures are
those of `interpret`. The truth is that of all rows, with amounts clamped as the policy clamps them.

Run: python -m tests.bench.queries
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analyst.demo.retailers import SECTOR, read_purchases
from analyst.demo.sector import found_sector
from analyst.reports.estimates import Estimate, Threshold, interpret
from analyst.sql.draft import Planned
from crypto.rounds.opening import OpenedSum
from crypto.rounds.report import StoredReport
from policies.document.load import load
from policies.requests.request import Request
from silo_node.data.answer import added, codings_of, question
from silo_node.data.coded import Rows, Run, coded
from silo_node.data.lots import Lots
from silo_node.data.norms import Owned, within_norm
from tests.bench import curves, medians
from tests.bench.figures import publish
from tests.harness.rows import load_sources, opened
from tests.harness.simulator import no_noise, simulate

QUESTION = "SELECT quarter, COUNT(*) AS n, AVG(amount) AS mean FROM purchases GROUP BY quarter"
EPSILON = 1.0
RUNS, DRAWS = 9, 100  # of rows, and of noise for each
NORM, ROWS = 12, 20  # the bound, and the one of rows that it is compared with
MANY = 10_000  # rows: a bound that leaves none out
BOUND = 200  # USD of a purchase
LARGEST = "1997Q1"
GROUPINGS: Mapping[str, Sequence[str]] = {
    "without_groups": (),
    "by_quarter": ("quarter",),
    "by_quarter_and_cds": ("quarter", "cds"),
}
SHOW_ALL = Threshold(0, False, -math.inf)


class Figure(NamedTuple):
    """A figure of an answer, and half the width of its 95 % interval."""

    value: float
    half_width: float


@dataclass(frozen=True)
class Asked:
    """A question to the demo's retailers, and their rows as numbers."""

    planned: Planned
    request: Request
    opened: OpenedSum  # of one round, in whose place others are put
    rows: Sequence[Rows]  # of each silo

    def answers(self, random: np.random.Generator) -> Iterator[Mapping[str, Mapping[str, Figure]]]:
        """Yield the figures of answers by column and group: rows are drawn once, the noise `DRAWS` times."""
        blocks = self.opened.manifest.terms.blocks
        vectors = added(question(rows, self.request, None, Lots(), None) for rows in self.rows)
        units = np.concatenate([vector << block.scale_bits for vector, block in zip(vectors, blocks, strict=True)])
        # Every silo adds its part of the noise, so that it is enough where some are missing or collude.
        all_parts = len(self.rows) / self.opened.manifest.noise_shares
        deviations = [math.sqrt(int(block.variance) * all_parts) for block in blocks]
        of_slots = np.repeat(deviations, [block.length for block in blocks])
        for _ in range(DRAWS):
            noise = np.rint(random.normal(0, of_slots)).astype(np.int64)
            found, _ = interpret(self.planned, self.request, replace(self.opened, units=units + noise), SHOW_ALL)
            figures: dict[str, dict[str, Figure]] = {"n": {}, "mean": {}}
            for row in found:
                for name, of_groups in figures.items():
                    cell = row[name]
                    assert isinstance(cell, Estimate)
                    if cell.value is not None and cell.low is not None and cell.high is not None:
                        of_groups[str(row["quarter"])] = Figure(cell.value, (cell.high - cell.low) / 2)
            yield figures


def main() -> None:
    truths = true_figures()
    random = np.random.default_rng(1)
    for has_cut, aims in ((False, ("400", "1.8")), (True, ("415", "1.85"))):
        rows, norm = (
            errors_of(max_rows, max_norm, has_cut, truths, random)
            for max_rows, max_norm in ((ROWS, None), (MANY, NORM))
        )
        baseline, cut = f"the same with max_rows {ROWS} alone", "" if has_cut else "_no_cut"
        publish(f"rmse_count_by_quarter{cut}", norm["n"], "rows", baseline, rows["n"], aims[0])
        publish(f"rmse_avg_by_quarter{cut}", norm["mean"], "USD", baseline, rows["mean"], aims[1])
        publish(f"half_width_count_by_quarter{cut}", norm["width"], "rows", baseline, rows["width"])
    for max_rows in (10, ROWS):
        publish(f"kept_max_rows_{max_rows}", kept(max_rows, max_rows, ()), "%")
    for grouping, columns in GROUPINGS.items():
        for max_norm in (6, 10):
            publish(f"kept_{grouping}_max_norm_{max_norm}", kept(MANY, max_norm, columns), "%")
    publish_medians(random)
    publish_curves(random)


def publish_curves(random: np.random.Generator) -> None:
    for shape in curves.SHAPES:
        for name, covered in zip(("", "_least"), curves.coverage(shape, random), strict=True):
            publish(f"survival_covered_{shape}{name}", covered, "%", aim="at least 94")


def publish_medians(random: np.random.Generator) -> None:
    found = medians.median_errors(random)
    tree, flat = ([getattr(one, name) for one in found] for name in ("tree", "flat"))
    publish("median_mean_error", tree, "% of the range", "a flat histogram", flat, "0.2")
    for shape in medians.SHAPES:
        for at in (0.5, 0.99):
            covered = medians.coverage(shape, at, random)
            publish(f"quantile_{at}_covered_{shape}", covered, "%", aim="at least 94")


def kept(max_rows: int, max_norm: int, columns: Sequence[str]) -> list[float]:
    """Return the share of the rows that bounding lets in for a grouping, in per cent, of each run."""
    table = read_purchases().to_pandas()
    places = table["customer_id"].astype("category").cat.codes.to_numpy().astype(np.int64)
    group = table.groupby(list(columns)).ngroup().to_numpy() if columns else np.zeros(len(table), np.int64)
    rows = Owned(places, int(places.max()) + 1, group.astype(np.int64), int(group.max()) + 1)
    drawn = (Lots().of_rows([Run(0, 0, len(table))]) for _ in range(RUNS))
    return [100 * float(within_norm(rows, max_rows, max_norm, lots.__getitem__).mean()) for lots in drawn]


def true_figures() -> Mapping[str, Mapping[str, float]]:
    """Return the figures of all rows by column and quarter."""
    table = read_purchases().to_pandas()
    by = table["amount"].astype(float).clip(0, BOUND).groupby(table["quarter"])
    return {"n": by.count().to_dict(), "mean": by.mean().to_dict()}


def errors_of(
    max_rows: int,
    max_norm: int | None,
    has_cut: bool,
    truths: Mapping[str, Mapping[str, float]],
    random: np.random.Generator,
) -> Mapping[str, Sequence[float]]:
    """Return the root of the mean squared error over the quarters of each run, and half the width of an interval."""
    with tempfile.TemporaryDirectory() as folder:
        asked = asked_of(Path(folder) / "federation", max_rows, max_norm, has_cut)
    found: dict[str, list[float]] = {"n": [], "mean": [], "width": []}
    for _ in range(RUNS):
        answers = list(asked.answers(random))
        for name, of_groups in truths.items():
            errors = [one[name][group].value - truth for one in answers for group, truth in of_groups.items()]
            found[name].append(math.sqrt(np.mean(np.square(errors))))
        found["width"].append(float(np.mean([one["n"][LARGEST].half_width for one in answers])))
    return found


def asked_of(home: Path, max_rows: int, max_norm: int | None, has_cut: bool) -> Asked:
    """Return the question to the retailers of the demo, by these bounds."""
    columns = SECTOR.columns.replace("bounds = [0, 250]", f"bounds = [0, {BOUND}]")
    found_sector(home, replace(SECTOR, max_rows=max_rows, columns=columns))
    if max_norm is not None:
        for file in home.glob("silos/*/policy.toml"):
            file.write_text(file.read_text().replace("[privacy_unit]", f"[privacy_unit]\nmax_norm = {max_norm}", 1))
    with simulate(home, noise=no_noise) as simulation:
        federation = simulation.federation
        planned, request = federation.prepare(QUESTION, purpose=SECTOR.purpose, epsilon=EPSILON, counts_cut=has_cut)
        checked = federation.check_report(StoredReport.decode(federation.submit(request)), request)
        summed = federation.open_sum(checked, request)
        rows = []
        for silo in simulation.silos.values():
            (source,) = load_sources(load(silo.policy).policy, silo.policy.parent).values()
            with opened(source) as database:
                rows.append(coded(database, source.view, source.unit, codings_of(request))[0])
    return Asked(planned, request, summed, rows)


if __name__ == "__main__":
    main()
