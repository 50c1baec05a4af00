"""The settings under which an organisation's own Ray cluster is safe to start; this module does not import Ray.

Ray has no isolation inside a cluster: anybody with its token controls it. So a cluster belongs to one organisation. On
one machine it listens on loopback only; over several machines its nodes use TLS with each other. Promises: only its
owner can read the token, and a node's certificate names the node's address, as Ray would wait for ever otherwise.
Ray's documentation, "Token authentication" and "TLS authentication".

    ensure_token(home / RAY_TOKEN)
    os.environ |= cluster_environment(home / RAY_TOKEN)  # before Ray is imported
"""

import os
import stat
from pathlib import Path

from crypto.errors import CertificateError, CryptoError
from crypto.randomness import token
from federation.members.certificates import check_address, pin_of, read_certificate, read_transport_key
from federation.operations.load import patience

RAY_TOKEN = "ray.token"  # noqa: S105  a file name
MIN_TOKEN_CHARACTERS = 32
MAX_TOKEN_BYTES = 4096
AGENTS_S = 60.0  # how long a node of Ray waits for its agents, on an idle machine


def ensure_token(path: Path) -> None:
    """Make the cluster's token for its owner only (mode 0600), or check the one that is there; raises CryptoError."""
    try:
        make_token(path)
    except FileExistsError:
        check_token(path)
    except OSError as err:
        raise CryptoError(
            f"cannot make {path} ({err.strerror})", "check its directory and the free disk space"
        ) from err


def make_token(path: Path) -> None:
    """Make the cluster's token for its owner only (mode 0600); raises FileExistsError or another OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token(32).hex())


def check_token(path: Path) -> bool:
    """Return whether there is a token file, without making one.

    Raises CryptoError unless 1. the file can be read, 2. only this user can read it, 3. it contains a token.
    """
    if not os.path.lexists(path):
        return False
    hint = f"move it away while nothing runs here, and a new one is made: {path}"
    # 1.
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            found, raw = os.fstat(file.fileno()), file.read(MAX_TOKEN_BYTES)
    except OSError as err:
        raise CryptoError(f"cannot read {path} ({err.strerror})", hint) from err
    if not stat.S_ISREG(found.st_mode):
        raise CryptoError(f"{path} is not a file", hint)
    # 2.
    if found.st_uid != os.geteuid():
        message = f"{path} belongs to the user {found.st_uid}, this one is {os.geteuid()}"
        raise CryptoError(message, "chown it, or run as its owner")
    if (mode := stat.S_IMODE(found.st_mode)) & 0o077:
        raise CryptoError(f"{path} can be read by others (mode {mode:04o})", hint)
    # 3.
    try:
        text = raw.decode()
    except UnicodeDecodeError as err:
        raise CryptoError(f"{path} is not text in UTF-8", hint) from err
    if len(text.strip()) < MIN_TOKEN_CHARACTERS:
        raise CryptoError(f"{path} is too short for a token", hint)
    return True


def cluster_environment(token_path: Path) -> dict[str, str]:
    """Return Ray's settings for a cluster on this machine alone: token, loopback, and no usage statistics."""
    return {
        "PYTHONSAFEPATH": "1",  # the current directory is not code, in no process of the cluster
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path.resolve()),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for loopback instead of the host's address
        "RAY_DEDUP_LOGS": "0",
        "RAY_agent_register_timeout_ms": str(int(AGENTS_S * 1000 * patience())),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "GRPC_VERBOSITY": "NONE",
        "GLOG_minloglevel": "3",
    }


def nodes_environment(token_path: Path, tls: Path, address: str) -> dict[str, str]:
    """Return Ray's settings for a cluster over several machines, of which this one has `address`.

    `tls` holds node.key, node.pem and ca.pem. Raises CryptoError unless the key belongs to the certificate and the
    certificate names `address`.
    """
    key, certificate, authority = tls / "node.key", tls / "node.pem", tls / "ca.pem"
    try:
        found = read_certificate(certificate.read_bytes())
        read_certificate(authority.read_bytes())
    except OSError as err:
        raise CertificateError(f"cannot read {err.filename}", f"{tls} holds node.key, node.pem and ca.pem") from err
    if pin_of(read_transport_key(key).public_key()) != pin_of(found.public_key()):
        raise CertificateError(f"{key} and {certificate} do not belong together")
    check_address(found, address)
    environment = cluster_environment(token_path)
    del environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
    return environment | {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(certificate.resolve()),
        "RAY_TLS_SERVER_KEY": str(key.resolve()),
        "RAY_TLS_CA_CERT": str(authority.resolve()),
    }
