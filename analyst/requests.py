"""Write the request that an analyst signs: its price, its silos, its recipients, its round key and its lifetime.

Promise: nothing is sent from here. A request that no round could answer is refused before it is signed.
"""

import math
import os
from pathlib import Path

from pydantic import ValidationError

from analyst.errors import AnalystError, RoundError
from analyst.sql.offer import Offer, suggest
from crypto.backends.registry import BACKENDS
from crypto.errors import WireError
from crypto.randomness import token
from crypto.rounds.bounds import why_infeasible
from crypto.rounds.manifest import BackendName, Recipient
from federation.config import Config
from policies.budget.accountant import micro_rho_of
from policies.requests.computations import AnyComputation
from policies.requests.request import Request
from policies.requests.round_key import sealed_secret
from policies.requests.tables import Table

REQUEST_LIFETIME_S = 600
KEPT_LIFETIME_S = 14 * 24 * 3600  # of a request that waits for people


def price(offer: Offer, purpose: str, epsilon: float) -> int:
    """Return what `epsilon` buys in micro-rho, at the smallest delta among the silos; raises AnalystError."""
    if purpose not in offer.purposes:
        raise AnalystError(f"unknown purpose {purpose!r}", suggest(purpose, offer.purposes))
    if not (math.isfinite(epsilon) and 0 < epsilon <= 100):
        raise AnalystError(f"epsilon is {epsilon:g}", "expected a number above 0 and at most 100, such as 1")
    micro_rho = micro_rho_of(epsilon, offer.delta)
    if micro_rho < 1:
        raise AnalystError(f"epsilon {epsilon:g} buys nothing", "ask with a larger epsilon")
    return micro_rho


def write(
    config: Config,
    offer: Offer,
    analyst: str,
    table: Table,
    what: AnyComputation,
    *,
    purpose: str,
    micro_rho: int,
    recipients: tuple[Recipient, ...],
    backend: BackendName,
    now: int,
) -> Request:
    """Return a request to all silos that hold `table`, which are its recipients if none are named.

    Raises AnalystError if it cannot be asked, RoundError if too few silos are there to ask.
    """
    silos = tuple(sorted(offer.holders(table.name)))
    _check_reachable(config, offer, silos)
    nonce = token(16)
    recipients = recipients or config.roster.recipients(silos)
    round_key, sealed_secrets = _round_key(backend, nonce, recipients)
    try:
        return Request(
            federation=config.federation,
            nonce=nonce,
            analyst=analyst,
            recipients=recipients,
            purpose=purpose,
            micro_rho=micro_rho,
            silos=silos,
            backend=backend,
            round_key=round_key,
            sealed_secrets=sealed_secrets,
            table=table,
            plan=what,
            created_at=now,
            expires_at=now + REQUEST_LIFETIME_S,
        )
    except ValidationError as err:
        reason = err.errors()[0]["msg"].removeprefix("Value error, ")
        hint = "group by fewer columns, filter by less, or spend more on fewer figures"
        raise AnalystError(f"the question cannot be asked: {reason}", hint) from err


def renew(request: Request, what: AnyComputation, now: int) -> Request:
    """Return the same request for another plan, with a nonce, a time and a round key of its own."""
    nonce = token(16)
    round_key, sealed_secrets = _round_key(request.backend, nonce, request.recipients)
    fields: dict[str, object] = {"nonce": nonce, "round_key": round_key, "sealed_secrets": sealed_secrets}
    fields |= {"plan": what, "created_at": now, "expires_at": now + REQUEST_LIFETIME_S}
    return Request.model_validate({**dict(request), **fields})


def keep_request(path: Path, request: Request, now: int) -> Request:
    """Return the request that a file holds, or write this one there; raises AnalystError if it holds another."""
    hint = f"remove {path} to ask anew; approvals of the request in it are then of no use"
    try:
        kept = Request.decode(path.read_bytes())
    except FileNotFoundError:
        lasting = request.model_copy(update={"expires_at": request.created_at + KEPT_LIFETIME_S})
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(lasting.encode())
        return lasting
    except (OSError, WireError) as err:
        raise AnalystError(f"{path} holds no request", hint) from err
    same = ("federation", "analyst", "recipients", "purpose", "micro_rho", "backend", "table", "plan")
    if any(getattr(kept, field) != getattr(request, field) for field in same):
        raise AnalystError(f"{path} holds another question, or the silos' policies have changed", hint)
    if kept.expires_at <= now:
        raise AnalystError(f"the request in {path} has expired", hint)
    return kept


def _round_key(
    backend: BackendName, nonce: bytes, recipients: tuple[Recipient, ...]
) -> tuple[bytes, tuple[bytes, ...]]:
    """Return a fresh public key and its secret sealed to each recipient, where the backend has a key."""
    if not BACKENDS[backend].has_key:
        return b"", ()
    made = BACKENDS[backend].create_key()
    return made.public, tuple(sealed_secret(nonce, recipient, made.secret) for recipient in recipients)


def _check_reachable(config: Config, offer: Offer, silos: tuple[str, ...]) -> None:
    """Raise RoundError where silos that did not answer leave too few for any round."""
    absent = sorted(set(config.roster.silo_keys) - set(offer.silos))
    asked = [offer.silos[silo] for silo in silos]
    reason = why_infeasible(
        len(asked),
        max(one.min_silos for one in asked),
        max(one.max_colluding for one in asked),
        max(one.max_missing for one in asked),
    )
    if absent and reason:
        raise RoundError(f"no answer: {reason}; missing: {', '.join(absent)}", "ask again when they are back")
