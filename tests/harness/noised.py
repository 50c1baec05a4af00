"""Families with noise in this process: the silos' own functions, the noise that they draw, and what all compute of it.

The real parts of a run but its wire: the extents and variances of `policies`, the sums of `silo_node.training.noised`,
the noise of `crypto.noise` at the variance of each silo, in ring units, and the update of the opened sum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from crypto.noise import discrete_gaussian
from crypto.rounds.bounds import noise_shares
from policies.budget.accountant import micro_rho_of
from policies.requests.calibration import check_price, spreads_of
from policies.requests.exact import Setting
from policies.requests.families import Task
from policies.requests.noised import NoisedStep
from policies.requests.noised_families import MOMENTS, NOISED_SHAPES, ROUNDS
from policies.requests.tables import Table, TableColumn
from policies.requests.training import START
from silo_node.training.family import Examples, Fitted, State
from silo_node.training.noised.family import Noisy
from silo_node.training.noised.registry import NOISED_FAMILIES

DELTA = 1e-5
Draw = Callable[[int, int, int], npt.NDArray[np.int64]]


def quickly(seed: int) -> Draw:
    """Return noise of the same variance from a seeded generator, for tests of many runs."""
    numbers = np.random.default_rng(seed)
    return lambda length, variance, shares: np.rint(
        numbers.normal(0, np.sqrt(variance / shares), length)
    ).astype(np.int64)  # fmt: skip


def nothing(length: int, variance: int, shares: int) -> npt.NDArray[np.int64]:
    return np.zeros(length, np.int64)


def step(
    family: str, columns: Sequence[TableColumn], label: str, features: Sequence[str], rounds: int | None = None,
    parts: Mapping[str, str] | None = None, max_rows: int = 1, **options: str,
) -> tuple[NoisedStep, Table]:  # fmt: skip
    """Return the first round of a run and its table, checked as a request of them is."""
    found = NoisedStep(
        run=bytes(16),
        step=0,
        steps=rounds or (1 if options.get("method") == MOMENTS else ROUNDS),
        after=START,
        label=label,
        features=tuple(features),
        family=family,
        parts=tuple(Setting(name=name, value=column) for name, column in sorted((parts or {}).items())),
        options=tuple(Setting(name=name, value=value) for name, value in sorted(options.items())),
    )
    table = Table(name="rows", max_rows=max_rows, max_silos=1, columns=tuple(columns))
    found.check(table, "masking")
    return found, table


def at(of: NoisedStep, number: int) -> NoisedStep:
    """Return a later round of the same run."""
    return of.model_copy(update={"step": number, "after": bytes([1] * 32) if number else START})


def opened(
    of: NoisedStep, table: Table, state: State, silos: Sequence[Examples], micro_rho: int, draw: Draw
) -> dict[str, Noisy]:
    """Return the opened sum of a round by block, with the noise of each silo; one in a whole may collude."""
    task, shares = of.task(table), noise_shares(len(silos), 1, 0)
    parts = [NOISED_FAMILIES[of.family].statistics(task, state, silo) for silo in silos]
    found = {}
    check_price(table, of, micro_rho)
    for place, (statistic, spread) in enumerate(spreads_of(table, of, micro_rho).items()):
        units = np.zeros(of.statistics(table)[statistic].length, np.int64)
        for own in parts:
            assert (own[place].shape, own[place].dtype) == (units.shape, np.dtype(np.int64))
            units += (own[place] << spread.scale_bits) + draw(len(units), spread.variance, shares)
        deviation = np.ldexp(np.sqrt(spread.variance * len(silos) / shares), -spread.scale_bits)
        found[statistic.kind] = Noisy(np.ldexp(units.astype(np.float64), -spread.scale_bits), float(deviation))
    assert list(found) == list(NOISED_SHAPES[of.family].blocks(task))
    return found


def run(
    of: NoisedStep, table: Table, silos: Sequence[Examples], epsilon: float, draw: Draw = discrete_gaussian
) -> tuple[Task, State, Fitted]:
    """Run a family to its last round; return the task of it, the state and what owners see."""
    family, micro_rho = NOISED_FAMILIES[of.family], micro_rho_of(epsilon, DELTA) // of.steps
    state, task = family.init(of.task(table)), of.task(table)
    for number in range(of.steps):
        task = replace(task, number=number)
        state = family.update(task, state, opened(at(of, number), table, state, silos, micro_rho, draw))
        if state.ended is not None:
            break
    return task, state, family.finish(task, state)
