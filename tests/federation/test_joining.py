"""Invite and join: what travels, what is refused, and that nothing half made or of another is left or touched."""

import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import federation.authority
import federation.joining
from analyst.cli.main import main
from crypto.errors import CertificateError, CryptoError, MembershipError, SignatureError, WireError
from crypto.keys import Secret, SigningKey, read_key_file, write_key_file
from crypto.wire import sign
from federation.authority import admit, found_federation, invite, opened, revoke, rotate
from federation.errors import FederationError
from federation.joining import join, renew
from federation.members.admission import (
    Admission,
    Invitation,
    JoinRequest,
    from_armor,
    read_invitation,
    read_join,
    to_armor,
)
from federation.members.certificates import (
    Identity,
    Role,
    issue,
    new_authority,
    new_certificate_request,
    new_transport_key,
    private_pem,
    read_transport_key,
)
from federation.members.roster import AUTHORITY
from federation.transport.address import dialled, listened
from tests.harness.federated import NAME, add_member
from tests.harness.provisioning import NOW, admitted, asked, invited, toml


@pytest.mark.parametrize("text", ["no", "NOR", "EU-", "Norway", ""])
def test_what_is_no_place_is_refused(place: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "federation",
        "invite",
        "aspen",
        "--role",
        "silo",
        "--jurisdiction",
        text,
        "--federation",
        str(toml(place)),
    ]
    assert main(words) == 1
    assert "is no place" in capsys.readouterr().err


def test_every_private_key_is_for_its_owner_only_and_none_travels(place: Path) -> None:
    request = asked(place)
    admission = admitted(place, request)
    join(admission, place / "aspen", "", NOW)
    for home, name in (
        ("authority", "authority.key"),
        ("authority", "authority-tls.key"),
        ("aspen", "identity.key"),
        ("aspen", "transport.key"),
    ):
        assert (place / home / name).stat().st_mode & 0o777 == 0o600
    root = read_key_file(place / "aspen" / "identity.key").raw
    scalar = read_transport_key(place / "aspen" / "transport.key").private_numbers().private_value.to_bytes(32, "big")
    travelled = [from_armor(request, JoinRequest)[1], from_armor(admission, Admission)[1]]
    travelled += [path.read_bytes() for path in (place / "authority").rglob("*") if path.is_file()]
    for secret in (root, scalar, root.hex().encode()):
        assert not any(secret in data for data in travelled)


def test_an_invitation_expires(place: Path) -> None:
    path = invited(place, days=1)
    with pytest.raises(FederationError, match="has expired"):
        join(path, place / "aspen", "", NOW + timedelta(days=2))
    request = join(path, place / "aspen", "", NOW).request
    assert request is not None
    with opened(toml(place)) as authority, pytest.raises(FederationError, match="has expired"):
        admit(authority, request, None, 30, NOW + timedelta(days=2))


def test_a_request_without_the_code_is_refused(place: Path) -> None:
    """Whoever sees a request, or only knows the names, cannot be admitted in another's place."""
    request = asked(place)
    message = read_join(from_armor(request, JoinRequest)[1]).message
    root = Secret.generate()
    thief = SigningKey(root)
    stolen = message.model_copy(update={"key": str(thief.public)})
    request.write_text(to_armor(JoinRequest, sign(stolen, "aspen", thief)))
    with pytest.raises(MembershipError, match="does not prove the invitation's code"):
        admitted(place, request)
    guessed = stolen.model_copy(update={"proof": stolen.proof_by(bytes(16))})
    request.write_text(to_armor(JoinRequest, sign(guessed, "aspen", thief)))
    with pytest.raises(MembershipError, match="does not prove"):
        admitted(place, request)


@pytest.mark.parametrize("field", ["role", "name", "federation"])
def test_an_invitation_is_good_for_its_name_and_role_only(place: Path, field: str) -> None:
    request = asked(place)
    code = read_invitation(from_armor(place / "authority" / "invitations" / "aspen.invitation", Invitation)[1]).code
    message = read_join(from_armor(request, JoinRequest)[1]).message
    changed = message.model_copy(update={field: {"role": "analyst", "name": "birch", "federation": "other"}[field]})
    if field == "role":
        changed = changed.model_copy(update={"sealing": b""})
    changed = changed.model_copy(update={"proof": changed.proof_by(code)})
    signing = SigningKey(read_key_file(place / "aspen" / "identity.key"))
    request.write_text(to_armor(JoinRequest, sign(changed, changed.name, signing)))
    with pytest.raises(FederationError, match=r"the request is another|no open invitation"):
        admitted(place, request)


