"""Run a key search: ask the silos for one round after the other, each about the prefixes that survived the one before.

Promise: all that leaves the silos are noised counts, and all that the analyst's side does follows from them. A search
that was interrupted continues: its file has the first request, the reports of the finished rounds, which are opened
again, and the request under way, by whose hash its report is found. No round is paid twice.
docs/decisions/0044-keys-by-prefix.md.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from analyst.answers import denials_of, error_of
from analyst.asking import SPENT
from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.finding.tree import FoundKey, Limits, most_prefixes, next_round, read_round
from analyst.remedies import bearing_of
from analyst.reports.estimates import noise_sd
from analyst.sql.offer import Offer, suggest
from crypto.errors import CryptoError
from crypto.randomness import token
from crypto.rounds.manifest import BackendName
from crypto.rounds.messages import Failure
from crypto.rounds.report import StoredReport
from crypto.wire import Count, Digest, Message, digest_of
from federation.files import replace_file
from policies.budget.accountant import epsilon_of, micro_rho_of
from policies.budget.sampler import rho_delta
from policies.requests.key_search import FIRST, MAX_LENGTH, KeySearch, KeyShape
from policies.requests.request import Request
from policies.units import MICRO, SEND_S, WAIT_S, counted

_AWAITED = "APPROVAL_AWAITED"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an analyst chooses of a search."""

    table: str
    column: str
    purpose: str
    epsilon: float  # the price of the whole search for one person
    backend: BackendName = "masking"
    deadline: int = WAIT_S
    silos: tuple[str, ...] = ()
    send_deadline: int = SEND_S

    def digest(self, federation: str, analyst: str) -> bytes:
        """Return the SHA-256 of all that makes it the same search again."""
        parts = [federation, analyst, self.table, self.column, self.purpose, float(self.epsilon).hex(), self.backend]
        return sha256(dumps([*parts, *sorted(set(self.silos))]).encode()).digest()


class SearchProgress(Message):
    """The progress of a search, as its file has it."""

    MAX_BYTES: ClassVar[int] = 2 << 20
    wanted: Digest
    first: bytes  # the first request
    min_cohort: Count
    most: Count  # prefixes of a round
    reports: Annotated[tuple[Digest, ...], Field(max_length=MAX_LENGTH)] = ()  # of the finished rounds, by name
    under_way: bytes = b""  # the request of the next round, once it was about to be sent
    lost: Count = 0  # requests that gave no report, and whose charges stand


@dataclass(frozen=True, slots=True)
class Rules:
    """What the rounds of a search are read by, beside their noise."""

    min_cohort: int  # the largest of the silos
    most: int  # prefixes that survive a round


