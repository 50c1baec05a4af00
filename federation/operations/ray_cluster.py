"""Start, reach and leave a Ray cluster: the one place that does, for silos, aggregators and simulated federations.

Promise: a cluster that is started here has a private directory and no dashboard, demands the token of its environment,
and is gone when the block ends, however it ends. Assumes that `adopt` comes before anything else that needs Ray: Ray
reads its environment when it is first imported, so this module imports it no earlier than a cluster is wanted. The
environments are made by `federation.operations.cluster`.
"""

import importlib
import ipaddress
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from federation.errors import FederationError

NAMESPACE = "consilo"
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster a program wants, and what it says if it does not get it."""

    failure: str  # what the error says; {kind} in it becomes the kind of what went wrong
    hint: str
    object_store_bytes: int = 96 << 20  # of a cluster that is started
    address: str | None = None  # of a cluster that runs already; None: start one on this machine
    node_address: str = ""  # of this machine in that cluster


def adopt(environment: Mapping[str, str], forgotten: Iterable[str]) -> None:
    """Set Ray's environment, here and in processes started from here, and remove the variables that are `forgotten`.

    Ray reads its settings when it is first imported and keeps the first token that it sees. A process that has imported
    it, or has opened another federation, must make it read them again; Ray has no public call for that. Raises
    FederationError while this process is connected to a cluster.
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
    """Have SIGTERM raise KeyboardInterrupt, also while Ray starts: else its processes would be left."""
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def connected(cluster: Cluster) -> Iterator[str]:
    """Start a cluster, or connect to one that runs, until the block ends; yield its address.

    Raises FederationError if that fails.
    """
    with ExitStack() as undo:
        try:
            if cluster.address is None:
                address = _started(cluster.object_store_bytes, undo)
            else:
                undo.callback(_leave)
                attach(cluster.address, cluster.node_address)
                address = cluster.address
        except Exception as err:
            raise FederationError(cluster.failure.format(kind=type(err).__name__), cluster.hint) from err
        yield address


def attach(address: str, node_address: str = "") -> None:
    """Connect this process to a cluster that runs, for the rest of its life; raises what Ray raises."""
    # Without an address of this node Ray guesses one, and takes another node for this one.
    _init(address=address, _node_ip_address=node_address or None)


def is_on_this_machine(address: str) -> bool:
    """Tell whether HOST:PORT is on this machine whoever resolves it: a loopback address, or localhost."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _started(object_store_bytes: int, undo: ExitStack) -> str:
    temporary = tempfile.mkdtemp(prefix="consilo-ray-")  # for its owner only
    undo.callback(shutil.rmtree, temporary, ignore_errors=True)
    undo.callback(_leave)
    context = _init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=object_store_bytes,
        _temp_dir=temporary,
    )
    return str(context.address_info["address"])


def _init(**options: Any) -> Any:
    import ray

    return ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options)


def _leave() -> None:
    import ray

    with suppress(Exception):
        ray.shutdown()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
