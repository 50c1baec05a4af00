"""A model as its silo's owner sees it, line by line."""

from collections.abc import Iterator

from policies.models.shown import fitted_lines
from silo_node.training.run import ExactModel, RunState

_NAME = 32


def shown(state: RunState) -> Iterator[str]:
    """Yield the lines of `consilo-silo models` for one run, after its first."""
    if state.exact is not None:
        yield from _exact(state, state.exact)
        return
    yield f"  log-odds of {state.label} in {state.table}, asked by {state.analyst}"
    for name, value in state.coefficients().items():
        yield f"  {name:<{_NAME}} {value:>10.4f}"


def model_fields(state: RunState) -> dict[str, object]:
    """Return a model for programs."""
    model = state.exact
    if model is None:
        return {"coefficients": state.coefficients()}
    return {"model": model.family, "ended": model.ended, **model.fitted.model_dump()}


def _exact(state: RunState, model: ExactModel) -> Iterator[str]:
    of = f" of {state.label}" if state.label else ""
    yield f"  {model.family}{of} in {state.table}, asked by {state.analyst}: {model.ended or 'not at its end'}"
    yield from fitted_lines(model.fitted)
