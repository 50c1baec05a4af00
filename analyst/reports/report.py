"""An opened report: values with their intervals, the withheld groups, and the cost.

Every figure is computed from the released (noisy) sums alone, so nothing here costs privacy.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from analyst.reports.cut import Cut, definition_in_words
from analyst.reports.derived import Cell
from analyst.reports.estimates import Estimate, Label, Threshold
from crypto.errors import WireError
from federation.terminal import plain
from policies.requests.denials import Denial
from policies.requests.query import field_names
from policies.units import when


@dataclass(frozen=True, slots=True)
class SiloOutcome:
    """The part of one silo; times are in seconds since 1970.

    "answered"; "denied" by its policy; "unable" to take part, whatever its policy says; "dropped" out in mid-round;
    "left out", as its answer was of no use; "missing", as it did not answer.
    """

    status: str
    policy_hash: str | None
    denials: tuple[Denial, ...] = ()
    consent_as_of: int | None = None  # the clock time at which it read decisions on consent, if the purpose needs them
    rows_as_of: int | None = None  # when the files of its prepared rows were last seen unchanged


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one question."""

    columns: tuple[str, ...]
    dimensions: Mapping[str, str]  # the output columns that are groups, with the table's column of each
    rows: tuple[Mapping[str, Cell], ...]
    withheld_groups: tuple[Mapping[str, Label], ...]
    threshold: Threshold  # by which they are withheld
    rho: float
    epsilon: float
    delta: float
    silos: Mapping[str, SiloOutcome]
    transcript: str  # the name of the encrypted report: the SHA-256 of its header, which binds the sum
    assumptions: tuple[str, ...]
    wrong: Mapping[str, str] = field(default_factory=dict)  # by silo, what it sent wrongly and was passed over
    cut: Cut | None = None  # what bounding cut; None where the question did not ask
    definition: Mapping[str, Any] = field(default_factory=dict)  # that the answer was given by
    after: str = ""  # the SQL that made the rows of the silos' figures, on the table `released`; empty: they are these
    labels: tuple[str, ...] = ()  # output columns that are no figures and no groups
    told: tuple[str, ...] = ()  # how sure labels are that depend on noisy figures; medians and tests of curves in words
    # Of survival curves the median of each group, and the log-rank test.
    curves: Annotated[Mapping[str, Any], Field(exclude_if=lambda curves: not curves)] = field(default_factory=dict)
    request: str = ""  # the SHA-256 of the request, by which the report is found: a kept answer's name

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
            "threshold": asdict(self.threshold),
            "rho": self.rho,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "silos": {
                silo: {
                    "status": outcome.status,
                    "policy_hash": outcome.policy_hash,
                    "denials": [denial.model_dump() for denial in outcome.denials],
                    "consent_as_of": None if outcome.consent_as_of is None else when(outcome.consent_as_of),
                    "rows_as_of": None if outcome.rows_as_of is None else when(outcome.rows_as_of),
                }
                for silo, outcome in self.silos.items()
            },
            "transcript": self.transcript,
            "assumptions": list(self.assumptions),
            "wrong": dict(self.wrong),
            "cut": None if self.cut is None else self.cut.to_dict(),
            "definition": dict(self.definition),
            "after": self.after,
            "labels": list(self.labels),
            "told": list(self.told),
            **({"curves": dict(self.curves)} if self.curves else {}),
            "request": self.request,
        }

    def notes(self) -> list[str]:
        """Return what a reader of the figures must know of them: what was cut, and the definition."""
        told = [*self.told, *([] if self.cut is None else self.cut.in_words())]
        return told + ([f"by definition: {plain(definition_in_words(self.definition))}"] if self.definition else [])

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_records(self) -> list[dict[str, Any]]:
        """Return flat rows: an aggregate `n` becomes n, n_low, n_high and n_sd."""
        records = []
        for row in self.rows:
            record: dict[str, Any] = {}
            for name, cell in row.items():
                if self._is_flat(name):
                    record[name] = cell
                else:
                    found = (cell.value, cell.low, cell.high, cell.sd) if isinstance(cell, Estimate) else (None,) * 4
                    record |= zip(field_names(name), found, strict=True)
            records.append(record)
        return records

    def _is_flat(self, name: str) -> bool:
        return name in self.dimensions or name in self.labels

    def field_names(self) -> list[str]:
        """Return the column names of `to_records`, also if there are no rows."""
        return [field for name in self.columns for field in ([name] if self._is_flat(name) else field_names(name))]

    def to_arrow(self) -> Any:
        """Return a pyarrow.Table of `to_records`."""
        import pyarrow as pa

        records = self.to_records()
        return pa.table({name: [record[name] for record in records] for name in self.field_names()})

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame of `to_records`; its `attrs` have what was cut, the definition, tests of curves."""
        frame = self.to_arrow().to_pandas()
        found = {"notes": self.notes(), **self.to_dict()}
        frame.attrs |= {name: found[name] for name in ("notes", "cut", "definition", "curves") if name in found}
        return frame


@cache
def _whole() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def encoded(report: Report) -> bytes:
    """Return a report as the bytes in which it is kept."""
    return _whole().dump_json(report)


def decoded(data: bytes) -> Report:
    """Return a report from the bytes in which it was kept; raises WireError."""
    try:
        report = _whole().validate_json(data)
        canonical = encoded(report)
    except ValidationError as err:
        raise WireError(f"not a kept answer: it is wrong in {err.error_count()} places") from None
    except (ValueError, RecursionError):
        raise WireError("not a kept answer: it cannot be encoded again") from None
    if canonical != data:
        raise WireError("not a kept answer in its one encoding")
    return report


def between(times: Collection[int]) -> str:
    """Return a text with the only time, or with the first and the last one; times are seconds since 1970."""
    return " to ".join(when(time) for time in sorted({min(times), max(times)}))
