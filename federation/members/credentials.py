"""A party's files for its connections, in its own directory.

* transport.key: the private key of its connections (mode 0600), made here
* transport.pem: its certificate, with intermediates if there are any
* authority.pem: the certificate of the X.509 authority, the only one that it trusts
* membership.log: the members of the federation; versions are appended and none is ever changed
* roster.signed: the roster of the newest membership, rewritten from the log whenever it grows

Promises: `Credentials` always have a certificate, a key and a log that belong together; the log on disk never gets
shorter, and a failed write leaves the file as it was. Several processes of a party may share the directory.

    credentials = Credentials(home, TrustAnchor("health", authority), Identity("health", "silo", "aspen"))
    if credentials.extend(welcome.memberships):
        member = credentials.membership.find("hub")
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TextIO

from cryptography import x509

from crypto.errors import CertificateError, MembershipError
from federation.files import replace_file
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
from federation.members.membership import (
    LOG,
    Membership,
    MembershipLog,
    TrustAnchor,
    append,
    extend_log,
    read_log,
    read_versions,
)

IDENTITY_KEY, TRANSPORT_KEY, CERTIFICATE, AUTHORITY_CERTIFICATE, ROSTER = (
    "identity.key",
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

    def __init__(
        self, path: Path, anchor: TrustAnchor, identity: Identity, accepts: Callable[[Membership], None] | None = None
    ) -> None:
        """Read and check them; raises CryptoError. `accepts` raises MembershipError to refuse a newer membership."""
        self.path, self.anchor, self.identity, self._accepts = path, anchor, identity, accepts
        self.tls()
        with _alone(path / LOG):
            self.log: MembershipLog = read_log(path / LOG, anchor)
            self._write_roster(self.log)

    @property
    def membership(self) -> Membership:
        return self.log.membership

    def certificate(self) -> x509.Certificate:
        """Return this party's certificate as it is on disk now; raises CertificateError."""
        return read_certificate(_read(self.path / CERTIFICATE))

    def tls(self) -> Tls:
        """Return key, certificate and authority as they are on disk now; raises CertificateError.

        1. The certificate belongs to this party. 2. The key belongs to the certificate. 3. It has not expired.
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
        """Read the log again; return whether it has grown. Raises MembershipError if it has another history."""
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
            return self._took(self._accepted(extend_log(self.anchor, self.log, held)))

    def extend(self, envelopes: Iterable[bytes]) -> bool:
        """Continue the log, on disk too; return whether it has grown. Raises CryptoError, and then nothing changed."""
        log = self._accepted(extend_log(self.anchor, self.log, envelopes))
        if len(log) == len(self.log):
            return False
        with _alone(self.path / LOG):
            held = read_versions(self.path / LOG)  # another process may have continued it
            log = extend_log(self.anchor, log, held)
            append(self.path / LOG, log, len(set(held)))
            return self._took(log)

    def _accepted(self, log: MembershipLog) -> MembershipLog:
        if self._accepts is not None and len(log) > len(self.log):
            self._accepts(log.membership)
        return log

    def _took(self, log: MembershipLog) -> bool:
        has_grown = len(log) > len(self.log)
        self._write_roster(log)
        self.log = log  # last, so that a failure is tried again
        return has_grown

    def _write_roster(self, log: MembershipLog) -> None:
        path, roster = self.path / ROSTER, log.membership.roster
        if roster and not (path.exists() and path.read_bytes() == roster):
            replace_file(path, roster)


@contextmanager
def _alone(log: Path) -> Iterator[None]:
    """Lock a log while it and its roster change; raises MembershipError if another process holds the lock too long."""
    try:
        file = log.open("rb")
    except OSError:
        yield  # the next read reports the problem
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
    """Lock a file until it is closed or the process ends; return None if another process has the lock.

    Nothing is written into it, and a link is none: raises OSError.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise CertificateError(f"cannot read {path}", "restore it, or join the federation anew") from err
