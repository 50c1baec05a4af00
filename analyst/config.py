"""`consilo.toml`: which federation this is, whom it trusts, and which analyst asks."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analyst.errors import FederationError
from crypto.keys import Secret, VerifyKey, read_key_file
from crypto.roster import Roster, read_roster
from crypto.wire import Name


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    schema_: Literal["consilo/1"] = Field(alias="schema")
    mode: Literal["simulate"]
    federation: Name
    authority: str
    roster: str
    aggregator: str
    silos: Annotated[dict[Name, str], Field(min_length=1)]
    analysts: Annotated[dict[Name, str], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Config:
    """A federation as its `consilo.toml` describes it, with every path resolved."""

    path: Path
    federation: str
    roster: Roster
    aggregator: Path
    policies: dict[str, Path]
    analysts: dict[str, Path]

    def analyst_key(self, name: str | None, passphrase: Callable[[], str] | None = None) -> tuple[str, Secret]:
        """Return the name and root secret of an analyst; the only one if none is named.

        `passphrase` is asked if the key file is encrypted. Raises FederationError or CryptoError.
        """
        known = ", ".join(self.analysts)
        if name is None and len(self.analysts) > 1:
            raise FederationError("which analyst asks?", f"add --analyst NAME, one of: {known}")
        chosen = name if name is not None else next(iter(self.analysts))
        if chosen not in self.analysts:
            raise FederationError(f"unknown analyst {chosen!r}", f"{self.path} has keys of: {known}")
        return chosen, read_key_file(self.analysts[chosen], passphrase)


def read_config(path: Path) -> Config:
    """Read `consilo.toml`; raises FederationError or CryptoError."""
    try:
        file = _File.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError as err:
        raise FederationError(
            f"there is no {path}", "`consilo demo` makes one, or name yours with --federation"
        ) from err
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FederationError(f"{path}: {where}: {first['msg']}", "see docs/quickstart.md for the format") from err
    except (OSError, ValueError) as err:
        raise FederationError(f"{path} cannot be read: {err}", "it must be a TOML file") from err
    home = path.resolve().parent
    roster = read_roster(home / file.roster, VerifyKey.parse(file.authority))
    if roster.federation != file.federation or set(roster.silo_keys) != set(file.silos):
        message = f"{path} and its signed roster name different federations or silos"
        raise FederationError(message, "list the silos of the roster in consilo.toml, no others")
    return Config(
        path=path.resolve(),
        federation=file.federation,
        roster=roster,
        aggregator=home / file.aggregator,
        policies={silo: home / policy for silo, policy in file.silos.items()},
        analysts={name: home / key for name, key in file.analysts.items()},
    )
