"""What an analyst is told of a finished round: how long it took, who is in it, and what silos say of the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crypto.rounds.volume import Volume
from policies.units import counted

_NOTHING = Volume(0, 0)


@dataclass(frozen=True, slots=True)
class RoundDone:
    """A finished round: its number from 1, how long it took, and the silos whose contributions are in its sum.

    `figures` has what silos tell of the model after it, such as a metric, by name. `without` has the codes of its
    denials for a silo that refused, and nothing for one that did not answer.
    """

    number: int
    planned: int
    seconds: float
    survivors: tuple[str, ...]
    asked: int
    figures: Mapping[str, float] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)  # who is not in the sum, and the codes of its refusal
    silos: int = 0  # of the run, where a round asks a share of them
    volume: Volume = _NOTHING  # the bytes of the round at one silo that takes part

    @property
    def in_words(self) -> str:
        """One line, as `consilo train` prints it."""
        silos = f"{len(self.survivors)} of {counted(self.asked, 'silo')}"
        if self.asked < self.silos:
            silos += f" (of the run's {self.silos})"
        if self.without:
            absent = (f"{silo} ({codes})" if codes else silo for silo, codes in self.without.items())
            silos += f", without {', '.join(absent)}"
        figures = "".join(f", {name} {value:.4g}" for name, value in self.figures.items())
        sent, received = bytes_in_words(self.volume.up), bytes_in_words(self.volume.down)
        crossed = f", each sent {sent} and received {received}"
        return f"round {self.number} of {self.planned}: {self.seconds:.1f} s, {silos}{crossed}{figures}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; docs/commands.md describes them."""
        return {
            "number": self.number,
            "seconds": round(self.seconds, 3),
            "asked": self.asked,
            "survivors": list(self.survivors),
            "figures": dict(self.figures),
            "without": dict(self.without),
            "sent_bytes": self.volume.up,
            "received_bytes": self.volume.down,
        }


def bytes_in_words(count: int) -> str:
    """Return a number of bytes in three digits and a unit."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"
