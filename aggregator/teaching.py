"""Teach a silo the reports of a training run that it missed, oldest first: docs/protocol.md section 11."""

import asyncio
from collections.abc import Awaitable, Callable

from aggregator import reports
from aggregator.rounds import Aggregator
from aggregator.store import ReportStore
from aggregator.transcripts import Transcripts
from crypto.rounds.messages import ModelUpdated
from crypto.wire import Signed
from policies.requests.training import START
from policies.units import MAX_STEPS

Call = Callable[..., Awaitable[tuple[bytes, ...]]]  # of a step of one silo
Learned = tuple[Signed[ModelUpdated], tuple[bytes, ...]]  # how far a silo is, and the model that it seals, if it does


class Teacher:
    """Hands stored reports to silos."""

    def __init__(self, aggregator: Aggregator, store: ReportStore, transcripts: Transcripts) -> None:
        self._aggregator, self._store, self._transcripts = aggregator, store, transcripts

    async def teach(self, silo: str, call: Call, name: bytes) -> tuple[bytes, ...]:
        """Teach a silo a report and those that it missed before; return its signed `ModelUpdated` and sealed model.

        A silo that cannot be taught all of them in time goes on from there with the next delivery. Raises
        AggregatorError where one of the reports is not here any more.
        """
        learned, sealed = await self._one(silo, call, name)
        missed, before = list[bytes](), name
        while before not in (START, learned.message.position) and len(missed) < MAX_STEPS:
            missed.append(before)
            before = (await asyncio.to_thread(self._transcripts.index_of, before)).step.after
        if before == learned.message.position:  # otherwise it is ahead, or in another run
            for report in reversed(missed):
                learned, sealed = await self._one(silo, call, report)
                if learned.message.position != report:
                    break
        return (learned.envelope, *sealed)

    async def _one(self, silo: str, call: Call, name: bytes) -> Learned:
        data = await asyncio.to_thread(self._store.get, name)
        index = await asyncio.to_thread(self._transcripts.index_of, name)
        data = index.handed(data, silo)
        evidence = [chunk for number in index.added for chunk in await self._transcripts.chunks(index, number)]
        frames = await call("learn", data, *evidence)
        sealed = reports.sealed_model(index.step, frames)
        return reports.read_model_updated(self._aggregator, silo, index.step.run, frames[:1]), sealed
