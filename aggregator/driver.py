"""Drive rounds: ask silos in parallel, treat silence as drop-out, and bound every wait. docs/protocol.md section 9.

Transport-agnostic: `SiloHandle` is a Ray actor in `aggregator/ray_actors.py` and an object in memory in tests.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from aggregator import beside, reports
from aggregator import rounds as core
from aggregator.answers import Answers
from aggregator.busy import Busy
from aggregator.calls import Calls, SiloHandle
from aggregator.capacity import Capacity
from aggregator.errors import (
    AggregatorError,
    BusyError,
    SharesMissingError,
    SilosMissingError,
    StoreError,
)
from aggregator.outcomes import Outcomes
from aggregator.proving import proven
from aggregator.relaying import relayed
from aggregator.round_journal import RoundJournal
from aggregator.rounds import Aggregator, ReceivedRequest, Replies
from aggregator.slots import Seconds, Slots
from aggregator.store import CheckpointStore, ReportStore
from aggregator.sums import Sums
from aggregator.teaching import Teacher
from aggregator.transcripts import Transcripts
from crypto.errors import CryptoError, ProtocolError
from crypto.randomness import token
from crypto.rounds.messages import Contribution, Stopped
from crypto.rounds.payload import frames as frames_of
from crypto.rounds.payload import piece_sizes
from crypto.rounds.report import EncryptedReport
from crypto.wire import MAX_ENVELOPE_OVERHEAD, Signed, unverified
from policies.requests.catalogue import MAX_DOMAIN_REPLY_BYTES, Catalogue, DomainRequest
from policies.units import MAX_BUSY_S, WAIT_S

STEP_TIMEOUT_S = 30.0  # without the silos' computing, where their acceptances state its time
REQUEST_TIMEOUT_S = 240.0  # until it is charged, with its wait for a free slot, and WAIT_S for the silos' computing
SLOT_WAIT_S = 120.0
MAX_CONCURRENT_ROUNDS = 16  # of all analysts; of one alone half of them
_log = structlog.get_logger("consilo.aggregator")


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that was answered or not: what became of its silos, why there is no report, and how long it took."""

    asked: ReceivedRequest
    outcomes: Outcomes
    reason: str
    seconds: float


@dataclass(slots=True)
class _Bounds:
    """What a request may take: until when it may wait, and what its rounds have taken of the silos' computing."""

    limit: asyncio.Timeout | None = None
    seconds: int = 0

    def end(self) -> None:
        """Wait as long as each step may from now on: what is paid is not given up for what it waited before."""
        if self.limit is not None and not self.limit.expired():
            self.limit.reschedule(None)


