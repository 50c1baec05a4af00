"""Networks across silos in this process: rounds of a run, what each silo keeps for itself, and digits by label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from policies.requests.families import SHAPES, Task
from silo_node.training.family import Examples, Own, State
from silo_node.training.grid import Vector
from silo_node.training.registry import FAMILIES
from tests.harness import families
from tests.harness.public_rows import digits as pixels

CLASSES = tuple(map(str, range(10)))


@dataclass
class Run:
    """A run of silos with these rows."""

    task: Task
    silos: Sequence[Examples]
    state: State = field(default_factory=State)
    owns: list[Own] = field(default_factory=list)
    number: int = 0

    def __post_init__(self) -> None:
        self.owns = [Own() for _ in self.silos]

    def round(self, present: Sequence[int] | None = None) -> dict[str, npt.NDArray[np.int64]]:
        """Take a round with these silos, all of which it counts; return what it opened."""
        own, family = families.numbered(self.task, self.number), FAMILIES[self.task.family]
        shape = SHAPES[self.task.family]
        assert family.keeping is not None
        sums = {name: np.zeros(length, np.int64) for name, length in shape.blocks(own).items()}
        kept = {}
        for place in range(len(self.silos)) if present is None else present:
            found = family.keeping.contribution(own, self.state, self.silos[place], self.owns[place])
            assert {name: len(one) for name, one in found.own.items()} == dict(shape.owns(own))
            for (name, total), block in zip(sums.items(), found.blocks, strict=True):
                assert block.shape == total.shape
                sums[name] = total + block
            if found.own:
                kept[place] = Own(self.task.run, self.number, found.own)
        self.state = family.update(own, self.state, sums)
        for place, one in kept.items():
            self.owns[place] = one
        self.number += 1
        return sums

    def to_end(self, each: Callable[["Run"], None] = lambda run: None) -> "Run":
        while self.number < self.task.rounds and self.state.ended is None:
            self.round()
            each(self)
        return self

    def lose(self, place: int) -> None:
        """Let a silo lose what it keeps."""
        self.owns[place] = Own(self.owns[place].run, self.owns[place].step)

    def scores(self, examples: Examples, place: int | None = None) -> Vector:
        """Return the scores of rows, by what a silo keeps where one is named."""
        family, own = FAMILIES[self.task.family], Own() if place is None else self.owns[place]
        assert family.keeping is not None
        return family.keeping.scores(self.task, self.state, examples, own)

    def accuracy(self, examples: Examples, place: int | None = None) -> float:
        family = FAMILIES[self.task.family]
        assert family.judged is not None
        right = self.scores(examples, place).argmax(1) == family.judged.outcomes(self.task, examples)
        return float(right.mean())


@cache
def _digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    return load_digits().data, load_digits().target.astype(np.int64)


def digits(seed: int, **options: str) -> tuple[Task, Examples, Examples, npt.NDArray[np.int64]]:
    """Return a task, 1,437 rows to learn from, 360 to judge by, and the labels of the former."""
    columns, rows, _ = pixels()
    columns = [one for one in columns if rows[one.name].any()]  # a table has 64 columns at most
    rows["digit"] = np.array([str(one) for one in _digits()[1]])
    features = [one.name for one in columns]
    rounds, run = int(options.pop("rounds", "30")), bytes([seed]) * 16
    label = families.text("digit", *CLASSES, "?")
    task = families.task("mlp", [*columns, label], "digit", features, None, rounds, **options)
    whole = families.examples(task, rows)
    order = np.random.default_rng(seed).permutation(whole.rows)
    learned, judged = families.part(whole, order[:1437]), families.part(whole, order[1437:])
    return replace(task, run=run), learned, judged, _digits()[1][order[:1437]]


def by_label(rows: Examples, labels: npt.NDArray[np.int64], silos: int = 5) -> list[Examples]:
    """Return the rows divided among silos, two digits at each."""
    return [families.part(rows, np.flatnonzero(labels // 2 == silo)) for silo in range(silos)]


def alike(rows: Examples, silos: int = 5) -> list[Examples]:
    """Return the rows divided among silos at random."""
    return [families.part(rows, np.arange(silo, rows.rows, silos)) for silo in range(silos)]
