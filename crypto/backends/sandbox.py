"""Run native code on another party's bytes in disposable processes, which contain a crash, a hang or a leak.

A worker is a fresh interpreter with limits on its memory and processor time; its caller limits the wall time of each
job. It inherits only the environment variables that it needs, and no file but two pipes. Its protocol is binary,
without pickle: a job is a code, a length and a payload. A reply is read only if it has exactly the length that the
caller computed, so a crafted blob cannot make the native code return more. A worker that crashes, hangs, asks for too
much memory or answers with another length is killed, and the caller gets a CryptoError that names the job.

Native code that keeps the interpreter's lock runs in parallel this way too: `map` keeps all workers busy, yields in
order, and holds a bounded number of jobs.
"""

import os
import resource
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, NoReturn, Self

from crypto.errors import CryptoError

_JOB = struct.Struct("<BQ")  # code, length of the payload
_REPLY = struct.Struct("<BQ")  # 0 well, 1 refused; length
_MAX_REASON = 500
_SETUP = 0
_ROOT = Path(__file__).resolve().parents[2]
MAX_WORKERS = 4
SLACK_S = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may use; memory is address space."""

    memory_bytes: int = 1 << 30
    cpu_s: int = 300
    wall_s: float = 60.0  # for one job, the start of the interpreter included


@dataclass(frozen=True, slots=True)
class Job:
    """One job: its name in errors, its code (above 0), its payload, the exact size of the reply, and its own limit."""

    name: str
    code: int
    payload: bytes = field(repr=False)
    reply_bytes: int
    wall_s: float | None = None  # instead of that of the worker's limits


class Sandbox:
    """Workers that run `python -m module`, each with the same setup; they end with the `with` block."""

    def __init__(
        self,
        module: str,
        setup: bytes,
        workers: int = 1,
        limits: Limits | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`environment` has variables that the workers get beside those that the interpreter needs."""
        if not 1 <= workers <= MAX_WORKERS:
            raise CryptoError(f"{workers} workers, expected 1 to {MAX_WORKERS}")
        self._module, self._setup, self._count = module, setup, workers
        self._limits, self._environment = Limits() if limits is None else limits, environment
        self._threads = ThreadPoolExecutor(workers)  # each thread owns one worker
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, whatever they do."""
        self._close()
        self._threads.shutdown(cancel_futures=True)

    def warm(self) -> None:
        """Start a worker before there is a job for it; raises CryptoError if it cannot be set up."""
        self._threads.submit(self._ready, "starting a worker").result()

    @property
    def has_ended(self) -> bool:
        """Whether a worker has ended, or was killed from outside: every later job on it would fail."""
        with self._lock:
            return any(worker.has_ended for worker in self._workers)

    def __reduce__(self) -> NoReturn:
        raise CryptoError("a sandbox cannot be pickled or copied")  # its setup may hold a secret

    def run(self, job: Job) -> bytes:
        """Return the reply to one job; raises CryptoError that names it."""
        return next(iter(self.map([job])))

    def map(self, jobs: Iterable[Job]) -> Iterator[bytes]:
        """Yield the replies in the order of the jobs; the next job is taken when a worker is free."""
        running: deque[Future[bytes]] = deque()
        try:
            for job in jobs:
                if len(running) > self._count:  # one more than can run, so that no worker waits for the caller
                    yield running.popleft().result()
                running.append(self._threads.submit(self._do, job))
            while running:
                yield running.popleft().result()
        finally:
            if running:  # a job failed, or the caller wants no more
                self._close()

    def _close(self) -> None:
        with self._lock:
            self._is_open = False
            for worker in self._workers:
                worker.kill()

    def _do(self, job: Job) -> bytes:
        return self._ready(job.name).do(job)

    def _ready(self, name: str) -> "_Worker":
        """Return this thread's worker, set up for the job of this name."""
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None:
            with self._lock:
                if not self._is_open:
                    raise CryptoError(f"{name}: not begun, as another failed")
                worker = self._own.worker = _Worker(self._module, self._limits, self._environment)
                self._workers.append(worker)
            worker.do(Job(f"{name}, preparing a worker for it", _SETUP, self._setup, 0))
        return worker


def _installed() -> list[str]:
    """Return where this process imports from, but the current directory: what lies there is not code."""
    return [one for one in sys.path if one and Path(one).resolve() != Path.cwd()]


