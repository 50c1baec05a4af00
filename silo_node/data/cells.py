"""How a stored cell becomes the cell that a policy declares, in SQL: one way for check, start and request.

A cell passes two steps. Its *text* is what stands in the file, without the blanks around it, in one Unicode form, and
NULL where it is missing. Its *value* is the text read as the declared type, and NULL where it cannot be read so. No
step guesses: both follow from the policy and from the type of the stored column alone.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable

from policies.document.cells import BLANKS, CellRules
from policies.document.columns import STORED_TYPES, Column
from policies.document.policy import IdDifference
from policies.units import Number
from silo_node.errors import SourceError

# The time of a row to the day, beside the columns of the policy; no key of a policy can hold a space.
DAY = "day of the row"
NUMBER = "DECIMAL(38, 9)"
NARROW_NUMBER = "DECIMAL(18, 9)"  # in 64 bits, which is many times as fast
NARROW = 400_000_000  # the bounds of a decimal that is computed so: their distance has to fit too
_MOST_NARROW = 999_999_999
_LABELS = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "year": "%Y"}  # as in policies/periods.py
_FLOATS = ("FLOAT", "DOUBLE")
_FIRST_YEAR = 1800  # an earlier one is a year of two digits that a format of four has read
_EXACT_FLOATS = 2**53  # below it every whole number is a float of its own
_NOTHING = '"NULL"'  # the type of a column in which every cell is missing
_TEXTS = (*STORED_TYPES["int"], *STORED_TYPES["bool"], *STORED_TYPES["date"], *STORED_TYPES["string"], "DECIMAL")


def quote(identifier: str) -> str:
    """Return an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def listing(texts: Iterable[str]) -> str:
    """Return SQL strings, separated by commas."""
    return ", ".join(map(literal, texts))


def paths(files: Iterable[str]) -> str:
    """Return the SQL list of files, none of whose names is taken for a pattern."""
    escaped = ("".join(f"[{letter}]" if letter in "*?[" else letter for letter in file) for file in files)
    return f"[{listing(escaped)}]"


def kind_of_type(stored: str) -> str:
    """Return a stored type without its parameters."""
    return "ENUM" if stored.startswith("ENUM(") else re.sub(r"\(.*\)$", "", stored)


def check_readable(what: str, stored: str) -> None:
    """Raise SourceError unless cells of this stored type are read: one value, whose text a person would write so."""
    if kind_of_type(stored) not in (*_FLOATS, *_TEXTS, _NOTHING):
        hint = "store numbers, text, dates or bools; lists of numbers are read where the policy declares an array"
        raise SourceError(f"{what} is {stored[:60]}, which no cell is read from", hint)


def is_native(stored: str, column: Column, rules: CellRules, *, is_id: bool) -> bool:
    """Tell whether a stored cell is read as it is: what it holds needs no rule for texts."""
    kind = kind_of_type(stored)
    if is_id or column.values is not None or any(rules.missing) or kind in ("VARCHAR", "FLOAT"):
        return False
    if column.type in ("int", "decimal"):
        return kind in (*STORED_TYPES["int"], *STORED_TYPES["decimal"])
    if column.type == "date":
        return kind in STORED_TYPES["date"] and rules.dates is None
    return column.type == "bool" and kind == "BOOLEAN"


def text_of(cell: str, stored: str, rules: CellRules) -> str:
    """Return the SQL of the text of a stored cell, not yet NULL where it says that it is missing.

    A whole number that was stored as a float is written as a whole number: many programs turn a column of whole
    numbers into floats where one is missing. A float that is no number is missing.
    """
    kind = kind_of_type(stored)
    if kind in _FLOATS:
        whole = f"{cell} = trunc({cell}) AND abs({cell}) < {_EXACT_FLOATS}"
        exact = f"CAST(CAST({cell} AS BIGINT) AS VARCHAR)"
        return f"CASE WHEN {whole} THEN {exact} WHEN NOT isnan({cell}) THEN CAST({cell} AS VARCHAR) END"
    if kind not in STORED_TYPES["string"]:
        return f"CAST({cell} AS VARCHAR)"
    text = cell if kind == "VARCHAR" else f"CAST({cell} AS VARCHAR)"
    return formed(text, rules)


