"""The signed list of who belongs to a federation and with which identity keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from crypto.errors import CryptoError, SignatureError
from crypto.keys import VerifyKey
from crypto.wire import MAX_SILOS, Count, Message, Name, verify

AUTHORITY = "authority"


class Party(Message):
    """An organisation and the text form of its verification key."""

    name: Name
    key: Annotated[str, Field(max_length=72, pattern=r"^ed25519:[0-9a-f]{64}$")]


class Roster(Message):
    """Who may take part, signed by the federation's authority."""

    KIND: ClassVar[str] = "roster"
    federation: Name
    version: Count
    silos: Annotated[tuple[Party, ...], Field(min_length=1, max_length=MAX_SILOS)]
    aggregators: Annotated[tuple[Party, ...], Field(min_length=1, max_length=8)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        parties = (*self.silos, *self.aggregators)
        if len({party.name for party in parties}) != len(parties) or len({party.key for party in parties}) != len(
            parties
        ):
            raise ValueError("a name or a key stands twice in the roster")
        return self

    @property
    def silo_keys(self) -> Mapping[str, VerifyKey]:
        return {party.name: VerifyKey.parse(party.key) for party in self.silos}

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
