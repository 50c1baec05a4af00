"""A passphrase for backups, in a file of its owner."""

from pathlib import Path

WORDS = "correct horse battery staple"


def words_in(place: Path) -> Path:
    """Write the passphrase into a file there, which only its owner can read, and return it."""
    path = place / "words"
    path.write_text(f"{WORDS}\n")
    path.chmod(0o600)
    return path
