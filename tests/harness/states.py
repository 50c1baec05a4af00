"""What silos have learned of their runs, read from their ledgers."""

from typing import TYPE_CHECKING, Any

from crypto.wire import unverified
from policies.budget.ledger import KeptState
from silo_node.training.family import Fitted
from silo_node.training.raw_numbers import Numbers
from silo_node.training.run import FamilyModel, RunState
from tests.harness.inside import HasActor, ledger_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from silo_node.actor import SiloActor
    from silo_node.ledger.store import LedgerStore


def read(kept: KeptState) -> RunState:
    """Return a state whose signature nobody checks."""
    return unverified(kept.header, RunState).with_raw(kept.numbers)


def states_in(ledger: "LedgerStore") -> list[RunState]:
    """Return the states in a ledger, by the names of their runs."""
    return [read(one) for one in ledger.runs().values()]


def states_of(silo: "SiloActor | HasActor") -> list[RunState]:
    """Return the states that a running silo has."""
    return states_in(ledger_of(silo))


def state_of_run(numbers: "Mapping[str, npt.ArrayLike]", run: bytes = bytes(16), **changes: Any) -> RunState:
    """Return a state with these vectors, as a family leaves one."""
    fields: dict[str, Any] = {
        "run": run,
        "job": bytes(32),
        "analyst": "ana",
        "purpose": "lending",
        "table": "loans",
        "release": "exact",
        "steps": 9,
        "done": 1,
        "position": b"\1" * 32,
        "learned_at": 1_800_000_000,
        "terms": (),
        "numbers": tuple(Numbers.of(name, values) for name, values in numbers.items()),
        "exact": FamilyModel(family="linear-regression", fitted=Fitted(listings=(), figures=())),
    }
    return RunState(**fields | changes)
