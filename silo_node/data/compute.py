"""What a silo contributes to a request: the rows that may be used, read once, and each kind's own arithmetic on them.

One entry of `CONTRIBUTIONS` for each kind in `policies.requests.computations.COMPUTATIONS`. Promise: a contribution is
one vector of int64 for each statistic of the request, in their order and of their lengths, exact and before noise.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import duckdb
import numpy as np
import numpy.typing as npt

from crypto.randomness import token
from policies.decision.compiled import compiled
from policies.decision.computing import limit_seconds
from policies.document.policy import Compute, Policy
from policies.networks.names import NETWORKS
from policies.requests.network_steps import LOADED_AS as NETWORK
from policies.requests.network_steps import network_of
from policies.requests.request import Request, resolved
from policies.requests.split import WORD_BITS, WORDS
from silo_node.data import answer
from silo_node.data.coded import Bools, Rows
from silo_node.data.consent import ConsentFilter, Decisions, narrowed, readings, row_filter
from silo_node.data.figures import Computed, Vectors
from silo_node.data.locations import connect, opened_within
from silo_node.data.lots import Lots
from silo_node.data.model_rows import judged_rows, model_rows
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import Made
from silo_node.data.query import Forgotten, Reading, execute, nobody, rows_of
from silo_node.data.run_rows import KEPT_BYTES, Learned, RunRows
from silo_node.data.sides import on_side
from silo_node.data.sources import Source
from silo_node.errors import NotLoadedError, SourceError
from silo_node.training import exact
from silo_node.training.confined.apart import Apart
from silo_node.training.confined.computing import computed
from silo_node.training.confined.work import Done, Work, packed_bytes
from silo_node.training.family import Examples
from silo_node.training.judging import audited, judged
from silo_node.training.logistic_model import weights_of
from silo_node.training.noised import step as noised
from silo_node.training.own import KeptOwn, digest_of, for_rows
from silo_node.training.run import RunState, check_position
from silo_node.training.scoring import check_judged
from silo_node.training.split import split_of


@dataclass(frozen=True, slots=True)
class Access:
    """A source as one request may read it."""

    connection: duckdb.DuckDBPyConnection
    source: Source
    policy: Policy
    consent: ConsentFilter | None
    forgotten: Forgotten = nobody
    beside: tuple[Reading, ...] = ()  # the tables that it is joined with, each with its own consent
    kept: Learned | None = None  # the rows of a run and who is in, where they were read before

    def learned(self, request: Request) -> Learned:
        """Return the rows that a step of training learns from, and which of their persons are in; None: all."""
        if self.kept is not None:
            return self.kept
        unit, own = self.policy.privacy_unit.id_column, Reading(self.source, self.consent)
        return rows_of(self.connection, (own, *self.beside), unit, request, self.forgotten)


def _nothing_more() -> None:
    """Load nothing: all is there."""


class Judgeable(NamedTuple):
    """The rows that a model is judged by, and the silo that has them."""

    examples: Examples
    silo: str


@dataclass(frozen=True, slots=True)
class ContributionKind:
    """How one kind of computation is contributed to: `read` runs in the engine, under its limit of time."""

    read: Callable[[Access, Request], Any]
    prepared: Callable[[Reader, Request, int, float, bytes | None], Any]  # the same of prepared rows; by a split
    compute: Callable[[Request, Any, RunState | None], Vectors]  # of what was read; the run's state, if it is a step
    load: Callable[[], None] = _nothing_more  # import what is slow to import; may raise ImportError
    is_kept: bool = False  # whether `read` takes `Access.learned`, whose rows are kept from one round to the next


def _read_answer(access: Access, request: Request) -> Vectors:
    unit = access.policy.privacy_unit
    read = access.connection, access.source, unit.id_column, request, access.consent
    return execute(*read, unit.max_groups, access.forgotten, access.beside)


def _answered(request: Request, rows: Any, state: RunState | None) -> Vectors:
    """Return what the engine has computed already."""
    vectors: Vectors = rows
    return vectors


def _read_examples(access: Access, request: Request) -> list[npt.NDArray[np.int64]]:
    return answer.examples(*_asked(access, request), Lots())


def _read_model_rows(access: Access, request: Request) -> Examples:
    return model_rows(*_asked(access, request))


def _asked(access: Access, request: Request) -> tuple[Rows, Request, Bools | None]:
    rows, is_in = access.learned(request)
    return rows, request, on_side(rows, request, is_in)


def _read_judged(access: Access, request: Request) -> Judgeable:
    rows, asked, is_in = _asked(access, request)
    return Judgeable(judged_rows(rows, asked, is_in), access.policy.silo.id)


def _prepared_judged(reader: Reader, request: Request, now: int, limit_s: float, split: bytes | None) -> Judgeable:
    return Judgeable(judged_rows(*reader.on_side(request, now, limit_s, split)), reader.silo)


def _judged(request: Request, rows: Judgeable, state: RunState | None) -> Vectors:
    """Return the sums of the metrics of a model, by these rows."""
    return judged(request, rows.examples, state, rows.silo)


def _audited(request: Request, rows: Judgeable, state: RunState | None) -> Vectors:
    """Return the counts of an audit, by these rows and the model that it is of."""
    return audited(request, rows.examples, state)


def _load_torch() -> None:
    from silo_node.training import logistic  # noqa: F401


def _no_rows(access: Access, request: Request) -> None:
    """Read nothing."""


def _prepared_vectors(reader: Reader, request: Request, now: int, limit_s: float, split: bytes | None) -> Vectors:
    return reader.vectors(request, now, limit_s)


def _no_prepared_rows(reader: Reader, request: Request, now: int, limit_s: float, split: bytes | None) -> None:
    """Read nothing."""


def _drawn(request: Request, rows: Any, state: RunState | None) -> Vectors:
    """Return random words for the secret of a split."""
    return [np.frombuffer(token(WORDS * WORD_BITS // 8), "<u4").astype(np.int64)]


def _trained(request: Request, rows: Any, state: RunState | None) -> Vectors:
    from silo_node.training.logistic import contribution  # torch is heavy: only where a silo really trains

    return contribution(request, weights_of(state, request), rows)


CONTRIBUTIONS: Mapping[str, ContributionKind] = MappingProxyType(
    {
        "key-search": ContributionKind(_read_answer, _prepared_vectors, _answered),
        "statements": ContributionKind(_read_answer, _prepared_vectors, _answered),
        "query": ContributionKind(_read_answer, _prepared_vectors, _answered),
        "logistic-regression": ContributionKind(_read_examples, Reader.examples, _trained, _load_torch, is_kept=True),
        "exact-step": ContributionKind(_read_model_rows, Reader.model_examples, exact.contribution, is_kept=True),
        "noised-step": ContributionKind(_read_model_rows, Reader.model_examples, noised.contribution, is_kept=True),
        "audit-step": ContributionKind(_read_judged, _prepared_judged, _audited, is_kept=True),
        "evaluation": ContributionKind(_read_judged, _prepared_judged, _judged, is_kept=True),
        "split": ContributionKind(_no_rows, _no_prepared_rows, _drawn),
    }
)


def load_kinds(policy: Policy) -> bool:
    """Load what the computations need that a policy opens, so that none waits for it; return whether all is there."""
    try:
        for kind in to_load(policy):
            load_kind(kind)
    except ImportError:
        return False
    return True


def to_load(policy: Policy) -> tuple[str, ...]:
    """Return the kinds of computations that a policy opens and that need something which is slow to import."""
    opened = {kind for purpose in policy.purposes.values() for kind in purpose.computations}
    found = [kind for kind in sorted(opened & CONTRIBUTIONS.keys()) if is_slow(kind)]
    return (*found, *((NETWORK,) if trains_networks(policy) and opened & NETWORKS else ()))


def trains_networks(policy: Policy) -> bool:
    """Tell whether a policy has [training.networks]."""
    return policy.training is not None and policy.training.networks is not None


def has_private_training(policy: Policy) -> bool:
    """Tell whether a policy opens training on a private source: families without noise need nothing slow."""
    return policy.training is not None and any(one.release == "private" for one in policy.sources.values())


def is_slow(kind: str) -> bool:
    """Tell whether a kind of computation needs something that is slow to import."""
    return kind == NETWORK or CONTRIBUTIONS[kind].load is not _nothing_more


def load_kind(kind: str) -> None:
    """Import in this process what a kind of computation, or a network, needs; raises ImportError."""
    if kind == NETWORK:
        from silo_node.training.confined import trying  # noqa: F401
    else:
        CONTRIBUTIONS[kind].load()


def not_installed(kind: str) -> NotLoadedError:
    """Return the error of a kind of computation whose imports fail."""
    return NotLoadedError(
        f"what {kind} needs cannot be imported here", "install consilo[train], and start the silo anew"
    )


LoadOwn = Callable[[Request], KeptOwn | None]  # what the silo keeps for itself of the run that a request is about


def keeps_of(request: Request) -> Mapping[str, int]:
    """Return the lengths of what a silo keeps for itself of a request's round, by name."""
    step = request.plan.training
    return {} if step is None or request.plan.judged is not None else step.owns(request.table)


