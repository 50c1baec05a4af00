"""A federation as an analyst sees it: ask, and open the answer.

with Federation.open("consilo.toml") as federation:
    report = federation.query("SELECT ...", purpose="health-research", epsilon=1.0)
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from pydantic import ValidationError

from analyst.errors import AnalystError, DeniedError, RoundError
from analyst.reports.estimates import interpret, rho_of
from analyst.reports.report import Report, SiloOutcome
from analyst.sql.draft import Planned
from analyst.sql.offer import Offer, suggest
from analyst.sql.plan import plan
from crypto.backends.registry import BACKENDS
from crypto.errors import CryptoError, ProtocolError, WireError
from crypto.keys import Secret, SigningKey
from crypto.randomness import token
from crypto.rounds.bounds import why_infeasible
from crypto.rounds.manifest import BackendName, Propose, Recipient
from crypto.rounds.messages import Failed, Failure, Learned
from crypto.rounds.opening import CheckedReport, OpenedSum, check_report, open_report
from crypto.rounds.recount import check_chunk, choose_chunks
from crypto.rounds.report import StoredReport
from crypto.sealing import SealingKey
from crypto.wire import digest_of, is_envelope, sign, signer_of, verify
from federation.config import Config, read_config
from federation.errors import FederationError
from federation.local import started
from federation.members.certificates import Identity
from federation.members.credentials import Credentials
from policies.budget.accountant import epsilon_of, micro_rho_of
from policies.requests.calibration import clip_of
from policies.requests.catalogue import Catalogue, CatalogueRequest
from policies.requests.computations import AnyComputation
from policies.requests.denials import NOT_AN_ANALYST, Denial, Refusal
from policies.requests.request import Request
from policies.requests.round_key import round_secret, sealed_secret
from policies.requests.tables import Table
from policies.requests.terms import terms_of
from policies.units import DAY_S

if TYPE_CHECKING:
    from analyst.link import RemoteLink

REQUEST_LIFETIME_S = 600
KEPT_LIFETIME_S = 14 * DAY_S  # of a request that waits for people


class Link(Protocol):
    """A way to the aggregator."""

    def catalogues(self, request: bytes) -> tuple[bytes, ...]:
        """Relay a signed CatalogueRequest; return what the silos answered."""

    def submit(self, request: bytes) -> bytes:
        """Submit a signed Request; return an EncryptedReport or a signed Failure."""

    def teach(self, name: bytes) -> tuple[bytes, ...]:
        """Hand the report of a training step to its silos; return what each signed of how far it is."""

    def report(self, name: bytes) -> bytes:
        """Return an encrypted report by its name."""

    def evidence(self, name: bytes, index: int) -> tuple[bytes, ...]:
        """Return one chunk of every contribution in a report's sum, in roster order."""


