"""The tables [model], [optimiser] and [rounds] of a job file, as the plain keys and options that a job has.

A network has many parameters, and tables say what each is of. They mean nothing that plain keys could not say: a
request has the options of its family, whatever wrote them. A job file without these tables means what it always did.
docs/networks.md, "Jobs and runs".
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from analyst.sql.offer import suggest
from policies.networks.algorithms.registry import ALGORITHMS
from policies.requests.families import SHAPES
from policies.requests.noised_families import NOISED

ANY_GRAPH = "network"  # the family of a graph that its SHA-256 names
GRAPH_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")
WEIGHTS = ("fresh", "packed")  # what a run begins with; anything else is the path of a packed file
# And what the algorithm adds.
OPTIMISER = ("algorithm", "rate", "schedule", "momentum", "decay", "epochs", "batch", "most_change", "value_bits")
ROUNDS = ("most", "patience", "deadline", "share")
_IN_A_JOB = frozenset({"count"})  # options that no job names: they follow from the others


class KeyProblemError(ValueError):
    """A key of a table that cannot stand: where it is, what was found and expected, and what to do."""

    def __init__(self, where: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.where, self.message, self.hint = where, message, hint


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a job with plain keys in place of the tables; raises KeyProblemError.

    One without such a table is returned as it is.
    """
    found = dict(document)
    of_model, of_rounds, of_optimiser = found.get("model"), found.get("rounds"), found.pop("optimiser", None)
    share: dict[str, Any] = {}
    if isinstance(of_rounds, Mapping):
        found, share = _with_rounds(found, of_rounds), {"share": of_rounds["share"]} if "share" in of_rounds else {}
    if not isinstance(of_model, Mapping):
        if of_optimiser is not None or share:
            where = "optimiser" if of_optimiser is not None else "rounds.share"
            message = f"it is of a network, and model is {of_model!r}"
            raise KeyProblemError(where, message, "write [model] with family or graph; other families take [options]")
        return found
    if of_optimiser is not None and not isinstance(of_optimiser, Mapping):
        raise KeyProblemError("optimiser", f"found {of_optimiser!r}, expected a table", "write [optimiser]")
    return _with_model(found, of_model, of_optimiser or {}, share)


