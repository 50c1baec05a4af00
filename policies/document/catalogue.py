"""What a policy opens, as its silo publishes it: never a closed column, never a name or unit of the file."""

from decimal import Decimal

from policies.document.columns import Column, Source
from policies.document.consistency import BUILT_AGGREGATES
from policies.document.policy import Analyst, Policy
from policies.periods import UNKNOWN, periods
from policies.requests.catalogue import Catalogue, OpenColumn, OpenTable
from policies.requests.tables import TableColumn


def open_tables(policy: Policy, now: int = 0) -> tuple[OpenTable, ...]:
    """Return what the policy opens at `now`; a column without a role is not mentioned."""
    return tuple(
        OpenTable(
            name=name,
            columns=tuple(
                OpenColumn(column=published(key, column, source, now), roles=column.roles, unit=column.unit)
                for key, column in source.columns.items()
                if column.roles and column.domain != "discover"
            ),
        )
        for name, source in policy.sources.items()
    )


def catalogue_of(
    policy: Policy, analyst: Analyst, federation: str, policy_hash: bytes, nonce: bytes, now: int = 0
) -> Catalogue:
    """Return what the policy opens to one of its analysts at `now`; of what it names, what can be asked for."""
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
    )


def published(name: str, column: Column, source: Source, now: int, slack_days: int = 0) -> TableColumn:
    """Return the definition of a column at `now`: of a date the periods that its source still reads."""
    if column.type == "date":
        found: tuple[str, ...] = ()
        if column.granularity is not None and source.lookback_days is not None:
            found = (*periods(column.granularity, source.lookback_days + slack_days, now), UNKNOWN)
        return TableColumn(name=name, type="date", domain=found, unknown=UNKNOWN if found else None)
    has_range = column.type == "bool" or column.bounds is not None
    low, high = column.range_steps
    return TableColumn(
        name=name,
        type=column.type,
        low=low if has_range else None,
        high=high if has_range else None,
        step=f"{Decimal(column.grid).normalize():f}" if has_range else None,
        domain=tuple(str(value) for value in column.values),
        unknown=None if column.unknown is None else str(column.unknown),
    )
