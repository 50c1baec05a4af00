"""Run a silo in its own organisation: its own Ray cluster, its actor there, and one stream dialled out.

Nothing listens but Ray, and the monitor, on loopback. The actor is restartable and named; this process supervises it,
holds the stream, and ends with the rounds that are open when it is asked to stop.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from crypto.errors import CryptoError
from federation.members.certificates import days_left, utc_now
from federation.members.credentials import Credentials
from federation.operations.cluster import RAY_TOKEN, cluster_environment, ensure_token, nodes_environment
from federation.operations.monitoring import SiloCounts, configure_logs, serve_monitor
from federation.operations.ray_cluster import (
    Cluster,
    adopt,
    connected,
    interrupt_on_sigterm,
    is_on_this_machine,
    ray_variables,
)
from federation.transport.calls import CallFailedError
from policies.document.load import load
from policies.errors import LedgerError, PolicyError
from silo_node.actor import SiloActor
from silo_node.doctor import examine
from silo_node.errors import SiloError
from silo_node.home import lock_serving, read_credentials
from silo_node.ledger.checkpoints import UnreachableError
from silo_node.transport.checkpoint_relay import DeferredKeeper, Objection
from silo_node.transport.streams import Streams

START_S = 90.0
CLEAR_S = 15.0
STEP_S = 60.0
DRAIN_S = 30.0
MONITOR_EVERY_S = 60.0
_log = structlog.get_logger("consilo.silo")


@dataclass(frozen=True, slots=True)
class Options:
    """How `consilo-silo serve` runs."""

    policy: Path
    monitor_port: int
    ray_address: str | None = None  # of the organisation's own cluster; None: start one on this machine
    ray_tls: Path | None = None  # node.key, node.pem and ca.pem, where the cluster has several nodes
    node_address: str = ""  # of this machine in that cluster


class FederatedSilo(SiloActor):
    """A silo in a trust domain of its own, whose checkpoints `CheckpointRelay` brings to the aggregators.

    It keeps what stopped it, as Ray turns a constructor's error into text.
    """

    IS_ONE_TRUST_DOMAIN = False

    def __init__(self, policy_path: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._problem: tuple[str, str] | None = None
        try:
            super().__init__(policy_path, sleep=sleep, keepers=lambda _: DeferredKeeper())
        except (SiloError, PolicyError, CryptoError) as err:
            self._problem = err.message, err.hint

    def problem(self) -> tuple[str, str] | None:
        """Return why the silo did not start, with a hint; None if it did."""
        return self._problem

    def aggregators(self) -> tuple[str, ...]:
        """Return the keepers of checkpoints: every aggregator of the roster."""
        return tuple(self._guards)

    def uncompared(self) -> tuple[str, ...]:
        """Return the aggregators that have not said yet which checkpoint they keep."""
        return tuple(name for name, one in self._guards.items() if not one.is_compared)

    def checkpoint(self) -> bytes:
        """Return the signed checkpoint of the ledger; nothing while nothing was ever logged."""
        return self._ledger.checkpoint() or b""

    def check_reply(self, aggregator: str, kept: bytes, put: bytes) -> Objection | None:
        """Hold the ledger against the checkpoint that an aggregator keeps, in answer to the one `put` there."""
        try:
            self._guards[aggregator].check_reply(kept, put)
        except LedgerError as err:
            self._log.error("head kept by %s: %.500s", aggregator, err)
            return Objection(err.message, err.hint, not isinstance(err, UnreachableError))
        return None

    def withhold(self, round_id: bytes) -> None:
        """Forget a round whose contribution must not leave, though its charge stays."""
        with self._turn:
            self._forget(round_id)


def serve(options: Options, ready: Callable[[str], None]) -> None:
    """Run until a signal ends it; raises SiloError, PolicyError, FederationError or CryptoError if it cannot start."""
    problems = [one for one in examine(options.policy) if one.state == "FAIL"]
    if problems:
        raise SiloError(f"{problems[0].what}: {problems[0].found}", problems[0].remedy)
    home, name = options.policy.resolve().parent, load(options.policy).policy.silo.id
    with lock_serving(home):
        credentials = read_credentials(home, name)
        configure_logs()
        interrupt_on_sigterm()
        adopt(_environment(options, home), ray_variables())
        with connected(_cluster(options)):
            asyncio.run(_run(options, credentials, name, ready))


def _environment(options: Options, home: Path) -> dict[str, str]:
    """Return Ray's settings for the cluster that is wanted, with the token made; raises SiloError or CryptoError."""
    if options.ray_address is None and (options.ray_tls is not None or options.node_address):
        raise SiloError("--ray-tls and --node-address are for a cluster that runs already", "name it with --ray")
    token = home / RAY_TOKEN
    ensure_token(token)
    if options.ray_tls is not None:
        return nodes_environment(token, options.ray_tls, options.node_address)
    if options.ray_address is not None and not is_on_this_machine(options.ray_address):
        raise SiloError(
            f"the Ray cluster at {options.ray_address} is not on this machine, and --ray-tls is not given",
            "nodes of a cluster must speak TLS: see docs/federated.md",
        )
    return cluster_environment(token)


