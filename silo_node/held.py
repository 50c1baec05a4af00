"""The rows and decisions that a silo holds: checked, watched, prepared where the policy says so, computed on."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING

from policies.document.policy import Policy
from policies.document.purposes import ConsentTable
from policies.requests.request import Request
from silo_node.data.check import load_sources
from silo_node.data.compute import Computer, LoadOwn, has_private_training, to_load
from silo_node.data.consent import load_consent
from silo_node.data.locations import connect
from silo_node.data.prepared.forgotten import check_forgotten, forgotten_among
from silo_node.data.prepared.keeper import Keeper, Names, keeper_of
from silo_node.data.prepared.reader import prepared_reader
from silo_node.data.reach import Reach
from silo_node.data.watch import Stamp, Watch, stamp_of, stamp_of_files
from silo_node.errors import NotLoadedError, SourceError
from silo_node.home import Home
from silo_node.killable import KillableComputer, limits_of
from silo_node.rounds.proposal import Freshness, oldest
from silo_node.spread import SpreadComputer
from silo_node.timed import TimedComputing
from silo_node.training.run import RunState

if TYPE_CHECKING:
    from silo_node.data.compute import Computes


LOAD_LATER_S = 15.0  # of the 30 s of a step, where a silo comes into a run in its middle, or its files change
START_LOAD_S = 20.0
RUNS_LOADED = 16
SPREAD_ROWS = 1 << 24  # from here on a question is spread, where the policy does not say


def _spread_from(policy: Policy, *, is_spread: bool) -> int:
    declared = None if policy.compute is None else policy.compute.partition_rows
    if is_spread:
        return 0
    return SPREAD_ROWS if declared is None else declared


class HeldData:
    """A silo's data. DuckDB is slow to import, so this module is imported only where a silo runs."""

    def __init__(
        self,
        home: Home,
        policy_path: Path,
        load_run: Callable[[bytes], RunState | None],
        log: Logger,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        silos: int | None,
        is_spread: bool,
        ledger: Names,
        load_own: LoadOwn,
    ) -> None:
        """Check every source and the decisions; raises SourceError. `start` is next.

        With `silos`, the number of silos that share this machine, it computes in a process of its own, which is killed
        when it exceeds its limits, and spreads questions on many prepared rows over its cluster; with `is_spread` all.
        """
        self._policy = policy = home.silo.policy
        self._database, self._clock = connect(), clock
        self._keeper: Keeper | None = None
        self._kept_by = policy, home.path, clock, log, ledger
        try:
            self._check_forgotten = partial(check_forgotten, policy, home.path, ledger.kept)
            self._check_forgotten()
            self._sources = load_sources(self._database, policy, home.path, log.warning)
            self._decisions = load_consent(self._database, policy, home.path)
            held = self._database, self._sources, self._decisions
            reader = prepared_reader(policy, home.path, *held, ledger.kept)
            computer: Computes
            if silos is None:
                forgotten = partial(forgotten_among, policy, home.path, ledger.kept)
                computer = Computer(policy, *held, load_run, reader, forgotten=forgotten, load_own=load_own)
            else:
                killable = KillableComputer(
                    home.policy, policy_path, limits_of(policy, silos), load_run, ledger.kept, log.warning, load_own
                )
                computer = killable
                if reader is not None:
                    computer = SpreadComputer(killable, policy, reader, _spread_from(policy, is_spread=is_spread))
            self.computing = TimedComputing(policy, computer, home.tick_s, sleep, log)
        except Exception:
            self._database.close()
            raise
        self._read: tuple[tuple[str, int, Stamp], ...] = ()  # the rows and decisions that requests were about last
        self._loaded: tuple[tuple[bytes, Stamp], ...] = ()  # the runs that were loaded last, and their files
        self._reach = Reach(policy, self._sources, self._decisions)
        self._watch = Watch(policy, self._sources, self._decisions)

    def start(self) -> None:
        """Prepare what the policy says is prepared, and keep it so; raises SourceError."""
        policy, home, clock, log, ledger = self._kept_by
        self._keeper = keeper_of(policy, home, self._sources, clock, log, self.computing.computer.prepare, ledger)

    def close(self) -> None:
        """End what computes and prepares."""
        if self._keeper is not None:
            self._keeper.stop()
        self.computing.computer.close()
        if self._keeper is not None:
            self._keeper.wait()
        self._database.close()

    def check_reach(self, request: Request) -> None:
        """Raise SourceError unless what a request reads can be read now, and read decisions that have changed.

        That they cannot be read, the request finds again: it is never refused for what they hold.
        """
        self._reach.check(request)
        self._check_forgotten()
        is_prepared = self._policy.sources[request.table.name].read == "prepared"
        if is_prepared and self._decisions is not None and self._policy.purposes[request.purpose].consent != "none":
            location = self._decisions.location
            version = 0 if self._keeper is None else self._keeper.version(request.table.name)
            read = request.table.name, version, stamp_of_files(location)
            if read not in self._read:
                self._read = (read, *self._read[: len(self._sources) - 1])
                with suppress(SourceError):
                    self.computing.refresh()
        if request.plan.training is not None:
            self._load(request)

    def _load(self, request: Request) -> None:
        """Load what a run needs before its first round here, and again when the files of its rows are others.

        Raises NotLoadedError.
        """
        step, table = request.plan.training, request.table.name
        if not request.plan.reads_rows:
            return
        loaded = (b"" if step is None else step.run), stamp_of(self._sources[table].location)
        if loaded not in self._loaded:
            self.computing.load(request, int(self._clock()), request.loads_s or LOAD_LATER_S)
            self._loaded = (loaded, *self._loaded[: RUNS_LOADED - 1])

    def wait(self) -> None:
        """Return once a request would not wait, nor a step of training that the policy opens on private sources.

        An import that lasts for long goes on without.
        """
        self.computing.computer.wait()
        if has_private_training(self._policy):
            for kind in to_load(self._policy):
                with suppress(NotLoadedError):
                    self.computing.computer.load(kind, START_LOAD_S)

    def unreachable(self) -> list[str]:
        """Return what cannot be read now, in words for the owner; no row is read."""
        return self._reach.unreachable()

    def changes(self) -> list[str]:
        """Return a warning for each error in what has changed since the last look."""
        return self._watch.look()

    def fresh(self, *tables: str) -> Freshness:
        """Return since when what sources are read from may be out of date: the oldest of them."""
        return oldest([self._fresh(table) for table in tables])

    def _fresh(self, table: str) -> Freshness:
        source = self._policy.sources.get(table)
        if self._keeper is None or source is None or source.read != "prepared":
            return Freshness(self.feed_at(table), None)
        return Freshness(self.feed_at(table), self._keeper.rows_at(table))

    def feed_at(self, table: str) -> int | None:
        """Return when the decisions on consent for a source were written; None if nobody can say."""
        if isinstance(self._policy.consent, ConsentTable):
            return None if self._decisions is None else self._decisions.written_at()
        source = self._sources.get(table)
        return None if source is None else source.location.written_at()
