"""What an analyst has asked and paid for: the directory `answers` beside consilo.toml.

* HASH.question: a signed request, written before it is sent, with all that its answer is opened and shown by
* HASH.answer: the opened answer, sealed to the analyst's own key, written before anything is shown
* HASH.failure: why there is no report, as the aggregator signed it, with what silos signed

HASH is the SHA-256 of the request, by which the aggregator finds the report. Promises: a file is there whole or not at
all (mode 0600); a process that asks holds its question, so that no other one sends it meanwhile; an answer is erased
only by its analyst, and its question says when. Of questions that ended without an answer the last MAX_ENDED are kept.
"""

import errno
import fcntl
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from analyst.conditions import Conditions
from analyst.errors import AnalystError
from analyst.reports.report import Report, decoded, encoded
from analyst.reports.statements import script_again
from analyst.sql.draft import Script
from crypto.errors import CryptoError, WireError
from crypto.sealing import SealingKey, seal
from crypto.wire import Count, Digest, Message, Name, Seconds, body_digest
from federation.files import replace_file
from policies.requests.request import Request
from policies.requests.statements import MAX_STATEMENTS
from policies.units import when

DIRECTORY = "answers"
MAX_ENDED = 2_000
MAX_ANSWER_BYTES = 2 << 30  # of one answer
MAX_FAILURE_BYTES = 4 << 20
_INFO = b"consilo/1 kept answer"
_ASKING = "{} is being asked by another command"


class Reading(Message):
    """How the figures of one statement are shown."""

    output: tuple[str, ...]
    names: dict[str, str]
    after: Annotated[str, Field(default="", max_length=100_000, exclude_if=lambda sql: not sql)] = ""