def _cluster(options: Options) -> Cluster:
    return Cluster(
        "the Ray cluster does not take this silo ({kind})",
        "compare ray.token with the cluster's" if options.ray_address else "see `consilo-silo doctor`",
        address=options.ray_address,
        node_address=options.node_address,
    )


async def _run(options: Options, credentials: Credentials, name: str, ready: Callable[[str], None]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(FederatedSilo)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # the directory is here
    await _cleared(f"silo/{name}")
    chosen = {"name": f"silo/{name}", "lifetime": "detached", "scheduling_strategy": here}
    actor = remote.options(**chosen).remote(str(options.policy.resolve()))
    try:
        await _started(actor, name)
        await _attend(actor, options.monitor_port, credentials, name, ready)
    finally:
        ray.kill(actor)  # detached: else it would outlive this process in a cluster of several programs
        _log.info("stopped", silo=name)


async def _attend(
    actor: Any, monitor_port: int, credentials: Credentials, name: str, ready: Callable[[str], None]
) -> None:
    """Hold the streams of an actor until a signal ends it; raises SiloError where its ledger must not go on."""
    import ray

    counts, stopping = SiloCounts(), asyncio.Event()

    async def at_the_actor(step: str, *arguments: object) -> Any:
        method = getattr(actor, step, None)
        if method is None:
            raise CallFailedError(f"a silo has no step {step!r}")
        async with asyncio.timeout(STEP_S):
            return await method.remote(*arguments)

    async def restart() -> None:
        ray.kill(actor, no_restart=False)
        await _started(actor, name)

    def health() -> tuple[bool, dict[str, object]]:
        shown = {"silo": name, "connected": streams.connected, "compared": streams.is_compared}
        return streams.is_compared and any(streams.connected.values()), shown | {"membership": len(credentials.log)}

    monitor = await serve_monitor(monitor_port, counts.registry, health)
    streams = Streams(credentials, at_the_actor, restart, counts)
    refused = streams.relay.refused
    refused.add_done_callback(lambda _: stopping.set())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    ready(f"{name} is served; health and metrics on 127.0.0.1:{monitor.address[1]}")
    try:
        while not stopping.is_set():
            counts.membership.set(len(credentials.log))
            try:
                counts.certificate_days.set(days_left(credentials.certificate(), utc_now()))
                credentials.refresh()  # the authority may send what an aggregator withholds
                await streams.renewed()
            except (CryptoError, SiloError, OSError) as err:  # a file is being replaced, or wrong: streams go on
                _log.error("directory_refused", reason=str(err)[:300])
            with suppress(TimeoutError):
                async with asyncio.timeout(MONITOR_EVERY_S):
                    await stopping.wait()
        _log.info("stopping", silo=name)
        await streams.drain(DRAIN_S)
    finally:
        await streams.close()
        await monitor.stop()
    if refused.done():
        raise SiloError(refused.result().message, refused.result().hint)


async def _cleared(actor_name: str) -> None:
    """End an actor that a killed process has left in the cluster, with the policy of that time; raises SiloError."""
    import ray

    deadline = asyncio.get_running_loop().time() + CLEAR_S
    while True:
        try:
            ray.kill(ray.get_actor(actor_name))
        except ValueError:
            return  # nobody has the name
        if asyncio.get_running_loop().time() >= deadline:
            raise SiloError(
                f"the actor {actor_name!r} of another process does not end", "end it, or restart the cluster"
            )
        await asyncio.sleep(0.1)


async def _started(actor: Any, name: str) -> None:
    """Wait until the actor has read its directory; raises SiloError with what stopped it."""
    import ray

    deadline = asyncio.get_running_loop().time() + START_S
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                problem = await actor.problem.remote()
            break
        except ray.exceptions.RayActorError as err:  # it is being started anew
            if asyncio.get_running_loop().time() >= deadline:
                raise SiloError(f"the actor of {name!r} stopped", "see silo.log beside its policy") from err
            await asyncio.sleep(0.2)
        except TimeoutError as err:
            raise SiloError(f"{name!r} did not start within {START_S:g} s", "see silo.log beside its policy") from err
    if problem is not None:
        raise SiloError(*problem)
