"""Found, invite, join, admit, rotate and revoke: what travels, what is refused, and a log that only ever continues."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import analyst.federation
import analyst.joining
from analyst.cli import main
from analyst.errors import FederationError
from analyst.federation import admit, found_federation, invite, opened, revoke, rotate
from analyst.joining import join, renew
from crypto.address import dialled, listened
from crypto.certificates import (
    Identity,
    Role,
    issue,
    new_authority,
    new_request,
    new_transport_key,
    pin_of,
    private_pem,
    read_certificate,
    read_transport_key,
    utc_now,
)
from crypto.credentials import Credentials
from crypto.errors import CertificateError, CryptoError, MembershipError, SignatureError, WireError
from crypto.keys import Secret, SigningKey, VerifyKey, read_key_file, write_key_file
from crypto.membership import (
    MAX_AGGREGATORS,
    MAX_LOG_BYTES,
    MAX_VERSIONS,
    Admission,
    Change,
    Invitation,
    JoinRequest,
    Keeper,
    Log,
    Member,
    armour,
    disarm,
    follow,
    next_version,
    read_invitation,
    read_join,
    read_log,
)
from crypto.randomness import token
from crypto.roster import AUTHORITY, Roster, read_roster
from crypto.sealing import SealingKey
from crypto.wire import MAX_SILOS, sign, verify
from tests.federated import NAME, add_member, credentials

NOW = utc_now()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found_federation(tmp_path / "authority", NAME, None, NOW)
    return tmp_path


def toml(place: Path) -> Path:
    return place / "authority" / "consilo.toml"


def invited(place: Path, name: str = "aspen", role: str = "silo", days: int = 7) -> Path:
    with opened(toml(place)) as authority:
        return invite(authority, name, role, days, NOW)  # type: ignore[arg-type]


def asked(place: Path, name: str = "aspen") -> Path:
    request = join(invited(place, name), place / name, "", NOW).request
    assert request is not None
    return request


def admitted(place: Path, request: Path) -> Path:
    with opened(toml(place)) as authority:
        return admit(authority, request, None, 30, NOW)[0]


def keeper_of(place: Path) -> Keeper:
    return Keeper(NAME, SigningKey(read_key_file(place / "authority" / "authority.key")).public)


def test_an_invitation_makes_a_member_once(place: Path) -> None:
    request = asked(place)
    admission = admitted(place, request)
    assert join(admission, place / "aspen", "", NOW).request is None
    member = credentials(place, "aspen", "silo").membership.find("aspen")
    assert (member.role, member.name) == ("silo", "aspen")
    with pytest.raises(FederationError, match="there is no open invitation"):
        admitted(place, request)
    with pytest.raises(FederationError, match="is a member already"):
        invited(place)


def test_the_roster_is_signed_by_the_authority_and_carries_the_version(place: Path) -> None:
    add_member(place, "hub", "aggregator", "hub.example:8443")
    assert not (place / "authority" / "roster.signed").exists(), "there is no silo yet"
    add_member(place, "aspen", "silo")
    roster = read_roster(place / "authority" / "roster.signed", keeper_of(place).authority)
    assert (roster.version, list(roster.silo_keys), list(roster.aggregator_keys)) == (3, ["aspen"], ["hub"])
    assert (place / "aspen" / "roster.signed").read_bytes() == (place / "authority" / "roster.signed").read_bytes()


def test_the_roster_says_where_silos_and_aggregators_are(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, role, where in (("hub", "aggregator", "EU-DE"), ("aspen", "silo", "NO"), ("birch", "silo", None)):
        with opened(toml(place)) as authority:
            invitation = invite(authority, name, role, 7, NOW, where)  # type: ignore[arg-type]
        request = join(invitation, place / name, "hub.example:8443" if role == "aggregator" else "", NOW).request
        assert request is not None
        admitted(place, request)
    roster = read_roster(place / "authority" / "roster.signed", keeper_of(place).authority)
    assert (roster.silo_places, roster.aggregator_places) == ({"aspen": "NO"}, {"hub": "EU-DE"})
    assert main(["federation", "log", "--federation", str(toml(place))]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[-3:]] == [
        ["silo", "aspen", "NO"], ["silo", "birch", "-"], ["aggregator", "hub", "EU-DE"]
    ]  # fmt: skip


def test_a_version_that_signs_another_roster_than_follows_from_it_is_refused(place: Path) -> None:
    add_member(place, "hub", "aggregator", "hub.example:8443")
    add_member(place, "aspen", "silo")
    with opened(toml(place)) as authority:
        aspen = authority.membership.find("aspen")
        moved = aspen.model_copy(update={"jurisdiction": "US"})
        right = authority.next(moved, "move aspen", NOW).versions[-1].message
        for wrong in ({"member": aspen}, {"roster": b""}, {"roster": bytes(64)}, {"roster": right.roster[:63]}):
            forged = right.model_copy(update=wrong)
            with pytest.raises(MembershipError, match="does not sign the roster that follows from it"):
                follow(authority.keeper, authority.log, [sign(forged, AUTHORITY, authority.signing)])


@pytest.mark.parametrize("number", [0, 1])
def test_only_the_first_version_changes_nobody(place: Path, number: int) -> None:
    with opened(toml(place)) as authority:
        found = authority.log.versions[0].message
        wrong = {"removed": "aspen"} if number == 0 else {"version": 2}
        body = found.model_copy(update=wrong)
        with pytest.raises(WireError, match="every version but the first"):
            follow(authority.keeper, authority.log, [sign(body, AUTHORITY, authority.signing)])


def test_a_change_that_cannot_be_is_refused(place: Path) -> None:
    """Keys and pins are of one member, what stood once never stands again, and nobody is removed twice."""
    for name in ("aspen", "birch"):
        add_member(place, name, "silo")
    with opened(toml(place)) as authority:
        aspen, birch = (authority.membership.find(name) for name in ("aspen", "birch"))
        for taken in (
            birch.model_copy(update={"key": aspen.key}),
            birch.model_copy(update={"pins": aspen.pins}),
            birch.model_copy(update={"pins": birch.pins * 2}),
        ):
            with pytest.raises(MembershipError, match="a key of 'birch' is another member's, or was revoked"):
                authority.next(taken, "steal", NOW)
        with pytest.raises(MembershipError, match="removes 'cedar', who is no member"):
            authority.next("cedar", "revoke cedar", NOW)
        gone = revoke(authority, "aspen", "member", NOW)
    with opened(toml(place)) as authority:
        assert gone.membership.revoked == {*aspen.pins, aspen.key.encode()}
        for again, name in (
            ({"pins": (token(32),)}, "aspen"),
            ({"key": str(SigningKey(Secret.generate()).public)}, "aspen"),
            ({"name": "cedar", "pins": (token(32),)}, "cedar"),
        ):
            with pytest.raises(MembershipError, match=f"a key of '{name}' is another member's, or was revoked"):
                authority.next(aspen.model_copy(update=again), "admit again", NOW)


def made_member(name: str, role: str) -> Member:
    """Return a member without a certificate, as large as one of its name may be."""
    root = Secret.generate()
    return Member(
        name=name.ljust(120, "x"),
        role=role,  # type: ignore[arg-type]
        key=str(SigningKey(root).public),
        sealing=SealingKey(root).public if role == "silo" else b"",
        address="x" * 253 + ":65535" if role == "aggregator" else "",
        pins=(token(32), token(32)),
        jurisdiction=None if role == "analyst" else "NO-XXX",
    )


def test_a_federation_of_four_hundred_silos_fits_and_the_next_is_refused_with_a_reason() -> None:
    signing = SigningKey(Secret.generate())
    keeper = Keeper(NAME, signing.public)
    log = next_version(keeper, Log.empty(keeper), signing, "found", 1, None)
    for number in range(MAX_AGGREGATORS):
        log = next_version(keeper, log, signing, "admit", 1, made_member(f"hub{number}", "aggregator"))
    membership = log.membership
    silos = [made_member(f"s{number}", "silo") for number in range(MAX_SILOS)]
    # as `follow` would after all but the last of them, without signing a roster for each
    full = replace(membership, members=(*membership.members, *sorted(silos[:-1], key=lambda one: one.name)))
    whole = next_version(keeper, replace(log, membership=full), signing, "x" * 300, 1, silos[-1])
    roster = verify(whole.membership.roster, Roster, {AUTHORITY: keeper.authority}).message
    assert len(roster.silos) == MAX_SILOS
    with pytest.raises(MembershipError, match=f"at most {MAX_SILOS} members as silo"):
        next_version(keeper, whole, signing, "admit", 1, made_member("one-more", "silo"))
    with pytest.raises(MembershipError, match=f"at most {MAX_AGGREGATORS} members as aggregator"):
        next_version(keeper, whole, signing, "admit", 1, made_member("one-more", "aggregator"))
    largest = len(whole.versions[-1].envelope)
    assert largest <= Change.MAX_BYTES
    assert MAX_VERSIONS * (largest + 4) <= MAX_LOG_BYTES, "the longest log is one that can be read"
    assert MAX_VERSIONS * (largest * 4 // 3 + 8) <= Admission.MAX_BYTES, "and one that can be sent"


def test_the_last_versions_of_a_log_are_kept_for_revocations(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crypto.membership.MAX_VERSIONS", 7)
    monkeypatch.setattr("crypto.membership.KEPT_VERSIONS", 3)
    for name in ("aspen", "birch"):
        add_member(place, name, "silo")
    rotated(place, renewed(place))
    full = "4 versions, which is as many as a log takes"
    with pytest.raises(MembershipError, match=full):
        add_member(place, "cedar", "silo")
    with pytest.raises(MembershipError, match=full):
        rotated(place, renewed(place))
    with opened(toml(place)) as authority:
        aspen = authority.membership.find("aspen")
        for more in ({"jurisdiction": "NO"}, {"pins": (token(32),)}, {"pins": aspen.pins[::-1]}, {}):
            with pytest.raises(MembershipError, match=full):
                authority.next(aspen.model_copy(update={"pins": aspen.pins[:1]} | more if more else {}), "more", NOW)
    for name, what in (("aspen", "old key"), ("aspen", "member"), ("birch", "member")):
        with opened(toml(place)) as authority:
            revoke(authority, name, what, NOW)  # type: ignore[arg-type]
    assert len(read_log(place / "authority" / "membership.log", keeper_of(place))) == 7


def test_a_full_disk_leaves_the_log_as_it_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_member(place, "hub", "aggregator", "hub.example:8443")
    file = place / "authority" / "membership.log"
    before = file.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    invitation = invited(place)
    request = join(invitation, place / "aspen", "", NOW).request
    assert request is not None
    with monkeypatch.context() as patch:
        patch.setattr("crypto.membership.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            admitted(place, request)
    assert file.read_bytes() == before
    admitted(place, request)
    assert len(read_log(file, keeper_of(place))) == 3


def test_an_admission_that_is_too_large_destroys_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(place)
    file = place / "authority" / "membership.log"
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Admission, "MAX_BYTES", 1000)
        with pytest.raises(WireError):
            admitted(place, request)
    assert file.read_bytes() == before
    assert join(admitted(place, request), place / "aspen", "", NOW).request is None, "the invitation is not spent"


def test_an_analyst_has_no_place_in_the_roster(place: Path) -> None:
    with opened(toml(place)) as authority, pytest.raises(FederationError, match="each policy says"):
        invite(authority, "ana", "analyst", 7, NOW, "NO")


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
    travelled = [disarm(request, JoinRequest)[1], disarm(admission, Admission)[1]]
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
    message = read_join(disarm(request, JoinRequest)[1]).message
    root = Secret.generate()
    thief = SigningKey(root)
    stolen = message.model_copy(update={"key": str(thief.public)})
    request.write_text(armour(JoinRequest, sign(stolen, "aspen", thief)))
    with pytest.raises(MembershipError, match="does not prove the invitation's code"):
        admitted(place, request)
    guessed = stolen.model_copy(update={"proof": stolen.proof_by(bytes(16))})
    request.write_text(armour(JoinRequest, sign(guessed, "aspen", thief)))
    with pytest.raises(MembershipError, match="does not prove"):
        admitted(place, request)


@pytest.mark.parametrize("field", ["role", "name", "federation"])
def test_an_invitation_is_good_for_its_name_and_role_only(place: Path, field: str) -> None:
    request = asked(place)
    code = read_invitation(disarm(place / "authority" / "invitations" / "aspen.invitation", Invitation)[1]).code
    message = read_join(disarm(request, JoinRequest)[1]).message
    changed = message.model_copy(update={field: {"role": "analyst", "name": "birch", "federation": "other"}[field]})
    if field == "role":
        changed = changed.model_copy(update={"sealing": b""})
    changed = changed.model_copy(update={"proof": changed.proof_by(code)})
    signing = SigningKey(read_key_file(place / "aspen" / "identity.key"))
    request.write_text(armour(JoinRequest, sign(changed, changed.name, signing)))
    with pytest.raises(FederationError, match=r"the request is another|no open invitation"):
        admitted(place, request)


def test_a_request_signed_by_another_key_than_it_states_is_refused(place: Path) -> None:
    request = asked(place)
    message = read_join(disarm(request, JoinRequest)[1]).message
    request.write_text(armour(JoinRequest, sign(message, "aspen", SigningKey(Secret.generate()))))
    with pytest.raises(SignatureError):
        admitted(place, request)


def test_an_invitation_or_admission_of_another_authority_is_refused(place: Path, tmp_path: Path) -> None:
    path = invited(place)
    envelope = disarm(path, Invitation)[1]
    forged = read_invitation(envelope)
    path.write_text(armour(Invitation, sign(forged, AUTHORITY, SigningKey(Secret.generate()))))
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
    message = read_join(disarm(request, JoinRequest)[1]).message.model_copy(update=wrong)
    invitation = place / "authority" / "invitations" / f"{message.name}.invitation"
    message = message.model_copy(
        update={"proof": message.proof_by(read_invitation(disarm(invitation, Invitation)[1]).code)}
    )
    signing = SigningKey(read_key_file(request.with_name("identity.key")))
    request.write_text(armour(JoinRequest, sign(message, message.name, signing)))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"sealing": b""}, "a silo has a sealing key"),
        ({"address": "aspen.example:8443"}, "an aggregator an address, and nobody else"),
        ({"sealing": bytes(1216)}, "a public sealing key is malformed or weak"),
        ({"sealing": b"\xff" * 1216}, "a public sealing key is malformed or weak"),
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

    monkeypatch.setattr(analyst.joining, "replace_file", half)
    monkeypatch.setattr(analyst.federation, "append", half)
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

    monkeypatch.setattr(analyst.joining, "write_key_file", again)
    request = join(path, place / "aspen", "", NOW).request
    assert request is not None
    assert join(admitted(place, request), place / "aspen", "", NOW).request is None


def tree(path: Path) -> dict[Path, bytes]:
    """Return what lies under a directory."""
    return {one: one.read_bytes() if one.is_file() else b"" for one in path.rglob("*")}


def leaf(path: Path) -> None:
    key = new_transport_key(path.with_suffix(".key"))
    authority = new_authority(key, "x", NOW)
    path.write_bytes(issue(authority, key, new_request(key, Identity("x", "silo", "y")), NOW, 1))


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


def test_rotation_has_two_keys_that_stand_until_the_older_is_revoked(place: Path) -> None:
    add_member(place, "aspen", "silo")
    before = read_certificate((place / "aspen" / "transport.pem").read_bytes())
    earlier = credentials(place, "aspen", "silo").membership
    request = renew(place / "aspen").request
    assert request is not None
    join(rotated(place, request), place / "aspen", "", NOW)
    after = read_certificate((place / "aspen" / "transport.pem").read_bytes())
    membership = credentials(place, "aspen", "silo").membership
    assert membership.peer(before).name == membership.peer(after).name == "aspen"
    with pytest.raises(MembershipError, match="is not a member with this certificate in version 2 of") as behind:
        earlier.peer(after)
    assert "give the aggregator the newest membership.log" in behind.value.hint
    with opened(toml(place)) as authority:
        last = revoke(authority, "aspen", "old key", NOW).membership
    assert last.peer(after).name == "aspen"
    with pytest.raises(MembershipError, match="is revoked"):
        last.peer(before)
    with opened(toml(place)) as authority, pytest.raises(FederationError, match="one transport key only"):
        revoke(authority, "aspen", "old key", NOW)


def rotated(place: Path, request: Path) -> Path:
    with opened(toml(place)) as authority:
        return rotate(authority, request, None, 30, NOW)[0]


def renewed(place: Path, name: str = "aspen") -> Path:
    request = renew(place / name).request
    assert request is not None
    return request


def in_use(place: Path, name: str = "aspen") -> bytes:
    return pin_of(read_certificate((place / name / "transport.pem").read_bytes()).public_key())


def stand(place: Path, name: str = "aspen") -> tuple[bytes, ...]:
    return read_log(place / "authority" / "membership.log", keeper_of(place)).membership.find(name).pins


def test_a_member_that_renews_again_before_it_installs_is_not_locked_out(place: Path) -> None:
    add_member(place, "aspen", "silo")
    first = in_use(place)
    lost = rotated(place, renewed(place))
    never_installed = stand(place)[0]
    request = renewed(place)
    with pytest.raises(FederationError, match="of a key that is not here"):
        join(lost, place / "aspen", "", NOW)
    join(rotated(place, request), place / "aspen", "", NOW)
    assert stand(place) == (in_use(place), first)
    with opened(toml(place)) as authority:
        assert authority.membership.revoked == {never_installed}
    second = in_use(place)
    join(rotated(place, renewed(place)), place / "aspen", "", NOW)
    assert stand(place) == (in_use(place), second)


def test_a_member_whose_key_in_use_was_revoked_too_early_rotates_again(place: Path) -> None:
    add_member(place, "aspen", "silo")
    rotated(place, renewed(place))
    with opened(toml(place)) as authority:
        revoke(authority, "aspen", "old key", NOW)
    join(rotated(place, renewed(place)), place / "aspen", "", NOW)
    assert stand(place) == (in_use(place),), "what was revoked does not stand beside it"
    assert credentials(place, "aspen", "silo").membership.find("aspen").pins == stand(place)


def test_an_authority_that_is_killed_in_the_middle_does_it_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def versions_of() -> int:
        return len(read_log(place / "authority" / "membership.log", keeper_of(place)))

    request = asked(place)
    with monkeypatch.context() as patch:
        patch.setattr(analyst.federation, "_posted", killed)
        with pytest.raises(KeyboardInterrupt):
            admitted(place, request)
    join(admitted(place, request), place / "aspen", "", NOW)
    request, before = renewed(place), versions_of()
    with monkeypatch.context() as patch:
        patch.setattr(analyst.federation, "_posted", killed)
        with pytest.raises(KeyboardInterrupt):
            rotated(place, request)
    assert versions_of() == before + 1
    with opened(toml(place)) as authority:
        admission, is_new = rotate(authority, request, None, 30, NOW)
    assert (is_new, versions_of()) == (False, before + 1)
    join(admission, place / "aspen", "", NOW)
    assert stand(place)[0] == in_use(place)


def test_a_request_of_a_key_that_stood_already_is_refused(place: Path) -> None:
    add_member(place, "aspen", "silo")
    first = (place / "aspen" / "aspen.request").read_bytes()
    join(rotated(place, renewed(place)), place / "aspen", "", NOW)
    again = place / "again.request"
    again.write_bytes(first)
    with pytest.raises(FederationError, match="of the key before the last rotation"):
        rotated(place, again)
    with opened(toml(place)) as authority:
        revoke(authority, "aspen", "old key", NOW)
    with pytest.raises(FederationError, match="of a key that was revoked"):
        rotated(place, again)


@pytest.mark.parametrize(("older", "reason"), [("birch", "an older key that is not its own"), ("", "names no key")])
def test_a_request_to_rotate_names_a_key_of_its_own(place: Path, older: str, reason: str) -> None:
    """A certificate with the name of another's key would pass for the other wherever its key is expected."""
    for name in ("aspen", "birch"):
        add_member(place, name, "silo")
    request = renewed(place)
    fresh = read_transport_key(place / "aspen" / "transport.key.new")
    made = new_request(fresh, Identity(NAME, "silo", "aspen"), in_use(place, older) if older else b"")
    message = read_join(disarm(request, JoinRequest)[1]).message.model_copy(update={"request": made})
    signing = SigningKey(read_key_file(place / "aspen" / "identity.key"))
    request.write_text(armour(JoinRequest, sign(message, "aspen", signing)))
    with pytest.raises(FederationError, match=reason):
        rotated(place, request)


