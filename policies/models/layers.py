"""What a network is, line by line, for its card and for whoever is shown it: its layers, where its weights began."""

from collections.abc import Iterator

from policies.models.forms import Form
from policies.models.network import Network
from policies.models.record import RunRecord
from policies.networks.names import NETWORKS
from policies.networks.words import described
from policies.requests.exact import FamilyStep
from policies.requests.networks import graph_of


def layers_of(record: RunRecord | None, form: Form | None) -> tuple[str, ...]:
    """Return the lines of a network; none of any other model, or of a packed one whose file is not here."""
    plan = None if record is None else record.plan
    if record is None or not isinstance(plan, FamilyStep) or plan.family not in NETWORKS:
        return ()
    return tuple(_lines(plan, record, form))


def _lines(plan: FamilyStep, record: RunRecord, form: Form | None) -> Iterator[str]:
    is_packed = plan.settings.get("weights") == "packed"
    yield f"weights began {'as they were packed' if is_packed else 'with numbers that follow from the run'}"
    if isinstance(form, Network):
        yield from described(form.graph)
        return
    try:
        yield from described(graph_of(plan.task(record.table)))
    except ValueError:
        yield f"the packed network {plan.settings.get('graph', '')} is not here"
