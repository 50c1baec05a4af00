"""A federation as an analyst sees it: ask, and open the answer.

with Federation.open("consilo.toml") as federation:
    report = federation.query("SELECT ...", purpose="health-research", epsilon=1.0)

A thin session: it holds the keys, the clock, the way to the aggregator and what the silos open. `analyst/offers.py`
asks what may be asked, `analyst/requests.py` writes requests, `analyst/answers.py` checks and opens what comes back.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from analyst import answers, requests
from analyst.offers import fetch_offer
from analyst.reports.report import Report
from analyst.sql.draft import Planned
from analyst.sql.offer import Offer
from analyst.sql.plan import plan
from crypto.errors import CryptoError, ProtocolError
from crypto.keys import Secret, SigningKey
from crypto.rounds.manifest import BackendName, Propose, Recipient
from crypto.rounds.messages import Learned
from crypto.rounds.opening import CheckedReport, OpenedSum
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey
from crypto.wire import is_envelope, sign, verify
from federation.config import Config, read_config
from federation.errors import FederationError
from federation.local import started
from policies.requests.computations import AnyComputation
from policies.requests.request import Request
from policies.requests.tables import Table

if TYPE_CHECKING:
    from analyst.link import Link


class Federation:
    """An open federation and the analyst who asks."""

    def __init__(
        self, config: Config, analyst: str, root: Secret, link: "Link", clock: Callable[[], float] = time.time
    ) -> None:
        self.config, self.analyst = config, analyst
        self._signing, self._sealing = SigningKey(root), SealingKey(root)
        self._link, self._clock = link, clock
        self._stack = ExitStack()
        self._offer: Offer | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        analyst: str | None = None,
        progress: Callable[[str], None] = lambda _: None,
        passphrase: Callable[[], str] | None = None,
    ) -> Self:
        """Open the federation that `path` describes; in simulate mode, start it if it is not up.

        `passphrase` is asked if the analyst's key is encrypted, such as `getpass.getpass`; it is not kept. Raises
        FederationError or CryptoError. Use it in a `with` statement, or call `close`.
        """
        config = read_config(Path(path))
        name, root = config.analyst_key(analyst, passphrase)
        with ExitStack() as stack:
            link: Link
            if config.anchor is None:
                link = stack.enter_context(started(config, progress))
            else:
                from analyst.link import dialled

                progress(f"dialling {config.dialled}")
                link = stack.enter_context(dialled(config, name))
                config = read_config(Path(path))  # with the membership that the aggregator had
                if not config.roster.silos:
                    raise FederationError(f"{config.federation} has no silo yet", "the authority admits them first")
            federation = cls(config, name, root, link)
            federation._stack = stack.pop_all()
            return federation

    def close(self) -> None:
        """Leave the federation; what `open` started ends."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def offer(self) -> Offer:
        """What the silos open to this analyst, from their signed catalogues; raises AnalystError."""
        if self._offer is None:
            self._offer = fetch_offer(self._link, self.config, self.analyst, self._signing, self._now())
        return self._offer

    def query(
        self,
        sql: str,
        *,
        purpose: str,
        epsilon: float,
        backend: BackendName = "masking",
        keep: Path | None = None,
    ) -> Report:
        """Ask one question and open its answer; `backend` is how the silos' vectors are summed (docs/backends.md).

        With `keep`, the request is kept in that file until it is answered, and a later call sends the very same one
        again: what people at the silos approve is one request, not a question.

        `epsilon` is what the answer may cost one person, at the smallest delta among the silos. Raises SqlError before
        anything is sent, DeniedError if silos refuse, RoundError if too few are left to answer.
        """
        planned, request = self.prepare(sql, purpose=purpose, epsilon=epsilon, backend=backend)
        if keep is not None:
            request = requests.keep_request(keep, request, self._now())
        report = self.open_answer(planned, request, self.submit(request))
        if keep is not None:
            keep.unlink(missing_ok=True)
        return report

    def prepare(
        self, sql: str, *, purpose: str, epsilon: float, backend: BackendName = "masking"
    ) -> tuple[Planned, Request]:
        """Plan a question and write its request; sends nothing but a request for catalogues."""
        planned = plan(sql, self.offer)
        recipients = (Recipient(name=self.analyst, key=self._sealing.public),)
        price = self.price(purpose, epsilon)
        return planned, self.write(planned.table, planned.plan, purpose, price, recipients, backend)

    def price(self, purpose: str, epsilon: float) -> int:
        """Return what `epsilon` buys in micro-rho, at the smallest delta among the silos; raises AnalystError."""
        return requests.price(self.offer, purpose, epsilon)

    def write(
        self,
        table: Table,
        what: AnyComputation,
        purpose: str,
        micro_rho: int,
        recipients: tuple[Recipient, ...] = (),
        backend: BackendName = "masking",
    ) -> Request:
        """Return a request to all silos that hold `table`, which are its recipients if none are named.

        Raises AnalystError if it cannot be asked, RoundError if too few silos are there to ask.
        """
        return requests.write(
            self.config,
            self.offer,
            self.analyst,
            table,
            what,
            purpose=purpose,
            micro_rho=micro_rho,
            recipients=recipients,
            backend=backend,
            now=self._now(),
        )

    def renew(self, request: Request, what: AnyComputation) -> Request:
        """Return the same request for another plan, with a nonce, a time and a round key of its own."""
        return requests.renew(request, what, self._now())

    def submit(self, request: Request) -> bytes:
        """Sign and send a request; return the encrypted report. Raises DeniedError or RoundError."""
        answer = self._link.submit(sign(request, self.analyst, self._signing))
        if not is_envelope(answer):
            return answer
        failure = answers.read_failure(answer, request, self.config.roster)
        self._offer = None  # a policy may have changed, or a silo be gone
        raise answers.error_of(failure, request, self.config.roster)

    def open_answer(self, planned: Planned, request: Request, encrypted: bytes) -> Report:
        """Check and open an encrypted report and add its sum once more; raises CryptoError on what does not hold."""
        checked = self.check_report(StoredReport.decode(encrypted), request)
        opened = self.open_sum(checked, request)
        self.recount(checked)
        return answers.report_of(planned, request, checked, opened, self.offer, self.config.roster)

    def open_sum(self, checked: CheckedReport, request: Request) -> OpenedSum:
        """Return the sum of a report that this analyst is a recipient of; raises CryptoError."""
        return answers.open_sum(checked, request, self.analyst, self._sealing)

    def check(self, request: Request, encrypted: bytes) -> CheckedReport:
        """Check a report, without opening it, and add its sum once more; raises CryptoError on what does not hold."""
        checked = self.check_report(StoredReport.decode(encrypted), request)
        self.recount(checked)
        return checked

    def check_report(self, stored: StoredReport, request: Request) -> CheckedReport:
        """Make every check of a report that needs no key; raises CryptoError."""
        return answers.check(stored, request, self.config.roster)

    def recount(self, checked: CheckedReport) -> int:
        """Add the signed contributions once more; return how many chunks were. Raises ProtocolError on a wrong sum."""
        return answers.recount(checked, self._link)

    def stored_report(self, name: bytes) -> tuple[StoredReport, Request]:
        """Return a report that the aggregator keeps, and the request of this analyst that it answers.

        Raises CryptoError if it is another one, or of another analyst.
        """
        stored = StoredReport.decode(self._link.report(name))
        if stored.name != name:
            raise ProtocolError("the aggregator returned another report than the one asked for")
        proposed = verify(stored.message.propose, Propose, self.config.roster.aggregator_keys).message
        return stored, verify(proposed.request, Request, {self.analyst: self._signing.public}).message

    def teach(self, name: bytes) -> frozenset[str]:
        """Hand the report of a training step, by its SHA-256, to its silos; return those that have learned it."""
        keys, found = self.config.roster.silo_keys, set()
        for envelope in self._link.teach(name)[: len(keys)]:
            with suppress(CryptoError):
                signed = verify(envelope, Learned, keys)
                if signed.message.position == name:
                    found.add(signed.signer)
        return frozenset(found)

    def _now(self) -> int:
        return int(self._clock())
