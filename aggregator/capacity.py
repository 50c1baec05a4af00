"""What an aggregator can take of one round of a long vector: the room on its disk, and how fast masked inputs arrive.

Judged by the request alone, before any silo is asked: nothing is charged for a round that could not be kept. What is
kept of a round is one masked input of every silo that is asked, and the report with its sum. docs/operations.md.
"""

from dataclasses import dataclass

from aggregator.store import CONTRIBUTIONS, REPORTS
from policies.requests.request import Request
from policies.requests.sending import sent_of
from policies.units import MAX_GATHER_S

BYTES_PER_SECOND = 100_000_000  # of all silos together: received, written to disk and added
MAX_MEGABYTES = 1_000_000  # a second, that an operator may state


@dataclass(frozen=True, slots=True)
class Capacity:
    """The bytes of masked inputs and of reports that an aggregator keeps, and the bytes that it takes a second."""

    contribution_bytes: int = CONTRIBUTIONS.max_bytes
    report_bytes: int = REPORTS.max_bytes
    bytes_per_second: int = BYTES_PER_SECOND

    def why_not(self, request: Request) -> str:
        """Return why a round would not fit on the disk, with the bytes and the option to change; empty if it does."""
        sent, silos = sent_of(request), len(request.silos)
        kept = (
            ("masked inputs", "contributions", silos * sent.input_bytes, self.contribution_bytes),
            ("reports", "reports", sent.sum_bytes, self.report_bytes),
        )
        for what, option, needed, most in kept:
            if needed > most:
                vectors = f"{silos} vectors of {sent.values:,} values need {needed:,} bytes of {what}"
                hint = f"ask for fewer values or of fewer silos, or ask its operator for --{option}-gib"
                return f"{vectors}, and the aggregator keeps {most:,}; {hint} {-(-needed >> 30)}"
        return ""

    def gathers_s(self, request: Request) -> int:
        """Return how many seconds the masked inputs of all silos may take to arrive here; 0 where they are short."""
        needed = len(request.silos) * sent_of(request).input_bytes
        return min(MAX_GATHER_S, -(-needed // self.bytes_per_second))
