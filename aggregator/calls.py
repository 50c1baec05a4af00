"""Calls of steps of silos, in parallel: each wait has an end, and who does not answer is noted.

A silo that is silent, one that sends what it should not, and an aggregator whose own disk fails are told apart.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from aggregator.busy import Busy
from aggregator.errors import AggregatorError, OtherVersionError, StoreError
from aggregator.outcomes import Outcomes
from aggregator.rounds import Replies
from crypto.errors import CryptoError, LinkError
from federation.transport.calls import CallFailedError

Call = Coroutine[Any, Any, tuple[bytes, ...]]
_log = structlog.get_logger("consilo.aggregator")


class SiloHandle(Protocol):
    """A way to reach one silo."""

    async def call(self, step: str, *arguments: bytes) -> tuple[bytes, ...]:
        """Call a step of the silo's actor; any exception means that the silo did not answer."""


@dataclass(frozen=True, slots=True)
class Calls:
    """How the aggregator calls silos while rounds are under way."""

    silos: Mapping[str, SiloHandle]
    step_timeout_s: float
    busy: Busy

    async def ask(
        self,
        step: str,
        round_id: bytes,
        messages: Mapping[str, Sequence[bytes]],
        outcomes: Outcomes,
        more_s: float = 0.0,
    ) -> Replies:
        """Take a step at silos, each with its message; `outcomes` learns what they say."""
        calls = {silo: self.silos[silo].call(step, round_id, *parts) for silo, parts in messages.items()}
        replies = await self.gather(calls, self.busy.waits_s() + more_s, outcomes)
        outcomes.hear(round_id, replies)
        return replies

    async def gather(
        self, calls: Mapping[str, Call], more_s: float = 0.0, outcomes: Outcomes | None = None
    ) -> dict[str, tuple[bytes, ...]]:
        """Await all calls for at most the time of a step and `more_s`; leave out failed ones.

        `outcomes` learns which silos did not answer. One that answered, but not as it should, is none of these.
        """

        async def bounded(silo: str, call: Call) -> tuple[str, tuple[bytes, ...]] | None:
            try:
                return silo, await asyncio.wait_for(call, self.step_timeout_s + more_s)
            except Exception as err:
                told = str(err)[:300] if isinstance(err, CryptoError | AggregatorError) else type(err).__name__
                _log.info("silo_failed", silo=silo, reason=told)
                if outcomes is not None:
                    _blame(outcomes, silo, err, told)
                return None

        results = await asyncio.gather(*(bounded(silo, call) for silo, call in calls.items()))
        return dict(result for result in results if result is not None)


def _blame(outcomes: Outcomes, silo: str, err: Exception, told: str) -> None:
    """Note why a call failed: for the aggregator's disk, the silo's silence, or what it sent."""
    if isinstance(err, StoreError):
        outcomes.own = told
    elif _is_silence(err):
        outcomes.miss(silo, told if isinstance(err, OtherVersionError) else "")
    elif isinstance(err, CryptoError) and not isinstance(err, CallFailedError):
        outcomes.wrong.setdefault(silo, told)


def _is_silence(err: Exception) -> bool:
    """Tell whether a failed call means that the silo did not answer."""
    if isinstance(err, CallFailedError):
        return False
    return isinstance(err, LinkError) or not isinstance(err, CryptoError | AggregatorError)
