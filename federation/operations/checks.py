"""What a check before the start has found: `consilo doctor` and `consilo-silo doctor` print it in the same words.

Finding("free disk", ok_if(free >= least), "1.5 GiB in /home", "free 2 GiB").lines()
certificate_expiry("certificate", certificate, utc_now())
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography import x509

from federation.members.certificates import days_left

WARN_DAYS = 30
State = Literal["ok", "warn", "FAIL"]  # in order; in order, but not for long; failed


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found, and what to do about it unless all is in order."""

    what: str
    state: State
    found: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """Return what is printed: `ok`, `warn` or `FAIL` and what was found, then what to do about it."""
        shown = f"{self.state:4}  {self.what}: {self.found}"
        return [shown] if self.state == "ok" else [shown, f"      -> {self.remedy}"]


def ok_if(is_so: bool) -> State:
    """Return the state of a check that has two: in order, or failed."""
    return "ok" if is_so else "FAIL"


def certificate_expiry(what: str, certificate: x509.Certificate, now: datetime) -> Finding:
    """Return in how many days a certificate expires: a warning within WARN_DAYS, a failure once it has."""
    left = days_left(certificate, now)
    found = f"expires in {left:.0f} days" if left > 0 else "expired"
    state: State = "FAIL" if left <= 0 else "warn" if left <= WARN_DAYS else "ok"
    return Finding(what, state, found, "rotate it: `consilo join --renew`")
