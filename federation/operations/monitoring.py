"""What an operator sees of a running party: logs, counts and health. Nothing that depends on data is in them.

Promises: counts and health are shown on loopback only, and to no web page (see `federation.web.guard`). Logs are one
JSON object a line: an event, names of parties, versions, reasons of refusals; never a message's content. See
docs/federated.md, "Operations".
"""

import json
import logging
import sys
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crypto.errors import LinkError
from federation.web.connection import ClientLimits
from federation.web.guard import LOOPBACK, is_loopback_name
from federation.web.loopback import Listener, hardened, listen

_LIMITS = ClientLimits(read_s=5.0, answer_s=5.0, write_s=5.0)

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


async def serve_monitor(
    port: int, registry: CollectorRegistry, health: Health, limits: ClientLimits = _LIMITS
) -> Listener:
    """Serve `/metrics` and `/health` on loopback; raises LinkError if the port is taken."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def condition(_: Request) -> Response:
        is_well, found = health()
        text = json.dumps({"ok": is_well, **found}) + "\n"
        return Response(text, 200 if is_well else 503, media_type="application/json")

    routes = Route("/metrics", metrics), Route("/health", condition)
    app = hardened(routes, is_loopback_name, nothing="try /metrics or /health")
    try:
        return await listen(app, port, limits)
    except (OSError, OverflowError) as err:
        message = f"cannot listen on {LOOPBACK}:{port} for health and metrics"
        raise LinkError(message, "is the port taken? see --monitor-port; 0 takes any that is free") from err