def test_nobody_rotates_anothers_key(place: Path) -> None:
    add_member(place, "aspen", "silo")
    add_member(place, "birch", "silo")
    request = renew(place / "birch").request
    assert request is not None
    message = read_join(disarm(request, JoinRequest)[1]).message
    stolen = message.model_copy(update={"name": "aspen"})
    signing = SigningKey(read_key_file(place / "birch" / "identity.key"))
    request.write_text(armour(JoinRequest, sign(stolen, "aspen", signing)))
    with opened(toml(place)) as authority, pytest.raises(FederationError, match="not signed by the identity key"):
        rotate(authority, request, None, 30, NOW)


def test_a_revoked_member_is_in_no_roster_and_its_key_never_stands_again(place: Path) -> None:
    add_member(place, "hub", "aggregator", "h:1")
    for silo in ("aspen", "birch"):
        add_member(place, silo, "silo")
    certificate = read_certificate((place / "aspen" / "transport.pem").read_bytes())
    with opened(toml(place)) as authority:
        membership = revoke(authority, "aspen", "member", NOW).membership
    roster = read_roster(place / "authority" / "roster.signed", keeper_of(place).authority)
    assert list(roster.silo_keys) == ["birch"]
    with pytest.raises(MembershipError, match="is revoked"):
        membership.peer(certificate)
    with opened(toml(place)) as authority, pytest.raises(MembershipError, match="'aspen' is no member"):
        revoke(authority, "aspen", "member", NOW)
    (place / "aspen").rename(place / "gone")
    add_member(place, "aspen", "silo")  # the same name, invited anew, with other keys
    with opened(toml(place)) as authority:
        assert pin_of(certificate.public_key()) not in authority.membership.find("aspen").pins


