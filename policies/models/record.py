"""What the registries of models have of a run beside the model: its job, and who took part in which rounds.

Promise: whoever has checked the same reports has the same record, silos and analyst alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Protocol, TypeVar

from pydantic import Field

from crypto.rounds.opening import CheckedReport
from crypto.wire import MAX_SILOS, Digest, Message, Name, RoundId
from policies.errors import ModelError
from policies.requests.computations import AnyComputation
from policies.requests.request import Request
from policies.requests.tables import Table
from policies.requests.training import TrainingStep
from policies.units import MAX_STEPS

_FEWEST_LETTERS = 4  # of a run's name
# The ends of a run that leave no model, and what helps.
_NO_MODEL: Mapping[str, str] = MappingProxyType(
    {
        "no-maximum": "train anew without the feature that `consilo-silo models` names to an owner, or with its values"
        " merged",
        "too-few-rows": "train anew with fewer features or at more silos",
    }
)
_Step = Annotated[int, Field(ge=0, lt=MAX_STEPS)]


class Named(Protocol):
    """A run in a registry."""

    @property
    def name(self) -> str:
        """The run in hexadecimal."""


N = TypeVar("N", bound=Named)


def run_named(runs: Sequence[N], name: str, where: str, listing: str) -> N:
    """Return the one run whose name begins so; raises ModelError if there is none, or several.

    `where` says whose runs they are, after their number, and `listing` is the command that lists them.
    """
    found = [one for one in runs if one.name.startswith(name.lower())]
    if len(found) == 1 and len(name) >= _FEWEST_LETTERS:
        return found[0]
    which = f"{len(found)} runs" if found else "no run"
    hint = f"list them with `{listing}`; a name is told by {_FEWEST_LETTERS} letters or more"
    raise ModelError(f"{which} of the name {name[:40]!r}{where}", hint)


def standing_of(goes_on_as: bytes | None, ended: str | None, *, is_over: bool) -> str:
    """Return where a run stands, in words; `ended` is why it was at its end before its last round."""
    if goes_on_as is not None:
        return f"goes on as {goes_on_as.hex()}"
    return ended or ("all rounds taken" if is_over else "not at its end")


def without_model(ended: str | None) -> str | None:
    """Return what helps where a run has ended without a model; None where one stands."""
    return _NO_MODEL.get(ended or "")


class Spell(Message):
    """Rounds in a row in which the same silos took part, under the same policies."""

    first: _Step  # by its number from 0, and the last one
    last: _Step
    silos: Annotated[tuple[Name, ...], Field(max_length=MAX_SILOS)]  # that accepted
    policies: Annotated[tuple[Digest, ...], Field(max_length=MAX_SILOS)]  # the SHA-256 of each one's policy
    without: Annotated[tuple[Name, ...], Field(max_length=MAX_SILOS)] = ()  # silos that are not in the sums
    # How many silos were asked, and of how many the noise alone is enough; left out of what was kept before.
    asked: Annotated[int, Field(ge=0, le=MAX_SILOS, exclude_if=lambda count: not count)] = 0
    noise_shares: Annotated[int, Field(ge=0, le=MAX_SILOS, exclude_if=lambda count: not count)] = 0


class RunRecord(Message):
    """The job of a run, as its first request has it, and its rounds."""

    plan: AnyComputation
    table: Table
    spells: Annotated[tuple[Spell, ...], Field(max_length=MAX_STEPS)]
    continues: Annotated[RoundId | None, Field(default=None, exclude_if=lambda run: run is None)] = None

    @property
    def contributed(self) -> dict[str, int]:
        """In how many rounds each silo took part."""
        found: dict[str, int] = {}
        for spell in self.spells:
            for silo in spell.silos:
                found[silo] = found.get(silo, 0) + (silo not in spell.without) * (spell.last - spell.first + 1)
        return found


def recorded(before: RunRecord | None, request: Request, step: TrainingStep, report: CheckedReport) -> RunRecord:
    """Return the record after the round of a checked report; `before` is that of the round before it."""
    silos, survivors = report.manifest.silos, set(report.survivors)
    spell = Spell(
        first=step.step,
        last=step.step,
        silos=silos,
        policies=tuple(report.accepts[silo].policy_hash for silo in silos),
        without=tuple(silo for silo in silos if silo not in survivors),
        asked=report.manifest.terms.asked,
        noise_shares=max(0, report.manifest.noise_shares),
    )
    spells = tuple(_joined(() if before is None else before.spells, spell))
    fields = {"plan": step.first(), "table": request.table, "spells": spells, "continues": step.continues}
    return RunRecord.model_validate(fields)


def _joined(spells: tuple[Spell, ...], spell: Spell) -> Iterable[Spell]:
    last = spells[-1] if spells else None
    if last is not None and last.model_copy(update={"first": spell.first, "last": spell.last}) == spell:
        return (*spells[:-1], last.model_copy(update={"last": spell.last}))
    return (*spells, spell)
