"""A worker that crashes, hangs, grabs memory or answers too much becomes an error that names the job, no more."""

import os
import pickle
import threading
import time
from collections.abc import Iterator

import pytest

from crypto.backends.sandbox import MAX_WORKERS, Job, Limits, Sandbox
from crypto.errors import CryptoError
from tests.crypto.misbehaving_worker import (
    ALLOCATE,
    CRASH,
    ECHO,
    ENVIRONMENT,
    HANG,
    KILLED,
    LONGER,
    PRINT,
    RAISE,
    SPIN,
)

pytestmark = pytest.mark.process

MODULE = "tests.crypto.misbehaving_worker"
QUICK = Limits(memory_bytes=1 << 29, cpu_s=2, wall_s=20.0)


def job(code: int, payload: bytes = b"payload", name: str = "chunk 3") -> Job:
    return Job(name, code, payload, len(payload))


def children() -> set[int]:
    """Return the processes that this one started and that are not reaped."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit():
                with open(f"/proc/{entry}/stat") as stat:
                    if int(stat.read().rsplit(")", 1)[1].split()[1]) == os.getpid():
                        found.add(int(entry))
        except OSError:
            continue
    return found


def test_jobs_are_answered_in_order_by_several_workers() -> None:
    before = children()
    with Sandbox(MODULE, b"setup", 2, QUICK) as sandbox:
        payloads = [bytes([number]) * (1 << number) for number in range(18)]
        assert list(sandbox.map(job(ECHO, payload) for payload in payloads)) == payloads
        assert sandbox.run(job(PRINT)) == b"payload"  # what native code prints is no part of a reply
        assert len(children() - before) == 2
    assert children() == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (CRASH, "chunk 3: the worker ended with status -11"),
        (KILLED, "chunk 3: the worker ended with status -9"),
        (SPIN, "chunk 3: the worker ended with status -9"),  # the limit on processor time
        (ALLOCATE, "chunk 3: MemoryError"),
        (LONGER, "chunk 3: a reply of 4103 bytes, expected 7"),
        (RAISE, r"chunk 3: ValueError: \?\[31mred\?linesx"),
    ],
)
def test_a_worker_that_misbehaves(code: int, message: str) -> None:
    before = children()
    with Sandbox(MODULE, b"", 1, QUICK) as sandbox:
        with pytest.raises(CryptoError, match=message) as caught:
            sandbox.run(job(code))
        assert len(caught.value.message) < 700
        with pytest.raises(CryptoError):
            sandbox.run(job(ECHO, name="chunk 4"))  # it is not used again
    assert children() == before


def test_a_worker_that_cannot_be_prepared_blocks_nobody() -> None:
    before = children()
    with Sandbox(MODULE, b"bad setup", 2, QUICK) as sandbox:
        message = "chunk 0, preparing a worker for it: a reply of 17 bytes, expected 0"
        with pytest.raises(CryptoError, match=message):
            list(sandbox.map(job(ECHO, name=f"chunk {number}") for number in range(9)))
    assert children() == before


def test_a_worker_that_hangs_is_ended() -> None:
    began = time.monotonic()
    with (
        Sandbox(MODULE, b"", 1, Limits(wall_s=3.0)) as sandbox,
        pytest.raises(CryptoError, match="chunk 3: no answer within 3 s"),
    ):
        sandbox.run(job(HANG))
    assert time.monotonic() - began < 60


def test_a_failure_amid_many_jobs_ends_all_of_them() -> None:
    before = children()
    jobs = [job(CRASH if number == 5 else ECHO, name=f"chunk {number}") for number in range(20)]
    with Sandbox(MODULE, b"", 2, QUICK) as sandbox:
        replies = sandbox.map(jobs)
        assert [next(replies) for _ in range(5)] == [b"payload"] * 5
        with pytest.raises(CryptoError, match="chunk 5: the worker ended"):
            next(replies)
    assert children() == before


def test_jobs_are_drawn_as_workers_come_free() -> None:
    """So a stream of any length holds a few chunks only."""
    drawn = []

    def jobs() -> Iterator[Job]:
        for number in range(50):
            drawn.append(number)
            yield job(ECHO)

    with Sandbox(MODULE, b"", 2, QUICK) as sandbox:
        for number, _ in enumerate(sandbox.map(jobs())):
            assert len(drawn) <= number + 4
    assert len(drawn) == 50


def test_a_stream_that_is_closed_early_leaves_no_process() -> None:
    before, threads = children(), threading.active_count()
    with Sandbox(MODULE, b"", 2, QUICK) as sandbox:
        replies = sandbox.map(job(ECHO) for _ in range(100))
        next(replies)
        replies.close()  # type: ignore[attr-defined]
    assert children() == before
    assert threading.active_count() <= threads + 1


def test_a_worker_inherits_no_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILO_PASSPHRASE", "correct horse battery staple")
    expected = ["MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONPATH"]
    with Sandbox(MODULE, b"", 1, QUICK) as sandbox:
        # The locale variable is what the interpreter sets itself (PEP 538).
        length = len("\n".join(["LC_CTYPE", *expected]))
        names = sandbox.run(Job("names", ENVIRONMENT, b"", length)).decode().split("\n")
    assert names == ["LC_CTYPE", *expected]


def test_a_sandbox_holds_secrets_and_is_not_pickled() -> None:
    with Sandbox(MODULE, b"secret setup", 1) as sandbox, pytest.raises(CryptoError, match="cannot be pickled"):
        pickle.dumps(sandbox)
    assert "secret" not in repr(Job("a", 1, b"secret", 3))
    with pytest.raises(CryptoError, match="expected 1 to 4"):
        Sandbox(MODULE, b"", MAX_WORKERS + 1)
