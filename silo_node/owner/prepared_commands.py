"""`consilo-silo forget`: leave a person out of every answer, now and after every later preparing."""

import argparse
import os
import time
from contextlib import ExitStack
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from federation.terminal import Commands, add_command
from policies.document.load import load
from policies.document.policy import Policy
from silo_node.data.cells import person_named
from silo_node.data.locations import connect
from silo_node.data.prepared.codes import Codes, places_in
from silo_node.data.prepared.forgotten import Keeps, Persons
from silo_node.data.prepared.store import Store
from silo_node.data.sources import Source, source_of
from silo_node.data.spellings import loosest_of
from silo_node.errors import SiloError, SourceError
from silo_node.home import LEDGER
from silo_node.ledger.store import LedgerStore
from silo_node.owner.ledger_commands import signer_of


def add_commands(commands: Commands) -> None:
    """Add `forget`."""
    text = "leave a person out of every answer from now on, and remove the person's prepared rows"
    forget = add_command(commands, "forget", _forget, text)
    forget.add_argument("id", metavar="ID", help="as it stands in the rows")
    forget.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")


def _forget(options: argparse.Namespace) -> int:
    policy, home = load(options.policy).policy, options.policy.resolve().parent
    if home.stat().st_uid != os.geteuid():
        raise SiloError(f"{home} belongs to another user", "run this as the user that runs the silo")
    prepared = {name: source_of(policy, name, home) for name, one in policy.sources.items() if one.read == "prepared"}
    ledger = LedgerStore(home / LEDGER, signer_of(options.policy)) if (home / LEDGER).exists() else None
    with connect() as database, ExitStack() as stack:
        if ledger is not None:
            stack.callback(ledger.close)
        kept: Keeps = dict if ledger is None else ledger.kept
        persons = Persons(policy, home, kept)
        person = _person(database, policy, options.id)
        is_new = persons.forget(database, person)
        if ledger is not None and (listed := persons.in_force()) is not None:
            ledger.put_in_force(listed)
        entity = policy.privacy_unit.entity
        print(f"{options.id!r} is left out of every answer {'from now on' if is_new else 'already'}")
        codes = persons.codes_of([person])
        alike = persons.codes_of(loosest_of(database, pa.array([person])))
        for name, source in prepared.items():
            if ledger is None:
                print(f"  {name}: nothing is prepared yet")
                continue
            store = Store(policy, home, kept)
            print(f"  {name}: {_told(store, source, codes, alike, entity)}")
            try:
                made = store.prepare(database, source, int(time.time()))
                if not store.put_in_force(source, made.store, ledger.put_in_force):
                    raise SourceError("the running silo has prepared it meanwhile", "wait a moment")
            except SourceError as err:
                left = f"{options.id!r} is left out, and any row is still in the store of {name}: {err.message}"
                raise SourceError(left, f"{err.hint}; then run this again") from err
    for name in policy.sources:
        if name not in prepared:
            print(f"  {name}: not prepared; the rows stay in the files until you remove them")
    return 0


def _person(database: duckdb.DuckDBPyConnection, policy: Policy, text: str) -> str:
    """Return the person that an id names, as rows are compared; raises SiloError if it names nobody."""
    asked = person_named("$id", policy.privacy_unit.id_form)
    ((person,),) = database.execute(f"SELECT {asked}", {"id": text}).fetchall()
    if not person:
        raise SiloError(f"{text!r} is no id", "write it as it stands in the rows")
    return str(person)


def _told(store: Store, source: Source, codes: Codes, alike: Codes, entity: str) -> str:
    """Return how many rows of the store are this person's, and whether another spelling has some."""
    snapshot = store.snapshot(source)
    if snapshot is None:
        return "nothing is prepared yet"
    (place,) = places_in(codes, snapshot.persons)
    rows = 0
    if place >= 0:
        rows = sum(run.rows for run in snapshot.rows(int(place), int(place) + 1, ()).runs)
    others = int(np.count_nonzero((np.asarray(snapshot.alike) == alike[0]).all(1))) - (place >= 0)
    spelled = f"; {others} other {entity}s have this id in another spelling, and stay" if others else ""
    return (
        f"{rows} prepared rows of this {entity} removed{spelled}" if rows else f"no prepared row has this id{spelled}"
    )
