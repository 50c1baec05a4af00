"""What an aggregator's operator sees of every request: a line in the log, counts, and the last ones in a file.

The file `requests.log` has one canonical line each, is bounded, and outlives a restart. Promise: a line has names,
times, codes and the silos' own signed words, nothing of a message's content; every one of these is bounded.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar

import structlog
from pydantic import Field

from aggregator.driver import Ended
from aggregator.outcomes import MAX_WORDS, Outcome
from crypto.errors import WireError
from crypto.wire import MAX_SILOS, Count, Message, Name, Seconds
from federation.operations.monitoring import AggregatorCounts
from policies.decision.denial_codes import CODES

REQUEST_LOG = "requests.log"
MAX_FILE_BYTES = 4 << 20  # then it becomes requests.log.1
_log = structlog.get_logger("consilo.aggregator")


class SiloLine(Message):
    """What became of one silo of a request, and what it said."""

    silo: Name
    status: Annotated[str, Field(max_length=20)]
    said: Annotated[str, Field(max_length=MAX_WORDS)]


class RequestLine(Message):
    """One request that ended."""

    KIND: ClassVar[str] = "request-line"
    MAX_BYTES: ClassVar[int] = 3 << 20
    at: Seconds
    request: Annotated[str, Field(max_length=16)]  # the beginning of its hash
    analyst: Name
    purpose: Name
    outcome: Outcome
    took_ms: Count
    reason: Annotated[str, Field(max_length=1000)]
    silos: Annotated[tuple[SiloLine, ...], Field(max_length=MAX_SILOS)]


class RequestLog:
    """Writes one aggregator's requests."""

    def __init__(self, home: Path, counts: AggregatorCounts) -> None:
        self._path, self._counts = home / REQUEST_LOG, counts

    def ended(self, ended: Ended) -> None:
        """Log, count and keep a request; a full disk costs only the line in the file."""
        outcomes, request = ended.outcomes, ended.asked.request
        statuses = {silo: outcomes.status(silo) for silo in request.silos if silo in outcomes.keys}
        words = outcomes.words()
        line = RequestLine(
            at=int(time.time()),
            request=ended.asked.digest.hex()[:16],
            analyst=request.analyst,
            purpose=request.purpose,
            outcome=outcomes.outcome(),
            took_ms=int(ended.seconds * 1000),
            reason=("; at the aggregator: " if ended.reason and outcomes.own else "").join(
                (ended.reason[:600], outcomes.own[:300])
            ),
            silos=tuple(SiloLine(silo=silo, status=one, said=words.get(silo, "")) for silo, one in statuses.items()),
        )
        codes = [denial.code for denials in outcomes.denials().values() for denial in denials]
        self._counts.ended(line.outcome, ended.seconds, statuses, (c if c in CODES else "other" for c in codes))
        others = {silo: one for silo, one in statuses.items() if one != "answered"}
        _log.info(
            "request_ended",
            request=line.request,
            analyst=line.analyst,
            purpose=line.purpose,
            outcome=line.outcome,
            seconds=round(ended.seconds, 3),
            reason=line.reason,
            answered=len(statuses) - len(others),
            others=others,
            said=words,
        )
        with suppress(OSError):
            self._keep(line.encode() + b"\n")

    def _keep(self, line: bytes) -> None:
        with open(self._path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(line)
            size = file.tell()
        if size > MAX_FILE_BYTES:
            self._path.replace(self._path.with_name(f"{REQUEST_LOG}.1"))


def read_request_log(home: Path, most: int) -> list[RequestLine]:
    """Return the last requests that ended, oldest first; a line that a crash cut short is left out."""
    found = [line for name in (f"{REQUEST_LOG}.1", REQUEST_LOG) for line in _lines(home / name)]
    return found[-most:]


def _lines(path: Path) -> Iterator[RequestLine]:
    try:
        with path.open("rb") as file:
            raw = file.read(2 * MAX_FILE_BYTES)
    except OSError:
        return
    for line in raw.splitlines():
        with suppress(WireError):
            yield RequestLine.decode(line)
