"""Computing in a process of its own, which is killed when it exceeds its time or its memory, and then replaced.

Promise: where the policy declares times, a request waits for a new process only if two were killed a moment ago, and
no longer than its time; elsewhere, if one was. No computing lasts longer than its limit, and whatever happens in the
process, the silo goes on.
"""

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from operator import mul
from pathlib import Path

import numpy as np

from crypto.backends.sandbox import Job, Limits, Sandbox
from crypto.errors import CryptoError
from policies.decision.computing import limit_seconds, stated_ms
from policies.document.load import PolicyFile
from policies.document.policy import Compute, Policy
from policies.requests.request import Request
from silo_node.data.coded import Bools
from silo_node.data.compute import LoadOwn, is_slow, keeps_of, not_installed
from silo_node.data.figures import Computed, Vectors, read_as
from silo_node.data.loading import FAILED, LOADED, LOADING, UNCONFINED
from silo_node.data.prepared.forgotten import Keeps
from silo_node.data.prepared.reader import REFRESH_S
from silo_node.data.prepared.snapshot import Snapshot
from silo_node.data.prepared.store import FOLDER, Made
from silo_node.data.worker import (
    AHEAD,
    COMPUTE,
    JUDGE,
    LOAD,
    PREPARE,
    REFRESH,
    has_own,
    own_bytes,
    own_from,
    write_kept,
    write_own,
    write_states,
)
from silo_node.errors import NotLoadedError, SiloError, SourceError
from silo_node.ledger.events import KeptInForce
from silo_node.training.confined.apart import heard
from silo_node.training.run import RunState, check_position, runs_of
from silo_node.training.scoring import check_judged
from silo_node.training.split import split_of

MODULE = "silo_node.data.worker"
START_S = 30.0
START_LOADED_S = 60.0  # of a worker that imports before it is ready, as times are declared
LOOK_S = 0.1  # between two looks whether an import is over
LOOK_MOST_S = 10.0  # of one look, as an import may hold the interpreter; past the limit of the wait the worker is ended
KILL_S = 0.02  # to notice in that the time is over
MIN_MEMORY_MB = 512
# A process that computes keeps the memory of arrays for the next ones: to get it anew doubles the processor time.
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
PREPARE_S = 4 * 3600.0
UNFILTERED = (
    "the kernel refuses the filter of system calls for the process that computes networks; its limits stand: "
    "no new files, no new processes (docs/networks.md, section 'What a policy says')"
)


@dataclass(frozen=True, slots=True)
class ComputeLimits:
    """What a process that computes may use; its time follows from each request (`computing.limit_seconds`)."""

    memory_mb: int
    threads: int