def test_a_consortiums_own_authority_issues_the_certificates(tmp_path: Path) -> None:
    key = new_transport_key(tmp_path / "ca.key")
    (tmp_path / "ca.pem").write_bytes(new_authority(key, "the consortium", NOW))
    found_federation(tmp_path / "authority", NAME, tmp_path / "ca.pem", NOW)
    assert not (tmp_path / "authority" / "authority-tls.key").exists()
    request = asked(tmp_path)
    with opened(toml(tmp_path)) as authority, pytest.raises(FederationError, match="issues the certificates") as caught:
        admit(authority, request, None, 30, NOW)
    csr = tmp_path / "authority" / "invitations" / "aspen.csr"
    assert str(csr) in caught.value.hint
    rogue = new_transport_key(tmp_path / "rogue.key")
    issued = tmp_path / "issued.pem"
    issued.write_bytes(issue(new_authority(rogue, "rogue", NOW), rogue, csr.read_bytes(), NOW, 30))
    with opened(toml(tmp_path)) as authority, pytest.raises(CertificateError, match="not issued by"):
        admit(authority, request, issued, 30, NOW)
    absent = tmp_path / "absent.pem"
    with (
        opened(toml(tmp_path)) as authority,
        pytest.raises(FederationError, match=r"cannot read .*absent\.pem"),
    ):
        admit(authority, request, absent, 30, NOW)
    chain = (
        issue((tmp_path / "ca.pem").read_bytes(), key, csr.read_bytes(), NOW, 30) + (tmp_path / "ca.pem").read_bytes()
    )
    issued.write_bytes(b"# as it was issued\n" + chain + private_pem(key))
    with opened(toml(tmp_path)) as authority:
        admission, member = admit(authority, request, issued, 30, NOW)
    join(admission, tmp_path / "aspen", "", NOW)
    assert member.name == "aspen"
    assert (tmp_path / "aspen" / "transport.pem").read_bytes() == chain, "a key that lies beside them does not travel"


