"""The shapes of networks: families whose weights silos train for themselves and whose changes they sum.

Round 0 sums rows; every later one the changes of the shared weights, times the silo's share of all rows, in whole units
of 2^-UPDATE_BITS, beside the rows, the sum of their losses before the training, and whether the silo refused its own
part. All lengths follow from the request: the graph is made of the options and the columns. docs/networks.md.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from pydantic import ValidationError

from policies.errors import reason_of
from policies.networks import parts
from policies.networks.algorithms.algorithm import (
    CONTROL,
    OWN_CONTROL,
    OWN_LAYERS,
    OWN_MODEL,
    Algorithm,
    Local,
)
from policies.networks.algorithms.registry import ALGORITHMS
from policies.networks.graph import MAX_NUMBERS, Graph, Input, Weight
from policies.networks.names import HASH_PATTERN, PACKED
from policies.networks.names import NETWORKS as NETWORK_NAMES
from policies.networks.shipped.registry import SHIPPED
from policies.networks.shipped.shipped import FEATURES, LABELS
from policies.requests import network_inputs as inputs
from policies.requests.hashed import VALUE_BITS, levels, limbs
from policies.requests.shapes import (
    Kind,
    Option,
    Shape,
    Task,
    choice_option,
    kind_of,
    number_option,
    parsed_option,
    whole_option,
)

UPDATE_BITS = 34  # fractional bits of a silo's weighted change of a weight
LOSS_BITS = 20  # of a sum of losses
MOST_CHANGE = 16_384  # L2, of a silo's change of the shared weights in a round: 2^48 units
MOST_UNITS = 2**50  # of a number of one silo: 2^13 silos fit 64 bits
MOST_LOSS = 2.0**30  # of all rows of a silo together, as many units of 2^-LOSS_BITS as a number may have
EXPLODED = 10.0  # times the first loss, or that of a guess: what is above has diverged
COUNTS = ("rows", "loss", "outside", "lost")  # of a round of training
REACHES = 128  # steps of the range of a sum with few bits, each the root of 2 times the one before
LEAST_REACH = -80  # of the first step, in halves of an exponent of 2
RUN_ROUNDS = 30  # at most, where the job names no number
RECONSTRUCTION = "reconstruction"  # the loss of a network that gives its own inputs again
_TENTHS = (0.5, 0.75)  # the shares of a run after which the rate of the schedule "step" is a tenth of what it was


def _left_out_or(option: Option) -> Option:
    """Return an option that may be left out: its algorithm says its default."""
    return Option("", lambda text: option.check(text) if text else None)


_OF_ALGORITHMS: Mapping[str, Option] = {
    name: _left_out_or(option) for one in ALGORITHMS.values() for name, option in one.options.items()
}
OPTIONS: Mapping[str, Option] = {
    "algorithm": choice_option("fedavg", *ALGORITHMS),
    "batch": whole_option("32", 1, 65_536),
    "decay": number_option("0", "0", "1"),
    "epochs": whole_option("1", 1, 100),
    "loss": choice_option("auto", "auto", "cross-entropy", "squared", "absolute"),
    "missing": choice_option("drop", "drop", "indicator"),
    "momentum": number_option("0", "0", "0.999"),
    "most_change": number_option("100", "0.000001", str(MOST_CHANGE)),
    "rate": number_option("0.1", "0.000001", "1000"),
    "schedule": choice_option("constant", "constant", "cosine", "step"),
    "share": number_option("1", "0.01", "1"),
    "shared": Option("", lambda text: None),
    "value_bits": parsed_option(choice_option("", *VALUE_BITS).check),
}
_LOSSES: Mapping[str | None, tuple[str, ...]] = {  # by the kind of the label, the default first
    None: (RECONSTRUCTION,),
    "text": ("cross-entropy",),
    "bool": ("cross-entropy",),
    "number": ("squared", "absolute"),
}


def _check_hash(text: str) -> None:
    if not re.fullmatch(HASH_PATTERN, text):
        raise ValueError(
            f"expected sha256: and 64 hexadecimal digits, as `consilo model pack` prints, found {text[:80]!r}"
        )


_OF_PACKED: Mapping[str, Option] = {
    "count": whole_option("1", 1, MAX_NUMBERS),
    "graph": Option("", _check_hash),
    "weights": choice_option("fresh", "fresh", "packed"),
}


def has_graph(task: Task) -> bool:
    """Tell whether the network of a task is known here: it is shipped, or its packed file is here."""
    return task.family in SHIPPED or task.graph is not None


def graph_of(task: Task) -> Graph:
    """Return the network that a task trains: that of its job, or what its algorithm makes of it; raises ValueError."""
    return _trained(task.options["algorithm"], tuple(algorithm_options(task).items()), base_of(task))


@lru_cache(maxsize=16)
def _trained(algorithm: str, options: tuple[tuple[str, str], ...], graph: Graph) -> Graph:
    return ALGORITHMS[algorithm].trains(graph, dict(options))


def base_of(task: Task) -> Graph:
    """Return the network of a job; raises ValueError where its options and columns make none, or it is not here."""
    if task.family not in SHIPPED:
        if task.graph is None:
            name = task.options["graph"]
            raise ValueError(f"the packed network {name} is not here; name its file in the job, or add it to the silo")
        return task.graph.graph
    shipped = SHIPPED[task.family]
    sizes = tuple((name, task.options[name]) for name in shipped.options)
    taken = inputs.taken(task, is_dense=shipped.is_dense, has_wholes=shipped.has_wholes)
    return _graph(task.family, sizes, taken, task.width - 1 if is_reconstruction(task) else inputs.predicted(task))


@lru_cache(maxsize=64)
def _graph(family: str, sizes: tuple[tuple[str, str], ...], taken: tuple[Input, ...], out: int) -> Graph:
    try:
        return SHIPPED[family].graph(dict(sizes), taken, out)
    except ValidationError as err:
        raise ValueError(reason_of(err)) from err


def is_reconstruction(task: Task) -> bool:
    """Tell whether a network gives its own inputs again; what is true of a row is what it is judged by alone."""
    return task.label is None or (task.family in SHIPPED and SHIPPED[task.family].has_reconstruction)


def algorithm_of(task: Task) -> Algorithm:
    """Return the algorithm that trains a task."""
    return ALGORITHMS[task.options["algorithm"]]


def algorithm_options(task: Task) -> Mapping[str, str]:
    """Return the options of a task's algorithm, with its defaults."""
    return _own_options(task.options)


