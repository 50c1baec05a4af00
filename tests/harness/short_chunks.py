"""Long rounds of few values: a chunk has so few that a vector has several of them."""

import pytest

from crypto.backends.masking import MaskingScheme
from crypto.ring import Ring
from policies.requests.query import Aggregate
from tests.harness.example_policy import plan, table
from tests.harness.many_silos import ROUND_ID, Many, Round

SHORTEST = 16  # values of a chunk: masks begin anew at whole blocks of AES
LENGTH = 36  # of the vectors of `long_round`

HOLDERS = (
    *("crypto.backends.scheme", "crypto.backends.masking", "crypto.rounds.manifest", "crypto.rounds.payload"),
    *("silo_node.rounds.vector", "silo_node.data.figures"),
)


def shorten(patch: pytest.MonkeyPatch, values: int) -> None:
    """Let a chunk have so many values."""
    for module in HOLDERS:
        patch.setattr(f"{module}.CHUNK_VALUES", values)


def narrow(patch: pytest.MonkeyPatch, bits: int) -> None:
    """Let every round of `masking` have a ring of so many bits, whatever its limit."""
    patch.setattr(MaskingScheme, "ring", property(lambda _: Ring(bits)))


def long_round(many: Many, round_id: bytes = ROUND_ID, nonce: bytes = bytes(16)) -> Round:
    """Return a round of three blocks, whose vectors have LENGTH values, each another one."""
    for place, member in enumerate(many.members.values()):
        member.values = tuple(1000 * (place + 1) + number for number in range(LENGTH))
    count, total = (
        Aggregate(function="count", column=None, alias="n"),
        Aggregate(function="sum", column="age", alias="s"),
    )
    columns = tuple(one for one in table().columns if one.name in ("ward", "grade", "age"))
    asked = plan(where=None, group_by=("ward", "grade"), aggregates=(count, total))
    return many.round(many.request(nonce, plan=asked, table=table(columns=columns)), round_id)
