"""AdvertiseKeys at a silo: judge a proposed round, reserve its cost, and accept or refuse.

docs/protocol.md section 3; section 8, rows A1 to A5 and A10. Bonawitz et al., CCS 2017, figure 4, round 0.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from crypto.errors import ClockError, CryptoError, ProtocolError, SignatureError
from crypto.keys import Secret, VerifyKey
from crypto.rounds.key_schedule import mask_key_of, self_commitment
from crypto.rounds.manifest import Accept, Propose
from crypto.sealing import SealingKey, seal
from crypto.shamir import draw
from crypto.wire import body_digest, sign, signer_of, unverified, verify
from policies.budget.accountant import charge
from policies.budget.ledger import Charge, Ledger, RunOver, RunStep
from policies.budget.sampler import sampler_delta
from policies.decision.approval_rules import counted_since
from policies.decision.approvals import subject_of
from policies.decision.budget_rules import delta_limit_of, limits_of, months_of, rate_of, run_limit_of
from policies.decision.case import Jurisdictions
from policies.decision.compiled import compiled
from policies.decision.computing import stated_ms
from policies.decision.decide import decide
from policies.decision.denial_codes import CLOCK_SKEW_S
from policies.decision.preconditions import (
    already_answered,
    asked_before,
    first_was_answered,
    first_was_replaced,
    replaced,
    run_is_over,
    signed_before,
    too_many_retries,
    unknown_analyst,
    wrong_position,
    wrong_signature,
)
from policies.decision.run_price import reserved_part
from policies.decision.sending import sending_ms
from policies.document.policy import Policy
from policies.requests.denials import Denial, Refusal
from policies.requests.network_steps import packed_name
from policies.requests.replacing import holds_for, job_before, left_out, silos_before
from policies.requests.request import Request, job_of, resolved
from policies.requests.terms import terms_of
from policies.units import DAY_S
from silo_node.graphs.resolving import with_kept
from silo_node.rounds.states import Proposed, Silo
from silo_node.training.beginning import with_begun
from silo_node.training.keeping import kept, read_state
from silo_node.training.run import RunState, check_position
from silo_node.training.scoring import check_judged
from silo_node.training.split import split_of

MAX_ROUND_S = 600
Reach = Callable[[Request], None]  # raises an error for the owner unless the request's rows can be read now


class Freshness(NamedTuple):
    """Since when what a source is read from may be out of date, in seconds since 1970; None: nobody can say."""

    feed_at: int | None  # when the decisions on consent were written
    rows_at: int | None  # when the files of a prepared source were last seen unchanged


def oldest(found: Sequence[Freshness]) -> Freshness:
    """Return since when one of several sources may be out of date; nobody can say where nobody can of one feed."""
    fed = [one.feed_at for one in found]
    rows = [one.rows_at for one in found if one.rows_at is not None]
    known = [one for one in fed if one is not None]
    return Freshness(min(known) if known and len(known) == len(fed) else None, min(rows, default=None))


Fresh = Callable[..., Freshness]  # of the names of sources


_ALONE = nullcontext()  # where one request is judged after the other anyway


def _unchecked(request: Request) -> None:
    """Take any source for one that can be read."""


def propose(
    silo: Silo,
    ledger: Ledger,
    fresh: Fresh,
    now: int,
    round_id: bytes,
    data: bytes,
    reach: Reach = _unchecked,
    alone: AbstractContextManager[object] = _ALONE,
) -> tuple[Proposed | None, bytes]:
    """Judge the request in a signed Propose of this round; return (Proposed, signed Accept) or (None, signed Refusal).

    If it is accepted, the whole cost is reserved durably before this returns. A source that `reach` finds missing,
    locked or silent ends the step before anything is reserved. Then, `alone`, it is reserved. Where people approve
    requests it is judged once more before: which need an approval depends on what was reserved meanwhile.
    """
    signed = verify(data, Propose, silo.aggregators)
    message = signed.message
    if message.round_id != round_id:
        raise ProtocolError("the message belongs to another round")
    if message.federation != silo.federation:
        raise ProtocolError(f"a round of the federation {message.federation!r}, this is {silo.federation!r}")
    if not now < message.expires_at <= now + MAX_ROUND_S:
        raise ClockError("the round has expired or would last too long")
    request_hash = body_digest(message.request, Request)
    request, denials = _judge(silo, ledger, fresh, now, message.request, request_hash)
    if request is not None and not denials:
        reach(request)
        with alone:
            if silo.policy.approvals:
                denials = _decide(silo, ledger, fresh, now, request, request_hash)
            if not denials and not _reserve(silo, ledger, now, request, request_hash):
                denials = _decide(silo, ledger, fresh, now, request, request_hash)
    if request is None or denials:
        refusal = Refusal(
            federation=silo.federation, request_hash=request_hash, policy_hash=silo.policy_hash, denials=denials
        )
        return None, sign(refusal, silo.name, silo.signing)
    if (state := state_of(silo, ledger, request)) is not None and load_run(silo, ledger, state.run) is None:
        keep_run(silo, ledger, state)  # a run that goes on with fewer silos has this model now
    terms = terms_of(request, request_hash)
    root, self_secret, channel_secret = Secret(draw()), Secret(draw()), Secret.generate()
    nonce = Secret.generate() if terms.is_long else None
    mask, channel = mask_key_of(root.raw), SealingKey(channel_secret)
    accept = Accept(
        federation=silo.federation,
        round_id=message.round_id,
        request_hash=request_hash,
        expires_at=message.expires_at,
        mask_key_hash=sha256(mask.public).digest(),
        channel_key_hash=sha256(channel.public).digest(),
        self_commitment=self_commitment(self_secret.raw),
        policy_hash=silo.policy_hash,
        min_silos=silo.policy.disclosure.min_silos,
        max_colluding=silo.policy.protection.max_colluding,
        max_missing=silo.policy.protection.max_missing,
        compute_ms=stated_ms(silo.policy, request),
        send_ms=sending_ms(silo.policy, request),
        must_include=silo.policy.protection.must_include or None,
        nonce_hash=None if nonce is None else sha256(nonce.raw).digest(),
    )
    envelope = sign(accept, silo.name, silo.signing)
    secrets = root, self_secret, mask, channel, channel_secret
    return Proposed(signed.signer, message, request, terms, envelope, *secrets, now, nonce), envelope


def renew(silo: Silo, ledger: Ledger, now: int, state: Proposed) -> None:
    """Reserve anew what was reserved on an earlier day (UTC): a charge counts in the windows in which it begins.

    Raises ProtocolError, and nothing is reserved any more, if it would exceed a limit there.
    """
    if now // DAY_S > state.reserved_at // DAY_S:
        request_hash = body_digest(state.propose.request, Request)
        if not _reserve(silo, ledger, now, state.request, request_hash):
            raise ProtocolError("a new day has begun (UTC), and what is left of its budget does not cover the request")


def _reserve(silo: Silo, ledger: Ledger, now: int, request: Request, request_hash: bytes) -> bool:
    """Reserve the whole cost of a request durably; return False if it would exceed a limit.

    If the clock is behind what the log has seen, one of the two was wrong. The charge counts in the windows of both.
    """
    run, months = run_of(silo.policy, request), months_of(silo.policy, request, now)
    entry = Charge(
        nonce=request.nonce,
        request_hash=request_hash,
        analyst=_entry(silo, request),
        purpose=request.purpose,
        micro_rho=charge(request, silo.policy.privacy_unit.max_silos),
        policy_hash=silo.policy_hash,
        charged_at=max(now, ledger.seen_at),
        run=run,
        months=months,
        atto_delta=sampler_delta(request),
        replaces=_replaced(ledger, request),
        statements=len(request.plan.alone),
    )
    windows = limits_of(silo.policy, request.purpose, now, months)
    run_limit, rate = run_limit_of(silo.policy, request), rate_of(silo.policy, now)
    limits = silo.policy.budget.lifetime_micro, windows, run_limit, delta_limit_of(silo.policy), rate
    return ledger.reserve(entry, *limits)


def signers_of(silo: Silo, data: bytes) -> tuple[str, str]:
    """Return the aggregator that signed a Propose, and the policy's entry for the analyst that signed its request.

    The latter is empty if no analyst of the policy did. Raises CryptoError if no aggregator of the roster signed.
    """
    signed = verify(data, Propose, silo.aggregators)
    envelope = signed.message.request
    name = signer_of(envelope, Request)
    analyst = silo.policy.analyst(name)
    try:
        verify(envelope, Request, {} if analyst is None else {name: VerifyKey.parse(analyst.key)})
    except CryptoError:
        return signed.signer, ""
    return signed.signer, silo.policy.analyst_entry(name) or name


def payer_of(silo: Silo, state: Proposed) -> tuple[str, str]:
    """Return what `signers_of` returned for the Propose of a round."""
    return state.aggregator, _entry(silo, state.request)


def nonces_of(data: bytes) -> tuple[bytes, ...]:
    """Return the nonces of the request in a Propose, and of those it replaces, unverified; none if it has no form."""
    try:
        return nonces_in(unverified(unverified(data, Propose).request, Request))
    except CryptoError:
        return ()


def nonces_in(request: Request) -> tuple[bytes, ...]:
    """Return the nonce of a request, and those of the requests that it replaces."""
    return (request.nonce, *(request.replaces.nonces if request.replaces is not None else ()))


def foretold(
    silo: Silo, ledger: Ledger, fresh: Fresh, now: int, request: Request, request_hash: bytes
) -> tuple[Denial, ...]:
    """Return why a request would be refused now; nothing is reserved or written. Raises ProtocolError as `propose`."""
    return _known(silo, ledger, request) or _decide(silo, ledger, fresh, now, request, request_hash)


def _decide(
    silo: Silo, ledger: Ledger, fresh: Fresh, now: int, request: Request, request_hash: bytes
) -> tuple[Denial, ...]:
    months = months_of(silo.policy, request, now)
    since = [limit.since for limit in limits_of(silo.policy, request.purpose, now, months)]
    run = run_of(silo.policy, request)
    rate = rate_of(silo.policy, now)
    requests_since = None if rate is None else rate.since
    counted = counted_since(silo.policy, request.purpose, now)
    about = request.nonce, request.purpose, _entry(silo, request), since, run
    spent = ledger.spending(*about, requests_since, counted)
    subject = _approved_as(silo, ledger, request, request_hash) if silo.policy.approvals else request_hash
    verdicts = ledger.verdicts(subject) if silo.policy.approvals else ()
    feed_at, rows_at = fresh(*request.table.names)
    jurisdictions = Jurisdictions(silo.roster.silo_jurisdictions, silo.roster.aggregator_jurisdictions)
    known = feed_at, verdicts, jurisdictions, rows_at, subject, approved_networks(silo, request, now)
    return decide(silo.policy, request, request_hash, spent, now, *known)


def approved_networks(silo: Silo, request: Request, now: int) -> tuple[str, ...]:
    """Return the name of a request's packed network if people of this silo have approved it."""
    name = packed_name(request)
    if name is None or silo.graphs is None:
        return ()
    return (name,) if silo.graphs.is_approved(silo.policy, silo.federation, name, now) else ()


