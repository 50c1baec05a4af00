"""`consilo status`: an aggregator's directory for its operator, or a federation as far as an analyst may see it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run
from typing import Any

from analyst.client import Federation
from analyst.errors import AnalystError
from crypto.errors import CryptoError
from federation.config import Config, read_config
from federation.errors import FederationError
from federation.local import is_up
from federation.members.certificates import Identity, days_left, utc_now
from federation.members.credentials import Credentials

AGGREGATOR_FILE = "aggregator.toml"


def aggregator_home(path: Path) -> Path | None:
    """Return the aggregator's directory that a path names, itself or by its file; None if it names none."""
    home = path.parent if path.name == AGGREGATOR_FILE else path
    return home if (home / AGGREGATOR_FILE).is_file() else None


def look_at(home: Path, command: str, *options: str) -> int:
    """Run `status` or `doctor` of the aggregator's own program, as this package never imports it."""
    sys.stdout.flush()
    return run([sys.executable, "-P", "-m", "aggregator", command, str(home), *options], check=False).returncode  # noqa: S603


def federation_status(path: Path) -> dict[str, Any]:
    """Return the members of a federation, and which silos answer this analyst now; raises FederationError."""
    config = read_config(path)
    found: dict[str, Any] = {
        "federation": config.federation,
        "mode": "simulate" if config.anchor is None else "federated",
        "silos": {name: {"answers": None} for name in sorted(config.roster.silo_keys)},
    }
    if config.anchor is None:
        return found | {"up": is_up(config)}
    found |= {"aggregator": config.dialled, **_membership(config)}
    try:
        with Federation.open(path) as federation:
            offer = federation.offer
    except (FederationError, AnalystError) as err:
        return found | {"problem": err.message}
    for name in found["silos"]:
        catalogue, reason = offer.silos.get(name), offer.reasons.get(name)
        found["silos"][name] = {"answers": catalogue is not None}
        if catalogue is not None:
            found["silos"][name]["policy_version"] = catalogue.policy_version
        elif reason is not None:
            found["silos"][name]["reason"] = reason.message
    return found


def _membership(config: Config) -> dict[str, Any]:
    if config.anchor is None or not config.analysts:
        return {}
    name = next(iter(config.analysts))
    try:
        credentials = Credentials(config.path.parent, config.anchor, Identity(config.federation, "analyst", name))
        left = round(days_left(credentials.certificate(), utc_now()), 1)
        return {"membership": len(credentials.log), "certificate_days_left": left}
    except CryptoError as err:
        return {"problem": err.message}


def show(found: dict[str, Any]) -> Iterator[str]:
    """Yield a status in words, for people."""
    yield f"{found['federation']}, {found['mode']} mode"
    if "up" in found:
        yield f"  {'up' if found['up'] else 'not up; a query starts it for itself'}"
    if "aggregator" in found:
        yield f"  aggregator   {found['aggregator']}"
    if "membership" in found:
        yield f"  membership   version {found['membership']}; certificate: {found['certificate_days_left']:g} days left"
    if "problem" in found:
        yield f"  problem      {found['problem']}"
    for name, one in found["silos"].items():
        state = {True: "answers", False: "does not answer", None: ""}[one["answers"]]
        version = f", policy version {one['policy_version']}" if "policy_version" in one else ""
        reason = f": {one['reason']}" if "reason" in one else ""
        yield f"  silo         {name}  {state}{version}{reason}".rstrip()


def as_json(found: dict[str, Any]) -> str:
    """Return a status as JSON."""
    return json.dumps(found, indent=2)
