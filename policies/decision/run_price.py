"""The price of a whole run: what it costs at most, and what a silo reserves for it when it accepts a part.

Pure: a request, and what the ledger says of its run, in; prices out. A preview shows the same figures as a decision.
"""

from dataclasses import dataclass

from policies.budget.accountant import charge
from policies.budget.sampler import sampler_delta
from policies.requests.request import Request
from policies.requests.runs import RunPart


@dataclass(frozen=True, slots=True)
class RunPrice:
    """What a request reserves for one person at a silo: its own charge, and that of the parts of its run to come."""

    parts: int  # this one, and those that come after it
    micro_rho: int  # this part's charge, and at most what the others are charged
    atto_delta: int

    @property
    def is_ahead(self) -> bool:
        """Whether more than the request itself is reserved."""
        return self.parts > 1


def announced(part: RunPart, request: Request, max_silos: int) -> int:
    """Return the most that a run costs without repeats, for one person at a silo: what its signed price says.

    In micro-rho. Each charge is rounded for itself, and is at most `announced_part`.
    """
    return part.steps * announced_part(request, max_silos)


def announced_part(request: Request, max_silos: int) -> int:
    """Return the most that one part of a run costs, by its signed price, at a silo whose persons `max_silos` know."""
    return -(-request.micro_rho * max_silos**2 // request.table.max_silos**2)


def reserved_part(request: Request, max_silos: int) -> int:
    """Return what is reserved ahead for each further part of a request's run, in micro-rho; 0 if nothing is.

    Only a training run with noise is reserved as a whole: a question is one part, and a key search ends where it will.
    """
    return 0 if request.plan.training is None else announced_part(request, max_silos)


def run_price(request: Request, max_silos: int, next_step: int = 0) -> RunPrice:
    """Return what a silo reserves when it accepts a request, beside what its run has reserved before.

    `max_silos` is the policy's. `next_step` is the first part of the run that has not been taken out of a reservation
    (`Spending.next_step`): 0 for a run that has none. For the first step of a training run it is the price of the run.
    """
    part, cost, delta = request.plan.part, charge(request, max_silos), sampler_delta(request)
    each = reserved_part(request, max_silos)
    ahead = 0 if part is None or not each else max(0, part.steps - max(next_step, part.step + 1))
    return RunPrice(1 + ahead, cost + ahead * each, (1 + ahead) * delta)
