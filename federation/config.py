"""`consilo.toml`: the federation, its trust anchor, its parties' paths, and the analysts' keys."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crypto.keys import Secret, VerifyKey, read_key_file
from crypto.wire import Name, verify
from federation.errors import FederationError
from federation.members.membership import LOG, TrustAnchor, read_log
from federation.members.roster import AUTHORITY, Roster, read_roster


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


class _Federated(BaseModel):
    """`mode = "federated"`: the members are in membership.log in the same directory."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    schema_: Literal["consilo/1"] = Field(alias="schema")
    mode: Literal["federated"]
    federation: Name
    authority: str
    aggregator: Annotated[str, Field(max_length=120)] = ""
    analysts: Annotated[dict[Name, str], Field(max_length=1)] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """A federation as its `consilo.toml` describes it, with every path resolved."""

    path: Path
    federation: str
    roster: Roster
    aggregator: Path
    policies: dict[str, Path]
    analysts: dict[str, Path]
    anchor: TrustAnchor | None = None  # of a federation between organisations; None in simulate mode
    dialled: str = ""  # the name of the aggregator that is dialled, in federated mode
    aggregators: tuple[str, ...] = ()  # the names of all, in federated mode

    def analyst_name(self, name: str | None) -> str:
        """Return the name of an analyst whose key is here; without a name, of the only one. Raises FederationError."""
        known = ", ".join(self.analysts)
        if not self.analysts:
            raise FederationError(f"{self.path} has no analyst's key", "ask from where an analyst has joined")
        if name is None and len(self.analysts) > 1:
            raise FederationError("which analyst asks?", f"add --analyst NAME, one of: {known}")
        chosen = name if name is not None else next(iter(self.analysts))
        if chosen not in self.analysts:
            raise FederationError(f"unknown analyst {chosen!r}", f"{self.path} has keys of: {known}")
        return chosen

    def analyst_key(self, name: str | None, passphrase: Callable[[], str] | None = None) -> tuple[str, Secret]:
        """Return the name and root secret of an analyst; without a name, of the only one.

        `passphrase` is called if the key file is encrypted. Raises FederationError or CryptoError.
        """
        chosen = self.analyst_name(name)
        return chosen, read_key_file(self.analysts[chosen], passphrase)


def read_config(path: Path) -> Config:
    """Read `consilo.toml`; raises FederationError or CryptoError."""
    file = _read(path, "consilo demo")
    if isinstance(file, _Federated):
        return _federated(path, file)
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


def read_trust_anchor(path: Path) -> TrustAnchor:
    """Return the trust anchor in the `consilo.toml` of a federated mode; raises FederationError or CryptoError."""
    file = _read(path, "consilo federation new")
    if not isinstance(file, _Federated):
        raise FederationError(f"{path} describes a simulated federation", "found one with `consilo federation new`")
    return TrustAnchor(file.federation, VerifyKey.parse(file.authority))


def _read(path: Path, makes: str) -> _File | _Federated:
    try:
        settings = tomllib.loads(path.read_text())
        return (_Federated if settings.get("mode") == "federated" else _File).model_validate(settings)
    except FileNotFoundError as err:
        hint = f"`{makes}` makes one, or name yours with --federation"
        raise FederationError(f"there is no {path}", hint) from err
    except IsADirectoryError as err:
        raise FederationError(
            f"{path} is a directory", f"name the consilo.toml of one: {path / 'consilo.toml'}"
        ) from err
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FederationError(f"{path}: {where}: {first['msg']}", "see docs/commands.md for the format") from err
    except (OSError, ValueError) as err:
        raise FederationError(f"{path} cannot be read: {err}", "it must be a TOML file") from err


def _federated(path: Path, file: _Federated) -> Config:
    home = path.resolve().parent
    anchor = TrustAnchor(file.federation, VerifyKey.parse(file.authority))
    membership = read_log(home / LOG, anchor).membership
    aggregators = sorted(member.name for member in membership.of_role("aggregator"))
    if not aggregators:
        message = f"{file.federation} has no aggregator in version {membership.version} of the membership"
        raise FederationError(message, f"once the authority has admitted one, copy its membership.log to {home}")
    if membership.roster:
        roster = verify(membership.roster, Roster, {AUTHORITY: anchor.authority}).message
    else:  # this log has no such member; the aggregator may have a newer log
        roster = Roster.model_construct(federation=file.federation, version=0, silos=(), aggregators=())
    return Config(
        path=path.resolve(),
        federation=file.federation,
        roster=roster,
        aggregator=home,
        policies={},
        analysts={name: home / key for name, key in file.analysts.items()},
        anchor=anchor,
        dialled=file.aggregator or aggregators[0],
        aggregators=tuple(aggregators),
    )