def _approved_as(silo: Silo, ledger: Ledger, request: Request, request_hash: bytes) -> bytes:
    """Return the subject whose verdicts count: that of the first request, if it covers that which replaces it."""
    own = subject_of(request, request_hash)
    if request.replaces is None:
        return own
    job = job_before(request, silo.roster.recipients(silos_before(request)))
    subject = request.replaces.first if job is None else job
    envelope = ledger.request_asked(subject)
    if envelope is None:
        return own
    first = resolved(unverified(envelope, Request), compiled(silo.policy).domains)
    if first.created_at < ledger.recovered_at:  # another may have been answered in this place since the backup
        return own
    # A job is the hash of all that was shown, with how many silos may be left out.
    return subject if job is not None or holds_for(first, request) else own


def _replaced(ledger: Ledger, request: Request) -> tuple[tuple[bytes, bytes], ...]:
    """Return the requests that are accepted no more once this one is; a charged one is not accepted anyway."""
    earlier = request.replaces.requests if request.replaces is not None else ()
    return tuple((one.nonce, one.request_hash) for one in earlier if not ledger.is_charged(one.nonce))


def _in_place(silo: Silo, ledger: Ledger, request: Request) -> tuple[Denial, ...]:
    """Return why a request cannot take the place of earlier ones; raises ProtocolError if it leaves one out unproven.

    A silo that has charged one of them has paid for its contribution. It takes no part in another sum of this question:
    whoever wants one signs a new request, at a new price. A training step is a new charge. One request, or one run, is
    accepted in a place, so that one approval is not one of many sums, and no two runs go on from one model.
    """
    if request.replaces is None:
        return ()
    if not set(request.replaces.left_out) <= set(silo.silos):
        raise ProtocolError("the request leaves out a silo that the federation's roster lacks")
    left_out(request.replaces, silo.federation, silo.silos, silo.aggregators)
    run = run_of(silo.policy, request)
    if run is None and any(map(ledger.is_charged, request.replaces.nonces)):
        return (first_was_answered(),)
    earlier = (*request.replaces.nonces, *((run.continues,) if run is not None else ()))
    own = (*nonces_in(request), *((run.run,) if run is not None else ()))
    return (first_was_replaced(),) if any(ledger.is_replaced(one, own) for one in earlier) else ()