def versions(place: Path) -> list[bytes]:
    add_member(place, "hub", "aggregator", "h:1")
    add_member(place, "aspen", "silo")
    add_member(place, "birch", "silo")
    return [one.envelope for one in read_log(place / "authority" / "membership.log", keeper_of(place)).versions]


def test_a_log_only_ever_continues(place: Path) -> None:
    envelopes, keeper = versions(place), keeper_of(place)
    whole = follow(keeper, Log.empty(keeper), envelopes)
    assert [one.message.version for one in whole.versions] == [1, 2, 3, 4]
    assert follow(keeper, whole, envelopes[:2]) == whole, "what is known already changes nothing"
    for wrong, reason in [
        (envelopes[1:], "does not follow version 0"),
        ([envelopes[0], envelopes[2]], "does not follow version 1"),
    ]:
        with pytest.raises(MembershipError, match=reason):
            follow(keeper, Log.empty(keeper), wrong)
    with pytest.raises(CryptoError):
        follow(keeper, Log.empty(keeper), [envelopes[0], envelopes[1][:-1] + b"x"])
    with pytest.raises(SignatureError):
        follow(replace(keeper, authority=VerifyKey(bytes(32))), Log.empty(keeper), envelopes)
    with pytest.raises(MembershipError, match="expected 'other'"):
        follow(replace(keeper, federation="other"), Log.empty(keeper), envelopes)


