"""Start the aggregator: as a named Ray actor by `python -m aggregator simulate HOME`, or for others by `serve`.

Reads the address of the Ray cluster from standard input and prints one JSON line: {"ready": true} or {"error", "hint"}.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

import ray

from aggregator.driver import Server
from aggregator.errors import AggregatorError
from aggregator.home import read_home
from aggregator.store import HeadStore, ReportStore
from aggregator.sums import SumShard
from crypto.errors import CryptoError

NAMESPACE = "consilo"
START_TIMEOUT_S = 60.0


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
        return await self._server.deliver_report(name)

    async def report(self, name: bytes) -> bytes:
        return self._server.report(name)

    async def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        return await self._server.evidence(name, index)


def main() -> int:
    """Start the actor and leave it running in the cluster; `serve` is in a module of its own."""
    if sys.argv[1:2] == ["serve"]:
        from aggregator.serve import main as serve  # gRPC is heavy: only where somebody listens

        return serve(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m aggregator")
    parser.add_argument("mode", choices=["simulate"])
    parser.add_argument("home", type=Path)
    arguments = parser.parse_args()
    try:
        read_home(arguments.home)
        address = sys.stdin.readline().strip()
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        remote: Any = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(AggregatorActor)
        actor = remote.options(name="aggregator", lifetime="detached").remote(str(arguments.home.resolve()))
        ray.get(actor.ready.remote(), timeout=START_TIMEOUT_S)
    except (AggregatorError, CryptoError) as err:
        return _report(1, error=err.message, hint=err.hint)
    except ray.exceptions.RayError as err:
        return _report(1, error=f"the aggregator did not start ({type(err).__name__})", hint="try again")
    return _report(0, ready=True)


def _report(code: int, **fields: object) -> int:
    print(json.dumps(fields), flush=True)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
