"""What a search would cost and could find, before it is asked: no row is read, no budget used, nothing is kept."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from analyst.client import Federation
from analyst.finding.search import Wanted, begun, search_of
from analyst.finding.tree import surely_found
from analyst.preview import AtSilo, at_silo
from analyst.widths import deviations_of
from policies.budget.accountant import epsilon_of
from policies.budget.sampler import rho_delta
from policies.requests.request import Request
from policies.units import MICRO, counted


@dataclass(frozen=True, slots=True)
class SearchPreview:
    """A search before it is asked."""

    asks: str
    keys: str  # what a key is
    rounds: int  # at most
    rho: float  # of all of them
    epsilon: float
    delta: float
    most_prefixes: int  # of a round
    slots: int  # of the largest round
    sd: float  # of the noise in each number, in persons
    surely_found: float  # persons of a key that is found with probability 0.95
    silos: Mapping[str, AtSilo]  # with the price of one round

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        found = asdict(self)
        for silo, one in self.silos.items():
            found["silos"][silo]["denials"] = [denial.model_dump() for denial in one.denials]
            found["silos"][silo]["left"] = [budget.model_dump() for budget in one.left]
        return found


def preview_search(federation: Federation, wanted: Wanted) -> SearchPreview:
    """Return what a search would cost and could find; raises as a search does before anything is sent."""
    state = begun(federation, wanted)
    request = federation.resolved(Request.decode(state.first))
    search, standing = search_of(request), federation.standing(request)
    offer = federation.offer_of(wanted.silos)
    conditions = {silo: offer.silos[silo] for silo in request.silos}
    (sd,) = deviations_of(request.table, request.plan, request.micro_rho, conditions.values()).values()
    rho = search.steps * request.micro_rho / MICRO
    return SearchPreview(
        asks=search.in_words(request.table.name),
        keys=search.shape.in_words,
        rounds=search.steps,
        rho=rho,
        epsilon=epsilon_of(rho, rho_delta(offer.delta)),
        delta=offer.delta,
        most_prefixes=state.most,
        slots=state.most * (len(search.shape.alphabet) + 1),
        sd=sd,
        surely_found=surely_found(search.shape, sd, state.min_cohort, state.most),
        silos={silo: at_silo(one, standing.get(silo), wanted.purpose) for silo, one in conditions.items()},
    )


def preview_lines(found: SearchPreview) -> Iterator[str]:
    """Yield a preview as text."""
    yield found.asks
    yield found.keys
    yield (
        f"price: epsilon {found.epsilon:.3g} at delta {found.delta:g} (rho {found.rho:.4g}) to each person,"
        f" in up to {counted(found.rounds, 'round')} of equal price"
    )
    for silo, one in found.silos.items():
        if one.rho:
            yield f"  {silo}: rho {one.rho * found.rounds:.4g} there"
        for denial in one.denials:
            yield f"  {silo} would refuse: {denial.code} ({denial.rule}): {denial.message}; {denial.remedy}"
    numbers = f"{found.slots:,} numbers, each with noise of {found.sd:,.0f}"
    yield f"a round has up to {found.most_prefixes:,} prefixes, {numbers}"
    yield (
        f"a key of {counted(found.surely_found, 'person')} is found with probability 0.95,"
        " if nobody has more keys than count; nothing was asked, nothing is paid"
    )
