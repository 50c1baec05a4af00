"""X.509 certificates, which prove the identity of a connection's other end; no identity is read from a message.

A certificate has exactly one URI among its alternative names, `consilo://FEDERATION/ROLE/NAME`, and one DNS name,
`PIN.consilo.invalid`, where PIN is made from the public key. The party that dials expects that DNS name, so the TLS
handshake refuses a certificate of another key even if the same authority issued it. RFC 5280 (certificates), RFC 6125
(names), RFC 7469 (pins), RFC 2986 (requests).

Transport keys (ECDSA, P-256) serve connections only; silos and aggregators sign their messages with their identity
keys (`crypto.keys`). A private key is made where it is used, and only its certificate request travels.

This module reads and issues certificates, and checks one before its admission (`check_issued`). Whether a member may
connect with a certificate is decided in `federation.members.membership` (`Membership.peer`).

    key = new_transport_key(home / "transport.key")
    request = new_certificate_request(key, Identity("health", "silo", "aspen"))  # at the silo
    certificate = issue(authority, authority_key, request, utc_now(), MEMBER_DAYS)  # at the authority
    identity_of(read_certificate(certificate)).uri == "consilo://health/silo/aspen"
"""

import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import quote, unquote, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crypto.errors import CertificateError

Role = Literal["silo", "analyst", "aggregator"]
ROLES: tuple[Role, ...] = get_args(Role)
MAX_PEM_BYTES = 64 * 1024
AUTHORITY_DAYS = 3650
MEMBER_DAYS = 365
_SCHEME = "consilo"
_HOST = re.compile(r"[0-9a-f]{48}\.consilo\.invalid")
_CLOCK_SLACK = timedelta(minutes=5)
_PURPOSES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
_MALFORMED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Identity:
    """The member that a certificate belongs to."""

    federation: str
    role: Role
    name: str

    @property
    def uri(self) -> str:
        return f"{_SCHEME}://{quote(self.federation, safe='')}/{self.role}/{quote(self.name, safe='')}"

    @classmethod
    def parse(cls, uri: str) -> "Identity":
        """Read a URI that `uri` wrote; raises CertificateError on any other spelling."""
        with suppress(ValueError):  # raised for text that is not a URL, or not UTF-8
            parts = urlsplit(uri)
            segments = parts.path.split("/")
            if parts.scheme == _SCHEME and len(segments) == 3 and segments[1] in ROLES:
                role: Any = segments[1]
                found = cls(unquote(parts.netloc), role, unquote(segments[2]))
                if found.uri == uri and found.federation and found.name:
                    return found
        raise CertificateError(f"{uri[:200]!r} names nobody", "expected consilo://FEDERATION/ROLE/NAME")


