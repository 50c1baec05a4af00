"""What coded rows contribute to a request of one question or of several, whose rows were read and coded once.

Pure, as `silo_node.data.answer` is. All questions of a request draw the same lots, so the same rows of a person enter
where they have the same filter and groups.
"""

from policies.requests.request import Request
from silo_node.data import answer, prefixes
from silo_node.data.coded import Bools, Rows
from silo_node.data.lots import Lots


def contributed(
    rows: Rows, request: Request, is_in: Bools | None, lots: Lots, max_groups: int | None
) -> answer.Vectors:
    """Return one vector per statistic of a request, block by block; see `answer.question` and `prefixes.counted`."""
    if request.plan.search is not None:
        return prefixes.counted(rows, request, is_in, lots, max_groups)
    return [
        vector
        for plan in request.plan.blocks
        for vector in answer.question(rows, request.model_copy(update={"plan": plan}), is_in, lots, max_groups)
    ]
