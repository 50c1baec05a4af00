"""Networks computed in a confined process of their own, which is kept warm from one round to the next.

The worker of a silo starts it, hands it rows and state through a pipe, and gets numbers of exactly the length that the
request says. It has the limits of [training.networks]; one that exceeds them, or fails, is ended and replaced.
Promise: an error of it says which limit it was, and nothing else that depends on rows.
"""

import json
import threading
import time
from contextlib import suppress

from crypto.backends.sandbox import Job, Limits, Sandbox
from crypto.errors import CryptoError
from policies.document.networks import Networks
from policies.document.policy import Policy
from silo_node.errors import NetworkError
from silo_node.training.confined import work as works
from silo_node.training.confined.child import COMPUTE, CONFINED, NO_MEMORY
from silo_node.training.confined.work import Done, Work

MODULE = "silo_node.training.confined.child"
START_S = 60.0  # torch's import takes seconds, on a busy machine many
NO_LIMIT_S = 2**31  # of processor time: it computes many rounds, each of which has a limit of its own
_MB = 1_000_000
_WHO = "the network's process at this silo"
_BETWEEN = " // "
FAILED = "this network failed in its process"  # the cause, which may depend on rows, is for the owner's log


class Apart:
    """The process of one silo that computes networks."""

    def __init__(self, policy: Policy, threads: int) -> None:
        """It is started by the first `load` or contribution."""
        training, compute = policy.training, policy.compute
        self._networks = Networks() if training is None or training.networks is None else training.networks
        device = "cpu" if compute is None else compute.device
        self._setup = json.dumps({"device": device, "threads": threads}).encode()
        self._threads, self._contact = threads, policy.silo.contact
        self._turn = threading.Lock()
        self._sandbox: Sandbox | None = None
        self._is_closed = False

    def load(self) -> bool:
        """Start the process if there is none; return whether the kernel's filter stands in it. Raises NetworkError."""
        with self._turn:
            sandbox = self._started()
            try:
                return sandbox.run(Job(_WHO, CONFINED, b"", 1)) == b"\1"
            except CryptoError as err:
                self._end()
                raise NetworkError(f"{_WHO} cannot be started: {err.message}", "see docs/networks.md") from err

    def contribution(self, work: Work, left_s: float) -> Done:
        """Return what comes of a work, within `left_s` and the policy's limit; raises NetworkError."""
        deadline = time.monotonic() + left_s
        with self._turn:
            sandbox = self._started()
            limit_s = min(float(self._networks.max_seconds), deadline - time.monotonic())
            job = Job(_WHO, COMPUTE, works.written(work), works.reply_bytes(work), max(0.0, limit_s))
            began = time.monotonic()
            try:
                return works.received(work, sandbox.run(job))
            except CryptoError as err:
                self._end()
                raise self._explained(err, limit_s, time.monotonic() - began) from err

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._is_closed = True
            self._end()

    def _started(self) -> Sandbox:
        """Return the process, started anew if it has ended; raises NetworkError."""
        if self._sandbox is not None and self._sandbox.has_ended:
            self._end()
        if self._sandbox is None:
            if self._is_closed:
                raise NetworkError(f"{_WHO} was ended", "ask again")
            limits = Limits(self._networks.max_memory_mb * _MB, NO_LIMIT_S, START_S)
            threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self._threads))
            self._sandbox = Sandbox(MODULE, self._setup, limits=limits, environment=threads)
            try:
                self._sandbox.warm()
            except CryptoError as err:
                self._end()
                raise NetworkError(f"{_WHO} cannot be started: {err.message}", "see docs/networks.md") from err
        return self._sandbox

    def _end(self) -> None:
        if self._sandbox is not None:
            with suppress(CryptoError):
                self._sandbox.close()
            self._sandbox = None

    def _explained(self, err: CryptoError, limit_s: float, took_s: float) -> NetworkError:
        """Return which limit a work exceeded, by what became of the process."""
        told, networks = err.message, self._networks
        memory = f"training.networks.max_memory_mb = {networks.max_memory_mb}"
        if NO_MEMORY in told:
            return self._beyond(f"needs more memory than {memory} gives it", "smaller batches")
        if "no answer within" in told or took_s >= limit_s:
            given = f"training.networks.max_seconds = {networks.max_seconds} gives"
            if limit_s < networks.max_seconds:
                given = "[compute] and the request's deadline give"
            return self._beyond(f"takes longer than {given} it", "fewer epochs")
        if "ended with status" in told:
            return self._beyond(f"was ended by the system, most often as {memory} is too little", "smaller batches")
        return NetworkError(FAILED, f"ask {self._contact}, whose silo.log says why", told)

    def _beyond(self, what: str, less: str) -> NetworkError:
        remedy = f"take {less} or a smaller network, or ask {self._contact} for more"
        return NetworkError(f"a round of this network {what}", remedy)


class ToldError(Exception):
    """A `NetworkError` as one text, as it leaves the worker."""


def told(err: NetworkError) -> ToldError:
    """Return an error as it leaves the worker, which sends one text."""
    return ToldError(_BETWEEN.join((err.message, err.hint, err.cause)))


def heard(text: str) -> NetworkError | None:
    """Return the error that a worker has told; None for what it says of anything else."""
    _, mark, said = text.partition(f"{ToldError.__name__}: ")
    message, _, rest = said.partition(_BETWEEN)
    hint, _, cause = rest.partition(_BETWEEN)
    return NetworkError(message, hint, cause) if mark else None
