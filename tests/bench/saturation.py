"""What a long round takes of each machine of a large federation, by measured rates; and what saturates first.

Arithmetic alone: `tests.bench.scale` measures the rates, docs/scale.md has both. The silos are the recipients. All
bytes pass the aggregator's gate, whatever the number of shards; a shard has a range of the values, one core and a disk.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from crypto.rounds.committees import degree_of

MASKED_BYTES = 4  # of a value on the wire, in the ring of 32 bits
WHOLE_BYTES = 8  # of a value of the sum that is not reduced, and of a model's state
MARK, END = "<!-- computed -->", "<!-- end -->"
STREAMS = "processor, for streams"
GIB = 2**30
GIGABIT = 125e6  # bytes a second
MACHINE_BYTES, MACHINE_DISK = 64 * GIB, 2000 * GIB  # of each machine of the aggregator
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
    close: float  # of the sum
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


def loads(silos: int, values: int, rates: Rates, network: int) -> tuple[Load, ...]:
    """Return what a round takes at a silo, at the gate and at all shards together; `network` is in Gbit/s."""
    masked, whole, wire = MASKED_BYTES * values / 1e6, WHOLE_BYTES * values / 1e6, network * GIGABIT / 1e6
    masks, opened = degree_of(silos, 1, 1) + 1, silos  # keystreams: pairs and its own; the self masks of all survivors
    return (
        Load("a silo", "network", max(masked, whole) / wire),
        Load("a silo", "processor, to contribute", masked / rates.contribute + masks * masked / rates.keystream),
        Load(
            "a silo",
            "processor, to learn",
            whole * (1 / rates.check + 1 / rates.open + 1 / rates.load + 1 / rates.save)
            + opened * masked / rates.keystream,
        ),
        Load("the gate", "network, in", silos * masked / wire),
        Load("the gate", "network, out", silos * whole / wire),
        Load("the gate", STREAMS, silos * (masked + whole) / rates.stream),
        Load(
            "the shards",
            "processor",
            silos * masked * (1 / rates.stage + 1 / rates.add) + whole / rates.close,
            is_divided=True,
        ),
        Load("the shards", "disk", silos * masked / rates.disk, is_divided=True),
    )


def first(silos: int, values: int, rates: Rates, network: int) -> Load:
    """Return what takes longest at the aggregator, with one shard."""
    found = loads(silos, values, rates, network)
    return max((one for one in found if one.place != "a silo"), key=lambda one: one.seconds)


def needed(silos: int, values: int, rates: Rates, network: int) -> Mapping[str, int]:
    """Return how many shards each thing needs, and how many gates, so that a round waits for the gate's network alone.

    Memory is two vectors of sums; room on disk is for all masked inputs and a sum.
    """
    found = loads(silos, values, rates, network)
    (streams,) = [one.seconds for one in found if one.thing == STREAMS]
    least = max(one.seconds for one in found if one.place == "the gate" and one.thing != STREAMS)
    shares = {f"shards, by their {one.thing}": one.seconds / least for one in found if one.is_divided}
    shares["shards, by their memory"] = 2 * WHOLE_BYTES * values / MACHINE_BYTES
    shares["shards, by their room on disk"] = (silos * MASKED_BYTES + WHOLE_BYTES) * values / MACHINE_DISK
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
        firsts = [first(silos, values, rates, network) for network in NETWORKS]
        yield f"| **first** | | {' | '.join(f'{one.place}: {one.thing}' for one in firsts)} |"
        counts = [needed(silos, values, rates, network) for network in NETWORKS]
        for thing in counts[0]:
            yield f"| **needed** | {thing} | {' | '.join(str(one[thing]) for one in counts)} |"
        yield ""


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
    return "\n".join([before + mark, *tables(rates_of(page)), END]) + after.partition(END)[2]
