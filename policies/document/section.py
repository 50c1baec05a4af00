"""The root of every section of a policy, and the types that sections share."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from policies.units import Number

Rho = Annotated[Number, Field(ge=Decimal("0.000001"), le=100)]
Label = Annotated[str, Field(min_length=1, max_length=120)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Days = Annotated[int, Field(ge=1, le=36_500)]
# An analyst, or with *@ whoever of a domain holds the one key; they share what one analyst may spend.
AnalystName = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^(\*@)?[A-Za-z0-9][A-Za-z0-9._@+/-]*$")]
Computation = Literal[
    "query", "logistic-regression", "linear-regression", "gradient-boosting", "k-means", "cox", "neural-network"
]
AggregateName = Literal["count", "sum", "avg", "var", "histogram", "quantile"]


class Section(BaseModel):
    """Root of every policy section: immutable, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
