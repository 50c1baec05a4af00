"""What can go wrong for an analyst.

AnalystError
├── SqlError      a question that is broken or not supported, with the place in its text
├── DeniedError   silos refuse by policy; carries their denials
└── RoundError    silos are missing or the protocol failed; no report came about

A federation that cannot be read, started or reached is `federation.errors.FederationError`.
"""

from policies.requests.denials import Denial


class AnalystError(Exception):
    """Root of this package's errors; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class SqlError(AnalystError):
    """A question that is broken or not supported."""


class RoundError(AnalystError):
    """Silos are missing or the protocol failed; no report came about."""


class DeniedError(AnalystError):
    """Silos refuse by policy; `denials` holds every reason, by silo."""

    def __init__(self, message: str, hint: str, denials: dict[str, tuple[Denial, ...]]) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, denials)
        self.denials = denials
