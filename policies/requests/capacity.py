"""Which backends can carry a request's sums without changing a value, by what is public alone.

A figure of one silo is at most what one row can add, times the silo's rows. Of these its policy states a public bound,
`rows_up_to`, or it is `ROWS_UP_TO`. Promise: up to that many rows no backend cuts a figure, as the client refuses
before it asks, and the silo before it charges; only of more rows a silo cuts figures, and its owner is told.
"""

from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import Shape
from crypto.errors import CryptoError, RangeError
from crypto.rounds.committees import quorum_of
from policies.requests.computations import Computation, slot_count
from policies.requests.limit import clamps_of
from policies.requests.request import Request, check_slots, most_slots
from policies.requests.tables import Table
from policies.units import ROWS_UP_TO

MANY = 2**63  # rows: of a sum without a bound by rows


def carried_rows(table: Table, computation: Computation, micro_rho: int, backend: str, silos: int) -> int:
    """Return the number of rows of one silo up to which a backend carries every figure of it whole."""
    extents, rows = computation.statistics(table), MANY
    for statistic, clamp in clamps_of(table, computation, micro_rho, backend, silos).items():
        if per_row := extents[statistic].per_row:
            rows = min(rows, clamp // per_row)
    return rows


def rows_of(rows_up_to: int | None) -> int:
    """Return the public bound of a silo's rows, by what its policy states."""
    return ROWS_UP_TO if rows_up_to is None else rows_up_to


def carriers(table: Table, computation: Computation, micro_rho: int, silos: int, rows: int) -> tuple[str, ...]:
    """Return the backends that carry a request to so many silos whole, where each has at most `rows` rows."""
    slots, found = slot_count(computation, table), []
    for name, backend in BACKENDS.items():
        try:
            computation.check(table, name)
            check_slots(slots, name, most_slots(computation))
            backend.bind(Shape(slots, silos, quorum_of(silos), backend.capacity(silos)))
        except (ValueError, RangeError):
            continue
        except CryptoError:
            pass  # a key is all that it lacks
        if carried_rows(table, computation, micro_rho, name, silos) >= rows:
            found.append(name)
    return tuple(found)


def of_request(request: Request) -> int:
    """Return the number of rows of one silo up to which a request's backend carries every figure whole."""
    return carried_rows(request.table, request.plan, request.micro_rho, request.backend, len(request.silos))
