"""How a CSV file is written: what a draft proposes of it, from its first lines. Only drafts sniff, never a start.

Promise: nothing that is found holds a value of the rows but marks from the fixed lists here: delimiter, quote,
encoding, the texts of a missing cell, the marks in numbers, the formats of dates, the words for true and false. A
remark says where a type is in doubt: only 0 and 1, leading zeros, no value at all, dates of either order. The names are
those of the first line, unless that line looks like a row. A line with more or fewer cells than the first is an error
that names the line, and nothing of what stands there.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from itertools import islice
from pathlib import Path

from policies.document.cells import BLANKS, FALSE, TRUE, Csv, check_names
from policies.document.found import FoundColumn, FoundTable, readable_as
from policies.errors import SniffError
from policies.units import counted

MAX_LINES = 100_000
MAX_BYTES = 1 << 24
MISSING = (
    *("", "NA", "N/A", "n/a", "na", "N.A.", "n.a.", "NaN", "nan", "NAN", "NULL", "Null", "null", "None", "none"),
    *("-", "--", ".", "..", "?", "#N/A", "#NA", "#NULL!", "<NA>", "\\N", "missing", "Missing", "MISSING"),
)
_OFTEN_A_VALUE = ("None", "none")  # in a column of texts
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE = 1000
_DIGITS = 18  # of the largest whole number that is proposed as one; a longer one is a code
_MAX_COLUMNS = 500

_MORE = ((".", " "), (",", " "), (".", "'"), (",", "'"))
# The marks of numbers, decimal and thousands. A decimal comma is likelier where commas do not part the cells.
_STYLES = ((".", ""), (".", ","), (",", ""), (",", "."), *_MORE)
_STYLES_BESIDE_COMMAS = ((".", ""), (",", ""), (",", "."), (".", ","), *_MORE)
# Words beside those of every policy, each pair of one language.
_WORDS = (("ja", "nein"), ("ja", "nei"), ("ja", "nej"), ("ja", "nee"), ("j", "n"), ("oui", "non"), ("si", "no"))
_DAYS = (
    *("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d"),
    *("%Y%m%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y"),
    *("%d %B %Y", "%b %d, %Y", "%B %d, %Y"),
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_COMPACT = "%Y%m%d"
_ISO = re.compile(
    r"(?P<Y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})"
    r"([ T]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d([.]\d{1,6})?)?(Z|[+-]\d{2}(:?[0-5]\d)?)?)?",
    re.ASCII,
)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_PARTS = {
    "%Y": r"(?P<Y>\d{4})",
    "%y": r"(?P<y>\d{2})",
    "%m": r"(?P<m>\d{1,2})",
    "%d": r"(?P<d>\d{1,2})",
    "%b": rf"(?P<b>{'|'.join(month[:3] for month in _MONTHS)})",
    "%B": rf"(?P<b>{'|'.join(_MONTHS)})",
    "%H": r"([01]?\d|2[0-3])",
    "%I": r"(0?[1-9]|1[0-2])",
    "%M": r"[0-5]\d",
    "%S": r"[0-5]\d",
    "%f": r"\d{1,6}",
    "%p": r"(am|pm)",
}
_FORMS = tuple(f"{day}{clock}" for day in _DAYS for clock in _CLOCKS if day != _COMPACT or not clock)
_MAX_FORMS = 3  # of one column
Style = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Dates:
    """The formats that dates of a column are written with; none where ISO 8601 fits all."""

    forms: tuple[str, ...]
    other: str = ""  # the same format with the month first, where it fits as well


def sniff_file(file: Path) -> FoundTable:
    """Return what the first lines of a CSV file show of it; raises SniffError or OSError."""
    try:
        with gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as err:
        raise SniffError(f"{file} is not compressed as its name says", "mend the file") from err
    return sniff(raw[:MAX_BYTES], str(file), is_whole=len(raw) <= MAX_BYTES)


def sniff(raw: bytes, name: str, *, is_whole: bool = True) -> FoundTable:
    """Return what the first bytes of a CSV file show of it; raises SniffError, whose message begins with `name`."""
    encoding, text = _decoded(raw, name, is_whole)
    if not is_whole:
        text = text[: text.rfind("\n") + 1] or text
    delimiter, quote = _dialect(text)
    rows = _rows(text, name, delimiter, quote, is_whole)
    if not rows:
        raise SniffError(f"{name} has no rows, and not even a line with names", "put data into it")
    first, body = [cell.strip(BLANKS) for cell in rows[0]], rows[1:]
    if len(first) > _MAX_COLUMNS:
        raise SniffError(
            f"{name} has {counted(len(first), 'column')}, a source at most {_MAX_COLUMNS}", "leave some out"
        )
    columns = [dict.fromkeys(cell.strip(BLANKS) for cell in cells) for cells in zip(*body, strict=True)]
    has_names = _has_names(first, columns or [{}] * len(first))
    if has_names and not body:
        raise SniffError(f"{name} has no rows", "types are told from rows: draft from a file that has some")
    if has_names:
        names = tuple(first)
        try:
            check_names([one for one in names if one])
        except ValueError as err:
            raise SniffError(f"{name}, line 1: {err}", "give each column a name of its own") from err
    else:
        below = columns or [{}] * len(first)
        columns = [{cell: None, **texts} for cell, texts in zip(first, below, strict=True)]
        names = tuple(f"column_{number}" for number in range(1, len(first) + 1))
    written = Csv.model_validate(
        {
            "delimiter": "tab" if delimiter == "\t" else delimiter,
            "quote": quote,
            "encoding": encoding,
            "header": True if has_names else names,
        }
    )
    return _table(dict(zip(names, columns, strict=True)), written)


def _decoded(raw: bytes, name: str, is_whole: bool) -> tuple[str, str]:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        tried = [("utf-16", "utf-16")]
    else:
        tried = [("utf-8", "utf-8-sig"), ("windows-1252", "cp1252")]
    for encoding, codec in tried:
        try:
            text = codecs.getincrementaldecoder(codec)().decode(raw, final=is_whole)
        except UnicodeError:
            continue
        if "\0" in text:
            raise SniffError(f"{name} has NUL bytes, so it is no text, or UTF-16 without its mark", "write it as UTF-8")
        return encoding, text
    raise SniffError(f"{name} is no text in {' or '.join(encoding for encoding, _ in tried)}", "write it as UTF-8")


def _records(text: str, delimiter: str, quote: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where each record begins, and its cells; empty lines are none. Raises csv.Error."""
    source = io.StringIO(text, newline="")
    if quote:
        reader = csv.reader(source, delimiter=delimiter, quotechar=quote, strict=True)
    else:
        reader = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    begun = 1
    for cells in reader:
        if cells:
            yield begun, cells
        begun = reader.line_num + 1


