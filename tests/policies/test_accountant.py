"""Prices: the conversion between rho and epsilon by two routes, and what a request really costs."""

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crypto.noise import MIN_DEVIATION
from policies.budget.accountant import charge, delta_of, epsilon_of, micro_rho_of
from policies.requests.computations import slot_count
from policies.requests.query import Aggregate, Plan
from policies.requests.request import Request
from policies.requests.terms import terms_of
from policies.units import MICRO
from tests.cases import every
from tests.harness.example_policy import AGE, COLUMNS, plan, request, table

pytestmark = pytest.mark.slow  # seconds in all: `make check` runs it

RHOS = [1e-6, 2e-5, 1e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0, 10.0, 100.0]
DELTAS = [1e-5, 1e-6, 1e-8, 1e-12]
RHO = st.floats(1e-6, 100)
DELTA = st.floats(1e-12, 1e-5)


def gaussian_delta(rho: float, epsilon: float) -> float:
    """Return the exact delta of one Gaussian mechanism of this rho (Balle and Wang, ICML 2018, theorem 8)."""
    shift = math.sqrt(2 * rho)  # sensitivity over deviation

    def below(value: float) -> float:
        return math.erfc(-value / math.sqrt(2)) / 2

    return below(shift / 2 - epsilon / shift) - math.exp(epsilon) * below(-shift / 2 - epsilon / shift)


def accounted_epsilon(rho: float, delta: float) -> float:
    """Return dp-accounting's epsilon of a zCDP mechanism, over orders dense enough to be tight."""
    import dp_accounting  # heavy, with scipy
    from dp_accounting.rdp import RdpAccountant

    best = 1 + math.sqrt(math.log(1 / delta) / rho)
    orders = [1 + (best - 1) * 10 ** (step / 100) for step in range(-200, 101)]
    accountant = RdpAccountant(orders=orders)
    accountant.compose(dp_accounting.ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta))


@every("delta", DELTAS)
@every("rho", RHOS)
def test_epsilon_agrees_with_dp_accounting(rho: float, delta: float) -> None:
    ours, theirs = epsilon_of(rho, delta), accounted_epsilon(rho, delta)
    assert ours <= theirs + 1e-9  # we search over all orders, they over some
    assert ours == pytest.approx(theirs, rel=0.01)


@every("delta", DELTAS)
@every("rho", [rho for rho in RHOS if rho <= 10])
def test_epsilon_is_never_below_what_a_gaussian_really_loses(rho: float, delta: float) -> None:
    """The Gaussian mechanism is rho-zCDP, so a conversion that promised less than it loses would be wrong."""
    assert gaussian_delta(rho, epsilon_of(rho, delta)) <= delta
    assert gaussian_delta(rho, epsilon_of(rho, delta) * 0.5) > delta  # nor is it absurdly wide


@settings(deadline=None)
@given(RHO, st.floats(0.001, 200))
def test_delta_is_never_below_what_a_gaussian_really_loses(rho: float, epsilon: float) -> None:
    assume(epsilon < 500)
    assert delta_of(rho, epsilon) >= gaussian_delta(rho, epsilon) * (1 - 1e-6) - 1e-15


@settings(deadline=None)
@given(RHO, DELTA)
def test_epsilon_is_within_the_classical_bound(rho: float, delta: float) -> None:
    """Bun and Steinke, proposition 1.3, is valid and looser."""
    assert rho < epsilon_of(rho, delta) <= rho + 2 * math.sqrt(rho * math.log(1 / delta)) + 1e-9


@settings(deadline=None)
@given(RHO, DELTA)
def test_delta_at_the_epsilon_of_a_delta_is_within_it(rho: float, delta: float) -> None:
    assert delta_of(rho, epsilon_of(rho, delta)) <= delta
    assert delta_of(rho, epsilon_of(rho, delta) * 0.999) > delta


@settings(deadline=None)
@given(RHO, RHO, DELTA, st.floats(0.01, 50))
def test_more_rho_never_means_less_epsilon_or_delta(one: float, other: float, delta: float, epsilon: float) -> None:
    low, high = sorted((one, other))
    assert epsilon_of(low, delta) <= epsilon_of(high, delta)
    assert delta_of(low, epsilon) <= delta_of(high, epsilon) * (1 + 1e-9)


