"""What the log says was in force last: the witness against older files, whatever lies beside it.

It names the policy, the roster, the prepared rows of each source, and the list of forgotten persons.

Reading changes nothing, not even the format of an older ledger. That the log is whole, `LedgerStore` examines.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from crypto.errors import CryptoError
from policies.errors import LedgerError
from silo_node.ledger.events import KeptInForce, LogEntry, PolicyInForce, RosterInForce

InForce = PolicyInForce | RosterInForce | KeptInForce
E = TypeVar("E", PolicyInForce, RosterInForce)
R = TypeVar("R")
KIND = "json_extract(CAST(body AS TEXT), '$.event.kind')"  # of an entry of the log, in SQL
_BUSY_TIMEOUT_S = 5.0


def last_of(execute: Callable[..., sqlite3.Cursor], kind: type[E]) -> E | None:
    """Return the last event of a kind that is not erased; None without one."""
    return next(iter(_of_kind(execute, kind, "ORDER BY seq DESC LIMIT 1")), None)


def all_of(execute: Callable[..., sqlite3.Cursor], kind: type[E]) -> list[E]:
    """Return the events of a kind that are not erased, the oldest first."""
    return _of_kind(execute, kind, "ORDER BY seq")


def named_after(execute: Callable[..., sqlite3.Cursor], after: int) -> dict[tuple[str, str], InForce]:
    """Return the last event of each thing in force, by kind and name, as entries after this one name them."""
    sql = f"SELECT body FROM log WHERE seq > ? AND body <> x'' AND {KIND} IN ('policy', 'roster', 'kept') ORDER BY seq"  # noqa: S608
    found = (LogEntry.decode(bytes(body)).event for (body,) in execute(sql, (after,)).fetchall())
    return {
        (one.kind, one.name if isinstance(one, KeptInForce) else ""): one for one in found if isinstance(one, InForce)
    }


def kept_among(named: Iterable[InForce]) -> dict[str, KeptInForce]:
    """Return what the silo keeps itself, by name."""
    return {one.name: one for one in named if isinstance(one, KeptInForce)}


def _of_kind(execute: Callable[..., sqlite3.Cursor], kind: type[E], order: str) -> list[E]:
    sql = f"SELECT body FROM log WHERE body <> x'' AND {KIND} = ? {order}"  # noqa: S608
    rows = execute(sql, (kind.model_fields["kind"].default,))
    found = (LogEntry.decode(bytes(body)).event for (body,) in rows.fetchall())
    return [one for one in found if isinstance(one, kind)]


def in_force(path: Path, kind: type[E]) -> E | None:
    """Return what the log in a ledger file says was in force last; None if there is no file or no such entry."""
    return _read(path, lambda execute: last_of(execute, kind))


def kept_in(path: Path) -> Mapping[str, KeptInForce]:
    """Return what the log in a ledger file says the silo keeps, by name, each in its last version."""
    return kept_among((_read(path, lambda execute: named_after(execute, 0)) or {}).values())


def _read(path: Path, of: Callable[[Callable[..., sqlite3.Cursor]], R]) -> R | None:
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S)) as db:
            if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'log'").fetchone() is None:
                return None  # the first formats have no log
            return of(db.execute)
    except (sqlite3.Error, CryptoError) as err:
        raise LedgerError(f"the log in {path} cannot be read ({err})", "restore it or free disk space") from err
