"""The contract of every kind of computation: what its shape says of a contribution holds for what a silo computes.

Each kind in the registry is held to it by its requests in `tests/rounds/computation_examples.py`. A question there has
every aggregate of the vocabulary, so a new aggregate is held to it too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document.section import COMPUTATION_NAMES
from policies.requests.calibration import check_price
from policies.requests.computations import COMPUTATIONS, OPENED, slot_count
from policies.requests.families import SHAPES
from policies.requests.network_steps import network_of
from policies.requests.noised_families import NOISED, WITHOUT_NOISE
from policies.requests.request import Request
from policies.requests.statistic import Extent, Statistic
from silo_node.data.compute import CONTRIBUTIONS, Access
from silo_node.data.figures import Vectors
from silo_node.data.locations import connect
from silo_node.data.prepared.reader import Reader
from silo_node.data.prepared.store import Store
from silo_node.data.sources import source_of
from silo_node.training.models import MODELS
from silo_node.training.noised.registry import NOISED_FAMILIES
from silo_node.training.registry import FAMILIES
from silo_node.training.run import RunState
from tests.harness.example_policy import AGE, STORED, WARD, Edit, policy
from tests.harness.rows import NamedHere, opened
from tests.rounds.computation_examples import ARRAYS, EXAMPLES, PACKED, TABLE

Row = dict[str, Any]
Compute = Callable[[Request, Sequence[Row], RunState | None], Vectors]
ARRAY_COLUMNS = Edit(
    "diary  = {",
    'scan = { type = "array", of = "decimal", shape = [2, 2], class = "internal", roles = ["feature"], '
    "bounds = [0, 8], step = 0.5 }\n"
    'words = { type = "array", of = "int", shape = [3], class = "internal", roles = ["feature"], bounds = [0, 4] }\n'
    "diary  = {",
)
ARRAY_FIELDS = [("scan", pa.list_(pa.list_(pa.float32()))), ("words", pa.list_(pa.int16()))]
SCHEMA = pa.schema([*(field for field in STORED if field[0] in ("patient_id", "ward", "age", "smoker")), *ARRAY_FIELDS])
PEOPLE = ("anna", "bo", "cem")
REQUESTS = [(kind, asked) for kind, requests in EXAMPLES.items() for asked in requests]
ROW = st.fixed_dictionaries(
    {
        "ward": st.none() | st.sampled_from(["medicine", "surgery", "cellar"]),
        "age": st.none() | st.integers(-20, 130) | st.sampled_from([AGE.low, AGE.high, 2**63 - 1]),
        "smoker": st.none() | st.booleans(),
        "scan": st.none()
        | st.lists(st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=2), min_size=2, max_size=2),
        "words": st.none() | st.lists(st.integers(-1, 6), min_size=3, max_size=3),
    }
)
TURN = st.integers(0, 2**16)
ROWS_OF_A_PERSON = st.lists(ROW, max_size=TABLE.max_rows)


@pytest.fixture(scope="module")
def compute(tmp_path_factory: pytest.TempPathFactory) -> Compute:
    """What a silo with these rows contributes to a request, as its own entry computes it."""
    home = tmp_path_factory.mktemp("silo")
    rules = policy(ARRAY_COLUMNS)

    def contribution(request: Request, rows: Sequence[Row], state: RunState | None) -> Vectors:
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), home / "visits.parquet")
        source = source_of(rules, "visits", home).narrowed(SCHEMA.names)
        kind, request = CONTRIBUTIONS[request.plan.kind], here(request)
        with opened(source) as database:
            return kind.compute(request, kind.read(Access(database, source, rules, None), request), state)

    return contribution


def here(request: Request) -> Request:
    """Return the request with the packed file that it names, as a silo has it that keeps the file."""
    if request.plan.opened_as != "network":
        return request
    return request.model_copy(update={"plan": request.plan.model_copy(update={"graph": PACKED})})


def in_turn(requests: Sequence[Request], turn: int) -> Iterator[Request]:
    """Yield all requests but those of networks, which take longest: of these one, by the turn."""
    networks = [asked for asked in requests if network_of(asked) is not None]
    yield from (asked for asked in requests if network_of(asked) is None)
    if networks:
        yield networks[turn % len(networks)]


def of_people(rows: dict[str, list[Row]]) -> list[Row]:
    return [{"patient_id": person, **row} for person, own in rows.items() for row in own]


def states(request: Request) -> Iterator[RunState | None]:
    """Yield where a run can be at this silo: at its start and, for a step of training, after an odd sum.

    A model is judged after the first step of its run.
    """
    if (model := request.plan.judged) is not None:
        first = request.model_copy(update={"plan": model.step})
        extents = model.step.statistics(request.table).values()
        lengths = [one.length for one in extents]
        yield MODELS[model.step.kind](None, first, model.position, OddSum(lengths), 0)
        return
    yield None
    if request.plan.training is not None:
        extents = request.plan.statistics(request.table).values()
        yield MODELS[request.plan.kind](
            None, here(request), bytes([1] * 32), OddSum([one.length for one in extents]), 0
        )


@dataclass(frozen=True)
class OddSum:
    """An opened sum of some persons, none of whom is at a silo."""

    lengths: Sequence[int]

    def blocks(self) -> list[npt.NDArray[np.float64]]:
        found = [np.arange(1, length + 1).astype(np.float64) * -(2.0**18) for length in self.lengths]
        return [*found[:-1], np.array([3.0])]

    def deviations(self) -> list[float]:
        return [1.0] * len(self.lengths)

    def whole_blocks(self) -> list[npt.NDArray[np.int64]]:
        return [np.arange(1, length + 1) * 2**20 + 12345 for length in self.lengths]


def check_shape(request: Request, vectors: Vectors) -> None:
    extents = list(request.plan.statistics(request.table).values())
    assert [type(vector) for vector in vectors] == [np.ndarray] * len(extents)
    assert [vector.dtype for vector in vectors] == [np.dtype(np.int64)] * len(extents)
    assert [vector.shape for vector in vectors] == [(extent.length,) for extent in extents]


def norms(one: Vectors, other: Vectors) -> list[int]:
    """Return the squared L2 norm of the difference, by statistic, exactly."""
    return [sum((int(a) - int(b)) ** 2 for a, b in zip(x, y, strict=True)) for x, y in zip(one, other, strict=True)]


def within(request: Request, one: Vectors, other: Vectors) -> None:
    """Assert that one person, who is in one of the two and not in the other, is within the sensitivity."""
    found = zip(request.plan.statistics(request.table).items(), norms(one, other), strict=True)
    for (statistic, extent), squared in found:
        assert squared <= extent.squared, statistic


def test_every_kind_is_at_every_place() -> None:
    union = Request.model_fields["plan"].annotation
    classes = get_args(get_args(union)[0]) if get_origin(union) is Annotated else get_args(union)
    assert set(classes) == set(COMPUTATIONS.values())
    for kind, one in COMPUTATIONS.items():
        assert one.model_fields["kind"].default == kind  # type: ignore[attr-defined]
    assert set(COMPUTATIONS) == set(CONTRIBUTIONS) == set(EXAMPLES)
    # A policy opens several statements by the kind of each.
    assert set(MODELS) == {kind for kind, asked in REQUESTS if asked.plan.training is not None}
    assert set(SHAPES) == set(FAMILIES) == {asked.plan.opened_as for kind, asked in REQUESTS if kind == "exact-step"}
    assert {part.opened_as for _, asked in REQUESTS for part in asked.plan.alone} == OPENED <= set(COMPUTATION_NAMES)
    assert set(NOISED) == set(NOISED_FAMILIES) == {a.plan.opened_as for kind, a in REQUESTS if kind == "noised-step"}
    assert set(NOISED).isdisjoint(WITHOUT_NOISE)
    assert set(NOISED) | set(WITHOUT_NOISE) <= set(SHAPES)
    for kind, asked in REQUESTS:
        assert asked.plan.kind == kind
        assert Request.decode(asked.encode()) == asked


def test_a_private_release_has_noise_in_every_statistic_and_an_exact_one_in_none() -> None:
    for kind, asked in REQUESTS:
        extents = asked.plan.statistics(asked.table).values()
        assert slot_count(asked.plan, asked.table) == sum(extent.length for extent in extents)
        is_private = asked.plan.release == "private" and asked.plan.reads_rows
        assert {(extent.share > 0, extent.sensitivity > 0) for extent in extents} == {(is_private, is_private)}, kind
        check_price(asked.table, asked.plan, asked.micro_rho)
        with pytest.raises(ValueError, match="micro_rho"):
            check_price(asked.table, asked.plan, 0 if is_private else 1)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.torch] * (kind in MODELS)) for kind in COMPUTATIONS]
)
@settings(max_examples=12)
@given(st.fixed_dictionaries(dict.fromkeys(PEOPLE, ROWS_OF_A_PERSON)), st.lists(ROW, min_size=5, max_size=5), TURN)
def test_a_contribution_has_its_shape_and_no_person_exceeds_the_sensitivity(
    compute: Compute, kind: str, rows: dict[str, list[Row]], more: list[Row], turn: int
) -> None:
    for asked in in_turn(EXAMPLES[kind], turn):
        for state in states(asked):
            whole = compute(asked, of_people(rows), state)
            check_shape(asked, whole)
            if asked.plan.release == "exact" or not asked.plan.reads_rows:
                continue
            for person in rows:
                within(asked, whole, compute(asked, of_people({**rows, person: []}), state))
            # Somebody with more rows than may enter: which of them do is drawn for each request.
            many = of_people({**rows, "dee": more})
            within(asked, compute(asked, many, state), whole)


@pytest.mark.torch
def test_prepared_rows_contribute_what_rows_that_are_read_do(compute: Compute, tmp_path: Path) -> None:
    has_keys = 'roles = ["key", "dimension", "filter"], keys = { alphabet = "a-z", length = 8, most = 2 }, domain = ["m'
    rules = policy(
        Edit('kind = "parquet"', 'kind = "parquet"\nread = "prepared"'),
        Edit('roles = ["dimension", "filter"], domain = ["m', has_keys),
        ARRAY_COLUMNS,
    )
    wards, ages, truths = ("medicine", "surgery", "cellar", None), (3, -20, 130, None, 47), (True, False, None)
    rows = [
        {"patient_id": f"p{index % 40}", "ward": wards[index % 4], "age": ages[index % 5], "smoker": truths[index % 3]}
        | {"scan": [[index % 9, 0.5], [0, 8]], "words": [index % 5, 4, 0]}
        for index in range(80)
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "visits.parquet")
    source = source_of(rules, "visits", tmp_path).narrowed(SCHEMA.names)
    log = NamedHere()
    store = Store(rules, tmp_path, log.kept)
    with connect() as database:
        log.prepare(store, database, source, 0)
        reader = Reader(rules, store, database, {"visits": source}, None)
        for kind, asked in REQUESTS:
            one = CONTRIBUTIONS[kind]
            for state in states(asked):
                found = one.compute(here(asked), one.prepared(reader, asked, 0, 20, None), state)
                check_shape(asked, found)
                step = asked.plan.training
                if not asked.plan.reads_rows or (step is not None and step.unit == "silo"):
                    continue  # a whole training takes its batches in the order of the rows
                slack = 0 if asked.plan.release == "private" else 2  # a mean of floats, in another order
                for prepared, read in zip(found, compute(asked, rows, state), strict=True):
                    assert np.abs(prepared - read).max() <= slack, kind


@pytest.mark.torch
def test_the_sensitivity_of_an_audit_is_reached(compute: Compute) -> None:
    """All rows of a person in one cell, or in as many groups as there are: each block changes by what it states."""
    one = [{"ward": "surgery", "age": 3, "smoker": True}] * TABLE.max_rows
    spread = [{"ward": ward, "age": 3, "smoker": True} for ward in WARD.domain]
    others = {"anna": [{"ward": "medicine", "age": 3, "smoker": True}]}
    for asked in EXAMPLES["audit-step"]:
        if (
            asked.plan.release == "exact"
            or asked.table == ARRAYS
            or asked.plan.uses().get("audit", ("ward",)) != ("ward",)
        ):
            continue
        (state,) = states(asked)
        without = compute(asked, of_people(others), state)
        found = [norms(compute(asked, of_people({**others, "bo": own}), state), without) for own in (one, spread)]
        assert [max(own) for own in zip(*found, strict=True)] == [
            extent.squared for extent in asked.plan.statistics(asked.table).values()
        ]


def test_the_sensitivity_of_a_question_is_reached(compute: Compute) -> None:
    """It is neither too small nor a mere upper bound: a person at one end of the bounds changes a statistic by it."""
    ends = ((AGE.low, False), (AGE.high, True))
    people = [[{"ward": "surgery", "age": age, "smoker": is_smoker}] * TABLE.max_rows for age, is_smoker in ends]
    # Somebody counts in as many groups as rows enter; who has one row only, at one end of a count by person.
    people += [[{"ward": ward, "age": 3, "smoker": True} for ward in WARD.domain], people[0][:1]]
    others = {"anna": [{"ward": "medicine", "age": 3, "smoker": True}]}
    for asked in EXAMPLES["query"]:
        without = compute(asked, of_people(others), None)
        found = [norms(compute(asked, of_people({**others, "bo": own}), None), without) for own in people]
        statistics: dict[Statistic, Extent] = dict(asked.plan.statistics(asked.table))
        reached = dict(zip(statistics, map(max, zip(*found, strict=True)), strict=True))
        assert reached == {statistic: extent.squared for statistic, extent in statistics.items()}
