"""What `--ray-tls` names, for tests: node.key, node.pem and ca.pem of one machine."""

import ipaddress
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.members.certificates import utc_now


def write_node(folder: Path, address: str, beside: Path | None = None) -> None:
    """Write the three files of a machine, by the authority of the one `beside` or by one of its own."""
    folder.mkdir()
    if beside is None:
        authority = ec.generate_private_key(ec.SECP256R1())
        _write_key(folder / "ca.key", authority)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"nodes of {folder.name}")])
        signed = _certificate(name, name, authority, authority, [], True)
        (folder / "ca.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    else:
        for one in ("ca.key", "ca.pem"):
            (folder / one).write_bytes((beside / one).read_bytes())
        loaded = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        authority = loaded
    issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()).subject
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "node.key", key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(one)) for one in (address, "127.0.0.1")]
    certificate = _certificate(subject, issuer, key, authority, [*names, x509.DNSName("localhost")], False)
    (folder / "node.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    is_authority: bool,
) -> x509.Certificate:
    now = utc_now()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(is_authority, None), True)
    )
    if names:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False).add_extension(usage, False)
    return builder.sign(authority, hashes.SHA256())


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    path.chmod(0o600)
