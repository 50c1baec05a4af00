"""A model is judged in blocks of rows: the sums are those of all rows at once."""

from typing import Any

import numpy as np
import pytest
import torch

from policies.requests.request import Request
from silo_node.training import judging
from silo_node.training.family import Examples
from silo_node.training.grid import Integers
from silo_node.training.judging import audited, judged
from silo_node.training.run import RunState
from tests.rounds.computation_examples import EXAMPLES
from tests.rounds.test_computations import states

pytestmark = [pytest.mark.torch, pytest.mark.slow]
ROWS = 50


def rows_of(request: Request) -> Examples:
    """Return rows with a cell in each column that a request reads; three of each person."""
    numbers, cells, arrays = np.random.default_rng(4), {}, dict[str, Any]()
    for name in {one for names in request.plan.uses().values() for one in names}:
        column = request.table.column(name)
        if column.type == "array":
            arrays[name] = numbers.integers(0, column.range_steps + 1, (ROWS, *column.shape)).astype(np.uint16)
        elif column.domain:
            known = [place for place, value in enumerate(column.domain) if value != column.unknown]
            cells[name] = np.array(known)[numbers.integers(0, len(known), ROWS)]
        else:
            width = 1 if column.type == "bool" else column.range_steps
            cells[name] = 2 * numbers.integers(0, width + 1, ROWS) - width
    return Examples(np.arange(ROWS) // 3, cells, arrays=arrays)


def sums(request: Request, rows: Examples, state: RunState | None) -> list[Integers]:
    if request.plan.kind == "evaluation":
        return judged(request, rows, state, "north")
    return audited(request, rows, state)


def test_sums_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    compared = 0
    for asked in (*EXAMPLES["evaluation"], *EXAMPLES["audit-step"]):
        if getattr(asked.plan, "groups", ()):
            continue
        (state,) = states(asked)
        rows = rows_of(asked)
        at_once = sums(asked, rows, state)
        with monkeypatch.context() as patched:
            patched.setattr(judging, "MOST_SCORES", 7)
            in_blocks = sums(asked, rows, state)
        assert len(at_once) == len(in_blocks) > 0
        assert all(np.array_equal(one, other) for one, other in zip(at_once, in_blocks, strict=True)), asked.plan
        assert any(one.any() for one in at_once)
        compared += 1
    assert compared > 15