def _dialect(text: str) -> tuple[str, str]:
    """Return the delimiter and the quote with which most of the first lines have as many cells as the first has."""
    best, chosen = (0.0, 1), (",", '"')
    for quote in ('"', ""):
        for delimiter in _DELIMITERS:
            widths, errors = [], 0
            try:
                for _, cells in islice(_records(text, delimiter, quote), _SAMPLE):
                    widths.append(len(cells))
            except csv.Error:
                errors = 1
            if not widths or widths[0] < 2:
                continue
            score = widths.count(widths[0]) / (len(widths) + errors), widths[0]
            is_better = score[0] > best[0] if quote != chosen[1] else score > best
            if is_better:
                best, chosen = score, (delimiter, quote)
    delimiter, quote = chosen
    if '"' not in text and _has_apostrophes_for_quotes(text, delimiter):
        return delimiter, "'"
    return chosen


def _has_apostrophes_for_quotes(text: str, delimiter: str) -> bool:
    try:
        widths = {len(cells) for _, cells in islice(_records(text, delimiter, "'"), _SAMPLE)}
        plain = [cells for _, cells in islice(_records(text, delimiter, ""), _SAMPLE)]
    except csv.Error:
        return False
    quoted = sum(len(cell) > 1 and cell[0] == cell[-1] == "'" for cells in plain for cell in cells)
    return len(widths) == 1 and quoted >= max(len(plain) - 1, 1)


def _rows(text: str, name: str, delimiter: str, quote: str, is_whole: bool) -> list[list[str]]:
    rows: list[list[str]] = []
    number = 1
    try:
        for number, cells in islice(_records(text, delimiter, quote), MAX_LINES + 1):
            if rows and len(cells) != len(rows[0]):
                is_title = len(rows) == 1 and len(rows[0]) < len(cells)
                hint = "if lines stand above the names, take them out" if is_title else "mend that line"
                raise SniffError(f"{name}, line {number}: {len(cells)} cells, expected {len(rows[0])}", hint)
            rows.append(cells)
    except csv.Error as err:
        if is_whole or not rows or "unexpected end" not in str(err):  # the end of what was read of a longer file
            where = f"{name}, after line {number}" if rows else f"{name}, line 1"
            problem = "a quote that does not end, text after one, or a cell that is too long"
            raise SniffError(f"{where}: {problem}", "mend that line") from err
    return rows


