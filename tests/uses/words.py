"""Sentences of the docstrings of Python's standard library, a package a silo: which word comes after four others.

The vocabulary is public: the most frequent words of all packages. A person is a sentence.
"""

import importlib.util
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pyarrow as pa

from tests.uses.founding import Use

PACKAGES = ("asyncio", "email", "http", "logging", "unittest", "xml")
WORDS, BEFORE, MOST_SENTENCES = 200, 4, 900
OTHER, BEGIN = "(other)", 0  # what stands for a word outside the vocabulary, and the number before a sentence


@cache
def sentences(package: str) -> tuple[tuple[str, ...], ...]:
    """Return the sentences of a package's docstrings, in the order of its files."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    found = list[tuple[str, ...]]()
    for file in sorted(Path(spec.origin).parent.rglob("*.py")):
        if "test" in file.parts:
            continue
        for docstring in re.findall(r'"""(.*?)"""', file.read_text(), re.DOTALL):
            for one in re.split(r"[.:;!?]\s|\n\s*\n", docstring):
                words = re.findall(r"[a-z']+", one.lower())
                if len(words) > 2:
                    found.append(tuple(words))
    return tuple(found[:MOST_SENTENCES])


@cache
def vocabulary() -> tuple[str, ...]:
    """Return the words that have a number; the first stands for all others."""
    count = Counter(word for package in PACKAGES for sentence in sentences(package) for word in sentence)
    return (OTHER, *(word for word, _ in count.most_common(WORDS)))


def table(package: str) -> pa.Table:
    """Return a row for each word of the vocabulary after which words it came."""
    place = {word: number + 1 for number, word in enumerate(vocabulary())}
    rows = []
    for number, sentence in enumerate(sentences(package)):
        coded = [BEGIN] * BEFORE + [place.get(word, 1) for word in sentence]
        for at, word in enumerate(sentence):
            if word in place:
                rows.append((f"{package}-{number}", coded[at : at + BEFORE], word))
    ids, before, words = zip(*rows, strict=True)
    return pa.table({"id": ids, "before": pa.array(list(before), pa.list_(pa.int16())), "word": words})


def use() -> Use:
    domain = ", ".join(f'"{word}"' for word in vocabulary())
    columns = {
        "before": f'{{ type = "array", of = "int", shape = [{BEFORE}], class = "internal", roles = ["feature"],'
        f" bounds = [0, {WORDS + 1}] }}",
        "word": f'{{ type = "string", class = "internal", roles = ["label"], domain = [{domain}],'
        f' unknown = "{OTHER}" }}',
    }
    rows = {package: table(package) for package in PACKAGES}
    return Use("sentences", columns, rows, ("language-model",), max_rows=60)