def formed(text: str, rules: CellRules, seen: str | None = None) -> str:
    """Return the SQL of a text without the blanks around it, in one Unicode form and one case, as the rules say.

    `seen` is the SQL of the text to form instead, which differs from `text` only where that is not ASCII.
    """
    source = text if seen is None else seen
    formed = f"trim({source}, {literal(BLANKS)})" if rules.trim else source
    formed = f"nfc_normalize({formed})" if rules.unicode == "NFC" else formed
    if formed != text:  # most texts are ASCII without a blank at an end, which nothing of this changes
        has_blank = f"{text} < '!' OR array_extract({text}, -1) < '!'"
        formed = f"CASE WHEN {is_beyond_ascii(text)} OR {has_blank} THEN {formed} ELSE {text} END"
    return f"lower({formed})" if rules.case == "ignore" else formed


def form(text: str, rules: CellRules) -> str:
    """Return a text of the policy as `formed` makes the texts of cells, but for its case."""
    text = text.strip(BLANKS) if rules.trim else text
    return unicodedata.normalize("NFC", text) if rules.unicode == "NFC" else text


def same(text: str, rules: CellRules) -> str:
    """Return the SQL of a text of the policy to compare a cell's text with: one engine folds the case of both."""
    found = literal(form(text, rules))
    return f"lower({found})" if rules.case == "ignore" else found


def present(text: str, rules: CellRules) -> str:
    """Return the SQL of a text, NULL where it is one of those that mean a missing cell."""
    markers = ", ".join(dict.fromkeys(same(one, rules) for one in rules.missing))
    return f"CASE WHEN {text} NOT IN ({markers}) THEN {text} END" if markers else text


def value_of(text: str, column: Column, rules: CellRules, *, is_native: bool = False) -> str:
    """Return the SQL of the value of a cell from its text: the type of `column`, NULL where it cannot be read so.

    An int is BIGINT, a decimal DECIMAL(38, 9) or, with bounds that `is_narrow`, DECIMAL(18, 9), both after the scale. A
    date is the name of its period, or its day without a granularity. A bool is BOOLEAN.
    """
    if column.values is not None:
        cases = " ".join(f"WHEN {same(file, rules)} THEN {same(ours, rules)}" for file, ours in column.values.items())
        text = f"CASE {text} {cases} ELSE {text} END"
    if is_native:
        return _native(text, column)
    match column.type:
        case "string":
            return _member_spelling(text, column, rules)
        case "bool":
            return _bool(text, rules)
        case "date":
            return _period(day_of(text, rules), column)
        case "int":
            return _or_zero(_whole(_digits(text, rules), column), column)
        case "decimal":
            return _or_zero(_decimal(_digits(text, rules), column), column)
        case "array":
            raise TypeError("arrays are read by `silo_node.data.arrays`")


def _native(cell: str, column: Column) -> str:
    match column.type:
        case "bool":
            return cell
        case "date":
            return _period(f"CASE WHEN isfinite(CAST({cell} AS DATE)) THEN CAST({cell} AS DATE) END", column)
        case "int" if column.scale == 1:
            return _or_zero(f"CASE WHEN {cell} = trunc({cell}) THEN TRY_CAST({cell} AS BIGINT) END", column)
        case "int":
            return _or_zero(_nearest(_scaled(f"TRY_CAST({cell} AS {NUMBER})", column)), column)
        case _:
            return _or_zero(_decimal(cell, column), column)


def _member_spelling(text: str, column: Column, rules: CellRules) -> str:
    """Return a text in the spelling of the domain where case makes no difference."""
    if rules.case == "exact" or not column.members:
        return text
    cases = " ".join(f"WHEN {same(str(one), rules)} THEN {literal(str(one))}" for one in column.members)
    return f"CASE {text} {cases} ELSE {text} END" if cases else text


def _bool(text: str, rules: CellRules) -> str:
    word = f"lower({whole_number(text)})"
    true, false = (dict.fromkeys(form(one, rules) for one in words) for words in (rules.true, rules.false))
    is_true, is_false = (
        f"{word} IN ({', '.join(f'lower({literal(one)})' for one in words)})" for words in (true, false)
    )
    return f"CASE WHEN {is_true} THEN TRUE WHEN {is_false} THEN FALSE END"


