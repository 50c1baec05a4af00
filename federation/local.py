"""Simulate mode: one local Ray cluster in which every silo is an actor. One operator, one trust domain.

Two ways to run it with the same code: inside the calling process until that ends (`started`), or in a background
process (`up`) until `consilo down` ends that. The cluster listens on loopback only and requires a token. The programs
that create the actors are started by name, as this package imports no role.
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
from federation.files import replace_file
from federation.operations.cluster import RAY_TOKEN, cluster_environment
from federation.operations.load import MAX_PATIENCE, patience, waited
from federation.operations.private import close_to_others, why_code_is_anywhere, why_open
from federation.operations.ray_cluster import NAMESPACE, Cluster, adopt, connected, interrupt_on_sigterm
from federation.operations.running import read_object

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
_OWN = Cluster("the local Ray cluster did not start", "see `consilo doctor`", object_store_bytes=128 << 20)
_KEPT = Cluster("the running federation does not answer", "run `consilo down`, then ask again")
_STATE = ".consilo-up.json"
CALL_TIMEOUT_S = 300.0
_PROBLEM = "consilo-problem: "  # the prefix of messages for people in the background process's output

Progress = Callable[[str], None]


class RayLink:
    """A way to the aggregator's actor: bytes in, bytes out."""

    def __init__(self) -> None:
        self._actor = self._ray().get_actor("aggregator", namespace=NAMESPACE)

    @property
    def settling_s(self) -> float:
        return 0.0  # it ends with its silos

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        return tuple(self._get(self._actor.catalogues.remote(request)))

    def domain(self, request: bytes) -> bytes:
        return bytes(self._get(self._actor.domain.remote(request)))

    def offer(self, offer: bytes, index: bytes, frame: bytes) -> tuple[bytes, ...]:
        return tuple(self._get(self._actor.offer.remote(offer, index, frame)))

    def submit(self, request: bytes, more_s: float = 0.0) -> bytes:
        return bytes(self._get(self._actor.submit.remote(request), CALL_TIMEOUT_S + more_s))

    def deliver_report(self, name: bytes, more_s: float = 0.0) -> tuple[bytes, ...]:
        return tuple(self._get(self._actor.deliver_report.remote(name), CALL_TIMEOUT_S + more_s))

    def stop_run(self, stopped: bytes) -> tuple[bytes, ...]:
        return tuple(self._get(self._actor.stop_run.remote(stopped)))

    def report(self, name: bytes) -> bytes:
        return bytes(self._get(self._actor.report.remote(name)))

    def find(self, request_hash: bytes) -> bytes:
        return bytes(self._get(self._actor.find.remote(request_hash)))

    def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        return tuple(self._get(self._actor.evidence.remote(name, index)))

    def _get(self, reference: Any, limit_s: float = CALL_TIMEOUT_S) -> Any:
        ray = self._ray()
        try:
            return ray.get(reference, timeout=limit_s)
        except ray.exceptions.RayTaskError as err:
            # The aggregator's own errors have a message and a hint; this package must not import their classes.
            message, hint = (getattr(err.cause, name, "") for name in ("message", "hint"))
            raise FederationError(message or "the aggregator could not do that", hint) from err
        except ray.exceptions.GetTimeoutError as err:
            raise FederationError(f"the aggregator did not answer within {limit_s:g} s", "try again") from err
        except ray.exceptions.RayError as err:
            hint = "run `consilo down` and `consilo up`, or ask again"
            raise FederationError("the aggregator stopped", hint) from err

    @staticmethod
    def _ray() -> Any:
        import ray  # slow to import: only when a cluster is needed

        return ray


@contextlib.contextmanager
def started(config: Config, progress: Progress = lambda _: None) -> Iterator[RayLink]:
    """Connect to the federation that `consilo up` runs, or run one until the block ends. Raises FederationError."""
    for why in (why_code_is_anywhere(), *map(why_open, homes_of(config))):
        if why is not None:
            raise FederationError(*why)
    _adopt(config)
    address = _running(config)
    if address is not None:
        with connected(replace(_KEPT, address=address)):
            yield RayLink()
        return
    with contextlib.ExitStack() as cluster:
        with _launchers(config) as launchers:
            progress("starting a local Ray cluster")
            address = cluster.enter_context(connected(_OWN))
            progress(f"starting {len(config.policies)} silos and the aggregator as Ray actors")
            for process in launchers:
                _await_ready(process, address)
        yield RayLink()


