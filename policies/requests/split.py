"""A split of all persons: one secure sum of random words, which the silos open and nobody else.

Each silo adds words that it draws, so the sum is a secret that no silo has chosen and that neither the analyst nor the
aggregator knows. Under it every person is on one side, in every run and at every silo (`silo_node/data/sides.py`). No
row is read, so the sum has no noise and no price, on private sources too. docs/protocol.md section 11.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from crypto.wire import Name
from policies.requests.statistic import Extent, Statistic, exact
from policies.requests.tables import Table
from policies.requests.training import TrainingStep

WORDS = 16  # of 32 bits each: 512 bits, of which those of one honest silo alone make the sum unknown to all others
WORD_BITS = 32


class SplitStep(TrainingStep):
    """The one round that makes the secret of a split; what `release` the table's sources have."""

    kind: Literal["split"] = "split"
    steps: Literal[1] = 1
    label: Annotated[None, Field(exclude_if=lambda name: name is None)] = None
    features: Annotated[tuple[Name, ...], Field(max_length=0, exclude_if=lambda names: not names)] = ()
    held_out: Annotated[None, Field(exclude_if=lambda held: held is None)] = None
    released_to: Annotated[None, Field(exclude_if=lambda one: one is None)] = None  # nobody is shown the secret

    opened_as: ClassVar[str] = "evaluation"
    reads_rows: ClassVar[bool] = False

    @property
    def clip_norm(self) -> Decimal:
        return Decimal(0)

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        return {Statistic("words"): exact(WORDS)}

    def in_words(self, table_name: str) -> str:
        return f"divide the persons of {table_name} into those to learn from and those held out, by a common secret"

    def rows_in_words(self, table: Table) -> str:
        return "no rows"
