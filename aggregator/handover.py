"""Bring a silo that missed reports of a training run to the last one by what the other silos hold: protocol.md 11.

The aggregator carries sealed bytes from silo to silo, and cannot open them. Whatever fails here, a silo can still learn
the reports one by one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aggregator import reports
from aggregator.reports import ReportIndex
from aggregator.rounds import Aggregator
from crypto.rounds.committees import quorum_of
from crypto.rounds.handover import MAX_HANDED_BYTES, MAX_STATEMENT_BYTES, HandoverAsked, frames_of, number
from crypto.rounds.messages import ModelUpdated
from crypto.wire import Signed, sign

Call = Callable[..., Awaitable[tuple[bytes, ...]]]  # of a step of one silo
Learned = tuple[Signed[ModelUpdated], tuple[bytes, ...]]  # how far a silo is, and the model that it seals, if it does
_TRIES = 3  # of silos whose frames are of no use
_SAID_S = 10.0  # to say what a silo holds: it has just answered


class Handover:
    """Asks the silos that have learned a report to hand their state over to one that has not."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator

    async def bring(
        self, silo: str, calls: Mapping[str, Call], holders: list[str], name: bytes, index: ReportIndex
    ) -> Learned | None:
        """Return how far a silo is after a handover at the report `name`; None if it is not there by that.

        `holders` are the silos that say that they have learned it. Statements of all of them go to the silo with the
        first frame of one; if its frames are of no use, those of another are taken.
        """
        others = [one for one in holders if one != silo]
        if len(others) < quorum_of(len(index.recipients)):
            return None
        message = HandoverAsked(
            federation=self._aggregator.federation, receiver=silo, position=name, request=index.request
        )
        asked = sign(message, self._aggregator.name, self._aggregator.signing)
        said = await asyncio.gather(*(_said(calls[one], asked) for one in others))
        found = {one: each for one, each in zip(others, said, strict=True) if each is not None}
        if len(found) < quorum_of(len(index.recipients)):
            return None
        statements = [sealed for sealed, _ in found.values()]
        for holder, (_, count) in list(found.items())[:_TRIES]:
            learned = await self._carry(silo, calls[silo], calls[holder], asked, count, statements, index)
            if learned is not None and learned[0].message.position == name:
                return learned
        return None

    async def _carry(
        self,
        silo: str,
        take: Call,
        give: Call,
        asked: bytes,
        count: int,
        statements: list[bytes],
        index: ReportIndex,
    ) -> Learned | None:
        """Carry all frames of one silo's state to another; None if one of the two does not go on with it."""
        learned: Learned | None = None
        try:
            for place in range(count):
                (frame,) = await give("hand_over", asked, number(place))
                frames = await take("take_over", asked, number(place), frame, *(statements if place == 0 else ()))
                sealed = reports.sealed_model(index.step, frames)
                run = index.step.run
                learned = reports.read_model_updated(self._aggregator, silo, run, frames[:1]), sealed
        except Exception:
            return None  # one of them failed, is silent, or sent something else
        return learned


async def _said(call: Call, asked: bytes) -> tuple[bytes, int] | None:
    """Return a silo's sealed statement, and in how many frames it hands over; None if it holds nothing there."""
    try:
        sealed, count = await asyncio.wait_for(call("hand_over", asked), _SAID_S)
    except Exception:
        return None
    frames = int.from_bytes(count[:8], "big")
    is_read = len(sealed) <= MAX_STATEMENT_BYTES and 1 <= frames <= frames_of(MAX_HANDED_BYTES)
    return (sealed, frames) if is_read else None
