"""What an analyst is told at the end of a run; the silos' owners see more."""

from collections.abc import Mapping
from types import MappingProxyType

from analyst.training.job import Job
from crypto.rounds.messages import RunEnd

ENDS: Mapping[RunEnd, str] = MappingProxyType(
    {
        "complete": "complete: another step would change nothing that can be told",
        "no-maximum": "no maximum: a feature tells the labels apart, or who has the event first, or a label is the same"
        " in all rows, so weights would grow without end; the owners see which with `consilo-silo models`: leave it"
        " out, or merge its values",
        "diverged": "stopped: the loss grew or was not finite, and the last good model stands; narrow the bounds of"
        " features and labels, ask with another label, or with a smaller options.step where the job names one",
        "abandoned": "over: it was given up, or lay for more than 30 days, so no silo takes a further step of it",
        "patience": "ended by patience: the metric of the job grew no better, and the model of the last round stands",
        "too-few-rows": "too few rows: a model needs more rows than weights, one of times more events, and groups and"
        " curves min_cohort persons; take fewer features, or ask more silos",
    }
)

# The same of a run by descent, which has a rate, and of one with noise, which is judged from opened sums alone.
DESCENT_ENDS: Mapping[RunEnd, str] = MappingProxyType(
    {
        "diverged": "stopped: the weights grew without end, and the last good model stands; ask with a smaller {rate},"
        " with more {rounds} to arrive where it went",
        "too-few-rows": "too few persons for this price: what was counted is not above its noise, or the noise is not"
        " small beside what the features tell apart; ask more silos, take fewer features, or a larger epsilon",
    }
)


def why_ended(ended: RunEnd, job: Job) -> str:
    """Return why a run is at its end, with what to do about it."""
    if job.is_exact_family or ended not in DESCENT_ENDS:
        return ENDS[ended]
    rate, rounds = ("options.rate", "rounds") if job.is_noised_family else ("learning_rate", "steps")
    return DESCENT_ENDS[ended].format(rate=rate, rounds=rounds)
