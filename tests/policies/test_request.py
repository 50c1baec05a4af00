"""Requests survive the wire unchanged, and what no silo could answer is no request."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from crypto.backends.registry import BACKENDS
from crypto.errors import WireError
from crypto.rounds.manifest import Recipient
from crypto.sealing import PUBLIC_BYTES
from policies.budget.ledger import Spending
from policies.decision.decide import decide
from policies.domains import LongDomain, digest_in, hash_of, text_of, with_text
from policies.requests.calibration import clamp_of, spreads_of
from policies.requests.capacity import carried_rows, carriers
from policies.requests.computations import slot_count
from policies.requests.denials import Denial, Refusal
from policies.requests.exact import ExactStep, Setting
from policies.requests.moments import PAIRS
from policies.requests.predicates import Both, Compare, Either, IsNull, Not, OneOf, Predicate
from policies.requests.query import AGGREGATES, Aggregate, Plan
from policies.requests.request import (
    MAX_LIFETIME_S,
    MAX_SLOTS,
    MAX_TRAINED,
    OTHER_SLOTS,
    Request,
    most_slots,
    resolved,
)
from policies.requests.statistic import Statistic
from policies.requests.tables import TableColumn, is_number
from policies.requests.training import START
from policies.units import MAX_DOMAIN, MAX_LONG_DOMAIN, ROWS_UP_TO
from tests.cases import every
from tests.harness.example_policy import (
    AGE,
    AT,
    COLUMNS,
    CREATED_AT,
    GRADE,
    SMOKER,
    STAY,
    WARD,
    Edit,
    catalogue,
    plan,
    policy,
    request,
    table,
)

NUMBER = st.integers(-(10**17), 10**17).map(str) | st.decimals(
    -1000, 1000, allow_nan=False, allow_infinity=False, places=3
).map(lambda value: f"{value:f}")
TEXT = st.text(max_size=20).filter(lambda text: text.isprintable())


def literals(column: TableColumn) -> st.SearchStrategy[str]:
    if column.type == "bool":
        return st.sampled_from(["true", "false"])
    return TEXT if column.type == "string" else NUMBER


def leaves() -> st.SearchStrategy[Predicate]:
    """Return predicates without operands over the example's columns."""

    def of(column: TableColumn) -> st.SearchStrategy[Predicate]:
        values = literals(column)
        return st.one_of(
            st.builds(
                Compare,
                column=st.just(column.name),
                op=st.sampled_from(["=", "<>", "<", "<=", ">", ">="]),
                value=values,
            ),
            st.builds(OneOf, column=st.just(column.name), values=st.lists(values, min_size=1, max_size=4).map(tuple)),
            st.builds(IsNull, column=st.just(column.name)),
        )

    return st.sampled_from(COLUMNS).flatmap(of)


def predicates() -> st.SearchStrategy[Predicate]:
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.builds(Not, operand=inner),
            st.builds(Both, operands=st.lists(inner, min_size=2, max_size=3).map(tuple)),
            st.builds(Either, operands=st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=8,
    )


def plans() -> st.SearchStrategy[Plan]:
    measures = st.sampled_from(["age", "cost", "smoker", "stay"])
    pairs = st.lists(measures, min_size=2, max_size=2, unique=True)
    aggregate = st.one_of(
        st.just(("count", None)),
        st.tuples(st.sampled_from(list(AGGREGATES)), measures),
        st.tuples(st.sampled_from(list(PAIRS)), pairs).map(lambda one: (one[0], *one[1])),
    )
    return st.builds(
        lambda where, group_by, chosen: Plan(
            where=where,
            group_by=group_by,
            aggregates=tuple(
                Aggregate(
                    function=function,
                    alias=f"a{index}",
                    at=AT.get(function),
                    **dict(zip(("column", "other"), names, strict=False)),
                )
                for index, (function, *names) in enumerate(chosen)
            ),
        ),
        st.none() | predicates(),
        st.sampled_from([(), ("ward",), ("grade",), ("grade", "ward")]),
        st.lists(aggregate, min_size=1, max_size=6),
    )


