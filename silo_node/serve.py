"""Run a silo in its own organisation: its own Ray cluster, its actor there, and a stream to each aggregator.

Only Ray and the monitor listen, both on loopback. The actor is restartable and named; this process supervises it, keeps
the streams, and on a request to stop ends after the open rounds.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from crypto.errors import CryptoError
from federation.members.certificates import days_left, utc_now
from federation.members.credentials import Credentials
from federation.operations import ray_directory
from federation.operations.background import keep_short
from federation.operations.checks import Finding
from federation.operations.cluster import RAY_TOKEN, cluster_environment, ensure_token, nodes_environment
from federation.operations.load import patience, waited
from federation.operations.monitoring import SiloCounts, configure_logs, serve_monitor, serve_probes
from federation.operations.ray_cluster import (
    RAY_LOG,
    Cluster,
    adopt,
    connected,
    dead_processes,
    died,
    interrupt_on_sigterm,
    is_on_this_machine,
    ray_variables,
)
from federation.operations.running import forget_running, full_disks, note_running
from federation.transport.calls import CallFailedError
from policies.decision.computing import longest_seconds
from policies.decision.sending import learned_bytes
from policies.document.load import load
from policies.errors import LedgerError, LedgerFullError, PolicyError
from policies.units import MAX_BUSY_S, MAX_SEND_S, MAX_WAIT_S, when
from silo_node.actor import STEPS, LaunchedSilo, owner_log
from silo_node.doctor import examine
from silo_node.errors import SiloError
from silo_node.home import lock_serving, read_credentials
from silo_node.ledger.checkpoints import NoCheckpointError, OlderLineError, UnreachableError
from silo_node.ledger.events import Excused
from silo_node.transport.checkpoint_relay import DeferredKeeper, Guarding, Objection
from silo_node.transport.streams import Streams

START_S = 90.0
CLEAR_S = 15.0
STEP_S = 40.0  # without the computing
DRAIN_S = 30.0  # without the computing
MONITOR_EVERY_S = 60.0
WATCH_EVERY_S = 10.0
REACH_S = 20.0  # several servers may be silent, for REACH_TIMEOUT_S each
DEAD_S = 60.0  # an actor that Ray cannot start anew within this is dead, on an idle machine
LOGS = "see silo.log beside its policy"
_log = structlog.get_logger("consilo.silo")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `consilo-silo serve`."""

    policy: Path
    monitor_port: int
    ray_address: str | None = None  # of the organisation's own cluster; None: start one on this machine
    ray_tls: Path | None = None  # node.key, node.pem and ca.pem, where the cluster has several nodes
    node_address: str = ""  # of this machine in that cluster
    probes: str | None = None  # HOST:PORT for /live, /ready and /metrics, beside loopback


class FederatedSilo(LaunchedSilo):
    """A silo in a trust domain of its own; `CheckpointRelay` sends its checkpoints to the aggregators."""

    IS_ONE_TRUST_DOMAIN = False

    def __init__(
        self,
        policy_path: str,
        sleep: Callable[[float], None] = time.sleep,
        silos: int | None = None,
        is_spread: bool = False,
    ) -> None:
        super().__init__(policy_path, sleep, lambda _: DeferredKeeper(), silos, is_spread)

    def guarding(self) -> Guarding:
        """Return what the aggregators have said of the ledger's checkpoints, and what they still must."""
        checkpoint = self._ledger.checkpoint() or b""
        return Guarding(
            aggregators=tuple(self._guards.of),
            uncompared=self._guards.uncompared,
            missing_answers=self._guards.missing_answers,
            most_away=self._guards.most_away,
            checkpoint=checkpoint,
            lagging=self._guards.lagging(checkpoint),
        )

    def check_reply(self, aggregator: str, kept: bytes, put: bytes) -> Objection | None:
        """Compare the ledger with an aggregator's checkpoint, in its answer to the checkpoint `put`."""
        try:
            self._guards.of[aggregator].check_reply(kept, put)
        except LedgerError as err:
            self._log.error("checkpoint kept by %s: %.500s", aggregator, err)
            is_final, keeps_none = not isinstance(err, UnreachableError), isinstance(err, NoCheckpointError)
            return self._recovered(
                Objection(err.message, err.hint, is_final, keeps_none, isinstance(err, OlderLineError))
            )
        return None

    def _recovered(self, objection: Objection) -> Objection:
        """Let a ledger that was put back go on if it can; return why it still must not be used."""
        try:
            if self._guards.recover():
                self._log.warning("the ledger was put back and goes on: see `consilo-silo log`")
        except LedgerError as err:
            self._log.error("the ledger that was put back cannot go on: %.500s", err)
            return Objection(err.message, err.hint, not isinstance(err, LedgerFullError))
        return objection

    def unreachable(self) -> tuple[str, ...]:
        """Return which sources cannot be read now."""
        return tuple(self._data.unreachable())

    def begin_charge(self, round_id: bytes, data: bytes, *entries: bytes) -> bytes:
        """Begin the charge of a `ready` step; return the checkpoint that aggregators must keep before it is taken.

        It is empty if the step fails: then `ready` says why.
        """
        try:
            return self._begin_charge(round_id, (data, *entries))[1]
        except (CryptoError, PolicyError, SiloError):
            return b""

    def joined(self, aggregators: Sequence[str]) -> None:
        """Excuse aggregators that join for keeping no checkpoint yet, while this ledger is known to be the newest."""
        if not self._guards.missing_answers:
            self._ledger.record(*(Excused(aggregator=name, by="membership") for name in aggregators))


