"""Calls to a silo over the stream that it dialled, for the driver of rounds."""

import asyncio

from aggregator.errors import OtherVersionError
from crypto.errors import LinkError
from crypto.randomness import token
from federation.transport.calls import CallFailedError
from federation.transport.handshake import UPDATE
from federation.transport.session import Session

RESUME_S = 10.0  # how long calls wait for a lost stream to come back, and for silos after a start of the aggregator


class StreamSilo:
    """A silo that dialled a stream: a `SiloHandle` of `aggregator.calls`."""

    def __init__(self, silo: str, resume_s: float = RESUME_S) -> None:
        self.silo = silo
        self._resume_s = resume_s
        self._session: Session | None = None
        self._instance = b""
        self._is_behind = False
        self._lost_at: float | None = None
        self._changed = asyncio.Event()
        self.other_version = ""  # why its last stream was refused, if it has no version in common
        self._number = int.from_bytes(token(6), "big") << 8  # unique over restarts of this process

    @property
    def is_connected(self) -> bool:
        """Whether it has a stream that began with the newest membership; any other is about to end."""
        return self._session is not None and not self._is_behind

    async def call(self, step: str, *arguments: bytes) -> tuple[bytes, ...]:
        """Call a step at the silo; raises LinkError.

        If the stream is lost, the call waits a while for a new one and is sent again under the same number: the silo
        executes it once. If the silo has a new process by then, the call fails.
        """
        self._number += 1
        number, instance = self._number, b""
        while True:
            session = await self._wait()
            if instance not in (b"", self._instance):
                raise LinkError(f"{self.silo} was started anew")
            if session.is_draining and step in ("catalogue", "domain", "take_network", "propose"):
                raise LinkError(f"{self.silo} is stopping")
            instance = self._instance
            try:
                return await session.call(number, step, arguments)
            except CallFailedError:
                raise
            except LinkError:
                if not session.closed.is_set():
                    raise
                self.lost(session)

    def expect(self) -> None:
        """Take its stream for one that was lost now: its silo dials an aggregator that was started anew."""
        self._lost_at = asyncio.get_running_loop().time()

    def attach(self, session: Session, instance: bytes, is_behind: bool = False) -> Session | None:
        """Take a new stream; return the one that it replaces. `is_behind`: it began with an older membership."""
        before, self._session, self._instance, self._lost_at = self._session, session, instance, None
        self._is_behind, self.other_version = is_behind, ""
        self._changed.set()
        return before

    def lost(self, session: Session) -> None:
        """Forget a stream that has ended, unless another has replaced it."""
        if self._session is session:
            self._session, self._lost_at = None, asyncio.get_running_loop().time()
            self._changed.clear()

    async def _wait(self) -> Session:
        while self._session is None:
            if self._lost_at is None or self.other_version:
                raise self._away()
            try:
                async with asyncio.timeout_at(self._lost_at + self._resume_s):
                    await self._changed.wait()
            except TimeoutError as err:
                raise self._away() from err
        return self._session

    def _away(self) -> LinkError:
        if self.other_version:
            return OtherVersionError(f"{self.silo} runs another version: {self.other_version}", UPDATE)
        return LinkError(f"{self.silo} is not connected")
