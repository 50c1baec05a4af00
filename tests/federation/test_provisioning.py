"""Found, admit, rotate and revoke: what stands, what never stands again, and a log that only ever continues."""

from dataclasses import replace
from pathlib import Path

import pytest

import federation.authority
import federation.joining
from analyst.cli.main import main
from crypto.errors import CertificateError, CryptoError, MembershipError, SignatureError, WireError
from crypto.keys import Secret, SigningKey, read_key_file
from crypto.randomness import token
from crypto.sealing import SealingKey
from crypto.wire import MAX_SILOS, sign, verify
from federation.authority import admit, found_federation, invite, opened, revoke, rotate
from federation.errors import FederationError
from federation.joining import install, join, renew
from federation.members.admission import Admission, JoinRequest, from_armor, read_join, to_armor
from federation.members.certificates import (
    Identity,
    issue,
    new_authority,
    new_certificate_request,
    new_transport_key,
    pin_of,
    private_pem,
    read_certificate,
    read_transport_key,
)
from federation.members.credentials import Credentials
from federation.members.membership import (
    MAX_AGGREGATORS,
    MAX_LOG_BYTES,
    MAX_VERSIONS,
    Change,
    Member,
    MembershipLog,
    TrustAnchor,
    extend_log,
    next_version,
    read_log,
)
from federation.members.roster import AUTHORITY, Roster, read_roster
from tests.harness.federated import NAME, add_member, credentials
from tests.harness.provisioning import NOW, admitted, asked, invited, toml, trust_anchor_of


def test_an_invitation_makes_a_member_once(place: Path) -> None:
    request = asked(place)
    admission = admitted(place, request)
    assert join(admission, place / "aspen", "", NOW).request is None
    member = credentials(place, "aspen", "silo").membership.find("aspen")
    assert (member.role, member.name) == ("silo", "aspen")
    log = (place / "authority" / "membership.log").read_bytes()
    assert join(admitted(place, request), place / "aspen", "", NOW).request is None, "its admission is written again"
    assert (place / "authority" / "membership.log").read_bytes() == log
    assert install(admission, place / "aspen", NOW).request is None, "as `serve --admission` does at every start"
    with pytest.raises(CryptoError, match="admission"):
        install(request, place / "aspen", NOW)
    with pytest.raises(FederationError, match="is a member already"):
        invited(place)
    other = renew(place / "aspen").request
    assert other is not None
    with pytest.raises(FederationError, match="'aspen' is a member already, with another key") as caught:
        admitted(place, other)
    assert "rotate" in caught.value.hint
    with opened(toml(place)) as authority:
        revoke(authority, "aspen", "member", NOW)
    with pytest.raises(FederationError, match="there is no open invitation"):
        admitted(place, request)


