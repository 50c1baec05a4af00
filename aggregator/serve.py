"""Run the aggregator of a federation between organisations: `python -m aggregator serve HOME --listen HOST:PORT`.

It listens for silos and analysts on one port, adds in its own Ray cluster, which listens on loopback only unless
`--ray` names one over several machines, and applies a newer membership from its directory while it runs. On SIGTERM it
ends after the running rounds.
"""

import argparse
import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import structlog

from aggregator.capacity import BYTES_PER_SECOND, MAX_MEGABYTES, Capacity
from aggregator.driver import Server
from aggregator.errors import AggregatorError
from aggregator.gate import Gate
from aggregator.holders import make_room_for_connections
from aggregator.home import read_credentials, read_home
from aggregator.recovery import end_left_rounds
from aggregator.request_log import RequestLog
from aggregator.round_journal import RoundJournal
from aggregator.shards import MAX_SHARDS, ShardedSums
from aggregator.store import CONTRIBUTIONS, MAX_KEPT_DAYS, MAX_KEPT_GIB, REPORTS, CheckpointStore, ReportStore
from aggregator.streams import StreamSilo
from crypto.errors import CryptoError
from federation.errors import ClusterDiedError, FederationError
from federation.members.certificates import days_left, utc_now
from federation.members.credentials import Credentials, hold
from federation.operations import ray_directory
from federation.operations.background import keep_short
from federation.operations.cluster import RAY_TOKEN, cluster_environment, ensure_token, nodes_environment
from federation.operations.monitoring import AggregatorCounts, configure_logs, serve_monitor, serve_probes
from federation.operations.private import why_code_is_anywhere, why_open
from federation.operations.ray_cluster import (
    RAY_LOG,
    Cluster,
    adopt,
    connected,
    dead_processes,
    died,
    end_at_once,
    interrupt_on_sigterm,
    is_on_this_machine,
    ray_variables,
)
from federation.operations.running import forget_running, full_disks, note_running
from federation.terminal import Failure, fail, whole
from federation.transport.address import listened, port
from policies.units import DAY_S, when

