"""The promises of a silo's ledger, whatever stores it; `silo_node/ledger/` keeps it in SQLite.

Every method is durable when it returns. A charge is reserved, then *charging*, then committed. A charging one counts as
spent, and only the process that began it can release it, if it never committed it. `commit` precedes the reading of
rows, so nothing of an uncommitted request has left.

Prices are added (Feldman and Zrnic, NeurIPS 2021: a filter that adds Renyi divergences and stops at a limit is valid
however the questions are chosen). A price is a line, rho at every order, or is kept as its curve over `ORDERS`.

The noise of a long answer charges a delta (`policies.budget.sampler`). No request charges a curve yet: the price of
sampled training, which comes later, is one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from crypto.rounds.messages import RunEnd
from crypto.wire import Count, Digest, Message, Name, RoundId, Seconds
from policies.budget.accountant import ORDERS, cover
from policies.errors import LedgerError
from policies.requests.approval import StoredVerdict
from policies.units import DAY_S

MAX_PROPOSALS = 32  # of one request: the rounds that it can enter
MAX_CURVE = 2**50
MAX_LINES = 16  # that a log which was put back remembers
ATTO = 10**18  # deltas are counted in 1e-18
UNKNOWN = "(unknown)"  # who spent, or for what, where only a total says so; no analyst and no purpose has this name
_LAST_MONTH = 12 * 10_000


@dataclass(frozen=True, slots=True)
class Months:
    """The calendar months of the data that a request reads, both ends included; counted from the year 0."""

    first: int = 0
    last: int = _LAST_MONTH

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= _LAST_MONTH:
            raise LedgerError(f"months from {self.first} to {self.last}")

    @classmethod
    def between(cls, first: date, last: date) -> "Months":
        """Return the months from that of one day to that of another."""
        return cls(12 * first.year + first.month - 1, 12 * last.year + last.month - 1)


ALL_MONTHS = Months()  # of a request that names no months


@dataclass(frozen=True, slots=True)
class RunStep:
    """A part of a run, of training or of a key search: its id, the hash of its job (`request.job_of`), and a number."""

    run: bytes
    job: bytes
    number: int
    continues: bytes = b""  # the run before, which is closed then
    steps: int = 0  # the most parts that the run has
    each: int = 0  # what each further part costs at most, in micro-rho, which is reserved ahead; 0: nothing is
    silos: tuple[str, ...] = ()  # whose run it is

    def ahead(self, next_step: int) -> int:
        """Return how many parts come after this one, if those from `next_step` on were not begun before."""
        return max(0, self.steps - max(next_step, self.number + 1)) if self.each else 0


RESERVED_S = 30 * DAY_S  # after its last step a run keeps what it has reserved so long: the longest life of a request


def reserved_until(at: int) -> int:
    """Return until when a run keeps its reservation after a step: the first midnight (UTC) after `RESERVED_S`."""
    return at - at % DAY_S + DAY_S + RESERVED_S


@dataclass(frozen=True, slots=True)
class RunReservation:
    """What a training run has reserved for the steps that have not begun, from `next_step` on."""

    run: bytes
    analyst: str
    purpose: str
    policy_hash: bytes
    silos: tuple[str, ...]  # that the run asks
    continues: bytes  # the run whose reservation it took over, or an earlier one that began; empty for any other
    steps: int
    next_step: int
    each: int  # micro-rho of each step
    each_delta: int  # atto-delta of each step
    until: int  # a clock time, at which it ends
    months: Months

    @property
    def parts(self) -> int:
        return self.steps - self.next_step

    @property
    def micro_rho(self) -> int:
        return self.parts * self.each

    @property
    def atto_delta(self) -> int:
        return self.parts * self.each_delta


@dataclass(frozen=True, slots=True)
class KeptState:
    """A silo's state of a training run as its ledger keeps it: a header that the silo signed, and raw numbers."""

    header: bytes
    numbers: bytes = field(default=b"", repr=False)


# Why a silo takes no further step of a run: it says so itself with others, its analyst gave it up, or it lay too long.
RunOver = RunEnd | Literal["expired"]


