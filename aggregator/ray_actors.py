"""The aggregator's server and its sums as Ray actors, and how it reaches silos that are actors of the same cluster."""

from pathlib import Path
from typing import Any

import ray

from aggregator.driver import Server
from aggregator.home import read_home
from aggregator.store import HeadStore, ReportStore
from aggregator.sums import SumShard

NAMESPACE = "consilo"


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
    """Adds in an actor of its own, off the loop that talks to silos."""

    def __init__(self, path: Path) -> None:
        self._shard: Any = ray.remote(num_cpus=0, max_restarts=0)(SumShard).remote(path)

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes) -> None:
        await self._shard.start.remote(round_id, manifest, round_key)

    async def stage(self, round_id: bytes, silo: str, digests: tuple[bytes, ...], frame: bytes) -> None:
        await self._shard.stage.remote(round_id, silo, digests, frame)

    async def add(self, round_id: bytes, silo: str, name: bytes) -> None:
        await self._shard.add.remote(round_id, silo, name)

    async def total(self, round_id: bytes, silos: tuple[str, ...]) -> list[bytes]:
        total: list[bytes] = await self._shard.total.remote(round_id, silos)
        return total

    async def discard(self, round_id: bytes) -> None:
        await self._shard.discard.remote(round_id)

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        chunk: bytes = await self._shard.chunk.remote(name, start, length)
        return chunk


class AggregatorActor:
    """The server as an asynchronous actor; bytes in, bytes out."""

    def __init__(self, home: str) -> None:
        aggregator = read_home(Path(home))
        silos = {silo: RaySilo(silo) for silo in aggregator.silos}
        sums, store = RaySums(Path(home) / "contributions"), ReportStore(Path(home) / "reports")
        heads = HeadStore(Path(home) / "heads", aggregator.federation, aggregator.silos)
        self._server = Server(aggregator, silos, sums, store, heads=heads)

    async def ready(self) -> bool:
        return True

    async def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        return await self._server.catalogues(request)

    async def submit(self, request: bytes) -> bytes:
        return await self._server.submit(request)

    async def put_head(self, envelope: bytes) -> bytes:
        return await self._server.put_head(envelope)

    async def get_head(self, silo: bytes) -> bytes:
        return await self._server.get_head(silo)

    async def teach(self, name: bytes) -> tuple[bytes, ...]:
        return await self._server.teach(name)

    async def report(self, name: bytes) -> bytes:
        return self._server.report(name)

    async def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        return await self._server.evidence(name, index)