class Question(Message):
    """A question as it is kept: the signed request, and what its answer is opened and shown by."""

    KIND: ClassVar[str] = "question"
    MAX_BYTES: ClassVar[int] = 4 << 20
    request: bytes  # as the analyst signed it
    text: Annotated[str, Field(max_length=20_000)]  # in SQL
    command: Digest  # of all that the analyst chose: the same command has the same
    analyst: Name
    purpose: Name
    micro_rho: Count
    created_at: Seconds
    expires_at: Seconds
    output: tuple[str, ...]
    names: dict[str, str]
    after: Annotated[str, Field(default="", max_length=100_000, exclude_if=lambda sql: not sql)] = ""
    # Of several statements: how those after the first are shown, and of how many each table is, where not of one.
    others: Annotated[
        tuple[Reading, ...], Field(default=(), max_length=MAX_STATEMENTS, exclude_if=lambda others: not others)
    ] = ()
    tables: Annotated[
        tuple[Count, ...], Field(default=(), max_length=MAX_STATEMENTS, exclude_if=lambda tables: not tables)
    ] = ()
    sure: bool | None
    conditions: Conditions
    ended: str = ""  # why there is no answer here, or none any more

    def script(self, request: Request) -> Script:
        """Return the plan of its request again, as its answer is shown; raises KeyError if it is no question."""
        others = [(one.output, one.names, one.after) for one in self.others]
        return script_again(request, [(self.output, self.names, self.after), *others], self.tables)


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept question; `name` is the SHA-256 of its request, in hexadecimal."""

    path: Path
    question: Question

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def short(self) -> str:
        return self.name[:12]

    @property
    def asked_at(self) -> str:
        return when(self.question.created_at)

    @property
    def state(self) -> Literal["sent", "opened", "ended"]:
        """Whether an answer may still come, is here, or can be had no more."""
        return "opened" if self.answer.exists() else "ended" if self.question.ended else "sent"

    @property
    def answer(self) -> Path:
        """Where the opened answer is, once it is kept."""
        return self.path.with_suffix(".answer")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the question while its answer is waited for; raises AnalystError if another command does."""
        hint = "wait for its answer; --new asks the question once more, at a new price"
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as err:
            raise AnalystError(f"the question {self.short} cannot be read ({err.strerror})", hint) from err
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise AnalystError(_ASKING.format(f"the same question ({self.short})"), hint) from err
            yield
        finally:
            os.close(handle)

    @property
    def failure(self) -> Path:
        """Where the aggregator's signed failure is, if it sent one last."""
        return self.path.with_suffix(".failure")

    def end(self, why: str, failure: bytes = b"") -> None:
        """Note that there is no answer, or none any more; then the answer is deleted, if there was one.

        `failure` is the aggregator's signed word on it, which is kept if it is not huge.
        """
        with suppress(OSError):  # without the note, the next command finds out again
            if 0 < len(failure) <= MAX_FAILURE_BYTES:
                replace_file(self.failure, failure, 0o600)
            replace_file(self.path, self.question.model_copy(update={"ended": why[:1000]}).encode(), 0o600)
            self.answer.unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the question: nothing was paid for it."""
        with suppress(OSError):
            self.answer.unlink(missing_ok=True)
            self.failure.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def size(self) -> int:
        """Return the bytes of the kept answer."""
        with suppress(OSError):
            return self.answer.stat().st_size
        return 0


class KeptAnswers:
    """The questions of one analyst, and their answers."""

    def __init__(
        self, home: Path, analyst: str, key: SealingKey | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Without `key`, only the questions can be read."""
        self._path, self._analyst, self._key, self._clock = home / DIRECTORY, analyst, key, clock

    def all(self) -> list[Kept]:
        """Return the kept questions, the newest first; files that are no question are passed over."""
        return self._found(self._path.glob("*.question"))

    def _found(self, paths: Iterable[Path], with_bytes: bytes = b"") -> list[Kept]:
        """Return the questions in these files, the newest first; only files with these bytes are decoded."""
        found = filter(None, (self._kept(path, with_bytes) for path in paths))
        return sorted(found, key=lambda one: (-one.question.created_at, one.name))

    def named(self, name: str) -> Kept:
        """Return the question whose name begins so; raises AnalystError unless there is exactly one."""
        found = [one for one in self.all() if one.name.startswith(name.lower())] if name else []
        hint = "`consilo report list` has the names"
        if not found:
            raise AnalystError(f"no question of {self._analyst} is kept here as {name[:80]!r}", hint)
        if len(found) > 1:
            raise AnalystError(f"{len(found)} questions have names that begin with {name!r}", f"{hint}; write more")
        return found[0]

    def of_request(self, request_hash: bytes) -> Kept | None:
        """Return the question with this request, if it is kept."""
        return self._kept(self._path / f"{request_hash.hex()}.question")

    def of_command(self, command: bytes) -> Kept | None:
        """Return the question that this command asked last, if it is kept; one without an answer goes first."""
        stated = urlsafe_b64encode(command)  # as it is in the file: thousands of others need not be decoded
        waiting, answered = self._by_answer()
        found = self._found(waiting, stated)
        answered.sort(key=_written_at, reverse=True)
        found += next(([one] for path in answered if (one := self._kept(path, stated)) is not None), [])
        found = [one for one in found if one.question.command == command]
        found.sort(key=lambda one: (one.state != "sent", -one.question.created_at))
        return found[0] if found else None

    def begin(self, question: Question) -> Kept:
        """Keep a question before it is sent; raises AnalystError or WireError if that is not possible."""
        path = self._path / f"{body_digest(question.request, Request).hex()}.question"
        data = question.encode()
        Question.decode(data)  # what could not be read again is not sent
        try:
            self._path.mkdir(mode=0o700, exist_ok=True)
            self._forget_ended()
            replace_file(path, data, 0o600)
        except OSError as err:
            message = f"the question cannot be kept in {self._path} ({err.strerror}), so it was not sent"
            raise AnalystError(
                message, "nothing is paid; make room, as by `consilo report erase`, or let this program write there"
            ) from err
        return Kept(path, question)

    def keep(self, kept: Kept, report: Report) -> None:
        """Keep the opened answer to a question; raises OSError if the disk is full."""
        replace_file(kept.answer, seal(self._opener(kept).public, encoded(report), _info(kept)), 0o600)

    def answer(self, kept: Kept) -> Report:
        """Return the kept answer to a question; raises AnalystError if there is none, or it does not open."""
        hint = f"`consilo report open {kept.short}` fetches it, if an aggregator has it"
        try:
            return decoded(self._opener(kept).open(_read(kept.answer, MAX_ANSWER_BYTES), _info(kept)))
        except FileNotFoundError as err:
            raise AnalystError(f"{kept.short}: {kept.question.ended or 'its answer was not opened yet'}", hint) from err
        except (OSError, CryptoError) as err:
            raise AnalystError(f"{kept.answer} is no answer that opens with this key", hint) from err

    def _opener(self, kept: Kept) -> SealingKey:
        if self._key is None:
            raise AnalystError(f"{kept.answer} is sealed", "its analyst's key opens it")
        return self._key

    def _kept(self, path: Path, with_bytes: bytes = b"") -> Kept | None:
        with suppress(OSError, WireError):
            data = _read(path, Question.MAX_BYTES)
            if with_bytes not in data:
                return None
            question = Question.decode(data)
            if question.analyst == self._analyst and path.stem == body_digest(question.request, Request).hex():
                return Kept(path, question)
        return None

    def opened_before(self, at: int) -> list[Kept]:
        """Return the questions that were asked before a time and whose answers are kept here, the newest first."""
        return [one for one in self.all() if one.state == "opened" and one.question.created_at < at]

    def erase(self, kept: Kept) -> int:
        """Erase the kept answer to a question; return its bytes. Raises AnalystError if there is none."""
        if kept.state != "opened":
            hint = "an answer that was not opened yet is at the aggregator; `consilo report open` fetches it"
            raise AnalystError(f"no answer to {kept.short} is kept here", hint)
        with kept.held():
            size = kept.size()
            kept.end(f"its answer was erased here on {when(int(self._clock()))[:10]}")
        if kept.answer.exists():
            raise AnalystError(f"{kept.answer} cannot be erased", "is its disk full, or only to be read?")
        return size

    def _forget_ended(self) -> None:
        """Remove the oldest of too many questions that ended without an answer."""
        waiting, _ = self._by_answer()
        if len(waiting) > MAX_ENDED:
            for one in [one for one in self._found(waiting) if one.state == "ended"][MAX_ENDED:]:
                one.forget()

    def _by_answer(self) -> tuple[list[Path], list[Path]]:
        """Return the files of the questions without an answer here, and of those with one."""
        names = os.listdir(self._path) if self._path.exists() else []
        answered = {name.removesuffix(".answer") for name in names if name.endswith(".answer")}
        both: tuple[list[Path], list[Path]] = ([], [])
        for name in names:
            if name.endswith(".question"):
                both[name.removesuffix(".question") in answered].append(self._path / name)
        return both


def _info(kept: Kept) -> bytes:
    return _INFO + bytes.fromhex(kept.name)


def _written_at(path: Path) -> int:
    """Return when a file was written, in nanoseconds; 0 if another command has removed it meanwhile."""
    with suppress(OSError):
        return os.stat(path).st_mtime_ns
    return 0


def _read(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return path.read_bytes()