def _digits(text: str, rules: CellRules) -> str:
    """Return the SQL of a number's text in digits and a point; a thousands mark must stand between thousands."""
    number = text
    if rules.thousands:
        mark, point = re.escape(rules.thousands), re.escape(rules.decimal)
        grouped = rf"[+-]?([0-9]{{1,3}}({mark}[0-9]{{3}})+|[0-9]*)({point}[0-9]*)?"
        plain = f"replace({text}, {literal(rules.thousands)}, '')"
        number = f"CASE WHEN regexp_full_match({text}, {literal(grouped)}) THEN {plain} END"
    if rules.decimal == ",":
        pointed = f"replace({number}, ',', '.')"
        number = pointed if rules.thousands == "." else f"CASE WHEN NOT contains({text}, '.') THEN {pointed} END"
    # An underscore is no part of a number, though the engine takes it.
    return f"CASE WHEN NOT contains({text}, '_') THEN {number} END"


def _whole(digits: str, column: Column) -> str:
    """Return the SQL of a whole number: 2.0 and 2e0 are 2, and 2.5 is none unless a scale makes it one."""
    number = f"TRY_CAST({digits} AS {NUMBER})"
    if column.scale != 1:
        return _nearest(_scaled(number, column))
    slow = f"CASE WHEN {number} % 1 = 0 THEN TRY_CAST({number} AS BIGINT) END"
    return f"CASE WHEN regexp_full_match({digits}, '[+-]?[0-9]+') THEN TRY_CAST({digits} AS BIGINT) ELSE {slow} END"


def _nearest(number: str) -> str:
    """Return the SQL of the nearest whole number; halves round up."""
    return f"TRY_CAST(floor({number} + 0.5) AS BIGINT)"


def _decimal(cell: str, column: Column) -> str:
    """Return the SQL of a number with nine decimals, in 64 bits where its bounds are narrow."""
    number = _scaled(f"TRY_CAST({cell} AS {NUMBER})", column)
    if not is_narrow(*(column.bounds or (-NARROW - 1, NARROW + 1))):
        return number
    # Numbers beyond what 64 bits hold are far beyond the bounds, where they are clamped in any case.
    ends = f"least(greatest({number}, -{_MOST_NARROW}), {_MOST_NARROW})"
    wide = f"CASE WHEN {number} IS NOT NULL THEN CAST({ends} AS {NARROW_NUMBER}) END"
    return wide if column.scale != 1 else f"coalesce(TRY_CAST({cell} AS {NARROW_NUMBER}), {wide})"


def is_narrow(low: Number, high: Number) -> bool:
    """Tell whether a decimal with these bounds is computed in 64 bits."""
    return low >= -NARROW and high <= NARROW


def _scaled(number: str, column: Column) -> str:
    # An exact product has 18 decimals, so 20 digits before the point. TRY, not a CASE on the cell's size: DuckDB moves
    # a TRY_CAST that is all there is of a column into the reader of a CSV, where it fails the query.
    if column.scale == 1:
        return number
    return f"TRY(CAST({number} * CAST('{column.scale:f}' AS DECIMAL(19, 9)) AS {NUMBER}))"


def _or_zero(number: str, column: Column) -> str:
    return f"coalesce({number}, 0)" if column.missing == "zero" else number


def day_of(text: str, rules: CellRules) -> str:
    """Return the SQL of the day of a date, a time, or a time with a zone (in UTC), from its text."""
    return f"CAST({time_of(text, rules)} AS DATE)"


def time_of(text: str, rules: CellRules) -> str:
    """Return the SQL of a time from its text, TIMESTAMP WITH TIME ZONE; one without a zone is in UTC."""
    if rules.dates is None:
        # The engine also knows words such as `infinity`, and takes 05-03-24 for a day of the year 5.
        return f"TRY_CAST(CASE WHEN regexp_matches({text}, '^[0-9]{{4}}-') THEN {text} END AS TIMESTAMPTZ)"
    read = f"try_strptime({text}, [{listing(rules.dates)}])"
    is_time = f"regexp_matches({text}, '[0-9]') AND year({read}) >= {_FIRST_YEAR}"
    return f"CAST(CASE WHEN {is_time} THEN {read} END AS TIMESTAMPTZ)"


