"""No bytes of a stranger crash, hang or exhaust a decoder, and none are read that are not the one encoding.

Each decoder is given SHARE inputs, or as many as CONSILO_FUZZ_INPUTS says; files are given a tenth. A failure names the
batch that it is in: `fuzzing.run(fuzzing.decoders()[name], batch)` repeats it. `make fuzz` gives each a million, and
goes on with a coverage-guided fuzzer. What a sandbox reads needs a process for each input: it is given one for 2,000.
"""

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import thread_time

import pytest

from crypto.errors import CryptoError
from crypto.wire import Message
from tests import fuzzing, fuzzing_blobs
from tests.fuzzing import BATCH, Outcome, decoders
from tests.vectors.vocabulary import subclasses

SHARE = 20_000  # of the million that `make fuzz` gives, for `make check`
INPUTS = int(os.environ.get("CONSILO_FUZZ_INPUTS", SHARE))
WORKERS = 2
HANG_S = 120  # for a whole batch, which takes a tenth of a second
SLOWEST_S = 0.25  # processor time of one input
LARGEST_S = 2.0  # the same, of one as large as may be read
LARGEST_BYTES = 16 << 20
ADDRESS_SPACE = 2 << 30
# The declared bound on memory, beyond the input itself.
BYTES_A_BYTE, BYTES_A_COMMA, BYTES_ANYWAY = 4, 4 << 10, 8 << 20
# Of one blob that a sandbox reads: processor time of its workers, and their memory.
SANDBOX_S = 5.0
SANDBOX_BYTES = 512 << 20
MESSAGES = [name for name, one in decoders().items() if one.kind is not None]
OWN = {
    "RunState",
    "Progress",
    "RunEntry",
}  # files that nobody but their owner writes: bounded in bytes, not so tightly in memory

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]


def _confine() -> None:
    """Give a worker an end to its address space, and let it die with a traceback where it hangs."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    decoders()


def _batches(name: str, batches: range) -> tuple[list[Outcome], int]:
    """Return what became of the batches, and by how much the worker's memory grew."""
    before, outcomes = _peak(), []
    for batch in batches:
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        outcomes.append(fuzzing.run(decoders()[name], batch))
        faulthandler.cancel_dump_traceback_later()
    return outcomes, _peak() - before


def _largest(name: str) -> list[tuple[str, int, float, int, int]]:
    """Return of each of the largest inputs: what it is, its bytes, the time, the memory, the memory allowed."""
    kind, found = decoders()[name].kind, []
    assert kind is not None
    for what, data in fuzzing.largest(kind, LARGEST_BYTES):
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        ctypes.CDLL(None).malloc_trim(0)  # else the memory of the input before is used again, unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        base, before = _peak(), thread_time()
        with contextlib.suppress(CryptoError):
            assert kind.decode(data).encode() == data
        spent_s = thread_time() - before
        faulthandler.cancel_dump_traceback_later()
        allowed = BYTES_ANYWAY + BYTES_A_BYTE * len(data) + BYTES_A_COMMA * min(data.count(b","), kind.MAX_COMMAS)
        found.append((what, len(data), spent_s, _peak() - base, allowed))
    return found


def _peak() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=_confine) as pool:
        yield pool


@pytest.mark.parametrize("name", decoders())
def test_broken_input_is_refused_or_read_as_it_stands(name: str, workers: ProcessPoolExecutor) -> None:
    count = -(-INPUTS // (10 if decoders()[name].is_file else 1) // BATCH)
    shares = [workers.submit(_batches, name, range(worker, count, WORKERS)) for worker in range(WORKERS)]
    results = [share.result() for share in shares]
    outcomes = [outcome for result, _ in results for outcome in result]
    inputs, accepted = sum(one.inputs for one in outcomes), sum(one.accepted for one in outcomes)
    slowest_s, grown = max(one.slowest_s for one in outcomes), max(grown for _, grown in results)
    print(f"{name}: {inputs} inputs, {accepted} accepted, slowest {slowest_s * 1000:.1f} ms, memory +{grown >> 20} MiB")
    assert inputs == count * BATCH
    assert 0 < accepted < inputs  # else the mutations miss what they are to find
    assert slowest_s < SLOWEST_S
    assert grown < BYTES_ANYWAY * 8


@pytest.mark.parametrize("name", [name for name in MESSAGES if name not in OWN])
def test_largest_input_costs_no_more_than_declared(name: str, workers: ProcessPoolExecutor) -> None:
    for what, size, spent_s, memory, allowed in workers.submit(_largest, name).result():
        print(f"{name}: {what}: {size} bytes, {spent_s * 1000:.0f} ms, {memory >> 10} KiB of {allowed >> 10}")
        assert spent_s < LARGEST_S, what
        assert memory <= allowed, what


def _blobs(name: str, numbers: range) -> tuple[fuzzing_blobs.Reading, float, int, int]:
    """Return what became of broken blobs, the processor time of one, the largest worker, and how many are left."""
    fuzzing_blobs.blobs()
    faulthandler.dump_traceback_later(HANG_S + 10 * len(numbers), exit=True)
    before = _spent()
    reading = fuzzing_blobs.read(name, numbers)
    faulthandler.cancel_dump_traceback_later()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    left = sum(len(each.read_text().split()) for each in Path("/proc/self/task").glob("*/children"))
    return reading, (_spent() - before) / (len(numbers) + 1), largest, left


def _spent() -> float:
    """Return the processor time of this process and of all children that have ended."""
    return sum(os.times()[:4])


@pytest.mark.he
@pytest.mark.parametrize("name", fuzzing_blobs.NAMES)
def test_broken_blobs_end_in_a_refusal_and_the_next_is_read(name: str, workers: ProcessPoolExecutor) -> None:
    count = INPUTS // 2000
    shares = [workers.submit(_blobs, name, range(worker, count, WORKERS)) for worker in range(WORKERS)]
    for share in shares:
        reading, spent_s, largest, left = share.result()
        print(f"{name}: {reading.refused} refused, {reading.read} read, {spent_s:.2f} s each, {largest >> 20} MiB")
        assert not reading.problem
        assert reading.refused
        assert spent_s < SANDBOX_S
        assert largest < SANDBOX_BYTES
        assert not left, "no worker stays"


def test_every_message_that_travels_is_fuzzed() -> None:
    travelling = {kind for kind in subclasses(Message) if kind.KIND and not kind.__module__.startswith("tests")}
    assert travelling <= {decoders()[name].kind for name in MESSAGES}