def requests() -> st.SearchStrategy[Request]:
    return st.builds(
        lambda nonce, micro_rho, silos, max_rows, lifetime, used: request(
            nonce=nonce,
            micro_rho=micro_rho,
            silos=tuple(sorted(silos)),
            table=table(max_rows=max_rows),
            expires_at=CREATED_AT + lifetime,
            plan=used,
        ),
        st.binary(min_size=16, max_size=16),
        st.integers(1, 10**8),
        st.sets(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@+/-]{0,8}", fullmatch=True), min_size=1, max_size=6),
        st.integers(1, 100),
        st.integers(1, MAX_LIFETIME_S),
        plans(),
    )


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(requests())
def test_requests_survive_the_wire(asked: Request) -> None:
    encoded = asked.encode()
    assert Request.decode(encoded) == asked
    assert Request.decode(encoded).encode() == encoded


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_requests_are_refused_or_are_other_requests_in_their_one_encoding(data: st.DataObject) -> None:
    raw = bytearray(request().encode())
    start = data.draw(st.integers(0, len(raw)))
    raw[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        decoded = Request.decode(bytes(raw))
    except WireError:
        return
    assert decoded.encode() == bytes(raw)


def test_catalogues_and_refusals_survive_the_wire() -> None:
    published = catalogue(policy())
    assert type(published).decode(published.encode()) == published
    denial = Denial(code="AGGREGATE", rule="disclosure.aggregates", message="no", remedy="yes")
    refusal = Refusal(federation="fed", request_hash=bytes(32), policy_hash=bytes(32), denials=(denial,))
    assert Refusal.decode(refusal.encode()) == refusal
    with pytest.raises(ValidationError):
        Refusal(federation="fed", request_hash=bytes(32), policy_hash=bytes(32), denials=())


def deep(levels: int) -> Predicate:
    predicate: Predicate = Compare(column="age", op=">", value="3")
    for _ in range(levels):
        predicate = Not(operand=predicate)
    return predicate


def wide(parts: int) -> Predicate:
    """Return a filter of exactly `parts` nodes."""
    leaf = Compare(column="age", op=">", value="3")
    groups: list[Predicate] = []
    left = parts - 1
    while left > 0:
        size = min(left, 51)
        groups.append(leaf if size < 3 else Both(operands=(leaf,) * (size - 1)))
        left -= 1 if size < 3 else size
    return Either(operands=tuple(groups))


def filtered(predicate: Predicate) -> dict[str, Any]:
    return {"plan": plan(where=predicate)}


def compared(column: str, value: str) -> dict[str, Any]:
    return filtered(Compare(column=column, op="=", value=value))


def aliased(*aliases: str, group_by: tuple[str, ...] = ()) -> dict[str, Any]:
    counts = tuple(Aggregate(function="count", column=None, alias=alias) for alias in aliases)
    return {"plan": plan(aggregates=counts, group_by=group_by)}


def measured(column: str) -> dict[str, Any]:
    return {"plan": plan(aggregates=(Aggregate(function="sum", column=column, alias="total"),))}


def domain_of(size: int) -> dict[str, Any]:
    """Return a question with `size` groups and one statistic."""
    values = tuple(map(str, range(size)))
    domain = values if size <= MAX_DOMAIN else LongDomain(digest_in(hash_of(values)), size)
    large = TableColumn(name="ward", type="string", domain=domain, unknown="0")
    code = TableColumn(name="grade", type="int", domain=tuple(map(str, range(100))), unknown="0")
    columns = tuple({"ward": large, "grade": code}.get(column.name, column) for column in COLUMNS)
    counting = (Aggregate(function="count", column=None, alias="n"),)
    used = plan(group_by=("ward", "grade"), aggregates=counting, where=None)
    return {"table": table(columns=columns), "plan": used}


REFUSED: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
    ("silos unsorted", lambda: {"silos": ("west", "east")}, "silos must be sorted and distinct"),
    ("silo twice", lambda: {"silos": ("east", "east")}, "silos must be sorted and distinct"),
    ("no silos", lambda: {"silos": ()}, "silos"),
    ("1,001 silos", lambda: {"silos": tuple(f"s{index:04}" for index in range(1001))}, "silos"),
    ("silo name", lambda: {"silos": ("no name",)}, "silos"),
    ("over before it begins", lambda: {"expires_at": CREATED_AT}, "expires_at must follow created_at"),
    ("31 days", lambda: {"expires_at": CREATED_AT + MAX_LIFETIME_S + 1}, "within 30 days"),
    ("no rho", lambda: {"micro_rho": 0}, "micro_rho"),
    ("more than 100 rho", lambda: {"micro_rho": 100_000_001}, "micro_rho"),
    ("short nonce", lambda: {"nonce": bytes(15)}, "nonce"),
    ("no recipient", lambda: {"recipients": ()}, "recipients"),
    ("a recipient twice", lambda: {"recipients": (Recipient(name="a", key=bytes(PUBLIC_BYTES)),) * 2}, "named twice"),
    ("other backend", lambda: {"backend": "plain"}, "backend"),
    ("other version", lambda: {"version": "request/2"}, "version"),
    ("unknown filter column", lambda: compared("mood", "x"), "column 'mood' is not in the table definition"),
    ("unknown measure", lambda: measured("mood"), "column 'mood' is not in the table definition"),
    ("unknown dimension", lambda: {"plan": plan(group_by=("mood",))}, "column 'mood' is not in the table definition"),
    ("measure without bounds", lambda: measured("region"), "measure 'region' has no bounds"),
    ("dimension without domain", lambda: {"plan": plan(group_by=("age",))}, "dimension 'age' has no domain"),
    ("column defined twice", lambda: {"table": table(columns=(*COLUMNS, AGE))}, "a column is defined twice"),
    ("alias twice", lambda: aliased("n", "n"), "an output name is used twice"),
    ("alias of a dimension", lambda: aliased("ward", group_by=("ward",)), "an output name is used twice"),
    ("dimension twice", lambda: {"plan": plan(group_by=("ward", "ward"))}, "an output name is used twice"),
    ("deep filter", lambda: filtered(deep(13)), "nested too deeply or has too many parts"),
    ("large filter", lambda: filtered(wide(201)), "nested too deeply or has too many parts"),
    ("word for an int", lambda: compared("age", "old"), "'old' is no int, the type of column 'age'"),
    ("number with exponent", lambda: compared("cost", "1e3"), "'1e3' is no decimal"),
    ("number for a bool", lambda: compared("smoker", "1"), "'1' is no bool"),
    ("word in a list", lambda: filtered(OneOf(column="age", values=("3", "x"))), "'x' is no int"),
    ("word inside a negation", lambda: filtered(Not(operand=Compare(column="age", op="<", value=""))), "'' is no int"),
    (
        "too many slots",
        lambda: domain_of(MAX_SLOTS // 100 // 2 + 1) | measured_groups(),
        "1,000,200 slots, at most 1,000,000 are possible",
    ),
    (
        "noise beyond the ring",
        lambda: {"table": table(max_rows=10_000, max_silos=100, columns=wide_bounds()), "micro_rho": 1},
        "the noise would exceed the ring; narrow the bounds or raise epsilon",
    ),
]


def measured_groups() -> dict[str, Any]:
    """Return a plan over two dimensions that needs two statistics."""
    chosen = (Aggregate(function="avg", column="age", alias="mean"),)
    return {"plan": plan(group_by=("ward", "grade"), aggregates=chosen, where=None)}


def wide_bounds() -> tuple[TableColumn, ...]:
    return tuple(AGE.model_copy(update={"low": 0, "high": 2**32}) if column is AGE else column for column in COLUMNS)


@pytest.mark.parametrize(("title", "changes", "message"), REFUSED, ids=[title for title, _, _ in REFUSED])
def test_what_no_silo_could_answer_is_no_request(
    title: str, changes: Callable[[], dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        request(**changes())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"silos": ("east",)},
        {"expires_at": CREATED_AT + MAX_LIFETIME_S},
        {"micro_rho": 100_000_000},
        filtered(deep(12)),
        filtered(wide(200)),
        compared("age", "-3"),
        compared("age", "3.5"),
        compared("region", "'; DROP TABLE visits; --"),
        domain_of(MAX_SLOTS // 100),
        domain_of(MAX_SLOTS // 100 // 2) | measured_groups(),
        {"table": table(max_rows=10_000, max_silos=100), "micro_rho": 1},
    ],
    ids=[
        "one silo",
        "30 days",
        "100 rho",
        "depth",
        "parts",
        "negative",
        "fraction for an int",
        "any text",
        "groups",
        "slots",
        "noise",
    ],
)
def test_the_limits_themselves_are_within(changes: dict[str, Any]) -> None:
    asked = request(**changes)
    assert asked.nonce == bytes(range(16))


def test_noise_meets_the_ring_exactly_at_its_limit() -> None:
    """The least rho that is accepted for a sensitivity is the one at which the deviation is 2^52."""
    columns = wide_bounds()
    single = {"plan": plan(where=None, group_by=(), aggregates=(Aggregate(function="sum", column="age", alias="t"),))}

    def accepted(micro_rho: int) -> bool:
        try:
            request(table=table(max_rows=10_000, max_silos=2, columns=columns), micro_rho=micro_rho, **single)
        except ValidationError:
            return False
        return True

    widest = 20_000 * 2**32
    least = -(-(widest**2 * 2 * 1_000_000) // (2 * 2**104))
    assert accepted(least)
    assert not accepted(least - 1)


@every(
    ("changes", "message"),
    [
        ({"low": 3}, "low, high and step go together"),
        ({"low": 0, "high": 5}, "low, high and step go together"),
        ({"step": "1"}, "low, high and step go together"),
        ({"low": 5, "high": 5, "step": "1"}, "low must be below high"),
        ({"low": 6, "high": 5, "step": "1"}, "low must be below high"),
        ({"low": 0, "high": 2**32 + 1, "step": "1"}, "not too far"),
        ({"low": 0, "high": 5, "step": "0"}, "step must be above 0"),
        ({"low": 0, "high": 5, "step": "0.000"}, "step must be above 0"),
        ({"low": 0, "high": 5, "step": "1e3"}, "step"),
        ({"low": 0, "high": 5, "step": "-1"}, "step"),
        ({"low": -(2**60) - 1, "high": 0, "step": "1"}, "low"),
        ({"domain": ("a", "b")}, "unknown must be in the domain"),
        ({"domain": ("a", "b"), "unknown": "c"}, "unknown must be in the domain"),
        ({"domain": ("a", "a"), "unknown": "a"}, "no value twice"),
        ({"domain": ("a" * 201,), "unknown": "a" * 201}, "domain"),
        ({"name": "no name"}, "name"),
        ({"type": "time"}, "type"),
    ],
)
def test_columns_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"name": "x", "type": "int"}
    with pytest.raises(ValidationError) as caught:
        TableColumn(**fields | changes)
    assert message in str(caught.value)


@settings(deadline=None)
@given(st.integers(-(10**18) + 1, 10**18 - 1), st.text("0123456789", max_size=9))
def test_numbers_of_the_wire(whole: int, decimals: str) -> None:
    assert is_number(str(whole))
    assert is_number(f"{whole}.{decimals}") == bool(decimals)


@every(
    "text",
    ["", "-", "+1", "--1", "1.", ".5", "1e3", "1,5", " 1", "1 ", "1_0", "٣", "²", "0x1", "1" * 19, "0." + "1" * 10],
)
def test_what_is_no_number_of_the_wire(text: str) -> None:
    assert not is_number(text)


def test_statistics_are_shared_and_in_order() -> None:
    chosen = [("sum", "age"), ("count", None), ("avg", "age"), ("count", "age"), ("count", "stay"), ("count", None)]
    used = plan(
        aggregates=tuple(
            Aggregate(function=function, column=column, alias=f"a{index}")  # type: ignore[arg-type]
            for index, (function, column) in enumerate(chosen)
        )
    )
    assert tuple(used.statistics(table())) == (
        Statistic("present", "age"),
        Statistic("total", "age"),
        Statistic("rows", None),
        Statistic("present", "stay"),
    )


def test_groups_are_in_the_order_of_the_domains_with_the_last_dimension_fastest() -> None:
    grouped = plan(group_by=("grade", "ward"))
    asked = request(plan=grouped)
    groups = list(grouped.groups(asked.table))
    assert groups == [(grade, ward) for grade in GRADE.domain for ward in WARD.domain]
    assert asked.plan.group_count(asked.table) == len(groups) == 12
    assert slot_count(asked.plan, asked.table) == 12 * 3
    alone = request(plan=plan(group_by=()))
    assert list(plan(group_by=()).groups(alone.table)) == [()]
    assert alone.plan.group_count(alone.table) == 1


def test_uses_name_each_column_once_by_role() -> None:
    where = Both(
        operands=(
            Compare(column="age", op=">", value="3"),
            Not(operand=Either(operands=(IsNull(column="region"), OneOf(column="age", values=("5",))))),
            Compare(column="ward", op="=", value="surgery"),
        )
    )
    chosen = tuple(
        Aggregate(function="sum", column=column, alias=str(index))
        for index, column in enumerate((STAY.name, "age", STAY.name))
    )
    assert plan(where=where, aggregates=chosen).uses() == {
        "dimension": ("ward",),
        "filter": ("age", "region", "ward"),
        "measure": ("stay", "age"),
    }


def test_a_request_over_a_long_domain_carries_its_hash_alone() -> None:
    values = tuple(f"icd-{number:06}" for number in range(MAX_LONG_DOMAIN))
    domain = LongDomain(digest_in(hash_of(values)), len(values))
    icd = TableColumn(name="icd", type="string", domain=domain, unknown=values[-1])
    counting = (Aggregate(function="count", column=None, alias="n"),)
    asked = request(table=table(columns=(icd,)), plan=plan(where=None, group_by=("icd",), aggregates=counting))
    data = asked.encode()
    assert len(data) < 3000, f"{len(data)} bytes"
    read = Request.decode(data)
    assert read == asked
    assert slot_count(read.plan, read.table) == MAX_LONG_DOMAIN
    assert read.table.unresolved == (domain,)

    whole = with_text(domain, text_of(values))
    known = resolved(read, {domain.digest: whole})
    assert known.encode() == data, "values are no part of the message"
    assert known == read
    assert not known.table.unresolved
    assert list(known.table.column("icd").domain[:2]) == ["icd-000000", "icd-000001"]
    assert "icd-000007" in whole
    assert "icd-7" not in whole
    assert whole.index("icd-000007") == 7
    with pytest.raises(ValueError, match="not in the domain"):
        whole.index("icd-7")
    assert resolved(read, {}) == read
    assert resolved(read, {domain.digest: LongDomain(domain.digest, 2000)}).table.unresolved == (domain,)


def test_a_long_domain_that_contradicts_its_column_is_refused() -> None:
    domain = LongDomain(bytes(32), MAX_DOMAIN + 1)
    for changes in (
        {"unknown": None},
        {"type": "date"},
        {"type": "bool"},
        {"type": "decimal"},
        {"domain": {"hash": "A" * 43 + "=", "size": MAX_DOMAIN}},
        {"domain": {"hash": "A" * 43 + "=", "size": MAX_LONG_DOMAIN + 1}},
        {"domain": {"hash": "AA==", "size": 2000}},
        {"domain": {"hash": "A" * 43 + "=", "size": 2000, "values": []}},
        {"domain": tuple(map(str, range(MAX_DOMAIN + 1))), "unknown": "0"},
    ):
        with pytest.raises(ValidationError):
            TableColumn.model_validate({"name": "icd", "type": "string", "domain": domain, "unknown": "?"} | changes)


def test_other_backends_say_how_many_slots_they_carry() -> None:
    request(backend="shares", **domain_of(OTHER_SLOTS // 100))
    with pytest.raises(ValidationError, match="100,100 slots, shares carries 100,000; take the backend masking"):
        request(backend="shares", **domain_of(OTHER_SLOTS // 100 + 1))


def test_a_backend_carries_so_many_rows_at_their_worst_and_no_row_more() -> None:
    """Balances of -20,000.00 to 20,000.00 at three silos: `ckks` cut the sum of 60,000 of them in silence."""
    balance = TableColumn(name="age", type="decimal", low=-2_000_000, high=2_000_000, step="0.01")
    summed = plan(where=None, group_by=(), aggregates=(Aggregate(function="sum", column="age", alias="s"),))
    of, silos = (table(columns=(balance,)), summed, 24_355), 3
    for name, backend in BACKENDS.items():
        carried, scale_bits = carried_rows(*of, name, silos), spreads_of(*of)[Statistic("total", "age")].scale_bits
        assert carried * 4_000_000 <= clamp_of(backend.capacity(silos), scale_bits) < (carried + 1) * 4_000_000
    assert carried_rows(*of, "ckks", silos) < 60_000
    assert carriers(*of, silos, ROWS_UP_TO) == ("masking", "shares", "paillier")
    assert "ckks" in carriers(*of, silos, 8_192)
    assert carriers(*of, silos, 2**60) == ()
    wide = policy(Edit("uri  =", f"rows_up_to = {2**40}\nuri  ="), Edit("[0, 110]", "[0, 1_000_000_000]"))
    age = AGE.model_copy(update={"high": 10**9})
    asked = request(table=table(columns=(age,)), plan=summed)
    (denial,) = decide(wide, asked, bytes(32), Spending(0), CREATED_AT)
    assert (denial.code, denial.remedy) == ("BACKEND", "ask for narrower bounds, or spend less")


def test_a_model_of_long_weights_takes_masking_and_a_question_no_more_slots_than_before() -> None:
    def step(bits: int) -> ExactStep:
        options = (Setting(name="bits", value=str(bits)),)
        whose = {"run": bytes(16), "step": 0, "steps": 5, "after": START, "label": "smoker", "features": ("ward",)}
        return ExactStep(family="hashed-logistic", options=options, **whose)  # type: ignore[arg-type]

    columns = {"table": table(columns=(WARD, SMOKER)), "micro_rho": 0}
    asked = request(plan=step(21), **columns)
    assert slot_count(asked.plan, asked.table) > 2 * MAX_SLOTS
    assert most_slots(asked.plan) == MAX_TRAINED
    assert asked.plan.training is not None
    assert asked.plan.training.state_values(0) == 2**21
    for backend in ("bfv", "ckks", "paillier"):
        with pytest.raises(ValueError, match="take the backend masking"):
            request(plan=step(17), backend=backend, **columns)
    with pytest.raises(ValueError, match="shares does not train"):
        request(plan=step(17), backend="shares", **columns)
    assert carriers(asked.table, asked.plan, 0, 3, 1) == ("masking",)
