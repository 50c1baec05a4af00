"""What can go wrong with a federation and with the programs that run it.

FederationError        a federation that cannot be founded, read, joined, started or reached
└── CommandLineError   what was typed is no command, or nobody can type what is asked for
"""


class FederationError(Exception):
    """Root of this package's errors; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class CommandLineError(FederationError):
    """A command line that cannot be understood, or a terminal that is needed and not there."""
