"""How the cells of a source are written: what a policy declares of them, so that no reader guesses from the values.

The keys of `CellRules` belong to a source, to one column of it (where that column is written otherwise), or to the
table of decisions on consent. The keys of `Csv` belong to all CSV files of a source or of the decisions.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from policies.document.section import Label, Section

Marker = Annotated[str, Field(max_length=80)]
Markers = Annotated[tuple[Marker, ...], Field(max_length=100)]
Letter = Annotated[str, Field(min_length=1, max_length=1)]

TRUE = ("true", "t", "yes", "y", "1")
FALSE = ("false", "f", "no", "n", "0")
BLANKS = (  # around a cell, which `trim` takes off
    " \t\r\n\v\f\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\ufeff"
)
_DIRECTIVES = frozenset("YmdHMSyjfzbBpI%")  # of strptime: those that DuckDB and Python read alike


def listed(value: object) -> object:
    """Return one format as a list of one."""
    return (value,) if isinstance(value, str) else value


def _check_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    for form in formats:
        found = re.findall(r"%(.?)", form)
        if unknown := [f"%{letter}" for letter in found if letter not in _DIRECTIVES]:
            raise ValueError(f"format {form!r} has {unknown[0]!r}; a format is such as %d/%m/%Y or %Y-%m-%d %H:%M:%S")
        if not ({"Y", "y"} & set(found) and (({"m", "b", "B"} & set(found) and "d" in found) or "j" in found)):
            raise ValueError(f"format {form!r} names no whole date; it needs day, month and year, as in %d/%m/%Y")
        try:
            datetime(2026, 11, 29, 1, 2, 3).strftime(form)
        except ValueError as err:
            raise ValueError(f"format {form!r} is none that dates are read by") from err
    return formats


Formats = Annotated[tuple[Annotated[str, Field(min_length=2, max_length=60)], ...], Field(min_length=1, max_length=10)]


class Csv(Section):
    """The dialect of a source's CSV files. A line that does not fit is refused, never skipped and never guessed at."""

    delimiter: Letter | Literal["tab"] = ","
    quote: Annotated[str, Field(max_length=1)] = '"'  # doubled within a quoted cell; "" where nothing is quoted
    encoding: Literal["utf-8", "utf-16", "latin-1", "windows-1252"] = "utf-8"
    header: Literal[True] | Annotated[tuple[Label, ...], Field(min_length=1, max_length=5000)] = True

    @field_validator("delimiter", "quote")
    @classmethod
    def _check_letter(cls, letter: str) -> str:
        if letter == "\\" or not letter.isascii():
            raise ValueError(f"{letter!r} can neither part cells nor quote them; it must be an ASCII character")
        return letter

    @property
    def separator(self) -> str:
        """The character between two cells."""
        return "\t" if self.delimiter == "tab" else self.delimiter

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote are both {self.quote!r}")
        if self.header is not True:
            check_names(self.header)
        return self


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError where two names of a file's columns are the same but for case and blanks around them."""
    seen: set[str] = set()
    for name in names:
        key = name.strip().casefold()
        if key in seen:
            raise ValueError(f"the column {name.strip()!r} stands twice")
        seen.add(key)


class CellRules(Section):
    """How cells are written: what counts as missing, numbers, dates, truth values, blanks, case and Unicode form."""

    missing: Markers = ("",)
    dates: Annotated[Formats, BeforeValidator(listed)] | None = None  # None: ISO 8601
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", "'", " "] = ""
    true: Annotated[Markers, Field(min_length=1)] = TRUE
    false: Annotated[Markers, Field(min_length=1)] = FALSE
    trim: bool = True
    case: Literal["exact", "ignore"] = "exact"
    unicode: Literal["NFC", "as-written"] = "NFC"

    @field_validator("dates")
    @classmethod
    def _check_dates(cls, formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if formats is None else _check_formats(formats)

    @model_validator(mode="after")
    def _check_marks(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}")
        folded = {word.strip().casefold() for word in self.true}
        if both := [word for word in self.false if word.strip().casefold() in folded]:
            raise ValueError(f"{both[0]!r} stands for true and for false")
        return self
