"""An opened report: values with their intervals, the withheld groups, and the cost.

Every figure is computed from the released (noisy) sums alone, so nothing here costs privacy.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from analyst.reports.cut import Cut
from analyst.reports.derived import Cell
from analyst.reports.estimates import Label, Threshold
from analyst.reports.table import Answered, Tabular, table_dict
from crypto.errors import WireError
from policies.requests.denials import Denial
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
class Report(Tabular):
    """The answer to one question, or to several: then it has `tables`, one a statement, and no rows of its own."""

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
    tables: tuple[Answered, ...] = ()  # of several statements
    branches: tuple[Answered, ...] = ()  # of a UNION ALL

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values; docs/commands.md describes them."""
        found = {"tables": [one.to_dict() for one in self.tables]} if self.tables else table_dict(self)
        first = ("tables", "columns", "dimensions", "rows", "withheld_groups", "threshold")
        return {
            **{name: found[name] for name in first if name in found},
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
            **{name: value for name, value in found.items() if name not in first},
            "request": self.request,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


@cache
def _whole() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def encoded(report: Report) -> bytes:
    """Return a report as the bytes in which it is kept."""
    empty = {name for name in ("tables", "branches") if not getattr(report, name)}  # as answers always were
    return _whole().dump_json(report, exclude=empty)


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
