"""What an aggregator keeps on disk: encrypted reports, and the heads of the silos' ledgers.

Both are written whole or not at all. A report is named by its SHA-256 and readable by nobody but its recipients; a head
is what a silo signed last of how long its ledger is, so that an older copy put back in its place shows.
"""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from aggregator.errors import StoreError
from crypto.keys import VerifyKey
from crypto.wire import verify
from policies.ledger import LedgerHead


class ReportStore:
    """A directory of encrypted reports."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, report: bytes) -> str:
        """Store a report durably and return its name."""
        name = sha256(report).hexdigest()
        _write(self._path / f"{name}.report", report)
        return name

    def get(self, name: bytes) -> bytes:
        """Return the report of that SHA-256; raises StoreError if there is none."""
        try:
            return (self._path / f"{name.hex()}.report").read_bytes()
        except OSError as err:
            raise StoreError(
                f"there is no report {name.hex()[:16]} here ({err.strerror})", "run the step again"
            ) from err


class HeadStore:
    """The last ledger head of each silo, signed by it. A head replaces only a shorter one."""

    def __init__(self, path: Path, federation: str, silos: Mapping[str, VerifyKey]) -> None:
        self._path, self._federation, self._silos = path, federation, silos
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, envelope: bytes) -> bytes:
        """Keep a head durably, and return the one that is kept now: an older one changes nothing.

        Raises CryptoError on a head that no silo of the federation signed, and StoreError if it cannot be kept.
        """
        signed = verify(envelope, LedgerHead, self._silos)
        if signed.message.silo != signed.signer or signed.message.federation != self._federation:
            raise StoreError(f"the head is of {signed.message.silo!r} in {signed.message.federation!r}")
        kept = self.get(signed.signer)
        if kept and verify(kept, LedgerHead, self._silos).message.count >= signed.message.count:
            return kept
        _write(self._file(signed.signer), envelope)
        return envelope

    def get(self, silo: str) -> bytes:
        """Return the head that a silo signed last, nothing of one that has sent none. Raises StoreError."""
        try:
            return self._file(silo).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as err:
            raise StoreError(f"the head of {silo!r} cannot be read ({err.strerror})", "mend the disk") from err

    def _file(self, silo: str) -> Path:
        return self._path / f"{sha256(silo.encode()).hexdigest()}.head"


def _write(target: Path, data: bytes) -> None:
    partial = target.with_suffix(".partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as err:
        raise StoreError(f"{target.name} cannot be stored ({err.strerror})", f"free space in {target.parent}") from err
