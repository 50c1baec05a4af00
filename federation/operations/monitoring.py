"""What an operator sees of a running party: logs, counts and health, none of which depend on data.

Promises: status and health are shown on loopback only, and to no web page (see `federation.web.guard`); where an
operator chooses another address, `/live` and `/ready` say yes or no there, and `/metrics` counts. A log line is one
JSON object: an event, names of parties, versions, reasons of refusals; never a message's content. See
docs/federated.md, "Operations".
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from crypto.errors import LinkError
from federation.operations.allowance import Allowance
from federation.web.connection import ClientLimits
from federation.web.guard import LOOPBACK, is_any_name, is_loopback_name
from federation.web.loopback import Listener, hardened, listen

_LIMITS = ClientLimits(read_s=5.0, answer_s=5.0, write_s=5.0)

disable_created_metrics()  # type: ignore[no-untyped-call]
Health = Callable[[], tuple[bool, dict[str, object]]]
Status = Callable[[], dict[str, object]]
# Lines of one event and party, and of how many of these apart: the parties are members, and events are few.
LINES_AT_ONCE, LINES_PER_DAY, MAX_KEYS = 2000, 20_000, 5000
SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 240, 600, 3600)


def configure_logs() -> None:
    """Write structured lines to standard error, from which systemd or a container collects them."""
    structlog.configure(
        processors=[
            Limited(time.time),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


class Limited:
    """Passes so many lines of each event and party, at once and a day: what others do must not fill a disk.

    The next line of the same event and party tells how many were left out.
    """

    def __init__(self, clock: Callable[[], float], at_once: int = LINES_AT_ONCE, per_day: int = LINES_PER_DAY) -> None:
        self._lines = Allowance[tuple[str, str]](at_once, per_day, clock)
        self._known: set[tuple[str, str]] = set()

    def __call__(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event = str(line.get("event", ""))
        key = event, next((str(line[name]) for name in ("analyst", "silo", "aggregator") if name in line), "")
        if key not in self._known and len(self._known) >= MAX_KEYS:
            key = event, ""
        self._known.add(key)
        if not self._lines.take(key):
            raise structlog.DropEvent
        if left_out := self._lines.refused().get(key):
            self._lines.told(key)
            line["left_out_before"] = left_out
        return line


def _ready(registry: CollectorRegistry) -> Gauge:
    return Gauge("consilo_ready", "1 while it can serve, as /ready says.", registry=registry)


class AggregatorCounts:
    """The aggregator's counts of its connections and requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._refused = Counter(
            "consilo_refused", "Connections and frames refused.", ["reason"], registry=self.registry
        )
        self._connected = Gauge("consilo_streams", "Streams that are open.", ["role"], registry=self.registry)
        for role in ("silo", "analyst"):
            self.connected(role, 0)  # an alert on nobody needs a zero
        self._bytes = Counter(
            "consilo_stream_bytes", "Bytes of ended streams.", ["role", "direction"], registry=self.registry
        )
        self.ready = _ready(self.registry)
        self.membership = Gauge("consilo_membership_version", "Newest version known.", registry=self.registry)
        self.certificate_days = Gauge(
            "consilo_certificate_days_left", "Days until the certificate expires.", registry=self.registry
        )

        self._requests = Counter(
            "consilo_requests", "Requests that ended, by what became of them.", ["outcome"], registry=self.registry
        )
        self._seconds = Histogram(
            "consilo_request_seconds", "How long requests took.", buckets=SECONDS, registry=self.registry
        )
        self._silos = Counter(
            "consilo_silo_outcomes", "What became of each asked silo.", ["silo", "status"], registry=self.registry
        )
        self._denials = Counter("consilo_denials", "Reasons of refusals, by code.", ["code"], registry=self.registry)

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def ended(self, outcome: str, seconds: float, silos: Mapping[str, str], codes: Iterable[str]) -> None:
        """Count a request: what became of it and of each silo of the roster, and the codes of all denials."""
        self._requests.labels(outcome).inc()
        self._seconds.observe(seconds)
        for silo, status in silos.items():
            self._silos.labels(silo, status).inc()
        for code in codes:
            self._denials.labels(code).inc()

    def connected(self, role: str, number: int) -> None:
        self._connected.labels(role).set(number)

    def moved(self, role: str, bytes_in: int, bytes_out: int) -> None:
        self._bytes.labels(role, "in").inc(bytes_in)
        self._bytes.labels(role, "out").inc(bytes_out)


