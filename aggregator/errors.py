"""The errors of the aggregator.

AggregatorError
├── SilosMissingError         silos without which the round cannot end
│   └── SharesMissingError    silos that left before anything was contributed: the round starts anew
├── BusyError                 the silos compute for too many other rounds: nothing is charged
└── StoreError                what is kept on disk cannot be written, or is not there
    └── ShardLostError        a process that adds has ended, or its machine: it is made anew

OtherVersionError is a LinkError: a silo that cannot be reached, as it runs another version.
"""

from crypto.errors import LinkError


class AggregatorError(Exception):
    """Root of this package's errors; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # everything in args, or Ray cannot rebuild it
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return self.message


class SilosMissingError(AggregatorError):
    """Silos without which the round cannot end."""

    def __init__(self, message: str, missing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.args = (message, missing)
        self.missing = missing


class SharesMissingError(SilosMissingError):
    """Silos that left before anything was contributed: the round starts anew without them."""


class BusyError(AggregatorError):
    """The silos compute for too many other rounds to begin one that needs `seconds` more."""

    def __init__(self, seconds: int) -> None:
        super().__init__("the silos compute for too many other questions", "ask again in some minutes")
        self.args = (seconds,)
        self.seconds = seconds


class OtherVersionError(LinkError):
    """A silo that dialled, and has no version in common with this aggregator."""


class StoreError(AggregatorError):
    """What is kept on disk, such as a report or a checkpoint, cannot be written, or is not there."""


class ShardLostError(StoreError):
    """A process that adds a range of the chunks has ended, or its machine; what it held is fetched again."""
