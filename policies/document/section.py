"""The root of every section of a policy, and the types that sections share."""

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticKnownError

from policies.requests.computations import OPENED
from policies.units import DAY_S, HOUR_S, MINUTE_S, Number

Rho = Annotated[Number, Field(ge=Decimal("0.000001"), le=100)]
Label = Annotated[str, Field(min_length=1, max_length=120)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Days = Annotated[int, Field(ge=1, le=36_500)]


def _power_of_two(number: int) -> int:
    if number & (number - 1):
        message = f"it is public, so it is a power of two; the next is {1 << number.bit_length()} (found {number})"
        raise ValueError(message)
    return number


PowerOfTwo = Annotated[int, Field(ge=1, le=2**40), AfterValidator(_power_of_two)]
# An analyst, or with *@ all of a domain who use one key; they share the budget of one analyst.
AnalystName = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^(\*@)?[A-Za-z0-9][A-Za-z0-9._@+/-]*$")]
# What a policy may open: what requests can ask for, and names of what no version can do yet.
COMPUTATION_NAMES = (
    "query",
    *sorted({*OPENED - {"query"}, "gradient-boosting", "neural-network"}),
)


def _computation(name: str) -> str:
    if name not in COMPUTATION_NAMES:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, COMPUTATION_NAMES))})
    return name


ComputationName = Annotated[
    str, AfterValidator(_computation), WithJsonSchema({"enum": list(COMPUTATION_NAMES), "type": "string"})
]
AggregateName = Literal["count", "sum", "avg", "var", "covar", "corr", "regr", "histogram", "quantile", "survival"]
# Of `policies.fairness.gaps.MEASURES`, which loads numpy.
MeasureName = Literal["demographic-parity", "disparate-impact", "equal-opportunity", "equalized-odds", "calibration"]


def _check_duration(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,3}[smhd]", text):
        raise ValueError(f'{text[:40]!r} is no duration; write 1 to 9999 and s, m, h or d, such as "30m" or "7d"')
    return text


Duration = Annotated[str, AfterValidator(_check_duration)]
_SECONDS = {"s": 1, "m": MINUTE_S, "h": HOUR_S, "d": DAY_S}


def seconds_of(duration: str) -> int:
    """Return a duration in seconds."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


class Section(BaseModel):
    """Root of every policy section: immutable, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
