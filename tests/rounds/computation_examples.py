"""Requests of every kind of computation, for the contract that all kinds keep: `tests/rounds/test_computations.py`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.networks.packed import Packed, packed
from policies.requests.audit import AuditStep
from policies.requests.evaluation import Evaluation
from policies.requests.exact import ExactStep, Setting
from policies.requests.held_out import HeldOut
from policies.requests.judged import JudgedModel
from policies.requests.key_search import FIRST, KeySearch, KeyShape
from policies.requests.logistic import LogisticStep
from policies.requests.metrics import OF_PREDICTION, MetricName
from policies.requests.moments import PAIRS
from policies.requests.networks import graph_of
from policies.requests.noised import NoisedStep
from policies.requests.persons import Inner, InnerColumn
from policies.requests.query import AGGREGATES, Aggregate
from policies.requests.request import Request
from policies.requests.split import SplitStep
from policies.requests.statements import Statements
from policies.requests.tables import Table, TableColumn
from policies.requests.training import START
from tests.harness.example_policy import AGE, AT, SMOKER, WARD, plan, request, table

TABLE = table(columns=(WARD, AGE, SMOKER))
# Columns of arrays, which are no part of the example policy: tests that read rows add them.
SCAN = TableColumn(name="scan", type="array", of="decimal", shape=(2, 2), low=0, high=16, step="0.5")
WORDS = TableColumn(name="words", type="array", of="int", shape=(3,), low=0, high=4, step="1")
ARRAYS = table(columns=(WARD, AGE, SMOKER, SCAN, WORDS))
SAME = ("quantile_disc", "var_samp", "stddev_samp")  # functions with the sums of others
FUNCTIONS = [one for one in AGGREGATES if one not in SAME]


NEVER_MISSING = table(columns=(WARD, *(one.model_copy(update={"can_be_missing": False}) for one in (AGE, SMOKER))))

SHORT = table(max_rows=4, max_norm=TABLE.max_rows, columns=TABLE.columns)  # as long as so many rows of one group


def question(*group_by: str, of: Table = TABLE, counts_cut: bool = False) -> Request:
    """Return a question for every aggregate of every measure, and of every pair of them."""
    figures = [
        Aggregate(function=function, column=column, at=AT.get(function), alias=f"{function}_{column}")  # type: ignore[arg-type]
        for function in FUNCTIONS
        for column in ("age", "smoker")
    ]
    figures += [
        Aggregate(function=function, column="age", other="smoker", alias=function)  # type: ignore[arg-type]
        for function in PAIRS
    ]
    rows = Aggregate(function="count", column=None, alias="n")
    return request(
        table=of, plan=plan(where=None, group_by=group_by, aggregates=(rows, *figures), counts_cut=counts_cut)
    )


def by_person(*group_by: str, counts_cut: bool = False) -> Request:
    """Return a question about one row of each person, and every kind of figure of it."""
    inner = Inner(
        where=None,
        columns=(
            InnerColumn(name="n", function="count", column=None, high=TABLE.max_rows),
            InnerColumn(name="years", function="sum", column="age", low=0, high=110),
            InnerColumn(name="youngest", function="min", column="age"),
            InnerColumn(name="ever", function="max", column="smoker"),
            InnerColumn(name="first", function="first", column="ward"),
        ),
    )
    figures = [
        Aggregate(function=function, column=column, at=AT.get(function), alias=f"{function}_{column}")  # type: ignore[arg-type]
        for function in FUNCTIONS
        for column in ("n", "years", "youngest", "ever")
        if column not in group_by
    ]
    return request(
        table=TABLE,
        plan=plan(where=None, group_by=group_by, aggregates=tuple(figures), counts_cut=counts_cut, inner=inner),
    )


def persons(*group_by: str, counts_cut: bool = False) -> Request:
    """Return a question for the number of persons."""
    counted = (Aggregate(function="persons", column=None, alias="persons"),)
    return request(
        table=table(columns=(WARD,)),
        plan=plan(where=None, group_by=group_by, aggregates=counted, counts_cut=counts_cut),
    )


def curve(*group_by: str, width: int | None = None, of: Table = TABLE, **changes: Any) -> Request:
    """Return a question for a survival curve of every group."""
    figure = Aggregate(function="survival", column="age", other="smoker", alias="s", width=width)
    return request(table=of, plan=plan(where=None, group_by=group_by, aggregates=(figure,), **changes))


def curve_by_person() -> Request:
    """Return a question for a survival curve of one row of each person."""
    columns = tuple(InnerColumn(name=one, function="max", column=one) for one in ("age", "smoker"))
    return curve(inner=Inner(where=None, columns=columns))


def statements(*plans: Any, of: Table = TABLE, weights: tuple[int, ...] = ()) -> Request:
    """Return a request of several questions."""
    return request(table=of, plan=Statements(plans=plans, weights=weights))


def training(family: Any, *features: str, of: Table = TABLE, **parameters: Any) -> Request:
    """Return a request for the first step of a run of this family that learns `smoker`."""
    step = family(run=bytes(16), step=0, steps=3, after=START, label="smoker", features=features, **parameters)
    return request(table=of, plan=step, micro_rho=0 if step.release == "exact" else 10_000)


SHAPE = KeyShape(alphabet="".join(map(chr, range(ord("a"), ord("z") + 1))), length=8, most=2)


def search(*prefixes: str, shape: KeyShape = SHAPE) -> Request:
    """Return a round of a search for the wards that nobody has listed, of these prefixes of one length."""
    plan = KeySearch(run=bytes(16), step=len(prefixes[0]), column="ward", shape=shape, prefixes=prefixes)
    return request(table=table(columns=(WARD,)), plan=plan)


def exact(family: str, label: str | None, *features: str, of: Table = TABLE, **parts: str) -> Request:
    """Return a request for the first step of a run of an exact family; a text label has its positive value named."""
    step = ExactStep(
        run=bytes(16),
        step=0,
        steps=3,
        after=START,
        label=label,
        features=features,
        family=family,
        parts=tuple(Setting(name=name, value=column) for name, column in sorted(parts.items())),
    )
    return request(table=of, plan=step, micro_rho=0)


def hashed(*features: str, **options: str) -> Request:
    """Return a request for the first step of a run over hashed features, without noise."""
    return with_options(exact("hashed-logistic", "smoker", *features), **options)


def with_options(of: Request, **options: str) -> Request:
    """Return a request for the first step of a run with these options of its family."""
    settings = tuple(Setting(name=name, value=value) for name, value in sorted(options.items()))
    return of.model_copy(update={"plan": of.plan.model_copy(update={"options": settings})})


def noised(
    family: str, label: str | None, *features: str, steps: int = 5, of: Table = TABLE, **options: str
) -> Request:
    """Return a request for the first step of a run of a family with noise; `offset` is a further column."""
    parts = {"offset": options.pop("offset")} if "offset" in options else {}
    step = NoisedStep(
        run=bytes(16),
        step=0,
        steps=steps,
        after=START,
        label=label,
        features=features,
        family=family,
        parts=tuple(Setting(name=name, value=column) for name, column in parts.items()),
        options=tuple(Setting(name=name, value=value) for name, value in sorted(options.items())),
    )
    return request(table=of, plan=step, micro_rho=10_000)


def noised_packed(label: str, *features: str) -> Request:
    """Return a request for the first step of a run of the packed network with noise."""
    of = noised("mlp", label, *features)
    options = {"graph": PACKED.name, "count": str(PACKED.graph.count)}
    settings = tuple(Setting(name=name, value=value) for name, value in sorted(options.items()))
    plan = of.plan.model_copy(update={"family": "network", "options": settings})
    return request(table=TABLE, plan=plan, micro_rho=10_000)


def split(release: str) -> Request:
    """Return a request for the secret by which persons are divided."""
    step = SplitStep(run=bytes(16), step=0, after=START, release=release)  # type: ignore[arg-type]
    return request(table=table(columns=()), plan=step, micro_rho=0)


def evaluation(of: Request, *metrics: MetricName, release: str = "exact", **changes: Any) -> Request:
    """Return a request that judges the model of another request's run, after its first step."""
    model = JudgedModel(position=bytes([1] * 32), step=of.plan, own=changes.pop("own", ()))  # type: ignore[arg-type]
    whose = {"held_out": model.step.held_out, **changes}
    plan = Evaluation(release=release, model=model, metrics=tuple(sorted(metrics)), **whose)  # type: ignore[arg-type]
    return request(table=of.table, plan=plan, micro_rho=0 if release == "exact" else 10_000)


