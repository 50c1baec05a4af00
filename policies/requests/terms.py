"""What a request fixes about its secure sum; computed by every party for itself."""

from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import key_id
from crypto.rounds.manifest import Block, Terms
from policies.requests.calibration import spreads_of
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
        key_id=key_id(request.backend, request.round_key) if request.round_key else b"",
        limit=BACKENDS[request.backend].capacity(len(request.silos)),
        blocks=blocks,
    )