def run_of(policy: Policy, request: Request) -> RunStep | None:
    """Return which part of which run a request is, and what each part reserves here; None for a question."""
    part = request.plan.part
    if part is None:
        return None
    each = reserved_part(request, policy.privacy_unit.max_silos)
    name = part.run, job_of(request, part), part.step
    return RunStep(*name, part.continues or b"", part.steps, each, request.run_silos)


def _entry(silo: Silo, request: Request) -> str:
    """Return the name of the policy's entry for the analyst; all analysts of one entry share its budget."""
    return silo.policy.analyst_entry(request.analyst) or request.analyst


def _judge(
    silo: Silo, ledger: Ledger, fresh: Fresh, now: int, envelope: bytes, request_hash: bytes
) -> tuple[Request | None, tuple[Denial, ...]]:
    name = signer_of(envelope, Request)
    analyst = silo.policy.analyst(name)
    if analyst is None:
        return None, (unknown_analyst(silo.policy, name),)
    try:
        received = verify(envelope, Request, {name: VerifyKey.parse(analyst.key)}).message
    except SignatureError:
        return None, (wrong_signature(silo.policy, name),)
    request = with_kept(silo.graphs, resolved(received, compiled(silo.policy).domains))
    if request.analyst != name or request.federation != silo.federation or silo.name not in request.silos:
        raise ProtocolError("the request was signed for another analyst, federation or set of silos")
    for recipient in request.recipients:
        seal(recipient.key, b"", b"")  # raises if the key shares could not be sealed to this key later
        if request.plan.training is not None and recipient not in silo.roster.recipients(set(silo.silos)):
            raise ProtocolError(f"the model would go to {recipient.name!r} with a key that the roster does not give it")
    if not set(request.silos) <= set(silo.silos):
        raise ProtocolError("the request names a silo that the federation's roster lacks")
    if known := _known(silo, ledger, request):
        return request, known
    denials = _decide(silo, ledger, fresh, now, request, request_hash)
    if not denials:
        denials = _unknown_runs(silo, ledger, request)
    run = run_of(silo.policy, request)
    if not denials and run is not None:
        try:
            if ledger.job_of(run.run) not in (None, run.job):
                raise ProtocolError("this run began with another request")
            if request.plan.training is not None:
                state = state_of(silo, ledger, request)
                check_position(state, request)
                with_begun(request, partial(load_run, silo, ledger))
                if request.micro_rho and state is not None and state.ended is not None:
                    denials = (run_is_over(state.ended),)
        except ProtocolError as err:
            denials = (wrong_position(err.message, err.hint),)
        if not denials and not request.micro_rho and _has_left(ledger, request, run):
            denials = (asked_before(),)
    return request, denials


