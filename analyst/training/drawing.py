"""Rounds that ask a share of a run's silos: whether one can be, and which draw is asked where silos are away.

policies/requests/share.py has the draw itself, which silos check.
"""

from collections.abc import Mapping, Set
from contextlib import suppress
from decimal import Decimal

from analyst.answers import failures_of
from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.remedies import Bearing, bears
from analyst.sql.offer import Offer
from crypto.rounds.bounds import silos_needed
from crypto.rounds.messages import Failure
from federation.errors import FederationError
from policies.requests.request import Request
from policies.requests.share import MOST_DRAWS, count_of, drawn
from policies.units import counted


def check_share(offer: Offer, request: Request) -> None:
    """Raise AnalystError where a share of a run's silos is too few for a sum; `request` is the first of the run."""
    step = request.plan.training
    if step is None or step.share == 1 or step.steps == 1:
        return
    silos = request.run_silos
    conditions = Bearing.of([offer.silos[silo] for silo in silos]).conditions
    count = count_of(step.share, len(silos))
    needed = silos_needed(count, *conditions)
    if needed == count:
        return
    asks = f"share {step.share} of {counted(len(silos), 'silo')} asks {count} a round"
    if needed is None or needed > len(silos):
        raise AnalystError(f"{asks}, too few for a sum under their policies", "remove rounds.share: all are asked")
    least = Decimal(-(-100 * needed // len(silos))) / 100
    message = f"{asks}, and a sum under their policies needs {needed}"
    raise AnalystError(message, f"write share = {least.normalize():f} or more, or remove it")


def later_draws(request: Request) -> tuple[int, ...]:
    """Return the draws of a request's round after its own; none where it asks all silos of its run."""
    step = request.plan.training
    if step is None or step.share == 1 or step.step == 0:
        return ()
    found = [drawn(step.run, step.step, draw, request.run_silos, step.share) for draw in range(MOST_DRAWS)]
    own = found.index(request.silos)
    return tuple(draw for draw in range(own + 1, MOST_DRAWS) if found[draw] not in found[:draw])


def out_of(federation: Federation, request: Request, failure: Failure, denied: Mapping[str, object]) -> set[str]:
    """Return the silos of a failed round that take no part in another draw of it.

    They were away, or refused; once silos were told to contribute it is all of them, as no silo contributes twice to
    one model.
    """
    if failure.charged:
        return set(request.silos)
    return {*failure.missing, *failure.left_out, *denied, *failures_of(failure.failed, federation.config.roster)}


def can_take_part(federation: Federation, request: Request, draw: int, away: Set[str]) -> bool:
    """Tell whether a draw of a request's round has a sum without the silos that are away."""
    step = request.plan.training
    if step is None:
        return False
    silos = drawn(step.run, step.step, draw, request.run_silos, step.share)
    with suppress(AnalystError, FederationError):
        offer = federation.known or federation.offer
        return bears(offer.silos, len(silos), [silo for silo in silos if silo not in away])
    return False
