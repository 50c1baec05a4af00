"""The analyst's registry of runs: the directory `models` beside consilo.toml, one file a run.

RUN.json has the run's first request, its progress, who took part under which policies, its cost, its end, and the model
where it was released. Promise: a file is there whole or not at all (mode 0600, in the clear); nothing here is needed to
go on with a run, so an entry may be removed at any time.
"""

from pathlib import Path
from typing import Annotated, ClassVar, TypedDict, Unpack

from pydantic import Field

from analyst.errors import AnalystError
from crypto.errors import CryptoError
from crypto.rounds.messages import RunEnd
from crypto.rounds.opening import CheckedReport
from crypto.wire import Count, Digest, Message, Name, RoundId, Seconds
from federation.files import replace_file
from policies.models.card import Figure, Price
from policies.models.record import RunRecord, recorded, run_named, standing_of, without_model
from policies.models.released import ReleasedModel
from policies.requests.request import Request
from policies.requests.training import TrainingStep

DIRECTORY = "models"


class Finished(TypedDict):
    """What is known of a run at its end."""

    done: int
    lost: int
    holders: tuple[str, ...]
    ended: RunEnd | None
    rho: float | None
    epsilon: float | None
    delta: float
    audit: tuple[Figure, ...]


class RunEntry(Message):
    """One run of this analyst."""

    KIND: ClassVar[str] = "run-entry"
    MAX_BYTES: ClassVar[int] = 8 << 20
    MAX_COMMAS: ClassVar[int] = 2**20
    run: RoundId
    request: bytes  # the first of the run
    began_at: Seconds
    changed_at: Seconds
    done: Count = 0
    lost: Count = 0  # charges that gave no report
    record: RunRecord | None = None
    holders: tuple[Name, ...] = ()  # the silos with the model of the last step
    is_finished: bool = False
    ended: RunEnd | None = None  # why it was at its end before its last step
    rho: float | None = None  # None without noise, as nothing is promised then
    epsilon: float | None = None
    delta: float = 0.0
    model: ReleasedModel | None = None
    why_no_model: Annotated[str, Field(max_length=1000)] = ""  # where it was to be released, and was not
    goes_on_as: RoundId | None = None  # the run that goes on in its place with fewer silos
    metrics: tuple[Figure, ...] = ()
    audit: tuple[Figure, ...] = ()  # gaps between groups, where policies release them
    # SHA-256 of the report of the last round, by which the model is judged; none of an earlier version.
    position: Annotated[Digest | None, Field(default=None, exclude_if=lambda digest: digest is None)] = None

    @property
    def name(self) -> str:
        return self.run.hex()

    @property
    def state(self) -> str:
        """Where the run stands, in words."""
        return standing_of(self.goes_on_as, self.ended if self.is_finished else None, is_over=self.is_finished)

    @property
    def price(self) -> Price | None:
        """What it cost one person, once it is finished; None without noise."""
        if self.rho is None or self.epsilon is None:
            return None
        return Price(self.rho, self.epsilon, self.delta)

    def check_model(self) -> None:
        """Raise AnalystError where the run ended without a model."""
        remedy = without_model(self.ended) if self.is_finished else None
        if remedy is not None:
            raise AnalystError(f"the run {self.name[:12]} ended without a model ({self.ended})", remedy)

    def first(self) -> Request:
        """Return the run's first request; raises CryptoError."""
        return Request.decode(self.request)


class Registry:
    """The runs in one directory."""

    def __init__(self, home: Path) -> None:
        """`home` is the directory of consilo.toml."""
        self.path = home / DIRECTORY

    def entries(self) -> list[RunEntry]:
        """Return every run, the last begun one last; raises AnalystError on a file that cannot be read."""
        files = sorted(self.path.glob("*.json")) if self.path.is_dir() else []
        return sorted((self._read(file) for file in files), key=lambda one: (one.began_at, one.run))

    def entry(self, name: str) -> RunEntry:
        """Return the one run whose name begins so; raises ModelError if there is none, or several."""
        return run_named(self.entries(), name, f" in {self.path}", "consilo model list")

    def last(self) -> RunEntry:
        """Return the run that began last; raises AnalystError if there is none."""
        found = self.entries()
        if not found:
            raise AnalystError(f"no run in {self.path}", "train a model with `consilo train`")
        return found[-1]

    def begin(self, request: Request, step: TrainingStep, now: int) -> RunEntry:
        """Return the entry of a request's run, made now if there is none.

        A run that goes on in the place of another has its rounds.
        """
        file = self._file(step.run)
        if file.exists():
            return self._read(file)
        before = None if step.continues is None else self._file(step.continues)
        entry = RunEntry(run=step.run, request=request.encode(), began_at=now, changed_at=now)
        if before is not None and before.exists():
            earlier = self._read(before)
            told = {"done": earlier.done, "lost": earlier.lost, "record": earlier.record}
            entry = entry.model_copy(update=told | {"position": earlier.position})
            self.keep(earlier.model_copy(update={"goes_on_as": step.run}))
        self.keep(entry)
        return entry

    def learned(self, request: Request, step: TrainingStep, report: CheckedReport, now: int) -> None:
        """Note a round whose report was checked; one that is noted already changes nothing."""
        entry = self.begin(request, step, now)
        if step.step < entry.done:
            return
        record = recorded(entry.record, request, step, report)
        told = {"done": step.step + 1, "record": record, "changed_at": now, "position": report.name}
        self.keep(entry.model_copy(update=told))

    def finish(self, run: bytes, now: int, model: ReleasedModel | str | None, **fields: Unpack[Finished]) -> None:
        """Note the end of a run; `model` is what was released of it, or why it was not, None where nobody asked."""
        entry = self._read(self._file(run))
        why = model if isinstance(model, str) else ""
        had = entry.model if model is None or why else model
        told: dict[str, object] = {"is_finished": True, "changed_at": now, "model": had, "why_no_model": why[:1000]}
        self.keep(RunEntry.model_validate(dict(entry) | told | fields))

    def keep(self, entry: RunEntry) -> None:
        """Write an entry; raises AnalystError if there is no room."""
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            replace_file(self._file(entry.run), entry.encode(), 0o600)
        except OSError as err:
            message = f"{self._file(entry.run)} cannot be written ({err.strerror})"
            raise AnalystError(message, "make room there, and give the command again") from err

    def asked(self, entry: RunEntry) -> Path:
        """Return the file of a request with a price that judges a run's model, until it is answered."""
        return self.path / f"{entry.name}.asked"

    def _file(self, run: bytes) -> Path:
        return self.path / f"{run.hex()}.json"

    def _read(self, file: Path) -> RunEntry:
        try:
            return RunEntry.decode(file.read_bytes())
        except (OSError, CryptoError) as err:
            raise AnalystError(f"{file} cannot be read", "remove it: the runs of other files stay") from err