class Server:
    """One aggregator: relays catalogue requests and runs rounds."""

    def __init__(
        self,
        aggregator: Aggregator,
        silos: Mapping[str, SiloHandle],
        sums: Sums,
        store: ReportStore,
        journal: RoundJournal,
        checkpoints: CheckpointStore,
        clock: Callable[[], float] = time.time,
        step_timeout_s: float = STEP_TIMEOUT_S,
        ended: Callable[[Ended], None] = lambda _: None,
        capacity: Capacity = Capacity(),  # noqa: B008 (it is frozen)
    ) -> None:
        """`ended` learns what became of every request."""
        self._aggregator, self._silos, self._sums, self._store = aggregator, silos, sums, store
        self._checkpoints, self._journal, self._ended = checkpoints, journal, ended
        self._clock, self._step_timeout_s = clock, step_timeout_s
        self.slots = Slots(MAX_CONCURRENT_ROUNDS, SLOT_WAIT_S, "rounds at the aggregator")
        self.seconds = Seconds(MAX_BUSY_S, SLOT_WAIT_S, "seconds of the silos' computing")
        self._busy, self._capacity = Busy(), capacity
        self._calls = Calls(silos, step_timeout_s, self._busy)
        self._answers = Answers(store)
        self.transcripts = Transcripts(store, sums)
        self._teacher = Teacher(aggregator, store, self.transcripts)

    async def put_checkpoint(self, envelope: bytes) -> bytes:
        """Keep a silo's signed checkpoint; return the one kept now. Raises CryptoError or AggregatorError."""
        return await asyncio.to_thread(self._checkpoints.put, envelope)

    async def get_checkpoint(self, silo: bytes) -> bytes:
        """Return the checkpoint of a silo, by its name; empty if it has sent none. Raises AggregatorError."""
        return self._checkpoints.get(silo.decode(errors="replace"))

    async def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        """Relay a signed CatalogueRequest to every silo; return their answers, unread, or why there is none.

        An answer above the size of a catalogue is left out, as a few of them would exceed an analyst's stream. Where a
        round of the request in it would not fit here, that is said too.
        """
        calls = {silo: handle.call("catalogue", request) for silo, handle in self._silos.items()}
        outcomes = Outcomes(b"", self._aggregator.federation, self._aggregator.silos)
        replies = await self._calls.gather(calls, self._busy.waits_s(), outcomes)
        found = [beside.other_version(self._aggregator, request, *one) for one in outcomes.versions.items()]
        found += await beside.no_room(self._aggregator, self._capacity, self._sums.count, request)
        for silo, frames in replies.items():
            if frames and len(frames[0]) > Catalogue.MAX_BYTES + MAX_ENVELOPE_OVERHEAD:
                _log.warning("catalogue_too_long", silo=silo, bytes=len(frames[0]))
            elif frames:
                found.append(frames[0])
        return tuple(found)

    async def domain(self, request: bytes) -> bytes:
        """Relay a signed DomainRequest to the silo that it names; return its answer, unread.

        Raises AggregatorError if the silo does not answer, or with more than a domain has.
        """
        silo = unverified(request, DomainRequest).silo  # a forged one is refused by the silo
        if silo not in self._silos:
            raise AggregatorError(f"no silo {silo!r} is known here", "ask a silo of the roster")
        replies = await self._calls.gather({silo: self._silos[silo].call("domain", request)})
        frames = replies.get(silo, ())
        if len(frames) != 1 or len(frames[0]) > MAX_DOMAIN_REPLY_BYTES:
            raise AggregatorError(f"{silo} did not send the values of a domain", "ask again when it is back")
        return frames[0]

    async def offer(self, offer: bytes, index: bytes, frame: bytes) -> tuple[bytes, ...]:
        """Relay a frame of a packed network to the silos of a signed NetworkOffer; return each one's answer."""
        return await relayed(self._calls, offer, index, frame)

    async def submit(self, request: bytes) -> bytes:
        """Answer a signed request, see `answer`; raises WireError on bytes that are not a request."""
        return await self.answer(core.read_request(request))

    async def answer(self, asked: ReceivedRequest) -> bytes:
        """Return the one answer to a request: an encoded EncryptedReport, or a signed Failure."""
        return await self._answers.of(asked, self._answer)

    def find(self, request_hash: bytes, analyst: str | None) -> bytes:
        """Return an encoded `Found`, see `Answers.find`."""
        return self._answers.find(request_hash, analyst)

    async def _answer(self, asked: ReceivedRequest) -> bytes:
        """Run the rounds that a request needs.

        A silo that drops out before anything was contributed makes the round start anew without it.
        """
        silos, began = set(asked.request.silos), time.monotonic()
        outcomes = Outcomes(asked.digest, self._aggregator.federation, self._aggregator.silos)
        reason, bounds = "", _Bounds()
        limit_s = REQUEST_TIMEOUT_S + max(0, asked.request.waits_s - WAIT_S) + asked.request.loads_s
        try:
            if unknown := silos - set(self._silos):
                raise AggregatorError(f"the request names silos unknown here: {', '.join(sorted(unknown))}")
            if why := await self._capacity.why_not_in(asked.request, self._sums.count):
                raise AggregatorError(why)
            async with asyncio.timeout(limit_s) as bounds.limit, self.slots.taken(asked.request.analyst):
                for _ in range(len(silos) + 1):
                    try:
                        return await self._round(asked, silos - outcomes.out, outcomes, bounds)
                    except SharesMissingError as err:
                        outcomes.leave_out(err.missing)
                    except BusyError as err:  # nothing is charged: it waits for the others, and begins anew
                        await self.seconds.take(asked.request.analyst, err.seconds)
                        bounds.seconds += err.seconds
            raise AggregatorError("the silos that are left cannot form a round")
        except SilosMissingError as err:
            outcomes.leave_out(err.missing)
            reason = err.message
        except TimeoutError:
            reason = f"no answer within {limit_s:g} s"
        except (CryptoError, AggregatorError) as err:
            reason = err.message
        except OSError as err:  # such as a disk that became read-only, where nothing can be removed either
            reason = f"the aggregator's disk failed ({err.strerror or type(err).__name__})"
        finally:
            self.seconds.give_back(asked.request.analyst, bounds.seconds)
            self._ended(Ended(asked, outcomes, reason, time.monotonic() - began))
        reason = "; ".join((reason, *outcomes.versions.values()))
        if outcomes.own:
            reason = f"{reason}; at the aggregator: {outcomes.own}"
        return core.failure(self._aggregator, asked, reason, outcomes)

    async def deliver_report(self, name: bytes) -> tuple[bytes, ...]:
        """Send the report of a training step, by its SHA-256, to its recipients, after the reports that they missed.

        Return each silo's signed `ModelUpdated`, and after it the model that it seals to the analyst, if it does.
        Raises AggregatorError or CryptoError if it is unknown or erased.
        """
        index = await asyncio.to_thread(self.transcripts.index_of, name)
        calls = {silo: self._silos[silo].call for silo in index.recipients if silo in self._silos}
        outcomes = Outcomes(name, self._aggregator.federation, self._aggregator.silos)
        replies = await self._teacher.deliver(calls, name, partial(self._calls.gather, outcomes=outcomes))
        if outcomes.own and not any(replies.values()):
            raise StoreError(outcomes.own, "silos that have learned it go on; whoever has not is left out of the run")
        return tuple(frame for frames in replies.values() for frame in frames)

    async def stop_run(self, stopped: bytes) -> tuple[bytes, ...]:
        """Send the signed Stopped of a training run to its silos; return each silo's signed `ModelUpdated`.

        Raises WireError on bytes that are no Stopped.
        """
        message = unverified(stopped, Stopped)
        silos = [silo for silo in dict.fromkeys(message.silos) if silo in self._silos]
        replies = await self._calls.gather({silo: self._stop(silo, message.run, stopped) for silo in silos})
        return tuple(frame for frames in replies.values() for frame in frames)

    async def _stop(self, silo: str, run: bytes, stopped: bytes) -> tuple[bytes, ...]:
        frames = await self._silos[silo].call("stop", stopped)
        return (reports.read_model_updated(self._aggregator, silo, run, frames).envelope,)

    async def _round(self, asked: ReceivedRequest, silos: Iterable[str], outcomes: Outcomes, bounds: _Bounds) -> bytes:
        """Run one round; raises BusyError, before anything is charged, if the silos compute for too many others."""
        round_id, in_round, ask = token(16), set(silos), self._calls.ask
        gathers_s = self._capacity.gathers_s(asked.request)
        busy_s = self._busy.waits_s(is_long=bool(gathers_s))
        proposed = core.propose(self._aggregator, asked, round_id, int(self._clock()), busy_s, gathers_s)
        try:
            proposals = dict.fromkeys(sorted(in_round), (proposed.envelope,))
            replies = await ask("propose", round_id, proposals, outcomes, asked.request.loads_s)
            accepts, refused = core.read_answers(self._aggregator, proposed, replies, outcomes.wrong)
            outcomes.leave_out(in_round - set(accepts))
            in_round -= set(refused)
            composed = core.compose_round(self._aggregator, proposed, accepts)
            outcomes.manifests[round_id] = composed.envelope
            members = composed.manifest.silos
            outcomes.leave_out(set(accepts) - set(members))
            if (more_s := composed.counted_s - bounds.seconds) > 0:
                if not self.seconds.take_now(asked.request.analyst, more_s):
                    raise BusyError(more_s)
                bounds.seconds += more_s
            await asyncio.to_thread(self._journal.begin, round_id, composed.envelope)
            replies = await ask("share", round_id, {silo: composed.share(silo) for silo in members}, outcomes)
            shared = core.collect_shares(self._aggregator, composed, replies, outcomes.wrong)
            # A silo begins its charge before it signs that it is ready: from here on nothing may fail for lack of room.
            again = partial(self._frame, round_id, composed.send_s)
            await self._sums.start(round_id, composed.manifest.encode(), proposed.round_key, again)
            await asyncio.to_thread(self._store.take_room, round_id, core.report_bytes(shared, outcomes.refusals))
            replies = await ask("ready", round_id, {silo: shared.deliver(silo) for silo in members}, outcomes)
            go = core.collect_ready(self._aggregator, shared, replies, outcomes.wrong)
            await asyncio.to_thread(self._journal.note, round_id, go)
            outcomes.charged = True
            self._busy.begin(round_id, composed.counted_s, composed.send_s)
            bounds.end()
            contributions = await self._contributions(round_id, shared, go, outcomes)
            self._busy.end(round_id)  # what follows waits for the other rounds only
            fixed = await self._closed(round_id, shared, contributions)
            survivors = tuple(survivor.silo for survivor in fixed.survivor_set.survivors)
            replies = await ask("agree", round_id, dict.fromkeys(survivors, (fixed.envelope,)), outcomes)
            signatures = core.collect_signatures(self._aggregator, fixed, replies)
            opens = core.open_message(fixed, signatures)
            replies = await self._open(round_id, fixed, signatures, opens, outcomes)
            products = await self._proven(round_id, fixed, replies, in_round, outcomes)
            report, after = core.assemble(self._aggregator, fixed, signatures, replies, outcomes, products)
            name = await _file(self._store, self._sums, asked, round_id, report, len(fixed.chunks), after)
            outcomes.survivors = survivors
            return await asyncio.to_thread(self._store.get, name)
        finally:
            self._busy.end(round_id)
            # The silos still in the round forget it; a silo from which nothing has left releases its reservation.
            try:
                self._store.give_back(round_id)
                await self._sums.discard(round_id)
            finally:
                cancelled = core.cancel(self._aggregator, round_id)
                calls = {silo: self._silos[silo].call("cancel", round_id, cancelled) for silo in in_round}
                await self._calls.gather(calls, self._busy.waits_s())
                self._journal.end(round_id)

    async def _closed(
        self, round_id: bytes, shared: core.KeysShared, contributions: Mapping[str, Signed[Contribution]]
    ) -> core.SurvivorsFixed:
        """Close the sum over the masked inputs that every shard holds whole, and name whose they are."""
        held = core.survivors_of(shared, contributions)
        # That is on disk before anything is added, and the survivor set before it is sent.
        await asyncio.to_thread(self._journal.note, round_id, held.encode())
        chunks = await self._sums.close(round_id, tuple(survivor.silo for survivor in held.survivors))
        fixed = core.fix_survivors(self._aggregator, shared, contributions, chunks)
        await asyncio.to_thread(self._journal.note, round_id, fixed.envelope)
        return fixed

    async def _proven(
        self, round_id: bytes, fixed: core.SurvivorsFixed, openings: Replies, in_round: set[str], outcomes: Outcomes
    ) -> tuple[bytes, ...]:
        """Return what silos prove of a long sum; who has erased the round leaves `in_round`."""
        composed = fixed.before.before

        async def challenged(silos: Sequence[str], challenge: bytes) -> Replies:
            messages = dict.fromkeys(silos, (challenge,))
            found = await self._calls.ask("products", round_id, messages, outcomes, composed.send_s)
            in_round.difference_update(found)
            return found

        if not composed.manifest.terms.is_long:
            in_round.difference_update(openings)  # a short round is erased when it is opened, a long one when proven
        return await proven(self._aggregator, self._sums, fixed, openings, challenged, outcomes)

    async def _open(
        self, round_id: bytes, fixed: core.SurvivorsFixed, signatures: Iterable[str], opens: bytes, outcomes: Outcomes
    ) -> dict[str, tuple[bytes, ...]]:
        """Ask silos to open; in `shares`, with the columns that the survivors sealed to each."""

        async def one(silo: str) -> tuple[bytes, ...]:
            columns = await _columns(self._sums, fixed, silo)
            return await self._silos[silo].call("open_shares", round_id, opens, *columns)

        replies = await self._calls.gather({silo: one(silo) for silo in signatures}, self._busy.waits_s(), outcomes)
        outcomes.hear(round_id, replies)
        return replies

    async def _contributions(
        self, round_id: bytes, shared: core.KeysShared, go: bytes, outcomes: Outcomes
    ) -> dict[str, Signed[Contribution]]:
        """Collect and keep masked inputs as they arrive, a frame at a time; an invalid one counts as missing."""
        found: dict[str, Signed[Contribution]] = {}
        sizes, is_long = piece_sizes(shared.before.scheme), shared.before.manifest.terms.is_long
        cut = frames_of(sizes)
        first_bytes = sum(sizes[number] for number in cut[0])

        async def one(silo: str) -> tuple[bytes, ...]:
            reply = await self._silos[silo].call("contribute", round_id, go)
            if not is_long or [len(part) for part in reply] != [first_bytes]:  # nobody signs a frame
                outcomes.hear(round_id, {silo: reply})
            if len(reply) != (1 if is_long else 2):
                raise ProtocolError(
                    "a contribution is a header and a frame; of a long round a frame, and last its header"
                )
            frame = partial(self._frame, round_id, shared.before.send_s, silo)
            staged = await self._sums.stage(round_id, silo, 0, reply[-1])
            for number in range(1, len(cut)):
                staged += await self._sums.stage(round_id, silo, number, await frame(number))
            header = reply[0]
            if is_long:
                header = await frame(len(cut))
                outcomes.hear(round_id, {silo: (header,)})
            signed = core.read_contribution(self._aggregator, shared, silo, header)
            if staged != signed.message.chunks:
                raise ProtocolError(f"a chunk of {silo!r} is not the one it signed")
            await self._sums.keep(round_id, silo, signed.digest)
            found[silo] = signed
            return ()

        others_s = self._busy.waits_s(is_long=shared.before.send_s > 0, but=round_id)
        more_s = shared.before.contribute_s + others_s  # what no acceptance states is in the time of a step
        await self._calls.gather({silo: one(silo) for silo in shared.before.manifest.silos}, more_s, outcomes)
        return found

    async def _frame(self, round_id: bytes, send_s: int, silo: str, number: int) -> bytes:
        """Return a frame of a silo's masked input, which is the same each time; raises whatever the call raises.

        It takes no longer than the whole masked input may.
        """
        call = self._silos[silo].call("frame", round_id, number.to_bytes(8, "big"))
        return core.only_frame(await asyncio.wait_for(call, self._step_timeout_s + send_s))