@settings(deadline=None)
@given(RHO, DELTA, DELTA)
def test_a_smaller_delta_never_means_less_epsilon(rho: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert epsilon_of(rho, low) >= epsilon_of(rho, high)


@settings(deadline=None)
@given(RHO, st.floats(0, 1))
def test_delta_is_1_where_nothing_is_promised(rho: float, part: float) -> None:
    assert delta_of(rho, rho * part) == 1.0


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 20), DELTA)
def test_price_is_the_greatest_within_epsilon(epsilon: float, delta: float) -> None:
    micro = micro_rho_of(epsilon, delta)
    assume(micro > 0)
    assert epsilon_of(micro / MICRO, delta) <= epsilon * (1 + 1e-9)
    assert epsilon_of((micro + 1) / MICRO, delta) > epsilon * (1 - 1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20_000_000), DELTA)
def test_price_survives_the_round_trip_through_epsilon(micro: int, delta: float) -> None:
    assert abs(micro_rho_of(epsilon_of(micro / MICRO, delta), delta) - micro) <= 1


def test_price_of_no_epsilon_is_nothing() -> None:
    assert micro_rho_of(0.0, 1e-6) == 0
    assert micro_rho_of(1e-9, 1e-6) == 0
    assert micro_rho_of(1e9, 1e-6) == 100 * MICRO


PLANS: list[Plan] = [
    plan(),
    plan(group_by=(), aggregates=(Aggregate(function="count", column=None, alias="n"),)),
    plan(group_by=("ward", "grade"), aggregates=(Aggregate(function="sum", column="cost", alias="total"),)),
    plan(
        aggregates=tuple(
            Aggregate(function="avg", column=column, alias=column) for column in ("age", "cost", "smoker", "stay")
        )
    ),
]


def requests() -> st.SearchStrategy[Request]:
    """Return requests of many prices, roster sizes and sensitivities."""
    return st.builds(
        lambda used, micro_rho, silos, max_rows, max_silos: request(
            plan=used,
            micro_rho=micro_rho,
            silos=tuple(f"s{index:03}" for index in range(silos)),
            table=table(max_rows=max_rows, max_silos=max_silos),
        ),
        st.sampled_from(PLANS),
        st.integers(1, 100 * MICRO),
        st.integers(1, 100),
        st.integers(1, 10_000),
        st.integers(1, 100),
    )


@settings(deadline=None)
@given(requests())
def test_charge_never_exceeds_the_price(asked: Request) -> None:
    """And falls short of it only by one, and by the rounding of variances, which is below 2 in 2^20."""
    cost = charge(asked, asked.table.max_silos)
    assert cost <= asked.micro_rho
    assert asked.micro_rho - cost <= 1 + asked.micro_rho * 2 // 2**20


