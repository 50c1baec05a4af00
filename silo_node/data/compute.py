"""What a silo contributes to a request: the rows that may be used, read once, and each kind's own arithmetic on them.

One entry of `CONTRIBUTIONS` for each kind in `policies.requests.computations.COMPUTATIONS`. Promise: a contribution is
one vector of int64 for each statistic of the request, in their order and of their lengths, exact and before noise.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from policies.document.policy import Policy
from policies.requests.request import Request
from silo_node.data.consent import ConsentFilter, Decisions, narrowed, row_filter
from silo_node.data.query import examples, execute
from silo_node.data.sources import Source, opened
from silo_node.training.logistic_model import weights_of
from silo_node.training.run import RunState, check_position

COMPUTE_TIMEOUT_S = 20.0

Vectors = Sequence[npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Access:
    """A source as one request may read it."""

    connection: duckdb.DuckDBPyConnection
    source: Source
    policy: Policy
    consent: ConsentFilter | None


@dataclass(frozen=True, slots=True)
class Contribution:
    """How one kind of computation is contributed to: `read` runs in the engine, under its limit of time."""

    read: Callable[[Access, Request], Any]
    compute: Callable[[Request, Any, RunState | None], Vectors]  # of what was read; the run's state, if it is a step


def _read_answer(access: Access, request: Request) -> Vectors:
    unit = access.policy.privacy_unit
    return execute(access.connection, access.source, unit.id_column, request, access.consent, unit.max_groups)


def _answered(request: Request, rows: Any, state: RunState | None) -> Vectors:
    """Return what the engine has computed already."""
    vectors: Vectors = rows
    return vectors


def _read_examples(access: Access, request: Request) -> list[npt.NDArray[np.int64]]:
    return examples(access.connection, access.source, access.policy.privacy_unit.id_column, request, access.consent)


def _trained(request: Request, rows: Any, state: RunState | None) -> Vectors:
    from silo_node.training.logistic import contribution  # torch is heavy: only where a silo really trains

    return contribution(request, weights_of(state, request), rows)


CONTRIBUTIONS: Mapping[str, Contribution] = MappingProxyType(
    {
        "query": Contribution(_read_answer, _answered),
        "logistic-regression": Contribution(_read_examples, _trained),
    }
)


class Computer:
    """Computes the contributions of one silo on its own rows."""

    def __init__(
        self,
        policy: Policy,
        database: duckdb.DuckDBPyConnection,
        sources: Mapping[str, Source],
        decisions: Decisions,
        load_run: Callable[[bytes], RunState | None],
    ) -> None:
        self._policy, self._database, self._sources = policy, database, sources
        self._decisions, self._load_run = decisions, load_run

    def contribution(self, request: Request, now: int) -> Vectors:
        """Return the vectors of a request, by the decisions on consent at `now`; raises what the engine raises."""
        policy, began = self._policy, time.monotonic()
        used = (name for names in request.plan.uses().values() for name in names)
        source = narrowed(policy, self._sources[request.table.name], request.purpose, used)
        consent = row_filter(policy, source, request.purpose, self._decisions.reader, now)
        decisions = () if policy.purposes[request.purpose].consent == "none" else self._decisions.wanted
        kind = CONTRIBUTIONS[request.plan.kind]
        with opened(self._database, (source.wanted, *decisions), COMPUTE_TIMEOUT_S):
            left_s = COMPUTE_TIMEOUT_S - (time.monotonic() - began)
            limit = threading.Timer(max(1.0, left_s), self._database.interrupt)
            limit.start()
            try:
                rows = kind.read(Access(self._database, source, policy, consent), request)
            finally:
                limit.cancel()
        step, state = request.plan.training, None
        if step is not None:
            state = self._load_run(step.run)
            check_position(state, request)  # another round of the same step may have been learned meanwhile
        return kind.compute(request, rows, state)