@dataclass(frozen=True, slots=True)
class Charge:
    """The whole cost of one request at one silo, named by the request's nonce."""

    nonce: bytes
    request_hash: bytes
    analyst: str
    purpose: str
    micro_rho: int
    policy_hash: bytes
    charged_at: int  # seconds since 1970, by the silo's clock
    run: RunStep | None = None  # of the training run that it is a step of
    months: Months = ALL_MONTHS
    atto_delta: int = 0
    curve: tuple[int, ...] = ()  # in `accountant.CURVE_UNITS` at each order; empty: the line of micro_rho
    replaces: tuple[tuple[bytes, bytes], ...] = ()  # nonce and hash of the requests in whose place it stands
    statements: int = 1  # as how many requests of a day it counts

    def __post_init__(self) -> None:
        if self.micro_rho < 0 or self.atto_delta < 0:
            raise LedgerError("a charge below 0")
        if self.curve and (len(self.curve) != len(ORDERS) or not all(0 <= value <= MAX_CURVE for value in self.curve)):
            raise LedgerError(f"a curve needs {len(ORDERS)} values from 0 to {MAX_CURVE}")
        if self.curve and self.micro_rho < cover(self.curve):
            raise LedgerError("the rho of a charge must cover its curve")

    @property
    def names(self) -> tuple[bytes, ...]:
        """Its own nonce, those of the requests that it replaces, and its run: one of them is in a place already."""
        return (self.nonce, *(nonce for nonce, _ in self.replaces), *((self.run.run,) if self.run is not None else ()))


Since = int | Months  # a clock time, or months of the data


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """The limits of one purpose in a window, in total and for one analyst, in micro-rho.

    The window starts at a clock time, or it is each month of the data that the request reads.
    """

    since: Since
    rho: int
    per_analyst: int | None


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests of one analyst the silo may accept since a clock time; each statement of one counts.

    All steps of a training run count as one request, but a repeated step counts again.
    """

    since: int
    most: int


@dataclass(frozen=True, slots=True)
class WindowSpending:
    """The spending of one purpose in a window, in total and by one analyst, in micro-rho; of months, the highest."""

    everybody: int
    analyst: int


@dataclass(frozen=True, slots=True)
class AnalystSpending:
    """The spending of one analyst since a clock time, for one purpose and for all, in micro-rho."""

    purpose: int = 0
    all_purposes: int = 0


@dataclass(frozen=True, slots=True)
class Spending:
    """The spending that counts against the limits, in micro-rho: committed plus reserved."""

    lifetime: int  # the line that covers the sum of all curves
    windows: tuple[WindowSpending, ...] = ()  # of one purpose and analyst, by requested window
    run: int = 0  # of one training run
    atto_delta: int = 0
    requests: int = 0  # of the analyst, accepted since the requested time, without this one; statements count singly
    curve: tuple[int, ...] = ()  # the sum of the curves that are not lines; empty if there are none
    by_analyst: AnalystSpending = AnalystSpending()
    next_step: int = 0  # of the run: the first for which it may have reserved; that reservation is not counted


def window_start(window: str, now: int) -> int:
    """Return when the calendar window that holds `now` began, in seconds since 1970; weeks begin on Monday, UTC."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match window:
        case "calendar-day":
            start = day
        case "calendar-week":
            start = day - timedelta(days=day.weekday())
        case "calendar-month":
            start = day.replace(day=1)
        case "calendar-quarter":
            start = day.replace(month=day.month - (day.month - 1) % 3, day=1)
        case "calendar-year":
            start = day.replace(month=1, day=1)
        case _:
            raise LedgerError(f"unknown window {window!r}")
    return int(start.timestamp())


def exceeds(
    spent: Spending,
    charge: Charge,
    lifetime: int,
    windows: Sequence[WindowLimit],
    run_limit: int | None = None,
    delta_limit: int = 0,
    rate: Rate | None = None,
) -> bool:
    """Tell whether one more charge would exceed a limit; a window without its spending counts as exceeded.

    The lifetime limit applies at every order: the sum of all charges must stay below the line of the limit. With the
    step of a run the price of all steps after it is judged too, but for the limit of the run.
    """
    parts = 0 if charge.run is None else charge.run.ahead(spent.next_step)
    more = 0 if charge.run is None else parts * charge.run.each
    if lifetime_with(spent, charge) + more > lifetime or len(spent.windows) != len(windows):
        return True
    if charge.atto_delta and spent.atto_delta + (1 + parts) * charge.atto_delta > delta_limit:
        return True
    if run_limit is not None and spent.run + charge.micro_rho > run_limit:
        return True
    if rate is not None and spent.requests + charge.statements > rate.most:
        return True
    return any(
        used.everybody + charge.micro_rho + more > limit.rho
        or (limit.per_analyst is not None and used.analyst + charge.micro_rho + more > limit.per_analyst)
        for used, limit in zip(spent.windows, windows, strict=True)
    )


