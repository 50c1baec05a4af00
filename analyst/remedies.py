"""What helps where too few silos take part: each remedy follows from the numbers of the policies, and works.

The numbers are how many silos are asked and take part, and of the policies `min_silos`, `max_colluding` and
`max_missing`; `crypto.rounds.bounds` says what they allow. docs/protocol.md section 1.1.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from analyst.sql.offer import Offer
from crypto.rounds.bounds import missing_borne, silos_needed, why_infeasible, why_too_few
from policies.requests.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Bearing:
    """What the policies of some silos bear together: the strictest of each condition."""

    min_silos: int
    max_colluding: int
    max_missing: int

    @classmethod
    def of(cls, catalogues: Collection[Catalogue]) -> "Bearing":
        """Return what the policies of these catalogues bear together; there must be one at least."""
        return cls(
            max(one.min_silos for one in catalogues),
            max(one.max_colluding for one in catalogues),
            min(one.max_missing for one in catalogues),
        )

    @property
    def conditions(self) -> tuple[int, int, int]:
        """The conditions in the order in which `crypto.rounds.bounds` takes them."""
        return self.min_silos, self.max_colluding, self.max_missing

    def why_not(self, asked: int, present: int) -> str:
        """Return why a request to `asked` silos has no answer of those present; empty if it may have one."""
        return why_infeasible(asked, *self.conditions) or why_too_few(present, asked, *self.conditions)


def bearing_of(offer: Offer | None, silos: Collection[str]) -> Bearing | None:
    """Return what the policies of these silos bear, as far as an offer has their catalogues; None if it has none."""
    known = [] if offer is None else [one for silo, one in offer.silos.items() if silo in silos]
    return Bearing.of(known) if known else None


def bears(silos: Mapping[str, Catalogue], asked: int, present: Collection[str]) -> bool:
    """Tell whether a request to `asked` silos may have an answer of those present, by their own policies."""
    known = [silos[silo] for silo in present if silo in silos]
    return len(known) == len(present) > 0 and not Bearing.of(known).why_not(asked, len(present))


def remedy_of(bearing: Bearing, asked: Sequence[str], present: Sequence[str], away: Sequence[str]) -> str:
    """Return what helps a request to the silos `asked`, of which some take part, or to which `away` may be added.

    `away` are silos that do not answer: of those asked, or others that would be asked if they did.
    """
    back = _back(bearing, asked, present, away)
    takes = " or ".join(_for_good(bearing, len(present)))
    if back:
        return f"ask again when {back}" + (f"; if that will not be, it takes {takes}" if takes else "")
    return f"it takes {takes}" if takes else "see `consilo silos`"


def wider(bearing: Bearing, chosen: Sequence[str], others: Sequence[str]) -> str:
    """Return what helps a request to silos that an analyst has chosen, where they are too few."""
    needed = silos_needed(len(chosen), *bearing.conditions)
    if needed is None or needed > len(chosen) + len(others):
        return remedy_of(bearing, chosen, chosen, ())
    more, names = needed - len(chosen), ", ".join(others)
    which = names if more == len(others) else f"{more} of {names}"
    return f"ask {needed} silos or more: {', '.join(chosen)}, and {which}"


def _back(bearing: Bearing, asked: Sequence[str], present: Sequence[str], away: Sequence[str]) -> str:
    """Return how many of the silos that are away must be back, and which; empty if that is not enough."""
    for count in range(1, len(away) + 1):
        of_asked = len(set(away) & set(asked))
        total = len(asked) if of_asked else len(asked) + count
        if not bearing.why_not(total, len(present) + count):
            names = ", ".join(away)
            return f"{names} {'is' if len(away) == 1 else 'are'} back" if count == len(away) else _some(count, names)
    return ""


def _some(count: int, names: str) -> str:
    return f"{count} of {names} {'is' if count == 1 else 'are'} back"


def _for_good(bearing: Bearing, left: int) -> Iterator[str]:
    """Yield what makes a request possible to the silos that are left, if nobody comes back."""
    if why_infeasible(left, *bearing.conditions):
        borne = missing_borne(left, *bearing.conditions)
        if borne is not None:
            yield f"max_missing = {borne} in every policy"
        needed = silos_needed(left, *bearing.conditions)
        if needed is not None:
            more = needed - left
            yield f"{more} more silo{'s' if more > 1 else ''}"
