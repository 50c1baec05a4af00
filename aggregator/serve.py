"""Run the aggregator of a federation between organisations: `python -m aggregator serve HOME --listen HOST:PORT`.

It listens for silos and analysts on one port, adds in its own Ray cluster, which listens on loopback only, and takes a
newer membership from its directory while it runs. SIGTERM lets the rounds under way end first.
"""

import argparse
import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
import structlog

from aggregator.driver import Server
from aggregator.errors import AggregatorError
from aggregator.gate import Gate
from aggregator.home import read_home
from aggregator.ray_actors import RaySums
from aggregator.store import HeadStore, ReportStore
from aggregator.streams import StreamSilo
from crypto.errors import CryptoError
from crypto.keys import VerifyKey
from federation.members.certificates import Identity, days_left, utc_now
from federation.members.credentials import Credentials, hold
from federation.members.membership import TrustAnchor
from federation.operations.cluster import RAY_TOKEN, cluster_environment, ensure_token
from federation.operations.monitoring import AggregatorCounts, configure_logs, serve_monitor
from federation.transport.address import listened, port

NAMESPACE = "consilo"
DRAIN_S = 120.0
LOOK_EVERY_S = 2.0
OBJECT_STORE_BYTES = 96 << 20
_log = structlog.get_logger("consilo.aggregator")


def read_credentials(home: Path) -> Credentials:
    """Read what the directory holds for its connections; raises AggregatorError or CryptoError."""
    try:
        settings = tomllib.loads((home / "aggregator.toml").read_text())
        name, federation, authority = (str(settings[key]) for key in ("name", "federation", "authority"))
    except (OSError, ValueError, KeyError) as err:
        hint = "name the directory of an aggregator, which `consilo join` has made"
        raise AggregatorError(f"{home / 'aggregator.toml'} cannot be read ({err})", hint) from err
    return Credentials(
        home, TrustAnchor(federation, VerifyKey.parse(authority)), Identity(federation, "aggregator", name)
    )


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal ends it; print one line of error and one of hint if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m aggregator serve")
    parser.add_argument("home", type=Path)
    parser.add_argument("--listen", type=listened, default="0.0.0.0:8443", metavar="HOST:PORT")
    parser.add_argument("--monitor-port", type=port, default=9464, metavar="PORT")
    try:
        options = parser.parse_args(arguments)
        credentials = read_credentials(options.home)
        credentials.membership.peer(credentials.certificate())
        ensure_token(options.home / RAY_TOKEN)
        wanted = cluster_environment(options.home / RAY_TOKEN)
        if any(os.environ.get(name) != value for name, value in wanted.items()):
            # Ray reads its settings when it is first imported, which `python -m aggregator` has done by now.
            kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
            command = [sys.executable, "-m", "aggregator", "serve", *arguments]
            os.execve(sys.executable, command, kept | wanted)  # noqa: S606
        if (lock := hold(options.home / "serve.lock")) is None:
            raise AggregatorError(
                f"{options.home} is served already", "stop the other `consilo aggregator serve` first"
            )
        configure_logs()
        signal.signal(signal.SIGTERM, _leave)  # also while Ray starts: else its processes would be left
        with lock, _cluster():
            asyncio.run(_run(options.home, credentials, options.listen, options.monitor_port))
    except (AggregatorError, CryptoError) as err:
        return _fail(err.message, err.hint)
    except OSError as err:
        return _fail(f"{err.strerror or err}", "is another aggregator running here?")
    except KeyboardInterrupt:
        return _fail("interrupted while starting", "nothing is left running")
    return 0


def _leave(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _cluster() -> Iterator[None]:
    """Run a Ray cluster on loopback until the block ends."""
    temporary = Path(tempfile.mkdtemp(prefix="consilo-ray-"))
    try:
        try:
            ray.init(
                address="local",
                namespace=NAMESPACE,
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(temporary),
            )
        except Exception as err:
            raise AggregatorError(
                f"the aggregator's Ray cluster did not start ({type(err).__name__})", "free disk space in /tmp"
            ) from err
        yield
    finally:
        with suppress(Exception):
            ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


async def _run(home: Path, credentials: Credentials, listen: str, monitor_port: int) -> None:
    counts, stopping, sums, store = (
        AggregatorCounts(),
        asyncio.Event(),
        RaySums(home / "contributions"),
        ReportStore(home / "reports"),
    )

    def server(silos: Mapping[str, StreamSilo]) -> Server:
        """Return the server of a membership, whose silos' keys sign what is kept of their ledgers."""
        aggregator = read_home(home)
        heads = HeadStore(home / "heads", aggregator.federation, aggregator.silos)
        return Server(aggregator, silos, sums, store, heads=heads)

    gate = Gate(credentials, server, counts)
    problem = ""  # of the directory, as it was last read

    def health() -> tuple[bool, dict[str, object]]:
        expected = [member.name for member in credentials.membership.of_role("silo")]
        return not problem and bool(credentials.membership.roster) and not stopping.is_set(), {
            "connected": gate.connected,
            "missing": sorted(set(expected) - set(gate.connected)),
            "membership": gate.version,
            "problem": problem,
        }

    monitor = await serve_monitor(monitor_port, counts.registry, health)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    bound = await gate.start(listen)
    _say(
        f"{credentials.identity.name} listens on {listen.rpartition(':')[0]}:{bound};"
        f" health and metrics on 127.0.0.1:{monitor.address[1]}"
    )
    try:
        while not stopping.is_set():
            try:
                if gate.refresh():
                    _log.info("membership_grown", version=gate.version)
                credentials.membership.peer(credentials.certificate())
                counts.membership.set(len(credentials.log))
                counts.certificate_days.set(days_left(credentials.certificate(), utc_now()))
                problem = ""
            except (CryptoError, AggregatorError, OSError) as err:
                found = str(err)  # a file is being replaced, or wrong: what is known goes on
                if found != problem:
                    _log.error("directory_refused", reason=found[:500])
                problem = found
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await stopping.wait()
        _log.info("stopping")
        await gate.stop(DRAIN_S)
    finally:
        await monitor.stop()
        _log.info("stopped")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _fail(message: str, hint: str) -> int:
    print(f"consilo: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    print(f"consilo: hint: {' '.join(hint.split())}", file=sys.stderr)  # noqa: T201
    return 1