def _own_options(options: Mapping[str, str]) -> dict[str, str]:
    known = ALGORITHMS[options["algorithm"]].options
    return {name: options.get(name) or option.default for name, option in known.items()}


def local_of(task: Task) -> Local:
    """Return how silos train by a task's algorithm."""
    return algorithm_of(task).local(algorithm_options(task))


def staying_of(task: Task) -> tuple[Weight, ...]:
    """Return the weights that never leave a silo."""
    graph = graph_of(task)
    names = algorithm_of(task).stays(graph, algorithm_options(task))
    return tuple(weight for weight in graph.weights if weight.name in names)


def shared_of(task: Task) -> tuple[Weight, ...]:
    """Return the weights that are summed; raises ValueError where none is."""
    return summed_of(base_of(task), task.options)


def summed_of(base: Graph, options: Mapping[str, str]) -> tuple[Weight, ...]:
    """Return the weights of a job's network that its algorithm sums, by all of its options; raises as `shared_of`."""
    algorithm, named = ALGORITHMS[options["algorithm"]], _own_options(options)
    graph = _trained(options["algorithm"], tuple(named.items()), base)
    staying, moves = algorithm.stays(graph, named), algorithm.moves
    by_job = () if moves is not None and not options.get("shared") else parts.shared(graph, options)
    taken = {weight.name for weight in by_job} | (frozenset() if moves is None else moves(graph))
    found = tuple(weight for weight in graph.weights if weight.name in taken - staying)
    if not found:
        raise ValueError("every weight stays at its silo, so there is nothing to sum; leave some to be shared")
    return found


