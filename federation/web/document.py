"""A document as one HTML file: headings, tables and sentences, without scripts and without links to anywhere.

It is read in a browser from disk, printed, and sent along. Every value is escaped (`federation.web.markup`), and a
security policy in the file itself lets nothing be loaded.
"""

from collections.abc import Sequence
from typing import Protocol

from federation.web.markup import templates


class Part(Protocol):
    """A heading with a table below it; with sentences where it has no headings of columns."""

    @property
    def title(self) -> str:
        """What stands above it."""

    @property
    def headings(self) -> Sequence[str]:
        """Those of the columns; empty for sentences."""

    @property
    def rows(self) -> Sequence[Sequence[str]]:
        """The cells, line by line."""


def document(title: str, subtitle: str, parts: Sequence[Part]) -> str:
    """Return the file's text."""
    page = templates("federation.web", {}).get_template("document.html")
    return page.render(title=title, subtitle=subtitle, parts=parts)
