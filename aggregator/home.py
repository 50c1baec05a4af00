"""The aggregator's own directory: who it is, by identity.key, aggregator.toml and roster.signed."""

import tomllib
from pathlib import Path

from aggregator.errors import AggregatorError
from aggregator.rounds import Aggregator
from crypto.keys import SigningKey, VerifyKey, read_key_file
from federation.members.certificates import Identity
from federation.members.credentials import IDENTITY_KEY, ROSTER, Credentials
from federation.members.membership import TrustAnchor
from federation.members.roster import read_roster

_KEYS = ("name", "federation", "authority")


def read_home(path: Path) -> Aggregator:
    """Read the directory; raises AggregatorError or CryptoError."""
    name, anchor = _read_settings(path)
    roster = read_roster(path / ROSTER, anchor.authority)
    signing = SigningKey(read_key_file(path / IDENTITY_KEY))
    if roster.aggregator_keys.get(name) != signing.public or roster.federation != anchor.federation:
        message = "the roster does not name this aggregator with this identity key in this federation"
        raise AggregatorError(message, "restore identity.key, or ask the authority for a roster that names it")
    return Aggregator(name, roster.federation, signing, roster.silo_keys)


def read_credentials(path: Path) -> Credentials:
    """Read the aggregator's files for its connections; raises AggregatorError or CryptoError."""
    name, anchor = _read_settings(path)
    return Credentials(path, anchor, Identity(anchor.federation, "aggregator", name))


def _read_settings(path: Path) -> tuple[str, TrustAnchor]:
    try:
        settings = tomllib.loads((path / "aggregator.toml").read_text())
        if set(settings) != set(_KEYS) or any(type(settings[key]) is not str for key in _KEYS):
            raise ValueError(f"expected exactly the keys {', '.join(_KEYS)}")
    except (OSError, ValueError) as err:
        hint = "name the directory of an aggregator, whose file names it, its federation and the authority's key"
        raise AggregatorError(f"{path / 'aggregator.toml'} cannot be read ({err})", hint) from err
    return settings["name"], TrustAnchor(settings["federation"], VerifyKey.parse(settings["authority"]))
