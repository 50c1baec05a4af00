"""Exact families in this process: rows of several silos, and the rounds of a run without a sum, a policy or a wire."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.arrays import Of
from policies.requests.exact import ExactStep, Setting
from policies.requests.families import SHAPES, Task, check_task
from policies.requests.tables import Table, TableColumn
from policies.requests.training import START
from silo_node.training.family import Examples, Fitted, State
from silo_node.training.registry import FAMILIES

Columns = Mapping[str, npt.NDArray[Any]]


def number(name: str, low: int, high: int, step: str = "1") -> TableColumn:
    """Return a column of numbers; bounds are in steps."""
    return TableColumn(name=name, type="int" if step == "1" else "decimal", low=low, high=high, step=step)


def text(name: str, *values: str) -> TableColumn:
    """Return a column of a domain whose last value is the unknown one."""
    return TableColumn(name=name, type="string", domain=values, unknown=values[-1])


def array(name: str, of: Of, shape: tuple[int, ...], low: int, high: int, step: str = "1") -> TableColumn:
    """Return a column of arrays; bounds are in steps."""
    return TableColumn(name=name, type="array", of=of, shape=shape, low=low, high=high, step=step)


def truth(name: str) -> TableColumn:
    return TableColumn(name=name, type="bool", low=0, high=1, step="1")


def task(
    family: str,
    columns: Sequence[TableColumn],
    label: str | None,
    features: Sequence[str],
    parts: Mapping[str, str] | None = None,
    rounds: int = 30,
    **options: str,
) -> Task:
    """Return the first round of a run, checked as a request of it is."""
    step = ExactStep(
        run=bytes(16),
        step=0,
        steps=rounds,
        after=START,
        label=label,
        features=tuple(features),
        family=family,
        parts=tuple(Setting(name=name, value=column) for name, column in sorted((parts or {}).items())),
        options=tuple(Setting(name=name, value=value) for name, value in sorted(options.items())),
    )
    table = Table(name="rows", max_rows=1, max_silos=1, columns=tuple(columns))
    found = step.task(table)
    check_task(found)
    return found


def examples(of: Task, rows: Columns, missing: Mapping[str, npt.NDArray[np.bool_]] | None = None) -> Examples:
    """Return rows as a silo codes them: steps of numbers and arrays, 0 or 1 of bools, texts."""
    cells, arrays = {}, {}
    for column in of.table.columns:
        values = rows[column.name]
        if column.type == "array":
            arrays[column.name] = np.asarray(values) - (column.low or 0)
        elif column.domain:
            cells[column.name] = np.array([column.domain.index(one) for one in values], np.int64)
        else:
            steps = np.asarray(values, np.int64) - (column.low or 0)
            cells[column.name] = 2 * steps - column.range_steps
    count = len(next(iter((cells | arrays).values())))
    return Examples(np.arange(count), cells, missing or {}, arrays=arrays)


def divided(of: Examples, silos: int, seed: int = 1) -> list[Examples]:
    """Return the rows divided among silos, at random and unevenly."""
    whose = np.random.default_rng(seed).integers(0, silos * (silos + 1) // 2, of.rows)
    whose = np.minimum(np.sqrt(2 * whose).astype(int), silos - 1)
    return [part(of, np.flatnonzero(whose == silo)) for silo in range(silos)]


def part(of: Examples, places: npt.NDArray[np.int64]) -> Examples:
    return of.at(places)


def numbered(of: Task, number: int) -> Task:
    """Return a later round of the same run."""
    from dataclasses import replace

    return replace(of, number=number)


def summed(of: Task, state: State, silos: Sequence[Examples]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the sum of the silos' blocks by name, each of the length that its shape states."""
    parts = [FAMILIES[of.family].statistics(of, state, silo) for silo in silos]
    shape = SHAPES[of.family].blocks(of)
    for own in parts:
        assert [block.shape for block in own] == [(length,) for length in shape.values()]
        assert {block.dtype for block in own} == {np.dtype(np.int64)}
    return {name: sum(own[place] for own in parts) for place, name in enumerate(shape)}  # type: ignore[misc]


def run(of: Task, silos: Sequence[Examples]) -> tuple[State, Fitted, int]:
    """Run a family to its end, or as many rounds as are planned; return the state, its meaning and the rounds."""
    family, state = FAMILIES[of.family], FAMILIES[of.family].init(of)
    for count in range(of.rounds):
        own = numbered(of, count)
        state = family.update(own, state, summed(own, state, silos))
        if state.ended is not None:
            return state, family.finish(own, state), count + 1
    return state, family.finish(of, state), of.rounds
