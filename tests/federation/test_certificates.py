"""Certificates say who is at the other end: one spelling of a name, a checked request, nothing that was not asked."""

import datetime as dt
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import CertificateError, CryptoError
from federation.members.certificates import (
    Identity,
    check_address,
    check_issued,
    days_left,
    host_of,
    identity_of,
    issue,
    new_authority,
    new_certificate_request,
    new_transport_key,
    only_certificates,
    pin_of,
    private_pem,
    read_certificate,
    read_certificate_request,
    read_transport_key,
    utc_now,
)
from federation.members.credentials import Tls
from federation.operations.cluster import cluster_environment, ensure_token, nodes_environment
from tests.cases import every

NOW = utc_now()
WHO = Identity("fed", "silo", "aspen")
KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY_KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY = new_authority(AUTHORITY_KEY, "fed", NOW)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@+/-]{0,30}", fullmatch=True)


@given(names, st.sampled_from(["silo", "analyst", "aggregator"]), names)
def test_a_name_has_one_spelling_and_is_read_as_written(federation: str, role: str, name: str) -> None:
    identity = Identity(federation, role, name)  # type: ignore[arg-type]
    assert Identity.parse(identity.uri) == identity


@every(
    "uri",
    [
        "",
        "consilo://fed/silo",
        "consilo://fed/king/aspen",
        "consilo://fed/silo/aspen/x",
        "consilo://fed/silo/",
        "consilo:///silo/aspen",
        "https://fed/silo/aspen",
        "consilo://fed/silo/as%70en",
        "consilo://fed/silo/aspen?x",
        "consilo://fed/silo/aspen#x",
        "CONSILO://fed/silo/aspen",
        "consilo://fed@x/silo/aspen",
        "consilo://[/silo/x",
        "consilo://]/silo/x",
        "consilo://[::1/silo/x",
        "consilo://fed\u2100/silo/x",
        "consilo://fed/silo/\udc80",
    ],
)
def test_another_spelling_names_nobody(uri: str) -> None:
    with pytest.raises(CertificateError, match="names nobody"):
        Identity.parse(uri)


@given(st.text(st.characters()), st.text(st.characters()), st.booleans())
def test_any_text_is_read_as_written_or_names_nobody(one: str, other: str, is_bare: bool) -> None:
    uri = one if is_bare else f"consilo://{one}/silo/{other}"
    with suppress(CertificateError):
        assert Identity.parse(uri).uri == uri


def test_a_certificate_carries_the_names_and_nothing_more() -> None:
    certificate = read_certificate(issue(AUTHORITY, AUTHORITY_KEY, new_certificate_request(KEY, WHO), NOW, 30))
    assert identity_of(certificate) == WHO
    assert 29 < days_left(certificate, NOW) <= 30
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert not usage.key_cert_sign
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [one.value for one in alternative] == [WHO.uri, host_of(pin_of(KEY.public_key()))]


def test_no_certificate_outlives_its_authority() -> None:
    certificate = read_certificate(issue(AUTHORITY, AUTHORITY_KEY, new_certificate_request(KEY, WHO), NOW, 36500))
    assert certificate.not_valid_after_utc == read_certificate(AUTHORITY).not_valid_after_utc


def request_with(*asked: x509.GeneralName, key: object = KEY) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    )
    if asked:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(asked)), critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)  # type: ignore[arg-type]


URI = x509.UniformResourceIdentifier(WHO.uri)
HOST = x509.DNSName(host_of(pin_of(KEY.public_key())))
RSA = rsa.generate_private_key(65537, 2048)
P384 = ec.generate_private_key(ec.SECP384R1())


@every(
    ("request_der", "reason"),
    [
        (b"", "not a certificate request"),
        (b"\x30\x00", "not a certificate request"),
        (request_with(), "not a certificate request"),
        (request_with(URI), "other names"),
        (request_with(HOST), "0 URIs"),
        (request_with(URI, URI, HOST), "2 URIs"),
        (request_with(URI, x509.DNSName("bank.example")), "other names"),
        (request_with(URI, HOST, x509.DNSName("bank.example")), "other names"),
        (request_with(URI, HOST, x509.DNSName("*.consilo.invalid")), "other names"),
        (request_with(URI, HOST, HOST, HOST), "other names"),
        (request_with(x509.UniformResourceIdentifier("consilo://fed/king/x"), HOST), "names nobody"),
        (request_with(URI, HOST, key=RSA), "another kind of key"),
        (request_with(URI, HOST, key=P384), "another kind of key"),
    ],
)
def test_a_request_for_other_names_or_of_another_kind_is_refused(request_der: bytes, reason: str) -> None:
    with pytest.raises(CertificateError, match=reason):
        issue(AUTHORITY, AUTHORITY_KEY, request_der, NOW, 30)


