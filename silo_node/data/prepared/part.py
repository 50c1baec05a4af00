"""A question on prepared rows, cut into parts that several processes, or machines, answer at once.

Promise: all parts have one snapshot, one secret for their lots and one judgement of every person, so their figures add
up to those of one process, to the bit, however often a part is answered again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from policies.requests.request import Request
from silo_node.data import answer
from silo_node.data.coded import Aspect, Bools, Rows
from silo_node.data.lots import Lots
from silo_node.data.prepared.manifest import Manifest
from silo_node.data.prepared.segment import BROKEN
from silo_node.data.prepared.snapshot import Snapshot, read_snapshot
from silo_node.data.statements import contributed
from silo_node.errors import SourceError


@dataclass(frozen=True)
class Question:
    """What every part of a question needs. It names the store by its path, which each machine must have."""

    folder: str
    manifest: bytes
    domains: Mapping[str, Sequence[str]]  # of the columns that are read
    request: Request
    keys: tuple[tuple[Aspect, str], ...]
    max_groups: int | None
    consent: str | None  # the column that says which rows may be used
    time: tuple[str, int] | None  # the column that says how old a row is, and the first day that counts
    secret: bytes = field(repr=False)

    def part(self, first: int, end: int, is_in: Bools | None, snapshot: Snapshot | None = None) -> answer.Vectors:
        """Return the contribution of the persons at the places `first` to `end` - 1. `is_in` marks persons; None: all.

        `snapshot` is the one of this question, where it is open already. Raises SourceError.
        """
        rows = self.rows(first, end, snapshot)
        theirs = None if is_in is None else is_in[first:end]
        return contributed(rows, self.request, theirs, Lots(self.secret), self.max_groups)

    def rows(self, first: int, end: int, snapshot: Snapshot | None = None) -> Rows:
        """Return the rows of these persons, with a mark of those that may be used. Raises SourceError."""
        rows, masks = (snapshot or self.snapshot).rows(first, end, self.keys), []
        if self.consent is not None:
            masks.append(rows.members(self.consent).codes == 1)
        if self.time is not None:
            name, since = self.time
            masks.append(rows.numbers(name, "day").whole >= since)
        return rows.usable(np.logical_and.reduce(masks)) if masks else rows

    @property
    def snapshot(self) -> Snapshot:
        """The rows as they were when the question was made; raises SourceError if they are not there any more."""
        manifest = Manifest.decode(self.manifest)
        try:
            if manifest is None:
                raise ValueError
            return read_snapshot(Path(self.folder), manifest, 0, self.domains)
        except BROKEN as err:
            hint = "every machine of the cluster needs the silo's directory under the same path"
            raise SourceError(f"the store {self.folder} is not there ({type(err).__name__})", hint) from err
