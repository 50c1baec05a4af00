"""Start, connect to and leave a Ray cluster, for silos, aggregators and simulated federations.

Promises, for a cluster that is started here: only its owner can read its directory. It has no dashboard. Who connects
needs the token of its environment. At the end of the block it ends, and its directory is removed. If it does not start,
the error quotes what Ray logged, and says where that is kept.
Assumes: `adopt` is called before any other use of Ray, as Ray reads its environment when it is first imported. So this
module imports Ray only when a cluster is needed. `federation.operations.cluster` makes the environments.
"""

import atexit
import importlib
import ipaddress
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import structlog

from federation.errors import ClusterDiedError, FederationError
from federation.operations.load import patience, waited
from federation.operations.private import closed_to_others
from federation.operations.ray_directory import own_directory
from federation.operations.running import tail

NAMESPACE = "consilo"
ATTEMPTS = 2
TAIL_BYTES = 32 << 10
QUOTED = 300
RAY_LOG = "ray.log"  # in a program's directory: the end of Ray's own logs, where the cluster failed
RAY_LOGS = ("raylet", "gcs_server", "dashboard_agent", "runtime_env_agent")
_TELLING = re.compile(r" [EF] |Timed out|Check failed|Error|error:|No space left")
_log = structlog.get_logger("consilo.cluster")
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that a program needs, and the error if it cannot have it."""

    failure: str  # the error message, before the reason
    hint: str  # where Ray has logged nothing
    object_store_bytes: int = 96 << 20  # of a cluster that is started
    address: str | None = None  # of a cluster that runs already; None: start one on this machine
    node_address: str = ""  # of this machine in that cluster
    log: Path | None = None  # where the end of Ray's own logs is kept if it fails


def adopt(environment: Mapping[str, str], forgotten: Iterable[str]) -> None:
    """Set Ray's environment, here and in processes started from here, and remove the variables that are `forgotten`.

    Ray reads its settings at its first import and keeps the first token. A process that has imported Ray, or has opened
    another federation, must make Ray read them again; there is no public call for that. Raises FederationError while
    this process is connected to a cluster.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        raise FederationError("this process is connected to a Ray cluster already", "close the other federation first")
    for name in forgotten:
        os.environ.pop(name, None)
    os.environ.update(environment)
    from ray._private import ray_constants

    raylet: Any = importlib.import_module("ray._raylet")
    ray_constants.ENABLE_RAY_CLUSTER = environment.get(_LOOPBACK) != "0"  # False: Ray listens on loopback only
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def ray_variables() -> list[str]:
    """Return the names of all of Ray's settings in this process's environment."""
    return [name for name in os.environ if name.startswith("RAY_")]


def interrupt_on_sigterm() -> None:
    """Make SIGTERM raise KeyboardInterrupt, also while Ray starts, so that its processes end too."""
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def connected(cluster: Cluster) -> Iterator[str]:
    """Start a cluster, or connect to one that runs, until the block ends; yield its address.

    Raises FederationError if that fails.
    """
    with ExitStack() as undo:
        if cluster.address is None:
            address = _started(cluster, undo)
        else:
            undo.callback(_leave)
            try:
                with _own_sigterm():
                    attach(cluster.address, cluster.node_address)
            except Exception as err:
                raise FederationError(f"{cluster.failure}: {_reason(err)}", cluster.hint) from err
            address = cluster.address
        yield address


def dead_processes() -> list[str]:
    """Return the processes of the cluster that this process started which have ended, such as `raylet`."""
    node = _node()
    return [] if node is None else sorted({str(kind) for kind, _ in node.dead_processes()})


def attach(address: str, node_address: str = "") -> None:
    """Connect this process to a cluster that runs, for the rest of its life; raises what Ray raises."""
    # Without this node's address Ray guesses one, and may mistake another node for this one.
    _init(address=address, _node_ip_address=node_address or None)


