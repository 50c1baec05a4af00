"""The aggregator in Ray: the server as an actor, the silos' actors as it reaches them, and the actors that add.

The code of the actors is in `aggregator.driver` and `aggregator.sums`, that of the shards' coordinator in
`aggregator.shards`.
"""

import asyncio
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aggregator.driver import Server
from aggregator.errors import AggregatorError, ShardLostError
from aggregator.home import read_home
from aggregator.keeping import Keeping
from aggregator.recovery import end_left_rounds
from aggregator.round_journal import RoundJournal
from aggregator.shards import Shard, ShardedSums
from aggregator.store import CONTRIBUTIONS, CheckpointStore, ReportStore
from aggregator.sums import SumShard
from federation.operations.load import patience
from federation.operations.private import close_to_others
from federation.operations.ray_cluster import NAMESPACE

CHECK_S = 2.0
Address = tuple[str, int]
START_S = 60.0  # also if Ray takes its time to notice that a machine has gone
AGAIN_S = 0.5


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


class ShardActor(SumShard):
    """A shard in a process of its own, perhaps on another machine of the organisation."""

    def __init__(self, path: str, keeping: Keeping) -> None:
        close_to_others()
        super().__init__(Path(path), keeping)


class RayShard:
    """Reaches a shard by its actor."""

    def __init__(self, actor: Any, node: str, raylet: Address) -> None:
        self.actor, self.node, self._raylet = actor, node, raylet

    @property
    def where(self) -> str:
        return self._raylet[0]

    async def check(self) -> None:
        try:
            async with asyncio.timeout(2 * CHECK_S):
                await self._do("__ray_ready__")
        except TimeoutError:  # one that only adds for long has not ended
            return

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes, first: int, end: int) -> None:
        await self._do("start", round_id, manifest, round_key, first, end)

    async def stage(self, round_id: bytes, silo: str, first: int, end: int, data: bytes) -> tuple[bytes, ...]:
        digests: tuple[bytes, ...] = await self._do("stage", round_id, silo, first, end, data)
        return digests

    async def keep(self, round_id: bytes, silo: str, name: bytes) -> tuple[int, ...]:
        lacking: tuple[int, ...] = await self._do("keep", round_id, silo, name)
        return lacking

    async def holds(self, round_id: bytes, silo: str, name: bytes, digests: tuple[bytes, ...]) -> bool:
        return bool(await self._do("holds", round_id, silo, name, digests))

    async def close(self, round_id: bytes, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
        digests: tuple[bytes, ...] = await self._do("close", round_id, names)
        return digests

    async def sum_chunk(self, round_id: bytes, index: int) -> bytes:
        chunk: bytes = await self._do("sum_chunk", round_id, index)
        return chunk

    async def discard(self, round_id: bytes) -> None:
        await self._do("discard", round_id)

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        chunk: bytes = await self._do("chunk", name, start, length)
        return chunk

    async def _do(self, step: str, *arguments: Any) -> Any:
        """Call the actor; raises what it raised, or ShardLostError if it, or the raylet beside it, cannot be reached.

        Ray takes its time to notice that a machine has gone, and a call may wait for as long.
        """
        call = asyncio.ensure_future(_awaited(getattr(self.actor, step).remote(*arguments)))
        try:
            while not (await asyncio.wait([call], timeout=CHECK_S))[0]:
                if not await asyncio.to_thread(_answers, self._raylet):
                    raise ShardLostError(f"the machine {self.where}, where the aggregator adds, does not answer")
            return call.result()
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as err:
            hint = "ask again when its operator has started it again"
            message = f"the aggregator's process that adds on {self.where} has ended ({type(err).__name__})"
            raise ShardLostError(message, hint) from err
        finally:
            call.cancel()


async def _awaited(reference: Any) -> Any:
    return await reference


class RayShards:
    """Makes shards as actors: the first beside the aggregator, whose directory it uses, and the others elsewhere.

    Each of these is on a machine of its own while there are enough. Zero task retries: the coordinator calls again.
    """

    def __init__(self, home: Path, keeping: Keeping = CONTRIBUTIONS, shards: int | None = None) -> None:
        """Keep masked inputs under `home`, at the same path on every machine; as many shards as machines by default."""
        self._home, self._keeping, self._shards = home, keeping, shards
        self._nodes: dict[int, str] = {}  # by shard

    async def count(self) -> int:
        return self._shards or len(await asyncio.to_thread(_machines))

    async def make(self, number: int, lost: Shard | None) -> RayShard:
        if isinstance(lost, RayShard):
            with suppress(ray.exceptions.RayError):  # what cannot be reached may live, and must not write any more
                ray.kill(lost.actor, no_restart=True)
        place = self._home / "contributions" if number == 0 else self._home / "shards" / str(number)
        deadline = time.monotonic() + START_S * patience()
        while True:
            machines = await asyncio.to_thread(_machines)
            node = self._nodes[number] = self._chosen(number, machines)
            try:
                return RayShard(await _started(node, str(place), self._keeping), node, machines[node])
            except (TimeoutError, ray.exceptions.RayError) as err:
                del self._nodes[number]
                # Until Ray notices that a machine has gone, it may let that one place actors, which then never run.
                if time.monotonic() > deadline or ("never ran" not in str(err) and machines.keys() <= set(_machines())):
                    on = machines[node][0]
                    message = f"shard {number + 1} of the sums does not start on {on} ({type(err).__name__})"
                    hint = f"see the cluster's logs, and whether that machine can write {place}"
                    raise AggregatorError(message, hint) from err
            await asyncio.sleep(AGAIN_S)

    def _chosen(self, number: int, machines: dict[str, Address]) -> str:
        """Return the machine of a shard: where it was, as its directory is there, or the one with the fewest shards."""
        here = ray.get_runtime_context().get_node_id()
        if number == 0:
            return here
        if (before := self._nodes.get(number)) in machines:
            return str(before)
        taken = [here, *[node for one, node in self._nodes.items() if one != number]]
        return min(machines, key=lambda node: (taken.count(node), node))


async def _started(node: str, place: str, keeping: Keeping) -> Any:
    """Return an actor on a node that is ready; raises RayError or TimeoutError if it does not come up."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": strategy}
    actor: Any = ray.remote(ShardActor).options(**options).remote(place, keeping)
    try:
        async with asyncio.timeout(START_S * patience()):
            await actor.__ray_ready__.remote()
    except BaseException:
        with suppress(ray.exceptions.RayError):
            ray.kill(actor, no_restart=True)
        raise
    return actor


def _machines() -> dict[str, Address]:
    """Return the machines of the cluster that answer, by the id of the node, with the address of its raylet."""
    found = dict[str, Address]()
    listed: Any = ray.nodes  # which Ray has left untyped
    for node in listed():
        if node["Alive"]:
            raylet = str(node["NodeManagerAddress"]), int(node["NodeManagerPort"])
            if _answers(raylet):  # the cluster itself takes some time to notice that one has gone
                found[str(node["NodeID"])] = raylet
    return found


def _answers(raylet: Address) -> bool:
    try:
        socket.create_connection(raylet, CHECK_S).close()
    except OSError:
        return False
    return True


class AggregatorActor:
    """The server as an asynchronous actor; bytes in, bytes out."""

    def __init__(self, home: str) -> None:
        aggregator = read_home(Path(home))
        silos = {silo: RaySilo(silo) for silo in aggregator.silos}
        sums, store = ShardedSums(RayShards(Path(home))), ReportStore(Path(home) / "reports")
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

    async def offer(self, offer: bytes, index: bytes, frame: bytes) -> tuple[bytes, ...]:
        return await self._server.offer(offer, index, frame)

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
