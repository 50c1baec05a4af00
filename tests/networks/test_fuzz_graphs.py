"""No mutated graph computes anything but its listed calls, or imports, opens, connects to or starts anything.

`make check` gives it 2,000 graphs, `make fuzz` 10^5. A failure names its batch: `fuzzing_graphs.run(batch)` repeats it.
"""

import faulthandler
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests import fuzzing_graphs
from tests.fuzzing_graphs import BATCH, Outcome

INPUTS = int(os.environ.get("CONSILO_FUZZ_INPUTS", 20_000)) // 10
WORKERS = 2
HANG_S = 120  # for a batch, which takes a second
SLOWEST_S = 5.0  # of one graph on a busy machine, there and back
LEAST_COMPUTED = 0.05

pytestmark = [pytest.mark.fuzz, pytest.mark.torch, pytest.mark.process, pytest.mark.timeout(900)]


def _batches(batches: range) -> list[Outcome]:
    found = []
    for batch in batches:
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        found.append(fuzzing_graphs.run(batch))
        faulthandler.cancel_dump_traceback_later()
    return found


def _what_the_hook_notes() -> list[str]:
    return fuzzing_graphs.noted_of(lambda: __import__("this_module_is_nowhere"))


def test_mutated_graphs_are_refused_or_computed_and_cause_nothing_else() -> None:
    count = max(WORKERS, -(-INPUTS // BATCH))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=fuzzing_graphs.watch) as pool:
        shares = [pool.submit(_batches, range(worker, count, WORKERS)) for worker in range(WORKERS)]
        outcomes = [outcome for share in shares for outcome in share.result()]
        assert any(one.startswith("import") for one in pool.submit(_what_the_hook_notes).result())
    refused, computed = sum(one.refused for one in outcomes), sum(one.computed for one in outcomes)
    too_dear, slowest_s = sum(one.too_dear for one in outcomes), max(one.slowest_s for one in outcomes)
    print(f"graphs: {refused} refused, {too_dear} too dear, {computed} computed, slowest {slowest_s * 1000:.1f} ms")
    assert not [problem for one in outcomes for problem in one.problems]
    assert refused + too_dear + computed == count * BATCH
    assert computed >= LEAST_COMPUTED * count * BATCH
    assert refused
    assert slowest_s < SLOWEST_S
