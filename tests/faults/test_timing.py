"""What time tells of one person: a share of what `make faults` measures."""

from pathlib import Path

import pytest

from tests.faults.timing import MOST_MISSED, Trial, observed

pytestmark = [pytest.mark.server, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(900)]
EACH, MOST_AUC = 100, 0.62
TRIALS = 3


def test_nothing_that_an_aggregator_sees_tells_whether_a_heavy_customer_is_in(founded: Path, tmp_path: Path) -> None:
    """Hope: one question shows by the time of the contribution who is in (it did, with an AUC of 0.98).

    Of 100 pairs drawn by chance one in 250 exceeds 0.62, so it must be exceeded in every trial; in one with more misses
    than 1 % the machine was too busy for it to say anything.
    """
    with observed(tmp_path, founded) as one:
        assert one.computing(15) > 0.9, "the computing itself tells it"
        trials: list[Trial] = []
        while len(trials) < TRIALS:
            trials.append(one.trial(EACH))
            if trials[-1].miss_rate <= MOST_MISSED and max(trials[-1].aucs.values()) <= MOST_AUC:
                return
    said = [(round(trial.miss_rate, 3), trial.aucs) for trial in trials]
    if all(trial.miss_rate > MOST_MISSED for trial in trials):
        pytest.skip(f"this machine is too busy for a deadline of 125 ms: {said}")
    raise AssertionError(said)
