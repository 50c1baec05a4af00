"""What an operator sees of a running party: logs, counts and health. Nothing that depends on data is in them.

Counts and health are served on loopback only, and to no web page whose name was made to lead there. Logs are one JSON
object a line: an event, names of parties, versions, reasons of refusals; never a message's content. See
docs/federated.md, "Operations".
"""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

from crypto.errors import LinkError

MAX_REQUEST_BYTES = 8192
REQUEST_S = 5.0
MAX_CLIENTS = 16
LOOPBACK = "127.0.0.1"
_LOOPBACK_HOST = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")

disable_created_metrics()  # type: ignore[no-untyped-call]
Health = Callable[[], tuple[bool, dict[str, object]]]


def configure_logs() -> None:
    """Write structured lines to standard error, where systemd or a container takes them."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class AggregatorCounts:
    """The aggregator's counts of its connections."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._refused = Counter(
            "consilo_refused", "Connections and frames refused.", ["reason"], registry=self.registry
        )
        self._connected = Gauge("consilo_streams", "Streams that are open.", ["role"], registry=self.registry)
        self._bytes = Counter(
            "consilo_stream_bytes", "Bytes of ended streams.", ["role", "direction"], registry=self.registry
        )
        self.membership = Gauge("consilo_membership_version", "Newest version known.", registry=self.registry)
        self.certificate_days = Gauge(
            "consilo_certificate_days_left", "Days until the certificate expires.", registry=self.registry
        )

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def connected(self, role: str, number: int) -> None:
        self._connected.labels(role).set(number)

    def moved(self, role: str, bytes_in: int, bytes_out: int) -> None:
        self._bytes.labels(role, "in").inc(bytes_in)
        self._bytes.labels(role, "out").inc(bytes_out)


class SiloCounts:
    """The silo's counts of its connection; how long a step took is not among them, as that depends on data."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._connected = Gauge("consilo_connected", "1 while the stream is open.", registry=self.registry)
        self._dialled = Counter("consilo_dialled", "Streams that ended, by how.", ["outcome"], registry=self.registry)
        self._answered = Counter("consilo_steps", "Steps answered.", ["step"], registry=self.registry)
        self._bytes = Counter("consilo_stream_bytes", "Bytes of ended streams.", ["direction"], registry=self.registry)
        self.membership = Gauge("consilo_membership_version", "Newest version known.", registry=self.registry)
        self.certificate_days = Gauge(
            "consilo_certificate_days_left", "Days until the certificate expires.", registry=self.registry
        )

    def connected(self, is_connected: bool) -> None:
        self._connected.set(is_connected)

    def dialled(self, outcome: str) -> None:
        self._dialled.labels(outcome).inc()

    def answered(self, step: str) -> None:
        self._answered.labels(step).inc()

    def moved(self, bytes_in: int, bytes_out: int) -> None:
        self._bytes.labels("in").inc(bytes_in)
        self._bytes.labels("out").inc(bytes_out)


async def serve_monitor(port: int, registry: CollectorRegistry, health: Health) -> asyncio.Server:
    """Serve `/metrics` and `/health` on loopback; raises LinkError if the port is taken."""
    busy = asyncio.Semaphore(MAX_CLIENTS)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if busy.locked():
            writer.close()
            return
        async with busy:
            with suppress(TimeoutError, OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(REQUEST_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_response(head, registry, health))
                    await writer.drain()
            writer.close()

    try:
        return await asyncio.start_server(answer, LOOPBACK, port, limit=MAX_REQUEST_BYTES)
    except (OSError, OverflowError) as err:
        message = f"cannot listen on {LOOPBACK}:{port} for health and metrics"
        raise LinkError(message, "is the port taken? see --monitor-port; 0 takes any that is free") from err


def _response(head: bytes, registry: CollectorRegistry, health: Health) -> bytes:
    match _path(head):
        case None:
            status, kind, body = "403 Forbidden", "text/plain", f"ask at {LOOPBACK}\n".encode()
        case b"/metrics":
            status, kind, body = "200 OK", "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry)
        case b"/health":
            is_well, found = health()
            status, kind = "200 OK" if is_well else "503 Service Unavailable", "application/json"
            body = json.dumps({"ok": is_well, **found}).encode() + b"\n"
        case _:
            status, kind, body = "404 Not Found", "text/plain", b"try /metrics or /health\n"
    begin = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return begin.encode() + body


def _path(head: bytes) -> bytes | None:
    """Return what a GET asks for; None if it was meant for another host, as after DNS rebinding."""
    first, *fields = head.split(b"\r\n")
    named = (field.partition(b":") for field in fields)
    hosts = [value.strip().lower() for name, _, value in named if name.strip().lower() == b"host"]
    if not all(_LOOPBACK_HOST.fullmatch(host) for host in hosts):
        return None
    return first.split(b" ", 2)[1] if first.startswith(b"GET ") else b""
