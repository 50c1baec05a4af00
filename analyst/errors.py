"""The errors of an analyst's program.

AnalystError
├── SqlError      a question that is invalid or not supported, with the position in its text
├── DeniedError   silos refuse by policy; it has their denials
│   └── StuckError    a run without noise cannot go on, as contributions to its step have left, and no report is there
└── RoundError    silos are missing or the protocol failed; there is no report
    └── LostError     silos charged the request before, and no aggregator has its report

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
    """A question that is invalid or not supported."""


class RoundError(AnalystError):
    """Silos are missing or the protocol failed; there is no report."""


class LostError(RoundError):
    """Silos charged the request before, and no aggregator has its report."""


class DeniedError(AnalystError):
    """Silos refuse by policy; `denials` has every reason, by silo."""

    def __init__(self, message: str, hint: str, denials: dict[str, tuple[Denial, ...]]) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, denials)
        self.denials = denials


class StuckError(DeniedError):
    """A run without noise cannot go on: contributions to its step have left, and there is no report of it."""
