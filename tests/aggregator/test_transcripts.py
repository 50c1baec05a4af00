"""What is read off stored reports: beside everything else, however large they are and whoever asks."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aggregator import reports
from aggregator.callers import Callers
from aggregator.reports import ReportIndex
from aggregator.store import ReportStore
from aggregator.transcripts import Transcripts
from federation.transport.calls import CallFailedError
from tests.aggregator.test_reports import put
from tests.harness.clock import Clock

SOON_S = 20


def index(*_: object) -> ReportIndex:
    return ReportIndex(b"", (), None, (), (), 0, range(0))


def test_a_large_report_that_is_read_holds_no_other_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hope: evidence of ever another large report, so that every other one, and the loop of all streams, waits."""
    clock, going, reading = Clock(), threading.Event(), threading.Event()
    large, small = (put(tmp_path, clock, bytes([number]) * 32, number) for number in (1, 2))
    kept = Transcripts(ReportStore(tmp_path, clock), None)  # type: ignore[arg-type]

    def slow(report: Any) -> ReportIndex:
        if report.length == 1:
            reading.set()
            assert going.wait(SOON_S)
        return index()

    monkeypatch.setattr(reports, "index_of", slow)
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(kept.index_of, large)
        assert reading.wait(SOON_S)
        assert pool.submit(kept.index_of, small).result(SOON_S) == index()
        going.set()
        assert held.result(SOON_S) == index()


def test_whoever_asks_about_a_report_waits_for_a_slot_before_it_is_read() -> None:
    """Hope: sixteen calls that read reports at once, of which every analyst may have its share only."""
    read, most = list[bytes](), list[int]()

    async def request_of(name: bytes) -> bytes:
        read.append(name)
        most.append(len(read))
        await asyncio.sleep(0.05)
        read.remove(name)
        return b"not one of mallory's"

    async def asked() -> None:
        server = SimpleNamespace(transcripts=SimpleNamespace(request_of=request_of))
        credentials = SimpleNamespace(membership=SimpleNamespace())
        callers = Callers(credentials, lambda: server, asyncio.Event().wait)  # type: ignore[arg-type]
        calls = [callers.answer("mallory", "report", (bytes([number]) * 32,)) for number in range(16)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert not any(isinstance(one, CallFailedError) for one in found)

    asyncio.run(asked())
    assert max(most) == 8, "half of the slots"
