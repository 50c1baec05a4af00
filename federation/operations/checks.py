"""The findings of start-up checks, which `consilo doctor` and `consilo-silo doctor` print in the same form.

Finding("free disk", ok_if(free >= least), "1.5 GiB in /home", "free 2 GiB").lines()
certificate_expiry("certificate", certificate, utc_now())
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography import x509

from federation.members.certificates import days_left
from federation.operations.private import why_code_is_anywhere, why_open

WARN_DAYS = 30
State = Literal["ok", "warn", "FAIL"]  # passed; passed, but not for long; failed


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of one check, and its remedy unless it passed."""

    what: str
    state: State
    found: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """Return the printed lines: `ok`, `warn` or `FAIL` with the finding, then the remedy."""
        shown = f"{self.state:4}  {self.what}: {self.found}"
        return [shown] if self.state == "ok" else [shown, f"      -> {self.remedy}"]


def closed_home(home: Path) -> Finding:
    """Return whether only its user can enter a member's directory."""
    if (why := why_open(home)) is not None:
        return Finding("directory", "FAIL", *why)
    return Finding("directory", "ok", f"{home} can be entered by its owner only")


def code() -> Finding:
    """Return whether Python runs nothing that lies in the current directory."""
    if (why := why_code_is_anywhere()) is not None:
        return Finding("code", "FAIL", *why)
    return Finding("code", "ok", "none from the current directory")


def ok_if(is_so: bool) -> State:
    """Return the state of a check that passes or fails."""
    return "ok" if is_so else "FAIL"


def certificate_expiry(what: str, certificate: x509.Certificate, now: datetime) -> Finding:
    """Return the days until a certificate expires: a warning within WARN_DAYS, a failure once it has expired."""
    left = days_left(certificate, now)
    found = f"expires in {left:.0f} days" if left > 0 else "expired"
    state: State = "FAIL" if left <= 0 else "warn" if left <= WARN_DAYS else "ok"
    return Finding(what, state, found, "rotate it: `consilo join --renew`")
