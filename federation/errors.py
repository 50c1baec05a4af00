"""The errors of a federation and of the programs that run it.

FederationError        a federation that cannot be founded, read, joined, started or reached
├── ClusterDiedError   a Ray cluster that has died while its program ran
└── CommandLineError   an invalid command line, or no terminal to type at
"""


class FederationError(Exception):
    """Root of this package's errors; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class ClusterDiedError(FederationError):
    """A Ray cluster that has died: its program must end, at once and with this error, to be started again."""


class CommandLineError(FederationError):
    """An invalid command line, or a missing terminal."""
