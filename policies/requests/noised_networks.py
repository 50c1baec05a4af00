"""The shapes of networks with noise: by person one step of descent a round, or by silo a whole training a round.

*By person* (the default) each round sums, over all persons, the gradient of the person's mean loss, clipped; the first
one counts them. *By silo* each round sums the silos' whole changes of the weights after any number of local steps,
clipped: that bounds what all rows of a silo change together, and a person only as part of them. Either bound is in
whole units of the round's clip, so it follows from the request alone, whatever clip earlier sums gave.
docs/networks.md, section "With noise".
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType

from policies.networks.algorithms.algorithm import UPDATE
from policies.networks.algorithms.registry import ALGORITHMS
from policies.networks.shipped.registry import SHIPPED
from policies.requests.networks import (
    NETWORKS,
    OPTIONS,
    algorithm_of,
    algorithm_options,
    has_graph,
    shared_count,
    staying_of,
)
from policies.requests.noised_parts import NoisedShape, counts_of, lengths, stated
from policies.requests.shapes import Option, Shape, Task, choice_option, number_option, whole_option
from policies.requests.statistic import Extent, noised
from policies.units import ROWS_UP_TO

ROUNDS = 40  # of a run where the job names no other number
LEAST_ROUNDS = 3
PERSON, SILO = "person", "silo"  # whose change the noise hides
SHARED, OWN = "shared", "own"  # of whom the noise is: of all silos together, or of each silo the whole
LEAST_UNITS = 2**8  # in the L2 bound of a gradient or a change: few, so that the sum of all persons fits a small ring
_UNITS_PER_NUMBER = 16  # times the root of the numbers: rounding then adds a few hundredths of a clip to a vector
_OF_GRADIENT, _OF_WITHIN = 19, 1  # shares of the price of a round whose clip follows the gradients

_OWN_OPTIONS: Mapping[str, Option] = {
    "clip": number_option("1", "0.000001", "100000"),
    "momentum": stated("0", "0.99"),
    "noise": choice_option(SHARED, SHARED, OWN),
    "quantile": stated("0.05", "0.95"),
    "rate": stated("0.000001", "1000"),
    "rows_up_to": whole_option(str(ROWS_UP_TO), 1, 2**40),
    "silos": stated("1", "1000"),
    "unit": choice_option(PERSON, PERSON, SILO),
}
# What either unit has of the options of the exact family, beside the sizes of the network; any other stays as it is.
_OF_BOTH = frozenset({"graph", "loss", "missing", "shared", "weights", *_OWN_OPTIONS})
_LOCAL = frozenset({"algorithm", "batch", "decay", "epochs", "schedule"})  # how a silo trains for itself
_OF_PERSONS = frozenset({"quantile", "rows_up_to"})


def unit_of(options: Mapping[str, str]) -> str:
    """Return whose change the noise of a run hides, "person" or "silo", by its options."""
    return options.get("unit", PERSON)


def protected(options: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the noise of a run hides, in words, where that is not a person by noise that the silos share."""
    by_silo = (
        "the unit is the silo: the noise hides what all rows of a silo together change, a person is protected only as"
        " a part of them, and every silo counts the same, however many rows it has",
    )
    own = ("each silo adds the whole noise of its own, so its part is protected though all others collude",)
    return (by_silo if unit_of(options) == SILO else ()) + (own if has_own_noise(options) else ())


def has_own_noise(options: Mapping[str, str]) -> bool:
    """Tell whether each silo adds the whole noise, by the options of a run."""
    return options.get("noise", SHARED) == OWN


