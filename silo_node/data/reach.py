"""Whether a location can be read now, found before anything is charged: it is opened, and no row is read.

Promise: how long this takes, and what it finds, depends on no row. An error is a SourceError for the silo's owner.

One thing more is found before a charge: that a file which was put in the place of another makes the rows of a private
source those of an exact one. Then every request is refused until it is gone, as a start would be. That follows from
which files the owner put there; where two new ones have one size, the time to compare their bytes is seen once.
"""

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress

from policies.document.policy import Policy
from policies.requests.request import Request
from silo_node.data.apart import SameRowsError, check_apart, files_of
from silo_node.data.consent import Decisions
from silo_node.data.locations import DuckTable, Files, Location, connect
from silo_node.data.postgres import PostgresTable, types_of
from silo_node.data.sources import Source
from silo_node.data.watch import Stamp, stamp_of
from silo_node.errors import SourceError

REACH_TIMEOUT_S = 5.0  # of a server; a step of a round takes longer than that


class Reach:
    """What requests of a policy read, and whether it can be read now."""

    def __init__(self, policy: Policy, sources: Mapping[str, Source], decisions: Decisions | None) -> None:
        self._policy, self._sources, self._decisions = policy, sources, decisions
        self._apart = StillApart(policy, sources)

    def unreachable(self) -> list[str]:
        """Return what cannot be read now of all that the policy names, in words for the owner."""
        live = {f"sources.{name}": one.location for name, one in self._sources.items() if self._is_live(name)}
        if self._decisions is not None:
            live["consent"] = self._decisions.location
        found = []
        for what, location in live.items():
            try:
                check_reachable(what, location)
            except SourceError as err:
                found.append(err.message)
        try:
            self._apart.check()
        except SourceError as err:
            found.append(err.message)
        return found

    def _is_live(self, name: str) -> bool:
        return self._policy.sources[name].read != "prepared"

    def check(self, request: Request) -> None:
        """Raise SourceError unless the rows of a request, and the decisions on consent, can be read now."""
        for name in filter(self._is_live, request.table.names):  # else its age has been judged, and nothing is read
            check_reachable(f"sources.{name}", self._sources[name].location)
        if self._decisions is not None and self._policy.purposes[request.purpose].consent != "none":
            check_reachable("consent", self._decisions.location)
        self._apart.check()


class StillApart:
    """Whether private and exact sources have no rows in common, as `check_apart` has found when they were loaded.

    A table of a server does not say when it changed, so it is compared at a start only.
    """

    def __init__(self, policy: Policy, sources: Mapping[str, Source]) -> None:
        is_mixed = len({policy.sources[name].release for name in sources}) > 1
        self._policy, self._sources = policy, sources if is_mixed else {}
        self._found: tuple[Mapping[str, Stamp], SameRowsError | None] = self._stamps(), None

    def check(self) -> None:
        """Raise SameRowsError if files that lie there now are rows of both kinds; they are compared if one is new."""
        stamps, (seen, err) = self._stamps(), self._found
        if stamps != seen:
            # Of a file that is away nothing is read, and another rule refuses whoever needs it.
            there = {name: one for name, one in self._sources.items() if all(map(os.path.exists, files_of(one)))}
            err = None
            try:
                with connect() as connection:
                    check_apart(connection, self._policy, there)
            except SameRowsError as found:
                err = found
            self._found = stamps, err
        if err is not None:
            raise SameRowsError(err.message, err.hint)

    def _stamps(self) -> Mapping[str, Stamp]:
        return {name: stamp_of(source.location) for name, source in self._sources.items()}


def check_reachable(what: str, location: Location) -> None:
    """Raise SourceError, which begins with `what`, if a file is missing, closed or locked, or a server is silent."""
    match location:
        case Files():
            if not (files := location.files):
                raise SourceError(f"{what}: no file matches the pattern any more", "put one back")
            for file in files:
                os.close(_opened(what, file))
        case DuckTable():
            opened = _opened(what, location.file)
            try:
                fcntl.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as DuckDB does before it reads
            except OSError as err:
                hint = "another program writes it: let that end, or give the silo a copy"
                raise SourceError(f"{what}: {location.file} is locked", hint) from err
            finally:
                with suppress(OSError):
                    os.close(opened)
        case PostgresTable():
            try:
                types_of(location, REACH_TIMEOUT_S)
            except SourceError as err:
                raise SourceError(f"{what}: {err.message}", err.hint) from err


def _opened(what: str, file: str) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        hint = "put it back, and let the silo's user read it"
        raise SourceError(f"{what}: {file} cannot be opened ({err.strerror})", hint) from err
