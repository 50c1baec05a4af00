"""Networks across silos: how near the federated model comes to a pooled one, and what a round costs.

The digits of scikit-learn: 1,437 images train, 360 judge, another division for each seed. The pooled run has
the same graph, options and rounds, and all images at one place. Run: python -m tests.bench.training
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from policies.requests.families import Task
from silo_node.training.family import Examples
from silo_node.training.networks.owning import Beside
from silo_node.training.networks.round import change_of
from tests.bench.figures import publish
from tests.harness import families
from tests.harness.families import examples, text
from tests.harness.networks import Run
from tests.uses import digits
from tests.uses.digits import Places, images
from tests.uses.founding import running, trained

SEEDS, SILOS, TEST = 10, 5, 360
COLUMNS = (
    families.array("pixels", "int", (8, 8), 0, 16),
    text("digit", *map(str, range(10)), "?"),
)
CNN = {"channels": "16,32", "hidden": "64"}
ALIKE = {"rate": "0.05", "momentum": "0.9", "batch": "32", "epochs": "2"}
UNLIKE = {"rate": "0.1", "batch": "128"}
Division = Callable[[npt.NDArray[np.int64], int, int], Sequence[Places]]
JOB = """\
schema = "consilo-job/1"
table = "digits"
purpose = "research"
label = "digit"
features = ["pixels"]
release = "exact"
[model]
family = "cnn"
channels = [16, 32]
hidden = [64]
[optimiser]
rate = 0.05
momentum = 0.9
epochs = 2
[rounds]
most = 7
"""


def task(rounds: int, seed: int, options: Mapping[str, str]) -> Task:
    """Return the task of a run whose first weights follow from the seed."""
    found = families.task("cnn", COLUMNS, "digit", ("pixels",), None, rounds, **CNN, **options)
    return replace(found, run=seed.to_bytes(16, "big"))


def rows(of: Task, places: Places) -> Examples:
    pixels, labels = images()
    return examples(of, {"pixels": pixels[places], "digit": labels[places].astype(str)})


def divided(division: Division, seed: int) -> tuple[list[Places], Places]:
    """Return the images of each silo, and those that judge."""
    order = np.random.default_rng(seed).permutation(len(images()[1]))
    train, test = order[TEST:], order[:TEST]
    return [train[own] for own in division(images()[1][train], SILOS, seed)], test


def federated(of: Task, silos: Sequence[Places], test: Places) -> float:
    return 100 * Run(of, [rows(of, own) for own in silos]).to_end().accuracy(rows(of, test))


def alike(labels: npt.NDArray[np.int64], silos: int, seed: int) -> Sequence[Places]:
    return digits.alike(len(labels), silos, seed)


def compared(
    division: Division, rounds: int, pooled: Mapping[str, str], ways: Mapping[str, Mapping[str, str]]
) -> dict[str, list[float]]:
    """Return the accuracy of the pooled run, and of each way, for each seed."""
    found = {name: list[float]() for name in ("pooled", *ways)}
    for seed in range(SEEDS):
        silos, test = divided(division, seed)
        found["pooled"].append(federated(task(16, seed, pooled), [np.concatenate(silos)], test))
        for name, options in ways.items():
            found[name].append(federated(task(rounds, seed, options), silos, test))
    return found


def told(name: str, found: Mapping[str, Sequence[float]], within: Mapping[str, float]) -> None:
    """Publish the means over seeds, each beside the aim: the pooled mean less some points."""
    pooled = float(np.mean(found["pooled"]))
    for way, values in found.items():
        aim = f"at least {pooled - within[way]:.2f}" if way in within else None
        publish(f"{name}_{way}", [float(np.mean(values))], "%", aim=aim)


def round_seconds() -> tuple[list[float], list[float]]:
    """Return the processor time of rounds of ten silos in memory, and that of their training and a plain sum alone."""
    names = [f"silo-{number}" for number in range(10)]
    division = digits.alike(len(images()[1]), len(names), 1)
    use = digits.use(dict(zip(names, division, strict=True)), "cnn")
    with tempfile.TemporaryDirectory() as folder, running(use, Path(folder) / "f", JOB) as (simulation, file):
        ends = list[float]()
        trained(simulation, file, lambda done: ends.append(time.process_time()))
    took = [after - before for before, after in pairwise(ends[1:])]
    of = replace(task(7, 1, ALIKE), number=1)
    state = families.run(replace(of, number=0, rounds=1), [rows(of, own) for own in division])[0]
    alone = list[float]()
    for _ in took:
        began = time.process_time()
        found = [change_of(of, state["weights"], rows(of, own), Beside()) for own in division]
        np.sum([one.vectors["update"] for one in found if one is not None], 0)
        alone.append(time.process_time() - began)
    return took, alone


def main() -> None:
    torch.set_num_threads(1)
    bits = {f"{bits}_bits": {**ALIKE, "value_bits": str(bits)} for bits in (16, 8)}
    found = compared(alike, 16, ALIKE, {"fedavg": ALIKE, **bits})
    told("digits_alike", found, {"fedavg": 1.0})
    gap = statistics.mean(found["fedavg"]) - statistics.mean(found["8_bits"])
    publish("digits_alike_points_lost_by_8_bits", [gap], "points", aim="0.5")
    ways = {name: {**UNLIKE, "algorithm": name, **more} for name, more in OF_UNLIKE.items()}
    told("digits_by_label", compared(digits.by_label, 100, ALIKE, ways), dict.fromkeys(ways, 6.0))
    took, alone = round_seconds()
    publish("round_of_10_silos", took, "s", "training and a plain sum", alone, "ratio 2")


OF_UNLIKE: Mapping[str, Mapping[str, str]] = {
    "fedavg": {},
    "fedprox": {"mu": "0.01"},
    "scaffold": {},
    "fedadam": {"server_rate": "0.01"},
    "fedyogi": {"server_rate": "0.01"},
}


if __name__ == "__main__":
    main()
