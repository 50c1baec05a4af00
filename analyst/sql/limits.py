"""What is too large for the wire, or nested too deeply, as one refusal: the last resort behind the rules' checks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from analyst.errors import SqlError

_NESTED = "ask for its parts in questions of their own, or take brackets off"


@contextmanager
def too_large_refused() -> Iterator[None]:
    """Raise SqlError, which says what is too large, where a part exceeds a limit of the wire or of Python's stack."""
    try:
        yield
    except ValidationError as err:
        first = err.errors(include_url=False, include_input=False)[0]
        part = ".".join(str(key) for key in first["loc"])
        message = f"the question is too large: {f'{part}: ' if part else ''}{_problem(first)}"
        raise SqlError(message, "ask for less at once") from err
    except RecursionError as err:
        raise SqlError("the question is too large: it is nested too deeply", _NESTED) from err


def _problem(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a part, in words that name no type of Python."""
    context = error.get("ctx") or {}
    match error["type"]:
        case "too_long":
            found, most = context.get("actual_length"), context["max_length"]
            return f"{'more' if found is None else f'{found:,}'} items, at most {most:,}"
        case "string_too_long":
            return f"a text of more than {context['max_length']:,} characters"
    return str(error["msg"])[:200]