def units_of(numbers: int) -> int:
    """Return how many whole units the clip of a vector with so many numbers is: a power of two."""
    bits = (_UNITS_PER_NUMBER**2 * numbers - 1).bit_length()
    return max(LEAST_UNITS, 1 << (bits + 1) // 2)


def length_of(task: Task) -> int:
    """Return how many numbers the weights have that a run moves: of a packed network what the request states."""
    return shared_count(task) if task.family in SHIPPED else int(task.options["count"])


def extents(task: Task) -> Mapping[str, Extent]:
    """Return the blocks of a round.

    A silo with more than `rows_up_to` persons would be cut, which moves a sum by no more than a person does. Whether a
    person's gradient is within the clip adds 1 to a number, or takes 1 from it.
    """
    if unit_of(task.options) == SILO:
        # Any two changes that are as long as the clip are at most twice the clip apart.
        length = length_of(task)
        units = units_of(length)
        return {UPDATE: Extent(length, 2 * units, 1, 0, units, most=units)}
    persons = int(task.options["rows_up_to"])
    if task.number == 0:
        return {name: one.up_to(persons) for name, one in counts_of(task).items()}
    length = length_of(task)
    units = units_of(length)
    found = {"gradient": noised(length, units, _OF_GRADIENT).up_to(units * persons)}
    return found | ({"within": noised(1, 1, _OF_WITHIN).up_to(persons)} if task.options["quantile"] else {})


def _check(task: Task) -> None:
    """Raise ValueError where options contradict the unit, or those of the exact family each other."""
    exact, options, unit = NETWORKS[task.family], task.options, unit_of(task.options)
    if task.rounds < LEAST_ROUNDS:
        raise ValueError(f"{task.family} with noise takes {LEAST_ROUNDS} rounds or more, found {task.rounds}")
    named = {name for name, option in options_of(task.family).items() if options[name] != option.default}
    sizes = frozenset(exact.options) - _ALGORITHMS - frozenset(OPTIONS)
    allowed = _OF_BOTH | sizes | (_LOCAL | _ALGORITHMS if unit == SILO else frozenset())
    for name in sorted(named - allowed):
        if name in _LOCAL | _ALGORITHMS:
            raise ValueError(f'{name}: by person a round is one step on all rows; remove it, or take unit = "silo"')
        raise ValueError(f"{name}: for exact sources alone; remove it")
    if unit == PERSON and options["silos"]:
        raise ValueError('silos: a sum by person is divided by the count of persons; remove it, or take unit = "silo"')
    if unit == SILO:
        _check_silo(task, named)
    exact.check(replace(task, options=local_options(task)))


def _check_silo(task: Task, named: set[str]) -> None:
    for name in sorted(named & _OF_PERSONS):
        raise ValueError(f"{name}: a silo's change is one vector, whatever its persons are; remove it")
    if not task.options["silos"] or Decimal(task.options["silos"]) % 1:
        raise ValueError("silos: name by how many silos the sum of their changes is divided: as many as are asked")
    algorithm = algorithm_of(task)
    local = algorithm.local(algorithm_options(task))
    is_plain = algorithm.sums == (UPDATE,) and not (has_graph(task) and staying_of(task))
    if not is_plain or local.is_corrected or local.personal_pull is not None or local.own_epochs is not None:
        name = task.options["algorithm"]
        raise ValueError(f"algorithm: {name} has more than a sum of changes; with noise take fedavg or fedprox")


def local_options(task: Task) -> Mapping[str, str]:
    """Return the options of the exact family by which a silo trains for itself."""
    exact = NETWORKS[task.family].options
    return {name: task.options.get(name) or option.default for name, option in exact.items()}


def options_of(family: str) -> Mapping[str, Option]:
    """Return all options of a family with noise: those of the exact one, and its own."""
    return {**NETWORKS[family].options, **_OWN_OPTIONS}


def _changed(task: Task) -> int:
    """Return how much a row costs: its gradient, once, or in each of the silo's own epochs."""
    exact = NETWORKS[task.family].changed
    return 0 if exact is None else exact(replace(task, options=local_options(task)))


def _shape(family: str) -> NoisedShape:
    exact = NETWORKS[family]
    shape = Shape(
        lengths(extents), exact.labels, options_of(family), exact.parts, exact.least_features, exact.takes, ROUNDS,
        changed=_changed, check=_check, predicts=exact.predicts, most_weights=exact.most_weights,
        is_label_needed=exact.is_label_needed,
    )  # fmt: skip
    return NoisedShape(shape, extents)


_ALGORITHMS = frozenset(name for one in ALGORITHMS.values() for name in one.options)
NOISED_NETWORKS: Mapping[str, NoisedShape] = MappingProxyType({name: _shape(name) for name in NETWORKS})
