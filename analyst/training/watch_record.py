"""What one look at a model found, as one line of a file: gaps, a metric, drift since the first look, and alarms. Pure.

The first look at a run is the reference of its drift. A look that failed is a line too, and counts as paid: nobody can
tell from an error that no silo had charged it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from analyst.training.audit_job import AuditJob
from analyst.training.metrics import Metric
from analyst.training.watch_job import WatchJob
from policies.fairness.drift import Drift, drift
from policies.fairness.gaps import MEASURES
from policies.fairness.limit import judged_gap
from policies.fairness.shares import Interval
from policies.fitted import Fitted, Listing, known
from policies.requests.metrics import RISING
from policies.units import when

SCHEMA = "consilo-watch/1"
Bins = Mapping[str, tuple[float, ...]]  # rows in the bins of the scores, and of each feature


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a model."""

    run: str
    at: int  # seconds since 1970
    rho: float = 0.0  # what it cost to each person, at most
    gaps: Mapping[str, Interval] = field(default_factory=dict)
    metric: Metric | None = None
    drift: Mapping[str, Drift] = field(default_factory=dict)  # of "scores", and by feature
    bins: Bins = field(default_factory=dict)
    variances: tuple[float, float] = (0.0, 0.0)  # of the noise of a bin of scores, and of one of a feature
    alarms: tuple[str, ...] = ()
    error: str = ""

    def line(self) -> str:
        """Return it as a line of JSON."""
        found = {"schema": SCHEMA, **asdict(self), "at": when(self.at)}
        found["gaps"] = {name: [known(end) for end in one] for name, one in _ends(self.gaps)}
        return json.dumps(found, allow_nan=False) + "\n"


def _ends(gaps: Mapping[str, Interval]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    for name, one in gaps.items():
        yield name, (one.value, one.low, one.high)


def bins_in(found: Fitted) -> tuple[Bins, tuple[float, float]]:
    """Return the bins of scores and features that an audit has, and the variances of their noise."""
    by_name = {listing.name: listing for listing in found.listings}
    bins = {"scores": _rows(by_name["scores"])} if "scores" in by_name else {}
    features: dict[str, list[float]] = {}
    for line in by_name["features"].lines if "features" in by_name else ():
        features.setdefault(line.name.partition(":")[0], []).append(line.values[0] or 0.0)
    figures = {line.name: line.values[0] or 0.0 for line in found.figures}
    variances = figures.get("variance of scores", 0.0), figures.get("variance of features", 0.0)
    return bins | {name: tuple(rows) for name, rows in features.items()}, variances


def _rows(listing: Listing) -> tuple[float, ...]:
    return tuple(line.values[0] or 0.0 for line in listing.lines)


def gaps_in(found: Fitted) -> Mapping[str, Interval]:
    """Return the gaps of an audit by their measures."""
    return {
        line.name: Interval(*(float("nan") if one is None else one for one in line.values))
        for listing in found.listings[:1]
        for line in listing.lines
        if line.name in MEASURES
    }


def drifts(reference: Look, now: Look) -> Mapping[str, Drift]:
    """Return the drift of scores and features since the reference, of those that both have."""
    found = {}
    for name, bins in now.bins.items():
        before = reference.bins.get(name)
        if before is not None and len(before) == len(bins):
            own = int(name != "scores")
            noise = reference.variances[own], now.variances[own]
            found[name] = drift(np.array(before), np.array(bins), *noise)
    return found


def alarms(look: Look, watch: WatchJob, audit: AuditJob) -> Iterator[str]:
    """Yield what is beyond the limits of a job. Drift counts above what chance and noise alone would add."""
    if audit.limit is not None and (why := judged_gap(look.gaps, (audit.limit.limit,))) is not None:
        yield why
    for name, one in look.drift.items():
        if watch.max_drift is not None and one.index - one.floor > float(watch.max_drift):
            yield f"drift of {name}: {one.index:.3f}, of which chance adds about {one.floor:.3f}"
    if watch.metric is not None and watch.bound is not None:
        value = None if look.metric is None else look.metric.value
        is_worse = value is not None and (value < float(watch.bound)) == (watch.metric in RISING)
        if value is None or (is_worse and value != float(watch.bound)):
            shown = "unknown" if value is None else f"{value:.4f}"
            yield f"{watch.metric} is {shown}, beyond watch.bound = {watch.bound}"


def read_looks(text: str, run: str) -> Sequence[Look]:
    """Return the looks at a run among the lines of a file; raises ValueError for what is no line of one."""
    found = []
    for line in text.splitlines():
        fields: Mapping[str, Any] = json.loads(line)
        if fields.get("schema") != SCHEMA:
            raise ValueError(f"expected lines of {SCHEMA}, found {line[:60]!r}")
        if fields["run"] != run:
            continue
        bins = {name: tuple(rows) for name, rows in fields["bins"].items()}
        first, second = fields["variances"]
        look = Look(run=run, at=0, rho=fields["rho"], bins=bins, variances=(first, second), error=fields["error"])
        found.append(look)
    return found
