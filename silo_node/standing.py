"""Tell an analyst where it stands: the budgets that are left, and what a request would cost and be told now.

Promise: nothing is reserved, charged or written, and no row is read. The request is judged by the rules that judge a
proposed one.
"""

from collections.abc import Iterator

from crypto.errors import ProtocolError, WireError
from crypto.wire import digest_of
from policies.budget.accountant import charge
from policies.budget.ledger import Ledger
from policies.decision.budget_rules import limits_of, run_limit_of
from policies.decision.compiled import compiled
from policies.decision.computing import stated_ms
from policies.decision.sending import sending_ms
from policies.requests.request import Request, resolved
from policies.requests.standing import LIFETIME, MAX_RUNS, Left, ReservedRun, Standing
from silo_node.graphs.resolving import with_kept
from silo_node.rounds.proposal import Fresh, foretold
from silo_node.rounds.states import Silo


def standing_of(silo: Silo, ledger: Ledger, fresh: Fresh, now: int, analyst: str, body: bytes) -> Standing:
    """Return where an analyst stands; `body` is an unsigned request, or empty. Raises CryptoError if it is none of its.

    `analyst` is the name that signed the question; all analysts of one entry of the policy share its budget.
    """
    entry = silo.policy.analyst_entry(analyst) or analyst
    left, runs = tuple(left_of(silo, ledger, now, entry)), tuple(runs_of(ledger, entry))
    if not body:
        return Standing(left=left, runs=runs)
    try:
        request = with_kept(silo.graphs, resolved(Request.decode(body), compiled(silo.policy).domains))
    except WireError as err:
        raise ProtocolError(f"the request cannot be read: {err.message}") from err
    if request.analyst != analyst or request.federation != silo.federation or silo.name not in request.silos:
        raise ProtocolError("the request is of another analyst, federation or set of silos")
    denials = foretold(silo, ledger, fresh, now, request, digest_of(request))
    is_open = silo.policy.sources.keys() >= set(request.table.names) and request.purpose in silo.policy.purposes
    return Standing(
        left=left,
        micro_rho=charge(request, silo.policy.privacy_unit.max_silos),
        compute_ms=(stated_ms(silo.policy, request) or 0) if is_open else 0,  # no policy declares a time of others
        send_ms=(sending_ms(silo.policy, request) or 0) if is_open else 0,
        denials=denials,
        runs=runs,
        run_limit=run_limit_of(silo.policy, request) if is_open and request.plan.training is not None else None,
    )


def runs_of(ledger: Ledger, analyst: str) -> Iterator[ReservedRun]:
    """Yield what the analyst's training runs have reserved; of very many those that end first."""
    own = [one for one in ledger.reservations() if one.analyst == analyst and one.parts]
    for one in own[:MAX_RUNS]:
        about = {"run": one.run, "purpose": one.purpose, "steps": one.steps, "parts": one.parts}
        yield ReservedRun.model_validate(about | {"micro_rho": one.micro_rho, "until": one.until})


def left_of(silo: Silo, ledger: Ledger, now: int, analyst: str) -> Iterator[Left]:
    """Yield what is left of the lifetime budget, and of each window of the analyst's purposes."""
    policy, rules = silo.policy, compiled(silo.policy)
    spent = ledger.spending(b"", "", analyst, []).lifetime
    yield Left(window=LIFETIME, limit=rules.lifetime_micro, everybody=max(0, rules.lifetime_micro - spent))
    for purpose in policy.analysts[analyst].purposes if analyst in policy.analysts else ():
        limits = limits_of(policy, purpose, now)
        windows = ledger.spending(b"", purpose, analyst, [limit.since for limit in limits]).windows
        for rule, limit, used in zip(rules.windows.get(purpose, ()), limits, windows, strict=True):
            own = None if limit.per_analyst is None else max(0, limit.per_analyst - used.analyst)
            yield Left(
                purpose=purpose,
                window=rule.limit.window,
                limit=limit.rho,
                everybody=max(0, limit.rho - used.everybody),
                analyst=own,
            )
