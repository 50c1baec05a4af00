"""A question over many prepared rows, spread over the organisation's Ray cluster: a task for each range of persons.

The worker of `silo_node.killable` judges who is in, so decisions on consent are judged once; every task has that list,
one snapshot and one secret. Ray runs a task again elsewhere when its machine is lost. The store is read by its path:
each machine of the cluster needs the silo's directory under the same path, on storage that they share.

Promise: the same integers to the bit as one process, no more memory on a machine than its parts need, and an end by the
limit: then every task is cancelled, and the silo contributes nothing but noise, as for any computing that fails.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from federation.operations.private import close_to_others
from policies.decision.computing import limit_seconds
from policies.document.policy import Policy
from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.coded import Bools
from silo_node.data.figures import Computed, Vectors
from silo_node.data.prepared.part import Question
from silo_node.data.prepared.reader import PARTITION_ROWS, Reader
from silo_node.data.prepared.snapshot import Snapshot
from silo_node.data.prepared.store import Made
from silo_node.killable import KEEPS_MEMORY, KILL_S, ComputeError, KillableComputer

RETRIES = 3


class SpreadComputer:
    """Computes as `KillableComputer`, but spreads large questions over the cluster that this process is in."""

    def __init__(self, inner: KillableComputer, policy: Policy, reader: Reader, from_rows: int) -> None:
        self._inner, self._policy, self._reader, self._from_rows = inner, policy, reader, from_rows

    def computed(self, request: Request, now: int) -> Computed:
        """Return what comes of a request; raises ComputeError if it does not end in time."""
        if request.plan.training is not None or request.plan.judged is not None:
            return self._inner.computed(request, now)
        return Computed(self.contribution(request, now))

    def contribution(self, request: Request, now: int) -> Vectors:
        """Return the vectors of a request; raises ComputeError if it does not end in time."""
        source = self._policy.sources[request.table.name]
        if source.read != "prepared" or request.plan.training is not None or request.plan.judged is not None:
            return self._inner.contribution(request, now)
        deadline = time.monotonic() + limit_seconds(self._policy, request) - KILL_S
        question, snapshot = self._reader.asked(request, now)
        try:
            return self._spread(question, snapshot, now, deadline)
        except ComputeError:
            question_again, snapshot_again = self._reader.asked(request, now)
            if question_again.manifest == question.manifest:
                raise
        return self._spread(question_again, snapshot_again, now, deadline)  # the rows were prepared anew meanwhile

    def _spread(self, question: Question, snapshot: Snapshot, now: int, deadline: float) -> Vectors:
        if snapshot.count < self._from_rows:
            return self._inner.contribution(question.request, now, deadline)
        is_in = self._inner.judged(question.request, now, snapshot, deadline)
        return spread(question, list(snapshot.parts(PARTITION_ROWS)), is_in, deadline - time.monotonic())

    def prepare(self, source: str) -> Made:
        """Prepare a source in the process that is killable."""
        return self._inner.prepare(source)

    def load(self, kind: str, limit_s: float) -> None:
        """Import in the worker, which takes every step of training; raises NotLoadedError."""
        self._inner.load(kind, limit_s)

    def read_ahead(self, request: Request, now: int) -> None:
        """Let the worker read the rows of a step before its first round; raises ComputeError past the limit."""
        self._inner.read_ahead(request, now)

    def refresh(self) -> None:
        """Let the worker, which judges, read decisions that have changed."""
        self._inner.refresh()

    def wait(self) -> None:
        """Return once the worker is warm."""
        self._inner.wait()

    def close(self) -> None:
        """End the worker."""
        self._inner.close()


def spread(question: Question, parts: list[tuple[int, int]], is_in: Bools | None, limit_s: float) -> Vectors:
    """Return the sum of the parts, each computed by a Ray task; raises ComputeError past the limit, or if one fails."""
    import ray

    deadline = time.monotonic() + limit_s
    shared = ray.put((question, is_in))
    tasks = [_task().remote(shared, first, end) for first, end in parts]
    waiting, total = list(tasks), None
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                raise ComputeError(f"{len(waiting)} of {len(parts)} parts did not end in time", "see [compute]")
            (vectors,) = ray.get(done)
            total = vectors if total is None else answer.added([total, vectors])
    except ray.exceptions.RayTaskError as err:
        raise ComputeError(f"a part failed: {str(err.cause)[:400]}", "see silo.log") from None
    except ray.exceptions.RayError as err:
        raise ComputeError(f"a part was lost ({type(err).__name__})", "see the cluster's logs") from None
    finally:
        if waiting:  # beside: that it ends late would tell that it was ended
            threading.Thread(target=_cancel, args=[waiting], daemon=True).start()
    return total or []


def _cancel(tasks: list[Any]) -> None:
    import ray

    with suppress(ray.exceptions.RayError):  # the cluster goes, and they with it
        for one in tasks:
            ray.cancel(one, force=True)


@cache
def _task() -> Any:
    import ray

    settings: Mapping[str, Any] = {
        "num_cpus": 1,
        "max_retries": RETRIES,
        "scheduling_strategy": "SPREAD",
        "runtime_env": {"env_vars": dict(KEEPS_MEMORY)},
    }
    return ray.remote(_part).options(**settings)


def _part(shared: tuple[Question, Bools | None], first: int, end: int) -> answer.Vectors:
    question, is_in = shared
    close_to_others()  # on another machine of the organisation
    return question.part(first, end, is_in)
