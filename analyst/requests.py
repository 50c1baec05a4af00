"""Write the request that an analyst signs: its price, its silos, its recipients, its round key and its lifetime.

Promise: this module sends nothing. A request that no round could answer is refused before it is signed.
"""

import math
import os
from pathlib import Path

from pydantic import ValidationError

from analyst.errors import AnalystError, RoundError
from analyst.remedies import Bearing, remedy_of, wider
from analyst.sql.offer import Offer, suggest
from crypto.backends.registry import BACKENDS
from crypto.errors import WireError
from crypto.randomness import token
from crypto.rounds.bounds import why_infeasible
from crypto.rounds.manifest import BackendName, Recipient
from federation.config import Config
from policies.budget.accountant import micro_rho_of
from policies.errors import reason_of
from policies.requests.capacity import carried_rows, carriers, rows_of
from policies.requests.computations import AnyComputation
from policies.requests.request import Request, asked_in
from policies.requests.round_key import sealed_secret
from policies.requests.tables import Table
from policies.requests.trees import TREE
from policies.units import DAY_S, MAX_SEND_S, MAX_WAIT_S, SEND_S, WAIT_S

REQUEST_LIFETIME_S = 600  # and as long as it waits beyond WAIT_S
KEPT_LIFETIME_S = 14 * DAY_S  # of a request that waits for approval


def price(offer: Offer, purpose: str, epsilon: float, table: Table, what: AnyComputation) -> int:
    """Convert `epsilon` to micro-rho, at the smallest delta among the silos; raises AnalystError.

    The noise of a long answer uses a part of that delta: see `policies.budget.sampler`.
    """
    if purpose not in offer.purposes:
        raise AnalystError(f"unknown purpose {purpose!r}", suggest(purpose, offer.purposes))
    if not (math.isfinite(epsilon) and 0 < epsilon <= 100):
        raise AnalystError(f"epsilon is {epsilon:g}", "expected a number above 0 and at most 100, such as 1")
    micro_rho = micro_rho_of(epsilon, offer.delta_for(table, what))
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
    deadline: int = WAIT_S,
    send_deadline: int = SEND_S,
) -> Request:
    """Return a request to all silos that have `table`; they are its recipients if none are given.

    It waits `deadline` seconds for the silos' computing, and `send_deadline` for a silo to send a long vector.

    Raises AnalystError if the request is not possible, RoundError if too few silos can be asked.
    """
    wait_seconds, send_seconds = _wait_seconds(deadline), _send_seconds(send_deadline)
    silos = tuple(sorted(offer.holders_of(table.names)))
    _check_reachable(config, offer, silos)
    _check_carried(offer, silos, table, what, micro_rho, backend)
    nonce = token(16)
    recipients = recipients or config.roster.recipients(silos)
    round_key, sealed_secrets = made_key(backend, nonce, recipients)
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
            expires_at=now + _lifetime_s(deadline),
            wait_seconds=wait_seconds,
            send_seconds=send_seconds,
            or_without=spare_silos(offer, silos),
        )
    except ValidationError as err:
        reason = reason_of(err)
        if what.training is not None:
            hint = "change the job; docs/training.md says what each model takes"
            raise AnalystError(f"the job cannot be asked: {reason}", hint) from err
        hint = "group by fewer columns, filter by less, or spend more on fewer figures"
        if any(one.kind == TREE for one in what.statistics(table)):
            hint = "group by fewer columns, or count buckets: a quantile has a tree of counts for each group"
        raise AnalystError(f"the question cannot be asked: {reason}", hint) from err


def spare_silos(offer: Offer, silos: tuple[str, ...]) -> int | None:
    """Return without how many of these silos the rest still meet the conditions of all; None if without nobody."""
    conditions = Bearing.of([offer.silos[silo] for silo in silos]).conditions
    possible = [count for count in range(1, len(silos)) if not why_infeasible(len(silos) - count, *conditions)]
    return max(possible, default=None)


def waiting(request: Request, deadline: int, send_deadline: int = SEND_S) -> Request:
    """Return the same request with other deadlines; raises AnalystError."""
    update = {"wait_seconds": _wait_seconds(deadline), "send_seconds": _send_seconds(send_deadline)}
    return request.model_copy(update=update)


def renew(request: Request, what: AnyComputation, now: int, draw: int = 0) -> Request:
    """Return the same request for another plan, with a new nonce, time and round key.

    Of a step of a run it asks the silos of that draw of its round.
    """
    step = what.training
    asked = {} if step is None else asked_in(request, step, draw)
    return Request.model_validate(dict(request) | renewed(request, what, now) | asked)


