"""Long rounds of few values: a chunk has so few that a vector has several of them."""

import pytest

from crypto.backends.masking import MaskingScheme
from crypto.ring import Ring

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
