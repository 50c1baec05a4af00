"""Drives rounds: asks silos in parallel, takes silence as drop-out, and never waits without a bound.

Transport-agnostic: `SiloHandle` is a Ray actor in `aggregator/ray_actors.py` and an object in memory in tests.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

from aggregator import reports
from aggregator import rounds as core
from aggregator.errors import AggregatorError, SharesMissingError, SilosMissingError
from aggregator.rounds import Aggregator, Replies
from aggregator.store import HeadStore, ReportStore
from aggregator.sums import Sums
from crypto.errors import CryptoError, ProtocolError
from crypto.randomness import token
from crypto.rounds.messages import Contribution
from crypto.rounds.payload import frames as frames_of
from crypto.rounds.payload import piece_sizes
from crypto.rounds.report import EncryptedReport, StoredReport
from crypto.wire import MAX_ENVELOPE_OVERHEAD, Signed
from policies.requests.catalogue import Catalogue
from policies.requests.training import START
from policies.units import MAX_STEPS

STEP_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 240.0  # with its wait for a free slot
MAX_CONCURRENT_ROUNDS = 8
Call = Coroutine[Any, Any, tuple[bytes, ...]]
_log = logging.getLogger("consilo.aggregator")


class SiloHandle(Protocol):
    """A way to reach one silo."""

    async def call(self, step: str, *arguments: bytes) -> tuple[bytes, ...]:
        """Call a step of the silo's actor; any exception means that the silo did not answer."""


