"""How many silos may collude, how many may be missing, and how many must survive: docs/protocol.md section 1.1.

Promise: silo, aggregator and recipient ask the same function how many survivors a sum needs. It counts the silos that
the signed request asks, so it is the same for a silo that refused, that left before the round and that dropped out.
"""

from functools import lru_cache

from crypto.rounds.committees import MAX_COMMITTEE, degree_of, quorum_of

MIN_SURVIVORS = 3


def tolerated_collusion(silos: int) -> int:
    """Return how many silos may collude with the aggregator: min(2t - n - 1, t - 2), never negative.

    With more than 2t - n - 1 colluders, two different survivor sets could gather a quorum. With more than t - 2, the
    colluders and one opened share of an honest silo would rebuild a secret.
    """
    quorum = quorum_of(silos)
    return max(0, min(2 * quorum - silos - 1, quorum - 2))


def fewest_survivors(asked: int, min_silos: int, max_colluding: int, max_missing: int) -> int:
    """Return the least number of contributions in a sum that may be opened, of `asked` silos."""
    return max(quorum_of(asked), asked - max_missing, max_colluding + 2, min_silos, MIN_SURVIVORS)


def noise_shares(asked: int, max_colluding: int, max_missing: int) -> int:
    """Return the number of silos whose noise alone must reach the variance of every block.

    Of the fewest survivors, asked - d at least, up to a collude and may leave their noise out.
    """
    return asked - max_colluding - max_missing


def fewest_noise_shares(asked: int) -> int:
    """Return the least that `noise_shares` can be where the conditions are feasible: what one silo adds is then most.

    At most 2t - n - 1 may collude, and at most n - t be missing.
    """
    return max(1, asked - quorum_of(asked) + 1)


@lru_cache(maxsize=64)
def why_infeasible(asked: int, min_silos: int, max_colluding: int, max_missing: int) -> str:
    """Return why a request to `asked` silos cannot meet these conditions, or an empty string if it can."""
    survivors = fewest_survivors(asked, min_silos, max_colluding, max_missing)
    if asked < survivors:
        return f"{asked} silos would take part and at least {survivors} must"
    if max_colluding > tolerated_collusion(asked):
        return f"{asked} silos withstand {tolerated_collusion(asked)} colluding, a policy asks for {max_colluding}"
    if asked - max_missing < survivors:
        return f"{asked} silos cannot lose {max_missing} and keep {survivors}: max_missing is {max_missing} in a policy"
    if (members := degree_of(asked, max_colluding, max_missing) + 1) > MAX_COMMITTEE:
        return f"{asked} silos that may lose {max_missing} need committees of {members}, at most {MAX_COMMITTEE} can be"
    return ""


def why_too_few(present: int, asked: int, min_silos: int, max_colluding: int, max_missing: int) -> str:
    """Return why the silos that are left of those asked are too few, or an empty string if they are enough."""
    survivors = fewest_survivors(asked, min_silos, max_colluding, max_missing)
    if present < survivors:
        return f"{present} of the {asked} silos that were asked are left, and at least {survivors} must be"
    return ""


def silos_needed(asked: int, min_silos: int, max_colluding: int, max_missing: int) -> int | None:
    """Return the least number of silos, `asked` or more, that meet these conditions; None if no number does."""
    # Two thirds and one more must survive, so more than three times those that may be missing or collude are enough.
    most = max(asked, 3 * (max_missing + 2), 3 * (max_colluding + 2), max_colluding + max_missing + 2) + min_silos
    conditions = min_silos, max_colluding, max_missing
    return next((count for count in range(asked, most + 1) if not why_infeasible(count, *conditions)), None)


def missing_borne(asked: int, min_silos: int, max_colluding: int, max_missing: int) -> int | None:
    """Return the largest max_missing, this or less, with which `asked` silos meet the other conditions; None if none.

    It is a remedy where policies allow more to be missing than so few silos can lose.
    """
    counts = range(max_missing, -1, -1)
    return next((count for count in counts if not why_infeasible(asked, min_silos, max_colluding, count)), None)
