"""Health and metrics: on loopback only, bounded, and of nothing that depends on data."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from crypto.errors import LinkError
from federation.operations.monitoring import AggregatorCounts, SiloCounts, serve_monitor, serve_probes
from federation.web.connection import ClientLimits

pytestmark = pytest.mark.server

T = TypeVar("T")
LIMITS = ClientLimits(read_s=5.0)


def monitored(body: Callable[[int], Awaitable[T]], is_well: bool = True, limits: ClientLimits = LIMITS) -> T:
    async def whole() -> T:
        counts = SiloCounts()
        counts.connected(True)
        counts.ready.set_function(lambda: is_well)
        counts.dialled("unavailable")
        counts.answered("propose")
        counts.moved(10, 20)
        server = await serve_monitor(0, counts.registry, lambda: (is_well, {"silo": "aspen"}), limits)
        try:
            assert server.address[0] == "127.0.0.1"
            return await body(server.address[1])
        finally:
            await server.stop()

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
    line, body = monitored(lambda port: get(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), is_well)
    assert line == f"HTTP/1.1 {status}"
    assert json.loads(body) == {"ok": is_well, "silo": "aspen"}


@pytest.mark.parametrize("is_well", [True, False])
def test_metrics_are_in_prometheus_text(is_well: bool) -> None:
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost:9465\r\n\r\n"
    line, body = monitored(lambda port: get(port, request), is_well)
    assert line == "HTTP/1.1 200 OK"
    values = dict(one.rsplit(" ", 1) for one in body.splitlines() if not one.startswith("#"))
    assert values["consilo_connected"] == "1.0"
    assert values["consilo_ready"] == f"{is_well:d}.0"
    assert values['consilo_dialled_total{outcome="unavailable"}'] == "1.0"
    assert values['consilo_steps_total{step="propose"}'] == "1.0"
    assert values['consilo_stream_bytes_total{direction="out"}'] == "20.0"


@pytest.mark.parametrize(
    ("request_line", "fields", "status"),
    [
        ("GET /", "", "404 Not Found"),
        ("GET /health/", "", "404 Not Found"),
        ("POST /health", "Origin: http://localhost", "404 Not Found"),
        ("POST /health", "Origin: http://rebound.example", "403 Forbidden"),
        ("POST /health", "Accept: */*", "403 Forbidden"),
        ("PUT /health", "", "501 Not Implemented"),
    ],
)
def test_anything_else_is_not_answered(request_line: str, fields: str, status: str) -> None:
    head = f"{request_line} HTTP/1.1\r\nHost: localhost\r\n{fields}{fields and chr(13) + chr(10)}\r\n".encode()
    line, body = monitored(lambda port: get(port, head))
    assert line == f"HTTP/1.1 {status}"
    assert "aspen" not in body


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
    ],
)
def test_a_page_whose_name_leads_here_is_refused(fields: str) -> None:
    head = f"GET /health HTTP/1.1\r\n{fields}\r\n\r\n".encode()
    assert monitored(lambda port: get(port, head)) == ("HTTP/1.1 403 Forbidden", "ask at 127.0.0.1\n")


@pytest.mark.parametrize(
    "fields",
    [
        "Accept: */*",
        "host : rebound.example",
        "Host: localhost\r\nHost: rebound.example",
        "Host: rebound.example\r\nHost: localhost",
        "Accept: */*\r\nHost:\r\n localhost",
    ],
)
def test_a_host_that_can_be_read_in_two_ways_or_none_is_no_request(fields: str) -> None:
    """RFC 9112, sections 3.2, 5.1 and 5.2."""
    head = f"GET /health HTTP/1.1\r\n{fields}\r\n\r\n".encode()
    line, body = monitored(lambda port: get(port, head))
    assert (line, body) == ("HTTP/1.1 400 Bad Request", "this is no request for this page\n")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_elsewhere_does_not_even_learn_how_long_an_answer_is(site: str) -> None:
    head = f"GET /health HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: {site}\r\nSec-Fetch-Mode: no-cors\r\n\r\n"
    assert monitored(lambda port: get(port, head.encode()))[0] == "HTTP/1.1 403 Forbidden"


def test_a_request_that_is_too_long_or_too_slow_is_ended() -> None:
    limits = ClientLimits(read_s=0.2)
    began = time.monotonic()
    line, _ = monitored(lambda port: get(port, b"GET " + b"x" * 20_000), limits=limits)
    assert line == "HTTP/1.1 431 Request Header Fields Too Large"
    assert monitored(lambda port: get(port, b"GET /health"), limits=limits) == ("", "")
    assert time.monotonic() - began < 5


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    async def again(port: int) -> None:
        with pytest.raises(LinkError, match=f"127.0.0.1:{port} for health and metrics") as caught:
            await serve_monitor(port, SiloCounts().registry, lambda: (True, {}))
        assert "--monitor-port" in caught.value.hint

    monitored(again)


@pytest.mark.parametrize(("is_well", "status"), [(True, "200 OK"), (False, "503 Service Unavailable")])
def test_probes_are_answered_at_another_address_and_name_nobody(is_well: bool, status: str) -> None:
    async def whole() -> list[tuple[str, str]]:
        server = await serve_probes("127.0.0.1:0", SiloCounts().registry, lambda: (is_well, {"silo": "aspen"}))
        try:
            asked = [
                f"GET /{name} HTTP/1.1\r\nHost: 10.1.2.3:80\r\n\r\n" for name in ("ready", "live", "health", "status")
            ]
            return [await get(server.address[1], one.encode()) for one in asked]
        finally:
            await server.stop()

    ready, live, health, about = asyncio.run(whole())
    assert ready[0] == f"HTTP/1.1 {status}"
    assert json.loads(ready[1]) == {"ok": is_well}
    assert live == ("HTTP/1.1 200 OK", '{"ok": true}\n')
    for hidden in (health, about):
        assert hidden[0] == "HTTP/1.1 404 Not Found"
        assert "aspen" not in hidden[1]


def test_the_status_is_on_loopback_with_the_process_that_says_it() -> None:
    async def whole() -> tuple[str, str]:
        server = await serve_monitor(0, SiloCounts().registry, lambda: (True, {}), status=lambda: {"since": "now"})
        try:
            return await get(server.address[1], b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        finally:
            await server.stop()

    line, body = asyncio.run(whole())
    assert (line, json.loads(body)) == ("HTTP/1.1 200 OK", {"pid": os.getpid(), "since": "now"})


def test_requests_and_rounds_are_counted_by_outcome() -> None:
    hub, silo = AggregatorCounts(), SiloCounts()
    hub.ended("missing", 2.0, {"aspen": "unable", "birch": "missing"}, ["CLOCK", "other"])
    silo.ended("refused", 0.2, ["ROSTER"])
    for registry, name, labels in (
        (hub.registry, "consilo_requests_total", {"outcome": "missing"}),
        (hub.registry, "consilo_silo_outcomes_total", {"silo": "birch", "status": "missing"}),
        (hub.registry, "consilo_denials_total", {"code": "CLOCK"}),
        (silo.registry, "consilo_rounds_total", {"outcome": "refused"}),
        (silo.registry, "consilo_denials_total", {"code": "ROSTER"}),
    ):
        assert registry.get_sample_value(name, labels) == 1, name
    assert hub.registry.get_sample_value("consilo_request_seconds_sum") == 2.0
    assert silo.registry.get_sample_value("consilo_round_seconds_count") == 1


def test_the_aggregators_counts_are_by_role_and_reason() -> None:
    counts = AggregatorCounts()
    counts.refused("frame")
    counts.connected("silo", 3)
    counts.moved("silo", 5, 6)
    assert counts.registry.get_sample_value("consilo_refused_total", {"reason": "frame"}) == 1
    assert counts.registry.get_sample_value("consilo_streams", {"role": "silo"}) == 3
    assert counts.registry.get_sample_value("consilo_stream_bytes_total", {"role": "silo", "direction": "in"}) == 5
