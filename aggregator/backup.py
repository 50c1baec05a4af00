"""`consilo aggregator backup` and `restore`: the aggregator's directory in one archive, and a directory from it.

Left out are the rounds under way, which no other process continues. Promise: an aggregator that was put back does not
pass off the checkpoints in its backup as the newest of its silos.
docs/federated.md, section 5.
"""

import argparse
import re
import time
from collections.abc import Iterator
from pathlib import Path

from aggregator.errors import AggregatorError
from aggregator.home import read_home
from aggregator.keeping import DATES
from aggregator.store import FORMER
from crypto.errors import CryptoError
from federation.backups import MEMBER_FILES, BackupOf, passphrase_from, restored_from, write_backup
from federation.errors import FederationError
from federation.members.credentials import IDENTITY_KEY, ROSTER
from federation.terminal import Failure, fail
from policies.units import when

_SETTINGS = "aggregator.toml"
_FILES = (_SETTINGS, *MEMBER_FILES, f"reports/{DATES}", f"contributions/{DATES}")
_STORED = {"heads": ("head", FORMER), "reports": ("request", "report"), "contributions": ("contribution",)}
_STORED_NAME = re.compile(
    "|".join(rf"{folder}/[0-9a-f]{{64}}\.(?:{'|'.join(ends)})" for folder, ends in _STORED.items())
)


def main(arguments: list[str]) -> int:
    """Run `backup` or `restore`; print one line of error and one of hint if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m aggregator")
    parser.add_argument("command", choices=["backup", "restore"])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--passphrase-file", type=Path)
    options = parser.parse_args(arguments)
    try:
        lines = _backup(options) if options.command == "backup" else _restore(options)
        print("\n".join(lines))  # noqa: T201
    except (AggregatorError, FederationError, CryptoError) as err:
        return fail("consilo", Failure(err.message, err.hint))
    except OSError as err:
        message = f"{err.strerror or err}: {err.filename or 'no file'}"
        return fail("consilo", Failure(message, "check the path and the free disk space"))
    return 0


def _backup(options: argparse.Namespace) -> Iterator[str]:
    home: Path = options.source
    whose = read_home(home)
    made = BackupOf(federation=whose.federation, role="aggregator", name=whose.name, made_at=int(time.time()))
    passphrase = passphrase_from(options.passphrase_file, str(options.out), is_new=True)
    count = write_backup(options.out, made, _files(home), passphrase)
    yield f"{options.out}: {count} files of {whose.name}, as of {when(made.made_at)}"
    yield "keep it apart from its passphrase"


def _files(home: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files, those that name others first: what arrives meanwhile is not in the backup, or whole."""
    for name in _FILES:
        yield name, home / name
    for folder, ends in _STORED.items():
        for end in ends:
            for path in sorted((home / folder).glob(f"*.{end}")):
                yield f"{folder}/{path.name}", path


def _is_expected(name: str) -> bool:
    return name in _FILES or _STORED_NAME.fullmatch(name) is not None


def _restore(options: argparse.Namespace) -> Iterator[str]:
    passphrase = passphrase_from(options.passphrase_file, str(options.source))
    with restored_from(options.source, options.out, "aggregator", _is_expected, passphrase) as found:
        found.check_has(_SETTINGS, IDENTITY_KEY, ROSTER)
        for path in sorted((found.place / "heads").glob("*.head")):
            path.rename(path.with_suffix(f".{FORMER}"))
    whose = found.whose
    yield f"{options.out}: {found.files} files of {whose.name} in {whose.federation}, as of {when(whose.made_at)}"
    yield "end the old machine for good, if it still runs"
    yield f"next: consilo aggregator serve {options.out}"
    yield f"a silo that starts before it has charged again needs `consilo-silo excuse {whose.name}` of its owner"
