"""Simulate mode: one local Ray cluster in which every silo is an actor. One operator, one trust domain.

Two ways to run it with the same code: inside the calling process (`started`), gone when it ends, or kept by a
background process (`up`), which `consilo down` ends. The cluster listens on loopback only and demands a token. The
programs that make the actors are started by their names: this package imports no role.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from crypto.errors import CryptoError
from federation.config import Config, read_config
from federation.errors import FederationError
from federation.operations.cluster import RAY_TOKEN, cluster_environment
from federation.operations.ray_cluster import NAMESPACE, Cluster, adopt, connected, interrupt_on_sigterm

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
_OWN = Cluster("the local Ray cluster did not start ({kind})", "see `consilo doctor`", object_store_bytes=128 << 20)
_KEPT = Cluster("the running federation does not answer", "run `consilo down`, then ask again")
_STATE = ".consilo-up.json"
_PROBLEM = "consilo-problem: "  # what stands after it in the background process's output is for people

Progress = Callable[[str], None]


class Link:
    """A way to the aggregator's actor: bytes in, bytes out."""

    def __init__(self, timeout_s: float = 300.0) -> None:
        self._timeout_s = timeout_s
        self._actor = self._ray().get_actor("aggregator", namespace=NAMESPACE)

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        return tuple(self._get(self._actor.catalogues.remote(request)))

    def submit(self, request: bytes) -> bytes:
        return bytes(self._get(self._actor.submit.remote(request)))

    def teach(self, name: bytes) -> tuple[bytes, ...]:
        return tuple(self._get(self._actor.teach.remote(name)))

    def report(self, name: bytes) -> bytes:
        return bytes(self._get(self._actor.report.remote(name)))

    def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        return tuple(self._get(self._actor.evidence.remote(name, index)))

    def _get(self, reference: Any) -> Any:
        ray = self._ray()
        try:
            return ray.get(reference, timeout=self._timeout_s)
        except ray.exceptions.RayTaskError as err:
            # The aggregator's own errors carry a message and a hint; its package is none of ours to import.
            message, hint = (getattr(err.cause, name, "") for name in ("message", "hint"))
            raise FederationError(message or "the aggregator could not do that", hint) from err
        except ray.exceptions.GetTimeoutError as err:
            raise FederationError(f"the aggregator did not answer within {self._timeout_s:g} s", "try again") from err
        except ray.exceptions.RayError as err:
            hint = "run `consilo down` and `consilo up`, or ask again"
            raise FederationError("the aggregator stopped", hint) from err

    @staticmethod
    def _ray() -> Any:
        import ray  # heavy: only once a cluster is wanted

        return ray


@contextlib.contextmanager
def started(config: Config, progress: Progress = lambda _: None) -> Iterator[Link]:
    """Attach to the federation that `consilo up` keeps, or run one until the block ends. Raises FederationError."""
    _adopt(config)
    address = _running(config)
    if address is not None:
        with connected(replace(_KEPT, address=address)):
            yield Link()
        return
    with contextlib.ExitStack() as cluster:
        with _launchers(config) as launchers:
            progress("starting a local Ray cluster")
            address = cluster.enter_context(connected(_OWN))
            progress(f"starting {len(config.policies)} silos and the aggregator as Ray actors")
            for process in launchers:
                _await_ready(process, address)
        yield Link()


def up(config: Config) -> int:
    """Start the federation in a background process and return its process id; raises FederationError."""
    _refuse_federated(config)
    if _running(config) is not None:
        raise FederationError("the federation is up already", "stop it with `consilo down`")
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "federation.local", str(config.path)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(process.terminate)  # unless it comes up, also when the wait is interrupted
            _await_up(config, process, errors)
            undo.pop_all()
    return process.pid


