"""What can go wrong at the aggregator.

AggregatorError
├── SilosMissingError         silos without which the round cannot end
│   └── SharesMissingError    silos that left before anything was contributed: the round starts anew
└── StoreError                the directory of reports cannot be written
"""


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


class StoreError(AggregatorError):
    """The directory of reports cannot be written."""
