"""What becomes of a run whose step has no report: it goes on with fewer silos, or ends with an error that says how on.

Promise: an error names the step, the silos that are missing, and a remedy that works. docs/training.md, "Interrupted
runs"; docs/decisions/0049-killed-in-mid-run.md.
"""

from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from analyst.answers import error_of
from analyst.asking import SPENT
from analyst.client import Federation
from analyst.errors import AnalystError, DeniedError, RoundError, StuckError
from analyst.remedies import bearing_of
from analyst.training.affordable import affordable, limits_of
from analyst.training.progress import Progress, forget, write
from analyst.training.step import BEHIND, ahead, codes_of, learned, place_of
from crypto.rounds.messages import Failure, RunEnd
from federation.errors import FederationError
from policies.budget.accountant import epsilon_of
from policies.decision.denial_codes import UNABLE
from policies.requests.request import Request
from policies.units import MICRO

_AWAITED = "APPROVAL_AWAITED"
_OVER = "RUN_OVER"
_PRICES = ("RHO_", "BUDGET_")  # how the codes of denials begin that are of the price
_SIGN_ANEW = frozenset({SPENT, "REPLACED", "REQUEST_EXPIRED", "RETRIES"})  # what is said of the request itself


def after_failure(
    federation: Federation, state: Progress, request: Request, failure: Failure, keep: Path | None
) -> Progress:
    """Return the progress of the run that goes on with fewer silos, or is over; raises DeniedError or RoundError else.

    What silos were charged for the step that failed is noted in either case.
    """
    with suppress(AnalystError, FederationError):
        _ = federation.known or federation.offer  # a continued run has asked for no catalogue yet
    denied = codes_of(federation, failure)
    codes = {code for one in denied.values() for code in one}
    is_charged = failure.charged or SPENT in codes
    under_way = b"" if is_charged or codes & _SIGN_ANEW else request.encode()
    after = state.model_copy(update={"under_way": under_way, "lost": state.lost + is_charged})
    if set(denied) == set(request.silos) and codes == {BEHIND} and (newer := ahead(federation, state)) is not None:
        after = state.model_copy(update={"done": state.done + 1, "after": newer, "under_way": b"", "holders": ()})
        write(keep, after)
        return after
    if codes == {_OVER} and (reason := _why_over(federation, state)) is not None:
        after = state.model_copy(update={"ended": reason, "under_way": b""})
        write(keep, after)
        return after
    instead = federation.in_place_of(request, failure)
    if instead is not None:
        after = after.model_copy(update={"first": instead.encode(), "under_way": instead.encode()})
        write(keep, after)
        return after
    is_away = bool(failure.missing or failure.failed or codes & UNABLE)
    error = error_of(failure, request, federation.config.roster, bearing_of(federation.known, request.silos))
    has_begun = bool(state.done or after.lost)
    if not request.micro_rho and codes & {BEHIND, SPENT} and has_begun and not is_away:
        forget(keep)
        raise _stuck(request, error)
    if isinstance(error, DeniedError) and not has_begun and _AWAITED not in codes:
        forget(keep)  # nothing has begun: the job may be changed
        is_dear = "RELEASE" not in codes and any(code.startswith(_PRICES) for code in codes)
        fits = _what_fits(federation, request) if is_dear else ""
        raise DeniedError(error.message, "; ".join(filter(None, (error.hint, fits))), error.denials)
    write(keep, after)
    raise _explained(error, after, request, codes, is_charged=is_charged, keep=keep)


def _why_over(federation: Federation, state: Progress) -> RunEnd | None:
    """Return why a run is over, if all silos that answer say the same."""
    reasons = set(learned(federation, state).values())
    return reasons.pop() if len(reasons) == 1 else None


def _what_fits(federation: Federation, request: Request) -> str:
    """Return how many rounds the price of a run buys, and which epsilon its rounds take, by what silos have left."""
    step = request.plan.training
    if step is None or not request.micro_rho:
        return ""
    with suppress(AnalystError, FederationError):
        offer, standing = federation.offer_of(request.silos), federation.standing(request)
        delta = offer.delta_for(request.table, step)
        limits = limits_of(offer.silos, standing, request.table, request.purpose)
        return affordable(epsilon_of(step.steps * request.micro_rho / MICRO, delta), step.steps, delta, limits).in_words
    return ""


def _stuck(request: Request, error: AnalystError) -> StuckError:
    denials = error.denials if isinstance(error, DeniedError) else {}
    hint = "give the same command again: it begins a new run, and without noise nothing was paid"
    return StuckError(f"{place_of(request)}: {error.message}", hint, denials)


def _explained(
    error: DeniedError | RoundError,
    after: Progress,
    request: Request,
    codes: Set[str],
    *,
    is_charged: bool,
    keep: Path | None,
) -> AnalystError:
    """Return an error with the step, and how the run goes on."""
    place, is_exact = place_of(request), not request.micro_rho
    then = f"the same command goes on with {place}"
    if is_charged and is_exact:
        then += "; where too few have not contributed to it yet, it begins a new run, and nothing was paid"
    elif is_charged:
        then += ", and its price is paid once more where it was charged"
    elif isinstance(error, DeniedError) and keep is not None and after.done:
        then += f"; another job, or a new run at a new price, needs {keep} removed"
    hint = f"{error.hint}; {then}" if error.hint and not (is_charged and SPENT in codes) else then
    if _OVER in codes:
        hint = "give the run up with --abandon; then the same command begins a new one, whose price is reserved anew"
    message = f"{place}: {error.message}"
    return DeniedError(message, hint, error.denials) if isinstance(error, DeniedError) else RoundError(message, hint)