def is_for_own(task: Task) -> bool:
    """Tell whether a round moves no shared weight, as each silo trains for itself."""
    return local_of(task).own_epochs is not None and task.number + 1 == task.rounds


def owns(task: Task) -> Mapping[str, int]:
    """Return the lengths of what a silo keeps for itself after a round."""
    if task.number == 0 or not has_graph(task):
        return {}
    local, length, staying = local_of(task), parts.count(shared_of(task)), parts.count(staying_of(task))
    found = {OWN_CONTROL: length if local.is_corrected else 0, OWN_LAYERS: staying}
    if local.personal_pull is not None or is_for_own(task):
        found[OWN_MODEL] = length + staying
    return {name: count for name, count in found.items() if count}


def _losses(task: Task) -> tuple[str, ...]:
    """Return the losses that a task may have, the default first."""
    return _LOSSES[None if is_reconstruction(task) else str(kind_of(task.label_column))]


def loss_of(task: Task) -> str:
    """Return the loss of a row: "cross-entropy" of a text or bool, "squared" or "absolute" of a number.

    Of a network that gives its inputs again it is the mean of the squares: "reconstruction".
    """
    return _losses(task)[0] if task.options["loss"] == "auto" else task.options["loss"]


def guess_of(task: Task) -> float:
    """Return the loss of a row whose label is guessed: of classes alike, or of the middle of the bounds at most."""
    return math.log(max(2, len(task.groups))) if loss_of(task) == "cross-entropy" else 1.0


def rate_of(task: Task) -> float:
    """Return the length of a silo's steps in a round, by the schedule.

    "cosine" goes from the whole rate towards 0 over the run (Loshchilov and Hutter, ICLR 2017); "step" is a tenth from
    half of the run on, and a hundredth from three quarters on.
    """
    rate, done = float(task.options["rate"]), (task.number - 1) / max(1, task.rounds - 1)
    match task.options["schedule"]:
        case "cosine":
            return rate * (1 + math.cos(math.pi * done)) / 2
        case "step":
            return float(rate * 0.1 ** sum(done >= share for share in _TENTHS))
    return rate


def blocks(task: Task) -> Mapping[str, int]:
    """Return the blocks of a round; of a packed network by the `count` that the request states."""
    if task.number == 0:
        return {"rows": 1, "left-out": 1}
    sums = () if is_for_own(task) else algorithm_of(task).sums
    length = shared_count(task) if task.family in SHIPPED else int(task.options["count"])
    counts = (name for name in COUNTS if name != "lost" or CONTROL in sums)
    reaches = () if value_bits(task) is None else (reach_name(name) for name in sums)
    found = dict.fromkeys(counts, limbs(most(task)))
    return {**found, **dict.fromkeys(reaches, REACHES), **dict.fromkeys(sums, length)}


def value_bits(task: Task) -> int | None:
    """Return of how many bits the numbers of a silo's changes are; None where they are in whole units."""
    return int(named) if (named := task.options.get("value_bits", "")) else None


def most(task: Task) -> int | None:
    """Return the greatest magnitude of a silo's numbers in a round; None where the request does not bound it."""
    bits = value_bits(task)
    return None if bits is None or task.number == 0 else levels(bits)


def reach_name(name: str) -> str:
    """Return the block that says in which range the parts of a sum lie."""
    return f"{name}-reach"


def shared_count(task: Task) -> int:
    """Return how many numbers the weights have that silos sum."""
    return parts.count(shared_of(task))