def _has_names(first: Sequence[str], columns: Sequence[Collection[str]]) -> bool:
    """Tell whether the first line holds names: more of its cells stand out from those below than fit them."""
    names, values, texts_again = 0, 0, 0
    for cell, texts in zip(first, columns, strict=True):
        if cell in MISSING or _is_year(cell):  # a year may well be a name
            continue
        present = [text for text in islice(texts, _SAMPLE) if text not in MISSING]
        if not present or _is_text(present):
            texts_again += cell in texts or not _is_text([cell])
        elif _is_alike(cell, present):
            values += 1
        else:
            names += 1
    return names > values or (not values and not texts_again)


def _is_year(cell: str) -> bool:
    return re.fullmatch(r"(19|20)\d\d", cell, re.ASCII) is not None


def _is_text(present: Sequence[str]) -> bool:
    return not styles_of(present) and _words(present) is None and _dates(present) is None


def _is_alike(cell: str, present: Sequence[str]) -> bool:
    """Tell whether a cell could stand in a column of numbers, of truth values or of dates."""
    if styles := styles_of(present):
        return any(style in styles for style in styles_of([cell]))
    words = _words(present)
    if words is not None:
        return cell.casefold() in words[0] + words[1]
    return _dates([cell]) is not None


def _table(columns: dict[str, dict[str, None]], written: Csv) -> FoundTable:
    present = {name: [text for text in texts if text not in MISSING] for name, texts in columns.items()}
    styles = {name: styles_of(texts) for name, texts in present.items() if texts}
    order = _STYLES if written.delimiter == "," else _STYLES_BESIDE_COMMAS
    most = max(order, key=lambda style: sum(style in fitting for fitting in styles.values()))
    found: dict[str, FoundColumn] = {}
    occurring = {""}
    for name, texts in present.items():
        fitting = styles.get(name, ())
        style = most if most in fitting or not fitting else next(one for one in order if one in fitting)
        found[name] = replace(_column(texts, fitting, style), decimal=style[0], thousands=style[1])
        marks = {text for text in columns[name] if text in MISSING}
        occurring |= marks - set(_OFTEN_A_VALUE) if found[name].type == "string" else marks
    return FoundTable(found, written, tuple(text for text in MISSING if text in occurring), *most)


def _column(present: Sequence[str], styles: Collection[Style], style: Style) -> FoundColumn:
    if not present:
        return FoundColumn(
            "string", readable_as("int", "bool", "date"), is_empty=True, remark="no cell of what was read has a value"
        )
    if styles:
        return _number(present, styles, style)
    words = _words(present)
    true, false = words if words is not None and words != (TRUE, FALSE) else ((), ())
    if words is not None and _has_both(present, words):
        return FoundColumn("bool", readable_as("bool"), true=true, false=false)
    dates = _dates(present)
    if dates is not None:
        remark = f"month first fits too: dates = {dates.other!r}".replace("'", '"') if dates.other else ""
        return FoundColumn("date", readable_as("date"), dates=dates.forms, remark=remark)
    # A single word may be a truth value of which the other never occurs: only another silo's cells can tell.
    return FoundColumn("string", readable_as("string" if words is None else "bool"), true=true, false=false)


def _number(present: Sequence[str], styles: Collection[Style], style: Style) -> FoundColumn:
    plain = [text.replace(style[1], "") if style[1] else text for text in present]
    plain = [text.replace(",", ".").lstrip("+-") for text in plain]
    if any(re.match(r"0\d", text) for text in plain):
        return FoundColumn("string", readable_as("string"), remark="codes: some have leading zeros, unlike numbers")
    if any(len(text.partition(".")[0]) > _DIGITS for text in plain):
        return FoundColumn("string", readable_as("string"), remark="codes: too long for numbers")
    marked = {mark for mark in ".," if any(mark in text for text in present)}
    both = [mark for mark in marked if {style[0] == mark for style in styles if mark in style} == {True, False}]
    remark = f"{both[0]!r} may be the decimal mark, or that of thousands" if len(both) == 1 else ""
    if not all(re.fullmatch(r"\d+([.]0*)?", text) for text in plain):
        return FoundColumn("decimal", readable_as("decimal"), remark=remark)
    if set(present) <= {"0", "1"}:
        hint = 'only 0 and 1: for no and yes, type = "bool" without bounds; a label has roles = ["label"]'
        return FoundColumn("int", readable_as("int", "bool"), remark=hint)
    if all(_fits(_COMPACT, text) and _is_year(text[:4]) for text in present):
        hint = 'all fit as dates; if they are numbers: type = "int" without dates'
        return FoundColumn("date", readable_as("date", "int"), dates=(_COMPACT,), remark=hint)
    return FoundColumn("int", readable_as("int"), remark=remark)