def test_a_request_with_a_changed_byte_is_refused() -> None:
    request = new_certificate_request(KEY, WHO)
    refused = 0
    for position in range(0, len(request), 7):
        changed = bytearray(request)
        changed[position] ^= 1
        try:
            read_certificate_request(bytes(changed))
        except CertificateError:
            refused += 1
    assert refused == len(range(0, len(request), 7))


def test_a_certificate_of_a_consortiums_authority_is_checked_against_the_request() -> None:
    request = new_certificate_request(KEY, WHO)
    good = read_certificate(issue(AUTHORITY, AUTHORITY_KEY, request, NOW, 30))
    check_issued(good, AUTHORITY, request, NOW)
    other_key = ec.generate_private_key(ec.SECP256R1())
    for certificate, now, reason in [
        (good, NOW + dt.timedelta(days=31), "expired"),
        (good, NOW - dt.timedelta(days=1), "not valid yet"),
        (
            read_certificate(issue(new_authority(other_key, "fed", NOW), other_key, request, NOW, 30)),
            NOW,
            "not issued by",
        ),
        (
            read_certificate(issue(AUTHORITY, AUTHORITY_KEY, new_certificate_request(other_key, WHO), NOW, 30)),
            NOW,
            "another key",
        ),
        (
            read_certificate(
                issue(AUTHORITY, AUTHORITY_KEY, new_certificate_request(KEY, Identity("fed", "silo", "birch")), NOW, 30)
            ),
            NOW,
            r"silo/birch, DNS:.*, expected the names of its request and no others",
        ),
    ]:
        with pytest.raises(CertificateError, match=reason):
            check_issued(certificate, AUTHORITY, request, now)