def lifetime_with(spent: Spending, charge: Charge) -> int:
    """Return the micro-rho of the line that covers the spending and one more charge."""
    if not charge.curve:
        return spent.lifetime + charge.micro_rho
    before = spent.curve or (0,) * len(ORDERS)
    lines = spent.lifetime - cover(before)
    return lines + cover(tuple(one + other for one, other in zip(before, charge.curve, strict=True)))


@dataclass(frozen=True, slots=True)
class Consulted:
    """That decisions on consent are read for a contribution: the purpose, the clock time, and the age of their feed."""

    purpose: str
    as_of: int
    feed_at: int | None


class Seen(Message):
    """The newest checkpoint of one line of a log, as aggregators gave it to a copy that went on."""

    line: Annotated[bytes, Field(max_length=16)]  # empty: of before any backup was put back
    count: Count
    chain: Digest


class Continued(Message):
    """That a log was put back from a backup, and after which checkpoints it goes on."""

    line: RoundId  # drawn when it went on, so that two copies of one backup are told apart
    after: Annotated[tuple[Seen, ...], Field(max_length=MAX_LINES)]
    signed_after: Seconds  # which requests that were signed before have been charged, nobody knows any more

    def knows(self, line: bytes) -> bool:
        """Tell whether the log goes on after a checkpoint of this line."""
        return any(one.line == line for one in self.after)

    def follows(self, earlier: "Checkpoint") -> bool:
        """Tell whether the log goes on after a checkpoint of another line, or after a later one of that line."""
        return any(
            one.line == earlier.line
            and (earlier.count < one.count or (earlier.count, earlier.chain) == (one.count, one.chain))
            for one in self.after
        )


class Checkpoint(Message):
    """A silo's signed statement of its log after each change; the count only grows, so an older copy is noticed.

    It has the number of entries and the last chain hash of the log. The aggregator keeps the newest one; what it is
    given has the ledger's totals too, sealed to the silo itself. On the wire and on disk it is the ledger's head.
    """

    KIND: ClassVar[str] = "ledger-head"
    MAX_BYTES: ClassVar[int] = 40 * 1024
    version: Literal["ledger-head/1"] = "ledger-head/1"
    federation: Name
    silo: Name
    count: Count
    chain: Digest
    at: Seconds
    continued: Annotated[Continued | None, Field(exclude_if=lambda continued: continued is None)] = None
    sealed: Annotated[bytes, Field(max_length=24 * 1024, exclude_if=lambda sealed: not sealed)] = b""

    @property
    def line(self) -> bytes:
        """Which copy of the log it is of: empty until a copy has gone on after a backup was put back."""
        return self.continued.line if self.continued is not None else b""

    def supersedes(self, kept: "Checkpoint") -> bool:
        """Tell whether it takes the place of a kept one of the same silo.

        A log that was put back takes the place only of what it has seen, so of two copies one goes on.
        """
        if self.line == kept.line:
            return self.count > kept.count
        return self.continued is not None and self.continued.follows(kept)


