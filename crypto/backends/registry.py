"""The five backends by the names that requests and policies use; docs/backends.md."""

from collections.abc import Mapping
from types import MappingProxyType

from crypto.backends.bfv import BfvBackend
from crypto.backends.ckks import CkksBackend
from crypto.backends.masking import MaskingBackend
from crypto.backends.paillier import PaillierBackend
from crypto.backends.scheme import Backend
from crypto.backends.shares import SharesBackend
from crypto.errors import ProtocolError


def backend(name: str) -> Backend:
    """Return the backend of this name; raises ProtocolError if there is none."""
    if name not in BACKENDS:
        raise ProtocolError(f"unknown backend {name!r}, expected one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


_ALL: tuple[Backend, ...] = (
    MaskingBackend(),
    SharesBackend(),
    BfvBackend(),
    CkksBackend(),
    PaillierBackend(),
)
BACKENDS: Mapping[str, Backend] = MappingProxyType({one.name: one for one in _ALL})
