"""Health and metrics: on loopback only, bounded, and of nothing that depends on data."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from crypto import operations
from crypto.operations import AggregatorCounts, SiloCounts, serve_monitor

pytestmark = pytest.mark.server

T = TypeVar("T")


def monitored(body: Callable[[int], Awaitable[T]], is_well: bool = True) -> T:
    async def whole() -> T:
        counts = SiloCounts()
        counts.connected(True)
        counts.dialled("unavailable")
        counts.answered("propose")
        counts.moved(10, 20)
        server = await serve_monitor(0, counts.registry, lambda: (is_well, {"silo": "aspen"}))
        async with server:
            assert {one.getsockname()[0] for one in server.sockets} == {"127.0.0.1"}
            return await body(server.sockets[0].getsockname()[1])

    return asyncio.run(whole())


async def get(port: int, request: bytes) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head.split("\r\n")[0], body


@pytest.mark.parametrize(("is_well", "status"), [(True, "200 OK"), (False, "503 Service Unavailable")])
def test_health_is_a_status_and_json(is_well: bool, status: str) -> None:
    line, body = monitored(lambda port: get(port, b"GET /health HTTP/1.1\r\n\r\n"), is_well)
    assert line == f"HTTP/1.1 {status}"
    assert json.loads(body) == {"ok": is_well, "silo": "aspen"}


def test_metrics_are_in_prometheus_text() -> None:
    line, body = monitored(lambda port: get(port, b"GET /metrics HTTP/1.1\r\nHost: localhost:9465\r\n\r\n"))
    assert line == "HTTP/1.1 200 OK"
    values = dict(one.rsplit(" ", 1) for one in body.splitlines() if not one.startswith("#"))
    assert values["consilo_connected"] == "1.0"
    assert values['consilo_dialled_total{outcome="unavailable"}'] == "1.0"
    assert values['consilo_steps_total{step="propose"}'] == "1.0"
    assert values['consilo_stream_bytes_total{direction="out"}'] == "20.0"


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n\r\n", b"POST /health HTTP/1.1\r\n\r\n"])
def test_anything_else_is_not_found(request_line: bytes) -> None:
    assert monitored(lambda port: get(port, request_line))[0] == "HTTP/1.1 404 Not Found"


@pytest.mark.parametrize(
    "fields", ["", "Host: 127.0.0.1", "Host: 127.0.0.1:9465", "HOST:LocalHost", "Host: [::1]:9465", "Accept: */*"]
)
def test_who_asks_on_this_machine_is_answered(fields: str) -> None:
    head = f"GET /health HTTP/1.0\r\n{fields}\r\n\r\n" if fields else "GET /health HTTP/1.0\r\n\r\n"
    assert monitored(lambda port: get(port, head.encode()))[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "fields",
    [
        "Host: rebound.example",
        "Host: rebound.example:9465",
        "Host: 127.0.0.1.rebound.example",
        "Host: localhost:9465:1",
        "Host: ::1",
        "Host:",
        "host : rebound.example",
        "Host: localhost\r\nHost: rebound.example",
        "Accept: */*\r\nHost:\r\n localhost",
    ],
)
def test_a_page_whose_name_leads_here_is_refused(fields: str) -> None:
    head = f"GET /health HTTP/1.1\r\n{fields}\r\n\r\n".encode()
    assert monitored(lambda port: get(port, head)) == ("HTTP/1.1 403 Forbidden", "ask at 127.0.0.1\n")


def test_a_request_that_is_too_long_or_too_slow_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "REQUEST_S", 0.2)
    began = time.monotonic()
    assert monitored(lambda port: get(port, b"GET " + b"x" * 20_000)) == ("", "")
    assert monitored(lambda port: get(port, b"GET /health")) == ("", "")
    assert time.monotonic() - began < 5


def test_the_aggregators_counts_are_by_role_and_reason() -> None:
    counts = AggregatorCounts()
    counts.refused("frame")
    counts.connected("silo", 3)
    counts.moved("silo", 5, 6)
    assert counts.registry.get_sample_value("consilo_refused_total", {"reason": "frame"}) == 1
    assert counts.registry.get_sample_value("consilo_streams", {"role": "silo"}) == 3
    assert counts.registry.get_sample_value("consilo_stream_bytes_total", {"role": "silo", "direction": "in"}) == 5