class Computes(Protocol):
    """What computes the contributions of a silo: `Computer`, or `silo_node.killable.KillableComputer`."""

    def computed(self, request: Request, now: int) -> Computed:
        """Return what comes of a request, by the decisions on consent at `now`; raises any exception."""

    def contribution(self, request: Request, now: int) -> Vectors:
        """Return the vectors of a request, by the decisions on consent at `now`; raises any exception."""

    def load(self, kind: str, limit_s: float) -> None:
        """Import what a kind of computation needs; raises NotLoadedError if that is not over in time, or fails."""

    def read_ahead(self, request: Request, now: int) -> None:
        """Read the rows of a step of training before its first round, if they are kept; raises any exception."""

    def prepare(self, source: str) -> Made:
        """Make the store of a prepared source as its files are now. Raises SourceError."""

    def refresh(self) -> None:
        """Do before a request what needs not be done again before rows or decisions change; raises SourceError."""

    def wait(self) -> None:
        """Return once a request would not wait."""

    def close(self) -> None:
        """End what was started for computing."""


class Computer:
    """Computes the contributions of one silo on its own rows, in this process."""

    def __init__(
        self,
        policy: Policy,
        database: duckdb.DuckDBPyConnection,
        sources: Mapping[str, Source],
        decisions: Decisions | None,
        load_run: Callable[[bytes], RunState | None],
        reader: Reader | None = None,
        limit_s: float | None = None,
        forgotten: Forgotten = nobody,
        kept_bytes: int = KEPT_BYTES,
        apart: Apart | None = None,
        load_own: LoadOwn = lambda request: None,
    ) -> None:
        """`reader` answers from prepared sources, where the policy has some. `limit_s`: instead of the policy's.

        Rows of at most `kept_bytes` are kept from one round of a run to the next. Networks are computed `apart`, in a
        process of their own, or in this one.
        """
        self._apart, self._load_own = apart, load_own
        self._policy, self._database, self._sources = policy, database, sources
        self._decisions, self._load_run, self._reader = decisions, load_run, reader
        self._limit_s, self._forgotten = limit_s, forgotten
        self.runs = RunRows(policy, database, sources, decisions, forgotten, kept_bytes)

    def _limit(self, request: Request) -> float:
        return limit_seconds(self._policy, request) if self._limit_s is None else self._limit_s

    def load(self, kind: str, limit_s: float) -> None:
        """Import what a kind of computation needs; raises NotLoadedError if it is not there."""
        try:
            load_kind(kind)
        except ImportError as err:
            raise not_installed(kind) from err

    def read_ahead(self, request: Request, now: int) -> None:
        """Read the rows of a step of training before its first round, where they are kept."""
        if self._is_kept(request):
            self.runs.ahead(request, now, self._limit(request), split_of(request, self._load_run))

    def _is_kept(self, request: Request) -> bool:
        is_prepared = self._policy.sources[request.table.name].read == "prepared"
        is_kept = CONTRIBUTIONS[request.plan.kind].is_kept and request.plan.reads_rows
        return is_kept and not is_prepared and not request.table.beside

    def prepare(self, source: str) -> Made:
        """Make the store of a prepared source as its files are now. Raises SourceError."""
        if self._reader is None:
            raise SourceError(f"source {source!r} is not prepared", 'write read = "prepared" into the policy')
        with connect() as connection:  # of its own, as requests go on
            return self._reader.prepare(connection, source, int(time.time()))

    def refresh(self) -> None:
        """Do before a request what needs not be done again before rows or decisions change; raises SourceError."""
        try:
            if self._reader is not None:
                self._reader.refresh()
        except (duckdb.Error, OSError) as err:
            raise SourceError(f"the decisions on consent cannot be read ({str(err)[:200]})", "mend the file") from err

    def wait(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Drop what is kept; the connection is the caller's."""
        self.runs.close()

    def contribution(self, request: Request, now: int) -> Vectors:
        """Return the vectors of a request, by the decisions on consent at `now`; raises what the engine raises."""
        return self.computed(request, now).vectors

    def _rows(self, kind: ContributionKind, request: Request, now: int) -> Any:
        """Return what a kind takes of the rows of a request."""
        split, rows = split_of(request, self._load_run), None
        if not request.plan.reads_rows:
            pass
        elif self._reader is not None and self._policy.sources[request.table.name].read == "prepared":
            rows = kind.prepared(self._reader, request, now, self._limit(request), split)
        elif self._is_kept(request):
            kept = self.runs.of(request, now, self._limit(request), split)
            source = self._sources[request.table.name]
            rows = kind.read(Access(self._database, source, self._policy, None, kept=kept), request)
        else:
            rows = self._read(kind, request, now)
        return rows

    def computed(self, request: Request, now: int) -> Computed:
        """Return what comes of a request, by the decisions on consent at `now`; raises what the engine raises."""
        began = time.monotonic()
        kind = CONTRIBUTIONS[request.plan.kind]
        rows = self._rows(kind, request, now)
        step, judged = request.plan.training, check_judged(request, self._load_run)
        state = judged
        if step is not None:
            mine = self._load_run(step.run)
            check_position(mine, request)  # another round of the same step may have been learned meanwhile
            state = mine if judged is None else judged
        if network_of(request) is None:
            return Computed(kind.compute(request, rows, state))
        examples = rows.examples if isinstance(rows, Judgeable) else rows
        keeps, kept = keeps_of(request), self._load_own(request)
        behind = digest_of(examples) if keeps else None if kept is None else self.behind(kept, now)
        own = for_rows(kept, behind or b"")
        left_s = self._limit(request) - (time.monotonic() - began)
        work = Work(request, examples, state, self._policy.silo.id, own, keeps, packed_bytes(request))
        done = self._network(work, left_s)
        return Computed(done.vectors, done.own, behind)

    def behind(self, kept: KeptOwn, now: int) -> bytes:
        """Return the digest of the rows behind what the silo keeps, as they are now; empty where nothing is kept."""
        if not kept.request:
            return b""
        request = resolved(Request.decode(kept.request), compiled(self._policy).domains)
        rows: Examples = self._rows(CONTRIBUTIONS[request.plan.kind], request, now)
        return digest_of(rows)

    def _network(self, work: Work, left_s: float) -> Done:
        """Return what comes of a network's rows: in a process of its own, or in this one."""
        if self._apart is not None:
            return self._apart.contribution(work, left_s)
        from silo_node.training.networks import device

        declared = Compute() if self._policy.compute is None else self._policy.compute
        with device.on(declared.device):
            return computed(work)

    def _read(self, kind: ContributionKind, request: Request, now: int) -> Any:
        """Return what a kind reads of the rows as they are now."""
        policy, limit_s = self._policy, self._limit(request)
        first, *beside = (self._reading(name, request, now) for name in request.table.names)
        decisions = () if policy.purposes[request.purpose].consent == "none" else readings(self._decisions)
        with opened_within(self._database, (first.source, *(one.source for one in beside), *decisions), limit_s):
            read = self._database, first.source, policy, first.consent, self._forgotten, tuple(beside)
            return kind.read(Access(*read), request)

    def _reading(self, table: str, request: Request, now: int) -> Reading:
        """Return one of a request's tables with the columns that are used, and which of its rows count at `now`."""
        used = (request.table.origin(name) for names in request.plan.uses().values() for name in names)
        columns = (name for of, name in used if of == table)
        source = narrowed(self._policy, self._sources[table], request.purpose, columns)
        return Reading(source, row_filter(self._policy, source, request.purpose, now))
