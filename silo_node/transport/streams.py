"""A silo's streams: one to every aggregator of the membership, and an actor that knows the newest membership.

A newer membership from one aggregator applies to all streams: streams to a revoked aggregator or key end, and the actor
restarts, which makes it a drop-out of its open rounds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from federation.members.credentials import Credentials
from federation.transport.frames import WIRE
from silo_node.transport.checkpoint_relay import Actor, Ask, CheckpointRelay
from silo_node.transport.dialler import Counts, Dialler


class Streams:
    """Dials every aggregator, and updates streams and actor when the membership grows."""

    def __init__(
        self,
        credentials: Credentials,
        actor: Actor,
        restart: Callable[[], Awaitable[None]],
        counts: Counts,
        wire: tuple[int, ...] = WIRE,
        first_wait_s: float = 0.5,
        computing_s: float = 0.0,
        learned_bytes: int = 0,
    ) -> None:
        """`actor` calls a method of the actor; `restart` restarts it, so that it reads its directory again.

        `computing_s` is how long the computing of a round may take, `learned_bytes` how long a sum that it learns may
        be.
        """
        self._credentials, self._actor, self._restart, self._counts = credentials, actor, restart, counts
        self._wire, self._first_wait_s = wire, first_wait_s
        self._computing_s, self._learned_bytes = computing_s, learned_bytes
        self._ways: dict[str, Ask] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._renewing, self._known = asyncio.Lock(), len(credentials.log)  # the version that the actor has read
        self.diallers: dict[str, Dialler] = {}
        self.relay = CheckpointRelay(actor, self._ways, first_wait_s)
        self._following = asyncio.create_task(self.relay.follow())
        self._dial()

    @property
    def connected(self) -> dict[str, bool]:
        """Return whether the stream to each aggregator is open."""
        return {name: one.is_connected for name, one in self.diallers.items()}

    @property
    def connected_since(self) -> dict[str, str | None]:
        """Return since when the stream to each aggregator is open; None where it is not."""
        return {name: one.connected_since for name, one in self.diallers.items()}

    @property
    def problems(self) -> list[str]:
        """Return why aggregators refuse this silo, or cannot be reached."""
        return [f"{name}: {one.problem}" for name, one in self.diallers.items() if one.problem]

    @property
    def is_compared(self) -> bool:
        """Whether the ledger has been compared with the checkpoints of enough aggregators."""
        return self.relay.is_compared and not self.relay.refused.done()

    async def drain(self, most_s: float) -> None:
        """Announce on all streams that the silo stops, and wait at most `most_s` for its open rounds."""
        await asyncio.gather(*(one.drain(most_s) for one in self.diallers.values()))

    async def close(self) -> None:
        """End every stream."""
        tasks = [self._following, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.relay.close()

    async def renewed(self) -> bool:
        """Update actor and streams to the membership; return False if they are up to date. A failure is retried."""
        async with self._renewing:
            version = len(self._credentials.log)
            if self._known == version:
                return False
            listed = {one.name for one in self._credentials.membership.of_role("aggregator")}
            if new := tuple(sorted(listed - set(self.diallers))):
                with suppress(Exception):  # an actor that does not run excuses nobody
                    await self._actor("joined", new)
            await self._restart()
            self.relay.is_compared = False
            self._known = version
        self._dial()
        return True

    def _dial(self) -> None:
        """Dial exactly the aggregators that the membership lists."""
        listed = {one.name: one.pins for one in self._credentials.membership.of_role("aggregator")}
        for name in [one for one in self.diallers if one not in listed]:
            del self._ways[name]
            self.diallers.pop(name).leave()
            self._tasks.pop(name).cancel()
        for name, pins in listed.items():
            if name in self.diallers:
                self.diallers[name].check(pins)
                continue
            one = Dialler(
                self._credentials,
                name,
                self.relay.call,
                self._counts,
                self.renewed,
                self._wire,
                self._first_wait_s,
                self._computing_s,
                self._learned_bytes,
            )
            self.diallers[name], self._ways[name] = one, one.ask
            self._tasks[name] = asyncio.create_task(one.run())
