"""How much each of a few parties may still cause: so much at once, and so much more a day."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Who = TypeVar("Who", bound=Hashable)
_DAY_S = 86_400


@dataclass(slots=True)
class _Account:
    left: float
    at: float
    refused: int = 0


class Allowance(Generic[Who]):
    """The allowance of each party; the caller bounds their number."""

    def __init__(self, at_once: int, per_day: int, clock: Callable[[], float]) -> None:
        self._at_once, self._per_day, self._clock = at_once, per_day, clock
        self._accounts: dict[Who, _Account] = {}

    def take(self, who: Who) -> bool:
        """Use one of a party's; return False if none is left."""
        now = self._clock()
        account = self._accounts.setdefault(who, _Account(self._at_once, now))
        grown = account.left + max(0.0, now - account.at) * self._per_day / _DAY_S
        account.left, account.at = min(grown, self._at_once), now
        if account.left < 1:
            account.refused += 1
            return False
        account.left -= 1
        return True

    def give_back(self, who: Who) -> None:
        """Give back one that was used."""
        if (account := self._accounts.get(who)) is not None:
            account.left = min(account.left + 1, self._at_once)

    def refused(self) -> dict[Who, int]:
        """Return how often each party found none left, since it was last told."""
        return {who: account.refused for who, account in self._accounts.items() if account.refused}

    def told(self, who: Who) -> None:
        """Count a party's refusals anew."""
        self._accounts[who].refused = 0
