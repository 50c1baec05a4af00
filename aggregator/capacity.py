"""What an aggregator can take of one round of a long vector: the room on its disk, and how fast masked inputs arrive.

Judged by the request alone, before any silo is asked: nothing is charged for a round that could not be kept. What is
kept of a round is one masked input of every silo that is asked, their sum, and the report with it. docs/federated.md.
"""

from collections.abc import Awaitable, Callable
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

    def why_not(self, request: Request, shards: int = 1) -> str:
        """Return why a round would not fit on the disks, with the bytes and the option to change; empty if it does.

        Masked inputs and their sum are divided among `shards`, each of which keeps as much.
        """
        sent, silos = sent_of(request), len(request.silos)
        kept = (
            (
                "masked inputs",
                "contributions",
                silos * sent.input_bytes + sent.sum_bytes,
                self.contribution_bytes,
                shards,
            ),
            ("reports", "reports", sent.sum_bytes, self.report_bytes, 1),
        )
        for what, option, needed, most, places in kept:
            if needed > places * most:
                vectors = f"{silos} vectors of {sent.values:,} values need {needed:,} bytes of {what}"
                hint = f"ask for fewer values or of fewer silos, or ask its operator for --{option}-gib"
                return f"{vectors}, and the aggregator keeps {places * most:,}; {hint} {-(-needed // (places << 30))}"
        return ""

    async def why_not_in(self, request: Request, count: Callable[[], Awaitable[int]]) -> str:
        """Return the same, with as many shards as there are; they are counted only if one is not enough."""
        return self.why_not(request, await count()) if self.why_not(request) else ""

    def gathers_s(self, request: Request) -> int:
        """Return how many seconds the masked inputs of all silos may take to arrive here; 0 where they are short."""
        needed = len(request.silos) * sent_of(request).input_bytes
        return min(MAX_GATHER_S, -(-needed // self.bytes_per_second))
