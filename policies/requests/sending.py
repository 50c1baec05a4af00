"""How many bytes a long vector has on its way, by its request alone: no row is read and no number of it is known.

A round is long where its backend is `masking` and its vector is longer than one chunk (`CHUNK_VALUES`). The bytes are
those of the scheme if every silo takes part that is asked: with fewer, no word of the vector is wider. docs/protocol.md
section 2.7.
"""

from dataclasses import dataclass

from crypto.backends.registry import BACKENDS
from crypto.backends.scheme import Shape
from crypto.rounds.committees import quorum_of
from crypto.rounds.manifest import is_long
from crypto.rounds.payload import piece_sizes, sum_sizes
from policies.requests.computations import slot_count
from policies.requests.request import Request
from policies.requests.terms import terms_of
from policies.units import MAX_GATHER_S, MAX_SEND_S

STATE_BYTES = 40  # of a run's state for each value: at most five numbers of 8 bytes, such as a weight and its velocity


@dataclass(frozen=True, slots=True)
class Sent:
    """The values of one silo's vector, the bytes of its masked input, and those of the sum; none where it is short."""

    values: int
    input_bytes: int = 0
    sum_bytes: int = 0

    @property
    def is_long(self) -> bool:
        """Whether sending it takes a time that is stated."""
        return self.input_bytes > 0


def sent_of(request: Request) -> Sent:
    """Return what a request's round sends."""
    values, silos = slot_count(request.plan, request.table), len(request.silos)
    if not is_long(request.backend, values):
        return Sent(values)
    shape = Shape(values, silos, quorum_of(silos), terms_of(request, bytes(32)).limit)
    scheme = BACKENDS[request.backend].bind(shape, request.round_key)
    return Sent(values, sum(piece_sizes(scheme)), sum(sum_sizes(scheme, silos, len(request.recipients))))


def longest_of(request: Request) -> Sent:
    """Return the greatest of each of these numbers over the rounds that a request begins: a run's, at its first step.

    A later step, and whatever is no run, is one round. So a run that a silo cannot finish is refused before it begins.
    """
    found, step = sent_of(request), request.plan.training
    if step is None or step.step > 0:
        return found
    first = {found.values: found}
    for number in range(1, step.steps):
        plan = step.model_copy(update={"step": number})
        if (values := slot_count(plan, request.table)) not in first:
            first[values] = sent_of(request.model_copy(update={"plan": plan}))
    every = first.values()
    return Sent(
        max(one.values for one in every), max(one.input_bytes for one in every), max(one.sum_bytes for one in every)
    )


def learned_s(request: Request) -> int:
    """Return how long a silo may receive a long sum and what checks it, however long rounds of the request wait.

    That is at most the sum and every masked input in it; 0 where the vector is short. The aggregator ends it before, by
    the times in the acceptances.
    """
    sent = sent_of(request)
    return at_rate(sent.sum_bytes + len(request.silos) * sent.input_bytes, sent.input_bytes, MAX_SEND_S)


def answered_s(request: Request) -> int:
    """Return how long an answer takes more for being long: the silos send, all arrives, and the sum is received."""
    sent = sent_of(request)
    if not sent.is_long:
        return 0
    return request.sends_s + MAX_GATHER_S + at_rate(sent.sum_bytes, sent.input_bytes, request.sends_s)


def at_rate(received: int, sent: int, seconds: int) -> int:
    """Return in how many seconds so many bytes arrive where `sent` bytes take `seconds`; 0 where none are sent."""
    return -(-received * seconds // sent) if sent else 0
