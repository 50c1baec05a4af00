"""What coded rows contribute to a round of a key search: how many persons there are by extension of its prefixes.

Pure, and the same to the bit however the persons are divided among several calls. A person counts at most once in a
slot, and in at most so many slots as the search says, drawn by lot; so whatever keys somebody has, the L2 norm of their
part is at most the square root of that number. Which slots there are follows from the request, never from rows.
"""

import numpy as np
import numpy.typing as npt

from policies.requests.request import Request
from silo_node.data.coded import Bools, Rows
from silo_node.data.lots import Lots
from silo_node.data.per_person import counted as counted_by_group


def counted(
    rows: Rows, request: Request, is_in: Bools | None, lots: Lots, max_groups: int | None
) -> list[npt.NDArray[np.int64]]:
    """Return the number of persons by slot of a round, as its one vector; `is_in` says which persons are in.

    Of the slots of a person at most as many count as the search says, and at most `max_groups`.
    """
    search = request.plan.search
    if search is None:
        raise TypeError(f"a round of a key search is computed here, not {request.plan.kind}")
    cells = rows.texts(search.column)
    usable = cells.codes >= 0
    for mask in (rows.is_usable, None if is_in is None else is_in[rows.person]):
        usable = usable if mask is None else usable & mask
    used, place = np.unique(cells.codes[usable], return_inverse=True)
    slots = np.fromiter(search.slots_of(cells.texts[code] for code in used), np.int64, len(used))
    kept, slot = np.flatnonzero(usable), slots[place]
    kept, slot = kept[slot >= 0], slot[slot >= 0]
    most = search.shape.most if max_groups is None else min(search.shape.most, max_groups)
    lot_of = lambda persons, groups: lots.of_pairs(persons + rows.first_person, groups)  # noqa: E731
    return [counted_by_group(rows, kept, (slot, search.slots), most, lot_of)]
