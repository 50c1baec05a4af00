"""The steps of founding and joining a federation, as tests take them."""

from pathlib import Path

from crypto.keys import SigningKey, read_key_file
from federation.authority import admit, invite, opened
from federation.joining import join
from federation.members.certificates import utc_now
from federation.members.membership import TrustAnchor
from tests.harness.federated import NAME

NOW = utc_now()


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


def trust_anchor_of(place: Path) -> TrustAnchor:
    return TrustAnchor(NAME, SigningKey(read_key_file(place / "authority" / "authority.key")).public)
