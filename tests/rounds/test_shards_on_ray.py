"""The shards of a long sum on three raylets, of which one after the other is killed in mid-round."""

import asyncio
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from aggregator.errors import ShardLostError, StoreError
from aggregator.ray_actors import RayShard, RayShards
from aggregator.shards import ShardedSums
from crypto.rounds.payload import digests
from tests.aggregator.test_shards import LENGTH, PAYLOADS, TRUE, again, gone, pieces_of
from tests.aggregator.test_sums import NARROW, manifest
from tests.harness.inside import shards_of
from tests.harness.raylets import two_raylets

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
NAMES = {silo: silo.encode() * 32 for silo in "abc"}
RECOVERED_S = 60.0


def nodes_of(sums: ShardedSums) -> dict[int, str]:
    found = dict[int, str]()
    for number, shard in shards_of(sums).items():
        assert isinstance(shard, RayShard)
        found[number] = shard.node
    return found


async def ended(sums: ShardedSums, number: int) -> None:
    """Wait until a shard's process has noticed that its raylet is gone."""
    with suppress(ShardLostError):
        while True:
            await shards_of(sums)[number].check()
            await asyncio.sleep(0.1)


async def send(sums: ShardedSums, round_id: bytes, silo: str) -> None:
    assert await sums.stage(round_id, silo, 0, PAYLOADS[silo]) == digests(pieces_of(silo))
    await sums.keep(round_id, silo, NAMES[silo])


async def total(sums: ShardedSums, round_id: bytes) -> bytes:
    closed = await sums.close(round_id, ("a", "b"))
    return b"".join([await sums.sum_chunk(round_id, index) for index in range(len(closed))])


def test_a_raylet_that_is_killed_in_mid_round_costs_no_round(tmp_path: Path) -> None:
    with two_raylets() as (made, nodes):
        by_id = {node.node_id: node for node in nodes}

        def kill(node: str) -> None:
            made.remove_node(by_id.pop(node), allow_graceful=False)

        async def story() -> None:
            assert await RayShards(tmp_path).count() == 3, "as many as there are machines, if nothing else is said"
            sums = ShardedSums(RayShards(tmp_path, shards=3))
            # 1. One raylet is killed between two silos; what its shard held is still on disk, and another goes on.
            await sums.start(b"1" * 16, manifest(LENGTH, NARROW), b"", gone)
            where = nodes_of(sums)
            assert len(set(where.values())) == 3, "a shard on each raylet"
            await send(sums, b"1" * 16, "a")
            kill(where[1])
            await ended(sums, 1)
            began = time.monotonic()
            await send(sums, b"1" * 16, "b")
            assert await total(sums, b"1" * 16) == TRUE
            print(f"recovered in {time.monotonic() - began:.1f} s")
            assert time.monotonic() - began < RECOVERED_S
            assert nodes_of(sums)[1] in {where[0], where[2]}
            await sums.discard(b"1" * 16)
            # 2. The next is killed with its disk, between adding and closing: the silos send that range again.
            await sums.start(b"2" * 16, manifest(LENGTH, NARROW), b"", again)
            await send(sums, b"2" * 16, "a")
            await send(sums, b"2" * 16, "b")
            kill(where[2])
            for number, node in nodes_of(sums).items():
                if node == where[2]:
                    await ended(sums, number)
                    shutil.rmtree(tmp_path / "shards" / str(number))
            began = time.monotonic()
            assert await total(sums, b"2" * 16) == TRUE
            print(f"recovered in {time.monotonic() - began:.1f} s")
            assert set(nodes_of(sums).values()) == {where[0]}
            assert await sums.chunk(NAMES["a"], 0, 100) == PAYLOADS["a"][:100]
            # 3. A process is killed after the sum was closed: it is derived once more, from what is on disk.
            import ray

            shard = shards_of(sums)[2]
            assert isinstance(shard, RayShard)
            ray.kill(shard.actor)
            assert TRUE.endswith(await sums.sum_chunk(b"2" * 16, 4))
            await sums.discard(b"2" * 16)
            # 4. A process is killed with its disk, and the silos have gone: no sum, and the error says why.
            await sums.start(b"3" * 16, manifest(LENGTH, NARROW), b"", gone)
            await send(sums, b"3" * 16, "a")
            shard = shards_of(sums)[2]
            assert isinstance(shard, RayShard)
            ray.kill(shard.actor)
            await ended(sums, 2)
            shutil.rmtree(tmp_path / "shards" / "2")
            with pytest.raises(StoreError, match=r"shard 3 of 3 .* was lost with 2 pieces of the contribution of 'a'"):
                await sums.close(b"3" * 16, ("a",))
            await sums.discard(b"3" * 16)

        asyncio.run(story())