def time_rules(rules: CellRules, stored: str) -> CellRules:
    """Return the rules for times: their letters mean the same in any case, and formats are of times stored as text."""
    is_text = kind_of_type(stored) not in STORED_TYPES["date"]
    return rules.model_copy(update={"case": "exact", "dates": rules.dates if is_text else None})


def _period(day: str, column: Column) -> str:
    if column.granularity is None:
        return f"CAST({day} AS VARCHAR)"
    if column.granularity == "quarter":
        return f"(strftime({day}, '%Y') || '-Q' || quarter({day}))"
    return f"strftime({day}, '{_LABELS[column.granularity]}')"


def visible(text: str) -> str:
    """Return the SQL of a text without characters that nobody sees, such as a zero-width space after a copied id."""
    return f"CASE WHEN {is_beyond_ascii(text)} THEN {_seen(text)} ELSE {text} END"


def _seen(text: str) -> str:
    return f"regexp_replace({text}, '[\\p{{Cf}}\\p{{Zl}}\\p{{Zp}}\\x{{85}}]', '', 'g')"


def is_beyond_ascii(text: str) -> str:
    """Return the SQL of whether a text has other letters than ASCII's, by its bytes: a search costs many times that."""
    return f"strlen({text}) <> length({text})"


def id_text(cell: str, stored: str, rules: CellRules) -> str:
    """Return the SQL of the text of an id: without what nobody sees, which may stand before a blank or an accent."""
    if kind_of_type(stored) not in STORED_TYPES["string"]:
        return text_of(cell, stored, rules)
    text = cell if stored == "VARCHAR" else f"CAST({cell} AS VARCHAR)"
    return formed(text, rules, _seen(text))


def person_in(text: str, stored: str, id_form: Collection[IdDifference] | None) -> str:
    """Return the SQL of `person_of` a stored id; NULL where a float is not whole or exact, so that it names nobody."""
    person = person_of(text, id_form)
    if stored not in _FLOATS:
        return person
    most = 2**24 if stored == "FLOAT" else _EXACT_FLOATS
    can = f"abs(coalesce(TRY_CAST({text} AS BIGINT), {most})) < {most} AND NOT contains({text}, '.')"
    return f"CASE WHEN {can} THEN {person} END"


def whole_number(text: str) -> str:
    """Return the SQL of a text in which a whole number that was written as 2.0 is written as 2."""
    plain = f"regexp_replace({text}, '^(-?[0-9]+)[.]0+$', '\\1')"
    return f"CASE WHEN suffix({text}, '0') AND contains({text}, '.') THEN {plain} ELSE {text} END"


def person_of(text: str, id_form: Collection[IdDifference] | None) -> str:
    """Return the SQL of a person from the `id_text` of an id: two spellings of one person become one text.

    An id is compared as text, and a whole number that was written as 2.0 is 2. What `id_form` names makes no difference
    either; None names nothing.
    """
    return loosened(whole_number(text), id_form or ())


def person_named(text: str, id_form: Collection[IdDifference] | None) -> str:
    """Return the SQL of `person_of` an id as somebody types it."""
    return person_of(id_text(text, "VARCHAR", CellRules()), id_form)


def loosest(person: str) -> str:
    """Return the SQL of a person without any difference that an id may be written with."""
    return loosened(person, ("case", "leading-zeros", "blanks"))


def loosened(text: str, differences: Collection[IdDifference]) -> str:
    """Return the SQL of a text of an id without these differences."""
    if "case" in differences:
        text = f"lower({text})"
    if "blanks" in differences:
        text = whole_number(f"regexp_replace({text}, {literal(f'[{BLANKS}]+')}, '', 'g')")
    if "leading-zeros" in differences:
        text = f"regexp_replace({text}, '^(-?)0+([0-9A-Za-z])', '\\1\\2')"
    return text
