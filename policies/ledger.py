"""What a silo's ledger must promise, whatever stores it; `silo_node.ledger_store` keeps it in SQLite.

Every method is durable when it returns. A charge goes reserved -> committed, and back to nothing only from reserved:
`commit` precedes the reading of rows, so nothing has left of a reservation that was never committed.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Charge:
    """The whole cost of one request at one silo, named by the request's nonce."""

    nonce: bytes
    request_hash: bytes
    analyst: str
    purpose: str
    micro_rho: int
    policy_hash: bytes


@dataclass(frozen=True, slots=True)
class Spending:
    """What the ledger holds against the limits, in micro-rho: committed plus reserved."""

    lifetime: int


class Ledger(Protocol):
    """Storage of charges and of the splits that were signed. Methods raise LedgerError if they cannot be durable."""

    def spending(self, besides: bytes = b"") -> Spending:
        """Return what is committed and reserved, apart from the charge of the nonce `besides`."""

    def is_committed(self, nonce: bytes) -> bool:
        """Tell whether a contribution for this request has left."""

    def reserve(self, charge: Charge, lifetime_limit: int) -> bool:
        """Reserve the charge unless it would exceed the limit (then False). The same nonce is reserved once.

        Raises AlreadyChargedError if a contribution for this nonce has left, or if another request used it.
        """

    def commit(self, nonce: bytes, round_id: bytes) -> None:
        """Bind the reservation to the round whose contribution leaves next.

        Raises AlreadyChargedError the second time.
        """

    def release(self, nonce: bytes) -> None:
        """Give a reservation back; does nothing to a committed charge."""

    def record_split(self, round_id: bytes, split_hash: bytes) -> bool:
        """Note the one split signed in a round; False if another one was noted before."""