def test_an_authority_that_tells_two_stories_is_found_out(place: Path) -> None:
    envelopes, keeper = versions(place), keeper_of(place)
    signing = SigningKey(read_key_file(place / "authority" / "authority.key"))
    before, whole = (follow(keeper, Log.empty(keeper), some) for some in (envelopes[:3], envelopes))
    other = next_version(keeper, before, signing, "another story", 0, "aspen")
    with pytest.raises(MembershipError, match="version 4 of the membership differs from the one known here"):
        follow(keeper, whole, [other.versions[3].envelope])
    after = next_version(keeper, other, signing, "its next", 0, "hub")
    with pytest.raises(MembershipError, match="does not follow version 4"):
        follow(keeper, whole, [after.versions[4].envelope])


def test_a_log_file_that_is_cut_or_older_than_known_is_refused(place: Path) -> None:
    versions(place)
    keeper = keeper_of(place)
    path = place / "aspen" / "membership.log"
    kept = Credentials(place / "aspen", keeper, Identity(NAME, "silo", "aspen"))
    newest = (place / "authority" / "membership.log").read_bytes()
    older = path.read_bytes()
    path.write_bytes(newest)
    assert kept.refresh()
    assert not kept.refresh()
    path.write_bytes(older)
    with pytest.raises(MembershipError, match="older than what is known here"):
        kept.refresh()
    path.unlink()
    with pytest.raises(MembershipError, match="cannot read the membership log"):
        kept.refresh()
    for broken in (b"", newest[:-1], newest + b"\0\0", newest[1:]):
        path.write_bytes(broken)
        with pytest.raises(CryptoError):
            read_log(path, keeper)


