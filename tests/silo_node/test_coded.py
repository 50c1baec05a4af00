"""Texts as numbers: many texts are numbered part by part, as few are at once."""

import numpy as np
import pyarrow as pa

from silo_node.data.coded import NO_MEMBER, dictionary, partitioned


def test_many_texts_are_numbered_part_by_part_as_few_are_at_once() -> None:
    listed = [None if i % 11 == 0 else f"p{i * i % 83}é" for i in range(2000)]
    parts = np.array([255 if text is None else sum(text.encode()) % 7 for text in listed], np.uint8)
    for texts in (pa.chunked_array([listed[:700], listed[700:]], pa.string()), pa.chunked_array([[None]], pa.string())):
        codes, different = partitioned(texts, parts[: len(texts)])
        once, alike = dictionary(texts)
        assert sorted(different.to_pylist()) == sorted(alike.to_pylist())
        read = [None if code == NO_MEMBER else different[int(code)].as_py() for code in codes]
        assert read == texts.to_pylist() == [None if c == NO_MEMBER else alike[int(c)].as_py() for c in once]
