"""How long silos may be busy with rounds under way: they compute one after the other, and their links are shared.

A silo does one thing at a time, so whoever waits for a step waits for the computing of its other rounds too. Sending a
long vector holds no step up, but whatever else is long on the same link. Promise: nobody waits longer than `MAX_BUSY_S`
for others.
"""

from policies.units import MAX_BUSY_S


class Busy:
    """The seconds for which silos may compute and send now, by round."""

    def __init__(self) -> None:
        self._rounds: dict[bytes, tuple[int, int]] = {}

    def begin(self, round_id: bytes, compute_s: int, send_s: int) -> None:
        """Note how long the silos of a round may compute from now on, and then send."""
        self._rounds[round_id] = compute_s, send_s

    def end(self, round_id: bytes) -> None:
        """Note that the silos of a round have sent, or are not waited for any more."""
        self._rounds.pop(round_id, None)

    def waits_s(self, *, is_long: bool = False, but: bytes = b"") -> int:
        """Return how long a step waits for the rounds under way, all `but` one; what `is_long` also for sending."""
        others = [one for round_id, one in self._rounds.items() if round_id != but]
        return min(sum(compute_s + send_s * is_long for compute_s, send_s in others), MAX_BUSY_S)
