"""What a round of training costs a silo, beside a question of as many numbers in the same run; and the first round.

Run: python -m tests.bench.training_rounds
"""

import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from analyst.client import Federation
from analyst.training.job import read_job
from analyst.training.run import train
from federation.founding import found
from silo_node.data.run_rows import SETTLED_S
from tests.bench.figures import publish
from tests.harness.simulator import STEPS, simulate

SILOS = ("east", "north", "south", "west")
ROWS = 125  # of each silo
ROUNDS = 6  # of which the first is left out
STARTS = 3  # of a federation, for the first round of a run
QUESTION = "SELECT place, COUNT(*) AS n FROM asked GROUP BY place"
POLICY = """\
schema = "silo-policy/1"
silo = {{ id = "{silo}", controller = "Bank", sector = "bank", jurisdiction = "NO", contact = "privacy@bank.example" }}
budget = {{ delta = 1e-6, lifetime = {{ rho = 100 }} }}
[privacy_unit]
entity = "applicant"
id_column = "id"
max_rows = 1
[sources.rows]
release = "{release}"
kind = "csv"
uri = "rows.csv"
[sources.rows.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
ok = {{ type = "bool", class = "internal", roles = ["label"] }}
{features}
[sources.asked]
kind = "csv"
uri = "asked.csv"
[sources.asked.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
place = {{ type = "string", class = "internal", roles = ["dimension"], domain = {places}, unknown = "0" }}
[purposes.lending]
legal_basis = "legitimate-interest"
computations = ["query", "logistic-regression"]
[disclosure]
release = ["query-result", "model"]
max_groups = 10000
aggregates = ["count"]
max_dimensions = 1
[protection]
accept = ["masking"]
[training]
max_rounds = 100
dp = "optional"
clip_norm = 1.0
max_rho_per_run = 50.0
[analysts.ana]
key = "{key}"
purposes = ["lending"]
until = 2036-01-01T00:00:00Z
"""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to train, and its number of weights with the intercept."""

    name: str
    weights: int
    is_exact: bool

    @property
    def job(self) -> str:
        features = json.dumps([f"x{place}" for place in range(1, self.weights)])
        head = (
            'schema = "consilo-job/1"\nmodel = "logistic-regression"\ntable = "rows"\npurpose = "lending"\n'
            f'label = "ok"\nfeatures = {features}\n'
        )
        if self.is_exact:
            return f'{head}release = "exact"\nrounds = {ROUNDS}\n[options]\ntolerance = 0.000000000001\n'
        return f"{head}steps = {ROUNDS}\nlearning_rate = 1.0\nepsilon = 8\nclip = 1.0\n"

    @property
    def slots(self) -> int:
        """How many numbers a silo's part of a round has, but for the first of an exact run."""
        return 3 + self.weights + self.weights * (self.weights + 1) // 2 if self.is_exact else self.weights + 1


EXACT, PRIVATE = Way("exact_20_weights", 20, True), Way("private_20_weights", 20, False)


class Clocked:
    """A silo's actor whose processor time is added up by round and step."""

    def __init__(self, actor: Any) -> None:
        self._actor, self.spent = actor, defaultdict[str, float](float)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._actor, name)
        if name not in (*STEPS, "learn"):
            return found

        def timed(*arguments: bytes) -> Any:
            began = time.process_time()
            try:
                return found(*arguments)
            finally:
                self.spent[name] += time.process_time() - began

        return timed

    def taken(self) -> dict[str, float]:
        """Return the seconds by step since the last call."""
        spent, self.spent = self.spent, defaultdict[str, float](float)
        return dict(spent)


def main() -> None:
    import torch

    torch.set_num_threads(1)  # as in a silo's process, which has its share of the cores
    for way in (EXACT, Way("exact_40_features", 41, True), PRIVATE, Way("private_40_features", 41, False)):
        round_beside_question(way)
    first_round_beside_others()