def serve(options: Options, ready: Callable[[str], None]) -> None:
    """Run until a signal ends it; raises SiloError, PolicyError, FederationError or CryptoError if it cannot start."""
    findings = examine(options.policy)
    for one in findings:
        if one.state == "FAIL":
            raise SiloError(f"{one.what}: {one.found}", one.remedy)
    home, name = options.policy.resolve().parent, load(options.policy).policy.silo.id
    with lock_serving(home):
        _note_rows(home, name, findings)
        credentials = read_credentials(home, name)
        configure_logs()
        interrupt_on_sigterm()
        adopt(_environment(options, home), ray_variables())
        with connected(_cluster(options)):
            asyncio.run(_run(options, credentials, name, ready))


def _note_rows(home: Path, name: str, findings: Sequence[Finding]) -> None:
    """Write what the silo reads of its rows into its owner's log, before its actor writes there."""
    log = owner_log(home / "silo.log", name)
    for one in findings:
        if one.what.startswith(("rows of ", "decisions")):
            log.info("%s: %s", one.what, one.found)
    for handler in tuple(log.handlers):
        log.removeHandler(handler)
        handler.close()


def _environment(options: Options, home: Path) -> dict[str, str]:
    """Return Ray's settings for the chosen cluster, after making its token; raises SiloError or CryptoError."""
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
        "the Ray cluster does not take this silo" if options.ray_address else "the silo's Ray cluster did not start",
        "compare ray.token with the cluster's" if options.ray_address else "see `consilo-silo doctor`",
        address=options.ray_address,
        node_address=options.node_address,
        log=options.policy.resolve().parent / RAY_LOG,
    )


async def _run(options: Options, credentials: Credentials, name: str, ready: Callable[[str], None]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(FederatedSilo)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # the directory is here
    await _cleared(f"silo/{name}")
    chosen = {
        "name": f"silo/{name}",
        "lifetime": "detached",
        "scheduling_strategy": here,
        "max_concurrency": STEPS,
    }
    is_spread = options.ray_address is not None  # the organisation's own cluster is there to be used
    actor = remote.options(**chosen).remote(str(options.policy.resolve()), silos=1, is_spread=is_spread)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        if await _until_either(_started(actor, name), stopping):
            await _attend(actor, options, credentials, name, ready, stopping)
    finally:
        with suppress(Exception):  # its cluster may be dead
            ray.kill(actor)  # it is detached, and would outlive this process in a shared cluster
        _log.info("stopped", silo=name)
    ready(f"{name} has stopped")


async def _until_either(waiting: Coroutine[Any, Any, None], stopping: asyncio.Event) -> bool:
    """Await something; return False if this program was told to stop before."""
    task, told = asyncio.ensure_future(waiting), asyncio.ensure_future(stopping.wait())
    await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not task.done():
        task.cancel()
        return False
    task.result()
    return True


async def _attend(
    actor: Any,
    options: Options,
    credentials: Credentials,
    name: str,
    ready: Callable[[str], None],
    stopping: asyncio.Event,
) -> None:
    """Keep the streams of an actor until a signal; raises SiloError if its ledger must not be used."""
    import ray

    policy = load(options.policy).policy
    counts, longest_s = SiloCounts(), longest_seconds(policy)
    home = options.policy.resolve().parent

    async def at_the_actor(step: str, *arguments: object) -> Any:
        method = getattr(actor, step, None)
        if method is None:
            raise CallFailedError(f"a silo has no step {step!r}")
        async with asyncio.timeout(step_seconds(step, longest_s)):
            return await method.remote(*arguments)

    async def restart() -> None:
        nonlocal longest_s
        ray.kill(actor, no_restart=False)
        await _started(actor, name)
        longest_s = longest_seconds(load(options.policy).policy)

    async with AsyncExitStack() as ending:
        watch = Watch(home, at_the_actor)

        def health() -> tuple[bool, dict[str, object]]:
            shown = {"silo": name, "connected": streams.connected, "compared": streams.is_compared}
            shown |= {"membership": len(credentials.log), "problem": "; ".join(watch.problems)}
            is_linked = streams.is_compared and any(streams.connected.values())
            return is_linked and not watch.problems and not stopping.is_set(), shown

        def status() -> dict[str, object]:
            return {
                "since": watch.since,
                "connected": streams.connected_since,
                "problems": watch.problems + streams.problems,
            }

        monitor = await serve_monitor(options.monitor_port, counts.registry, health, status=status)
        ending.push_async_callback(monitor.stop)
        if options.probes is not None:
            ending.push_async_callback((await serve_probes(options.probes, counts.registry, health)).stop)
        learned = learned_bytes(policy)
        streams = Streams(credentials, at_the_actor, restart, counts, computing_s=longest_s, learned_bytes=learned)
        counts.ready.set_function(lambda: health()[0])
        ending.push_async_callback(streams.close)
        refused = streams.relay.refused
        refused.add_done_callback(lambda _: stopping.set())
        note_running(home, monitor.address[1])
        ending.callback(forget_running, home)
        ready(f"{name} is served; health and metrics on 127.0.0.1:{monitor.address[1]}")
        looked_at = float("-inf")
        while not stopping.is_set():
            if (now := asyncio.get_running_loop().time()) - looked_at >= MONITOR_EVERY_S:
                looked_at = now
                await _look(credentials, counts, streams)
            await watch.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_EVERY_S):
                    await stopping.wait()
        _log.info("stopping", silo=name)
        await streams.drain(drain_seconds(longest_s))
    if refused.done():
        raise SiloError(refused.result().message, refused.result().hint)


