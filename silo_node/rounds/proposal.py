"""Judge a proposed round, reserve its cost, and accept or refuse."""

from collections.abc import Callable

from crypto.errors import ProtocolError, SignatureError
from crypto.keys import Secret, VerifyKey
from crypto.rounds.key_schedule import mask_key_of, self_commitment
from crypto.rounds.manifest import Accept, Propose
from crypto.sealing import SealingKey, seal
from crypto.shamir import draw
from crypto.wire import body_digest, sign, signer_of, verify
from policies.budget.accountant import charge
from policies.budget.ledger import Charge, Ledger, RunStep
from policies.decision.approvals import subject_of
from policies.decision.budget_rules import limits_of, months_of, rate_of, run_limit_of
from policies.decision.case import Jurisdictions
from policies.decision.decide import decide
from policies.decision.preconditions import (
    already_answered,
    too_many_retries,
    unknown_analyst,
    wrong_position,
    wrong_signature,
)
from policies.requests.denials import Denial, Refusal
from policies.requests.request import Request, job_of
from policies.requests.terms import terms_of
from silo_node.rounds.states import Proposed, Silo
from silo_node.training.run import RunState, check_position

MAX_ROUND_S = 600
FeedAt = Callable[[str], int | None]  # when the files of a source were last written


def propose(
    silo: Silo, ledger: Ledger, feed_at: FeedAt, now: int, round_id: bytes, data: bytes
) -> tuple[Proposed | None, bytes]:
    """Judge the request in a signed Propose of this round; return (Proposed, signed Accept) or (None, signed Refusal).

    On yes the whole cost is reserved durably before this returns.
    """
    signed = verify(data, Propose, silo.aggregators)
    message = signed.message
    if message.round_id != round_id:
        raise ProtocolError("the message belongs to another round")
    if message.federation != silo.federation:
        raise ProtocolError(f"a round of the federation {message.federation!r}, this is {silo.federation!r}")
    if not now < message.expires_at <= now + MAX_ROUND_S:
        raise ProtocolError("the round has expired or would last too long")
    request_hash = body_digest(message.request, Request)
    request, denials = _judge(silo, ledger, feed_at, now, message.request, request_hash)
    if request is not None and not denials:
        cost = charge(request, silo.policy.privacy_unit.max_silos)
        run = run_of(request)
        months = months_of(silo.policy, request, now)
        entry = Charge(
            nonce=request.nonce,
            request_hash=request_hash,
            analyst=_entry(silo, request),
            purpose=request.purpose,
            micro_rho=cost,
            policy_hash=silo.policy_hash,
            charged_at=now,
            run=run,
            months=months,
        )
        windows = limits_of(silo.policy, request.purpose, now, months)
        run_limit, rate = run_limit_of(silo.policy) if run else None, rate_of(silo.policy, now)
        if not ledger.reserve(entry, silo.policy.budget.lifetime_micro, windows, run_limit, rate=rate):
            denials = _decide(silo, ledger, feed_at, now, request, request_hash)
    if request is None or denials:
        refusal = Refusal(
            federation=silo.federation, request_hash=request_hash, policy_hash=silo.policy_hash, denials=denials
        )
        return None, sign(refusal, silo.name, silo.signing)
    root, self_secret, channel = Secret(draw()), Secret(draw()), SealingKey(Secret.generate())
    accept = Accept(
        federation=silo.federation,
        round_id=message.round_id,
        request_hash=request_hash,
        expires_at=message.expires_at,
        mask_key=mask_key_of(root.raw).public,
        channel_key=channel.public,
        self_commitment=self_commitment(self_secret.raw),
        policy_hash=silo.policy_hash,
        min_silos=silo.policy.disclosure.min_silos,
        max_colluding=silo.policy.protection.max_colluding,
        max_missing=silo.policy.protection.max_missing,
    )
    envelope = sign(accept, silo.name, silo.signing)
    terms = terms_of(request, request_hash)
    return Proposed(signed.signer, message, request, terms, envelope, root, self_secret, channel), envelope


def _decide(
    silo: Silo, ledger: Ledger, feed_at: FeedAt, now: int, request: Request, request_hash: bytes
) -> tuple[Denial, ...]:
    months = months_of(silo.policy, request, now)
    since = [limit.since for limit in limits_of(silo.policy, request.purpose, now, months)]
    run = run_of(request)
    rate = rate_of(silo.policy, now)
    spent = ledger.spending(
        request.nonce, request.purpose, _entry(silo, request), since, run, None if rate is None else rate.since
    )
    verdicts = ledger.verdicts(subject_of(request, request_hash)) if silo.policy.approvals else ()
    feed = feed_at(request.table.name)
    jurisdictions = Jurisdictions(silo.roster.silo_places, silo.roster.aggregator_places)
    return decide(silo.policy, request, request_hash, spent, now, feed, verdicts, jurisdictions)


def run_of(request: Request) -> RunStep | None:
    """Return which step of which training run a request is; None for a question."""
    step = request.plan.training
    return None if step is None else RunStep(step.run, job_of(request, step), step.step)


def _entry(silo: Silo, request: Request) -> str:
    """Return under which name the policy knows the analyst, who shares what one may spend with all of that name."""
    return silo.policy.analyst_entry(request.analyst) or request.analyst


def _judge(
    silo: Silo, ledger: Ledger, feed_at: FeedAt, now: int, envelope: bytes, request_hash: bytes
) -> tuple[Request | None, tuple[Denial, ...]]:
    name = signer_of(envelope, Request)
    analyst = silo.policy.analyst(name)
    if analyst is None:
        return None, (unknown_analyst(silo.policy, name),)
    try:
        request = verify(envelope, Request, {name: VerifyKey.parse(analyst.key)}).message
    except SignatureError:
        return None, (wrong_signature(silo.policy, name),)
    if request.analyst != name or request.federation != silo.federation or silo.name not in request.silos:
        raise ProtocolError("the request was signed for another analyst, federation or set of silos")
    for recipient in request.recipients:
        seal(recipient.key, b"", b"")  # raises on a key that the shares could not be sealed to at the end
        if request.plan.training is not None and recipient not in silo.roster.recipients(set(silo.silos)):
            raise ProtocolError(f"the model would go to {recipient.name!r} with a key that the roster does not give it")
    if not set(request.silos) <= set(silo.silos):
        raise ProtocolError("the request names a silo that the federation's roster lacks")
    if ledger.is_committed(request.nonce):
        return request, (already_answered(),)
    if ledger.is_exhausted(request.nonce):
        return request, (too_many_retries(),)
    denials = _decide(silo, ledger, feed_at, now, request, request_hash)
    run = run_of(request)
    if not denials and run is not None:
        try:
            if ledger.job_of(run.run) not in (None, run.job):
                raise ProtocolError("this training run began with another request")
            check_position(load_run(ledger, run.run), request)
        except ProtocolError as err:
            denials = (wrong_position(err.message),)
    return request, denials


def load_run(ledger: Ledger, run: bytes) -> RunState | None:
    """Return how far this silo is in a training run; None if it has learned nothing of it."""
    state = ledger.load_run(run)
    return None if state is None else RunState.decode(state)
