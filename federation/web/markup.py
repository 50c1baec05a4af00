"""Templates that values cannot break out of.

Promises: every value is escaped in every template, whatever its name; a name without a value is an error, not an empty
text. Assumes that templates quote their attributes, and that no value goes into a script, a style or an address; the
security policy of a page forbids these, and a test checks the templates. Source: OWASP, Cross Site Scripting
Prevention.
"""

from collections.abc import Callable, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates(package: str, filters: Mapping[str, Callable[..., object]]) -> Environment:
    """Return the templates in the folder `templates` of a package, with filters of the page's own."""
    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(filters)
    return made
