"""The silo's registry of models: what its owner is told of each run that the ledger keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crypto.keys import SigningKey, read_key_file
from federation.members.credentials import IDENTITY_KEY
from policies.budget.accountant import epsilon_of
from policies.document.policy import Policy
from policies.models.card import Card, Figure, Price, registered
from policies.models.forms import Form
from policies.models.layers import layers_of
from policies.models.record import standing_of
from policies.models.released import digest_of_model, why_too_large
from policies.requests.exact import FamilyStep
from policies.requests.training import TrainingStep
from policies.units import DAY_S, MICRO, when
from silo_node.errors import SiloError
from silo_node.graphs.kept import KeptNetworks
from silo_node.home import LEDGER
from silo_node.ledger.kept_runs import KeptRun, kept_runs
from silo_node.rounds.releasing import model_of
from silo_node.training.keeping import read_state
from silo_node.training.networks.form import with_packed
from silo_node.training.portable import family_of, fitted_of, portable_of
from silo_node.training.run import RunState


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model that the silo holds."""

    state: RunState
    kept: KeptRun
    micro_rho: int  # with that of the run in whose place it went on
    delta: float
    erased_after: int | None  # seconds since 1970; None where [retention] keeps models
    goes_on_as: bytes | None = None  # the run that goes on in its place with fewer silos

    @property
    def name(self) -> str:
        return self.state.run.hex()

    @property
    def family(self) -> str:
        return family_of(self.state)

    @property
    def size(self) -> int:
        """How many bytes the model takes."""
        return len(self.kept.state.header) + len(self.kept.state.numbers)

    @property
    def price(self) -> Price | None:
        """What it cost one person; None without noise."""
        rho = self.micro_rho / MICRO
        return None if self.state.release == "exact" else Price(rho, epsilon_of(rho, self.delta), self.delta)

    @property
    def end(self) -> str:
        """Where the run stands, in words."""
        return standing_of(self.goes_on_as, self.state.ended, is_over=self.state.is_final)

    @property
    def form(self) -> Form | None:
        """What scores rows by it; None where it has none."""
        try:
            return portable_of(self.state)
        except SiloError:
            return None

    @property
    def layers(self) -> tuple[str, ...]:
        """What it computes, in words; of a network alone."""
        return layers_of(self.state.record, self.form)

    @property
    def digest(self) -> str:
        """The SHA-256 of the model, in hexadecimal, the same at every silo and at the analyst."""
        return digest_of_model(fitted_of(self.state), self.form)

    @property
    def stays(self) -> str:
        """Why a model that its analyst asked for does not leave, where that is its size; empty for any other."""
        plan = None if self.state.record is None else self.state.record.plan.training
        asked = plan is not None and plan.released_to is not None
        return why_too_large(model_of("federation", self.state)) if asked else ""

    @property
    def audit(self) -> tuple[Figure, ...]:
        """The gaps between groups that audits of the model found, with their intervals."""
        return tuple(
            Figure(name=f"{gap.measure} by {' and '.join(one.groups)}", value=gap.value, low=gap.low, high=gap.high)
            for one in self.state.audits
            for gap in one.gaps
        )

    def registered(self) -> dict[str, Any]:
        """Return what the registry has beside the model itself, for programs."""
        record = self.state.record
        plan = None if record is None else record.plan
        settings = (*plan.parts, *plan.options) if isinstance(plan, FamilyStep) else ()
        return registered(self.family, record, self.end, self.price, self.audit) | {
            "features": list(plan.training.features) if plan is not None and plan.training is not None else None,
            "options": {one.name: one.value for one in settings},
            "held_out": None if plan is None or plan.training is None else _held_out(plan.training),
            "bytes": self.size,
            "learned_at": when(self.state.learned_at),
            "erased_after": None if self.erased_after is None else when(self.erased_after),
            "sha256": self.digest,
        }

    def card(self) -> Card:
        """Return the model's card; raises SiloError for a model that was learned before silos kept the columns."""
        state = self.state
        if state.record is None:
            raise SiloError(f"run {self.name} was learned before silos kept what a card says", "train anew")
        return Card(
            run=self.name,
            family=self.family,
            purpose=state.purpose,
            analyst=state.analyst,
            done=state.done,
            ended=state.ended or "",
            record=state.record,
            price=self.price,
            learned_at=state.learned_at,
            expires_at=self.erased_after,
            digest=self.digest,
            fitted=fitted_of(state),
            audit=self.audit,
            layers=self.layers,
        )


def _held_out(step: TrainingStep) -> str | None:
    return None if step.held_out is None else step.held_out.in_words


def held_models(policy: Policy, home: Path) -> list[HeldModel]:
    """Return the models in the ledger of a silo's directory; the last learned one is last.

    Raises LedgerError, and SiloError for a model that is damaged.
    """
    states = held_states(policy, home)
    charged = {one.run: one.micro_rho for one, _ in states}
    found = [_held(policy, one, state, charged) for one, state in states]
    records = {one.state.run: one.state.record for one in found}
    after = {record.continues: run for run, record in records.items() if record is not None and record.continues}
    return [
        replace(one, goes_on_as=after.get(one.state.run))
        for one in found
        if one.state.split is None  # which is no model
    ]


def held_states(policy: Policy, home: Path) -> list[tuple[KeptRun, RunState]]:
    """Return every state in the ledger of a silo's directory, which must be that silo's; raises as `held_models`."""
    kept = kept_runs(home / LEDGER)
    if not kept:
        return []
    key = SigningKey(read_key_file(home / IDENTITY_KEY)).public
    find = KeptNetworks(home).find
    return [(one, with_packed(read_state(one.run, one.state, policy.silo.id, key), find)) for one in kept]


def _held(policy: Policy, kept: KeptRun, state: RunState, charged: Mapping[bytes, int]) -> HeldModel:
    before = None if state.record is None else state.record.continues
    days = None if policy.retention is None else policy.retention.results_days
    erased_after = None if days is None else kept.saved_at + days * DAY_S
    micro_rho = kept.micro_rho + (0 if before is None else charged.get(before, 0))
    return HeldModel(state, kept, micro_rho, float(policy.budget.delta), erased_after)
