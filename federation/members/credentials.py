"""The files that a party of a federation keeps for its connections, in the directory of its other files.

* transport.key: the private key of its connections (mode 0600), made here
* transport.pem: its certificate, with intermediates if there are any
* authority.pem: the certificate of the X.509 authority, the only one that it trusts
* membership.log: who belongs to the federation; versions are appended and none is ever changed
* roster.signed: the roster of the newest membership, rewritten from the log whenever it grows

Promises: `Credentials` exist only for a certificate, a key and a log that belong together; the log on disk never gets
shorter, and a write that fails leaves the file as it was. Several processes of a party may share the directory.

    credentials = Credentials(home, TrustAnchor("health", authority), Identity("health", "silo", "aspen"))
    if credentials.extend(welcome.memberships):
        member = credentials.membership.find("hub")
"""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TextIO

from cryptography import x509

from crypto.errors import CertificateError, MembershipError
from federation.members.certificates import (
    Identity,
    days_left,
    identity_of,
    pin_of,
    private_pem,
    read_certificate,
    read_transport_key,
    utc_now,
)
from federation.members.membership import LOG, Log, Membership, TrustAnchor, append, extend_log, read_log, read_versions

TRANSPORT_KEY, CERTIFICATE, AUTHORITY_CERTIFICATE, ROSTER = (
    "transport.key",
    "transport.pem",
    "authority.pem",
    "roster.signed",
)
LOCK_TRIES, LOCK_EVERY_S = 200, 0.05


@dataclass(frozen=True, slots=True)
class Tls:
    """What a TLS library needs: the private key, its certificate chain, and the authority to trust."""

    key: bytes = field(repr=False)
    chain: bytes
    authority: bytes

    def __reduce__(self) -> NoReturn:
        raise CertificateError("a transport key cannot be pickled or copied")


class Credentials:
    """A party's certificate and membership log, read from its directory."""

    def __init__(self, path: Path, anchor: TrustAnchor, identity: Identity) -> None:
        """Read and check them; raises CryptoError."""
        self.path, self.anchor, self.identity = path, anchor, identity
        self.tls()
        with _alone(path / LOG):
            self.log: Log = read_log(path / LOG, anchor)
            self._write_roster(self.log)

    @property
    def membership(self) -> Membership:
        return self.log.membership

    def certificate(self) -> x509.Certificate:
        """Return this party's certificate as it is on disk now; raises CertificateError."""
        return read_certificate(_read(self.path / CERTIFICATE))

    def tls(self) -> Tls:
        """Return key, certificate and authority as they are on disk now; raises CertificateError.

        1. The certificate is of this party. 2. The key is that of the certificate. 3. It has not expired.
        """
        key = read_transport_key(self.path / TRANSPORT_KEY)
        certificate = self.certificate()
        # 1.
        if (found := identity_of(certificate)) != self.identity:
            raise CertificateError(f"the certificate is of {found.uri}, expected {self.identity.uri}")
        # 2.
        if pin_of(certificate.public_key()) != pin_of(key.public_key()):
            raise CertificateError(f"{TRANSPORT_KEY} and {CERTIFICATE} do not belong together", "restore both")
        # 3.
        if days_left(certificate, utc_now()) <= 0:
            message = f"the certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
            raise CertificateError(message, "rotate it: see `consilo join --renew`")
        return Tls(private_pem(key), _read(self.path / CERTIFICATE), _read(self.path / AUTHORITY_CERTIFICATE))

    def refresh(self) -> bool:
        """Read the log again; return whether it has grown. Raises MembershipError if it holds another history."""
        known = [signed.envelope for signed in self.log.versions]
        try:
            size = (self.path / LOG).stat().st_size
        except OSError as err:
            raise MembershipError(f"cannot read the membership log {self.path / LOG}", "put it back") from err
        if sum(len(envelope) + 4 for envelope in known) == size:
            return False
        with _alone(self.path / LOG):
            held = read_versions(self.path / LOG)
            if held[: len(known)] != known:
                raise MembershipError(f"{self.path / LOG} is older than what is known here", "restore the newer one")
            return self._took(extend_log(self.anchor, self.log, held))

    def extend(self, envelopes: Iterable[bytes]) -> bool:
        """Continue the log, on disk too; return whether it has grown. Raises CryptoError, and then nothing changed."""
        log = extend_log(self.anchor, self.log, envelopes)
        if len(log) == len(self.log):
            return False
        with _alone(self.path / LOG):
            held = read_versions(self.path / LOG)  # another process may have continued it
            log = extend_log(self.anchor, log, held)
            append(self.path / LOG, log, len(set(held)))
            return self._took(log)

    def _took(self, log: Log) -> bool:
        has_grown = len(log) > len(self.log)
        self._write_roster(log)
        self.log = log  # only then, so that what failed is done again
        return has_grown

    def _write_roster(self, log: Log) -> None:
        path, roster = self.path / ROSTER, log.membership.roster
        if roster and not (path.exists() and path.read_bytes() == roster):
            replace_file(path, roster)


@contextmanager
def _alone(log: Path) -> Iterator[None]:
    """Lock a log while it and the roster beside it change; raises MembershipError if another process holds it long."""
    try:
        file = log.open("rb")
    except OSError:
        yield  # the read that follows reports what is wrong
        return
    with file:
        for _ in range(LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOCK_EVERY_S)
        else:
            raise MembershipError(f"another process holds {log}", "end it, or try again")
        yield


def hold(path: Path) -> TextIO | None:
    """Hold a lock file until it is closed or the process ends; None if another process holds it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, durably."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise CertificateError(f"cannot read {path}", "restore it, or join the federation anew") from err
