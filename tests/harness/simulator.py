"""A whole federation in memory: real silo actors and a real aggregator server, without Ray or network.

Silos can be killed before or after any step, lie in any reply or answer late, and all that the aggregator sees is
recorded.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aggregator.capacity import Capacity
from aggregator.driver import STEP_TIMEOUT_S, Ended, Server
from aggregator.errors import AggregatorError
from aggregator.home import read_home
from aggregator.round_journal import RoundJournal
from aggregator.store import CheckpointStore, ReportStore
from aggregator.sums import Sums
from analyst.client import Federation
from analyst.demo.hospitals import PURPOSE
from analyst.kept import DIRECTORY
from crypto.noise import discrete_gaussian
from federation.config import read_config
from federation.errors import FederationError
from silo_node.actor import SiloActor
from tests.harness.inside import forget_offer, ledger_of
from tests.harness.shards import LocalSums

Noise = Callable[[int, int, int], npt.NDArray[np.int64]]
STEPS = ("propose", "share", "ready", "contribute", "agree", "open_shares")


def no_noise(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
    return np.zeros(length, np.int64)


class KilledError(Exception):
    """What a caller sees of a silo that was killed."""


@dataclass
class SimulatedSilo:
    """A silo behind the aggregator's `SiloHandle`, which records what passes and dies when told to."""

    policy: Path
    noise: Noise
    clock: Callable[[], float]
    checkpoints: "LocalCheckpoints | None" = None
    dies_before: str = ""
    dies_after: str = ""
    restarts: bool = False
    late_s: dict[str, float] = field(default_factory=dict)  # how long a step's answer takes to arrive, by step
    is_dead: bool = False
    seen: list[tuple[str, tuple[bytes, ...]]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)  # what the actor waited for, until a tick
    rewrite: Callable[[str, tuple[bytes, ...]], tuple[bytes, ...]] = lambda step, frames: frames
    before: Callable[[str, tuple[bytes, ...]], None] = lambda step, arguments: None
    is_cut_off: bool = False  # it lives, and nothing reaches it
    workers: int | None = (
        None  # silos that share this machine: it computes in a process of its own, its steps in threads
    )
    others: "dict[str, LocalCheckpoints]" = field(default_factory=dict)  # of further aggregators, by name

    @cached_property
    def actor(self) -> SiloActor:
        """The silo's own side, which is started when somebody first asks for it."""
        return self.start()

    @property
    def is_started(self) -> bool:
        return "actor" in vars(self)

    def start(self) -> SiloActor:
        """Return a new actor on the silo's disk."""
        checkpoints, others = self.checkpoints, self.others
        keeper = None if checkpoints is None else lambda name: others.get(name, checkpoints)
        wait, silos = self.slept.append, self.workers
        return SiloActor(str(self.policy), clock=self.clock, sleep=wait, noise=self.noise, keepers=keeper, silos=silos)

    async def call(self, step: str, *arguments: bytes) -> tuple[bytes, ...]:
        if step == self.dies_before:
            self.kill()
        self.before(step, arguments)
        if self.is_dead or self.is_cut_off:
            raise KilledError(step)
        self.seen.append((f"> {step}", arguments))
        take = getattr(self.actor, step)
        reply = take(*arguments) if self.workers is None else await asyncio.to_thread(take, *arguments)
        if step == self.dies_after:
            self.kill()
            raise KilledError(step)
        await asyncio.sleep(self.late_s.get(step, 0.0))
        self.seen.append((f"< {step}", reply))
        return self.rewrite(step, reply)

    def kill(self) -> None:
        """Lose all that is only in memory; a restarting silo comes back with its disk."""
        self.actor.close()
        self.dies_before = self.dies_after = ""
        if self.restarts:
            self.actor = self.start()
        else:
            self.is_dead = True


class LocalCheckpoints:
    """The aggregator's store of ledger checkpoints, reached directly; it can be out of reach."""

    def __init__(self, path: Path, folder: str = "heads") -> None:
        aggregator = read_home(path)
        self.store = CheckpointStore(path / folder, aggregator.federation, aggregator.silos)
        self.is_down = False

    def put_checkpoint(self, envelope: bytes) -> bytes:
        if self.is_down:
            raise KilledError("aggregator")
        return self.store.put(envelope)

    def get_checkpoint(self, silo: bytes) -> bytes:
        if self.is_down:
            raise KilledError("aggregator")
        return self.store.get(silo.decode())