class Ledger(Protocol):
    """Storage of charges, of signed survivor sets and of the state of training runs.

    Methods raise LedgerError if a change cannot be made durable.
    """

    def spending(
        self,
        excluding_nonce: bytes = b"",
        purpose: str = "",
        analyst: str = "",
        since: Sequence[Since] = (),
        run: RunStep | None = None,
        requests_since: int | None = None,
        analyst_since: int | None = None,
    ) -> Spending:
        """Return the committed and reserved charges, without that of the nonce `excluding_nonce`.

        With `since`, also the spending of `purpose` in each of these windows, in total and by `analyst`; with `run`,
        also that of this training run of `analyst`; with `requests_since`, the number of other accepted requests, where
        a training run counts once; with `analyst_since`, what `analyst` has spent since that midnight. What runs have
        reserved counts as spent, but not what `run` itself has, or the run that it continues.
        """

    def job_of(self, run: bytes) -> bytes | None:
        """Return the job to which the first request of a run bound its id; None for an unknown run."""

    def is_charged(self, nonce: bytes) -> bool:
        """Tell whether a contribution for this request has left, or may leave."""

    @property
    def signed_after(self) -> int:
        """Requests that were signed before are refused: a backup was put back that does not say which were charged."""

    @property
    def recovered_at(self) -> int:
        """When the ledger last went on after it was put back from a backup, which forgot what was replaced since."""

    @property
    def seen_at(self) -> int:
        """The latest clock time of the log, at which the silo's clock may have been wrong."""

    def verdicts(self, subject: bytes) -> tuple[StoredVerdict, ...]:
        """Return the signed verdicts on a request or training run."""

    def has_contributed(self, runs: Sequence[bytes], step: int, nonce: bytes) -> bool:
        """Tell whether a contribution to a step of one of these runs has left, or may leave, for another request."""

    def is_replaced(self, name: bytes, but: Collection[bytes] = ()) -> bool:
        """Tell whether a request in the place of this one, or a run that continues this one, was accepted.

        Requests and runs are named by nonce and id, and those that `but` names do not count. The silo then enters no
        round of this one, nor of a second one in its place.
        """

    def request_asked(self, subject: bytes) -> bytes | None:
        """Return the signed request that people were asked about, by its hash; None for an unknown one."""

    def is_exhausted(self, nonce: bytes) -> bool:
        """Tell whether this request was accepted MAX_PROPOSALS times; the silo then enters no further round of it."""

    def reserve(
        self,
        charge: Charge,
        lifetime_limit: int,
        windows: Sequence[WindowLimit] = (),
        run_limit: int | None = None,
        delta_limit: int = 0,
        rate: Rate | None = None,
    ) -> bool:
        """Reserve the charge unless it would exceed a limit (then False). The same nonce is reserved once.

        One that was reserved on an earlier day (UTC) is released and reserved anew, with the limits of the later day.
        With the first step of a run, whose `each` has a price, that of all its steps is reserved; a later step is taken
        out of it, and one that has begun before costs its price beyond it.

        From then on the requests that it replaces, and the run that it continues, are reserved no more, also after a
        restart. Raises AlreadyChargedError

        - if this nonce, or one that it replaces, is charging or committed, or belongs to another request;
        - if this request was accepted MAX_PROPOSALS times, or was replaced;
        - if another request took the place of what this one replaces or continues;
        - if its run id is bound to another job;
        - if its run, or the one that it continues, is over (`why_over`).
        """

    def begin_charge(self, nonce: bytes, round_id: bytes) -> None:
        """Let a reservation count as spent in a round, also after a restart, until it is released.

        Raises AlreadyChargedError if nothing is reserved.
        """

    def commit(self, nonce: bytes, round_id: bytes, consulted: Consulted | None = None) -> None:
        """Spend the charge that began in this round, whose contribution leaves next; log what it consults.

        Raises AlreadyChargedError the second time, or if it did not begin in this round.
        """

    def release(self, nonce: bytes) -> None:
        """Give back a charge that is not committed; the caller knows that its contribution never began.

        A step's charge goes back to what its run has reserved, which ends if nothing of the run is charged any more.
        """

    def reservation_of(self, run: bytes) -> RunReservation | None:
        """Return what a training run has reserved; None if it has reserved nothing, or not any more."""

    def reservations(self) -> Sequence[RunReservation]:
        """Return what training runs have reserved, by when it ends."""

    def why_over(self, run: bytes) -> RunOver | None:
        """Return why no further step of a run is taken; None if it goes on, or is not known."""

    def stop_run(self, run: bytes, why: RunOver, releases: bool) -> None:
        """Take no further step of a run from now on; with `releases`, give back what its unbegun steps had reserved."""

    def record_survivors(self, round_id: bytes, survivors_hash: bytes) -> bool:
        """Record the survivor set signed in a round; False if another one was recorded before."""

    def load_run(self, run: bytes) -> KeptState | None:
        """Return the last saved state of a training run; None for an unknown run."""

    def save_run(self, run: bytes, state: KeptState, done: int = 0, *, is_learned: bool = True) -> None:
        """Replace the saved state of a training run, in which `done` steps are learned.

        What the run had reserved for those of them that this silo has missed is given back. The state's time of
        [retention] begins anew if a model `is_learned`.
        """

    def load_own(self, run: bytes, done: int) -> tuple[int, bytes] | None:
        """Return what the silo keeps for itself of a run after `done` steps: the step that made it, and the bytes.

        They are empty where it was dropped. None where there never was any.
        """

    def keep_own(self, run: bytes, step: int, round_id: bytes, data: bytes) -> None:
        """Keep, durably, what a round of a step made for the silo alone, until it is known whether the round counts."""

    def learn_own(self, run: bytes, step: int, round_id: bytes, *, took_part: bool) -> None:
        """Let what this round made be in force once the state after the step is saved, if the silo took part."""

    def miss_own(self, run: bytes, first: int, done: int) -> None:
        """Drop what the silo keeps if it contributed to a step from `first` to `done`, and learned no report of it."""

    def drop_own(self, run: bytes, done: int) -> None:
        """Drop, durably, what the silo keeps for itself of a run in which `done` steps are learned."""

    def tidy_own(self, run: bytes, done: int) -> None:
        """Remove what the silo kept for itself before what is in force after `done` steps."""
