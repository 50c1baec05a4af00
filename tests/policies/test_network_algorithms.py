"""Each algorithm beside a plain reading of its paper, equal to the last bit at all recipients, and where it leads."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from policies.networks.algorithms.algorithm import CONTROL, UPDATE, Held, Local, Options, Sums, Vector
from policies.networks.algorithms.registry import ALGORITHMS

COUNT = 7
QUICK = {"fedadam": {"server_rate": "0.3"}, "fedyogi": {"server_rate": "0.3"}}


def options_of(name: str, **more: str) -> Options:
    return {one: option.default for one, option in ALGORITHMS[name].options.items()} | {"personal": ""} | more


def rounds_of(name: str, seed: int, number: int = 12) -> Iterator[Sums]:
    draw = np.random.default_rng(seed)
    for place in range(number):
        means = {one: draw.normal(size=COUNT) * 10.0 ** draw.integers(-6, 2) for one in ALGORITHMS[name].sums}
        yield Sums(means, rows=90.0, share=float(draw.choice([1.0, 0.25])), number=place)


def after(name: str, options: Options, weights: Vector, rounds: Iterator[Sums]) -> list[Held]:
    found = [ALGORITHMS[name].init(options, weights)]
    for sums in rounds:
        found.append(ALGORITHMS[name].apply(options, found[-1], sums))
    return found


# A plain reading of each paper: number by number, in Python.


def read_average(options: Options, weights: list[float], rounds: list[Sums]) -> list[float]:
    for sums in rounds:
        weights = [w + float(options["server_rate"]) * d for w, d in zip(weights, sums.means[UPDATE], strict=True)]
    return weights


def read_adaptive(options: Options, weights: list[float], rounds: list[Sums], *, is_yogi: bool) -> list[float]:
    """Reddi et al., algorithm 2: lines 9 to 13."""
    rate, beta1, beta2, tau = (float(options[name]) for name in ("server_rate", "beta1", "beta2", "tau"))
    first, second = [0.0] * len(weights), [tau**2] * len(weights)
    for sums in rounds:
        change = sums.means[UPDATE].tolist()
        first = [beta1 * m + (1 - beta1) * d for m, d in zip(first, change, strict=True)]
        if is_yogi:
            signs = [math.copysign(1, v - d**2) if v != d**2 else 0 for v, d in zip(second, change, strict=True)]
            second = [v - (1 - beta2) * d**2 * sign for v, d, sign in zip(second, change, signs, strict=True)]
        else:
            second = [beta2 * v + (1 - beta2) * d**2 for v, d in zip(second, change, strict=True)]
        weights = [w + rate * m / (math.sqrt(v) + tau) for w, m, v in zip(weights, first, second, strict=True)]
    return weights


AVERAGES = ("fedavg", "fedprox", "scaffold", "ditto", "fedper", "fedbn", "adapters", "fine-tuning")
READINGS = {
    **dict.fromkeys(AVERAGES, read_average),
    "fedadam": lambda *read: read_adaptive(*read, is_yogi=False),
    "fedyogi": lambda *read: read_adaptive(*read, is_yogi=True),
}


@pytest.mark.parametrize("name", READINGS)
def test_apply_is_what_the_paper_says(name: str) -> None:
    for seed in range(20):
        options, rounds = options_of(name), list(rounds_of(name, seed))
        weights = np.random.default_rng(seed).normal(size=COUNT)
        found = after(name, options, weights, iter(rounds))[-1].weights
        read = READINGS[name](options, weights.tolist(), rounds)
        np.testing.assert_allclose(found, read, rtol=1e-12, atol=1e-15)


def test_the_control_of_scaffold_is_the_mean_of_all_controls() -> None:
    """Algorithm 1, line 17, with silos of unlike rows, of which two take part at a time."""
    draw, rows = np.random.default_rng(3), np.array([10.0, 30.0, 60.0])
    controls, held = np.zeros((3, COUNT)), ALGORITHMS["scaffold"].init(options_of("scaffold"), np.zeros(COUNT))
    for number in range(8):
        present = sorted(draw.permutation(3)[:2])
        new = controls.copy()
        new[present] = draw.normal(size=(2, COUNT))
        share = rows[present].sum() / rows.sum()
        mean = rows[present] @ (new - controls)[present] / rows[present].sum()
        controls = new
        means = {UPDATE: np.zeros(COUNT), CONTROL: mean}
        held = ALGORITHMS["scaffold"].apply(options_of("scaffold"), held, Sums(means, 1.0, share, number))
        np.testing.assert_allclose(held.more[CONTROL], rows @ controls / rows.sum(), atol=1e-14)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_recipients_have_the_same_to_the_last_bit(name: str) -> None:
    """Wherever the numbers lie in memory, and whether they are one after another."""

    def elsewhere(vector: Vector) -> Vector:
        far = np.full(3 * len(vector) + 1, np.nan)
        far[1::3] = vector
        return far[1::3]

    weights = np.random.default_rng(5).normal(size=COUNT)
    moved = (
        Sums({one: elsewhere(mean) for one, mean in sums.means.items()}, sums.rows, sums.share, sums.number)
        for sums in rounds_of(name, 9)
    )
    here = after(name, options_of(name), weights, rounds_of(name, 9))
    there = after(name, options_of(name), elsewhere(weights), moved)
    for one, other in zip(here, there, strict=True):
        assert one.weights.tobytes() == other.weights.tobytes()
        assert one.more.keys() == other.more.keys()
        assert all(one.more[key].tobytes() == other.more[key].tobytes() for key in one.more)
        assert all(len(vector) == COUNT and np.isfinite(vector).all() for vector in one.more.values())


# Whole trainings: silo i has the loss (x - centre)' curve (x - centre) / 2, and takes `STEPS` steps at `RATE`.


@dataclass(frozen=True)
class Quadratic:
    curve: Vector
    centre: Vector
    rows: float

    def slope(self, at: Vector) -> Vector:
        return np.asarray(self.curve @ (at - self.centre))


RATE, STEPS = 0.05, 20


def unlike_silos() -> list[Quadratic]:
    draw, found = np.random.default_rng(1), []
    for rows in (10.0, 20.0, 30.0, 40.0):
        root = draw.normal(size=(3, 3))
        curve = root @ root.T / np.linalg.norm(root @ root.T, 2) * draw.uniform(1, 6) + 0.1 * np.eye(3)
        found.append(Quadratic(curve, 4 * draw.normal(size=3), rows))
    return found


def optimum(silos: list[Quadratic]) -> Vector:
    curves = sum(one.rows * one.curve for one in silos)
    return np.linalg.solve(np.asarray(curves), np.asarray(sum(one.rows * one.curve @ one.centre for one in silos)))


def local(
    silo: Quadratic, held: Held, how: Local, own: Mapping[str, Vector]
) -> tuple[dict[str, Vector], dict[str, Vector]]:
    """Return what a silo sums, and what it keeps: a plain reading of the local loops of the papers."""
    at, model = held.weights, own.get("model", held.weights)
    before = own.get("control", np.zeros(len(at)))
    for _ in range(STEPS):
        slope = silo.slope(at) + how.pull * (at - held.weights)
        if how.is_corrected:
            slope = slope + held.more[CONTROL] - before
        at = at - RATE * slope
        if how.personal_pull is not None:
            model = model - RATE * (silo.slope(model) + how.personal_pull * (model - held.weights))
    sums, keeps = {UPDATE: at - held.weights}, {"model": model}
    if how.is_corrected:
        keeps["control"] = before - held.more[CONTROL] + (held.weights - at) / (STEPS * RATE)
        sums[CONTROL] = keeps["control"] - before
    return sums, keeps


def trained(
    name: str, silos: list[Quadratic], rounds: int, lost: int | None = None, present: int = 4, **more: str
) -> tuple[Held, list[dict[str, Vector]]]:
    """Return what recipients hold after a training; before round `lost` the first silo loses what it keeps."""
    options, draw = options_of(name, **more), np.random.default_rng(0)
    held = ALGORITHMS[name].init(options, np.zeros(3))
    owns: list[dict[str, Vector]] = [{} for _ in silos]
    for number in range(rounds):
        places = sorted(draw.permutation(len(silos))[:present])
        if number == lost:
            owns[0], places = {}, list(range(len(silos)))
        found = {place: local(silos[place], held, ALGORITHMS[name].local(options), owns[place]) for place in places}
        rows = sum(silos[place].rows for place in places)
        means = {
            one: np.asarray(sum(silos[place].rows * found[place][0][one] for place in places)) / rows
            for one in ALGORITHMS[name].sums
        }
        share = rows / sum(one.rows for one in silos)
        held = ALGORITHMS[name].apply(options, held, Sums(means, rows, share, number, lost=int(number == lost)))
        for place in places:
            owns[place] = found[place][1]
        if number == lost:
            owns = [{key: vector for key, vector in own.items() if key != "control"} for own in owns]
    return held, owns


def distance(name: str, rounds: int = 400, mu: str = "0.1") -> float:
    silos = unlike_silos()
    return float(np.linalg.norm(trained(name, silos, rounds, mu=mu)[0].weights - optimum(silos)))


def test_scaffold_comes_to_the_optimum_of_unlike_silos_where_fedavg_does_not() -> None:
    assert distance("fedavg") > 1
    assert distance("scaffold") < 1e-9


def test_fedprox_comes_nearer_than_fedavg() -> None:
    assert distance("fedprox", mu="20") < distance("fedavg") / 2


def test_a_lost_control_is_made_up_for() -> None:
    silos = unlike_silos()
    held, _ = trained("scaffold", silos, 800, lost=100, present=3)
    np.testing.assert_allclose(held.weights, optimum(silos), atol=1e-6)


def test_scaffold_comes_to_the_optimum_where_silos_are_absent() -> None:
    silos = unlike_silos()
    held, _ = trained("scaffold", silos, 800, present=2)
    np.testing.assert_allclose(held.weights, optimum(silos), atol=1e-6)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_adaptive_steps_come_to_where_fedavg_comes(name: str) -> None:
    silos = unlike_silos()
    held, _ = trained(name, silos, 1_500, server_rate="0.02")
    np.testing.assert_allclose(held.weights, trained("fedavg", silos, 400)[0].weights, atol=0.05)


def test_ditto_keeps_a_model_between_the_silos_own_and_the_shared_one() -> None:
    silos = unlike_silos()
    held, owns = trained("ditto", silos, 400, mu="1")
    np.testing.assert_allclose(held.weights, trained("fedavg", silos, 400)[0].weights, atol=1e-12)
    for silo, own in zip(silos, owns, strict=True):
        # (curve + mu) model = curve centre + mu shared
        expected = np.linalg.solve(silo.curve + np.eye(3), silo.curve @ silo.centre + held.weights)
        np.testing.assert_allclose(own["model"], expected, atol=1e-9)
