"""The signed roster: read only as its authority signed it, and never with a name or key twice."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from crypto.errors import CryptoError
from crypto.keys import Secret, SigningKey
from crypto.rounds.messages import Failed
from crypto.sealing import SealingKey
from crypto.wire import sign
from federation.members.roster import AUTHORITY, Party, Roster, SiloParty, read_roster

KEY = SigningKey(Secret(bytes(32)))
OTHER_KEY = SigningKey(Secret(b"\1" * 32))
HUB_KEY = SigningKey(Secret(b"\2" * 32))
SEALING = SealingKey(Secret(b"\3" * 32)).public
KEYS = {"a": KEY.public, "b": OTHER_KEY.public}
ROSTER = Roster(
    federation="hospitals",
    version=1,
    silos=(
        SiloParty(name="a", key=str(KEY.public), sealing=SEALING),
        SiloParty(name="b", key=str(OTHER_KEY.public), sealing=SEALING),
    ),
    aggregators=(Party(name="hub", key=str(HUB_KEY.public)),),
)


def test_signed_roster_is_read(tmp_path: Path) -> None:
    path = tmp_path / "roster"
    path.write_bytes(sign(ROSTER, AUTHORITY, KEY))
    roster = read_roster(path, KEY.public)
    assert roster == ROSTER
    assert roster.silo_keys == KEYS
    assert roster.aggregator_keys == {"hub": HUB_KEY.public}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        ROSTER.encode(),
        sign(ROSTER, AUTHORITY, OTHER_KEY),
        sign(ROSTER, "a", KEY),
        sign(ROSTER, AUTHORITY, KEY)[:-1],
        sign(ROSTER, AUTHORITY, KEY) + b"\n",
        bytes(5 * Roster.MAX_BYTES),
        sign(Failed(federation="f", round_id=bytes(16), reason="no"), AUTHORITY, KEY),
    ],
    ids=["empty", "unsigned", "another key", "another signer", "cut", "extended", "oversize", "another kind"],
)
def test_other_roster_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "roster"
    path.write_bytes(content)
    with pytest.raises(CryptoError):
        read_roster(path, KEY.public)


def test_absent_roster_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CryptoError, match="cannot read"):
            read_roster(path, KEY.public)


def test_a_name_or_key_twice_or_malformed_is_no_roster() -> None:
    one, other = ROSTER.silos
    for silos in (
        (one, one),
        (one, SiloParty(name="c", key=one.key, sealing=SEALING)),
        (one, SiloParty(name="hub", key=other.key, sealing=SEALING)),
    ):
        with pytest.raises(ValidationError, match="occurs twice"):
            Roster(federation="hospitals", version=1, silos=silos, aggregators=ROSTER.aggregators)
    with pytest.raises(ValidationError):
        Party(name="a", key="ed25519:" + "0" * 63)


def test_a_party_has_a_place_only_where_the_authority_gives_it_one() -> None:
    silo = SiloParty(name="a", key=str(KEY.public), sealing=SEALING)
    hub = Party(name="hub", key=str(HUB_KEY.public))
    assert b"jurisdiction" not in silo.encode()  # as it was encoded before there were places
    there = SiloParty(name="b", key=str(OTHER_KEY.public), sealing=SEALING, jurisdiction="EU-DE")
    roster = Roster(federation="f", version=1, silos=(silo, there), aggregators=(hub,))
    assert Roster.decode(roster.encode()) == roster
    assert roster.silo_jurisdictions == {"b": "EU-DE"}
    assert roster.aggregator_jurisdictions == {"hub": None}
    for place in ("eu", "Germany", "EU-", ""):
        with pytest.raises(ValidationError, match="jurisdiction"):
            Party(name="hub", key=str(HUB_KEY.public), jurisdiction=place)
