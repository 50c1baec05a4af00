"""A segment: the rows of one file as arrays on disk, a file for each, in the order of their persons' codes.

    persons.npy   codes of the persons, in order, of shape (persons, 2)
    alike.npy     codes of their ids in the loosest form
    ends.npy      for each person, the number of rows of all persons up to this one
    0.codes.npy   the arrays of the first column, and so on; meta.json says what they are

Promise: a segment that is named by a manifest is complete, and never changes.
"""

import json
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federation.files import sync_directory
from silo_node.data import arrays as wide
from silo_node.data.arrays import Arrays
from silo_node.data.coded import Aspect, Bools, Cells, Integers, Members, Numbers, Rows, Steps
from silo_node.data.prepared.codes import Codes, in_order, inverse

_META = "meta.json"
# What reading a damaged segment can raise.
BROKEN = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError, EOFError)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A segment as it lies on disk; its arrays are mapped, not read."""

    persons: Codes
    alike: Codes
    ends: Integers
    cells: Mapping[tuple[Aspect, str], Cells]

    @property
    def rows(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def first_row(self, person: int) -> int:
        """Return the number of the first row of a person, by the person's place in this segment."""
        return int(self.ends[person - 1]) if person else 0


def write(directory: Path, rows: Rows, codes: Codes, alike: Codes, is_out: Bools, domains: Container[str]) -> None:
    """Write the rows of persons with these codes into a new directory, without those who are out; raises OSError.

    `domains` names the columns with a closed domain, whose values are not written.
    """
    directory.mkdir(mode=0o700)
    order = in_order(codes)
    order = order[~is_out[order]]
    person = inverse(order, len(codes))[rows.person]
    # Each row becomes one word, because numpy sorts plain words fastest. Rows of persons who are out come last.
    words = person.astype(np.uint64)
    words <<= np.uint64(32)
    words |= np.arange(len(person), dtype=np.uint64)
    words.sort()
    words &= np.uint64(2**32 - 1)
    is_out_row = person < 0
    by_person = words.view(np.int64)[: len(person) - np.count_nonzero(is_out_row)]
    save(directory, "persons", codes[order])
    save(directory, "alike", alike[order])
    counted = person[~is_out_row] if len(by_person) < len(person) else person
    save(directory, "ends", np.cumsum(np.bincount(counted, minlength=len(order))))
    described = []
    for index, ((aspect, name), cells) in enumerate(rows.cells.items()):
        arrays, meta = _taken_apart(cells, aspect != "text" and name in domains)
        for part, array in arrays.items():
            save(directory, f"{index}.{part}", array[by_person])
        described.append({"aspect": aspect, "column": name, "arrays": sorted(arrays), **meta})
    with (directory / _META).open("x") as file:
        json.dump(described, file)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)


def read(directory: Path, domains: Mapping[str, Sequence[str]]) -> Segment:
    """Return a segment, whose columns with a closed domain have it from `domains`.

    Raises one of BROKEN if it is none.
    """
    cells: dict[tuple[Aspect, str], Cells] = {}
    for index, one in enumerate(json.loads((directory / _META).read_bytes())):
        arrays = {part: mapped(directory, f"{index}.{part}") for part in one["arrays"]}
        cells[one["aspect"], one["column"]] = _put_together(one, arrays, domains)
    return Segment(mapped(directory, "persons"), mapped(directory, "alike"), mapped(directory, "ends"), cells)


def read_persons(directory: Path) -> tuple[Codes, Codes]:
    """Return the codes of a segment's persons, and of their ids in the loosest form; raises OSError or ValueError."""
    return mapped(directory, "persons"), mapped(directory, "alike")


def cut(cells: Cells, first: int, end: int) -> Cells:
    """Return the cells of some rows that follow each other."""
    match cells:
        case Members():
            return Members(cells.codes[first:end], cells.texts)
        case Steps():
            return Steps(cells.cells[first:end], cells.low, cells.range_steps)
        case Numbers():
            return Numbers(cells.whole[first:end], None if cells.nanos is None else cells.nanos[first:end])
        case Arrays():
            return cells.at(slice(first, end))


def joined(parts: Sequence[Cells]) -> Cells:
    """Return the cells of several segments as those of one; texts that differ are taken together."""
    if len(parts) == 1:
        return parts[0]
    match parts[0]:
        case Members():
            return _members_joined([one for one in parts if isinstance(one, Members)])
        case Steps(low=low, range_steps=range_steps):
            return Steps(np.concatenate([one.cells for one in parts if isinstance(one, Steps)]), low, range_steps)
        case Numbers():
            numbers = [one for one in parts if isinstance(one, Numbers)]
            nanos = [one.nanos for one in numbers if one.nanos is not None]
            return Numbers(np.concatenate([one.whole for one in numbers]), np.concatenate(nanos) if nanos else None)
        case Arrays():
            return wide.joined([one for one in parts if isinstance(one, Arrays)])


def _members_joined(parts: Sequence[Members]) -> Members:
    if all(one.texts == parts[0].texts for one in parts):
        return Members(np.concatenate([one.codes for one in parts]), parts[0].texts)
    texts = {text: None for one in parts for text in one.texts}
    places = {text: place for place, text in enumerate(texts)}
    mapped = [np.array([*(places[text] for text in one.texts), -1], np.int32)[one.codes] for one in parts]
    return Members(np.concatenate(mapped), tuple(texts))


def _taken_apart(cells: Cells, has_domain: bool) -> tuple[dict[str, npt.NDArray[Any]], dict[str, object]]:
    match cells:
        case Members():
            return {"codes": cells.codes}, {"texts": None if has_domain else list(cells.texts)}
        case Steps():
            return {"cells": cells.cells}, {"low": cells.low, "range_steps": cells.range_steps}
        case Numbers():
            return {"whole": cells.whole} | ({} if cells.nanos is None else {"nanos": cells.nanos}), {}
        case Arrays():
            arrays = {"steps": cells.steps, "there": cells.is_there}
            return arrays, {"low": cells.low, "range_steps": cells.range_steps}


def _put_together(
    meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], domains: Mapping[str, Sequence[str]]
) -> Cells:
    if "codes" in arrays:
        texts = meta["texts"]
        return Members(arrays["codes"], domains[meta["column"]] if texts is None else tuple(texts))
    if "cells" in arrays:
        return Steps(arrays["cells"], meta["low"], meta["range_steps"])
    if "steps" in arrays:
        return Arrays(arrays["steps"], arrays["there"], meta["low"], meta["range_steps"])
    return Numbers(arrays["whole"], arrays.get("nanos"))


def save(directory: Path, name: str, array: npt.NDArray[Any]) -> None:
    """Write an array of a segment, or of an index, durably; raises OSError."""
    with (directory / f"{name}.npy").open("xb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def mapped(directory: Path, name: str) -> npt.NDArray[Any]:
    """Return an array of a segment, or of an index; raises OSError, ValueError or EOFError."""
    found: npt.NDArray[Any] = np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return found
