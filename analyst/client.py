"""A federation as an analyst sees it: ask, and open the answer.

with Federation.open("consilo.toml") as federation:
    report = federation.query("SELECT ...", purpose="health-research", epsilon=1.0)

A thin session with the keys, the clock, the links to the aggregators and the silos' offer. `analyst/offers.py` fetches
the offer, `analyst/requests.py` writes requests, `analyst/asking.py` asks so that no paid answer is lost,
`analyst/answers.py` checks and opens reports.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, Unpack

from analyst import answers, requests
from analyst.aggregators import Aggregators, Dial
from analyst.asking import Choices, Command, ask, command_of, fetch, priced
from analyst.conditions import Conditions, conditions_of
from analyst.domains import Domains
from analyst.errors import AnalystError
from analyst.kept import Kept, KeptAnswers
from analyst.offers import fetch_offer
from analyst.remedies import bearing_of, bears
from analyst.replacing import in_place_of
from analyst.reports.rehearsal import rehearsed_all
from analyst.reports.report import Report
from analyst.sql.draft import Planned, Script
from analyst.sql.offer import Offer
from analyst.sql.script import script as script_of
from crypto.errors import ProtocolError
from crypto.keys import Secret, SigningKey, VerifyKey
from crypto.rounds.manifest import BackendName, Propose, Recipient
from crypto.rounds.messages import Failure, RunEnd
from crypto.rounds.opening import CheckedReport, OpenedSum
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey
from crypto.wire import Message, Signed, is_envelope, sign, verify
from federation.config import Config, read_config
from federation.errors import FederationError
from federation.local import started
from policies.domains import LongDomain
from policies.requests.computations import AnyComputation
from policies.requests.request import Request, resolved
from policies.requests.sending import answered_s, learned_s
from policies.requests.standing import Standing
from policies.requests.tables import Table
from policies.units import SEND_S, WAIT_S

if TYPE_CHECKING:
    from analyst.link import Link

ASK_EVERY_S = 5.0  # while silos are on their way back
OTHER_PATIENCE_S = 5.0  # how long an aggregator is dialled that is only asked for a report


class Federation:
    """An open federation, and the analyst who asks it."""

    def __init__(
        self,
        config: Config,
        analyst: str,
        root: Secret,
        link: "Link",
        clock: Callable[[], float] = time.time,
        stack: ExitStack | None = None,
        others: Mapping[str, Dial] = MappingProxyType({}),
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`stack` is what `close` ends: the link, where this session made it. `others` dial further aggregators."""
        self.config, self.analyst = config, analyst
        self._signing, self._sealing = SigningKey(root), SealingKey(root)
        self.recipient = Recipient(name=analyst, key=self._sealing.public)
        self._link, self._clock = link, clock
        self._stack, self._progress = stack or ExitStack(), progress
        self.aggregators = Aggregators(config.dialled or config.aggregator.name, link, others)
        self.kept = KeptAnswers(config.path.parent, analyst, self._sealing, clock)
        self._offer: Offer | None = None
        self.known: Offer | None = None  # the last offer, whatever may have changed since
        self._domains = Domains(config.path.parent, link, config.federation, analyst, self._signing)

    @classmethod
    def open(
        cls,
        path: str | Path,
        analyst: str | None = None,
        progress: Callable[[str], None] = lambda _: None,
        passphrase: Callable[[], str] | None = None,
    ) -> Self:
        """Open the federation that `path` describes; in simulate mode, start it if it is not up.

        `passphrase`, such as `getpass.getpass`, is called if the analyst's key is encrypted; its result is not kept.
        Raises FederationError or CryptoError. Use the federation in a `with` statement, or call `close`.
        """
        config = read_config(Path(path))
        name, root = config.analyst_key(analyst, passphrase)
        with ExitStack() as stack:
            link: Link
            others: dict[str, Dial] = {}
            if config.anchor is None:
                link = stack.enter_context(started(config, progress))
            else:
                from analyst.link import dialled

                progress(f"dialling {config.dialled}")
                link = stack.enter_context(dialled(config, name, progress))
                config = read_config(Path(path))  # with the membership that the aggregator had
                if not config.roster.silos:
                    raise FederationError(f"{config.federation} has no silo yet", "the authority admits them first")
                others = {
                    other: partial(dialled, replace(config, dialled=other), name, patience_s=OTHER_PATIENCE_S)
                    for other in config.aggregators
                    if other != config.dialled
                }
            return cls(config, name, root, link, stack=stack.pop_all(), others=others, progress=progress)

    def close(self) -> None:
        """Leave the federation, and end it if `open` started it."""
        self.aggregators.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def offer(self) -> Offer:
        """The offer of the silos to this analyst, from their signed catalogues; raises AnalystError."""
        if self._offer is None:
            offer = fetch_offer(self._link, self.config, self.analyst, self._signing, self.now())
            self._offer = self.known = replace(offer, find=self._find)
        return self._offer

    def resolved(self, request: Request) -> Request:
        """Return a request with the values of its long domains, asked of a silo if need be; raises AnalystError."""
        return resolved(request, {one.digest: self._find(one) for one in request.table.unresolved})

    def _find(self, domain: LongDomain) -> LongDomain:
        return self._domains.find(domain, lambda: self.offer.silos, self.now())

    def query(
        self,
        sql: str,
        *,
        keep: Path | None = None,
        new: bool = False,
        tell: Callable[[str], None] = lambda _: None,
        **choices: Unpack[Choices],
    ) -> Report:
        """Ask one question, or several as one request, and open the answer; of several, it has a table for each.

        The price is `epsilon` for one person, at the smallest delta among the silos; or a `share` of what is left to
        the analyst where least is left; or the least that meets an `error`: the half width of the 95 % interval of
        every count, or of named figures, as in {"n": 50}. `weights` divide it among statements, else they have equal
        parts. `backend` is how the silos' vectors are summed (docs/backends.md).

        With `counts_cut`, a sixteenth of the price tells how many persons had rows left out or values clamped. The
        signed request is kept in `answers` beside consilo.toml before it is sent, and the opened answer before it is
        returned. While a request is kept without an answer, the same call sends that one, or fetches its report, unless
        it is `new`; `tell` is given one line if so. With `keep`, the request is kept in that file until it is answered,
        and a later call sends the same one again, as people at the silos approve one request, not a question.

        The request waits `deadline` seconds for computing and `send_deadline` for sending; who declares more refuses.
        With `silos`, these alone are asked, such as those that define the table alike. `sure` shows only groups that
        surely have the silos' minimum cohort; by itself it is on from 100 groups.

        Raises SqlError before anything is sent, DeniedError if silos refuse, RoundError if too few are left to answer.
        """
        return ask(self, command_of(sql, choices), keep, tell, new)

    def open_kept(self, kept: Kept) -> Report:
        """Return the answer to a kept question: as it is kept, or of an aggregator; raises AnalystError."""
        with suppress(AnalystError):
            return self.kept.answer(kept)
        return fetch(self, kept)

    def prepare(self, sql: str, **choices: Unpack[Choices]) -> tuple[Planned, Request]:
        """Plan one question and write its request; what is sent asks for catalogues, anew if one was missing."""
        script, request = self.planned(command_of(sql, choices))
        if len(script.statements) > 1:
            raise AnalystError(f"{len(script.statements)} statements", "`planned` prepares a request of several")
        return script.statements[0], request

    def planned(self, command: Command) -> tuple[Script, Request]:
        """Plan what is commanded and write its request, at the price that the command says; raises AnalystError."""
        self.look_again()
        offer = self.offer_of(command.silos)
        script = rehearsed_all(script_of(command.sql, offer, command.counts_cut, command.weights), command.sql)
        price = priced(command, script, offer, self.standing)
        mine, how = (self.recipient,), (command.backend, command.deadline, command.silos, command.send_deadline)
        return script, self.write(script.table, script.plan, command.purpose, price, mine, *how)

    def standing(self, request: Request | None = None) -> Mapping[str, Standing]:
        """Return what is left to this analyst at each silo, and what it would say to a request; nothing is charged."""
        return self.said_of(request).standings

    def said_of(self, request: Request | None = None) -> Offer:
        """Return the silos' catalogues with where this analyst stands, and what all would say to a request."""
        about = b"" if request is None else request.encode()
        return fetch_offer(self._link, self.config, self.analyst, self._signing, self.now(), about)

    def look_again(self) -> None:
        """Ask for the catalogues anew, when they are next needed, if one is missing."""
        if self._offer is not None and set(self.config.roster.silo_keys) - set(self._offer.silos):
            self._offer = None

    def offer_of(self, silos: Sequence[str]) -> Offer:
        """Return the offer of these silos, or of all if none is named; raises AnalystError."""
        return self.offer.only(silos) if silos else self.offer

    def price(self, purpose: str, epsilon: float, table: Table, what: AnyComputation, silos: Sequence[str] = ()) -> int:
        """Convert `epsilon` to micro-rho, at the smallest delta among the silos; raises AnalystError."""
        return requests.price(self.offer_of(silos), purpose, epsilon, table, what)

    def write(
        self,
        table: Table,
        what: AnyComputation,
        purpose: str,
        micro_rho: int,
        recipients: tuple[Recipient, ...] = (),
        backend: BackendName = "masking",
        deadline: int = WAIT_S,
        silos: Sequence[str] = (),
        send_deadline: int = SEND_S,
    ) -> Request:
        """Return a request to all silos that have `table`, or to those named; its recipients if none are given.

        It waits `deadline` s for computing, `send_deadline` for sending. Raises AnalystError or RoundError.
        """
        return requests.write(
            self.config,
            self.offer_of(silos),
            self.analyst,
            table,
            what,
            purpose=purpose,
            micro_rho=micro_rho,
            recipients=recipients,
            backend=backend,
            now=self.now(),
            deadline=deadline,
            send_deadline=send_deadline,
        )

    def submit(self, request: Request) -> bytes:
        """Sign and send a request; return the encrypted report. Raises DeniedError or RoundError."""
        answer = self.exchange(request)
        if isinstance(answer, bytes):
            return answer
        raise answers.error_of(answer.message, request, self.config.roster, bearing_of(self.known, request.silos))

    def exchange(self, request: Request, link: "Link | None" = None) -> bytes | Signed[Failure]:
        """Sign and send a request; return the encrypted report, or why there is none.

        After a restart of the aggregator it is sent again until the silos are back.
        """
        while True:
            more_s = max(0, request.waits_s - WAIT_S) + request.loads_s + answered_s(request)
            answer = (link or self._link).submit(self.signed(request), more_s)
            if not is_envelope(answer):
                return answer
            failure = answers.read_failure(answer, request, self.config.roster)
            self._offer = None  # a policy may have changed, or a silo may be unavailable
            if not failure.message.missing or failure.message.refusals or not self.waited():
                return failure

    def renew(self, request: Request, what: AnyComputation, draw: int = 0) -> Request:
        """Return the same request for another plan, see `requests.renew`."""
        return requests.renew(request, what, self.now(), draw)

    def in_place_of(self, request: Request, failure: Failure) -> Request | None:
        """Return a request to the silos that are left of one that failed, in its place; None if none is possible."""
        known = self.known.silos if self.known is not None else {}
        return in_place_of(request, failure, self.now(), self.config.roster, partial(bears, known))

    def signed(self, message: Message) -> bytes:
        """Return a request, or another message of this analyst's, signed."""
        return sign(message, self.analyst, self._signing)

    @property
    def key(self) -> VerifyKey:
        """The analyst's verification key."""
        return self._signing.public

    def waited(self) -> bool:
        """Wait a little, and return True, if silos may be on their way back to an aggregator that was started anew."""
        if not (left_s := self._link.settling_s):
            return False
        self._progress(f"the aggregator was started anew; waiting up to {left_s:.0f} s for silos to come back")
        time.sleep(min(left_s, ASK_EVERY_S))
        self._offer = None
        return True

    def open_answer(
        self,
        planned: Planned | Script,
        request: Request,
        encrypted: bytes,
        sure: bool | None = None,
        conditions: Conditions | None = None,
    ) -> Report:
        """Check and open an encrypted report, and add its sum once more, by the conditions of when it was asked."""
        conditions = conditions or conditions_of(self.offer, request)
        request = self.resolved(request)
        checked = self.check_report(StoredReport.decode(encrypted), request)
        opened = self.open_sum(checked, request)
        self.recount(checked)
        script = Script.of(planned) if isinstance(planned, Planned) else planned
        return answers.report_of(script, request, checked, opened, conditions, self.config.roster, sure)

    def open_sum(self, checked: CheckedReport, request: Request) -> OpenedSum:
        """Return the sum of a report that this analyst is a recipient of; raises CryptoError."""
        return answers.open_sum(checked, request, self.analyst, self._sealing)

    def check(self, request: Request, encrypted: bytes) -> CheckedReport:
        """Check a report, without opening it, and add its sum once more; raises CryptoError if a check fails."""
        checked = self.check_report(StoredReport.decode(encrypted), request)
        self.recount(checked)
        return checked

    def check_report(self, stored: StoredReport, request: Request) -> CheckedReport:
        """Make every check of a report that needs no key; raises CryptoError."""
        return answers.check(stored, request, self.config.roster)

    def recount(self, checked: CheckedReport) -> None:
        """Check the sum of a report, see `answers.recount`; raises ProtocolError on a wrong one."""
        answers.recount(checked, self.aggregators.holder(checked.name))

    def stored_report(self, name: bytes) -> tuple[StoredReport, Request]:
        """Return a report that the aggregator keeps, and this analyst's request that it answers.

        Raises CryptoError if it is a different report, or another analyst's.
        """
        stored = StoredReport.decode(self.aggregators.holder(name).report(name))
        if stored.name != name:
            raise ProtocolError("the aggregator returned another report than the one asked for")
        proposed = verify(stored.message.propose, Propose, self.config.roster.aggregator_keys).message
        return stored, verify(proposed.request, Request, {self.analyst: self._signing.public}).message

    def deliver_report(self, name: bytes, request: Request | None = None) -> Mapping[str, RunEnd | None]:
        """Send the report of a training step to its silos; return who has learned it, and why the run is at its end."""
        more_s = 0 if request is None else learned_s(request)
        frames = self.aggregators.holder(name).deliver_report(name, more_s)
        return answers.learned_by(frames, name, self.config.roster, self.config.federation)

    def opened(self, sealed: bytes, context: bytes) -> bytes:
        """Return what was sealed to this analyst in a context; raises SealError."""
        return self._sealing.open(sealed, context)

    def now(self) -> int:
        """Return the time in whole seconds."""
        return int(self._clock())