@settings(deadline=None)
@given(requests())
def test_charge_within_one_below_half_a_rho(asked: Request) -> None:
    assume(asked.micro_rho <= MICRO // 2)
    assert asked.micro_rho - charge(asked, asked.table.max_silos) <= 1


@settings(deadline=None)
@given(requests(), st.integers(1, 100))
def test_charge_grows_with_the_square_of_the_silos_of_a_person(asked: Request, max_silos: int) -> None:
    """Two routes: the silo's own assumption in, or the requested one scaled."""
    scaled = Fraction(max_silos, asked.table.max_silos) ** 2
    own = charge(asked, max_silos)
    assumed = charge(asked, asked.table.max_silos)
    assert (assumed - 1) * scaled <= own <= math.ceil(assumed * scaled)


def in_units(most: int) -> int:
    """Return the most that a row adds, in the least power of two that makes it at most 2^28, halves up."""
    unit = 1
    while most > unit * 2**28:
        unit *= 2
    return math.floor(Fraction(most, unit) + Fraction(1, 2))


@settings(deadline=None)
@given(requests())
def test_variances_cover_the_sensitivity_at_the_price(asked: Request) -> None:
    """Two routes to rho: the sum of sensitivity^2 / (2 variance) by fractions, and the charge."""
    terms = terms_of(asked, bytes(32))
    lost = Fraction(0)
    extents = asked.plan.statistics(asked.table)
    for (statistic, extent), block in zip(extents.items(), terms.blocks, strict=True):
        rows = asked.table.max_rows * asked.table.max_silos
        widths = [asked.table.column(name).range_steps for name in statistic[1:] if name is not None]
        width = 1
        match statistic.kind:
            case "total":
                width = widths[0]  # of 2 * (value - low) - width, at either end
            case "square":
                width = in_units(widths[0] ** 2 // 4)
            case "product":
                width = in_units(widths[0] * widths[1])
        shift = rows * width * 2**block.scale_bits
        assert shift == asked.table.max_silos * extent.sensitivity * 2**block.scale_bits
        lost += Fraction(shift**2, 2 * int(block.variance))
    assert lost <= Fraction(asked.micro_rho, MICRO)
    assert charge(asked, asked.table.max_silos) == math.ceil(lost * MICRO)


@settings(deadline=None)
@given(requests())
def test_each_silo_adds_noise_wide_enough_to_be_gaussian(asked: Request) -> None:
    terms = terms_of(asked, bytes(32))
    assert sum(block.length for block in terms.blocks) == slot_count(asked.plan, asked.table)
    for block in terms.blocks:
        assert int(block.variance) >= MIN_DEVIATION**2 * len(asked.silos)
        if block.scale_bits:  # no finer than needed
            coarser = int(block.variance) / 4
            assert coarser < 2**20 + 2


def test_sensitivity_is_that_of_a_person_in_one_group() -> None:
    """A worked example: 2 rows in each of 3 silos, ages 0 to 110."""
    asked = request(table=table(max_rows=2, max_silos=3))
    found = {
        (one.kind, one.column): 3 * extent.sensitivity for one, extent in asked.plan.statistics(asked.table).items()
    }
    assert found == {("rows", None): 6, ("present", "age"): 6, ("total", "age"): 660}


def test_terms_name_their_blocks_and_are_a_function_of_the_request() -> None:
    asked = request()
    terms = terms_of(asked, bytes(range(32)))
    assert [block.name for block in terms.blocks] == ["rows", "present:age", "total:age"]
    assert [block.length for block in terms.blocks] == [3, 3, 3]
    assert terms.request_hash == bytes(range(32))
    assert terms.recipients == asked.recipients
    assert terms.limit == (2**63 - 1) // len(asked.silos)
    assert terms == terms_of(asked, bytes(range(32)))


def deviations(*figures: tuple[str, str | None], never_missing: tuple[str, ...]) -> dict[str, float]:
    """Return the deviation of the noise of each statistic of figures of columns, by the block's name."""
    columns = tuple(one.model_copy(update={"can_be_missing": one.name not in never_missing}) for one in COLUMNS)
    said = [{"function": function, "column": name, "alias": f"{function}_{name}"} for function, name in figures]
    aggregates = tuple(map(Aggregate.model_validate, said))
    asked = request(table=table(columns=columns), plan=plan(aggregates=aggregates))
    blocks = terms_of(asked, bytes(32)).blocks
    return {one.name: math.sqrt(int(one.variance)) / math.ldexp(1, one.scale_bits) for one in blocks}


@pytest.mark.parametrize(
    ("columns", "few", "many"), [(("age",), 2, 3), (("age", "stay", "cost"), 4, 7)], ids=["AVG", "3 AVG"]
)
def test_rows_count_the_cells_of_a_column_where_none_can_be_missing(
    columns: tuple[str, ...], few: int, many: int
) -> None:
    """One count, bought once: the noise of COUNT(*) and AVG falls by 1.22, that of COUNT(*) and three AVG by 1.32."""
    figures = [("count", None), *(("avg", name) for name in columns)]
    never, can = deviations(*figures, never_missing=columns), deviations(*figures, never_missing=())
    assert set(never) == {"rows", *(f"total:{name}" for name in columns)}
    assert (len(never), len(can)) == (few, many)
    for name, deviation in never.items():
        assert can[name] / deviation == pytest.approx(math.sqrt(many / few), rel=1e-5)
    assert math.sqrt(many / few) == pytest.approx({2: 1.22, 4: 1.32}[few], abs=0.005)
    assert set(deviations(("count", "age"), ("sum", "age"), never_missing=("age",))) == {"rows", "total:age"}


def test_wider_bounds_cost_the_same_and_bring_more_noise() -> None:
    wide = tuple(AGE.model_copy(update={"high": 220}) if column is AGE else column for column in COLUMNS)
    narrow_block = terms_of(request(), bytes(32)).blocks[2]
    wide_block = terms_of(request(table=table(columns=wide)), bytes(32)).blocks[2]

    def deviation(variance: str, scale_bits: int) -> float:
        return math.sqrt(int(variance)) / math.ldexp(1, scale_bits)

    assert deviation(wide_block.variance, wide_block.scale_bits) == pytest.approx(
        2 * deviation(narrow_block.variance, narrow_block.scale_bits), rel=1e-5
    )
