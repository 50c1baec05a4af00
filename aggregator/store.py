"""Encrypted reports on disk: written whole or not at all, named by their SHA-256, readable by nobody but recipients."""

import os
from hashlib import sha256
from pathlib import Path

from aggregator.errors import StoreError


class ReportStore:
    """A directory of encrypted reports."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, report: bytes) -> str:
        """Store a report durably and return its name."""
        name = sha256(report).hexdigest()
        target, partial = self._path / f"{name}.report", self._path / f"{name}.partial"
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(report)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError as err:
            raise StoreError(f"the report cannot be stored ({err.strerror})", f"free space in {self._path}") from err
        return name

    def get(self, name: bytes) -> bytes:
        """Return the report of that SHA-256; raises StoreError if there is none."""
        try:
            return (self._path / f"{name.hex()}.report").read_bytes()
        except OSError as err:
            raise StoreError(
                f"there is no report {name.hex()[:16]} here ({err.strerror})", "run the step again"
            ) from err
