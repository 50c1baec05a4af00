"""What a model found, line by line, for people."""

from collections.abc import Iterator

from policies.fitted import Fitted, Listing

_NAME = 32


def fitted_lines(fitted: Fitted) -> Iterator[str]:
    """Yield figures, listings and notes as text."""
    for figure in fitted.figures:
        yield f"  {figure.name:<{_NAME}} {in_six_digits(figure.values[0]):>14}"
    for listing in fitted.listings:
        yield from _listing(listing)
    for note in fitted.notes:
        yield f"  {note}"


def _listing(listing: Listing) -> Iterator[str]:
    width = max([_NAME, *(len(line.name) for line in listing.lines)])
    yield f"  {listing.name:<{width}} " + " ".join(f"{heading:>14}" for heading in listing.headings)
    for line in listing.lines:
        yield f"  {line.name:<{width}} " + " ".join(f"{in_six_digits(value):>14}" for value in line.values)


def in_six_digits(value: float | None) -> str:
    """Return a number for people, and a dash where there is none."""
    return "-" if value is None else f"{value:.6g}"