def test_a_roster_that_could_not_be_written_is_written_when_the_log_is_sent_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelopes = versions(place)
    own = credentials(place, "aspen", "silo")
    before = (place / "aspen" / "roster.signed").read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("crypto.credentials.replace_file", full)
        with pytest.raises(OSError, match="No space left"):
            own.extend(envelopes)
    assert (place / "aspen" / "roster.signed").read_bytes() == before
    assert own.extend(envelopes)
    assert (place / "aspen" / "roster.signed").read_bytes() == own.membership.roster
    assert (place / "aspen" / "membership.log").read_bytes() == (place / "authority" / "membership.log").read_bytes()


def test_an_older_roster_beside_a_newer_log_is_put_right(place: Path) -> None:
    versions(place)
    home = place / "birch"
    roster, authority = home / "roster.signed", place / "authority" / "roster.signed"
    roster.write_bytes((place / "aspen" / "roster.signed").read_bytes())  # of the version before
    assert roster.read_bytes() != authority.read_bytes()
    credentials(place, "birch", "silo")
    assert roster.read_bytes() == authority.read_bytes()


def test_the_directory_of_another_key_or_an_expired_certificate_is_refused(place: Path) -> None:
    add_member(place, "aspen", "silo")
    add_member(place, "birch", "silo")
    home = place / "aspen"
    good = (home / "transport.pem").read_bytes()
    (home / "transport.pem").write_bytes((place / "birch" / "transport.pem").read_bytes())
    with pytest.raises(CertificateError, match="the certificate is of consilo://consortium/silo/birch"):
        credentials(place, "aspen", "silo")
    (home / "transport.pem").write_bytes(good)
    (home / "transport.key").unlink()
    new_transport_key(home / "transport.key")
    with pytest.raises(CertificateError, match="do not belong together"):
        credentials(place, "aspen", "silo")