class SiloCounts:
    """The silo's counts of its connection and rounds, without the duration of steps, which depends on data."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._connected = Gauge("consilo_connected", "1 while the stream is open.", registry=self.registry)
        self._dialled = Counter("consilo_dialled", "Streams that ended, by how.", ["outcome"], registry=self.registry)
        self._answered = Counter("consilo_steps", "Steps answered.", ["step"], registry=self.registry)
        self._bytes = Counter("consilo_stream_bytes", "Bytes of ended streams.", ["direction"], registry=self.registry)
        self.ready = _ready(self.registry)
        self.membership = Gauge("consilo_membership_version", "Newest version known.", registry=self.registry)
        self.certificate_days = Gauge(
            "consilo_certificate_days_left", "Days until the certificate expires.", registry=self.registry
        )

        self._rounds = Counter(
            "consilo_rounds", "Rounds that ended, by what became of them.", ["outcome"], registry=self.registry
        )
        self._seconds = Histogram(
            "consilo_round_seconds",
            "How long rounds took, from the proposal to the end: as the aggregator sees it.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._denials = Counter("consilo_denials", "Reasons of refusals, by code.", ["code"], registry=self.registry)

    def connected(self, is_connected: bool) -> None:
        self._connected.set(is_connected)

    def ended(self, outcome: str, seconds: float, codes: Iterable[str] = (), /) -> None:
        """Count a round: what became of it, how long it took as others see it, and the codes of a refusal."""
        self._rounds.labels(outcome).inc()
        self._seconds.observe(seconds)
        for code in codes:
            self._denials.labels(code).inc()

    def dialled(self, outcome: str) -> None:
        self._dialled.labels(outcome).inc()

    def answered(self, step: str) -> None:
        self._answered.labels(step).inc()

    def moved(self, bytes_in: int, bytes_out: int) -> None:
        self._bytes.labels("in").inc(bytes_in)
        self._bytes.labels("out").inc(bytes_out)


async def serve_monitor(
    port: int, registry: CollectorRegistry, health: Health, limits: ClientLimits = _LIMITS, status: Status = dict
) -> Listener:
    """Serve `/health`, `/status`, `/metrics`, `/ready`, `/live` on loopback; raises LinkError if the port is taken."""

    async def condition(_: Request) -> Response:
        is_well, found = health()
        return _json(is_well, {"ok": is_well, **found})

    async def about(_: Request) -> Response:
        return _json(True, {"pid": os.getpid(), **status()})

    routes = Route("/health", condition), Route("/status", about), *_probes(registry, health)
    app = hardened(routes, is_loopback_name, nothing="try /metrics, /health, /status, /ready or /live")
    return await _listening(app, LOOPBACK, port, limits, "--monitor-port")


async def serve_probes(address: str, registry: CollectorRegistry, health: Health) -> Listener:
    """Serve `/live`, `/ready` and `/metrics` on HOST:PORT, whoever asks; raises LinkError if that is not possible."""
    host, _, port = address.rpartition(":")
    app = hardened(_probes(registry, health), is_any_name, nothing="try /metrics, /ready or /live")
    return await _listening(app, host.strip("[]"), int(port), _LIMITS, "--probes")


def _probes(registry: CollectorRegistry, health: Health) -> tuple[Route, ...]:
    """Return the pages that name nobody: alive, ready, and the counts."""

    async def live(_: Request) -> Response:
        return _json(True, {"ok": True})

    async def ready(_: Request) -> Response:
        is_well, _found = health()
        return _json(is_well, {"ok": is_well})

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Route("/live", live), Route("/ready", ready), Route("/metrics", metrics)


def _json(is_well: bool, found: Mapping[str, object]) -> Response:
    return Response(json.dumps(found) + "\n", 200 if is_well else 503, media_type="application/json")


async def _listening(app: ASGIApp, host: str, port: int, limits: ClientLimits, option: str) -> Listener:
    try:
        return await listen(app, port, limits, host)
    except (OSError, OverflowError) as err:
        message = f"cannot listen on {host}:{port} for health and metrics"
        raise LinkError(message, f"is the port taken? see {option}; 0 takes any that is free") from err
