"""A silo's packed networks: files in its directory, each under its hash, and the approvals that people have signed.

* networks/HASH.consilo: what the owner added; networks/sent/HASH.consilo: what an analyst sent, the oldest used first
  out
* networks/approvals.HASH: the signed verdicts, each on a line; the log names the version in force by its hash

Promise: a file counts only if it is whole and has the hash of its name, each time that it is read anew; a list of
approvals only if it is the one that the log names, and a verdict in it only with a valid signature of a person whom
the policy names now.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from crypto.errors import CryptoError, WireError
from crypto.keys import VerifyKey
from federation.files import replace_file
from federation.members.credentials import hold
from policies.decision.approvals import ApprovalStatus
from policies.decision.network_approvals import network_status
from policies.document.policy import Policy
from policies.errors import LedgerError
from policies.networks.names import digest_named
from policies.networks.packed import MAX_BYTES, Packed, decoded
from policies.requests.approval import StoredVerdict
from policies.units import DAY_S
from silo_node.errors import SiloError
from silo_node.ledger.events import KeptInForce
from silo_node.ledger.witness import kept_in

FOLDER, SENT, APPROVALS = "networks", "sent", "approvals"
LISTED = f"{FOLDER}/{APPROVALS}"  # what the log calls the list of approvals
MAX_SENT, MAX_SENT_BYTES = 16, 512_000_000  # of what analysts sent
UNUSED_S = 30 * DAY_S  # after which what an analyst sent is dropped
_SUFFIX = ".consilo"
_IN_MEMORY = 4
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class StoredNetwork:
    """A packed network of the store, by its name."""

    name: str
    size: int
    is_sent: bool  # by an analyst, and not added by the owner
    used_at: int


class KeptNetworks:
    """The packed networks of one silo's directory."""

    def __init__(self, home: Path, ledger: Path | None = None) -> None:
        """`ledger` is the file whose log names the approvals; without it nothing is approved."""
        self._path, self._ledger = home / FOLDER, ledger
        self._read: dict[str, tuple[_Stamp, Packed]] = {}  # the last that were read, and their files

    def find(self, name: str) -> Packed | None:
        """Return the network of a name, and note its use; None if it is not here, or is not what its name says."""
        for is_sent in (False, True):
            path = self._file(name, is_sent=is_sent)
            try:
                found = self._of(path, name)
                if is_sent and path.stat().st_mtime + DAY_S < time.time():
                    os.utime(path)
            except (OSError, CryptoError):
                continue
            return found
        return None

    def is_approved(self, policy: Policy, federation: str, name: str, now: int) -> bool:
        """Tell whether people have approved a network; where the list of approvals was altered, nothing is."""
        try:
            return self.status(policy, federation, name, now).is_given
        except (SiloError, LedgerError):
            return False

    def checked(self, name: str) -> Packed:
        """Return the network of a name; raises SiloError where it is not here, or its file was altered."""
        for path in (self._file(name), self._file(name, is_sent=True)):
            if not path.exists():
                continue
            try:
                return self._of(path, name)
            except (OSError, CryptoError) as err:
                reason = err.message if isinstance(err, CryptoError) else err.strerror or type(err).__name__
                raise SiloError(f"{path} is not the network {name}: {reason}", "remove it, and add it again") from err
        raise SiloError(f"there is no network {name} here", "see `consilo-silo model list`")

    def add(self, data: bytes, *, is_sent: bool = False) -> Packed:
        """Keep a packed file; raises WireError if it is none, OSError if it cannot be written."""
        found = decoded(data)
        path = self._file(found.name, is_sent=is_sent)
        for folder in (self._path, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        if is_sent:
            self._make_room(len(data))
        replace_file(path, data, 0o600)
        return found

    def remove(self, name: str) -> bool:
        """Remove the file of a network; return whether there was one."""
        paths = [one for one in (self._file(name), self._file(name, is_sent=True)) if one.exists()]
        for path in paths:
            path.unlink()
        self._read.pop(name, None)
        return bool(paths)

    def listed(self) -> list[StoredNetwork]:
        """Return every file of a network, by name."""
        found = []
        for folder, is_sent in ((self._path, False), (self._path / SENT, True)):
            for path in folder.glob(f"*{_SUFFIX}"):
                stat = path.stat()
                name = f"sha256:{path.name.removesuffix(_SUFFIX)}"
                found.append(StoredNetwork(name, stat.st_size, is_sent, int(stat.st_mtime)))
        return sorted(found, key=lambda one: (one.name, one.is_sent))

    def drop_unused(self, now: float) -> None:
        """Remove what analysts sent and no request used for long."""
        for one in self.listed():
            if one.is_sent and one.used_at + UNUSED_S < now:
                self._file(one.name, is_sent=True).unlink(missing_ok=True)

    def status(self, policy: Policy, federation: str, name: str, now: int) -> ApprovalStatus:
        """Return who has approved a network, by the list that the log names and the people of the policy."""
        return network_status(policy, federation, name, self.verdicts(policy), now)

    def verdicts(self, policy: Policy) -> tuple[StoredVerdict, ...]:
        """Return the verdicts of the list that the log names; raises SiloError if that list is not here."""
        named = self._named()
        return () if named is None else tuple(_read_all(self._list(named.digest), policy))

    def add_verdict(self, verdict: StoredVerdict, log: Callable[[KeptInForce], None]) -> None:
        """Keep a verdict: on disk first, then in the log, by `log`; raises SiloError if the list was altered."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        lock = hold(self._path / f"{APPROVALS}.lock")
        if lock is None:
            raise SiloError("somebody else is signing at this moment", "try again")
        with lock:
            named = self._named()
            before = b"" if named is None else _raw(self._list(named.digest), named.digest)
            body = before + verdict.envelope.hex().encode() + b"\n"
            new = KeptInForce(name=LISTED, digest=sha256(body).digest())
            replace_file(self._list(new.digest), body, 0o600)
            log(new)
            if named is not None and named.digest != new.digest:
                self._list(named.digest).unlink(missing_ok=True)

    def _named(self) -> KeptInForce | None:
        return None if self._ledger is None else kept_in(self._ledger).get(LISTED)

    def _file(self, name: str, *, is_sent: bool = False) -> Path:
        folder = self._path / SENT if is_sent else self._path
        return folder / f"{digest_named(name).hex()}{_SUFFIX}"

    def _list(self, digest: bytes) -> Path:
        return self._path / f"{APPROVALS}.{digest.hex()}"

    def _of(self, path: Path, name: str) -> Packed:
        stat = path.stat()
        stamp = stat.st_size, stat.st_ino, stat.st_ctime_ns
        kept = self._read.get(name)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        if stat.st_size > MAX_BYTES:
            raise WireError(f"{stat.st_size:,} bytes, at most {MAX_BYTES:,} are read")
        found = decoded(path.read_bytes())
        if found.name != name:
            raise WireError(f"it is the network {found.name}")
        self._read.pop(name, None)
        while len(self._read) >= _IN_MEMORY:
            del self._read[next(iter(self._read))]
        self._read[name] = stamp, found
        return found

    def _make_room(self, size: int) -> None:
        sent = sorted((one for one in self.listed() if one.is_sent), key=lambda one: one.used_at)
        while sent and (len(sent) >= MAX_SENT or sum(one.size for one in sent) + size > MAX_SENT_BYTES):
            self._file(sent.pop(0).name, is_sent=True).unlink(missing_ok=True)


def _raw(path: Path, digest: bytes) -> bytes:
    """Return the list of approvals; raises SiloError unless it is the one that the log names."""
    try:
        body = path.read_bytes()
    except OSError as err:
        raise SiloError(f"{path} cannot be read, which the log names", "put it back from a backup") from err
    if sha256(body).digest() != digest:
        raise SiloError(f"{path} is not the list of approvals that the log names", "put it back from a backup")
    return body


def _read_all(path: Path, policy: Policy) -> list[StoredVerdict]:
    keys: Mapping[str, VerifyKey] = {who: VerifyKey.parse(one.key) for who, one in policy.people.items()}
    found = []
    for line in _raw(path, bytes.fromhex(path.name.rpartition(".")[2])).splitlines():
        try:
            found.append(StoredVerdict.read(bytes.fromhex(line.decode()), policy.silo.id, keys))
        except (CryptoError, ValueError):
            continue  # of a person whom the policy names no more, or under another key
    return found