def _known(silo: Silo, ledger: Ledger, request: Request) -> tuple[Denial, ...]:
    """Return why a request is refused for what the ledger knows of it; raises as `_in_place`."""
    if ledger.is_charged(request.nonce):
        return (already_answered(),)
    step = request.plan.training
    if ledger.is_replaced(request.nonce) or (step is not None and ledger.is_replaced(step.run)):
        return (replaced(),)
    if step is not None and (why := _why_over(ledger, step.run, step.continues)) is not None:
        return (run_is_over(why),)
    if ledger.is_exhausted(request.nonce):
        return (too_many_retries(),)
    if ledger.signed_after and request.created_at < ledger.signed_after + CLOCK_SKEW_S:
        return (signed_before(),)
    return _in_place(silo, ledger, request)


def _why_over(ledger: Ledger, run: bytes, continues: bytes | None) -> RunOver | None:
    """Return why no further step of a run, or of the run that it continues, is taken; None if it goes on."""
    own = ledger.why_over(run)
    return own if own is not None or continues is None else ledger.why_over(continues)


def _unknown_runs(silo: Silo, ledger: Ledger, request: Request) -> tuple[Denial, ...]:
    """Return why a request is refused that names a split or a model which this silo has not learned."""
    try:
        split_of(request, partial(load_run, silo, ledger))
        check_judged(request, partial(load_run, silo, ledger))
    except ProtocolError as err:
        return (wrong_position(err.message, err.hint),)
    return ()


