"""A model's card: what it is for, what it was made of and at which price, and what is known of it. HTML and JSON.

Pure: a card is a value, and its page is headings with tables of texts, which `federation.web.document` writes as one
file without scripts and outside links. Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from crypto.wire import Message
from policies.errors import ModelError
from policies.fitted import Fitted
from policies.models.portable import Finite
from policies.models.record import RunRecord
from policies.models.shown import in_six_digits
from policies.requests.exact import FamilyStep
from policies.requests.families import kind_of
from policies.requests.tables import TableColumn
from policies.requests.training import TrainingStep
from policies.units import when

SCHEMA = "consilo-model-card/1"
_MOST_SHOWN = 12  # values of a domain


class Figure(Message):
    """A named figure of how good or how fair a model is, with its 95 % interval where it has one."""

    name: Annotated[str, Field(max_length=200)]
    value: Finite | None
    low: Finite | None = None
    high: Finite | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a run cost one person."""

    rho: float
    epsilon: float
    delta: float

    def to_dict(self) -> dict[str, float]:
        """Return it as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and a table of texts below it, or sentences where it has no headings."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """All that a card says."""

    run: str
    family: str
    purpose: str
    analyst: str
    done: int  # rounds
    ended: str
    record: RunRecord
    price: Price | None  # None without noise
    learned_at: int  # seconds since 1970
    expires_at: int | None  # when it is erased by [retention]
    digest: str  # SHA-256 of the model, in hexadecimal
    fitted: Fitted
    metrics: tuple[Figure, ...] = ()
    audit: tuple[Figure, ...] = ()
    holders: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()  # of a network, in words

    @property
    def step(self) -> TrainingStep:
        """The first step of the run; raises ModelError of a record of something else."""
        step = self.record.plan.training
        if step is None:
            raise ModelError(f"run {self.run} trains no model", "name a run that does")
        return step

    @property
    def table(self) -> str:
        """The table whose rows it was learned from."""
        return self.record.table.name

    @property
    def label(self) -> str | None:
        """The column that the model predicts."""
        return self.step.label

    @property
    def columns(self) -> tuple[TableColumn, ...]:
        """The columns that the model reads."""
        return self.record.table.columns

    def options(self) -> dict[str, str]:
        """Return the options and further columns of the job."""
        plan = self.record.plan
        if isinstance(plan, FamilyStep):
            return {one.name: one.value for one in (*plan.parts, *plan.options)}
        return {}


def limits(card: Card) -> list[str]:
    """Return what a reader must know before the model is used."""
    found = ["The rows are those of the silos that took part: of other people it may be wrong."]
    if card.price is None:
        found.append("It was fitted without noise: nothing is promised against whoever compares models.")
    else:
        found.append("Its sums had noise: coefficients differ from those of the pooled rows.")
    if card.ended not in ("", "complete"):
        found.append(f"The run ended as {card.ended}.")
    if not card.metrics:
        found.append("No evaluation on held-out rows is known here: its figures are with the analyst who asked.")
    if not card.audit:
        found.append("No audit by group is known here.")
    if any(spell.without for spell in card.record.spells):
        found.append("Some silos are missing in some rounds.")
    return found


def to_json(card: Card) -> str:
    """Return a card as JSON."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "run": card.run,
        "model": card.family,
        "purpose": card.purpose,
        "table": card.table,
        "label": card.label,
        "analyst": card.analyst,
        "release": card.step.release,
        "options": card.options(),
        **({"layers": list(card.layers)} if card.layers else {}),
        "columns": [column.model_dump(mode="json") for column in card.columns],
        "rounds": {"done": card.done, "planned": card.step.steps, "ended": card.ended or None},
        "silos": card.record.contributed,
        "policies": policies(card.record),
        "holders": list(card.holders),
        "price": None if card.price is None else card.price.to_dict(),
        "learned_at": when(card.learned_at),
        "expires_at": None if card.expires_at is None else when(card.expires_at),
        "sha256": card.digest,
        "fitted": card.fitted.model_dump(mode="json"),
        "metrics": [one.model_dump(mode="json") for one in card.metrics],
        "audit": [one.model_dump(mode="json") for one in card.audit],
        "limits": limits(card),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def registered(
    family: str, record: RunRecord | None, end: str, price: Price | None, audit: Sequence[Figure]
) -> dict[str, Any]:
    """Return what the registries of silo and analyst alike have of a run beside its model, for programs."""
    return {
        "family": family,
        "end": end,
        "silos": None if record is None else record.contributed,
        "policies": None if record is None else policies(record),
        "price": None if price is None else price.to_dict(),
        "audit": [one.model_dump(mode="json") for one in audit],
    }


def policies(record: RunRecord) -> list[dict[str, Any]]:
    """Return by rounds, counted from 1, the hash of each silo's policy and who is missing in the sums."""
    return [
        {
            "rounds": [spell.first + 1, spell.last + 1],
            "sha256": {silo: digest.hex() for silo, digest in zip(spell.silos, spell.policies, strict=True)},
            "without": list(spell.without),
        }
        for spell in record.spells
    ]


