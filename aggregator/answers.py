"""The one answer to each request: a stored report, that of the round under way, or that of a round begun now."""

import asyncio
from collections.abc import Awaitable, Callable

from aggregator.errors import AggregatorError
from aggregator.keeping import Erased
from aggregator.rounds import ReceivedRequest
from aggregator.store import Filed, ReportStore
from crypto.rounds.messages import Found


class Answers:
    """Answers by request: docs/protocol.md section 7.6."""

    def __init__(self, store: ReportStore) -> None:
        self._store = store
        self._under_way: dict[bytes, tuple[str, asyncio.Future[bytes]]] = {}  # by request hash, with its analyst

    async def of(self, asked: ReceivedRequest, begin: Callable[[ReceivedRequest], Awaitable[bytes]]) -> bytes:
        """Return the answer to a request; `begin` runs its rounds if there is none. Raises AggregatorError."""
        if asked.digest in self._under_way:
            return await self._joined(asked.digest)
        filed = await asyncio.to_thread(self._store.filed, asked.digest)
        if filed is not None:
            return await asyncio.to_thread(self._store.get, filed.report)
        if asked.digest in self._under_way:  # it came while the disk was asked
            return await self._joined(asked.digest)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._under_way[asked.digest] = asked.request.analyst, answer
        try:
            answer.set_result(await begin(asked))
        finally:
            del self._under_way[asked.digest]
            answer.cancel()  # of no effect once there is an answer
        return answer.result()

    async def _joined(self, request_hash: bytes) -> bytes:
        answer = self._under_way[request_hash][1]
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            if not answer.cancelled():
                raise  # it is this caller that has left
            raise AggregatorError("the round of this request was ended", "ask again") from None

    def find(self, request_hash: bytes, analyst: str | None) -> bytes:
        """Return an encoded `Found`: what is here for a request; raises StoreError.

        Of another analyst's request it says the same as of one that is unknown. None: whoever asks is the local
        caller of simulate mode, which is one trust domain.
        """
        running = self._under_way.get(request_hash)
        if running is not None and analyst in (None, running[0]):
            return Found(state="running").encode()
        match self._store.find(request_hash):
            case Filed() as filed if analyst in (None, filed.analyst):
                return Found(state="kept", report=filed.report).encode()
            case Erased() as erased if analyst is None or erased.is_of(analyst):
                return Found(state="erased", erased_at=erased.at).encode()
        return Found(state="none").encode()