def _await_up(config: Config, process: "subprocess.Popen[bytes]", errors: IO[str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if _running(config) is not None:
            return
        if process.poll() is not None:
            errors.seek(0)
            problem = errors.read().rpartition(_PROBLEM)[2].strip().splitlines() or ["it stopped while starting"]
            raise FederationError(problem[0], problem[1] if len(problem) > 1 else "see `consilo doctor`")
        time.sleep(0.1)
    raise FederationError(f"the federation was not up within {START_TIMEOUT_S:g} s", "try again")


def down(config: Config) -> bool:
    """Stop the federation that `up` keeps; False if none is up. Raises FederationError if it does not stop."""
    state = _state(config)
    if state is None:
        return False
    os.kill(state["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if not _is_ours(state["pid"], config):
            return True
        time.sleep(0.1)
    raise FederationError(f"process {state['pid']} did not stop within {STOP_TIMEOUT_S:g} s", "end it by hand")


def is_up(config: Config) -> bool:
    """Tell whether `consilo up` keeps this federation running."""
    return _running(config) is not None


def _refuse_federated(config: Config) -> None:
    if config.anchor is not None:
        hint = "its silos and aggregator are served by their organisations: see docs/federated.md"
        raise FederationError(f"{config.federation} is a federation between organisations", hint)


def _adopt(config: Config) -> None:
    """Set Ray to this federation's token and to loopback; other settings of the calling program stay."""
    token = config.path.parent / RAY_TOKEN
    if not token.is_file():
        raise FederationError(f"{token} is missing", "restore it, or found the federation anew")
    adopt(cluster_environment(token) | {"GRPC_VERBOSITY": "ERROR"}, ("RAY_ADDRESS", "RAY_AUTH_TOKEN"))


@contextlib.contextmanager
def _launchers(config: Config) -> Iterator[list["subprocess.Popen[str]"]]:
    """Start the two programs that create the actors; they import while the cluster starts."""
    commands = [
        [sys.executable, "-m", "aggregator", "simulate", str(config.aggregator)],
        [sys.executable, "-m", "silo_node", "simulate", *(str(path) for path in config.policies.values())],
    ]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait(STOP_TIMEOUT_S)


def _await_ready(process: "subprocess.Popen[str]", address: str) -> None:
    try:
        output, _ = process.communicate(address + "\n", timeout=START_TIMEOUT_S)
    except subprocess.TimeoutExpired as err:
        raise FederationError(f"an actor did not start within {START_TIMEOUT_S:g} s", "try again") from err
    reports = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    problems = [report for report in reports if "error" in report]
    if problems:
        whos = (f"silo {one['silo']!r}" if "silo" in one else "the aggregator" for one in problems)
        listing = (f"{who} did not start: {one['error']}" for who, one in zip(whos, problems, strict=True))
        raise FederationError("; ".join(listing), problems[0].get("hint", ""))
    if process.returncode or not reports:
        raise FederationError("an actor did not start", "see silo.log beside the silo's policy")


def _state(config: Config) -> dict[str, Any] | None:
    """Return what the background process wrote, if that very process still runs."""
    try:
        state: dict[str, Any] = json.loads((config.path.parent / _STATE).read_text())
        return state if _is_ours(state["pid"], config) else None
    except (OSError, ValueError, KeyError):
        return None


def _is_ours(pid: int, config: Config) -> bool:
    """Tell whether the process is one that keeps this very federation: a process id alone may be anybody's."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"federation.local" in command and str(config.path).encode() in command


def _running(config: Config) -> str | None:
    state = _state(config)
    return None if state is None else str(state["address"])


def _keep(config: Config) -> None:
    """Run the federation until a signal ends this process."""
    import ray

    interrupt_on_sigterm()
    state = config.path.parent / _STATE
    try:
        with started(config):
            partial = state.with_suffix(".partial")
            partial.write_text(json.dumps({"pid": os.getpid(), "address": ray.get_runtime_context().gcs_address}))
            partial.replace(state)
            while True:
                signal.pause()
    finally:
        state.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        _keep(read_config(Path(sys.argv[1])))
    except (FederationError, CryptoError) as error:
        sys.exit(f"{_PROBLEM}{error.message}\n{error.hint}")
    except KeyboardInterrupt:
        sys.exit(0)
