"""The aggregator's own directory: identity.key, aggregator.toml, roster.signed, reports/ and contributions/."""

import tomllib
from pathlib import Path

from aggregator.errors import AggregatorError
from aggregator.rounds import Aggregator
from crypto.keys import SigningKey, VerifyKey, read_key_file
from crypto.roster import read_roster

_KEYS = {"name": str, "federation": str, "authority": str}


def read_home(path: Path) -> Aggregator:
    """Read the directory; raises AggregatorError or CryptoError."""
    try:
        settings = tomllib.loads((path / "aggregator.toml").read_text())
        if set(settings) != set(_KEYS) or any(type(settings[key]) is not kind for key, kind in _KEYS.items()):
            raise ValueError(f"expected exactly the keys {', '.join(_KEYS)}")
    except (OSError, ValueError) as err:
        hint = "it names the aggregator, its federation and the authority's key; restore it"
        raise AggregatorError(f"{path / 'aggregator.toml'} cannot be read ({err})", hint) from err
    roster = read_roster(path / "roster.signed", VerifyKey.parse(settings["authority"]))
    signing = SigningKey(read_key_file(path / "identity.key"))
    if roster.aggregator_keys.get(settings["name"]) != signing.public or roster.federation != settings["federation"]:
        message = "the roster does not name this aggregator with this identity key in this federation"
        raise AggregatorError(message, "restore identity.key, or ask the authority for a roster that names it")
    return Aggregator(settings["name"], roster.federation, signing, roster.silo_keys)
