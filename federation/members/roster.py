"""The signed list of a federation's silos and aggregators: their identity keys, sealing keys and jurisdictions.

Promises: a roster that `read_roster` returns is signed by the federation's authority, and in it no name and no key
occurs twice. docs/protocol.md, section 2.3.

    roster = read_roster(home / "roster.signed", authority)
    keys = roster.silo_keys  # "aspen" -> the key that verifies what aspen signs
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from crypto.errors import CryptoError, SignatureError
from crypto.keys import VerifyKey
from crypto.rounds.manifest import PublicKey, Recipient
from crypto.wire import MAX_SILOS, Count, Jurisdiction, Message, Name, verify

AUTHORITY = "authority"
# Left out of the encoding if it is not known.
JurisdictionOrNone = Annotated[Jurisdiction | None, Field(default=None, exclude_if=lambda value: value is None)]


class Party(Message):
    """An organisation and the text form of its verification key."""

    name: Name
    key: Annotated[str, Field(max_length=72, pattern=r"^ed25519:[0-9a-f]{64}$")]
    jurisdiction: JurisdictionOrNone = None


class SiloParty(Party):
    """A silo, and the public key to which messages for it alone are sealed."""

    sealing: PublicKey


class Roster(Message):
    """Who may take part, signed by the federation's authority."""

    KIND: ClassVar[str] = "roster"
    MAX_BYTES: ClassVar[int] = 2 << 20
    federation: Name
    version: Count
    silos: Annotated[tuple[SiloParty, ...], Field(min_length=1, max_length=MAX_SILOS)]
    aggregators: Annotated[tuple[Party, ...], Field(min_length=1, max_length=8)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        parties: tuple[Party, ...] = (*self.silos, *self.aggregators)
        if len({party.name for party in parties}) != len(parties) or len({party.key for party in parties}) != len(
            parties
        ):
            raise ValueError("a name or a key occurs twice in the roster")
        return self

    @property
    def silo_keys(self) -> Mapping[str, VerifyKey]:
        return {party.name: VerifyKey.parse(party.key) for party in self.silos}

    def recipients(self, silos: Iterable[str]) -> tuple[Recipient, ...]:
        """Return these silos as recipients of a sum; raises KeyError for one that the roster lacks."""
        keys = {party.name: party.sealing for party in self.silos}
        return tuple(Recipient(name=silo, key=keys[silo]) for silo in silos)

    @property
    def silo_jurisdictions(self) -> Mapping[str, str]:
        """The jurisdiction of each silo that has declared one."""
        return {party.name: party.jurisdiction for party in self.silos if party.jurisdiction is not None}

    @property
    def aggregator_jurisdictions(self) -> Mapping[str, str | None]:
        """The jurisdiction of each aggregator; None where it has declared none."""
        return {party.name: party.jurisdiction for party in self.aggregators}

    @property
    def aggregator_keys(self) -> Mapping[str, VerifyKey]:
        return {party.name: VerifyKey.parse(party.key) for party in self.aggregators}


def read_roster(path: Path, authority: VerifyKey) -> Roster:
    """Read a signed roster file; raises CryptoError if it is absent, malformed or not signed by `authority`."""
    try:
        with path.open("rb") as file:
            envelope = file.read(Roster.MAX_BYTES * 2)
    except OSError as err:
        raise CryptoError(f"cannot read the roster {path}", "ask the federation's authority for it") from err
    try:
        return verify(envelope, Roster, {AUTHORITY: authority}).message
    except SignatureError as err:
        hint = "compare `authority` in the settings beside it with the key that the authority published"
        raise SignatureError(f"{path} is not signed by {authority}", hint) from err