def test_one_change_at_a_time(place: Path) -> None:
    with (
        opened(toml(place)),
        pytest.raises(FederationError, match="being changed by another command"),
        opened(toml(place)),
    ):
        pass


def test_a_directory_that_is_not_empty_is_left_alone(place: Path) -> None:
    with pytest.raises(FederationError, match="is not empty"):
        found_federation(place / "authority", NAME, None, NOW)


def test_the_commands_tell_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def said(*command: str) -> str:
        assert main(command) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    federation = ("--federation", "fed/consilo.toml")
    out = said("federation", "new", "fed", "--name", "c")
    assert f"authority {SigningKey(read_key_file(tmp_path / 'fed' / 'authority.key')).public}" in out
    said("federation", "invite", "hub", "--role", "aggregator", *federation)
    out = said("join", "fed/invitations/hub.invitation", "--out", "hub", "--address", "h.example:8443")
    assert "send hub/hub.request to the authority" in out
    assert "hub is admitted as aggregator" in said("federation", "admit", "hub/hub.request", *federation)
    out = said("join", "fed/invitations/hub.admission", "--out", "hub")
    assert "next: consilo aggregator serve hub" in out
    assert "send hub/hub.request" in said("join", "--renew", "--out", "hub")
    out = said("federation", "rotate", "hub/hub.request", *federation)
    assert "send back" in out
    assert "once ORG has installed its admission: consilo federation revoke ORG --old-key" in out
    assert "its admission is written again" in said("federation", "rotate", "hub/hub.request", *federation)
    said("join", "fed/invitations/hub.admission", "--out", "hub")
    assert "membership version 4: revoke the old key of hub" in said(
        "federation", "revoke", "hub", "--old-key", *federation
    )
    assert "membership version 5: revoke hub" in said("federation", "revoke", "hub", *federation)
    log = said("federation", "log", *federation)
    assert [line.split("Z  ")[1] for line in log.splitlines()] == [
        "found",
        "admit hub",
        "rotate hub",
        "revoke the old key of hub",
        "revoke hub",
    ]
    assert main(["join", "--out", "x"]) == 1
    assert "give either the file that the authority sent, or --renew" in capsys.readouterr().err
    assert main(["federation", "invite", "x", "--role", "silo", "--days", "0", *federation]) == 1
    assert "is not a number of days" in capsys.readouterr().err
    assert main(["aggregator", "serve", "absent"]) == 1
    assert "there is no directory absent" in capsys.readouterr().err


def test_the_authoritys_own_name_is_nobody_elses(place: Path) -> None:
    with pytest.raises(FederationError, match="'authority' is what the authority signs as"):
        invited(place, "authority")


def test_an_address_is_given_with_the_invitation_only(place: Path) -> None:
    admission = admitted(place, asked(place))
    with pytest.raises(FederationError, match="the address stands in the invitation's answer"):
        join(admission, place / "aspen", "aspen.example:8443", NOW)


def test_a_request_whose_address_nobody_can_dial_is_not_admitted(place: Path) -> None:
    invitation = invited(place, "hub", "aggregator")
    request = join(invitation, place / "hub", "hub.example:8443", NOW).request
    assert request is not None
    forged(place, request, {"address": "hub.example:99999"})
    with pytest.raises(CryptoError, match=r"'hub\.example:99999' is not HOST:PORT"):
        admitted(place, request)
