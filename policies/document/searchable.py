"""What a policy says of a column whose keys may be found: `keys = { alphabet = "0-9A-Z", length = 6, most = 2 }`."""

from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from policies.document.section import Section
from policies.errors import reason_of
from policies.requests.key_search import MAX_KEYS, MAX_LENGTH, KeyShape


class Keys(Section):
    """What a key of a column is: up to `length` symbols of an alphabet; and how many of one person count at most."""

    alphabet: Annotated[str, Field(min_length=1, max_length=200)]  # symbols, and ranges such as A-Z
    length: Annotated[int, Field(ge=1, le=MAX_LENGTH)]
    most: Annotated[int, Field(ge=1, le=MAX_KEYS)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            _ = self.shape
        except ValidationError as err:
            reason = reason_of(err)
            raise ValueError(f"alphabet {self.alphabet!r}: {reason}") from err
        return self

    @property
    def shape(self) -> KeyShape:
        """The same as requests state it."""
        return KeyShape(alphabet=symbols_of(self.alphabet), length=self.length, most=self.most)


def symbols_of(alphabet: str) -> str:
    """Return the symbols of an alphabet with ranges, in order, each once; raises ValueError.

    A hyphen between two symbols makes a range; as the first or the last one it is a symbol itself.
    """
    found, place = set[str](), 0
    while place < len(alphabet):
        first, rest = alphabet[place], alphabet[place + 1 :]
        if len(rest) >= 2 and rest[0] == "-":
            last = rest[1]
            if last < first:
                raise ValueError(f"alphabet {alphabet!r}: the range {first}-{last} is empty; write {last}-{first}")
            found.update(map(chr, range(ord(first), min(ord(last), 0x10FFFF) + 1)))
            place += 3
        else:
            found.add(first)
            place += 1
    return "".join(sorted(found))
