"""What a silo's owner sees of every round: what became of it, by the steps that passed and the kinds of the replies.

Promise: only what the aggregator sees anyway is seen here, and nothing inside a masked input is read. How long a round
took, from its proposal to its end, the aggregator knows too.
"""

from collections.abc import Callable
from contextlib import suppress

import structlog

from crypto.errors import CryptoError
from crypto.rounds.messages import Failed
from crypto.wire import ROUND_ID_BYTES, unverified
from federation.transport.frames import Parts
from policies.decision.denial_codes import CODES, UNABLE
from policies.requests.denials import Refusal

MAX_ROUNDS = 1024
ENDS = {"open_shares": "opened", "cancel": "cancelled"}
Ended = Callable[
    [str, float, tuple[str, ...]], None
]  # what became of a round, how long it took, the codes of a refusal
_log = structlog.get_logger("consilo.silo")


class RoundWatch:
    """Follows the rounds of one silo by the calls to it."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._rounds: dict[bytes, float] = {}  # when each was proposed

    def is_open(self, round_id: bytes) -> bool:
        """Tell whether a round was proposed and has not ended."""
        return round_id in self._rounds

    def began(self, step: str, arguments: Parts, now: float) -> None:
        """Learn that a step was asked for."""
        if step == "propose" and arguments and len(arguments[0]) == ROUND_ID_BYTES:
            self._rounds.setdefault(arguments[0], now)
            if len(self._rounds) > MAX_ROUNDS:
                del self._rounds[next(iter(self._rounds))]

    def saw(self, step: str, arguments: Parts, reply: Parts | None, now: float) -> None:
        """Learn of the reply to a step; None if it failed without one."""
        round_id = arguments[0] if arguments else b""
        if round_id not in self._rounds:
            return  # a step of no round, or of one that has ended
        codes = _codes(reply)
        if codes:
            self._end(round_id, "unable" if set(codes) <= UNABLE else "refused", now, codes)
        elif step == "cancel":
            self._end(round_id, "cancelled", now)
        elif reply is None or _has_failed(reply):
            self._end(round_id, "failed", now)
        elif step in ENDS:
            self._end(round_id, ENDS[step], now)

    def _end(self, round_id: bytes, outcome: str, now: float, codes: tuple[str, ...] = ()) -> None:
        took = now - self._rounds.pop(round_id)
        _log.info("round_ended", round=round_id.hex()[:16], outcome=outcome, codes=codes, seconds=round(took, 3))
        self._ended(outcome, took, codes)


def _codes(reply: Parts | None) -> tuple[str, ...]:
    if reply is not None and len(reply) == 1:
        with suppress(CryptoError):
            return tuple(one.code if one.code in CODES else "other" for one in unverified(reply[0], Refusal).denials)
    return ()


def _has_failed(reply: Parts) -> bool:
    with suppress(CryptoError):
        return len(reply) == 1 and unverified(reply[0], Failed) is not None
    return False
