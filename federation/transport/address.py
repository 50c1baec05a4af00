"""HOST:PORT as people type it: an aggregator's address for others to dial, and its address to listen on.

Promise: an accepted address is a host name, an IPv4 address or an IPv6 address in brackets (RFC 3986, section 3.2.2),
with a port, and gRPC never reads it as another kind of name.

    dialled("hub.example:8443")   dialled("[2001:db8::1]:8443")   listened("0.0.0.0:0")
"""

import ipaddress
import re

from crypto.errors import CryptoError

MAX_PORT = 65_535
_ADDRESS = re.compile(r"((?P<host>[A-Za-z0-9][A-Za-z0-9._-]{0,252})|\[(?P<ip>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})")
# gRPC reads these as the scheme of a name, not as a host: https://github.com/grpc/grpc/blob/master/doc/naming.md
_SCHEMES = frozenset({"dns", "google-c2p", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"})


def dialled(text: str) -> str:
    """Return an address that others can dial; raises CryptoError."""
    _checked(text, 1)
    host = text.rpartition(":")[0].strip("[]")
    if host.lower() in _SCHEMES:
        raise CryptoError(f"{text!r} would be taken for an address of the kind {host!r}", "name the host in full")
    try:
        is_unspecified = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        is_unspecified = re.fullmatch(r"[0.]+", host) is not None  # 0 and 0.0 mean 0.0.0.0 to a resolver
    if is_unspecified:
        raise CryptoError(f"{text!r} is no host that others can dial", "give its name, or its own address")
    return text


def listened(text: str) -> str:
    """Return an address to listen on; port 0 means any free port. Raises CryptoError."""
    return _checked(text, 0)


def port(text: str) -> int:
    """Return a port to listen on; 0 means any free port. Raises CryptoError."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > MAX_PORT:
        raise CryptoError(f"{text!r} is not a port", f"give a number from 0 to {MAX_PORT}")
    return int(text)


def _checked(text: str, least: int) -> str:
    found = _ADDRESS.fullmatch(text)
    if found is None or not least <= int(found["port"]) <= MAX_PORT or not _is_ip(found["ip"]):
        hint = f"expected such as hub.example:8443 or [2001:db8::1]:8443, the port from {least} to {MAX_PORT}"
        raise CryptoError(f"{text[:300]!r} is not HOST:PORT", hint)
    return text


def _is_ip(text: str | None) -> bool:
    try:
        return text is None or ipaddress.IPv6Address(text) is not None
    except ValueError:
        return False