def is_on_this_machine(address: str) -> bool:
    """Tell whether HOST:PORT is a loopback address or localhost, which every resolver places on this machine."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _started(cluster: Cluster, undo: ExitStack) -> str:
    """Start a cluster, and once more if this machine was so loaded that Ray gave up; return its address."""
    for attempt in range(ATTEMPTS):
        with ExitStack() as tried:
            temporary = own_directory(tried)
            tried.callback(_leave)
            began = time.monotonic()
            try:
                with _own_sigterm(), closed_to_others():
                    context = _init(
                        address="local",
                        num_cpus=2,
                        include_dashboard=False,
                        object_store_memory=cluster.object_store_bytes,
                        _temp_dir=temporary,
                    )
            except Exception as err:
                reason, told = _reason(err), keep_log(Path(temporary), cluster.log)
                _log.warning("cluster_not_started", attempt=attempt + 1, reason=reason, ray=told)
                if attempt + 1 < ATTEMPTS and patience() > 1:
                    continue
                message = f"{cluster.failure} after {waited(time.monotonic() - began)}: {reason}"
                raise FederationError(message, _hint(told, cluster.log, cluster.hint)) from err
            undo.push(tried.pop_all())
            return str(context.address_info["address"])
    raise AssertionError


def keep_log(temporary: Path, kept: Path | None) -> str:
    """Keep the end of Ray's logs in a directory of its own in one file, and return their most telling line."""
    parts: list[str] = []
    worst = last = ""
    with suppress(OSError):
        for file in sorted((temporary / "session_latest" / "logs").glob("*")):
            if not file.name.startswith(RAY_LOGS) or not file.is_file():
                continue
            text = tail(file, TAIL_BYTES)
            lines = [line for line in text.splitlines() if line.strip() and "[state-dump]" not in line]
            last = lines[-1] if lines else last
            worst = next((line for line in reversed(lines) if _TELLING.search(line)), worst)
            parts.append(f"==== {file.name}\n{text}\n")
    if kept is not None and parts:
        with suppress(OSError), os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write("".join(parts))
    return (worst or last)[:QUOTED]


def end_at_once(code: int) -> NoReturn:
    """End this process whose cluster has died: what Ray and others do at exit would fail, or wait."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def died(whose: str, reason: str, log: Path) -> ClusterDiedError:
    """Return the error of a cluster that has died; the end of Ray's logs is kept in `log`."""
    session = session_directory()
    told = "" if session is None else keep_log(session, log)
    return ClusterDiedError(f"{whose}'s Ray cluster has died: {reason}", _hint(told, log, "start it again"))


def session_directory() -> Path | None:
    """Return where the cluster that this process is connected to keeps its files."""
    node = _node()
    return None if node is None else Path(str(node.get_session_dir_path())).parent


def _node() -> Any:
    """Return the node of Ray that this process started, or is connected to; None if there is none."""
    worker: Any = importlib.import_module("ray._private.worker")
    return worker.global_worker.node


def _hint(told: str, log: Path | None, otherwise: str) -> str:
    if not told:
        return otherwise
    return f"Ray said: {told!r}" + (f"; more is in {log}" if log is not None else "")


def _reason(err: Exception) -> str:
    """Return the first line of an error, with its kind if that says anything."""
    text = next((line.strip() for line in str(err).splitlines() if line.strip()), "no reason was given")[:QUOTED]
    return text if type(err) in (Exception, RuntimeError) else f"{type(err).__name__}: {text}"


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this program's handler of SIGTERM, if it has one, as Ray sets its own when it starts."""
    is_ours = signal.getsignal(signal.SIGTERM) is _interrupt
    try:
        yield
    except SystemExit:
        if is_ours:  # a SIGTERM meanwhile, by Ray's handler
            raise KeyboardInterrupt from None
        raise
    finally:
        if is_ours:
            interrupt_on_sigterm()


def _init(**options: Any) -> Any:
    import ray
    from ray.job_config import JobConfig

    class OnlyInstalled(JobConfig):
        """Ray would let every worker import from the current directory of the process that starts it."""

        def _serialize(self) -> Any:
            self._py_driver_sys_path.clear()
            return super()._serialize()

    return ray.init(
        namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, job_config=OnlyInstalled(), **options
    )


def _leave() -> None:
    import ray

    if dead_processes():  # then Ray's own way to leave ends this process at once, before it has said why
        worker: Any = importlib.import_module("ray._private.worker")
        atexit.unregister(worker.shutdown)
        with suppress(Exception):
            _node().kill_all_processes(check_alive=False, allow_graceful=False)
        return
    with suppress(Exception):
        ray.shutdown()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