@dataclass(frozen=True, slots=True)
class DoneRound:
    """One finished round: what was asked and released, and which silos contributed."""

    request: str  # its SHA-256, in hexadecimal
    report: str  # its name
    prefixes: int
    slots: int
    sd: float  # of all noise together, in persons
    limits: Limits
    survivors: int
    silos: tuple[str, ...]
    found: tuple[FoundKey, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A finished search."""

    federation: str
    analyst: str
    purpose: str
    table: str
    column: str
    shape: KeyShape
    run: str
    rounds: tuple[DoneRound, ...]
    round_rho: float  # of each round
    lost: int  # rounds that were charged, where silos had contributed, and gave no report
    delta: float
    min_cohort: int
    most_prefixes: int  # of a round
    max_silos: int
    ended_at: int  # seconds since 1970

    @property
    def keys(self) -> tuple[FoundKey, ...]:
        """The keys that entered, in order."""
        return tuple(sorted((key for one in self.rounds for key in one.found), key=lambda found: found.key))

    @property
    def rho(self) -> float:
        return self.round_rho * (len(self.rounds) + self.lost)

    @property
    def epsilon(self) -> float:
        return epsilon_of(self.rho, rho_delta(self.delta))


def find_keys(
    federation: Federation,
    wanted: Wanted,
    keep: Path | None = None,
    progress: Callable[[DoneRound], None] = lambda done: None,
    is_new: bool = False,
) -> Found:
    """Search for the keys of a column; `progress` is called after each round.

    With `keep`, a later call continues an interrupted search from that file, unless it `is_new`; `forget` removes the
    file, once what was found is written. Raises AnalystError before anything is sent if there is nothing to search,
    DeniedError if silos refuse, RoundError if too few are left to answer.
    """
    with nullcontext() if keep is None else _held(keep):
        return _searched(federation, wanted, keep, progress, is_new)


def _searched(
    federation: Federation, wanted: Wanted, keep: Path | None, progress: Callable[[DoneRound], None], is_new: bool
) -> Found:
    digest = wanted.digest(federation.config.federation, federation.analyst)
    state = (None if is_new else _resumed(keep, digest)) or begun(federation, wanted)
    first, rules = Request.decode(state.first), Rules(state.min_cohort, state.most)
    plan: KeySearch | None = search_of(first)
    done: list[DoneRound] = []
    for one, following in replayed(federation, state.reports, search_of(first), rules):
        done.append(one)
        plan = following
    while plan is not None:
        request, encrypted = _answered(federation, state, keep, plan)
        one, plan = opened_round(federation, request, StoredReport.decode(encrypted), plan, rules)
        done.append(one)
        state = state.model_copy(update={"reports": (*state.reports, bytes.fromhex(one.report)), "under_way": b""})
        _write(keep, state)
        progress(one)
    return _found(federation, first, state, done)


def forget(keep: Path) -> None:
    """Remove the file of a search, once all that it led to is written."""
    keep.unlink(missing_ok=True)


@contextmanager
def _held(keep: Path) -> Iterator[None]:
    """Hold the directory of a search's file, so that no second process pays its rounds; raises AnalystError."""
    hint = "wait for the other search to end, or name another directory"
    try:
        handle = os.open(keep.absolute().parent, os.O_RDONLY)
    except OSError as err:
        raise AnalystError(f"{keep.absolute().parent} cannot be read ({err.strerror})", hint) from err
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise AnalystError(f"another search is under way in {keep.absolute().parent}", hint) from err
        yield
    finally:
        os.close(handle)


def begun(federation: Federation, wanted: Wanted) -> SearchProgress:
    """Return a new search with its first request, which is not sent; raises AnalystError."""
    federation.look_again()
    offer = federation.offer_of(wanted.silos)
    if wanted.table not in offer.tables:
        raise AnalystError(f"unknown table {wanted.table!r}", suggest(wanted.table, offer.tables))
    plan = KeySearch(
        run=token(16), step=0, column=wanted.column, shape=shape_of(offer, wanted.table, wanted.column), prefixes=FIRST
    )
    asked = [offer.silos[silo] for silo in offer.holders(wanted.table)]
    most = most_prefixes(plan.shape, min(one.max_groups for one in asked), wanted.backend)
    if not most:
        strict = [silo for silo, one in offer.silos.items() if one.max_groups <= len(plan.shape.alphabet)]
        message = f"a round counts {len(plan.shape.alphabet) + 1} extensions of each prefix"
        hint = f"the owners of {', '.join(strict)} would have to allow as many max_groups"
        raise AnalystError(f"{message}, more than max_groups allows", hint)
    table = offer.table(wanted.table, (wanted.column,))
    whole = federation.price(wanted.purpose, wanted.epsilon, table, plan, wanted.silos)
    # Later rounds may be long answers, whose noise uses a part of delta: all are priced as if they were.
    micro_rho = min(whole, micro_rho_of(wanted.epsilon, rho_delta(offer.delta))) // plan.steps
    if micro_rho < 1:
        raise AnalystError(f"epsilon {wanted.epsilon:g} buys nothing in {counted(plan.steps, 'round')}", "spend more")
    how = (federation.recipient,), wanted.backend, wanted.deadline, wanted.silos, wanted.send_deadline
    request = federation.write(table, plan, wanted.purpose, micro_rho, *how)
    return SearchProgress(
        wanted=wanted.digest(federation.config.federation, federation.analyst),
        first=request.encode(),
        min_cohort=max(one.min_cohort for one in asked),
        most=most,
    )


def shape_of(offer: Offer, table: str, column: str) -> KeyShape:
    """Return what the keys of a column are, as every silo with the table says; raises AnalystError."""
    holders = offer.holders(table)
    known = offer.columns(table)
    if column not in known:
        raise AnalystError(f"unknown column {column!r} of {table!r}", suggest(column, known))
    shapes = {silo: columns[column].keys for silo, columns in holders.items()}
    closed = [silo for silo, shape in shapes.items() if shape is None]
    if closed:
        searchable = [name for name in known if all(columns[name].keys is not None for columns in holders.values())]
        hint = f"columns whose keys may be found: {', '.join(searchable) or 'none'}"
        raise AnalystError(f"the keys of {column!r} may not be found at {', '.join(closed)}", hint)
    said: dict[str, list[str]] = {}
    for silo, shape in shapes.items():
        if shape is not None:
            said.setdefault(shape.in_words, []).append(silo)
    if len(said) > 1:
        lines = "; ".join(f"{', '.join(silos)}: {words}" for words, silos in said.items())
        raise AnalystError(f"the silos say differently what a key of {column!r} is: {lines}", "ask some with --silos")
    return next(shape for shape in shapes.values() if shape is not None)


def search_of(request: Request) -> KeySearch:
    """Return the round that a request is for; raises AnalystError if it is for something else."""
    if request.plan.search is None:
        raise AnalystError("the request is not of a key search", "give the report of a search")
    return request.plan.search


def opened_round(
    federation: Federation, request: Request, stored: StoredReport, expected: KeySearch, rules: Rules
) -> tuple[DoneRound, KeySearch | None]:
    """Check a round's report, add its sum once more, open and read it; return it and the round after it.

    Raises AnalystError if the request is for another round than `expected`, CryptoError if a check fails.
    """
    if request.plan.search != expected:
        message = f"round {expected.step} asked about other prefixes than survived the round before"
        raise AnalystError(message, "the reports are not of one search, or one of them was left out")
    checked = federation.check_report(stored, request)
    federation.recount(checked)
    opened = federation.open_sum(checked, request)
    ((block, counts),) = zip(opened.manifest.terms.blocks, opened.blocks(), strict=True)
    sd = noise_sd(block, opened)
    read = read_round(expected, counts, sd, rules.min_cohort, rules.most)
    names = digest_of(request).hex(), checked.name.hex()
    sizes = len(expected.prefixes), expected.slots
    done = DoneRound(*names, *sizes, sd, read.limits, len(read.survivors), checked.survivors, read.found)
    return done, next_round(expected, read)


def replayed(
    federation: Federation, reports: Sequence[bytes], first: KeySearch, rules: Rules
) -> Iterator[tuple[DoneRound, KeySearch | None]]:
    """Yield every round of the reports of a search, opened again, and the round after it.

    Raises AnalystError unless they are the rounds of one search in their order, CryptoError if a check fails.
    """
    plan: KeySearch | None = first
    for name in reports:
        if plan is None:
            raise AnalystError("there are more reports than rounds", "the reports are not of one search")
        stored, request = federation.stored_report(name)
        done, plan = opened_round(federation, request, stored, plan, rules)
        yield done, plan


def _answered(
    federation: Federation, state: SearchProgress, keep: Path | None, plan: KeySearch
) -> tuple[Request, bytes]:
    """Return the request of the next round, and its encrypted report.

    A request that was under way is looked for at the aggregators, and sent again while it is valid. Raises as
    `find_keys`; what silos were charged for a round without a report is noted.
    """
    request, now = None, federation.now()
    if state.under_way:
        request = Request.decode(state.under_way)
        encrypted = federation.aggregators.fetched(digest_of(request))
        if encrypted is not None:
            return request, encrypted
    if request is None or request.expires_at <= now:
        request = federation.renew(Request.decode(state.first), plan)
        _write(keep, state.model_copy(update={"under_way": request.encode()}))
    answer = federation.exchange(request)
    if isinstance(answer, bytes):
        return request, answer
    was_charged, is_awaited = _what_of(federation, answer.message)
    lost = state.model_copy(update={"under_way": b"", "lost": state.lost + was_charged})
    if keep is not None and not (lost.reports or lost.lost or is_awaited):
        keep.unlink(missing_ok=True)  # nothing is paid, and nobody is asked to approve it
    else:
        _write(keep, lost)
    bearing = bearing_of(federation.known, request.silos)
    raise error_of(answer.message, request, federation.config.roster, bearing)


def _what_of(federation: Federation, failure: Failure) -> tuple[bool, bool]:
    """Return whether a request that failed was charged somewhere, and whether its approval is awaited."""
    denials = denials_of(failure.refusals, failure.request_hash, federation.config.roster)
    codes = {one.code for reasons in denials.values() for one in reasons}
    return failure.charged or SPENT in codes, _AWAITED in codes


def _found(federation: Federation, first: Request, state: SearchProgress, done: list[DoneRound]) -> Found:
    search, offer = search_of(first), federation.offer_of(first.silos)
    return Found(
        federation=first.federation,
        analyst=first.analyst,
        purpose=first.purpose,
        table=first.table.name,
        column=search.column,
        shape=search.shape,
        run=search.run.hex(),
        rounds=tuple(done),
        round_rho=first.micro_rho / MICRO,
        lost=state.lost,
        delta=offer.delta,
        min_cohort=state.min_cohort,
        most_prefixes=state.most,
        max_silos=first.table.max_silos,
        ended_at=federation.now(),
    )


def _resumed(keep: Path | None, wanted: bytes) -> SearchProgress | None:
    if keep is None or not keep.exists():
        return None
    try:
        state = SearchProgress.decode(keep.read_bytes())
        Request.decode(state.first)
    except (OSError, CryptoError) as err:
        raise AnalystError(f"{keep} cannot be read", "remove it to begin a new search") from err
    if state.wanted != wanted:
        hint = "give the command as it was given then, or --new to begin anew, at a new price"
        raise AnalystError(f"{keep} is of another search", hint)
    return state


def _write(keep: Path | None, state: SearchProgress) -> None:
    if keep is None:
        return
    try:
        replace_file(keep, state.encode(), 0o600)
    except OSError as err:
        message = f"{keep} cannot be written ({err.strerror})"
        raise AnalystError(message, "make room there, and give the command again") from err
