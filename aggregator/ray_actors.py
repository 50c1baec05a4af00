"""The aggregator in Ray: the server as an actor, the silos' actors as it reaches them, and an actor that adds.

All arguments and results are bytes. The code of the actors is in `aggregator.driver` and `aggregator.sums`.
"""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray

from aggregator.driver import Server
from aggregator.errors import AggregatorError, StoreError
from aggregator.home import read_home
from aggregator.keeping import Keeping
from aggregator.recovery import end_left_rounds
from aggregator.round_journal import RoundJournal
from aggregator.store import CONTRIBUTIONS, CheckpointStore, ReportStore
from aggregator.sums import SumShard
from federation.operations.ray_cluster import NAMESPACE

CHECK_S = 2.0


class RaySilo:
    """Reaches a silo by the name of its actor."""

    def __init__(self, silo: str) -> None:
        self._name = f"silo/{silo}"
        self._actor: Any = None

    async def call(self, step: str, *arguments: bytes) -> tuple[bytes, ...]:
        if self._actor is None:
            self._actor = ray.get_actor(self._name, namespace=NAMESPACE)
        reply: tuple[bytes, ...] = await getattr(self._actor, step).remote(*arguments)
        return reply


class RaySums:
    """Adds in a separate actor, so that the event loop with the silos stays free."""

    def __init__(self, path: Path, keeping: Keeping = CONTRIBUTIONS) -> None:
        self._shard: Any = ray.remote(num_cpus=0, max_restarts=0)(SumShard).remote(path, keeping)

    async def check(self) -> None:
        """Raise AggregatorError if the actor is dead; one that only adds for long is not."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self._shard.__ray_ready__.remote()
        except TimeoutError:
            return
        except ray.exceptions.RayError as err:
            raise AggregatorError(f"the actor that adds does not answer ({type(err).__name__})") from err

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes) -> None:
        await self._do("start", round_id, manifest, round_key)

    async def stage(self, round_id: bytes, silo: str, number: int, frame: bytes) -> tuple[bytes, ...]:
        digests: tuple[bytes, ...] = await self._do("stage", round_id, silo, number, frame)
        return digests

    async def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        await self._do("add", round_id, silo, name)

    async def close(self, round_id: bytes, silos: tuple[str, ...]) -> tuple[bytes, ...]:
        found: tuple[bytes, ...] = await self._do("close", round_id, silos)
        return found

    async def sum_chunk(self, round_id: bytes, index: int) -> bytes:
        chunk: bytes = await self._do("sum_chunk", round_id, index)
        return chunk

    async def total(self, round_id: bytes, silos: tuple[str, ...]) -> list[bytes]:
        total: list[bytes] = await self._do("total", round_id, silos)
        return total

    async def discard(self, round_id: bytes) -> None:
        await self._do("discard", round_id)

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        chunk: bytes = await self._do("chunk", name, start, length)
        return chunk

    async def _do(self, step: str, *arguments: Any) -> Any:
        """Call the actor; raises what it raised, or StoreError if it is dead."""
        try:
            return await getattr(self._shard, step).remote(*arguments)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as err:
            hint = "ask again when its operator has started it again"
            raise StoreError("the aggregator's process that adds has ended", hint) from err


class AggregatorActor:
    """The server as an asynchronous actor; bytes in, bytes out."""

    def __init__(self, home: str) -> None:
        aggregator = read_home(Path(home))
        silos = {silo: RaySilo(silo) for silo in aggregator.silos}
        sums, store = RaySums(Path(home) / "contributions"), ReportStore(Path(home) / "reports")
        checkpoints = CheckpointStore(Path(home) / "heads", aggregator.federation, aggregator.silos)
        journal = RoundJournal(Path(home) / "rounds")
        self._server = Server(aggregator, silos, sums, store, journal, checkpoints)
        self._recovering = partial(end_left_rounds, aggregator, silos, journal, time.time)
        self._recovery: asyncio.Task[None] | None = None

    async def ready(self) -> bool:
        if self._recovery is None:
            self._recovery = asyncio.create_task(self._recovering())
        return True

    async def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        return await self._server.catalogues(request)

    async def domain(self, request: bytes) -> bytes:
        return await self._server.domain(request)

    async def submit(self, request: bytes) -> bytes:
        return await self._server.submit(request)

    async def put_checkpoint(self, envelope: bytes) -> bytes:
        return await self._server.put_checkpoint(envelope)

    async def get_checkpoint(self, silo: bytes) -> bytes:
        return await self._server.get_checkpoint(silo)

    async def deliver_report(self, name: bytes) -> tuple[bytes, ...]:
        return await self._server.deliver_report(name)

    async def stop_run(self, stopped: bytes) -> tuple[bytes, ...]:
        return await self._server.stop_run(stopped)

    async def report(self, name: bytes) -> bytes:
        return self._server.transcripts.report(name)

    async def find(self, request_hash: bytes) -> bytes:
        return self._server.find(request_hash, None)

    async def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        return await self._server.transcripts.evidence(name, index)
