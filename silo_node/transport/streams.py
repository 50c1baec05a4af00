"""A silo's streams: one to every aggregator of the membership, and an actor that knows the newest membership.

Whatever one aggregator tells of who belongs holds for all: no stream goes on to one that was revoked, or to a key of
one that was, and the actor starts anew, which makes it a drop-out of the rounds that it is in.
"""

import asyncio
from collections.abc import Awaitable, Callable

from federation.members.credentials import Credentials
from federation.transport.frames import WIRE
from silo_node.transport.checkpoint_relay import Actor, Ask, CheckpointRelay
from silo_node.transport.dialler import Counts, Dialler


class Streams:
    """Dials every aggregator, and keeps streams and actor up to the membership."""

    def __init__(
        self,
        credentials: Credentials,
        actor: Actor,
        restart: Callable[[], Awaitable[None]],
        counts: Counts,
        wire: tuple[int, ...] = WIRE,
        first_wait_s: float = 0.5,
    ) -> None:
        """`actor` calls a method of the actor; `restart` lets it begin anew, and read its directory."""
        self._credentials, self._restart, self._counts = credentials, restart, counts
        self._wire, self._first_wait_s = wire, first_wait_s
        self._ways: dict[str, Ask] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._renewing, self._known = asyncio.Lock(), len(credentials.log)  # the version that the actor has read
        self.diallers: dict[str, Dialler] = {}
        self.relay = CheckpointRelay(actor, self._ways, first_wait_s)
        self._comparing = asyncio.create_task(self.relay.compared())
        self._dial()

    @property
    def connected(self) -> dict[str, bool]:
        """Return whether the stream to each aggregator is open."""
        return {name: one.is_connected for name, one in self.diallers.items()}

    @property
    def is_compared(self) -> bool:
        """Whether the ledger holds against the checkpoint that each aggregator keeps."""
        return self._comparing.done() and not self.relay.refused.done()

    async def drain(self, most_s: float) -> None:
        """Say everywhere that the silo is going, and wait for the rounds that it is in, for at most `most_s`."""
        await asyncio.gather(*(one.drain(most_s) for one in self.diallers.values()))

    async def close(self) -> None:
        """End every stream."""
        tasks = [self._comparing, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def renewed(self) -> bool:
        """Bring actor and streams up to the membership; False if they are. What has failed is done again."""
        async with self._renewing:
            version = len(self._credentials.log)
            if self._known == version:
                return False
            await self._restart()
            self._known = version
        self._dial()
        return True

    def _dial(self) -> None:
        """Dial whom the membership lists and nobody else."""
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
                self._credentials, name, self.relay.call, self._counts, self.renewed, self._wire, self._first_wait_s
            )
            self.diallers[name], self._ways[name] = one, one.ask
            self._tasks[name] = asyncio.create_task(one.run())
