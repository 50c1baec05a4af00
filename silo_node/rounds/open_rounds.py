"""The rounds that a silo is in, and the last reply of each of their steps.

Promises: a step that came once is answered with the same bytes when the same bytes come again, until the round expires,
and never computed anew. A round whose charge has begun is forgotten by its proposer's Cancel, by its own failure or at
its expiry, never because of other proposals, and neither are its replies from then on. docs/protocol.md section 9.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from crypto.errors import ProtocolError
from policies.budget.ledger import Ledger
from policies.errors import LedgerError
from silo_node.rounds.states import Agreed, Contributed, State, expiry_of, has_begun, reservation_of

S = TypeVar("S", bound=State)
NOT_AT_STEP = "this silo is not at that step of the round: it was restarted, or the round was closed"
CLOSED = "the round was closed while this step was taken"
MAX_ROUNDS, MAX_ROUNDS_OF_ONE = 64, 32  # of all analysts, and of one
MAX_REPLY_BYTES = 256 << 20  # of all replies; then the oldest are no longer repeated
MAX_REPLIES = 4096
UNPAID_STEPS = ("propose", "share")  # whose replies are the first to be forgotten: nothing is charged yet


@dataclass(frozen=True, slots=True)
class _Reply:
    asked: bytes  # the digest of what was asked
    frames: tuple[bytes, ...]
    expires_at: int

    @property
    def size(self) -> int:
        return sum(map(len, self.frames))


class OpenRounds:
    """The states of a silo's rounds, by round id; the caller lets one step at a time change them."""

    def __init__(self, ledger: Ledger) -> None:
        self.states: dict[bytes, State] = {}
        self._ledger = ledger
        self._replies: dict[tuple[bytes, str], _Reply] = {}
        self._reply_bytes = 0
        self._whose: dict[bytes, str] = {}  # the policy's entry for the analyst, by round id
        self._owed: set[bytes] = set()  # nonces whose charge must be given back, which the ledger could not write

    def check_new(self, round_id: bytes, nonces: Sequence[bytes] = (), whose: str = "") -> None:
        """Raise ProtocolError unless a round of this id may begin, for a request of these nonces: own and replaced.

        `whose` is the policy's entry for the analyst.
        """
        if round_id in self.states or any(known == round_id for known, _ in self._replies):
            raise ProtocolError("this round was proposed before")
        if any(reservation_of(state) in nonces for state in self.states.values() if has_begun(state)):
            raise ProtocolError("the charge of this request has begun in another round, which is not over yet")
        begun = [one for one, state in self.states.items() if has_begun(state)]
        if len(begun) >= MAX_ROUNDS:
            raise ProtocolError(f"this silo is charged in {MAX_ROUNDS} rounds, which are not over yet")
        if sum(self._whose.get(one) == whose for one in begun) >= MAX_ROUNDS_OF_ONE:
            raise ProtocolError(f"{whose!r} is charged in {MAX_ROUNDS_OF_ONE} rounds here, which are not over yet")

    def at(self, round_id: bytes, expected: type[S]) -> S:
        """Return the state of a round; raises ProtocolError unless it is the expected one."""
        state = self.states.get(round_id)
        if not isinstance(state, expected):
            raise ProtocolError(NOT_AT_STEP)
        return state

    def contributed(self, round_id: bytes) -> Contributed | Agreed:
        """Return the state of a round whose masked input may be asked for; raises ProtocolError in another one."""
        state = self.states.get(round_id)
        if not isinstance(state, Contributed | Agreed):
            raise ProtocolError(NOT_AT_STEP)
        return state

    def check_still(self, round_id: bytes, state: State) -> None:
        """Raise ProtocolError unless a round is where it was: a step is computed while others go on."""
        if self.states.get(round_id) is not state:
            raise ProtocolError(CLOSED)

    def begin(self, round_id: bytes, state: State, nonces: Sequence[bytes], whose: str = "") -> None:
        """Add a round; an older one of these nonces, own or replaced, is forgotten.

        So is the oldest that is not charged of this analyst's too many, or else of the analyst's with the most.
        """
        self._owed.difference_update(nonces)
        for old, other in list(self.states.items()):  # the reservation is the new round's now
            if reservation_of(other) in nonces:
                self._drop(old)
        held = Counter(self._whose.values())
        if held[whose] >= MAX_ROUNDS_OF_ONE or len(self.states) >= MAX_ROUNDS:
            spare = [old for old, other in self.states.items() if not has_begun(other)]
            mine = [old for old in spare if self._whose[old] == whose] if held[whose] >= MAX_ROUNDS_OF_ONE else []
            for oldest in (mine or sorted(spare, key=lambda old: -held[self._whose[old]]))[:1]:
                self.forget(oldest)
        self.states[round_id], self._whose[round_id] = state, whose

    def give_back(self, nonce: bytes) -> None:
        """Give back what was reserved for a round that does not begin, unless another one has it."""
        if nonce not in map(reservation_of, self.states.values()):
            self._owed.add(nonce)
            self._give_back()

    def end(self, round_id: bytes) -> None:
        """Erase a round that was opened: shares, keys and secrets are referenced no more; its replies stay."""
        del self.states[round_id], self._whose[round_id]

    def forget(self, round_id: bytes) -> None:
        """Forget a round with its replies, and give back its charge if nothing of it can have left.

        Raises LedgerError if that cannot be written; it is tried again whenever `forget_expired` is called.
        """
        state = self._drop(round_id)
        nonce = reservation_of(state) if state is not None else None
        if nonce is not None:
            self._owed.add(nonce)
            self._give_back()

    def leave(self, round_id: bytes, step: str, asked: bytes, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Forget a round for good, and keep its last reply, which is returned: no step of it is taken any more."""
        expires_at = expiry_of(self.states[round_id])
        self.forget(round_id)
        self.keep(round_id, step, asked, frames, expires_at)
        return frames

    def forget_expired(self, now: int) -> None:
        """Forget what has expired."""
        with suppress(LedgerError):  # a full disk must not keep other rounds from ending
            self._give_back()
        for round_id in [one for one, state in self.states.items() if expiry_of(state) <= now]:
            self.forget(round_id)
        for key in [key for key, reply in self._replies.items() if reply.expires_at <= now]:
            self._remove(key)

    def next_s(self, now: int, most_s: float) -> float:
        """Return the seconds until the next thing here expires, at most `most_s`."""
        replies = (reply.expires_at for reply in self._replies.values())
        expiries = (*map(expiry_of, self.states.values()), *replies)
        return max(0.0, min((most_s, *(at - now + 1 for at in expiries))))

    def clear(self) -> None:
        """Forget everything; the ledger stays as it is."""
        self.states.clear()
        self._whose.clear()
        self._replies.clear()
        self._reply_bytes = 0

    def again(self, round_id: bytes, step: str, asked: bytes) -> tuple[bytes, ...] | None:
        """Return the reply that a step had when the bytes of this digest came; None if they have not come."""
        reply = self._replies.get((round_id, step))
        return None if reply is None or reply.asked != asked else reply.frames

    def keep(self, round_id: bytes, step: str, asked: bytes, frames: tuple[bytes, ...], expires_at: int) -> None:
        """Keep the reply of a step until the round expires, as long as there is room.

        The oldest reply of a round that is not charged yet makes room first.
        """
        reply = _Reply(asked, frames, expires_at)
        if (round_id, step) in self._replies:
            self._remove((round_id, step))
        self._replies[round_id, step] = reply
        self._reply_bytes += reply.size
        while self._reply_bytes > MAX_REPLY_BYTES or len(self._replies) > MAX_REPLIES:
            unpaid = (key for key in self._replies if key[1] in UNPAID_STEPS)
            self._remove(next(unpaid, next(iter(self._replies))))

    def _give_back(self) -> None:
        for nonce in tuple(self._owed):
            self._ledger.release(nonce)
            self._owed.discard(nonce)

    def _drop(self, round_id: bytes) -> State | None:
        for key in [key for key in self._replies if key[0] == round_id]:
            self._remove(key)
        self._whose.pop(round_id, None)
        return self.states.pop(round_id, None)

    def _remove(self, key: tuple[bytes, str]) -> None:
        self._reply_bytes -= self._replies.pop(key).size


def digest_of(*arguments: bytes) -> bytes:
    """Return the digest of what a step was asked with; it may be long, so nobody makes it under the lock of rounds."""
    digest = sha256()
    for one in arguments:
        digest.update(len(one).to_bytes(8, "big") + one)
    return digest.digest()