class _Worker:
    """One process; any failure ends it, and every later job on it fails at once."""

    def __init__(self, module: str, limits: Limits, more: Mapping[str, str]) -> None:
        self._limits = limits
        environment = {
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *_installed()]),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
            **more,
        }
        command = [sys.executable, "-P", "-m", module, str(limits.memory_bytes), str(limits.cpu_s)]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, env=environment)  # noqa: S603

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def do(self, job: Job) -> bytes:
        overdue = threading.Event()
        wall_s = self._limits.wall_s if job.wall_s is None else job.wall_s
        timer = threading.Timer(wall_s + SLACK_S, self._expire, [overdue])  # of one that does not read, or stops
        timer.daemon = True
        timer.start()
        try:
            return self._exchange(job, time.monotonic() + wall_s)
        except TimeoutError:
            self.end()
            raise CryptoError(f"{job.name}: no answer within {wall_s:g} s, the worker was ended") from None
        except (OSError, EOFError, ValueError):  # the last if another thread closed the pipes
            self.kill()
            if overdue.is_set():
                raise CryptoError(f"{job.name}: no answer within {wall_s:g} s, the worker was ended") from None
            hint = "its input is damaged or hostile, or it needs more memory or time than a worker is given"
            raise CryptoError(f"{job.name}: the worker ended with status {self._process.returncode}", hint) from None
        except CryptoError:
            self.end()
            raise
        finally:
            timer.cancel()

    def end(self) -> None:
        """Kill the process, without waiting until the system has taken back its memory, which can be long."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # the process has stopped reading
                    continue

    def kill(self) -> None:
        self.end()
        self._process.wait()

    def _expire(self, overdue: threading.Event) -> None:
        overdue.set()
        self._process.kill()

    def _exchange(self, job: Job, deadline: float) -> bytes:
        writer, reader = self._process.stdin, self._process.stdout
        if writer is None or reader is None or writer.closed or reader.closed:
            raise EOFError
        writer.write(_JOB.pack(job.code, len(job.payload)))
        writer.write(job.payload)
        writer.flush()
        answered = select.poll()
        answered.register(reader, select.POLLIN)
        if not answered.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        status, length = _REPLY.unpack(_read(reader, _REPLY.size))
        if status:
            reason = _read(reader, min(length, _MAX_REASON)).decode("ascii", "replace")
            raise CryptoError(f"{job.name}: {''.join(c if c.isprintable() else '?' for c in reason)}")
        if length != job.reply_bytes:
            raise CryptoError(f"{job.name}: a reply of {length} bytes, expected {job.reply_bytes}")
        return _read(reader, length)


def _read(reader: IO[bytes], length: int) -> bytes:
    data = reader.read(length)
    if len(data) != length:
        raise EOFError
    return data


@dataclass(frozen=True, slots=True)
class Parts:
    """A long reply that is made part by part as it is sent, so that it is never in memory as a whole."""

    length: int  # of all parts, in bytes
    parts: Iterable[memoryview]


def serve(handle: Callable[[int, bytes], bytes | Parts]) -> None:
    """Answer jobs until the pipe closes; runs in the worker. `handle` gets code (0: setup) and payload.

    An exception in `handle` becomes a refusal with its text; one while parts are made ends the worker. Output of native
    code is discarded.
    """
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as null:
        os.dup2(null.fileno(), 0)
        os.dup2(null.fileno(), 1)
    while header := reader.read(_JOB.size):
        code, length = _JOB.unpack(header)
        payload = _read(reader, length)
        reply: bytes | Parts
        try:
            status, reply = 0, handle(code, payload)
        except Exception as err:  # the boundary of the process: report any error and continue
            status, reply = 1, f"{type(err).__name__}: {err}".encode("ascii", "replace")[:_MAX_REASON]
        whole = reply if isinstance(reply, Parts) else Parts(len(reply), [memoryview(reply)])
        writer.write(_REPLY.pack(status, whole.length))
        for part in whole.parts:
            writer.write(part)
        writer.flush()


def limit_this_process(arguments: list[str]) -> None:
    """Set this process's limits from its two arguments, before any native code is loaded."""
    memory_bytes, cpu_s = (int(argument) for argument in arguments)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