def _has_left(ledger: Ledger, request: Request, run: RunStep) -> bool:
    step = request.plan.training
    before = (step.continues,) if step is not None and step.continues is not None else ()
    return ledger.has_contributed((run.run, *before), run.number, request.nonce)


def state_of(silo: Silo, ledger: Ledger, request: Request) -> RunState | None:
    """Return this silo's state in the run of a training step, or in the run that it continues; None without one.

    Raises ProtocolError if that run had another job.
    """
    step = request.plan.training
    own = None if step is None else load_run(silo, ledger, step.run)
    if step is None or own is not None or step.continues is None:
        return own
    before = load_run(silo, ledger, step.continues)
    if before is None:
        return None
    if before.job != job_before(request, silo.roster.recipients(silos_before(request))):
        raise ProtocolError("this run continues one of another job than this silo has learned")
    return before.model_copy(update={"run": step.run, "job": job_of(request, step)})


def load_run(silo: Silo, ledger: Ledger, run: bytes) -> RunState | None:
    """Return this silo's state in a training run; None if it has not learned any step of it.

    Raises SiloError for a state that is damaged, or not this silo's.
    """
    found = ledger.load_run(run)
    return None if found is None else read_state(run, found, silo.name, silo.signing.public)


def keep_run(silo: Silo, ledger: Ledger, state: RunState, done: int = 0, *, is_learned: bool = True) -> None:
    """Keep a state in the ledger, see `Ledger.save_run`."""
    ledger.save_run(state.run, kept(state, silo.name, silo.signing), done, is_learned=is_learned)
