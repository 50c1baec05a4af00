"""The terms that a request fixes for its secure sum; every party computes them for itself. docs/protocol.md 3.1."""

from crypto.backends.scheme import key_id
from crypto.rounds.manifest import Block, Terms
from policies.requests.calibration import spreads_of
from policies.requests.limit import limit_of
from policies.requests.request import Request


def terms_of(request: Request, request_hash: bytes) -> Terms:
    """Return what the request fixes about its secure sum: slots, scales, variances, limit, recipients."""
    extents = request.plan.statistics(request.table)
    spreads = spreads_of(request.table, request.plan, request.micro_rho)
    blocks = tuple(
        Block(
            name=statistic.name,
            length=extents[statistic].length,
            scale_bits=scale_bits,
            variance=str(variance),
        )
        for statistic, (_, scale_bits, variance) in spreads.items()
    )
    return Terms(
        request_hash=request_hash,
        recipients=request.recipients,
        backend=request.backend,
        asked=len(request.silos),
        key_id=key_id(request.backend, request.round_key) if request.round_key else b"",
        limit=limit_of(request.table, request.plan, request.micro_rho, request.backend, len(request.silos)),
        blocks=blocks,
        own_noise=request.plan.has_own_noise,
    )
