"""The names under which policies, jobs and requests have networks."""

REGISTERED = frozenset(
    {"mlp", "cnn", "recommender", "language-model", "autoencoder"}
)  # whose graphs this program makes
PACKED = "network"  # of any graph, which its SHA-256 names
NETWORKS = REGISTERED | {PACKED}
_PREFIX = "sha256:"
HASH_PATTERN = r"^sha256:[0-9a-f]{64}$"


def name_of(digest: bytes) -> str:
    """Return the name of a packed file, as jobs and commands have it, by its SHA-256."""
    return _PREFIX + digest.hex()


def digest_named(name: str) -> bytes:
    """Return the SHA-256 that a name has; raises ValueError for a text that is no such name."""
    digits = name.removeprefix(_PREFIX)
    if len(digits) != 64 or digits.strip("0123456789abcdef"):
        raise ValueError(f"{name[:80]!r} is no hash, expected {_PREFIX} and 64 hexadecimal digits")
    return bytes.fromhex(digits)