@dataclass
class Simulation:
    """The parts of a federation, for tests to reach into."""

    path: Path
    silos: dict[str, SimulatedSilo]
    server: Server
    federation: Federation
    checkpoints: LocalCheckpoints
    sums: LocalSums
    reports: list[bytes] = field(default_factory=list)
    settling_s: float = 0.0
    ended: list[Ended] = field(default_factory=list)  # what the aggregator's operator sees of each request

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        return asyncio.run(self.server.catalogues(request))

    def domain(self, request: bytes) -> bytes:
        try:
            return asyncio.run(self.server.domain(request))
        except AggregatorError as err:
            raise FederationError(err.message, err.hint) from err

    def offer(self, offer: bytes, index: bytes, frame: bytes) -> tuple[bytes, ...]:
        return asyncio.run(self.server.offer(offer, index, frame))

    def submit(self, request: bytes, more_s: float = 0.0) -> bytes:
        answer = asyncio.run(self.server.submit(request))
        self.reports.append(answer)
        return answer

    def deliver_report(self, name: bytes, more_s: float = 0.0) -> tuple[bytes, ...]:
        try:
            return asyncio.run(self.server.deliver_report(name))
        except AggregatorError as err:
            raise FederationError(err.message, err.hint) from err

    def stop_run(self, stopped: bytes) -> tuple[bytes, ...]:
        return asyncio.run(self.server.stop_run(stopped))

    def find(self, request_hash: bytes) -> bytes:
        return self.server.find(request_hash, None)

    def report(self, name: bytes) -> bytes:
        try:
            return self.server.transcripts.report(name)
        except AggregatorError as err:
            raise FederationError(err.message, err.hint) from err

    def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        return asyncio.run(self.server.transcripts.evidence(name, index))

    def mend(self) -> None:
        """Let every silo live and behave again, and forget what was seen; what was spent and stored stays.

        What the analyst has asked is forgotten too, or a question whose answer did not open would be asked for again.
        """
        shutil.rmtree(self.path / DIRECTORY, ignore_errors=True)
        for silo in self.silos.values():
            if silo.is_dead:
                silo.actor = silo.start()
            silo.is_dead = silo.restarts = silo.is_cut_off = False
            silo.before = lambda step, arguments: None
            silo.dies_before = silo.dies_after = ""
            silo.late_s, silo.rewrite = {}, lambda step, frames: frames
            silo.seen.clear()
            silo.slept.clear()
        self.reports.clear()
        forget_offer(self.federation)  # which may be of fewer silos

    def spent(self, silo: str) -> int:
        return ledger_of(self.silos[silo]).spending().lifetime

    def everything_seen(self) -> list[bytes]:
        """Return every byte string that passed between the silos and the aggregator, and what it stored."""
        passed = [data for silo in self.silos.values() for _, frames in silo.seen for data in frames]
        folders = (self.path / "aggregator" / name for name in ("reports", "contributions"))
        stored = [file.read_bytes() for folder in folders for file in folder.iterdir()]
        return passed + stored


def ask(simulation: Simulation, question: str) -> dict[str, str]:
    """Ask the hospitals a question; return what each silo did."""
    report = simulation.federation.query(question, purpose=PURPOSE, epsilon=1)
    return {silo: outcome.status for silo, outcome in report.silos.items()}


@contextmanager
def simulate(
    path: Path,
    noise: Noise = discrete_gaussian,
    clock: Callable[[], float] | None = None,
    step_timeout_s: float = STEP_TIMEOUT_S,
    is_lazy: bool = False,
    capacity: Capacity = Capacity(),  # noqa: B008 (it is frozen)
    elsewhere: Sums | None = None,
) -> Iterator[Simulation]:
    """Run the federation whose `consilo.toml` stands in `path`; a lazy one starts a silo when it is first called.

    What adds is `elsewhere`, or else in this process.
    """
    import time

    clock = clock or time.time
    config = read_config(path / "consilo.toml")
    checkpoints = LocalCheckpoints(config.aggregator)
    silos = {name: SimulatedSilo(policy, noise, clock, checkpoints) for name, policy in config.policies.items()}
    if not is_lazy:
        for silo in silos.values():
            _ = silo.actor
    hub = read_home(config.aggregator)
    store, sums = ReportStore(config.aggregator / "reports"), LocalSums(config.aggregator / "contributions")
    ended: list[Ended] = []
    server = Server(
        hub,
        silos,
        elsewhere or sums,
        store,
        RoundJournal(config.aggregator / "rounds"),
        checkpoints.store,
        clock,
        step_timeout_s,
        ended=ended.append,
        capacity=capacity,
    )
    name, root = config.analyst_key(None)
    simulation = Simulation(path, silos, server, None, checkpoints, sums, ended=ended)  # type: ignore[arg-type]
    simulation.federation = Federation(config, name, root, simulation, clock)
    try:
        yield simulation
    finally:
        for silo in silos.values():
            if silo.is_started and not silo.is_dead:
                silo.actor.close()
