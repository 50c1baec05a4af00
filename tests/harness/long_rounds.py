"""Whole rounds over vectors of any length that a test gives: real silos, aggregator and recipients, without rows.

The request is that of the first round of an exact model, whose recipients are the silos. In the place of its
statistics stands one of the length and the magnitude that are wanted, and in that of what a silo computes its vector;
everything else, from the proposal to what a silo learns, is as it is.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from aggregator.sums import Sums
from analyst.training.job import first_request, read_job
from crypto.rounds.messages import Failure
from crypto.rounds.report import StoredReport
from crypto.wire import Signed
from federation.config import read_config
from federation.founding import found
from policies.requests.exact import ExactStep
from policies.requests.request import Request
from policies.requests.statistic import Extent, Statistic
from policies.requests.tables import Table
from silo_node.data.figures import Computed
from silo_node.training.run import Opened, RunState, state_after
from tests.harness.inside import computing_of
from tests.harness.simulator import LocalCheckpoints, SimulatedSilo, Simulation, no_noise, simulate

POLICY = """\
schema = "silo-policy/1"
silo = {{ id = "{silo}", controller = "Bank", sector = "bank", jurisdiction = "NO", contact = "privacy@bank.example" }}
budget = {{ delta = 1e-6, lifetime = {{ rho = 1 }} }}
[privacy_unit]
entity = "applicant"
id_column = "id"
max_rows = 1
[sources.rows]
release = "exact"
kind = "csv"
uri = "rows.csv"
[sources.rows.columns]
id = {{ type = "string", class = "identifier", roles = [] }}
ok = {{ type = "bool", class = "internal", roles = ["label"] }}
age = {{ type = "int", class = "internal", roles = ["feature"], bounds = [0, 100] }}
[purposes.lending]
legal_basis = "legitimate-interest"
computations = ["logistic-regression"]
[vectors]
max_values = 1073741824
bytes_per_second = 100000000
max_state_mb = 17179
[disclosure]
release = ["model"]
[protection]
accept = ["masking"]
max_missing = 1
[training]
max_rounds = 100
dp = "optional"
clip_norm = 1.0
max_rho_per_run = 1.0
[analysts.ana]
key = "{key}"
purposes = ["lending"]
until = 2036-01-01T00:00:00Z
"""
JOB = """\
schema = "consilo-job/1"
model = "logistic-regression"
table = "rows"
purpose = "lending"
label = "ok"
features = ["age"]
release = "exact"
rounds = 3
"""
Vector = npt.NDArray[Any]
Vectors = Callable[[str], Vector]


class Spent:
    """A silo's actor whose processor time is added up by step, in seconds."""

    def __init__(self, actor: Any) -> None:
        self._actor, self.seconds = actor, defaultdict[str, float](float)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._actor, name)
        if name.startswith("_") or not callable(found):
            return found

        def timed(*arguments: bytes) -> Any:
            began = time.process_time()
            try:
                return found(*arguments)
            finally:
                self.seconds[name] += time.process_time() - began

        return timed

    def taken(self) -> dict[str, float]:
        """Return the seconds by step since the last call."""
        seconds, self.seconds = self.seconds, defaultdict[str, float](float)
        return dict(seconds)


class Passed(list[tuple[str, tuple[bytes, ...]]]):
    """In the place of all that passed at a silo: how many bytes, by direction and step, and nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = Counter[str]()

    def append(self, one: tuple[str, tuple[bytes, ...]]) -> None:
        step, frames = one
        self.bytes[step] += sum(map(len, frames))


@dataclass
class LongFederation:
    """A federation whose silos contribute the vectors that they are given."""

    simulation: Simulation
    path: Path
    opened: list[npt.NDArray[np.int64]]  # what silos have opened, one after the other

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.simulation.silos)

    def request(self) -> Request:
        """Return the request of a new run."""
        return first_request(self.simulation.federation, read_job(self.path / "job.toml"))

    def ask(self, vectors: Vectors, request: Request | None = None) -> bytes | Signed[Failure]:
        """Run a round of these vectors, by silo; return the encrypted report, or why there is none."""
        for name, silo in self.simulation.silos.items():
            if silo.is_started and silo.workers is None and not silo.is_dead:
                computing_of(silo).contribution = lambda *_, name=name: Computed([vectors(name)])
        return self.simulation.federation.exchange(self.request() if request is None else request)

    def learn(self, report: bytes) -> Mapping[str, Any]:
        """Deliver a report to all silos; return which of them learned it."""
        return self.simulation.federation.deliver_report(StoredReport.decode(report).name)

    def count(self) -> dict[str, Passed]:
        """Let nothing of what passes be kept but its length; return that by silo."""
        counted = {name: Passed() for name in self.simulation.silos}
        for name, silo in self.simulation.silos.items():
            silo.seen = counted[name]
        return counted

    def clock(self) -> dict[str, Spent]:
        """Let the processor time of every silo be added up; return that by silo."""
        clocks = {name: Spent(silo.actor) for name, silo in self.simulation.silos.items()}
        for name, silo in self.simulation.silos.items():
            vars(silo)["actor"] = clocks[name]
        return clocks


def given(length: int, most: int) -> Callable[[ExactStep, Table], Mapping[Statistic, Extent]]:
    """Return what stands in the place of a step's statistics: one without noise, of this length and magnitude."""
    found = {Statistic("weights"): Extent(length, 0, 0, 0, 1, most=most)}
    return lambda step, table: found


