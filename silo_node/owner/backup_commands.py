"""`consilo-silo backup` and `restore`: the files of a silo in one archive under a passphrase, and a directory from it.

A backup may be taken while the silo is served. Promise: a ledger that was put back answers nothing until it has learned
from the aggregators what was spent since the backup. docs/ledger.md section 3.
"""

import argparse
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from crypto.keys import SigningKey, read_key_file
from crypto.sealing import SealingKey
from federation.backups import MEMBER_FILES, BackupOf, passphrase_from, passphrase_option, restored_from, write_backup
from federation.members.credentials import (
    IDENTITY_KEY,
    ROSTER,
    hold,
)
from federation.terminal import Commands, add_command
from policies.document.domain_files import KEPT
from policies.document.signatures import SUFFIX
from policies.errors import LedgerError
from policies.units import when
from silo_node.data.prepared.forgotten import KEY as PERSONS_KEY
from silo_node.data.prepared.forgotten import LIST as FORGOTTEN
from silo_node.errors import SiloError
from silo_node.home import ACCEPTED, LEDGER, read_home
from silo_node.ledger.log import Signer
from silo_node.ledger.state_files import LONG_STATES, NAME_PATTERN, folder_of, names_of
from silo_node.ledger.store import LedgerStore
from silo_node.profiles import FILE as PROFILE

POLICY = "policy.toml"
_SETTINGS = "silo.toml"
_FILES = (_SETTINGS, *MEMBER_FILES, ACCEPTED, PROFILE, PERSONS_KEY, FORGOTTEN)
_DOMAIN = re.compile(rf"{re.escape(KEPT)}/[0-9a-f]{{64}}\.txt")
_STATE = re.compile(rf"{re.escape(folder_of(Path(LEDGER)).name)}/{NAME_PATTERN}")
_SNAPSHOT, _LINKS = "ledger.sqlite.backup", "ledger.states.backup"
_TRIES = 5  # to copy the ledger and its states as of one moment


def add_commands(commands: Commands) -> None:
    """Add the commands to the parser of `consilo-silo`."""
    command = partial(add_command, commands)
    text = "write ledger, keys, policy and membership into one archive under a passphrase, also while it is served"
    backup = command("backup", _backup, text)
    backup.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    backup.add_argument("--out", type=Path, required=True, metavar="ARCHIVE", help="a new file, which it makes")
    passphrase_option(backup)
    text = "make a silo's directory from a backup; it answers again when aggregators have told what was spent since"
    restore = command("restore", _restore, text)
    restore.add_argument("archive", type=Path, metavar="ARCHIVE", help="what `backup` has written")
    restore.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new directory, which it makes")
    passphrase_option(restore)


def _backup(options: argparse.Namespace) -> int:
    home, silo = options.policy.resolve().parent, read_home(options.policy).silo
    if not (home / LEDGER).exists():
        raise LedgerError(f"there is no ledger beside {options.policy}", "it appears when the silo first starts")
    whose = BackupOf(federation=silo.federation, role="silo", name=silo.name, made_at=int(time.time()))
    passphrase = passphrase_from(options.passphrase_file, str(options.out), is_new=True)
    with _snapshot(home) as (ledger, states):
        files = [(POLICY, options.policy.resolve()), (LEDGER, ledger)]
        files.append((POLICY + SUFFIX, options.policy.resolve().with_name(options.policy.name + SUFFIX)))
        files += [(name, home / name) for name in _FILES]
        files += [(f"{folder_of(home / LEDGER).name}/{one.name}", one) for one in states]
        files += [(f"{KEPT}/{one.name}", one) for one in sorted((home / KEPT).glob("*.txt"))]
        count = write_backup(options.out, whose, files, passphrase)
    print(f"{options.out}: {count} files of {silo.name}, as of {when(whose.made_at)}")
    print("its rows, and the files that the policy reads, are not in it; keep it apart from its passphrase")
    return 0


@contextmanager
def _snapshot(home: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield a copy of the ledger as of one moment and its long states, in the silo's own directory.

    A running silo goes on meanwhile. A file of a state is never changed, so that a link to it is a copy.
    """
    place, links = home / _SNAPSHOT, home / _LINKS
    if (lock := hold(home / "backup.lock")) is None:
        raise SiloError("another backup of this silo is under way", "let it end")
    with lock:
        _remove(place, links)  # of a backup that was killed
        try:
            place.touch(0o600, exist_ok=False)
            for _ in range(_TRIES):
                copy_ledger(home / LEDGER, place)
                if (states := _linked(home / LEDGER, place, links)) is not None:
                    break
            else:
                raise LedgerError("a state of a run is gone, or changed all the time", "try again; see docs/ledger.md")
            yield place, states
        except sqlite3.Error as err:
            raise LedgerError(f"the ledger cannot be copied ({err})", "free disk space, or try again") from err
        finally:
            _remove(place, links)


def copy_ledger(ledger: Path, place: Path) -> None:
    """Copy a ledger as of one moment, while others may write it; raises sqlite3.Error."""
    source = f"file:{quote(str(ledger))}?mode=ro"
    with closing(sqlite3.connect(source, uri=True)) as live, closing(sqlite3.connect(place)) as copy:
        live.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")


def _linked(ledger: Path, place: Path, links: Path) -> list[Path] | None:
    """Return links to the long states that a copy of the ledger names; None if one was replaced meanwhile."""
    links.mkdir(mode=0o700, exist_ok=True)
    with closing(sqlite3.connect(place)) as copy:
        has_numbers = copy.execute("SELECT 1 FROM pragma_table_info('runs') WHERE name = 'numbers'").fetchone()
        names = sorted(names_of(copy.execute(LONG_STATES))) if has_numbers else []  # none before format 8
    for name in names:
        with suppress(FileExistsError):
            try:
                (links / name).hardlink_to(folder_of(ledger) / name)
            except FileNotFoundError:
                return None
    return [links / name for name in names]


def _remove(place: Path, links: Path) -> None:
    place.unlink(missing_ok=True)
    shutil.rmtree(links, ignore_errors=True)


def _is_expected(name: str) -> bool:
    is_file = name in (POLICY, POLICY + SUFFIX, LEDGER, *_FILES)
    return is_file or _DOMAIN.fullmatch(name) is not None or _STATE.fullmatch(name) is not None


def _restore(options: argparse.Namespace) -> int:
    passphrase = passphrase_from(options.passphrase_file, str(options.archive))
    with restored_from(options.archive, options.out, "silo", _is_expected, passphrase) as found:
        found.check_has(POLICY, LEDGER, IDENTITY_KEY, _SETTINGS, ROSTER)
        whose = found.whose
        root = read_key_file(found.place / IDENTITY_KEY)
        signer = Signer(whose.name, whose.federation, SigningKey(root), SealingKey(root))
        with closing(LedgerStore(found.place / LEDGER, signer)) as store:  # it examines the whole log
            if store.checkpoint() is None:
                raise LedgerError("the ledger in the backup is empty", "begin with a new one")
            store.put_back(whose.made_at)
    print(f"{options.out}: {found.files} files of {whose.name} in {whose.federation}, as of {when(whose.made_at)}")
    print("end the old machine for good, if it still runs; bring the rows, and the files that the policy reads")
    print(f"next: consilo-silo serve --policy {options.out / POLICY}")
    print("it answers nothing until enough aggregators have told it what was spent since the backup")
    return 0
