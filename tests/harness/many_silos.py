"""A federation of any size from the pure steps alone: no SQL, no files, no actor; a test may stop anywhere and lie.

Each silo answers with the numbers of `Member.values`, without noise unless the test says otherwise. `Round` plays the
honest aggregator step by step; what it holds between two steps is there to be read and changed.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from aggregator import rounds as aggregator_core
from aggregator.outcomes import Outcomes
from aggregator.proving import challenge_from
from aggregator.rounds import Aggregator, Composed, SurvivorsFixed
from aggregator.rounds import KeysShared as AggregatorKeysShared
from aggregator.rounds import Proposed as AggregatorProposed
from crypto.backends.scheme import CHUNK_VALUES
from crypto.errors import CryptoError
from crypto.keys import Secret, SigningKey, derive
from crypto.merkle import MerkleTree, leaf_hash
from crypto.ring import Ring, Words
from crypto.rounds.manifest import Recipient, Terms
from crypto.rounds.messages import Accusation, Bundle, Challenge, Contribution
from crypto.rounds.opening import CheckedReport, OpenedSum, check_report, open_report
from crypto.rounds.payload import digests, piece_sizes, slices
from crypto.rounds.report import StoredReport, report_header
from crypto.sealing import SealingKey
from crypto.wire import Signature, Signed, detach, digest_of, sign
from federation.members.roster import Party, Roster, SiloParty
from policies.budget.ledger import (
    Charge,
    Consulted,
    KeptState,
    Rate,
    RunOver,
    RunReservation,
    RunStep,
    Since,
    Spending,
    WindowLimit,
    exceeds,
)
from policies.errors import AlreadyChargedError
from policies.requests.approval import StoredVerdict
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.terms import terms_of
from silo_node.rounds import proposal, proving
from silo_node.rounds import states as rounds_states
from silo_node.rounds import steps as core
from tests.harness.example_policy import KEY, NOW, Edit, plan, policy, request, table
from tests.harness.inside import passed
from tests.harness.simulator import Noise, no_noise

ANALYST = Secret(bytes(range(32)))  # whose verification key stands in the example policy
assert str(SigningKey(ANALYST).public) == KEY
SEALING = SealingKey(ANALYST)
ROUND_ID = b"round-----------"


class MemoryLedger:
    """A `policies.budget.ledger.Ledger` that keeps its promises for as long as it lives."""

    def __init__(self) -> None:
        self.reserved: dict[bytes, Charge] = {}
        self.charging: dict[bytes, tuple[Charge, bytes]] = {}
        self.committed: dict[bytes, Charge] = {}
        self.survivors_hashes: dict[bytes, bytes] = {}
        self.runs: dict[bytes, KeptState] = {}
        self.replaced: dict[bytes, bytes] = {}

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
        assert not since, "the example policy has no windows"
        begun = {nonce: one for nonce, (one, _) in self.charging.items()}
        charges = {**self.reserved, **begun, **self.committed}
        return Spending(sum(one.micro_rho for nonce, one in charges.items() if nonce != excluding_nonce))

    def is_charged(self, nonce: bytes) -> bool:
        return nonce in self.committed or nonce in self.charging

    def verdicts(self, subject: bytes) -> tuple[StoredVerdict, ...]:
        return ()

    def has_contributed(self, runs: Sequence[bytes], step: int, nonce: bytes) -> bool:
        return False

    def is_replaced(self, name: bytes, but: Collection[bytes] = ()) -> bool:
        return name in self.replaced and self.replaced[name] not in but

    def request_asked(self, subject: bytes) -> bytes | None:
        return None

    def is_exhausted(self, nonce: bytes) -> bool:
        return False

    signed_after = recovered_at = seen_at = 0

    def reserve(
        self,
        charge: Charge,
        lifetime_limit: int,
        windows: Sequence[WindowLimit] = (),
        run_limit: int | None = None,
        delta_limit: int = 0,
        rate: Rate | None = None,
    ) -> bool:
        before = self.reserved.get(charge.nonce)
        is_other = before is not None and before.request_hash != charge.request_hash
        if is_other or charge.nonce in {**self.committed, **self.charging}:
            raise AlreadyChargedError("the nonce was used")
        if exceeds(self.spending(charge.nonce), charge, lifetime_limit, windows, run_limit, delta_limit, rate):
            return False
        for nonce, _ in charge.replaces:
            self.reserved.pop(nonce, None)
            self.replaced.setdefault(nonce, charge.nonce)
        self.reserved[charge.nonce] = charge
        return True

    def begin_charge(self, nonce: bytes, round_id: bytes) -> None:
        if nonce not in self.reserved:
            raise AlreadyChargedError("nothing is reserved, or its contribution has left")
        self.charging[nonce] = self.reserved.pop(nonce), round_id

    def commit(self, nonce: bytes, round_id: bytes, consulted: Consulted | None = None) -> None:
        charge, begun_in = self.charging.get(nonce, (None, b""))
        if charge is None or begun_in != round_id:
            raise AlreadyChargedError("no charge began in this round, or its contribution has left")
        del self.charging[nonce]
        self.committed[nonce] = charge

    def release(self, nonce: bytes) -> None:
        self.reserved.pop(nonce, None)
        self.charging.pop(nonce, None)

    def record_survivors(self, round_id: bytes, survivors_hash: bytes) -> bool:
        return self.survivors_hashes.setdefault(round_id, survivors_hash) == survivors_hash

    def job_of(self, run: bytes) -> bytes | None:
        found = [one.run.job for one in (*self.reserved.values(), *self.committed.values()) if one.run is not None]
        return found[0] if found else None

    def reservation_of(self, run: bytes) -> RunReservation | None:
        return None

    def reservations(self) -> Sequence[RunReservation]:
        return ()

    def why_over(self, run: bytes) -> RunOver | None:
        return None

    def stop_run(self, run: bytes, why: RunOver, releases: bool) -> None:
        raise AssertionError("no run reserves here")

    def load_run(self, run: bytes) -> KeptState | None:
        return self.runs.get(run)

    def save_run(self, run: bytes, state: KeptState, done: int = 0, *, is_learned: bool = True) -> None:
        self.runs[run] = state

    def load_own(self, run: bytes, done: int) -> tuple[int, bytes] | None:
        return None

    def keep_own(self, run: bytes, step: int, round_id: bytes, data: bytes) -> None:
        raise AssertionError("nothing is kept here")

    def learn_own(self, run: bytes, step: int, round_id: bytes, *, took_part: bool) -> None:
        raise AssertionError("nothing is kept here")

    def miss_own(self, run: bytes, first: int, done: int) -> None:
        """Nothing is kept here."""

    def drop_own(self, run: bytes, done: int) -> None:
        raise AssertionError("nothing is kept here")

    def tidy_own(self, run: bytes, done: int) -> None:
        """Nothing is kept here."""


@dataclass
class Member:
    """One silo, its ledger and the numbers that it contributes."""

    silo: rounds_states.Silo
    ledger: MemoryLedger
    values: tuple[int, ...]
    computed: int = 0

    def compute(self, asked: Request, now: int) -> list[npt.NDArray[np.int64]]:
        self.computed += 1
        ends = np.cumsum([block.length for block in terms_of(asked, digest_of(asked)).blocks])
        return np.split(np.array(self.values, np.int64), ends[:-1])

    def contribute(
        self, state: rounds_states.Received, go: bytes, now: int = NOW, noise: Noise = no_noise
    ) -> tuple[rounds_states.Contributed, tuple[bytes, ...]]:
        committed = core.commit(self.silo, state, self.ledger, now, go)
        exact = self.compute(core.request_of(committed), now)
        vector = core.noise_of(committed, noise)
        core.fill(committed, exact, vector)
        return core.mask(self.silo, committed, vector, now)


@dataclass
class Many:
    """A federation: `count` silos that all tolerate the same, one aggregator, one analyst."""

    count: int
    colluding: int = 1
    missing: int = 1
    min_silos: int = 3
    members: dict[str, Member] = field(init=False)
    aggregator: Aggregator = field(init=False)

    def __post_init__(self) -> None:
        names = [f"silo-{number:03}" for number in range(self.count)]
        roots = {name: Secret(derive(bytes(32), name)) for name in names}
        signing = {name: SigningKey(root) for name, root in roots.items()}
        sealing = {name: SealingKey(root) for name, root in roots.items()}
        hub = SigningKey(Secret(derive(bytes(32), "hub")))
        parties = [SiloParty(name=one, key=str(signing[one].public), sealing=sealing[one].public) for one in names]
        roster = Roster(
            federation="fed", version=1, silos=tuple(parties), aggregators=(Party(name="hub", key=str(hub.public)),)
        )
        keys, hubs = dict(roster.silo_keys), dict(roster.aggregator_keys)
        tolerated = policy(
            Edit("max_colluding = 1", f"max_colluding = {self.colluding}"),
            Edit("max_missing   = 1", f"max_missing   = {self.missing}"),
            Edit("min_silos      = 3", f"min_silos      = {self.min_silos}"),
        )
        self.members = {}
        for place, name in enumerate(names):
            silo = rounds_states.Silo(
                name, "fed", signing[name], sealing[name], roster, keys, hubs, tolerated, derive(bytes(32), "policy")
            )
            self.members[name] = Member(silo, MemoryLedger(), (place + 1, 1000 * (place + 1), 7))
        self.aggregator = Aggregator("hub", "fed", hub, keys)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.members)

    def request(self, nonce: bytes = bytes(16), **changes: Any) -> Request:
        """Return a request for one count of three groups, to all silos, with the changes."""
        counted = plan(where=None, aggregates=(Aggregate(function="count", column=None, alias="n"),))
        columns = tuple(column for column in table().columns if column.name == "ward")
        fields: dict[str, Any] = {
            "nonce": nonce,
            "recipients": (Recipient(name="ana", key=SEALING.public),),
            "silos": self.names,
            "table": table(columns=columns),
            "plan": counted,
        }
        return request(**{**fields, **changes})

    def sum_of(self, names: Iterable[str]) -> list[int]:
        return [sum(column) for column in zip(*(self.members[name].values for name in names), strict=True)]

    def spent(self) -> dict[str, int]:
        return {name: one.ledger.spending().lifetime for name, one in self.members.items()}

    def round(self, asked: Request | None = None, round_id: bytes = ROUND_ID) -> "Round":
        return Round(self, self.request() if asked is None else asked, round_id)


Replies = dict[str, tuple[bytes, ...]]


def _undated(_: str) -> proposal.Freshness:
    return proposal.Freshness(None, None)


@dataclass
class Round:
    """One round, in which every method is a step of the honest aggregator and returns itself."""

    many: Many
    request: Request
    round_id: bytes
    proposed: AggregatorProposed = field(init=False)
    composed: Composed = field(init=False)
    shared: AggregatorKeysShared = field(init=False)
    parted: SurvivorsFixed = field(init=False)
    go: bytes = field(init=False)
    opens: bytes = field(init=False)
    signatures: dict[str, Signature] = field(init=False)
    states: dict[str, rounds_states.State] = field(default_factory=dict)
    replies: dict[str, Replies] = field(default_factory=dict)  # by step
    headers: dict[str, Signed[Contribution]] = field(default_factory=dict)
    payloads: dict[str, bytes] = field(default_factory=dict)
    report: StoredReport = field(init=False)

    def __post_init__(self) -> None:
        envelope = sign(self.request, "ana", SigningKey(ANALYST))
        self.proposed = aggregator_core.propose(
            self.many.aggregator, aggregator_core.read_request(envelope), self.round_id, NOW
        )

    @property
    def terms(self) -> Terms:
        return terms_of(self.request, digest_of(self.request))

    @property
    def manifest_hash(self) -> bytes:
        return self.composed.manifest_hash

    def silo(self, name: str) -> rounds_states.Silo:
        return self.many.members[name].silo

    def state(self, name: str, kind: type[Any]) -> Any:
        assert isinstance(self.states[name], kind)
        return self.states[name]

    def propose(self, names: Iterable[str] = ()) -> "Round":
        replies: Replies = {}
        for name in names or self.many.names:
            member = self.many.members[name]
            state, reply = proposal.propose(
                member.silo,
                member.ledger,
                lambda table: proposal.Freshness(None, None),
                NOW,
                self.round_id,
                self.proposed.envelope,
            )
            assert state is not None
            assert reply == state.accept
            self.states[name], replies[name] = state, state.reply
        self.replies["propose"] = replies
        return self

    def compose(self) -> "Round":
        hub = self.many.aggregator
        accepts, _ = aggregator_core.read_answers(hub, self.proposed, self.replies["propose"])
        self.composed = aggregator_core.compose_round(hub, self.proposed, accepts)
        return self

    def share(self) -> "Round":
        replies: Replies = {}
        for name in self.composed.manifest.silos:
            state = self.state(name, rounds_states.Proposed)
            message, *parts = self.composed.share(name)
            self.states[name], replies[name] = core.share(self.silo(name), state, NOW, message, parts)
        self.replies["share"] = replies
        self.shared = aggregator_core.collect_shares(self.many.aggregator, self.composed, replies)
        return self

    def ready(self) -> "Round":
        replies: Replies = {}
        for name in self.composed.manifest.silos:
            state = self.state(name, rounds_states.KeysShared)
            message, *entries = self.shared.deliver(name)
            received = core.receive(self.silo(name), state, NOW, message, entries)
            core.begin(self.silo(name), received, self.many.members[name].ledger, NOW)
            self.states[name], reply = received, core.ready(self.silo(name), received)
            replies[name] = (reply,)
        self.replies["ready"] = replies
        self.go = aggregator_core.collect_ready(self.many.aggregator, self.shared, replies)
        return self

    def contribute(self, dropped: Iterable[str] = (), noise: Noise = no_noise) -> "Round":
        """Let all but `dropped` contribute; those compute and send nothing."""
        left_out = set(dropped)
        for name in self.composed.manifest.silos:
            if name not in left_out:
                self.contribute_one(name, noise)
        return self

    def contribute_one(self, name: str, noise: Noise = no_noise) -> None:
        state = self.state(name, rounds_states.Received)
        after, frames = self.many.members[name].contribute(state, self.go, noise=noise)
        self.states[name], payload = after, frames[-1]
        header = frames[0] if len(frames) > 1 else sign(after.header, name, self.silo(name).signing)  # of a long round
        self.headers[name] = aggregator_core.read_contribution(self.many.aggregator, self.shared, name, header)
        self.payloads[name] = payload

    def part(self) -> "Round":
        scheme = self.composed.scheme
        sizes = [scheme.sum_bytes(index) for index in range(scheme.shape.chunks)]
        return self.part_with(digests(list(slices(self.total(), sizes))) if self.headers else ())

    def part_with(self, chunks: Sequence[bytes]) -> "Round":
        """Name the survivors, and of a long round a sum whose chunks have these digests."""
        self.parted = aggregator_core.fix_survivors(self.many.aggregator, self.shared, self.headers, chunks)
        return self

    def agree(self) -> "Round":
        replies: Replies = {}
        for survivor in self.parted.survivor_set.survivors:
            self.states[survivor.silo], reply = self.sign(survivor.silo, self.parted.envelope)
            replies[survivor.silo] = (reply,)
        self.replies["agree"] = replies
        self.signatures = aggregator_core.collect_signatures(self.many.aggregator, self.parted, replies)
        self.opens = aggregator_core.open_message(self.parted, self.signatures)
        return self

    def sign(self, name: str, envelope: bytes) -> tuple[rounds_states.Agreed, bytes]:
        state = self.state(name, rounds_states.Contributed)
        return core.agree(self.silo(name), state, self.many.members[name].ledger, NOW, envelope)

    def open(self, names: Iterable[str] = ()) -> "Round":
        """Let the signers, or `names` of them, release their shares, and assemble the report."""
        replies: Replies = {name: self.open_one(name) for name in names or self.signatures}
        self.replies["open_shares"] = replies
        return self.assemble()

    def open_one(self, name: str) -> tuple[bytes, ...]:
        state = self.state(name, rounds_states.Agreed)
        reply = core.open_shares(self.silo(name), state, NOW, self.opens)
        if (opened := proving.awaiting(state)) is not None:
            self.states[name] = opened
        return reply

    def prove(self, names: Iterable[str] = ()) -> "Round":
        """Let those who opened a long round, or `names` of them, sign their products, and assemble the report."""
        challenge = self.challenge().encode()
        self.replies["products"] = {
            name: (proving.prove(self.silo(name), self.state(name, rounds_states.Opened), NOW, challenge),)
            for name in names or self.replies["open_shares"]
        }
        return self.assemble()

    def challenge(self) -> Challenge:
        """Return the challenge of the nonces that were told."""
        told = Outcomes(self.terms.request_hash, "fed", self.many.aggregator.silos)
        return challenge_from(self.many.aggregator, self.parted, self.replies["open_shares"], told)[0]

    def assemble(self) -> "Round":
        encrypted, after = aggregator_core.assemble(
            self.many.aggregator,
            self.parted,
            self.signatures,
            self.replies["open_shares"],
            products=[reply[0] for _, reply in sorted(self.replies.get("products", {}).items())],
        )
        self.report = StoredReport.decode(report_header(encrypted) + self.total() + b"".join(after))
        return self

    def total(self) -> bytes:
        """Return the blinded sum of the survivors."""
        total = self.composed.scheme.accumulator(0)
        for name in self.headers:
            for index, piece in enumerate(self.pieces(name)):
                total.add(index, piece)
        return b"".join(total.chunks())

    def pieces(self, name: str) -> list[bytes]:
        """Return the pieces of a masked input."""
        return [bytes(piece) for piece in slices(self.payloads[name], piece_sizes(self.composed.scheme))]

    def until_go(self) -> "Round":
        return self.propose().compose().share().ready()

    def until_contributed(self, dropped: Iterable[str] = ()) -> "Round":
        return self.until_go().contribute(dropped)

    def run(self, dropped: Iterable[str] = ()) -> "Round":
        return self.until_contributed(dropped).part().agree().open()

    def opened(self, report: StoredReport | None = None) -> OpenedSum:
        hubs = self.silo(self.many.names[0]).aggregators
        stored = self.report if report is None else report
        return open_report(check_report(stored, self.terms, self.many.aggregator.silos, hubs), "ana", SEALING)

    def answer(self, report: StoredReport | None = None) -> list[float]:
        return [float(value) for block in self.opened(report).blocks() for value in block]


def trusting(composed: Composed, replies: Replies) -> AggregatorKeysShared:
    """Return what silos shared in a round, unchecked, as an aggregator may that wants it delivered all the same."""
    silos = composed.manifest.silos
    entries = tuple(replies[name][1:] for name in silos)
    trees = tuple(MerkleTree([leaf_hash(entry) for entry in one]) for one in entries)
    return AggregatorKeysShared(composed, tuple(replies[name][0] for name in silos), entries, trees)


def chunk_digests(payload: bytes, word_bytes: int) -> tuple[bytes, ...]:
    """Return the digests that a silo signs of a vector blinded by `masking`."""
    step = CHUNK_VALUES * word_bytes
    return digests([payload[start : start + step] for start in range(0, len(payload), step)])


def words_of(payload: bytes) -> Words:
    return Ring(64).from_bytes(payload)


def with_report(stored: StoredReport, total: bytes | None = None, **changes: Any) -> StoredReport:
    """Return a report with fields changed, encoded and read again, under its own name."""
    message = stored.message.model_copy(update=changes)
    return StoredReport.decode(report_header(message) + (bytes(stored.blinded_sum) if total is None else total))


def accusation_of(one: Round, accuser: str, accused: str) -> Accusation:
    """An accusation as an accuser makes it, of a silo whose entry opens, or of one that is not there."""
    state, silos = one.states[accuser], one.composed.manifest.silos
    while not isinstance(state, rounds_states.Proposed | rounds_states.Agreed):
        state = state.before  # type: ignore[union-attr]
    secrets = (
        (bytes(32),) * 2 if isinstance(state, rounds_states.Agreed) else (state.channel_secret.raw, state.root.raw)
    )
    dealer = silos.index(accused) if accused in silos and accused != accuser else 0
    return Accusation(
        manifest_hash=one.manifest_hash,
        accused=accused,
        signature=detach(one.shared.bundles[dealer], Bundle).signature,
        path=one.shared.path(dealer, silos.index(accuser)),
        entry=one.shared.entry(dealer, silos.index(accuser)),
        channel=secrets[0],
        root=secrets[1],
    )


def refused(step: Callable[[], object]) -> CryptoError:
    """Return the error of a step that must not be taken."""
    try:
        step()
    except CryptoError as err:
        return err
    raise AssertionError("the step was taken")


def checked_with(checked: CheckedReport, **changes: Any) -> CheckedReport:
    """Return a report that passed `check_report`, changed afterwards, as no party can do it."""
    return passed(checked, **changes)
