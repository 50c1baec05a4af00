"""What the process that computes passes on: whole numbers of 32 or 64 bits, as views of what was received."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.backends.scheme import CHUNK_VALUES
from policies.requests.statistic import MAX_NARROW, exact
from silo_node.data.figures import Vectors, read_as, sent_as


def passed(vectors: Vectors, word_bytes: list[int]) -> Vectors:
    parts = sent_as(vectors, word_bytes)
    reply = b"".join(parts.parts)
    assert len(reply) == parts.length
    return read_as(reply, [vector.size for vector in vectors], word_bytes)


@given(st.lists(st.tuples(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9), st.sampled_from([4, 8])), max_size=5))
def test_figures_come_as_they_are_or_as_the_greatest_that_fit(blocks: list[tuple[list[int], int]]) -> None:
    found = passed([np.array(one, np.int64) for one, _ in blocks], [size for _, size in blocks])
    for (one, size), figures in zip(blocks, found, strict=True):
        most = 2 ** (8 * size - 1) - 1
        assert figures.dtype.itemsize == size
        assert figures.tolist() == [max(-most, min(most, figure)) if size == 4 else figure for figure in one]


@pytest.mark.parametrize("length", [0, 1, CHUNK_VALUES, CHUNK_VALUES + 1, 3 * CHUNK_VALUES + 5])
def test_a_long_vector_is_sent_in_parts_of_a_chunk_without_a_copy_if_it_can(length: int) -> None:
    vector = np.arange(length, dtype=np.int32)
    parts = list(sent_as([vector], [4]).parts)
    assert all(len(part) <= 4 * CHUNK_VALUES for part in parts)
    assert all(np.shares_memory(np.frombuffer(part, np.int32), vector) for part in parts)
    assert passed([vector], [4])[0].tolist() == vector.tolist()
    assert passed([vector[::-1]], [8])[0].tolist() == vector[::-1].tolist()


def test_a_number_has_32_bits_only_where_what_is_cut_can_be_told() -> None:
    assert exact(3).word_bytes == 8
    assert exact(3).up_to(127).word_bytes == 4
    assert exact(3).up_to(MAX_NARROW - 1).word_bytes == 4
    assert exact(3).up_to(MAX_NARROW).word_bytes == 8
    (figures,) = passed([np.array([2**40, -(2**40)])], [4])
    assert min(map(abs, figures.tolist())) > MAX_NARROW - 1
