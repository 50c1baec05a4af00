"""An opened sum of given figures, as `analyst.reports.estimates` reads one, without a round."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from crypto.wire import digest_of
from policies.requests.request import Request
from policies.requests.terms import terms_of

QUIET = 10**24  # noise shares, of one survivor: so little noise that nothing is hidden


def opened_as(request: Request, sums: Sequence[Any], noise_shares: int = QUIET, survivors: int = 1) -> Any:
    """Return what an opened sum is, with these figures for each block, and the noise of some shares of the price's."""
    blocks = [np.asarray(one, np.float64) for one in sums]
    return SimpleNamespace(
        manifest=SimpleNamespace(terms=terms_of(request, digest_of(request)), noise_shares=noise_shares),
        survivor_set=SimpleNamespace(survivors=[None] * survivors),
        blocks=lambda: blocks,
    )