def check(task: Task) -> None:
    """Raise ValueError where the options do not fit each other, the label or the columns."""
    algorithm = task.options["algorithm"]
    for name in _OF_ALGORITHMS:
        if task.options.get(name) and name not in ALGORITHMS[algorithm].options:
            raise ValueError(f"{name}: {algorithm} has no such option; remove it")
    if task.options["loss"] not in ("auto", *_losses(task)):
        has = f"has {' or '.join(_losses(task))}, found {task.options['loss']!r}"
        raise ValueError(f"loss: {'what gives its inputs again' if is_reconstruction(task) else task.label} {has}")
    if task.label is not None and kind_of(task.label_column) == "text" and len(task.classes) < 2:
        raise ValueError(f"label {task.label!r} needs two values beside its unknown, found {len(task.classes)}")
    local = local_of(task)
    if local.is_corrected and float(task.options["momentum"]):
        raise ValueError(f"momentum: {algorithm} corrects plain steps; remove it, or take a larger server_rate")
    if local.own_epochs is not None and task.rounds < 3:
        raise ValueError(f"{algorithm} takes its last round for each silo's own model; ask for 3 rounds or more")
    if task.family not in SHIPPED:
        _check_packed(task)
    elif not SHIPPED[task.family].is_dense and task.options["missing"] != "drop":
        raise ValueError(f'missing: {task.family} takes "drop" alone, as each feature is an input of its own')
    if has_graph(task):
        shared_of(task)


def _check_packed(task: Task) -> None:
    """Raise ValueError unless a packed network, where it is here, is the one that is named, and fits the columns."""
    _check_hash(task.options["graph"])
    if task.graph is None:
        return
    graph = base_of(task)
    if graph.digest != task.options["graph"]:
        raise ValueError(f"the packed file is {graph.digest}, and the request names {task.options['graph']}")
    inputs.check_fits(task, graph, numbers=inputs.predicted(task))
    if (count := shared_count(task)) != int(task.options["count"]):
        raise ValueError(f"count is {task.options['count']}, and the weights that are summed have {count:,} numbers")
    if is_reconstruction(task) and not inputs.is_dense(task, graph):
        raise ValueError("a network without a label gives its own inputs again: one row of all features' numbers")


def _changed(task: Task) -> int:
    """Return how much a row costs: its share of the time of a plan, in numbers that it changes."""
    flops = graph_of(task).cost.flops if has_graph(task) else 2 * int(task.options["count"])
    return 4 + flops * 3 * int(task.options["epochs"]) // 64


def _shape(name: str) -> Shape:
    shipped = SHIPPED.get(name)
    return Shape(
        blocks,
        frozenset[Kind](LABELS if shipped is None else shipped.labels),
        {**OPTIONS, **_OF_ALGORITHMS, **(_OF_PACKED if shipped is None else shipped.options)},
        takes=frozenset[Kind](FEATURES if shipped is None else shipped.features),
        rounds=RUN_ROUNDS,
        changed=_changed,
        check=check,
        predicts="label",
        most_weights=MAX_NUMBERS,
        owns=owns,
        most=most,
        is_label_needed=shipped is not None and not shipped.has_reconstruction,
    )


NETWORKS: Mapping[str, Shape] = MappingProxyType({name: _shape(name) for name in (*SHIPPED, PACKED)})


def check_begins(task: Task) -> None:
    """Raise ValueError unless a run of this task may begin with the weights of a model that silos hold."""
    if task.family not in NETWORK_NAMES:
        raise ValueError(f"a run of {task.family} begins with no other model; remove begins")
    if task.options.get("weights") == "packed":
        raise ValueError('weights = "packed" and begins each say what a run begins with; remove one of the two')
    if task.options.get("unit") == "silo":
        raise ValueError('a run with unit = "silo" begins with fresh or packed weights; remove begins')
    if has_graph(task):
        own = {weight.name for weight in graph_of(task).weights if weight.initial != "constant"}
        if own - {weight.name for weight in shared_of(task)}:
            raise ValueError("some weights of the job do not move, and begins has those that do alone; remove begins")
