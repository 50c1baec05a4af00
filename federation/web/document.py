"""A document as one HTML file: headings, tables and sentences, without scripts and without links to anywhere.

It is read in a browser from disk, printed, and sent along. Every value is escaped (`federation.web.markup`), and a
security policy in the file itself lets nothing be loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from federation.web.markup import templates


@dataclass(frozen=True, slots=True)
class Part:
    """A heading with a table below it; with sentences where it has no headings of columns."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def document(title: str, subtitle: str, parts: Sequence[Part]) -> str:
    """Return the file's text."""
    page = templates("federation.web", {}).get_template("document.html")
    return page.render(title=title, subtitle=subtitle, parts=parts)