DRAIN_S = 120.0
LOOK_EVERY_S = 2.0
_log = structlog.get_logger("consilo.aggregator")


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal ends it; print one line of error and one of hint if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m aggregator serve")
    parser.add_argument("home", type=Path)
    parser.add_argument("--listen", type=listened, default="0.0.0.0:8443", metavar="HOST:PORT")
    parser.add_argument("--monitor-port", type=port, default=9464, metavar="PORT")
    days, gib = whole(1, MAX_KEPT_DAYS), whole(1, MAX_KEPT_GIB)
    for what, keeping in (("reports", REPORTS), ("contributions", CONTRIBUTIONS)):
        parser.add_argument(f"--keep-{what}", type=days, default=keeping.age_s // DAY_S, metavar="DAYS")
        parser.add_argument(f"--{what}-gib", type=gib, default=keeping.max_bytes >> 30, metavar="GIB")
    parser.add_argument("--ray", default=None, metavar="HOST:PORT")
    parser.add_argument("--ray-tls", type=Path, default=None, metavar="DIR")
    parser.add_argument("--node-address", default="", metavar="ADDRESS")
    parser.add_argument("--shards", type=whole(1, MAX_SHARDS), default=None, metavar="COUNT")
    most = whole(1, MAX_MEGABYTES)
    parser.add_argument("--megabytes-per-second", type=most, default=BYTES_PER_SECOND // 1_000_000, metavar="MB")
    parser.add_argument("--probes", type=listened, default=None, metavar="HOST:PORT")
    try:
        options = parser.parse_args(arguments)
        credentials = read_credentials(options.home)
        credentials.membership.peer(credentials.certificate())
        if (why := why_code_is_anywhere() or why_open(options.home)) is not None:
            raise AggregatorError(*why)
        ensure_token(options.home / RAY_TOKEN)
        if (lock := hold(options.home / "serve.lock")) is None:
            raise AggregatorError(
                f"{options.home} is served already", "stop the other `consilo aggregator serve` first"
            )
        configure_logs()
        make_room_for_connections()
        interrupt_on_sigterm()
        with lock:
            adopt(_environment(options), ray_variables())
            with connected(_cluster(options)):
                asyncio.run(_run(options, credentials))
    except ClusterDiedError as err:
        end_at_once(fail("consilo", Failure(err.message, err.hint)))
    except (AggregatorError, FederationError, CryptoError) as err:
        return fail("consilo", Failure(err.message, err.hint))
    except OSError as err:
        hint = "is another aggregator running here? otherwise free disk space"
        return fail("consilo", Failure(f"{err.strerror or err}" + (f": {err.filename}" if err.filename else ""), hint))
    except KeyboardInterrupt:
        _say("stopped before it listened")
    return 0


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """Return Ray's settings for the chosen cluster; raises AggregatorError or CryptoError."""
    token = options.home / RAY_TOKEN
    if options.ray is None and (options.ray_tls is not None or options.node_address):
        message = "--ray-tls and --node-address are for a cluster that runs already"
        raise AggregatorError(message, "name it with --ray")
    if options.ray_tls is not None:
        return nodes_environment(token, options.ray_tls, options.node_address)
    if options.ray is not None and not is_on_this_machine(options.ray):
        message = f"the Ray cluster at {options.ray} is not on this machine, and --ray-tls is not given"
        raise AggregatorError(message, "nodes of a cluster must speak TLS: see docs/federated.md")
    return cluster_environment(token)


def _cluster(options: argparse.Namespace) -> Cluster:
    log = options.home / RAY_LOG
    if options.ray is None:
        return Cluster("the aggregator's Ray cluster did not start", "see `consilo doctor`", log=log)
    return Cluster(
        "the Ray cluster does not take this aggregator",
        "compare ray.token with the cluster's",
        address=options.ray,
        node_address=options.node_address,
        log=log,
    )


async def _run(options: argparse.Namespace, credentials: Credentials) -> None:
    from aggregator.ray_actors import RayShards  # imports Ray, which then reads its environment

    home: Path = options.home
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    kept = replace(CONTRIBUTIONS, age_s=options.keep_contributions * DAY_S, max_bytes=options.contributions_gib << 30)
    counts, sums = AggregatorCounts(), ShardedSums(RayShards(home.resolve(), kept, options.shards))
    rate = options.megabytes_per_second * 1_000_000
    capacity = Capacity(options.contributions_gib << 30, options.reports_gib << 30, rate)
    kept = replace(REPORTS, age_s=options.keep_reports * DAY_S, max_bytes=options.reports_gib << 30)
    store = ReportStore(home / "reports", keeping=kept)
    request_log = RequestLog(home, counts)
    journal, recovery = RoundJournal(home / "rounds"), list[asyncio.Task[None]]()

    def server(silos: Mapping[str, StreamSilo]) -> Server:
        """Return the server of a membership, which verifies checkpoints with the silos' keys."""
        aggregator = read_home(home)
        checkpoints = CheckpointStore(home / "heads", aggregator.federation, aggregator.silos)
        if not recovery:  # the ways to silos outlive a membership
            recovery.append(asyncio.create_task(end_left_rounds(aggregator, silos, journal, time.time)))
        return Server(aggregator, silos, sums, store, journal, checkpoints, ended=request_log.ended, capacity=capacity)

    gate = Gate(credentials, server, counts)
    watch = Watch(home, credentials, gate, counts, sums.check)
    async with AsyncExitStack() as listeners:

        def health() -> tuple[bool, dict[str, object]]:
            is_well, found = watch.health()
            return is_well and not stopping.is_set(), found

        counts.ready.set_function(lambda: health()[0])
        monitor = await serve_monitor(options.monitor_port, counts.registry, health, status=watch.status)
        listeners.push_async_callback(monitor.stop)
        if options.probes is not None:
            listeners.push_async_callback((await serve_probes(options.probes, counts.registry, health)).stop)
        note_running(home, monitor.address[1])
        listeners.callback(forget_running, home)
        bound = await gate.start(options.listen)
        name = credentials.identity.name
        _say(
            f"{name} listens on {options.listen.rpartition(':')[0]}:{bound};"
            f" health and metrics on 127.0.0.1:{monitor.address[1]}"
        )
        try:
            while not stopping.is_set():
                await watch.look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await stopping.wait()
        finally:
            _log.info("stopping")
            for one in recovery:
                one.cancel()
            await gate.stop(DRAIN_S)
            _log.info("stopped")
    _say(f"{name} has stopped")


class Watch:
    """What is wrong with an aggregator's directory, disks and cluster, looked at again and again."""

    def __init__(
        self,
        home: Path,
        credentials: Credentials,
        gate: Gate,
        counts: AggregatorCounts,
        check_sums: Callable[[], Awaitable[None]],
    ) -> None:
        self._home, self._credentials, self._gate, self._counts = home, credentials, gate, counts
        self._check_sums, self._since = check_sums, when(int(time.time()))
        self.problems: list[str] = []

    def health(self) -> tuple[bool, dict[str, object]]:
        """Return whether the aggregator can serve, and why not."""
        expected = [member.name for member in self._credentials.membership.of_role("silo")]
        return not self.problems and bool(self._credentials.membership.roster), {
            "connected": self._gate.connected,
            "missing": sorted(set(expected) - set(self._gate.connected)),
            "membership": self._gate.version,
            "problem": "; ".join(self.problems),
        }

    def status(self) -> dict[str, object]:
        """Return what only the running program knows, for `consilo status`."""
        refused = [f"{name} is refused: {why}" for name, why in self._gate.other_versions.items()]
        return {
            "since": self._since,
            "connected": self._gate.connections,
            "problems": [*self.problems, *refused],
            "holders": self._gate.holders.named,
        }

    async def look(self) -> None:
        """Look once; raises ClusterDiedError, so that whoever started this program starts it again."""
        keep_short(self._home)
        problems = self._directory() + full_disks({"home": self._home, "tmp": ray_directory.place()})
        for one in problems:
            if one not in self.problems:
                _log.error("problem", reason=one[:500])
        self.problems = problems
        if dead := dead_processes():
            raise died("the aggregator", f"{', '.join(dead)} ended", self._home / RAY_LOG)
        try:
            await self._check_sums()
        except AggregatorError as err:
            raise died("the aggregator", err.message, self._home / RAY_LOG) from err

    def _directory(self) -> list[str]:
        """Apply what is new in the directory; return what is wrong with it, while the known membership stays."""
        try:
            if self._gate.refresh():
                _log.info("membership_grown", version=self._gate.version)
            self._credentials.membership.peer(self._credentials.certificate())
            self._counts.membership.set(len(self._credentials.log))
            self._counts.certificate_days.set(days_left(self._credentials.certificate(), utc_now()))
        except (CryptoError, AggregatorError, OSError) as err:
            return [str(err)]
        return []


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
