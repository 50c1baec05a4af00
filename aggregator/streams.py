"""A silo behind its stream, as the driver of rounds calls it."""

import asyncio

from crypto.errors import CryptoError, LinkError
from crypto.frames import RESUMES, CallFailedError, Session
from crypto.randomness import token

RESUME_S = 10.0  # how long a call waits for a lost stream to come back


class StreamSilo:
    """A silo behind the stream that it dialled: `SiloHandle` of `aggregator.driver`."""

    def __init__(self, silo: str, resume_s: float = RESUME_S) -> None:
        self.silo = silo
        self._resume_s = resume_s
        self._session: Session | None = None
        self._instance = b""
        self._lost_at: float | None = None
        self._changed = asyncio.Event()
        self._number = int.from_bytes(token(6), "big") << 8  # unique over the lives of this process

    @property
    def is_connected(self) -> bool:
        return self._session is not None

    async def call(self, step: str, *arguments: bytes) -> tuple[bytes, ...]:
        """Call a step at the silo; raises LinkError.

        If the stream is lost, the call waits a while for it to come back and arrives again under the same number: the
        silo executes it once. If the silo's process is another by then, or speaks wire version 1, the call has failed.
        """
        self._number += 1
        number, instance = self._number, b""
        deadline = asyncio.get_running_loop().time() + self._resume_s
        while True:
            session = await self._wait(deadline)
            if instance not in (b"", self._instance):
                raise LinkError(f"{self.silo} was started anew")
            if session.is_draining and step in ("catalogue", "propose"):
                raise LinkError(f"{self.silo} is stopping")
            instance = self._instance
            try:
                return await session.call(number, step, arguments)
            except CallFailedError:
                raise
            except LinkError:
                if session.wire < RESUMES or not session.closed.is_set():
                    raise
                self.lost(session)
                deadline = asyncio.get_running_loop().time() + self._resume_s

    def attach(self, session: Session, instance: bytes) -> Session | None:
        """Take a new stream; return the one that it replaces."""
        before, self._session, self._instance, self._lost_at = self._session, session, instance, None
        self._changed.set()
        return before

    def lost(self, session: Session) -> None:
        """Forget a stream that has ended, unless another has replaced it."""
        if self._session is session:
            self._session, self._lost_at = None, asyncio.get_running_loop().time()
            self._changed.clear()

    def close(self, error: CryptoError) -> None:
        """End the stream."""
        if self._session is not None:
            self._session.close(error)

    async def _wait(self, deadline: float) -> Session:
        now = asyncio.get_running_loop().time()
        if self._session is None and (self._lost_at is None or now - self._lost_at >= self._resume_s):
            raise LinkError(f"{self.silo} is not connected")
        while self._session is None:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError as err:
                raise LinkError(f"{self.silo} is not connected") from err
        return self._session