def test_a_request_signed_by_another_key_than_it_states_is_refused(place: Path) -> None:
    request = asked(place)
    message = read_join(from_armor(request, JoinRequest)[1]).message
    request.write_text(to_armor(JoinRequest, sign(message, "aspen", SigningKey(Secret.generate()))))
    with pytest.raises(SignatureError):
        admitted(place, request)


def test_an_invitation_or_admission_of_another_authority_is_refused(place: Path, tmp_path: Path) -> None:
    path = invited(place)
    envelope = from_armor(path, Invitation)[1]
    forged = read_invitation(envelope)
    path.write_text(to_armor(Invitation, sign(forged, AUTHORITY, SigningKey(Secret.generate()))))
    with pytest.raises(SignatureError):
        join(path, place / "aspen", "", NOW)
    assert not (place / "aspen" / "identity.key").exists(), "nothing was made for it"
    found_federation(tmp_path / "other" / "authority", NAME, None, NOW)
    join(invited(place, "birch"), place / "birch", "", NOW)
    other = tmp_path / "other"
    join(invited(other, "birch"), other / "birch", "", NOW)
    foreign = admitted(other, other / "birch" / "birch.request")
    with pytest.raises(SignatureError):
        join(foreign, place / "birch", "", NOW)


def test_an_admission_is_installed_only_where_its_key_lies(place: Path) -> None:
    admission = admitted(place, asked(place))
    add_member(place, "birch", "silo")
    with pytest.raises(FederationError, match="the admission is of 'aspen', here is 'birch'"):
        join(admission, place / "birch", "", NOW)
    (place / "aspen" / "transport.key").unlink()
    new_transport_key(place / "aspen" / "transport.key")
    with pytest.raises(FederationError, match="of a key that is not here"):
        join(admission, place / "aspen", "", NOW)


def test_a_key_is_never_overwritten_by_joining_twice(place: Path) -> None:
    path = invited(place)
    join(path, place / "aspen", "", NOW)
    before = tree(place)
    with pytest.raises(FederationError, match="exists"):
        join(path, place / "aspen", "", NOW)
    assert tree(place) == before


@pytest.mark.parametrize("file", ["identity.key", "transport.key", "authority.key", "consilo.toml"])
def test_joining_leaves_a_directory_of_another_alone(place: Path, file: str) -> None:
    path = invited(place)
    (place / "aspen").mkdir()
    (place / "aspen" / file).write_text("another's")
    before = tree(place)
    with pytest.raises(FederationError, match=f"{file} exists"):
        join(path, place / "aspen", "", NOW)
    assert tree(place) == before


@pytest.mark.parametrize("address", ["hub.example", ":8443", "h:0", "h:65536", "h:", "a b:1", "::1:8443", "[::g]:1"])
def test_an_address_that_nobody_could_dial_leaves_nothing_behind(place: Path, address: str) -> None:
    path = invited(place, "hub", "aggregator")
    before = tree(place)
    with pytest.raises(CryptoError, match="is not HOST:PORT"):
        join(path, place / "homes" / "hub", address, NOW)
    assert tree(place) == before
    assert join(path, place / "homes" / "hub", "[2001:db8::1]:65535", NOW).request is not None


@pytest.mark.parametrize("address", ["unix:1", "dns:53", "IPv4:80", "vsock:1", "0.0.0.0:8443", "[::]:8443", "0:8443"])
def test_an_address_that_means_something_else_to_who_dials_is_refused(place: Path, address: str) -> None:
    """gRPC takes `unix:1` for a socket's path; 0.0.0.0 is the dialler's own machine."""
    path = invited(place, "hub", "aggregator")
    with pytest.raises(CryptoError, match=r"address of the kind|no host that others can dial"):
        join(path, place / "hub", address, NOW)
    assert not (place / "hub").exists()
    assert listened("0.0.0.0:8443")
    assert dialled("dns.example:53")
    request = join(path, place / "hub", "hub.example:8443", NOW).request
    assert request is not None
    forged(place, request, {"address": address})
    with pytest.raises(WireError, match=r"address of the kind|no host that others can dial"):
        admitted(place, request)


