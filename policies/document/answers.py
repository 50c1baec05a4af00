"""What a person answers once for a draft, or for the drafts of several silos, on the command line."""

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from crypto.wire import Jurisdiction, Name
from policies.budget.accountant import micro_rho_of
from policies.document.drafted_roles import AUDIT, Opening
from policies.document.purposes import Purpose
from policies.document.section import Label
from policies.errors import PolicyError
from policies.requests.computations import COMPUTATIONS, OPENED
from policies.requests.tables import check_norm
from policies.units import MICRO

DELTA = "1e-6"  # of a draft
JUDGING = ("evaluation",)  # what a purpose allows beside the model of a job
# What can be asked for; a policy may also name what no version can do yet.
_DRAFTED = ("query", *sorted(OPENED - {"query"}))
_BASES = tuple(get_args(Purpose.model_fields["legal_basis"].annotation))


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers; what is None is to be filled in by hand."""

    purpose: str | None = None
    basis: str | None = None
    epsilon: float | None = None  # of a person's whole life in the data, at the draft's delta
    jurisdiction: str | None = None
    max_rows: int = 1
    max_norm: int | None = None
    controllers: Mapping[str, tuple[str, str | None]] = field(default_factory=lambda: MappingProxyType({}))
    computations: tuple[str, ...] = ("query",)
    labels: tuple[str, ...] = ()
    has_exact_data: bool = False
    audited: tuple[str, ...] = ()

    @property
    def rho(self) -> Decimal | None:
        """The lifetime budget in zCDP rho, rounded down."""
        return None if self.epsilon is None else Decimal(micro_rho_of(self.epsilon, float(DELTA))) / MICRO

    @property
    def is_training(self) -> bool:
        """Whether the purpose allows to compute a model."""
        return any(map(_is_model, self.computations))

    @property
    def is_judging(self) -> bool:
        """Whether the purpose allows to evaluate a model."""
        return not set(JUDGING).isdisjoint(self.computations)

    @property
    def opening(self) -> Opening:
        """What drafts open columns for."""
        return Opening(self.is_training, self.has_exact_data, self.labels, self.audited)

    def controller(self, silo: str) -> tuple[str | None, str | None]:
        """Return who answers for a silo's data, and the contact for analysts."""
        return self.controllers.get(silo, self.controllers.get("", (None, None)))


UNANSWERED = Answers()


def add_answers(parser: argparse.ArgumentParser) -> None:
    """Add the options that answer for a draft."""
    text = "the purpose that the drafts open the data for, such as health-research"
    parser.add_argument("--purpose", type=_fitting(Name, "the name of a purpose"), metavar="NAME", help=text)
    text = "its legal basis; consent needs a section of its own, which is written by hand"
    parser.add_argument("--basis", choices=[one for one in _BASES if one != "consent"], help=text)
    text = f"what may ever be spent on one person, at delta {DELTA}, such as 8; the draft has it as rho"
    parser.add_argument("--epsilon", type=_epsilon, metavar="E", help=text)
    text = "where the data are, such as NO or EU-DE: purposes may be kept in named places"
    parser.add_argument("--jurisdiction", type=_fitting(Jurisdiction, "a place"), metavar="PLACE", help=text)
    text = "rows of one person that enter one request, at most; default: 1"
    parser.add_argument("--max-rows", type=_rows, default=1, metavar="N", help=text)
    text = (
        "L2 norm of the rows of one person over the groups of a question, at most; default: max_rows alone bounds them"
    )
    parser.add_argument("--max-norm", type=_rows, metavar="N", help=text)
    text = 'who answers for the data, and the contact, "North Hospital <privacy@north.example>"; SILO=TEXT of one silo'
    parser.add_argument("--controller", action="append", default=[], type=_controller, metavar="TEXT", help=text)
    text = "what the purpose allows, separated by commas, such as query,logistic-regression; default: query"
    parser.add_argument("--computations", type=_computations, metavar="LIST", help=text)
    text = "a column that models predict, or of survival a time or an event: it is opened as label alone; repeat it"
    parser.add_argument("--label", action="append", default=[], metavar="COLUMN", help=text)
    text = "a column whose values are the groups of audits, such as sex: it is opened for them too; repeat it"
    parser.add_argument("--audit", action="append", default=[], metavar="COLUMN", help=text)
    text = "declare the data exact: models are fitted without noise, and nothing is promised to persons; no questions"
    parser.add_argument("--exact", action="store_true", help=text)


