"""Shards in this process, behind the aggregator's coordinator: they die, lie and lose their directories when told."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from aggregator.errors import AggregatorError, ShardLostError
from aggregator.shards import Shard, ShardedSums
from aggregator.sums import SumShard

T = TypeVar("T")
Before = Callable[[int, str], str]  # a shard's number and the call: "before" or "after" it the shard dies, or ""
Reply = Callable[[int, str, Any], Any]  # what a shard answers in the place of what it would


class LocalShard:
    """A SumShard in this process, which forgets all that is in memory when it dies."""

    def __init__(self, place: "LocalPlace", number: int, shard: SumShard) -> None:
        self._place, self._number, self.shard, self.is_dead = place, number, shard, False

    @property
    def where(self) -> str:
        return f"machine {self._number + 1}"

    async def check(self) -> None:
        self._do("check", lambda: None)

    async def start(self, round_id: bytes, manifest: bytes, round_key: bytes, first: int, end: int) -> None:
        self._do("start", lambda: self.shard.start(round_id, manifest, round_key, first, end))

    async def stage(self, round_id: bytes, silo: str, first: int, end: int, data: bytes) -> tuple[bytes, ...]:
        return self._do("stage", lambda: self.shard.stage(round_id, silo, first, end, data))

    async def keep(self, round_id: bytes, silo: str, name: bytes) -> tuple[int, ...]:
        return self._do("keep", lambda: self.shard.keep(round_id, silo, name))

    async def holds(self, round_id: bytes, silo: str, name: bytes, digests: tuple[bytes, ...]) -> bool:
        return self._do("holds", lambda: self.shard.holds(round_id, silo, name, digests))

    async def close(self, round_id: bytes, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return self._do("close", lambda: self.shard.close(round_id, names))

    async def sum_chunk(self, round_id: bytes, index: int) -> bytes:
        return self._do("sum_chunk", lambda: self.shard.sum_chunk(round_id, index))

    async def discard(self, round_id: bytes) -> None:
        self._do("discard", lambda: self.shard.discard(round_id))

    async def chunk(self, name: bytes, start: int, length: int) -> bytes:
        return self._do("chunk", lambda: self.shard.chunk(name, start, length))

    def _do(self, step: str, call: Callable[[], T]) -> T:
        dies = "before" if self.is_dead else self._place.before(self._number, step)
        if dies != "before":
            reply: T = self._place.reply(self._number, step, call())
            if not dies:
                return reply
        self.is_dead = True
        raise ShardLostError(f"shard {self._number + 1} has ended")


class LocalPlace:
    """Makes shards in directories below one; a shard that is made anew finds its own, if it is still there."""

    def __init__(self, path: Path, count: int = 1, keeps: bool = True) -> None:
        self._path, self._count, self._keeps = path, count, keeps
        self.before: Before = lambda number, step: ""
        self.reply: Reply = lambda number, step, reply: reply
        self.made = list[int]()  # the numbers of the shards that were made, each time
        self.instead = dict[int, LocalShard]()  # shards to give in the place of new ones
        self.fails = False

    def spread(self, count: int, keeps: bool = True) -> None:
        """Divide long sums among so many shards from now on; what a lost one had on disk is kept or not."""
        self._count, self._keeps = count, keeps

    def directory(self, number: int) -> Path:
        return self._path if number == 0 else self._path.parent / "shards" / str(number)

    async def count(self) -> int:
        return self._count

    async def make(self, number: int, lost: Shard | None) -> LocalShard:
        if self.fails:
            raise AggregatorError(f"shard {number + 1} of the sums does not start")
        if number in self.instead:
            return self.instead.pop(number)
        if lost is not None and not self._keeps:
            shutil.rmtree(self.directory(number))
        self.made.append(number)
        return LocalShard(self, number, SumShard(self.directory(number)))


class LocalSums(ShardedSums):
    """The sums of shards in this process."""

    def __init__(self, path: Path, count: int = 1, keeps: bool = True) -> None:
        self.place = LocalPlace(path, count, keeps)
        super().__init__(self.place)
