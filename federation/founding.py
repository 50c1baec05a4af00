"""Found a simulated federation in a directory: keys, signed roster, `consilo.toml`.

One operator makes every key here, as simulate mode is one trust domain. In federated mode each organisation makes its
own keys (`federation.joining`).
"""

from collections.abc import Mapping
from pathlib import Path

from crypto.keys import Secret, SigningKey, VerifyKey, write_key_file
from crypto.sealing import SealingKey
from crypto.wire import sign
from federation.files import replace_file
from federation.members.credentials import IDENTITY_KEY, ROSTER
from federation.members.roster import AUTHORITY, Party, Roster, SiloParty
from federation.operations.cluster import RAY_TOKEN, make_token

AGGREGATOR = "aggregator"
TICK_MS = 10
SILO_FILES = (IDENTITY_KEY, ROSTER, "silo.toml")  # in the directory of each silo


def found(
    path: Path,
    federation: str,
    silos: Mapping[str, str | None],
    analysts: tuple[str, ...],
    jurisdiction: str | None = None,
) -> dict[str, VerifyKey]:
    """Create the directory tree of a federation; return the analysts' verification keys, for the policies.

    `silos` has the jurisdiction of each silo, `jurisdiction` is that of the aggregator; None means not declared.
    Each silo still needs its policy.toml and data in `silos/NAME/`. Raises FileExistsError or CryptoError if a file is
    there already.
    """
    path.mkdir(parents=True, exist_ok=True)
    authority = SigningKey(_new_key(path / "authority.key"))
    homes = {silo: path / "silos" / silo for silo in silos} | {AGGREGATOR: path / AGGREGATOR}
    parties: dict[str, SiloParty] = {}
    for name, home in homes.items():
        home.mkdir(mode=0o700, parents=True)
        root = _new_key(home / IDENTITY_KEY)
        parties[name] = SiloParty(
            name=name,
            key=str(SigningKey(root).public),
            sealing=SealingKey(root).public,
            jurisdiction=silos.get(name, jurisdiction),
        )
    aggregator = parties.pop(AGGREGATOR)
    roster = Roster(
        federation=federation,
        version=1,
        silos=tuple(parties[silo] for silo in sorted(silos)),
        aggregators=(Party(name=AGGREGATOR, key=aggregator.key, jurisdiction=jurisdiction),),
    )
    envelope = sign(roster, AUTHORITY, authority)
    common = f'federation = "{federation}"\nauthority = "{authority.public}"\n'
    for home in (path, *homes.values()):
        replace_file(home / ROSTER, envelope)
    for silo in silos:
        replace_file(homes[silo] / SILO_FILES[-1], f"{common}tick_ms = {TICK_MS}\n".encode())
    replace_file(homes[AGGREGATOR] / "aggregator.toml", f'name = "{AGGREGATOR}"\n{common}'.encode())
    (path / "analysts").mkdir(mode=0o700)
    public = {name: SigningKey(_new_key(path / "analysts" / f"{name}.key")).public for name in analysts}
    text = (
        f'schema = "consilo/1"\nmode = "simulate"   # one Ray cluster on this machine: one trust domain\n{common}'
        f'roster = "{ROSTER}"\naggregator = "{AGGREGATOR}"\n\n[silos]\n'
        + "".join(f'"{silo}" = "silos/{silo}/policy.toml"\n' for silo in silos)
        + "\n[analysts]\n"
        + "".join(f'"{name}" = "analysts/{name}.key"\n' for name in analysts)
    )
    replace_file(path / "consilo.toml", text.encode())
    make_token(path / RAY_TOKEN)
    return public


def _new_key(path: Path) -> Secret:
    root = Secret.generate()
    write_key_file(path, root)
    return root