def renewed(request: Request, what: AnyComputation, now: int) -> dict[str, object]:
    """Return the fields of a request in which one for another plan differs: its nonce, time and round key."""
    nonce = token(16)
    round_key, sealed_secrets = made_key(request.backend, nonce, request.recipients)
    fields: dict[str, object] = {"nonce": nonce, "round_key": round_key, "sealed_secrets": sealed_secrets}
    return fields | {"plan": what, "created_at": now, "expires_at": now + lifetime_s(request)}


def lifetime_s(request: Request) -> int:
    """Return how long a request is valid that waits as long as this one."""
    return _lifetime_s(request.waits_s)


def _wait_seconds(deadline: int) -> int | None:
    """Return a deadline as a request states it; raises AnalystError."""
    if not 1 <= deadline <= MAX_WAIT_S:
        raise AnalystError(f"the deadline is {deadline} s", f"expected 1 to {MAX_WAIT_S} seconds, such as {WAIT_S}")
    return None if deadline == WAIT_S else deadline


def _send_seconds(deadline: int) -> int | None:
    """Return a deadline for sending as a request states it; raises AnalystError."""
    if not 1 <= deadline <= MAX_SEND_S:
        message = f"the deadline for sending is {deadline} s"
        raise AnalystError(message, f"expected 1 to {MAX_SEND_S} seconds, such as {SEND_S}")
    return None if deadline == SEND_S else deadline


def _lifetime_s(deadline: int) -> int:
    """Return how long a request that waits `deadline` seconds is valid; it may wait for a free slot before."""
    return REQUEST_LIFETIME_S + max(0, deadline - WAIT_S)


def keep_request(path: Path, request: Request, now: int, *, is_priced: bool = True) -> Request:
    """Return the request in a file, or write this one there; raises AnalystError if the file has a different one.

    Unless it `is_priced`, the price is that in the file: what a share comes to changes with what others spend.
    """
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
    same = ["federation", "analyst", "recipients", "purpose", "backend", "table", "plan", "wait_seconds"]
    same += ["send_seconds"]
    same += ["micro_rho"] if is_priced else []
    if any(getattr(kept, field) != getattr(request, field) for field in same):
        raise AnalystError(f"{path} holds another question or deadline, or the silos' policies have changed", hint)
    if kept.expires_at <= now:
        raise AnalystError(f"the request in {path} has expired", hint)
    return kept


def made_key(backend: BackendName, nonce: bytes, recipients: tuple[Recipient, ...]) -> tuple[bytes, tuple[bytes, ...]]:
    """Return a new public key and its secret, sealed to each recipient; both are empty if the backend has no key."""
    if not BACKENDS[backend].has_key:
        return b"", ()
    made = BACKENDS[backend].create_key()
    return made.public, tuple(sealed_secret(nonce, recipient, made.secret) for recipient in recipients)


def _check_carried(
    offer: Offer, silos: tuple[str, ...], table: Table, what: AnyComputation, micro_rho: int, backend: BackendName
) -> None:
    """Raise AnalystError if a backend would cut figures of a silo with as many rows as its policy states."""
    stated = {silo: rows_of(offer.rows_up_to(silo, table.name)) for silo in silos}
    largest = max(stated, key=lambda silo: stated[silo])
    rows, carried = stated[largest], carried_rows(table, what, micro_rho, backend, len(silos))
    if rows <= carried:
        return
    found = carriers(table, what, micro_rho, len(silos), rows)
    names = [name for name in found if all(name in offer.silos[silo].backends for silo in silos)]
    names = [] if what.training is not None else names  # a job has no choice of backends
    hint = f"take the backend {' or '.join(names)}" if names else "ask for less, or for silos to narrow their bounds"
    if stated[largest] > max((rows for silo, rows in stated.items() if silo != largest), default=rows):
        hint += f"; or ask without {largest}: --silos {','.join(silo for silo in silos if silo != largest)}"
    message = (
        f"{backend} would cut figures of {rows:,} rows, which {largest!r} may have: it carries those of {carried:,}"
    )
    raise AnalystError(message, hint)


def _check_reachable(config: Config, offer: Offer, silos: tuple[str, ...]) -> None:
    """Raise RoundError if too few silos answered, or were chosen, for any round."""
    absent = sorted(set(config.roster.silo_keys) - set(offer.silos) - set(offer.reasons))
    bearing = Bearing.of([offer.silos[silo] for silo in silos])
    reason = bearing.why_not(len(silos), len(silos))
    if reason and offer.is_chosen:
        raise RoundError(f"no answer: {reason}", wider(bearing, silos, absent))
    if reason and (absent or offer.reasons):
        told = [f"missing: {', '.join(absent)}"] if absent else []
        told += [f"unable: {silo} ({one.message})" for silo, one in offer.reasons.items()]
        hints = [remedy_of(bearing, silos, silos, absent), *(one.remedy for one in offer.reasons.values())]
        raise RoundError("; ".join([f"no answer: {reason}", *told]), "; ".join(dict.fromkeys(hints)))
