"""Which persons are on the side that a computation takes, where some are held out: docs/protocol.md section 11.

A split is a pseudorandom function of a person's id in its loosest form (`silo_node.data.cells.loosest`), under the
secret that the silos share: keyed BLAKE2b (RFC 7693, section 2.9). So two spellings that some silo takes for one person
are on one side, at every silo. A column says it of rows, and a person with one row that is held out is held out.
Whether one person is on a side depends on no other person's rows.
"""

from collections.abc import Iterable
from hashlib import blake2b

import duckdb
import numpy as np
import pyarrow as pa

from policies.requests.held_out import PARTS, Side
from policies.requests.request import Request
from silo_node.data.coded import Bools, Rows
from silo_node.data.spellings import loosest_of

_BYTES = 8  # of a person's number, which is even over 2^64 but for less than 2^-54
_TRUE = 1  # the place of a bool's true among its values


def held_out_of(secret: bytes, persons: Iterable[str], parts: int) -> Bools:
    """Return which persons, by their ids in the loosest form, are among the `parts` of 1,000 that are held out."""
    keyed = blake2b(key=secret, digest_size=_BYTES)

    def number(person: str) -> int:
        one = keyed.copy()
        one.update(person.encode())
        return int.from_bytes(one.digest(), "big")

    return np.fromiter((number(person) % PARTS < parts for person in persons), np.bool_)


def on_side_by_id(
    connection: duckdb.DuckDBPyConnection, persons: pa.Array, side: Side | None, secret: bytes | None
) -> Bools | None:
    """Return which persons, by their ids, are on a side; None: all, as a column divides rows, and so no ids."""
    if side is None or side.held_out.parts is None or secret is None:
        return None
    found = held_out_of(secret, loosest_of(connection, persons), side.held_out.parts)
    return found if side.is_held_out else ~found


def on_side(rows: Rows, request: Request, is_in: Bools | None) -> Bools | None:
    """Return which persons are in, by `is_in` and by the column that holds rows out; None: all.

    A person one of whose rows is held out is held out; a cell that is missing holds no row out.
    """
    side = request.plan.side
    if side is None or side.held_out.column is None:
        return is_in
    is_marked = rows.members(side.held_out.column).codes == _TRUE
    found = np.bincount(rows.person[is_marked], minlength=rows.persons) > 0
    found = found if side.is_held_out else ~found
    return found if is_in is None else found & is_in


def both(first: Bools | None, second: Bools | None) -> Bools | None:
    """Return who is in by two masks, each of which may take all."""
    masks = [mask for mask in (first, second) if mask is not None]
    return np.logical_and.reduce(masks) if masks else None
