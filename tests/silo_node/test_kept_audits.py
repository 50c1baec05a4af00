"""Which audit of a model counts for a limit on its gaps, as whoever audits chooses it, and which bins it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pytest
from pydantic import ValidationError

from crypto.errors import ProtocolError
from policies.models.record import RunRecord, Spell
from policies.requests.audit import AuditStep
from policies.requests.exact import ExactStep
from policies.requests.held_out import HeldOut
from policies.requests.judged import JudgedModel
from policies.requests.tables import Table
from policies.requests.training import START
from silo_node.training.auditing import drift_listings
from silo_node.training.family import Fitted
from silo_node.training.grid import Integers, Vector
from silo_node.training.kept_audits import AuditedModel, GroupGap, gaps_by
from silo_node.training.run import RunState
from silo_node.training.scoring import check_judged
from tests.cases import every
from tests.harness import families
from tests.rounds.computation_examples import EXAMPLES

SILOS = ("east", "north", "south", "west")
HALF = Decimal("0.5")
STEP = ExactStep(
    run=bytes(16), step=0, steps=4, after=START, release="exact", label="ok", features=("debt",),
    family="logistic-regression", parts=(), options=(), held_out=HeldOut(split=bytes(16), parts=300),
)  # fmt: skip
TABLE = Table(name="loans", columns=(), max_rows=1, max_silos=1)

RECORD = RunRecord.model_construct(
    plan=STEP, table=TABLE, spells=(Spell(first=0, last=3, silos=SILOS, policies=()),), continues=None
)


@dataclass(frozen=True)
class Held:
    """A model with one audit."""

    audits: tuple[AuditedModel, ...]
    table: str = "loans"
    purpose: str = "lending"
    record: RunRecord | None = RECORD


def audited(**changes: object) -> AuditedModel:
    gap = GroupGap(measure="demographic-parity", value=0.0, low=0.0, high=0.01)
    fields = {"groups": ("race",), "table": "loans", "is_held_out": True, "learned_at": 1, "gaps": (gap,),
              "fitted": Fitted(listings=(), figures=()), "purpose": "lending",
              "threshold": "0.5", "min_cohort": 10,
              "silos": SILOS}  # fmt: skip
    return AuditedModel.model_validate({"run": bytes(16), **fields, **changes})


@every(
    ("changes", "counts"),
    [
        ({}, True),
        ({"threshold": "0.50"}, True),
        ({"min_cohort": 100}, True),
        ({"threshold": "0.999999999"}, False),  # which nobody reaches, so no group is decided for more often
        ({"threshold": "0.000000001"}, False),
        ({"min_cohort": 5000}, False),  # the groups that differ are merged into one
        ({"silos": SILOS[:3]}, False),  # those whose gap is small
        ({"purpose": "research"}, False),  # whose rows are those of other people
        ({"table": "others"}, False),
        ({"groups": ("race", "sex")}, False),
        ({"threshold": "", "min_cohort": 0, "silos": ()}, False),  # learned before silos kept them
    ],
)
def test_an_audit_that_whoever_audits_chose_so_that_it_proves_nothing_meets_no_limit(
    changes: dict[str, object], counts: bool
) -> None:
    found = gaps_by(Held((audited(**changes),)), ("race",), HALF, 100)
    assert (found is not None) is counts, changes


def test_a_model_that_nobody_recorded_is_judged_by_its_audit() -> None:
    assert gaps_by(Held((audited(),), record=None), ("race",), HALF, 100) is not None


def test_a_model_is_audited_by_whom_its_own_run_held_out_or_by_all() -> None:
    fields = {"run": bytes([1] * 16), "step": 0, "after": START, "release": "exact", "groups": ("race",),
              "model": JudgedModel(position=bytes([1] * 32), step=STEP)}  # fmt: skip
    for held_out in (None, STEP.held_out):
        AuditStep.model_validate(fields | {"held_out": held_out})
    for other in (HeldOut(split=bytes(16), parts=50), HeldOut(split=bytes([2] * 16), parts=300), HeldOut(column="old")):
        with pytest.raises(ValidationError, match="whom its own run held out"):
            AuditStep.model_validate(fields | {"held_out": other})


class Sums:
    """An opened sum of an audit, all of whose bins have the same rows."""

    def __init__(self, rows: int, lengths: Sequence[int]) -> None:
        self._rows, self._lengths = rows, lengths

    def blocks(self) -> list[Vector]:
        return [np.full(length, float(self._rows)) for length in self._lengths]

    def deviations(self) -> list[float]:
        return [0.0] * len(self._lengths)

    def whole_blocks(self) -> list[Integers]:
        return [block.astype(np.int64) for block in self.blocks()]


def test_a_bin_is_shown_only_if_its_rows_are_those_of_min_cohort_persons() -> None:
    """One person may have `max_rows` of them."""
    columns = (families.number("debt", 0, 9), families.truth("ok"), families.truth("race"))
    table = TABLE.model_copy(update={"max_rows": 3, "columns": columns})
    audit = AuditStep(
        run=bytes(16), step=0, after=START, release="exact", groups=("race",), min_cohort=10, has_drift=True,
        model=JudgedModel(position=bytes([1] * 32), step=STEP),
    )  # fmt: skip
    lengths = [extent.length for extent in audit.statistics(table).values()]
    for rows, expected in ((29, None), (30, 30.0)):
        features = drift_listings(audit, table, Sums(rows, lengths))[1]
        assert {line.values for line in features.lines} == {(expected,)}


def test_a_model_is_audited_by_its_own_analyst_alone() -> None:
    """An audit is kept beside the model in the place of an earlier one, and a release may wait for it."""
    of = next(one for one in EXAMPLES["audit-step"] if isinstance(one.plan, AuditStep))
    assert isinstance(of.plan, AuditStep)
    model, record = of.plan.judged, RunRecord(plan=of.plan.judged.step, table=of.table, spells=())
    held = RunState(
        run=model.run,
        job=bytes(32),
        analyst=of.analyst,
        purpose=of.purpose,
        table=of.table.name,
        release="exact",
        steps=4,
        done=1,
        position=model.position,
        learned_at=1,
        terms=(),
        numbers=(),
        record=record,
    )
    assert check_judged(of, lambda run: held) is held
    with pytest.raises(ProtocolError, match="another analyst's"):
        check_judged(of.model_copy(update={"analyst": "bob"}), lambda run: held)
