"""Found a simulated federation in a directory: keys, signed roster, `consilo.toml`.

One operator makes every key here, which is what simulate mode means; between real organisations each makes its own.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from crypto.keys import Secret, SigningKey, VerifyKey, write_key_file
from crypto.sealing import SealingKey
from crypto.wire import sign
from federation.members.roster import AUTHORITY, Party, Roster, SiloParty

AGGREGATOR = "aggregator"
TICK_MS = 10


def found(
    path: Path,
    federation: str,
    silos: Mapping[str, str | None],
    analysts: tuple[str, ...],
    jurisdiction: str | None = None,
) -> dict[str, VerifyKey]:
    """Create the directory tree of a federation; return the analysts' verification keys, for the policies.

    `silos` says where each of them is, `jurisdiction` where the aggregator is; None is nowhere that anybody knows.
    Each silo still needs its policy.toml and data in `silos/NAME/`. Raises FileExistsError or CryptoError if something
    stands there already.
    """
    path.mkdir(parents=True, exist_ok=True)
    authority = SigningKey(_new_key(path / "authority.key"))
    homes = {silo: path / "silos" / silo for silo in silos} | {AGGREGATOR: path / AGGREGATOR}
    parties: dict[str, SiloParty] = {}
    for name, home in homes.items():
        home.mkdir(mode=0o700, parents=True)
        root = _new_key(home / "identity.key")
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
        (home / "roster.signed").write_bytes(envelope)
    for silo in silos:
        (homes[silo] / "silo.toml").write_text(f"{common}tick_ms = {TICK_MS}\n")
    (homes[AGGREGATOR] / "aggregator.toml").write_text(f'name = "{AGGREGATOR}"\n{common}')
    (path / "analysts").mkdir(mode=0o700)
    public = {name: SigningKey(_new_key(path / "analysts" / f"{name}.key")).public for name in analysts}
    (path / "consilo.toml").write_text(
        f'schema = "consilo/1"\nmode = "simulate"   # one Ray cluster on this machine: one trust domain\n{common}'
        f'roster = "roster.signed"\naggregator = "{AGGREGATOR}"\n\n[silos]\n'
        + "".join(f'"{silo}" = "silos/{silo}/policy.toml"\n' for silo in silos)
        + "\n[analysts]\n"
        + "".join(f'"{name}" = "analysts/{name}.key"\n' for name in analysts)
    )
    token = os.open(path / "ray.token", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(token, "w") as file:
        file.write(Secret.generate().raw.hex())
    return public


def _new_key(path: Path) -> Secret:
    root = Secret.generate()
    write_key_file(path, root)
    return root
