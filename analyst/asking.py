"""Ask a question so that its answer, once paid, is not lost: whatever ends this process, at any point.

    kept before it is sent -> sent -> opened, and kept again -> shown

Promise: the same command sends the kept request while it has no opened answer, or fetches the report by the request's
hash from any aggregator that has it; a silo charges a request once. docs/protocol.md section 7.6.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Required, TypedDict

from analyst import answers, requests
from analyst.aggregators import Aggregators, Whereabouts, erased
from analyst.conditions import Conditions, conditions_of
from analyst.errors import AnalystError, LostError, RoundError
from analyst.kept import Kept, KeptAnswers, Question, Reading
from analyst.pricing import Wanted, checked, of_errors, of_share, read_share
from analyst.remedies import bearing_of
from analyst.reports.report import Report
from analyst.reports.statements import script_plainly
from analyst.sql.draft import Script
from analyst.sql.offer import Offer, suggest
from analyst.sql.script import queries_of
from analyst.testimonies import proven_guilty
from crypto.errors import CryptoError
from crypto.keys import VerifyKey
from crypto.rounds.manifest import BackendName
from crypto.rounds.messages import Failure
from crypto.rounds.report import StoredReport
from crypto.wire import Signed, digest_of, verify
from federation.config import Config
from federation.errors import FederationError
from policies.requests.request import Request
from policies.requests.standing import Standing
from policies.units import SEND_S, WAIT_S

if TYPE_CHECKING:
    from analyst.link import Link

SPENT = "ALREADY_ANSWERED"  # the denial of a silo that has charged the very same request
_CHARGE = "where a silo has charged it, the charge stands"
_NEW = "this is a new request at a new price"
_AGAIN = "give the same command again: what is paid is not paid twice"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Command:
    """What an analyst chooses of a question."""

    sql: str
    purpose: str
    epsilon: float | None  # the price; None: what `share` or `wanted` says
    backend: BackendName = "masking"
    deadline: int = WAIT_S
    silos: tuple[str, ...] = ()
    sure: bool | None = None  # changes neither the question nor its price
    counts_cut: bool = True
    share: float | None = None  # of what is left to the analyst where least is left
    wanted: tuple[Wanted, ...] = ()  # errors that the least price must meet
    weights: tuple[int, ...] = ()  # of the statements; none: equal ones
    send_deadline: int = SEND_S

    def __post_init__(self) -> None:
        if [self.epsilon is not None, self.share is not None, bool(self.wanted)].count(True) != 1:
            raise AnalystError("a price is an epsilon, a share or errors", "give one of --epsilon, --share and --error")

    def digest(self, federation: str, analyst: str) -> bytes:
        """Return the SHA-256 of all that makes it the same command again; raises SqlError."""
        sql = ";".join(query.sql(dialect="duckdb", comments=False) for query in queries_of(self.sql))
        parts = [
            federation,
            analyst,
            sql,
            self.purpose,
            None if self.epsilon is None else float(self.epsilon).hex(),
            self.backend,
            self.deadline,
            self.counts_cut,
        ]
        more: list[object] = []  # left out where it is as it always was
        if self.epsilon is None or self.weights:
            more = [[self.share, [one.text for one in self.wanted], self.weights]]
        if self.send_deadline != SEND_S:
            more.append({"send_deadline": self.send_deadline})
        return sha256(json.dumps([*parts, *sorted(set(self.silos)), *more]).encode()).digest()


class Choices(TypedDict, total=False):
    """What a Python program chooses of a question; docs/commands.md describes each."""

    purpose: Required[str]
    epsilon: float | None
    share: float | None
    error: float | Mapping[str, float] | None
    weights: Sequence[int]
    backend: BackendName
    deadline: int
    send_deadline: int
    silos: Sequence[str]
    sure: bool | None
    counts_cut: bool


def command_of(sql: str, choices: Choices) -> Command:
    """Return what a Python program commands; raises AnalystError."""
    error = choices.get("error")
    errors: Mapping[str, float] = error if isinstance(error, Mapping) else {} if error is None else {"": error}
    share = choices.get("share")
    try:
        wanted = tuple(checked(Wanted(half, figure)) for figure, half in errors.items())
        share = None if share is None else read_share(f"{share!r}")
    except ValueError as err:
        raise AnalystError(f"{err} cannot be asked", "expected an error above 0, or a share from 0 to 1") from err
    return Command(
        sql,
        choices["purpose"],
        choices.get("epsilon"),
        choices.get("backend", "masking"),
        choices.get("deadline", WAIT_S),
        tuple(choices.get("silos", ())),
        choices.get("sure"),
        choices.get("counts_cut", True),
        share,
        wanted,
        tuple(choices.get("weights", ())),
        choices.get("send_deadline", SEND_S),
    )


def priced(command: Command, script: Script, offer: Offer, standing: Callable[[], Mapping[str, Standing]]) -> int:
    """Return the price that a command says, in micro-rho; raises AnalystError."""
    if command.epsilon is not None:
        return requests.price(offer, command.purpose, command.epsilon, script.table, script.plan)
    if command.purpose not in offer.purposes:
        raise AnalystError(f"unknown purpose {command.purpose!r}", suggest(command.purpose, offer.purposes))
    silos = {silo: offer.silos[silo] for silo in offer.holders(script.table.name)}
    about = script, silos, standing(), command.purpose
    return of_errors(command.wanted, *about) if command.share is None else of_share(command.share, *about)


class Session(Protocol):
    """What is needed of an open federation; `analyst.client.Federation` is one."""

    config: Config
    analyst: str
    kept: KeptAnswers
    aggregators: Aggregators

    @property
    def key(self) -> VerifyKey: ...
    @property
    def offer(self) -> Offer: ...
    @property
    def known(self) -> Offer | None: ...
    def now(self) -> int: ...
    def waited(self) -> bool: ...
    def planned(self, command: Command) -> tuple[Script, Request]: ...
    def signed(self, request: Request) -> bytes: ...
    def exchange(self, request: Request, link: "Link | None" = None) -> bytes | Signed[Failure]: ...
    def in_place_of(self, request: Request, failure: Failure) -> Request | None: ...
    def open_answer(
        self,
        script: Script,
        request: Request,
        encrypted: bytes,
        sure: bool | None = None,
        conditions: Conditions | None = None,
    ) -> Report: ...
    def stored_report(self, name: bytes) -> tuple[StoredReport, Request]: ...


def ask(session: Session, command: Command, keep: Path | None, tell: Tell, is_new: bool) -> Report:
    """Return the answer to a question: of its kept request, if that has no opened answer yet.

    `is_new`: ask anew, whatever is kept. `keep` is the file of a request that people approve. Raises as
    `Federation.query`.
    """
    digest = command.digest(session.config.federation, session.analyst)
    goes_on = keep is not None and keep.exists()  # with the request in that file
    before = None if is_new or goes_on else session.kept.of_command(digest)
    if before is not None and before.state == "sent" and keep is None:
        with before.held():
            report = _again(session, before, command.sure, tell)
        if report is not None:
            return report
    elif before is not None and before.state == "opened":
        tell(f"answered at {before.asked_at}; `consilo report show {before.short}` shows that at no cost; {_NEW}")
    script, request = _planned(session, command)
    before = None
    if keep is not None:
        request = _approved(session, keep, request, is_priced=command.epsilon is not None)
        before = _latest(session, session.kept.of_request(digest_of(request)), digest)
    kept = before or session.kept.begin(_question(session, command.sql, digest, script, request, command.sure))
    try:
        with kept.held():
            report = None if before is None else _again(session, kept, command.sure, tell)
            report = report or _sent(session, kept, command.sure, tell, is_again=False)
    except LostError:
        if keep is not None:
            keep.unlink(missing_ok=True)
        raise
    if keep is not None:
        keep.unlink(missing_ok=True)
    return report


def fetch(session: Session, kept: Kept) -> Report:
    """Return the answer to a kept question from an aggregator that has it; the silos are asked nothing.

    Raises AnalystError if no aggregator has it.
    """
    with kept.held():
        where = session.aggregators.find(bytes.fromhex(kept.name))
        if where.state == "kept":
            return _opened(session, kept, where, kept.question.sure, _hushed)
        if where.state == "erased":
            raise _erased(kept, where)
    if where.state == "running":
        raise AnalystError(f"the round of {kept.short} is under way", "try again in a minute")
    if where.silent:
        raise _unasked(kept, where)
    message = f"no aggregator has an answer to {kept.short}; {_CHARGE}"
    raise AnalystError(message, "the same question sends the same request while it is valid, and then a new one")


def fetch_unknown(session: Session, request_hash: bytes) -> Report:
    """Return, and keep here, the answer to a request of this analyst that is not kept here, such as another machine's.

    Raises AnalystError if no aggregator has it.
    """
    where = session.aggregators.find(request_hash)
    if where.state == "erased":
        raise erased(where)
    if where.state != "kept":
        silent = f"; not asked: {', '.join(where.silent)}" if where.silent else ""
        raise AnalystError(f"no aggregator has an answer to {request_hash.hex()[:12]}{silent}", "check the name")
    _, request = session.stored_report(where.report)
    try:
        script = script_plainly(request)
    except KeyError as err:
        raise AnalystError(
            f"{request_hash.hex()[:12]} is no question", "`consilo train` and `consilo find-keys` continue a run"
        ) from err
    question = _question(session, "(asked elsewhere)", bytes(32), script, request, None)
    return _opened(session, session.kept.begin(question), where, None, _hushed)


def _planned(session: Session, command: Command) -> tuple[Script, Request]:
    """Plan what was commanded and write its request; waits for silos that are on their way back after a restart."""
    while True:
        try:
            return session.planned(command)
        except (RoundError, FederationError):
            if not session.waited():
                raise


def _again(session: Session, kept: Kept, sure: bool | None, tell: Tell) -> Report | None:
    """Return the answer to a question that was kept before; None if it has expired without one."""
    where = session.aggregators.find(bytes.fromhex(kept.name))
    if where.state == "kept":
        tell(f"asked at {kept.asked_at} and not opened: this is its answer, at no second price")
        return _opened(session, kept, where, sure, tell)
    if where.state == "erased":
        raise _erased(kept, where)
    if kept.question.expires_at > session.now():
        tell(f"asked at {kept.asked_at} and not opened: the same request is sent again, at no second price")
        return _sent(session, kept, sure, tell, is_again=True, link=where.link)
    if where.silent:
        raise _unasked(kept, where)
    kept.end(f"it expired without an answer; {_CHARGE}")
    tell(f"the request of {kept.asked_at} has expired without an answer; {_CHARGE}; {_NEW}")
    return None


def _sent(
    session: Session, kept: Kept, sure: bool | None, tell: Tell, *, is_again: bool, link: "Link | None" = None
) -> Report:
    """Send a kept request and return its answer; raises DeniedError, RoundError or FederationError."""
    request = _request(session, kept)
    try:
        answer = session.exchange(request, link)
    except FederationError as err:
        raise FederationError(err.message, f"{err.hint}; {_AGAIN}" if err.hint else _AGAIN) from err
    if isinstance(answer, bytes):
        return _shown(session, kept, request, answer, sure, tell)
    failure = answer.message
    if (instead := session.in_place_of(request, failure)) is not None:
        return _replaced(session, kept, instead, answer, sure, tell)
    denials = answers.denials_of(failure.refusals, failure.request_hash, session.config.roster)
    charged = sorted(silo for silo, one in denials.items() if any(denial.code == SPENT for denial in one))
    if charged or is_again:
        where = session.aggregators.find(bytes.fromhex(kept.name))
        if where.state == "kept":
            return _opened(session, kept, where, sure, tell)
        if charged and where.silent:
            raise _unasked(kept, where)
    if charged:
        message = f"{', '.join(charged)} charged this request before, and no aggregator has its answer"
        kept.end(f"{message}; {_CHARGE}", answer.envelope)
        raise LostError(f"{message}; {_CHARGE}", "the same question is now a new request at a new price")
    if len(denials) == len(request.silos):
        kept.forget()
    else:
        kept.end(f"no answer: {failure.reason}; {_CHARGE}", answer.envelope)
    bearing = bearing_of(session.known, request.silos)
    error = answers.error_of(failure, request, session.config.roster, bearing)
    if isinstance(error, RoundError):  # nobody but the silos knows whether they have charged it
        raise RoundError(error.message, f"{error.hint}; {_CHARGE}")
    raise error


def _replaced(
    session: Session, kept: Kept, instead: Request, failure: Signed[Failure], sure: bool | None, tell: Tell
) -> Report:
    """Keep a request in the place of a kept one, and send it; raises as `_sent`."""
    faults = proven_guilty(failure.message, session.config.roster)
    named = instead.replaces.left_out if instead.replaces is not None else ()
    without = ", ".join(f"{silo} ({faults[silo]})" if silo in faults else silo for silo in named)
    asked = {"request": session.signed(instead), "created_at": instead.created_at, "expires_at": instead.expires_at}
    later = session.kept.begin(kept.question.model_copy(update=asked))
    with later.held():
        kept.end(f"asked again without {without}: {later.short}", failure.envelope)
        tell(f"asked again without {without}, in the place of {kept.short}, at no second price")
        return _sent(session, later, sure, tell, is_again=False)


def _opened(session: Session, kept: Kept, where: Whereabouts, sure: bool | None, tell: Tell) -> Report:
    encrypted = session.aggregators.holder(where.report).report(where.report)
    return _shown(session, kept, _request(session, kept), encrypted, sure, tell)


def _shown(session: Session, kept: Kept, request: Request, encrypted: bytes, sure: bool | None, tell: Tell) -> Report:
    """Open an answer, and keep it before anybody shows it."""
    script = kept.question.script(request)
    try:
        report = session.open_answer(script, request, encrypted, sure, kept.question.conditions)
    except CryptoError:
        tell(f"the report of {kept.short} does not pass its checks; --new asks the question anew, at a new price")
        raise
    try:
        session.kept.keep(kept, report)
    except OSError as err:
        how = f"`consilo report open {kept.short}` fetches it again for as long as the aggregator keeps it"
        tell(f"the answer cannot be kept here ({err.strerror}); {how}")
    return report


def _approved(session: Session, keep: Path, request: Request, *, is_priced: bool) -> Request:
    """Return the request in the file of one that people approve, or write this one there; raises AnalystError."""
    approved = requests.keep_request(keep, request, session.now(), is_priced=is_priced)
    kept = session.kept.of_request(digest_of(approved))
    if kept is None or kept.state != "opened":
        return approved
    keep.unlink(missing_ok=True)  # it was answered, and this program ended before it removed the file
    return requests.keep_request(keep, request, session.now(), is_priced=is_priced)


def _latest(session: Session, kept: Kept | None, command: bytes) -> Kept | None:
    """Return the question that stands in the place of a kept one and is not answered, or the kept one."""
    later = session.kept.of_command(command) if kept is not None and kept.state == "ended" else None
    return kept if later is None or later.state != "sent" else later


def _question(
    session: Session, sql: str, command: bytes, script: Script, request: Request, sure: bool | None
) -> Question:
    first, *others = script.statements
    counts = tuple(map(len, script.tables))
    return Question(
        request=session.signed(request),
        text=sql,
        command=command,
        analyst=session.analyst,
        purpose=request.purpose,
        micro_rho=request.micro_rho,
        created_at=request.created_at,
        expires_at=request.expires_at,
        output=first.output,
        names=first.names,
        after=first.after,
        others=tuple(Reading(output=one.output, names=one.names, after=one.after) for one in others),
        tables=() if set(counts) == {1} else counts,
        sure=sure,
        conditions=conditions_of(session.offer, request),
    )


def _request(session: Session, kept: Kept) -> Request:
    return verify(kept.question.request, Request, {session.analyst: session.key}).message


def _erased(kept: Kept, where: Whereabouts) -> AnalystError:
    error = erased(where)
    kept.end(error.message)
    return error


def _unasked(kept: Kept, where: Whereabouts) -> FederationError:
    message = f"{', '.join(where.silent)} may have the answer to {kept.short}, and does not answer"
    return FederationError(message, "give the command again later; --new asks the question anew, at a new price")


def _hushed(_: str) -> None:
    """Tell nobody."""