def up(config: Config) -> int:
    """Start the federation in a background process and return its process id; raises FederationError."""
    _refuse_federated(config)
    if _running(config) is not None:
        raise FederationError("the federation is up already", "stop it with `consilo down`")
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", "federation.local", str(config.path)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(process.terminate)  # if it does not come up, or the wait is interrupted
            _await_up(config, process, errors)
            undo.pop_all()
    return process.pid


def _await_up(config: Config, process: "subprocess.Popen[bytes]", errors: IO[str]) -> None:
    most_s = START_TIMEOUT_S * patience()
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        if _running(config) is not None:
            return
        if process.poll() is not None:
            errors.seek(0)
            problem = errors.read().rpartition(_PROBLEM)[2].strip().splitlines() or ["it stopped while starting"]
            raise FederationError(problem[0], problem[1] if len(problem) > 1 else "see `consilo doctor`")
        time.sleep(0.1)
    raise FederationError(f"the federation was not up within {waited(most_s)}", "try again")


def down(config: Config) -> bool:
    """Stop the federation that `up` started; False if none is up. Raises FederationError if it does not stop."""
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


def homes_of(config: Config) -> list[Path]:
    """Return the directories of the silos and of the aggregator."""
    return [*(path.parent for path in config.policies.values()), config.aggregator]


def _refuse_federated(config: Config) -> None:
    if config.anchor is not None:
        hint = "its silos and aggregator are served by their organisations: see docs/federated.md"
        raise FederationError(f"{config.federation} is a federation between organisations", hint)


def _adopt(config: Config) -> None:
    """Set Ray's token and loopback for this federation; other settings of the calling program stay."""
    token = config.path.parent / RAY_TOKEN
    if not token.is_file():
        raise FederationError(f"{token} is missing", "restore it, or found the federation anew")
    adopt(cluster_environment(token) | {"GRPC_VERBOSITY": "ERROR"}, ("RAY_ADDRESS", "RAY_AUTH_TOKEN"))


@contextlib.contextmanager
def _launchers(config: Config) -> Iterator[list["subprocess.Popen[str]"]]:
    """Start the two programs that create the actors; they import while the cluster starts."""
    commands = [
        [sys.executable, "-P", "-m", "aggregator", "simulate", str(config.aggregator)],
        [sys.executable, "-P", "-m", "silo_node", "simulate", *(str(path) for path in config.policies.values())],
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
    most_s = START_TIMEOUT_S * MAX_PATIENCE  # longer than the process waits for its actors
    try:
        output, _ = process.communicate(address + "\n", timeout=most_s)
    except subprocess.TimeoutExpired as err:
        raise FederationError(f"an actor did not start within {waited(most_s)}", "try again") from err
    reports = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    problems = [report for report in reports if "error" in report]
    if problems:
        whos = (f"silo {one['silo']!r}" if "silo" in one else "the aggregator" for one in problems)
        listing = (f"{who} did not start: {one['error']}" for who, one in zip(whos, problems, strict=True))
        raise FederationError("; ".join(listing), problems[0].get("hint", ""))
    if process.returncode or not reports:
        raise FederationError("an actor did not start", "see silo.log beside the silo's policy")


def _state(config: Config) -> dict[str, Any] | None:
    """Return the state that the background process wrote, if that process still runs."""
    state = read_object(config.path.parent / _STATE)
    is_whole = isinstance(state.get("pid"), int) and "address" in state
    return state if is_whole and _is_ours(state["pid"], config) else None


def _is_ours(pid: int, config: Config) -> bool:
    """Tell whether the process runs this federation; its id alone could belong to any process."""
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
            note = {"pid": os.getpid(), "address": ray.get_runtime_context().gcs_address}
            replace_file(state, json.dumps(note).encode(), 0o600)
            while True:
                signal.pause()
    finally:
        state.unlink(missing_ok=True)


if __name__ == "__main__":
    close_to_others()
    try:
        _keep(read_config(Path(sys.argv[1])))
    except (FederationError, CryptoError) as error:
        sys.exit(f"{_PROBLEM}{error.message}\n{error.hint}")
    except KeyboardInterrupt:
        sys.exit(0)
