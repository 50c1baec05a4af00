"""A federation whose models are trained round by round.

with TrainingFederation.open("consilo.toml") as federation:
    training = federation.train(read_job(Path("job.toml")))
    for done in training:
        print(done.in_words)
    print(training.finished.holders)
"""

from collections.abc import Iterator
from pathlib import Path

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.training.job import Job
from analyst.training.rounds import RoundDone
from analyst.training.run import Training, training_of
from policies.units import SEND_S


class Rounds:
    """The rounds of a run, each when it is done and kept; at the end what the run was.

    Whoever stops iterating interrupts the run: with `keep`, the same job goes on with it.
    """

    def __init__(
        self, federation: Federation, job: Job, keep: Path | None, deadline: int | None, send_deadline: int
    ) -> None:
        self._taking = training_of(federation, job, keep, deadline, send_deadline=send_deadline)
        self._finished: Training | None = None

    def __iter__(self) -> Iterator[RoundDone]:
        return self

    def __next__(self) -> RoundDone:
        """Take a round; raises what `analyst.training.run.train` raises."""
        try:
            return next(self._taking)
        except StopIteration as end:
            self._finished = self._finished or end.value
            raise

    @property
    def finished(self) -> Training:
        """The finished run; raises AnalystError before its last round."""
        if self._finished is None:
            raise AnalystError("the run is under way", "take all of its rounds: for done in training")
        return self._finished


class TrainingFederation(Federation):
    """A federation as an analyst sees it, who trains models too."""

    def train(
        self, job: Job, keep: Path | None = None, deadline: int | None = None, send_deadline: int = SEND_S
    ) -> Rounds:
        """Return the rounds of a job's run, or what is left of the one in `keep`; nothing is asked before the first."""
        return Rounds(self, job, keep, deadline, send_deadline)
