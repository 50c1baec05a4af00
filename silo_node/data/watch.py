"""Files that change while a silo runs, checked again for the owner: what the next start would refuse is a warning now.

Promise: no answer, refusal or health that is seen outside depends on what is found here. A table of a server is not
watched, as it does not say when it changed; `consilo-silo doctor` reads it.
"""

import os
from collections.abc import Iterator, Mapping

from policies.document.policy import Policy
from silo_node.data.check import check_source
from silo_node.data.consent import Decisions, check_decisions
from silo_node.data.locations import DuckTable, Files, Location, connect
from silo_node.data.row_profile import source_alarms
from silo_node.data.sources import Source
from silo_node.errors import SourceError

Stamp = tuple[tuple[int, ...], ...]  # of each file its inode, its size, and when it and its inode were changed


class Watch:
    """What the files of a silo's sources and decisions were when they were looked at last."""

    def __init__(self, policy: Policy, sources: Mapping[str, Source], decisions: Decisions | None) -> None:
        self._policy, self._sources, self._decisions = policy, sources, decisions
        self._seen = dict(self._stamps())

    def look(self) -> list[str]:
        """Check what has changed since the last look; return a warning for each error, on one line."""
        stamps, warnings = dict(self._stamps()), list[str]()
        changed = [name for name, stamp in stamps.items() if self._seen.get(name) != stamp]
        self._seen = stamps
        for name in changed:
            try:
                with connect() as connection:
                    if name in self._sources:
                        cells = check_source(connection, self._policy, self._sources[name])
                        warnings += source_alarms(self._policy, name, cells)
                    elif self._decisions is not None:
                        check_decisions(connection, self._decisions)
            except SourceError as err:
                warnings += [f"{line} ({err.hint})" for line in err.message.splitlines()]
        return warnings

    def _stamps(self) -> Iterator[tuple[str, Stamp]]:
        for name, source in self._sources.items():
            yield name, stamp_of(source.location)
        if self._decisions is not None:
            yield "", stamp_of(self._decisions.location)  # no source has this name


def stamp_of_files(location: Location) -> Stamp:
    """Return `stamp_of` a location of plain files; empty for another, whose files do not tell of all that it reads."""
    return stamp_of(location) if isinstance(location, Files) else ()


def stamp_of(location: Location) -> Stamp:
    """Return what tells that the files of a location have changed; empty for a table of a server."""
    files: tuple[str, ...] = ()
    match location:
        case Files():
            files = location.files
        case DuckTable():
            files = (location.file, f"{location.file}.wal")
    found = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            found.append((0, 0, 0, 0))
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)
