"""Types of lists as DuckDB names them, and what a Parquet file's schema says beside them of fixed lengths.

No row is read: a length is known here where the file's schema, or a table's column, fixes it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Lists(NamedTuple):
    """A stored type of lists: the type of what is in the innermost, and the fixed length of each level, or None."""

    item: str
    lengths: tuple[int | None, ...]  # the outermost first

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The lengths, where all are fixed."""
        known = tuple(one for one in self.lengths if one is not None)
        return known if len(known) == len(self.lengths) else None

    def __str__(self) -> str:
        return self.item + "".join(f"[{'' if one is None else one}]" for one in reversed(self.lengths))


def lists_in(stored: str) -> Lists | None:
    """Return what a stored type, in DuckDB's names, has lists of; None if it is no list."""
    found = re.fullmatch(r"(.*?)((?:\[[0-9]*\])+)", stored)
    if found is None:
        return None
    lengths = re.findall(r"\[([0-9]*)\]", found[2])
    return Lists(found[1], tuple(int(one) if one else None for one in reversed(lengths)))


def with_lengths(types: Mapping[str, str], file: Path) -> dict[str, str]:
    """Return the types of a Parquet file's columns with the lengths that its schema fixes, which the engine drops.

    A tensor of a fixed shape, which is stored as one flat list, has that shape. Raises OSError.
    """
    if not any(map(lists_in, types.values())):
        return dict(types)
    import pyarrow as pa  # heavy: only where a file has lists
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(file)
    except pa.ArrowException:  # the engine has read it, and says what it can
        return dict(types)
    found = {}
    for name, stored in types.items():
        lists = lists_in(stored)
        if lists is not None and schema.get_field_index(name) >= 0:
            lengths = _lengths(schema.field(name).type)
            stored = str(Lists(lists.item, lengths)) if lengths else stored
        found[name] = stored
    return found


def _lengths(kind: Any) -> tuple[int | None, ...]:
    """Return the length of each level of an Arrow type of lists."""
    import pyarrow as pa

    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    lengths: list[int | None] = []
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind = kind.value_type
    return tuple(lengths)
