"""Checks of this machine, the installation and a federation, each with its finding and a remedy."""

import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from crypto.errors import CryptoError, PassphraseNeededError
from crypto.keys import read_key_file
from federation.config import Config, read_config
from federation.errors import FederationError
from federation.local import homes_of, is_up
from federation.members.certificates import Identity, utc_now
from federation.members.credentials import Credentials
from federation.members.membership import TrustAnchor
from federation.operations import ray_directory
from federation.operations.checks import Finding, certificate_expiry, closed_home, code, ok_if
from federation.operations.cluster import RAY_TOKEN

_OURS = ("silo_node", "aggregator", "analyst", "federation", "policies", "crypto")
_MIN_FREE_BYTES = 2 << 30
_MIN_SHARED_BYTES = 160 << 20


def examine(federation: Path | None) -> list[Finding]:
    """Run every check; those of a federation only if its consilo.toml is given."""
    findings = [*_installation(), *_machine()]
    if federation is not None:
        findings += _federation(federation)
    return findings


def _installation() -> Iterator[Finding]:
    python = sys.version.split()[0]
    yield Finding("Python", ok_if(sys.version_info[:2] == (3, 11)), python, "use Python 3.11")
    yield code()
    for name in ("ray", "cryptography", "duckdb", "opendp"):
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "FAIL", "not installed", "install Consilo anew, from requirements.lock")
    root = Path(__file__).resolve().parents[2]
    owners = packages_distributions()
    for name in _OURS:
        place = Path(import_module(name).__file__ or "").resolve()
        others = set(owners.get(name, [])) - {"consilo"}
        is_ours = place.is_relative_to(root) and not others
        found = str(place.parent) if place.is_relative_to(root) else f"{place.parent}, which is not Consilo's"
        shown = found if not others else f"also installed by {', '.join(sorted(others))}"
        yield Finding(f"package {name}", ok_if(is_ours), shown, "install Consilo into an environment of its own")


def _machine() -> Iterator[Finding]:
    yield from ray_directory.findings(_MIN_FREE_BYTES)
    shared = Path("/dev/shm")  # noqa: S108
    room = shutil.disk_usage(shared).free if shared.exists() else 0
    remedy = "give /dev/shm 160 MiB (in a container: --shm-size=256m)"
    yield Finding("shared memory", ok_if(room >= _MIN_SHARED_BYTES), f"{room / 2**20:.0f} MiB in /dev/shm", remedy)


def _federation(path: Path) -> Iterator[Finding]:
    try:
        config = read_config(path)
    except (FederationError, CryptoError) as err:
        yield Finding("federation", "FAIL", err.message, err.hint)
        return
    signed = f"{config.federation}, {len(config.roster.silos)} silos, its signed roster holds"
    yield Finding("federation", "ok", signed)
    if config.anchor is not None:
        yield closed_home(path.absolute().parent)
        yield from _member(config, config.anchor)
        return
    for home in homes_of(config):
        yield closed_home(home)
    token = path.resolve().parent / RAY_TOKEN
    remedy = "restore it, or found the federation anew"
    yield Finding(
        "token of the local cluster", ok_if(token.is_file()), "there" if token.is_file() else "missing", remedy
    )
    yield Finding("running", "ok", "up" if is_up(config) else "not up; a query starts it for itself")
    for name, key in config.analysts.items():
        try:
            read_key_file(key)
            yield Finding(f"key of analyst {name}", "ok", "readable, and by its owner only")
        except PassphraseNeededError:
            yield Finding(f"key of analyst {name}", "ok", "encrypted, and readable by its owner only")
        except CryptoError as err:
            yield Finding(f"key of analyst {name}", "FAIL", err.message, err.hint)


def _member(config: Config, anchor: TrustAnchor) -> Iterator[Finding]:
    """Check an analyst's certificate and membership in a federation between organisations, without connecting."""
    for name in config.analysts:
        try:
            credentials = Credentials(config.path.parent, anchor, Identity(config.federation, "analyst", name))
            certificate = credentials.certificate()
            yield certificate_expiry(f"certificate of {name}", certificate, utc_now())
            credentials.membership.peer(certificate)
            version = f"version {len(credentials.log)}, {config.dialled} is dialled"
            yield Finding(f"membership of {name}", "ok", version)
        except CryptoError as err:
            yield Finding(f"membership of {name}", "FAIL", err.message, err.hint)
