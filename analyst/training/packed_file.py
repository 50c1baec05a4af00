"""The packed file that a job names: read, and checked by the hash that the job has."""

from pathlib import Path

from analyst.errors import AnalystError
from crypto.errors import CryptoError
from policies.networks.packed import MAX_BYTES, decoded


def read_packed(path: Path, name: str | None) -> bytes:
    """Return a packed file whose network has this name, or any without one; raises AnalystError."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        found = decoded(data)
    except OSError as err:
        hint = "name the file that `consilo model pack` wrote"
        raise AnalystError(f"{path} cannot be read ({err.strerror or type(err).__name__})", hint) from err
    except CryptoError as err:
        raise AnalystError(f"{path}: {err.message}", err.hint) from err
    if name not in (None, found.name):
        hint = f'write graph = "{found.name}", or name the file of the other network'
        raise AnalystError(f"{path} is the network {found.name}, and the job names {name}", hint)
    return data