def answers_of(
    options: argparse.Namespace, silos: Sequence[str], labels: Sequence[str] = (), model: str | None = None
) -> Answers:
    """Return the answers that were given; text before an equals sign is a silo's name if there is such a silo.

    A job adds its labels, and its model to what the purpose allows. Raises PolicyError where a text names nobody, a
    norm bounds nothing, or labels or exact data are of no use.
    """
    predicted = tuple(dict.fromkeys((*options.label, *labels)))
    try:
        check_norm(options.max_rows, options.max_norm)
    except ValueError as err:
        raise PolicyError(str(err), "give a smaller --max-norm, or more --max-rows") from err
    controllers = {}
    for text in options.controller:
        silo, equals, rest = text.partition("=")
        named = silo if equals and silo in silos else ""
        found = re.fullmatch(r"\s*([^<>]*[^<>\s])\s*(?:<([^<>]+)>)?\s*", rest if named else text)
        if found is None:
            hint = 'write it as "North Hospital <privacy@north.example>", or "SILO=North Hospital <...>"'
            raise PolicyError(f"--controller {text!r} names nobody", hint)
        controllers[named] = found[1], found[2]
    return Answers(
        options.purpose,
        options.basis,
        options.epsilon,
        options.jurisdiction,
        options.max_rows,
        options.max_norm,
        MappingProxyType(controllers),
        _opened(options.computations, model, predicted, has_exact_data=options.exact, has_audits=bool(options.audit)),
        predicted,
        options.exact,
        tuple(dict.fromkeys(options.audit)),
    )


def _opened(
    chosen: tuple[str, ...] | None,
    model: str | None,
    labels: Sequence[str],
    *,
    has_exact_data: bool,
    has_audits: bool,
) -> tuple[str, ...]:
    """Return the computations that a purpose allows; raises PolicyError where labels or exact data are of no use."""
    found = chosen if chosen is not None else () if has_exact_data and model is not None else ("query",)
    judging = (*(JUDGING if model is not None else ()), *((AUDIT,) if has_audits else ()))
    found = tuple(dict.fromkeys((*found, *(() if model is None else (model,)), *judging)))
    if (labels or has_exact_data) and not any(map(_is_model, found)):
        hint = "add --computations with a model, such as logistic-regression; or --job MODEL, of `consilo new`"
        raise PolicyError("labels and exact data are for models, and no model is allowed", hint)
    if has_exact_data and (others := [one for one in found if one not in judging and not _is_model(one)]):
        raise PolicyError(f"exact data answer no {others[0]}", f"leave {others[0]} out of --computations")
    return found


def _is_model(computation: str) -> bool:
    return getattr(COMPUTATIONS.get(computation), "result", "model") == "model"


def _fitting(kind: Any, what: str) -> Any:
    def read(text: str) -> str:
        try:
            return str(TypeAdapter(kind).validate_python(text))
        except ValidationError:
            example = "such as NO or EU-DE" if kind is Jurisdiction else "letters, digits and ._@+/-, at most 120"
            raise argparse.ArgumentTypeError(f"{text[:60]!r} cannot be {what}: {example}") from None

    return read


def _epsilon(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 100 or micro_rho_of(value, float(DELTA)) < 1:
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, expected a number above 0 and at most 100, such as 8")
    return value


def _rows(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"found {text[:40]!r}, expected a whole number from 1 to 10000")
    return int(text)


def _controller(text: str) -> str:
    try:
        TypeAdapter(Label).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError("expected a text of 1 to 120 characters") from None
    if not text.isprintable():
        raise argparse.ArgumentTypeError("a character that is not seen is not allowed")
    return text


def _computations(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(one.strip() for one in text.split(",")))
    for one in found:
        if one not in _DRAFTED:
            raise argparse.ArgumentTypeError(f"found {one[:40]!r}, expected some of {', '.join(_DRAFTED)}")
    return found
