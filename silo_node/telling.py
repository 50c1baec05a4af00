"""What a silo's owner is told of failed steps, in `silo.log`: of each kind only so often, as others may cause many."""

import logging
from collections.abc import Callable, Sequence

from crypto.errors import CryptoError
from federation.operations.allowance import Allowance
from policies.errors import PolicyError, UnpaidError
from silo_node.errors import SiloError

AT_ONCE, PER_DAY = 1000, 10_000  # lines of each kind
RULES, OWN, UNEXPECTED = "broken rules of the protocol", "what this silo lacks", "unexpected errors"


class Teller:
    """Writes to one owner's log."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._lines = Allowance[str](AT_ONCE, PER_DAY, clock)

    def failed(self, round_id: bytes, err: Exception) -> None:
        """Write why a step failed, with a traceback if nobody expected it.

        Of signers that ask too often for nothing the ledger's log tells.
        """
        match err:
            case UnpaidError():
                return
            case CryptoError():
                if self._may_tell(RULES):
                    self._log.warning("round %s: %.500s", round_id.hex(), err)
            case SiloError() | PolicyError():
                if self._may_tell(OWN):
                    self._log.error("round %s: %.500s (%.300s)", round_id.hex(), err, err.hint)
            case _:
                if self._may_tell(UNEXPECTED):
                    self._log.error("round %s", round_id.hex(), exc_info=err)

    def _may_tell(self, kind: str) -> bool:
        """Whether another line of a kind may be written; if lines were left out before it, that is written, too."""
        if not self._lines.take(kind):
            return False
        if left_out := self._lines.refused().get(kind):
            self._log.warning("%d lines on %s were left out", left_out, kind)
            self._lines.told(kind)
        return True

    def warned(self, text: str) -> None:
        """Write what the owner should know, and nobody else can cause often."""
        self._log.warning("%.500s", text)

    def cut(self, round_id: bytes, cut: Sequence[str]) -> None:
        """Write which figures the backend could not carry; in any case one line, so that its time tells nothing."""
        if cut:
            text = f"{', '.join(cut)}: cut, as the silo has more rows than rows_up_to; raise it"
            self._log.warning("round %s: figures cut: %.300s", round_id.hex(), text)
        else:
            self._log.info("round %s: figures cut: none", round_id.hex())
