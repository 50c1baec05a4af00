"""What a start-up check has found: `consilo doctor` and `consilo-silo doctor` say it in the same words."""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from crypto.certificates import days_left

WARN_DAYS = 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: in order, in order but due soon, or failed."""

    what: str
    is_ok: bool
    found: str
    remedy: str = ""
    is_due: bool = False

    def lines(self) -> list[str]:
        """Return what is printed: `ok`, `warn` or `FAIL` and what was found, then what to do about it."""
        mark = "FAIL" if not self.is_ok else "warn" if self.is_due else "ok  "
        shown = f"{mark}  {self.what}: {self.found}"
        return [shown] if self.is_ok and not self.is_due else [shown, f"      -> {self.remedy}"]


def standing(what: str, certificate: x509.Certificate, now: datetime) -> Finding:
    """Return how long a certificate stands; one that expires within WARN_DAYS is due."""
    left = days_left(certificate, now)
    found = f"expires in {left:.0f} days" if left > 0 else "expired"
    return Finding(what, left > 0, found, "rotate it: `consilo join --renew`", left <= WARN_DAYS)
