"""How many bytes a round of a run takes at one silo, as its request fixes it."""

from analyst.client import Federation
from crypto.rounds.volume import Volume, volume_of
from crypto.wire import attach
from policies.requests.request import Request
from policies.requests.terms import terms_of

_SIGNATURE = bytes(64)


def volume_at_silo(federation: Federation, request: Request, conditions: tuple[int, int, int]) -> Volume:
    """Return the bytes that a silo of a round of training sends, and that it receives with the report.

    `conditions` are min_silos, max_colluding and max_missing of the round. They follow from the lengths of messages,
    without those of TLS, HTTP/2 and of what is sent once more.
    """
    config = federation.config
    return volume_of(
        config.federation,
        config.dialled or config.aggregator.name,
        request.silos,
        terms_of(request, bytes(32)),
        len(attach(request, federation.analyst, _SIGNATURE)),
        request.round_key,
        conditions,
        request.expires_at,
        is_learned=True,
    )
