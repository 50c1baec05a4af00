"""One round of a key search: the noised number of persons by prefix, for keys of a text column that nobody has listed.

A round counts every extension of the prefixes that the round before let survive: by one symbol of a public alphabet,
or by the end of the key. Which extensions are counted follows from the signed request alone, so only their noised
counts tell anything about rows. A silo's contribution is computed in `silo_node/data/prefixes.py`, the analyst's side
reads the counts in `analyst/finding/tree.py`. Zhu et al., "Federated Heavy Hitters Discovery with Differential
Privacy", AISTATS 2020, with the Gaussian mechanism on a closed set of candidates in place of their sampling.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from crypto.wire import Message, Name, RoundId
from policies.requests.one_sum import OneSum
from policies.requests.persons import OF_PAIRS
from policies.requests.statistic import Extent, Statistic
from policies.requests.tables import Table
from policies.units import ColumnRole, counted

MAX_SYMBOLS = 94  # of an alphabet: those of ASCII that are seen
MAX_LENGTH = 40  # symbols of a key
MAX_KEYS = 100  # of one person
MAX_PREFIXES = 4_096  # of one round
FIRST = ("",)  # the prefixes of the first round


class KeyShape(Message):
    """What a key is: 1 to `length` symbols of an alphabet; and how many prefixes of one person count in a round."""

    alphabet: Annotated[str, Field(min_length=1, max_length=MAX_SYMBOLS)]
    length: Annotated[int, Field(ge=1, le=MAX_LENGTH)]
    most: Annotated[int, Field(ge=1, le=MAX_KEYS)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.alphabet) != sorted(set(self.alphabet)):
            raise ValueError("the symbols of an alphabet are in order, each once")
        if not all("!" <= symbol <= "~" for symbol in self.alphabet):
            raise ValueError("the symbols of an alphabet are of ASCII, and seen")
        return self

    def is_key(self, text: str) -> bool:
        """Tell whether a text is a key."""
        return 1 <= len(text) <= self.length and set(self.alphabet).issuperset(text)

    @property
    def in_words(self) -> str:
        """What a key is, and how much one person counts."""
        keys = f"keys of 1 to {self.length} symbols among {self.alphabet}"
        return f"{keys}; at most {self.most} of one person"


class KeySearch(OneSum, Message):
    """One round of a key search over one column."""

    kind: Literal["key-search"] = "key-search"
    run: RoundId
    step: Annotated[int, Field(ge=0, lt=MAX_LENGTH)]  # the length of the prefixes
    column: Name
    shape: KeyShape
    prefixes: Annotated[
        tuple[Annotated[str, Field(max_length=MAX_LENGTH)], ...], Field(min_length=1, max_length=MAX_PREFIXES)
    ]

    release: ClassVar[Literal["private", "exact"]] = "private"
    result: ClassVar[Literal["query-result", "model", "metrics"]] = "query-result"
    approved_as: ClassVar[Literal["query", "training", "key-search"]] = "key-search"
    training: ClassVar[None] = None
    side: ClassVar[None] = None
    judged: ClassVar[None] = None
    reads_rows: ClassVar[bool] = True
    opened_as: ClassVar[str] = "key-search"
    continues: ClassVar[None] = None
    functions: ClassVar[tuple[str, ...]] = ("count",)
    is_about_persons: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.step >= self.shape.length:
            raise ValueError(f"a search for keys of {self.shape.length} symbols has as many rounds")
        if list(self.prefixes) != sorted(set(self.prefixes)):
            raise ValueError("the prefixes of a round are in order, each once")
        symbols = set(self.shape.alphabet)
        if any(len(one) != self.step or not symbols.issuperset(one) for one in self.prefixes):
            raise ValueError(f"the prefixes of round {self.step} have so many symbols, all of the alphabet")
        return self

    @property
    def part(self) -> Self:
        return self

    @property
    def search(self) -> Self:
        return self

    @property
    def steps(self) -> int:
        """The rounds of the whole search: one for each symbol of the longest keys."""
        return self.shape.length

    @property
    def dimensions(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def width(self) -> int:
        """How many slots each prefix has: one for each symbol and, but in the first round, one for a key's end."""
        return len(self.shape.alphabet) + (1 if self.step else 0)

    @property
    def slots(self) -> int:
        return len(self.prefixes) * self.width

    def slots_of(self, texts: Iterable[str]) -> Iterator[int]:
        """Yield the slot in which each cell counts; -1 for what is no key, and for a key of another prefix."""
        starts = {prefix: place * self.width for place, prefix in enumerate(self.prefixes)}
        symbols = {symbol: place for place, symbol in enumerate(self.shape.alphabet)} | {"": self.width - 1}
        for text in texts:
            start = starts.get(text[: self.step]) if self.shape.is_key(text) else None
            yield -1 if start is None else start + symbols[text[self.step : self.step + 1]]

    def extensions(self) -> Iterator[tuple[str, bool]]:
        """Yield what each slot counts, in order: a prefix, and whether it is a whole key."""
        is_last = self.step + 1 == self.shape.length
        for prefix in self.prefixes:
            for symbol in self.shape.alphabet:
                yield prefix + symbol, is_last
            if self.step:
                yield prefix, True

    def following(self, prefixes: tuple[str, ...]) -> Self:
        """Return the next round, of the prefixes that survived this one."""
        return type(self).model_validate(dict(self) | {"step": self.step + 1, "prefixes": tuple(sorted(prefixes))})

    def first(self) -> Self:
        """Return the first round; it has what all rounds share."""
        return self.model_copy(update={"step": 0, "prefixes": FIRST})

    def rows_in_words(self, table: Table) -> str:
        return f"at most {self.shape.most} prefix{'es' if self.shape.most > 1 else ''}, once each"

    def thresholds(self, table: Table) -> Iterator[tuple[str, str]]:
        return iter(())  # what its role opens is counts by any prefix

    def uses(self) -> Mapping[ColumnRole, tuple[str, ...]]:
        return {"key": (self.column,)}

    def group_count(self, table: Table) -> int:
        return self.slots

    def size(self, table: Table) -> int:
        """Return how much each row costs: the id, the column, its place among the slots, and the pairs of both."""
        return 2 + OF_PAIRS + self.slots.bit_length()

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        """Return the number of persons by slot: one of them counts in at most `most` slots, once in each.

        So the L2 sensitivity is the square root of that number, whatever keys a person has.
        """
        groups = min(self.shape.most, self.slots)
        return {Statistic("prefixes", self.column): Extent(self.slots, 1, 1, 1, 1, groups=groups)}

    def check(self, table: Table, backend: str) -> None:
        """Raise ValueError if it contradicts the table definition."""
        if table.column(self.column).type != "string":
            raise ValueError(f"keys are found of a string column, and {self.column!r} is none")

    def release_remedy(self, release: str) -> str:
        return "an exact source serves training only, never a search"

    def in_words(self, table_name: str) -> str:
        rounds = f"in {counted(self.steps, 'round')}, each of prefixes that its analyst picks"
        return f"find keys of {self.column} in {table_name}: noised numbers of persons by prefix {rounds}"
