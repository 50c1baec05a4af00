"""HTML that cannot be broken out of: every string is escaped unless it was made here."""

import html
from collections.abc import Iterable

_VOID = ("meta", "link", "br", "hr", "input")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | Iterable["Child"]


def tag(name: str, /, *children: Child, **attributes: str | int | bool) -> Html:
    """Return an element; a trailing underscore of an attribute is dropped, others become hyphens."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Html:
    """Return children one after another, escaped where they are plain text."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(html.escape(child, quote=True))
        else:
            parts.append(joined(child))
    return Html("".join(parts))
