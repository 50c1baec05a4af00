"""The delta that inexact noise costs, and how much of a policy's delta it may use. docs/noise.md section 4.

Noise is inexact if it is drawn from tables, or if it has room up to a stated bound (`Extent.most`) and no further.
Promise: analyst and silo compute the same cost from the public shape of the signed request: the slots of such blocks,
times the silos that it asks. A policy's delta has two parts: samplers may use at most 2^-10 of it, over the
whole life of the ledger, and rho is converted at the rest.
"""

import math
from fractions import Fraction

from crypto.noise import is_from_table
from crypto.table_noise import TABLE_TV_BITS
from policies.budget.accountant import delta_of
from policies.budget.ledger import ATTO
from policies.requests.computations import Computation
from policies.requests.request import Request
from policies.requests.tables import Table
from policies.units import MICRO, Number

SHARE_BITS = 10  # samplers may use 2^-10 of delta
MAX_EPSILON = 22  # of the lifetime of a policy that allows noise from tables
LOSS_BITS = 32  # a distance of d costs (1 + e^MAX_EPSILON) d of delta, which is less than 2^32 d


def inexact_slots(table: Table, computation: Computation) -> int:
    """Return how many slots have inexact noise; 0 for a short answer that states no bound, and without noise."""
    noised = [extent for extent in computation.statistics(table).values() if extent.share]
    return sum(one.length for one in noised if is_from_table(one.length) or one.most is not None)


def sampler_delta(request: Request) -> int:
    """Return what the samplers of all silos cost, in atto-delta rounded up; 0 for a short answer."""
    samples = inexact_slots(request.table, request.plan) * len(request.silos)
    return -(-samples * ATTO >> TABLE_TV_BITS - LOSS_BITS)


def sampler_limit(delta: Number, lifetime_micro: int) -> int:
    """Return what samplers may cost over the life of a ledger, in atto-delta rounded down.

    It is 0 if the lifetime's rho is more than `MAX_EPSILON`, as the cost of a sample is computed for that.
    """
    if lifetime_micro and delta_of(lifetime_micro / MICRO, MAX_EPSILON) > rho_delta(float(delta)):
        return 0
    return math.floor(Fraction(delta) * ATTO / (1 << SHARE_BITS))


def rho_delta(delta: float) -> float:
    """Return the part of a delta at which rho is converted if samplers can use the other part."""
    return delta - delta / (1 << SHARE_BITS)


def delta_for(delta: float, table: Table, computation: Computation) -> float:
    """Return the part of a delta at which the rho of one answer is converted: all of it for a short answer."""
    return rho_delta(delta) if inexact_slots(table, computation) else delta
