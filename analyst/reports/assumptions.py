"""What an answer assumes of persons, silos and rows: the lines below its figures."""

from collections.abc import Iterator, Sequence

from analyst.reports.cut import norm_in_words
from crypto.rounds.opening import OpenedSum
from policies.requests.capacity import of_request
from policies.requests.request import Request
from policies.units import counted


def assumed(
    request: Request, opened: OpenedSum, openings: int, entity: str, strictest: Sequence[str]
) -> tuple[str, ...]:
    """Return the assumptions of an answer.

    `openings` is the number of silos that opened, `entity` what one protected person is called, `strictest` tells whose
    conditions hold for all silos (`Offer.strictest`).
    """
    plan, table = request.plan, request.table
    norm = norm_in_words(None if plan.is_about_persons else table.max_norm)
    return (
        f"one {entity} has {plan.rows_in_words(table)} in an answer{norm}"
        f" and is known to at most {counted(table.max_silos, 'silo')}",
        *_persons(request, entity),
        f"at most {opened.manifest.max_colluding} silos of the federation collude with the aggregator",
        "a silo whose computing fails contributes nothing but its noise, and does not say so",
        *strictest,
        *_carried(request),
        *_spares(request, opened, openings),
    )


def _persons(request: Request, entity: str) -> Iterator[str]:
    """Yield that a question about persons does not know which of them are known to several silos."""
    if request.plan.is_about_persons:
        silos = request.table.max_silos
        yield (
            f"one {entity} counts once at each silo that knows them, and the price is that of {silos}"
            f" silo{'s' if silos > 1 else ''}: nobody is matched across silos"
        )


def _carried(request: Request) -> Iterator[str]:
    """Yield how many rows of one silo a backend with less than 64 bits carries without cutting a figure."""
    if request.backend != "masking":
        yield f"by {request.backend}, no figure of a silo with up to {counted(of_request(request), 'row')} is cut"


def _spares(request: Request, opened: OpenedSum, openings: int) -> Iterator[str]:
    """Yield, in the backend `shares`, how many wrong sums the silos' sums can reveal."""
    if request.backend == "shares":
        spare = openings - opened.manifest.quorum
        checks = f"{spare} more than are needed: up to {spare} false ones are noticed, up to {spare // 2} named"
        yield f"{counted(openings, 'silo')} opened their sums, {checks}"
