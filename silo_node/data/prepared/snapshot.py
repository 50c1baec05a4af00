"""A snapshot: a complete store of one source, as one request reads it, and the rows of a range of its persons.

Persons are in the order of their codes, so a range of them is a partition by a keyed hash.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from silo_node.data.coded import Aspect, Rows, Run
from silo_node.data.prepared import segment
from silo_node.data.prepared.codes import Codes
from silo_node.data.prepared.manifest import Manifest
from silo_node.data.prepared.segment import Segment


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A complete store of one source, as one request reads it."""

    folder: str
    manifest: bytes
    domains: Mapping[str, Sequence[str]]  # the closed domains of its columns
    seen_at: int  # when its files were last seen unchanged, in seconds since 1970
    numbers: Sequence[int]  # of the segments
    segments: Sequence[Segment]
    places: Sequence[Any]  # for each segment, the place of each of its persons among all
    persons: Codes
    alike: Codes

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(one.rows for one in self.segments)

    def parts(self, most_rows: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of persons, each with about `most_rows` rows: persons are in the order of their codes."""
        count = max(1, -(-self.count // most_rows))
        bounds = np.linspace(0, len(self.persons), count + 1).astype(np.int64)
        yield from ((int(first), int(end)) for first, end in pairwise(bounds))

    def rows(self, first: int, end: int, keys: Sequence[tuple[Aspect, str]]) -> Rows:
        """Return the rows of the persons from `first` to before `end`, with some of their cells."""
        persons, runs, cells = [], [], []
        for number, one, places in zip(self.numbers, self.segments, self.places, strict=True):
            low, high = (int(place) for place in np.searchsorted(places, (first, end)))
            begin, stop = one.first_row(low), one.first_row(high)
            counts = np.diff(one.ends[low:high], prepend=begin)
            persons.append(np.repeat(places[low:high] - first, counts))
            runs.append(Run(number, begin, stop - begin))
            cells.append({key: segment.cut(one.cells[key], begin, stop) for key in keys})
        together = {key: segment.joined([one[key] for one in cells]) for key in keys}
        person = persons[0] if len(persons) == 1 else np.concatenate(persons)
        return Rows(person, end - first, tuple(runs), together, first)


def read_snapshot(folder: Path, manifest: Manifest, seen_at: int, domains: Mapping[str, Sequence[str]]) -> Snapshot:
    """Return the snapshot that a manifest names; raises OSError, ValueError or KeyError if it is not there.

    `domains` has the closed domains of the source's columns.
    """
    segments = [segment.read(folder / one.directory, domains) for one in manifest.segments]
    numbers = [one.number for one in manifest.segments]
    if manifest.index is None:
        places: list[Any] = [np.arange(len(one.persons)) for one in segments]
        persons, alike = segments[0].persons, segments[0].alike
    else:
        index = folder / manifest.index
        places = [segment.mapped(index, str(place)) for place in range(len(segments))]
        persons, alike = segment.read_persons(index)
    return Snapshot(str(folder), manifest.encode(), domains, seen_at, numbers, segments, places, persons, alike)