async def _look(credentials: Credentials, counts: SiloCounts, streams: Streams) -> None:
    """Apply what is new in the silo's directory."""
    counts.membership.set(len(credentials.log))
    try:
        counts.certificate_days.set(days_left(credentials.certificate(), utc_now()))
        credentials.refresh()  # the owner may have installed a newer log that an aggregator withholds
        await streams.renewed()
    except (CryptoError, SiloError, OSError) as err:  # a file is being replaced, or wrong: streams continue
        _log.error("directory_refused", reason=str(err)[:300])


class Watch:
    """What is wrong with a silo's disks, sources and cluster, looked at again and again. No row is read."""

    def __init__(self, home: Path, actor: Callable[..., Awaitable[Any]], clock: Callable[[], float] = time.monotonic):
        self._home, self._actor, self._clock = home, actor, clock
        self._silent_since: float | None = None
        self.since = when(int(time.time()))
        self.problems: list[str] = []

    async def look(self) -> None:
        """Look once; raises ClusterDiedError, so that whoever started this program starts it again."""
        keep_short(self._home)
        if dead := dead_processes():
            raise died("the silo", f"{', '.join(dead)} ended", self._home / RAY_LOG)
        problems = full_disks({"home": self._home, "tmp": ray_directory.place()})
        try:
            async with asyncio.timeout(REACH_S):
                problems += await self._actor("unreachable")
            self._silent_since = None
        except TimeoutError:
            self._silent_since = None  # every turn of the actor is taken, so it lives
        except Exception as err:  # Ray starts it anew, if it can
            now = self._clock()
            self._silent_since = now if self._silent_since is None else self._silent_since
            if now - self._silent_since > DEAD_S * patience():
                reason = f"the actor has not answered for {waited(now - self._silent_since)}"
                raise died("the silo", reason, self._home / RAY_LOG) from err
            problems.append(f"the silo's actor does not answer ({type(err).__name__})")
        for one in problems:
            if one not in self.problems:
                _log.error("problem", reason=one[:500])
        self.problems = problems


def step_seconds(step: str, longest_s: int) -> float:
    """Return how long a step may take here: longer than any aggregator waits for it, whose computing may take so long.

    A contribution also waits for its turn to be computed, and is charged before. A long sum is learned for as long as
    it may take to arrive.
    """
    more_s = {"contribute": MAX_BUSY_S, "learn": MAX_SEND_S}
    return STEP_S + longest_s + more_s.get(step, 0)


def drain_seconds(longest_s: int) -> float:
    """Return how long a silo that stops waits for the rounds it is in, whose computing may take `longest_s`."""
    return min(float(MAX_WAIT_S), DRAIN_S + longest_s)


async def _cleared(actor_name: str) -> None:
    """End an actor that a killed process left in the cluster with its old policy; raises SiloError."""
    import ray

    deadline = asyncio.get_running_loop().time() + CLEAR_S
    while True:
        try:
            ray.kill(ray.get_actor(actor_name))
        except ValueError:
            return  # there is no such actor
        if asyncio.get_running_loop().time() >= deadline:
            raise SiloError(
                f"the actor {actor_name!r} of another process does not end", "end it, or restart the cluster"
            )
        await asyncio.sleep(0.1)


async def _started(actor: Any, name: str) -> None:
    """Wait until the actor has read its directory; raises SiloError with the reason if it cannot."""
    import ray

    most_s = START_S * patience()
    deadline = asyncio.get_running_loop().time() + most_s
    _log.info("starting", silo=name, at_most=waited(most_s))
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                problem = await actor.problem.remote()
            break
        except ray.exceptions.RayActorError as err:  # it is restarting
            if asyncio.get_running_loop().time() >= deadline:
                raise SiloError(f"the actor of {name!r} stopped ({str(err).splitlines()[0][:200]})", LOGS) from err
            await asyncio.sleep(0.2)
        except TimeoutError as err:
            raise SiloError(f"{name!r} did not start within {waited(most_s)}", LOGS) from err
    if problem is not None:
        raise SiloError(*problem)