def test_whoever_can_be_admitted_gets_an_admission(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bad request of several keeps no other from its admission, and the same command mends a killed one."""
    aspen, birch, bad = asked(place, "aspen"), asked(place, "birch"), place / "bad.request"
    bad.write_text("junk")
    post = place / "post"
    post.mkdir()
    command = ["federation", "admit", *map(str, (bad, aspen, birch)), "--post", str(post), "--federation"]
    assert main([*command, str(toml(place))]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{bad} is not admitted: {bad} is not a consilo join file; ask for it to be sent again")
    assert "1 of 3 requests are not admitted" in said.err
    assert sorted(one.name for one in post.iterdir()) == ["aspen.admission", "birch.admission"]
    (post / "birch.admission").unlink()
    (place / "authority" / "invitations" / "birch.admission").unlink()  # as if the process had ended before
    command.remove(str(bad))
    assert main([*command, str(toml(place))]) == 0
    assert "birch is a member already, as silo" in capsys.readouterr().out
    for name in ("aspen", "birch"):
        assert join(post / f"{name}.admission", place / name, "", NOW).request is None
    assert credentials(place, "birch", "silo").membership.find("aspen").role == "silo"


def test_a_file_of_members_is_invited_without_other_options(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = place / "members.toml"
    members.write_text('[silos]\naspen = "NO"\n')
    for more in (["--role", "silo"], ["--jurisdiction", "SE"], ["birch"]):
        assert main(["federation", "invite", "--from", str(members), *more, "--federation", str(toml(place))]) == 1
        assert "--from FILE alone" in capsys.readouterr().err
    assert not list((place / "authority" / "invitations").iterdir())


def test_the_roster_is_signed_by_the_authority_and_carries_the_version(place: Path) -> None:
    add_member(place, "hub", "aggregator", "hub.example:8443")
    assert not (place / "authority" / "roster.signed").exists(), "there is no silo yet"
    add_member(place, "aspen", "silo")
    roster = read_roster(place / "authority" / "roster.signed", trust_anchor_of(place).authority)
    assert (roster.version, list(roster.silo_keys), list(roster.aggregator_keys)) == (3, ["aspen"], ["hub"])
    assert (place / "aspen" / "roster.signed").read_bytes() == (place / "authority" / "roster.signed").read_bytes()


def test_the_roster_says_where_silos_and_aggregators_are(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, role, where in (("hub", "aggregator", "EU-DE"), ("aspen", "silo", "NO"), ("birch", "silo", None)):
        with opened(toml(place)) as authority:
            invitation = invite(authority, name, role, 7, NOW, where)  # type: ignore[arg-type]
        request = join(invitation, place / name, "hub.example:8443" if role == "aggregator" else "", NOW).request
        assert request is not None
        admitted(place, request)
    roster = read_roster(place / "authority" / "roster.signed", trust_anchor_of(place).authority)
    assert (roster.silo_jurisdictions, roster.aggregator_jurisdictions) == ({"aspen": "NO"}, {"hub": "EU-DE"})
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
                extend_log(authority.anchor, authority.log, [sign(forged, AUTHORITY, authority.signing)])


@pytest.mark.parametrize("number", [0, 1])
def test_only_the_first_version_changes_nobody(place: Path, number: int) -> None:
    with opened(toml(place)) as authority:
        found = authority.log.versions[0].message
        wrong = {"removed": "aspen"} if number == 0 else {"version": 2}
        body = found.model_copy(update=wrong)
        with pytest.raises(WireError, match="every version but the first"):
            extend_log(authority.anchor, authority.log, [sign(body, AUTHORITY, authority.signing)])


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


def test_a_federation_of_a_thousand_silos_fits_and_the_next_is_refused_with_a_reason() -> None:
    signing = SigningKey(Secret.generate())
    anchor = TrustAnchor(NAME, signing.public)
    log = next_version(anchor, MembershipLog.empty(anchor), signing, "found", 1, None)
    for number in range(MAX_AGGREGATORS):
        log = next_version(anchor, log, signing, "admit", 1, made_member(f"hub{number}", "aggregator"))
    membership = log.membership
    silos = [made_member(f"s{number}", "silo") for number in range(MAX_SILOS)]
    # as `extend_log` would after all but the last of them, without signing a roster for each
    full = replace(membership, members=(*membership.members, *sorted(silos[:-1], key=lambda one: one.name)))
    whole = next_version(anchor, replace(log, membership=full), signing, "x" * 300, 1, silos[-1])
    roster = verify(whole.membership.roster, Roster, {AUTHORITY: anchor.authority}).message
    assert len(roster.silos) == MAX_SILOS
    with pytest.raises(MembershipError, match=f"at most {MAX_SILOS} members as silo"):
        next_version(anchor, whole, signing, "admit", 1, made_member("one-more", "silo"))
    with pytest.raises(MembershipError, match=f"at most {MAX_AGGREGATORS} members as aggregator"):
        next_version(anchor, whole, signing, "admit", 1, made_member("one-more", "aggregator"))
    largest = len(whole.versions[-1].envelope)
    assert largest <= Change.MAX_BYTES
    assert MAX_VERSIONS * (largest + 4) <= MAX_LOG_BYTES, "the longest log is one that can be read"
    assert MAX_VERSIONS * (largest * 4 // 3 + 8) <= Admission.MAX_BYTES, "and one that can be sent"


def test_the_last_versions_of_a_log_are_kept_for_revocations(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.members.membership.MAX_VERSIONS", 7)
    monkeypatch.setattr("federation.members.membership.KEPT_VERSIONS", 3)
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
    assert len(read_log(place / "authority" / "membership.log", trust_anchor_of(place))) == 7


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
        patch.setattr("federation.members.membership.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            admitted(place, request)
    assert file.read_bytes() == before
    admitted(place, request)
    assert len(read_log(file, trust_anchor_of(place))) == 3


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
    with opened(toml(place)) as authority, pytest.raises(FederationError, match="jurisdiction is set in each policy"):
        invite(authority, "ana", "analyst", 7, NOW, "NO")


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
    return read_log(place / "authority" / "membership.log", trust_anchor_of(place)).membership.find(name).pins


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
    def killed(path: Path, *_: object) -> None:
        assert path.suffix == ".admission"
        raise KeyboardInterrupt

    def versions_of() -> int:
        return len(read_log(place / "authority" / "membership.log", trust_anchor_of(place)))

    request = asked(place)
    with monkeypatch.context() as patch:
        patch.setattr(federation.authority, "replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            admitted(place, request)
    join(admitted(place, request), place / "aspen", "", NOW)
    request, before = renewed(place), versions_of()
    with monkeypatch.context() as patch:
        patch.setattr(federation.authority, "replace_file", killed)
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
    made = new_certificate_request(fresh, Identity(NAME, "silo", "aspen"), in_use(place, older) if older else b"")
    message = read_join(from_armor(request, JoinRequest)[1]).message.model_copy(update={"request": made})
    signing = SigningKey(read_key_file(place / "aspen" / "identity.key"))
    request.write_text(to_armor(JoinRequest, sign(message, "aspen", signing)))
    with pytest.raises(FederationError, match=reason):
        rotated(place, request)


def test_nobody_rotates_anothers_key(place: Path) -> None:
    add_member(place, "aspen", "silo")
    add_member(place, "birch", "silo")
    request = renew(place / "birch").request
    assert request is not None
    message = read_join(from_armor(request, JoinRequest)[1]).message
    stolen = message.model_copy(update={"name": "aspen"})
    signing = SigningKey(read_key_file(place / "birch" / "identity.key"))
    request.write_text(to_armor(JoinRequest, sign(stolen, "aspen", signing)))
    with opened(toml(place)) as authority, pytest.raises(FederationError, match="not signed by the identity key"):
        rotate(authority, request, None, 30, NOW)


def test_a_revoked_member_is_in_no_roster_and_its_key_never_stands_again(place: Path) -> None:
    add_member(place, "hub", "aggregator", "h:1")
    for silo in ("aspen", "birch"):
        add_member(place, silo, "silo")
    certificate = read_certificate((place / "aspen" / "transport.pem").read_bytes())
    with opened(toml(place)) as authority:
        membership = revoke(authority, "aspen", "member", NOW).membership
    roster = read_roster(place / "authority" / "roster.signed", trust_anchor_of(place).authority)
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
    return [one.envelope for one in read_log(place / "authority" / "membership.log", trust_anchor_of(place)).versions]


def test_a_log_only_ever_continues(place: Path) -> None:
    envelopes, anchor = versions(place), trust_anchor_of(place)
    whole = extend_log(anchor, MembershipLog.empty(anchor), envelopes)
    assert [one.message.version for one in whole.versions] == [1, 2, 3, 4]
    assert extend_log(anchor, whole, envelopes[:2]) == whole, "what is known already changes nothing"
    for wrong, reason in [
        (envelopes[1:], "does not follow version 0"),
        ([envelopes[0], envelopes[2]], "does not follow version 1"),
    ]:
        with pytest.raises(MembershipError, match=reason):
            extend_log(anchor, MembershipLog.empty(anchor), wrong)
    with pytest.raises(CryptoError):
        extend_log(anchor, MembershipLog.empty(anchor), [envelopes[0], envelopes[1][:-1] + b"x"])
    with pytest.raises(SignatureError):
        extend_log(
            replace(anchor, authority=SigningKey(Secret.generate()).public), MembershipLog.empty(anchor), envelopes
        )
    with pytest.raises(MembershipError, match="expected 'other'"):
        extend_log(replace(anchor, federation="other"), MembershipLog.empty(anchor), envelopes)


def test_an_authority_that_tells_two_stories_is_found_out(place: Path) -> None:
    envelopes, anchor = versions(place), trust_anchor_of(place)
    signing = SigningKey(read_key_file(place / "authority" / "authority.key"))
    before, whole = (extend_log(anchor, MembershipLog.empty(anchor), some) for some in (envelopes[:3], envelopes))
    other = next_version(anchor, before, signing, "another story", 0, "aspen")
    with pytest.raises(MembershipError, match="version 4 of the membership differs from the one known here"):
        extend_log(anchor, whole, [other.versions[3].envelope])
    after = next_version(anchor, other, signing, "its next", 0, "hub")
    with pytest.raises(MembershipError, match="does not follow version 4"):
        extend_log(anchor, whole, [after.versions[4].envelope])


def test_a_log_file_that_is_cut_or_older_than_known_is_refused(place: Path) -> None:
    versions(place)
    anchor = trust_anchor_of(place)
    path = place / "aspen" / "membership.log"
    kept = Credentials(place / "aspen", anchor, Identity(NAME, "silo", "aspen"))
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
            read_log(path, anchor)


def test_a_roster_that_could_not_be_written_is_written_when_the_log_is_sent_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelopes = versions(place)
    own = credentials(place, "aspen", "silo")
    before = (place / "aspen" / "roster.signed").read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("federation.members.credentials.replace_file", full)
        with pytest.raises(OSError, match="No space left"):
            own.extend(envelopes)
    assert (place / "aspen" / "roster.signed").read_bytes() == before
    assert own.extend(envelopes)
    assert (place / "aspen" / "roster.signed").read_bytes() == own.membership.roster
    assert (place / "aspen" / "membership.log").read_bytes() == (place / "authority" / "membership.log").read_bytes()


def test_a_log_that_stands_twice_in_its_file_is_continued_without_a_gap(place: Path) -> None:
    envelopes = versions(place)
    path = place / "aspen" / "membership.log"
    path.write_bytes(path.read_bytes() * 2)
    own = credentials(place, "aspen", "silo")
    assert own.extend(envelopes)
    assert [one.envelope for one in read_log(path, trust_anchor_of(place)).versions] == envelopes


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


MEMBERS = '[aggregators]\nhub = "NO"\n[silos]\naspen = "NO"\nbirch = "SE"\n[analysts]\nana = ""\n'


def test_all_members_are_invited_and_admitted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    federation = ("--federation", "fed/consilo.toml")
    Path("post").mkdir()
    Path("members.toml").write_text(MEMBERS)
    assert main(["federation", "new", "fed", "--name", "c"]) == 0
    assert main(["federation", "invite", "--from", "members.toml", "--post", "post", *federation]) == 0
    names = ("hub", "aspen", "birch", "ana")
    assert {path.name for path in Path("post").iterdir()} == {f"{name}.invitation" for name in names}
    for name in names:
        address = ["--address", "h.example:8443"] if name == "hub" else []
        assert main(["join", f"post/{name}.invitation", "--out", name, "--post", "post", *address]) == 0
    requests = [f"post/{name}.request" for name in names]
    assert main(["federation", "admit", *requests, "--post", "post", *federation]) == 0
    for name in names:
        assert main(["join", f"post/{name}.admission", "--out", name]) == 0
    logs = {Path(name, "membership.log").read_bytes() for name in (*names, "fed")}
    assert len(logs) == 1, "each admission has the members that were admitted with it"
    capsys.readouterr()
    assert main(["federation", "revoke", "birch", *federation]) == 0
    assert main(["federation", "push", "hub", "aspen", "post", *federation]) == 0
    said = capsys.readouterr().out
    assert "hub/membership.log: version 6, 1 new\naspen/membership.log: version 6, 1 new\n" in said
    assert "post/membership.log: version 6, 6 new" in said
    assert main(["federation", "push", "hub", *federation]) == 0
    assert "version 6, 0 new" in capsys.readouterr().out


def test_nobody_is_invited_where_one_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    federation = ("--federation", "fed/consilo.toml")
    assert main(["federation", "new", "fed", "--name", "c"]) == 0
    for text, says in (
        ("[silos\n", "cannot be read"),
        ("", "names nobody"),
        ('[silo]\naspen = "NO"\n', "'silo' is no table of members"),
        ('[silos]\naspen = "Norway"\n', "silos.aspen = 'Norway' is no place"),
        ('[silos]\naspen = "NO"\n[analysts]\nana = "NO"\n', "an analyst's jurisdiction is set in each policy"),
        ('[silos]\naspen = "NO"\n[aggregators]\naspen = "NO"\n', "'aspen' is named twice"),
        ('[silos]\naspen = "NO"\n"a b" = "NO"\n', "a b"),
        ('[silos]\naspen = "NO"\nauthority = "NO"\n', "is what the authority signs as"),
    ):
        Path("members.toml").write_text(text)
        assert main(["federation", "invite", "--from", "members.toml", *federation]) == 1, text
        assert says in capsys.readouterr().err, text
        assert not list(Path("fed/invitations").iterdir())
    for wrong in ([], ["aspen"], ["aspen", "--role", "silo", "--from", "members.toml"]):
        assert main(["federation", "invite", *wrong, *federation]) == 1
        assert "give either ORG and --role, or --from FILE" in capsys.readouterr().err
    Path("other").mkdir()
    Path("other/membership.log").write_bytes(Path("fed/membership.log").read_bytes()[:-1])
    assert main(["federation", "push", "other", *federation]) == 1
    assert main(["federation", "push", "absent", *federation]) == 1
    assert "there is no directory absent" in capsys.readouterr().err
