"""End the rounds that an earlier process of this aggregator has left: at every silo, until they expire.

A silo gives back what it never contributed, and keeps the charge of what it did. docs/protocol.md section 9.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from aggregator.calls import SiloHandle
from aggregator.round_journal import LeftRound, RoundJournal
from aggregator.rounds import Aggregator, cancel

ASK_S = 10.0
AGAIN_S = 1.0
_log = structlog.get_logger("consilo.aggregator")


async def end_left_rounds(
    aggregator: Aggregator,
    silos: Mapping[str, SiloHandle],
    journal: RoundJournal,
    clock: Callable[[], float],
    again_s: float = AGAIN_S,
) -> None:
    """Cancel every left round at its silos; ask those that do not answer again until the round expires."""
    waiting = {one: set(one.silos) & set(silos) for one in journal.left(aggregator.name, aggregator.signing.public)}
    while waiting:
        for one, names in list(waiting.items()):
            cancelled = cancel(aggregator, one.round_id)
            done = await asyncio.gather(*(_cancel(silos[name], name, one, cancelled) for name in sorted(names)))
            names.difference_update(name for name in done if name)
            if not names or clock() >= one.expires_at:
                journal.end(one.round_id)
                del waiting[one]
        if waiting:
            await asyncio.sleep(again_s)


async def _cancel(silo: SiloHandle, name: str, left: LeftRound, cancelled: bytes) -> str:
    """Return the silo's name if it has answered."""
    try:
        await asyncio.wait_for(silo.call("cancel", left.round_id, cancelled), ASK_S)
    except Exception as err:
        _log.info("left_round_not_ended", silo=name, round=left.round_id.hex()[:16], reason=type(err).__name__)
        return ""
    return name
