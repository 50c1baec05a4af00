"""The public part of a policy: its open tables and columns, without closed columns or the files' names and units."""

import json
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256

from policies.document.columns import Column, Source
from policies.document.consistency import BUILT_AGGREGATES, Finding
from policies.document.policy import Analyst, Policy
from policies.domains import LongDomain, digest_in, hash_of
from policies.periods import UNKNOWN, periods
from policies.requests.catalogue import Catalogue, OpenColumn, OpenTable
from policies.requests.tables import TableColumn


def open_tables(policy: Policy, now: int = 0) -> tuple[OpenTable, ...]:
    """Return what the policy opens at `now`; a column without a role is not mentioned."""
    return tuple(
        OpenTable(
            name=name,
            columns=tuple(
                OpenColumn(
                    column=published(key, column, source, now),
                    roles=column.open_roles,
                    unit=column.unit,
                    narrow=column.narrow,
                    keys=None if column.keys is None else column.keys.shape,
                )
                for key, column in source.columns.items()
                if column.open_roles
            ),
            definition=digest_in(definition_of(policy, name)),
            rows_up_to=source.rows_up_to,
            one_row=source.one_row,
        )
        for name, source in policy.sources.items()
    )


def definition_of(policy: Policy, name: str) -> str:
    """Return the hash of a table definition: of the open columns' names and meaning, and a person's rows and norm.

    It is the same at all silos that define the table alike, on every day, and says nothing of roles.
    """
    source = policy.sources[name]
    columns = [
        (published(key, column, source, 0).model_dump(mode="json", exclude={"domain"}), _values_of(column, source))
        for key, column in sorted(source.columns.items())
        if column.open_roles
    ]
    unit = policy.privacy_unit
    rows = unit.max_rows if unit.max_norm is None else [unit.max_rows, unit.max_norm]
    text = json.dumps([name, rows, columns], separators=(",", ":"))
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def _values_of(column: Column, source: Source) -> str:
    """Return what tells the values of a column: a calendar by how far back it goes, a list by its hash."""
    if column.type == "date":
        return f"{column.granularity} {source.lookback_days}"
    listed = column.listed
    return listed.name if isinstance(listed, LongDomain) else hash_of(listed)


def not_adopted(policy: Policy) -> Iterator[Finding]:
    """Yield every source that defines its table otherwise than the definition that it adopts."""
    for name, source in policy.sources.items():
        if source.adopts is not None and source.adopts != (own := definition_of(policy, name)):
            text = f"the columns here give another table definition, {own}; mend them, or adopt that one"
            yield Finding(("sources", name, "adopts"), text)


def catalogue_of(
    policy: Policy, analyst: Analyst, federation: str, policy_hash: bytes, nonce: bytes, now: int = 0
) -> Catalogue:
    """Return what the policy opens to one of its analysts at `now`, limited to what this version can compute."""
    least, most = policy.budget.request_micro
    disclosure, protection, unit = policy.disclosure, policy.protection, policy.privacy_unit
    return Catalogue(
        federation=federation,
        nonce=nonce,
        controller=policy.silo.controller,
        sector=policy.silo.sector,
        policy_hash=policy_hash,
        policy_version=policy.policy.version if policy.policy else 0,
        entity=unit.entity,
        id_column=unit.id_column,
        max_rows=unit.max_rows,
        max_silos=unit.max_silos,
        tables=open_tables(policy, now),
        purposes=analyst.purposes,
        aggregates=tuple(one for one in disclosure.aggregates if one in BUILT_AGGREGATES),
        backends=protection.accept,
        delta=str(policy.budget.delta),
        min_micro_rho=least,
        max_micro_rho=most,
        max_dimensions=disclosure.max_dimensions,
        max_groups=disclosure.max_groups,
        min_cohort=disclosure.min_cohort,
        min_silos=disclosure.min_silos,
        max_colluding=protection.max_colluding,
        max_missing=protection.max_missing,
        max_norm=unit.max_norm,
        own_metrics=disclosure.own_metrics,
    )


def published(name: str, column: Column, source: Source, now: int, slack_days: int = 0) -> TableColumn:
    """Return the definition of a column at `now`; a date column has the periods that its source still reads."""
    if column.type == "date":
        found: tuple[str, ...] = ()
        if column.granularity is not None and source.lookback_days is not None:
            found = (*periods(column.granularity, source.lookback_days + slack_days, now), UNKNOWN)
        return TableColumn(name=name, type="date", domain=found, unknown=UNKNOWN if found else None)
    return defined(name, column)


def defined(name: str, column: Column) -> TableColumn:
    """Return the definition of a column that is no date, which is the same on every day."""
    has_range = column.type == "bool" or column.bounds is not None
    low, high = column.range_steps
    return TableColumn(
        name=name,
        type=column.type,
        low=low if has_range else None,
        high=high if has_range else None,
        step=f"{Decimal(column.grid).normalize():f}" if has_range else None,
        domain=column.listed,
        unknown=None if column.unlisted is None else str(column.unlisted),
        can_be_missing=not (has_range and column.is_always_there),
        shape=column.shape or (),
        of=column.of,
    )
