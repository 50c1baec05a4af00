"""A part of a run: one of several requests that people approve together, each with a charge of its own.

The steps of a training run and the rounds of a key search are such parts. All parts of a run have the same job: the
request of the first part, without what tells one part from another (`policies.requests.request.job_of`).
"""

from typing import Protocol, Self


class RunPart(Protocol):
    """What a run shares, and the place of one request in it; a frozen message of the wire."""

    @property
    def run(self) -> bytes:
        """The id of the run, which its first request binds to its job."""

    @property
    def step(self) -> int:
        """The number of this part, from 0."""

    @property
    def steps(self) -> int:
        """The most parts of the run."""

    @property
    def continues(self) -> bytes | None:
        """The run in whose place this one goes on; None for any other."""

    def first(self) -> Self:
        """Return the first part of the run; it has what all parts share."""
