"""Parameters of a model family: each a text on the wire with a default, and a check of what it may be."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation


@dataclass(frozen=True, slots=True)
class Option:
    """A parameter of a family: its default, and a check that raises ValueError with what is expected."""

    default: str
    check: Callable[[str], None]


def number_option(default: str, low: str, high: str) -> Option:
    """Return an option that is a plain decimal number from `low` to `high`."""

    def check(text: str) -> None:
        try:
            found = Decimal(text)
        except InvalidOperation:
            found = Decimal("nan")
        if not found.is_finite() or f"{found:f}" != text or not Decimal(low) <= found <= Decimal(high):
            raise ValueError(f"expected a number from {low} to {high}, found {text[:40]!r}")

    return Option(default, check)


def width_option() -> Option:
    """Return an option that is a plain number above 0, or left out."""
    number = number_option("", "0.000000001", "1000000000000")
    return Option("", lambda text: number.check(text) if text else None)


def choice_option(default: str, *values: str) -> Option:
    """Return an option that is one of some words."""

    def check(text: str) -> None:
        if text not in values:
            raise ValueError(f"expected one of {', '.join(values)}, found {text[:40]!r}")

    return Option(default, check)


def whole_option(default: str, low: int, high: int) -> Option:
    """Return an option that is a whole number from `low` to `high`."""

    def check(text: str) -> None:
        if not (text.isascii() and text.isdigit() and str(int(text)) == text and low <= int(text) <= high):
            raise ValueError(f"expected a whole number from {low:,} to {high:,}, found {text[:40]!r}")

    return Option(default, check)


def parsed_option(parse: Callable[[str], object]) -> Option:
    """Return an option that is left out, or a text that `parse` takes; it raises ValueError else."""
    return Option("", lambda text: None if not text else (parse(text), None)[1])
