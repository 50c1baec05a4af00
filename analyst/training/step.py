"""Ask the silos for one step of a training run, whoever is killed meanwhile and comes back.

    sent -> a report
         -> no report, and nothing has left: who is behind is taught, who is away has some seconds, and it is sent again
         -> who still cannot is left out, if the run's request was agreed to without so many (`or_without`)

Promise: a silo is charged for a step by one request, and the same request is sent as long as it is valid and nobody has
contributed to it. Without noise no silo contributes twice to one model: who has, is left out of that step or for good.
docs/protocol.md section 11, docs/decisions/0049-killed-in-mid-run.md.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from analyst.answers import denials_of
from analyst.asking import SPENT
from analyst.client import Federation
from analyst.training.drawing import can_take_part, later_draws, out_of
from analyst.training.progress import Progress, write
from crypto.errors import CryptoError
from crypto.rounds.messages import Failure, ModelUpdated, RunEnd
from crypto.wire import Signed, digest_of, verify
from federation.errors import FederationError
from policies.decision.denial_codes import UNABLE
from policies.requests.request import Request
from policies.requests.sending import learned_s
from policies.requests.training import START

PAUSES_S = (2.0, 5.0, 10.0)  # before a step is sent again to silos that may be on their way back
BEHIND = "RUN_POSITION"  # the denial of a silo that has not learned the step before, or has contributed to this one
_PASSES = UNABLE | {BEHIND, SPENT}  # denials that do not follow from a policy
Sleep = Callable[[float], None]
Renew = Callable[[int], Request]  # of the step, to the silos of a draw of its round


def answered(
    federation: Federation, state: Progress, keep: Path | None, renew: Renew, sleep: Sleep
) -> tuple[Request, bytes | Signed[Failure]]:
    """Return the request of a run's next step, and its encrypted report or why there is none.

    A request that was under way when the run was interrupted is looked for at the aggregators, and sent again while it
    is valid: its step is not paid twice. Of a run that asks a share of its silos a round whose draw has too few silos
    is asked of the next draw; of one without noise nothing is paid. Raises as `train`.
    """
    if state.under_way:
        request = Request.decode(state.under_way)
        where = federation.aggregators.find(digest_of(request))
        if where.state == "kept":
            return request, federation.aggregators.holder(where.report).report(where.report)
    if not state.under_way or request.expires_at <= federation.now():
        request = renew(0)
        write(keep, state.model_copy(update={"under_way": request.encode()}))
    return _of_draws(federation, state, keep, request, renew, sleep)


def _of_draws(
    federation: Federation, state: Progress, keep: Path | None, request: Request, renew: Renew, sleep: Sleep
) -> tuple[Request, bytes | Signed[Failure]]:
    """Send a request, and where its silos are too few that of each later draw of the round; return the last one."""
    later, away = list(later_draws(request)), set[str]()
    while True:
        answer = _exchanged(federation, state, request, sleep, () if later else PAUSES_S)
        if isinstance(answer, bytes) or not later:
            return request, answer
        denied = codes_of(federation, answer.message)
        if any(code not in _PASSES for codes in denied.values() for code in codes):
            return request, answer
        away |= out_of(federation, request, answer.message, denied)
        while later and not can_take_part(federation, request, later[0], away):
            del later[0]
        if later:
            request = renew(later.pop(0))
            write(keep, state.model_copy(update={"under_way": request.encode()}))


def _exchanged(
    federation: Federation, state: Progress, request: Request, sleep: Sleep, pauses_s: Sequence[float]
) -> bytes | Signed[Failure]:
    """Send a request until it has a report, or sending it again helps no more."""
    taught, pauses = set[str](), list(pauses_s)
    while True:
        try:
            answer = federation.exchange(request)
        except FederationError as err:
            again = f"the same command goes on with {place_of(request)}"
            raise FederationError(err.message, f"{err.hint}; {again}" if err.hint else again) from err
        if isinstance(answer, bytes) or answer.message.charged or request.expires_at <= federation.now():
            return answer
        denied = codes_of(federation, answer.message)
        if any(code not in _PASSES for codes in denied.values() for code in codes):
            return answer
        behind = {silo for silo, codes in denied.items() if BEHIND in codes} - taught
        taught |= behind & set(learned(federation, state)) if behind else set()
        if behind & taught:
            continue
        may_be_back = bool(answer.message.missing or answer.message.failed)
        if not (may_be_back or any(UNABLE & codes for codes in denied.values())) or not pauses:
            return answer
        sleep(pauses.pop(0))


def place_of(request: Request) -> str:
    """Return which step of its run a request is, in words."""
    step = request.plan.training
    return "" if step is None else f"step {step.step + 1} of {step.steps}"


def learned(federation: Federation, state: Progress) -> Mapping[str, RunEnd | None]:
    """Teach silos the reports that they missed; return who has the last one, and why the run is at its end.

    Nobody, where no aggregator has that report any more.
    """
    if not state.done:
        return {}
    with suppress(FederationError):
        return federation.deliver_report(state.after, Request.decode(state.first))
    return {}


def ahead(federation: Federation, state: Progress) -> bytes | None:
    """Return the report of the next step where all silos have learned it, and it is lost: the run goes on after it.

    So it is if the report was delivered, this program was killed before it noted that, and the aggregator lost it.
    """
    if not state.done:
        return None
    keys, found = federation.config.roster.silo_keys, set[bytes]()
    with suppress(FederationError):
        link, more_s = federation.aggregators.holder(state.after), learned_s(Request.decode(state.first))
        for envelope in link.deliver_report(state.after, more_s)[: len(keys)]:
            with suppress(CryptoError):
                found.add(verify(envelope, ModelUpdated, keys).message.position)
    return found.pop() if len(found) == 1 and not found & {state.after, START} else None


def codes_of(federation: Federation, failure: Failure) -> dict[str, set[str]]:
    """Return the codes of the denials of each silo that refused; raises CryptoError on an invalid refusal."""
    denials = denials_of(failure.refusals, failure.request_hash, federation.config.roster)
    return {silo: {one.code for one in reasons} for silo, reasons in denials.items()}
