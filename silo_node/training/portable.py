"""The portable form of a model that a silo holds, and what is released of it: `policies.models`."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.domains import LongDomain
from policies.fitted import Fitted, Line, Listing
from policies.models.bayes import Bayes
from policies.models.forms import Form
from policies.models.portable import Link, Missing, Portable
from policies.models.record import without_model
from policies.networks.names import NETWORKS
from policies.requests.exact import FamilyStep
from policies.requests.families import Task, kind_of
from policies.requests.interactions import pairs_of
from policies.requests.logistic import LogisticStep
from policies.requests.tables import TableColumn
from silo_node.errors import SiloError
from silo_node.training.coefficients import has_model
from silo_node.training.exact import kept_state
from silo_node.training.families import linear, naive_bayes
from silo_node.training.family import State
from silo_node.training.glm import standing
from silo_node.training.grid import Vector
from silo_node.training.networks.form import network_form
from silo_node.training.run import RunState

# The families that have a portable form, and what the sum of a row means there.
LINKS: Mapping[str, Link] = MappingProxyType(
    {
        "linear-regression": "identity",
        "ridge-regression": "identity",
        "logistic-regression": "logistic",
        "multinomial-regression": "softmax",
        "poisson-regression": "log",
        "cox": "log-hazard",
    }
)
# Why a family has no portable form.
WITHOUT: Mapping[str, str] = MappingProxyType(
    {
        "hashed-logistic": "hashed-logistic has weights of places, not of columns; a silo's owner predicts with it",
        "kaplan-meier": "kaplan-meier draws curves of groups, and says nothing of one row",
        "pca": "pca finds directions, and predicts no label",
        "k-means": "k-means finds centres, and predicts no label",
        "welch-t": "welch-t is a test, and predicts no label",
        "anova": "anova is a test, and predicts no label",
        "chi-square": "chi-square is a test, and predicts no label",
        "audit": "audit compares groups, and predicts no label",
    }
)
NAIVE_BAYES = "naive-bayes"  # which has a form of its own: `policies.models.bayes`
_LONG = "no prediction form: a feature has a long domain, which no portable form lists"
_MAKE = "list the models with `consilo-silo models list`"


def family_of(state: RunState) -> str:
    """Return the name of a model's family, as policies open it."""
    return "logistic-regression" if state.exact is None else state.exact.family


def fitted_of(state: RunState) -> Fitted:
    """Return what a model found; of a descent its log-odds alone."""
    if state.exact is not None:
        return state.exact.fitted
    lines = tuple(Line(name=name[:400], values=(value,)) for name, value in state.coefficients().items())
    return Fitted(listings=(Listing(name="coefficients", headings=("log-odds",), lines=lines),), figures=())


def portable_of(state: RunState) -> Form:
    """Return the form of a model that may leave a silo; raises SiloError where it has none, with the reason."""
    found = form_of(state)
    if any(isinstance(column.domain, LongDomain) for column in found.columns):
        raise SiloError(_LONG, _MAKE)
    return found


def form_of(state: RunState) -> Form:
    """Return what scores rows by a model; raises SiloError where it has none, with the reason."""
    family = family_of(state)
    if family not in LINKS and family != NAIVE_BAYES and family not in NETWORKS:
        raise SiloError(f"no prediction form: {WITHOUT.get(family, f'{family} has none in this version')}", _MAKE)
    if state.record is None:
        raise SiloError("no prediction form: the silo learned this model before it kept models' columns", "train anew")
    plan, table = state.record.plan, state.record.table
    match plan:
        case FamilyStep() if family in NETWORKS:
            task = plan.task(table)
            return network_form(task, kept_state(state, task))
        case FamilyStep():
            task = plan.task(table)
            form = bayes_form if family == NAIVE_BAYES else exact_form
            return form(task, kept_state(state, task))
        case LogisticStep():
            return _descent(plan, [table.column(name) for name in plan.features], state)
        case _:
            raise SiloError(f"no prediction form: {plan.kind} has none in this version", _MAKE)


def _no_model(state: State) -> SiloError:
    message = f"no prediction form: the run ended without a model ({state.ended or 'too early'})"
    return SiloError(message, without_model(state.ended) or _MAKE)


def bayes_form(task: Task, state: State) -> Bayes:
    """Return the form of a naive Bayes model; raises SiloError where none stands."""
    if state.ended != "complete":
        raise _no_model(state)
    return naive_bayes.form_of(task, state)


def exact_form(task: Task, state: State) -> Portable:
    """Return the portable form of the model of a family, exact or with noise; raises SiloError where none stands."""
    if not has_model(state):
        raise _no_model(state)
    link, scale, shift = LINKS[task.family], 1.0, 0.0
    if link == "identity":
        scale, shift = linear.in_units(task, state)
    offset = task.parts.get("offset")
    names = (*task.features, *(() if offset is None else (offset,)))
    weights = standing(state).reshape(-1, task.width)
    missing: Missing = "drop"
    match task.options.get("missing"):
        case "mean" | "indicator" as filled:
            missing = filled
        case _:
            pass
    return _made(
        [task.table.column(name) for name in names],
        model=task.family,
        label=task.label,
        classes=task.classes if link == "softmax" else (),
        positive=_positive(task),
        offset=offset,
        missing=missing,
        interactions=pairs_of(task.options.get("interactions", "")),
        mean=_floats(state["mean"]),
        deviation=_floats(state["deviation"]),
        weights=tuple(map(_floats, weights)),
        link=link,
        scale=scale,
        shift=shift,
    )


def _positive(task: Task) -> str:
    is_text = task.label is not None and kind_of(task.label_column) == "text"
    return task.options.get("positive", "") if is_text else ""


def _descent(plan: LogisticStep, columns: list[TableColumn], state: RunState) -> Portable:
    terms = len(state.weights) - 1
    return _made(
        columns,
        model=plan.kind,
        label=plan.label,
        mean=(0.0,) * terms,
        deviation=(1.0,) * terms,
        weights=(_floats(state.weights),),
        link="logistic",
    )


def _made(columns: list[TableColumn], **fields: object) -> Portable:
    if any(isinstance(column.domain, LongDomain) for column in columns):
        raise SiloError(_LONG, _MAKE)
    form = Portable.model_validate({"columns": tuple(columns), **fields})
    text = form.encode()
    if len(text) > Portable.MAX_BYTES or text.count(b",") > Portable.MAX_COMMAS:
        numbers = len(form.mean) + len(form.deviation) + sum(map(len, form.weights))
        message = f"no prediction form: with {numbers:,} numbers the model is too large to be released or exported"
        raise SiloError(f"{message}, and stays at the silos", "ask with fewer features, or shorter domains")
    return form


def _floats(values: Vector) -> tuple[float, ...]:
    return tuple(map(float, values))
