"""Joins of a silo's own tables on the person: which are open, and the columns of both as those of one source.

Rows of one table stand beside the one row of the same person in others, whose policy says that there is one
(`one_row`). So a join makes no more rows than there were, and bounds, prices and sensitivities are those of the table.
"""

from collections.abc import Sequence

from policies.decision.case import Case
from policies.decision.compiled import CompiledPolicy, SourceColumns
from policies.decision.denial_codes import deny
from policies.document.columns import Source
from policies.document.policy import Policy
from policies.requests.denials import Denial
from policies.requests.tables import Table

_KEPT = 32  # pairs of tables of one policy


def joined_source(policy: Policy, table: Table) -> Source:
    """Return a source with the columns of a table and, by TABLE.COLUMN, of those beside it; raises KeyError.

    A date's periods follow from its own table's rows, so a column of dates stands beside no other table.
    """
    source = policy.sources[table.name]
    columns = {name: column for name, column in source.columns.items() if table.origin(name)[0] == table.name}
    for beside in table.beside:
        for name, column in policy.sources[beside].columns.items():
            if column.type != "date":
                columns[f"{beside}.{name}"] = column
    return source.model_copy(update={"columns": columns})


def columns_of(rules: CompiledPolicy, table: Table) -> SourceColumns | None:
    """Return the open columns of a request's table; None if the policy lacks it, or one that it is joined with."""
    if any(name not in rules.policy.sources for name in table.names):
        return None
    if not table.beside:
        return rules.sources[table.name]
    kept = rules.joined.get(table.names)
    if kept is None:
        while len(rules.joined) >= _KEPT:
            rules.joined.pop(next(iter(rules.joined)), None)
        kept = rules.joined[table.names] = SourceColumns(joined_source(rules.policy, table))
    return kept


def open_joins(case: Case) -> Sequence[Denial]:
    """May the tables of a request be joined?"""
    policy, table = case.policy, case.request.table
    reasons: list[Denial] = []
    for name in table.beside:
        source, rule = policy.sources[name], f"sources.{name}"
        if not source.one_row:
            message = (
                f"{name!r} may have several rows of one {policy.privacy_unit.entity}, so it is joined with no other"
            )
            remedy = "ask about each table alone; where there is one row of each, its policy says one_row = true"
            reasons.append(deny("JOIN_CLOSED", f"{rule}.one_row", message, remedy))
        if source.release != "private":
            message = f"the source {name!r} is {source.release}"
            reasons.append(deny("RELEASE", f"{rule}.release", message, "ask about the other table alone"))
    for name in table.names if table.beside else ():
        if policy.sources[name].read == "prepared":
            message = f"{name!r} is prepared, and prepared rows are joined with no others"
            remedy = f"ask about it alone, or {case.compiled.ask_contact} to read it at every request"
            reasons.append(deny("JOIN_CLOSED", f"sources.{name}.read", message, remedy))
    return reasons


def used_joins(case: Case) -> Sequence[Denial]:
    """Is every joined table asked for something that it opens, and not only for who has a row in it?"""
    table, reasons = case.request.table, list[Denial]()
    used = {table.origin(name)[0] for names in case.facts.used.values() for name in names}
    for name in table.beside:
        if name not in used:
            message = f"no column of {name!r} is used, so the join would only tell who has a row there"
            remedy = f"use a column of {name!r}, or ask about the other table alone"
            reasons.append(deny("JOIN_CLOSED", f"sources.{name}.columns", message, remedy))
    return reasons
