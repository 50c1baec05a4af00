"""Keeps the prepared sources of a running silo up to date, outside of requests and of the actor's lock.

Promise: a request never waits for it, and what it finds changes no answer but by the age of the rows.
"""

import threading
from collections.abc import Callable, Mapping
from logging import Logger
from pathlib import Path
from typing import Protocol

from policies.document.policy import Policy
from silo_node.data.locations import Files
from silo_node.data.prepared.store import FOLDER, Made, Store
from silo_node.data.sources import Source
from silo_node.errors import SourceError
from silo_node.ledger.events import KeptInForce

LOOK_S = 60.0  # the longest time between two looks
END_S = 10.0  # how long an actor that is closed waits for the last one
_LOOKS = 4  # in the time for which a prepared source is used


class Names(Protocol):
    """The ledger, as far as it names what the silo keeps."""

    def kept(self) -> Mapping[str, KeptInForce]:
        """Return the version in force of everything that the silo keeps itself, by name."""

    def put_in_force(self, new: KeptInForce) -> None:
        """Log that the silo answers by this version from now on."""


def keeper_of(
    policy: Policy,
    home: Path,
    sources: Mapping[str, Source],
    clock: Callable[[], float],
    log: Logger,
    prepare: Callable[[str], Made],
    ledger: Names,
) -> "Keeper | None":
    """Prepare what a policy says is prepared; return what keeps it so, None if there is nothing. Raises SourceError.

    A store of a source that is not prepared any more goes.
    """
    prepared = {name: source for name, source in sources.items() if policy.sources[name].read == "prepared"}
    if not prepared:
        if (home / FOLDER).exists():
            Store(policy, home, ledger.kept).keep_only(())
        return None
    store = Store(policy, home, ledger.kept)
    store.keep_only(prepared)

    keeper = Keeper(store, prepared, clock, log, prepare, ledger)
    keeper.start({name: policy.sources[name].prepared_s for name in prepared})
    return keeper


class Keeper:
    """A thread that looks for changed files, and prepares their sources again."""

    def __init__(
        self,
        store: Store,
        sources: Mapping[str, Source],
        clock: Callable[[], float],
        log: Logger,
        prepare: Callable[[str], Made],
        ledger: Names,
    ) -> None:
        """`prepare` makes the store of a source, by its name, as its files are now."""
        self._store, self._sources, self._clock, self._log = store, dict(sources), clock, log
        self._prepare, self._ledger = prepare, ledger
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self, lasts: Mapping[str, int]) -> None:
        """Prepare at once, and then look several times in the shortest time for which a source is used, in seconds."""
        self._lasts, self._every_s = lasts, min(LOOK_S, min(lasts.values()) / _LOOKS)
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Begin no further look."""
        self._stopping.set()
        self._woken.set()

    def wait(self) -> None:
        """Wait until the last look has ended, as it reads the ledger: for `END_S` at most."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(END_S)

    def wake(self) -> None:
        """Look now, in the thread."""
        self._woken.set()

    def rows_at(self, table: str) -> int | None:
        """Return when the files of a source were last seen as they were prepared; None without a complete store."""
        source = self._sources[table]
        if self._store.is_current(source):
            return int(self._clock())
        if isinstance(source.location, Files):
            self.wake()
        return self._store.seen_at(source)

    def version(self, table: str) -> int:
        """Return a number that changes with what is prepared of a source."""
        return self._store.version(table)

    def look(self) -> None:
        """Prepare what has changed; an error goes to the owner's log, and the old store stays."""
        for source in self._sources.values():
            if self._is_fresh(source):
                continue
            try:
                if self._store.is_lost(source):
                    self._log.warning(
                        "source %s: its prepared rows are not those that the log names, so it is prepared anew",
                        source.name,
                    )
                made = self._prepare(source.name)
                self._store.put_in_force(source, made.store, self._ledger.put_in_force)
                if made.read:
                    self._log.info("source %s: %d files prepared", source.name, made.read)
            except SourceError as err:
                hint = f" ({err.hint})" if err.hint else ""
                self._log.error("source %s is not prepared: %.800s", source.name, f"{err.message}{hint}")
            except Exception:
                self._log.exception("source %s is not prepared", source.name)

    def _is_fresh(self, source: Source) -> bool:
        """Tell whether a source that does not say when it changes was read not long ago."""
        if isinstance(source.location, Files):
            return False
        seen_at = self._store.seen_at(source)
        return seen_at is not None and 0 <= self._clock() - seen_at < self._lasts[source.name] / 2

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.wait(self._every_s)
            self._woken.clear()
            if not self._stopping.is_set():
                self.look()
