"""The progress of a training run in its file `JOB.run.json`, by which the same command continues an interrupted run.

Promise: the file has the run's request before anything is sent, and each later state before the next request is sent.
It holds no secret. docs/protocol.md section 11.
"""

import errno
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from analyst.errors import AnalystError
from analyst.training.patience import MetricSoFar
from crypto.errors import CryptoError
from crypto.rounds.messages import RunEnd
from crypto.wire import Count, Digest, Message, Name
from federation.files import replace_file
from policies.requests.request import Request


class Progress(Message):
    """The progress of a run, stored in `JOB.run.json`."""

    MAX_BYTES: ClassVar[int] = 4 << 20  # of two requests
    job: Digest  # SHA-256 of the job file
    first: bytes  # the run's first request
    done: Count
    after: Digest
    under_way: bytes = b""  # the request of the next step, once it was about to be sent
    lost: Count = 0  # requests that gave no report, and whose charges stand
    holders: tuple[Name, ...] = ()  # the silos that have the model of the last step, as far as is known
    ended: RunEnd | None = None  # why the run is at its end before its last step
    delta: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 1e-12  # the smallest of the policies
    price_delta: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 1e-12  # what of it converts the price

    # What was seen of the job's metric; none of an earlier version.
    metric: Annotated[MetricSoFar | None, Field(default=None, exclude_if=lambda found: found is None)] = None

    @property
    def is_bare(self) -> bool:
        """Whether nothing would be lost with the file: no step was taken, charged or sent."""
        return not (self.done or self.lost or self.under_way)


def resumed(keep: Path | None, job: bytes) -> Progress | None:
    """Return the progress that a file has of a job; None where there is none. Raises AnalystError."""
    if keep is None or not keep.exists():
        return None
    try:
        state = Progress.decode(keep.read_bytes())
        Request.decode(state.first)
    except (OSError, CryptoError) as err:
        raise AnalystError(f"{keep} cannot be read", "remove it to begin a new run") from err
    if state.job != job and not state.is_bare:
        raise AnalystError(f"{keep} is of another job", "put the job back as it was, or remove the file to begin anew")
    if state.metric is None:  # what it had seen is not known, and the metric of its last round may be paid
        state = state.model_copy(update={"metric": MetricSoFar(done=state.done)})
    return state if state.job == job else None


def write(keep: Path | None, state: Progress) -> None:
    """Store the progress of a run durably; raises AnalystError."""
    if keep is None:
        return
    try:
        replace_file(keep, state.encode(), 0o600)
    except OSError as err:
        raise AnalystError(f"{keep} cannot be written ({err.strerror})", _remedy(keep, err)) from err


def _remedy(keep: Path, err: OSError) -> str:
    again = "and give the command again: no finished step is paid or computed twice"
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"make room in {keep.parent}, {again}"
    return f"make {keep.parent} a directory that you may write to, or put the job into one, {again}"


def forget(keep: Path | None) -> None:
    """Remove the file of a run that is over. If it cannot be removed, the same command shows the same end again."""
    if keep is not None:
        with suppress(OSError):
            keep.unlink(missing_ok=True)