def _with_rounds(document: dict[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with [rounds] as plain keys: its most, its deadline and share, and the metric's patience."""
    _check_known("rounds", table, ROUNDS)
    found = {key: value for key, value in document.items() if key != "rounds"}
    if "most" in table:
        found["rounds"] = table["most"]
    if "deadline" in table:
        found["deadline"] = table["deadline"]
    if "patience" in table:
        metric = document.get("metric")
        if not isinstance(metric, Mapping):
            hint = 'name what is to improve: [held_out] share = 0.25 and [metric] name = "accuracy"'
            raise KeyProblemError("rounds.patience", "patience needs a [metric]", hint)
        if "patience" in metric:
            raise KeyProblemError("rounds.patience", "[metric] has a patience too", "remove one of the two")
        found["metric"] = {**metric, "patience": table["patience"]}
    return found


def _with_model(
    document: dict[str, Any], model: Mapping[str, Any], optimiser: Mapping[str, Any], share: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the document with [model] and [optimiser], and the share of [rounds], as a family and its options."""
    family = _family(model)
    if "options" in document:
        message = "[options] beside a table [model]"
        raise KeyProblemError("options", message, "write its keys into [model] or [optimiser]")
    known = _known_options(family, document.get("release", "private"))
    shared = [name for name in known if name not in _of_optimiser(known) and name != "share"]
    sizes = {name: value for name, value in model.items() if name != "family"}
    if (packed := _packed(sizes)) is not None:
        document = {**document, "packed": packed}
        sizes["weights"] = "packed"
    if (file := sizes.pop("file", None)) is not None:
        if family != ANY_GRAPH or not isinstance(file, str) or packed not in (None, file):
            hint = 'write file = "net.consilo" beside graph, with the path from the job; shipped families have no file'
            raise KeyProblemError("model.file", f"found {str(file)[:80]!r}, expected one packed file", hint)
        document = {**document, "packed": file}
    if family == ANY_GRAPH and "packed" not in document:
        hint = 'write file = "net.consilo": `consilo model pack` wrote it, and the silos get it before the run'
        raise KeyProblemError("model.file", "a graph without its packed file", hint)
    _check_known("model", sizes, shared, of=f" of {family}", more=("family",))
    _check_known("optimiser", optimiser, _own_options(known, optimiser), of=f" of {family}")
    if share and "share" not in known:
        release = document.get("release", "private")
        hint = 'remove it: every silo takes part in every round; or take sources with release = "exact"'
        raise KeyProblemError("rounds.share", f"no share of silos in a run of {family} ({release})", hint)
    written = {name: _written(name, value) for name, value in {**sizes, **optimiser, **share}.items()}
    return {**document, "model": family, "options": written}


def _family(model: Mapping[str, Any]) -> str:
    """Return the family that a [model] is of; raises KeyProblemError."""
    family, graph = model.get("family"), model.get("graph")
    if (family is None) == (graph is None):
        hint = 'write family = "mlp" with its sizes, or graph = "sha256:..." of a packed network'
        raise KeyProblemError("model", "a [model] names either family or graph", hint)
    if graph is not None:
        if not isinstance(graph, str) or not GRAPH_PATTERN.fullmatch(graph):
            hint = "`consilo model pack` prints it: sha256: and 64 hexadecimal digits"
            raise KeyProblemError("model.graph", f"found {str(graph)[:80]!r}, expected the name of a graph", hint)
        return ANY_GRAPH
    if family not in SHAPES and family not in NOISED:
        raise KeyProblemError("model.family", f"no family {str(family)[:40]!r}", suggest(str(family), SHAPES))
    return str(family)


def _packed(model: Mapping[str, Any]) -> str | None:
    """Return the packed file whose weights a run begins with; None where they are fresh or named otherwise."""
    weights = model.get("weights")
    return weights if isinstance(weights, str) and weights not in WEIGHTS and weights.endswith(".consilo") else None


def _known_options(family: str, release: object) -> tuple[str, ...]:
    """Return the options that a job may name of a family, by whether it has noise."""
    shape = NOISED[family].shape if release == "private" and family in NOISED else SHAPES.get(family)
    names = () if shape is None else shape.options
    return tuple(name for name in names if name not in _IN_A_JOB)


def _of_optimiser(known: Iterable[str]) -> set[str]:
    """Return the options that stand in [optimiser]: of every algorithm, and what noise adds."""
    of_algorithms = {name for one in ALGORITHMS.values() for name in one.options}
    return {name for name in known if name in OPTIMISER or name in of_algorithms or name.startswith(("clip", "noise"))}


def _own_options(known: tuple[str, ...], optimiser: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of [optimiser] with its algorithm; raises KeyProblemError on that of another algorithm."""
    of_any, named = _of_optimiser(known), str(optimiser.get("algorithm", "fedavg"))
    if named not in ALGORITHMS:
        hint = suggest(named, ALGORITHMS)
        raise KeyProblemError("optimiser.algorithm", f"no algorithm {named[:40]!r}", hint)
    of_others = {
        name: other
        for other, one in ALGORITHMS.items()
        for name in one.options
        if name not in ALGORITHMS[named].options and name not in OPTIMISER
    }
    for name in optimiser:
        if name in of_others:
            message = f"{name} is of {of_others[name]}, and algorithm is {named!r}"
            raise KeyProblemError(f"optimiser.{name}", message, f'remove it, or take algorithm = "{of_others[name]}"')
    return tuple(name for name in known if name in of_any and name not in of_others)


def _check_known(
    table: str, found: Mapping[str, Any], known: Iterable[str], of: str = "", more: Iterable[str] = ()
) -> None:
    """Raise KeyProblemError on a key that a table does not have."""
    known = tuple(known)
    for name in found:
        if name not in known:
            raise KeyProblemError(f"{table}.{name}", f"no key of [{table}]{of}", suggest(name, (*more, *known)))


def _written(name: str, value: object) -> int | Decimal | str:
    """Return the value of a key as an option: a list with commas between, yes and no as words."""
    if isinstance(value, list | tuple):
        return ",".join(str(_written(name, one)) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal | str):
        return value
    message = f"found {value!r}, expected a number, a text or a list"
    raise KeyProblemError(name, message, "docs/networks.md describes every key")
