"""How many silos may collude, drop out and must survive: docs/protocol.md section 4."""

from crypto.rounds.committees import quorum_of

MIN_SURVIVORS = 3


def tolerated_collusion(silos: int) -> int:
    """Return how many silos may collude with the aggregator: min(2t - n - 1, t - 2), never negative.

    With more than 2t - n - 1 colluders two different splits could gather a quorum; with more than t - 2 the colluders
    and the one opened share of an honest silo would rebuild a secret.
    """
    quorum = quorum_of(silos)
    return max(0, min(2 * quorum - silos - 1, quorum - 2))


def fewest_survivors(quorum: int, min_silos: int, max_colluding: int) -> int:
    """Return how many contributions a sum must hold before anybody may open it."""
    return max(quorum, max_colluding + 2, min_silos, MIN_SURVIVORS)


def why_infeasible(silos: int, min_silos: int, max_colluding: int, max_missing: int) -> str:
    """Return why a roster of `silos` cannot bear these conditions, or an empty string."""
    survivors = fewest_survivors(quorum_of(silos), min_silos, max_colluding)
    if silos < survivors:
        return f"{silos} silos would take part and at least {survivors} must"
    if max_colluding > tolerated_collusion(silos):
        return f"{silos} silos withstand {tolerated_collusion(silos)} colluding, a policy asks for {max_colluding}"
    if silos - max_missing < survivors:
        return f"{silos} silos cannot lose {max_missing} and keep {survivors}"
    return ""