def forged(place: Path, request: Path, wrong: dict[str, object]) -> None:
    """Change a join request as whoever made it could: with the invitation's code and the identity key."""
    message = read_join(from_armor(request, JoinRequest)[1]).message.model_copy(update=wrong)
    invitation = place / "authority" / "invitations" / f"{message.name}.invitation"
    message = message.model_copy(
        update={"proof": message.proof_by(read_invitation(from_armor(invitation, Invitation)[1]).code)}
    )
    signing = SigningKey(read_key_file(request.with_name("identity.key")))
    request.write_text(to_armor(JoinRequest, sign(message, message.name, signing)))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"sealing": b""}, "a silo has a sealing key"),
        ({"address": "aspen.example:8443"}, "an aggregator an address, and nobody else"),
        ({"sealing": bytes(1216)}, "a public sealing key is malformed or weak"),
        ({"sealing": b"\xff" * 1216}, "not written in the one canonical way"),
    ],
)
def test_a_request_that_does_not_fit_its_role_is_refused(place: Path, wrong: dict[str, object], reason: str) -> None:
    request = asked(place)
    forged(place, request, wrong)
    before = tree(place)
    with pytest.raises(CryptoError, match=reason):
        admitted(place, request)
    assert tree(place) == before


@pytest.mark.parametrize(("role", "address"), [("aggregator", ""), ("silo", "a:1"), ("aggregator", "unix:1")])
def test_an_address_that_was_edited_is_refused_with_a_reason(place: Path, role: Role, address: str) -> None:
    add_member(place, "org", role, "hub.example:8443" if role == "aggregator" else "")
    settings = place / "org" / "member.toml"
    settings.write_text(re.sub(r"(?m)^address = .*$", f'address = "{address}"', settings.read_text()))
    with pytest.raises((FederationError, CryptoError), match=r"needs an address|address of the kind"):
        renew(place / "org")
    assert not (place / "org" / "transport.key.new").exists()


def test_a_full_disk_leaves_no_half_made_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = invited(place)
    (place / "aspen").mkdir()
    (place / "aspen" / "data.csv").write_text("id\n")
    before = tree(place)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def half(path: Path, *_: object) -> None:
        path.with_name(path.name + ".partial").write_bytes(b"half")  # as `replace_file` leaves it
        full()

    monkeypatch.setattr(federation.joining, "replace_file", half)
    monkeypatch.setattr(federation.authority, "append", half)
    for home in ("aspen", "homes/aspen"):
        with pytest.raises(OSError, match="No space"):
            join(path, place / home, "", NOW)
    with pytest.raises(OSError, match="No space"):
        found_federation(place / "new" / "authority", NAME, None, NOW)
    assert tree(place) == before


def test_two_commands_in_one_directory_never_undo_each_other(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = invited(place), write_key_file

    def again(*what: object) -> None:
        with pytest.raises(FederationError, match="another command is working in"):
            join(path, place / "aspen", "", NOW)
        with pytest.raises(FederationError, match="another command is working in"):
            found_federation(place / "aspen", NAME, None, NOW)
        write(*what)  # type: ignore[arg-type]

    monkeypatch.setattr(federation.joining, "write_key_file", again)
    request = join(path, place / "aspen", "", NOW).request
    assert request is not None
    assert join(admitted(place, request), place / "aspen", "", NOW).request is None


def tree(path: Path) -> dict[Path, bytes]:
    """Return what lies under a directory."""
    return {one: one.read_bytes() if one.is_file() else b"" for one in path.rglob("*")}


def leaf(path: Path) -> None:
    key = new_transport_key(path.with_suffix(".key"))
    authority = new_authority(key, "x", NOW)
    path.write_bytes(issue(authority, key, new_certificate_request(key, Identity("x", "silo", "y")), NOW, 1))


def old(path: Path) -> None:
    path.write_bytes(new_authority(new_transport_key(path.with_suffix(".key")), "x", NOW - timedelta(days=3651)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "cannot read the certificate .*ca.pem .No such file"),
        (lambda path: path.mkdir(), "cannot read the certificate .*ca.pem .Is a directory"),
        (lambda path: path.write_text("hello"), "ca.pem: not a certificate in PEM"),
        (lambda path: path.write_bytes(b"x" * 70_000), "ca.pem: a certificate of 70000 bytes"),
        (leaf, "'CN=y' is not one of an authority"),
        (old, "is expired, or not valid yet"),
    ],
)
def test_what_is_no_certificate_of_an_authority_founds_nothing(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "ca.pem")
    before = tree(tmp_path)
    with pytest.raises((FederationError, CertificateError), match=reason):
        found_federation(tmp_path / "new" / "authority", NAME, tmp_path / "ca.pem", NOW)
    assert tree(tmp_path) == before


