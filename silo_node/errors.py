"""What can go wrong at a silo.

SiloError
├── SourceError   data that are missing, out of reach, empty or not of the declared types: mostly found at loading
└── HomeError     a silo's own directory that is incomplete
"""


class SiloError(Exception):
    """Root of this package's errors; shown to the silo's owner, never sent to another party."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class SourceError(SiloError):
    """Data that are missing, out of reach, empty or not of the declared types."""


class HomeError(SiloError):
    """A silo's own directory that is incomplete."""
