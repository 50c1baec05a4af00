"""The closed list of a column's values where it is long: it travels once, and is named by its hash everywhere else.

A domain of at most `MAX_DOMAIN` values stands whole in every table definition. A longer one stands there as its hash
and its number of values, and whoever needs the values takes them from its own policy, or asks a silo for them once.

Promise: there is one text and one hash of a list of values, and values are taken only if they have the hash that names
them. docs/protocol.md section 7.5.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, overload

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from crypto.errors import WireError
from crypto.wire import Digest, Message
from policies.units import MAX_DOMAIN, MAX_LONG_DOMAIN

MAX_VALUE_CHARACTERS = 80
MAX_DOMAIN_BYTES = 32 << 20  # of the text of a long domain, in a file and on the wire
HASH_PATTERN = r"^sha256:[0-9a-f]{64}$"


class DomainName(Message):
    """A long domain on the wire: the SHA-256 of its text, and the number of its values."""

    hash: Digest
    size: Annotated[int, Field(ge=MAX_DOMAIN + 1, le=MAX_LONG_DOMAIN)]


@dataclass(frozen=True)
class LongDomain(Sequence[str]):
    """A domain of more than `MAX_DOMAIN` values; without its values where they have not been needed yet.

    Two are equal if they have the same hash and size, whether or not their values are here.
    """

    digest: bytes
    size: int
    values: tuple[str, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def known(self) -> tuple[str, ...]:
        """The values; raises LookupError if they are not here."""
        if self.values is None:
            raise LookupError(f"the values of the domain {self.name} are not here")
        return self.values

    @property
    def name(self) -> str:
        """The hash as a policy writes it."""
        return f"sha256:{self.digest.hex()}"

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of every value, counted from 0."""
        return {value: place for place, value in enumerate(self.known)}

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.known[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __contains__(self, value: object) -> bool:
        return value in self.places

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Return the place of a value; raises ValueError if the domain lacks it."""
        place = self.places.get(value, -1)
        if not start <= place < (self.size if stop is None else stop):
            raise ValueError(f"{value!r} is not in the domain {self.name}")
        return place

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how it is read and written: as its `DomainName`."""
        named = handler.generate_schema(DomainName)
        read = core_schema.no_info_after_validator_function(lambda name: cls(name.hash, name.size), named)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda domain: DomainName(hash=domain.digest, size=domain.size), return_schema=named
            ),
        )


Domain = tuple[str, ...] | LongDomain  # the closed list of a column's values, in the order of an answer's groups


def text_of(values: Sequence[str | int]) -> bytes:
    """Return the one text of a list of values: each on a line of its own, in UTF-8, with LF at its end."""
    return "\n".join((*map(str, values), "")).encode()


def hash_of(values: Sequence[str | int]) -> str:
    """Return the hash of a list of values as a policy writes it."""
    return f"sha256:{sha256(text_of(values)).hexdigest()}"


def digest_in(text: str) -> bytes:
    """Return the digest in a hash as a policy writes it."""
    return bytes.fromhex(text.removeprefix("sha256:"))


def with_text(domain: LongDomain, text: bytes) -> LongDomain:
    """Return the domain with its values; raises WireError unless `text` is the text that its hash names."""
    if len(text) > MAX_DOMAIN_BYTES:
        raise WireError(f"a domain of {len(text)} bytes, at most {MAX_DOMAIN_BYTES} are read")
    if sha256(text).digest() != domain.digest:
        raise WireError(f"the values received are not those of the domain {domain.name}")
    values: tuple[str, ...] = ()
    if text.endswith(b"\n") and text.count(b"\n") == domain.size:
        try:
            values = tuple(text[:-1].decode().split("\n"))
        except UnicodeDecodeError:
            values = ()
    if len(values) != domain.size or (problem := problem_of(values)) is not None:
        found = problem.text if values and problem is not None else "it is not that many lines of UTF-8"
        raise WireError(f"the domain {domain.name} is not a list of {domain.size} values: {found}")
    return LongDomain(domain.digest, domain.size, values)


@dataclass(frozen=True, slots=True)
class ValueProblem:
    """Why a list is no domain, and the place of the first value that is not allowed, counted from 1."""

    place: int
    text: str


def problem_of(values: Sequence[str]) -> ValueProblem | None:
    """Return the first thing that a list of values may not have; None if it is a domain."""
    if not values:
        return ValueProblem(1, "the list has no value; write one value a line")
    if len(values) > MAX_LONG_DOMAIN:
        text = f"more than {MAX_LONG_DOMAIN:,} values; keep at most that many"
        return ValueProblem(MAX_LONG_DOMAIN + 1, text)
    is_plain = "".join(values).isprintable() and max(map(len, values)) <= MAX_VALUE_CHARACTERS
    if is_plain and "" not in (known := set(values)) and len(known) == len(values):
        return None
    seen: dict[str, int] = {}
    for place, value in enumerate(values, 1):
        if not value:
            return ValueProblem(place, "an empty line; remove it")
        if len(value) > MAX_VALUE_CHARACTERS:
            return ValueProblem(
                place, f"a value of {len(value)} characters, at most {MAX_VALUE_CHARACTERS}; shorten it"
            )
        if not value.isprintable():
            text = f"a character that is not seen or moves others (found {ascii(value)[:60]}); remove it"
            return ValueProblem(place, text)
        first = seen.setdefault(value, place)
        if first != place:
            return ValueProblem(place, f"{value!r} stands on line {first} too; remove one of the two")
    return None


def int_problem_of(values: Sequence[str]) -> ValueProblem | None:
    """Return the first value that is no whole number in its one spelling; None if all are."""
    with suppress(ValueError):
        numbers = list(map(int, values))
        if list(map(str, numbers)) == list(values) and min(numbers) >= -(1 << 63) and max(numbers) < 1 << 63:
            return None
    for place, value in enumerate(values, 1):
        if not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", value) or not -(1 << 63) <= int(value) < 1 << 63:
            text = f"{value!r} is no whole number of 64 bits, written without leading zeros or a plus; mend it"
            return ValueProblem(place, text)
    return None
