"""What a request fixes about its secure sum; computed by every party for itself."""

from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import key_id
from crypto.rounds.manifest import Block, Terms
from policies.requests.calibration import spreads_of
from policies.requests.request import Request
from policies.requests.statistic import block_length


def terms_of(request: Request, request_hash: bytes) -> Terms:
    """Return what the request fixes about its secure sum: slots, scales, variances, limit, recipients."""
    blocks = [
        Block(
            name=statistic.kind if statistic.column is None else f"{statistic.kind}:{statistic.column}",
            length=block_length(request, statistic),
            scale_bits=scale_bits,
            variance=str(variance),
        )
        for statistic, (_, scale_bits, variance) in spreads_of(request).items()
    ]
    return Terms(
        request_hash=request_hash,
        recipients=request.recipients,
        backend=request.backend,
        key_id=key_id(request.backend, request.round_key) if request.round_key else b"",
        limit=BACKENDS[request.backend].capacity(len(request.silos)),
        blocks=tuple(blocks),
    )