def holding_out(held_out: HeldOut, of: Request) -> Request:
    """Return a request for a step that does not learn from those who are held out."""
    return of.model_copy(update={"plan": of.plan.model_copy(update={"held_out": held_out})})


def audit(of: Request, *groups: str, release: str = "exact", **changes: Any) -> Request:
    """Return a request that audits the model of another request's run, after its first step."""
    model = JudgedModel(position=bytes([1] * 32), step=of.plan)  # type: ignore[arg-type]
    plan = AuditStep(run=bytes(16), step=0, after=START, release=release, model=model, groups=groups, **changes)  # type: ignore[arg-type]
    return request(table=of.table, plan=plan, micro_rho=0 if release == "exact" else 10_000)


def _packed() -> Packed:
    """Return a packed network of the same features and label as in the examples."""
    graph = graph_of(exact("mlp", "smoker", "age", "ward").plan.task(TABLE))  # type: ignore[union-attr]
    return packed(graph, {one.name: np.full(one.shape, 0.25, np.float32) for one in graph.weights})


PACKED = _packed()


def of_packed(label: str, *features: str) -> Request:
    """Return a request for the first step of a run of the packed network."""
    of = with_options(exact("mlp", label, *features), graph=PACKED.name, count=str(PACKED.graph.count))
    return request(table=TABLE, plan=of.plan.model_copy(update={"family": "network"}), micro_rho=0)


