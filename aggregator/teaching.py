"""Teach a silo the reports of a training run that it missed: docs/protocol.md section 11.

A silo that is more than one report behind takes over what the other silos of the run hold, in one go; where they cannot
hand it over, it learns report by report, oldest first.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from aggregator import reports
from aggregator.errors import AggregatorError
from aggregator.handover import Call, Handover, Learned
from aggregator.reports import ReportIndex
from aggregator.rounds import Aggregator
from aggregator.store import ReportStore
from aggregator.transcripts import Transcripts
from crypto.errors import CryptoError
from crypto.rounds.messages import ModelUpdated
from crypto.wire import unverified
from policies.requests.training import START
from policies.units import MAX_STEPS

Gather = Callable[
    [Mapping[str, Coroutine[Any, Any, tuple[bytes, ...]]], float], Awaitable[dict[str, tuple[bytes, ...]]]
]
STATE_REPORTS = 4  # a state that is handed over may take so many times as long as a report
_MAX_KNOWN = 4096  # positions of silos in runs, that are remembered


class Teacher:
    """Hands stored reports to silos, and lets silos hand their states over."""

    def __init__(self, aggregator: Aggregator, store: ReportStore, transcripts: Transcripts) -> None:
        self._aggregator, self._store, self._transcripts = aggregator, store, transcripts
        self._handover = Handover(aggregator)
        self._known: dict[tuple[str, bytes], bytes] = {}  # the report that a silo learned last, by silo and run

    async def deliver(self, calls: Mapping[str, Call], name: bytes, gather: Gather) -> dict[str, tuple[bytes, ...]]:
        """Teach silos a report, and bring those that missed earlier ones to it; return what each says, see `teach`.

        `gather` awaits calls to silos, for the time of a step and so many seconds more.
        """
        more_s = (await self._index(name)).receives_s
        told = await gather({silo: self.teach(silo, call, name) for silo, call in calls.items()}, more_s)
        late = [silo for silo, frames in told.items() if _position(frames) != name]
        after = {silo: self.catch_up(silo, calls, told, name) for silo in late}
        return {**told, **await gather(after, STATE_REPORTS * more_s)}

    async def teach(self, silo: str, call: Call, name: bytes) -> tuple[bytes, ...]:
        """Teach a silo one report; return its signed `ModelUpdated` and sealed model.

        A silo that is known to have missed an earlier one is not asked: then nothing is returned.
        """
        index = await self._index(name)
        if self._known.get((silo, index.step.run), index.step.after) not in (name, index.step.after):
            return ()
        learned, sealed = await self._one(silo, call, name)
        return (learned.envelope, *sealed)

    async def catch_up(
        self, silo: str, calls: Mapping[str, Call], told: Mapping[str, tuple[bytes, ...]], name: bytes
    ) -> tuple[bytes, ...]:
        """Bring a silo to a report from where it is; return its signed `ModelUpdated` and sealed model.

        `told` is what `teach` returned of all silos. A silo that cannot be brought there in time goes on from there
        with the next delivery. Raises AggregatorError where one of the reports is not here any more.
        """
        index = await self._index(name)
        key = silo, index.step.run
        if told[silo] and (at := _position(told[silo])) is not None:
            self._known[key] = at
        try:
            missed = await self._missed(name, self._known.get(key, START))
        except AggregatorError:  # one of them is not here any more
            missed = []
        if len(missed) != 1:
            holders = [one for one, frames in told.items() if _position(frames) == name]
            found = await self._handover.bring(silo, calls, holders, name, index)
            if found is not None:
                self._remember(silo, index, found)
                return (found[0].envelope, *found[1])
        return await self._one_by_one(silo, calls[silo], told[silo], name)

    async def _one_by_one(self, silo: str, call: Call, told: tuple[bytes, ...], name: bytes) -> tuple[bytes, ...]:
        """Teach a silo the reports that it missed, oldest first, until one does not become its last."""
        if not told:
            learned, sealed = await self._one(silo, call, name)
            told = learned.envelope, *sealed
        for report in reversed(await self._missed(name, _position(told) or START)):
            learned, sealed = await self._one(silo, call, report)
            told = learned.envelope, *sealed
            if learned.message.position != report:
                break
        return told

    async def _missed(self, name: bytes, position: bytes) -> list[bytes]:
        """Return the reports after one up to another, the newest first; none if the one is not before the other."""
        missed, before = list[bytes](), name
        while before not in (START, position) and len(missed) < MAX_STEPS:
            missed.append(before)
            before = (await self._index(before)).step.after
        return missed if before == position else []

    async def _one(self, silo: str, call: Call, name: bytes) -> Learned:
        data = await asyncio.to_thread(self._store.get, name)
        index = await self._index(name)
        data = index.handed(data, silo)
        evidence = [chunk for number in index.added for chunk in await self._transcripts.chunks(index, number)]
        frames = await call("learn", data, *evidence)
        sealed = reports.sealed_model(index.step, frames)
        learned = reports.read_model_updated(self._aggregator, silo, index.step.run, frames[:1])
        self._remember(silo, index, (learned, sealed))
        return learned, sealed

    def _remember(self, silo: str, index: ReportIndex, learned: Learned) -> None:
        while len(self._known) >= _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[silo, index.step.run] = learned[0].message.position

    async def _index(self, name: bytes) -> ReportIndex:
        return await asyncio.to_thread(self._transcripts.index_of, name)


def _position(frames: tuple[bytes, ...]) -> bytes | None:
    """Return the report that a silo says it has learned last; None where it says nothing."""
    try:
        return unverified(frames[0], ModelUpdated).position if frames else None
    except CryptoError:
        return None
