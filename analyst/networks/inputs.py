"""What one row gives to a network, as `--input` says it: 64, 1x8x8, number, int<1000 or 20:int<1000."""

import re
from dataclasses import dataclass

from analyst.errors import AnalystError
from policies.networks.values import MAX_AXES, Shape

_FORM = re.compile(r"(?:(?P<shape>[1-9][0-9]*(?:x[1-9][0-9]*)*)|(?P<alone>number))?(?::?int<(?P<below>[1-9][0-9]*))?")
_HINT = "write 64 or 1x8x8 for reals, number for one, int<1000 for a whole number, 20:int<1000 for twenty of them"


@dataclass(frozen=True, slots=True)
class InputForm:
    """The shape of one row, and below what its whole numbers are; None of reals."""

    shape: Shape
    below: int | None


def input_form(text: str) -> InputForm:
    """Return what an `--input` says; raises AnalystError."""
    found = _FORM.fullmatch(text)
    if found is None or not text or (found["alone"] and found["below"]) or text.startswith(":"):
        raise AnalystError(f"--input {text!r} is no shape of a row", _HINT)
    shape = tuple(int(size) for size in found["shape"].split("x")) if found["shape"] else ()
    if len(shape) > MAX_AXES:
        raise AnalystError(f"--input {text!r} has {len(shape)} axes, at most {MAX_AXES} are computed", _HINT)
    if shape and found["below"] and ":int" not in text:
        raise AnalystError(f"--input {text!r} is no shape of a row", _HINT)
    return InputForm(shape, int(found["below"]) if found["below"] else None)
