"""The section [training.networks]: which networks a silo trains, and what one round of one may take there."""

from typing import Annotated, Literal

from pydantic import Field

from policies.document.section import Section
from policies.units import MAX_WAIT_S

MOST_WEIGHTS = 2**24
MOST_FLOPS = 10**18
LEAST_MEMORY_MB = 512  # of which torch alone takes about half
Allow = Literal["registered", "approved", "any-graph"]


class Networks(Section):
    """Networks that the silo trains; none without this section.

    `registered` are the families that this program ships, `approved` also packed files that a person of [people] has
    signed, `any-graph` also whatever packed file an analyst of the policy sends.
    """

    allow: Allow = "registered"
    max_weights: Annotated[int, Field(ge=1, le=MOST_WEIGHTS)] = 1_000_000  # of the whole network, frozen ones too
    max_flops: Annotated[int, Field(ge=1, le=MOST_FLOPS)] = 10**15  # of one round: `policies.networks.demand`
    max_memory_mb: Annotated[int, Field(ge=LEAST_MEMORY_MB, le=2**24)] = 2048  # of the process that computes it
    max_seconds: Annotated[int, Field(ge=1, le=MAX_WAIT_S)] = 60  # of one round there
