"""What a long round takes of each machine of a large federation, by measured rates; and what saturates first.

Arithmetic alone: `tests.bench.scale` measures the rates, docs/scale.md has both, and this module writes what follows.
The silos are the recipients, as in training; where they are more than a request may name, an analyst is the only one.
All bytes pass the aggregator's gate, whatever the number of shards; a shard has a range of the values, one core and a
disk.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from crypto.backends.scheme import CHUNK_VALUES, MAX_VALUES, Shape
from crypto.backends.unreduced import Unreduced
from crypto.ring import Ring
from crypto.rounds.committees import degree_of
from crypto.rounds.payload import CONTRIBUTION_FRAME_BYTES
from crypto.wire import MAX_RECIPIENTS, MAX_SILOS
from federation.transport.frames import WINDOW_BYTES
from policies.units import MAX_GATHER_S, MAX_SEND_S
from silo_node.training.raw_numbers import MAX_STATE_VALUES
from tests.bench.figures import ROOT

BITS = 32  # of the ring: a value of a masked input has 4 bytes
MASKED_BYTES, STATE_BYTES = BITS // 8, 8  # of a value of a masked input, and of a model's state
MARK, LIMITS, END = "<!-- computed -->", "<!-- limits -->", "<!-- end -->"
STREAMS = "processor, for streams"
GIB = 2**30
GIGABIT = 125e6  # bytes a second
MACHINE_DISK = 2000 * GIB  # of each machine of the aggregator
FEDERATIONS = ((100, 10**9), (1000, 10**6))
NETWORKS = (1, 10)  # Gbit/s in each direction


@dataclass(frozen=True, slots=True)
class Rates:
    """What one core does in MB/s, but for the disk and the stream, in bytes of a masked input unless said."""

    keystream: float
    digest: float
    contribute: float  # without keystreams
    stage: float
    add: float
    disk: float
    check: float  # of the sum
    open: float  # of the sum, without keystreams
    save: float  # of a model's state
    load: float  # of a model's state
    stream: float  # of any bytes, two cores

    def __post_init__(self) -> None:
        if any(getattr(self, one.name) <= 0 for one in fields(self)):
            raise ValueError("a rate is above 0")


@dataclass(frozen=True, slots=True)
class Load:
    """How long a round keeps one thing busy, in seconds, and whether shards divide that."""

    place: str
    thing: str
    seconds: float
    is_divided: bool = False


def whole_bytes(silos: int) -> float:
    """Return the bytes of a value of a sum that is not reduced."""
    how = Unreduced(Shape(CHUNK_VALUES, silos, silos, 1), Ring(BITS))
    return how.chunk_bytes(0) / CHUNK_VALUES


def recipients_of(silos: int) -> int:
    """Return how many parties get the sum."""
    return silos if silos <= MAX_RECIPIENTS else 1


def loads(silos: int, values: int, rates: Rates, network: int) -> tuple[Load, ...]:
    """Return what a round takes at a silo, at the gate and at all shards together; `network` is in Gbit/s."""
    masked, whole, wire = MASKED_BYTES * values / 1e6, whole_bytes(silos) * values / 1e6, network * GIGABIT / 1e6
    state, recipients = STATE_BYTES * values / 1e6, recipients_of(silos)
    masks, opened = degree_of(silos, 1, 1) + 1, silos  # keystreams: pairs and its own; the self masks of all survivors
    contributing = masked / rates.contribute + masks * masked / rates.keystream
    learning = whole * (1 / rates.check + 1 / rates.open) + opened * masked / rates.keystream
    return (
        Load("a silo", "network, out", masked / wire),
        Load("a silo", "processor, to contribute", contributing),
        Load("a recipient", "network, in", whole / wire),
        Load("a recipient", "processor, to check and open", learning),
        Load("a recipient", "processor, to load and keep a model", state * (1 / rates.load + 1 / rates.save)),
        Load("the gate", "network, in", silos * masked / wire),
        Load("the gate", "network, out", recipients * whole / wire),
        Load("the gate", STREAMS, (silos * masked + recipients * whole) / rates.stream),
        Load("the shards", "processor", silos * masked * (1 / rates.stage + 1 / rates.add), is_divided=True),
        Load("the shards", "disk", silos * masked / rates.disk, is_divided=True),
    )


def memory(silos: int, values: int) -> Mapping[str, float]:
    """Return the bytes that places hold at most, in GB: none of it at the aggregator grows with the values.

    A silo has its vector, three times in masked bytes; a recipient the sum twice, and a model's state before and after.
    The gate has what is under way of each silo, a shard a frame of one masked input and of the sum.
    """
    at_gate = silos * min(WINDOW_BYTES + CONTRIBUTION_FRAME_BYTES, MASKED_BYTES * values)
    return {
        "a silo": 3 * MASKED_BYTES * values / 1e9,
        "a recipient": (2 * whole_bytes(silos) + 2 * STATE_BYTES) * values / 1e9,
        "the gate": at_gate / 1e9,
        "the shards": 3 * CONTRIBUTION_FRAME_BYTES / 1e9,
    }


def first(silos: int, values: int, rates: Rates, network: int) -> Load:
    """Return what takes longest at the aggregator, with one shard."""
    found = loads(silos, values, rates, network)
    return max((one for one in found if one.place in ("the gate", "the shards")), key=lambda one: one.seconds)


def needed(silos: int, values: int, rates: Rates, network: int) -> Mapping[str, int]:
    """Return how many shards each thing needs, and how many gates, so that a round waits for the gate's network alone.

    Room on disk is for all masked inputs and the sum. Memory needs none: a shard has a frame of each silo there.
    """
    found = loads(silos, values, rates, network)
    (streams,) = [one.seconds for one in found if one.thing == STREAMS]
    least = max(one.seconds for one in found if one.place == "the gate" and one.thing != STREAMS)
    shares = {f"shards, by their {one.thing}": one.seconds / least for one in found if one.is_divided}
    shares["shards, by their room on disk"] = (silos * MASKED_BYTES + whole_bytes(silos)) * values / MACHINE_DISK
    shares["gates"] = streams / least
    return {thing: max(1, math.ceil(share)) for thing, share in shares.items()}


def tables(rates: Rates) -> Iterator[str]:
    """Yield the lines of docs/scale.md that follow from the rates."""
    for silos, values in FEDERATIONS:
        yield f"{silos:,} silos and {values:,} values:"
        yield ""
        yield "| place | what | " + " | ".join(f"{network} Gbit/s" for network in NETWORKS) + " |"
        yield "|---|---|" + "---|" * len(NETWORKS)
        for columns in zip(*(loads(silos, values, rates, network) for network in NETWORKS), strict=True):
            cells = " | ".join(_time(one.seconds) for one in columns)
            yield f"| {columns[0].place} | {columns[0].thing} | {cells} |"
        for place, size in memory(silos, values).items():
            yield f"| {place} | memory | {_size(size)} | {_size(size)} |"
        firsts = [first(silos, values, rates, network) for network in NETWORKS]
        yield f"| **first** | | {' | '.join(f'{one.place}: {one.thing}' for one in firsts)} |"
        counts = [needed(silos, values, rates, network) for network in NETWORKS]
        for thing in counts[0]:
            yield f"| **needed** | {thing} | {' | '.join(str(one[thing]) for one in counts)} |"
        yield ""


def limits() -> Iterator[str]:
    """Yield the lines of docs/scale.md that say what larger rounds the code refuses."""
    yield "| limit | today |"
    yield "|---|---|"
    yield f"| values of a vector | {MAX_VALUES:,} |"
    yield f"| numbers in one vector of a model's state | {MAX_STATE_VALUES:,} |"
    yield f"| silos of a round | {MAX_SILOS:,} |"
    yield f"| recipients of a sum, and so silos that train | {MAX_RECIPIENTS} |"
    yield f"| how long a silo may send | {_time(MAX_SEND_S)} |"
    yield f"| how long all masked inputs may take to arrive | {_time(MAX_GATHER_S)} |"
    yield ""


def _size(size: float) -> str:
    """Return GB with two digits, or MB."""
    return f"{float(f'{size:.2g}'):g} GB" if size >= 1 else f"{float(f'{1000 * size:.2g}'):g} MB"


def _time(seconds: float) -> str:
    """Return a time with two digits."""
    for unit, least in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * least:
            return f"{float(f'{seconds / least:.2g}'):g} {unit}"
    return f"{float(f'{seconds:.2g}'):g} s"


def rates_of(page: str) -> Rates:
    """Return the rates of the measured table of docs/scale.md."""
    found = re.findall(r"^\| `rate_([a-z]+)` \| ([0-9.,]+) MB/s \|", page, re.MULTILINE)
    return Rates(**{name: float(value.replace(",", "")) for name, value in found})


def computed(page: str) -> str:
    """Return docs/scale.md with the tables that follow from its rates; another page as it is."""
    before, mark, after = page.partition(MARK)
    if not mark:
        return page
    middle, limit, rest = after.partition(END)[2].partition(LIMITS)
    found = "\n".join([before + mark, *tables(rates_of(page)), END])
    return found + middle + "\n".join([limit, *limits(), END]) + rest.partition(END)[2]


if __name__ == "__main__":
    place = ROOT / "docs" / "scale.md"
    place.write_text(computed(place.read_text()))
