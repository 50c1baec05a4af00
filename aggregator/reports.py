"""What the aggregator reads off the reports that it stores."""

from collections.abc import Sequence

from aggregator.rounds import Aggregator, _only
from crypto.backends.scheme import Scheme
from crypto.errors import ProtocolError
from crypto.rounds.manifest import Manifest, Propose
from crypto.rounds.messages import Contribution, Learned
from crypto.rounds.payload import piece_sizes, scheme_of
from crypto.rounds.report import EncryptedReport
from crypto.wire import Signed, body_digest, unverified, verify
from policies.requests.request import Request
from policies.requests.training import TrainingStep


def contributions_of(report: EncryptedReport) -> tuple[bytes, ...]:
    """Return the names of the contributions in a report's sum: the SHA-256 of their signed heads' bodies."""
    return tuple(body_digest(envelope, Contribution) for envelope in report.contributions)


def added_pieces(report: EncryptedReport) -> range:
    """Return the numbers of the pieces that were added at the aggregator: none where the silos added."""
    scheme = scheme_of_report(report)
    return range(scheme.shape.chunks if scheme.columns == 1 else 0)


def pieces_of(report: EncryptedReport) -> tuple[int, ...]:
    """Return the sizes of the pieces that each contribution in a report's sum has."""
    return piece_sizes(scheme_of_report(report))


def scheme_of_report(report: EncryptedReport) -> Scheme:
    """Return the backend of a stored report, fixed to its round; raises CryptoError."""
    request = unverified(request_of(report), Request)
    return scheme_of(unverified(report.manifest, Manifest), request.round_key)


def report_recipients(report: EncryptedReport) -> tuple[tuple[str, ...], bytes]:
    """Return the recipients of a stored report of a training step, and the report that it follows.

    Raises CryptoError on another report.
    """
    request, step = step_of(report)
    return tuple(recipient.name for recipient in request.recipients), step.after


def read_learned(
    aggregator: Aggregator, silo: str, report: EncryptedReport, frames: Sequence[object]
) -> Signed[Learned]:
    """Return how far a silo says it is in the training run of a report; raises CryptoError."""
    signed = verify(_only(frames), Learned, {silo: aggregator.silos[silo]})
    if signed.message.run != step_of(report)[1].run:
        raise ProtocolError(f"{silo!r} answers for another training run")
    return signed


def request_of(report: EncryptedReport) -> bytes:
    """Return the request that a stored report answers, as its analyst signed it; raises WireError."""
    return unverified(report.propose, Propose).request


def step_of(report: EncryptedReport) -> tuple[Request, TrainingStep]:
    """Return the request of a stored report of a training step, and the step; raises CryptoError on another report."""
    request = unverified(request_of(report), Request)
    if request.plan.training is None:
        raise ProtocolError("the report is not that of a training step")
    return request, request.plan.training
