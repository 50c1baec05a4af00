"""The progress of a training run in its file `JOB.run.json`, by which the same command continues an interrupted run.

Promise: the file has the run's request before anything is sent, and each later state before the next request is sent.
It holds no secret. docs/protocol.md section 11.
"""

from pathlib import Path
from typing import ClassVar

from analyst.errors import AnalystError
from crypto.errors import CryptoError
from crypto.wire import Count, Digest, Message
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


def resumed(keep: Path | None, job: bytes) -> Progress | None:
    """Return the progress that a file has of a job; None where there is none. Raises AnalystError."""
    if keep is None or not keep.exists():
        return None
    try:
        state = Progress.decode(keep.read_bytes())
        Request.decode(state.first)
    except (OSError, CryptoError) as err:
        raise AnalystError(f"{keep} cannot be read", "remove it to begin a new run") from err
    if state.job != job:
        raise AnalystError(f"{keep} is of another job", "put the job back as it was, or remove the file to begin anew")
    return state


def write(keep: Path | None, state: Progress) -> None:
    """Store the progress of a run durably; raises AnalystError."""
    if keep is None:
        return
    try:
        replace_file(keep, state.encode(), 0o600)
    except OSError as err:
        raise AnalystError(
            f"{keep} cannot be written ({err.strerror})", "make room there, and give the command again"
        ) from err
