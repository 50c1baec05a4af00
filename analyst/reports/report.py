"""An opened report: values with their intervals, what was withheld, and what it cost.

Every figure is computed from the released (noisy) sums alone, so nothing here costs privacy.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from analyst.reports.estimates import Estimate
from policies.requests.denials import Denial


@dataclass(frozen=True, slots=True)
class SiloOutcome:
    """What one silo did: "answered", "dropped", "denied" or "missing"; `consent_as_of` in seconds since 1970."""

    status: str
    policy_hash: str | None
    denials: tuple[Denial, ...] = ()
    consent_as_of: int | None = None  # the clock time at which it read who consents, where the purpose asks that


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one question."""

    columns: tuple[str, ...]
    dimensions: Mapping[str, str]  # which of them are groups, and the table's column of each
    rows: tuple[Mapping[str, Estimate | str | int], ...]
    withheld_groups: tuple[Mapping[str, str | int], ...]
    rho: float
    epsilon: float
    delta: float
    silos: Mapping[str, SiloOutcome]
    transcript: str  # the name of the encrypted report: the SHA-256 of all of it but its sum, which it binds
    assumptions: tuple[str, ...]
    wrong: tuple[str, ...] = ()  # silos whose sum contradicted the others' and was left out, in the backend `shares`

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values; docs/commands.md describes them."""
        return {
            "columns": list(self.columns),
            "dimensions": dict(self.dimensions),
            "rows": [
                {name: asdict(cell) if isinstance(cell, Estimate) else cell for name, cell in row.items()}
                for row in self.rows
            ],
            "withheld_groups": [dict(group) for group in self.withheld_groups],
            "rho": self.rho,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "silos": {
                silo: {
                    "status": outcome.status,
                    "policy_hash": outcome.policy_hash,
                    "denials": [denial.model_dump() for denial in outcome.denials],
                    "consent_as_of": None if outcome.consent_as_of is None else iso(outcome.consent_as_of),
                }
                for silo, outcome in self.silos.items()
            },
            "transcript": self.transcript,
            "assumptions": list(self.assumptions),
            "wrong": list(self.wrong),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_records(self) -> list[dict[str, Any]]:
        """Return flat rows: an aggregate `n` becomes n, n_low, n_high and n_sd."""
        records = []
        for row in self.rows:
            record: dict[str, Any] = {}
            for name, cell in row.items():
                if isinstance(cell, Estimate):
                    record |= {
                        name: cell.value,
                        f"{name}_low": cell.low,
                        f"{name}_high": cell.high,
                        f"{name}_sd": cell.sd,
                    }
                else:
                    record[name] = cell
            records.append(record)
        return records

    def field_names(self) -> list[str]:
        """Return the column names of `to_records`, also when no row is left."""
        return [
            field
            for name in self.columns
            for field in ([name] if name in self.dimensions else [name, f"{name}_low", f"{name}_high", f"{name}_sd"])
        ]

    def to_arrow(self) -> Any:
        """Return a pyarrow.Table of `to_records`."""
        import pyarrow as pa

        records = self.to_records()
        return pa.table({name: [record[name] for record in records] for name in self.field_names()})

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame of `to_records`."""
        return self.to_arrow().to_pandas()


def iso(seconds: int) -> str:
    """Return a time (seconds since 1970) as ISO 8601 in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def between(times: Collection[int]) -> str:
    """Return the times, seconds since 1970, as one or as the first and the last of them."""
    return " to ".join(iso(time) for time in sorted({min(times), max(times)}))