def ending_of(file: Path) -> Literal["html", "json"]:
    """Return the format of a card by its file's ending; raises ModelError on another one."""
    match file.suffix:
        case ".html":
            return "html"
        case ".json":
            return "json"
        case _:
            raise ModelError(f"{file} ends in neither .html nor .json", "name a file that does")


def written(card: Card, file: Path, document: Callable[[str, str, Sequence[Section]], str]) -> bytes:
    """Return a card as its file's ending says; `document` writes a page of headings with tables."""
    page = document(title_of(card), f"model card of run {card.run}", sections(card))
    return (page if ending_of(file) == "html" else to_json(card)).encode()


def title_of(card: Card) -> str:
    """Return what stands above a card."""
    return card.family.replace("-", " ") + ("" if card.label is None else f" of {card.label}")


def sections(card: Card) -> tuple[Section, ...]:
    """Return a card as headings with tables of texts."""
    return (
        Section("What it is", ("", ""), tuple(_facts(card))),
        Section("Columns", ("column", "used as", "type", "values"), tuple(_columns(card))),
        Section("Silos", ("silo", "in rounds"), tuple((name, str(count)) for name, count in _silos(card))),
        Section("Policies", ("rounds", "silo", "SHA-256 of its policy", "in the sums"), tuple(_policies(card.record))),
        *((Section("Layers", (), tuple((one,) for one in card.layers)),) if card.layers else ()),
        *_listings(card.fitted),
        Section("Evaluation", ("figure", "value", "2.5 %", "97.5 %"), tuple(map(_figure, card.metrics))),
        Section("Audit", ("figure", "value", "2.5 %", "97.5 %"), tuple(map(_figure, card.audit))),
        Section("Limits", (), tuple((one,) for one in (*limits(card), *card.fitted.notes))),
    )


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    yield "purpose", card.purpose
    yield "model", card.family
    yield "label", card.label or "none"
    yield "table", card.table
    yield "asked by", card.analyst
    yield from card.options().items()
    if (held_out := card.step.held_out) is not None:
        yield "not learned from", held_out.in_words
    yield "rounds", f"{card.done} of at most {card.step.steps}{f', {card.ended}' if card.ended else ''}"
    if (price := card.price) is None:
        yield "price to one person", "none: without noise, on sources that their owners declare exact"
    else:
        yield "price to one person", f"rho {price.rho:.6g}, epsilon {price.epsilon:.3g} at delta {price.delta:g}"
    yield "learned", when(card.learned_at)
    if card.expires_at is not None:
        yield "erased after", when(card.expires_at)
    if card.holders:
        yield "held by", ", ".join(card.holders)
    yield "run", card.run
    yield "SHA-256 of the model", card.digest


def _columns(card: Card) -> Iterator[tuple[str, str, str, str]]:
    used: dict[str, str] = {name: role for role, names in card.record.plan.uses().items() for name in names}
    plan = card.record.plan
    if isinstance(plan, FamilyStep):
        used |= {one.value: one.name for one in plan.parts}
    for column in card.columns:
        name, kind, values = _column(column)
        yield name, used.get(name, "-"), kind, values


def _column(column: TableColumn) -> tuple[str, str, str]:
    if kind_of(column) == "text":
        more = f" and {len(column.domain) - _MOST_SHOWN} more" if len(column.domain) > _MOST_SHOWN else ""
        return column.name, column.type, ", ".join(list(column.domain)[:_MOST_SHOWN]) + more
    if column.type == "bool":
        return column.name, column.type, "false, true"
    return column.name, column.kind_in_words, _bounds(column)


def _bounds(column: TableColumn) -> str:
    step = Decimal(column.step or "1")
    low, high = (f"{(bound or 0) * step.normalize():f}" for bound in (column.low, column.high))
    return f"{_plain(low)} to {_plain(high)}, in steps of {step:f}"


def _plain(number: str) -> str:
    return number.rstrip("0").removesuffix(".") if "." in number else number


def _silos(card: Card) -> Sequence[tuple[str, int]]:
    return sorted(card.record.contributed.items())


def _policies(record: RunRecord) -> Iterator[tuple[str, ...]]:
    for spell in record.spells:
        rounds = str(spell.first + 1) if spell.first == spell.last else f"{spell.first + 1} to {spell.last + 1}"
        for silo, digest in zip(spell.silos, spell.policies, strict=True):
            yield rounds, silo, digest.hex(), "no" if silo in spell.without else "yes"


def _listings(fitted: Fitted) -> Iterator[Section]:
    if fitted.figures:
        figures = tuple((one.name, in_six_digits(one.values[0])) for one in fitted.figures)
        yield Section("Fit", ("figure", "value"), figures)
    for listing in fitted.listings:
        rows = tuple((line.name, *map(in_six_digits, line.values)) for line in listing.lines)
        yield Section(listing.name.capitalize(), ("", *listing.headings), rows)


def _figure(one: Figure) -> tuple[str, str, str, str]:
    return one.name, in_six_digits(one.value), in_six_digits(one.low), in_six_digits(one.high)
