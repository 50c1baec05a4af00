"""Structured lines go to the standard error of the moment, whoever made the logger, and when."""

import io
import json
from contextlib import redirect_stderr, suppress

import pytest
import structlog

from federation.operations import monitoring
from federation.operations.monitoring import LINES_AT_ONCE, Limited, configure_logs


def test_a_line_goes_to_the_standard_error_of_the_moment() -> None:
    log = structlog.get_logger("consilo.silo")
    configure_logs()
    told = []
    for _ in range(2):
        with redirect_stderr(io.StringIO()) as error:
            log.info("round_ended", silo="aspen")
        told.append(json.loads(error.getvalue()))
    assert [(one["event"], one["silo"], one["level"]) for one in told] == [("round_ended", "aspen", "info")] * 2


def test_lines_that_a_party_causes_are_limited_for_each_party_and_told() -> None:
    now = [1e9]
    limited = Limited(lambda: now[0], 3, 24)

    def told(event: str, **fields: str) -> dict[str, object] | None:
        try:
            return dict(limited(None, "info", {"event": event, **fields}))
        except structlog.DropEvent:
            return None

    assert [told("request_ended", analyst="eve") is not None for _ in range(10)] == [True] * 3 + [False] * 7
    assert told("request_ended", analyst="ana") == {"event": "request_ended", "analyst": "ana"}
    assert told("refused") is not None
    now[0] += 3600
    assert told("request_ended", analyst="eve") == {"event": "request_ended", "analyst": "eve", "left_out_before": 7}


def test_ever_new_parties_share_one_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "MAX_KEYS", 10)
    limited, passed = Limited(lambda: 1e9, 3, 0), 0
    for number in range(1000):
        with suppress(structlog.DropEvent):
            limited(None, "info", {"event": "refused", "silo": f"s{number}"})
            passed += 1
    assert passed == 10 + 3


def test_the_lines_of_a_running_party_are_limited() -> None:
    configure_logs()
    log = structlog.get_logger("consilo.silo")
    with redirect_stderr(io.StringIO()) as error:
        for _ in range(LINES_AT_ONCE + 500):
            log.warning("step_failed", step="propose")
    assert error.getvalue().count("step_failed") == LINES_AT_ONCE
