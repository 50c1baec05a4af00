"""The encrypted reports that the aggregator keeps, and the masked inputs in their sums, for whoever checks them."""

import asyncio
import threading

from aggregator import reports
from aggregator.errors import StoreError
from aggregator.reports import ReportIndex
from aggregator.store import ReportStore
from aggregator.sums import Sums
from crypto.errors import ProtocolError
from crypto.rounds.report import StoredReport

MAX_INDICES = 64  # of stored reports, kept in memory


class Transcripts:
    """What is kept of answers, by the names of their reports."""

    def __init__(self, store: ReportStore, sums: Sums) -> None:
        self._store, self._sums = store, sums
        self._indices: dict[bytes, ReportIndex] = {}
        self._keeping = threading.Lock()  # nothing is read under it

    def report(self, name: bytes) -> bytes:
        """Return an encrypted report by its name, the transcript of an answer; raises StoreError."""
        return self._store.get(name)

    async def request_of(self, name: bytes) -> bytes:
        """Return the signed request that a report answers; raises StoreError, or WireError if it is not a report."""
        return (await asyncio.to_thread(self.index_of, name)).request

    async def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        """Return one chunk of every masked input in the sum of a report, in roster order.

        Raises StoreError if report or masked inputs are not kept, CryptoError if there is no such chunk.
        """
        return await self.chunks(await asyncio.to_thread(self.index_of, name), index)

    def index_of(self, name: bytes) -> ReportIndex:
        """Return what is read off a report; a name is the digest of what is read, so it never changes.

        A large one is read for seconds: call this in a thread.
        """
        if (found := self._indices.get(name)) is not None:
            return found
        stored = StoredReport.decode(self._store.get(name))
        if stored.name != name:
            raise StoreError(f"the report {name.hex()[:16]} here is another one", "put its own file back")
        found = reports.index_of(stored.message)
        with self._keeping:
            while len(self._indices) >= MAX_INDICES:
                del self._indices[next(iter(self._indices))]
            self._indices[name] = found
        return found

    async def chunks(self, report: ReportIndex, number: int) -> tuple[bytes, ...]:
        """Return a chunk of every masked input in a report; raises as `evidence`."""
        sizes = report.pieces
        if not 0 <= number < len(sizes):
            raise ProtocolError(f"the contributions have {len(sizes)} pieces, none of number {number}")
        start = sum(sizes[:number])
        return tuple([await self._sums.chunk(name, start, sizes[number]) for name in report.contributions])