def new_transport_key(path: Path) -> EllipticCurvePrivateKey:
    """Write a new private key that only its owner can read (mode 0600); raises CertificateError if the file exists."""
    key = generate_private_key(SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as err:
        raise CertificateError(f"{path} exists", "a key is never overwritten; move it away first") from err
    with os.fdopen(handle, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return key


def read_transport_key(path: Path) -> EllipticCurvePrivateKey:
    """Read a private key; raises CertificateError if it is absent, malformed or readable by others."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(MAX_PEM_BYTES)
    except OSError as err:
        raise CertificateError(f"cannot read the transport key {path}", "restore it, or rotate it") from err
    if mode & 0o077:
        raise CertificateError(f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError):
        raise CertificateError(f"{path} is not an unencrypted PEM private key", "restore it, or rotate it") from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise CertificateError(f"{path} is not a key on a NIST curve", "make one with `consilo join`")
    return key


def private_pem(key: EllipticCurvePrivateKey) -> bytes:
    """Return the private key in PEM, for a TLS library only."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pin_of(public: Any) -> bytes:
    """Return the SHA-256 of a public key's SubjectPublicKeyInfo (RFC 7469 calls it a pin)."""
    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def host_of(pin: bytes) -> str:
    """Return the DNS name that the certificate of a key contains and that its peer expects there."""
    return f"{pin.hex()[:48]}.{_SCHEME}.invalid"


def new_authority(key: EllipticCurvePrivateKey, federation: str, now: datetime) -> bytes:
    """Return the self-signed certificate of a federation's own authority, in PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {federation}"[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """The contents of a certificate request."""

    identity: Identity
    public: EllipticCurvePublicKey
    older: str  # the host name of the key that this one replaces, or nothing

    @property
    def pin(self) -> bytes:
        return pin_of(self.public)

    @property
    def names(self) -> x509.SubjectAlternativeName:
        return _names(self.identity, self.pin, self.older)


def new_certificate_request(key: EllipticCurvePrivateKey, identity: Identity, older: bytes = b"") -> bytes:
    """Return a certificate request in DER; it holds the public half only.

    `older` is the pin of the key that it replaces: a peer that knows only that key still finds the name it expects.
    """
    names = _names(identity, pin_of(key.public_key()), host_of(older) if older else "")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name[:64])])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def read_certificate_request(request: bytes) -> CertificateRequest:
    """Return the contents of a certificate request; raises CertificateError unless it is valid.

    1. It is signed by its own key. 2. The key is one of P-256. 3. It asks for the names of that identity and key, and
    of at most one older key. The issuer must check that the older key belongs to the same member.
    """
    try:
        asked = x509.load_der_x509_csr(request)
        is_signed = asked.is_signature_valid
        public = asked.public_key()
        alternative = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (*_MALFORMED, x509.ExtensionNotFound, InvalidSignature) as err:
        raise CertificateError("not a certificate request", "make one with `consilo join`") from err
    # 1.
    if not is_signed:
        raise CertificateError("the certificate request is not signed by its own key")
    # 2.
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        raise CertificateError("the certificate request is of another kind of key, expected ECDSA P-256")
    # 3.
    hosts = alternative.get_values_for_type(x509.DNSName)
    found = CertificateRequest(_identity(alternative), public, hosts[1] if len(hosts) == 2 else "")
    if list(alternative) != list(found.names) or (found.older and not _HOST.fullmatch(found.older)):
        raise CertificateError("the certificate request asks for other names than its own")
    return found


def issue(authority: bytes, key: EllipticCurvePrivateKey, request: bytes, now: datetime, days: int) -> bytes:
    """Return a certificate in PEM for a request, valid for `days`; raises CertificateError.

    The certificate takes only the key and the checked names from the request.
    """
    asked = read_certificate_request(request)
    issuer = read_certificate(authority)
    if pin_of(issuer.public_key()) != pin_of(key.public_key()):
        raise CertificateError("the authority's key does not belong to its certificate", "restore both from the backup")
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, asked.identity.name[:64])]))
        .issuer_name(issuer.subject)
        .public_key(asked.public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(min(now + timedelta(days=days), issuer.not_valid_after_utc))
        .add_extension(asked.names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def read_authority(pem: bytes, now: datetime) -> bytes:
    """Return only the certificates of an authority's file, in PEM; raises CertificateError.

    1. Each of them may sign certificates. 2. Each is valid now.
    """
    certificates = _certificates(pem)
    for one in certificates:
        subject = one.subject.rfc4514_string()[:200]
        basic, usage = _extension(one, x509.BasicConstraints), _extension(one, x509.KeyUsage)
        # 1.
        if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
            hint = "name the file of the authority that issues, with CA:TRUE"
            raise CertificateError(f"the certificate of {subject!r} is not one of an authority", hint)
        # 2.
        if not _is_valid(one, now):
            message = f"the authority's certificate of {subject!r} is expired, or not valid yet"
            raise CertificateError(message, "name one that is valid now")
    return _pem(certificates)


def only_certificates(pem: bytes) -> bytes:
    """Return only the certificates of a PEM text; raises CertificateError."""
    return _pem(_certificates(pem))


def read_certificate(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a PEM text; raises CertificateError."""
    return _certificates(pem)[0]


def identity_of(certificate: x509.Certificate) -> Identity:
    """Return the member that a certificate belongs to; raises CertificateError unless exactly one URI names it."""
    alternative = _extension(certificate, x509.SubjectAlternativeName)
    if alternative is None:
        raise CertificateError("the certificate has no alternative names")
    return _identity(alternative)


def check_issued(certificate: x509.Certificate, authority: bytes, request: bytes, now: datetime) -> None:
    """Raise CertificateError unless `certificate` is `authority`'s answer to `request`.

    For the certificates of a consortium's own authority. 1. It is valid now. 2. The authority, or an intermediate in
    its file, signed it. 3. It has the request's key, an ECDSA key of P-256. 4. It has exactly the names of the request,
    so that peers find it. 5. It may not sign certificates. 6. It may serve both ends of a connection.
    """
    asked = read_certificate_request(request)
    # 1.
    if not _is_valid(certificate, now):
        raise CertificateError("the certificate is expired, or not valid yet", "ask the authority for a new one")
    # 2.
    if not any(_is_issued_by(certificate, one) for one in _certificates(authority)):
        raise CertificateError("the certificate was not issued by the federation's authority")
    # 3.
    if _public_key(certificate) != asked.public:
        raise CertificateError("the certificate is of another key than the request", "let the authority sign this one")
    # 4.
    names = _extension(certificate, x509.SubjectAlternativeName)
    found, wanted = [] if names is None else _shown(names), _shown(asked.names)
    if sorted(found) != sorted(wanted):
        listed = ", ".join(found)[:400] or "none"
        message = f"the certificate names {listed}, expected the names of its request and no others"
        raise CertificateError(message, f"the authority must copy them and add none: {', '.join(wanted)}")
    # 5.
    basic, usage = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.KeyUsage)
    if (basic is not None and basic.ca) or (usage is not None and usage.key_cert_sign):
        hint = "the authority must issue it with CA:FALSE and without keyCertSign"
        raise CertificateError("the certificate is one of an authority, which could issue others", hint)
    # 6.
    if usage is not None and not usage.digital_signature:
        hint = "the authority must add digitalSignature"
        raise CertificateError("the certificate's key usage lacks digitalSignature", hint)
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if purposes is not None and not _PURPOSES.issubset(purposes):
        lists = ", ".join(one.dotted_string for one in purposes)[:200]
        message = f"the certificate's extended key usage is {lists}, expected serverAuth and clientAuth"
        raise CertificateError(message, "the authority must name both, or leave the extension out")


def days_left(certificate: x509.Certificate, now: datetime) -> float:
    """Return the days until a certificate expires; negative once it has expired."""
    return (certificate.not_valid_after_utc - now) / timedelta(days=1)


def check_address(certificate: x509.Certificate, address: str) -> None:
    """Raise CertificateError unless a node's certificate names `address`.

    Otherwise Ray's nodes would wait for each other for ever, so this is checked before anything starts.
    """
    names = _extension(certificate, x509.SubjectAlternativeName) or x509.SubjectAlternativeName([])
    known: Iterable[str] = [
        *names.get_values_for_type(x509.DNSName),
        *(str(one) for one in names.get_values_for_type(x509.IPAddress)),
    ]
    try:
        wanted = str(ipaddress.ip_address(address))
    except ValueError:
        wanted = address
    if wanted not in known:
        listed = ", ".join(known) or "none"
        raise CertificateError(f"the node's certificate is not of {address} (it names {listed})", "issue one that is")


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


def _names(identity: Identity, pin: bytes, older: str = "") -> x509.SubjectAlternativeName:
    hosts = [x509.DNSName(host) for host in (host_of(pin), older) if host]
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri), *hosts])