def styles_of(present: Sequence[str]) -> tuple[Style, ...]:
    """Return the pairs of decimal mark and thousands mark by which all these texts are numbers."""
    if all(text.isdecimal() and text.isascii() and len(text) <= _DIGITS for text in present):
        return _STYLES
    return tuple(style for style in _STYLES if all(map(_numeral(style).fullmatch, present)))


@lru_cache
def _numeral(style: Style) -> re.Pattern[str]:
    point, mark = map(re.escape, style)
    if not mark:
        return re.compile(rf"[+-]?(\d{{1,28}}({point}\d*)?|{point}\d+)([eE][+-]?\d{{1,2}})?", re.ASCII)
    return re.compile(rf"[+-]?(([1-9]\d{{0,2}}({mark}\d{{3}})+|\d{{1,28}})({point}\d*)?|{point}\d+)", re.ASCII)


def _words(present: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the words for true and false among which all these texts are; None if there are none."""
    words = {text.casefold() for text in islice(present, len(TRUE + FALSE) * 4)}
    if len(present) > len(TRUE + FALSE) * 4:
        return None
    if words <= set(TRUE + FALSE):
        return TRUE, FALSE
    return next((((true,), (false,)) for true, false in _WORDS if words <= {true, false}), None)


def _has_both(present: Sequence[str], words: tuple[tuple[str, ...], tuple[str, ...]]) -> bool:
    found = {text.casefold() for text in present}
    return bool(found & set(words[0])) and bool(found & set(words[1]))


def _dates(present: Sequence[str]) -> _Dates | None:
    """Return the formats of which each of these texts fits one; None if there are none, or their orders differ."""
    if all(_is_day(_ISO.fullmatch(text)) for text in present):
        return _Dates(())
    remaining, forms = list(present), list[str]()
    while remaining and len(forms) < _MAX_FORMS:
        fitting = [form for form in _FORMS if _fits(form, remaining[0])]
        if not fitting:
            return None
        counts = {form: sum(_fits(form, text) for text in remaining) for form in fitting}
        forms.append(max(fitting, key=lambda form: counts[form]))
        remaining = [text for text in remaining if not _fits(forms[-1], text)]
    if remaining or any(_swapped(form) in forms for form in forms):
        return None
    other = _swapped(forms[0]) if len(forms) == 1 else ""
    is_open = other in _FORMS and all(_fits(other, text) for text in present)
    return _Dates(tuple(forms), other if is_open else "")


def formats_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Return every known format of dates that all these texts fit."""
    return tuple(form for form in _FORMS if all(_fits(form, text) for text in texts))


def _swapped(form: str) -> str:
    """Return a format with day and month in the other order; the same text where neither order is in doubt."""
    if "%d" not in form or "%m" not in form:
        return ""
    return re.sub("%[dm]", lambda found: "%m" if found[0] == "%d" else "%d", form)


def _fits(form: str, text: str) -> bool:
    return _is_day(_form(form).fullmatch(text))


@lru_cache(maxsize=len(_FORMS))
def _form(form: str) -> re.Pattern[str]:
    parts = re.split(r"(%[A-Za-z])", form)
    return re.compile("".join(_PARTS.get(part, re.escape(part)) for part in parts), re.ASCII | re.IGNORECASE)


def _is_day(found: re.Match[str] | None) -> bool:
    """Tell whether a text that has the shape of a date is a day of the calendar."""
    if found is None:
        return False
    parts = found.groupdict()
    named = parts.get("b")
    month = _MONTHS.index(next(one for one in _MONTHS if one.startswith(named.lower()))) + 1 if named else parts["m"]
    try:
        date(int(parts.get("Y") or f"20{parts['y']}"), int(month), int(parts["d"]))
    except ValueError:
        return False
    return True
