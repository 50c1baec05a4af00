"""Judge each statement of a request as if it were asked alone, so that several at once are no way around a rule."""

from collections.abc import Sequence

from policies.decision.case import Case, Rule
from policies.requests.denials import MAX_MESSAGE, Denial


def each(rule: Rule) -> Rule:
    """Return the rule that every statement meets the given one; a denial says of which statement it is."""

    def judged(case: Case) -> Sequence[Denial]:
        if not case.facts.parts:
            return rule(case)
        found: list[Denial] = []
        for place, (request, facts) in enumerate(case.facts.parts, 1):
            for one in rule(case.about(request, facts)):
                found.append(one.model_copy(update={"message": f"statement {place}: {one.message}"[:MAX_MESSAGE]}))
        return found

    return judged
