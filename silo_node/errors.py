"""The errors of a silo.

SiloError
├── SpentError    a step that failed after its charge was committed
├── NotLoadedError  what a computation needs, which is not imported yet, or not installed
├── NetworkError  a network that exceeded a limit of the policy in its process, or failed there
├── SourceError   data that are missing, unreachable, empty or not of the declared types; mostly raised at loading
└── HomeError     a silo's own directory that is incomplete
"""


class SiloError(Exception):
    """Root of this package's errors; shown to the silo's owner, never sent to another party."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class SpentError(SiloError):
    """A step that failed after its charge was committed: whoever asked learns that it failed, and no more."""


class SourceError(SiloError):
    """Data that are missing, unreachable, empty or not of the declared types."""


class NotLoadedError(SiloError):
    """What a computation needs, which is not imported yet, or not installed."""


class NetworkError(SiloError):
    """A network that exceeded a limit of the policy in its process, or failed there.

    Message and hint follow from the policy and from which limit it was alone, so an exact source may tell them.
    `cause` is for the owner's log.
    """

    def __init__(self, message: str, hint: str = "", cause: str = "") -> None:
        super().__init__(message, hint)
        self.args, self.cause = (message, hint, cause), cause


class HomeError(SiloError):
    """A silo's own directory that is incomplete."""
