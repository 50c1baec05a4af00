"""The purposes of a policy, and the source of each person's decision on consent."""

import difflib
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from crypto.wire import Jurisdiction, Name
from policies.document.cells import CellRules, Csv, Markers
from policies.document.columns import SourceKind, check_dialect, check_uri, kind_of
from policies.document.purpose_codes import ETHICS_APPROVAL, GEOGRAPHICAL, KNOWN
from policies.document.section import ComputationName, Label, PowerOfTwo, Section
from policies.units import Number


class ConsentTable(CellRules):
    """A table of decisions, one row per person, purpose and decision; it is read at every request."""

    mode: Literal["table"]
    source: Annotated[str, Field(min_length=1, max_length=500)]
    subject: Name
    purpose: Name
    given_at: Name
    withdrawn_at: Name
    expires_at: Name | None = None
    receipt_id: Name | None = None
    stale_after_hours: Annotated[Number, Field(gt=0, le=24 * 366)] | None = None
    pattern: bool = False  # whether the source is a pattern of several files' names
    csv: Csv | None = None
    decisions_up_to: PowerOfTwo | None = None  # as many decisions as the declared time of a plan is for
    missing: Literal["exclude"] | Markers = "exclude"  # type: ignore[assignment]  # or the texts of a missing cell
    check: Literal["every-request"] = "every-request"

    @field_validator("source")
    @classmethod
    def _check_source(cls, uri: str) -> str:
        kind = kind_of(uri)
        if kind is None:
            raise ValueError(
                "the decisions must stand in a .parquet or a .csv file, in FILE#TABLE or in env:NAME#TABLE"
            )
        check_uri(kind, uri)
        return uri

    @model_validator(mode="after")
    def _check_dialect(self) -> Self:
        check_dialect(self.kind, self.pattern, self.csv)
        return self

    @property
    def rules(self) -> CellRules:
        """How its cells are written."""
        own = {key: getattr(self, key) for key in CellRules.model_fields}
        return CellRules.model_validate(own if isinstance(self.missing, tuple) else own | {"missing": ("",)})

    @property
    def kind(self) -> SourceKind:
        """The kind of location that has the decisions."""
        kind = kind_of(self.source)
        assert kind is not None  # noqa: S101  as checked above
        return kind


class ConsentColumn(Section):
    """A column of the source has the decision in each row; its feed must not be older than the policy allows."""

    mode: Literal["column"]
    column: Name
    stale_after_hours: Annotated[Number, Field(gt=0, le=24 * 366)]
    missing: Literal["exclude"] = "exclude"
    check: Literal["every-request"] = "every-request"


class Purpose(Section):
    """A use of the data: its computations, its legal basis and consent, its jurisdictions."""

    legal_basis: Literal[
        "consent", "contract", "legal-obligation", "vital-interest", "public-task", "legitimate-interest"
    ]
    consent: Literal["opt-in", "opt-out", "none"] = "none"
    consent_values: Annotated[tuple[Label, ...], Field(min_length=1, max_length=100)] | None = None
    computations: tuple[ComputationName, ...]
    vocabulary: Label | None = None
    ethics_ref: Label | None = None
    # None: any jurisdiction in the roster.
    recipients_in: Annotated[tuple[Jurisdiction, ...], Field(max_length=300)] | None = None

    @field_validator("vocabulary")
    @classmethod
    def _check_vocabulary(cls, word: str | None) -> str | None:
        if word is not None and word not in KNOWN:
            close = difflib.get_close_matches(word, sorted(KNOWN), 1)
            meant = f"; did you mean {close[0]!r}" if close else "; see DPV's purposes and GA4GH's DUO"
            raise ValueError(f"no word of DPV or DUO (found {word!r}{meant})")
        return word

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.legal_basis == "consent" and self.consent != "opt-in":
            raise ValueError('legal_basis = "consent" needs consent = "opt-in"')
        if self.consent == "none" and self.consent_values is not None:
            raise ValueError('consent_values need consent = "opt-in" or "opt-out"')
        if self.vocabulary == ETHICS_APPROVAL and self.ethics_ref is None:
            raise ValueError(f"{ETHICS_APPROVAL} means that ethics approval is required; give ethics_ref")
        if self.vocabulary == GEOGRAPHICAL and self.recipients_in is None:
            raise ValueError(f"{GEOGRAPHICAL} means a geographical restriction; give recipients_in")
        return self


def contains(region: str, place: str | None) -> bool:
    """Tell whether a place is in a region: EU contains EU-DE, NO contains NO and NO-03. None is in no region."""
    return place is not None and (place == region or place.startswith(f"{region}-"))