def moved(opened: list[npt.NDArray[np.int64]]) -> Any:
    """Return what takes the place of the updates of models: it appends the opened sum to a list."""

    def move(state: RunState | None, request: Request, position: bytes, sums: Opened, now: int) -> RunState:
        opened.extend(sums.whole_blocks())
        return state_after(request, position, now, (), {})

    return defaultdict(lambda: move)


@contextmanager
def long_federation(
    path: Path,
    silos: Sequence[str] | int,
    length: int,
    most: int,
    step_timeout_s: float = 300.0,
    apart: Sums | None = None,
) -> Iterator[LongFederation]:
    """Found a federation in `path` whose rounds are of vectors of this length, each value within ± `most`.

    With `apart` every silo is a process of its own, which contributes `drawn`, and that is what adds.
    """
    names = [f"silo-{number:02}" for number in range(silos)] if isinstance(silos, int) else list(silos)
    key = found(path, "banks", dict.fromkeys(names), ("ana",))["ana"]
    for name in names:
        home = path / "silos" / name
        (home / "policy.toml").write_text(POLICY.format(silo=name, key=key))
        rows = "".join(f"{name}-{row},{'true' if row % 2 else 'false'},{row % 90}\n" for row in range(50))
        (home / "rows.csv").write_text("id,ok,age\n" + rows)
    (path / "job.toml").write_text(JOB + f"silos = {json.dumps(names)}\n")
    with ExitStack() as stack:
        opened = stack.enter_context(standing_in(length, most))
        simulation = stack.enter_context(
            simulate(path, no_noise, None, step_timeout_s, is_lazy=apart is not None, elsewhere=apart)
        )
        if apart is not None:
            for name, silo in simulation.silos.items():
                silo.workers, vars(silo)["actor"] = len(names), Apart(path, name, length, most)
        yield LongFederation(simulation, path, opened)


@contextmanager
def standing_in(length: int, most: int) -> Iterator[list[npt.NDArray[np.int64]]]:
    """Let all requests of an exact step be for such a vector in this process; yield where opened sums are appended."""
    opened = list[npt.NDArray[np.int64]]()
    with ExitStack() as stack:
        stack.enter_context(patch.object(ExactStep, "statistics", given(length, most)))
        stack.enter_context(patch("policies.requests.request.MAX_SLOTS", max(length, 1_000_000)))
        stack.enter_context(patch("silo_node.rounds.learning.MODELS", moved(opened)))
        yield opened


class Apart:
    """A silo's actor in a process of its own; whatever is called of it is called there."""

    def __init__(self, path: Path, name: str, length: int, most: int) -> None:
        there = path, name, length, most
        self._there = ProcessPoolExecutor(1, get_context("spawn"), _begin, there)

    def __getattr__(self, step: str) -> Callable[..., Any]:
        return lambda *arguments: self._there.submit(_called, step, *arguments).result()

    def close(self) -> None:
        self._there.submit(_called, "close").result()
        self._there.shutdown()


def drawn(name: str, length: int, most: int) -> Vector:
    """Return what a silo of its own process contributes."""
    return np.random.default_rng(int(name[-2:])).integers(-most, most, length, np.int32)


_here: dict[str, Any] = {}


def _begin(path: Path, name: str, length: int, most: int) -> None:
    """Start the actor of a silo in this process, which stays for it alone."""
    config = read_config(path / "consilo.toml")
    _here["stand-ins"] = stack = ExitStack()
    stack.enter_context(standing_in(length, most))
    silo = SimulatedSilo(config.policies[name], no_noise, time.time, LocalCheckpoints(config.aggregator))
    computing_of(silo).contribution = lambda *_: Computed([drawn(name, length, most)])
    _here["actor"] = silo.actor


def _called(step: str, *arguments: bytes) -> Any:
    if step == "peak":
        return peak()
    return getattr(_here["actor"], step)(*arguments)


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
