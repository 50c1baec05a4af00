"""The model that a run begins with: which one a job names, and what it had cost the same persons."""

from analyst.client import Federation
from analyst.errors import AnalystError
from analyst.training.registry import Registry, RunEntry
from policies.requests.beginning import Begins
from policies.requests.exact import FamilyStep


def begins_of(federation: Federation, name: str) -> Begins:
    """Return the model of a run in this analyst's registry; raises AnalystError where it has none."""
    entry = _entry(federation, name)
    if entry.position is None:
        raise AnalystError(f"the run {entry.name[:12]} has no model yet", "train it to its end, or name another run")
    return Begins(run=entry.run, position=entry.position)


def beginning_in_words(federation: Federation, name: str) -> str:
    """Return which model a run begins with, and what it had cost; raises AnalystError where there is none."""
    entry = _entry(federation, name)
    step = entry.first().plan.training
    what = step.opened_as if isinstance(step, FamilyStep) else "model"
    if (price := entry.price) is None:
        cost = "it was trained without noise, so nothing is promised of it to anybody"
    else:
        cost = f"it had cost the same persons epsilon {price.epsilon:.3g} (rho {price.rho:.4g}), to which this run adds"
    return f"begins with the weights of run {entry.name[:12]}, a {what} after {entry.done} rounds; {cost}"


def _entry(federation: Federation, name: str) -> RunEntry:
    entry = Registry(federation.config.path.parent).entry(name)
    entry.check_model()
    if entry.goes_on_as is not None:
        raise AnalystError(f"the run {entry.name[:12]} {entry.state}", "name that run")
    return entry