def test_a_key_that_lies_beside_an_authoritys_certificate_is_not_sent_to_the_members(tmp_path: Path) -> None:
    key = new_transport_key(tmp_path / "ca.key")
    certificate = new_authority(key, "the consortium", NOW)
    (tmp_path / "ca.pem").write_bytes(private_pem(key) + certificate)
    found_federation(tmp_path / "authority", NAME, tmp_path / "ca.pem", NOW)
    assert (tmp_path / "authority" / "authority.pem").read_bytes() == certificate


@pytest.mark.parametrize("name", ["", "a b", 'bad"name', "x" * 121, "-x", "a\n"])
def test_what_is_no_name_is_refused_before_anything_is_written(place: Path, name: str) -> None:
    before = tree(place)
    with pytest.raises(WireError, match="cannot be the name of a federation"):
        found_federation(place / "new", name, None, NOW)
    with opened(toml(place)) as authority:
        for role, said in (("silo", "a silo"), ("analyst", "an analyst"), ("aggregator", "an aggregator")):
            with pytest.raises(WireError, match=f"cannot be the name of {said}"):
                invite(authority, name, role, 7, NOW)  # type: ignore[arg-type]
    assert tree(place) == before


def test_an_aggregator_and_nobody_else_has_an_address(place: Path) -> None:
    with pytest.raises(FederationError, match="needs an address"):
        join(invited(place, "hub", "aggregator"), place / "hub", "", NOW)
    with pytest.raises(FederationError, match="needs an address"):
        join(invited(place, "aspen"), place / "aspen", "a:1", NOW)


def test_a_file_that_was_changed_on_its_way_is_refused(place: Path, tmp_path: Path) -> None:
    text = invited(place).read_text()
    path = tmp_path / "x"
    for broken in ("", "hello", text.replace("INVITATION", "ADMISSION"), text[:-20], text.replace("\n", "\n!", 1)):
        path.write_text(broken)
        with pytest.raises((CryptoError, FederationError)):
            join(path, place / "aspen", "", NOW)
    path.write_text(text.replace("\n", "\r\n"))
    assert join(path, place / "aspen", "", NOW).request is not None, "line ends may change"
    with pytest.raises(WireError, match="cannot read"):
        join(tmp_path / "absent", place / "aspen", "", NOW)


def test_a_directory_that_is_not_empty_is_left_alone(place: Path) -> None:
    with pytest.raises(FederationError, match="is not empty"):
        found_federation(place / "authority", NAME, None, NOW)


def test_the_authoritys_own_name_is_nobody_elses(place: Path) -> None:
    with pytest.raises(FederationError, match="'authority' is what the authority signs as"):
        invited(place, "authority")


def test_an_address_is_given_with_the_invitation_only(place: Path) -> None:
    admission = admitted(place, asked(place))
    with pytest.raises(FederationError, match="the answer to the invitation has the address"):
        join(admission, place / "aspen", "aspen.example:8443", NOW)


def test_a_request_whose_address_nobody_can_dial_is_not_admitted(place: Path) -> None:
    invitation = invited(place, "hub", "aggregator")
    request = join(invitation, place / "hub", "hub.example:8443", NOW).request
    assert request is not None
    forged(place, request, {"address": "hub.example:99999"})
    with pytest.raises(CryptoError, match=r"'hub\.example:99999' is not HOST:PORT"):
        admitted(place, request)


def test_an_admission_that_does_not_continue_the_log_that_lies_there_changes_nothing(place: Path) -> None:
    add_member(place, "aspen", "silo")
    request = renew(place / "aspen").request
    assert request is not None
    with opened(toml(place)) as authority:
        admission, _ = rotate(authority, request, None, 30, NOW)
    with opened(toml(place)) as authority:
        revoke(authority, "aspen", "member", NOW)
    shutil.copy(place / "authority" / "membership.log", place / "aspen" / "membership.log")
    before = {file.name: file.read_bytes() for file in (place / "aspen").iterdir() if file.is_file()}
    with pytest.raises(MembershipError, match="is revoked"):
        join(admission, place / "aspen", "", NOW)
    assert {file.name: file.read_bytes() for file in (place / "aspen").iterdir() if file.is_file()} == before