def _identity(alternative: x509.SubjectAlternativeName) -> Identity:
    uris = alternative.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise CertificateError(f"{len(uris)} URIs among the certificate's names, expected exactly one")
    return Identity.parse(uris[0])


def _shown(names: x509.SubjectAlternativeName) -> list[str]:
    """Return names with their types, as OpenSSL writes those of a request."""
    kinds = {x509.UniformResourceIdentifier: "URI", x509.DNSName: "DNS"}
    return [f"{kinds.get(type(one), type(one).__name__)}:{one.value}" for one in names]


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    """Return one extension, None where there is none; raises CertificateError."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except _MALFORMED as err:
        raise CertificateError("the certificate's extensions are malformed", "ask the authority for another") from err


def _public_key(certificate: x509.Certificate) -> object:
    with suppress(*_MALFORMED):
        return certificate.public_key()
    return None


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _certificates(pem: bytes) -> list[x509.Certificate]:
    if len(pem) > MAX_PEM_BYTES:
        raise CertificateError(f"a certificate of {len(pem)} bytes, at most {MAX_PEM_BYTES} are read")
    try:
        return x509.load_pem_x509_certificates(pem)
    except _MALFORMED as err:
        hint = "it begins with -----BEGIN CERTIFICATE-----; `openssl x509 -inform DER` makes one of another form"
        raise CertificateError("not a certificate in PEM", hint) from err


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc - _CLOCK_SLACK <= now < certificate.not_valid_after_utc


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
