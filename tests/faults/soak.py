"""Many rounds and many questions: memory, descriptors and time stay flat.

What is flat: the least-squares line through the last half of the samples rises, from the first of these samples to the
last, by at most a share of their mean (memory, time) or a number (descriptors). The first half is warming up.
"""

import gc
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analyst.demo.hospitals import found_hospitals
from crypto.randomness import token
from tests.faults.lane import lane
from tests.faults.table import CEDAR
from tests.harness.federated import AGGREGATOR, ANALYST
from tests.harness.many_silos import Many, MemoryLedger

ROUNDS, QUESTIONS, SAMPLES = 10_000, 1_000, 50
ROUNDS_IN = 3  # silos, the fewest
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Measure:
    """What is sampled, and by how much its line may rise over the last half."""

    name: str
    unit: str
    share: float  # of the mean
    least: float  # in its unit


MEMORY = Measure("memory", "MiB", 0.05, 4.0)
FILES = Measure("descriptors", "", 0.0, 1.0)
TIME = Measure("processor time", "ms", 0.15, 1.0)


@dataclass
class Series:
    """The samples of one measure of one process."""

    what: str
    measure: Measure
    values: list[float] = field(default_factory=list)

    @property
    def last_half(self) -> Sequence[float]:
        return self.values[len(self.values) // 2 :]

    @property
    def mean(self) -> float:
        return sum(self.last_half) / len(self.last_half)

    @property
    def rise(self) -> float:
        """How far the line through the last half rises over it."""
        values = self.last_half
        middle = (len(values) - 1) / 2
        slope = sum((at - middle) * value for at, value in enumerate(values))
        slope /= sum((at - middle) ** 2 for at in range(len(values)))
        return slope * (len(values) - 1)

    @property
    def bound(self) -> float:
        return max(self.measure.share * self.mean, self.measure.least)

    @property
    def is_flat(self) -> bool:
        return self.rise <= self.bound


@dataclass
class Process:
    """The samples of one process."""

    what: str
    pid: int
    series: tuple[Series, Series, Series] = field(init=False)
    _cpu_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.series = (Series(self.what, MEMORY), Series(self.what, FILES), Series(self.what, TIME))
        self._cpu_s = self._spent_s()

    def sample(self, of: int) -> None:
        """Take a sample after `of` more rounds or questions."""
        place = Path("/proc") / str(self.pid)
        pages = int((place / "statm").read_text().split()[1])
        spent_s = self._spent_s()
        values = pages * _PAGE / 2**20, float(len(os.listdir(place / "fd"))), (spent_s - self._cpu_s) * 1000 / of
        self._cpu_s = spent_s
        for series, value in zip(self.series, values, strict=True):
            series.values.append(value)

    def _spent_s(self) -> float:
        fields = (Path("/proc") / str(self.pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def rounds(count: int = ROUNDS, samples: int = SAMPLES) -> list[Series]:
    """Run rounds on the pure core in this process."""
    many, here, each = Many(ROUNDS_IN, missing=0), Process("pure core", os.getpid()), count // samples
    expected = [float(one) for one in many.sum_of(many.names)]
    for _ in range(samples):
        for _ in range(each):
            one = many.round(many.request(nonce=token(16)), round_id=token(16)).run()
            assert one.answer() == expected
            for member in many.members.values():
                member.ledger = MemoryLedger()  # the real one is on disk
        gc.collect()
        here.sample(each)
    return list(here.series)


def questions(path: Path, founded: Path, count: int = QUESTIONS, samples: int = SAMPLES) -> list[Series]:
    """Ask by the command, through the processes of a silo, an aggregator and an analyst."""
    with lane(path, founded) as one:
        found = [Process(name, one.parties[name].process.pid) for name in (CEDAR, AGGREGATOR, ANALYST)]
        each, before = count // samples, one.spent()
        for _ in range(samples):
            for _ in range(each):
                assert one.ask().count == sum(one.truth.values())
            for process in found:
                process.sample(each)
        after = one.spent()
        assert len({after[name] - before[name] for name in after}) == 1
    return [series for process in found for series in process.series]


def whole(path: Path) -> list[Series]:
    """Run the whole soak."""
    began = time.monotonic()
    path.mkdir(parents=True)
    found_hospitals(path / "founded")
    found = [*rounds(), *questions(path, path / "founded")]
    print(f"soak: {time.monotonic() - began:.0f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
    return found


def table(found: Sequence[Series]) -> str:
    """Return the figures of a soak as a table."""
    lines = ["| process | measure | mean of the last half | rise over it | at most | |", "|---|---|---|---|---|---|"]
    for one in found:
        cells = [one.what, one.measure.name, f"{one.mean:.1f} {one.measure.unit}", f"{one.rise:+.2f}"]
        lines.append(f"| {' | '.join(cells)} | {one.bound:.2f} | {'flat' if one.is_flat else '! not flat'} |")
    return "\n".join(lines)