async def _file(
    store: ReportStore,
    sums: Sums,
    asked: ReceivedRequest,
    round_id: bytes,
    report: EncryptedReport,
    chunks: int,
    after: Sequence[bytes],
) -> bytes:
    """Store a report with the chunks of its sum, one at a time, and what follows them; return its name."""
    filed_under = asked.digest, asked.request.analyst, round_id
    with await asyncio.to_thread(store.begin, report, *filed_under) as writing:
        for index in range(chunks):
            await asyncio.to_thread(writing.write, await sums.sum_chunk(round_id, index))
        for piece in after:
            await asyncio.to_thread(writing.write, piece)
        await asyncio.to_thread(writing.end)
    return writing.name


async def _columns(sums: Sums, fixed: core.SurvivorsFixed, silo: str) -> list[bytes]:
    """Return what a silo needs to add in `shares`: the survivors' headers and the columns that they sealed to it."""
    composed = fixed.before.before
    if composed.scheme.columns == 1:
        return []
    sizes, place = piece_sizes(composed.scheme), composed.manifest.silos.index(silo)
    names, start = [survivor.contribution for survivor in fixed.survivor_set.survivors], sum(sizes[:place])
    return [*fixed.contributions, *[await sums.chunk(name, start, sizes[place]) for name in names]]