class Server:
    """One aggregator: relays catalogue requests and runs rounds."""

    def __init__(
        self,
        aggregator: Aggregator,
        silos: Mapping[str, SiloHandle],
        sums: Sums,
        store: ReportStore,
        clock: Callable[[], float] = time.time,
        step_timeout_s: float = STEP_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        heads: HeadStore | None = None,
    ) -> None:
        self._heads = heads
        self._aggregator, self._silos, self._sums, self._store = aggregator, silos, sums, store
        self._clock, self._step_timeout_s, self._request_timeout_s = clock, step_timeout_s, request_timeout_s
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_ROUNDS)

    async def put_head(self, envelope: bytes) -> bytes:
        """Keep the signed head of a silo's ledger; return the one kept now. Raises CryptoError or AggregatorError."""
        return await asyncio.to_thread(self._head_store().put, envelope)

    async def get_head(self, silo: bytes) -> bytes:
        """Return the head kept of a silo, by its name; nothing if it has sent none. Raises AggregatorError."""
        return self._head_store().get(silo.decode(errors="replace"))

    def _head_store(self) -> HeadStore:
        if self._heads is None:
            raise AggregatorError("this aggregator keeps no heads", "start it with a directory for them")
        return self._heads

    async def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        """Relay a signed CatalogueRequest to every silo; return their signed answers, which nobody reads here.

        Left out is one that no analyst reads: a few such would be more together than an analyst's stream takes.
        """
        replies = await self._gather({silo: handle.call("catalogue", request) for silo, handle in self._silos.items()})
        found: list[bytes] = []
        for silo, frames in replies.items():
            if frames and len(frames[0]) > Catalogue.MAX_BYTES + MAX_ENVELOPE_OVERHEAD:
                _log.warning("%s answered with a catalogue of %d bytes", silo, len(frames[0]))
            elif frames:
                found.append(frames[0])
        return tuple(found)

    async def submit(self, request: bytes) -> bytes:
        """Run the rounds that a signed request needs; return an encoded EncryptedReport or a signed Failure.

        A silo that drops out before anything was contributed makes the round start anew without it. Raises WireError
        on bytes that are no request.
        """
        refusals: dict[str, bytes] = {}
        missing: set[str] = set()
        asked = set(core.asked_silos(request))
        try:
            if unknown := asked - set(self._silos):
                raise AggregatorError(f"the request names silos unknown here: {', '.join(sorted(unknown))}")
            async with asyncio.timeout(self._request_timeout_s), self._slots:
                for _ in range(len(asked)):
                    try:
                        return await self._round(request, asked - missing - set(refusals), refusals, missing)
                    except SharesMissingError as err:
                        missing.update(err.missing)
            raise AggregatorError("the silos that are left cannot form a round")
        except SilosMissingError as err:
            missing.update(err.missing)
            reason = err.message
        except TimeoutError:
            reason = f"no answer within {self._request_timeout_s:g} s"
        except (CryptoError, AggregatorError) as err:
            reason = err.message
        return core.failure(self._aggregator, request, reason, tuple(missing), refusals)

    async def teach(self, name: bytes) -> tuple[bytes, ...]:
        """Hand the report of a training step, by its SHA-256, to its recipients, after those that they missed.

        Return what each silo signed of how far it is. Raises AggregatorError or CryptoError on an unknown report.
        """
        silos, _ = reports.learners(StoredReport.decode(self._store.get(name)).message)
        replies = await self._gather({silo: self._teach(silo, name) for silo in silos if silo in self._silos})
        return tuple(frame for frames in replies.values() for frame in frames)

    async def _teach(self, silo: str, name: bytes) -> tuple[bytes, ...]:
        pending = [name]
        for _ in range(2 * MAX_STEPS):  # back to what it has learned, and forth again
            data = self._store.get(pending[-1])
            report = StoredReport.decode(data).message
            evidence = [chunk for index in reports.added_pieces(report) for chunk in await self._chunks(report, index)]
            frames = await self._silos[silo].call("learn", data, *evidence)
            signed = reports.read_learned(self._aggregator, silo, report, frames)
            before = reports.learners(report)[1]
            if signed.message.position == pending[-1]:
                pending.pop()
            elif before in (START, signed.message.position):
                break  # it has what comes before and does not follow: it is beyond, or in another run
            else:
                pending.append(before)
            if not pending:
                break
        return (signed.envelope,)

    def report(self, name: bytes) -> bytes:
        """Return an encrypted report by its name, the transcript of an answer; raises StoreError."""
        return self._store.get(name)

    async def request_of(self, name: bytes) -> bytes:
        """Return the signed request that a report answers; raises StoreError, or WireError on what is no report."""
        return await asyncio.to_thread(self._request_of, name)

    def _request_of(self, name: bytes) -> bytes:
        return reports.request_of(StoredReport.decode(self._store.get(name)).message)

    async def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        """Return one chunk of every contribution in the sum of a report, in roster order.

        Raises StoreError if report or contributions are not kept, CryptoError if there is no such chunk.
        """
        return await self._chunks(StoredReport.decode(self._store.get(name)).message, index)

    async def _chunks(self, report: EncryptedReport, index: int) -> tuple[bytes, ...]:
        sizes = reports.pieces_of(report)
        if not 0 <= index < len(sizes):
            raise ProtocolError(f"the contributions have {len(sizes)} pieces, none of number {index}")
        start = sum(sizes[:index])
        return tuple([await self._sums.chunk(name, start, sizes[index]) for name in reports.contributions_of(report)])

    async def _round(
        self, request: bytes, asked: Iterable[str], refusals: dict[str, bytes], missing: set[str]
    ) -> bytes:
        round_id = token(16)
        proposed = core.propose(self._aggregator, request, round_id, int(self._clock()))
        in_round = set(asked)
        try:
            replies = await self._ask("propose", round_id, dict.fromkeys(sorted(in_round), proposed.envelope))
            accepts, refused = core.read_answers(self._aggregator, proposed, replies)
            refusals.update(refused)
            missing.update(in_round - set(accepts) - set(refused))
            in_round -= set(refused)
            composed = core.compose_round(self._aggregator, proposed, accepts, refusals)
            members = composed.manifest.silos
            missing.update(set(accepts) - set(members))
            replies = await self._ask("share", round_id, dict.fromkeys(members, composed.share))
            shared = core.collect_shares(self._aggregator, composed, replies)
            replies = await self._ask("ready", round_id, {silo: shared.deliver(silo) for silo in members})
            go = core.collect_ready(self._aggregator, shared, replies)
            await self._sums.start(round_id, composed.manifest.encode(), proposed.round_key)
            contributions = await self._contributions(round_id, shared, go)
            parted = core.part(self._aggregator, shared, contributions)
            survivors = tuple(survivor.silo for survivor in parted.split.survivors)
            replies = await self._ask("agree", round_id, dict.fromkeys(survivors, parted.envelope))
            signatures = core.collect_signatures(self._aggregator, parted, replies)
            opens = core.open_message(parted, signatures)
            replies = await self._open(round_id, parted, signatures, opens)
            in_round -= set(replies)  # a silo that opened has erased the round
            total = await self._sums.total(round_id, survivors)
            report, pieces = core.assemble(self._aggregator, parted, signatures, replies, total)
            name = self._store.put(report, pieces)
            del total, pieces  # before the whole is read
            return self._store.get(name)
        finally:
            # Whoever is still in the round forgets it; where nothing has left, the reservation is released.
            try:
                await self._sums.discard(round_id)
            finally:
                cancelled = core.cancel(self._aggregator, round_id)
                await self._gather({silo: self._silos[silo].call("cancel", round_id, cancelled) for silo in in_round})

    async def _open(
        self, round_id: bytes, parted: core.Parted, signatures: Iterable[str], opens: bytes
    ) -> dict[str, tuple[bytes, ...]]:
        """Ask silos to open; where they add themselves, with the columns that the survivors sealed to each."""
        sizes, composed = piece_sizes(parted.before.before.scheme), parted.before.before
        names = [survivor.contribution for survivor in parted.split.survivors]

        async def one(silo: str) -> tuple[bytes, ...]:
            columns: list[bytes] = []
            if composed.scheme.columns > 1:
                place = composed.manifest.silos.index(silo)
                start = sum(sizes[:place])
                columns = [await self._sums.chunk(name, start, sizes[place]) for name in names]
                columns = [*parted.contributions, *columns]
            return await self._silos[silo].call("open_shares", round_id, opens, *columns)

        return await self._gather({silo: one(silo) for silo in signatures})

    async def _contributions(
        self, round_id: bytes, shared: core.SharedOut, go: bytes
    ) -> dict[str, Signed[Contribution]]:
        """Collect and add contributions as they come, a frame at a time; one that does not hold is not there."""
        found: dict[str, Signed[Contribution]] = {}
        sizes = piece_sizes(shared.before.scheme)

        async def one(silo: str) -> tuple[bytes, ...]:
            handle = self._silos[silo]
            head, frame = await handle.call("contribute", round_id, go)
            signed = core.read_contribution(self._aggregator, shared, silo, head)
            chunks = signed.message.chunks
            await self._sums.stage(round_id, silo, chunks, frame)
            for index in range(1, len(frames_of(sizes))):
                (frame,) = await handle.call("frame", round_id, index.to_bytes(8, "big"))
                await self._sums.stage(round_id, silo, chunks, frame)
            await self._sums.add(round_id, silo, signed.digest)
            found[silo] = signed
            return ()

        await self._gather({silo: one(silo) for silo in shared.before.manifest.silos})
        return found

    async def _ask(self, step: str, round_id: bytes, messages: Mapping[str, bytes]) -> Replies:
        return await self._gather(
            {silo: self._silos[silo].call(step, round_id, data) for silo, data in messages.items()}
        )

    async def _gather(self, calls: Mapping[str, Call]) -> dict[str, tuple[bytes, ...]]:
        """Await all calls for at most the step's time; leave out those that failed."""

        async def bounded(silo: str, call: Call) -> tuple[str, tuple[bytes, ...]] | None:
            try:
                return silo, await asyncio.wait_for(call, self._step_timeout_s)
            except Exception as err:
                _log.info("%s did not answer: %s", silo, type(err).__name__)
                return None

        results = await asyncio.gather(*(bounded(silo, call) for silo, call in calls.items()))
        return dict(result for result in results if result is not None)