def issued(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, *extensions: x509.ExtensionType) -> x509.Certificate:
    """Return what a consortium's authority issues for a key, in its own way."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(read_certificate(AUTHORITY).subject)
        .public_key(key)
        .serial_number(5)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(AUTHORITY_KEY, SHA256())


def named(*alternative: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(alternative)


def used(signs: bool = True, issues: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(signs, False, not signs, False, False, issues, False, False, False)


SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
PUBLIC = KEY.public_key()
BOTH = named(URI, HOST)


@pytest.mark.parametrize(
    "extensions",
    [
        (BOTH,),
        (named(HOST, URI),),
        (BOTH, x509.BasicConstraints(False, None), used(), x509.ExtendedKeyUsage([CLIENT, SERVER])),
        (BOTH, x509.ExtendedKeyUsage([CLIENT, SERVER, ExtendedKeyUsageOID.EMAIL_PROTECTION])),
    ],
)
def test_another_authority_may_issue_in_its_own_way(extensions: tuple[x509.ExtensionType, ...]) -> None:
    check_issued(issued(PUBLIC, *extensions), AUTHORITY, new_certificate_request(KEY, WHO), NOW)


@every(
    ("certificate", "reason"),
    [
        (issued(PUBLIC), "names none, expected"),
        (issued(PUBLIC, named(URI)), "no others"),
        (issued(PUBLIC, named(HOST)), "no others"),
        (issued(PUBLIC, named(URI, HOST, HOST)), "no others"),
        (issued(PUBLIC, named(URI, HOST, x509.DNSName(host_of(bytes(32))))), f"DNS:{host_of(bytes(32))}, expected"),
        (issued(PUBLIC, named(URI, HOST, x509.DNSName("*.consilo.invalid"))), r"DNS:\*.consilo.invalid, expected"),
        (issued(PUBLIC, named(URI, HOST, x509.RFC822Name("a@b.example"))), "RFC822Name:a@b.example, expected"),
        (issued(PUBLIC, named(URI, HOST, x509.UniformResourceIdentifier("consilo://fed/silo/b"))), "no others"),
        (issued(PUBLIC, BOTH, x509.BasicConstraints(True, None)), "could issue others"),
        (issued(PUBLIC, BOTH, used(issues=True)), "could issue others"),
        (issued(PUBLIC, BOTH, used(signs=False)), "lacks digitalSignature"),
        (issued(PUBLIC, BOTH, x509.ExtendedKeyUsage([SERVER])), r"1\.3\.6\.1\.5\.5\.7\.3\.1, expected serverAuth and"),
        (issued(PUBLIC, BOTH, x509.ExtendedKeyUsage([CLIENT])), "expected serverAuth and clientAuth"),
        (issued(RSA.public_key(), BOTH), "another key"),
        (issued(P384.public_key(), BOTH), "another key"),
        (issued(PUBLIC, x509.UnrecognizedExtension(BOTH.oid, b"\x30\x03\x01")), "extensions are malformed"),
    ],
)
def test_a_certificate_that_could_do_more_or_less_than_was_asked_is_refused(
    certificate: x509.Certificate, reason: str
) -> None:
    with pytest.raises(CertificateError, match=reason):
        check_issued(certificate, AUTHORITY, new_certificate_request(KEY, WHO), NOW)


def test_a_transport_key_is_for_its_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "t.key"
    key = new_transport_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert pin_of(read_transport_key(path).public_key()) == pin_of(key.public_key())
    with pytest.raises(CertificateError, match="exists"):
        new_transport_key(path)
    path.chmod(0o640)
    with pytest.raises(CertificateError, match="can be read by others"):
        read_transport_key(path)
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(CertificateError, match="is not an unencrypted PEM private key"):
        read_transport_key(path)


def test_a_transport_key_is_neither_printed_nor_pickled() -> None:
    tls = Tls(b"-----BEGIN PRIVATE KEY-----", b"chain", b"authority")
    assert "PRIVATE" not in repr(tls)
    with pytest.raises(CryptoError):
        pickle.dumps(tls)


def node(path: Path, *addresses: str) -> None:
    """Write what a Ray node is given, for these addresses."""
    import ipaddress

    key = new_transport_key(path / "node.key")
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(one)) for one in addresses])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(read_certificate(AUTHORITY).subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(AUTHORITY_KEY, SHA256())
    )
    (path / "node.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (path / "ca.pem").write_bytes(AUTHORITY)


def test_of_a_file_of_certificates_nothing_else_is_kept() -> None:
    both = AUTHORITY + new_authority(KEY, "other", NOW)
    assert only_certificates(private_pem(KEY) + AUTHORITY + b"a note\n" + both[len(AUTHORITY) :]) == both
    with pytest.raises(CertificateError, match="not a certificate in PEM"):
        only_certificates(private_pem(KEY))


def test_a_ray_node_whose_certificate_is_not_of_its_address_is_refused_before_ray_starts(tmp_path: Path) -> None:
    node(tmp_path, "10.0.0.5", "fd00::1")
    environment = nodes_environment(tmp_path / "token", tmp_path, "10.0.0.5")
    assert environment["RAY_USE_TLS"] == "1"
    assert environment["RAY_AUTH_MODE"] == "token"
    nodes_environment(tmp_path / "token", tmp_path, "fd00:0:0::1")
    with pytest.raises(CertificateError, match=r"not of 10.0.0.6 \(it names 10.0.0.5, fd00::1\)"):
        nodes_environment(tmp_path / "token", tmp_path, "10.0.0.6")
    with pytest.raises(CertificateError, match="not of node7"):
        check_address(read_certificate((tmp_path / "node.pem").read_bytes()), "node7")
    (tmp_path / "node.key").unlink()
    new_transport_key(tmp_path / "node.key")
    with pytest.raises(CertificateError, match="do not belong together"):
        nodes_environment(tmp_path / "token", tmp_path, "10.0.0.5")


def test_a_clusters_token_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "ray.token"
    before = os.umask(0)
    try:
        ensure_token(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    assert len(token) == 64
    ensure_token(path)
    assert path.read_text() == token
    assert token not in str(cluster_environment(path))
    path.chmod(0o644)  # as Ray itself writes it
    with pytest.raises(CryptoError, match="can be read by others"):
        ensure_token(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(CryptoError, match="too short"):
        ensure_token(path)


def unreadable(path: Path) -> None:
    path.symlink_to(path)  # a loop; a file without permission is readable by root


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff" * 64)
    path.chmod(0o600)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("nowhere"), r"cannot read .*ray.token \(No such file"),
        (unreadable, r"cannot read .*ray.token \(Too many levels"),
        (Path.mkdir, r"cannot read .*ray.token \(Is a directory"),
        (os.mkfifo, "is not a file"),
        (not_text, "is not text in UTF-8"),
    ],
)
def test_what_is_no_token_is_refused_with_a_hint(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "ray.token")
    with pytest.raises(CryptoError, match=reason) as caught:
        ensure_token(tmp_path / "ray.token")
    assert "move it away" in caught.value.hint
    with pytest.raises(CryptoError, match=r"cannot make .*absent/ray.token \(No such file"):
        ensure_token(tmp_path / "absent" / "ray.token")


def test_a_token_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_token(tmp_path / "ray.token")
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(CryptoError, match="belongs to the user") as caught:
        ensure_token(tmp_path / "ray.token")
    assert "chown" in caught.value.hint
