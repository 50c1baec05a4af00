"""The running sum: a contribution is added once, whole and as signed, and only what was agreed on is released."""

import asyncio

import pytest

from crypto.errors import ProtocolError
from crypto.messages import chunk_digests
from tests.simulator import LocalSums


def test_a_sum_that_holds_another_set_than_agreed_is_never_released() -> None:
    """A contribution may be added just after the round stopped waiting for it."""

    async def run() -> None:
        sums, payload = LocalSums(), bytes(80)
        await sums.start(b"r", 10, 64)
        for silo in ("a", "b"):
            await sums.add(b"r", silo, chunk_digests(payload, 8), (payload,))
        with pytest.raises(ProtocolError, match="exactly the contributions"):
            await sums.total(b"r", ("a",))

    asyncio.run(run())


def test_a_contribution_is_added_once_whole_and_as_signed() -> None:
    async def run() -> None:
        sums, payload = LocalSums(), bytes(80)
        await sums.start(b"r", 10, 64)
        await sums.add(b"r", "a", chunk_digests(payload, 8), (payload,))
        for silo, frames in (("a", (payload,)), ("b", (payload[:-8],)), ("b", (bytes(79) + b"\1",))):
            with pytest.raises(ProtocolError):
                await sums.add(b"r", silo, chunk_digests(payload, 8), frames)
        assert await sums.total(b"r", ("a",)) == payload

    asyncio.run(run())