def first_round_beside_others() -> None:
    """Publish the wall time of the first round of a run in simulate mode, beside each of the others."""
    for way in (EXACT, PRIVATE):
        firsts, others = list[float](), list[float]()
        for _ in range(STARTS):
            first, *rest = walls_of(way)
            firsts.append(first)
            others.append(statistics.median(rest))
        publish(f"first_round_{way.name}", firsts, "s", "the median of the others", others, "ratio 2")


def walls_of(way: Way) -> list[float]:
    """Return the seconds of each round of a run in a federation that was started for it."""
    with settled(way) as path, Federation.open(path / "consilo.toml") as federation:
        federation.offer_of(SILOS)  # what the silos open, which a command asks before any round
        ends = [time.perf_counter()]
        train(federation, read_job(path / "job.toml"), lambda done: ends.append(time.perf_counter()))
    return [end - began for began, end in pairwise(ends)]


def round_beside_question(way: Way) -> None:
    """Publish a silo's processor time of a round, all of its steps and learning, beside a question's."""
    with settled(way) as path, simulate(path) as simulation:
        clocks = {name: Clocked(silo.actor) for name, silo in simulation.silos.items()}
        for name, silo in simulation.silos.items():
            vars(silo)["actor"] = clocks[name]
        rounds, questions = list[dict[str, float]](), list[dict[str, float]]()

        def after(done: int) -> None:
            rounds.extend(one.taken() for one in clocks.values())
            simulation.federation.query(QUESTION, purpose="lending", epsilon=1)
            questions.extend(one.taken() for one in clocks.values())

        train(simulation.federation, read_job(path / "job.toml"), after)
    first = len(SILOS)  # parts of the first round, which loads, and of the first question
    rounds, questions = rounds[first:], questions[first:]
    for what, parts in (("round", rounds), ("question", questions)):
        steps = {
            step: round(1000 * statistics.median(one.get(step, 0.0) for one in parts), 1) for step in (*STEPS, "learn")
        }
        print(f"{way.name} {what}, ms by step: {steps}")
    publish(
        f"training_round_{way.name}",
        [1000 * sum(one.values()) for one in rounds],
        "ms",
        f"a question of {way.slots} groups",
        [1000 * sum(one.values()) for one in questions],
        f"ratio {1.7 if way.weights > 20 else 1.5}",
    )


@contextmanager
def settled(way: Way) -> Iterator[Path]:
    """Yield the directory of a federation whose files are old enough that their rows are kept in a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        written(path, way)
        time.sleep(SETTLED_S)
        yield path


def written(path: Path, way: Way) -> None:
    """Write a federation whose silos have rows to learn from, and rows to ask about, of different persons."""
    key = found(path, "banks", dict.fromkeys(SILOS), ("ana",))["ana"]
    places = [str(place) for place in range(way.slots)]
    features = "\n".join(
        f'x{place} = {{ type = "int", class = "internal", roles = ["feature"], bounds = [0, 100] }}'
        for place in range(1, way.weights)
    )
    for number, silo in enumerate(SILOS):
        home, numbers = path / "silos" / silo, np.random.default_rng(number)
        inputs = numbers.integers(0, 101, (ROWS, way.weights - 1))
        odds = (inputs / 50 - 1) @ np.linspace(-1, 1, way.weights - 1)
        rows = {"id": [f"{silo}-{row}" for row in range(ROWS)], "ok": odds + 2 * numbers.logistic(size=ROWS) > 0}
        rows |= {f"x{place + 1}": inputs[:, place] for place in range(way.weights - 1)}
        pa.csv.write_csv(pa.table(rows), home / "rows.csv")
        asked = {"id": [f"asked-{silo}-{row}" for row in range(ROWS)]}
        asked |= {"place": [str(one) for one in numbers.integers(0, way.slots, ROWS)]}
        pa.csv.write_csv(pa.table(asked), home / "asked.csv")
        text = POLICY.format(
            silo=silo,
            key=key,
            features=features,
            places=json.dumps(places),
            release="exact" if way.is_exact else "private",
        )
        (home / "policy.toml").write_text(text)
    (path / "job.toml").write_text(way.job)


if __name__ == "__main__":
    main()