class Federation:
    """An open federation and the analyst who asks."""

    def __init__(
        self, config: Config, analyst: str, root: Secret, link: Link, clock: Callable[[], float] = time.time
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
            self._offer = self._fetch_offer()
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
            request = self._kept(keep, request)
        report = self.open_answer(planned, request, self.submit(request))
        if keep is not None:
            keep.unlink(missing_ok=True)
        return report

    def _kept(self, keep: Path, request: Request) -> Request:
        """Return the request that `keep` holds, or write this one there; raises AnalystError if it holds another."""
        hint = f"remove {keep} to ask anew; approvals of the request in it are then of no use"
        try:
            kept = Request.decode(keep.read_bytes())
        except FileNotFoundError:
            lasting = request.model_copy(update={"expires_at": request.created_at + KEPT_LIFETIME_S})
            with os.fdopen(os.open(keep, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(lasting.encode())
            return lasting
        except (OSError, WireError) as err:
            raise AnalystError(f"{keep} holds no request", hint) from err
        same = ("federation", "analyst", "recipients", "purpose", "micro_rho", "backend", "table", "plan")
        if any(getattr(kept, field) != getattr(request, field) for field in same):
            raise AnalystError(f"{keep} holds another question, or the silos' policies have changed", hint)
        if kept.expires_at <= int(self._clock()):
            raise AnalystError(f"the request in {keep} has expired", hint)
        return kept

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
        if purpose not in self.offer.purposes:
            raise AnalystError(f"unknown purpose {purpose!r}", suggest(purpose, self.offer.purposes))
        if not (math.isfinite(epsilon) and 0 < epsilon <= 100):
            raise AnalystError(f"epsilon is {epsilon:g}", "expected a number above 0 and at most 100, such as 1")
        micro_rho = micro_rho_of(epsilon, self.offer.delta)
        if micro_rho < 1:
            raise AnalystError(f"epsilon {epsilon:g} buys nothing", "ask with a larger epsilon")
        return micro_rho

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
        silos = tuple(sorted(self.offer.holders(table.name)))
        self._check_reachable(silos)
        now, nonce = int(self._clock()), token(16)
        recipients = recipients or self.config.roster.recipients(silos)
        round_key, sealed_secrets = self._round_key(backend, nonce, recipients)
        try:
            return Request(
                federation=self.config.federation,
                nonce=nonce,
                analyst=self.analyst,
                recipients=recipients,
                purpose=purpose,
                micro_rho=micro_rho,
                silos=silos,
                backend=backend,
                round_key=round_key,
                sealed_secrets=sealed_secrets,
                table=table,
                plan=what,
                created_at=now,
                expires_at=now + REQUEST_LIFETIME_S,
            )
        except ValidationError as err:
            reason = err.errors()[0]["msg"].removeprefix("Value error, ")
            hint = "group by fewer columns, filter by less, or spend more on fewer figures"
            raise AnalystError(f"the question cannot be asked: {reason}", hint) from err

    def renew(self, request: Request, what: AnyComputation) -> Request:
        """Return the same request for another plan, with a nonce, a time and a round key of its own."""
        now, nonce = int(self._clock()), token(16)
        round_key, sealed_secrets = self._round_key(request.backend, nonce, request.recipients)
        fields: dict[str, object] = {"nonce": nonce, "round_key": round_key, "sealed_secrets": sealed_secrets}
        fields |= {"plan": what, "created_at": now, "expires_at": now + REQUEST_LIFETIME_S}
        return Request.model_validate({**dict(request), **fields})

    @staticmethod
    def _round_key(
        backend: BackendName, nonce: bytes, recipients: tuple[Recipient, ...]
    ) -> tuple[bytes, tuple[bytes, ...]]:
        """Return a fresh public key and its secret sealed to each recipient, where the backend has a key."""
        if not BACKENDS[backend].has_key:
            return b"", ()
        made = BACKENDS[backend].create_key()
        return made.public, tuple(sealed_secret(nonce, recipient, made.secret) for recipient in recipients)

    def _check_reachable(self, silos: tuple[str, ...]) -> None:
        """Raise RoundError where silos that did not answer leave too few for any round."""
        absent = sorted(set(self.config.roster.silo_keys) - set(self.offer.silos))
        asked = [self.offer.silos[silo] for silo in silos]
        reason = why_infeasible(
            len(asked),
            max(one.min_silos for one in asked),
            max(one.max_colluding for one in asked),
            max(one.max_missing for one in asked),
        )
        if absent and reason:
            raise RoundError(f"no answer: {reason}; missing: {', '.join(absent)}", "ask again when they are back")

    def submit(self, request: Request) -> bytes:
        """Sign and send a request; return the encrypted report. Raises DeniedError or RoundError."""
        answer = self._link.submit(sign(request, self.analyst, self._signing))
        if not is_envelope(answer):
            return answer
        failure = verify(answer, Failure, self.config.roster.aggregator_keys).message
        if failure.request_hash != digest_of(request):
            raise ProtocolError("the aggregator's failure message belongs to another request")
        self._offer = None  # a policy may have changed, or a silo be gone
        denials = self._denials(failure.refusals, digest_of(request))
        if denials and not failure.missing:
            raise _denied(denials, len(request.silos))
        if denials:
            silo, first = next((silo, reasons[0]) for silo, reasons in denials.items())
            raise RoundError(
                f"no answer: {failure.reason}; missing: {', '.join(failure.missing)}",
                f"{silo!r} also refuses ({first.code}: {first.message}); see `consilo silos`",
            )
        missing = ", ".join(failure.missing)
        raise RoundError(
            f"no answer: {failure.reason}" + (f"; missing: {missing}" if missing else ""),
            "ask again when they are back" if missing else "see `consilo silos`",
        )

    def open_answer(self, planned: Planned, request: Request, encrypted: bytes) -> Report:
        """Check and open an encrypted report and add its sum once more; raises CryptoError on what does not hold."""
        stored, request_hash = StoredReport.decode(encrypted), digest_of(request)
        opened = self.open_sum(stored, request)
        checked = self.check_report(stored, request)
        self.recount(stored, checked)
        denials = self._denials(stored.message.refusals, request_hash)
        holders = [self.offer.silos[silo] for silo in opened.manifest.silos]
        rows, withheld = interpret(planned, request, opened, max(one.min_cohort for one in holders))
        entity = holders[0].entity
        return Report(
            columns=planned.output,
            dimensions={shown: column for column, shown in planned.names.items()},
            rows=tuple(rows),
            withheld_groups=tuple(withheld),
            rho=rho_of(request),
            epsilon=epsilon_of(rho_of(request), self.offer.delta),
            delta=self.offer.delta,
            silos=self._outcomes(request, checked, denials),
            transcript=stored.name.hex(),
            wrong=opened.wrong,
            assumptions=(
                f"one {entity} has at most {request.table.max_rows} rows in an answer"
                f" and is known to at most {request.table.max_silos} silos",
                f"at most {opened.manifest.max_colluding} silos collude with the aggregator",
                *self._cuts(request, opened),
                *self._spares(request, opened, len(stored.message.openings)),
            ),
        )

    @staticmethod
    def _cuts(request: Request, opened: OpenedSum) -> Iterator[str]:
        """Yield where a backend with less room than words of 64 bits cuts the figures of one silo."""
        if request.backend != "masking":
            for block in opened.manifest.terms.blocks:
                cut = clip_of(opened.manifest.terms.limit, block.scale_bits)
                yield f"by {request.backend}, {block.name} of one silo is within +/-{cut:,}, what lies beyond is cut"

    @staticmethod
    def _spares(request: Request, opened: OpenedSum, openings: int) -> Iterator[str]:
        """Yield how far the sums of silos check each other, in the backend `shares`."""
        if request.backend == "shares":
            spare = openings - opened.manifest.quorum
            checks = f"{spare} more than are needed: up to {spare} false ones are noticed, up to {spare // 2} named"
            yield f"{openings} silos opened their sums, {checks}"

    def open_sum(self, stored: StoredReport, request: Request) -> OpenedSum:
        """Return the sum of a report that this analyst is a recipient of; raises CryptoError."""
        terms, roster = terms_of(request, digest_of(request)), self.config.roster
        secret = round_secret(request, self.analyst, self._sealing)
        parties = self.analyst, self._sealing, roster.silo_keys, roster.aggregator_keys
        return open_report(stored, terms, *parties, round_key=request.round_key, secret=secret)

    def check(self, request: Request, encrypted: bytes) -> CheckedReport:
        """Check a report, without opening it, and add its sum once more; raises CryptoError on what does not hold."""
        stored = StoredReport.decode(encrypted)
        checked = self.check_report(stored, request)
        self.recount(stored, checked)
        return checked

    def check_report(self, stored: StoredReport, request: Request) -> CheckedReport:
        """Make every check of a report that needs no key; raises CryptoError."""
        terms, roster = terms_of(request, digest_of(request)), self.config.roster
        return check_report(stored, terms, roster.silo_keys, roster.aggregator_keys, request.round_key)

    def recount(self, stored: StoredReport, checked: CheckedReport) -> int:
        """Add the signed contributions once more; return how many chunks were. Raises ProtocolError on a wrong sum."""
        chunks = choose_chunks(checked)
        for index in chunks:
            check_chunk(stored, checked, index, self._link.evidence(checked.name, index))
        return len(chunks)

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

    def _outcomes(
        self, request: Request, checked: CheckedReport, denials: Mapping[str, tuple[Denial, ...]]
    ) -> dict[str, SiloOutcome]:
        hashes = {member.silo: member.policy_hash.hex() for member in checked.manifest.roster}
        survivors, as_of = checked.survivors, checked.consent_as_of
        unreachable = set(self.config.roster.silo_keys) - set(self.offer.silos)
        outcomes = {}
        for silo in sorted(unreachable.union(request.silos)):
            known = self.offer.silos.get(silo)
            policy_hash = hashes.get(silo, known.policy_hash.hex() if known else None)
            status = "answered" if silo in survivors else "dropped" if silo in hashes else "missing"
            refused = denials.get(silo, ())
            outcomes[silo] = SiloOutcome("denied" if refused else status, policy_hash, refused, as_of.get(silo))
        return outcomes

    def _denials(self, refusals: tuple[bytes, ...], request_hash: bytes) -> dict[str, tuple[Denial, ...]]:
        """Return the denials of the refusals that a silo signed for this very request."""
        found = {}
        for envelope in refusals:
            signed = verify(envelope, Refusal, self.config.roster.silo_keys)
            if signed.message.request_hash == request_hash:
                found[signed.signer] = signed.message.denials
        return found

    def _fetch_offer(self) -> Offer:
        message = CatalogueRequest(
            federation=self.config.federation, analyst=self.analyst, nonce=token(16), created_at=int(self._clock())
        )
        silos = self.config.roster.silo_keys
        found: dict[str, Catalogue] = {}
        reasons: dict[str, str] = {}
        for envelope in self._link.catalogues(sign(message, self.analyst, self._signing))[: len(silos)]:
            try:
                signed = verify(envelope, Catalogue, silos)
                if signed.message.nonce == message.nonce:
                    found[signed.signer] = signed.message
            except CryptoError:
                with suppress(CryptoError):
                    reasons[signer_of(envelope, Failed)] = verify(envelope, Failed, silos).message.reason
        if found:
            return Offer({silo: found[silo] for silo in sorted(found)})
        if set(reasons.values()) == {NOT_AN_ANALYST}:
            remedy = "the silos' data owners can add you to their policies"
            denial = Denial(code="ANALYST_UNKNOWN", rule="analysts", message=NOT_AN_ANALYST, remedy=remedy)
            counted = f"{len(reasons)} of {len(silos)} silos refuse"
            raise DeniedError(
                f"{counted}: {denial.code} ({denial.rule}): {denial.message}", remedy, dict.fromkeys(reasons, (denial,))
            )
        said = "; ".join(f"{silo}: {reason}" for silo, reason in sorted(reasons.items())[:3])
        hint = "see silo.log beside each silo's policy"
        raise FederationError("no silo answered" + (f" ({said})" if said else ""), hint)


def dialled(config: Config, analyst: str) -> "RemoteLink":
    """Connect to the served aggregator of a federation between organisations; raises FederationError or CryptoError."""
    from analyst.link import RemoteLink  # gRPC is heavy: only where somebody dials

    if config.anchor is None:
        raise FederationError(f"{config.path} describes a simulated federation")
    identity = Identity(config.federation, "analyst", analyst)
    return RemoteLink(Credentials(config.path.parent, config.anchor, identity), config.dialled)


def _denied(denials: Mapping[str, tuple[Denial, ...]], asked: int) -> DeniedError:
    first = next(iter(denials.values()))[0]
    more = {denial.code for one in denials.values() for denial in one} - {first.code}
    also = f" (also: {', '.join(sorted(more))})" if more else ""
    message = f"{len(denials)} of {asked} silos refuse: {first.code} ({first.rule}): {first.message}{also}"
    return DeniedError(message, first.remedy, dict(denials))