LOGISTIC = exact("logistic-regression", "smoker", "ward", "age")
CLASSES = exact("naive-bayes", "ward", "smoker", "age")
NUMBERS = exact("linear-regression", "age", "ward", "smoker")
DESCENT = training(LogisticStep, "age", "ward", release="private", learning_rate="1", momentum="0.5", clip="0.8")
CHANCE = OF_PREDICTION["chance"]
BY_SPLIT = HeldOut(split=bytes(16), parts=250)

EXAMPLES: Mapping[str, tuple[Request, ...]] = {
    "query": (
        question(),
        question("ward"),
        question("ward", of=NEVER_MISSING),
        question("ward", counts_cut=True),
        question("ward", of=SHORT, counts_cut=True),
        question(of=SHORT),
        persons(),
        persons("ward", counts_cut=True),
        by_person(),
        by_person("first", "n", counts_cut=True),
        curve(),
        curve("ward", width=7, counts_cut=True),
        curve("ward", of=NEVER_MISSING),
        curve("ward", of=SHORT, counts_cut=True),
        curve_by_person(),
    ),
    "key-search": (
        search(*FIRST),
        search("c", "m", "s"),
        search("cella", "surge"),
        search("medicin", "surgery"),  # the last round, where surgery ends and medicine has its last symbol
        search(*FIRST, shape=KeyShape(alphabet="s", length=7, most=5)),
        search("cellar", "surger", shape=SHAPE.model_copy(update={"length": 7})),
    ),
    "statements": (
        statements(question("ward").plan, question().plan, question().plan),
        statements(question("ward", counts_cut=True).plan, persons("ward").plan, by_person().plan, weights=(3, 1, 2)),
        statements(question().plan, question("ward").plan, of=SHORT),
    ),
    "logistic-regression": (
        training(LogisticStep, "age", "ward", release="private", learning_rate="1", momentum="0.5", clip="0.8"),
        training(LogisticStep, "age", "ward", of=SHORT, release="private", learning_rate="1", clip="0.8"),
        training(LogisticStep, "age", "ward", release="exact", learning_rate="1", clip="0", local_steps=2),
    ),
    "exact-step": (
        exact("linear-regression", "age", "ward", "smoker"),
        exact("ridge-regression", "age", "ward", "smoker"),
        exact("logistic-regression", "smoker", "ward", "age"),
        hashed("ward", "age", bits="10", crossed="all"),
        hashed("age", bits="10", missing="indicator", value_bits="8", keep="0.1"),
        exact("multinomial-regression", "ward", "smoker", "age"),
        exact("poisson-regression", "age", "ward", "smoker"),
        exact("cox", None, "ward", time="age", event="smoker"),
        exact("kaplan-meier", None, time="age", event="smoker", group="ward"),
        exact("pca", None, "age", "ward", "smoker"),
        exact("k-means", None, "age", "ward", "smoker"),
        exact("naive-bayes", "smoker", "age", "ward"),
        exact("welch-t", "smoker", "age"),
        exact("anova", "ward", "age", "smoker"),
        exact("chi-square", "ward", "smoker"),
        exact("audit", "smoker", group="ward"),
        exact("mlp", "smoker", "age", "ward"),
        with_options(exact("mlp", "ward", "age", "smoker"), hidden="4,3", epochs="2", batch="2", missing="indicator"),
        with_options(exact("mlp", "age", "ward", "smoker"), hidden="", loss="absolute", momentum="0.9", decay="0.01"),
        exact("mlp", "ward", "scan", "age", of=ARRAYS),
        with_options(exact("cnn", "ward", "scan", of=ARRAYS), channels="2", hidden="", norm="group", dropout="0.5"),
        exact("language-model", "ward", "words", of=ARRAYS),
        exact("recommender", "age", "ward", "smoker"),
        exact("autoencoder", "smoker", "age", "ward"),
        exact("autoencoder", None, "age", "scan", of=ARRAYS),
        of_packed("smoker", "age", "ward"),
    ),
    "audit-step": (
        audit(LOGISTIC, "ward"),
        audit(LOGISTIC, "ward", "smoker", release="private", threshold="0.8"),
        audit(DESCENT, "ward", release="private"),
        audit(DESCENT, "ward", release="private", has_drift=True),
        audit(exact("logistic-regression", "smoker", "ward", "age"), "ward", has_drift=True),
        audit(holding_out(BY_SPLIT, DESCENT), "ward", held_out=BY_SPLIT, min_cohort=20),
        audit(DESCENT, release="private", has_drift=True),
        audit(LOGISTIC, has_drift=True),
        audit(CLASSES, has_drift=True),
        audit(exact("cox", None, "ward", time="age", event="smoker"), has_drift=True),
        audit(noised("linear-regression", "age", "ward", "smoker"), release="private", has_drift=True),
        audit(exact("mlp", "age", "ward", "smoker"), release="private", has_drift=True),
        audit(exact("language-model", "ward", "words", of=ARRAYS), release="private", has_drift=True),
        audit(exact("autoencoder", None, "age", "scan", of=ARRAYS), release="private", has_drift=True),
    ),
    "noised-step": (
        noised("logistic-regression", "smoker", "ward", "age"),
        noised("logistic-regression", "smoker", "age", missing="mean", clip="0.5"),
        noised("logistic-regression", "smoker", "ward", "age", of=SHORT, missing="indicator"),
        noised("multinomial-regression", "ward", "smoker", "age"),
        noised("linear-regression", "age", "ward", "smoker"),
        noised("linear-regression", "age", "ward", "smoker", steps=1, method="moments"),
        noised("poisson-regression", "age", "ward", "smoker"),
        noised("hashed-logistic", "smoker", "ward", "age", bits="10", crossed="ward*age"),
        noised("hashed-logistic", "smoker", "ward", "age", of=SHORT, bits="10", crossed="all", missing="indicator"),
        noised("mlp", "smoker", "ward", "age", hidden="3"),
        noised("cnn", "ward", "scan", of=ARRAYS, channels="2", hidden=""),
        noised("language-model", "ward", "words", of=ARRAYS, size="3", embedding="2"),
        noised("recommender", "smoker", "ward", "age", embedding="2", hidden="3"),
        noised("autoencoder", "smoker", "age", "ward", hidden="3", latent="1"),
        noised_packed("smoker", "age", "ward"),
        noised("mlp", "ward", "smoker", "age", of=SHORT, hidden="", quantile="0.5", noise="own"),
        noised("mlp", "smoker", "ward", "age", hidden="3", unit="silo", silos="5"),
        noised("cnn", "ward", "scan", of=ARRAYS, channels="2", hidden="", norm="group", dropout="0.5"),
        noised("language-model", "ward", "words", of=ARRAYS, size="4", embedding="2"),
        noised("recommender", "age", "ward", "smoker"),
        noised("autoencoder", None, "age", "scan", of=ARRAYS),
        noised("network", "smoker", "age", "ward", graph=PACKED.name, count=str(PACKED.graph.count)),
    ),
    "evaluation": (
        evaluation(LOGISTIC, *CHANCE, own=("north", "test")),
        evaluation(LOGISTIC, *CHANCE, release="private", own=("north", "test")),
        evaluation(DESCENT, *CHANCE, release="private"),
        evaluation(CLASSES, *OF_PREDICTION["classes"]),
        evaluation(CLASSES, *OF_PREDICTION["classes"], release="private"),
        evaluation(NUMBERS, *OF_PREDICTION["number"]),
        evaluation(NUMBERS, *OF_PREDICTION["number"], release="private"),
        evaluation(exact("poisson-regression", "age", "ward", "smoker"), "mae", release="private"),
        evaluation(exact("mlp", "smoker", "ward", "age"), *CHANCE),
        evaluation(exact("cnn", "ward", "scan", of=ARRAYS), *OF_PREDICTION["classes"]),
        evaluation(exact("autoencoder", "smoker", "age", "ward"), *CHANCE),
        evaluation(exact("mlp", "ward", "smoker", "age"), *OF_PREDICTION["classes"]),
        evaluation(exact("mlp", "age", "ward", "smoker"), *OF_PREDICTION["number"], release="private"),
        evaluation(exact("cox", None, "ward", time="age", event="smoker"), "c-index"),
        evaluation(holding_out(HeldOut(column="smoker"), exact("linear-regression", "age", "ward")), "rmse"),
        evaluation(noised("logistic-regression", "smoker", "ward", "age"), *CHANCE, release="private"),
        evaluation(noised("linear-regression", "age", "ward", "smoker"), "rmse", release="private"),
    ),
    "split": (split("private"), split("exact")),
}
