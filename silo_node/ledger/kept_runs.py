"""The models in a silo's ledger, with when each was learned last and what its run was charged."""

from dataclasses import dataclass
from pathlib import Path

from policies.budget.ledger import KeptState
from silo_node.ledger.database import Database
from silo_node.ledger.run_store import stored_state
from silo_node.ledger.state_files import StateFiles


@dataclass(frozen=True, slots=True)
class KeptRun:
    """The state of one run as it is stored."""

    run: bytes
    state: KeptState
    saved_at: int  # seconds since 1970; [retention] counts from it
    micro_rho: int  # of all charges of the run, those included that gave no report


def kept_runs(path: Path) -> list[KeptRun]:
    """Return every run of a ledger file, the last learned one last; raises LedgerError."""
    if not path.exists():
        return []
    database = Database(path)
    try:
        with database.reading():
            rows = database.execute("SELECT run, saved_at FROM runs ORDER BY saved_at, run").fetchall()
            sql = "SELECT run, sum(micro_rho) FROM charges WHERE run IS NOT NULL AND state <> 'reserved' GROUP BY run"
            charged = dict(database.execute(sql).fetchall())
        files = StateFiles(path)
        found = [(run, stored_state(database, files, run), saved_at) for run, saved_at in rows]
    finally:
        database.close()
    return [KeptRun(run, state, saved_at, charged.get(run, 0)) for run, state, saved_at in found if state is not None]