def limits_of(policy: Policy, silos: int = 1) -> ComputeLimits:
    """Return what the policy's [compute] says; else a silo's share of the cores and of half the machine's memory.

    `silos` share the machine.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 21
    cores = len(os.sched_getaffinity(0))
    declared = Compute() if policy.compute is None else policy.compute
    return ComputeLimits(
        max(MIN_MEMORY_MB, memory // silos) if declared.memory_mb is None else declared.memory_mb,
        max(1, cores // silos) if declared.threads is None else declared.threads,
    )


class ComputeError(SiloError):
    """A computation exceeded its limits, or failed, in its process."""


class KillableComputer:
    """Computes contributions in a worker that is always warm; the same calls as `silo_node.data.compute.Computer`."""

    def __init__(
        self,
        file: PolicyFile,
        policy_path: Path,
        limits: ComputeLimits,
        load_run: Callable[[bytes], RunState | None],
        kept: Keeps,
        tell: Callable[[str], None] = lambda _: None,
        load_own: LoadOwn = lambda request: None,
    ) -> None:
        """`tell` the owner, once, what a worker cannot do here."""
        self._tell, self._is_told = tell, False
        self._load_own = load_own
        self._limits, self._load_run, self._kept = limits, load_run, kept
        self._policy = file.policy
        self._setup = json.dumps(
            {
                "policy": str(policy_path.resolve()),
                "digest": file.digest.hex(),
                "threads": limits.threads,
                "memory_mb": limits.memory_mb,
            }
        ).encode()
        self._turn = threading.Lock()
        self._is_closed = False
        # Where times are declared, the next request has no time to wait for a worker in the place of a killed one.
        self._wanted = 2 if file.policy.compute is not None and file.policy.compute.states_time else 1
        self._is_prepared = any(one.read == "prepared" for one in file.policy.sources.values())
        self._warm: deque[Sandbox] = deque()
        self._preparing: Sandbox | None = None
        self._warming: threading.Thread | None = None
        self._has_begun = threading.Event()  # since a worker was ready for the first time
        self._warm_up()

    def contribution(self, request: Request, now: int, deadline: float | None = None) -> Vectors:
        """Return the vectors of a request; raises as `computed`."""
        return self.computed(request, now, deadline).vectors

    def computed(self, request: Request, now: int, deadline: float | None = None) -> Computed:
        """Return what comes of a request; raises ComputeError if the process was killed or has failed.

        A `deadline`, by the clock that only goes forward, stands for that of a request which is taken up now.

        Raises ProtocolError for a step of training that is not the next one of its run.
        """
        split_of(request, self._load_run)  # here, as what fails in the worker is answered by noise
        check_judged(request, self._load_run)
        if (step := request.plan.training) is not None:
            check_position(self._load_run(step.run), request)
        states = filter(None, map(self._load_run, runs_of(request)))
        extents = request.plan.statistics(request.table).values()
        lengths, words = [extent.length for extent in extents], [extent.word_bytes for extent in extents]
        own, keeps = self._load_own(request), keeps_of(request)
        payload = now.to_bytes(8, "big") + write_states(states) + write_own(own) + request.encode()
        is_owning = has_own(request, is_kept=own is not None)
        size = sum(map(mul, lengths, words)) + (own_bytes(keeps) if is_owning else 0)
        job = Job("a computation", COMPUTE, payload, size)
        reply = self._within(job, self._deadline(request) if deadline is None else deadline)
        vectors = read_as(reply, lengths, words)
        return own_from(reply, vectors, keeps) if is_owning else Computed(vectors)

    def judged(self, request: Request, now: int, snapshot: Snapshot, deadline: float) -> Bools:
        """Return which persons of the newest snapshot are in for a request; raises ComputeError past the deadline."""
        persons = len(snapshot.persons)
        payload = now.to_bytes(8, "big") + sha256(snapshot.manifest).digest() + request.encode()
        reply = self._within(Job("a judgement of consent", JUDGE, payload, -(-persons // 8)), deadline)
        return np.unpackbits(np.frombuffer(reply, np.uint8), count=persons).astype(np.bool_)

    def load(self, kind: str, limit_s: float) -> None:
        """Import in the worker what a kind of computation needs; raises NotLoadedError.

        Where times are declared, every worker that is ready has imported it, and this waits for the first one alone:
        how long it takes does not tell that others ended.
        """
        if not is_slow(kind):
            return
        deadline, state = time.monotonic() + limit_s, LOADING
        if self._wanted > 1:
            state = LOADED if self._has_begun.wait(limit_s) else LOADING
        while state == LOADING and time.monotonic() < deadline:
            with suppress(ComputeError):  # no worker is ready yet, or it computes
                (state,) = self._within(Job("an import", LOAD, kind.encode(), 1), deadline + LOOK_MOST_S)
            if state == LOADING:
                time.sleep(LOOK_S)
        if state == FAILED:
            raise not_installed(kind)
        if state == UNCONFINED and not self._is_told:
            self._is_told = True
            self._tell(UNFILTERED)
        if state == LOADING:
            raise NotLoadedError(f"what {kind} needs is not imported after {limit_s:g} s", "ask again")

    def read_ahead(self, request: Request, now: int) -> None:
        """Let the worker read the rows of a step before its first round; raises ComputeError past the limit."""
        states = filter(None, map(self._load_run, runs_of(request)))
        payload = now.to_bytes(8, "big") + write_states(states) + request.encode()
        self._within(Job("reading the rows of a run", AHEAD, payload, 0), self._deadline(request))

    def refresh(self) -> None:
        """Do before a request what needs not be done again before rows or decisions change; raises SourceError."""
        try:
            self._within(Job("reading the decisions on consent", REFRESH, b"", 0), time.monotonic() + REFRESH_S)
        except ComputeError as err:
            raise SourceError(err.message, err.hint) from None

    def _deadline(self, request: Request) -> float:
        """Return until when a request that is taken up now may be computed on.

        Where no time is stated, that begins with a worker that is ready; else two are kept.
        """
        if stated_ms(self._policy, request) is None:
            self.wait()
        return time.monotonic() + limit_seconds(self._policy, request) - KILL_S

    def _within(self, job: Job, deadline: float) -> bytes:
        """Return the reply to a job until a time by the clock that only goes forward; raises ComputeError.

        No decisions are read where that would have to wait for a new process: its time would tell that others ended.
        """
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise ComputeError("another computation took all of this one's time", "see [compute] in policy-keys.md")
        try:
            while self._warm and self._warm[0].has_ended:  # killed from outside, while it had nothing to do
                self._warm_up(ended=self._warm.popleft())
            if not self._warm:
                self._replace(deadline if job.code != REFRESH else time.monotonic())
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ComputeError("no time is left for the computation", "see [compute] in policy-keys.md")
            try:
                return self._warm[0].run(self._told(replace(job, wall_s=left_s)))
            except CryptoError as err:
                self._warm_up(ended=self._warm.popleft())
                if (of_network := heard(err.message)) is None:
                    raise ComputeError(err.message, err.hint) from None
                if of_network.cause:
                    self._tell(of_network.cause)
                raise of_network from None
        finally:
            self._turn.release()

    def _replace(self, deadline: float) -> None:
        """Wait for a new worker; where times are declared no longer than until then, whatever ended the last ones."""
        if self._wanted == 1:
            self.wait()
            if not self._warm:
                self._warm.append(self._started())
            return
        self.wait(deadline - time.monotonic())
        if not self._warm:
            if self._warming is None or not self._warming.is_alive():
                self._warm_up()
            raise ComputeError("no process was ready in time", "each of the last ones was killed, or none starts")

    def wait(self, limit_s: float = START_S) -> None:
        """Return once every worker is warm, or has failed to start, or the time is over."""
        if self._warming is not None:
            self._warming.join(max(0.0, limit_s))

    def _told(self, job: Job) -> Job:
        """Return a job that begins with what the log names, as the worker does not touch the ledger."""
        return replace(job, payload=write_kept(self._kept()) + job.payload)

    def prepare(self, source: str) -> Made:
        """Make the store of a source in a process of its own. Raises SourceError."""
        with self._sandbox(PREPARE_S) as sandbox:
            self._preparing = sandbox
            try:
                reply = sandbox.run(self._told(Job("preparing", PREPARE, source.encode(), 40)))
            except CryptoError as err:
                told = err.message.removeprefix("preparing: ").removeprefix("PrepareError: ")
                raise SourceError(told, err.hint) from None
        store = KeptInForce(name=f"{FOLDER}/{source}", digest=reply[8:])
        return Made(int.from_bytes(reply[:8], "big"), store)

    def close(self) -> None:
        """End all workers."""
        self._is_closed = True
        self.wait()
        for sandbox in (*self._warm, self._preparing):
            if sandbox is not None:
                sandbox.close()

    def _warm_up(self, ended: Sandbox | None = None) -> None:
        """Start the workers that are missing, in a thread; one that fails is started, and reported, by a request.

        One that has `ended` is closed there first: the system takes its memory back, which can be long.
        """

        def start(before: threading.Thread | None) -> None:
            if before is not None:
                before.join()
            if ended is not None:
                ended.close()
            with suppress(CryptoError):
                while len(self._warm) < self._wanted and not self._is_closed:
                    self._warm.append(self._started())
                    self._has_begun.set()

        self._warming = threading.Thread(target=start, args=[self._warming], daemon=True)
        self._warming.start()

    def _started(self) -> Sandbox:
        sandbox = self._sandbox(START_S if self._wanted == 1 else START_LOADED_S)
        sandbox.warm()
        if self._is_prepared:
            with suppress(CryptoError):  # a request finds what is wrong
                sandbox.run(self._told(Job("reading the decisions on consent", REFRESH, b"", 0)))
        return sandbox

    def _sandbox(self, wall_s: float) -> Sandbox:
        limits = Limits(self._limits.memory_mb << 20, wall_s=wall_s)
        return Sandbox(MODULE, self._setup, limits=limits, environment=environment(self._policy, self._limits.threads))


def environment(policy: Policy, threads: int) -> Mapping[str, str]:
    """Return what a worker is told of this process's environment: where tables of a server are, and no more."""
    places = [source.uri for source in policy.sources.values() if source.kind == "postgres"]
    if (consent := policy.consent) is not None and consent.mode == "table" and consent.kind == "postgres":
        places.append(consent.source)
    names = [place.partition("#")[0].removeprefix("env:") for place in places]
    found = {name: os.environ[name] for name in names if name in os.environ}
    return found | KEEPS_MEMORY | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
