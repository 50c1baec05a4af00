"""How long sending a silo's masked input may take, and whether it may be so long: by [vectors] and the request alone.

The stated time of a long vector is

    bytes of the masked input / bytes_per_second

rounded up to a whole second. A short one states none: it is sent within the time of a step. Promise: no row, no number
of a vector and no clock is read, so neither a refusal nor a time depends on data.
"""

from collections.abc import Sequence

from policies.decision.case import Case
from policies.decision.compiled import facts_of
from policies.decision.denial_codes import deny
from policies.document.policy import Policy
from policies.requests.denials import Denial
from policies.requests.request import Request
from policies.requests.sending import STATE_BYTES, Sent
from policies.units import MAX_SEND_S

_MB = 1_000_000
_SUM_BYTES, _INPUT_BYTES = 12, 8  # of a value in words of 64 bits, at most


def sending_ms(policy: Policy, request: Request) -> int | None:
    """Return how many milliseconds sending the masked input may take, as an acceptance states; None if it is short."""
    seconds = _seconds(policy, facts_of(request, policy.privacy_unit.max_silos).sent)
    return 1000 * seconds if seconds else None


def learned_bytes(policy: Policy) -> int:
    """Return how many bytes a silo may be sent to learn a long sum: the sum, and what is fetched whole beside it.

    A value of a sum has at most twelve bytes, and one of a masked input eight. As many masked inputs as silos may be
    missing come whole, and one at least.
    """
    return (_SUM_BYTES + _INPUT_BYTES * max(1, policy.protection.max_missing)) * policy.vectors.max_values


def length(case: Case) -> Sequence[Denial]:
    """Is no vector of the request, or of the run that it begins, longer than the silo contributes?"""
    values, most = case.facts.longest.values, case.policy.vectors.max_values
    if values <= most:
        return ()
    which = "the vector" if values == case.facts.sent.values else "the longest vector of this run"
    message = f"{which} has {values:,} values, and this silo contributes at most {most:,}"
    remedy = f"ask for fewer values, or {case.compiled.ask_contact} for max_values = {values}"
    return (deny("MAX_VALUES", "vectors.max_values", message, remedy),)


def state_room(case: Case) -> Sequence[Denial]:
    """Has the silo the room that the state of this run takes?"""
    step = case.request.plan.training
    if step is None:
        return ()
    values, most = step.state_values(case.facts.longest.values), case.policy.vectors.max_state_mb
    needed = -(-STATE_BYTES * values // _MB)
    if needed <= most:
        return ()
    message = f"the state of this run takes up to {needed:,} MB here, and this silo keeps at most {most:,} of a run"
    remedy = f"train fewer weights, or {case.compiled.ask_contact} for max_state_mb = {needed}"
    return (deny("MAX_STATE", "vectors.max_state_mb", message, remedy),)


def sending_time(case: Case) -> Sequence[Denial]:
    """Does each masked input, of the run that it begins too, leave within the time that the request waits for it?"""
    request, sent, rate = case.request, case.facts.longest, case.policy.vectors.bytes_per_second
    seconds = _seconds(case.policy, sent)
    if seconds <= request.sends_s:
        return ()
    message = (
        f"sending {sent.input_bytes:,} bytes takes up to {seconds:,} s at this silo's {rate:,} bytes a second, and the"
        f" request waits {request.sends_s} s"
    )
    if seconds <= MAX_SEND_S:
        remedy = f"ask with --send-deadline {seconds}, or for fewer values"
    else:
        least = -(-sent.input_bytes // MAX_SEND_S)
        remedy = f"ask for fewer values, or {case.compiled.ask_contact} for bytes_per_second = {least}"
        if request.sends_s < MAX_SEND_S:
            remedy += f" and ask with --send-deadline {MAX_SEND_S}"
    return (deny("SEND_DEADLINE", "vectors.bytes_per_second", message, remedy),)


def _seconds(policy: Policy, sent: Sent) -> int:
    return -(-sent.input_bytes // policy.vectors.bytes_per_second)
