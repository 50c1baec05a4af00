"""A model as its silo's owner sees it, line by line."""

from collections.abc import Iterator

from policies.models.shown import fitted_lines
from policies.units import counted
from silo_node.training.run import FamilyModel, RunState

_NAME = 32
DIVERGED = "stopped: the weights grew without end; these are the last good ones; ask with a smaller learning_rate"


def shown(state: RunState) -> Iterator[str]:
    """Yield the lines of `consilo-silo models` for one run, after its first."""
    if state.exact is not None:
        yield from _exact(state, state.exact)
    else:
        yield from _descent(state)
    for audit in state.audits:
        whose = "who is held out" if audit.is_held_out else "all rows"
        by = f"audited by {' and '.join(audit.groups)}" if audit.groups else "scores and features counted"
        yield f"  {by}, by {whose} (run {audit.run.hex()}){':' if audit.gaps else ''}"
        for gap in audit.gaps:
            yield f"  {gap.measure:<{_NAME}} {gap.value:>10.4f} ({gap.low:.4f} to {gap.high:.4f})"


def _descent(state: RunState) -> Iterator[str]:
    yield f"  log-odds of {state.label} in {state.table}, asked by {state.analyst}"
    if state.ended == "diverged":
        yield f"  {DIVERGED}"
    for name, value in state.coefficients().items():
        yield f"  {name:<{_NAME}} {value:>10.4f}"


def model_fields(state: RunState) -> dict[str, object]:
    """Return a model for programs."""
    model, audits = state.exact, [audit.model_dump(mode="json", exclude={"fitted"}) for audit in state.audits]
    beside: dict[str, object] = {"audits": audits} if audits else {}
    if model is None:
        return {"coefficients": state.coefficients(), **beside}
    return {"model": model.family, "ended": model.ended, **model.fitted.model_dump(), **beside}


def _exact(state: RunState, model: FamilyModel) -> Iterator[str]:
    of = f" of {state.label}" if state.label else ""
    yield f"  {model.family}{of} in {state.table}, asked by {state.analyst}: {model.ended or _progress(state)}"
    yield from fitted_lines(model.fitted)


def _progress(state: RunState) -> str:
    """Return where a run stands that has no end of its own: one with noise is complete with its last step."""
    if state.release == "private":
        return f"{state.done} of {counted(state.steps, 'step')}"
    return "not at its end"
