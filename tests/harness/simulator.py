"""A whole federation in memory: real silo actors and a real aggregator server, without Ray or network.

Silos can be killed before or after any step, lie in any reply or answer late, and all that the aggregator sees is
recorded.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aggregator.driver import STEP_TIMEOUT_S, Server
from aggregator.errors import AggregatorError
from aggregator.home import read_home
from aggregator.store import HeadStore, ReportStore
from aggregator.sums import SumShard
from analyst.client import Federation
from crypto.noise import discrete_gaussian
from federation.config import read_config
from federation.errors import FederationError
from silo_node.actor import SiloActor

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
    heads: "LocalHeads | None" = None
    dies_before: str = ""
    dies_after: str = ""
    restarts: bool = False
    late_s: dict[str, float] = field(default_factory=dict)  # how long a step's answer takes to arrive, by step
    is_dead: bool = False
    seen: list[tuple[str, tuple[bytes, ...]]] = field(default_factory=list)
    rewrite: Callable[[str, tuple[bytes, ...]], tuple[bytes, ...]] = lambda step, frames: frames

    @cached_property
    def actor(self) -> SiloActor:
        """The silo's own side, which is started when somebody first asks for it."""
        return self._start()

    @property
    def is_started(self) -> bool:
        return "actor" in vars(self)

    def _start(self) -> SiloActor:
        heads = self.heads
        keeper = None if heads is None else lambda _: heads
        return SiloActor(str(self.policy), clock=self.clock, sleep=lambda _: None, noise=self.noise, keepers=keeper)

    async def call(self, step: str, *arguments: bytes) -> tuple[bytes, ...]:
        if step == self.dies_before:
            self.kill()
        if self.is_dead:
            raise KilledError(step)
        self.seen.append((f"> {step}", arguments))
        reply = getattr(self.actor, step)(*arguments)
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
            self.actor = self._start()
        else:
            self.is_dead = True


class LocalHeads:
    """The aggregator's store of ledger heads, reached directly; it can be out of reach."""

    def __init__(self, path: Path) -> None:
        aggregator = read_home(path)
        self.store = HeadStore(path / "heads", aggregator.federation, aggregator.silos)
        self.is_down = False

    def put_head(self, envelope: bytes) -> bytes:
        if self.is_down:
            raise KilledError("aggregator")
        return self.store.put(envelope)

    def get_head(self, silo: bytes) -> bytes:
        if self.is_down:
            raise KilledError("aggregator")
        return self.store.get(silo.decode())


class LocalSums:
    """A SumShard in this process, behind the aggregator's `Sums`."""

    def __init__(self, path: Path) -> None:
        self._shard = SumShard(path)

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes) -> None:
        self._shard.start(round_id, manifest, round_key)

    async def stage(self, round_id: bytes, silo: str, digests: tuple[bytes, ...], frame: bytes) -> None:
        self._shard.stage(round_id, silo, digests, frame)

    async def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        self._shard.add(round_id, silo, name)

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        return self._shard.chunk(name, start, length)

    async def total(self, round_id: bytes, silos: tuple[str, ...]) -> list[bytes]:
        return self._shard.total(round_id, silos)

    async def discard(self, round_id: bytes) -> None:
        self._shard.discard(round_id)


@dataclass
class Simulation:
    """The parts of a federation, for tests to reach into."""

    path: Path
    silos: dict[str, SimulatedSilo]
    server: Server
    federation: Federation
    heads: LocalHeads
    reports: list[bytes] = field(default_factory=list)

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        return asyncio.run(self.server.catalogues(request))

    def submit(self, request: bytes) -> bytes:
        answer = asyncio.run(self.server.submit(request))
        self.reports.append(answer)
        return answer

    def teach(self, name: bytes) -> tuple[bytes, ...]:
        return asyncio.run(self.server.deliver_report(name))

    def report(self, name: bytes) -> bytes:
        try:
            return self.server.report(name)
        except AggregatorError as err:
            raise FederationError(err.message, err.hint) from err

    def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        return asyncio.run(self.server.evidence(name, index))

    def mend(self) -> None:
        """Let every silo live and behave again, and forget what was seen; what was spent and stored stays."""
        for silo in self.silos.values():
            if silo.is_dead:
                silo.actor = silo._start()
            silo.is_dead = silo.restarts = False
            silo.dies_before = silo.dies_after = ""
            silo.late_s, silo.rewrite = {}, lambda step, frames: frames
            silo.seen.clear()
        self.reports.clear()
        self.federation._offer = None  # which may be of fewer silos

    def spent(self, silo: str) -> int:
        return self.silos[silo].actor._ledger.spending().lifetime

    def everything_seen(self) -> list[bytes]:
        """Return every byte string that passed between the silos and the aggregator, and what it stored."""
        passed = [data for silo in self.silos.values() for _, frames in silo.seen for data in frames]
        folders = (self.path / "aggregator" / name for name in ("reports", "contributions"))
        stored = [file.read_bytes() for folder in folders for file in folder.iterdir()]
        return passed + stored


@contextmanager
def simulate(
    path: Path,
    noise: Noise = discrete_gaussian,
    clock: Callable[[], float] | None = None,
    step_timeout_s: float = STEP_TIMEOUT_S,
    is_lazy: bool = False,
) -> Iterator[Simulation]:
    """Run the federation whose `consilo.toml` stands in `path`; a lazy one starts a silo when it is first called."""
    import time

    clock = clock or time.time
    config = read_config(path / "consilo.toml")
    heads = LocalHeads(config.aggregator)
    silos = {name: SimulatedSilo(policy, noise, clock, heads) for name, policy in config.policies.items()}
    if not is_lazy:
        for silo in silos.values():
            _ = silo.actor
    store = ReportStore(config.aggregator / "reports")
    server = Server(
        read_home(config.aggregator),
        silos,
        LocalSums(config.aggregator / "contributions"),
        store,
        clock,
        step_timeout_s,
        heads=heads.store,
    )
    name, root = config.analyst_key(None)
    simulation = Simulation(path, silos, server, None, heads)  # type: ignore[arg-type]
    simulation.federation = Federation(config, name, root, simulation, clock)
    try:
        yield simulation
    finally:
        for silo in silos.values():
            if silo.is_started and not silo.is_dead:
                silo.actor.close()
