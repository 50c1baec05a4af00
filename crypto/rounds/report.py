"""The encrypted report as the aggregator stores it: docs/protocol.md section 7.1."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, ClassVar

from pydantic import Field

from crypto.backends.scheme import MAX_CHUNKS, MAX_VALUES
from crypto.errors import WireError
from crypto.rounds.committees import MAX_COMMITTEE
from crypto.rounds.messages import PER_SILO, SiloTestimony
from crypto.wire import MAX_SILOS, Count, Digest, Message, Name, Signature

MAX_SUM_PIECES = MAX_CHUNKS  # and in `shares` a sum for each of 100 silos and recipients


class DroppedSeeds(Message):
    """The entries for a dropped silo from the committee members before it in the roster, in roster order.

    Each is followed by the path that leads from it to the root in its sender's bundle.
    """

    silo: Name
    entries: Annotated[tuple[bytes, ...], Field(max_length=MAX_COMMITTEE)]


class EncryptedReport(Message):
    """Everything that a recipient needs to check and open one sum. The aggregator keeps it and cannot open it.

    The blinded sum follows it in the file (see `report_header`); `chunks` are the BLAKE3 digests of its pieces.
    """

    KIND: ClassVar[str] = "report"
    MAX_BYTES: ClassVar[int] = 256 << 20
    MAX_COMMAS: ClassVar[int] = 2**17  # the entries for many dropped silos
    propose: bytes
    manifest: bytes
    accepts: Annotated[tuple[bytes, ...], PER_SILO]
    bundles: Annotated[tuple[bytes, ...], PER_SILO]
    contributions: Annotated[tuple[bytes, ...], PER_SILO]
    split: bytes
    signatures: Annotated[tuple[Signature, ...], PER_SILO]
    openings: Annotated[tuple[bytes, ...], PER_SILO]
    dropped: Annotated[tuple[DroppedSeeds, ...], PER_SILO]
    refusals: Annotated[tuple[bytes, ...], PER_SILO]
    missing: Annotated[tuple[Name, ...], PER_SILO]  # asked, and without an answer, as the aggregator says
    testimonies: Annotated[tuple[SiloTestimony, ...], PER_SILO]  # of silos that signed something wrong
    length: Count
    chunks: Annotated[tuple[Digest, ...], Field(max_length=MAX_SUM_PIECES)]
    # What survivors signed of their inner products; left out in a round that is not long.
    products: Annotated[
        tuple[bytes, ...] | None, Field(default=None, max_length=MAX_SILOS, exclude_if=lambda found: found is None)
    ] = None


REPORT_MAGIC = b"CSR1"
REPORT_HEADER_BYTES = len(REPORT_MAGIC) + 4
MAX_REPORT_BYTES = REPORT_HEADER_BYTES + EncryptedReport.MAX_BYTES + 16 * MAX_VALUES  # two halves of a word a value


def report_header(report: EncryptedReport) -> bytes:
    """Return the bytes before the blinded sum: "CSR1", the length of the encoded report (4, big-endian), the report."""
    body = report.encode()
    if len(body) > report.MAX_BYTES:
        raise WireError(f"a report of {len(body)} bytes, at most {report.MAX_BYTES} are read")
    return REPORT_MAGIC + len(body).to_bytes(4, "big") + body


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A decoded report; its blinded sum is not checked yet."""

    message: EncryptedReport
    name: bytes  # SHA-256 of the encoded report, which binds the sum by its digests: the transcript
    blinded_sum: memoryview

    @classmethod
    def decode(cls, data: bytes) -> "StoredReport":
        """Read a report with its blinded sum; raises WireError."""
        if not data.startswith(REPORT_MAGIC) or not REPORT_HEADER_BYTES <= len(data) <= MAX_REPORT_BYTES:
            raise WireError(f"{len(data)} bytes that are no encrypted report")
        view = memoryview(bytes(data))  # of the report's own: what is checked stays what is opened
        end = REPORT_HEADER_BYTES + int.from_bytes(view[len(REPORT_MAGIC) : REPORT_HEADER_BYTES], "big")
        if end > len(data):
            raise WireError("an encrypted report that is cut short")
        body = bytes(view[REPORT_HEADER_BYTES:end])
        return cls(EncryptedReport.decode(body), sha256(body).digest(), view[end:])
